import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { hex, loadVectors } from '../../test/vectors/load.ts'
import {
  addWords,
  clampMss,
  fold,
  IPV4_DESTINATION,
  IPV4_SOURCE,
  IPV6_DESTINATION,
  IPV6_SOURCE,
  ipHeaderBytes,
  ipProtocol,
  ipTotalLength,
  ipVersion,
  Protocol,
  pseudoHeaderSum,
  updateChecksum,
} from './ip.ts'

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

// Every packet is looked at in the middle of other bytes, at an odd offset.
const AT = 3
function placed(packet: Uint8Array): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(AT + packet.length + 5).fill(0xaa)
  bytes.set(packet, AT)
  return { bytes, view: viewOf(bytes) }
}

describe('ipVersion', () => {
  const rows: [first: number, length: number, version: number, why: string][] = [
    [0x45, 20, 4, 'an IPv4 header and nothing else'],
    [0x45, 19, 0, 'a byte less'],
    [0x4f, 20, 4, 'its own header length is the stack to judge'],
    [0x40, 1500, 4, 'likewise'],
    [0x60, 40, 6, 'an IPv6 header and nothing else'],
    [0x60, 39, 0, 'a byte less'],
    [0x6f, 1500, 6, 'traffic class'],
    [0x60, 20, 0, "IPv4's length is not enough"],
    [0x00, 60, 0, 'version 0'],
    [0x50, 60, 0, 'version 5'],
    [0x70, 60, 0, 'version 7'],
    [0xf5, 60, 0, 'version 15'],
    [0x45, 0, 0, 'nothing at all'],
  ]
  for (const [first, length, version, why] of rows) {
    it(`${first.toString(16)}, ${length} bytes: ${why}`, () => {
      const packet = new Uint8Array(length)
      if (length > 0) packet[0] = first
      assert.equal(ipVersion(placed(packet).view, AT, length), version)
    })
  }
})

