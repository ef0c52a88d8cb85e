/**
 * Datagrams between packet memory and UDP sockets, in bulk: trains come in through UDP_GRO and recvmmsg, and go out
 * through UDP_SEGMENT and sendmmsg. One set of buffers serves all sockets of a worker. What a datagram means is the
 * engine's business.
 */
import {
  AF_INET,
  AF_INET6,
  CMSG,
  E,
  IOVEC,
  IP_PKTINFO,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  IPV6_PKTINFO,
  MMSGHDR,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSGHDR,
  POLLFD,
  POLLOUT,
  SOCKADDR_IN,
  SOCKADDR_IN6,
  UDP_GRO,
  UDP_SEGMENT,
} from '../../platform/layout.ts'
import type { NativeMemory } from '../../platform/memory.ts'
import type { Syscalls } from '../../platform/syscalls.ts'
import { Endpoint, V4_MARK } from '../core/address.ts'
import type { Outbox } from '../core/outbox.ts'
import type { Peer } from '../core/peer.ts'
import { Verdict } from '../core/verdict.ts'

/** Messages per recvmmsg; each may be a train of 64 KiB. */
const RECEIVE_MESSAGES = 32
const RECEIVE_BYTES = 65536
/** Messages per sendmmsg: what an outbox holds. */
const SEND_MESSAGES = 64
const NAME_BYTES = 32
const CONTROL_BYTES = 128
/** How long a full socket is waited for before packets are dropped; others wait meanwhile. */
const SEND_PATIENCE_MS = 5

export type DatagramHandler = (offset: number, length: number, from: Endpoint, to: Endpoint) => void
export type DropHandler = (verdict: Verdict, peer: Peer, packets: number) => void

export class UdpIo {
  readonly #sys: Syscalls
  readonly #memory: NativeMemory
  readonly #rx: { messages: number; buffers: number; names: number; controls: number }
  readonly #tx: { messages: number; iovecs: number; names: number; controls: number; poll: number }
  readonly #from = new Endpoint()
  readonly #to = new Endpoint()

  constructor(sys: Syscalls, memory: NativeMemory) {
    this.#sys = sys
    this.#memory = memory
    const { view, base } = memory
    const rx = {
      messages: memory.area(MMSGHDR.size * RECEIVE_MESSAGES, 16),
      buffers: memory.area(RECEIVE_BYTES * RECEIVE_MESSAGES, 64),
      names: memory.area(NAME_BYTES * RECEIVE_MESSAGES, 16),
      controls: memory.area(CONTROL_BYTES * RECEIVE_MESSAGES, 16),
    }
    const iovecs = memory.area(IOVEC.size * RECEIVE_MESSAGES, 16)
    for (let i = 0; i < RECEIVE_MESSAGES; i++) {
      const iovec = iovecs + IOVEC.size * i
      setAddress(view, iovec + IOVEC.base, base + rx.buffers + RECEIVE_BYTES * i)
      view.setUint32(iovec + IOVEC.len, RECEIVE_BYTES, true)
      const message = rx.messages + MMSGHDR.size * i
      setAddress(view, message + MSGHDR.name, base + rx.names + NAME_BYTES * i)
      setAddress(view, message + MSGHDR.iov, base + iovec)
      view.setUint32(message + MSGHDR.iovlen, 1, true)
      const control = base + rx.controls + CONTROL_BYTES * i
      setAddress(view, message + MSGHDR.control, control)
      this.#rearm(message)
    }
    this.#rx = rx
    const tx = {
      messages: memory.area(MMSGHDR.size * SEND_MESSAGES, 16),
      iovecs: memory.area(IOVEC.size * SEND_MESSAGES, 16),
      names: memory.area(NAME_BYTES * SEND_MESSAGES, 16),
      controls: memory.area(CONTROL_BYTES * SEND_MESSAGES, 16),
      poll: memory.area(POLLFD.size, 8),
    }
    for (let i = 0; i < SEND_MESSAGES; i++) {
      const message = tx.messages + MMSGHDR.size * i
      setAddress(view, message + MSGHDR.name, base + tx.names + NAME_BYTES * i)
      setAddress(view, message + MSGHDR.iov, base + tx.iovecs + IOVEC.size * i)
      view.setUint32(message + MSGHDR.iovlen, 1, true)
      const control = base + tx.controls + CONTROL_BYTES * i
      setAddress(view, message + MSGHDR.control, control)
    }
    this.#tx = tx
  }

