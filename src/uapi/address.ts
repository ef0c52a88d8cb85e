/** IP addresses as text and bytes: strict in reading, RFC 5952 in writing. */
import ipaddr from 'ipaddr.js'

/** 4 or 16 bytes; undefined for text that is no address, or one with a zone. */
export function parseIp(text: string): Uint8Array | undefined {
  const valid = text.includes(':')
    ? ipaddr.IPv6.isValid(text) && !text.includes('%')
    : ipaddr.IPv4.isValidFourPartDecimal(text)
  return valid ? Uint8Array.from(ipaddr.parse(text).toByteArray()) : undefined
}

/** Text of 4 or 16 bytes. */
export function formatIp(bytes: Uint8Array): string {
  const address = ipaddr.fromByteArray([...bytes])
  return address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address.toString()
}

/** 0.0.0.0 or ::. */
export function isUnspecified(text: string): boolean {
  return parseIp(text)?.every((byte) => byte === 0) ?? false
}

/** Whether it is IPv4 in IPv6's clothes, ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
export function isMapped(text: string): boolean {
  const bytes = parseIp(text)
  return bytes?.length === 16 && isMappedBytes(bytes)
}

export function isMappedBytes(bytes: Uint8Array): boolean {
  return bytes.every((byte, i) => i > 11 || byte === (i < 10 ? 0 : 0xff))
}

/** The IPv4 address that an IPv4-mapped address means. */
export function unmapped(text: string): string {
  return formatIp(parseIp(text)!.subarray(12))
}
