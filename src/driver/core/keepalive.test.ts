import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Keepalive, type KeepaliveRule } from './keepalive.ts'

/** What a Keepalive wants at `now`. */
function due(keepalive: Keepalive, now: number): 'ping' | 'expired' | undefined {
  let wanted: 'ping' | 'expired' | undefined
  keepalive.onDeadline(now, {
    ping: () => {
      wanted = 'ping'
    },
    expired: () => {
      wanted = 'expired'
    },
  })
  return wanted
}

describe('Keepalive: what runs', () => {
  type Row = [rule: KeepaliveRule, interval: number, timeout: number, first: number, why: string]
  const rows: Row[] = [
    ['together', 0, 0, Infinity, 'neither is set'],
    ['together', 10, 0, Infinity, 'the interval alone does nothing'],
    ['together', 0, 60, Infinity, 'the timeout alone does nothing'],
    ['together', 10, 60, 10_000, 'the ping comes first'],
    ['together', 60, 10, 10_000, 'the peer is gone before the ping is due'],
    ['apart', 0, 0, Infinity, 'neither is set'],
    ['apart', 10, 0, 10_000, 'pings alone'],
    ['apart', 0, 60, 60_000, 'expiry alone'],
    ['apart', 10, 60, 10_000, 'both, the earlier'],
    ['apart', 60, 10, 10_000, 'both, the earlier'],
    ['together', 86_400, 86_400, 86_400_000, 'a day, the largest values'],
  ]
  for (const [rule, interval, timeout, first, why] of rows) {
    it(`${rule}, ${interval}/${timeout}: ${why}`, () => {
      const keepalive = new Keepalive(rule, 500)
      keepalive.configure(interval, timeout, 1_000_000)
      assert.equal(keepalive.deadline(), 1_000_000 + first)
      if (first === Infinity) assert.equal(due(keepalive, 1e12), undefined)
    })
  }
})

describe('Keepalive of 10/30 over time', () => {
  const keepalive = new Keepalive('together', 0)
  keepalive.configure(10, 30, 0)
  type Step = [
    second: number,
    does: 'sent' | 'received' | 'look' | 'again',
    wants: string | undefined,
    why: string,
  ]
  const steps: Step[] = [
    [9.999, 'look', undefined, 'a millisecond early'],
    [10, 'look', 'ping', 'nothing was sent for 10 s'],
    [10, 'look', undefined, 'the ping itself counts as sent'],
    [15, 'sent', undefined, 'a packet was sent'],
    [20, 'look', undefined, 'no ping is needed'],
    [25, 'look', 'ping', '10 s after the packet'],
    [29.999, 'look', undefined, 'nothing was received yet, but not for long enough'],
    [29.999, 'received', undefined, 'a packet at the last moment'],
    [30, 'look', undefined, 'the 30 s begin anew'],
    [35, 'look', 'ping', 'receiving does not save the ping'],
    [59.998, 'look', 'ping', 'late, but better than never'],
    [59.999, 'look', 'expired', '30 s after the last packet'],
    [70, 'again', undefined, 'configured anew: older traffic is forgotten'],
    [79.999, 'look', undefined, 'both periods start anew'],
    [80, 'look', 'ping', '10 s after'],
    [100, 'look', 'expired', 'expiry goes before a ping'],
  ]
  for (const [second, does, wants, why] of steps) {
    it(`${second} s: ${why}`, () => {
      const now = 1000 * second
      if (does === 'sent') keepalive.lastSent = now
      else if (does === 'received') keepalive.lastReceived = now
      else if (does === 'again') keepalive.configure(10, 30, now)
      assert.equal(due(keepalive, now), wants)
    })
  }
})

it('a ping that could not be sent is due an interval later', () => {
  const keepalive = new Keepalive('apart', 0)
  keepalive.configure(10, 0, 0)
  assert.equal(due(keepalive, 10_000), 'ping') // and its peer has no key
  assert.equal(keepalive.deadline(), 20_000)
})
