/**
 * seccomp: installing a filter whose calls are answered by another process, and answering them; and what a program
 * is started with (exec). Which calls a filter names and what becomes of them is up to the callers.
 *
 * Source: seccomp_unotify(2), include/uapi/linux/seccomp.h, kernel/seccomp.c.
 */

import { check, OsError } from './error.ts'
import { E, POLLFD, POLLIN, SOCK_FPROG } from './layout.ts'
import { openLibc } from './libc.ts'
import { type Block, blockOf, blockOfText, createBlock } from './memory.ts'
import type { Syscalls } from './syscalls.ts'

/** Numbers of system calls, by the process's architecture; undefined where it has none of that name. */
export interface CallNumbers {
  readonly socket: number
  readonly bind: number
  readonly connect: number
  readonly getsockname: number
  readonly setsockopt: number
  readonly getsockopt: number
  readonly sendto: number
  readonly recvfrom: number
  readonly sendmsg: number
  readonly recvmsg: number
  readonly dup: number
  readonly dup2: number | undefined
  readonly dup3: number
  readonly fcntl: number
}

interface Architecture {
  /** AUDIT_ARCH_* of its native calls. */
  readonly audit: number
  readonly calls: CallNumbers
  readonly seccomp: number
  readonly prctl: number
  readonly execve: number
  readonly prlimit64: number
  readonly rtSigaction: number
  readonly setsid: number
  readonly processVmReadv: number
  readonly processVmWritev: number
}

const ARCHITECTURES: { readonly [arch: string]: Architecture } = {
  x64: {
    audit: 0xc000003e,
    calls: {
      ...{ socket: 41, bind: 49, connect: 42, getsockname: 51, setsockopt: 54, getsockopt: 55 },
      ...{ sendto: 44, recvfrom: 45, sendmsg: 46, recvmsg: 47 },
      ...{ dup: 32, dup2: 33, dup3: 292, fcntl: 72 },
    },
    ...{ seccomp: 317, prctl: 157, execve: 59, prlimit64: 302, rtSigaction: 13, setsid: 112 },
    ...{ processVmReadv: 310, processVmWritev: 311 },
  },
  arm64: {
    audit: 0xc00000b7,
    calls: {
      ...{ socket: 198, bind: 200, connect: 203, getsockname: 204, setsockopt: 208 },
      ...{ getsockopt: 209, sendto: 206, recvfrom: 207, sendmsg: 211, recvmsg: 212 },
      ...{ dup: 23, dup2: undefined, dup3: 24, fcntl: 25 },
    },
    ...{ seccomp: 277, prctl: 167, execve: 221, prlimit64: 261, rtSigaction: 134, setsid: 157 },
    ...{ processVmReadv: 270, processVmWritev: 271 },
  },
}

/** The architecture that programs here are of. Undefined where it is not supported. */
export const architecture: Architecture | undefined = ARCHITECTURES[process.arch]

function here(): Architecture {
  if (architecture === undefined) throw new Error(`no system call numbers for ${process.arch}`)
  return architecture
}

/** What a filter sees of a call (`seccomp_data`); arguments are 8 bytes each, the lower half first. */
export const SECCOMP_DATA = { nr: 0, arch: 4, args: 16 } as const
export const SECCOMP_RET_ALLOW = 0x7fff0000
export const SECCOMP_RET_USER_NOTIF = 0x7fc00000

const SECCOMP_SET_MODE_FILTER = 1
const SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5
const NOTIF_RECV = 0xc0502100
const NOTIF_SEND = 0xc0182101
const NOTIF_ID_VALID = 0x40082102
const NOTIF_ADDFD = 0x40182103
const USER_NOTIF_FLAG_CONTINUE = 1
const ADDFD_FLAG_SETFD = 1
const ADDFD_FLAG_SEND = 2
/** `seccomp_notif`, `seccomp_notif_resp` and `seccomp_notif_addfd`. */
const NOTIF = { id: 0, pid: 8, nr: 16, arch: 20, args: 32, size: 80 } as const
const RESP = { id: 0, val: 8, error: 16, flags: 20, size: 24 } as const
const ADDFD = { id: 0, flags: 8, srcfd: 12, newfd: 16, newfdFlags: 20, size: 24 } as const

const PR_SET_NO_NEW_PRIVS = 38
const PR_SET_PTRACER = 0x59616d61
const RLIMIT_NOFILE = 7

/**
 * Installs a filter in the calling thread, for good, and for all that it starts.
 *
 * @param filter `sock_filter` instructions
 * @returns a descriptor to receive its notifications from, not passed on to what the thread executes
 * @throws OsError EBUSY (there is such a filter already), EINVAL or ENOSYS (the kernel has none)
 */
