/**
 * AF_NETLINK sockets, and what the data path asks of the kernel's routing through them: next hops, and when they may
 * have changed. Encodes the few messages that takes by hand; the project's netlink codec lives elsewhere.
 */

import { check, OsError } from './error.ts'
import {
  AF_INET,
  AF_INET6,
  AF_NETLINK,
  E,
  IOVEC,
  MSG_DONTWAIT,
  MSGHDR,
  NETLINK_ADD_MEMBERSHIP,
  NETLINK_EXT_ACK,
  NETLINK_LISTEN_ALL_NSID,
  NETLINK_ROUTE,
  NETNSA_FD,
  NETNSA_NSID,
  NLM_F_ACK,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSGERR,
  NLMSGHDR,
  POLLFD,
  POLLIN,
  RTA_DST,
  RTA_GATEWAY,
  RTA_OIF,
  RTA_VIA,
  RTM_GETNSID,
  RTM_GETROUTE,
  RTM_NEWNSID,
  RTMSG,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV4_RULE,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_IPV6_RULE,
  RTNLGRP_LINK,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_RAW,
  SOCKADDR_NL,
  SOL_NETLINK,
  TUNGETDEVNETNS,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { type Block, createBlock } from './memory.ts'
import { inNetns, netnsId, ownNetnsId } from './netns.ts'
import { setBuffer, setOption } from './sockopt.ts'
import type { Syscalls } from './syscalls.ts'

const RECEIVE_BYTES = 65536 // the kernel fills 32 KiB at most in a dump
const BUFFER_BYTES = 1 << 20
const ANSWER_MS = 2000 // routing answers in microseconds; past this something is broken

export interface NetlinkSocket extends Disposable {
  readonly fd: number
  /** Sends one datagram to the kernel. @throws OsError */
  send(message: Uint8Array): void
  /**
   * The next datagram, a copy; undefined when none has come within `timeoutMs` (0: at once, -1: no limit).
   *
   * @throws OsError, ENOBUFS when the kernel has dropped messages
   */
  receive(timeoutMs: number): Uint8Array | undefined
  /** Joins a multicast group, by its number. @throws OsError */
  join(group: number): void
  close(): void
}

export interface NetlinkOptions {
  /** Namespace to open it in; the calling thread's unless told. The descriptor stays the caller's. */
  netns?: number
  groups?: readonly number[]
}

/** Opens a socket of a netlink protocol, bound, with extended acknowledgements and large buffers. @throws OsError */
export function openNetlink(
  protocol: number,
  options: NetlinkOptions = {},
  os: Syscalls = openLibc(),
): NetlinkSocket {
  const { netns, groups = [] } = options
  const open = () => os.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
  const fd = check(
    netns === undefined ? open() : inNetns(netns, open, os),
    'socket',
    `cannot open a netlink socket of protocol ${protocol}`,
  )
  const socket: NetlinkSocket = {
    fd,
    send(message) {
      const out = createDatagram(message.length)
      out.bytes.set(message)
      out.aim(message.length)
      check(os.sendmsg(fd, out.header, 0), 'sendmsg', 'cannot send a netlink message')
    },
    receive(timeoutMs) {
      const datagram = incoming()
      let got = os.recvmsg(fd, datagram.header, MSG_DONTWAIT)
      if (got === -E.EAGAIN && timeoutMs !== 0 && waitReadable(os, fd, timeoutMs)) {
        got = os.recvmsg(fd, datagram.header, MSG_DONTWAIT)
      }
      if (got === -E.EAGAIN) return undefined
      check(got, 'recvmsg', 'cannot receive a netlink message')
      return datagram.bytes.slice(0, got)
    },
    join(group) {
      setOption(os, fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group, `cannot join group ${group}`)
    },
    close: () => os.close(fd),
    [Symbol.dispose]: () => os.close(fd),
  }
  try {
    const own = createBlock(SOCKADDR_NL.size)
    own.view.setUint16(SOCKADDR_NL.family, AF_NETLINK, true)
    check(os.bind(fd, own.base, SOCKADDR_NL.size), 'bind', 'cannot bind a netlink socket')
    setBuffer(os, fd, SO_RCVBUFFORCE, SO_RCVBUF, BUFFER_BYTES)
    setBuffer(os, fd, SO_SNDBUFFORCE, SO_SNDBUF, BUFFER_BYTES)
    setOption(os, fd, SOL_NETLINK, NETLINK_EXT_ACK, 1, 'cannot have extended acknowledgements')
    for (const group of groups) socket.join(group)
    return socket
  } catch (error) {
    os.close(fd)
    throw error
  }
}

/** A message of this file's small encoder: `nlmsghdr`, a fixed header, attributes. */
export function encodeMessage(
  type: number,
  flags: number,
  header: Uint8Array,
  attributes: readonly (readonly [type: number, value: Uint8Array])[],
): Uint8Array {
  const length =
    NLMSGHDR.size + header.length + attributes.reduce((sum, [, v]) => sum + 4 + align4(v.length), 0)
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  view.setUint32(NLMSGHDR.len, length, true)
  view.setUint16(NLMSGHDR.type, type, true)
  view.setUint16(NLMSGHDR.flags, flags, true)
  view.setUint32(NLMSGHDR.seq, 1, true)
  bytes.set(header, NLMSGHDR.size)
  let at = NLMSGHDR.size + header.length
  for (const [kind, value] of attributes) {
    view.setUint16(at, 4 + value.length, true)
    view.setUint16(at + 2, kind, true)
    bytes.set(value, at + 4)
    at += 4 + align4(value.length)
  }
  return bytes
}

/** A 32-bit attribute's value. */
export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value | 0, true)
  return bytes
}