  /**
   * Receives once, and hands each datagram to `each`; the endpoints are valid during the call only. When `arrived`, called
   * once before that, says false, they are lost.
   *
   * @returns messages received: when fewer than the most, the socket is empty; 0 or -errno when there was none
   */
  receive(fd: number, arrived: () => boolean, each: DatagramHandler): number {
    const rx = this.#rx
    const { view, base } = this.#memory
    const count = this.#sys.recvmmsg(fd, base + rx.messages, RECEIVE_MESSAGES, MSG_DONTWAIT)
    if (count > 0 && !arrived()) return 0
    for (let i = 0; i < count; i++) {
      const message = rx.messages + MMSGHDR.size * i
      const length = view.getUint32(message + MMSGHDR.len, true)
      const start = rx.buffers + RECEIVE_BYTES * i
      this.#readName(rx.names + NAME_BYTES * i)
      const segment = this.#readControl(
        rx.controls + CONTROL_BYTES * i,
        view.getUint32(message + MSGHDR.controllen, true),
      )
      this.#rearm(message)
      if (segment === 0 || segment >= length) {
        each(start, length, this.#from, this.#to)
      } else {
        for (let at = 0; at < length; at += segment) {
          each(start + at, Math.min(segment, length - at), this.#from, this.#to)
        }
      }
    }
    return count
  }

  get receiveLimit(): number {
    return RECEIVE_MESSAGES
  }

  /** Sends the messages `first`..`end - 1` of the outbox, all over this socket; what does not go is told to `drop`. */
  send(
    fd: number,
    v6: boolean,
    outbox: Outbox,
    first: number,
    end: number,
    drop: DropHandler,
  ): void {
    this.#fill(v6, outbox, first, end)
    let inSlot0 = first
    let at = first
    while (at < end) {
      const sent = this.#submit(fd, at - inSlot0, end - at)
      if (sent > 0) {
        at += sent
      } else {
        this.#failed(fd, v6, outbox, at, -sent, drop)
        // What was done about it has used slots of messages that are still to go.
        this.#fill(v6, outbox, ++at, end)
        inSlot0 = at
      }
    }
  }

  /** Writes the messages `first`..`end - 1` of the outbox to the slots from 0 on. */
  #fill(v6: boolean, outbox: Outbox, first: number, end: number): void {
    for (let i = first; i < end; i++) {
      const segment = outbox.packets[i]! > 1 ? outbox.segment[i]! : 0
      this.#write(i - first, outbox.peer[i]!, v6, outbox.offset[i]!, outbox.length[i]!, segment)
    }
  }

  /** Sends messages from slot `slot` on; messages sent, or -errno of the first. Waits a little for a full socket. */
  #submit(fd: number, slot: number, count: number): number {
    const { base } = this.#memory
    const messages = base + this.#tx.messages + MMSGHDR.size * slot
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL
    const sent = this.#sys.sendmmsg(fd, messages, count, flags)
    if (sent !== -E.EAGAIN || !this.#writable(fd)) return sent
    return this.#sys.sendmmsg(fd, messages, count, flags)
  }

