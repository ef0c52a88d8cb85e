/** `ovpn run` with the newest `ip`, which knows links of kind `ovpn` by itself: their modes, given and shown. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { OVPN, run } from '../command.ts'
import { fetchPackage, Unavailable } from '../kernel/fetch.ts'
import { openTestNetns, type TestNetns, withoutNamespaces } from '../namespace.ts'

const fetched = withoutNamespaces
  ? undefined
  : await fetchPackage('iproute2').catch((error: unknown) => {
      if (error instanceof Unavailable) return error.message
      throw error
    })
const why = typeof fetched === 'string' ? fetched : withoutNamespaces

describe('ovpn run with the newest ip', { skip: why }, () => {
  let netns: TestNetns
  before(() => {
    netns = openTestNetns('runp')
  })
  after(() => netns[Symbol.dispose]())

  const inside = (script: string) => {
    if (typeof fetched !== 'object') throw new Error('no ip') // skipped then
    const shell = `ip() { ${fetched.run('usr/sbin/ip').join(' ')} "$@"; }; ${script}`
    return run('ip', ['netns', 'exec', netns.name, OVPN, 'run', 'sh', '-ec', shell])
  }

  const modes: [given: string, shown: string][] = [
    ['mode mp', 'mp'],
    ['mode p2p', 'p2p'],
    ['', 'p2p'],
  ]
  for (const [given, shown] of modes) {
    it(`ip link add vpn0 type ovpn ${given}: is shown as ${shown}, to people and as JSON`, async () => {
      const { status, stdout, stderr } = await inside(
        `ip link add vpn0 type ovpn ${given}; ip -d link show vpn0; ip -d -j link show vpn0; ip link del vpn0`,
      )
      assert.equal(status, 0, stderr)
      assert.match(stdout, new RegExp(`^ +ovpn mode ${shown} `, 'm'))
      const [link] = JSON.parse(stdout.slice(stdout.indexOf('[{')))
      assert.deepEqual(link.linkinfo, { info_kind: 'ovpn', info_data: { mode: shown } })
    })
  }

  it('is listed by its kind, and made once only', async () => {
    const { stdout, stderr } = await inside(
      `ip link add vpn0 type ovpn mode mp; ip -br link show type ovpn; ip link add vpn0 type ovpn || echo refused`,
    )
    assert.match(stdout, /^vpn0 .*\nrefused\n$/)
    assert.match(stderr, /a link of that name/)
  })
})
