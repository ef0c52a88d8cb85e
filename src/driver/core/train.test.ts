import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { createMemory } from '../../../test/sim/memory.ts'
import {
  build,
  buildPiece,
  cut,
  Flag,
  Gso,
  hasRightChecksums,
  type Packet,
  packet,
  packetsOf,
  parse,
  plainPiece,
  TCP,
  UDP,
  VNET_BYTES,
} from '../../../test/sim/packets.ts'
import { Peer } from './peer.ts'
import { CUTTER_BYTES, Cutter, GLUER_BYTES, Gluer, MAX_PACKET } from './train.ts'
import { DropCounters, type Verdict } from './verdict.ts'

const V6 = { source: 'fd00::2', destination: 'fd00::1' }
const timestamps = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 7)

const withHopByHop = { extension: 0, extensions: Uint8Array.of(TCP, 0, 1, 4, 0, 0, 0, 0) }

const bytesOf = (length: number, seed = 1) => new Random(seed).bytes(length)

/** Puts `piece` at the very end of a memory full of `fill` and cuts it; undefined: refused. */
function cutPiece(piece: Uint8Array, fill = 0): Uint8Array[] | undefined {
  const before = 1024
  const memory = createMemory(before + piece.length)
  const cutter = new Cutter(memory, memory.area(CUTTER_BYTES, 16))
  memory.u8.fill(fill, CUTTER_BYTES)
  memory.u8.set(piece, before)
  const packets: Uint8Array[] = []
  if (!cutter.begin(before, piece.length - VNET_BYTES)) return undefined
  while (cutter.next()) {
    assert.ok(cutter.offset >= before + VNET_BYTES, 'a packet begins before the piece')
    assert.ok(cutter.offset + cutter.length <= before + piece.length, 'a packet ends behind it')
    packets.push(memory.u8.slice(cutter.offset, cutter.offset + cutter.length))
  }
  const around = memory.u8.subarray(CUTTER_BYTES, before)
  assert.ok(
    around.every((byte) => byte === fill),
    'written before the piece',
  )
  return packets
}

