/**
 * Datagrams one by one, with the way they took: what a control channel needs of a UDP socket. The bulk of packets goes past it
 * (the driver joins the socket: udp.ts).
 */

import ipaddr from 'ipaddr.js'
import { check } from './error.ts'
import {
  AF_INET6,
  CMSG,
  E,
  IOVEC,
  IP_PKTINFO,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_PKTINFO,
  IPV6_RECVPKTINFO,
  IPV6_V6ONLY,
  MSG_DONTWAIT,
  MSGHDR,
  SO_BINDTODEVICE,
  SO_MARK,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_SOCKET,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOfText, createBlock } from './memory.ts'
import { inNetns } from './netns.ts'
import {
  decodeAddress,
  type EncodedAddress,
  encodeAddress,
  nameOf,
  type SocketAddress,
} from './sockaddr.ts'
import { setBuffer, setOption } from './sockopt.ts'
import type { Syscalls } from './syscalls.ts'

/** What all transport sockets may be given. */
export interface SocketOptions {
  readonly netns?: number
  /** IPv6 sockets: whether IPv4 is left to others. */
  readonly v6only?: boolean
  /** Firewall mark of what is sent (SO_MARK). */
  readonly mark?: number
  /** Name of the one interface that is used. */
  readonly device?: string
  readonly rcvbuf?: number
  readonly sndbuf?: number
}

export interface DatagramOptions extends SocketOptions {
  /** Tell the address that each datagram was sent to, and answer from it. */
  readonly multihome?: boolean
}

export interface Datagram {
  readonly packet: Uint8Array
  readonly from: SocketAddress
  /** The address it was sent to; with `multihome`. */
  readonly to?: string
}

const PACKET_BYTES = 65_536
const CONTROL_BYTES = 64
const NAME_BYTES = 128
/** `in_pktinfo`: interface 4, our address 4, the header's address 4. */
const PKTINFO = { specific: 4, header: 8, size: 12 } as const
/** `in6_pktinfo`: address 16, interface 4. */
const PKTINFO6 = { address: 0, interface: 16, size: 20 } as const

export class Datagrams {
  readonly fd: number
  readonly local: SocketAddress
  readonly #os: Syscalls
  readonly #v6: boolean
  readonly #name = createBlock(NAME_BYTES)
  readonly #data = createBlock(PACKET_BYTES)
  readonly #control = createBlock(CONTROL_BYTES)
  readonly #iov = createBlock(IOVEC.size)
  readonly #header = createBlock(MSGHDR.size)
  /** Of those who were sent to: a handshake is ten datagrams to one, and writing its address down costs 10 µs. */
  readonly #names = new WeakMap<SocketAddress, EncodedAddress>()