/** Attributes in `bytes` from `at` on, by type; the last of a type wins. Stops at the first that does not fit. */
export function decodeAttributes(bytes: Uint8Array, at: number): Map<number, Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const found = new Map<number, Uint8Array>()
  while (at + 4 <= bytes.length) {
    const length = view.getUint16(at, true)
    if (length < 4 || at + length > bytes.length) break
    found.set(view.getUint16(at + 2, true) & 0x3fff, bytes.subarray(at + 4, at + length))
    at += align4(length)
  }
  return found
}

/**
 * Sends a request and collects what answers it, header included, up to its acknowledgement or the end of its dump.
 *
 * @throws OsError with the kernel's errno and `attempt`
 */
export function askNetlink(
  socket: NetlinkSocket,
  message: Uint8Array,
  attempt: string,
): Uint8Array[] {
  const until = (message[NLMSGHDR.flags]! & NLM_F_ACK) !== 0 || message[NLMSGHDR.flags + 1]! !== 0
  const answers: Uint8Array[] = []
  socket.send(message)
  for (;;) {
    const datagram = socket.receive(ANSWER_MS)
    if (datagram === undefined) throw new OsError(ETIMEDOUT, 'recvmsg', attempt)
    const view = new DataView(datagram.buffer)
    for (let at = 0; at + NLMSGHDR.size <= datagram.length; ) {
      const length = view.getUint32(at + NLMSGHDR.len, true)
      const type = view.getUint16(at + NLMSGHDR.type, true)
      if (length < NLMSGHDR.size || at + length > datagram.length) break
      if (type === NLMSG_ERROR || type === NLMSG_DONE) {
        const hasError = length >= NLMSGERR.error + 4
        const error = hasError ? view.getInt32(at + NLMSGERR.error, true) : 0
        if (error < 0) throw new OsError(-error, 'netlink', attempt)
        return answers
      }
      answers.push(datagram.slice(at, at + length))
      at += align4(length)
    }
    if (!until) return answers
  }
}

/**
 * Opens the namespace that a TUN device is in now, by the device's descriptor.
 *
 * @throws OsError (EBADFD: the device is gone)
 */
export function deviceNetns(tunFd: number, os: Syscalls = openLibc()): number {
  return check(
    os.ioctl(tunFd, TUNGETDEVNETNS, 0),
    'TUNGETDEVNETNS',
    "cannot open the device's network namespace",
  )
}

/**
 * Looks next hops up as the kernel would in the namespace of a TUN device. Each look-up enters that namespace and leaves
 * nothing in it: a socket kept there would keep the namespace alive.
 */
export class RouteQuery {
  readonly #os: Syscalls
  readonly #tunFd: number

  constructor(os: Syscalls, tunFd: number) {
    this.#os = os
    this.#tunFd = tunFd
  }