describe('Cutter', () => {
  const rows: [why: string, whole: Partial<Packet>, size: number][] = [
    ['TCP over IPv4', { payload: bytesOf(5000) }, 1400],
    ['TCP over IPv6', { ...V6, flowLabel: 0xabcde, tos: 0xb8, payload: bytesOf(5000) }, 1400],
    ['whole segments only', { payload: bytesOf(2800) }, 1400],
    ['the last has one byte', { payload: bytesOf(2801) }, 1400],
    ['odd segments', { payload: bytesOf(4001) }, 999],
    ['segments shorter than their header', { payload: bytesOf(100) }, 7],
    ['segments of one byte', { ...V6, payload: bytesOf(64) }, 1],
    ['TCP options', { tcpOptions: timestamps, payload: bytesOf(3000) }, 1448],
    ['all 40 bytes of TCP options', { ...V6, tcpOptions: bytesOf(40), payload: bytesOf(300) }, 100],
    ['PSH is for the last one', { flags: Flag.Ack | Flag.Psh, payload: bytesOf(30) }, 10],
    ['FIN too', { flags: Flag.Ack | Flag.Fin, payload: bytesOf(30) }, 10],
    ['CWR is for the first', { flags: Flag.Ack | Flag.Cwr | Flag.Psh, payload: bytesOf(30) }, 10],
    ['ECE is for all', { flags: Flag.Ack | Flag.Ece, tos: 1, payload: bytesOf(30) }, 10],
    [
      'URG and its pointer are for all',
      { flags: Flag.Ack | Flag.Urg, urgent: 5, payload: bytesOf(30) },
      10,
    ],
    ['the sequence wraps', { sequence: 2 ** 32 - 15, payload: bytesOf(30) }, 10],
    ['the sequence passes the sign', { sequence: 2 ** 31 - 15, payload: bytesOf(30) }, 10],
    ['the identification wraps', { id: 0xfffe, dontFragment: false, payload: bytesOf(50) }, 10],
    ['IP options', { ipOptions: Uint8Array.of(0x94, 4, 0, 0), payload: bytesOf(300) }, 100],
    ['all 40 bytes of IP options', { ipOptions: bytesOf(40), payload: bytesOf(300) }, 100],
    [
      'IPv6 extension headers',
      {
        ...V6,
        extension: 60,
        extensions: Uint8Array.of(TCP, 0, 1, 4, 0, 0, 0, 0),
        payload: bytesOf(300),
      },
      100,
    ],
    ['UDP over IPv4', { protocol: UDP, payload: bytesOf(5000) }, 1472],
    ['UDP over IPv6', { ...V6, protocol: UDP, payload: bytesOf(5001) }, 999],
    ['UDP of one byte each', { protocol: UDP, payload: bytesOf(9) }, 1],
    ['the longest packet', { payload: bytesOf(MAX_PACKET - 40) }, 1400],
    ['one packet, its checksum left to do: TCP', { payload: bytesOf(77) }, 1400],
    [
      'one packet, its checksum left to do: UDP',
      { ...V6, protocol: UDP, payload: bytesOf(77) },
      1400,
    ],
    ['nothing but a header', { flags: Flag.Syn, tcpOptions: timestamps }, 1400],
    [
      'UDP checksums of segments that come out as 0',
      { protocol: UDP, payload: Uint8Array.of(...udpSummingToZero(), ...udpSummingToZero()) },
      2,
    ],
    ['a UDP checksum that comes out as 0', { protocol: UDP, payload: udpSummingToZero() }, 1400],
  ]
  for (const [why, fields, size] of rows) {
    it(why, () => {
      const whole = packet(fields)
      const expected = whole.payload.length > size ? cut(whole, size) : [whole]
      const packets = cutPiece(buildPiece(whole, size))
      assert.deepEqual(
        packets,
        expected.map((one) => build(one)),
      )
      assert.ok(packets!.length > 1 || whole.payload.length <= size)
    })
  }

  it('leaves a packet without offloads as it is', () => {
    const bytes = bytesOf(100)
    bytes[0] = 0x45
    assert.deepEqual(cutPiece(plainPiece(bytes)), [bytes])
  })

  it('cuts random packets as the slow way does', () => {
    const random = new Random(7)
    for (let i = 0; i < 400; i++) {
      const v6 = random.below(2) === 0
      const udp = random.below(3) === 0
      const size = 1 + random.below(random.below(2) === 0 ? 40 : 1500)
      const whole = packet({
        ...(v6 ? V6 : {}),
        protocol: udp ? UDP : TCP,
        id: random.below(65536),
        tos: random.below(256),
        flags: Flag.Ack | random.below(256),
        sequence: random.below(2 ** 32),
        ipOptions: v6 ? new Uint8Array(0) : random.bytes(4 * random.below(3)),
        tcpOptions: random.bytes(4 * random.below(11)),
        payload: random.bytes(1 + random.below(12) * size + random.below(size)),
      })
      const expected = whole.payload.length > size ? cut(whole, size) : [whole]
      assert.deepEqual(
        cutPiece(buildPiece(whole, size)),
        expected.map((one) => build(one)),
        `${i}`,
      )
    }
  })
})

/** A payload with which the checksum of a UDP packet that is `packet()` otherwise comes out as 0. */
function udpSummingToZero(): Uint8Array {
  const view = new DataView(build(packet({ protocol: UDP, payload: new Uint8Array(2) })).buffer)
  const checksum = view.getUint16(26)
  return Uint8Array.of(checksum >> 8, checksum & 0xff)
}

