/**
 * Addresses as four 32-bit words, the form in which the data path compares and hashes them: IPv6 as it stands, IPv4
 * as its IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2), so that both share every table and an IPv4 packet
 * that arrives on a dual-stack socket is plain IPv4. Text and transport endpoints likewise.
 */
import ipaddr from 'ipaddr.js'
import { parseIp } from '../../uapi/address.ts'

/** Third word of an IPv4-mapped address. */
export const V4_MARK = 0xffff

/** Words of an address in text; throws on anything but an IPv4 address of four parts or an IPv6 address without a zone. */
export function addressWords(text: string): Int32Array {
  const bytes = parseIp(text)
  if (bytes === undefined) throw new Error(`no IP address: ${text}`)
  return wordsOfBytes(bytes)
}

export function isV4(a: number, b: number, c: number): boolean {
  return a === 0 && b === 0 && c === V4_MARK
}

/** The words as bytes: 4 for IPv4, else 16. */
export function addressBytes(words: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  for (let i = 0; i < 4; i++) view.setInt32(4 * i, words[i]!)
  return isV4(words[0]!, words[1]!, words[2]!) ? bytes.subarray(12) : bytes
}

/** The words as text: dotted for IPv4, RFC 5952 for IPv6. */
export function addressText(words: ArrayLike<number>): string {
  const bytes = addressBytes(words)
  if (bytes.length === 4) return bytes.join('.')
  return (ipaddr.fromByteArray([...bytes]) as ipaddr.IPv6).toRFC5952String()
}

/** Words of the address whose 4 or 16 bytes are given. */
export function wordsOfBytes(bytes: Uint8Array): Int32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length === 4) return Int32Array.of(0, 0, V4_MARK, view.getInt32(0))
  return Int32Array.of(view.getInt32(0), view.getInt32(4), view.getInt32(8), view.getInt32(12))
}

/** A transport address: words, port, and the interface of a link-local IPv6 address (0: none). Mutable, compared field by field. */
export class Endpoint {
  a = 0
  b = 0
  c = 0
  d = 0
  port = 0
  scope = 0

  static of(address: string, port: number, scope = 0): Endpoint {
    const endpoint = new Endpoint()
    const [a, b, c, d] = addressWords(address)
    endpoint.set(a!, b!, c!, d!, port, scope)
    return endpoint
  }

  set(a: number, b: number, c: number, d: number, port: number, scope: number): void {
    this.a = a
    this.b = b
    this.c = c
    this.d = d
    this.port = port
    this.scope = scope
  }

  copy(from: Endpoint): void {
    this.set(from.a, from.b, from.c, from.d, from.port, from.scope)
  }

  /** Address, port and family; the scope is not compared (driver-behaviour, 5.5). */
  sameAs(other: Endpoint): boolean {
    return (
      this.d === other.d &&
      this.port === other.port &&
      this.c === other.c &&
      this.b === other.b &&
      this.a === other.a
    )
  }

  sameAddress(other: Endpoint): boolean {
    return this.d === other.d && this.c === other.c && this.b === other.b && this.a === other.a
  }

  get isV4(): boolean {
    return isV4(this.a, this.b, this.c)
  }

  /** All zero, in either family: no address. */
  get isUnspecified(): boolean {
    return this.d === 0 && this.b === 0 && this.a === 0 && (this.c === 0 || this.c === V4_MARK)
  }

  get address(): string {
    return addressText([this.a, this.b, this.c, this.d])
  }

  /** Key for tables of endpoints. */
  get key(): string {
    return `${this.a},${this.b},${this.c},${this.d},${this.port}`
  }
}
