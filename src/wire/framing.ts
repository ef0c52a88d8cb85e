/**
 * Owns OpenVPN's framing of packets in a TCP stream, both ways. Who reads the stream, and what becomes of it when it
 * makes no sense, is left to others.
 *
 *     | length of the packet 2 | packet | length 2 | packet | ...      sizes in bytes, lengths big-endian
 *
 * Source: OpenVPN's openvpn-wire-protocol.xml; driver-behaviour, 6.5.
 */

export const FRAME_PREFIX_BYTES = 2
export const MAX_FRAME_BODY = 0xffff
/** A shorter one makes no sense: the kernel's stream parser gives up on a length of 0 or 1. */
const MIN_FRAME_BODY = 2

/** `packet` with its length before it, in new memory. Throws a RangeError for one that is too long. */
export function encodeFrame(packet: Uint8Array): Uint8Array {
  if (packet.length > MAX_FRAME_BODY) throw new RangeError(`a frame of ${packet.length} bytes`)
  const frame = new Uint8Array(FRAME_PREFIX_BYTES + packet.length)
  new DataView(frame.buffer).setUint16(0, packet.length)
  frame.set(packet, FRAME_PREFIX_BYTES)
  return frame
}

/** What `Deframer.next` came upon. The last two are for good: the stream cannot be followed any more. */
export const FrameState = {
  /** More bytes are needed. */
  Incomplete: 0,
  /** A whole packet lies at `offset`. */
  Ready: 1,
  /** A length of 0 or 1 (EINVAL). */
  TooShort: 2,
  /** A length above the allowed (EMSGSIZE). */
  TooLong: 3,
} as const
export type FrameState = (typeof FrameState)[keyof typeof FrameState]

/**
 * Finds the packets in a stream that arrives in pieces, where it lies. The caller reads up to `room` bytes to
 * `writeOffset`, tells `wrote` how many came, and calls `next` until it is no longer `Ready`. Packets stay where they
 * are until `next` says `Incomplete`: that moves what is left to the front of the area.
 */
export class Deframer {
  /** The present packet, without its length field: set by `next`. */
  offset = 0
  length = 0
  readonly #bytes: Uint8Array
  readonly #start: number
  readonly #limit: number
  readonly #maximum: number
  #read: number
  #write: number
  #failed: FrameState = FrameState.Incomplete

  /**
   * @param bytes    memory that holds the area; offsets count from its begin
   * @param start    where the area begins
   * @param capacity size of the area; must hold one packet of `maximum` bytes and its length field
   * @param maximum  longest packet allowed
   */
  constructor(bytes: Uint8Array, start: number, capacity: number, maximum = MAX_FRAME_BODY) {
    if (capacity < FRAME_PREFIX_BYTES + maximum) {
      throw new RangeError(`${capacity} bytes do not hold a frame of ${maximum}`)
    }
    this.#bytes = bytes
    this.#start = start
    this.#limit = start + capacity
    this.#maximum = maximum
    this.#read = start
    this.#write = start
  }

  get writeOffset(): number {
    return this.#write
  }

  /** Never 0 after `next` has said `Incomplete`. */
  get room(): number {
    return this.#limit - this.#write
  }

  /** Bytes of an unfinished frame, its length field included, once `next` has said `Incomplete`. */
  get pending(): number {
    return this.#write - this.#read
  }

  /** Begins with another stream: nothing read, nothing failed. */
  reset(): void {
    this.#read = this.#start
    this.#write = this.#start
    this.#failed = FrameState.Incomplete
  }

  /** `count` more bytes of the stream lie at what was `writeOffset`. */
  wrote(count: number): void {
    this.#write += count
  }

  /** Goes to the next packet. */
  next(): FrameState {
    if (this.#failed !== FrameState.Incomplete) return this.#failed
    const present = this.#write - this.#read
    if (present < FRAME_PREFIX_BYTES) return this.#rest(present)
    const length = (this.#bytes[this.#read]! << 8) | this.#bytes[this.#read + 1]!
    if (length < MIN_FRAME_BODY) return this.#fail(FrameState.TooShort)
    if (length > this.#maximum) return this.#fail(FrameState.TooLong)
    if (present < FRAME_PREFIX_BYTES + length) return this.#rest(present)
    this.offset = this.#read + FRAME_PREFIX_BYTES
    this.length = length
    this.#read = this.offset + length
    return FrameState.Ready
  }

  #rest(present: number): FrameState {
    if (this.#read !== this.#start) {
      this.#bytes.copyWithin(this.#start, this.#read, this.#write)
      this.#read = this.#start
      this.#write = this.#start + present
    }
    return FrameState.Incomplete
  }

  #fail(state: FrameState): FrameState {
    this.#failed = state
    return state
  }
}