describe('Cutter, when header and packet do not fit each other', () => {
  const piece = (fields: Partial<Packet>, change: (vnet: DataView, ip: Uint8Array) => void) => {
    const bytes = buildPiece(packet(fields), 100)
    change(new DataView(bytes.buffer), bytes.subarray(VNET_BYTES))
    return bytes
  }
  const payload = bytesOf(300)
  const rows: [why: string, piece: Uint8Array][] = [
    [
      'a type that nobody asked for: UDP fragmentation',
      piece({ payload }, (vnet) => vnet.setUint8(1, 3)),
    ],
    ['a type that does not exist', piece({ payload }, (vnet) => vnet.setUint8(1, 0x7f))],
    ['segments without a checksum to do', piece({ payload }, (vnet) => vnet.setUint8(0, 0))],
    ['segments of no bytes', piece({ payload }, (vnet) => vnet.setUint16(4, 0, true))],
    [
      'TCP for IPv4 in an IPv6 packet',
      piece({ ...V6, payload }, (vnet) => vnet.setUint8(1, Gso.TcpV4)),
    ],
    ['TCP for IPv6 in an IPv4 packet', piece({ payload }, (vnet) => vnet.setUint8(1, Gso.TcpV6))],
    ['TCP begins inside the IP header', piece({ payload }, (vnet) => vnet.setUint16(6, 16, true))],
    [
      'TCP begins inside the IPv6 header',
      piece({ ...V6, payload }, (vnet) => vnet.setUint16(6, 20, true)),
    ],
    ['TCP begins behind the packet', piece({ payload }, (vnet) => vnet.setUint16(6, 60000, true))],
    ['TCP begins at its end', piece({ payload }, (vnet) => vnet.setUint16(6, 340, true))],
    ['headers longer than any', piece({ ...V6, payload }, (vnet) => vnet.setUint16(6, 245, true))],
    ['an IP header longer than stated', piece({ payload }, (_, ip) => ip.fill(0x4f, 0, 1))],
    ['an IP header of no length', piece({ payload }, (_, ip) => ip.fill(0x40, 0, 1))],
    ['a TCP header shorter than any', piece({ payload }, (_, ip) => ip.fill(0x40, 32, 33))],
    ['a TCP header as long as the packet', piece({ payload: bytesOf(1) }, tcpHeaderToTheEnd)],
    ['a checksum behind the packet', piece({}, (vnet) => vnet.setUint16(8, 19, true))],
    ['a checksum far behind the packet', piece({}, (vnet) => vnet.setUint16(8, 0xffff, true))],
    ['a checksum of nothing, far behind', piece({}, (vnet) => vnet.setUint16(6, 0xffff, true))],
  ]
  for (const [why, bytes] of rows) {
    it(why, () => assert.equal(cutPiece(bytes), undefined))
  }

  it('never looks or writes outside, whatever the header says', () => {
    const random = new Random(11)
    let cutUp = 0
    for (let i = 0; i < 20000; i++) {
      const v6 = random.below(2) === 0
      const protocol = random.below(2) === 0 ? TCP : UDP
      const fields = { ...(v6 ? V6 : {}), protocol, payload: random.bytes(random.below(60)) }
      const bytes = buildPiece(packet(fields), 1 + random.below(20))
      for (let n = 1 + random.below(4); n > 0; n--) {
        // Mostly the virtio_net_hdr, and the bytes that tell lengths and protocols; never the version.
        const at = random.below(3) > 0 ? random.below(VNET_BYTES) : VNET_BYTES + random.below(60)
        const value = random.below(2) === 0 ? random.below(256) : random.below(64)
        if (at === VNET_BYTES) bytes[at] = (bytes[at]! & 0xf0) | (value & 15)
        else if (at < bytes.length) bytes[at] = value
      }
      // What lies around the piece must make no difference.
      const packets = cutPiece(bytes, 0)
      assert.deepEqual(cutPiece(bytes, 0xff), packets, `${i}`)
      if (packets !== undefined && packets.length > 1) cutUp++
    }
    assert.ok(cutUp > 1000, `${cutUp} cut: the run tells nothing`)
  })
})

function tcpHeaderToTheEnd(vnet: DataView, ip: Uint8Array): void {
  vnet.setUint8(1, Gso.TcpV4)
  vnet.setUint16(4, 1, true)
  ip[32] = 0x60
}

