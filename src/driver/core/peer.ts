/**
 * One peer as the data path sees it: where it is, its keys, its counters. The device (control side) owns what was
 * configured; this owns what traffic changes.
 */
import { Endpoint } from './address.ts'
import { Keepalive, type KeepaliveRule, type Millis } from './keepalive.ts'
import type { KeySlot } from './key-slot.ts'
import { DropCounters } from './verdict.ts'

/** A number that the device gives each peer it makes, never used twice: late events cannot meet a successor. */
export type PeerHandle = number

/** A socket, or set of sockets, that the device handed over; numbered by the device. */
export type TransportId = number

export interface PeerConfig {
  handle: PeerHandle
  /** What packets to us carry, 24 bits. */
  id: number
  /** What packets to the peer carry, 24 bits. */
  txId: number
  transport: TransportId
  /** A TCP stream: packets are framed, and the peer is known by the stream. */
  stream: boolean
  /** Numbers of the workers that send to it and receive from it, often the same; the first unless told. */
  sender?: number
  receiver?: number
  remote?: EndpointConfig
  /** Address to send from; unspecified leaves it to routing. */
  local?: EndpointConfig
  /** Addresses in text; absent in point-to-point mode. */
  vpnIpv4?: string
  vpnIpv6?: string
  /** Bytes of a packet outside that TCP inside is to fit (mssfix.ts); 0 or nothing: TCP is left alone. */
  outerLimit?: number
  /** How long `key-swap` may take (Peer.sealer), in milliseconds; 0 or nothing: no time. */
  swapWait?: number
  keepaliveRule: KeepaliveRule
  /** Seconds. */
  keepaliveInterval: number
  keepaliveTimeout: number
}

export type SlotName = 'primary' | 'secondary'

export interface EndpointConfig {
  address: string
  port: number
  scope: number
}

/** One message inside the data channel is handed on in that time, and some at once: nobody needs more. */
const MESSAGE_MS = 250
const MESSAGES_AT_ONCE = 4

export class Peer {
  readonly handle: PeerHandle
  readonly id: number
  readonly transport: TransportId
  readonly stream: boolean
  readonly sender: number
  readonly receiver: number
  txId: number
  /** Words of its VPN addresses (address.ts). */
  vpn4: Int32Array | undefined
  vpn6: Int32Array | undefined
  readonly remote = new Endpoint()
  readonly local = new Endpoint()
  /**
   * Datagrams longer than this leave one by one: a train of them did not fit the path, and the kernel does not
   * fragment the datagrams of a train.
   */
  trainLimit = Infinity
  outerLimit: number
  primary: KeySlot | undefined
  secondary: KeySlot | undefined
  #swapWait = 0
  /** The key that was installed last, if it is there still. */
  #newest: KeySlot | undefined
  /** What is sealed with before `#laterFrom`, and from then on. */
  #former: KeySlot | undefined
  #later: KeySlot | undefined
  #laterFrom: Millis = -Infinity
  /** A former key that was deleted, where the peer may be late with the next one: it opens still. */
  #late: KeySlot | undefined
  #lateUntil: Millis = Infinity
  readonly keepalive: Keepalive
  /** Any packet to and from the peer, control packets excluded; -Infinity before the first. */
  lastSent: Millis = -Infinity
  lastReceived: Millis = -Infinity

  /** When the next message would be due, if they came evenly. */
  #messageDue: Millis = -Infinity

  vpnRxBytes = 0
  vpnRxPackets = 0
  vpnTxBytes = 0
  vpnTxPackets = 0
  linkRxBytes = 0
  linkRxPackets = 0
  linkTxBytes = 0
  linkTxPackets = 0
  #drops: DropCounters | undefined

  constructor(config: PeerConfig, now: Millis) {
    this.handle = config.handle
    this.id = config.id
    this.txId = config.txId
    this.transport = config.transport
    this.stream = config.stream
    this.sender = config.sender ?? 0
    this.receiver = config.receiver ?? 0
    this.outerLimit = config.outerLimit ?? 0
    this.#swapWait = config.swapWait ?? 0
    this.setEndpoints(config.remote, config.local)
    this.keepalive = new Keepalive(config.keepaliveRule, now)
    this.keepalive.configure(config.keepaliveInterval, config.keepaliveTimeout, now)
  }

  setEndpoints(remote: EndpointConfig | undefined, local: EndpointConfig | undefined): void {
    if (remote !== undefined) {
      this.remote.copy(Endpoint.of(remote.address, remote.port, remote.scope))
    }
    if (local === undefined) this.local.set(0, 0, 0, 0, 0, 0)
    else this.local.copy(Endpoint.of(local.address, 0))
    this.trainLimit = Infinity
  }

