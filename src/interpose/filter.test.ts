import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF } from '../platform/layout.ts'
import { architecture, type CallNumbers } from '../platform/seccomp.ts'
import { createFilter, FD_COUNT, FIRST_FD } from './filter.ts'

const { audit, calls } = architecture!

/** What a filter decides, as the kernel would run it: the few instructions that ours have. */
function decide(filter: Uint8Array, nr: number, arch: number, args: readonly number[]): number {
  const view = new DataView(filter.buffer)
  const load = (at: number) => (at === 0 ? nr : at === 4 ? arch : (args[(at - 16) / 8] ?? 0)) >>> 0
  let accumulator = 0
  for (let at = 0; at < filter.length; at += 8) {
    const code = view.getUint16(at, true)
    const k = view.getUint32(at + 4, true)
    const jump = (holds: boolean) => {
      at += 8 * view.getUint8(at + (holds ? 2 : 3))
    }
    if (code === 0x20) accumulator = load(k)
    else if (code === 0x15) jump(accumulator === k)
    else if (code === 0x35) jump(accumulator >= k)
    else if (code === 0x06) return k
    else assert.fail(`instruction ${code}`)
  }
  assert.fail('ran off its end')
}

describe('the filter of `ovpn run`', () => {
  const filter = createFilter()
  const last = FIRST_FD + FD_COUNT - 1
  const rows: [call: keyof CallNumbers, args: number[], trapped: boolean, why: string][] = [
    ['socket', [16, 3, 0], true, 'NETLINK_ROUTE'],
    ['socket', [16, 3, 16], true, 'NETLINK_GENERIC'],
    ['socket', [16, 3, 9], false, 'NETLINK_AUDIT'],
    ['socket', [2, 2, 0], false, 'no netlink socket, though the protocol is 0'],
    ['socket', [2, 3, 16], false, 'no netlink socket, though the protocol is 16'],
    ['sendmsg', [FIRST_FD], true, 'the first number of the range'],
    ['sendmsg', [last], true, 'the last'],
    ['sendmsg', [FIRST_FD - 1], false, 'below'],
    ['sendmsg', [last + 1], false, 'above'],
    ['read', [FIRST_FD], true, 'the first call of the list'],
    ['write', [1], false, 'everyday calls on other descriptors'],
    ['recvmsg', [5], false, "a program's own socket"],
    ['recvmsg', [-1], false, 'no descriptor at all'],
    ['dup3', [last, 3, 0], true, 'the last call of the list'],
    ['fcntl', [FIRST_FD, 0, 3], true, 'a call that may duplicate'],
    ['fcntl', [3, 0, FIRST_FD], false, 'a number of the range, but as another argument'],
  ]
  for (const [call, args, trapped, why] of rows) {
    it(`${call} ${args.join(' ')}: ${why}`, () => {
      const expected = trapped ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW
      assert.equal(decide(filter, calls[call]!, audit, args), expected)
    })
  }

  it('traps each of its calls', () => {
    for (const [name, nr] of Object.entries(calls)) {
      if (name === 'socket' || nr === undefined) continue
      assert.equal(decide(filter, nr, audit, [FIRST_FD]), SECCOMP_RET_USER_NOTIF, name)
    }
  })

  it('leaves other calls alone, and those of other architectures', () => {
    const close = process.arch === 'arm64' ? 57 : 3
    assert.equal(decide(filter, close, audit, [FIRST_FD]), SECCOMP_RET_ALLOW)
    assert.equal(decide(filter, calls.sendmsg, 0x40000003, [FIRST_FD]), SECCOMP_RET_ALLOW)
  })
})
