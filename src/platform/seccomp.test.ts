import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { faulty } from './fault.test-data.ts'
import { openProcess, takeFd } from './fds.ts'
import { E } from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOf } from './memory.ts'
import { architecture, fdLimit, Listener, readMemory, writeMemory } from './seccomp.ts'

const skip = architecture === undefined ? `no system call numbers for ${process.arch}` : false

describe('memory of another process', { skip }, () => {
  // Its own is as far away as any other's.
  const own = blockOf(Uint8Array.from({ length: 64 }, (_, i) => i))

  it('is copied, and written', () => {
    const copy = readMemory(process.pid, own.base + 8, 4)
    assert.deepEqual(copy, Uint8Array.of(8, 9, 10, 11))
    writeMemory(process.pid, own.base + 8, Uint8Array.of(1, 2))
    assert.deepEqual(own.u8.slice(8, 12), Uint8Array.of(1, 2, 10, 11))
    assert.deepEqual(copy, Uint8Array.of(8, 9, 10, 11), 'it is a copy')
  })

  it('nothing is nothing, whatever the address', () => {
    assert.equal(readMemory(process.pid, 0, 0).length, 0)
    writeMemory(process.pid, 0, new Uint8Array(0))
  })

  it('at a bad address, or of nobody: why', () => {
    assert.throws(() => readMemory(process.pid, 16, 4), { code: 'EFAULT' })
    assert.throws(() => writeMemory(process.pid, 16, Uint8Array.of(1)), { code: 'EFAULT' })
    assert.throws(() => readMemory(0x3fffff, own.base, 4), { code: 'ESRCH' })
  })
})

describe('the limit of descriptors', { skip }, () => {
  it('is that of the process', () => {
    const { soft, hard } = fdLimit(0)
    assert.deepEqual(fdLimit(process.pid), { soft, hard })
    assert.ok(soft > 0 && soft <= hard)
    assert.throws(() => fdLimit(0x3fffff), { code: 'ESRCH' })
  })
})

describe('another program in place of this one', { skip }, () => {
  /** Has a process become `path`; what that prints, or the errno. */
  async function become(path: string, args: string[], environment: Record<string, string>) {
    const script = `import { execute } from '${import.meta.resolve('./seccomp.ts')}'
      const entries = Object.entries(${JSON.stringify(environment)})
      const text = entries.map(([name, value]) => name + '=' + value + String.fromCharCode(0)).join('')
      console.log(execute('${path}', ${JSON.stringify(args)}, Buffer.from(text)))`
    const child = Bun.spawn([process.execPath, '-e', script], { stderr: 'inherit' })
    return (await new Response(child.stdout).text()).trim()
  }

  it('gets its arguments and its environment, empty ones too', async () => {
    const script = 'echo "$0|$1|$2|$#|$A|$B"'
    const args = ['sh', '-c', script, 'zero', '', 'späte Größe']
    assert.equal(await become('/bin/sh', args, { A: 'x y', B: '' }), 'zero||späte Größe|2|x y|')
    assert.equal(await become('/usr/bin/env', ['env', '-0'], {}), '', 'none at all')
  })

  it('that cannot be: -errno', async () => {
    assert.equal(await become('/no/such/program', ['x'], {}), String(-E.ENOENT))
    assert.equal(await become('/etc', ['x'], {}), '-13')
  })
})

describe('a filter and its listener', { skip }, () => {
  /** A process under a filter that passes getpid() on, and the listener, taken from it. */
  const SCRIPT = `import { installFilter } from '${import.meta.resolve('./seccomp.ts')}'
    import { openLibc } from '${import.meta.resolve('./libc.ts')}'
    const words = [[0x20, 0, 0, 0], [0x15, 0, 1, Number(process.argv[1])], [6, 0, 0, 0x7fc00000], [6, 0, 0, 0x7fff0000]]
    const filter = new Uint8Array(words.length * 8)
    const view = new DataView(filter.buffer)
    for (const [i, [code, jt, jf, k]] of words.entries()) {
      view.setUint16(8 * i, code, true); view.setUint8(8 * i + 2, jt); view.setUint8(8 * i + 3, jf)
      view.setUint32(8 * i + 4, k, true)
    }
    console.log(installFilter(filter))
    for await (const line of console) {
      if (line === 'end') break
      console.log(openLibc().syscall(Number(process.argv[1]), 1, 2, 3, 4, 5, 6))
    }`
  const GETPPID = process.arch === 'arm64' ? 173 : 110

  it('a call is answered, fails or is passed on, and the end is told', async () => {
    const child = Bun.spawn([process.execPath, '-e', SCRIPT, String(GETPPID)], {
      ...{ stdin: 'pipe', stdout: 'pipe', stderr: 'inherit' },
    })
    const lines = linesOf(child.stdout)
    const fd = Number((await lines.next()).value)
    const pidfd = openProcess(child.pid)
    using listener = new Listener(takeFd(pidfd, fd))
    openLibc().close(pidfd)
    assert.equal(listener.receive(), 'none')
    const asked = async () => {
      child.stdin.write('call\n')
      child.stdin.flush()
      for (;;) {
        const call = listener.receive()
        if (call === 'ended') assert.fail('it has ended')
        if (call !== 'none') return call
        await Bun.sleep(5)
      }
    }
    const first = await asked()
    assert.deepEqual([first.nr, first.args], [GETPPID, [1, 2, 3, 4, 5, 6]])
    assert.equal(listener.waits(first), true)
    assert.equal(listener.answer(first, 4242), true)
    assert.equal((await lines.next()).value, '4242')
    assert.equal(listener.waits(first), false)
    assert.equal(listener.answer(first, 1), false, 'nobody waits any more')
    listener.fail(await asked(), E.EPERM)
    assert.equal((await lines.next()).value, String(-E.EPERM))
    listener.pass(await asked())
    assert.equal((await lines.next()).value, String(process.pid), "the kernel's answer")
    const given = await asked()
    assert.equal(listener.giveFd(given, 0, 77, { cloexec: true, answer: true }), 77)
    assert.equal((await lines.next()).value, '77')
    child.kill()
    await child.exited
    for (let end = listener.receive(); end !== 'ended'; end = listener.receive()) await Bun.sleep(5)
  })
})

describe('a listener', { skip }, () => {
  it('has not ended where nothing says so', () => {
    // As when a signal comes while it is looked: something is said, and neither that a call waits nor the end.
    const { syscalls } = faulty(openLibc(), [{ call: 'poll', result: 1 }])
    assert.equal(new Listener(-1, undefined, syscalls).receive(), 'none')
  })
})

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true })
    const lines = rest.split('\n')
    rest = lines.pop()!
    yield* lines
  }
  return undefined
}
