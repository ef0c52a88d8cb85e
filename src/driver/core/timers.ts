/**
 * Deadlines of many owners in one binary heap. An owner's deadline may move later without a word to the heap (a packet
 * was sent, so the ping can wait): when the old one comes due, the owner is asked for its present one.
 */
import type { Millis } from './keepalive.ts'

interface Timed {
  /** When it wants to be called; Infinity for never. */
  deadline(): Millis
}

export class Timers<T extends Timed> {
  readonly #heap: { at: Millis; owner: T }[] = []
  readonly #scheduled = new Map<T, { at: Millis; owner: T }>()

  /** To be called when an owner's deadline may have moved earlier, and for a new owner. */
  schedule(owner: T): void {
    const at = owner.deadline()
    const old = this.#scheduled.get(owner)
    if (old !== undefined && old.at <= at) return
    this.#scheduled.delete(owner)
    if (at === Infinity) return
    const entry = { at, owner }
    this.#scheduled.set(owner, entry)
    this.#push(entry)
  }

  remove(owner: T): void {
    this.#scheduled.delete(owner) // its heap entry is passed over when it comes up
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
      this.#pop()
      if (this.#scheduled.get(top.owner) !== top) continue
      this.#scheduled.delete(top.owner)
      if (top.owner.deadline() > now) {
        this.schedule(top.owner)
        continue
      }
      due(top.owner)
    }
  }

  #push(entry: { at: Millis; owner: T }): void {
    const heap = this.#heap
    let i = heap.push(entry) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (heap[parent]!.at <= entry.at) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = entry
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++
      if (heap[child]!.at >= last.at) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
  }
}
