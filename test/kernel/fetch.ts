/**
 * What tests and benchmarks need of other releases of Debian: a kernel that has `ovpn.ko`, and programs such as OpenVPN 2.7
 * and 3 of the newest, and OpenVPN 2.4 and 2.5 of old ones.
 *
 * Owns the download, with the machine's own mirror and apt's own signature check but a private apt
 * state, and the cache it is unpacked in (`$XDG_CACHE_HOME/ovpn-test`). What is in the cache is used
 * without asking the network again; to get a newer one, remove the folder. Nothing is installed.
 * Booting the kernel is vm.ts's.
 */
import { execFile } from 'node:child_process'
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** A release of Debian. */
interface Release {
  /** The C library's loader and the folders of libraries, below where packages of it are unpacked. */
  loader: string
  libraries: string[]
  /** Whether the loader can give a program a name. */
  argv0?: boolean
  /** Mirrors have it no more. */
  archived?: boolean
}

const OLD: Release = {
  loader: 'lib/x86_64-linux-gnu/ld-linux-x86-64.so.2',
  libraries: ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'],
}
const RELEASES = {
  sid: {
    loader: 'usr/lib64/ld-linux-x86-64.so.2',
    libraries: ['usr/lib/x86_64-linux-gnu'],
    argv0: true,
  },
  bullseye: OLD,
  buster: { ...OLD, archived: true },
} satisfies { [suite: string]: Release }

export type Suite = keyof typeof RELEASES

const NEWEST: Suite = 'sid'
const ARCHIVE = 'http://archive.debian.org/debian'
const KEYRINGS = ['pgp', 'gpg'].map((end) => `/usr/share/keyrings/debian-archive-keyring.${end}`)
/** Of keys that sign no more; what they have signed stays. */
const OLD_KEYRINGS = KEYRINGS.map((file) => file.replace('keyring.', 'removed-keys.'))
const DOWNLOAD_TIMEOUT_MS = 300_000

/** An unpacked kernel. `modules` is its `/lib/modules/VERSION`, files compressed as packaged. */
export interface KernelFiles {
  version: string
  vmlinuz: string
  modules: string
}

/** An OpenVPN; `command` runs it with the C library it was built for, whatever this machine's. */
export interface OpenvpnFiles {
  command: string
}

/** This machine cannot have it; the message says why and is fit as a test's reason to skip. */
export class Unavailable extends Error {
  override name = 'Unavailable'
}

/** The newest kernel of the suite, or the one in the cache. Throws `Unavailable`. */
export async function fetchKernel(): Promise<KernelFiles> {
  const root = await cached(NEWEST, 'kernel', async (apt, into) => {
    const { stdout } = await apt('apt-cache', 'depends', 'linux-image-amd64')
    const version = /Depends: linux-image-(\S+)/.exec(stdout)?.[1]
    if (version === undefined) throw new Unavailable(`no linux-image-amd64 in Debian ${NEWEST}`)
    const packages = ['base', 'binary', 'modules'].map((part) => `linux-${part}-${version}`)
    await apt('apt-get', '-qq', 'download', ...packages)
    await unpackAll(into, into)
  })
  const parent = join(root, 'usr/lib/modules')
  const [version] = await readdir(parent)
  if (version === undefined) throw new Error(`no kernel in ${parent}`)
  const modules = join(parent, version)
  return { version, modules, vmlinuz: join(modules, 'vmlinuz') }
}

/** A package of the suite with all that it depends on. */
export interface DebianPackage {
  version: string
  /** How a program of it is run, with the libraries it was built for: `path` is where it would be installed. */
  run(path: string): string[]
}

/** The suite's version of a package, or the one in the cache. Throws `Unavailable`. */
export async function fetchPackage(name: string, suite: Suite = NEWEST): Promise<DebianPackage> {
  const root = await fetchTree(suite, name)
  const { loader, libraries } = RELEASES[suite]
  const folders = libraries.map((folder) => join(root, folder)).join(':')
  return {
    version: (await readFile(join(root, VERSION_FILE), 'utf8')).trim(),
    run: (path) => [join(root, loader), '--library-path', folders, join(root, path)],
  }
}

/** OpenVPN 2.7 with every library it needs, or the one in the cache. Throws `Unavailable`. */
export function fetchOpenvpn27(): Promise<OpenvpnFiles> {
  return fetchOpenvpn(NEWEST)
}

/** The same of any suite. */
export async function fetchOpenvpn(suite: Suite): Promise<OpenvpnFiles> {
  const command = join(await fetchTree(suite, 'openvpn'), 'openvpn')
  if (!(await exists(command))) await writeFile(command, wrapper(RELEASES[suite]), { mode: 0o755 })
  return { command }
}

/** Where Debian's client of OpenVPN 3 is unpacked, with all it needs and a message bus, as in a root file system. Throws `Unavailable`. */
export function fetchOpenvpn3(): Promise<string> {
  return fetchTree(NEWEST, 'openvpn3-client', 'dbus-daemon')
}

/** A package, others, and all they depend on, unpacked. */
function fetchTree(suite: Suite, name: string, ...others: string[]): Promise<string> {
  return cached(
    suite,
    `${suite === NEWEST ? '' : `${suite}-`}package-${name}`,
    async (apt, into) => {
      // The private dpkg status is empty, so this fetches all that it depends on, libc6 included.
      await apt(
        'apt-get',
        '-qq',
        '--no-install-recommends',
        '--download-only',
        '--yes',
        'install',
        ...[name, ...others],
      )
      const archives = join(into, '.apt/archives')
      const own = (await readdir(archives)).find((file) => file.startsWith(`${name}_`))
      if (own === undefined) throw new Unavailable(`no package ${name} in Debian ${suite}`)
      await writeFile(join(into, VERSION_FILE), decodeURIComponent(own.split('_')[1]!))
      await unpackAll(archives, into)
    },
  )
}

