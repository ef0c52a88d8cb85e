import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { bytes, hex } from '../../test/bytes.ts'
import { Random } from '../../test/random.ts'
import { NetlinkError, Writer } from './attribute.ts'
import {
  type AddressMessage,
  AF,
  decodeAddress,
  decodeLink,
  decodeRoute,
  encodeAddress,
  encodeLink,
  encodeRoute,
  formatAddress,
  IFF,
  type LinkMessage,
  parseAddress,
  type RouteMessage,
} from './route.ts'

const ip = parseAddress
const still = { family: 0, type: 0, index: 0, flags: 0, change: 0 }

describe('links', () => {
  // What OpenVPN sends (netlink-api, 6.3): no nest is marked.
  const wires: [link: LinkMessage, wire: string, why: string][] = [
    [
      { family: AF.PACKET, name: 'tun0', kind: 'ovpn-dco', mode: 1 },
      `11000000 00000000 00000000 00000000 09000300 74756e30 00000000
       20001200 0d000100 6f76706e 2d64636f 00000000 0c000200 05000100 01000000`,
      'create',
    ],
    [
      { index: 7, change: IFF.UP, flags: IFF.UP },
      '00000000 07000000 01000000 01000000',
      'set it up',
    ],
    [{ index: 7, mtu: 1500 }, '00000000 07000000 00000000 00000000 08000400 dc050000', 'its MTU'],
    [{ index: 7 }, '00000000 07000000 00000000 00000000', 'delete'],
  ]
  for (const [link, wire, why] of wires) {
    it(`${why} as OpenVPN does`, () => {
      assert.equal(hex(encodeLink(link)), hex(bytes(wire)))
      assert.deepEqual(decodeLink(bytes(wire)), { ...still, ...link })
    })
  }

  const counters = {
    rxPackets: 1,
    txPackets: 2,
    rxBytes: 2 ** 40 + 3,
    txBytes: 4,
    rxErrors: 5,
    txErrors: 6,
    rxDropped: 7,
    txDropped: 8,
  }
  const trips: [link: LinkMessage, why: string][] = [
    [{ name: 'a', kind: 'veth', peer: { ...still, name: 'b', netnsFd: 9 } }, 'a veth pair'],
    [{ index: 3, netnsFd: 12, name: 'new' }, 'moved to a namespace under a new name'],
    [{ index: 3, linkNetnsId: -1, carrier: true, kind: 'dummy', counters }, 'a whole answer'],
    [{ index: 3, carrier: false, kind: 'ovpn', mode: 0 }, 'carrier off, mode p2p'],
    [{ name: 'größe' }, 'a name in UTF-8'],
  ]
  for (const [link, why] of trips) {
    it(`round trip: ${why}`, () => {
      assert.deepEqual(decodeLink(encodeLink(link)), { ...still, ...link })
    })
  }

  it('reads nests whether marked or not', () => {
    const data = (w: Writer) => w.u8(1, 1)
    const info = (w: Writer) => w.string(1, 'ovpn').nest(2, data)
    const wire = new Writer(new Uint8Array(16)).nest(18, info).finish()
    assert.deepEqual(decodeLink(wire), { ...still, kind: 'ovpn', mode: 1 })
  })

  it('does not take the data of another kind for a mode', () => {
    const info = (w: Writer) => w.nest(2, (data) => data.u32(1, 5)).string(1, 'vxlan')
    const wire = new Writer(new Uint8Array(16)).nest(18, info).finish()
    assert.deepEqual(decodeLink(wire), { ...still, kind: 'vxlan' })
  })

  it('reads no deeper than the peer of a pair', () => {
    let wire = encodeLink({ kind: 'veth' })
    for (let depth = 0; depth < 1500; depth++) {
      const peer = wire
      const info = (w: Writer) => w.string(1, 'veth').nest(2, (data) => data.bytes(1, peer))
      if (peer.length > 65_000) break
      wire = new Writer(new Uint8Array(16)).nest(18, info).finish()
    }
    assert.deepEqual(decodeLink(wire).peer, { ...still, kind: 'veth' })
  })
})

describe('addresses', () => {
  it("reads the kernel's answer about 127.0.0.1 (Linux 6.18)", () => {
    const wire = bytes(
      `0208 80fe 01000000 08000100 7f000001 08000200 7f000001 07000300 6c6f0000
       08000800 80000000 14000600 ffffffff ffffffff 16000000 16000000`,
    )
    assert.deepEqual(decodeAddress(wire), {
      family: AF.INET,
      prefix: 8,
      flags: 0x80,
      scope: 254,
      index: 1,
      address: ip('127.0.0.1'),
      local: ip('127.0.0.1'),
      label: 'lo',
    })
  })

  const trips: [address: AddressMessage, why: string][] = [
    [
      {
        family: AF.INET,
        prefix: 24,
        index: 7,
        local: ip('10.8.0.1'),
        broadcast: ip('10.8.0.255'),
        label: 'tun0',
      },
      'IPv4',
    ],
    [{ family: AF.INET6, prefix: 64, index: 7, local: ip('fd00::1') }, 'IPv6'],
    [{ family: AF.INET6, prefix: 64, index: 7, flags: 0x200 }, 'flags beyond 8 bits'],
  ]
  for (const [address, why] of trips) {
    it(`round trip: ${why}`, () => {
      const plain = { flags: 0, scope: 0 }
      assert.deepEqual(decodeAddress(encodeAddress(address)), { ...plain, ...address })
    })
  }
})

