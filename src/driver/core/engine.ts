/**
 * The data path of one worker: its peers, their keys and timers, and the two ways a packet takes (send.ts, receive.ts).
 * Pure: packets lie in memory it is handed, time is passed in, sockets and the device are behind `EngineSink`. What was
 * configured, and who may configure it, is the device's business (device.ts).
 */

import { addressWords, type Endpoint } from './address.ts'
import type { AeadProvider } from './aead.ts'
import type { Millis } from './keepalive.ts'
import {
  createKeySlot,
  type KeyCipher,
  type KeyConfig,
  type KeyFormat,
  type KeySlot,
  wipe,
} from './key-slot.ts'
import type { PacketMemory } from './memory.ts'
import { Outbox } from './outbox.ts'
import {
  type EndpointConfig,
  Peer,
  type PeerConfig,
  type PeerHandle,
  type SlotName,
} from './peer.ts'
import { PeerTable, type RouteLookup } from './peer-table.ts'
import { Receiver } from './receive.ts'
import { Sender } from './send.ts'
import { Timers } from './timers.ts'
import { type DeviceCounters, type DeviceWrite, GLUER_BYTES, Gluer } from './train.ts'
import { DropCounters, type Verdict } from './verdict.ts'

/** Sealed packets kept before they are sent: two trains of the largest size, so that the processor still has them in its cache. */
const OUTBOX_BYTES = 160 * 1024

export interface EngineSink {
  /** Sends every message of the outbox; it is cleared afterwards. */
  transmit(outbox: Outbox): void
  /** Brings a piece from the device to the worker that sends to its peer; false: it takes no more. */
  handOverPiece(worker: number, vnet: number, length: number): boolean
  /** Brings a datagram to the worker that receives from its peer; false: it takes no more. */
  handOverDatagram(
    worker: number,
    packet: number,
    length: number,
    from: Endpoint,
    to: Endpoint,
  ): boolean
  /** Hands a piece to the device (train.ts). */
  deliver: DeviceWrite
  expired(peer: Peer): void
  floated(peer: Peer): void
  relocated(peer: Peer): void
  /** A message of OpenVPN's own came inside the data channel (`listen`); the memory is the engine's. */
  inside(peer: Peer, message: Uint8Array): void
  /** The key is gone. */
  keyExhausted(peer: Peer, keyId: number): void
  /** The key will not last for ever, but works. */
  keyAgeing(peer: Peer, keyId: number): void
  /** This epoch is the least that packets to the peer may have; who sends to it has to know. */
  epochPulled(peer: Peer, keyId: number, epoch: number): void
  /** The peer has this key: another worker, which sends to it, has to know. */
  keyHeard(peer: Peer, keyId: number): void
}

/** What may change of a peer; fields left out stay. */
export interface PeerChange {
  txId?: number
  /** Both endpoints are replaced when `remote` is given. */
  remote?: EndpointConfig
  local?: EndpointConfig
  /** Null takes the address away. */
  vpnIpv4?: string | null
  vpnIpv6?: string | null
  keepalive?: { interval: number; timeout: number }
  outerLimit?: number
  /** Milliseconds. */
  swapWait?: number
}

/** State of a peer that traffic changes. Ages are milliseconds; undefined before the first packet. */
export interface PeerSnapshot {
  handle: PeerHandle
  remote: EndpointConfig
  local: string
  vpnRxBytes: number
  vpnRxPackets: number
  vpnTxBytes: number
  vpnTxPackets: number
  linkRxBytes: number
  linkRxPackets: number
  linkTxBytes: number
  linkTxPackets: number
  lastRxMs: number | undefined
  lastTxMs: number | undefined
  keys: KeySnapshot[]
  drops: { reason: string; count: number }[]
}

export interface KeySnapshot {
  slot: SlotName
  keyId: number
  cipher: KeyCipher
  format: KeyFormat
  ageMs: number
  /** Last sent with; the epoch is 0 for a key that has none. */
  epoch: number
  lastPacketId: number
}

