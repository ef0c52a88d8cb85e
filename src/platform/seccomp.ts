/**
 * seccomp: installing a filter whose calls are answered by another process, and answering them; and what a program
 * is started with (exec). Which calls a filter names and what becomes of them is up to the callers.
 *
 * Source: seccomp_unotify(2), include/uapi/linux/seccomp.h, kernel/seccomp.c.
 */

import { check, OsError } from './error.ts'
import {
  E,
  POLLFD,
  POLLHUP,
  POLLIN,
  PR_SET_NO_NEW_PRIVS,
  PR_SET_PTRACER,
  RLIMIT_NOFILE,
  SECCOMP_ADDFD_FLAG_SEND,
  SECCOMP_ADDFD_FLAG_SETFD,
  SECCOMP_FILTER_FLAG_NEW_LISTENER,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
  SECCOMP_IOCTL_NOTIF_ADDFD,
  SECCOMP_IOCTL_NOTIF_ID_VALID,
  SECCOMP_IOCTL_NOTIF_RECV,
  SECCOMP_IOCTL_NOTIF_SEND,
  SECCOMP_NOTIF,
  SECCOMP_NOTIF_ADDFD,
  SECCOMP_NOTIF_RESP,
  SECCOMP_SET_MODE_FILTER,
  SECCOMP_USER_NOTIF_FLAG_CONTINUE,
  SOCK_FPROG,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOf, createBlock } from './memory.ts'
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
  readonly sendmmsg: number
  readonly recvmmsg: number
  readonly read: number
  readonly write: number
  readonly readv: number
  readonly writev: number
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
  readonly memfdCreate: number
}

const ARCHITECTURES: { readonly [arch: string]: Architecture } = {
  x64: {
    audit: 0xc000003e,
    calls: {
      ...{ socket: 41, bind: 49, connect: 42, getsockname: 51, setsockopt: 54, getsockopt: 55 },
      ...{ sendto: 44, recvfrom: 45, sendmsg: 46, recvmsg: 47, sendmmsg: 307, recvmmsg: 299 },
      ...{ read: 0, write: 1, readv: 19, writev: 20 },
      ...{ dup: 32, dup2: 33, dup3: 292, fcntl: 72 },
    },
    ...{ seccomp: 317, prctl: 157, execve: 59, prlimit64: 302, rtSigaction: 13, setsid: 112 },
    ...{ processVmReadv: 310, processVmWritev: 311, memfdCreate: 319 },
  },
  arm64: {
    audit: 0xc00000b7,
    calls: {
      ...{ socket: 198, bind: 200, connect: 203, getsockname: 204, setsockopt: 208 },
      ...{ getsockopt: 209, sendto: 206, recvfrom: 207, sendmsg: 211, recvmsg: 212 },
      ...{ sendmmsg: 269, recvmmsg: 243, read: 63, write: 64, readv: 65, writev: 66 },
      ...{ dup: 23, dup2: undefined, dup3: 24, fcntl: 25 },
    },
    ...{ seccomp: 277, prctl: 167, execve: 221, prlimit64: 261, rtSigaction: 134, setsid: 157 },
    ...{ processVmReadv: 270, processVmWritev: 271, memfdCreate: 279 },
  },
}

/** The architecture that programs here are of. Undefined where it is not supported. */
export const architecture: Architecture | undefined = ARCHITECTURES[process.arch]

function here(): Architecture {
  if (architecture === undefined) throw new Error(`no system call numbers for ${process.arch}`)
  return architecture
}

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
  const strings = [path, ...args].map((text) => Buffer.from(`${text}\0`))
  const entries = environment.filter((byte) => byte === 0).length
  const table = 8 * (args.length + 1 + entries + 1)
  const text = Buffer.concat([...strings, environment])
  // One piece of memory, held until the call is over: nothing else may keep what it points to.
  const image = createBlock(table + text.length)
  image.u8.set(text, table)
  let at = table + strings[0]!.length
  let slot = 0
  const point = (count: number) => {
    for (let i = 0; i < count; i++, slot += 8) {
      image.view.setBigUint64(slot, BigInt(image.base + at), true)
      at = image.u8.indexOf(0, at) + 1
    }
    slot += 8 // NULL
  }
  point(args.length)
  const environmentAt = slot
  point(entries)
  const file = image.base + table
  const failed = os.syscall(here().execve, file, image.base, image.base + environmentAt, 0, 0, 0)
  image.u8.fill(0)
  return failed
}

