/**
 * Deadlines of many owners in one binary heap. An owner's deadline may move later without a word to the heap (a packet
 * was sent, so the ping can wait): when the old one comes due, the owner is asked for its present one.
 */
import type { Millis } from './keepalive.ts'

interface Timed {
  /** When it wants to be called; Infinity for never. */
  deadline(): Millis
}

interface Entry<T> {
  at: Millis
  owner: T
  /** Where it is in the heap. */
  place: number
}

export class Timers<T extends Timed> {
  readonly #heap: Entry<T>[] = []
  readonly #entries = new Map<T, Entry<T>>()

  /** To be called when an owner's deadline may have moved earlier, and for a new owner. */
  schedule(owner: T): void {
    const at = owner.deadline()
    const old = this.#entries.get(owner)
    if (old !== undefined && old.at <= at) return
    this.remove(owner)
    if (at === Infinity) return
    const entry = { at, owner, place: this.#heap.length }
    this.#entries.set(owner, entry)
    this.#rise(entry, entry.place)
  }

  /** Nothing is kept of it: owners come and go faster than their deadlines. */
  remove(owner: T): void {
    const entry = this.#entries.get(owner)
    if (entry === undefined) return
    this.#entries.delete(owner)
    const last = this.#heap.pop()!
    if (last === entry) return
    this.#sink(last, entry.place)
    this.#rise(last, last.place)
  }

  /** The earliest deadline known; early by as much as an owner's has moved since. */
  next(): Millis {
    return this.#heap[0]?.at ?? Infinity
  }

  /**
   * Calls `due` for each owner whose deadline has come; `due` schedules it anew if it is to be called again, and
   * not for `now` or earlier, which would not end.
   */
  run(now: Millis, due: (owner: T) => void): void {
    for (let top = this.#heap[0]; top !== undefined && top.at <= now; top = this.#heap[0]) {
      const { owner } = top
      this.remove(owner)
      if (owner.deadline() > now) this.schedule(owner)
      else due(owner)
    }
  }

  /** Puts `entry` at `place`, or above as far as it is earlier. */
  #rise(entry: Entry<T>, place: number): void {
    let at = place
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = this.#heap[parent]!
      if (above.at <= entry.at) break
      this.#put(above, at)
      at = parent
    }
    this.#put(entry, at)
  }

  /** Puts `entry` at `place`, or below as far as it is later. */
  #sink(entry: Entry<T>, place: number): void {
    const heap = this.#heap
    let at = place
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++
      if (heap[child]!.at >= entry.at) break
      this.#put(heap[child]!, at)
      at = child
    }
    this.#put(entry, at)
  }

  #put(entry: Entry<T>, place: number): void {
    this.#heap[place] = entry
    entry.place = place
  }
}