  /**
   * @param address of the destination, 4 or 16 bytes
   * @param oif index of the device the route must lead through, if any
   * @returns the gateway's address, 4 or 16 bytes; 'direct' when there is none in between; undefined without
   * a route, or when the device is gone
   */
  nextHop(address: Uint8Array, oif?: number): Uint8Array | 'direct' | undefined {
    const os = this.#os
    let netns: number
    try {
      netns = deviceNetns(this.#tunFd, os)
    } catch {
      return undefined
    }
    let socket: NetlinkSocket | undefined
    try {
      const open = () => os.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
      const fd = check(inNetns(netns, open, os), 'socket', 'cannot ask for a route')
      socket = bareSocket(os, fd)
      const header = new Uint8Array(RTMSG.size)
      header[RTMSG.family] = address.length === 4 ? AF_INET : AF_INET6
      header[RTMSG.dstLen] = address.length * 8
      const attributes: [number, Uint8Array][] = [[RTA_DST, address]]
      if (oif !== undefined) attributes.push([RTA_OIF, u32(oif)])
      const [answer] = askNetlink(
        socket,
        encodeMessage(RTM_GETROUTE, NLM_F_REQUEST, header, attributes),
        'cannot ask for a route',
      )
      if (answer === undefined) return undefined
      const route = decodeAttributes(answer, NLMSGHDR.size + RTMSG.size)
      // `via` is a gateway of the other family: two bytes of family, then the address
      return route.get(RTA_GATEWAY)?.slice() ?? route.get(RTA_VIA)?.slice(2) ?? 'direct'
    } catch (error) {
      if (error instanceof OsError) return undefined
      throw error
    } finally {
      socket?.close()
      os.close(netns)
    }
  }
}

export interface RouteWatch extends Disposable {
  /** Readable when something has changed. */
  readonly fd: number
  /** False where the kernel does not let us hear of the device's namespace: caches must then end by time. */
  readonly complete: boolean
  /** Reads all there is. `overrun`: messages were lost. Either way next hops must be asked for anew. */
  drain(): { routes: boolean; overrun: boolean }
  close(): void
}

/**
 * Hears of changed routes, rules and links in the namespace of a TUN device, from a socket in the calling thread's own.
 *
 * @throws OsError
 */
export function openRouteWatch(os: Syscalls, tunFd: number): RouteWatch {
  const socket = openNetlink(NETLINK_ROUTE, {}, os)
  let complete = true
  try {
    const netns = deviceNetns(tunFd, os)
    try {
      if (netnsId(netns, os) !== ownNetnsId(os)) complete = listenTo(os, socket, netns)
    } finally {
      os.close(netns)
    }
    for (const group of ROUTE_GROUPS) socket.join(group)
  } catch (error) {
    socket.close()
    throw error
  }
  const { fd } = socket
  return {
    fd,
    complete,
    drain() {
      let routes = false
      let overrun = false
      // bounded: a namespace that changes without end must not keep the caller here
      for (let i = 0; i < 256; i++) {
        try {
          if (socket.receive(0) === undefined) break
          routes = true
        } catch (error) {
          if (!(error instanceof OsError) || error.errno !== E.ENOBUFS) throw error
          overrun = true
          routes = true
        }
      }
      return { routes, overrun }
    },
    close: () => os.close(fd),
    [Symbol.dispose]: () => os.close(fd),
  }
}

const ETIMEDOUT = 110
const ROUTE_GROUPS = [
  RTNLGRP_LINK,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV4_RULE,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_IPV6_RULE,
]

/**
 * The number by which one namespace knows another, given out if there is none yet. Both are the caller's descriptors.
 *
 * @throws OsError
 */
export function netnsNumber(from: number, of: number, os: Syscalls = openLibc()): number {
  using socket = openNetlink(NETLINK_ROUTE, { netns: from }, os)
  const header = new Uint8Array(4)
  const number = (type: number, flags: number, attributes: [number, Uint8Array][]) =>
    askNetlink(
      socket,
      encodeMessage(type, flags, header, attributes),
      'cannot number a network namespace',
    )
  const named: [number, Uint8Array] = [NETNSA_FD, u32(of)]
  try {
    number(RTM_NEWNSID, NLM_F_REQUEST | NLM_F_ACK, [[NETNSA_NSID, u32(-1)], named])
  } catch (error) {
    if (!(error instanceof OsError) || error.errno !== E.EEXIST) throw error
  }
  const [answer] = number(RTM_GETNSID, NLM_F_REQUEST, [named])
  const found = answer && decodeAttributes(answer, NLMSGHDR.size + 4).get(NETNSA_NSID)
  if (found === undefined) throw new OsError(E.ENOENT, 'RTM_GETNSID', 'a namespace has no number')
  return new DataView(found.buffer, found.byteOffset).getInt32(0, true)
}

/** Has the socket hear of another namespace too; false where that is not permitted. */
function listenTo(os: Syscalls, socket: NetlinkSocket, netns: number): boolean {
  try {
    setOption(os, socket.fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1, 'cannot hear of others')
    const attributes: [number, Uint8Array][] = [
      [NETNSA_NSID, u32(-1)],
      [NETNSA_FD, u32(netns)],
    ]
    // only a namespace that has a number in ours is heard
    const header = new Uint8Array(4)
    const request = encodeMessage(RTM_NEWNSID, NLM_F_REQUEST | NLM_F_ACK, header, attributes)
    askNetlink(socket, request, 'cannot number a network namespace')
    return true
  } catch (error) {
    if (!(error instanceof OsError)) throw error
    if (error.errno === E.EEXIST) return true
    if (error.errno === E.EPERM) return false
    throw error
  }
}

/**
 * Reads one datagram of any netlink socket, without waiting. Lost messages (ENOBUFS) are passed over.
 *
 * @returns a copy, or undefined when there is none
 * @throws OsError
 */
export function receiveNetlink(os: Syscalls, fd: number): Uint8Array | undefined {
  for (;;) {
    const datagram = incoming()
    const got = os.recvmsg(fd, datagram.header, MSG_DONTWAIT)
    if (got === -E.EAGAIN) return undefined
    if (got === -E.ENOBUFS) continue
    check(got, 'recvmsg', 'cannot receive a netlink message')
    return datagram.bytes.slice(0, got)
  }
}

/** For one request: unbound, small, no options. */
function bareSocket(os: Syscalls, fd: number): NetlinkSocket {
  const datagram = createDatagram(4096)
  const close = () => {
    os.close(fd)
  }
  return {
    fd,
    send(message) {
      datagram.bytes.set(message)
      datagram.aim(message.length)
      check(os.sendmsg(fd, datagram.header, 0), 'sendmsg', 'cannot send a netlink message')
    },
    receive() {
      datagram.aim(4096)
      // the kernel has answered before sendmsg returned: there is nothing to wait for
      const got = os.recvmsg(fd, datagram.header, MSG_DONTWAIT)
      check(got, 'recvmsg', 'cannot receive a netlink message')
      return datagram.bytes.slice(0, got)
    },
    join() {},
    close,
    [Symbol.dispose]: close,
  }
}

let shared: ReturnType<typeof createDatagram> | undefined

/** Room for what comes, the same for all sockets of a thread: it is copied before anybody else is called. */
function incoming(): ReturnType<typeof createDatagram> {
  shared ??= createDatagram(RECEIVE_BYTES)
  shared.aim(RECEIVE_BYTES)
  return shared
}

/** A `msghdr` to the kernel with one piece of memory. */
function createDatagram(bytes: number) {
  const name = MSGHDR.size
  const iov = name + 16
  const data = iov + IOVEC.size
  const block: Block = createBlock(data + bytes)
  const { view, base } = block
  view.setUint16(name + SOCKADDR_NL.family, AF_NETLINK, true)
  view.setBigUint64(MSGHDR.name, BigInt(base + name), true)
  view.setBigUint64(MSGHDR.iov, BigInt(base + iov), true)
  view.setBigUint64(MSGHDR.iovlen, 1n, true)
  view.setBigUint64(iov + IOVEC.base, BigInt(base + data), true)
  return {
    header: base,
    bytes: block.u8.subarray(data, data + bytes),
    aim(length: number) {
      view.setUint32(MSGHDR.namelen, SOCKADDR_NL.size, true)
      view.setUint32(iov + IOVEC.len, length, true)
    },
  }
}

function waitReadable(os: Syscalls, fd: number, timeoutMs: number): boolean {
  const wait = createBlock(POLLFD.size)
  wait.view.setInt32(POLLFD.fd, fd, true)
  wait.view.setInt16(POLLFD.events, POLLIN, true)
  return os.poll(wait.base, 1, timeoutMs) > 0
}

const align4 = (length: number) => (length + 3) & ~3
