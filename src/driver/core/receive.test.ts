import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { build, packet, packetsOf, plainPiece, UDP } from '../../../test/sim/packets.ts'
import { DOWN, homeOf, keyConfig, peerConfig, Rig, UP } from '../../../test/sim/rig.ts'
import { INSIDE_MAX } from '../../uapi/spec.ts'
import { KEEPALIVE_MAGIC, OCC_MAGIC, sealDataV2, sealEpoch } from '../../wire/data.ts'
import { EpochChain } from '../../wire/epoch.ts'
import { OCC_EXIT } from '../../wire/occ.ts'
import { addressWords, Endpoint } from './address.ts'
import type { PeerSnapshot } from './engine.ts'

const KEY_ID = 3
const ELSEWHERE = Endpoint.of('198.51.100.7', 4242)
const payload = Uint8Array.of(1, 2, 3, 4)
const inner = build(packet({ source: '10.8.0.1', destination: '10.8.0.99', payload }))
const inner6 = build(packet({ source: 'fd00::1', destination: 'fd00::99', payload }))

/** A packet of peer 1, but for `fields`. */
function seal(
  plaintext: Uint8Array,
  fields: { id?: number; keyId?: number; packetId?: number } = {},
) {
  const { id = 1, keyId = KEY_ID, packetId = 10 } = fields
  return sealDataV2(UP, { keyId, peerId: id, packetId, plaintext })
}

/** Peers 1 and 2 with a key each; peer 1 has received the packet with the id 9 already. 192.168.1.0 lies behind peer 1. */
function rig(options: { single?: boolean } = {}): Rig {
  const [gateway, network] = [addressWords('10.8.0.1'), addressWords('192.168.1.0')]
  const made = new Rig({
    ...options,
    routes: (to) => (to[2] === 0xffff && to[3]! >> 8 === network[3]! >> 8 ? gateway : undefined),
  })
  for (const id of options.single ? [1] : [1, 2]) {
    made.engine.addPeer(peerConfig(id), made.now)
    made.engine.installKey(100 + id, 'primary', keyConfig(KEY_ID), made.now)
  }
  made.receive(seal(KEEPALIVE_MAGIC, { packetId: 9 }), homeOf(1))
  made.takeTraces()
  made.now += 5000
  return made
}

/** Another key's material. */
const twin = () => ({ cipherKey: new Uint8Array(32).fill(77), nonceTail: UP.nonceTail })
const TWIN_PACKET = { keyId: KEY_ID, peerId: 1, plaintext: inner }

type Changes = Partial<Record<keyof PeerSnapshot, unknown>>

/** What differs between two snapshots, the new values. */
function changes(before: PeerSnapshot, after: PeerSnapshot): Changes {
  const entries = Object.entries(after) as [keyof PeerSnapshot, unknown][]
  return Object.fromEntries(
    entries.filter(([name, value]) => JSON.stringify(before[name]) !== JSON.stringify(value)),
  )
}

const changed = (bytes: Uint8Array, at: number) => {
  const copy = Uint8Array.from(bytes)
  copy.fill(copy.at(at)! ^ 1, at, at === -1 ? undefined : at + 1)
  return copy
}
const opcode = (first: number) => Uint8Array.of(first, ...seal(inner).slice(1))

