/**
 * The data channel as a server or client uses it: an interface of the driver's, its peers and their keys, and what the driver tells of
 * them. The same over the user-space and the kernel's driver. Who the peers are and when keys change is the callers' business.
 */
import type { DriverClient, EventStream } from '../driver/client.ts'
import { ApiError } from '../uapi/errno.ts'
import type { DelReason, DriverEvent, KeyConf, Mode, PeerNew } from '../uapi/types.ts'
import type { Endpoint, Path } from './transport.ts'

export interface DataChannelOptions {
  /** A free name is found if absent. */
  readonly name?: string
  readonly mode: Mode
  /** Threads, where the driver has them. */
  readonly workers?: number
}

/** What may happen to a peer unasked. */
export interface DataPeerEvents {
  /** The driver has removed it: it has expired, or its transport failed. The last event. */
  removed(reason: DelReason): void
  /** It was heard, authenticated, from another address. */
  floated(remote: Endpoint): void
  /** A key is worn out, or will be soon: another is needed. */
  keyWorn(keyId: number): void
  /** A control packet came over a stream that the driver reads; undefined: the stream has ended. */
  packet(packet: Uint8Array | undefined): void
  /** A message came inside the data channel (wire/occ.ts). */
  inside(message: Uint8Array): void
}

export interface NewPeer {
  readonly id: number
  /** What packets to the peer carry; its id if absent. */
  readonly txId?: number
  readonly protocol: 'udp' | 'tcp'
  /** The transport socket: the driver joins it, or takes it over. */
  readonly fd: number
  readonly path: Path
  readonly v4?: string
  readonly v6?: string
  /** Seconds; 0 for never. */
  readonly keepalive: { readonly interval: number; readonly timeout: number }
  /** Largest packet outside that TCP inside is made to fit, where the driver can. */
  readonly mssfix: number | undefined
}

export type NewKey = Omit<KeyConf, 'peerId' | 'slot'>

export interface PeerCounters {
  /** Inside the tunnel. */
  readonly vpnRxBytes: number
  readonly vpnTxBytes: number
  /** Outside. */
  readonly linkRxBytes: number
  readonly linkTxBytes: number
  readonly linkRxPackets: number
  readonly linkTxPackets: number
}

const NOTHING: PeerCounters = {
  vpnRxBytes: 0,
  vpnTxBytes: 0,
  linkRxBytes: 0,
  linkTxBytes: 0,
  linkRxPackets: 0,
  linkTxPackets: 0,
}

/** One interface. `close` removes it. */
export class DataChannel {
  readonly ifindex: number
  readonly name: string
  readonly mtu: number
  readonly #client: DriverClient
  readonly #events: EventStream
  readonly #peers = new Map<number, DataPeer>()
  #closed = false

  /**
   * Makes the interface. `lost` is called when the driver is gone, with the reason: nothing works from then on.
   *
   * @throws ApiError EEXIST, EPERM and the like
   */
  static async open(
    client: DriverClient,
    options: DataChannelOptions,
    lost: (error: unknown) => void,
  ): Promise<DataChannel> {
    const { name, mode, workers } = options
    const link = await client.linkNew({
      kind: 'ovpn',
      mode,
      ...(name !== undefined && { name }),
      ...(workers !== undefined && client.extended && { workers }),
    })
    try {
      const events = await client.events()
      if (client.extended) await client.packetRegister(link.ifindex, { extended: true })
      const channel = new DataChannel(client, link, events)
      channel.#follow(lost)
      return channel
    } catch (error) {
      await client.linkDel(link.ifindex).catch(() => {})
      throw error
    }
  }

  private constructor(
    client: DriverClient,
    link: { ifindex: number; name: string; mtu: number },
    events: EventStream,
  ) {
    this.#client = client
    this.#events = events
    this.ifindex = link.ifindex
    this.name = link.name
    this.mtu = link.mtu
  }

  /** Whether control packets of a stream that was handed over come as events; else they are read from the stream. */
  get readsStreams(): boolean {
    return this.#client.extended
  }

  /** Whether it knows keys with epochs. */
  get hasEpochs(): boolean {
    return this.#client.extended
  }

  /** Rejects with an ApiError. */
  async addPeer(peer: NewPeer, events: DataPeerEvents): Promise<DataPeer> {
    const added = new DataPeer(this.#client, this.ifindex, peer, events, () => {
      if (this.#peers.get(peer.id) === added) this.#peers.delete(peer.id)
    })
    // Events may come before the acknowledgement.
    this.#peers.set(peer.id, added)
    try {
      await this.#client.peerNew(this.ifindex, requestOf(peer, this.#client.extended))
    } catch (error) {
      added.forget()
      throw error
    }
    return added
  }

