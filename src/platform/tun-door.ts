/**
 * The way to /dev/net/tun for a process that has given root up: where that file is root's alone, one of the new user's own stands
 * for it, on a file system that nobody else sees. What may be done there is what CAP_NET_ADMIN allows; nothing else is opened by it.
 */
import { statSync } from 'node:fs'
import { check } from './error.ts'
import { E, O_CLOEXEC, O_NONBLOCK, O_RDWR } from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOfText } from './memory.ts'
import type { Syscalls } from './syscalls.ts'

export const TUN_PATH = '/dev/net/tun'

const NR = {
  ...{ fsopen: 430, fsconfig: 431, fsmount: 432 },
  ...(process.arch === 'x64'
    ? { openat: 257, mknodat: 259, fchownat: 260 }
    : { openat: 56, mknodat: 33, fchownat: 54 }),
}
const FSOPEN_CLOEXEC = 1
const FSCONFIG_CMD_CREATE = 6
const FSMOUNT_CLOEXEC = 1
const MOUNT_ATTR_NOSUID = 2
const MOUNT_ATTR_NOEXEC = 8
const S_IFCHR = 0o020000
const OWN = 0o600
const NODE = 'tun'
const FLAGS = O_RDWR | O_NONBLOCK | O_CLOEXEC

/** Root of the file system, or undefined. */
let door: number | undefined

/**
 * Makes it, for `uid` to go through later. A process that may not (CAP_SYS_ADMIN, CAP_MKNOD) has none, and devices can be made as long as
 * `/dev/net/tun` itself can be opened.
 */
export function keepTunDoor(uid: number, os: Syscalls = openLibc()): void {
  const call = (name: keyof typeof NR, ...args: number[]): number => {
    const [a = 0, b = 0, c = 0, d = 0, e = 0] = args
    return check(os.syscall(NR[name], a, b, c, d, e, 0), name, 'cannot keep a way to /dev/net/tun')
  }
  let made: number | undefined
  let context: number | undefined
  try {
    const { rdev } = statSync(TUN_PATH)
    context = call('fsopen', blockOfText('tmpfs').base, FSOPEN_CLOEXEC)
    call('fsconfig', context, FSCONFIG_CMD_CREATE)
    made = call('fsmount', context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    const name = blockOfText(NODE)
    call('mknodat', made, name.base, S_IFCHR | OWN, rdev)
    call('fchownat', made, name.base, uid, -1)
    door = made
  } catch {
    if (made !== undefined) os.close(made)
  } finally {
    if (context !== undefined) os.close(context)
  }
}

/** @throws OsError where this process can make no device any more */
export function checkTun(os: Syscalls = openLibc()): void {
  const fd = check(openTunFile(os), 'open', `${TUN_PATH} is out of reach for this user`)
  os.close(fd)
}

/** A new descriptor, of no device yet; a negative errno where there is no way. */
export function openTunFile(os: Syscalls = openLibc()): number {
  const path = blockOfText(TUN_PATH)
  const fd = os.open(path.base, FLAGS, 0)
  if (fd !== -E.EACCES || door === undefined) return fd
  const name = blockOfText(NODE)
  return os.syscall(NR.openat, door, name.base, FLAGS, 0, 0, 0)
}
