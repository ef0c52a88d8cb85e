/** Virtual time: what is to happen, in order; what is due at one instant, in the order it was asked for. */
export class Clock {
  /** Milliseconds. */
  now = 0
  readonly #heap: { at: number; order: number; run: () => void }[] = []
  #order = 0

  /** When something is to happen next; Infinity: never. */
  get next(): number {
    return this.#heap[0]?.at ?? Number.POSITIVE_INFINITY
  }

  /** Calls `run` at the time `at`, or now where that has passed. */
  at(at: number, run: () => void): void {
    const heap = this.#heap
    const entry = { at: Math.max(at, this.now), order: this.#order++, run }
    let i = heap.push(entry) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(entry, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = entry
  }

  after(milliseconds: number, run: () => void): void {
    this.at(this.now + milliseconds, run)
  }

  /** Calls `run` every `milliseconds` from now on, while it returns true. */
  every(milliseconds: number, run: () => boolean): void {
    this.after(milliseconds, () => {
      if (run()) this.every(milliseconds, run)
    })
  }

  /** Lets time pass until `end`. */
  runUntil(end: number): void {
    for (let first = this.#heap[0]; first && first.at <= end; first = this.#heap[0]) {
      this.#takeFirst()
      this.now = first.at
      first.run()
    }
    this.now = end
  }

  #takeFirst(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
  }
}

function before(a: { at: number; order: number }, b: { at: number; order: number }): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}
