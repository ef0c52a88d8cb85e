import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { median, quantile, timesBetter } from './statistics.ts'

describe('quantile', () => {
  const rows: [values: number[], q: number, expected: number, why: string][] = [
    [[7], 0.5, 7, 'one value is every quantile'],
    [[7], 0.99, 7, 'one value is every quantile'],
    [[3, 1, 2], 0.5, 2, 'the middle one, whatever the order'],
    [[4, 1, 3, 2], 0.5, 2.5, 'between the middle two'],
    [[10, 9, 100], 0.5, 10, 'numbers are ordered as numbers, not as text'],
    [[1, 2, 3, 4, 5], 0, 1, 'the least'],
    [[1, 2, 3, 4, 5], 1, 5, 'the greatest'],
    [[0, 100], 0.99, 99, 'linear between ranks'],
  ]
  for (const [values, q, expected, why] of rows) {
    it(`${q} of ${values}: ${why}`, () => assert.equal(quantile(values, q), expected))
  }

  it('leaves the samples in their order', () => {
    const values = [3, 1, 2]
    median(values)
    assert.deepEqual(values, [3, 1, 2])
  })

  it('refuses to make a figure up', () => {
    assert.throws(() => median([]), RangeError)
  })
})

describe('timesBetter', () => {
  it('is above 1 for the faster', () => assert.equal(timesBetter(4, 2, 'more'), 2))
  it('is above 1 for the shorter', () => assert.equal(timesBetter(2, 4, 'less'), 2))
  it('is below 1 for the worse', () => assert.equal(timesBetter(4, 2, 'less'), 0.5))
})
