/**
 * A hash table keyed by addresses (four 32-bit words), for look-ups on the packet path: open addressing in typed arrays, no
 * allocation on a look-up, seeded so that a peer cannot choose colliding addresses.
 */
export class AddressMap<T> {
  readonly #seed: number
  #capacity = 16
  #keys = new Int32Array(4 * 16)
  #values: (T | undefined)[] = new Array(16).fill(undefined)
  #size = 0

  /** `seed`: 32 random bits. */
  constructor(seed: number) {
    this.#seed = seed | 0
  }

  get size(): number {
    return this.#size
  }

  get(a: number, b: number, c: number, d: number): T | undefined {
    return this.#values[this.#find(a, b, c, d)]
  }

  set(a: number, b: number, c: number, d: number, value: T): void {
    let at = this.#find(a, b, c, d)
    if (this.#values[at] === undefined) {
      if (2 * (this.#size + 1) > this.#capacity) {
        this.#grow()
        at = this.#find(a, b, c, d)
      }
      this.#size++
      const keys = this.#keys
      keys[4 * at] = a
      keys[4 * at + 1] = b
      keys[4 * at + 2] = c
      keys[4 * at + 3] = d
    }
    this.#values[at] = value
  }

  delete(a: number, b: number, c: number, d: number): boolean {
    let hole = this.#find(a, b, c, d)
    if (this.#values[hole] === undefined) return false
    this.#size--
    // Entries behind the hole that could have sat in it move up, so that no search ends too early.
    const mask = this.#capacity - 1
    const keys = this.#keys
    for (let at = (hole + 1) & mask; this.#values[at] !== undefined; at = (at + 1) & mask) {
      const k = 4 * at
      const home = this.#hash(keys[k]!, keys[k + 1]!, keys[k + 2]!, keys[k + 3]!)
      if (((at - home) & mask) < ((at - hole) & mask)) continue
      keys.copyWithin(4 * hole, k, k + 4)
      this.#values[hole] = this.#values[at]
      hole = at
    }
    this.#values[hole] = undefined
    return true
  }

  clear(): void {
    this.#values.fill(undefined)
    this.#size = 0
  }

  #hash(a: number, b: number, c: number, d: number): number {
    let h = this.#seed ^ d
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) ^ c
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) ^ b
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) ^ a
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
    return (h ^ (h >>> 16)) & (this.#capacity - 1)
  }

  /** Where the key is, or where it would go. */
  #find(a: number, b: number, c: number, d: number): number {
    const keys = this.#keys
    const values = this.#values
    const mask = this.#capacity - 1
    let at = this.#hash(a, b, c, d)
    while (values[at] !== undefined) {
      const k = 4 * at
      if (keys[k + 3] === d && keys[k + 2] === c && keys[k + 1] === b && keys[k] === a) return at
      at = (at + 1) & mask
    }
    return at
  }

  #grow(): void {
    const keys = this.#keys
    const values = this.#values
    this.#capacity *= 2
    this.#keys = new Int32Array(4 * this.#capacity)
    this.#values = new Array(this.#capacity).fill(undefined)
    this.#size = 0
    values.forEach((value, i) => {
      if (value !== undefined) {
        this.set(keys[4 * i]!, keys[4 * i + 1]!, keys[4 * i + 2]!, keys[4 * i + 3]!, value)
      }
    })
  }
}
