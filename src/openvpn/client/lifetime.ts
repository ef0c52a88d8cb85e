/**
 * When a connection that is up ends or wants a new key, by what has moved through it and by time: `inactive`, `session-timeout`,
 * `reneg-bytes`, `reneg-pkts`. Pure: counters and the time are brought. Source: openvpn(8).
 */
import type { PeerCounters } from '../data-channel.ts'
import type { Millis } from '../proto/reliable.ts'

export interface Limits {
  /** Of the key in use, on the link, both ways; Infinity: none. */
  readonly keyBytes: number
  readonly keyPackets: number
  /** No more than so many bytes inside the tunnel within the time. */
  readonly inactive: { readonly timeout: Millis; readonly bytes: number } | undefined
  readonly session: Millis | undefined
}

/** `limit`: that which has ended it, by its directive. */
export type Due =
  | 'renew'
  | { readonly limit: 'inactive' | 'session-timeout'; readonly text: string }
  | undefined

export class Lifetime {
  readonly #limits: Limits
  readonly #endsAt: Millis
  #keyBytes = 0
  #keyPackets = 0
  #activeBytes = 0
  #activeAt: Millis

  constructor(limits: Limits, now: Millis) {
    this.#limits = limits
    this.#endsAt = limits.session === undefined ? Number.POSITIVE_INFINITY : now + limits.session
    this.#activeAt = now
  }

  /** Whether there is anything to look for. */
  get isLimited(): boolean {
    const { keyBytes, keyPackets, inactive, session } = this.#limits
    const perKey = Math.min(keyBytes, keyPackets) < Number.POSITIVE_INFINITY
    return perKey || inactive !== undefined || session !== undefined
  }

  /** What is due, with counters since the connection began. */
  look(counters: PeerCounters, now: Millis): Due {
    const { keyBytes, keyPackets, inactive, session = 0 } = this.#limits
    if (now >= this.#endsAt) {
      return { limit: 'session-timeout', text: `${session / 1000} s are over` }
    }
    const inside = counters.vpnRxBytes + counters.vpnTxBytes
    if (inactive !== undefined) {
      if (inside - this.#activeBytes > inactive.bytes) {
        this.#activeBytes = inside
        this.#activeAt = now
      }
      if (now >= this.#activeAt + inactive.timeout) {
        const text = `nothing to speak of for ${inactive.timeout / 1000} s`
        return { limit: 'inactive', text }
      }
    }
    const bytes = counters.linkRxBytes + counters.linkTxBytes
    const packets = counters.linkRxPackets + counters.linkTxPackets
    if (bytes - this.#keyBytes < keyBytes && packets - this.#keyPackets < keyPackets)
      return undefined
    this.#keyBytes = bytes
    this.#keyPackets = packets
    return 'renew'
  }
}
