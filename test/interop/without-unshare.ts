/**
 * A program to start another one with: forbids it the system call unshare(), as the filter of a container does.
 *
 *     bun without-unshare.ts COMMAND ARGUMENTS…
 */
import { readFileSync } from 'node:fs'
import {
  PR_SET_NO_NEW_PRIVS,
  SECCOMP_RET_ALLOW,
  SECCOMP_SET_MODE_FILTER,
  SOCK_FILTER,
  SOCK_FPROG,
} from '../../src/platform/layout.ts'
import { openLibc } from '../../src/platform/libc.ts'
import { blockOf, createBlock } from '../../src/platform/memory.ts'
import { architecture, execute } from '../../src/platform/seccomp.ts'

const UNSHARE = process.arch === 'arm64' ? 97 : 272
const SECCOMP_RET_ERRNO = 0x50000
const EPERM = 1
const { seccomp, prctl } = architecture!
const os = openLibc()
const instructions: [code: number, jt: number, jf: number, k: number][] = [
  [0x20, 0, 0, 0], // the number of the call
  [0x15, 0, 1, UNSHARE],
  [0x06, 0, 0, SECCOMP_RET_ERRNO | EPERM],
  [0x06, 0, 0, SECCOMP_RET_ALLOW],
]
const filter = blockOf(new Uint8Array(instructions.length * SOCK_FILTER.size))
for (const [i, [code, jt, jf, k]] of instructions.entries()) {
  const at = i * SOCK_FILTER.size
  filter.view.setUint16(at, code, true)
  filter.view.setUint8(at + 2, jt)
  filter.view.setUint8(at + 3, jf)
  filter.view.setUint32(at + 4, k, true)
}
const program = createBlock(SOCK_FPROG.size)
program.view.setUint16(SOCK_FPROG.len, instructions.length, true)
program.view.setBigUint64(SOCK_FPROG.filter, BigInt(filter.base), true)
os.syscall(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
if (os.syscall(seccomp, SECCOMP_SET_MODE_FILTER, 0, program.base, 0, 0, 0) < 0) {
  throw new Error('cannot install a filter')
}
const [command, ...args] = process.argv.slice(2)
const failed = execute(command!, [command!, ...args], readFileSync('/proc/self/environ'))
throw new Error(`cannot run ${command}: ${failed}`)
