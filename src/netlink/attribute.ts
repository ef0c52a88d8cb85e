/**
 * Netlink attributes as bytes: a Writer, an iterator over a run of attributes, and readers that check lengths. What an
 * attribute means, and whether it may be there, is for others to say (src/uapi, control.ts, route.ts).
 *
 *     | length 2 | flags and type 2 | payload | padding to 4 |      host order, which is little endian wherever Bun runs
 *
 * The length counts the header, not the padding. Source: include/uapi/linux/netlink.h, netlink-api 1.1.
 */

const NLA_F_NESTED = 0x8000
const NLA_F_NET_BYTEORDER = 0x4000
const TYPE_MASK = 0xffff & ~(NLA_F_NESTED | NLA_F_NET_BYTEORDER)
/** Bytes before an attribute's payload. */
export const ATTRIBUTE_HDRLEN = 4
const MAX_LENGTH = 0xffff

/** Rounds up to netlink's alignment of 4. */
export const align = (length: number): number => (length + 3) & ~3

/** Bytes that are no netlink message or attribute. The message says what was expected. */
export class NetlinkError extends Error {
  /** Where, in bytes from the start of what was being read. */
  readonly offset: number

  constructor(expected: string, offset: number) {
    super(`${expected} at offset ${offset}`)
    this.name = 'NetlinkError'
    this.offset = offset
  }
}

export interface Attribute {
  /** Without the two flag bits. */
  readonly type: number
  /** Whether it says of itself that it is a nest; old code leaves that out. */
  readonly nested: boolean
  /** Of its header, from the start of the bytes that the outermost `attributes` was given. */
  readonly offset: number
  /** A view of the message, not a copy; without header and padding. */
  readonly payload: Uint8Array
}

/**
 * The attributes in `bytes`, from `start` on, in order; `base` is added to their offsets. The last one may lack its padding.
 * Throws a NetlinkError at the first length that does not fit and at trailing bytes, after those before it were
 * yielded (a lenient reader keeps these, as the kernel does).
 */
export function* attributes(bytes: Uint8Array, start = 0, base = 0): Generator<Attribute> {
  let at = start
  while (at < bytes.length) {
    if (bytes.length - at < ATTRIBUTE_HDRLEN) {
      throw new NetlinkError('an attribute header of 4 bytes expected', base + at)
    }
    const length = bytes[at]! | (bytes[at + 1]! << 8)
    const type = bytes[at + 2]! | (bytes[at + 3]! << 8)
    if (length < ATTRIBUTE_HDRLEN || length > bytes.length - at) {
      const room = bytes.length - at
      throw new NetlinkError(
        `an attribute length of 4 to ${room} expected, not ${length},`,
        base + at,
      )
    }
    yield {
      type: type & TYPE_MASK,
      nested: (type & NLA_F_NESTED) !== 0,
      offset: base + at,
      payload: bytes.subarray(at + ATTRIBUTE_HDRLEN, at + length),
    }
    at += align(length)
  }
}

/** The attributes inside `attribute`, with offsets that count from where its own does. Throws as `attributes` does. */
export function nested(attribute: Attribute): Generator<Attribute> {
  return attributes(attribute.payload, 0, attribute.offset + ATTRIBUTE_HDRLEN)
}

function view(attribute: Attribute, bytes: number): DataView {
  const { payload } = attribute
  if (payload.length !== bytes) {
    throw new NetlinkError(
      `${bytes} bytes expected in attribute ${attribute.type}, not ${payload.length},`,
      attribute.offset,
    )
  }
  return new DataView(payload.buffer, payload.byteOffset, payload.length)
}

// Each throws a NetlinkError unless the payload has exactly the length of its type.

export const readU8 = (attribute: Attribute): number => view(attribute, 1).getUint8(0)
export const readU16 = (attribute: Attribute): number => view(attribute, 2).getUint16(0, true)
export const readU32 = (attribute: Attribute): number => view(attribute, 4).getUint32(0, true)
export const readS32 = (attribute: Attribute): number => view(attribute, 4).getInt32(0, true)

/** As a double: exact up to 2^53. */
export function readU64(attribute: Attribute): number {
  const bytes = view(attribute, 8)
  return bytes.getUint32(4, true) * 2 ** 32 + bytes.getUint32(0, true)
}