/** A Gluer that opens packets by copying them, and everything it wrote. */
function gluer(options: { udp?: boolean; takes?: boolean } = {}) {
  const guard = 64
  const memory = createMemory(GLUER_BYTES + 2 * guard)
  memory.u8.fill(0xa5)
  const pieces: Uint8Array[] = []
  const counters = {
    rxPackets: 0,
    rxBytes: 0,
    drops: new DropCounters(),
    drop(verdict: Verdict, _peer: Peer | undefined, count: number) {
      counters.drops.add(verdict, count)
    },
  }
  const glue = new Gluer({
    memory,
    area: guard,
    udp: options.udp ?? true,
    write(offset, length) {
      pieces.push(memory.u8.slice(offset, offset + length))
      return options.takes ?? true
    },
    counters,
  })
  /** What happens to an opened packet: `accept` it from a peer, or reject it, its place full of garbage. */
  const feed = (bytes: Uint8Array, from: Peer | undefined) => {
    const at = glue.place(bytes.length)
    assert.ok(at >= guard && at + bytes.length <= guard + GLUER_BYTES)
    memory.u8.set(bytes, at)
    if (from === undefined) glue.reject()
    else glue.accept(bytes.length, from)
  }
  const checkGuards = () => {
    const { u8 } = memory
    const around = [...u8.subarray(0, guard), ...u8.subarray(guard + GLUER_BYTES)]
    assert.ok(
      around.every((byte) => byte === 0xa5),
      'written outside the area',
    )
  }
  return { glue, feed, pieces, counters, checkGuards }
}

const peerOf = (id: number) =>
  new Peer(
    {
      handle: id,
      id,
      txId: id,
      transport: 1,
      stream: false,
      keepaliveRule: 'together',
      keepaliveInterval: 0,
      keepaliveTimeout: 0,
    },
    0,
  )

/** The packet that follows `of` in its flow. */
function following(of: Packet, fields: Partial<Packet> = {}): Packet {
  return {
    ...of,
    id: (of.id + 1) % 0x10000,
    sequence: (of.sequence + of.payload.length) % 2 ** 32,
    payload: bytesOf(of.payload.length, of.id),
    ...fields,
  }
}

