/**
 * IP packets as objects, for tests: built and read field by field with every checksum computed from scratch, and cut
 * the slow way (TSO, USO). Shares nothing with the driver's fast path, so that it can judge it.
 */
import assert from 'node:assert/strict'
import {
  addressBytes,
  addressText,
  addressWords,
  wordsOfBytes,
} from '../../src/driver/core/address.ts'

export const TCP = 6
export const UDP = 17
/** TCP flags (RFC 9293, 3.1; RFC 3168, 6.1). */
export const Flag = {
  Fin: 0x01,
  Syn: 0x02,
  Rst: 0x04,
  Psh: 0x08,
  Ack: 0x10,
  Urg: 0x20,
  Ece: 0x40,
  Cwr: 0x80,
} as const
/** Types of a virtio_net_hdr (linux/virtio_net.h). */
export const Gso = { None: 0, TcpV4: 1, TcpV6: 4, UdpL4: 5, Ecn: 0x80 } as const
export const VNET_BYTES = 10
const NEEDS_CSUM = 1

/** An IPv4 or IPv6 packet, by the family of its addresses. */
export interface Packet {
  source: string
  destination: string
  /** TOS or traffic class. */
  tos: number
  ttl: number
  /** IPv4 only. */
  id: number
  dontFragment: boolean
  moreFragments: boolean
  fragmentOffset: number
  ipOptions: Uint8Array
  /** IPv6 only. */
  flowLabel: number
  /** Extension headers, each with the next header's number in its first byte; `extension` is the first one's own number. */
  extension: number
  extensions: Uint8Array
  /** What the payload is; ports and the rest mean something for TCP and UDP only. */
  protocol: number
  sourcePort: number
  destinationPort: number
  sequence: number
  acknowledgement: number
  flags: number
  /** The four bits behind the data offset. */
  reserved: number
  window: number
  urgent: number
  tcpOptions: Uint8Array
  payload: Uint8Array
}

const none = new Uint8Array(0)

/** A TCP packet from 10.8.0.2 to 10.8.0.1, but for `fields`. */
export function packet(fields: Partial<Packet> = {}): Packet {
  return {
    source: '10.8.0.2',
    destination: '10.8.0.1',
    tos: 0,
    ttl: 64,
    id: 1,
    dontFragment: true,
    moreFragments: false,
    fragmentOffset: 0,
    ipOptions: none,
    flowLabel: 0,
    extension: 0,
    extensions: none,
    protocol: TCP,
    sourcePort: 40000,
    destinationPort: 5201,
    sequence: 1000,
    acknowledgement: 2000,
    flags: Flag.Ack,
    reserved: 0,
    window: 512,
    urgent: 0,
    tcpOptions: none,
    payload: none,
    ...fields,
  }
}

const isV6 = (of: Packet) => of.source.includes(':')

/** Bytes of all headers of a TCP or UDP packet, and of those before TCP's or UDP's. */
function headerSizes(of: Packet): { all: number; ip: number } {
  const ip = isV6(of) ? 40 + of.extensions.length : 20 + of.ipOptions.length
  return {
    all: ip + (of.protocol === TCP ? 20 + of.tcpOptions.length : of.protocol === UDP ? 8 : 0),
    ip,
  }
}

