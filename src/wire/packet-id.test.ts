import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { loadVectors } from '../../test/vectors/load.ts'
import { BACKTRACK_MS, PacketIdCounter, ReplayWindow } from './packet-id.ts'

const LAST = 0xffffffff

describe('PacketIdCounter', () => {
  it('begins with 1', () => {
    const counter = new PacketIdCounter()
    assert.deepEqual([counter.peek(), counter.next(), counter.next(), counter.peek()], [1, 1, 2, 3])
  })

  it('gives the last id once, and 0 for ever after', () => {
    const counter = new PacketIdCounter(LAST - 1)
    assert.deepEqual(
      [counter.next(), counter.peek(), counter.next(), counter.peek(), counter.next()],
      [LAST - 1, LAST, LAST, 0, 0],
    )
    assert.equal(counter.next(), 0)
  })
})

type Step = [id: number, accepted: boolean, why: string, seconds?: number]

/** Runs steps on one window in order; `seconds` is the clock from that step on. */
function steps(title: string, size: number, rows: Step[]): void {
  describe(title, () => {
    const window = new ReplayWindow(size)
    let now = 1_000_000
    for (const [id, accepted, why, seconds] of rows) {
      it(`${id}: ${why}`, () => {
        now = seconds === undefined ? now : 1_000_000 + seconds * 1000
        assert.equal(window.accept(id, now), accepted)
      })
    }
  })
}

steps('ReplayWindow of 2048', 2048, [
  [0, false, 'zero is never sent'],
  [1, true, 'the first packet'],
  [1, false, 'the same again'],
  [2, true, 'the next'],
  [2050, true, 'a jump of a whole window'],
  [3, true, 'the oldest id still inside: 2047 back'],
  [2, false, '2048 back'],
  [3, false, 'the same again'],
  [2049, true, 'one of those jumped over'],
  [4097, true, 'a jump of one less than a window'],
  [2050, false, 'the only bit that this jump keeps is a seen one'],
  [2051, true, 'its neighbour was forgotten: it shares its bit with id 3, seen'],
  [1_000_000, true, 'a jump far beyond the window'],
  [4097, false, 'the highest before it'],
  [0, false, 'zero, still'],
])

steps('a first packet that is not 1', 2048, [
  [5, true, 'packets before it are late or lost'],
  [4, true, 'late'],
  [1, true, 'late, and the very first'],
  [1, false, 'the same again'],
  [0, false, 'zero is no late packet'],
  [3, true, 'late'],
])

steps('packets that are late by the clock', 2048, [
  [10, true, 'at the start', 0],
  [8, true, 'a backtrack, within 30 seconds', 29.999],
  [7, true, 'the 30 seconds begin anew with every accepted packet', 59.998],
  [7, false, 'a replay does not make them begin anew', 80],
  [6, false, '30 seconds after the last accepted: no backtracking', 89.998],
  [11, true, 'ahead is always fine', 90],
  [9, false, 'behind the floor for good', 90],
  [15, true, 'a jump ahead, right after', 91],
  [12, true, 'above the floor: late, but allowed', 92],
  [10, false, 'the floor itself', 92],
])

steps('the end of the ids', 2048, [
  [LAST - 1, true, 'a jump to the last but one'],
  [LAST, true, 'the last'],
  [LAST, false, 'the same again'],
  [LAST - 2047, true, 'the oldest inside'],
  [LAST - 2048, false, 'one older'],
  [1, false, 'no wrap: 1 is old'],
  [0, false, 'no wrap: 0 is never sent'],
])

const LAST_48 = 2 ** 48 - 1

steps('ids of 48 bits', 2048, [
  [2 ** 32 - 1, true, 'the last of 32 bits'],
  [2 ** 32, true, 'the next is no 0'],
  [2 ** 32 + 1, true, 'nor is this 1'],
  [2 ** 32 - 1, false, 'the same again'],
  [1, false, 'far behind, though its low bits are those of a new one'],
  [2 ** 47, true, 'a jump'],
  [2 ** 47 - 2047, true, 'the oldest inside'],
  [2 ** 47 - 2048, false, 'one older'],
  [LAST_48 - 1, true, 'the last but one'],
  [LAST_48, true, 'the last'],
  [LAST_48, false, 'the same again'],
])

describe('windows of the vectors', () => {
  for (const { name, window: size, steps } of loadVectors('packet-id').replay_window_id_only) {
    it(name, () => {
      const window = new ReplayWindow(size)
      for (const { id, result } of steps) {
        assert.equal(window.accept(id, 0), result === 'accept', `${id}: ${result}`)
      }
    })
  }
})

/** What ReplayWindow does, by remembering everything. */
class SlowWindow {
  readonly #size: number
  readonly #seen = new Set<number>()
  #highest = 0
  #floor = 0
  #last = Number.NEGATIVE_INFINITY

  constructor(size: number) {
    this.#size = size
  }

  accept(id: number, now: number): boolean {
    if (now - this.#last >= BACKTRACK_MS) this.#floor = this.#highest
    const old = id <= this.#highest - this.#size || id <= this.#floor
    if (id === 0 || this.#seen.has(id) || (old && id <= this.#highest)) return false
    this.#seen.add(id)
    this.#highest = Math.max(this.#highest, id)
    this.#last = now
    return true
  }
}

describe('ReplayWindow against a slow one', () => {
  for (const size of [32, 64, 2048]) {
    for (let seed = 1; seed <= 20; seed++) {
      it(`size ${size}, seed ${seed}`, () => {
        const random = new Random(seed)
        const window = new ReplayWindow(size)
        const slow = new SlowWindow(size)
        // Some runs come to the end of the ids of 32 and 48 bits, where signs and roundings would go wrong.
        const last = seed % 4 === 3 ? LAST_48 : LAST
        let around = seed % 2 === 0 ? 1 : last - 300 * size
        let now = 0
        let accepted = 0
        for (let i = 0; i < 4000; i++) {
          const kind = random.below(100)
          if (kind < 60) around += 1
          else if (kind < 70) around += random.below(size * 2)
          else if (kind < 71) around += size - 1 + random.below(3)
          around = Math.min(around, last)
          const back = kind >= 80 ? random.below(size + size / 2) : random.below(3)
          now += kind === 99 ? BACKTRACK_MS - 1 + random.below(3) : random.below(20)
          const id = Math.max(0, around - back)
          const verdict = window.accept(id, now)
          assert.equal(verdict, slow.accept(id, now), `step ${i}: ${id} at ${now}`)
          if (verdict) accepted++
        }
        assert.ok(accepted > 1000, `${accepted} accepted: the run tells nothing`)
      })
    }
  }
})