describe('Gluer: which two packets become one piece', () => {
  const payload = bytesOf(100)
  const tcp = packet({ payload })
  const tcp6 = packet({ ...V6, payload })
  const stamped = packet({ payload, tcpOptions: timestamps })
  const udp = packet({ protocol: UDP, payload })
  const udp6 = packet({ ...V6, protocol: UDP, payload })
  const noDf = packet({ payload, dontFragment: false })
  // Opened 34 bytes on, its window would meet its own first two bytes, and its urgent pointer its identification.
  const short = packet({ payload: bytesOf(34) })
  const lookalike = { window: 0x4500, id: 0 }
  const laterStamp = Uint8Array.from(timestamps)
  laterStamp[7] = 10
  const broken = (of: Packet, at: number) => {
    const bytes = build(of)
    bytes[at]! ^= 1
    return bytes
  }
  type Row = [why: string, glued: boolean, first: Packet | Uint8Array, second: Packet | Uint8Array]
  const rows: Row[] = [
    ['the next of a TCP flow', true, tcp, following(tcp)],
    ['the next, over IPv6', true, tcp6, following(tcp6)],
    ['the next, with the same timestamps', true, stamped, following(stamped)],
    ['the next is shorter', true, tcp, following(tcp, { payload: bytesOf(1) })],
    ['the next has PSH', true, tcp, following(tcp, { flags: Flag.Ack | Flag.Psh })],
    ['the sequence wraps', true, ...wrapping(tcp)],
    ['the same identification where it means nothing', true, tcp, following(tcp, { id: 1 })],
    ['the next identification where it means something', true, noDf, following(noDf)],
    ['the next of a UDP flow', true, udp, following(udp)],
    ['the next of a UDP flow, over IPv6', true, udp6, following(udp6)],
    ['a shorter one of a UDP flow', true, udp, following(udp, { payload: bytesOf(99) })],

    ['longer than the first', false, tcp, following(tcp, { payload: bytesOf(101) })],
    ['no payload', false, tcp, following(tcp, { payload: bytesOf(0) })],
    ['the first has no payload', false, packet(), following(packet(), { payload })],
    ['a gap', false, tcp, following(tcp, { sequence: 1101 })],
    ['the same again', false, tcp, tcp],
    ['another acknowledgement', false, tcp, following(tcp, { acknowledgement: 2001 })],
    ['another window', false, tcp, following(tcp, { window: 513 })],
    ['another window, that of the bytes that lie there', false, short, following(short, lookalike)],
    ['another source port', false, tcp, following(tcp, { sourcePort: 40001 })],
    ['another destination port', false, tcp, following(tcp, { destinationPort: 5202 })],
    ['another source', false, tcp, following(tcp, { source: '10.8.0.3' })],
    ['another destination', false, tcp, following(tcp, { destination: '10.8.0.3' })],
    ['another IPv6 source', false, tcp6, following(tcp6, { source: 'fe00::2' })],
    ['another IPv6 destination', false, tcp6, following(tcp6, { destination: 'fd00::1:0:1' })],
    ['another family', false, tcp, following(tcp6)],
    ['another protocol', false, tcp, udp],
    ['another TOS', false, tcp, following(tcp, { tos: 4 })],
    ['congestion met on the way', false, packet({ payload, tos: 2 }), following(tcp, { tos: 3 })],
    ['another TTL', false, tcp, following(tcp, { ttl: 63 })],
    ['another traffic class', false, tcp6, following(tcp6, { tos: 4 })],
    ['another hop limit', false, tcp6, following(tcp6, { ttl: 63 })],
    ['another flow label', false, tcp6, following(tcp6, { flowLabel: 1 })],
    ['may be fragmented, the first not', false, tcp, following(tcp, { dontFragment: false })],
    ['a gap of identifications that mean something', false, noDf, following(noDf, { id: 3 })],
    [
      'a first fragment',
      false,
      packet({ payload, dontFragment: false, moreFragments: true }),
      following(noDf),
    ],
    ['then a first fragment', false, noDf, following(noDf, { moreFragments: true })],
    ['then a later fragment', false, noDf, following(noDf, { fragmentOffset: 9 })],
    ['IP options', false, ...both(tcp, { ipOptions: Uint8Array.of(1, 1, 1, 0) })],
    ['the evil bit', false, ...both(noDf, {}, (ip) => setIpFlag(ip, 0x80))],
    ['other timestamps', false, stamped, following(stamped, { tcpOptions: laterStamp })],
    ['no timestamps any more', false, stamped, following(stamped, { tcpOptions: bytesOf(0) })],
    ['the first has PSH', false, packet({ payload, flags: Flag.Ack | Flag.Psh }), following(tcp)],
    ['FIN', false, tcp, following(tcp, { flags: Flag.Ack | Flag.Fin })],
    ['SYN', false, tcp, following(tcp, { flags: Flag.Ack | Flag.Syn })],
    ['RST', false, tcp, following(tcp, { flags: Flag.Ack | Flag.Rst })],
    ['no ACK', false, tcp, following(tcp, { flags: 0 })],
    ['URG', false, tcp, following(tcp, { flags: Flag.Ack | Flag.Urg })],
    ['another urgent pointer', false, tcp, following(tcp, { urgent: 1 })],
    ['ECE', false, tcp, following(tcp, { flags: Flag.Ack | Flag.Ece })],
    ['ECE in both', false, ...both(tcp, { flags: Flag.Ack | Flag.Ece })],
    ['CWR', false, tcp, following(tcp, { flags: Flag.Ack | Flag.Cwr })],
    ['CWR in the first', false, packet({ payload, flags: Flag.Ack | Flag.Cwr }), following(tcp)],
    ['FIN in both', false, ...both(tcp, { flags: Flag.Ack | Flag.Fin })],
    ['a reserved bit', false, tcp, following(tcp, { reserved: 1 })],
    ['a reserved bit in both', false, ...both(tcp, { reserved: 1 })],
    ['a wrong TCP checksum', false, tcp, broken(following(tcp), 36)],
    ['a changed byte', false, tcp, broken(following(tcp), 90)],
    ['a wrong checksum first', false, broken(tcp, 90), following(tcp)],
    ['a wrong TCP checksum over IPv6', false, tcp6, broken(following(tcp6), 130)],
    ['a wrong IP checksum', false, tcp, broken(following(tcp), 10)],
    ['a wrong IP checksum first', false, broken(tcp, 10), following(tcp)],
    ['a wrong UDP checksum', false, udp, broken(following(udp), 26)],
    ['no UDP checksum', false, udp, withoutUdpChecksum(following(udp))],
    ['no UDP checksum in both', false, withoutUdpChecksum(udp), withoutUdpChecksum(following(udp))],
    ['a UDP length that is not the packet’s', false, udp, lyingUdp(following(udp))],
    ['bytes behind the packet', false, tcp, trailing(following(tcp))],
    ['bytes behind the first', false, trailing(tcp), following(tcp)],
    ['bytes behind an IPv6 packet', false, tcp6, trailing(following(tcp6))],
    ['IPv6 extension headers', false, ...both(tcp6, withHopByHop)],
    ['neither TCP nor UDP', false, ...both(tcp, { protocol: 47 })],
  ]
  for (const [why, glued, first, second] of rows) {
    it(`${why}: ${glued}`, () => {
      const { glue, feed, pieces, checkGuards } = gluer()
      const from = peerOf(1)
      const bytes = [first, second].map((one) => (one instanceof Uint8Array ? one : build(one)))
      for (const one of bytes) feed(one, from)
      glue.flush()
      checkGuards()
      assert.equal(pieces.length, glued ? 1 : 2)
      if (glued) sameButIds(pieces.flatMap(packetsOf), bytes)
      else assert.deepEqual(pieces, bytes.map(plainPiece))
    })
  }

  it('not from two peers', () => {
    const { glue, feed, pieces } = gluer()
    feed(build(tcp), peerOf(1))
    feed(build(following(tcp)), peerOf(2))
    glue.flush()
    assert.deepEqual(
      pieces,
      [tcp, following(tcp)].map((one) => plainPiece(build(one))),
    )
  })

  it('no UDP where the device takes none', () => {
    const { glue, feed, pieces } = gluer({ udp: false })
    const from = peerOf(1)
    for (const one of [udp, following(udp), tcp, following(tcp)]) feed(build(one), from)
    glue.flush()
    assert.deepEqual(
      pieces.map((piece) => packetsOf(piece).length),
      [1, 1, 2],
    )
  })
})

