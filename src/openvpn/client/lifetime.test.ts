/** When a connection ends or wants a new key, by time and traffic. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { PeerCounters } from '../data-channel.ts'
import { type Due, Lifetime, type Limits } from './lifetime.ts'

const none: Limits = {
  keyBytes: Number.POSITIVE_INFINITY,
  keyPackets: Number.POSITIVE_INFINITY,
  inactive: undefined,
  session: undefined,
}

function counters(inside: number, packets = 0): PeerCounters {
  return {
    ...{ vpnRxBytes: inside, vpnTxBytes: 0, linkRxBytes: inside, linkTxBytes: 0 },
    ...{ linkRxPackets: packets, linkTxPackets: 0 },
  }
}

type Step = [
  now: number,
  counters: PeerCounters,
  due: 'renew' | 'inactive' | 'session-timeout' | undefined,
  why: string,
]

const kindOf = (due: Due) => (typeof due === 'object' ? due.limit : due)

describe('a connection without limits', () => {
  it('is not looked at', () => assert.equal(new Lifetime(none, 0).isLimited, false))
})

const cases: [what: string, limits: Partial<Limits>, steps: Step[]][] = [
  [
    'reneg-bytes 1000',
    { keyBytes: 1000 },
    [
      [1, counters(999), undefined, 'not yet'],
      [2, counters(1000), 'renew', 'as much as a key may carry'],
      [3, counters(1999), undefined, 'the next key has its own count'],
      [4, counters(2500), 'renew', 'that one is full, too'],
    ],
  ],
  [
    'reneg-pkts 10',
    { keyPackets: 10 },
    [
      [1, counters(5, 9), undefined, 'not yet'],
      [2, counters(5, 10), 'renew', 'as many as a key may carry'],
    ],
  ],
  [
    'inactive 10 100',
    { inactive: { timeout: 10_000, bytes: 100 } },
    [
      [9000, counters(100), undefined, 'its time is not over'],
      [9500, counters(101), undefined, 'more than the limit: the time begins anew'],
      [19_000, counters(150), undefined, 'a little since, for less than that time'],
      [19_500, counters(201), 'inactive', 'no more than the limit in all that time'],
    ],
  ],
  [
    'session-timeout 60',
    { session: 60_000 },
    [
      [59_999, counters(1e9), undefined, 'not yet'],
      [60_000, counters(1e9), 'session-timeout', 'however busy it is'],
    ],
  ],
]

for (const [what, limits, steps] of cases) {
  describe(what, () => {
    const lifetime = new Lifetime({ ...none, ...limits }, 0)
    it('is looked at', () => assert.ok(lifetime.isLimited))
    for (const [now, moved, due, why] of steps) {
      it(`${now}: ${why}`, () => assert.equal(kindOf(lifetime.look(moved, now)), due))
    }
  })
}
