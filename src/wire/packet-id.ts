/**
 * Owns packet ids: the sender's counter of 32 bits with its end, and the receiver's replay window. Neither knows the
 * key it belongs to; counters of epoch keys are epoch.ts's. Source: driver-behaviour, 2.2 and 3.3.
 */

const LAST_PACKET_ID = 0xffffffff

/** Gives out packet ids in order, each once. */
export class PacketIdCounter {
  #next: number

  /** `first`: 1 unless a test wants to be near the end. */
  constructor(first = 1) {
    this.#next = first
  }

  /** The next id, used up by this; 0: worn out, the next nonce would repeat. */
  next(): number {
    const id = this.#next
    if (id > LAST_PACKET_ID) return 0
    this.#next = id + 1
    return id
  }

  /** What `next` will give. */
  peek(): number {
    return this.#next > LAST_PACKET_ID ? 0 : this.#next
  }
}

/** How long a packet may be late behind the last accepted one, in milliseconds. */
export const BACKTRACK_MS = 30_000

/**
 * Tells which packet ids are new. One per key and direction; ask only after the packet has proved authentic.
 *
 *     1 ......... highest - size | ~~~~~~~~~~ size ~~~~~~~~~~ highest | ...
 *               too old            seen or not, by bitmap               always new
 *
 * An id at or below the floor is too late, seen or not: the floor rises to the highest when nothing has been accepted
 * for BACKTRACK_MS. (The reference's "extent" is min(highest, size), so ids above 0 need no look at it.)
 */
export class ReplayWindow {
  readonly #size: number
  /** Bit `id mod size`: seen. Only those of the last `size` ids up to the highest mean something. */
  readonly #seen: Uint32Array
  #highest = 0
  #floor = 0
  #lastAccepted = Number.NEGATIVE_INFINITY

  /** `size`: a power of two, 32 at least; 2048 in the kernel's driver. */
  constructor(size = 2048) {
    this.#size = size
    this.#seen = new Uint32Array(size >> 5)
  }

  /** Whether `id` (unsigned, of any width below 2 ** 53) is new at the time `now` (monotonic milliseconds); it then is no longer. */
  accept(id: number, now: number): boolean {
    if (id === 0) return false
    if (now - this.#lastAccepted >= BACKTRACK_MS) this.#floor = this.#highest
    const ahead = id - this.#highest
    if (ahead > 0) this.#advance(id, ahead)
    else if (-ahead >= this.#size || id <= this.#floor || this.#isSeen(id)) return false
    this.#seen[this.#word(id)]! |= 1 << (id & 31)
    this.#lastAccepted = now
    return true
  }

  #advance(id: number, ahead: number): void {
    if (ahead < this.#size) {
      for (let skipped = this.#highest + 1; skipped < id; skipped++) {
        this.#seen[this.#word(skipped)]! &= ~(1 << (skipped & 31))
      }
    } else {
      this.#seen.fill(0)
    }
    this.#highest = id
  }

  #isSeen(id: number): boolean {
    return (this.#seen[this.#word(id)]! & (1 << (id & 31))) !== 0
  }

  #word(id: number): number {
    return (id & (this.#size - 1)) >>> 5
  }
}
