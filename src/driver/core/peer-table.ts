/**
 * Which peer a packet belongs to: by peer id, by transport address, by VPN address through the routing table of the
 * device's namespace (driver-behaviour, 5.1). Next hops are kept until a route changes.
 */

import type { Endpoint } from './address.ts'
import { AddressMap } from './address-map.ts'
import type { Peer } from './peer.ts'

/**
 * Where a packet to an address goes next, by the routing table of the device's namespace: the gateway's address words,
 * or undefined where there is none (a direct route, or no route). `viaDevice`: only routes out of the device count.
 */
export type RouteLookup = (address: Int32Array, viaDevice: boolean) => Int32Array | undefined

/** Destinations and sources kept; one look-up more than this starts over, so that a scan cannot fill memory. */
const CACHE_LIMIT = 65536

const DIRECT = new Int32Array(4)

export class PeerTable {
  readonly #single: boolean
  readonly #routes: RouteLookup
  readonly #byId = new Map<number, Peer>()
  readonly #byHandle = new Map<number, Peer>()
  readonly #byEndpoint = new Map<string, Peer>()
  readonly #byVpnAddress: AddressMap<Peer>
  readonly #destinations: AddressMap<Int32Array>
  readonly #sources: AddressMap<Int32Array>
  readonly #scratch = new Int32Array(4)
  #only: Peer | undefined

  /** `single`: point-to-point, one peer takes all. `seed`: 32 random bits for the hash tables. */
  constructor(options: { single: boolean; routes: RouteLookup; seed: number }) {
    this.#single = options.single
    this.#routes = options.routes
    this.#byVpnAddress = new AddressMap(options.seed)
    this.#destinations = new AddressMap(options.seed)
    this.#sources = new AddressMap(options.seed)
  }

  get size(): number {
    return this.#byHandle.size
  }

  peers(): IterableIterator<Peer> {
    return this.#byHandle.values()
  }

  byHandle(handle: number): Peer | undefined {
    return this.#byHandle.get(handle)
  }

  byId(id: number): Peer | undefined {
    return this.#byId.get(id)
  }

  byEndpoint(endpoint: Endpoint): Peer | undefined {
    return this.#byEndpoint.get(endpoint.key)
  }

  /** The peer that a packet to this inner address is for. */
  byDestination(a: number, b: number, c: number, d: number): Peer | undefined {
    if (this.#single) return this.#only
    return this.#routed(this.#destinations, true, a, b, c, d)
  }

  /** Whether a packet from this inner address may come from `peer` (the reverse path check; none in point-to-point mode). */
  allowsSource(peer: Peer, a: number, b: number, c: number, d: number): boolean {
    if (this.#single) return peer === this.#only
    return this.#routed(this.#sources, false, a, b, c, d) === peer
  }

  add(peer: Peer): void {
    this.#byHandle.set(peer.handle, peer)
    this.#byId.set(peer.id, peer)
    this.#only = peer
    this.#index(peer)
  }

  remove(peer: Peer): void {
    this.#byHandle.delete(peer.handle)
    if (this.#byId.get(peer.id) === peer) this.#byId.delete(peer.id)
    if (this.#only === peer) this.#only = undefined
    this.#unindex(peer)
  }

  /** Changes addresses of `peer` by `change` and keeps the tables true; a peer that was removed is left out of them. */
  readdress(peer: Peer, change: () => void): void {
    const present = this.#byHandle.get(peer.handle) === peer
    if (present) this.#unindex(peer)
    change()
    if (present) this.#index(peer)
  }

  /** Moves `peer` to another transport address. */
  refloat(peer: Peer, change: () => void): void {
    const key = peer.remote.key
    if (this.#byEndpoint.get(key) === peer) this.#byEndpoint.delete(key)
    change()
    if (this.#byHandle.get(peer.handle) === peer && !peer.stream) {
      this.#byEndpoint.set(peer.remote.key, peer)
    }
  }

  /** To be called when a route of the namespace has changed. */
  forgetRoutes(): void {
    this.#destinations.clear()
    this.#sources.clear()
  }

  #index(peer: Peer): void {
    if (!peer.stream) this.#byEndpoint.set(peer.remote.key, peer)
    for (const words of [peer.vpn4, peer.vpn6]) {
      if (words) this.#byVpnAddress.set(words[0]!, words[1]!, words[2]!, words[3]!, peer)
    }
  }

  #unindex(peer: Peer): void {
    const key = peer.remote.key
    if (this.#byEndpoint.get(key) === peer) this.#byEndpoint.delete(key)
    for (const words of [peer.vpn4, peer.vpn6]) {
      if (!words) continue
      const [a, b, c, d] = words
      if (this.#byVpnAddress.get(a!, b!, c!, d!) === peer) this.#byVpnAddress.delete(a!, b!, c!, d!)
    }
  }

  /** The peer that owns the next hop towards an address, or the address itself where it is reached directly. */
  #routed(
    hops: AddressMap<Int32Array>,
    viaDevice: boolean,
    a: number,
    b: number,
    c: number,
    d: number,
  ): Peer | undefined {
    let hop = hops.get(a, b, c, d)
    if (hop === undefined) {
      const address = this.#scratch
      address[0] = a
      address[1] = b
      address[2] = c
      address[3] = d
      hop = this.#routes(address, viaDevice) ?? DIRECT
      if (hops.size >= CACHE_LIMIT) hops.clear()
      hops.set(a, b, c, d, hop)
    }
    if (hop === DIRECT) return this.#byVpnAddress.get(a, b, c, d)
    return this.#byVpnAddress.get(hop[0]!, hop[1]!, hop[2]!, hop[3]!)
  }
}
