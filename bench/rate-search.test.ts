import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Probe, searchRate } from './rate-search.ts'

/** A path that carries `capacity` packets per second and a sender that makes `most`. */
function path(capacity: number, most: number) {
  const asked: number[] = []
  const probe = async (rate: number): Promise<Probe> => {
    asked.push(rate)
    const sent = Math.min(rate, most)
    const received = Math.min(sent, capacity)
    return { sent, received, loss: 1 - received / sent }
  }
  return { asked, probe }
}

describe('searchRate', () => {
  const rows: [capacity: number, most: number, expected: number, why: string][] = [
    [100_000, 400_000, 100_000, 'a path slower than the sender'],
    [100_000, 110_000, 100_000, 'a path barely slower than the sender'],
    [500_000, 200_000, 200_000, 'a sender slower than the path'],
    [40, 400_000, 40, 'a very slow path'],
  ]
  for (const [capacity, most, expected, why] of rows) {
    it(why, async () => {
      const { probe } = path(capacity, most)
      const found = await searchRate({ maxLoss: 0.01, steps: 12, probe })
      assert.ok(found <= expected && found > 0.95 * expected, `${found} for ${expected}`)
    })
  }

  it('asks the flooding question once, and no more than it may', async () => {
    const { asked, probe } = path(100_000, 400_000)
    await searchRate({ maxLoss: 0.01, steps: 4, probe })
    assert.equal(asked.length, 4)
    assert.deepEqual(
      asked.map((rate) => rate === Number.POSITIVE_INFINITY),
      [true, false, false, false],
    )
  })

  it('finds the rate of a path that collapses when flooded', async () => {
    const probe = async (rate: number): Promise<Probe> => {
      const sent = Math.min(rate, 300_000)
      const received = sent > 100_000 ? 50_000 : sent
      return { sent, received, loss: 1 - received / sent }
    }
    const found = await searchRate({ maxLoss: 0.01, steps: 12, probe })
    assert.ok(found > 95_000 && found <= 100_000, String(found))
  })

  it('is not misled by one hiccup', async () => {
    const { probe } = path(100_000, 400_000)
    let probes = 0
    const hiccup = async (rate: number): Promise<Probe> => {
      const found = await probe(rate)
      return ++probes === 2 ? { ...found, loss: 0.02 } : found
    }
    const found = await searchRate({ maxLoss: 0.01, steps: 12, probe: hiccup })
    assert.ok(found > 95_000, String(found))
  })

  it('is 0 where nothing arrives without loss', async () => {
    const probe = async (rate: number): Promise<Probe> => {
      const sent = Math.min(rate, 1000)
      return { sent, received: sent / 2, loss: 0.5 }
    }
    assert.equal(await searchRate({ maxLoss: 0.01, steps: 8, probe }), 0)
  })
})
