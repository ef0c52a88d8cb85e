/** OpenVPN with its data channel offloaded to our driver, under `ovpn run`, and our server or client at the other end. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { answers } from '../interop/openvpn.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, lost, type Maker, type Outside, Peers, stop, vpnAddresses } from './peers.ts'

const OFFLOADED = /DCO device (tun|vpn)\d opened/
const RENEWED = /VERIFY OK: depth=0/g

const ROWS: [server: Maker, client: Maker, Outside][] = [
  ['ours', '2.6 offloaded', 'udp'],
  ['ours', '2.7 offloaded', 'tcp'],
  ['2.6 offloaded', 'ours', 'tcp'],
  ['2.7 offloaded', 'ours', 'udp'],
]

describe('OpenVPN on our driver', { skip: withoutProgram('2.6', '2.7') }, () => {
  let peers: Peers
  before(async () => {
    peers = await Peers.open()
  })
  after(() => peers.close())

  for (const [number, [server, client, outside]] of ROWS.entries()) {
    it(`server ${server}, client ${client}, ${outside}`, async () => {
      const host = peers.lab.hosts[0]!
      const renewing = ['reneg-sec 3', 'tun-mtu 1400']
      const lines = [...identity('server'), ...renewing]
      const served = await peers.server(server, number, lines, outside)
      const more = [...identity('client'), 'tun-mtu 1400']
      const connected = peers.client(client, number, more, { outside, host })
      try {
        await connected.says(STARTED)
        const openvpn = server === 'ours' ? connected : served
        assert.match(openvpn.stdout, OFFLOADED)
        await answers(host.netns, vpnAddresses(number)[0])
        assert.deepEqual(await lost(host, number), [0, 0])
        const renewals = () => (openvpn.stdout.match(RENEWED) ?? []).length - 1
        await until('keys to be renewed', () => renewals() >= 2, 40)
        assert.deepEqual(await lost(host, number), [0, 0])
      } finally {
        await stop(connected)
        await stop(served)
      }
    })
  }
})
