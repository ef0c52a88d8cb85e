/** Descriptors of other processes: whose they are, and how to get them. */

import { check, OsError } from './error.ts'
import { E, F_DUPFD_CLOEXEC, SO_PEERCRED, SO_PEERPIDFD, SOL_SOCKET, UCRED } from './layout.ts'
import { openLibc } from './libc.ts'
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
