/** The real clock and randomness, for those who are handed them. */
import { randomBytes } from 'node:crypto'
import type { Millis } from '../openvpn/proto/reliable.ts'

/** Longest time that a timer takes: 2^31 - 1 ms. */
const MAX_WAIT = 2_147_483_647

export interface Clock {
  now(): Millis
  date(): Date
  random(count: number): Uint8Array
  /** Calls back at that time or soon after; returns what ends the waiting. */
  schedule(at: Millis, call: () => void): () => void
}

export const realClock: Clock = {
  now: () => performance.now(),
  date: () => new Date(),
  random: (count) => new Uint8Array(randomBytes(count)),
  schedule(at, call) {
    const timer = setTimeout(
      call,
      Math.min(MAX_WAIT, Math.max(0, Math.ceil(at - performance.now()))),
    )
    return () => clearTimeout(timer)
  },
}
