/** The guest itself: it comes up with the kernel's driver, sees this checkout, and gives its results back. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { before, describe, it } from 'node:test'
import { fetchOpenvpn27 } from './fetch.ts'
import { type GuestError, type GuestResult, runInKernel, whyNoKernel } from './vm.ts'

const skip = (await whyNoKernel()) ?? false

describe('a guest with the kernel driver', () => {
  let result: GuestResult
  before(async () => {
    if (skip) return
    const { command } = await fetchOpenvpn27()
    result = await runInKernel(
      `
      uname -r
      ip link add name t0 type ovpn
      ip -d -br link show type ovpn
      ${command} --version || true
      mkdir "$OVPN_OUT/folder"
      echo kept > "$OVPN_OUT/folder/file"
      touch /etc/ovpn-guest-was-here
      bash -c 'echo said >&2; exit 7'
      echo not reached
      `,
    )
    const { kernelVersion, accelerator, bootMs, totalMs } = result
    console.log(`Linux ${kernelVersion}, ${accelerator}: up in ${bootMs} ms, ${totalMs} ms in all`)
  })

  it('is the kernel that was fetched', { skip }, () => {
    assert.equal(result.stdout.split('\n')[0], result.kernelVersion)
  })

  it('has the driver', { skip }, () => assert.match(result.stdout, /^t0 /m))

  it('runs OpenVPN 2.7 with offload', { skip }, () => {
    assert.match(result.stdout, /^OpenVPN 2\.7\..* \[DCO\]/m)
    assert.ok(result.stdout.includes(`DCO version: ${result.kernelVersion}`), result.stdout)
  })

  it("gives back the first failure's status and what was said before it", { skip }, () => {
    assert.equal(result.status, 7)
    assert.equal(result.stderr, 'said\n')
    assert.doesNotMatch(result.stdout, /not reached/)
  })

  it('gives back files', { skip }, () => {
    const names = [...result.files.keys()]
    assert.deepEqual(names, ['folder/file'])
    assert.equal(Buffer.from(result.files.get('folder/file')!).toString(), 'kept\n')
  })

  it('leaves this machine as it was', { skip }, () => {
    assert.equal(existsSync('/etc/ovpn-guest-was-here'), false)
  })

  it('has a kernel without complaints', { skip }, () => {
    assert.match(result.dmesg, /Linux version/)
    assert.doesNotMatch(result.dmesg, /\b(BUG|WARNING|Oops|Call Trace):/)
  })
})

describe('a guest in trouble', () => {
  const cases: [script: string, timeoutMs: number, code: string, why: string][] = [
    ['echo so far; sleep 600', 2_000, 'GUEST_TIMEOUT', 'a script that does not end'],
    ['echo so far; echo c > /proc/sysrq-trigger', 60_000, 'GUEST_DIED', 'a kernel that crashes'],
  ]
  for (const [script, timeoutMs, code, why] of cases) {
    it(`${code}: ${why}`, { skip }, async () => {
      await assert.rejects(runInKernel(script, { timeoutMs }), (error: GuestError) => {
        assert.equal(error.code, code)
        assert.match(error.message, /stdout: so far/)
        return true
      })
    })
  }
})
