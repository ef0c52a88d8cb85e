/** OpenVPN under `ovpn run` with a peer that uses the kernel's own driver, in a virtual machine: tunnels of kernel-peer.ts. */
// npm test: load 0.5
// npm test: 900 s, 700 s a test
// npm test: ordinary user
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { whyNoKernel } from '../kernel/vm.ts'
import { type Played, playTunnels, TUNNELS } from './kernel-peer.ts'
import { withoutProgram } from './programs.ts'

const skip = withoutProgram('2.6', '2.7') || ((await whyNoKernel()) ?? false)

describe("OpenVPN under ovpn run, and the kernel's driver", { skip }, () => {
  let all: Played[]

  before(async () => {
    all = await playTunnels()
  })

  for (const [i, { role, series, transport }] of TUNNELS.entries()) {
    describe(`${transport}, our ${role} is OpenVPN ${series}`, () => {
      it('each end has its driver', () => {
        assert.deepEqual(all[i]!.kinds, ['tun', 'ovpn'])
      })

      it('carries packets both ways', () => {
        const { up, down } = all[i]!
        console.log(`    up ${up.toFixed(1)} Mbit/s, down ${down.toFixed(1)}, emulated there`)
        assert.ok(up > 0.1 && down > 0.1)
      })

      it('renews keys within a session, and loses no packet', () => {
        const { renewals, sessions, lost } = all[i]!
        console.log(`    ${renewals} renewals, ${lost} % of echo requests lost`)
        assert.ok(renewals >= 2, `${renewals}`)
        assert.equal(sessions, 1)
        assert.equal(lost, 0)
      })
    })
  }
})
