/**
 * Owns what must be known of the IP packets inside the tunnel: which bytes are one, where its fields lie, checksums
 * and the MSS clamp. All functions look at the packet of `length` bytes at `offset` of `view` and allocate nothing.
 *
 * Extension headers of IPv6 are not walked: a packet that has any is an IPv6 packet of that next header.
 *
 *     IPv4: RFC 791, 3.1; IPv6: RFC 8200, 3; TCP: RFC 9293, 3.1; UDP: RFC 768
 */

const IPV4_HEADER_BYTES = 20
const IPV6_HEADER_BYTES = 40
export const IPV4_SOURCE = 12
export const IPV4_DESTINATION = 16
export const IPV6_SOURCE = 8
export const IPV6_DESTINATION = 24

export const Protocol = { Tcp: 6, Udp: 17, Ipv6Fragment: 44 } as const

const IPV4_TOTAL_LENGTH = 2
const IPV4_FRAGMENT = 6
const IPV4_PROTOCOL = 9
const IPV6_PAYLOAD_LENGTH = 4
const IPV6_NEXT_HEADER = 6
/** Of IPV4_FRAGMENT: where in the whole this one lies. */
const FRAGMENT_OFFSET = 0x1fff

const TCP_HEADER_BYTES = 20
const TCP_DATA_OFFSET = 12
const TCP_FLAGS = 13
const TCP_CHECKSUM = 16
const TCP_SYN = 0x02
const OPTION_END = 0
const OPTION_NOP = 1
const OPTION_MSS = 2
const OPTION_MSS_BYTES = 4

/**
 * 4 or 6 if the bytes are an IP packet for the driver's purposes: the version and that many bytes that its fixed
 * header is there; 0 otherwise. Both directions ask the same. Source: driver-behaviour, 2.1 step 1 and 3.2 step 7.
 */
export function ipVersion(view: DataView, offset: number, length: number): 0 | 4 | 6 {
  if (length < IPV4_HEADER_BYTES) return 0
  const version = view.getUint8(offset) >> 4
  if (version === 4) return 4
  return version === 6 && length >= IPV6_HEADER_BYTES ? 6 : 0
}

/** Bytes before the transport header. The packet must have passed `ipVersion`; an IPv4 header may still be bad: 0..60. */
export function ipHeaderBytes(view: DataView, offset: number): number {
  const first = view.getUint8(offset)
  return first >> 4 === 4 ? (first & 0x0f) << 2 : IPV6_HEADER_BYTES
}

/** Length of the whole packet as its header states it. The packet must have passed `ipVersion`. */
export function ipTotalLength(view: DataView, offset: number): number {
  return view.getUint8(offset) >> 4 === 4
    ? view.getUint16(offset + IPV4_TOTAL_LENGTH)
    : IPV6_HEADER_BYTES + view.getUint16(offset + IPV6_PAYLOAD_LENGTH)
}

/** What follows the IP header: one of `Protocol`, or any other of 8 bits. The packet must have passed `ipVersion`. */
export function ipProtocol(view: DataView, offset: number): number {
  const at = view.getUint8(offset) >> 4 === 4 ? IPV4_PROTOCOL : IPV6_NEXT_HEADER
  return view.getUint8(offset + at)
}

/**
 * One's complement sum of `length` bytes at `offset`, added to `sum`, not folded: good for 64 KiB and a few
 * words more. An odd last byte counts as the upper half of a word. Source: RFC 1071.
 */
export function addWords(view: DataView, offset: number, length: number, sum: number): number {
  const even = offset + (length & ~1)
  for (let at = offset; at < even; at += 2) sum += view.getUint16(at)
  return length & 1 ? sum + (view.getUint8(even) << 8) : sum
}

/** `sum` brought to 16 bits by adding the carries back in. Source: RFC 1071. */
export function fold(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}

/**
 * The checksum field after a 16-bit word that it covers has changed, without looking at the rest: HC' = ~(~HC + ~m + m').
 * Source: RFC 1624, 3, equation 3.
 */
export function updateChecksum(checksum: number, before: number, after: number): number {
  return ~fold((~checksum & 0xffff) + (~before & 0xffff) + after) & 0xffff
}

/** Unfolded sum of the pseudo header that TCP's and UDP's checksums cover; `length` is that of the transport part. */
export function pseudoHeaderSum(
  view: DataView,
  offset: number,
  protocol: number,
  length: number,
): number {
  return view.getUint8(offset) >> 4 === 4
    ? addWords(view, offset + IPV4_SOURCE, 8, protocol + length)
    : addWords(view, offset + IPV6_SOURCE, 32, protocol + length)
}

/**
 * Lowers the MSS that a TCP SYN or SYN-ACK announces, and mends its checksum, which must be complete (not left
 * to offloading). `mss` is for IPv4; IPv6's longer header makes it 20 less. Later fragments, TCP behind
 * IPv6 extension headers, and options of a wrong length are left alone. Source: data-channel reference, 12.3.
 *
 * @returns whether the packet was changed
 */
export function clampMss(view: DataView, offset: number, length: number, mss: number): boolean {
  const version = ipVersion(view, offset, length)
  if (version === 0 || ipProtocol(view, offset) !== Protocol.Tcp) return false
  if (version === 4 && (view.getUint16(offset + IPV4_FRAGMENT) & FRAGMENT_OFFSET) !== 0) {
    return false
  }
  const ipBytes = ipHeaderBytes(view, offset)
  const end = offset + Math.min(length, ipTotalLength(view, offset))
  const tcp = offset + ipBytes
  if (ipBytes < IPV4_HEADER_BYTES || end - tcp < TCP_HEADER_BYTES) return false
  if ((view.getUint8(tcp + TCP_FLAGS) & TCP_SYN) === 0) return false
  const optionsEnd = Math.min(end, tcp + ((view.getUint8(tcp + TCP_DATA_OFFSET) >> 4) << 2))
  const at = findMss(view, tcp + TCP_HEADER_BYTES, optionsEnd)
  if (at === 0) return false
  const most = version === 4 ? mss : mss - (IPV6_HEADER_BYTES - IPV4_HEADER_BYTES)
  const announced = view.getUint16(at)
  if (announced <= most) return false
  view.setUint16(at, most)
  // A word that does not lie evenly in what the checksum covers counts with its bytes swapped.
  const odd = ((at - tcp) & 1) === 1
  const before = odd ? swap(announced) : announced
  const after = odd ? swap(most) : most
  const checksum = view.getUint16(tcp + TCP_CHECKSUM)
  view.setUint16(tcp + TCP_CHECKSUM, updateChecksum(checksum, before, after))
  return true
}

/** Where the value of the MSS option lies; 0: there is none. */
function findMss(view: DataView, start: number, end: number): number {
  let at = start
  while (at + OPTION_MSS_BYTES <= end) {
    const kind = view.getUint8(at)
    if (kind === OPTION_END) return 0
    if (kind === OPTION_NOP) {
      at++
      continue
    }
    const length = view.getUint8(at + 1)
    if (length < 2) return 0
    if (kind === OPTION_MSS) return length === OPTION_MSS_BYTES ? at + 2 : 0
    at += length
  }
  return 0
}

function swap(word: number): number {
  return ((word & 0xff) << 8) | (word >> 8)
}