describe('routes', () => {
  const filled = { table: 254, protocol: 3, scope: 0, type: 1, flags: 0 }
  const trips: [route: RouteMessage, more: Partial<RouteMessage>, why: string][] = [
    [
      {
        family: AF.INET,
        destination: ip('10.9.0.0'),
        prefix: 24,
        gateway: ip('10.8.0.2'),
        oif: 7,
        priority: 100,
      },
      {},
      'an iroute',
    ],
    [{ family: AF.INET6, gateway: ip('fe80::1'), oif: 2 }, { prefix: 0 }, 'a default route'],
    [{ family: AF.INET, destination: ip('192.0.2.1') }, { prefix: 32 }, 'a look-up'],
    [{ family: AF.INET, prefix: 0, gateway: ip('fe80::1') }, {}, 'a gateway of the other family'],
    [
      { family: AF.INET, destination: ip('192.0.2.1'), table: 1000, source: ip('192.0.2.9') },
      { prefix: 32 },
      'a table beyond 8 bits',
    ],
  ]
  for (const [route, more, why] of trips) {
    it(`round trip: ${why}`, () => {
      assert.deepEqual(decodeRoute(encodeRoute(route)), { ...filled, ...route, ...more })
    })
  }

  it('writes a gateway of the other family as VIA', () => {
    const wire = hex(encodeRoute({ family: AF.INET, gateway: ip('fe80::1') }))
    assert.equal(wire.slice(24), '160012000a00fe8000000000000000000000000000010000')
  })
})

describe('text of addresses', () => {
  const rows: [text: string, data: string, written: string, why: string][] = [
    ['10.8.0.2', '0a080002', '10.8.0.2', 'IPv4'],
    ['2001:DB8:0:0:1:0:0:1', '20010db8000000000001000000000001', '2001:db8::1:0:0:1', 'RFC 5952'],
    ['::', '00000000000000000000000000000000', '::', 'unspecified'],
    ['::ffff:192.0.2.1', '00000000000000000000ffffc0000201', '::ffff:192.0.2.1', 'mapped'],
  ]
  for (const [text, data, written, why] of rows) {
    it(`${text}: ${why}`, () => {
      assert.equal(hex(ip(text)), data)
      assert.equal(formatAddress(bytes(data)), written)
    })
  }
  for (const text of ['', '10.8', '0x0a080002', '010.8.0.2', 'fe80::1%eth0', '1::2::3', 'host']) {
    it(`refuses ${JSON.stringify(text)}`, () => assert.throws(() => ip(text), RangeError))
  }
})

describe('hostile input', () => {
  const peer = { name: 'b', kind: 'veth', peer: { name: 'c' } }
  const decoders: [name: string, decode: (wire: Uint8Array) => unknown, sample: Uint8Array][] = [
    ['link', decodeLink, encodeLink({ name: 'a', kind: 'veth', mtu: 1400, peer })],
    ['ovpn link', decodeLink, encodeLink({ name: 'a', kind: 'ovpn', mode: 1, carrier: true })],
    [
      'address',
      decodeAddress,
      encodeAddress({ family: 2, prefix: 24, index: 7, local: ip('10.8.0.1') }),
    ],
    [
      'route',
      decodeRoute,
      encodeRoute({ family: 2, destination: ip('10.8.0.0'), prefix: 24, gateway: ip('fe80::1') }),
    ],
  ]
  for (const [name, decode, sample] of decoders) {
    it(`${name}: truncated, changed or random, it is read or a NetlinkError`, () => {
      const random = new Random(5)
      let refused = 0
      const meet = (wire: Uint8Array) => {
        try {
          decode(wire)
        } catch (error) {
          assert.ok(error instanceof NetlinkError, String(error))
          refused++
        }
      }
      for (let length = 0; length < sample.length; length++) meet(sample.slice(0, length))
      for (let i = 0; i < 4000; i++) {
        const changed = sample.slice()
        for (let n = 0; n < 1 + i / 1000; n++) {
          changed[random.below(changed.length)] = random.below(256)
        }
        meet(changed)
        meet(random.bytes(random.below(101)))
      }
      assert.ok(refused > 100)
    })
  }
})
