/** OpenVPN under `ovpn run` with a peer that uses the kernel's own driver: tunnels of kernel-peer.ts, each in a machine of its own. */
// npm test: 1800 s, 450 s a test
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { playInKernel } from '../compliance/driver/guest.ts'
import { whyNoKernel } from '../kernel/vm.ts'
import { type End, TUNNELS, type Tunnel } from './kernel-peer.ts'
import { programs, withoutProgram } from './programs.ts'

const skip = withoutProgram('2.6', '2.7') || ((await whyNoKernel()) ?? false)

/** What our driver needs of a kernel beside what the tests of the kernel's driver do. */
const MODULES = ['chacha', 'inet_diag', 'udp_diag', 'tcp_diag']
/** Of twenty. */
const ONE_PACKET = 5
/**
 * In percent, of twelve seconds in which keys are renewed once or twice: one end uses the new key before the other has it,
 * on a busy emulated processor by a second or two. A renewal that failed would cost more than half.
 */
const RENEWAL_LOSS = 30

const nameOf = ({ series, driver }: End) => `${series} ${driver === 'run' ? 'under ovpn run' : ''}`

for (const [i, { server, client, transport }] of TUNNELS.entries()) {
  const title = `${transport}, server ${nameOf(server)}, client ${nameOf(client)}, the other on the kernel's`
  describe(title, { skip }, () => {
    let shown: Tunnel

    before(async () => {
      const args = [`${i}`, programs['2.6']!, programs['2.7']!]
      const options = { timeoutMs: 300_000, modules: MODULES }
      const [printed] = await playInKernel('test/interop/kernel-peer.ts', args, options)
      shown = printed as Tunnel
    })

    it('each has its driver', () => {
      const kindOf = ({ driver }: End) => (driver === 'run' ? 'tun' : 'ovpn')
      assert.deepEqual(shown.kinds, [kindOf(server), kindOf(client)])
    })

    it('carries packets both ways', () => {
      const [there, back] = shown.lost
      assert.ok(there <= ONE_PACKET && back <= ONE_PACKET, `${there} % and ${back} % lost`)
      const { up, down } = shown
      console.log(`    up ${up.toFixed(1)} Mbit/s, down ${down.toFixed(1)}, emulated`)
      assert.ok(up > 0.1 && down > 0.1)
    })

    it('renews keys within a session', () => {
      const { renewals, sessions, lost } = shown
      assert.ok(renewals >= 1, `${renewals}`)
      assert.equal(sessions, 1)
      assert.ok(lost[2] <= RENEWAL_LOSS, `${lost[2]} % lost`)
    })
  })
}