export interface EngineStats {
  rxBytes: number
  rxPackets: number
  txBytes: number
  txPackets: number
  drops: { reason: string; count: number }[]
}

export class Engine {
  readonly #memory: PacketMemory
  readonly #provider: AeadProvider
  readonly #sink: EngineSink
  readonly #table: PeerTable
  readonly #outbox: Outbox
  readonly #gluer: Gluer
  readonly #sender: Sender
  readonly #receiver: Receiver
  readonly #timers = new Timers<Peer>()
  readonly #drops = new DropCounters()
  readonly #nonce: number
  #listens = false
  readonly #counters: DeviceCounters & { txBytes: number; txPackets: number }

  /** `worker`: its number among those of the device. `single`: point-to-point mode. `seed`: 32 random bits. `glueUdp`: the device takes UDP trains. */
  constructor(options: {
    memory: PacketMemory
    provider: AeadProvider
    routes: RouteLookup
    sink: EngineSink
    worker: number
    single: boolean
    /** The kernel sends trains of datagrams; true unless told. */
    trains?: boolean
    seed: number
    glueUdp: boolean
  }) {
    const { memory, sink, worker } = options
    this.#memory = memory
    this.#provider = options.provider
    this.#sink = sink
    this.#nonce = memory.area(12, 16)
    this.#table = new PeerTable(options)
    this.#outbox = new Outbox(memory.area(OUTBOX_BYTES, 16), OUTBOX_BYTES, options.trains)
    const drop = (verdict: Verdict, peer: Peer | undefined, count: number) =>
      this.drop(verdict, peer, count)
    const counters = { rxBytes: 0, rxPackets: 0, txBytes: 0, txPackets: 0, drop }
    this.#counters = counters
    this.#gluer = new Gluer({
      memory,
      area: memory.area(GLUER_BYTES, 16),
      udp: options.glueUdp,
      write: sink.deliver,
      counters,
    })
    this.#sender = new Sender({
      memory,
      worker,
      table: this.#table,
      outbox: this.#outbox,
      sink: Object.assign(counters, {
        handOver: sink.handOverPiece,
        transmit: () => this.transmit(),
        keyExhausted: (peer: Peer, keyId: number) => sink.keyExhausted(peer, keyId),
      }),
    })
    this.#receiver = new Receiver({
      memory,
      worker,
      table: this.#table,
      gluer: this.#gluer,
      sink: {
        handOver: sink.handOverDatagram,
        floated: (peer) => sink.floated(peer),
        relocated: (peer) => sink.relocated(peer),
        inside: (peer, message) => {
          if (this.#listens) sink.inside(peer, message)
          return this.#listens
        },
        keyHeard: (peer, keyId) => sink.keyHeard(peer, keyId),
        drop,
      },
    })
  }

  // Configuration ----------------------------------------------------------------------------------------------------

  addPeer(config: PeerConfig, now: Millis): void {
    const peer = new Peer(config, now)
    if (config.vpnIpv4 !== undefined) peer.vpn4 = addressWords(config.vpnIpv4)
    if (config.vpnIpv6 !== undefined) peer.vpn6 = addressWords(config.vpnIpv6)
    this.#table.add(peer)
    this.#timers.schedule(peer)
  }

  /** False: there is no such peer any more (it expired meanwhile). */
  changePeer(handle: PeerHandle, change: PeerChange, now: Millis): boolean {
    const peer = this.#table.byHandle(handle)
    if (peer === undefined) return false
    if (change.txId !== undefined) peer.txId = change.txId
    if (change.outerLimit !== undefined) peer.outerLimit = change.outerLimit
    if (change.swapWait !== undefined) peer.setSwapWait(change.swapWait)
    this.#table.readdress(peer, () => {
      if (change.remote !== undefined) peer.setEndpoints(change.remote, change.local)
      const { vpnIpv4, vpnIpv6 } = change
      if (vpnIpv4 !== undefined) peer.vpn4 = vpnIpv4 === null ? undefined : addressWords(vpnIpv4)
      if (vpnIpv6 !== undefined) peer.vpn6 = vpnIpv6 === null ? undefined : addressWords(vpnIpv6)
    })
    if (change.keepalive !== undefined) {
      peer.keepalive.configure(change.keepalive.interval, change.keepalive.timeout, now)
      this.#timers.schedule(peer)
    }
    return true
  }

  /** Another worker heard the peer from there. */
  movePeer(handle: PeerHandle, remote: Endpoint, local: Endpoint): void {
    const peer = this.#table.byHandle(handle)
    if (peer !== undefined) this.#table.refloat(peer, () => peer.moveTo(remote, local))
  }

  removePeer(handle: PeerHandle): void {
    const peer = this.#table.byHandle(handle)
    if (peer !== undefined) this.#remove(peer)
  }

  /** Installs a key, in place of what the slot holds. Throws what the cipher provider throws; false: no such peer. */
  installKey(handle: PeerHandle, slot: SlotName, config: KeyConfig, now: Millis): boolean {
    const peer = this.#table.byHandle(handle)
    if (peer === undefined) {
      wipe(config)
      return false
    }
    const { keyId } = config
    const key = createKeySlot(config, this.#provider, this.#memory, this.#nonce, now, {
      ageing: () => this.#sink.keyAgeing(peer, keyId),
      pulled: (epoch) => this.#sink.epochPulled(peer, keyId, epoch),
    })
    peer.setKey(slot, key)
    this.#receiver.keyInstalled(peer, now)
    return true
  }

  swapKeys(handle: PeerHandle): void {
    this.#table.byHandle(handle)?.swapKeys()
  }

  deleteKey(handle: PeerHandle, slot: SlotName, now: Millis): void {
    const peer = this.#table.byHandle(handle)
    if (peer === undefined) return
    peer.deleteKey(slot, now)
    this.#timers.schedule(peer)
  }

  /** Removes the key with this id from whichever slot holds it: another worker has used its packet ids up. */
  retireKey(handle: PeerHandle, keyId: number, now: Millis): void {
    for (const slot of ['primary', 'secondary'] as const) {
      if (this.#table.byHandle(handle)?.[slot]?.keyId !== keyId) continue
      this.deleteKey(handle, slot, now)
      return
    }
  }

  /** Another worker receives from the peer, and this epoch is the least to send with. */
  pullEpoch(handle: PeerHandle, keyId: number, epoch: number): void {
    this.#table.byHandle(handle)?.slotFor(keyId)?.pull(epoch)
  }

  /** Another worker has heard the peer with this key. */
  keyHeard(handle: PeerHandle, keyId: number): void {
    const peer = this.#table.byHandle(handle)
    const key = peer?.slotFor(keyId)
    if (key !== undefined) peer?.hear(key)
  }

  peer(handle: PeerHandle): Peer | undefined {
    return this.#table.byHandle(handle)
  }

  /** Whether messages inside the data channel are told. Nobody wants them unless told, as with the kernel's driver. */
  listen(listens: boolean): void {
    this.#listens = listens
  }

  /** A route of the device's namespace has changed. */
  routesChanged(): void {
    this.#table.forgetRoutes()
  }

  // Packets ----------------------------------------------------------------------------------------------------------

  /** From the device: `length` bytes behind the virtio_net_hdr at `vnet`. Sent when the outbox is full, or by `transmit`. */
  fromDevice(vnet: number, length: number, now: Millis): void {
    this.#sender.packet(vnet, length, now)
  }

  /** Sends what is in the outbox. */
  transmit(): void {
    if (this.#outbox.count === 0) return
    this.#sink.transmit(this.#outbox)
    this.#outbox.clear()
  }

  /** Sends a message inside the data channel. False: there is no such peer here, or it has no key. */
  sendInside(handle: PeerHandle, message: Uint8Array, now: Millis): boolean {
    const peer = this.#table.byHandle(handle)
    const sent = peer !== undefined && this.#sender.message(peer, message, now)
    this.transmit()
    return sent
  }

  /** From a UDP socket. Delivered when it cannot be glued to more, or by `flush`. */
  fromLink(packet: number, length: number, from: Endpoint, to: Endpoint, now: Millis): void {
    this.#receiver.datagram(packet, length, from, to, now)
  }

  /** From the stream of `peer`: one P_DATA_V2 packet. */
  fromStream(peer: Peer, packet: number, length: number, now: Millis): void {
    this.#receiver.frame(peer, packet, length, now)
  }

  /** Delivers what is glued. */
  flush(): void {
    this.#gluer.flush()
  }

  drop(verdict: Verdict, peer: Peer | undefined, count: number): void {
    this.#drops.add(verdict, count)
    peer?.drops.add(verdict, count)
  }

  // Time -------------------------------------------------------------------------------------------------------------

  /** When to call `onDeadline`; it may be early. */
  deadline(): Millis {
    return Math.min(this.#timers.next(), this.#receiver.deadline())
  }

  onDeadline(now: Millis): void {
    this.#receiver.onDeadline(now)
    this.#timers.run(now, (peer) => {
      peer.onDeadline(now)
      peer.keepalive.onDeadline(now, {
        ping: () => this.#sender.ping(peer, now),
        expired: () => {
          this.#remove(peer)
          this.#sink.expired(peer)
        },
      })
      if (this.#table.byHandle(peer.handle) === peer) this.#timers.schedule(peer)
    })
    this.transmit()
  }

  // Telling ----------------------------------------------------------------------------------------------------------

  stats(): EngineStats {
    const { rxBytes, rxPackets, txBytes, txPackets } = this.#counters
    return { rxBytes, rxPackets, txBytes, txPackets, drops: this.#drops.list() }
  }

  snapshot(handle: PeerHandle, now: Millis): PeerSnapshot | undefined {
    const peer = this.#table.byHandle(handle)
    return peer && snapshot(peer, now)
  }

  snapshots(now: Millis): PeerSnapshot[] {
    return [...this.#table.peers()].map((peer) => snapshot(peer, now))
  }

  /** Forgets all peers and keys. */
  close(): void {
    for (const peer of [...this.#table.peers()]) this.#remove(peer)
  }

  #remove(peer: Peer): void {
    this.#gluer.flush() // its last packets are counted to it
    this.#receiver.forget(peer)
    this.#table.remove(peer)
    this.#timers.remove(peer)
    peer.closeKeys()
  }
}

function snapshot(peer: Peer, now: Millis): PeerSnapshot {
  const { remote, primary, secondary } = peer
  const key = (slot: SlotName, of: KeySlot | undefined): KeySnapshot[] => {
    if (of === undefined) return []
    const { keyId, cipher, format, epoch, lastPacketId } = of
    return [{ slot, keyId, cipher, format, ageMs: now - of.installed, epoch, lastPacketId }]
  }
  const age = (at: Millis) => (at === -Infinity ? undefined : now - at)
  return {
    handle: peer.handle,
    remote: { address: remote.address, port: remote.port, scope: remote.scope },
    local: peer.local.address,
    vpnRxBytes: peer.vpnRxBytes,
    vpnRxPackets: peer.vpnRxPackets,
    vpnTxBytes: peer.vpnTxBytes,
    vpnTxPackets: peer.vpnTxPackets,
    linkRxBytes: peer.linkRxBytes,
    linkRxPackets: peer.linkRxPackets,
    linkTxBytes: peer.linkTxBytes,
    linkTxPackets: peer.linkTxPackets,
    lastRxMs: age(peer.lastReceived),
    lastTxMs: age(peer.lastSent),
    keys: [...key('primary', primary), ...key('secondary', secondary)],
    drops: peer.dropList,
  }
}