/** The packet's bytes. `partial`: TCP's or UDP's checksum field holds the pseudo header's sum only (CHECKSUM_PARTIAL). */
export function build(of: Packet, partial = false): Uint8Array {
  const { all, ip } = headerSizes(of)
  const bytes = new Uint8Array(all + of.payload.length)
  const view = new DataView(bytes.buffer)
  const source = addressBytes(addressWords(of.source))
  const destination = addressBytes(addressWords(of.destination))
  if (isV6(of)) {
    view.setUint32(0, ((6 << 28) | (of.tos << 20) | of.flowLabel) >>> 0)
    view.setUint16(4, bytes.length - 40)
    view.setUint8(6, of.extensions.length > 0 ? of.extension : of.protocol)
    view.setUint8(7, of.ttl)
    bytes.set(source, 8)
    bytes.set(destination, 24)
    bytes.set(of.extensions, 40)
  } else {
    view.setUint8(0, 0x40 | (ip / 4))
    view.setUint8(1, of.tos)
    view.setUint16(2, bytes.length)
    view.setUint16(4, of.id)
    const flags = (of.dontFragment ? 0x4000 : 0) | (of.moreFragments ? 0x2000 : 0)
    view.setUint16(6, flags | of.fragmentOffset)
    view.setUint8(8, of.ttl)
    view.setUint8(9, of.protocol)
    bytes.set(source, 12)
    bytes.set(destination, 16)
    bytes.set(of.ipOptions, 20)
    view.setUint16(10, ~onesSum(bytes.subarray(0, ip)) & 0xffff)
  }
  bytes.set(of.payload, all)
  if (of.protocol !== TCP && of.protocol !== UDP) return bytes
  view.setUint16(ip, of.sourcePort)
  view.setUint16(ip + 2, of.destinationPort)
  let field: number
  if (of.protocol === TCP) {
    view.setUint32(ip + 4, of.sequence)
    view.setUint32(ip + 8, of.acknowledgement)
    view.setUint8(ip + 12, ((5 + of.tcpOptions.length / 4) << 4) | of.reserved)
    view.setUint8(ip + 13, of.flags)
    view.setUint16(ip + 14, of.window)
    view.setUint16(ip + 18, of.urgent)
    bytes.set(of.tcpOptions, ip + 20)
    field = ip + 16
  } else {
    view.setUint16(ip + 4, bytes.length - ip)
    field = ip + 6
  }
  const pseudo = new Uint8Array(source.length * 2 + 4)
  pseudo.set(source)
  pseudo.set(destination, source.length)
  new DataView(pseudo.buffer).setUint16(2 * source.length, of.protocol)
  new DataView(pseudo.buffer).setUint16(2 * source.length + 2, bytes.length - ip)
  if (partial) {
    view.setUint16(field, onesSum(pseudo))
  } else {
    const sum = ~onesSum(pseudo, onesSum(bytes.subarray(ip))) & 0xffff
    // Zero says "no checksum" in UDP (RFC 768).
    view.setUint16(field, of.protocol === UDP && sum === 0 ? 0xffff : sum)
  }
  return bytes
}

/** One's complement sum, big-endian, folded (RFC 1071). */
function onesSum(bytes: Uint8Array, sum = 0): number {
  for (let i = 0; i < bytes.length; i++) sum += i % 2 === 0 ? bytes[i]! << 8 : bytes[i]!
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000)
  return sum
}

/** Reads a packet that `build` could have made, its checksums aside; without IPv6 extension headers. */
export function parse(bytes: Uint8Array): Packet {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const v6 = bytes[0]! >> 4 === 6
  const ip = v6 ? 40 : (bytes[0]! & 15) * 4
  const protocol = bytes[v6 ? 6 : 9]!
  const fragment = v6 ? 0 : view.getUint16(6)
  const text = (offset: number, length: number) =>
    addressText(wordsOfBytes(bytes.slice(offset, offset + length)))
  const all = ip + (protocol === TCP ? (bytes[ip + 12]! >> 4) * 4 : protocol === UDP ? 8 : 0)
  return packet({
    source: v6 ? text(8, 16) : text(12, 4),
    destination: v6 ? text(24, 16) : text(16, 4),
    tos: v6 ? (view.getUint16(0) >> 4) & 0xff : bytes[1]!,
    ttl: bytes[v6 ? 7 : 8]!,
    id: v6 ? 0 : view.getUint16(4),
    dontFragment: (fragment & 0x4000) !== 0,
    moreFragments: (fragment & 0x2000) !== 0,
    fragmentOffset: fragment & 0x1fff,
    ipOptions: v6 ? none : bytes.slice(20, ip),
    flowLabel: v6 ? view.getUint32(0) & 0xfffff : 0,
    protocol,
    ...(protocol === TCP || protocol === UDP
      ? { sourcePort: view.getUint16(ip), destinationPort: view.getUint16(ip + 2) }
      : {}),
    ...(protocol === TCP
      ? {
          sequence: view.getUint32(ip + 4),
          acknowledgement: view.getUint32(ip + 8),
          reserved: bytes[ip + 12]! & 15,
          flags: bytes[ip + 13]!,
          window: view.getUint16(ip + 14),
          urgent: view.getUint16(ip + 18),
          tcpOptions: bytes.slice(ip + 20, all),
        }
      : {}),
    payload: bytes.slice(all),
  })
}

