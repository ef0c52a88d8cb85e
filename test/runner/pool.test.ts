/** The pool: as much at once as fits, in order, and alone what wants to be. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { runPool } from './pool.ts'

interface Step {
  load: number
  name: string
}

/** Runs jobs of these loads, named a, b, …; they end in order of `ends`. Gives which ran together, at each start. */
async function together(loads: number[], ends: string): Promise<string[]> {
  const jobs = loads.map((load, i): Step => ({ load, name: 'abcdef'[i]! }))
  const running = new Map<string, () => void>()
  const seen: string[] = []
  const done = runPool(
    jobs,
    2,
    ({ name }) =>
      new Promise((resolve) => {
        running.set(name, resolve)
        seen.push([...running.keys()].join(''))
      }),
  )
  for (const name of ends) {
    running.get(name)!()
    running.delete(name)
    await new Promise((resolve) => setImmediate(resolve))
  }
  await done
  return seen
}

describe('a pool for two processors', () => {
  const alone = Number.POSITIVE_INFINITY
  const rows: [loads: number[], ends: string, seen: string[], why: string][] = [
    [[], '', [], 'nothing to do'],
    [[1, 1, 1], 'bac', ['a', 'ab', 'ac'], 'two at a time'],
    [[0.5, 0.5, 0.5, 0.5, 0.5], 'abcde', ['a', 'ab', 'abc', 'abcd', 'bcde'], 'four that wait'],
    [[1.2, 1.2, 0.5], 'acb', ['a', 'ac', 'cb'], 'what fits goes past what does not'],
    [[8, 1], 'ab', ['a', 'b'], 'more than there is: by itself'],
    [[1, alone, 1], 'acb', ['a', 'ac', 'b'], 'what wants to be alone waits for all'],
    [[alone, 1, 1], 'abc', ['a', 'b', 'bc'], 'and all for it'],
  ]
  for (const [loads, ends, seen, why] of rows) {
    it(why, async () => assert.deepEqual(await together(loads, ends), seen))
  }

  it('fails with what it runs', async () => {
    const failing = runPool([{ load: 1 }], 2, () => Promise.reject(new Error('no')))
    await assert.rejects(failing, /no/)
  })
})