function both(
  of: Packet,
  fields: Partial<Packet>,
  change?: (ip: Uint8Array) => void,
): [Uint8Array, Uint8Array] {
  const first = { ...of, ...fields }
  const pair: [Uint8Array, Uint8Array] = [build(first), build(following(first))]
  if (change !== undefined) for (const one of pair) change(one)
  return pair
}

function wrapping(of: Packet): [Packet, Packet] {
  const first = { ...of, sequence: 2 ** 32 - 50 }
  return [first, following(first)]
}

/** Sets a flag in byte 6 of an IPv4 header, and mends the checksum. */
function setIpFlag(ip: Uint8Array, flag: number): void {
  const view = new DataView(ip.buffer)
  ip[6]! |= flag
  view.setUint16(10, 0)
  let sum = 0
  for (let i = 0; i < 20; i += 2) sum += view.getUint16(i)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  view.setUint16(10, ~sum & 0xffff)
}

function withoutUdpChecksum(of: Packet): Uint8Array {
  const bytes = build(of)
  bytes.fill(0, 26, 28)
  return bytes
}

/** A datagram whose UDP header says less than there is; its checksum is right for what it says. */
function lyingUdp(of: Packet): Uint8Array {
  const bytes = build({ ...of, payload: of.payload.slice(0, -2) })
  const longer = new Uint8Array(bytes.length + 2)
  longer.set(bytes)
  new DataView(longer.buffer).setUint16(2, longer.length)
  setIpFlag(longer, 0)
  return longer
}

