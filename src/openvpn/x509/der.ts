/**
 * Owns the reading of DER, as far as certificates and their lists need it, of bytes that anybody may have made. What the
 * values mean is certificate.ts's and crl.ts's. Writing is @peculiar/x509's.
 *
 *     | tag 1 | length 1, or 1 + n | content |      a tag above 30, a length without end or above 4 bytes: refused
 *
 * Source: ITU-T X.690, 8 and 10.
 */

export const Tag = {
  Boolean: 0x01,
  Integer: 0x02,
  BitString: 0x03,
  OctetString: 0x04,
  Oid: 0x06,
  Enumerated: 0x0a,
  Utf8String: 0x0c,
  PrintableString: 0x13,
  TeletexString: 0x14,
  Ia5String: 0x16,
  UtcTime: 0x17,
  GeneralizedTime: 0x18,
  UniversalString: 0x1c,
  BmpString: 0x1e,
  Sequence: 0x30,
  Set: 0x31,
} as const

/** What is not DER, or not what was expected. */
export class DerError extends Error {
  override readonly name = 'DerError'
}

/** One value, views of the bytes it was read from. */
export interface Der {
  tag: number
  content: Uint8Array
  /** With tag and length. */
  raw: Uint8Array
}

/** The one value that `bytes` are. @throws DerError */
export function readDer(bytes: Uint8Array): Der {
  const value = readAt(bytes, 0)
  if (value.raw.length !== bytes.length) throw new DerError('there is more behind the value')
  return value
}

/** The values that `bytes` are one after another. @throws DerError */
export function readAll(bytes: Uint8Array): Der[] {
  const values: Der[] = []
  for (let at = 0; at < bytes.length; ) {
    const value = readAt(bytes, at)
    values.push(value)
    at += value.raw.length
  }
  return values
}

function readAt(bytes: Uint8Array, at: number): Der {
  if (at + 2 > bytes.length) throw new DerError('cut short')
  const tag = bytes[at]!
  if ((tag & 0x1f) === 0x1f) throw new DerError('a tag of more than one byte')
  let length = bytes[at + 1]!
  let start = at + 2
  if (length >= 0x80) {
    const count = length & 0x7f
    if (count === 0 || count > 4 || start + count > bytes.length)
      throw new DerError('a wrong length')
    length = 0
    for (let i = 0; i < count; i++) length = length * 256 + bytes[start++]!
  }
  const end = start + length
  if (end > bytes.length) throw new DerError('cut short')
  return { tag, content: bytes.subarray(start, end), raw: bytes.subarray(at, end) }
}

/** Goes through the values of a sequence. */
export class DerReader {
  readonly #values: Der[]
  #next = 0

  /** @throws DerError if `value` is no sequence, or has another `tag` if one is given */
  constructor(value: Der | undefined, tag: number = Tag.Sequence) {
    this.#values = readAll(expectTag(value, tag).content)
  }

  get done(): boolean {
    return this.#next >= this.#values.length
  }

  /** The next value. @throws DerError if there is none, or its tag is another */
  take(tag?: number): Der {
    const value = this.#values[this.#next]
    if (value === undefined) throw new DerError('a value is missing')
    if (tag !== undefined) expectTag(value, tag)
    this.#next++
    return value
  }

  /** The next value if its tag is one of `tags`. */
  takeIf(...tags: number[]): Der | undefined {
    const value = this.#values[this.#next]
    if (value === undefined || !tags.includes(value.tag)) return undefined
    this.#next++
    return value
  }
}

/** `value`, if its tag is `tag`. @throws DerError */
function expectTag(value: Der | undefined, tag: number): Der {
  if (value?.tag === tag) return value
  const found = value === undefined ? 'nothing' : `0x${value.tag.toString(16)}`
  throw new DerError(`expected a value of kind 0x${tag.toString(16)}, there is ${found}`)
}

/** Dotted numbers of an object identifier. @throws DerError */
export function readOid(value: Der): string {
  const { content } = expectTag(value, Tag.Oid)
  const parts: number[] = []
  let part = 0
  for (const byte of content) {
    part = part * 128 + (byte & 0x7f)
    if (part > Number.MAX_SAFE_INTEGER / 128)
      throw new DerError('an object identifier that is too long')
    if (byte >= 0x80) continue
    parts.push(part)
    part = 0
  }
  const [first, ...rest] = parts
  if (first === undefined || content.at(-1)! >= 0x80) throw new DerError('no object identifier')
  const root = Math.min(2, Math.floor(first / 40))
  return [root, first - 40 * root, ...rest].join('.')
}

/** Bytes of a bit string whose bits fill them, or with the last ones unused. @throws DerError */
export function readBits(value: Der): Uint8Array {
  const { content } = expectTag(value, Tag.BitString)
  if (content.length === 0 || content[0]! > 7) throw new DerError('no bit string')
  return content.subarray(1)
}

/** An integer from 0 to 2 ** 31 - 1. @throws DerError */
export function readSmallInteger(value: Der): number {
  const { content } = value
  if (content.length === 0 || content.length > 4 || content[0]! >= 0x80) {
    throw new DerError('a number out of range')
  }
  return content.reduce((sum, byte) => sum * 256 + byte, 0)
}

/** UTCTime or GeneralizedTime as RFC 5280, 4.1.2.5, has them, in seconds since 1970. @throws DerError */
export function readTime({ tag, content }: Der): number {
  const text = Buffer.from(content).toString('latin1')
  const years = tag === Tag.UtcTime ? 2 : tag === Tag.GeneralizedTime ? 4 : 0
  const match = years > 0 ? /^(\d+)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text) : null
  if (match === null || match[1]!.length !== years) throw new DerError('no time')
  const [year, month, day, hour, minute, second] = match.slice(1).map(Number) as Six
  const full = years === 4 ? year : year < 50 ? 2000 + year : 1900 + year
  const time = new Date(0)
  time.setUTCFullYear(full, month - 1, day)
  time.setUTCHours(hour, minute, second)
  return time.getTime() / 1000
}
type Six = [number, number, number, number, number, number]

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Text of any of the kinds of string that names are made of. @throws DerError */
export function readText({ tag, content }: Der): string {
  const bytes = Buffer.from(content)
  switch (tag) {
    case Tag.Utf8String:
      try {
        return utf8.decode(content)
      } catch {
        throw new DerError('text that is not UTF-8')
      }
    case Tag.PrintableString:
    case Tag.Ia5String:
    case Tag.TeletexString:
      return bytes.toString('latin1')
    case Tag.BmpString:
      if (bytes.length % 2 !== 0) throw new DerError('half a character')
      return bytes.swap16().toString('utf16le')
    case Tag.UniversalString: {
      if (bytes.length % 4 !== 0) throw new DerError('a part of a character')
      let text = ''
      for (let at = 0; at < bytes.length; at += 4) {
        const point = bytes.readUInt32BE(at)
        if (point > 0x10ffff) throw new DerError('a character that there is not')
        text += String.fromCodePoint(point)
      }
      return text
    }
    default:
      throw new DerError(`no text: 0x${tag.toString(16)}`)
  }
}
