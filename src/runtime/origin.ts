/** Who is at the other end of a channel (server.ts, `Origin`): a process that connected, or a namespace within this one. */
import type { Origin } from '../driver/server.ts'
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
  try {
    netns = openNetnsOf(pid)
  } catch (error) {
    os.close(pidfd)
    throw error
  }
  return {
    text: `process ${pid} of user ${uid}`,
    netns: netnsId(netns),
    privileged: true,
    takeFd: (fd) => asNoSocket(() => takeFd(pidfd, fd)),
    watchFd(fd, cookie) {
      const process = duplicate(pidfd)
      return {
        isOpen: () => holdsSocket(process, fd, cookie),
        close: () => {
          os.close(process)
        },
      }
    },
    openNetns: () => duplicate(netns),
    [Symbol.dispose]: () => {
      os.close(netns)
      os.close(pidfd)
    },
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
