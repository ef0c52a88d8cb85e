/**
 * Network namespaces: their identity, visits to them, and named ones as `ip netns` keeps them. What is
 * done inside of one is up to the callers.
 */

import { check } from './error.ts'
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  CLONE_NEWNET,
  E,
  MNT_DETACH,
  MS_BIND,
  MS_REC,
  MS_SHARED,
  O_CLOEXEC,
  O_CREAT,
  O_EXCL,
  O_RDONLY,
  STATX,
  STATX_BASIC_STATS,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOfText, createBlock } from './memory.ts'
import type { Syscalls } from './syscalls.ts'

const NAMED = '/run/netns'
/** Of the calling thread: a worker's namespace may differ from its process's. */
const OWN = '/proc/thread-self/ns/net'

/** Device and inode of the file behind a descriptor; for a namespace, its identity while it exists. */
export function netnsId(fd: number, os: Syscalls = openLibc()): string {
  return identity(statFd(fd, os))
}

/** `statx` of the file behind a descriptor; fields at `STATX`. @throws OsError EBADF */
export function statFd(fd: number, os: Syscalls = openLibc()): DataView {
  const path = blockOfText('')
  const found = createBlock(STATX.size)
  check(
    os.statx(fd, path.base, AT_EMPTY_PATH, STATX_BASIC_STATS, found.base),
    'statx',
    `cannot identify descriptor ${fd}`,
  )
  return found.view
}

/** The identity of the calling thread's namespace. */
export function ownNetnsId(os: Syscalls = openLibc()): string {
  const path = blockOfText(OWN)
  const found = createBlock(STATX.size)
  check(
    os.statx(AT_FDCWD, path.base, 0, STATX_BASIC_STATS, found.base),
    'statx',
    `cannot identify ${OWN}`,
  )
  return identity(found.view)
}

function identity(found: DataView): string {
  const major = found.getUint32(STATX.devMajor, true)
  const minor = found.getUint32(STATX.devMinor, true)
  // as stat(1) shows it: the kernel's namespaces live on a device with major 0 and a small minor
  const device = ((major & 0xfff) << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12)
  return `${device}:${found.getBigUint64(STATX.ino, true)}`
}

/** Opens the namespace a process is in. */
export function openNetnsOf(pid: number, os: Syscalls = openLibc()): number {
  return openPath(os, `/proc/${pid}/ns/net`, `cannot open the network namespace of process ${pid}`)
}

/** Opens the namespace that `ip netns` knows as `name`. */
export function openNetnsNamed(name: string, os: Syscalls = openLibc()): number {
  return openPath(os, pathOf(name), `no network namespace is named ${name}`)
}

/** Opens the namespace of the calling thread. */
export function openOwnNetns(os: Syscalls = openLibc()): number {
  return openPath(os, OWN, 'cannot open the own network namespace')
}

/**
 * Runs `visit` with this thread in the namespace `fd`, and goes back. `visit` must do its work before
 * it returns: what it leaves to a promise would run at home. Sockets stay where they were opened.
 *
 * @throws OsError (EPERM without CAP_SYS_ADMIN over both namespaces, unless they are one), and whatever `visit` throws
 */
export function inNetns<T>(fd: number, visit: () => T, os: Syscalls = openLibc()): T {
  const home = openOwnNetns(os)
  try {
    const entered = os.setns(fd, CLONE_NEWNET)
    // Without CAP_SYS_ADMIN, as in containers, there is no way to where one is already.
    if (entered === -E.EPERM && netnsId(fd, os) === ownNetnsId(os)) return visit()
    check(entered, 'setns', 'cannot enter a network namespace')
    try {
      return visit()
    } finally {
      const back = os.setns(home, CLONE_NEWNET)
      if (back < 0) strand(back)
    }
  } finally {
    os.close(home)
  }
}

/** Ends the process: every socket opened from now on would belong to a stranger's network. */
function strand(errno: number): never {
  process.stderr.write(`cannot return to the own network namespace (errno ${-errno}): aborting\n`)
  process.kill(process.pid, 'SIGKILL')
  throw new Error('unreachable')
}

/**
 * Makes a namespace and names it, as `ip netns add` does. Its loopback device is down.
 *
 * @throws OsError EEXIST for a taken name, EPERM without CAP_SYS_ADMIN
 */
export function createNetns(name: string, os: Syscalls = openLibc()): void {
  const folder = blockOfText(NAMED)
  const none = blockOfText('none')
  const made = os.mkdir(folder.base, 0o755)
  if (made !== -E.EEXIST) check(made, 'mkdir', `cannot make ${NAMED}`)
  // Shared, so that a name removed here goes away in other mount namespaces too; a plain folder cannot be,
  // so it is first mounted on itself.
  const share = MS_SHARED | MS_REC
  if (os.mount(none.base, folder.base, none.base, share, 0) < 0) {
    check(
      os.mount(folder.base, folder.base, none.base, MS_BIND | MS_REC, 0),
      'mount',
      `cannot mount ${NAMED}`,
    )
    check(os.mount(none.base, folder.base, none.base, share, 0), 'mount', `cannot share ${NAMED}`)
  }
  const path = blockOfText(pathOf(name))
  const file = check(
    os.open(path.base, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0),
    'open',
    `cannot name a network namespace ${name}`,
  )
  os.close(file)
  const home = openOwnNetns(os)
  try {
    check(os.unshare(CLONE_NEWNET), 'unshare', 'cannot make a network namespace')
    const own = blockOfText(OWN)
    const mounted = os.mount(own.base, path.base, none.base, MS_BIND, 0)
    const back = os.setns(home, CLONE_NEWNET)
    if (back < 0) strand(back)
    check(mounted, 'mount', `cannot name a network namespace ${name}`)
  } catch (error) {
    os.unlink(path.base)
    throw error
  } finally {
    os.close(home)
  }
}

/** Removes the name; the namespace ends with its last user. @throws OsError ENOENT when there is none */
export function removeNetns(name: string, os: Syscalls = openLibc()): void {
  const path = blockOfText(pathOf(name))
  const unmounted = os.umount2(path.base, MNT_DETACH)
  // EINVAL: a name without a namespace behind it, left by a process that died in between
  if (unmounted !== -E.EINVAL) check(unmounted, 'umount2', `cannot remove ${name}`)
  check(os.unlink(path.base), 'unlink', `cannot remove ${name}`)
}

function pathOf(name: string): string {
  if (!/^[^/\0]{1,255}$/.test(name) || name === '.' || name === '..') {
    throw new RangeError(`not a name for a network namespace: ${JSON.stringify(name)}`)
  }
  return `${NAMED}/${name}`
}

function openPath(os: Syscalls, path: string, attempt: string): number {
  const block = blockOfText(path)
  return check(os.open(block.base, O_RDONLY | O_CLOEXEC, 0), 'open', attempt)
}
