/** A driver that only keeps books, for a DataChannel: which peers there are and which keys they have. No packet moves. */
import assert from 'node:assert/strict'
import type { DriverClient } from '../../src/driver/client.ts'
import type { Endpoint } from '../../src/driver/core/address.ts'
import { ApiError } from '../../src/uapi/errno.ts'
import type { DelReason, DriverEvent, KeyConf, Mode, PeerNew } from '../../src/uapi/types.ts'

const IFINDEX = 7

/** A driver's books: peers and the keys in their slots. */
export class BookDriver {
  readonly extended = true
  readonly peersById = new Map<number, { peer: PeerNew; keys: Map<string, number> }>()
  /** Requests that are refused from now on. */
  readonly refuses = new Set<'peerNew' | 'keyNew'>()
  traffic = 0
  #tell: ((event: DriverEvent) => void) | undefined
  #end: () => void = () => {}

  #single = false

  /** What a DataChannel asks of a driver's client, and no more. */
  get client(): DriverClient {
    return this as unknown as DriverClient
  }

  async linkNew({ mode }: { mode: Mode }) {
    this.#single = mode === 'p2p'
    return { ifindex: IFINDEX, name: 'ovpn0', mtu: 1500 }
  }

  async linkDel(): Promise<void> {
    this.peersById.clear()
  }

  /** Messages sent inside the data channel, by peer id. */
  readonly said: [peerId: number, message: Uint8Array][] = []

  async packetRegister(): Promise<void> {}

  async packet(_: number, { peerId, packet }: { peerId: number; packet: Uint8Array }) {
    this.#get(peerId)
    this.said.push([peerId, packet])
  }

  async events() {
    const queue: DriverEvent[] = []
    let wake: () => void = () => {}
    let ended = false
    this.#tell = (event) => {
      queue.push(event)
      wake()
    }
    this.#end = () => {
      ended = true
      wake()
    }
    return {
      close: () => this.#end(),
      async *[Symbol.asyncIterator]() {
        while (!ended) {
          const event = queue.shift()
          if (event !== undefined) yield event
          else {
            await new Promise<void>((resolve) => {
              wake = resolve
            })
          }
        }
      },
    }
  }

  async peerNew(_: number, peer: PeerNew): Promise<void> {
    if (this.refuses.has('peerNew')) throw new ApiError('ENOSPC', 'no room for another peer')
    if (this.#single) for (const id of this.peersById.keys()) this.remove(id, 'teardown')
    assert(!this.peersById.has(peer.id), `peer ${peer.id} is there already`)
    this.peersById.set(peer.id, { peer, keys: new Map() })
  }

  async peerSet(_: number, change: Partial<PeerNew> & { id: number }): Promise<void> {
    Object.assign(this.#get(change.id).peer, change)
  }

  async peerGet(_: number, id: number) {
    return this.#countersOf(this.#get(id).peer)
  }

  async peers() {
    return [...this.peersById.values()].map(({ peer }) => this.#countersOf(peer))
  }

  async peerDel(_: number, id: number): Promise<void> {
    this.#get(id)
    this.peersById.delete(id)
  }

  async keyNew(_: number, { peerId, slot, keyId }: KeyConf): Promise<void> {
    if (this.refuses.has('keyNew')) throw new ApiError('ENOMEM', 'no memory for a key')
    this.#get(peerId).keys.set(slot, keyId)
  }

  async keySwap(_: number, id: number): Promise<void> {
    const { keys } = this.#get(id)
    const [primary, secondary] = [keys.get('primary'), keys.get('secondary')]
    assert(secondary !== undefined, 'there is a key to swap to')
    keys.set('primary', secondary)
    keys.set('secondary', primary!)
  }

  async keyDel(_: number, id: number, slot: string): Promise<void> {
    this.#get(id).keys.delete(slot)
  }

  /** A peer is gone, for a reason of the driver's. */
  remove(id: number, delReason: DelReason): void {
    this.peersById.delete(id)
    this.#tell?.({ event: 'peer-del-ntf', ifindex: IFINDEX, peer: { id, delReason } })
  }

  /** A peer says something inside the data channel. */
  inside(peerId: number, packet: Uint8Array): void {
    this.#tell?.({ event: 'packet', ifindex: IFINDEX, packet: { packet, peerId, inside: true } })
  }

  float(id: number, to: Endpoint): void {
    const peer = { id, remoteIpv4: to.address, remotePort: to.port }
    this.#tell?.({ event: 'peer-float-ntf', ifindex: IFINDEX, peer })
  }

  #get(id: number) {
    const found = this.peersById.get(id)
    if (found === undefined) throw new ApiError('ENOENT', 'there is no such peer')
    return found
  }

  #countersOf({ id }: PeerNew) {
    const bytes = this.traffic
    const inside = { vpnRxBytes: bytes, vpnTxBytes: 0 }
    const outside = { linkRxBytes: bytes, linkTxBytes: 0, linkRxPackets: 0, linkTxPackets: 0 }
    return { id, ...inside, ...outside }
  }
}