  /** Counters of all peers, by id. */
  async counters(): Promise<Map<number, PeerCounters>> {
    const peers = await this.#client.peers(this.ifindex)
    return new Map(peers.map((peer) => [peer.id, peer]))
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#events.close()
    this.#peers.clear()
    await this.#client.linkDel(this.ifindex).catch((error: unknown) => {
      if (!(error instanceof ApiError) || error.errno !== 'ENODEV') throw error
    })
  }

  async #follow(lost: (error: unknown) => void): Promise<void> {
    try {
      for await (const event of this.#events) {
        if (event.event === 'lost') await this.#review()
        else if (event.ifindex === this.ifindex) this.#tell(event)
      }
      if (!this.#closed) lost(new Error('the driver has ended'))
    } catch (error) {
      if (!this.#closed) lost(error)
    }
  }

  #tell(event: DriverEvent): void {
    switch (event.event) {
      case 'peer-del-ntf': {
        const peer = this.#peers.get(event.peer.id)
        peer?.forget()
        peer?.events.removed(event.peer.delReason)
        return
      }
      case 'peer-float-ntf': {
        const { id, remoteIpv4, remoteIpv6, remotePort, remoteIpv6ScopeId = 0 } = event.peer
        const address = remoteIpv4 ?? remoteIpv6
        if (address === undefined) return
        this.#peers.get(id)?.events.floated({ address, port: remotePort, scope: remoteIpv6ScopeId })
        return
      }
      case 'key-swap-ntf':
        this.#peers.get(event.keyconf.peerId)?.events.keyWorn(event.keyconf.keyId)
        return
      case 'packet': {
        const { peerId, packet, eof, inside } = event.packet
        const peer = this.#peers.get(peerId)
        if (inside === true) peer?.events.inside(packet)
        else if (packet.length > 0) peer?.events.packet(packet)
        if (eof === true) peer?.events.packet(undefined)
      }
    }
  }

  /** Events were lost: who is gone is found out by asking. */
  async #review(): Promise<void> {
    const there = await this.counters()
    for (const [id, peer] of [...this.#peers]) {
      if (there.has(id) || !peer.established) continue
      peer.forget()
      peer.events.removed('expired')
    }
  }
}

/** A peer that the driver has. Calls reject with an ApiError; after its removal they do nothing. */
export class DataPeer {
  readonly id: number
  #events: DataPeerEvents
  readonly #client: DriverClient
  readonly #ifindex: number
  readonly #forgotten: () => void
  #keys = 0
  #gone = false

  constructor(
    client: DriverClient,
    ifindex: number,
    peer: NewPeer,
    events: DataPeerEvents,
    forgotten: () => void,
  ) {
    this.#client = client
    this.#ifindex = ifindex
    this.id = peer.id
    this.#events = events
    this.#forgotten = forgotten
  }

  get events(): DataPeerEvents {
    return this.#events
  }

  /** What happens to it is told to somebody else from now on. */
  handTo(events: DataPeerEvents): void {
    this.#events = events
  }

  /** Whether it has a key: it can carry packets. */
  get established(): boolean {
    return this.#keys > 0
  }

  /**
   * Gives it a key: the first is used at once, a later one is accepted from now on and sent with after `swap`. The key that was
   * in the second slot is gone.
   */
  async addKey(key: NewKey): Promise<void> {
    if (this.#gone) return
    const slot = this.#keys === 0 ? 'primary' : 'secondary'
    this.#keys++
    await this.#client.keyNew(this.#ifindex, { ...key, peerId: this.id, slot })
  }

  /** Sends with the later key from now on; the former is accepted still. */
  async swapKeys(): Promise<void> {
    if (!this.#gone) await this.#client.keySwap(this.#ifindex, this.id)
  }

  /** Ends the former key. */
  async dropFormerKey(): Promise<void> {
    if (!this.#gone) await this.#client.keyDel(this.#ifindex, this.id, 'secondary')
  }

  async setKeepalive(interval: number, timeout: number): Promise<void> {
    if (this.#gone) return
    const keepalive = { keepaliveInterval: interval, keepaliveTimeout: timeout }
    await this.#client.peerSet(this.#ifindex, { id: this.id, ...keepalive })
  }

  /** Sends a control packet over the stream that the driver has. */
  async sendPacket(packet: Uint8Array): Promise<void> {
    if (!this.#gone) await this.#client.packet(this.#ifindex, { peerId: this.id, packet })
  }

  /** Sends a message inside the data channel. False: the driver cannot (the kernel's). */
  async sendInside(message: Uint8Array): Promise<boolean> {
    if (this.#gone || !this.#client.extended) return false
    await this.#client.packet(this.#ifindex, { peerId: this.id, packet: message, inside: true })
    return true
  }

  /** Of a peer that is gone, nothing. */
  async counters(): Promise<PeerCounters> {
    if (this.#gone) return NOTHING
    return this.#client.peerGet(this.#ifindex, this.id)
  }

  /** Removes it; its last counters, if it was still there. */
  async remove(): Promise<PeerCounters | undefined> {
    if (this.#gone) return undefined
    this.forget()
    try {
      const counters = await this.#client.peerGet(this.#ifindex, this.id)
      await this.#client.peerDel(this.#ifindex, this.id)
      return counters
    } catch (error) {
      const gone = error instanceof ApiError && ['ENOENT', 'ENODEV'].includes(error.errno)
      if (!gone) throw error
      return undefined
    }
  }

  /** The driver has no such peer any more. */
  forget(): void {
    this.#gone = true
    this.#forgotten()
  }
}

function requestOf(peer: NewPeer, extended: boolean): PeerNew {
  const { id, txId, fd, protocol, path, v4, v6, keepalive, mssfix } = peer
  return {
    id,
    socket: fd,
    ...(txId !== undefined && { txId }),
    ...(protocol === 'udp' && endpointOf(path)),
    ...(v4 !== undefined && { vpnIpv4: v4 }),
    ...(v6 !== undefined && { vpnIpv6: v6 }),
    ...(keepalive.interval > 0 && { keepaliveInterval: keepalive.interval }),
    ...(keepalive.timeout > 0 && { keepaliveTimeout: keepalive.timeout }),
    ...(mssfix !== undefined && extended && protocol === 'udp' && { mssfix }),
  }
}

function endpointOf({ remote, local }: Path): Partial<PeerNew> {
  if (remote.address.includes(':')) {
    return {
      remoteIpv6: remote.address,
      remotePort: remote.port,
      ...(remote.scope > 0 && { remoteIpv6ScopeId: remote.scope }),
      ...(local?.includes(':') === true && { localIpv6: local }),
    }
  }
  return {
    remoteIpv4: remote.address,
    remotePort: remote.port,
    ...(local !== undefined && !local.includes(':') && { localIpv4: local }),
  }
}