describe('Receiver: what is dropped before it is authentic changes nothing but counters', () => {
  // The peer that the loss is counted to, if one is known by then.
  type Row = [why: string, datagram: Uint8Array, reason: string, peer: 1 | 2 | undefined]
  const rows: Row[] = [
    ['nothing at all', new Uint8Array(0), 'rx-short', undefined],
    ['three bytes', seal(inner).slice(0, 3), 'rx-short', undefined],
    ['a header and no packet id', seal(inner).slice(0, 4), 'rx-short', 1],
    ['one byte less than the shortest packet', seal(new Uint8Array(0)).slice(0, 23), 'rx-short', 1],
    ['P_DATA_V1', opcode((6 << 3) | KEY_ID), 'rx-data-v1', undefined],
    ['a control packet', opcode((4 << 3) | KEY_ID), 'rx-not-data', undefined],
    ['an opcode never given out', opcode(31 << 3), 'rx-not-data', undefined],
    ['an id that no peer has', seal(inner, { id: 3 }), 'rx-unknown-peer', undefined],
    [
      'the id that we send to the peer, not ours',
      seal(inner, { id: 201 }),
      'rx-unknown-peer',
      undefined,
    ],
    ['no id, from an unknown address', seal(inner, { id: 0xffffff }), 'rx-unknown-peer', undefined],
    ['a key id that the peer has no key for', seal(inner, { keyId: 5 }), 'rx-no-key', 1],
    ['forged: a bit of the ciphertext', changed(seal(inner), -1), 'rx-auth-failed', 1],
    ['forged: a bit of the tag', changed(seal(inner), 8), 'rx-auth-failed', 1],
    ['forged: the packet id', changed(seal(inner), 7), 'rx-auth-failed', 1],
    [
      'forged: another peer’s id, which the AAD covers',
      changed(changed(seal(inner), 3), 2),
      'rx-unknown-peer',
      undefined,
    ],
    ['cut short', seal(inner).slice(0, -1), 'rx-auth-failed', 1],
    ['grown', Uint8Array.of(...seal(inner), 0), 'rx-auth-failed', 1],
    [
      'what we sent, thrown back',
      sealDataV2(DOWN, { keyId: KEY_ID, peerId: 1, packetId: 10, plaintext: inner }),
      'rx-auth-failed',
      1,
    ],
    [
      'peer 1’s packet with peer 2’s id',
      Uint8Array.of(...seal(inner).slice(0, 3), 2, ...seal(inner).slice(4)),
      'rx-auth-failed',
      2,
    ],
    ['a replay', seal(KEEPALIVE_MAGIC, { packetId: 9 }), 'rx-replay', 1],
    ['the packet id 0', seal(inner, { packetId: 0 }), 'rx-replay', 1],
  ]
  for (const [why, datagram, reason, peer] of rows) {
    it(`${why}: ${reason}`, () => {
      const made = rig()
      const before = [made.snapshot(1), made.snapshot(2)]
      const stats = made.engine.stats()
      made.receive(datagram, ELSEWHERE)
      assert.deepEqual(made.takeTraces(), { delivered: [], sent: [], events: [] })
      assert.deepEqual(made.engine.stats(), { ...stats, drops: [{ reason, count: 1 }] })
      for (const id of [1, 2] as const) {
        const was = before[id - 1]!
        assert.deepEqual(
          changes(was, made.snapshot(id)),
          id === peer
            ? {
                linkRxBytes: was.linkRxBytes + datagram.length,
                linkRxPackets: was.linkRxPackets + 1,
                drops: [{ reason, count: 1 }],
              }
            : {},
        )
      }
    })
  }

  it('more than 2047 back, or behind a silence of 30 s: a replay', () => {
    const made = rig()
    made.receive(seal(inner, { packetId: 3000 }), homeOf(1))
    made.receive(seal(inner, { packetId: 953 }), homeOf(1))
    made.receive(seal(inner, { packetId: 952 }), homeOf(1))
    assert.equal(made.delivered.length, 2)
    made.now += 30_000
    made.receive(seal(inner, { packetId: 2999 }), homeOf(1))
    assert.deepEqual(made.engine.stats().drops, [{ reason: 'rx-replay', count: 2 }])
  })
})

