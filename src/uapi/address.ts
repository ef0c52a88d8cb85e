/** IP addresses of the API as text: what they mean beyond their bytes. */
import { formatAddress, parseAddress } from '../netlink/route.ts'

/** 4 or 16 bytes; undefined for text that is no address, or one with a zone. */
export function parseIp(text: string): Uint8Array | undefined {
  try {
    return parseAddress(text)
  } catch {
    return undefined
  }
}

/** Text of 4 or 16 bytes (RFC 5952). */
export const formatIp = formatAddress

/** 0.0.0.0 or ::. */
export function isUnspecified(text: string): boolean {
  return parseIp(text)?.every((byte) => byte === 0) ?? false
}

/** Whether it is IPv4 in IPv6's clothes, ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
export function isMapped(text: string): boolean {
  const bytes = parseIp(text)
  return bytes?.length === 16 && isMappedBytes(bytes)
}

/** The same of 16 bytes. */
export function isMappedBytes(bytes: Uint8Array): boolean {
  return bytes.every((byte, i) => i > 11 || byte === (i < 10 ? 0 : 0xff))
}

/** The IPv4 address that an IPv4-mapped address means. */
export function unmapped(text: string): string {
  return formatAddress(parseAddress(text).subarray(12))
}
