/**
 * Giving up root and keeping what the network takes: another user with CAP_NET_ADMIN and little else. To be done before this process has
 * threads of its own, which then have no more either. Source: capabilities(7), "Effect of user ID changes on capabilities".
 */
import { check } from './error.ts'
import { openLibc } from './libc.ts'
import { createBlock } from './memory.ts'

const NR = process.arch === 'x64' ? { prctl: 157, capset: 126 } : { prctl: 167, capset: 91 }
const PR_GET_SECUREBITS = 27
const PR_SET_SECUREBITS = 28
const PR_CAP_AMBIENT = 47
const PR_CAP_AMBIENT_RAISE = 2
/** Capabilities stay when the user changes; in every thread that is made from here on, too. */
const SECBIT_NO_SETUID_FIXUP = 1 << 2
const CAPABILITY_VERSION_3 = 0x20080522
const CAP = { DAC_OVERRIDE: 1, NET_BIND_SERVICE: 10, NET_ADMIN: 12, NET_RAW: 13 } as const

/** What sockets, interfaces and routes take. */
const KEPT = [CAP.NET_ADMIN, CAP.NET_BIND_SERVICE, CAP.NET_RAW]
const ATTEMPT = 'cannot give up privileges'

/**
 * Becomes `uid` and `gid`. Files are within reach still, for /dev/net/tun is to be opened: until `limitThread`. Programs that are run later
 * have CAP_NET_ADMIN alone, and can change addresses and routes.
 *
 * @throws OsError EPERM where this process may not, and Error where the runtime cannot
 */
export function becomeUser(uid: number | undefined, gid: number | undefined): void {
  const { setgroups, setgid, setuid } = process
  if (setgroups === undefined || setgid === undefined || setuid === undefined) {
    throw new Error(`${ATTEMPT}: this runtime cannot change its user`)
  }
  prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
  if (gid !== undefined) {
    setgroups.call(process, [])
    setgid.call(process, gid)
  }
  if (uid !== undefined) setuid.call(process, uid)
  setCapabilities([...KEPT, CAP.DAC_OVERRIDE])
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP.NET_ADMIN)
}

/** In a process that has become another user, leaves the calling thread what the network takes; else nothing changes. */
export function limitThread(): void {
  if ((prctl(PR_GET_SECUREBITS) & SECBIT_NO_SETUID_FIXUP) !== 0) setCapabilities(KEPT)
}

function prctl(option: number, first = 0, second = 0): number {
  return check(openLibc().syscall(NR.prctl, option, first, second, 0, 0, 0), 'prctl', ATTEMPT)
}

function setCapabilities(capabilities: readonly number[]): void {
  const header = createBlock(8)
  header.view.setUint32(0, CAPABILITY_VERSION_3, true)
  // Effective, permitted and inheritable, the lower 32 of each; then the upper 32.
  const data = createBlock(24)
  const bits = capabilities.reduce((all, capability) => all | (1 << capability), 0)
  data.view.setUint32(0, bits, true)
  data.view.setUint32(4, bits, true)
  data.view.setUint32(8, 1 << CAP.NET_ADMIN, true)
  check(openLibc().syscall(NR.capset, header.base, data.base, 0, 0, 0, 0), 'capset', ATTEMPT)
}