/** Whether the packet's checksums are what `build` makes. */
export function hasRightChecksums(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, build(parse(bytes))) === 0
}

/** The packets that `whole`, sent with segments of `size` bytes of payload, stands for. */
export function cut(whole: Packet, size: number): Packet[] {
  const { payload } = whole
  const packets: Packet[] = []
  for (let done = 0; done < payload.length; done += size) {
    const last = done + size >= payload.length
    let { flags } = whole
    if (!last) flags &= ~(Flag.Psh | Flag.Fin)
    if (done > 0) flags &= ~Flag.Cwr
    packets.push({
      ...whole,
      id: (whole.id + packets.length) % 0x10000,
      sequence: (whole.sequence + done) % 2 ** 32,
      flags,
      payload: payload.slice(done, done + size),
    })
  }
  return packets
}

/** What a TUN with IFF_VNET_HDR hands over for `whole`: the virtio_net_hdr and the packet, its checksum left to do. */
export function buildPiece(whole: Packet, size: number): Uint8Array {
  const { all, ip } = headerSizes(whole)
  const bytes = build(whole, true)
  const piece = new Uint8Array(VNET_BYTES + bytes.length)
  const view = new DataView(piece.buffer)
  view.setUint8(0, NEEDS_CSUM)
  const type = whole.protocol === UDP ? Gso.UdpL4 : isV6(whole) ? Gso.TcpV6 : Gso.TcpV4
  const split = whole.payload.length > size
  if (split) {
    view.setUint8(1, type | (whole.flags & Flag.Cwr && whole.protocol === TCP ? Gso.Ecn : 0))
    view.setUint16(2, all, true)
    view.setUint16(4, size, true)
  }
  view.setUint16(6, ip, true)
  view.setUint16(8, whole.protocol === TCP ? 16 : 6, true)
  piece.set(bytes, VNET_BYTES)
  return piece
}

/** A piece without any offload in front of `bytes`. */
export function plainPiece(bytes: Uint8Array): Uint8Array {
  const piece = new Uint8Array(VNET_BYTES + bytes.length)
  piece.set(bytes, VNET_BYTES)
  return piece
}

/** The packets that a piece written to the device stands for; asserts that a kernel would agree with every field. */
export function packetsOf(piece: Uint8Array): Uint8Array[] {
  const view = new DataView(piece.buffer, piece.byteOffset, piece.length)
  const bytes = piece.slice(VNET_BYTES)
  const type = view.getUint8(1)
  if (type === Gso.None) {
    assert.deepEqual(piece.slice(0, VNET_BYTES), new Uint8Array(VNET_BYTES), 'nothing to offload')
    return [bytes]
  }
  const whole = parse(bytes)
  const { all, ip } = headerSizes(whole)
  const tcp = whole.protocol === TCP
  assert.equal(view.getUint8(0), NEEDS_CSUM)
  assert.equal(type, tcp ? (isV6(whole) ? Gso.TcpV6 : Gso.TcpV4) : Gso.UdpL4, 'type')
  assert.equal(view.getUint16(2, true), all, 'header length')
  assert.equal(view.getUint16(6, true), ip, 'checksum start')
  assert.equal(view.getUint16(8, true), tcp ? 16 : 6, 'checksum offset')
  assert.deepEqual(bytes, build(whole, true), 'lengths, IP checksum, pseudo header sum')
  const packets = cut(whole, view.getUint16(4, true)).map((one) => build(one))
  assert.ok(packets.length > 1, 'a train of one')
  return packets
}
