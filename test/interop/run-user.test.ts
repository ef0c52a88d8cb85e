/**
 * OpenVPN under `ovpn run` where the kernel's driver is out of reach by design: run by an ordinary user, in a user namespace and
 * network namespaces of its own, at both ends.
 */
import assert from 'node:assert/strict'
import { readFileSync, readlinkSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import type { TestNetns } from '../namespace.ts'
import { iperf, type Lab, OFFLOADED, openLab, ping, reached, SERVER_VPN, times } from './openvpn.ts'
import { programs, STARTED, until, withoutProgram } from './programs.ts'
import { openUserNamespace, USER, type UserNamespace } from './user-namespace.ts'

const TUNNELS: [transport: 'udp' | 'tcp', server: string, client: string][] = [
  ['udp', '2.6', '2.7'],
  ['tcp', '2.7', '2.6'],
]
/** Of a hundred packets, while keys are renewed every few seconds. */
const RENEWAL_LOSS = 4

for (const [transport, server, client] of TUNNELS) {
  const title = `OpenVPN ${server} to ${client}, ${transport}, as an ordinary user`
  describe(title, { skip: withoutProgram(server, client) }, () => {
    let user: UserNamespace
    let lab: Lab
    let near: Running
    let far: Running
    before(async () => {
      user = await openUserNamespace(programs['2.7']!)
      const made = [await user.openNetns('runs'), await user.openNetns('runc')]
      lab = openLab(() => made.shift()!)
      const sideOf = (series: string, more: string[]) => ({
        program: series === '2.7' ? user.program : programs[series]!,
        ...{ offload: true, more: ['tun-mtu 1400', ...more] },
        // Keys are root's until then.
        through: ['sh', '-ec', `chmod -R a+rX ${lab.folder}; exec "$@"`, 'sh', ...user.through],
      })
      far = lab.startServer(sideOf(server, ['reneg-sec 3']), transport)
      await far.says(STARTED)
      near = lab.startClient(sideOf(client, []), transport)
      await near.says(STARTED)
      await reached(lab)
    })
    after(async () => {
      await lab.close()
      await user.close()
    })

    it('nobody has rights outside', () => {
      for (const { pid } of [near, far]) {
        assert.match(
          readFileSync(`/proc/${pid}/status`, 'utf8'),
          new RegExp(`^Uid:\t${USER}\t`, 'm'),
        )
        assert.notEqual(readlinkSync(`/proc/${pid}/ns/user`), readlinkSync('/proc/self/ns/user'))
      }
    })

    it('both have offload', () => {
      for (const { stdout } of [near, far]) assert.match(stdout, OFFLOADED)
    })

    it('carries packets both ways', async () => {
      assert.equal(await ping(lab.client, SERVER_VPN), 0)
      assert.equal(await ping(lab.server, '10.8.0.2'), 0)
      assert.ok((await iperf(lab, 1)) > 10)
    })

    it('renews keys within a session', async () => {
      const before = times(far, /soft reset/)
      const lost = await ping(lab.client, SERVER_VPN, 50)
      assert.ok(lost <= RENEWAL_LOSS, `${lost} % lost`)
      assert.ok(times(far, /soft reset/) > before)
      assert.equal(times(near, STARTED), 1)
    })

    it('counts in its status', async () => {
      far.kill('SIGUSR2')
      const line = /CLIENT_LIST,client,[^,]*,10\.8\.0\.2,[^,]*,(\d+),(\d+),/
      const [, received, sent] = await far.says(line)
      assert.ok(Number(received) > 1e6 && Number(sent) > 1e4, `${received} ${sent}`)
    })

    it('takes its interfaces along', async () => {
      for (const [running, netns] of [
        [near, lab.client],
        [far, lab.server],
      ] as const) {
        running.kill('SIGTERM')
        assert.equal((await running.ended).status, 0)
        await until('the interface goes', () => !hasTunnel(netns))
      }
    })
  })
}

const hasTunnel = (end: TestNetns) => end.ip('-br link').includes('tun0')