const VERSION_FILE = 'debian-version'

function wrapper({ loader, libraries, argv0 }: Release): string {
  const folders = libraries.map((folder) => `$root/${folder}`).join(':')
  return `#!/bin/sh
root=$(dirname "$(readlink -f "$0")")
exec "$root/${loader}" ${argv0 ? '--argv0 openvpn ' : ''}\\
  --library-path "${folders}" "$root/usr/sbin/openvpn" "$@"
`
}

type Apt = (
  program: 'apt-get' | 'apt-cache',
  ...args: string[]
) => Promise<{ stdout: string; stderr: string }>

/** The folder `name` of the cache; `fill` makes it of the suite's packages when there is none. */
async function cached(
  suite: Suite,
  name: string,
  fill: (apt: Apt, into: string) => Promise<void>,
): Promise<string> {
  const cache = cacheFolder()
  const target = join(cache, name)
  if (await exists(target)) return target
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Unavailable(
      `packages are for x86-64 Linux; this is ${process.platform} ${process.arch}`,
    )
  }
  await mkdir(cache, { recursive: true })
  await using _ = await takeTurn(`${target}.lock`)
  if (await exists(target)) return target
  const into = await mkdtemp(join(cache, `${name}-`))
  try {
    await fill(await privateApt(suite, into), into)
    await rm(join(into, '.apt'), { recursive: true })
    await rename(into, target)
    return target
  } catch (error) {
    if (error instanceof Unavailable || !isCommandFailure(error)) throw error
    throw new Unavailable(
      `cannot fetch ${name}: ${error.stderr.split('\n', 1)[0] || error.message}`,
      {
        cause: error,
      },
    )
  } finally {
    await rm(into, { recursive: true, force: true })
  }
}

/** Waits until no other process that lives holds the file, and holds it until disposed. */
async function takeTurn(path: string): Promise<AsyncDisposable> {
  for (;;) {
    try {
      await writeFile(path, `${process.pid}`, { flag: 'wx' })
      return { [Symbol.asyncDispose]: () => rm(path) }
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      if (code !== 'EEXIST') throw new Unavailable(`cannot keep it: ${message}`, { cause: error })
    }
    const holder = Number(await readFile(path, 'utf8').catch(() => ''))
    if (holder !== 0 && !(await exists(`/proc/${holder}`))) await rm(path, { force: true })
    await sleep(100)
  }
}

/** Where fetched files and what was learned about this machine are kept. */
export function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ovpn-test')
}

/** apt with an index of that suite only, its state below `into`/.apt, downloads going to `into`. */
async function privateApt(suite: Suite, into: string): Promise<Apt> {
  const state = join(into, '.apt')
  for (const folder of ['lists/partial', 'archives/partial']) {
    await mkdir(join(state, folder), { recursive: true })
  }
  await writeFile(join(state, 'status'), '')
  const options = {
    'Dir::Etc::SourceList': join(state, 'sources.list'),
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::Etc::PreferencesParts': '/dev/null',
    'Dir::State': state,
    'Dir::State::Lists': join(state, 'lists'),
    'Dir::State::Status': join(state, 'status'),
    'Dir::Cache': state,
    'Dir::Cache::Archives': join(state, 'archives'),
    'APT::Sandbox::User': 'root',
    'APT::Keep-Downloaded-Packages': 'true',
    'Acquire::Retries': '2',
  }
  const flags = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`])
  const apt: Apt = (program, ...args) =>
    run(program, [...flags, ...args], {
      cwd: into,
      timeout: DOWNLOAD_TIMEOUT_MS,
      maxBuffer: 1 << 24,
    })
  const source = `deb ${await origin(suite)} ${suite} main\n`
  await writeFile(join(state, 'sources.list'), source)
  await apt('apt-get', '-qq', 'update', '--error-on=any')
  return apt
}

/** Where a suite is had from, with the options of that line of apt's. */
async function origin(suite: Suite): Promise<string> {
  const { archived }: Release = RELEASES[suite]
  if (!archived) return `[signed-by=${await keyring(KEYRINGS)}] ${await mirror()}`
  return `[signed-by=${await keyring(OLD_KEYRINGS)} check-valid-until=no] ${ARCHIVE}`
}

/** The mirror this machine has its own Debian packages from. */
async function mirror(): Promise<string> {
  const format = '$(LABEL) $(REPO_URI)'
  const { stdout } = await run('apt-get', ['indextargets', '--format', format]).catch((error) => {
    if (error.code === 'ENOENT') throw new Unavailable('this machine has no apt')
    throw error
  })
  const lines = stdout.split('\n')
  // The label is known only once the machine's own lists were fetched.
  const line =
    lines.find((text) => text.startsWith('Debian ')) ??
    lines.find((text) => /\/debian\/?$/.test(text))
  if (line === undefined)
    throw new Unavailable('this machine has no Debian mirror among its sources')
  return line.slice(line.lastIndexOf(' ') + 1)
}

async function keyring(files: string[]): Promise<string> {
  for (const file of files) if (await exists(file)) return file
  throw new Unavailable('no keyring of the Debian archive on this machine')
}

async function unpackAll(from: string, into: string): Promise<void> {
  for (const name of await readdir(from)) {
    if (!name.endsWith('.deb')) continue
    await run('dpkg-deb', ['--extract', join(from, name), into])
    await rm(join(from, name))
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

function isCommandFailure(error: unknown): error is Error & { stderr: string } {
  return error instanceof Error && 'stderr' in error && typeof error.stderr === 'string'
}