describe('Receiver: what is authentic moves the peer and shows it alive, delivered or not', () => {
  const ping = KEEPALIVE_MAGIC
  const version = (of: number) => Uint8Array.of(of << 4, ...inner.slice(1))
  const from = (source: string) => build(packet({ source, destination: '10.8.0.99', payload }))
  const rows: [
    why: string,
    plaintext: Uint8Array,
    reason: string | undefined,
    delivered: boolean,
  ][] = [
    ['an IPv4 packet', inner, undefined, true],
    ['an IPv6 packet', inner6, undefined, true],
    ['a keepalive', ping, undefined, false],
    ['a keepalive one byte short', ping.slice(0, 15), 'rx-malformed', false],
    ['a keepalive one byte long', Uint8Array.of(...ping, 0), 'rx-malformed', false],
    [
      'a keepalive as long as an IP packet',
      Uint8Array.of(...ping, 0, 0, 0, 0),
      'rx-malformed',
      false,
    ],
    ['no plaintext', new Uint8Array(0), 'rx-malformed', false],
    ['one byte', Uint8Array.of(0x45), 'rx-malformed', false],
    ['19 bytes of IPv4', inner.slice(0, 19), 'rx-malformed', false],
    ['20 bytes of IPv4', inner.slice(0, 20), undefined, true],
    ['39 bytes of IPv6', inner6.slice(0, 39), 'rx-malformed', false],
    ['40 bytes of IPv6', inner6.slice(0, 40), undefined, true],
    ['another version of IP', version(5), 'rx-malformed', false],
    ['a source behind the peer', from('192.168.1.7'), undefined, true],
    ['another peer’s source', from('10.8.0.2'), 'rx-reverse-path', false],
    ['nobody’s source', from('10.8.0.3'), 'rx-reverse-path', false],
    ['a source behind nobody', from('192.168.2.7'), 'rx-reverse-path', false],
    [
      'another peer’s IPv6 source',
      build(packet({ source: 'fd00::2', destination: 'fd00::1' })),
      'rx-reverse-path',
      false,
    ],
    [
      'a broadcast from its own source: the device decides',
      build(packet({ source: '10.8.0.1', destination: '255.255.255.255', protocol: UDP })),
      undefined,
      true,
    ],
  ]
  for (const [why, plaintext, reason, delivered] of rows) {
    it(`${why}: ${reason ?? 'fine'}`, () => {
      const made = rig()
      const before = made.snapshot(1)
      const stats = made.engine.stats()
      const datagram = seal(plaintext)
      made.receive(datagram, ELSEWHERE, Endpoint.of('203.0.113.9', 0))
      const bytes = delivered ? plaintext.length : 0
      const packets = delivered ? 1 : 0
      assert.deepEqual(made.takeTraces(), {
        delivered: delivered ? [plainPiece(plaintext)] : [],
        sent: [],
        events: ['floated 1 to 198.51.100.7 4242'],
      })
      assert.deepEqual(changes(before, made.snapshot(1)), {
        remote: { address: '198.51.100.7', port: 4242, scope: 0 },
        local: '203.0.113.9',
        linkRxBytes: before.linkRxBytes + datagram.length,
        linkRxPackets: before.linkRxPackets + 1,
        lastRxMs: 0,
        ...(delivered ? { vpnRxBytes: bytes, vpnRxPackets: packets } : {}),
        ...(reason === undefined ? {} : { drops: [{ reason, count: 1 }] }),
      })
      assert.deepEqual(made.engine.stats(), {
        ...stats,
        rxBytes: bytes,
        rxPackets: packets,
        drops: reason === undefined ? [] : [{ reason, count: 1 }],
      })
    })
  }

  const MALFORMED = [{ reason: 'rx-malformed', count: 1 }]
  const messages: [why: string, plaintext: Uint8Array, told: boolean][] = [
    ['of OpenVPN’s own', OCC_EXIT, true],
    ['as long as it may be', Uint8Array.from({ ...OCC_MAGIC, length: INSIDE_MAX }), true],
    ['a byte longer', Uint8Array.from({ ...OCC_MAGIC, length: INSIDE_MAX + 1 }), false],
    ['without an operation', OCC_MAGIC, false],
    ['with another magic number', changed(OCC_EXIT, 15), false],
    ['that is a keepalive and more', Uint8Array.of(...KEEPALIVE_MAGIC, 6), false],
  ]
  for (const [why, plaintext, told] of messages) {
    it(`a message ${why}: ${told ? 'told, where somebody listens' : 'malformed'}`, () => {
      const made = rig()
      made.receive(seal(plaintext, { packetId: 10 }), homeOf(1))
      assert.deepEqual(made.takeTraces().events, [])
      assert.deepEqual(made.snapshot(1).drops, MALFORMED)
      made.engine.listen(true)
      const packet = seal(plaintext, { packetId: 11 })
      made.receive(packet, homeOf(1))
      const said = `1 says ${Buffer.from(plaintext).toString('hex')}`
      assert.deepEqual(made.takeTraces().events, told ? [said] : [])
      assert.equal(made.snapshot(1).drops[0]!.count, told ? 1 : 2)
      assert.equal(made.snapshot(1).vpnRxPackets, 0)
      // Again, changed, and of another peer's key: nothing.
      const from2 = seal(plaintext, { id: 2, packetId: 11 })
      for (const bytes of [packet, changed(seal(plaintext, { packetId: 12 }), -1)]) {
        made.receive(bytes, homeOf(1))
      }
      made.receive(changed(from2, 3), homeOf(2))
      assert.deepEqual(made.takeTraces().events, [])
    })
  }

  it('messages of one peer: four at once, four a second; those of others are told all the same', () => {
    const made = rig()
    made.engine.listen(true)
    const says = (id: number, packetId: number) => {
      made.receive(seal(OCC_EXIT, { id, packetId }), homeOf(id))
      return made.takeTraces().events.length
    }
    const counts: number[] = []
    for (let second = 0; second < 3; second++) {
      let told = 0
      for (let i = 0; i < 1000; i++) {
        told += says(1, 100 + 1000 * second + i)
        made.now += 1
      }
      counts.push(told)
      assert.equal(says(2, 100 + second), 1)
    }
    assert.deepEqual(counts, [7, 4, 4])
    assert.deepEqual(made.snapshot(1).drops, [{ reason: 'rx-malformed', count: 3000 - 15 }])
  })

  it('two keys with one key id: a packet of either, once each', () => {
    const made = rig()
    made.engine.installKey(101, 'secondary', { ...keyConfig(KEY_ID), decrypt: twin() }, made.now)
    const older = seal(inner, { packetId: 50 })
    const newer = sealDataV2({ ...UP, key: twin().cipherKey }, { ...TWIN_PACKET, packetId: 50 })
    for (const bytes of [older, newer, older, newer]) made.receive(bytes, homeOf(1))
    made.engine.swapKeys(101)
    for (const bytes of [older, newer]) made.receive(bytes, homeOf(1))
    made.receive(seal(inner, { packetId: 51 }), homeOf(1))
    made.receive(changed(seal(inner, { packetId: 52 }), -1), homeOf(1))
    assert.equal(made.snapshot(1).vpnRxPackets, 3)
    assert.deepEqual(made.snapshot(1).drops, [
      { reason: 'rx-auth-failed', count: 1 },
      { reason: 'rx-replay', count: 4 },
    ])
  })

  it('a device that takes nothing: lost, and not counted as received', () => {
    const made = rig()
    made.takes = false
    made.receive(seal(inner), homeOf(1))
    const { vpnRxBytes, vpnRxPackets, drops } = made.snapshot(1)
    assert.deepEqual([vpnRxBytes, vpnRxPackets, drops], [0, 0, [{ reason: 'rx-device', count: 1 }]])
    assert.equal(made.engine.stats().rxPackets, 0)
  })

  it('any inner source will do in point-to-point mode', () => {
    const made = rig({ single: true })
    const bytes = build(packet({ source: '203.0.113.77', destination: '224.0.0.1' }))
    made.receive(seal(bytes), homeOf(1))
    assert.deepEqual(made.delivered, [plainPiece(bytes)])
  })
})

