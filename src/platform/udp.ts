/**
 * UDP sockets: the take-over of a bound one, so that the kernel sorts its data packets to the driver's workers and
 * leaves all others to its owner (design.md, D4). What the packets hold is the driver's business.
 */

import { cpus } from 'node:os'
import { check, OsError } from './error.ts'
import {
  AF_INET,
  AF_INET6,
  BPF,
  E,
  INET_DIAG_MSG,
  INET_DIAG_REQ,
  IP_MTU,
  IP_MTU_DISCOVER,
  IP_PKTINFO,
  IP_PMTUDISC_DONT,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPV6_MTU,
  IPV6_MTU_DISCOVER,
  IPV6_RECVPKTINFO,
  IPV6_V6ONLY,
  NETLINK_SOCK_DIAG,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  NLMSGHDR,
  SIOCGSKNS,
  SKNLGRP_INET_TCP_DESTROY,
  SKNLGRP_INET_UDP_DESTROY,
  SKNLGRP_INET6_TCP_DESTROY,
  SKNLGRP_INET6_UDP_DESTROY,
  SO_ATTACH_REUSEPORT_CBPF,
  SO_BINDTODEVICE,
  SO_DOMAIN,
  SO_INCOMING_CPU,
  SO_MARK,
  SO_NO_CHECK,
  SO_PROTOCOL,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_REUSEPORT,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_DIAG_BY_FAMILY,
  SOCK_FILTER,
  SOCK_FPROG,
  SOCK_NONBLOCK,
  SOCKADDR_IN,
  SOCKADDR_IN6,
  SOL_SOCKET,
  STATX,
  UDP_GRO,
  UDP_NO_CHECK6_TX,
  UDP_SEGMENT,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { type Block, createBlock } from './memory.ts'
import {
  askNetlink,
  encodeMessage,
  type NetlinkSocket,
  openNetlink,
  receiveNetlink,
} from './netlink.ts'
import { inNetns, netnsId, statFd } from './netns.ts'
import { encodeAddress, nameOf, type SocketAddress } from './sockaddr.ts'
import {
  getBytesOption,
  getOption,
  setBuffer,
  setOption,
  socketCookie,
  trySetOption,
} from './sockopt.ts'
import type { Syscalls } from './syscalls.ts'

const BUFFER_BYTES = 4 << 20
const MAX_PROCESSORS = 256
const OPCODE_SHIFT = 3
const P_DATA_V1 = 6 // opcodes: the OpenVPN protocol, as docs/PROTOCOL.md has them
const P_DATA_V2 = 9
const PEER_ID_MASK = 0xffffff
const HEADER_BYTES = 4
const ORIGINAL = 0 // its place in the group: it was bound first
const FIRST_SHARD = 1

/** What a descriptor is, found without changing it. */
export interface SocketFacts {
  protocol: 'udp' | 'tcp' | 'other'
  /** Unique while the system runs. */
  cookie: bigint
}

/** @throws OsError ENOTSOCK, EBADF */
export function inspectSocket(fd: number, os: Syscalls = openLibc()): SocketFacts {
  const attempt = `descriptor ${fd} is not a socket`
  const domain = getOption(os, fd, SOL_SOCKET, SO_DOMAIN, attempt)
  const number = getOption(os, fd, SOL_SOCKET, SO_PROTOCOL, attempt)
  const inet = domain === AF_INET || domain === AF_INET6
  const protocol =
    inet && number === IPPROTO_UDP ? 'udp' : inet && number === IPPROTO_TCP ? 'tcp' : 'other'
  return { protocol, cookie: socketCookie(fd, os) }
}

/** The network namespace of a socket, opened. @throws OsError EPERM without CAP_NET_ADMIN there */
export function socketNetns(fd: number, os: Syscalls = openLibc()): number {
  return check(
    os.ioctl(fd, SIOCGSKNS, 0),
    'SIOCGSKNS',
    `cannot open the network namespace of socket ${fd}`,
  )
}

export interface JoinOptions {
  /** Sockets of the driver's own, one per worker. */
  shards: number
  /** P_DATA_V1 packets: to the first shard, which drops and counts them, or to the socket's owner. */
  steering: { v1: 'drop' | 'pass' }
  rcvbuf?: number
  /** Whether trains of datagrams come in one piece (UDP_GRO), where the kernel can; true unless told. */
  gro?: boolean
}

/** Whether the kernel sends trains of datagrams in one piece (UDP_SEGMENT, Linux 4.18), and receives them so (UDP_GRO, 5.0). */
export function udpOffloads(os: Syscalls = openLibc()): { gso: boolean; gro: boolean } {
  const fd = check(os.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket', 'no UDP socket')
  try {
    return {
      gso: trySetOption(os, fd, IPPROTO_UDP, UDP_SEGMENT, 0) >= 0,
      gro: trySetOption(os, fd, IPPROTO_UDP, UDP_GRO, 1) >= 0,
    }
  } finally {
    os.close(fd)
  }
}

export interface JoinedUdp extends Disposable {
  /** Non-blocking; P_DATA_V2 of a peer ID comes to shard `peerId % shards.length`, anything too short to the first. */
  readonly shards: readonly number[]
  readonly family: 4 | 6
  readonly localPort: number
  /** Identity of the socket's network namespace, as `netnsId` has it. */
  readonly netns: string
  /** Becomes readable when a socket of that namespace has been closed: `parseClosedSockets`. */
  readonly closeWatch: number
  /** Gives the socket back to its owner alone. */
  close(): void
}

/**
 * Takes part in a bound UDP socket. `userFd` stays the caller's, who closes it next if it is a duplicate: only then is
 * its owner's close a close. Datagrams that arrive while this runs may reach the first shard whatever they are.
 *
 * @throws OsError EPROTOTYPE (not UDP), EISCONN, EINVAL (not bound), EBUSY (shared already), EPERM, EADDRINUSE
 */
export function joinUdp(
  userFd: number,
  options: JoinOptions,
  os: Syscalls = openLibc(),
): JoinedUdp {
  const { protocol, cookie } = inspectSocket(userFd, os)
  if (protocol !== 'udp') {
    throw new OsError(E.EPROTOTYPE, 'getsockopt', `socket ${userFd} is not a UDP socket`)
  }
  if (isConnected(os, userFd)) {
    throw new OsError(
      E.EISCONN,
      'getpeername',
      'the UDP socket is connected: the kernel would give it all packets of that address, data packets too; leave it unconnected',
    )
  }
  const name = nameOf(os, userFd, 'getsockname', 'the socket has no address')
  const localPort = name.block.view.getUint16(SOCKADDR_IN.port)
  if (localPort === 0) throw new OsError(E.EINVAL, 'getsockname', 'the UDP socket is not bound')
  const family = name.block.view.getUint16(SOCKADDR_IN.family, true) === AF_INET6 ? 6 : 4

  const opened: number[] = []
  const close = () => {
    for (const fd of opened.splice(0)) os.close(fd)
  }
  const netns = socketNetns(userFd, os)
  try {
    const watch = openNetlink(NETLINK_SOCK_DIAG, { netns }, os)
    opened.push(watch.fd)
    refuseShared(watch, name.block, family, cookie)
    for (const group of DESTROY_GROUPS) watch.join(group)
    setOption(os, userFd, SOL_SOCKET, SO_REUSEPORT, 1, 'cannot share the UDP socket')
    const members: number[] = []
    const processors = Math.min(cpus().length, MAX_PROCESSORS)
    while (members.length < Math.max(options.shards, processors)) {
      const processor = members.length % processors
      const fd = openMember(os, userFd, netns, family, processor, options.gro ?? true)
      opened.push(fd)
      const attempt = `cannot bind a socket beside the one at port ${localPort}`
      check(os.bind(fd, name.block.base, name.length), 'bind', attempt)
      // the group exists from the first bind on; what came before that went by a hash of addresses
      if (members.push(fd) === 1) attachSteering(os, userFd, options)
    }
    const shards = members.slice(0, options.shards)
    for (const fd of shards) {
      setBuffer(os, fd, SO_RCVBUFFORCE, SO_RCVBUF, options.rcvbuf ?? BUFFER_BYTES)
      setBuffer(os, fd, SO_SNDBUFFORCE, SO_SNDBUF, BUFFER_BYTES)
    }
    return {
      shards,
      family,
      localPort,
      netns: netnsId(netns, os),
      closeWatch: watch.fd,
      close,
      [Symbol.dispose]: close,
    }
  } catch (error) {
    close()
    throw error
  } finally {
    os.close(netns)
  }
}

const DESTROY_GROUPS = [
  SKNLGRP_INET_TCP_DESTROY,
  SKNLGRP_INET_UDP_DESTROY,
  SKNLGRP_INET6_TCP_DESTROY,
  SKNLGRP_INET6_UDP_DESTROY,
]

/**
 * Reads all that a close watch has to tell: cookies of sockets that were closed. Some may be missing after very many
 * closes at once. Never blocks.
 */
export function parseClosedSockets(os: Syscalls, watchFd: number): bigint[] {
  const cookies: bigint[] = []
  for (;;) {
    const datagram = receiveNetlink(os, watchFd)
    if (datagram === undefined) return cookies
    for (const message of socketsIn(datagram)) cookies.push(message.cookie)
  }
}

function isConnected(os: Syscalls, fd: number): boolean {
  try {
    nameOf(os, fd, 'getpeername', 'no peer')
    return true
  } catch (error) {
    if (error instanceof OsError && error.errno === E.ENOTCONN) return false
    throw error
  }
}

/** Others at the same address would get a share of the packets, and their places in the group are unknown. */
function refuseShared(watch: NetlinkSocket, name: Block, family: 4 | 6, cookie: bigint): void {
  const request = new Uint8Array(INET_DIAG_REQ.size)
  const view = new DataView(request.buffer)
  view.setUint8(INET_DIAG_REQ.family, family === 6 ? AF_INET6 : AF_INET)
  view.setUint8(INET_DIAG_REQ.protocol, IPPROTO_UDP)
  view.setUint32(INET_DIAG_REQ.states, 0xffffffff, true)
  view.setUint16(INET_DIAG_REQ.sport, name.view.getUint16(SOCKADDR_IN.port))
  const flags = NLM_F_REQUEST | NLM_F_DUMP
  const dump = askNetlink(
    watch,
    encodeMessage(SOCK_DIAG_BY_FAMILY, flags, request, []),
    'cannot list the sockets at its port',
  )
  const sockets = dump.flatMap((message) => [...socketsIn(message)])
  const own = sockets.find((socket) => socket.cookie === cookie)
  const other = sockets.find(
    (socket) =>
      socket.cookie !== cookie &&
      socket.remotePort === 0 &&
      (own === undefined || socket.place === own.place),
  )
  if (other !== undefined) {
    throw new OsError(
      E.EBUSY,
      'bind',
      `the UDP socket shares its address with another one (cookie ${other.cookie})`,
    )
  }
}

interface DiagSocket {
  cookie: bigint
  remotePort: number
  /** Local address and device, as one string to compare. */
  place: string
}

/** The `inet_diag_msg`s of a datagram. */
function* socketsIn(datagram: Uint8Array): Generator<DiagSocket> {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length)
  for (let at = 0; at + NLMSGHDR.size <= datagram.length; ) {
    const length = view.getUint32(at + NLMSGHDR.len, true)
    const type = view.getUint16(at + NLMSGHDR.type, true)
    if (length < NLMSGHDR.size || at + length > datagram.length) return
    if (type === SOCK_DIAG_BY_FAMILY && length >= NLMSGHDR.size + INET_DIAG_MSG.size) {
      const body = at + NLMSGHDR.size
      const address = datagram.subarray(body + INET_DIAG_MSG.src, body + INET_DIAG_MSG.src + 16)
      yield {
        cookie: view.getBigUint64(body + INET_DIAG_MSG.cookie, true),
        remotePort: view.getUint16(body + INET_DIAG_MSG.dport),
        place: `${address.join('.')}%${view.getUint32(body + INET_DIAG_MSG.ifindex, true)}`,
      }
    }
    at += (length + 3) & ~3
  }
}

/**
 * A socket like the owner's in all that decides which packets it gets and how packets leave it.
 *
 * Before the kernel glues datagrams together (GRO) it looks for the socket they are for and asks whether that wants it;
 * the steering program has no say there. It takes the group's socket for the processor at work, or else one by a hash
 * of the flow's addresses: the owner's, for its share of flows, and that wants nothing glued. So the group has a socket
 * for each processor, beyond the shards if need be; those get no packet. Measured on two processors with one shard:
 * with its socket alone, half of the flows arrive glued; so all.
 */
function openMember(
  os: Syscalls,
  userFd: number,
  netns: number,
  family: 4 | 6,
  processor: number,
  gro: boolean,
): number {
  const kind = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC
  const open = () => os.socket(family === 6 ? AF_INET6 : AF_INET, kind, IPPROTO_UDP)
  const fd = check(inNetns(netns, open, os), 'socket', 'cannot open a UDP socket')
  const attempt = 'cannot set up a UDP socket'
  const set = (level: number, name: number, value: number) =>
    setOption(os, fd, level, name, value, attempt)
  const copy = (level: number, name: number) => {
    const value = getOption(os, userFd, level, name, attempt)
    if (value !== 0) set(level, name, value)
  }
  try {
    // sockets share an address only with those of the same user
    const owner = statFd(userFd, os).getUint32(STATX.uid, true)
    check(os.fchown(fd, owner, 0xffffffff), 'fchown', attempt)
    set(SOL_SOCKET, SO_REUSEPORT, 1)
    copyRouting(os, userFd, fd, attempt)
    copy(SOL_SOCKET, SO_NO_CHECK)
    if (family === 6) {
      set(IPPROTO_IPV6, IPV6_V6ONLY, getOption(os, userFd, IPPROTO_IPV6, IPV6_V6ONLY, attempt))
      copy(IPPROTO_UDP, UDP_NO_CHECK6_TX)
      set(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
      set(IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DONT)
    } else {
      set(IPPROTO_IP, IP_PKTINFO, 1)
    }
    set(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT) // of IPv6 sockets too: it holds for mapped addresses
    if (gro) set(IPPROTO_UDP, UDP_GRO, 1)
    set(SOL_SOCKET, SO_INCOMING_CPU, processor)
    return fd
  } catch (error) {
    os.close(fd)
    throw error
  }
}

/** What decides of a socket where its packets go, beside their addresses. */
function copyRouting(os: Syscalls, from: number, to: number, attempt: string): void {
  const device = getBytesOption(os, from, SOL_SOCKET, SO_BINDTODEVICE, 16, attempt).u8
  if (device.length > 0) {
    const block = createBlock(device.length)
    block.u8.set(device)
    const bound = os.setsockopt(to, SOL_SOCKET, SO_BINDTODEVICE, block.base, device.length)
    check(bound, 'setsockopt', attempt)
  }
  const mark = getOption(os, from, SOL_SOCKET, SO_MARK, attempt)
  if (mark !== 0) setOption(os, to, SOL_SOCKET, SO_MARK, mark, attempt)
}

/** Knows the way of a socket's packets, by sockets of its own that nothing is sent from. */
export class PathProbe implements Disposable {
  readonly #fd: number
  readonly #os: Syscalls
  /** By address family. */
  readonly #sockets = new Map<number, number>()

  /** @param fd stays open for as long as this is asked */
  constructor(fd: number, os: Syscalls = openLibc()) {
    this.#fd = fd
    this.#os = os
  }

  /**
   * Bytes of the largest packet, IP header included, that goes unfragmented from the socket to an address, as far as this
   * machine knows; undefined where no route leads there.
   *
   * @throws OsError
   */
  mtu(remote: SocketAddress): number | undefined {
    const os = this.#os
    const attempt = `cannot find the path to ${remote.address}`
    const to = encodeAddress(remote)
    const probe = this.#sockets.get(to.family) ?? this.#open(to.family, attempt)
    copyRouting(os, this.#fd, probe, attempt) // anew: the kernel forgets the device at the end of a connection
    try {
      if (os.connect(probe, to.block.base, to.length) < 0) return undefined
      return to.family === AF_INET6
        ? getOption(os, probe, IPPROTO_IPV6, IPV6_MTU, attempt)
        : getOption(os, probe, IPPROTO_IP, IP_MTU, attempt)
    } finally {
      const nowhere = createBlock(SOCKADDR_IN.size) // AF_UNSPEC, which ends it, its own address too
      os.connect(probe, nowhere.base, SOCKADDR_IN.size)
    }
  }

  #open(family: number, attempt: string): number {
    const os = this.#os
    const netns = socketNetns(this.#fd, os)
    try {
      const open = () => os.socket(family, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP)
      const probe = check(inNetns(netns, open, os), 'socket', attempt)
      this.#sockets.set(family, probe)
      return probe
    } finally {
      os.close(netns)
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#sockets.values()) this.#os.close(fd)
    this.#sockets.clear()
  }
}

type Instruction = [code: number, jt: number, jf: number, k: number]

/** Which socket of the group a datagram is for; offset 0 is the first byte of its payload. */
function steeringProgram({ shards, steering }: JoinOptions): Instruction[] {
  return [
    [BPF.LD_W_LEN, 0, 0, 0],
    [BPF.JGE_K, 1, 0, HEADER_BYTES],
    [BPF.RET_K, 0, 0, FIRST_SHARD], // too short to be anything
    [BPF.LD_B_ABS, 0, 0, 0],
    [BPF.RSH_K, 0, 0, OPCODE_SHIFT],
    [BPF.JEQ_K, 3, 0, P_DATA_V2],
    [BPF.JEQ_K, 0, 1, P_DATA_V1],
    [BPF.RET_K, 0, 0, steering.v1 === 'drop' ? FIRST_SHARD : ORIGINAL],
    [BPF.RET_K, 0, 0, ORIGINAL],
    [BPF.LD_W_ABS, 0, 0, 0],
    [BPF.AND_K, 0, 0, PEER_ID_MASK],
    [BPF.MOD_K, 0, 0, shards],
    [BPF.ADD_K, 0, 0, FIRST_SHARD],
    [BPF.RET_A, 0, 0, 0],
  ]
}

function attachSteering(os: Syscalls, fd: number, options: JoinOptions): void {
  const program = steeringProgram(options)
  const code = createBlock(SOCK_FILTER.size * program.length)
  for (const [i, [op, jt, jf, k]] of program.entries()) {
    const at = SOCK_FILTER.size * i
    code.view.setUint16(at + SOCK_FILTER.code, op, true)
    code.view.setUint8(at + SOCK_FILTER.jt, jt)
    code.view.setUint8(at + SOCK_FILTER.jf, jf)
    code.view.setUint32(at + SOCK_FILTER.k, k, true)
  }
  const header = createBlock(SOCK_FPROG.size)
  header.view.setUint16(SOCK_FPROG.len, program.length, true)
  header.view.setBigUint64(SOCK_FPROG.filter, BigInt(code.base), true)
  check(
    os.setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, header.base, SOCK_FPROG.size),
    'SO_ATTACH_REUSEPORT_CBPF',
    'cannot have the kernel sort the packets of the UDP socket',
  )
}

/** A bound UDP socket, as a program that uses the driver has one. */
export interface BoundUdp extends Disposable {
  readonly fd: number
  readonly port: number
  close(): void
}

/**
 * Opens and binds a UDP socket, non-blocking.
 *
 * @param port 0 for any
 * @throws OsError EADDRINUSE and the like
 */
export function openUdp(
  address: string,
  port: number,
  options: { netns?: number; v6only?: boolean } = {},
  os: Syscalls = openLibc(),
): BoundUdp {
  const { netns, v6only = false } = options
  const at = encodeAddress({ address, port, scope: 0 })
  const open = () => os.socket(at.family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  const attempt = `cannot open a UDP socket at ${address} port ${port}`
  const fd = check(netns === undefined ? open() : inNetns(netns, open, os), 'socket', attempt)
  const close = () => {
    os.close(fd)
  }
  try {
    if (at.family === AF_INET6) {
      setOption(os, fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only ? 1 : 0, attempt)
    }
    check(os.bind(fd, at.block.base, at.length), 'bind', attempt)
    const bound = nameOf(os, fd, 'getsockname', attempt)
    const boundPort = bound.block.view.getUint16(SOCKADDR_IN6.port)
    return { fd, port: boundPort, close, [Symbol.dispose]: close }
  } catch (error) {
    close()
    throw error
  }
}
