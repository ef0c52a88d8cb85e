/** Shapes of values in configurations, and the little arithmetic on addresses that helper directives need. */
import ipaddr from 'ipaddr.js'

/** Milliseconds. Configurations are written in seconds; they are converted where an argument is read. */
export type Millis = number

/** Where something stands in a configuration. Lines count from 1; of what has no line (a whole file is short of it) 0. */
export interface Place {
  readonly file: string
  readonly line: number
}

/** What a file or an inline block holds. */
export interface Loaded {
  readonly content: Uint8Array
  /** For messages: the path, or `[inline NAME]`. */
  readonly from: string
  /** Undefined where it was inline. A file that changes may be read again. */
  readonly path: string | undefined
}

export interface Ipv6Prefix {
  readonly address: string
  readonly prefix: number
}

/** `255.255.255.0` → 24; undefined for what is no netmask. The text is of four decimal parts. */
export function maskToPrefix(mask: string): number | undefined {
  const bits = ipv4ToNumber(mask)
  const prefix = Math.clz32(~bits)
  return prefixToNumber(prefix) === bits ? prefix : undefined
}

function prefixToNumber(prefix: number): number {
  return prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0
}

/** `10.8.0.1` → 0x0a080001. */
export function ipv4ToNumber(address: string): number {
  return address.split('.').reduce((number, part) => number * 256 + Number(part), 0)
}

export function numberToIpv4(number: number): string {
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 0xff).join('.')
}

/** An address so far behind the start of the network that `address` is in. */
export function ipv6Plus(address: string, prefix: number, offset: number): string {
  const bytes = ipaddr.IPv6.parse(address).toByteArray()
  for (let bit = prefix; bit < 128; bit++) bytes[bit >> 3]! &= ~(0x80 >> (bit & 7))
  let carry = offset
  for (let i = 15; i >= 0 && carry > 0; i--) {
    carry += bytes[i]!
    bytes[i] = carry & 0xff
    carry = Math.floor(carry / 256)
  }
  return new ipaddr.IPv6(bytes).toString()
}