describe('Receiver: keys', () => {
  it('either slot opens, by key id', () => {
    const made = rig()
    made.engine.installKey(101, 'secondary', keyConfig(4), made.now)
    made.receive(seal(inner, { keyId: 3 }), homeOf(1))
    made.receive(seal(inner, { keyId: 4 }), homeOf(1))
    made.engine.swapKeys(101)
    made.receive(seal(inner, { keyId: 3, packetId: 11 }), homeOf(1))
    made.receive(seal(inner, { keyId: 4, packetId: 11 }), homeOf(1))
    assert.equal(made.delivered.length, 4)
  })

  it('a swap keeps what was seen; a new key has seen nothing', () => {
    const made = rig()
    made.receive(seal(inner), homeOf(1))
    made.engine.swapKeys(101)
    made.receive(seal(inner), homeOf(1))
    assert.equal(made.delivered.length, 1)
    made.engine.installKey(101, 'secondary', keyConfig(KEY_ID), made.now)
    made.receive(seal(inner), homeOf(1))
    assert.equal(made.delivered.length, 2)
  })

  it('the primary goes first where both have one id', () => {
    const made = rig()
    made.engine.installKey(101, 'secondary', keyConfig(KEY_ID), made.now)
    made.receive(seal(KEEPALIVE_MAGIC, { packetId: 9 }), homeOf(1)) // the secondary would find it new
    assert.deepEqual(made.engine.stats().drops, [{ reason: 'rx-replay', count: 1 }])
  })

  it('a deleted key opens nothing', () => {
    const made = rig()
    made.engine.deleteKey(101, 'primary', made.now)
    made.receive(seal(inner), homeOf(1))
    assert.deepEqual(made.engine.stats().drops, [{ reason: 'rx-no-key', count: 1 }])
  })

  it('key material is wiped even when the peer is gone', () => {
    const made = rig()
    made.engine.removePeer(101)
    const key = keyConfig(4)
    assert.equal(made.engine.installKey(101, 'primary', key, made.now), false)
    const material = [...key.encrypt.cipherKey, ...key.decrypt.cipherKey]
    assert.ok(material.every((byte) => byte === 0))
  })
})

