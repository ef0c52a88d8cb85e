/** `ovpn run` where unshare() is forbidden, as containers have it: a server over TCP hears its clients all the same. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { OFFLOADED, openLab, ping, reached, SERVER_VPN, times } from './openvpn.ts'
import { programs, STARTED, until, withoutProgram } from './programs.ts'

const CONFINED = fileURLToPath(new URL('./confined.ts', import.meta.url))

describe('ovpn run without unshare()', () => {
  for (const series of ['2.6', '2.7']) {
    it(`OpenVPN ${series} over TCP renews keys`, { skip: withoutProgram(series) }, async () => {
      const lab = openLab()
      try {
        const side = { program: programs[series]!, offload: true }
        const through = [process.execPath, CONFINED, 'insight']
        const far = lab.startServer({ ...side, through, more: ['reneg-sec 5'] }, 'tcp')
        await far.says(STARTED)
        const near = lab.startClient(side, 'tcp')
        await near.says(STARTED)
        await reached(lab)
        assert.match(far.stdout, OFFLOADED)
        // Each takes packets of the client that only come where the socket is watched that took the stream's place.
        const renewed = () => times(far, /Control Channel: TLSv/)
        await until('keys are renewed', () => renewed() >= 3, 40)
        assert.equal(await ping(lab.client, SERVER_VPN), 0)
        assert.equal(times(near, STARTED), 1)
        assert.doesNotMatch(far.stdout, /epoll_ctl|Bad encapsulated/)
        near.kill('SIGTERM')
        await near.ended
      } finally {
        await lab.close()
      }
    })
  }
})