  #writable(fd: number): boolean {
    const { view, base } = this.#memory
    const poll = this.#tx.poll
    view.setInt32(poll, fd, true)
    view.setInt32(poll + POLLFD.events, POLLOUT, true)
    return this.#sys.poll(base + poll, 1, SEND_PATIENCE_MS) > 0
  }

  /** What to do about a message that was not sent: once more in another way where that may help, else it is dropped. */
  #failed(
    fd: number,
    v6: boolean,
    outbox: Outbox,
    at: number,
    errno: number,
    drop: DropHandler,
  ): void {
    const peer = outbox.peer[at]!
    const packets = outbox.packets[at]!
    const addressGone = errno === E.EINVAL || errno === E.EADDRNOTAVAIL || errno === E.ENETUNREACH
    if (addressGone && !peer.local.isUnspecified) {
      // The address we sent from may not be ours any more: routing chooses another (driver-behaviour, 2.3).
      peer.local.set(0, 0, 0, 0, 0, 0)
      const train = packets > 1 ? outbox.segment[at]! : 0
      this.#write(0, peer, v6, outbox.offset[at]!, outbox.length[at]!, train)
      const retried = this.#submit(fd, 0, 1)
      if (retried > 0) return
      errno = -retried
    }
    if (packets > 1 && (errno === E.EINVAL || errno === E.EMSGSIZE || errno === E.EIO)) {
      // Longer than the path takes: datagrams that leave alone are fragmented by the kernel.
      peer.trainLimit = outbox.segment[at]! - 1
      this.#sendSingly(fd, v6, outbox, at, drop)
      return
    }
    drop(verdictOf(errno), peer, packets)
  }

  #sendSingly(fd: number, v6: boolean, outbox: Outbox, at: number, drop: DropHandler): void {
    const peer = outbox.peer[at]!
    const segment = outbox.segment[at]!
    const length = outbox.length[at]!
    const slots = outbox.packets[at]!
    for (let i = 0; i < slots; i++) {
      const offset = i * segment
      this.#write(i, peer, v6, outbox.offset[at]! + offset, Math.min(segment, length - offset), 0)
    }
    for (let i = 0; i < slots; ) {
      const sent = this.#submit(fd, i, slots - i)
      if (sent <= 0) drop(verdictOf(-sent), peer, 1)
      i += Math.max(sent, 1)
    }
  }

  #rearm(message: number): void {
    const { view } = this.#memory
    view.setUint32(message + MSGHDR.namelen, NAME_BYTES, true)
    view.setUint32(message + MSGHDR.controllen, CONTROL_BYTES, true)
  }

  #readName(at: number): void {
    const { view } = this.#memory
    const port = view.getUint16(at + SOCKADDR_IN.port)
    if (view.getUint16(at, true) === AF_INET) {
      this.#from.set(0, 0, V4_MARK, view.getInt32(at + SOCKADDR_IN.addr), port, 0)
    } else {
      const address = at + SOCKADDR_IN6.addr
      this.#from.set(
        view.getInt32(address),
        view.getInt32(address + 4),
        view.getInt32(address + 8),
        view.getInt32(address + 12),
        port,
        view.getUint32(at + SOCKADDR_IN6.scopeId, true),
      )
    }
  }

  /** Reads where the message came to; returns the size of its segments, 0 for a single datagram. */
  #readControl(start: number, length: number): number {
    const { view } = this.#memory
    let segment = 0
    this.#to.set(0, 0, 0, 0, 0, 0)
    const end = start + length
    for (let at = start; at + CMSG.size <= end; ) {
      const bytes = view.getUint32(at + CMSG.len, true)
      if (bytes < CMSG.size) break
      const level = view.getInt32(at + CMSG.level, true)
      const type = view.getInt32(at + CMSG.type, true)
      const data = at + CMSG.size
      if (level === IPPROTO_UDP && type === UDP_GRO) {
        segment = view.getInt32(data, true)
      } else if (level === IPPROTO_IP && type === IP_PKTINFO) {
        this.#to.set(0, 0, V4_MARK, view.getInt32(data + 8), 0, 0)
      } else if (level === IPPROTO_IPV6 && type === IPV6_PKTINFO) {
        const scope = view.getUint32(data + 16, true)
        this.#to.set(
          view.getInt32(data),
          view.getInt32(data + 4),
          view.getInt32(data + 8),
          view.getInt32(data + 12),
          0,
          scope,
        )
      }
      at += (bytes + 7) & ~7
    }
    return segment
  }

  /** Fills message slot `slot`. `segment`: 0 for a single datagram. */
  #write(
    slot: number,
    peer: Peer,
    v6: boolean,
    offset: number,
    length: number,
    segment: number,
  ): void {
    const { view, base } = this.#memory
    const tx = this.#tx
    const { remote, local } = peer
    const name = tx.names + NAME_BYTES * slot
    const message = tx.messages + MMSGHDR.size * slot
    const iovec = tx.iovecs + IOVEC.size * slot
    setAddress(view, iovec + IOVEC.base, base + offset)
    view.setUint32(iovec + IOVEC.len, length, true)
    if (v6) {
      view.setUint16(name, AF_INET6, true)
      view.setUint16(name + SOCKADDR_IN6.port, remote.port)
      view.setInt32(name + 4, 0)
      const address = name + SOCKADDR_IN6.addr
      view.setInt32(address, remote.a)
      view.setInt32(address + 4, remote.b)
      view.setInt32(address + 8, remote.c)
      view.setInt32(address + 12, remote.d)
      view.setUint32(name + SOCKADDR_IN6.scopeId, remote.scope, true)
      view.setUint32(message + MSGHDR.namelen, SOCKADDR_IN6.size, true)
    } else {
      view.setUint16(name, AF_INET, true)
      view.setUint16(name + SOCKADDR_IN.port, remote.port)
      view.setInt32(name + SOCKADDR_IN.addr, remote.d)
      view.setUint32(message + MSGHDR.namelen, SOCKADDR_IN.size, true)
    }
    const control = tx.controls + CONTROL_BYTES * slot
    let at = control
    if (segment !== 0) {
      this.#header(at, CMSG.size + 2, IPPROTO_UDP, UDP_SEGMENT)
      view.setUint16(at + CMSG.size, segment, true)
      at += CMSG.size + 8
    }
    if (!local.isUnspecified) {
      if (v6) {
        this.#header(at, CMSG.size + 20, IPPROTO_IPV6, IPV6_PKTINFO)
        const data = at + CMSG.size
        view.setInt32(data, local.a)
        view.setInt32(data + 4, local.b)
        view.setInt32(data + 8, local.c)
        view.setInt32(data + 12, local.d)
        view.setUint32(data + 16, remote.scope, true)
        at += CMSG.size + 24
      } else {
        this.#header(at, CMSG.size + 12, IPPROTO_IP, IP_PKTINFO)
        const data = at + CMSG.size
        view.setInt32(data, 0)
        view.setInt32(data + 4, local.d)
        view.setInt32(data + 8, 0)
        at += CMSG.size + 16
      }
    }
    view.setUint32(message + MSGHDR.controllen, at - control, true)
  }

  #header(at: number, length: number, level: number, type: number): void {
    const { view } = this.#memory
    view.setUint32(at + CMSG.len, length, true)
    view.setUint32(at + CMSG.len + 4, 0, true) // where an earlier message may have had its data
    view.setInt32(at + CMSG.level, level, true)
    view.setInt32(at + CMSG.type, type, true)
  }
}

/** Writes a 64-bit address; the sizes beside it fit 32 bits, so of those only the lower half is ever written. */
function setAddress(view: DataView, at: number, address: number): void {
  view.setUint32(at, address >>> 0, true)
  view.setUint32(at + 4, Math.floor(address / 2 ** 32), true)
}

function verdictOf(errno: number): Verdict {
  if (errno === E.EAGAIN || errno === E.ENOBUFS || errno === E.ENOMEM) return Verdict.TxQueueFull
  if (errno === E.EMSGSIZE) return Verdict.TxOversized
  if (errno === E.ENETUNREACH || errno === E.EHOSTUNREACH || errno === E.ENETDOWN) {
    return Verdict.TxNoRoute
  }
  return Verdict.TxLink
}