/** An empty file in memory, which programs that are started inherit. @throws OsError */
export function createMemoryFile(name: string, os: Syscalls = openLibc()): number {
  const path = blockOf(Buffer.from(`${name}\0`))
  const fd = os.syscall(here().memfdCreate, path.base, 0, 0, 0, 0, 0)
  return check(fd, 'memfd_create', 'cannot make a file in memory')
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

/** Hears which calls were received and not answered yet. */
export interface CallObserver {
  received(call: TrappedCall): void
  done(call: WaitingCall): void
}

/** All it takes to answer one. */
export type WaitingCall = Pick<TrappedCall, 'id'>

/** The receiving end of a filter. Every call is answered once: by `answer`, `fail`, `pass` or `giveFd`. */
export class Listener implements Disposable {
  readonly fd: number
  readonly #os: Syscalls
  readonly #observer: CallObserver | undefined
  readonly #call = createBlock(SECCOMP_NOTIF.size)
  readonly #response = createBlock(SECCOMP_NOTIF_RESP.size)
  readonly #addition = createBlock(SECCOMP_NOTIF_ADDFD.size)
  readonly #id = createBlock(8)
  readonly #poll = createBlock(POLLFD.size)

  constructor(fd: number, observer?: CallObserver, os: Syscalls = openLibc()) {
    this.fd = fd
    this.#observer = observer
    this.#os = os
  }

  /** The next call, if one waits or comes in that time; 'ended' when no process has the filter any more. */
  receive(timeoutMs = 0): TrappedCall | 'none' | 'ended' {
    this.#poll.view.setInt32(POLLFD.fd, this.fd, true)
    this.#poll.view.setInt32(POLLFD.events, POLLIN, true)
    if (this.#os.poll(this.#poll.base, 1, timeoutMs) <= 0) return 'none'
    const events = this.#poll.view.getInt16(POLLFD.revents, true)
    // POLLERR alone: it was interrupted.
    if ((events & POLLIN) === 0) return (events & POLLHUP) !== 0 ? 'ended' : 'none'
    this.#call.u8.fill(0)
    if (this.#os.ioctl(this.fd, SECCOMP_IOCTL_NOTIF_RECV, this.#call.base) < 0) return 'none' // it was killed meanwhile
    const { view } = this.#call
    const places = [0, 1, 2, 3, 4, 5].map((i) => SECCOMP_NOTIF.args + 8 * i)
    const call: TrappedCall = {
      id: view.getBigUint64(SECCOMP_NOTIF.id, true),
      tid: view.getUint32(SECCOMP_NOTIF.pid, true),
      nr: view.getInt32(SECCOMP_NOTIF.nr, true),
      args: places.map((at) => Number(view.getBigUint64(at, true))),
      ints: places.map((at) => view.getInt32(at, true)),
    }
    this.#observer?.received(call)
    return call
  }

  /** Whether the call still waits: only then does its thread's id mean that thread. */
  waits(call: WaitingCall): boolean {
    this.#id.view.setBigUint64(0, call.id, true)
    const waits = this.#os.ioctl(this.fd, SECCOMP_IOCTL_NOTIF_ID_VALID, this.#id.base) >= 0
    if (!waits) this.#observer?.done(call)
    return waits
  }

  /** Has the call return `value`; false when nobody waits for it any more. */
  answer(call: WaitingCall, value: number): boolean {
    return this.#respond(call, value, 0, 0)
  }

  /** Has the call fail with a positive errno. */
  fail(call: WaitingCall, errno: number): boolean {
    return this.#respond(call, 0, -errno, 0)
  }

  /** Has the kernel carry the call out. */
  pass(call: WaitingCall): boolean {
    return this.#respond(call, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE)
  }

  /**
   * Puts a duplicate of `fd` at number `at` of the caller's descriptors, in place of what is there, and with `answer` has the
   * call return that number.
   *
   * @returns the number or -errno (-EBADF: beyond its limit); the call is not answered then
   */
  giveFd(
    call: WaitingCall,
    fd: number,
    at: number,
    options: { cloexec: boolean; answer: boolean },
  ): number {
    const { view } = this.#addition
    view.setBigUint64(SECCOMP_NOTIF_ADDFD.id, call.id, true)
    view.setUint32(
      SECCOMP_NOTIF_ADDFD.flags,
      SECCOMP_ADDFD_FLAG_SETFD | (options.answer ? SECCOMP_ADDFD_FLAG_SEND : 0),
      true,
    )
    view.setUint32(SECCOMP_NOTIF_ADDFD.srcfd, fd, true)
    view.setUint32(SECCOMP_NOTIF_ADDFD.newfd, at, true)
    view.setUint32(SECCOMP_NOTIF_ADDFD.newfdFlags, options.cloexec ? 0o2000000 : 0, true)
    const given = this.#os.ioctl(this.fd, SECCOMP_IOCTL_NOTIF_ADDFD, this.#addition.base)
    if (options.answer && given >= 0) this.#observer?.done(call)
    return given
  }

  [Symbol.dispose](): void {
    this.#os.close(this.fd)
  }

  #respond(call: WaitingCall, value: number, error: number, flags: number): boolean {
    const { view } = this.#response
    view.setBigUint64(SECCOMP_NOTIF_RESP.id, call.id, true)
    view.setBigInt64(SECCOMP_NOTIF_RESP.val, BigInt(value), true)
    view.setInt32(SECCOMP_NOTIF_RESP.error, error, true)
    view.setUint32(SECCOMP_NOTIF_RESP.flags, flags, true)
    const answered = this.#os.ioctl(this.fd, SECCOMP_IOCTL_NOTIF_SEND, this.#response.base) >= 0
    this.#observer?.done(call)
    return answered
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
