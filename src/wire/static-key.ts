/**
 * Owns the text of OpenVPN's key files: what `openvpn --genkey` writes and `tls-auth`, `tls-crypt`, `tls-crypt-v2` and
 * `auth-gen-token-secret` read. What the bytes are used for is wrap.ts's, wkc.ts's and the tokens'.
 *
 *     -----BEGIN OpenVPN Static key V1-----          256 bytes as 16 lines of hexadecimal digits
 *     -----BEGIN OpenVPN tls-crypt-v2 server key-----    128 bytes, base64
 *     -----BEGIN OpenVPN tls-crypt-v2 client key-----    256 bytes of key, then the WKc, base64
 *     -----BEGIN OpenVPN auth-token server key-----      128 bytes, base64; bytes 64..95 are the HMAC's key
 *
 * Anything before the first line and after the last is ignored. Keys are random bytes; whoever makes one brings them.
 * Source: OpenVPN's openvpn(8), `--genkey`; doc/tls-crypt-v2.txt.
 */
import { CLIENT_KEY_BYTES, SERVER_KEY_BYTES, splitWkc } from './wkc.ts'
import { WRAP_KEY_BYTES } from './wrap.ts'

/** As many random bytes as an auth-token key has. */
export const AUTH_TOKEN_KEY_BYTES = 128

const STATIC_KEY = 'OpenVPN Static key V1'
const SERVER_KEY = 'OpenVPN tls-crypt-v2 server key'
const CLIENT_KEY = 'OpenVPN tls-crypt-v2 client key'
const AUTH_TOKEN_KEY = 'OpenVPN auth-token server key'

const HEX_LINE_BYTES = 16
const BASE64_LINE_CHARACTERS = 64

/** All parsers throw an Error that says what was expected, and never shows what was found. */
export function parseStaticKey(text: string): Uint8Array {
  const body = bodyOf(text, STATIC_KEY)
  if (!/^[0-9a-f]*$/i.test(body)) throw new Error('a static key has hexadecimal digits only')
  return ofLength(Uint8Array.from(Buffer.from(body, 'hex')), WRAP_KEY_BYTES, 'a static key')
}

export function formatStaticKey(key: Uint8Array): string {
  ofLength(key, WRAP_KEY_BYTES, 'a static key')
  const lines: string[] = []
  for (let at = 0; at < key.length; at += HEX_LINE_BYTES) {
    lines.push(Buffer.from(key.subarray(at, at + HEX_LINE_BYTES)).toString('hex'))
  }
  return ['#', '# 2048 bit OpenVPN static key', '#', frame(STATIC_KEY, lines)].join('\n')
}

/** The key that a tls-crypt-v2 server opens WKcs with. */
export function parseServerKey(text: string): Uint8Array {
  return ofLength(decode(text, SERVER_KEY), SERVER_KEY_BYTES, "a tls-crypt-v2 server's key")
}

export function formatServerKey(key: Uint8Array): string {
  return encode(SERVER_KEY, ofLength(key, SERVER_KEY_BYTES, "a tls-crypt-v2 server's key"))
}

/** What a tls-crypt-v2 client has. */
export interface ClientKeyFile {
  /** 256 bytes. */
  key: Uint8Array
  /** The same for its server only. */
  wkc: Uint8Array
}

export function parseClientKey(text: string): ClientKeyFile {
  const bytes = decode(text, CLIENT_KEY)
  const wkc = bytes.subarray(CLIENT_KEY_BYTES)
  if (splitWkc(wkc)?.wkc.length !== wkc.length) {
    throw new Error("a tls-crypt-v2 client's key has 256 bytes and a wrapped key behind them")
  }
  return { key: bytes.slice(0, CLIENT_KEY_BYTES), wkc: wkc.slice() }
}

export function formatClientKey({ key, wkc }: ClientKeyFile): string {
  ofLength(key, CLIENT_KEY_BYTES, "a tls-crypt-v2 client's key")
  return encode(CLIENT_KEY, Buffer.concat([key, wkc]))
}

/** The 32 bytes that tokens are made and checked with. Longer files, of which OpenVPN reads 128 bytes, are taken. */
export function parseAuthTokenKey(text: string): Uint8Array {
  const bytes = decode(text, AUTH_TOKEN_KEY).subarray(0, AUTH_TOKEN_KEY_BYTES)
  return ofLength(bytes, AUTH_TOKEN_KEY_BYTES, 'an auth-token key').slice(64, 96)
}

export function formatAuthTokenKey(key: Uint8Array): string {
  return encode(AUTH_TOKEN_KEY, ofLength(key, AUTH_TOKEN_KEY_BYTES, 'an auth-token key'))
}

function decode(text: string, name: string): Uint8Array {
  const body = bodyOf(text, name)
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(body)) throw new Error(`an ${name} has base64 lines only`)
  return Uint8Array.from(Buffer.from(body, 'base64'))
}

function encode(name: string, bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('base64')
  const lines: string[] = []
  for (let at = 0; at < text.length; at += BASE64_LINE_CHARACTERS) {
    lines.push(text.slice(at, at + BASE64_LINE_CHARACTERS))
  }
  return frame(name, lines)
}

function frame(name: string, lines: string[]): string {
  return [`-----BEGIN ${name}-----`, ...lines, `-----END ${name}-----`, ''].join('\n')
}

/** What is between the two lines, without white space. */
function bodyOf(text: string, name: string): string {
  const [begin, end] = [`-----BEGIN ${name}-----`, `-----END ${name}-----`]
  const start = text.indexOf(begin)
  const stop = start < 0 ? -1 : text.indexOf(end, start)
  if (start < 0) {
    const other = /-----BEGIN ([A-Za-z0-9 -]{1,60})-----/.exec(text)?.[1]
    const found = other === undefined ? '' : `, there is: ${other}`
    throw new Error(`expected an ${name}, a line "${begin}"${found}`)
  }
  if (stop < 0) throw new Error(`an ${name} without its last line, "${end}"`)
  return text.slice(start + begin.length, stop).replace(/\s+/g, '')
}

function ofLength(bytes: Uint8Array, length: number, what: string): Uint8Array {
  if (bytes.length !== length) throw new Error(`${what} has ${length} bytes, not ${bytes.length}`)
  return bytes
}