function trailing(of: Packet): Uint8Array {
  const bytes = build(of)
  const longer = new Uint8Array(bytes.length + 2)
  longer.set(bytes)
  return longer
}

/** Asserts equality, the identification of packets that are never fragmented aside (RFC 6864, 4.1). */
function sameButIds(actual: Uint8Array[], expected: Uint8Array[]): void {
  const same = actual.map((bytes, i) => {
    const one = parse(bytes)
    const id = one.dontFragment && expected[i] !== undefined ? parse(expected[i]).id : one.id
    return build({ ...one, id })
  })
  assert.deepEqual(same, expected)
}

describe('Gluer: how much becomes one piece', () => {
  const flow = (first: Packet, count: number, last: Partial<Packet> = {}): Packet[] => {
    const packets = [first]
    while (packets.length < count) {
      packets.push(
        following(packets[packets.length - 1]!, packets.length === count - 1 ? last : {}),
      )
    }
    return packets
  }
  const full = packet({ payload: bytesOf(1400) })
  const rows: [why: string, packets: Packet[], pieces: number[]][] = [
    ['as much as a packet can hold', flow(full, 50), [46, 4]],
    ['one byte more than that', flow(packet({ payload: bytesOf(8187) }), 8), [7, 1]],
    ['to the very byte', flow(packet({ payload: bytesOf(13099) }), 6), [5, 1]],
    [
      'a shorter one ends the piece',
      [...flow(full, 3, { payload: bytesOf(7) }), ...flow(full, 2)],
      [3, 2],
    ],
    [
      'PSH ends the piece',
      [...flow(full, 3, { flags: Flag.Ack | Flag.Psh }), ...flow(full, 2)],
      [3, 2],
    ],
    ['64 UDP datagrams', flow(packet({ protocol: UDP, payload: bytesOf(100) }), 130), [64, 64, 2]],
    [
      'a shorter datagram ends the piece',
      flow(packet({ protocol: UDP, payload: bytesOf(100) }), 3).concat(
        flow(packet({ protocol: UDP, payload: bytesOf(99) }), 2),
      ),
      [4, 1],
    ],
    ['IPv6', flow(packet({ ...V6, payload: bytesOf(1400) }), 50), [46, 4]],
    [
      'the largest packet stays alone',
      flow(packet({ payload: bytesOf(MAX_PACKET - 40) }), 2),
      [1, 1],
    ],
    ['as much payload as headers', flow(packet({ payload: bytesOf(40) }), 200), [200]],
    ['less payload than headers', flow(packet({ payload: bytesOf(39) }), 4), [1, 1, 1, 1]],
    ['one byte each', flow(packet({ payload: bytesOf(1) }), 4), [1, 1, 1, 1]],
  ]
  for (const [why, packets, sizes] of rows) {
    it(why, () => {
      const { glue, feed, pieces, counters, checkGuards } = gluer()
      const from = peerOf(1)
      const bytes = packets.map((one) => build(one))
      for (const one of bytes) feed(one, from)
      glue.flush()
      checkGuards()
      const cutUp = pieces.map(packetsOf)
      assert.deepEqual(
        cutUp.map((of) => of.length),
        sizes,
      )
      sameButIds(cutUp.flat(), bytes)
      const total = bytes.reduce((sum, one) => sum + one.length, 0)
      assert.deepEqual([counters.rxPackets, counters.rxBytes], [packets.length, total])
      assert.deepEqual([from.vpnRxPackets, from.vpnRxBytes], [packets.length, total])
    })
  }

  it('counts every packet of a piece that the device refuses, and none as received', () => {
    const { glue, feed, counters } = gluer({ takes: false })
    const from = peerOf(1)
    for (const one of flow(full, 5)) feed(build(one), from)
    glue.flush()
    assert.deepEqual(counters.drops.list(), [{ reason: 'rx-device', count: 5 }])
    assert.deepEqual([counters.rxPackets, counters.rxBytes, from.vpnRxPackets], [0, 0, 0])
  })

  it('writes nothing when there is nothing', () => {
    const { glue, feed, pieces } = gluer()
    glue.flush()
    feed(bytesOf(50), undefined)
    glue.flush()
    assert.deepEqual(pieces, [])
  })
})

