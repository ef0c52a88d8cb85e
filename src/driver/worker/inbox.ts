/**
 * What one worker has for another: packets that are its (pieces from the device whose queue the kernel chose wrongly,
 * datagrams without a peer id), and where a peer was heard from, so that the answer goes there. Through a datagram
 * socket per worker; all of it is the exception.
 *
 *     | kind 4 | from: address 16, port 4, scope 4 | to: address 16 | handle 4 | packet |
 *
 * A piece has no addresses; the handle is that of the peer that has moved.
 */
import { E, IOVEC, MSG_DONTWAIT, MSG_NOSIGNAL, MSGHDR } from '../../platform/layout.ts'
import type { NativeMemory } from '../../platform/memory.ts'
import type { Syscalls } from '../../platform/syscalls.ts'
import { Endpoint } from '../core/address.ts'
import type { PeerHandle } from '../core/peer.ts'
import { MAX_PACKET, VNET_BYTES } from '../core/train.ts'

const PIECE = 0
const DATAGRAM = 1
const MOVED = 2
const KIND_BYTES = 4
const HEADER_BYTES = 48
const AREA_BYTES = HEADER_BYTES + VNET_BYTES + MAX_PACKET

export interface InboxSockets {
  /** This worker reads its own. */
  read: number
  /** And writes to each worker's, by its number. */
  write: number[]
}

export interface InboxReader {
  /** A message came; false: it is to be lost, and no more to be read. */
  arrived(): boolean
  piece(vnet: number, length: number): void
  datagram(packet: number, length: number, from: Endpoint, to: Endpoint): void
  moved(handle: PeerHandle, from: Endpoint, to: Endpoint): void
}

export class Inbox {
  readonly #sys: Syscalls
  readonly #memory: NativeMemory
  readonly #sockets: InboxSockets
  readonly #area: number
  readonly #header: number
  readonly #message: number
  readonly #iovecs: number
  readonly #from = new Endpoint()
  readonly #to = new Endpoint()

  constructor(sys: Syscalls, memory: NativeMemory, sockets: InboxSockets) {
    this.#sys = sys
    this.#memory = memory
    this.#sockets = sockets
    this.#area = memory.area(AREA_BYTES, 64)
    this.#header = memory.area(HEADER_BYTES, 16)
    this.#message = memory.area(MSGHDR.size, 16)
    this.#iovecs = memory.area(2 * IOVEC.size, 16)
    memory.view.setBigUint64(this.#message + MSGHDR.iov, BigInt(memory.base + this.#iovecs), true)
    memory.view.setUint32(this.#message + MSGHDR.iovlen, 2, true)
  }

  /** Gives a worker the piece of `length` bytes behind the virtio_net_hdr at `vnet`; false: its inbox is full. */
  handOverPiece(worker: number, vnet: number, length: number): boolean {
    this.#memory.view.setUint32(this.#header, PIECE, true)
    return this.#send(worker, KIND_BYTES, vnet, VNET_BYTES + length)
  }

  handOverDatagram(
    worker: number,
    packet: number,
    length: number,
    from: Endpoint,
    to: Endpoint,
  ): boolean {
    this.#fill(DATAGRAM, from, to, 0)
    return this.#send(worker, HEADER_BYTES, packet, length)
  }

  /** Tells a worker where the peer is, and at which of our addresses it was heard; false: its inbox is full. */
  tellMoved(worker: number, handle: PeerHandle, from: Endpoint, to: Endpoint): boolean {
    this.#fill(MOVED, from, to, handle)
    return this.#send(worker, HEADER_BYTES, this.#header, 0)
  }

  /** Takes what lies in this worker's inbox, `limit` messages at most. */
  receive(reader: InboxReader, limit: number): void {
    const { view, base } = this.#memory
    const at = this.#area
    for (let i = 0; i < limit; i++) {
      const got = this.#sys.read(this.#sockets.read, base + at, AREA_BYTES)
      if (got < KIND_BYTES || !reader.arrived()) return
      const kind = view.getUint32(at, true)
      if (kind === PIECE) {
        reader.piece(at + KIND_BYTES, got - KIND_BYTES - VNET_BYTES)
        continue
      }
      const word = (n: number) => view.getInt32(at + KIND_BYTES + 4 * n)
      this.#from.set(word(0), word(1), word(2), word(3), word(4), word(5))
      this.#to.set(word(6), word(7), word(8), word(9), 0, 0)
      if (kind === MOVED) reader.moved(word(10), this.#from, this.#to)
      else reader.datagram(at + HEADER_BYTES, got - HEADER_BYTES, this.#from, this.#to)
    }
  }

  #fill(kind: number, from: Endpoint, to: Endpoint, handle: PeerHandle): void {
    const { view } = this.#memory
    const sender = [from.a, from.b, from.c, from.d, from.port, from.scope]
    view.setUint32(this.#header, kind, true)
    for (const [i, word] of [...sender, to.a, to.b, to.c, to.d, handle].entries()) {
      view.setInt32(this.#header + KIND_BYTES + 4 * i, word)
    }
  }

  #send(worker: number, headerBytes: number, offset: number, length: number): boolean {
    const { view, base } = this.#memory
    const write = this.#sockets.write[worker]
    if (write === undefined) return false
    this.#aim(this.#iovecs, base + this.#header, headerBytes, view)
    this.#aim(this.#iovecs + IOVEC.size, base + offset, length, view)
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL
    return this.#sys.sendmsg(write, base + this.#message, flags) !== -E.EAGAIN
  }

  #aim(iovec: number, address: number, length: number, view: DataView): void {
    view.setBigUint64(iovec + IOVEC.base, BigInt(address), true)
    view.setUint32(iovec + IOVEC.len, length, true)
  }
}
