/**
 * Starts a command as Docker starts a container's, as far as system calls go: `bun confined.ts insight|none COMMAND ARGS...`. Without
 * `insight` those are refused too that CAP_SYS_PTRACE opens. Source: Docker's default seccomp profile (moby, profiles/seccomp).
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { encodeFilter } from '../../src/interpose/filter.ts'
import {
  BPF,
  E,
  SECCOMP_DATA,
  SECCOMP_RET_ALLOW,
  SECCOMP_SET_MODE_FILTER,
  SOCK_FPROG,
} from '../../src/platform/layout.ts'
import { openLibc } from '../../src/platform/libc.ts'
import { blockOf, createBlock } from '../../src/platform/memory.ts'
import { architecture, execute } from '../../src/platform/seccomp.ts'

const SECCOMP_RET_ERRNO = 0x50000
const ENOSYS = 38

/** mount, umount2, unshare, setns, bpf, io_uring_setup. */
const FOR_ADMIN = { x64: [165, 166, 272, 308, 321, 425], arm64: [40, 39, 97, 268, 280, 425] }
/** ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd. */
const FOR_INSIGHT = { x64: [101, 310, 311, 312, 438], arm64: [117, 270, 271, 272, 438] }
const CLONE3 = 435

const [mode, command, ...args] = process.argv.slice(2)
const arch = process.arch as 'x64' | 'arm64'
const refused = [...FOR_ADMIN[arch], ...(mode === 'insight' ? [] : FOR_INSIGHT[arch])]
const { LD_W_ABS, JEQ_K, RET_K } = BPF
const filter = encodeFilter([
  [LD_W_ABS, 0, 0, SECCOMP_DATA.nr],
  [JEQ_K, 0, 1, CLONE3],
  [RET_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS],
  ...refused.flatMap((nr): [number, number, number, number][] => [
    [JEQ_K, 0, 1, nr],
    [RET_K, 0, 0, SECCOMP_RET_ERRNO | E.EPERM],
  ]),
  [RET_K, 0, 0, SECCOMP_RET_ALLOW],
])
const instructions = blockOf(filter)
const program = createBlock(SOCK_FPROG.size)
program.view.setUint16(SOCK_FPROG.len, filter.length / 8, true)
program.view.setBigUint64(SOCK_FPROG.filter, BigInt(instructions.base), true)
const os = openLibc()
const { seccomp } = architecture!
assert.equal(os.syscall(seccomp, SECCOMP_SET_MODE_FILTER, 0, program.base, 0, 0, 0), 0)
const path = Bun.which(command!)
assert.ok(path, `${command} is not there`)
process.exit(-execute(path, [command!, ...args], readFileSync('/proc/self/environ')))
