import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { describe, it } from 'node:test'
import { faulty } from './fault.test-data.ts'
import { holdsSocket, openProcess, peerCredentials, receiveFd, sendFd, takeFd } from './fds.ts'
import { E, POLLFD, POLLIN } from './layout.ts'
import { openLibc } from './libc.ts'
import { createBlock } from './memory.ts'
import { openPair } from './relay.ts'
import { inspectSocket, openUdp } from './udp.ts'

const os = openLibc()

function ended(pidfd: number): boolean {
  const wait = createBlock(POLLFD.size)
  wait.view.setInt32(POLLFD.fd, pidfd, true)
  wait.view.setInt16(POLLFD.events, POLLIN, true)
  return os.poll(wait.base, 1, 0) > 0
}

describe('descriptors of a process', () => {
  it('are taken as duplicates', () => {
    const self = openProcess(process.pid)
    using udp = openUdp('127.0.0.1', 0)
    const copy = takeFd(self, udp.fd)
    assert.notEqual(copy, udp.fd)
    assert.equal(inspectSocket(copy).cookie, inspectSocket(udp.fd).cookie)
    assert.throws(() => takeFd(self, 99999), { code: 'EBADF' })
    os.close(copy)
    os.close(self)
  })

  it('lie in a socket whose other end is closed, until they are taken', () => {
    const { own, other } = openPair('stream')
    const udp = openUdp('127.0.0.1', 0)
    const { cookie } = inspectSocket(udp.fd)
    assert.equal(receiveFd(other), undefined, 'nothing there yet')
    sendFd(own, udp.fd)
    udp.close()
    os.close(own)
    const taken = receiveFd(other)!
    assert.equal(inspectSocket(taken).cookie, cookie)
    assert.equal(receiveFd(other), undefined)
    for (const fd of [taken, other]) os.close(fd)
  })

  it('are known by the socket behind them', () => {
    const self = openProcess(process.pid)
    const udp = openUdp('127.0.0.1', 0)
    const { cookie } = inspectSocket(udp.fd)
    assert.equal(holdsSocket(self, udp.fd, cookie), true)
    assert.equal(holdsSocket(self, udp.fd, cookie + 1n), false)
    assert.equal(holdsSocket(self, 2, cookie), false)
    udp.close()
    assert.equal(holdsSocket(self, udp.fd, cookie), false)
    os.close(self)
  })

  it('go with it: its end is told, and refused afterwards', async () => {
    const child = spawn('sleep', ['60'])
    const pidfd = openProcess(child.pid ?? assert.fail('it did not start'))
    assert.equal(ended(pidfd), false)
    child.kill()
    await once(child, 'exit')
    assert.equal(ended(pidfd), true)
    assert.throws(() => takeFd(pidfd, 0), { code: 'ESRCH' })
    os.close(pidfd)
    assert.throws(() => openProcess(0x7ffffff0), { code: 'ESRCH' })
  })
})

describe('the other end of a unix socket', () => {
  function pair() {
    const fds = createBlock(8)
    assert.equal(os.socketpair(1, 5, 0, fds.base), 0) // AF_UNIX, SOCK_SEQPACKET
    return [fds.view.getInt32(0, true), fds.view.getInt32(4, true)] as const
  }

  const kernels: [plan: Parameters<typeof faulty>[1], why: string][] = [
    [[], 'by SO_PEERPIDFD where the kernel has it'],
    [
      [{ call: 'getsockopt', skip: 1, result: -E.ENOPROTOOPT }],
      'by its number where the kernel is older',
    ],
  ]
  for (const [plan, why] of kernels) {
    it(`is told, with its process: ${why}`, () => {
      const [a, b] = pair()
      const { syscalls } = faulty(os, plan)
      const found = peerCredentials(a, syscalls)
      assert.equal(found.pid, process.pid)
      assert.equal(found.uid, process.getuid?.())
      assert.equal(found.gid, process.getgid?.())
      const copy = takeFd(found.pidfd, 2)
      assert.equal(ended(found.pidfd), false)
      for (const fd of [a, b, copy, found.pidfd]) os.close(fd)
    })
  }

  it('is refused of what is no socket', () => {
    const fd = os.eventfd(0, 0)
    assert.throws(() => peerCredentials(fd), { code: 'ENOTSOCK' })
    os.close(fd)
  })
})
