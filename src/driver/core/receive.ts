/**
 * From the link to the device: datagram → peer → key → authentic, fresh, allowed → device (driver-behaviour, 3.2).
 * Nothing of a packet is believed before it is authenticated; a packet that is not changes nothing but counters.
 */
import { INSIDE_MAX } from '../../uapi/spec.ts'
import { isKeepalive, isOcc } from '../../wire/data.ts'
import { IPV4_SOURCE, IPV6_SOURCE, ipVersion } from '../../wire/ip.ts'
import { Opcode, opcodeOf, PEER_ID_UNDEF, peerIdOf } from '../../wire/opcode.ts'
import type { Endpoint } from './address.ts'
import { V4_MARK } from './address.ts'
import { EarlyPackets } from './early.ts'
import type { Millis } from './keepalive.ts'
import type { KeySlot } from './key-slot.ts'
import type { PacketMemory } from './memory.ts'
import { fitMss } from './mssfix.ts'
import type { Peer } from './peer.ts'
import type { PeerTable } from './peer-table.ts'
import { type Gluer, MAX_PACKET } from './train.ts'
import { Verdict } from './verdict.ts'

export interface ReceiverSink {
  /** Brings a datagram to the worker that receives from its peer; false: that one takes no more. */
  handOver(worker: number, packet: number, length: number, from: Endpoint, to: Endpoint): boolean
  /** An authentic packet came from a new transport address, which `peer.remote` now holds. */
  floated(peer: Peer): void
  /** An authentic packet came to another address of ours, which `peer.local` now holds. */
  relocated(peer: Peer): void
  /** A message of OpenVPN's own came inside the data channel; false: nobody wants it. The memory is the engine's. */
  inside(peer: Peer, message: Uint8Array): boolean
  /** The first authentic packet with this key came, and another worker sends to the peer. */
  keyHeard(peer: Peer, keyId: number): void
  drop(verdict: Verdict, peer: Peer | undefined, count: number): void
}

export class Receiver {
  readonly #memory: PacketMemory
  readonly #table: PeerTable
  readonly #gluer: Gluer
  readonly #sink: ReceiverSink
  readonly #worker: number
  readonly #early = new EarlyPackets()
  /** Where those are opened. */
  readonly #earlyArea: number

  constructor(options: {
    memory: PacketMemory
    worker: number
    table: PeerTable
    gluer: Gluer
    sink: ReceiverSink
  }) {
    this.#memory = options.memory
    this.#worker = options.worker
    this.#earlyArea = options.memory.area(MAX_PACKET, 16)
    this.#table = options.table
    this.#gluer = options.gluer
    this.#sink = options.sink
  }

