/** Who is at the other end of a channel (server.ts, `Origin`): a process that connected, or a namespace within this one. */
import type { Origin } from '../driver/server.ts'
import { isPrivileged, isWithin, startOf, takeFdOf, usersOf } from '../interpose/process.ts'
import { OsError } from '../platform/error.ts'
import { duplicate, holdsSocket, peerCredentials, takeFd } from '../platform/fds.ts'
import { openLibc } from '../platform/libc.ts'
import { netnsId, openNetnsOf } from '../platform/netns.ts'
import { socketCookie } from '../platform/sockopt.ts'
import { ApiError } from '../uapi/errno.ts'

/** An origin that keeps descriptors, to be closed with the channel. */
export interface OwnedOrigin extends Origin, Disposable {
  /** For the log. */
  readonly text: string
}

/**
 * The process that connected to a unix socket. Its network namespace is the one it was in then. Whoever the socket's mode let in
 * is privileged: that is the driver's rule in place of the kernel's CAP_NET_ADMIN.
 *
 * @throws OsError where the process is gone already
 */
export function originOfConnection(socketFd: number): OwnedOrigin {
  const os = openLibc()
  const { pid, uid, pidfd } = peerCredentials(socketFd)
  let netns: number
  let process: string
  try {
    process = `${pid}:${startOf(pid)}`
    netns = openNetnsOf(pid)
  } catch (error) {
    os.close(pidfd)
    throw error
  }
  let acted: number | undefined
  const actFor = (tid: number): Origin => {
    checkActor(tid, pid, uid)
    acted ??= openNetnsOf(tid) // a netlink socket stays in the namespace that it was opened in
    const of = acted
    return {
      process,
      acting: true,
      actFor,
      netns: netnsId(of),
      get privileged() {
        return isPrivileged(tid, pid)
      },
      // No `watchFd`: who acts for others over streams has put something else in their place.
      takeFd: (fd) => asNoSocket(() => takeFdOf(tid, fd)),
      openNetns: () => duplicate(of),
    }
  }
  return {
    text: `process ${pid} of user ${uid}`,
    process,
    actFor,
    netns: netnsId(netns),
    privileged: true,
    takeFd: (fd) => asNoSocket(() => takeFd(pidfd, fd)),
    watchFd(fd, cookie) {
      const kept = duplicate(pidfd)
      return {
        isOpen: () => holdsSocket(kept, fd, cookie),
        close: () => {
          os.close(kept)
        },
      }
    },
    openNetns: () => duplicate(netns),
    [Symbol.dispose]: () => {
      for (const fd of [netns, pidfd, acted]) if (fd !== undefined) os.close(fd)
    },
  }
}

/**
 * ApiError EPERM or ESRCH unless a process of this user could look into the thread anyway, and means it by that number.
 */
function checkActor(tid: number, pid: number, uid: number): void {
  try {
    if (!isWithin('pid', pid, 'self')) throw new ApiError('EPERM', 'another pid namespace')
    const users = usersOf(tid)
    if (uid !== 0 && users.some((user) => user !== uid)) {
      throw new ApiError('EPERM', `thread ${tid} is not of user ${uid}`)
    }
  } catch (error) {
    if (error instanceof ApiError) throw error
    throw new ApiError('ESRCH', `there is no thread ${tid}`)
  }
}

/** This process, acting in the namespace `netns` (a descriptor, the caller's). */
export function originOfNetns(netns: number): Origin {
  return {
    netns: netnsId(netns),
    privileged: true,
    takeFd: (fd) => asNoSocket(() => duplicate(fd)),
    watchFd: (fd, cookie) => ({ isOpen: () => isSocket(fd, cookie), close() {} }),
    openNetns: () => duplicate(netns),
  }
}

function isSocket(fd: number, cookie: bigint): boolean {
  try {
    return socketCookie(fd) === cookie
  } catch (error) {
    if (error instanceof OsError) return false
    throw error
  }
}

function asNoSocket(take: () => number): number {
  try {
    return take()
  } catch (error) {
    if (!(error instanceof OsError)) throw error
    throw new ApiError('ENOTSOCK', error.message, 'peer.socket')
  }
}