  /** Opens and binds; port 0 for any. @throws OsError EADDRINUSE and the like */
  constructor(
    address: string,
    port: number,
    options: DatagramOptions = {},
    os: Syscalls = openLibc(),
  ) {
    const attempt = `cannot open a UDP socket at ${address} port ${port}`
    const at = encodeAddress({ address, port, scope: 0 })
    this.#os = os
    this.#v6 = at.family === AF_INET6
    const open = () => os.socket(at.family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    const { netns } = options
    this.fd = check(netns === undefined ? open() : inNetns(netns, open, os), 'socket', attempt)
    try {
      applyOptions(os, this.fd, this.#v6, options, attempt)
      if (options.multihome === true) {
        setOption(os, this.fd, IPPROTO_IP, IP_PKTINFO, 1, attempt)
        if (this.#v6) setOption(os, this.fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1, attempt)
      }
      check(os.bind(this.fd, at.block.base, at.length), 'bind', attempt)
      this.#aim()
      this.local = decodeAddress(nameOf(os, this.fd, 'getsockname', attempt).block)!
    } catch (error) {
      os.close(this.fd)
      throw error
    }
  }

  /** The next datagram, in new memory; undefined when there is none. Errors that the network reported are passed over. */
  receive(): Datagram | undefined {
    for (;;) {
      this.#prepare(this.#name.u8.length, PACKET_BYTES, CONTROL_BYTES)
      const length = this.#os.recvmsg(this.fd, this.#header.base, MSG_DONTWAIT)
      if (length === -E.EAGAIN || length === -E.ENOMEM) return undefined
      // ECONNREFUSED and the like tell of an earlier datagram; another may be waiting behind.
      if (length < 0) {
        if (length === -EBADF || length === -E.ENOTSOCK) return undefined
        continue
      }
      const from = decodeAddress(this.#name)
      if (from === undefined) continue
      const to = this.#destination()
      const packet = this.#data.u8.slice(0, length)
      return to === undefined ? { packet, from } : { packet, from, to }
    }
  }

  /**
   * @param to must not change
   * @returns 0 or -errno
   */
  send(packet: Uint8Array, to: SocketAddress, from?: string): number {
    if (packet.length > PACKET_BYTES) return -E.EMSGSIZE
    const name = this.#nameOf(to)
    this.#name.u8.set(name.block.u8.subarray(0, name.length))
    this.#data.u8.set(packet)
    const control = from === undefined ? 0 : this.#source(from, to.scope)
    this.#prepare(name.length, packet.length, control)
    return Math.min(0, this.#os.sendmsg(this.fd, this.#header.base, MSG_DONTWAIT))
  }

  close(): void {
    this.#os.close(this.fd)
  }

  #nameOf(to: SocketAddress): EncodedAddress {
    let name = this.#names.get(to)
    if (name === undefined) {
      const mapped = this.#v6 && !to.address.includes(':')
      name = encodeAddress(mapped ? { ...to, address: `::ffff:${to.address}` } : to)
      this.#names.set(to, name)
    }
    return name
  }

  /** What is the same for every message. */
  #aim(): void {
    this.#iov.view.setBigUint64(IOVEC.base, BigInt(this.#data.base), true)
    const { view } = this.#header
    view.setBigUint64(MSGHDR.name, BigInt(this.#name.base), true)
    view.setBigUint64(MSGHDR.iov, BigInt(this.#iov.base), true)
    view.setBigUint64(MSGHDR.iovlen, 1n, true)
    view.setBigUint64(MSGHDR.control, BigInt(this.#control.base), true)
  }

  /** Lengths, whose upper halves stay 0. */
  #prepare(nameLength: number, length: number, control: number): void {
    this.#iov.view.setUint32(IOVEC.len, length, true)
    const { view } = this.#header
    view.setUint32(MSGHDR.namelen, nameLength, true)
    view.setUint32(MSGHDR.controllen, control, true)
  }

  #destination(): string | undefined {
    const { view, u8 } = this.#control
    const end = this.#header.view.getUint32(MSGHDR.controllen, true)
    for (let at = 0; at + CMSG.size <= end; ) {
      const length = Number(view.getBigUint64(at + CMSG.len, true))
      if (length < CMSG.size) return undefined
      const level = view.getInt32(at + CMSG.level, true)
      const type = view.getInt32(at + CMSG.type, true)
      const data = at + CMSG.size
      if (level === IPPROTO_IP && type === IP_PKTINFO) {
        return addressAt(u8, data + PKTINFO.header, 4)
      }
      if (level === IPPROTO_IPV6 && type === IPV6_PKTINFO) {
        return addressAt(u8, data + PKTINFO6.address, 16)
      }
      at += (length + 7) & ~7
    }
    return undefined
  }

  /** Writes what has an answer leave from `from`; returns the bytes of it. */
  #source(from: string, scope: number): number {
    const bytes = Uint8Array.from(ipaddr.parse(from).toByteArray())
    const v4 = bytes.length === 4 && !this.#v6
    const { view, u8 } = this.#control
    u8.fill(0)
    const size = v4 ? PKTINFO.size : PKTINFO6.size
    view.setBigUint64(CMSG.len, BigInt(CMSG.size + size), true)
    view.setInt32(CMSG.level, v4 ? IPPROTO_IP : IPPROTO_IPV6, true)
    view.setInt32(CMSG.type, v4 ? IP_PKTINFO : IPV6_PKTINFO, true)
    if (v4) u8.set(bytes, CMSG.size + PKTINFO.specific)
    else {
      u8.set(bytes.length === 4 ? mappedBytes(bytes) : bytes, CMSG.size + PKTINFO6.address)
      view.setInt32(CMSG.size + PKTINFO6.interface, scope, true)
    }
    return (CMSG.size + size + 7) & ~7
  }
}

const EBADF = 9

function mappedBytes(v4: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16)
  bytes.fill(0xff, 10, 12)
  bytes.set(v4, 12)
  return bytes
}

function addressAt(u8: Uint8Array, at: number, length: number): string {
  return ipaddr
    .process(ipaddr.fromByteArray([...u8.subarray(at, at + length)]).toString())
    .toString()
}

/** Options that sockets of all kinds have, before they are bound. @throws OsError with `attempt` as its text */
export function applyOptions(
  os: Syscalls,
  fd: number,
  v6: boolean,
  options: SocketOptions,
  attempt: string,
): void {
  const { v6only = false, mark, device, rcvbuf, sndbuf } = options
  if (v6) setOption(os, fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only ? 1 : 0, attempt)
  if (mark !== undefined) setOption(os, fd, SOL_SOCKET, SO_MARK, mark, attempt)
  if (device !== undefined) {
    const name = blockOfText(device)
    const done = os.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name.base, device.length + 1)
    check(done, 'setsockopt', `${attempt} on ${device}`)
  }
  if (rcvbuf !== undefined) setBuffer(os, fd, SO_RCVBUFFORCE, SO_RCVBUF, rcvbuf)
  if (sndbuf !== undefined) setBuffer(os, fd, SO_SNDBUFFORCE, SO_SNDBUF, sndbuf)
}