describe('Receiver: where a peer is', () => {
  it('no peer id: found by its address, and never floats', () => {
    const made = rig()
    const anonymous = seal(inner, { id: 0xffffff })
    made.receive(anonymous, homeOf(2)) // sealed for neither: both have the same keys here
    assert.deepEqual(made.engine.stats().drops, [{ reason: 'rx-reverse-path', count: 1 }])
    made.receive(anonymous, homeOf(1))
    assert.deepEqual(made.takeTraces().events, [])
    assert.equal(made.snapshot(1).vpnRxPackets, 1)
  })

  it('each float is told, back and forth, and the anonymous find it there', () => {
    const made = rig()
    made.receive(seal(inner, { packetId: 11 }), ELSEWHERE)
    made.receive(seal(inner, { packetId: 12 }), ELSEWHERE)
    made.receive(seal(inner, { id: 0xffffff, packetId: 13 }), ELSEWHERE)
    made.receive(seal(inner, { packetId: 14 }), homeOf(1))
    made.receive(seal(inner, { id: 0xffffff, packetId: 15 }), ELSEWHERE)
    assert.deepEqual(made.events, ['floated 1 to 198.51.100.7 4242', 'floated 1 to 192.0.2.1 1000'])
    assert.deepEqual(made.engine.stats().drops, [{ reason: 'rx-unknown-peer', count: 1 }])
  })

  it('late packets float too, within the window', () => {
    const made = rig()
    made.receive(seal(inner, { packetId: 8 }), ELSEWHERE)
    assert.deepEqual(made.events, ['floated 1 to 198.51.100.7 4242'])
  })

  it('a port alone, a family alone', () => {
    const made = rig()
    made.receive(seal(inner, { packetId: 11 }), Endpoint.of('192.0.2.1', 1001))
    made.receive(seal(inner, { packetId: 12 }), Endpoint.of('2001:db8::1', 1001, 2))
    assert.deepEqual(made.events, ['floated 1 to 192.0.2.1 1001', 'floated 1 to 2001:db8::1 1001'])
    assert.equal(made.snapshot(1).remote.scope, 2)
  })

  it('an IPv4 peer on a dual-stack socket is where it was', () => {
    const made = rig()
    made.receive(seal(inner), Endpoint.of('::ffff:192.0.2.1', 1000))
    assert.deepEqual(made.events, [])
  })

  it('our address follows the packets, silently', () => {
    const made = rig()
    made.receive(seal(inner), homeOf(1), Endpoint.of('203.0.113.9', 0))
    assert.deepEqual(made.events, [])
    assert.equal(made.snapshot(1).local, '203.0.113.9')
  })

  it('our address is as given, and given up with the peer’s', () => {
    const made = rig()
    const local = { address: '203.0.113.7', port: 0, scope: 0 }
    made.engine.addPeer(peerConfig(6, { local }), made.now)
    assert.equal(made.snapshot(6).local, '203.0.113.7')
    const remote = { address: '192.0.2.66', port: 66, scope: 0 }
    made.engine.changePeer(106, { remote }, made.now)
    assert.deepEqual([made.snapshot(6).local, made.snapshot(6).remote], ['::', remote])
    made.engine.changePeer(106, { remote, local }, made.now)
    assert.equal(made.snapshot(6).local, '203.0.113.7')
    assert.deepEqual(made.events, [])
  })

  it('a new path may take longer trains', () => {
    const made = rig()
    const peer = made.engine.peer(101)!
    const limits = [
      () => made.receive(seal(inner), ELSEWHERE),
      () => {
        const remote = { address: '192.0.2.66', port: 66, scope: 0 }
        made.engine.changePeer(101, { remote }, made.now)
      },
    ].map((move) => {
      peer.trainLimit = 1300
      move()
      return peer.trainLimit
    })
    assert.deepEqual(limits, [Infinity, Infinity])
  })

  it('what a peer sent before it was removed is delivered, and counted', () => {
    const made = rig()
    const packet = seal(inner)
    made.engine.fromLink(made.put(packet), packet.length, homeOf(1), homeOf(9), made.now)
    assert.equal(made.delivered.length, 0)
    made.engine.removePeer(101)
    assert.deepEqual(made.delivered, [plainPiece(inner)])
    assert.equal(made.engine.stats().rxPackets, 1)
  })

  it('a removed peer takes nothing with it', () => {
    const made = rig()
    made.engine.removePeer(101)
    made.receive(seal(inner), ELSEWHERE)
    assert.deepEqual(made.takeTraces(), { delivered: [], sent: [], events: [] })
    assert.deepEqual(made.engine.stats().drops, [{ reason: 'rx-unknown-peer', count: 1 }])
  })
})

