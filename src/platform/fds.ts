/** Descriptors of other processes: whose they are, and how to get them. */

import { check, OsError } from './error.ts'
import {
  CMSG,
  E,
  F_DUPFD_CLOEXEC,
  IOVEC,
  MSG_DONTWAIT,
  MSGHDR,
  SO_PEERCRED,
  SO_PEERPIDFD,
  SOL_SOCKET,
  UCRED,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { type Block, createBlock } from './memory.ts'
import { getBytesOption, getOption, socketCookie } from './sockopt.ts'
import type { Syscalls } from './syscalls.ts'

/**
 * Takes a duplicate of descriptor `fd` of the process behind a pidfd.
 *
 * @throws OsError EBADF (it has none such), ESRCH (it has ended), EPERM (we may not look into it)
 */
export function takeFd(pidfd: number, fd: number, os: Syscalls = openLibc()): number {
  return check(
    os.pidfdGetfd(pidfd, fd, 0),
    'pidfd_getfd',
    `cannot take descriptor ${fd} of another process`,
  )
}

/** A pidfd of a process; it becomes readable when the process ends. @throws OsError ESRCH */
export function openProcess(pid: number, os: Syscalls = openLibc()): number {
  return check(os.pidfdOpen(pid, 0), 'pidfd_open', `there is no process ${pid}`)
}

/**
 * Whether the process still has the socket of that cookie as descriptor `fd`: for systems that do not tell of closed
 * sockets, and for TCP streams, which a duplicate keeps open.
 */
export function holdsSocket(
  pidfd: number,
  fd: number,
  cookie: bigint,
  os: Syscalls = openLibc(),
): boolean {
  const own = os.pidfdGetfd(pidfd, fd, 0)
  if (own < 0) return false
  try {
    return socketCookie(own, os) === cookie
  } catch (error) {
    if (error instanceof OsError) return false
    throw error
  } finally {
    os.close(own)
  }
}

/** Another descriptor of the same process, for whoever keeps it longer. @throws OsError */
export function duplicate(fd: number, os: Syscalls = openLibc()): number {
  return check(os.fcntl(fd, F_DUPFD_CLOEXEC, 0), 'fcntl', `no descriptor ${fd}`)
}

/** Who is at the other end of a unix socket, as of when it connected. */
export interface PeerCredentials {
  pid: number
  uid: number
  gid: number
  /** A descriptor of that process, the caller's to close; immune to a number used again, if the kernel has SO_PEERPIDFD. */
  pidfd: number
}

/** @throws OsError, ESRCH when the process has ended */
export function peerCredentials(socketFd: number, os: Syscalls = openLibc()): PeerCredentials {
  const attempt = 'cannot tell who is at the other end'
  const { view } = getBytesOption(os, socketFd, SOL_SOCKET, SO_PEERCRED, UCRED.size, attempt)
  const pid = view.getInt32(UCRED.pid, true)
  return {
    pid,
    uid: view.getUint32(UCRED.uid, true),
    gid: view.getUint32(UCRED.gid, true),
    pidfd: peerPidfd(os, socketFd) ?? openProcess(pid, os),
  }
}

/** Undefined where the kernel is older than 6.5. */
function peerPidfd(os: Syscalls, socketFd: number): number | undefined {
  try {
    return getOption(os, socketFd, SOL_SOCKET, SO_PEERPIDFD, 'cannot open the process')
  } catch (error) {
    if (error instanceof OsError && error.errno === E.ENOPROTOOPT) return undefined
    throw error
  }
}

const SCM_RIGHTS = 1
const MSG_CMSG_CLOEXEC = 0x40000000

/** Leaves a descriptor in a connected unix socket: its file stays open as long as somebody has the other end. @throws OsError */
export function sendFd(socket: number, fd: number, os: Syscalls = openLibc()): void {
  const { header, data } = rights()
  data.setInt32(0, fd, true)
  check(os.sendmsg(socket, header.base, 0), 'sendmsg', 'cannot hand over a descriptor')
}

/** Takes what `sendFd` has left; undefined where there is nothing. */
export function receiveFd(socket: number, os: Syscalls = openLibc()): number | undefined {
  const { header, data } = rights()
  data.setInt32(0, -1, true)
  const got = os.recvmsg(socket, header.base, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
  const fd = data.getInt32(0, true)
  return got > 0 && fd >= 0 ? fd : undefined
}

/** A message of one byte, with room for a descriptor beside it. */
function rights(): { header: Block; data: DataView } {
  const control = MSGHDR.size + IOVEC.size
  const end = control + CMSG.size + 8
  const header = createBlock(end + 1)
  const { view, base, u8 } = header
  view.setBigUint64(MSGHDR.iov, BigInt(base + MSGHDR.size), true)
  view.setBigUint64(MSGHDR.iovlen, 1n, true)
  view.setBigUint64(MSGHDR.size + IOVEC.base, BigInt(base + end), true)
  view.setBigUint64(MSGHDR.size + IOVEC.len, 1n, true)
  view.setBigUint64(MSGHDR.control, BigInt(base + control), true)
  view.setBigUint64(MSGHDR.controllen, BigInt(end - control), true)
  view.setBigUint64(control + CMSG.len, BigInt(CMSG.size + 4), true)
  view.setInt32(control + CMSG.level, SOL_SOCKET, true)
  view.setInt32(control + CMSG.type, SCM_RIGHTS, true)
  return { header, data: new DataView(u8.buffer, control + CMSG.size, 4) }
}
