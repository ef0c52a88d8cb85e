/**
 * Sealed packets on their way out, back to back in one area, grouped into messages: each message goes to one peer in
 * one call. Over UDP a message is a train for UDP_SEGMENT: datagrams of equal size, of which only the last may be
 * shorter; over TCP it is frames, each behind its two-byte length.
 */
import type { Peer } from './peer.ts'

/** UDP_MAX_SEGMENTS of kernels before 6.9. */
const MAX_SEGMENTS = 64
/** Largest UDP payload over IPv4: 65535 - 20 - 8 (RFC 768, RFC 791). */
export const MAX_DATAGRAM = 65507
const MAX_MESSAGES = 64

export class Outbox {
  readonly start: number
  readonly #end: number
  /** Where the next packet goes. */
  cursor: number
  count = 0
  readonly peer: (Peer | undefined)[] = new Array(MAX_MESSAGES).fill(undefined)
  readonly offset = new Int32Array(MAX_MESSAGES)
  readonly length = new Int32Array(MAX_MESSAGES)
  /** Size of each datagram of the train but the last. */
  readonly segment = new Int32Array(MAX_MESSAGES)
  readonly packets = new Int32Array(MAX_MESSAGES)
  #open = false

  readonly #trains: boolean

  /** `start`, `bytes`: the area's offset and size. `trains`: the kernel sends trains of datagrams (UDP_SEGMENT). */
  constructor(start: number, bytes: number, trains = true) {
    this.#trains = trains
    this.start = start
    this.#end = start + bytes
    this.cursor = start
  }

  /** Whether a packet of `bytes` can be added, in whatever message. */
  hasRoom(bytes: number): boolean {
    return this.cursor + bytes <= this.#end && this.count < MAX_MESSAGES
  }

  /** Takes the packet of `bytes` that was written at `cursor`. */
  add(peer: Peer, bytes: number): void {
    const last = this.count - 1
    if (
      this.#open &&
      this.peer[last] === peer &&
      (peer.stream ||
        (this.#trains &&
          bytes <= this.segment[last]! &&
          this.segment[last]! <= peer.trainLimit &&
          this.packets[last]! < MAX_SEGMENTS &&
          this.length[last]! + bytes <= MAX_DATAGRAM))
    ) {
      this.length[last]! += bytes
      this.packets[last]!++
      if (!peer.stream && bytes < this.segment[last]!) this.#open = false
    } else {
      const at = this.count++
      this.peer[at] = peer
      this.offset[at] = this.cursor
      this.length[at] = bytes
      this.segment[at] = bytes
      this.packets[at] = 1
      this.#open = true
    }
    this.cursor += bytes
  }

  clear(): void {
    this.peer.fill(undefined, 0, this.count)
    this.count = 0
    this.cursor = this.start
    this.#open = false
  }
}