describe('Receiver: streams', () => {
  const streaming = () => {
    const made = rig()
    made.engine.addPeer(peerConfig(5, { stream: true, vpnIpv4: '10.8.0.5' }), made.now)
    made.engine.installKey(105, 'primary', keyConfig(KEY_ID), made.now)
    return made
  }
  const own = build(packet({ source: '10.8.0.5' }))

  it('know their peer, whatever id a packet carries', () => {
    const made = streaming()
    made.receiveFrame(seal(own, { id: 77 }), 105)
    assert.deepEqual(made.takeTraces(), { delivered: [plainPiece(own)], sent: [], events: [] })
  })

  const rows: [why: string, frame: Uint8Array, reason: string][] = [
    ['too short', seal(own).slice(0, 20), 'rx-short'],
    ['no such key', seal(own, { keyId: KEY_ID - 1 }), 'rx-no-key'],
    ['forged', changed(seal(own), -1), 'rx-auth-failed'],
    ['another peer’s source', seal(inner), 'rx-reverse-path'],
  ]
  for (const [why, frame, reason] of rows) {
    it(`${why}: ${reason}`, () => {
      const made = streaming()
      made.receiveFrame(frame, 105)
      assert.equal(made.delivered.length, 0)
      assert.deepEqual(made.snapshot(5).drops, [{ reason, count: 1 }])
    })
  }

  it('do not move when a packet of theirs comes as a datagram', () => {
    const made = streaming()
    made.receive(seal(own, { id: 5 }), ELSEWHERE)
    assert.deepEqual(made.events, [])
    assert.equal(made.snapshot(5).remote.address, '192.0.2.5')
  })
})

it('Receiver glues what belongs together, whatever is rejected between', () => {
  const made = rig()
  const flow = [0, 1, 2].map((i) =>
    build(
      packet({
        source: '10.8.0.1',
        id: i,
        sequence: 100 * i,
        payload: new Uint8Array(100).fill(i),
      }),
    ),
  )
  const datagrams = [
    seal(flow[0]!, { packetId: 11 }),
    changed(seal(flow[2]!, { packetId: 14 }), -1),
    seal(flow[1]!, { packetId: 12 }),
    seal(flow[1]!, { packetId: 12 }),
    seal(Uint8Array.of(0x50, ...flow[2]!.slice(1)), { packetId: 15 }),
    seal(build(packet({ source: '10.8.0.2', payload: new Uint8Array(50) })), { packetId: 16 }),
    seal(flow[2]!, { packetId: 14 }),
  ]
  made.receiveAll(datagrams, homeOf(1))
  assert.equal(made.delivered.length, 1)
  assert.deepEqual(packetsOf(made.delivered[0]!), flow)
  assert.equal(made.snapshot(1).vpnRxPackets, 3)
  assert.deepEqual(
    made.snapshot(1).drops.map(({ reason }) => reason),
    ['rx-auth-failed', 'rx-replay', 'rx-malformed', 'rx-reverse-path'],
  )
})

