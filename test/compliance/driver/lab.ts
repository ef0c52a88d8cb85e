/**
 * Where the suite runs: a namespace `inside`, with the devices and their transport sockets, and one `outside`, with the
 * other ends, joined by a veth pair. Both are quiet: nothing is sent that no scenario has asked for.
 *
 *     inside  10.9.0.1, .11   fd09::1                outside  10.9.0.2, .3   fd09::2, ::3
 */
import { execFileSync } from 'node:child_process'
import { openLibc } from '../../../src/platform/libc.ts'
import { openNetnsNamed } from '../../../src/platform/netns.ts'

export const INSIDE = '10.9.0.1'
export const INSIDE_TOO = '10.9.0.11'
export const OUTSIDE = '10.9.0.2'
export const OUTSIDE_TOO = '10.9.0.3'
export const INSIDE6 = 'fd09::1'
export const OUTSIDE6 = 'fd09::2'

export interface Lab extends Disposable {
  /** Descriptors. */
  readonly inside: number
  readonly outside: number
  /** A third namespace, joined to nothing. */
  readonly aside: number
  /** Runs `ip` in `inside` and gives what it prints. Throws where it fails. */
  ip(...args: string[]): string
}

const QUIET = [
  'net.ipv6.conf.all.accept_dad=0',
  'net.ipv6.conf.default.accept_dad=0',
  'net.ipv6.conf.default.dad_transmits=0',
  'net.ipv6.conf.default.accept_ra=0',
  'net.ipv6.conf.default.router_solicitations=0',
]

/** @throws Error where namespaces cannot be made */
export function openLab(): Lab {
  const names = ['d', 'x', 'a'].map((letter) => `ovc${process.pid}${letter}`)
  const [d, x] = names as [string, string]
  const fds: number[] = []
  const dispose = () => {
    for (const fd of fds) openLibc().close(fd)
    for (const name of names) tryRun('ip', 'netns', 'del', name)
  }
  try {
    for (const name of names) {
      run('ip', 'netns', 'add', name)
      run('ip', 'netns', 'exec', name, 'sysctl', '-qw', ...QUIET)
      run('ip', '-n', name, 'link', 'set', 'lo', 'up')
    }
    run('ip', '-n', d, 'link', 'add', 'v', 'type', 'veth', 'peer', 'name', 'v', 'netns', x)
    const addresses: [string, string][] = [
      [d, `${INSIDE}/24`],
      [d, `${INSIDE_TOO}/24`],
      [d, `${INSIDE6}/64`],
      [x, `${OUTSIDE}/24`],
      [x, `${OUTSIDE_TOO}/24`],
      [x, `${OUTSIDE6}/64`],
    ]
    for (const [name, address] of addresses) {
      const nodad = address.includes(':') ? ['nodad'] : []
      run('ip', '-n', name, 'addr', 'add', address, 'dev', 'v', ...nodad)
    }
    for (const name of [d, x]) run('ip', '-n', name, 'link', 'set', 'v', 'up')
    // Devices under test say nothing by themselves.
    run('ip', 'netns', 'exec', d, 'sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1')
    fds.push(...names.map((name) => openNetnsNamed(name)))
    const [inside, outside, aside] = fds as [number, number, number]
    return {
      inside,
      outside,
      aside,
      ip: (...args) => run('ip', '-n', d, ...args),
      [Symbol.dispose]: dispose,
    }
  } catch (error) {
    dispose()
    throw error
  }
}

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

function tryRun(command: string, ...args: string[]): void {
  try {
    run(command, ...args)
  } catch {
    // It was never made.
  }
}
