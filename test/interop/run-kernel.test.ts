/** OpenVPN under `ovpn run` with a peer that uses the kernel's own driver: tunnels of kernel-peer.ts, one after another in one machine. */
// Its machine waits nearly half of the time, for renewals.
// npm test: load 0.7
// npm test: 1800 s, 900 s a test
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { playInKernel } from '../compliance/driver/guest.ts'
import { whyNoKernel } from '../kernel/vm.ts'
import { type End, TUNNELS, type Tunnel } from './kernel-peer.ts'
import { programs, withoutProgram } from './programs.ts'

const skip = withoutProgram('2.6', '2.7') || ((await whyNoKernel()) ?? false)

/** What our driver needs of a kernel beside what the tests of the kernel's driver do. */
const MODULES = ['chacha', 'inet_diag', 'udp_diag', 'tcp_diag']

const nameOf = ({ series, driver }: End) => `${series}${driver === 'run' ? ' under ovpn run' : ''}`

describe("OpenVPN under ovpn run, and the kernel's driver", { skip }, () => {
  let all: Tunnel[]

  before(async () => {
    const args = [programs['2.6']!, programs['2.7']!]
    const options = { timeoutMs: 800_000, modules: MODULES }
    all = (await playInKernel('test/interop/kernel-peer.ts', args, options)) as Tunnel[]
  })

  for (const [i, { server, client, transport }] of TUNNELS.entries()) {
    describe(`${transport}, server ${nameOf(server)}, client ${nameOf(client)}`, () => {
      it('each has its driver', () => {
        const kindOf = ({ driver }: End) => (driver === 'run' ? 'tun' : 'ovpn')
        assert.deepEqual(all[i]!.kinds, [kindOf(server), kindOf(client)])
      })

      it('carries packets both ways', () => {
        const { up, down } = all[i]!
        console.log(`    up ${up.toFixed(1)} Mbit/s, down ${down.toFixed(1)}, emulated`)
        assert.ok(up > 0.1 && down > 0.1)
      })

      it('renews keys within a session, and loses no packet', () => {
        const { renewals, sessions, echoes } = all[i]!
        const [sent, got, answered, came] = echoes
        console.log(`    ${renewals} renewals; ${echoes} echo requests sent, got, answered, seen`)
        assert.ok(renewals >= 1, `${renewals}`)
        assert.equal(sessions, 1)
        assert.deepEqual([got, answered, came], [sent, sent, sent])
      })
    })
  }
})
