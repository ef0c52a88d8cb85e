/** What the driver and the demonstration need of the system, and how to get what is missing. */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'

/** Bits of capability sets (include/uapi/linux/capability.h). */
const CAP = { NET_ADMIN: 12, SYS_PTRACE: 19, SYS_ADMIN: 21 } as const

const TUN = '/dev/net/tun'

/** One line for each thing that is missing; empty if the driver can run. */
export function missingForDriver(): string[] {
  const missing: string[] = []
  if (!hasCapability('NET_ADMIN')) {
    missing.push(
      'it needs the capability CAP_NET_ADMIN: run it as root (sudo), or the container with --cap-add NET_ADMIN',
    )
  }
  if (!existsSync(TUN)) {
    missing.push(
      `there is no ${TUN}: 'modprobe tun', or run the container with --device ${TUN}, ` +
        `or 'mkdir -p /dev/net && mknod ${TUN} c 10 200'`,
    )
  } else if (!isReadable(TUN)) {
    missing.push(
      `${TUN} cannot be opened: run it as root (sudo), or allow its user to read and write it`,
    )
  }
  return missing
}

/** Whether processes of other users cannot be looked into. */
export function missingForOtherUsers(): boolean {
  return !hasCapability('SYS_PTRACE')
}

/** The same for the demonstration, which makes network namespaces too. */
export function missingForDemo(): string[] {
  const missing = missingForDriver()
  if (!hasCapability('SYS_ADMIN')) {
    missing.push(
      'network namespaces need CAP_SYS_ADMIN: run it as root (sudo), or the container with --privileged',
    )
  }
  return missing
}

function hasCapability(name: keyof typeof CAP): boolean {
  const status = readFileSync('/proc/self/status', 'utf8')
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`)
  return ((effective >> BigInt(CAP[name])) & 1n) === 1n
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}