describe('Receiver: epoch keys', () => {
  const [aes, secret] = ['aes-256-gcm', 'aes-gcm'] as const
  const chainOf = (epoch: number) => {
    const chain = new EpochChain(UP.key, 32)
    while (chain.epoch < epoch) chain.advance()
    return chain
  }
  /** A packet of the peer's, whatever the epoch: sealed with that of `keyOf`, or its own. */
  const epochSeal = (epoch: number, counter: number, plaintext = inner, keyOf = epoch) =>
    sealEpoch(
      { cipher: secret, ...chainOf(keyOf).key() },
      { keyId: KEY_ID, peerId: 1, epoch, counter, plaintext },
    )

  /** A peer with an epoch key that has heard the counter 5 of epoch 3, and of epoch 1 before. */
  function epochRig(): Rig {
    const made = new Rig()
    made.engine.addPeer(peerConfig(1), made.now)
    const config = { ...keyConfig(KEY_ID), cipher: aes, format: 'epoch' } as const
    made.engine.installKey(101, 'primary', config, made.now)
    made.receive(epochSeal(1, 5, KEEPALIVE_MAGIC), homeOf(1))
    made.receive(epochSeal(3, 5, KEEPALIVE_MAGIC), homeOf(1))
    assert.deepEqual(made.snapshot(1).drops, [])
    made.takeTraces()
    made.now += 5000
    return made
  }

  const tampered = changed(epochSeal(3, 6), -1)
  const rows: [why: string, datagram: Uint8Array, reason: string | undefined, pulledTo?: number][] =
    [
      ['the next of the epoch', epochSeal(3, 6), undefined],
      ['a late one of the epoch', epochSeal(3, 4), undefined],
      ['the last of the epoch', epochSeal(3, 2 ** 48 - 1), undefined],
      ['one of the next epoch', epochSeal(4, 1), undefined, 4],
      ['one as far ahead as there are keys', epochSeal(19, 1), undefined, 19],
      ['a late one of the retiring epoch', epochSeal(1, 4), undefined],
      ['a new one of the retiring epoch', epochSeal(1, 6), undefined],
      ['a replay', epochSeal(3, 5), 'rx-replay'],
      ['a replay of the retiring epoch', epochSeal(1, 5), 'rx-replay'],
      ['the counter 0', epochSeal(3, 0), 'rx-replay'],
      ['the counter 0 of a new epoch', epochSeal(4, 0), 'rx-replay'],
      ['the epoch 0', epochSeal(0, 6, inner, 1), 'rx-no-key'],
      ['an epoch that was skipped', epochSeal(2, 1), 'rx-no-key'],
      ['one further ahead than there are keys', epochSeal(20, 1), 'rx-no-key'],
      ['the last epoch of all', epochSeal(65535, 1, inner, 3), 'rx-no-key'],
      ['another epoch than that of its key', epochSeal(4, 6, inner, 3), 'rx-auth-failed'],
      ['forged', tampered, 'rx-auth-failed'],
      ['forged: the counter', changed(epochSeal(3, 6), 11), 'rx-auth-failed'],
      ['forged: the peer id', changed(changed(epochSeal(3, 6), 3), 2), 'rx-unknown-peer'],
      ['in the classic form', seal(inner, { packetId: 0x30000 }), 'rx-auth-failed'],
      ['cut short', epochSeal(3, 6).slice(0, -1), 'rx-auth-failed'],
      ['one byte less than the shortest packet', epochSeal(3, 6).slice(0, 27), 'rx-short'],
      ['a header and no epoch', epochSeal(3, 6).slice(0, 4), 'rx-short'],
      ['half an epoch', epochSeal(3, 6).slice(0, 5), 'rx-short'],
      ['nothing inside', epochSeal(3, 6, new Uint8Array(0)), 'rx-malformed'],
    ]
  for (const [why, datagram, reason, pulledTo] of rows) {
    it(`${why}: ${reason ?? 'delivered'}`, () => {
      const made = epochRig()
      made.receive(datagram, homeOf(1))
      const { delivered, events } = made.takeTraces()
      assert.equal(delivered.length, reason === undefined ? 1 : 0)
      assert.deepEqual(
        events,
        pulledTo === undefined ? [] : [`pulled 1 key ${KEY_ID} to epoch ${pulledTo}`],
      )
      const drops = made.engine.stats().drops
      assert.deepEqual(drops, reason === undefined ? [] : [{ reason, count: 1 }])
    })
  }

  it('what is not authentic moves neither the epoch nor the peer', () => {
    const made = epochRig()
    for (let epoch = 0; epoch < 40; epoch++) {
      made.receive(epochSeal(epoch, 9, inner, 50), Endpoint.of('192.0.2.66', 666))
    }
    assert.deepEqual(made.takeTraces(), { delivered: [], sent: [], events: [] })
    made.send(plainPiece(build(packet({ source: '10.8.0.9', destination: '10.8.0.1' }))))
    const [sent] = made.sent
    assert.deepEqual(sent?.bytes.slice(4, 6), Uint8Array.of(0, 3), 'the epoch heard')
    assert.equal(made.snapshot(1).keys[0]?.epoch, 3)
    made.receive(epochSeal(3, 6), homeOf(1))
    assert.equal(made.delivered.length, 1)
  })

  it('a peer that floats does so with an authentic packet of a new epoch, too', () => {
    const made = epochRig()
    made.receive(epochSeal(4, 1), Endpoint.of('192.0.2.66', 666))
    assert.deepEqual(made.takeTraces().events, [
      `pulled 1 key ${KEY_ID} to epoch 4`,
      'floated 1 to 192.0.2.66 666',
    ])
  })

  it('are told apart from others in a snapshot', () => {
    const made = epochRig()
    made.engine.installKey(101, 'secondary', keyConfig(4), made.now)
    const told = made.snapshot(1).keys.map(({ slot, format, epoch }) => [slot, format, epoch])
    assert.deepEqual(told, [
      ['primary', 'epoch', 1],
      ['secondary', 'classic', 0],
    ])
  })

  it('and classic ones serve one peer side by side, by key id', () => {
    const made = epochRig()
    made.engine.installKey(101, 'secondary', keyConfig(4), made.now)
    made.receiveAll([epochSeal(3, 6), seal(inner, { keyId: 4, packetId: 1 })], homeOf(1))
    made.engine.swapKeys(101)
    made.receiveAll([epochSeal(3, 7), seal(inner, { keyId: 4, packetId: 2 })], homeOf(1))
    assert.deepEqual(made.engine.stats().drops, [])
    assert.equal(made.snapshot(1).vpnRxPackets, 4)
  })

  it('near their end are announced once, and work on', () => {
    const made = epochRig()
    const config = { ...keyConfig(4), format: 'epoch', firstEpoch: 0xefff, usageLimit: 1 } as const
    made.engine.installKey(101, 'primary', config, made.now)
    const piece = plainPiece(build(packet({ source: '10.8.0.9', destination: '10.8.0.1' })))
    for (let i = 0; i < 4; i++) made.send(piece)
    const { events, sent } = made.takeTraces()
    assert.deepEqual(events, ['ageing 1 key 4'])
    assert.deepEqual(
      sent.map(({ bytes }) => new DataView(bytes.buffer).getUint16(4)),
      [0xefff, 0xf000, 0xf001, 0xf002],
    )
  })

  it('at their end are gone, as classic ones are', () => {
    const made = epochRig()
    const end = { firstEpoch: 0xffff, firstPacketId: 2 ** 48 - 1 }
    made.engine.installKey(101, 'primary', { ...keyConfig(4), format: 'epoch', ...end }, made.now)
    const piece = plainPiece(build(packet({ source: '10.8.0.9', destination: '10.8.0.1' })))
    for (let i = 0; i < 3; i++) made.send(piece)
    const { events, sent } = made.takeTraces()
    assert.deepEqual([events, sent.length], [['exhausted 1 key 4'], 1])
    assert.deepEqual(made.engine.stats().drops, [
      { reason: 'tx-no-key', count: 1 },
      { reason: 'tx-iv-exhausted', count: 1 },
    ])
  })
})
