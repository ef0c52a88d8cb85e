/** A thread of the program that runs under `ovpn run`, as /proc and pidfds show it. */
import { readFileSync, readlinkSync } from 'node:fs'
import { OsError } from '../platform/error.ts'
import { openProcess, takeFd } from '../platform/fds.ts'
import { E, SOCK_NONBLOCK } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { readMemory } from '../platform/seccomp.ts'

const CAP_NET_ADMIN = 12n

/**
 * Finds out whether this process may look into another, one of whose descriptors is `fd`.
 *
 * @throws OsError EPERM, or what a filter of system calls answers
 */
export function requireInsight(pid: number, fd: number): void {
  openLibc().close(takeFdOf(pid, fd))
  try {
    readMemory(pid, 0, 1)
  } catch (error) {
    if (!(error instanceof OsError) || error.errno !== E.EFAULT) throw error // nothing is there
  }
}

/** A duplicate of a descriptor of the thread's process. @throws OsError EBADF, EPERM, ESRCH */
export function takeFdOf(tid: number, fd: number): number {
  const pidfd = openThread(tid)
  try {
    return takeFd(pidfd, fd)
  } finally {
    openLibc().close(pidfd)
  }
}

/** Only the first thread of a process has a pidfd on older kernels. */
function openThread(tid: number): number {
  try {
    return openProcess(tid)
  } catch (error) {
    if (!(error instanceof OsError) || (error.errno !== E.EINVAL && error.errno !== E.ENOENT)) {
      throw error
    }
    return openProcess(Number(field(status(tid), 'Tgid')))
  }
}

/**
 * What a descriptor is of, as /proc tells: `socket:[1234]`; undefined where there is none of that number.
 *
 * @throws OsError EACCES: the process may not be looked into
 */
export function identityOf(tid: number, fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/${tid}/fd/${fd}`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') return undefined
    throw new OsError(E.EACCES, 'readlink', `cannot look into process ${tid}`)
  }
}

/** How the process has opened a descriptor. */
export function flagsOf(tid: number, fd: number): { blocking: boolean; cloexec: boolean } {
  const text = readFileSync(`/proc/${tid}/fdinfo/${fd}`, 'utf8')
  const flags = Number.parseInt(field(text, 'flags'), 8)
  return { blocking: (flags & SOCK_NONBLOCK) === 0, cloexec: (flags & 0o2000000) !== 0 }
}

/** Whether it has CAP_NET_ADMIN, over what `other` has it over. */
export function isPrivileged(tid: number, other: number | 'self' = 'self'): boolean {
  try {
    const effective = BigInt(`0x${field(status(tid), 'CapEff')}`)
    if (((effective >> CAP_NET_ADMIN) & 1n) === 0n) return false
    return isWithin('user', tid, other)
  } catch {
    return false
  }
}

/** Whether both are in the same namespace of this kind. */
export function isWithin(kind: 'user' | 'pid', tid: number, other: number | 'self'): boolean {
  return readlinkSync(`/proc/${tid}/ns/${kind}`) === readlinkSync(`/proc/${other}/ns/${kind}`)
}

/** The users that it is: real, effective, saved, and of files. */
export function usersOf(tid: number): number[] {
  return /^Uid:(.*)/m.exec(status(tid))![1]!.trim().split(/\s+/).map(Number)
}

/** When the process began, in clock ticks since the system did: with its id, what it is among all there have been. */
export function startOf(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]!
}

/** Whether a signal that it does not hold off waits for it. */
export function isSignalled(tid: number): boolean {
  const text = status(tid)
  const set = (name: string) => BigInt(`0x${field(text, name)}`)
  return ((set('SigPnd') | set('ShdPnd')) & ~set('SigBlk')) !== 0n
}

function status(tid: number): string {
  return readFileSync(`/proc/${tid}/status`, 'utf8')
}

function field(text: string, name: string): string {
  return new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(text)?.[1] ?? '0'
}
