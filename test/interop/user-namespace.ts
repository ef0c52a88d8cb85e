/**
 * What an ordinary user can make without rights: a user namespace in which it is root, and network namespaces of it. They get
 * names, so that tests use them as they use others.
 *
 * The machine's doing is only /dev/net/tun, one that everybody may open, as distributions have it; and that a program that lies
 * below somebody's home is seen.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { openLibc } from '../../src/platform/libc.ts'
import { openNetnsNamed, removeNetns } from '../../src/platform/netns.ts'
import { start } from '../command.ts'
import type { TestNetns } from '../namespace.ts'

/** Somebody's. */
export const USER = 65534
const WAIT = ['sh', '-c', 'echo ready; exec sleep infinity']

export interface UserNamespace {
  /** A network namespace of it, its loopback device up. */
  openNetns(part: string): Promise<TestNetns>
  /** What starts a command of root's in it, as the user. */
  readonly through: string[]
  /** Where it sees the program that was named. */
  readonly program: string
  close(): Promise<void>
}

/** @param program a command of root's, that the user is to see with all in its folder */
export async function openUserNamespace(program: string): Promise<UserNamespace> {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-user-'))
  const script = `chmod 755 .; mknod tun c 10 200; chmod 666 tun; mount --bind tun /dev/net/tun
    mkdir seen; mount --bind "$1" seen; shift
    exec setpriv --reuid ${USER} --regid ${USER} --clear-groups \\
      unshare --user --map-root-user --mount "$@"`
  const args = ['--mount', 'sh', '-ec', script, 'sh', dirname(program), ...WAIT]
  const holder = start('unshare', args, { cwd: folder })
  await holder.says(/ready/)
  const through = ['nsenter', '--target', String(holder.pid), '--user', '--mount']
  let made = 0
  return {
    through,
    program: join(folder, 'seen', basename(program)),
    async openNetns(part) {
      const name = `ov${part}${process.pid}-${made++}`
      const [enter, ...args] = through
      const first = start(enter!, [...args, 'unshare', '--net', ...WAIT])
      await first.says(/ready/)
      execFileSync('ip', ['netns', 'attach', name, String(first.pid)])
      first.kill('SIGKILL')
      await first.ended
      const fd = openNetnsNamed(name)
      const ip = (command: string) =>
        execFileSync('ip', ['-n', name, ...command.split(' ')], { encoding: 'utf8', stdio: 'pipe' })
      ip('link set lo up')
      return {
        ...{ name, fd, ip },
        [Symbol.dispose]() {
          openLibc().close(fd)
          removeNetns(name)
        },
      }
    },
    async close() {
      holder.kill('SIGKILL')
      await holder.ended
      rmSync(folder, { recursive: true })
    },
  }
}