  moveTo(remote: Endpoint, local: Endpoint): void {
    this.remote.copy(remote)
    this.local.copy(local)
    this.trainLimit = Infinity
  }

  /** The key with this key id, the primary first (driver-behaviour, 4). */
  slotFor(keyId: number): KeySlot | undefined {
    if (this.primary?.keyId === keyId) return this.primary
    if (this.secondary?.keyId === keyId) return this.secondary
    return this.#late?.keyId === keyId ? this.#late : undefined
  }

  /** The other key with the same key id: two sessions of one peer, one after the other, may have that. */
  twinOf(slot: KeySlot): KeySlot | undefined {
    const { secondary } = this
    if (secondary === undefined || secondary === slot || secondary.keyId !== slot.keyId) {
      return undefined
    }
    return secondary.overhead === slot.overhead ? secondary : undefined
  }

  /** Whether one more message inside the data channel may be handed on: a peer does not flood its owner. */
  mayTell(now: Millis): boolean {
    const due = Math.max(this.#messageDue, now - MESSAGE_MS * (MESSAGES_AT_ONCE - 1))
    if (due > now) return false
    this.#messageDue = due + MESSAGE_MS
    return true
  }

  /** The key to seal with. */
  sealer(now: Millis): KeySlot | undefined {
    return now < this.#laterFrom ? this.#former : this.#later
  }

  /** Seals with the primary from now on. */
  endSwap(): void {
    this.#former = this.primary
    this.#later = this.primary
    this.#laterFrom = -Infinity
  }

  /** Milliseconds. */
  setSwapWait(wait: number): void {
    this.#swapWait = wait
    if (wait === 0) this.#endLate()
    this.#chooseSealer()
  }

  swapKeys(): void {
    const { primary, secondary } = this
    this.primary = secondary
    this.secondary = primary
    this.#chooseSealer()
  }

  /** The first authentic packet with this key came. */
  hear(key: KeySlot): void {
    key.heard = true
    this.#chooseSealer()
  }

  /** Puts a key into a slot, or nothing; forgets what is there. */
  setKey(slot: SlotName, key: KeySlot | undefined): void {
    this[slot]?.close()
    if (key !== undefined && key.keyId === this.#late?.keyId) this.#endLate()
    this[slot] = key
    this.#newest = key
    // A primary key was put there to be used.
    if (slot === 'primary') this.endSwap()
    else this.#chooseSealer()
  }

  /**
   * Takes a key away. Where swaps wait for the peer, it may send with its former key for a moment after that was given up here: it is
   * told that the next renewal has begun by a packet that is still on its way. So that key opens for as long as a swap would wait.
   */
  deleteKey(slot: SlotName, now: Millis): void {
    const key = this[slot]
    if (slot === 'secondary' && key?.heard === true && this.#swapWait > 0) {
      this.#endLate()
      this.#late = key
      this.#lateUntil = now + this.#swapWait
      this.secondary = undefined
    }
    this.setKey(slot, undefined)
  }

  #endLate(): void {
    this.#late?.close()
    this.#late = undefined
    this.#lateUntil = Infinity
  }

  /**
   * Decides what to seal with: the primary key. Where it was told to wait, that of two keys which the peer has by all that is
   * known: the later one when it was heard with it, or has been there for so long, swapped or not. Before, it may have come too
   * early, and long after, the peer may have given the former one up, whatever the order in which both ends swap.
   */
  #chooseSealer(): void {
    this.endSwap()
    const { primary, secondary } = this
    if (this.#swapWait === 0 || primary === undefined || secondary === undefined) return
    const swapped = primary === this.#newest
    this.#former = swapped ? secondary : primary
    this.#later = swapped ? primary : secondary
    if (!this.#later.heard) this.#laterFrom = this.#later.installed + this.#swapWait
  }

  /** When it is to be woken (Timers). */
  deadline(): Millis {
    return Math.min(this.keepalive.deadline(), this.#lateUntil)
  }

  /** Does what is due but for the keepalive's. */
  onDeadline(now: Millis): void {
    if (now >= this.#lateUntil) this.#endLate()
  }

  /** Kept only for peers that lost something. */
  get drops(): DropCounters {
    this.#drops ??= new DropCounters()
    return this.#drops
  }

  get dropList(): ReturnType<DropCounters['list']> {
    return this.#drops?.list() ?? []
  }

  /** Forgets all keys. */
  closeKeys(): void {
    this.#endLate()
    this.setKey('primary', undefined)
    this.setKey('secondary', undefined)
  }
}
