/**
 * A network between hosts that loses, delays, reorders, repeats, changes and cuts datagrams, as drawn from a seed. It
 * knows addresses and nothing of what it carries.
 */
import { Endpoint } from '../../src/driver/core/address.ts'
import type { Random } from '../random.ts'
import type { Clock } from './clock.ts'

/** Chances are out of 10,000 datagrams. */
export interface Noise {
  lost: number
  repeated: number
  changed: number
  cut: number
  /** Milliseconds: each takes at least `delay`, and up to `jitter` longer, so that they overtake one another. */
  delay: number
  jitter: number
}

export const SILENCE: Noise = { lost: 0, repeated: 0, changed: 0, cut: 0, delay: 20, jitter: 0 }

export interface Datagram {
  from: Endpoint
  to: Endpoint
  bytes: Uint8Array
}

/** Takes what arrives, in memory of its own. */
type Receive = (datagram: Datagram) => void

export class Wire {
  noise: Noise
  readonly #clock: Clock
  readonly #random: Random
  readonly #hosts = new Map<string, Receive>()
  /** Hears every datagram as it was sent, and whether at least one copy will arrive unharmed, if only at nobody's. */
  tap: ((datagram: Datagram, unharmed: boolean) => void) | undefined

  constructor(clock: Clock, random: Random, noise: Noise) {
    this.#clock = clock
    this.#random = random
    this.noise = noise
  }

  attach(at: Endpoint, receive: Receive): void {
    this.#hosts.set(at.key, receive)
  }

  /** Datagrams to `at` get lost from now on, those on their way included. */
  detach(at: Endpoint): void {
    this.#hosts.delete(at.key)
  }

  /** Sends a copy of `bytes`, with all the noise there is. */
  send(from: Endpoint, to: Endpoint, bytes: Uint8Array): void {
    const sent = { from: copy(from), to: copy(to), bytes: Uint8Array.from(bytes) }
    const { lost, repeated, jitter } = this.noise
    let unharmed = false
    for (
      let copies = this.#chance(repeated) ? 1 + this.#random.below(3) : 1;
      copies > 0;
      copies--
    ) {
      if (this.#chance(lost)) continue
      const bytes = this.#spoil(sent.bytes)
      unharmed ||= bytes === sent.bytes
      this.inject({ ...sent, bytes }, this.noise.delay + this.#random.below(jitter + 1))
    }
    this.tap?.(sent, unharmed)
  }

  /** Puts a datagram, from anybody, on its last `delay` milliseconds. */
  inject(datagram: Datagram, delay: number): void {
    this.#clock.after(delay, () => this.#hosts.get(datagram.to.key)?.(datagram))
  }

  /** The bytes, or changed ones. */
  #spoil(bytes: Uint8Array): Uint8Array {
    const random = this.#random
    if (this.#chance(this.noise.cut)) return bytes.slice(0, random.below(bytes.length))
    if (!this.#chance(this.noise.changed)) return bytes
    const changed = Uint8Array.from(bytes)
    changed[random.below(bytes.length)]! ^= 1 << random.below(8)
    return changed
  }

  #chance(of: number): boolean {
    return of > 0 && this.#random.below(10_000) < of
  }
}

function copy(of: Endpoint): Endpoint {
  const made = new Endpoint()
  made.copy(of)
  return made
}
