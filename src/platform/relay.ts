/**
 * A socket that acts for one of another process: calls are carried out as that process gave them, their structures copied.
 * Gives results as the kernel does (`-errno`), since they are handed on. What passes is up to the callers.
 */

import { check } from './error.ts'
import {
  AF_NETLINK,
  AF_UNIX,
  IOVEC,
  MSG_DONTWAIT,
  MSGHDR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCKADDR_NL,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOf, createBlock } from './memory.ts'
import { inNetns, netnsId, ownNetnsId } from './netns.ts'
import type { Syscalls } from './syscalls.ts'

const MSG_TRUNC = 0x20
const SOCK_SEQPACKET = 5
const RECEIVE_BYTES = 65536 // the kernel fills 32 KiB at most in a dump

/** A datagram, and the address it came from as it stands (`sockaddr_nl`). */
export interface Received {
  readonly bytes: Uint8Array
  readonly from: Uint8Array
}

/** One of the kernel's netlink sockets. */
export interface RelaySocket extends Disposable {
  readonly fd: number
  /** Sends to the kernel. Bytes sent, or -errno. */
  send(datagram: Uint8Array): number
  /** What has come; -EAGAIN when nothing has, -ENOBUFS when something was lost. */
  receive(): Received | number
  bind(address: Uint8Array): number
  connect(address: Uint8Array): number
  /** Its own address. */
  name(): Uint8Array | number
  setOption(level: number, name: number, value: Uint8Array): number
  getOption(level: number, name: number, room: number): Uint8Array | number
}

/**
 * @param type of the socket: SOCK_RAW or SOCK_DGRAM
 * @param netns descriptor of the namespace to open it in, the caller's
 * @throws OsError
 */
export function openRelay(
  type: number,
  protocol: number,
  netns: number,
  os: Syscalls = openLibc(),
): RelaySocket {
  const open = () => os.socket(AF_NETLINK, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)
  const here = netnsId(netns, os) === ownNetnsId(os)
  const fd = check(
    here ? open() : inNetns(netns, open, os),
    'socket',
    'cannot open a netlink socket',
  )
  const name = MSGHDR.size
  const iov = name + 16
  const data = iov + IOVEC.size
  const { view, u8, base } = createBlock(data + RECEIVE_BYTES)
  view.setBigUint64(MSGHDR.name, BigInt(base + name), true)
  view.setBigUint64(MSGHDR.iov, BigInt(base + iov), true)
  view.setBigUint64(MSGHDR.iovlen, 1n, true)
  view.setBigUint64(iov + IOVEC.base, BigInt(base + data), true)
  view.setBigUint64(iov + IOVEC.len, BigInt(RECEIVE_BYTES), true)
  return {
    fd,
    send(datagram) {
      const out = createBlock(data + datagram.length)
      out.u8.set(datagram, data)
      out.view.setUint16(name + SOCKADDR_NL.family, AF_NETLINK, true)
      out.view.setBigUint64(MSGHDR.name, BigInt(out.base + name), true)
      out.view.setUint32(MSGHDR.namelen, SOCKADDR_NL.size, true)
      out.view.setBigUint64(MSGHDR.iov, BigInt(out.base + iov), true)
      out.view.setBigUint64(MSGHDR.iovlen, 1n, true)
      out.view.setBigUint64(iov + IOVEC.base, BigInt(out.base + data), true)
      out.view.setBigUint64(iov + IOVEC.len, BigInt(datagram.length), true)
      return os.sendmsg(fd, out.base, 0)
    },
    receive() {
      view.setUint32(MSGHDR.namelen, SOCKADDR_NL.size, true)
      const got = os.recvmsg(fd, base, MSG_DONTWAIT | MSG_TRUNC)
      if (got < 0) return got
      return {
        bytes: u8.slice(data, data + Math.min(got, RECEIVE_BYTES)),
        from: u8.slice(name, name + SOCKADDR_NL.size),
      }
    },
    bind: (address) => os.bind(fd, blockOf(address).base, address.length),
    connect: (address) => os.connect(fd, blockOf(address).base, address.length),
    name() {
      const own = createBlock(SOCKADDR_NL.size)
      const length = blockOf(new Uint8Array([SOCKADDR_NL.size, 0, 0, 0]))
      const got = os.getsockname(fd, own.base, length.base)
      return got < 0 ? got : own.u8.slice(0, SOCKADDR_NL.size)
    },
    setOption: (level, option, value) =>
      os.setsockopt(fd, level, option, blockOf(value).base, value.length),
    getOption(level, option, room) {
      const value = createBlock(room)
      const length = createBlock(4)
      length.view.setUint32(0, room, true)
      const got = os.getsockopt(fd, level, option, value.base, length.base)
      return got < 0 ? got : value.u8.slice(0, length.view.getUint32(0, true))
    },
    [Symbol.dispose]: () => os.close(fd),
  }
}

/** Two connected unix sockets: `own` does not block, `other` is for somebody else. @throws OsError */
export function openPair(
  kind: 'datagrams' | 'stream',
  os: Syscalls = openLibc(),
): { own: number; other: number } {
  const fds = createBlock(8)
  const type = (kind === 'stream' ? 1 : SOCK_SEQPACKET) | SOCK_CLOEXEC
  check(os.socketpair(AF_UNIX, type, 0, fds.base), 'socketpair', 'cannot make a pair of sockets')
  const own = fds.view.getInt32(0, true)
  setBlocking(own, false, os)
  return { own, other: fds.view.getInt32(4, true) }
}

const F_GETFL = 3
const F_SETFL = 4

/** Whether calls on the descriptor, and on all duplicates of it, wait. */
export function setBlocking(fd: number, blocking: boolean, os: Syscalls = openLibc()): void {
  const flags = os.fcntl(fd, F_GETFL, 0)
  os.fcntl(fd, F_SETFL, blocking ? flags & ~SOCK_NONBLOCK : flags | SOCK_NONBLOCK)
}
