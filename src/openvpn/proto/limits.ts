/**
 * Owns what the control channel allows a peer that nobody has authenticated, and how often: numbers in one place, and a
 * counter with a period.
 */
import type { Millis } from './reliable.ts'

/** Bytes of TLS that a peer may send before its key message: long chains of certificates fit many times. */
export const MAX_EARLY_TLS_BYTES = 128 * 1024
/** Bytes of TLS that may wait for a peer that acknowledges nothing. */
export const MAX_QUEUED_TLS_BYTES = 256 * 1024
/** Messages that may wait until a key exchange is complete. */
export const MAX_QUEUED_MESSAGES = 256
/** A peer's next key exchange begins no sooner after one is complete. */
export const MIN_REKEY_INTERVAL: Millis = 500

/**
 * Allows `count` events in each `period`: `connect-freq`, and `connect-freq-initial` for first answers. An event that
 * turned out well may be given back. Periods begin with the first event after the last one's end, as in OpenVPN 2.6
 * (reflect_filter.c).
 */
export class FrequencyLimit {
  readonly #count: number
  readonly #period: Millis
  #used = 0
  #until = Number.NEGATIVE_INFINITY
  /** Events not allowed since the period began, for a log at a limited rate. */
  refused = 0

  constructor(count: number, period: Millis) {
    this.#count = count
    this.#period = period
  }

  /** Whether one more event is allowed at `now`. */
  take(now: Millis): boolean {
    if (now >= this.#until) {
      this.#until = now + this.#period
      this.#used = 0
      this.refused = 0
    }
    if (this.#used >= this.#count) {
      this.refused++
      return false
    }
    this.#used++
    return true
  }

  /** One of the events allowed before does not count any more. */
  giveBack(): void {
    if (this.#used > 0) this.#used--
  }
}
