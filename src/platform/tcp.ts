/**
 * TCP streams: the take-over of an established one, and opening them. Framing and what the stream carries are the
 * driver's business.
 */

import { check, OsError } from './error.ts'
import {
  AF_INET6,
  E,
  IPPROTO_IPV6,
  IPPROTO_TCP,
  IPV6_V6ONLY,
  POLLFD,
  POLLOUT,
  SO_ERROR,
  SO_REUSEADDR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
  TCP_ESTABLISHED,
  TCP_INFO,
  TCP_NODELAY,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { createBlock } from './memory.ts'
import { inNetns, netnsId } from './netns.ts'
import { decodeAddress, encodeAddress, nameOf, type SocketAddress } from './sockaddr.ts'
import { getBytesOption, getOption, setOption } from './sockopt.ts'
import type { Syscalls } from './syscalls.ts'
import { inspectSocket, socketNetns } from './udp.ts'

const STATE = 0 // tcp_info: the first byte

export interface TakenTcp {
  readonly local: SocketAddress
  readonly remote: SocketAddress
  /** Identity of the socket's network namespace, as `netnsId` has it. */
  readonly netns: string
}

/**
 * Makes an established stream ready for the driver: no delay for small packets. The descriptor stays the caller's. It
 * is not made non-blocking, which its owner's duplicates would be too: use MSG_DONTWAIT.
 *
 * @throws OsError EPROTOTYPE (not TCP), ENOTCONN (not established), EPERM
 */
export function takeTcp(fd: number, os: Syscalls = openLibc()): TakenTcp {
  if (inspectSocket(fd, os).protocol !== 'tcp') {
    throw new OsError(E.EPROTOTYPE, 'getsockopt', `socket ${fd} is not a TCP socket`)
  }
  const attempt = 'cannot take the TCP stream over'
  const info = getBytesOption(os, fd, IPPROTO_TCP, TCP_INFO, 8, attempt)
  if (info.u8[STATE] !== TCP_ESTABLISHED) {
    throw new OsError(E.ENOTCONN, 'getsockopt', 'the TCP stream is not established')
  }
  const local = decodeAddress(nameOf(os, fd, 'getsockname', attempt).block)
  const remote = decodeAddress(nameOf(os, fd, 'getpeername', attempt).block)
  if (local === undefined || remote === undefined) {
    throw new OsError(E.EPROTOTYPE, 'getsockname', attempt)
  }
  setOption(os, fd, IPPROTO_TCP, TCP_NODELAY, 1, attempt)
  const netns = socketNetns(fd, os)
  try {
    return { local, remote, netns: netnsId(netns, os) }
  } finally {
    os.close(netns)
  }
}

export interface TcpListener extends Disposable {
  readonly fd: number
  readonly port: number
  /** The next stream, non-blocking; undefined when none has come within `timeoutMs`. @throws OsError */
  accept(timeoutMs: number): number | undefined
  close(): void
}

/** Opens a listening TCP socket; port 0 for any. @throws OsError */
export function listenTcp(
  address: string,
  port: number,
  options: { netns?: number } = {},
  os: Syscalls = openLibc(),
): TcpListener {
  const attempt = `cannot listen at ${address} port ${port}`
  const at = encodeAddress({ address, port, scope: 0 })
  const fd = openStream(os, at.family, options.netns, attempt)
  const close = () => {
    os.close(fd)
  }
  try {
    setOption(os, fd, SOL_SOCKET, SO_REUSEADDR, 1, attempt)
    if (at.family === AF_INET6) setOption(os, fd, IPPROTO_IPV6, IPV6_V6ONLY, 0, attempt)
    check(os.bind(fd, at.block.base, at.length), 'bind', attempt)
    check(os.listen(fd, 128), 'listen', attempt)
    const bound = decodeAddress(nameOf(os, fd, 'getsockname', attempt).block)
    return {
      fd,
      port: bound?.port ?? port,
      accept(timeoutMs) {
        if (!waitFor(os, fd, 1, timeoutMs)) return undefined
        const stream = os.accept4(fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)
        return stream === -E.EAGAIN ? undefined : check(stream, 'accept4', attempt)
      },
      close,
      [Symbol.dispose]: close,
    }
  } catch (error) {
    close()
    throw error
  }
}

/** Connects, and waits for that; gives the stream, non-blocking. @throws OsError */
export function connectTcp(
  address: string,
  port: number,
  options: { netns?: number; timeoutMs?: number } = {},
  os: Syscalls = openLibc(),
): number {
  const attempt = `cannot connect to ${address} port ${port}`
  const to = encodeAddress({ address, port, scope: 0 })
  const fd = openStream(os, to.family, options.netns, attempt)
  try {
    const begun = os.connect(fd, to.block.base, to.length)
    if (begun !== -EINPROGRESS) check(begun, 'connect', attempt)
    else if (!waitFor(os, fd, POLLOUT, options.timeoutMs ?? CONNECT_MS)) {
      throw new OsError(ETIMEDOUT, 'connect', attempt)
    }
    check(-getOption(os, fd, SOL_SOCKET, SO_ERROR, attempt), 'connect', attempt)
    return fd
  } catch (error) {
    os.close(fd)
    throw error
  }
}

const EINPROGRESS = 115
const ETIMEDOUT = 110
const CONNECT_MS = 10_000

function openStream(os: Syscalls, family: number, netns: number | undefined, attempt: string) {
  const open = () => os.socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP)
  return check(netns === undefined ? open() : inNetns(netns, open, os), 'socket', attempt)
}

function waitFor(os: Syscalls, fd: number, events: number, timeoutMs: number): boolean {
  const wait = createBlock(POLLFD.size)
  wait.view.setInt32(POLLFD.fd, fd, true)
  wait.view.setInt16(POLLFD.events, events, true)
  return os.poll(wait.base, 1, timeoutMs) > 0
}