describe('Gluer over random streams', () => {
  for (let seed = 1; seed <= 30; seed++) {
    it(`seed ${seed}: what comes out is what went in`, () => {
      const random = new Random(seed)
      const { glue, feed, pieces, checkGuards } = gluer({ udp: seed % 3 !== 0 })
      const peers = [peerOf(1), peerOf(2)]
      const flows = Array.from({ length: 1 + random.below(3) }, (_, i) => {
        const size = (i === 0 ? 100 : 1) + random.below(1300)
        return {
          from: peers[random.below(2)]!,
          size,
          next: packet({
            ...(random.below(2) === 0 ? V6 : {}),
            sourcePort: 1000 + i,
            protocol: i > 0 && random.below(3) === 0 ? UDP : TCP,
            dontFragment: random.below(2) === 0,
            tcpOptions: random.below(2) === 0 ? timestamps : bytesOf(0),
            payload: random.bytes(size),
          }),
        }
      })
      const sent: { bytes: Uint8Array; from: Peer }[] = []
      const boundaries: number[] = [] // packets sent when something was flushed from outside
      let current = flows[0]!
      for (let i = 0; i < 400; i++) {
        const what = random.below(100)
        if (what < 8) current = flows[random.below(flows.length)]!
        if (what < 14) feed(random.bytes(random.below(1500)), undefined) // a bad tag, a replay, a keepalive
        if (what === 99) {
          glue.flush()
          boundaries.push(sent.length)
        }
        const one = current.next
        current.next = following(one, {
          flags: Flag.Ack,
          reserved: 0,
          payload: random.bytes(current.size),
          ...(random.below(10) === 0 ? mutation(random) : {}),
        })
        const bytes = build(one)
        if (random.below(25) === 0)
          bytes[random.below(bytes.length - 1) + 1]! ^= 1 << random.below(8)
        sent.push({ bytes, from: current.from })
        feed(bytes, current.from)
      }
      glue.flush()
      checkGuards()

      let at = 0
      let glued = 0
      for (const piece of pieces) {
        const packets = packetsOf(piece)
        const originals = sent.slice(at, at + packets.length)
        const expected = originals.map(({ bytes }) => bytes)
        if (packets.length === 1) {
          assert.deepEqual(packets, expected, `packet ${at}`)
        } else {
          glued += packets.length
          sameButIds(packets, expected)
          assert.ok(expected.every(hasRightChecksums), 'a wrong checksum was made right')
          assert.equal(new Set(originals.map(({ from }) => from)).size, 1, 'two peers in one piece')
          assert.ok(!boundaries.some((b) => b > at && b < at + packets.length), 'across a flush')
        }
        at += packets.length
      }
      assert.equal(at, sent.length)
      assert.ok(glued > 20, `${glued} glued: the run tells nothing`)
      for (const peer of peers) {
        const own = sent.filter(({ from }) => from === peer)
        const bytes = own.reduce((sum, one) => sum + one.bytes.length, 0)
        assert.deepEqual([peer.vpnRxPackets, peer.vpnRxBytes], [own.length, bytes])
      }
    })
  }
})

/** Something about the next packet of a flow that may end a piece. */
function mutation(random: Random): Partial<Packet> {
  const all: Partial<Packet>[] = [
    { tos: random.below(4) },
    { ttl: 60 + random.below(4) },
    { id: random.below(65536) },
    { window: random.below(4) },
    { acknowledgement: random.below(10) },
    { sequence: random.below(2 ** 32) },
    { flags: Flag.Ack | random.below(256) },
    { flags: Flag.Ack | Flag.Psh },
    { reserved: random.below(2) },
    { payload: random.bytes(random.below(1400)) },
    { dontFragment: random.below(2) === 0 },
    { flowLabel: random.below(2) },
    { tcpOptions: random.bytes(4 * random.below(4)) },
  ]
  return all[random.below(all.length)]!
}
