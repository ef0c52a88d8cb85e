/**
 * From the device to the link: packet → peer → key → sealed train (driver-behaviour, 2.1). Owns no socket: what is sealed
 * lies in the outbox until `transmit` takes it.
 */
import { INSIDE_MAX } from '../../uapi/spec.ts'
import { KEEPALIVE_MAGIC } from '../../wire/data.ts'
import { FRAME_PREFIX_BYTES, MAX_FRAME_BODY } from '../../wire/framing.ts'
import { IPV4_DESTINATION, IPV6_DESTINATION, ipVersion } from '../../wire/ip.ts'
import { V4_MARK } from './address.ts'
import type { Millis } from './keepalive.ts'
import type { PacketMemory } from './memory.ts'
import { fitMss } from './mssfix.ts'
import { MAX_DATAGRAM, type Outbox } from './outbox.ts'
import type { Peer } from './peer.ts'
import type { PeerTable } from './peer-table.ts'
import { CUTTER_BYTES, Cutter, VNET_BYTES } from './train.ts'
import { Verdict } from './verdict.ts'

export interface SenderSink {
  /** Brings a piece from the device to the worker that sends to its peer; false: that one takes no more. */
  handOver(worker: number, vnet: number, length: number): boolean
  /** Takes everything out of the outbox. */
  transmit(): void
  /** The key with this id has no packet ids left and is gone. */
  keyExhausted(peer: Peer, keyId: number): void
  txPackets: number
  txBytes: number
  drop(verdict: Verdict, peer: Peer | undefined, count: number): void
}

export class Sender {
  readonly #memory: PacketMemory
  readonly #table: PeerTable
  readonly #outbox: Outbox
  readonly #sink: SenderSink
  readonly #cutter: Cutter
  readonly #ping: number
  readonly #message: number
  readonly #worker: number

  constructor(options: {
    memory: PacketMemory
    worker: number
    table: PeerTable
    outbox: Outbox
    sink: SenderSink
  }) {
    const { memory } = options
    this.#memory = memory
    this.#worker = options.worker
    this.#table = options.table
    this.#outbox = options.outbox
    this.#sink = options.sink
    this.#cutter = new Cutter(memory, memory.area(CUTTER_BYTES, 16))
    this.#ping = memory.area(KEEPALIVE_MAGIC.length, 16)
    memory.u8.set(KEEPALIVE_MAGIC, this.#ping)
    this.#message = memory.area(INSIDE_MAX, 16)
  }

  /** Sends the piece of `length` bytes behind the virtio_net_hdr at `vnet`; the area is used up by it. */
  packet(vnet: number, length: number, now: Millis): void {
    const peer = this.#peerFor(vnet + VNET_BYTES, length)
    if (peer === undefined) return
    if (peer.sender !== this.#worker) {
      if (!this.#sink.handOver(peer.sender, vnet, length)) {
        this.#sink.drop(Verdict.TxQueueFull, peer, 1)
      }
      return
    }
    if (!this.#cutter.begin(vnet, length)) {
      this.#sink.drop(Verdict.TxMalformed, peer, 1)
      return
    }
    let bytes = 0
    const slot = peer.outerLimit !== 0 && this.#cutter.whole ? peer.sealer(now) : undefined
    while (this.#cutter.next()) {
      if (slot !== undefined) {
        fitMss(this.#memory, this.#cutter.offset, this.#cutter.length, peer, slot.overhead)
      }
      bytes += this.#cutter.length
      this.#seal(peer, this.#cutter.offset, this.#cutter.length, now)
    }
    // As the kernel counts: one packet for what the stack handed over, and the bytes of all its segments.
    peer.vpnTxPackets++
    peer.vpnTxBytes += bytes
    this.#sink.txPackets++
    this.#sink.txBytes += bytes
  }

  /** Sends a keepalive; it counts for the link only. False: the peer has no key to seal it with. */
  ping(peer: Peer, now: Millis): boolean {
    // INVARIANT: one worker alone seals for a peer, since two would use packet ids twice.
    if (peer.primary === undefined || peer.sender !== this.#worker) return false
    return this.#seal(peer, this.#ping, KEEPALIVE_MAGIC.length, now)
  }

  /** Sends a message of at most INSIDE_MAX bytes inside the data channel; it counts as a keepalive does. False as there. */
  message(peer: Peer, message: Uint8Array, now: Millis): boolean {
    if (peer.primary === undefined || peer.sender !== this.#worker) return false
    this.#memory.u8.set(message, this.#message)
    return this.#seal(peer, this.#message, message.length, now)
  }

  #peerFor(ip: number, length: number): Peer | undefined {
    const { view } = this.#memory
    const version = ipVersion(view, ip, length)
    if (version === 0) {
      this.#sink.drop(Verdict.TxMalformed, undefined, 1)
      return undefined
    }
    const to = ip + (version === 4 ? IPV4_DESTINATION : IPV6_DESTINATION)
    const peer =
      version === 4
        ? this.#table.byDestination(0, 0, V4_MARK, view.getInt32(to))
        : this.#table.byDestination(
            view.getInt32(to),
            view.getInt32(to + 4),
            view.getInt32(to + 8),
            view.getInt32(to + 12),
          )
    if (peer === undefined) this.#sink.drop(Verdict.TxNoPeer, undefined, 1)
    return peer
  }

  /** Seals one packet into the outbox. */
  #seal(peer: Peer, plain: number, length: number, now: Millis): boolean {
    const slot = peer.sealer(now)
    if (slot === undefined) {
      this.#sink.drop(Verdict.TxNoKey, peer, 1)
      return false
    }
    const bytes = length + slot.overhead
    if (bytes > (peer.stream ? MAX_FRAME_BODY : MAX_DATAGRAM)) {
      this.#sink.drop(Verdict.TxOversized, peer, 1)
      return false
    }
    const outbox = this.#outbox
    const prefix = peer.stream ? FRAME_PREFIX_BYTES : 0
    if (!outbox.hasRoom(bytes + prefix)) this.#sink.transmit()
    const written = slot.seal(plain, length, outbox.cursor + prefix, peer.txId)
    if (written <= 0) {
      if (written === 0 && slot !== peer.primary) {
        peer.endSwap()
        return this.#seal(peer, plain, length, now)
      }
      if (written === 0) this.#retire(peer, slot.keyId)
      this.#sink.drop(written === 0 ? Verdict.TxIvExhausted : Verdict.TxSealFailed, peer, 1)
      return false
    }
    if (peer.stream) this.#memory.view.setUint16(outbox.cursor, written)
    outbox.add(peer, written + prefix)
    peer.linkTxBytes += written
    peer.linkTxPackets++
    peer.lastSent = now
    peer.keepalive.lastSent = now
    return true
  }

  /** Removes the worn out primary key (driver-behaviour, 2.2). */
  #retire(peer: Peer, keyId: number): void {
    peer.setKey('primary', undefined)
    this.#sink.keyExhausted(peer, keyId)
  }
}
