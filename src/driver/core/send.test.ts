import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  build,
  buildPiece,
  cut,
  packet,
  plainPiece,
  UDP,
  VNET_BYTES,
} from '../../../test/sim/packets.ts'
import { DOWN, keyConfig, peerConfig, Rig, type Sent } from '../../../test/sim/rig.ts'
import { KEEPALIVE_MAGIC, OVERHEAD_BYTES, openDataV2 } from '../../wire/data.ts'
import { OCC_EXIT } from '../../wire/occ.ts'
import { addressWords } from './address.ts'

const KEY_ID = 3
const payload = new Uint8Array(100).fill(7)
const to = (destination: string, fields = {}) =>
  packet({ source: '10.8.0.99', destination, payload, ...fields })

/** Peers 1 and 2, of which 1 has a key. 192.168.1.0 lies behind peer 1. */
function rig(options: { single?: boolean; firstPacketId?: number } = {}): Rig {
  const { firstPacketId = 1 } = options
  const [gateway, network] = [addressWords('10.8.0.1'), addressWords('192.168.1.0')]
  const made = new Rig({
    single: options.single ?? false,
    routes: (of) => (of[2] === 0xffff && of[3]! >> 8 === network[3]! >> 8 ? gateway : undefined),
  })
  for (const id of options.single ? [1] : [2, 1]) made.engine.addPeer(peerConfig(id), made.now)
  made.engine.installKey(101, 'primary', keyConfig(KEY_ID, { firstPacketId }), made.now)
  made.now += 5000
  return made
}

/** The plaintexts of everything sent, opened; asserts the header of each. */
function opened(sent: Sent[], firstPacketId = 1): Uint8Array[] {
  const plain: Uint8Array[] = []
  for (const { bytes, segment } of sent) {
    for (let at = 0; at < bytes.length; at += segment) {
      const one = openDataV2(DOWN, bytes.slice(at, at + segment))
      assert.ok(one, 'not authentic')
      const { plaintext, ...header } = one
      assert.deepEqual(header, {
        keyId: KEY_ID,
        peerId: 201,
        packetId: firstPacketId + plain.length,
      })
      plain.push(plaintext)
    }
  }
  return plain
}

describe('Sender: what goes to the peer', () => {
  const v6 = { source: 'fd00::99', destination: 'fd00::1' }
  const big = to('10.8.0.1', { payload: new Uint8Array(5000).fill(9) })
  const rows: [why: string, piece: Uint8Array, packets: Uint8Array[]][] = [
    ['IPv4', plainPiece(build(to('10.8.0.1'))), [build(to('10.8.0.1'))]],
    ['IPv6', plainPiece(build(packet(v6))), [build(packet(v6))]],
    ['a destination behind it', plainPiece(build(to('192.168.1.9'))), [build(to('192.168.1.9'))]],
    ['a checksum left to do', buildPiece(to('10.8.0.1'), 1400), [build(to('10.8.0.1'))]],
    ['TCP in one piece', buildPiece(big, 1400), cut(big, 1400).map((one) => build(one))],
    [
      'the shortest IPv4',
      plainPiece(build(to('10.8.0.1')).slice(0, 20)),
      [build(to('10.8.0.1')).slice(0, 20)],
    ],
    [
      'the shortest IPv6',
      plainPiece(build(packet(v6)).slice(0, 40)),
      [build(packet(v6)).slice(0, 40)],
    ],
  ]
  for (const [why, piece, packets] of rows) {
    it(why, () => {
      const made = rig()
      made.send(piece)
      const { sent, events } = made.takeTraces()
      assert.deepEqual(opened(sent), packets)
      assert.deepEqual(events, [])
      // As the kernel counts: one packet for what the stack hands over, all bytes of its segments.
      const bytes = packets.reduce((sum, one) => sum + one.length, 0)
      const after = made.snapshot(1)
      assert.deepEqual([after.vpnTxPackets, after.vpnTxBytes], [1, bytes])
      assert.deepEqual(
        [after.linkTxPackets, after.linkTxBytes],
        [packets.length, bytes + OVERHEAD_BYTES * packets.length],
      )
      assert.deepEqual([after.lastTxMs, after.keys[0]?.lastPacketId], [0, packets.length])
      assert.deepEqual(made.engine.stats(), {
        rxBytes: 0,
        rxPackets: 0,
        txBytes: bytes,
        txPackets: 1,
        drops: [],
      })
    })
  }

  it('one piece leaves as one train', () => {
    const made = rig()
    made.send(buildPiece(big, 1400))
    assert.deepEqual(
      made.sent.map(({ packets, segment }) => [packets, segment]),
      [[4, 1464]],
    )
  })

  it('everything, in point-to-point mode', () => {
    const made = rig({ single: true })
    for (const destination of ['203.0.113.5', '255.255.255.255', '224.0.0.251']) {
      made.send(plainPiece(build(to(destination, { protocol: UDP }))))
    }
    assert.equal(opened(made.sent).length, 3)
  })

  it('a stream: frames behind their lengths, in one message', () => {
    const made = rig()
    made.engine.addPeer(peerConfig(5, { stream: true, vpnIpv4: '10.8.0.5', txId: 201 }), made.now)
    made.engine.installKey(105, 'primary', keyConfig(KEY_ID), made.now)
    const whole = to('10.8.0.5', { payload: new Uint8Array(300).fill(9) })
    made.send(buildPiece(whole, 100))
    assert.equal(made.sent.length, 1)
    const { bytes } = made.sent[0]!
    const view = new DataView(bytes.buffer)
    const plain: Uint8Array[] = []
    for (let at = 0; at < bytes.length; at += 2 + view.getUint16(at)) {
      const one = openDataV2(DOWN, bytes.slice(at + 2, at + 2 + view.getUint16(at)))
      plain.push(one!.plaintext)
    }
    assert.deepEqual(
      plain,
      cut(whole, 100).map((one) => build(one)),
    )
    const { linkTxBytes } = made.snapshot(5)
    assert.equal(linkTxBytes, bytes.length - 2 * plain.length, 'the length is not the packet’s')
  })
})

