/**
 * Packets that came before the key they are sealed with. Whoever renews keys sends with the new one as soon as it has it,
 * and the other end's program may be a little later in handing it to the driver: what comes meanwhile waits here. Owns
 * copies of those packets, within bounds of bytes and time; what is in them is nobody's business until there is a key.
 */
import type { Millis } from './keepalive.ts'
import type { Peer } from './peer.ts'

/** How long a packet may wait. Measured between two OpenVPN on two busy processors: some ms, 3 MiB of one TCP stream. */
const LIFE_MS = 1000
const PEER_BYTES = 4 << 20
const ALL_BYTES = 4 * PEER_BYTES

/** What waits of a peer for one key. */
interface Waiting {
  readonly keyId: number
  readonly until: Millis
  bytes: number
  readonly packets: Uint8Array[]
}

export class EarlyPackets {
  /** In the order of their ends, since all may wait equally long. */
  readonly #waiting = new Map<Peer, Waiting>()
  #bytes = 0

  /** Keeps a copy of `packet`; false: it is not the peer's next key that is missing, or there is no room. */
  keep(peer: Peer, keyId: number, packet: Uint8Array, now: Millis): boolean {
    let waiting = this.#waiting.get(peer)
    if (waiting === undefined) {
      if (!isNext(peer, keyId)) return false
      waiting = { keyId, until: now + LIFE_MS, bytes: 0, packets: [] }
      this.#waiting.set(peer, waiting)
    }
    const { length } = packet
    if (waiting.keyId !== keyId || waiting.bytes + length > PEER_BYTES) return false
    if (this.#bytes + length > ALL_BYTES) return false
    waiting.packets.push(packet.slice())
    waiting.bytes += length
    this.#bytes += length
    return true
  }

  /** Hands out what waits for a key of the peer that it has now, oldest first. */
  take(peer: Peer): readonly Uint8Array[] {
    const waiting = this.#waiting.get(peer)
    return waiting !== undefined && peer.slotFor(waiting.keyId) ? this.giveUp(peer) : []
  }

  /** Forgets what waits of a peer, and hands it out. */
  giveUp(peer: Peer): readonly Uint8Array[] {
    const waiting = this.#waiting.get(peer)
    if (waiting === undefined) return []
    this.#waiting.delete(peer)
    this.#bytes -= waiting.bytes
    return waiting.packets
  }

  /** When `expired` has something to tell; Infinity while nothing waits. */
  deadline(): Millis {
    for (const { until } of this.#waiting.values()) return until
    return Infinity
  }

  /** Forgets what has waited for too long. */
  *expired(now: Millis): Generator<{ peer: Peer; packets: readonly Uint8Array[] }> {
    for (const [peer, { until }] of this.#waiting) {
      if (until > now) return
      yield { peer, packets: this.giveUp(peer) }
    }
  }
}

/** Whether it follows a key that the peer has: OpenVPN numbers them 0, 1 to 7, and 1 again. Source: docs/PROTOCOL.md. */
function isNext({ primary, secondary }: Peer, keyId: number): boolean {
  return [primary, secondary].some((slot) => slot !== undefined && (slot.keyId % 7) + 1 === keyId)
}
