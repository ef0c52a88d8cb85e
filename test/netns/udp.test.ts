/** Tunnels over UDP between real devices: what goes in at one end comes out at the other, however it is wrapped. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Cipher } from '../../src/uapi/types.ts'
import { withoutNamespaces } from '../namespace.ts'
import { type Host, iperf, Lab } from './lab.ts'

describe('tunnels over UDP', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let a: Host
  let b: Host

  before(async () => {
    lab = new Lab('udp')
    a = await lab.host()
    b = await lab.host()
    lab.wire(a, b, 'wire0', [
      ['10.9.0.1/24', '10.9.0.2/24'],
      ['fd00:9::1/64', 'fd00:9::2/64'],
    ])
  })
  after(() => lab.close())

  const ciphers: [cipher: Cipher, keyBytes: number, outer: 4 | 6][] = [
    ['aes-gcm', 16, 4],
    ['aes-gcm', 24, 6],
    ['aes-gcm', 32, 4],
    ['aes-gcm', 32, 6],
    ['chacha20-poly1305', 32, 4],
    ['chacha20-poly1305', 32, 6],
  ]
  for (const [cipher, keyBytes, outer] of ciphers) {
    it(`${cipher} with ${8 * keyBytes} bits over IPv${outer}: IPv4 and IPv6, TCP and UDP`, async () => {
      const addresses: [string, string] =
        outer === 4 ? ['10.9.0.1', '10.9.0.2'] : ['fd00:9::1', 'fd00:9::2']
      await using tunnel = await lab.tunnel(a, b, { outer: addresses, cipher, keyBytes })
      await a.reach('10.8.0.2')
      await b.reach('fd00:8::1')
      const tcp = await iperf(a, b, 'fd00:8::2', { seconds: 0.5 })
      assert.ok(tcp.bytes > 1e6, `a TCP stream moves: ${tcp.bytes} bytes`)
      const udp = await iperf(b, a, '10.8.0.1', { seconds: 0.5, udp: '5M', length: 1000 })
      assert.equal(udp.lost, 0)
      assert.ok(udp.packets > 150, `datagrams arrive: ${udp.packets}`)
      assert.deepEqual(await tunnel.near.drops(1), {})
    })
  }
})