  /** Takes a datagram that came `from` an address to our address `to` (unspecified where the socket does not tell). */
  datagram(packet: number, length: number, from: Endpoint, to: Endpoint, now: Millis): void {
    if (length < 4) {
      this.#sink.drop(Verdict.RxShort, undefined, 1)
      return
    }
    const opcode = opcodeOf(this.#memory.u8[packet]!)
    if (opcode !== Opcode.DataV2) {
      this.#sink.drop(opcode === Opcode.DataV1 ? Verdict.RxDataV1 : Verdict.RxNotData, undefined, 1)
      return
    }
    const id = peerIdOf(this.#memory.view.getInt32(packet))
    const peer = id === PEER_ID_UNDEF ? this.#table.byEndpoint(from) : this.#table.byId(id)
    if (peer === undefined) {
      this.#sink.drop(Verdict.RxUnknownPeer, undefined, 1)
      return
    }
    if (peer.receiver !== this.#worker) {
      // Only a packet without a peer id comes to the wrong worker: the kernel sorts by that.
      if (!this.#sink.handOver(peer.receiver, packet, length, from, to)) {
        this.#sink.drop(Verdict.RxQueueFull, peer, 1)
      }
      return
    }
    const verdict = this.#packet(peer, packet, length, from, to, now)
    if (verdict !== Verdict.Ok) this.#sink.drop(verdict, peer, 1)
  }

  /** Takes a P_DATA_V2 packet that came over the peer's own stream, whatever peer id it carries. */
  frame(peer: Peer, packet: number, length: number, now: Millis): void {
    const verdict = this.#packet(peer, packet, length, undefined, undefined, now)
    if (verdict !== Verdict.Ok) this.#sink.drop(verdict, peer, 1)
  }

  /** The peer has a new key: takes the packets that came before it. */
  keyInstalled(peer: Peer, now: Millis): void {
    for (const packet of this.#early.take(peer)) {
      this.#memory.u8.set(packet, this.#earlyArea)
      const slot = peer.slotFor(packet[0]! & 7)
      const at = this.#earlyArea
      const verdict =
        slot === undefined
          ? Verdict.RxNoKey
          : this.#open(peer, slot, at, packet.length, undefined, undefined, now)
      if (verdict !== Verdict.Ok) this.#sink.drop(verdict, peer, 1)
    }
    this.#gluer.flush()
  }

  /** The peer is going. */
  forget(peer: Peer): void {
    this.#lost(peer, this.#early.giveUp(peer))
  }

  /** When `onDeadline` wants to be called. */
  deadline(): Millis {
    return this.#early.deadline()
  }

  /** Drops what has waited too long for its key. */
  onDeadline(now: Millis): void {
    for (const { peer, packets } of this.#early.expired(now)) this.#lost(peer, packets)
  }

  #lost(peer: Peer, packets: readonly Uint8Array[]): void {
    if (packets.length > 0) this.#sink.drop(Verdict.RxNoKey, peer, packets.length)
  }

  #packet(
    peer: Peer,
    packet: number,
    length: number,
    from: Endpoint | undefined,
    to: Endpoint | undefined,
    now: Millis,
  ): Verdict {
    peer.linkRxBytes += length
    peer.linkRxPackets++
    const keyId = this.#memory.u8[packet]! & 7
    const slot = peer.slotFor(keyId)
    if (slot !== undefined) return this.#open(peer, slot, packet, length, from, to, now)
    // Only who could be the peer may have packets kept.
    const mayWait = from === undefined || peer.remote.sameAs(from)
    const bytes = this.#memory.u8.subarray(packet, packet + length)
    return mayWait && this.#early.keep(peer, keyId, bytes, now) ? Verdict.Ok : Verdict.RxNoKey
  }

  #open(
    peer: Peer,
    slot: KeySlot,
    packet: number,
    length: number,
    from: Endpoint | undefined,
    to: Endpoint | undefined,
    now: Millis,
  ): Verdict {
    if (length < slot.overhead) return Verdict.RxShort
    const gluer = this.#gluer
    const at = gluer.place(length - slot.overhead)
    let used = slot
    let plainLength = slot.open(packet, length, at)
    if (plainLength === -1) {
      used = peer.twinOf(slot) ?? slot
      if (used !== slot) plainLength = used.open(packet, length, at)
    }
    const verdict =
      plainLength < 0
        ? plainLength === -1
          ? Verdict.RxAuthFailed
          : Verdict.RxNoKey
        : !used.fresh(packet, now)
          ? Verdict.RxReplay
          : Verdict.Ok
    if (verdict !== Verdict.Ok) {
      gluer.reject()
      return verdict
    }
    peer.lastReceived = now
    peer.keepalive.lastReceived = now
    if (!used.heard) {
      peer.hear(used)
      if (peer.sender !== this.#worker) this.#sink.keyHeard(peer, used.keyId)
    }
    if (from !== undefined && to !== undefined && !peer.stream) this.#locate(peer, from, to)
    const version = ipVersion(this.#memory.view, at, plainLength)
    if (version === 0) {
      const known =
        isKeepalive(this.#memory.view, at, plainLength) || this.#tell(peer, at, plainLength, now)
      gluer.reject()
      return known ? Verdict.Ok : Verdict.RxMalformed
    }
    if (!this.#sourceAllowed(peer, version, at)) {
      gluer.reject()
      return Verdict.RxReversePath
    }
    if (peer.outerLimit !== 0) fitMss(this.#memory, at, plainLength, peer, slot.overhead)
    gluer.accept(plainLength, peer)
    return Verdict.Ok
  }

  /** Hands on what is a message, not too long and not too soon. */
  #tell(peer: Peer, at: number, length: number, now: Millis): boolean {
    const { view, u8 } = this.#memory
    if (length > INSIDE_MAX || !isOcc(view, at, length)) return false
    return peer.mayTell(now) && this.#sink.inside(peer, u8.subarray(at, at + length))
  }

  /** Follows the peer to where an authentic packet came from (driver-behaviour, 5.5). */
  #locate(peer: Peer, from: Endpoint, to: Endpoint): void {
    if (!peer.remote.sameAs(from)) {
      this.#table.refloat(peer, () => peer.moveTo(from, to))
      this.#sink.floated(peer)
    } else if (!peer.local.sameAddress(to)) {
      peer.moveTo(peer.remote, to)
      this.#sink.relocated(peer)
    }
  }

  #sourceAllowed(peer: Peer, version: 4 | 6, ip: number): boolean {
    const { view } = this.#memory
    if (version === 4) {
      return this.#table.allowsSource(peer, 0, 0, V4_MARK, view.getInt32(ip + IPV4_SOURCE))
    }
    const from = ip + IPV6_SOURCE
    return this.#table.allowsSource(
      peer,
      view.getInt32(from),
      view.getInt32(from + 4),
      view.getInt32(from + 8),
      view.getInt32(from + 12),
    )
  }
}
