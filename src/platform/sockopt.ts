/** Socket options that are numbers: read and set, with errors that say what was attempted. */

import { check } from './error.ts'
import { SO_COOKIE, SOL_SOCKET } from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOf, createBlock } from './memory.ts'
import type { Syscalls } from './syscalls.ts'

/** @throws OsError with `attempt` as its text */
export function setOption(
  os: Syscalls,
  fd: number,
  level: number,
  name: number,
  value: number,
  attempt: string,
): void {
  check(trySetOption(os, fd, level, name, value), 'setsockopt', attempt)
}

/** @returns 0 or -errno */
export function trySetOption(
  os: Syscalls,
  fd: number,
  level: number,
  name: number,
  value: number,
): number {
  const block = createBlock(4)
  block.view.setInt32(0, value, true)
  return os.setsockopt(fd, level, name, block.base, 4)
}

/** @throws OsError, with `attempt` as its text */
export function getOption(
  os: Syscalls,
  fd: number,
  level: number,
  name: number,
  attempt: string,
): number {
  return getBytesOption(os, fd, level, name, 4, attempt).view.getInt32(0, true)
}

/** An option of up to `bytes` bytes, and how many there were. @throws OsError, with `attempt` as its text */
export function getBytesOption(
  os: Syscalls,
  fd: number,
  level: number,
  name: number,
  bytes: number,
  attempt: string,
): { u8: Uint8Array; view: DataView } {
  const value = createBlock(bytes)
  const length = blockOf(new Uint8Array([bytes & 0xff, bytes >> 8, 0, 0]))
  check(os.getsockopt(fd, level, name, value.base, length.base), 'getsockopt', attempt)
  const got = length.view.getUint32(0, true)
  return { u8: value.u8.subarray(0, got), view: value.view }
}

/**
 * Gives a socket a buffer of `bytes`, beyond the system's limit where that is permitted; 0: it stays as the system has it.
 *
 * @param force, plain the option that ignores the limit, and the one that keeps it
 */
export function setBuffer(
  os: Syscalls,
  fd: number,
  force: number,
  plain: number,
  bytes: number,
): void {
  if (bytes !== 0 && trySetOption(os, fd, SOL_SOCKET, force, bytes) < 0) {
    trySetOption(os, fd, SOL_SOCKET, plain, bytes)
  }
}

/** A socket's cookie, unique while the system runs. @throws OsError ENOTSOCK when it is none */
export function socketCookie(fd: number, os: Syscalls = openLibc()): bigint {
  const { view } = getBytesOption(
    os,
    fd,
    SOL_SOCKET,
    SO_COOKIE,
    8,
    `descriptor ${fd} is not a socket`,
  )
  return view.getBigUint64(0, true)
}