/** TCP or UDP in IP with right checksums, made slowly. `tcp` is its header and payload, checksum zero. */
function ipv4(transport: Uint8Array, protocol: number, fragment = 0, options = 0): Uint8Array {
  const header = 20 + options
  const packet = new Uint8Array(header + transport.length)
  const view = viewOf(packet)
  view.setUint8(0, 0x40 | (header / 4))
  view.setUint16(2, packet.length)
  view.setUint16(6, fragment)
  view.setUint8(8, 64)
  view.setUint8(9, protocol)
  packet.set([10, 8, 0, 1, 10, 8, 0, 2], 12)
  packet.fill(1, 20, header)
  packet.set(transport, header)
  return packet
}
function ipv6(transport: Uint8Array, nextHeader: number): Uint8Array {
  const packet = new Uint8Array(40 + transport.length)
  const view = viewOf(packet)
  view.setUint8(0, 0x60)
  view.setUint16(4, transport.length)
  view.setUint8(6, nextHeader)
  view.setUint8(7, 64)
  packet.set([0xfd, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 8)
  packet.set([0xfd, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], 24)
  packet.set(transport, 40)
  return packet
}

describe('fields', () => {
  const udp = new Uint8Array(13)
  const rows: [packet: Uint8Array, header: number, protocol: number, why: string][] = [
    [ipv4(udp, 17), 20, Protocol.Udp, 'IPv4'],
    [ipv4(udp, 17, 0x4000), 20, Protocol.Udp, "IPv4 with don't-fragment"],
    [ipv4(udp, 6, 0, 40), 60, Protocol.Tcp, 'IPv4 with all options'],
    [ipv4(udp, 17, 0x2000), 20, Protocol.Udp, 'IPv4, first fragment'],
    [ipv4(udp, 17, 0x0001), 20, Protocol.Udp, 'IPv4, last fragment'],
    [ipv6(udp, 17), 40, Protocol.Udp, 'IPv6'],
    [ipv6(udp, 44), 40, Protocol.Ipv6Fragment, 'IPv6 fragment'],
    [ipv6(udp, 0), 40, 0, 'IPv6 with hop-by-hop options: they are not walked'],
  ]
  for (const [packet, header, protocol, why] of rows) {
    it(why, () => {
      const { view } = placed(packet)
      assert.equal(ipHeaderBytes(view, AT), header)
      assert.equal(ipProtocol(view, AT), protocol)
      assert.equal(ipTotalLength(view, AT), packet.length)
    })
  }

  it('addresses', () => {
    const four = viewOf(ipv4(udp, 17))
    assert.equal(four.getUint32(IPV4_SOURCE), 0x0a080001)
    assert.equal(four.getUint32(IPV4_DESTINATION), 0x0a080002)
    const six = viewOf(ipv6(udp, 17))
    assert.deepEqual([six.getUint32(IPV6_SOURCE), six.getUint8(IPV6_SOURCE + 15)], [0xfd000008, 1])
    assert.deepEqual(
      [six.getUint32(IPV6_DESTINATION), six.getUint8(IPV6_DESTINATION + 15)],
      [0xfd000008, 2],
    )
  })
})

describe('checksums', () => {
  it("RFC 1071's example", () => {
    const view = viewOf(hex('0001f203f4f5f6f7'))
    assert.equal(addWords(view, 0, 8, 0), 0x2ddf0)
    assert.equal(fold(0x2ddf0), 0xddf2)
  })

  it("RFC 1624's example, which its predecessor got wrong", () => {
    assert.equal(updateChecksum(0xdd2f, 0x5555, 0x3285), 0x0000)
  })

  const folds: [sum: number, folded: number, why: string][] = [
    [0, 0, 'nothing'],
    [0xffff, 0xffff, 'full'],
    [0x10000, 1, 'one carry'],
    [0x1ffff, 1, 'a carry that makes another'],
    [0xffffffff, 0xffff, 'the top bit is no sign'],
  ]
  for (const [sum, folded, why] of folds) {
    it(`fold ${sum.toString(16)}: ${why}`, () => assert.equal(fold(sum), folded))
  }

  it('an odd last byte is the upper half of a word', () => {
    assert.equal(addWords(viewOf(hex('000102')), 0, 3, 5), 0x0001 + 0x0200 + 5)
  })

  it('64 KiB of ones do not overflow', () => {
    const view = viewOf(new Uint8Array(65534).fill(0xff))
    assert.equal(fold(addWords(view, 0, 65534, 0)), 0xffff)
  })

  it("real packets' own checksums come out right", () => {
    let seen = 0
    for (const { packets } of loadVectors('live-sessions').sessions) {
      for (const { plaintext } of packets) {
        const bytes = hex(plaintext ?? '')
        if (ipVersion(viewOf(bytes), 0, bytes.length) !== 4) continue
        assert.equal(fold(addWords(viewOf(bytes), 0, ipHeaderBytes(viewOf(bytes), 0), 0)), 0xffff)
        seen++
      }
    }
    assert.ok(seen > 50, `${seen} packets`)
  })

  it('an update comes to what a whole sum does, at random', () => {
    const random = new Random(7)
    for (let i = 0; i < 2000; i++) {
      const bytes = random.bytes(40)
      const view = viewOf(bytes)
      const whole = () => ~fold(addWords(view, 0, 40, 0)) & 0xffff
      const checksum = whole()
      const at = random.below(20) * 2
      const before = view.getUint16(at)
      view.setUint16(at, random.below(0x10000))
      assert.equal(updateChecksum(checksum, before, view.getUint16(at)), whole())
    }
  })
})

const SYN = 0x02
const SYN_ACK = 0x12
const ACK = 0x10

/** A TCP header of `options` (hex), padded with their end. */
function tcp(flags: number, options: string, payload = ''): Uint8Array {
  const padded = options.padEnd(Math.ceil(options.length / 8) * 8, '0')
  const header = 20 + padded.length / 2
  return hex(
    `c000 0050 00000001 00000000 ${(header / 4).toString(16)}0 ${flags.toString(16).padStart(2, '0')} ffff 0000 0000 ${padded}${payload}`.replaceAll(
      ' ',
      '',
    ),
  )
}

function withChecksum(packet: Uint8Array): Uint8Array {
  const view = viewOf(packet)
  const header = ipHeaderBytes(view, 0)
  view.setUint16(header + 16, 0)
  view.setUint16(header + 16, ~transportSum(packet) & 0xffff)
  return packet
}
function transportSum(packet: Uint8Array): number {
  const view = viewOf(packet)
  const header = ipHeaderBytes(view, 0)
  const length = packet.length - header
  return fold(addWords(view, header, length, pseudoHeaderSum(view, 0, Protocol.Tcp, length)))
}

describe('clampMss', () => {
  const mss = (value: number) => `0204${value.toString(16).padStart(4, '0')}`
  const rows: [packet: Uint8Array, after: string | undefined, why: string][] = [
    [ipv4(tcp(SYN, mss(1460)), 6), mss(1360), 'a SYN'],
    [ipv4(tcp(SYN_ACK, mss(1460)), 6), mss(1360), 'a SYN-ACK'],
    [ipv4(tcp(SYN, mss(65535)), 6), mss(1360), 'the largest that can be said'],
    [ipv4(tcp(SYN, mss(1361)), 6), mss(1360), 'one too many'],
    [ipv4(tcp(SYN, mss(1360)), 6), undefined, 'already as low'],
    [ipv4(tcp(SYN, mss(536)), 6), undefined, 'never raised'],
    [ipv6(tcp(SYN, mss(1440)), 6), mss(1340), 'IPv6 has 20 less'],
    [ipv6(tcp(SYN, mss(1340)), 6), undefined, 'IPv6, already as low'],
    [ipv4(tcp(SYN, mss(1460)), 6, 0, 12), mss(1360), 'behind IPv4 options'],
    [ipv4(tcp(SYN, mss(1460)), 6, 0x2000), mss(1360), 'the first of fragments'],
    [ipv4(tcp(SYN, mss(1460)), 6, 0x0010), undefined, 'a later fragment is no TCP header'],
    [ipv4(tcp(SYN, `01${mss(1460)}`), 6), `01${mss(1360)}`, 'at an odd offset'],
    [
      ipv4(tcp(SYN, `0402080a0000000100000002${mss(1460)}`), 6),
      `0402080a0000000100000002${mss(1360)}`,
      'behind others',
    ],
    [ipv4(tcp(SYN, mss(1460), 'cafe01'), 6), mss(1360), 'with odd data behind it (fast open)'],
    [ipv4(tcp(ACK, mss(1460)), 6), undefined, 'not a SYN'],
    [ipv4(tcp(SYN, ''), 6), undefined, 'no options'],
    [ipv4(tcp(SYN, `00${mss(1460)}`), 6), undefined, 'behind the end of options'],
    [ipv4(tcp(SYN, '020305b4'), 6), undefined, 'a length of 3'],
    [ipv4(tcp(SYN, '020605b40000'), 6), undefined, 'a length of 6'],
    [ipv4(tcp(SYN, `0300${mss(1460)}`), 6), undefined, 'an option of length 0 would never end'],
    [ipv4(tcp(SYN, `0301${mss(1460)}`), 6), undefined, 'nor one of 1'],
    [ipv4(tcp(SYN, `03ff${mss(1460)}`), 6), undefined, 'an option that leads beyond the header'],
    [ipv4(tcp(SYN, '01010204'), 6), undefined, 'cut off by the end of the header'],
    [ipv4(tcp(SYN, mss(1460)), 17), undefined, 'UDP that looks like it'],
    [ipv6(tcp(SYN, mss(1460)), 44), undefined, 'behind an IPv6 extension header'],
  ]
  for (const [packet, after, why] of rows) {
    it(why, () => {
      const { bytes, view } = placed(withChecksum(packet))
      const before = Uint8Array.from(bytes)
      assert.equal(clampMss(view, AT, packet.length, 1360), after !== undefined)
      if (after === undefined) {
        assert.deepEqual(bytes, before)
        return
      }
      const clamped = bytes.slice(AT, AT + packet.length)
      const options = ipHeaderBytes(viewOf(clamped), 0) + 20
      assert.deepEqual(clamped.subarray(options, options + after.length / 2), hex(after))
      assert.equal(transportSum(clamped), 0xffff, 'the checksum')
    })
  }

  it('a SYN cut short anywhere: untouched outside, and no read beyond it', () => {
    const whole = withChecksum(ipv4(tcp(SYN, `01${mss(1460)}`), 6))
    for (let length = 0; length < whole.length - 3; length++) {
      const packet = whole.slice(0, length)
      assert.equal(clampMss(viewOf(packet), 0, length, 1360), length >= 45, `${length} bytes`)
    }
  })

  it('random bytes behind a plausible header: never throws', () => {
    const random = new Random(11)
    let changed = 0
    for (let i = 0; i < 20_000; i++) {
      const packet = random.bytes(20 + random.below(80))
      packet[0] = random.below(2) === 0 ? 0x40 | (5 + random.below(11)) : 0x60
      packet[packet[0] >> 4 === 4 ? 9 : 6] = 6
      // An MSS option where options begin is rare by chance.
      const options = ipHeaderBytes(viewOf(packet), 0) + 20
      if (random.below(2) === 0 && options + 2 <= packet.length) packet.set([2, 4], options)
      if (clampMss(viewOf(packet), 0, packet.length, 100)) changed++
    }
    assert.ok(changed > 50, `${changed} had an MSS: the run tells nothing`)
  })
})
