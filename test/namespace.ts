/** Network namespaces for tests of the real thing: made, used through `ip`, and removed with the test. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { openLibc } from '../src/platform/libc.ts'
import { createNetns, openNetnsNamed, removeNetns } from '../src/platform/netns.ts'

/** Why tests that make namespaces and devices cannot run here; false when they can. */
export const withoutNamespaces: string | false =
  process.getuid?.() !== 0
    ? 'namespaces and network devices take root'
    : existsSync('/dev/net/tun')
      ? false
      : 'there is no /dev/net/tun'

/** Where named namespaces are. */
const NAMED = '/run/netns'

export interface TestNetns extends Disposable {
  readonly name: string
  /** The namespace, opened; closed with it. */
  readonly fd: number
  /** Runs `ip` inside, with arguments as on a command line, and gives its output. */
  ip(command: string): string
}

let made = 0

/** Removes what a process that was killed has left of the following. */
export function removeNetnsOf(pid: number): void {
  const names = existsSync(NAMED) ? readdirSync(NAMED) : []
  const theirs = new RegExp(`^ov[a-z]+${pid}-\\d+$`)
  for (const name of names.filter((one) => theirs.test(one))) removeNetns(name)
}

/** A namespace of its own, its loopback device up. `part` names the tests it is for. */
export function openTestNetns(part: string): TestNetns {
  const name = `ov${part}${process.pid}-${made++}`
  createNetns(name)
  const fd = openNetnsNamed(name)
  const ip = (command: string) =>
    execFileSync('ip', ['-n', name, ...command.split(' ')], { encoding: 'utf8', stdio: 'pipe' })
  ip('link set lo up')
  return {
    name,
    fd,
    ip,
    [Symbol.dispose]() {
      openLibc().close(fd)
      removeNetns(name)
    },
  }
}