describe('Sender: what is dropped', () => {
  const whole = build(to('10.8.0.1'))
  const lying = buildPiece(to('10.8.0.1'), 50)
  lying[4] = 0 // segments of no bytes
  const v5 = Uint8Array.of(0x50, ...whole.slice(1))
  const v6 = build(packet({ source: 'fd00::99', destination: 'fd00::1' }))
  // The peer that the loss is counted to, if one is known by then; whether its vpn counters rose before.
  type Row = [
    why: string,
    piece: Uint8Array,
    reason: string,
    peer: 1 | 2 | undefined,
    counted: boolean,
  ]
  const rows: Row[] = [
    ['nothing', plainPiece(new Uint8Array(0)), 'tx-malformed', undefined, false],
    ['19 bytes', plainPiece(whole.slice(0, 19)), 'tx-malformed', undefined, false],
    ['39 bytes of IPv6', plainPiece(v6.slice(0, 39)), 'tx-malformed', undefined, false],
    ['another version of IP', plainPiece(v5), 'tx-malformed', undefined, false],
    ['an offload header that does not fit', lying, 'tx-malformed', 1, false],
    ['nobody’s address', plainPiece(build(to('10.8.0.3'))), 'tx-no-peer', undefined, false],
    [
      'nobody’s IPv6 address',
      plainPiece(build(packet({ source: '::1', destination: 'fd00::9' }))),
      'tx-no-peer',
      undefined,
      false,
    ],
    ['broadcast', plainPiece(build(to('255.255.255.255'))), 'tx-no-peer', undefined, false],
    ['multicast', plainPiece(build(to('224.0.0.1'))), 'tx-no-peer', undefined, false],
    ['a peer without a key', plainPiece(build(to('10.8.0.2'))), 'tx-no-key', 2, true],
    [
      'more than a datagram holds',
      plainPiece(build(to('10.8.0.1', { payload: new Uint8Array(65444) }))),
      'tx-oversized',
      1,
      true,
    ],
  ]
  for (const [why, piece, reason, peer, counted] of rows) {
    it(`${why}: ${reason}`, () => {
      const made = rig()
      made.send(piece)
      assert.deepEqual(made.takeTraces(), { delivered: [], sent: [], events: [] })
      const packets = counted ? 1 : 0
      const bytes = counted ? piece.length - VNET_BYTES : 0
      assert.deepEqual(made.engine.stats(), {
        rxBytes: 0,
        rxPackets: 0,
        txBytes: bytes,
        txPackets: packets,
        drops: [{ reason, count: 1 }],
      })
      for (const id of [1, 2] as const) {
        const { vpnTxPackets, linkTxPackets, lastTxMs, drops } = made.snapshot(id)
        assert.deepEqual(
          { vpnTxPackets, linkTxPackets, lastTxMs, drops },
          {
            vpnTxPackets: id === peer ? packets : 0,
            linkTxPackets: 0,
            lastTxMs: undefined,
            drops: id === peer ? [{ reason, count: 1 }] : [],
          },
        )
      }
    })
  }

  it('the largest datagram is sent', () => {
    const made = rig()
    made.send(plainPiece(build(to('10.8.0.1', { payload: new Uint8Array(65443) }))))
    assert.deepEqual(
      made.sent.map(({ bytes }) => bytes.length),
      [65507],
    )
  })
})