export function installFilter(filter: Uint8Array, os: Syscalls = openLibc()): number {
  const { seccomp, prctl } = here()
  const instructions = blockOf(filter)
  const program = createBlock(SOCK_FPROG.size)
  program.view.setUint16(SOCK_FPROG.len, filter.length / 8, true)
  program.view.setBigUint64(SOCK_FPROG.filter, BigInt(instructions.base), true)
  const install = (flags: number) =>
    os.syscall(seccomp, SECCOMP_SET_MODE_FILTER, flags, program.base, 0, 0, 0)
  // A call that was received is then not made again because of a signal (Linux 5.19).
  const flags = SECCOMP_FILTER_FLAG_NEW_LISTENER
  const attempt = () => {
    const fd = install(flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    return fd === -E.EINVAL ? install(flags) : fd
  }
  let fd = attempt()
  if (fd === -E.EACCES) {
    // Without CAP_SYS_ADMIN, a filter takes the promise that set-user-id programs gain nothing under it.
    check(os.syscall(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0), 'prctl', 'cannot set no_new_privs')
    fd = attempt()
  }
  return check(fd, 'seccomp', 'cannot install a system call filter')
}

/** Lets a process look into this one, where the system (Yama) would not permit it. */
export function allowInspection(pid: number, os: Syscalls = openLibc()): void {
  os.syscall(here().prctl, PR_SET_PTRACER, pid, 0, 0, 0, 0) // EINVAL without Yama
}

/** How many descriptors a process may have: the limit in force, and how far it may be raised. */
export interface FdLimit {
  readonly soft: number
  readonly hard: number
}

/** That of a process, 0 for the calling one. @throws OsError */
export function fdLimit(pid: number, os: Syscalls = openLibc()): FdLimit {
  const found = createBlock(16)
  const got = os.syscall(here().prlimit64, pid, RLIMIT_NOFILE, 0, found.base, 0, 0)
  check(got, 'prlimit', 'cannot read the limit of descriptors')
  return {
    soft: Number(found.view.getBigUint64(0, true)),
    hard: Number(found.view.getBigUint64(8, true)),
  }
}

/** Sets that of the calling process. @throws OsError */
export function setFdLimit({ soft, hard }: FdLimit, os: Syscalls = openLibc()): void {
  const wanted = createBlock(16)
  wanted.view.setBigUint64(0, BigInt(soft), true)
  wanted.view.setBigUint64(8, BigInt(hard), true)
  const got = os.syscall(here().prlimit64, 0, RLIMIT_NOFILE, wanted.base, 0, 0, 0)
  check(got, 'prlimit', 'cannot set the limit of descriptors')
}

/** Has a signal do again what it does by default. */
export function resetSignal(signal: number, os: Syscalls = openLibc()): void {
  const action = createBlock(32) // SIG_DFL is 0
  os.syscall(here().rtSigaction, signal, action.base, 0, 8, 0, 0)
}

/** Puts the calling process into a session of its own, without a terminal. */
export function leaveSession(os: Syscalls = openLibc()): void {
  os.syscall(here().setsid, 0, 0, 0, 0, 0, 0) // EPERM: it leads its group already
}

/**
 * Becomes another program. Returns only if that fails.
 *
 * @param environment as /proc/PID/environ has it: entries that end in NUL
 * @returns -errno
 */
export function execute(
  path: string,
  args: readonly string[],
  environment: Uint8Array,
  os: Syscalls = openLibc(),
): number {
  const file = blockOfText(path)
  const argv = pointers(args.map((arg) => blockOfText(arg)))
  const block = blockOf(environment)
  const starts: number[] = []
  for (let at = 0; at < environment.length; at = environment.indexOf(0, at) + 1) {
    if (environment.indexOf(0, at) < 0) break
    starts.push(block.base + at)
  }
  const envp = createBlock(8 * (starts.length + 1))
  for (const [i, start] of starts.entries()) envp.view.setBigUint64(8 * i, BigInt(start), true)
  const failed = os.syscall(here().execve, file.base, argv.table.base, envp.base, 0, 0, 0)
  return argv.kept.length > 0 ? failed : failed // what the call was given lives as long as it
}

/** A NULL-terminated array of addresses, and what it points to. */
function pointers(blocks: readonly Block[]): { table: Block; kept: readonly Block[] } {
  const table = createBlock(8 * (blocks.length + 1))
  for (const [i, { base }] of blocks.entries()) table.view.setBigUint64(8 * i, BigInt(base), true)
  return { table, kept: blocks }
}

/** A call of another process that waits for its answer. */
export interface TrappedCall {
  readonly id: bigint
  /** Of the thread that made it. */
  readonly tid: number
  readonly nr: number
  /** All six, as addresses and sizes. */
  readonly args: readonly number[]
  /** The same as 32-bit integers. */
  readonly ints: readonly number[]
}

/** The receiving end of a filter. Every call is answered once: by `answer`, `fail`, `pass` or `giveFd`. */
export class Listener implements Disposable {
  readonly fd: number
  readonly #os: Syscalls
  readonly #call = createBlock(NOTIF.size)
  readonly #response = createBlock(RESP.size)
  readonly #addition = createBlock(ADDFD.size)
  readonly #id = createBlock(8)
  readonly #poll = createBlock(POLLFD.size)

  constructor(fd: number, os: Syscalls = openLibc()) {
    this.fd = fd
    this.#os = os
  }

  /** The next call, if one waits; 'ended' when no process has the filter any more. */
  receive(): TrappedCall | 'none' | 'ended' {
    this.#poll.view.setInt32(POLLFD.fd, this.fd, true)
    this.#poll.view.setInt32(POLLFD.events, POLLIN, true)
    if (this.#os.poll(this.#poll.base, 1, 0) <= 0) return 'none'
    const events = this.#poll.view.getInt16(POLLFD.revents, true)
    if ((events & POLLIN) === 0) return 'ended'
    this.#call.u8.fill(0)
    if (this.#os.ioctl(this.fd, NOTIF_RECV, this.#call.base) < 0) return 'none' // it was killed meanwhile
    const { view } = this.#call
    const places = [0, 1, 2, 3, 4, 5].map((i) => NOTIF.args + 8 * i)
    return {
      id: view.getBigUint64(NOTIF.id, true),
      tid: view.getUint32(NOTIF.pid, true),
      nr: view.getInt32(NOTIF.nr, true),
      args: places.map((at) => Number(view.getBigUint64(at, true))),
      ints: places.map((at) => view.getInt32(at, true)),
    }
  }

  /** Whether the call still waits: only then does its thread's id mean that thread. */
  waits(call: TrappedCall): boolean {
    this.#id.view.setBigUint64(0, call.id, true)
    return this.#os.ioctl(this.fd, NOTIF_ID_VALID, this.#id.base) >= 0
  }

  /** Has the call return `value`; false when nobody waits for it any more. */
  answer(call: TrappedCall, value: number): boolean {
    return this.#respond(call, value, 0, 0)
  }

  /** Has the call fail with a positive errno. */
  fail(call: TrappedCall, errno: number): boolean {
    return this.#respond(call, 0, -errno, 0)
  }

  /** Has the kernel carry the call out. */
  pass(call: TrappedCall): boolean {
    return this.#respond(call, 0, 0, USER_NOTIF_FLAG_CONTINUE)
  }

  /**
   * Puts a duplicate of `fd` at number `at` of the caller's descriptors, in place of what is there, and with `answer` has the
   * call return that number.
   *
   * @returns the number or -errno (-EBADF: beyond its limit); the call is not answered then
   */
  giveFd(
    call: TrappedCall,
    fd: number,
    at: number,
    options: { cloexec: boolean; answer: boolean },
  ): number {
    const { view } = this.#addition
    view.setBigUint64(ADDFD.id, call.id, true)
    view.setUint32(ADDFD.flags, ADDFD_FLAG_SETFD | (options.answer ? ADDFD_FLAG_SEND : 0), true)
    view.setUint32(ADDFD.srcfd, fd, true)
    view.setUint32(ADDFD.newfd, at, true)
    view.setUint32(ADDFD.newfdFlags, options.cloexec ? 0o2000000 : 0, true)
    return this.#os.ioctl(this.fd, NOTIF_ADDFD, this.#addition.base)
  }

  [Symbol.dispose](): void {
    this.#os.close(this.fd)
  }

  #respond(call: TrappedCall, value: number, error: number, flags: number): boolean {
    const { view } = this.#response
    view.setBigUint64(RESP.id, call.id, true)
    view.setBigInt64(RESP.val, BigInt(value), true)
    view.setInt32(RESP.error, error, true)
    view.setUint32(RESP.flags, flags, true)
    return this.#os.ioctl(this.fd, NOTIF_SEND, this.#response.base) >= 0
  }
}

/** A copy of `length` bytes at `address` of another process. @throws OsError EFAULT, EPERM, ESRCH */
export function readMemory(
  tid: number,
  address: number,
  length: number,
  os: Syscalls = openLibc(),
): Uint8Array {
  const bytes = createBlock(length)
  if (length > 0) move(os, here().processVmReadv, tid, address, bytes.base, length)
  return bytes.u8.subarray(0, length)
}

/** Copies bytes to `address` of another process. @throws OsError */
export function writeMemory(
  tid: number,
  address: number,
  bytes: Uint8Array,
  os: Syscalls = openLibc(),
): void {
  if (bytes.length === 0) return
  move(os, here().processVmWritev, tid, address, blockOf(bytes).base, bytes.length)
}

function move(os: Syscalls, nr: number, tid: number, far: number, near: number, length: number) {
  const pieces = createBlock(32)
  pieces.view.setBigUint64(0, BigInt(near), true)
  pieces.view.setBigUint64(8, BigInt(length), true)
  pieces.view.setBigUint64(16, BigInt(far), true)
  pieces.view.setBigUint64(24, BigInt(length), true)
  const moved = os.syscall(nr, tid, pieces.base, 1, pieces.base + 16, 1, 0)
  check(moved, 'process_vm_readv', `cannot look into process ${tid}`)
  if (moved < length)
    throw new OsError(E.EFAULT, 'process_vm_readv', `process ${tid} gave a bad address`)
}
