/**
 * Owns the world of an ordinary user: what anybody makes who has no rights but those of `unshare --user --map-root-user --net
 * --mount`. In there the user is root, of namespaces that are theirs, and named ones work as elsewhere (namespace.ts), so
 * that a test file runs there as it is.
 *
 * Who is root becomes such a user for it, and gives them what a distribution gives its users: a /dev/net/tun that everybody may
 * open, and this checkout and the programs that were fetched for tests, wherever these lie. Others are ordinary as they are.
 */
import { chownSync, mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { run } from './command.ts'
import { cacheFolder, fetchKernel, fetchOpenvpn27, Unavailable } from './kernel/fetch.ts'

/** Somebody. */
export const USER = 65534

const CHECKOUT = fileURLToPath(new URL('../', import.meta.url))
/** Hides what is there, from the user only. */
const SEEN = '/mnt'

const BECOME_USER = `
  mount -n -t tmpfs -o mode=755 seen ${SEEN}
  cd ${SEEN}
  mkdir -p checkout cache/ovpn-test
  mount -n --bind "$1" checkout
  mount -n --bind "$2" cache/ovpn-test
  mknod -m 666 tun c 10 200
  mount -n --bind tun /dev/net/tun
  cd checkout
  shift 2
  exec setpriv --reuid ${USER} --regid ${USER} --clear-groups env XDG_CACHE_HOME=${SEEN}/cache "$@"`
/** Names of namespaces are files below /run. */
const BE_ROOT = 'mount -n -t tmpfs run /run; mkdir /run/netns; ip link set lo up; exec "$@"'

const isRoot = process.getuid?.() === 0

/**
 * The command that starts `command` there, in the checkout. Paths in it below the checkout become what the user sees.
 *
 * @param home a folder that is given to the user, for temporary files as well
 */
export function asOrdinaryUser(command: readonly string[], home: string): [string, ...string[]] {
  const seen = isRoot
    ? command.map((word) => word.replace(CHECKOUT, () => `${SEEN}/checkout/`))
    : command
  const inside = ['--user', '--map-root-user', '--net', '--mount', 'sh', '-ec', BE_ROOT, 'sh']
  const owning = ['env', `HOME=${home}`, `TMPDIR=${home}`, ...seen]
  if (!isRoot) return ['unshare', ...inside, ...owning]
  chownSync(home, USER, USER)
  const outside = ['--mount', 'sh', '-ec', BECOME_USER, 'sh', CHECKOUT, cacheFolder()]
  return ['unshare', ...outside, 'unshare', ...inside, ...owning]
}

/** Why there is no such world on this machine, with this `home`; false where there is. Fetches what its user cannot. */
export async function withoutOrdinaryUser(home: string): Promise<string | false> {
  mkdirSync(cacheFolder(), { recursive: true })
  for (const fetch of [fetchOpenvpn27, fetchKernel]) {
    await fetch().catch((error: unknown) => {
      if (!(error instanceof Unavailable)) throw error
    })
  }
  const script = 'cd "$HOME"; "$0" --version; ip tuntap add mode tun'
  const [command, ...args] = asOrdinaryUser(['sh', '-ec', script, process.execPath], home)
  const { status, stderr } = await run(command, args)
  return status === 0 ? false : `an ordinary user cannot make namespaces and devices: ${stderr}`
}