describe('Sender: a cipher that fails', () => {
  it('loses the packet', () => {
    const made = rig()
    const { primary } = made.engine.peer(101)!
    const failing = Object.assign(Object.create(primary!), { seal: () => -1, overhead: 24 })
    made.engine.peer(101)!.setKey('primary', failing)
    made.send(plainPiece(build(to('10.8.0.1'))))
    assert.deepEqual(made.takeTraces(), { delivered: [], sent: [], events: [] })
    assert.deepEqual(made.engine.stats().drops, [{ reason: 'tx-seal-failed', count: 1 }])
  })
})

describe('Sender: the end of the packet ids', () => {
  const first = 0xfffffffe
  const train = to('10.8.0.1', { payload: new Uint8Array(500).fill(1) })

  it('the last is used, then the key is gone, and told once', () => {
    const made = rig({ firstPacketId: first })
    made.engine.installKey(101, 'secondary', keyConfig(4), made.now)
    made.send(buildPiece(train, 100))
    assert.equal(opened(made.sent, first).length, 2)
    assert.deepEqual(made.events, [`exhausted 1 key ${KEY_ID}`])
    assert.deepEqual(made.snapshot(1).drops, [
      { reason: 'tx-no-key', count: 2 },
      { reason: 'tx-iv-exhausted', count: 1 },
    ])
    assert.deepEqual(
      made.snapshot(1).keys.map(({ slot, keyId }) => [slot, keyId]),
      [['secondary', 4]],
    )
  })

  it('another key makes it go on', () => {
    const made = rig({ firstPacketId: 0xffffffff })
    const piece = () => plainPiece(build(to('10.8.0.1')))
    made.engine.installKey(101, 'secondary', keyConfig(4), made.now)
    made.send(piece())
    made.send(piece())
    made.send(piece())
    assert.equal(made.sent.length, 1)
    made.engine.swapKeys(101)
    made.send(piece())
    assert.equal(made.sent.length, 2)
  })

  it('a keepalive may be what wears it out', () => {
    const made = rig({ firstPacketId: 0xffffffff })
    const keepalive = { interval: 1, timeout: 100 }
    made.send(plainPiece(build(to('10.8.0.1'))))
    made.engine.changePeer(101, { keepalive }, made.now)
    made.now += 1000
    made.engine.onDeadline(made.now)
    assert.deepEqual(made.events, [`exhausted 1 key ${KEY_ID}`])
    made.now += 1000
    made.engine.onDeadline(made.now)
    assert.equal(made.events.length, 1)
  })
})

describe('Sender: messages inside the data channel', () => {
  it('are sealed as packets are, and count for the link and its age only', () => {
    const made = rig()
    made.now += 5000
    assert.equal(made.engine.sendInside(101, OCC_EXIT, made.now), true)
    assert.deepEqual(opened(made.sent), [OCC_EXIT])
    const { linkTxPackets, lastTxMs, vpnTxPackets, vpnTxBytes } = made.snapshot(1)
    assert.deepEqual([linkTxPackets, lastTxMs, vpnTxPackets, vpnTxBytes], [1, 0, 0, 0])
  })

  it('go nowhere without a key or a peer', () => {
    const made = rig()
    made.engine.deleteKey(101, 'primary', made.now)
    assert.equal(made.engine.sendInside(101, OCC_EXIT, made.now), false)
    assert.equal(made.engine.sendInside(999, OCC_EXIT, made.now), false)
    assert.deepEqual(made.sent, [])
  })
})

