/**
 * Which system calls `ovpn run` takes part in, as a seccomp filter: opening a netlink socket, and what is then done with
 * a descriptor of the range in which such sockets are given out. All others run at full speed. Pure.
 */
import {
  BPF,
  SECCOMP_DATA,
  SECCOMP_RET_ALLOW,
  SECCOMP_RET_USER_NOTIF,
  SOCK_FILTER,
} from '../platform/layout.ts'
import { architecture, type CallNumbers } from '../platform/seccomp.ts'

/**
 * Numbers of descriptors that netlink sockets get: rarely used by programs, and below 1024, beyond which select() does
 * not work and limits begin.
 */
export const FIRST_FD = 900
export const FD_COUNT = 64

const AF_NETLINK = 16
const NETLINK_ROUTE = 0
const NETLINK_GENERIC = 16

/** Calls whose first argument is a descriptor. */
const ON_DESCRIPTORS: readonly Exclude<keyof CallNumbers, 'socket'>[] = [
  // Those of everyday first: they are looked for one after another.
  ...(['read', 'write', 'readv', 'writev', 'sendmmsg', 'recvmmsg'] as const),
  ...(['sendmsg', 'recvmsg', 'sendto', 'recvfrom', 'bind', 'connect', 'getsockname'] as const),
  ...(['setsockopt', 'getsockopt', 'fcntl', 'dup', 'dup2', 'dup3'] as const),
]

type Instruction = [code: number, jt: number, jf: number, k: number]

/**
 * The filter as `sock_filter` instructions: the calls above are passed on, those of another architecture than this
 * process's (a 32-bit program) are left alone.
 *
 * @throws Error where the architecture is not supported
 */
export function createFilter(): Uint8Array {
  if (architecture === undefined) throw new Error(`${process.arch} is not supported`)
  const { audit, calls } = architecture
  const numbers = ON_DESCRIPTORS.map((name) => calls[name]).filter((nr) => nr !== undefined)
  const low = (arg: number) => SECCOMP_DATA.args + 8 * arg
  const { LD_W_ABS, JEQ_K, JGE_K, RET_K } = BPF
  // Offsets of jumps count from the next instruction.
  const isSocket: Instruction[] = [
    [LD_W_ABS, 0, 0, low(0)],
    [JEQ_K, 0, 4, AF_NETLINK],
    [LD_W_ABS, 0, 0, low(2)],
    [JEQ_K, 1, 0, NETLINK_ROUTE],
    [JEQ_K, 0, 1, NETLINK_GENERIC],
    [RET_K, 0, 0, SECCOMP_RET_USER_NOTIF],
    [RET_K, 0, 0, SECCOMP_RET_ALLOW],
  ]
  const isInRange: Instruction[] = [
    [LD_W_ABS, 0, 0, low(0)],
    [JGE_K, 0, 2, FIRST_FD],
    [JGE_K, 1, 0, FIRST_FD + FD_COUNT],
    [RET_K, 0, 0, SECCOMP_RET_USER_NOTIF],
    [RET_K, 0, 0, SECCOMP_RET_ALLOW],
  ]
  const start: Instruction[] = [
    [LD_W_ABS, 0, 0, SECCOMP_DATA.arch],
    [JEQ_K, 1, 0, audit],
    [RET_K, 0, 0, SECCOMP_RET_ALLOW],
    [LD_W_ABS, 0, 0, SECCOMP_DATA.nr],
    [JEQ_K, numbers.length + 1, 0, calls.socket],
    ...numbers.map((nr, i): Instruction => {
      return [JEQ_K, numbers.length - i + isSocket.length, 0, nr]
    }),
    [RET_K, 0, 0, SECCOMP_RET_ALLOW],
  ]
  return encodeFilter([...start, ...isSocket, ...isInRange])
}

/** As `sock_filter` structures, one behind the other. */
export function encodeFilter(instructions: readonly Instruction[]): Uint8Array {
  const bytes = new Uint8Array(instructions.length * SOCK_FILTER.size)
  const view = new DataView(bytes.buffer)
  for (const [i, [code, jt, jf, k]] of instructions.entries()) {
    const at = i * SOCK_FILTER.size
    view.setUint16(at + SOCK_FILTER.code, code, true)
    view.setUint8(at + SOCK_FILTER.jt, jt)
    view.setUint8(at + SOCK_FILTER.jf, jf)
    view.setUint32(at + SOCK_FILTER.k, k, true)
  }
  return bytes
}
