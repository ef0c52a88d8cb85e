import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Worker } from 'node:worker_threads'
import { check, errnoName, OsError } from './error.ts'
import { faulty } from './fault.test-data.ts'
import { E, O_CLOEXEC, O_NONBLOCK, POLLFD, POLLIN } from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOfText, createBlock } from './memory.ts'

const os = openLibc()

describe('libc', () => {
  it('gives a descriptor, and bytes read', () => {
    const path = blockOfText('/proc/self/comm')
    const fd = os.open(path.base, O_CLOEXEC, 0)
    assert.ok(fd >= 0)
    const buffer = createBlock(64)
    assert.ok(os.read(fd, buffer.base, 64) > 0)
    assert.equal(os.read(fd, buffer.base, 64), 0, 'the end is 0')
    assert.equal(os.close(fd), 0)
    assert.equal(os.close(fd), -9, 'EBADF')
  })

  it('gives -errno of each failure, not of an earlier one', () => {
    const missing = blockOfText('/proc/none/such')
    const directory = blockOfText('/proc')
    assert.equal(os.open(missing.base, 0, 0), -E.ENOENT)
    assert.equal(os.open(directory.base, 2, 0), -21, 'EISDIR')
    assert.equal(os.open(missing.base, 0, 0), -E.ENOENT)
    assert.equal(os.syscall(-1, 0, 0, 0, 0, 0, 0), -38, 'ENOSYS')
  })

  it('waits with poll and epoll for an eventfd', () => {
    const fd = os.eventfd(0, O_NONBLOCK | O_CLOEXEC)
    const wait = createBlock(POLLFD.size)
    wait.view.setInt32(POLLFD.fd, fd, true)
    wait.view.setInt16(POLLFD.events, POLLIN, true)
    const count = createBlock(8)
    assert.equal(os.read(fd, count.base, 8), -E.EAGAIN)
    assert.equal(os.poll(wait.base, 1, 0), 0)
    count.view.setBigUint64(0, 5n, true)
    assert.equal(os.write(fd, count.base, 8), 8)
    assert.equal(os.poll(wait.base, 1, 1000), 1)
    assert.equal(wait.view.getInt16(POLLFD.revents, true), POLLIN)
    assert.equal(os.read(fd, count.base, 8), 8)
    assert.equal(count.view.getBigUint64(0, true), 5n)
    os.close(fd)
  })

  it('opens a process and takes a descriptor of it', () => {
    const pidfd = os.pidfdOpen(process.pid, 0)
    assert.ok(pidfd >= 0)
    const taken = os.pidfdGetfd(pidfd, 2, 0)
    assert.ok(taken > 2)
    os.close(taken)
    os.close(pidfd)
  })

  it('has an errno per thread', async () => {
    const source = `
      import { workerData, parentPort } from 'node:worker_threads'
      const { openLibc } = await import(workerData)
      parentPort.postMessage(openLibc().close(-1))`
    const url = `data:text/javascript,${encodeURIComponent(source)}`
    const worker = new Worker(new URL(url), {
      workerData: new URL('./libc.ts', import.meta.url).href,
    })
    const answer = await new Promise((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    assert.equal(answer, -9)
    await worker.terminate()
  })
})

describe('OsError', () => {
  it('names the error and the call', () => {
    assert.throws(
      () => check(-E.EBUSY, 'bind', 'cannot bind'),
      (error) =>
        error instanceof OsError &&
        error.code === 'EBUSY' &&
        error.errno === E.EBUSY &&
        error.call === 'bind' &&
        error.message === 'cannot bind: EBUSY (bind)',
    )
    assert.equal(check(3, 'bind', 'cannot bind'), 3)
  })

  for (const [name, errno] of Object.entries(E)) {
    it(`${errno} is ${name}`, () => assert.equal(errnoName(errno), name))
  }
})

describe('faults', () => {
  it('strike the chosen calls, and only those', () => {
    const { syscalls, struck } = faulty(os, [
      { call: 'close', skip: 1, times: 2, result: -E.EIO },
      { call: 'read', shorten: 3 },
    ])
    const results = [0, 1, 2, 3].map(() => syscalls.close(-1))
    assert.deepEqual(results, [-9, -E.EIO, -E.EIO, -9])
    const path = blockOfText('/proc/self/status')
    const fd = syscalls.open(path.base, O_CLOEXEC, 0)
    const buffer = createBlock(16)
    assert.equal(syscalls.read(fd, buffer.base, 16), 3)
    assert.equal(syscalls.read(fd, buffer.base, 16), 16)
    assert.equal(os.close(fd), 0)
    assert.deepEqual(struck, [2, 1])
  })
})
