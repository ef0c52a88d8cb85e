/**
 * When to ping a peer and when it is gone (driver-behaviour, 5.4). Holds no timer: the engine asks for the deadline
 * and comes back then.
 */
export type Millis = number

/**
 * `together`: the `ovpn` driver's rule, nothing runs unless both values are set; `apart`: the older drivers' rule,
 * each value runs a timer of its own.
 */
export type KeepaliveRule = 'together' | 'apart'

export class Keepalive {
  readonly #rule: KeepaliveRule
  /** Seconds, as configured. */
  interval = 0
  timeout = 0
  /** Any packet sent or opened moves these; the hot path writes them directly. */
  lastSent: Millis
  lastReceived: Millis

  constructor(rule: KeepaliveRule, now: Millis) {
    this.#rule = rule
    this.lastSent = now
    this.lastReceived = now
  }

  /** Seconds; 0 switches one off. Forgets older traffic: both periods start anew. */
  configure(interval: number, timeout: number, now: Millis): void {
    this.interval = interval
    this.timeout = timeout
    this.lastSent = now
    this.lastReceived = now
  }

  /** When to call `onDeadline` next; Infinity while nothing runs. */
  deadline(): Millis {
    const { interval, timeout } = this
    if (this.#rule === 'together' && (interval === 0 || timeout === 0)) return Infinity
    return Math.min(
      interval === 0 ? Infinity : this.lastSent + 1000 * interval,
      timeout === 0 ? Infinity : this.lastReceived + 1000 * timeout,
    )
  }

  onDeadline(now: Millis, sink: { ping(): void; expired(): void }): void {
    if (this.deadline() > now) return
    if (this.timeout !== 0 && now >= this.lastReceived + 1000 * this.timeout) {
      sink.expired()
    } else {
      // A ping that cannot be sent (no key yet) is tried again an interval later.
      this.lastSent = now
      sink.ping()
    }
  }
}