const decoder = new TextDecoder()
const encoder = new TextEncoder()

/** UTF-8 up to the first NUL, or to the end where there is none. */
export function readString(attribute: Attribute): string {
  const { payload } = attribute
  const nul = payload.indexOf(0)
  return decoder.decode(nul < 0 ? payload : payload.subarray(0, nul))
}

/**
 * Appends attributes to a buffer that grows. A value that does not fit its type is cut to it; an attribute of more
 * than 65,535 bytes is a RangeError.
 */
export class Writer {
  #bytes = new Uint8Array(256)
  #view = new DataView(this.#bytes.buffer)
  #length = 0

  /** `header` stands before the attributes, as is; its length is a multiple of 4. */
  constructor(header?: Uint8Array) {
    if (header === undefined) return
    this.#reserve(header.length)
    this.#bytes.set(header)
    this.#length = header.length
  }

  u8(type: number, value: number): this {
    const at = this.#attribute(type, 1)
    this.#view.setUint8(at, value)
    return this
  }

  u16(type: number, value: number): this {
    const at = this.#attribute(type, 2)
    this.#view.setUint16(at, value, true)
    return this
  }

  /** Signed values too: the bits are the same. */
  u32(type: number, value: number): this {
    const at = this.#attribute(type, 4)
    this.#view.setUint32(at, value, true)
    return this
  }

  u64(type: number, value: number): this {
    const at = this.#attribute(type, 8)
    this.#view.setUint32(at, value, true)
    this.#view.setUint32(at + 4, value / 2 ** 32, true)
    return this
  }

  be16(type: number, value: number): this {
    const at = this.#attribute(type, 2)
    this.#view.setUint16(at, value)
    return this
  }

  be32(type: number, value: number): this {
    const at = this.#attribute(type, 4)
    this.#view.setUint32(at, value)
    return this
  }

  /** 4 bytes if the value fits, else 8. */
  uint(type: number, value: number): this {
    return value > 0xffffffff ? this.u64(type, value) : this.u32(type, value)
  }

  bytes(type: number, value: Uint8Array): this {
    const at = this.#attribute(type, value.length)
    this.#bytes.set(value, at)
    return this
  }

  /** With the NUL behind it. */
  string(type: number, value: string): this {
    const text = encoder.encode(value)
    const at = this.#attribute(type, text.length + 1)
    this.#bytes.set(text, at)
    return this
  }

  /** No payload: being there is the value. */
  flag(type: number): this {
    this.#attribute(type, 0)
    return this
  }

  /** `fill` writes what is inside. `flag: false` leaves NLA_F_NESTED out, as rtnetlink and nlctrl do. */
  nest(type: number, fill: (writer: this) => void, options: { flag?: boolean } = {}): this {
    const start = this.#attribute(options.flag === false ? type : type | NLA_F_NESTED, 0)
    fill(this)
    const length = this.#length - start + ATTRIBUTE_HDRLEN
    if (length > MAX_LENGTH) throw new RangeError(`attribute ${type} of ${length} bytes`)
    this.#view.setUint16(start - ATTRIBUTE_HDRLEN, length, true)
    return this
  }

  /** What was written: a view, valid as long as nothing more is written. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  /** Writes the header and returns where the payload goes; it and the padding are zero. */
  #attribute(type: number, payload: number): number {
    const length = ATTRIBUTE_HDRLEN + payload
    if (length > MAX_LENGTH) throw new RangeError(`attribute ${type} of ${length} bytes`)
    this.#reserve(align(length))
    this.#view.setUint16(this.#length, length, true)
    this.#view.setUint16(this.#length + 2, type, true)
    const at = this.#length + ATTRIBUTE_HDRLEN
    this.#length += align(length)
    return at
  }

  #reserve(more: number): void {
    const needed = this.#length + more
    if (needed <= this.#bytes.length) return
    const bytes = new Uint8Array(Math.max(needed, 2 * this.#bytes.length))
    bytes.set(this.#bytes.subarray(0, this.#length))
    this.#bytes.fill(0) // may hold a key
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer)
  }
}