describe('Sender: keepalives', () => {
  it('count for the link and its age only', () => {
    const made = rig()
    made.engine.changePeer(101, { keepalive: { interval: 10, timeout: 60 } }, made.now)
    assert.equal(made.engine.deadline(), made.now + 10_000)
    made.now += 10_000
    made.engine.onDeadline(made.now)
    assert.deepEqual(opened(made.sent), [KEEPALIVE_MAGIC])
    const after = made.snapshot(1)
    assert.deepEqual(
      [
        after.linkTxPackets,
        after.linkTxBytes,
        after.lastTxMs,
        after.vpnTxPackets,
        after.vpnTxBytes,
      ],
      [1, 40, 0, 0, 0],
    )
    assert.equal(made.engine.stats().txPackets, 0)
  })

  it('are not sent without a key, and tried again an interval later', () => {
    const made = rig()
    made.engine.changePeer(102, { keepalive: { interval: 10, timeout: 60 } }, made.now)
    made.now += 10_000
    made.engine.onDeadline(made.now)
    assert.deepEqual([made.sent.length, made.snapshot(2).drops], [0, []])
    made.engine.installKey(102, 'primary', keyConfig(KEY_ID), made.now)
    made.now += 10_000
    made.engine.onDeadline(made.now)
    assert.equal(made.sent.length, 1)
  })

  it('a peer that is gone takes keys, addresses and timer with it', () => {
    const made = rig()
    made.engine.changePeer(101, { keepalive: { interval: 10, timeout: 30 } }, made.now)
    for (let i = 0; i < 3; i++) {
      made.now += 10_000
      made.engine.onDeadline(made.now)
    }
    assert.deepEqual(made.takeTraces().events, ['expired 1'])
    assert.equal(made.engine.peer(101), undefined)
    assert.equal(made.engine.deadline(), Infinity)
    made.send(plainPiece(build(to('10.8.0.1'))))
    assert.deepEqual(made.engine.stats().drops, [{ reason: 'tx-no-peer', count: 1 }])
  })
})

it('Sender sends before its outbox overflows, and loses nothing', () => {
  const made = rig()
  const whole = to('10.8.0.1', { payload: new Uint8Array(60000).fill(3) })
  const pieces = 12
  for (let i = 0; i < pieces; i++)
    made.engine.fromDevice(made.put(buildPiece(whole, 1400)), 60040, 0)
  assert.ok(made.sent.length > 0, 'nothing was sent yet')
  made.engine.transmit()
  const packets = cut(whole, 1400).map((one) => build(one))
  assert.deepEqual(opened(made.sent), new Array(pieces).fill(packets).flat())
})

describe('Keys leave memory when their slot does', () => {
  // A key is two ciphers, one a direction; peer 1 has two keys.
  const rows: [why: string, left: number, act: (made: Rig) => void][] = [
    ['all are there', 4, () => {}],
    ['swapped', 4, (made) => made.engine.swapKeys(101)],
    ['deleted', 2, (made) => made.engine.deleteKey(101, 'secondary', made.now)],
    [
      'deleted twice',
      2,
      (made) => [1, 2].map(() => made.engine.deleteKey(101, 'primary', made.now)),
    ],
    ['replaced', 4, (made) => made.engine.installKey(101, 'primary', keyConfig(5), made.now)],
    ['worn out', 2, (made) => [1, 2].map(() => made.send(plainPiece(build(to('10.8.0.1')))))],
    ['the peer removed', 0, (made) => made.engine.removePeer(101)],
    ['all forgotten', 0, (made) => made.engine.close()],
  ]
  for (const [why, left, act] of rows) {
    it(`${why}: ${left}`, () => {
      const made = rig({ firstPacketId: 0xffffffff })
      made.engine.installKey(101, 'secondary', keyConfig(4), made.now)
      act(made)
      assert.equal(made.ciphers, left)
    })
  }
})
