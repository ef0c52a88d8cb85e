import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { FrequencyLimit } from './limits.ts'

describe('FrequencyLimit of 3 in 10 s', () => {
  const limit = new FrequencyLimit(3, 10_000)
  type Step = [second: number, does: 'take' | 'give back', allowed: boolean, why: string]
  const steps: Step[] = [
    [100, 'take', true, 'the period begins'],
    [101, 'take', true, 'the second'],
    [101, 'give back', true, 'it was a good one'],
    [102, 'take', true, 'in its place'],
    [103, 'take', true, 'the third'],
    [109.999, 'take', false, 'one too many'],
    [110, 'take', true, 'the next period begins'],
    [110, 'give back', true, ''],
    [110, 'give back', true, 'more than were taken'],
    [111, 'take', true, 'one'],
    [111, 'take', true, 'two'],
    [111, 'take', true, 'three'],
    [111, 'take', false, 'what was given back too often is no credit'],
  ]
  for (const [second, does, allowed, why] of steps) {
    it(`${second} s, ${does}: ${why}`, () => {
      if (does === 'take') assert.equal(limit.take(1000 * second), allowed)
      else limit.giveBack()
    })
  }

  it('counts what it refused', () => {
    assert.equal(limit.refused, 1)
    assert.ok(!limit.take(112_000))
    assert.equal(limit.refused, 2)
  })
})
