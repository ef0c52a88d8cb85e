/**
 * Owns programs of a newer Debian suite than the machine's: fetched with apt, checked by it, unpacked beside and run with
 * their own libraries. Nothing is installed, and the machine's package sources stay as they are.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { run } from './process.ts'

const SUITE = 'sid'
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
const DEFAULT_MIRROR = 'http://deb.debian.org/debian'
const FETCH_SECONDS = 300

/** A package, unpacked with all that it depends on. */
export interface Unpacked {
  version: string
  /** How a program of it is run: `path` as it would be if installed. */
  run(path: string): string[]
}

const fetched = new Map<string, Promise<Unpacked>>()

/**
 * Fetches a package once, and from then on finds it in the user's cache.
 *
 * @throws Error that says what is missing: apt, or a way to the mirror
 */
export function fetchDebian(name: string): Promise<Unpacked> {
  let found = fetched.get(name)
  if (found === undefined) {
    found = fetchOnce(name)
    fetched.set(name, found)
  }
  return found
}

async function fetchOnce(name: string): Promise<Unpacked> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'ovpn', SUITE)
  mkdirSync(cache, { recursive: true })
  const pattern = new RegExp(`^${name}_([^_]+)$`)
  const known = () => readdirSync(cache).find((entry) => pattern.test(entry))
  if (known() === undefined) await unpack(name, cache)
  const folder = known()!
  const root = join(cache, folder)
  const [loader] = find('usr/lib*/**/ld-linux-*.so.*', root)
  const libraries = find('usr/lib/*-linux-gnu', root)
  return {
    version: decodeURIComponent(pattern.exec(folder)![1]!),
    run: (path) =>
      loader === undefined
        ? [join(root, path)]
        : [loader, '--library-path', libraries.join(':'), join(root, path)],
  }
}

async function unpack(name: string, cache: string): Promise<void> {
  for (const tool of ['apt-get', 'dpkg-deb']) {
    if (Bun.which(tool) === null)
      throw new Error(`${name} comes from Debian, and ${tool} is not here`)
  }
  const work = join(cache, `fetch-${process.pid}`)
  try {
    const debs = await download(name, work)
    const root = join(work, 'root')
    for (const deb of debs) await run(['dpkg-deb', '-x', deb, root], { limitSeconds: 60 })
    const [, version] = debs
      .map((deb) => deb.split('/').at(-1)!.split('_'))
      .find(([its]) => its === name)!
    renameSync(root, join(cache, `${name}_${version}`))
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** The package and all it depends on, as if nothing were installed. */
async function download(name: string, work: string): Promise<string[]> {
  for (const folder of ['lists/partial', 'cache/archives/partial']) {
    mkdirSync(join(work, folder), { recursive: true })
  }
  const sources = join(work, 'sources.list')
  writeFileSync(sources, `deb [signed-by=${KEYRING}] ${mirror()} ${SUITE} main\n`)
  writeFileSync(join(work, 'status'), '')
  const settings = {
    'Dir::Etc::sourcelist': sources,
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::State': work,
    'Dir::State::lists': join(work, 'lists'),
    'Dir::State::status': join(work, 'status'),
    'Dir::Cache': join(work, 'cache'),
    'APT::Sandbox::User': 'root', // the cache is this user's alone
    'APT::Install-Recommends': 'false',
  }
  const options = Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${value}`])
  await run(['apt-get', ...options, 'update'], { limitSeconds: FETCH_SECONDS })
  const install = ['--yes', '--download-only', 'install', name]
  await run(['apt-get', ...options, ...install], { limitSeconds: FETCH_SECONDS })
  return find('*.deb', join(work, 'cache/archives'))
}

/** Where the machine itself gets Debian from. */
function mirror(): string {
  const lists = ['/etc/apt/sources.list', ...find('*', '/etc/apt/sources.list.d')]
  for (const list of lists.filter((path) => existsSync(path))) {
    const found = /^(?:URIs:|deb(?: \[[^\]]*\])?)\s+(https?:\S*\/debian)\/?(?:\s|$)/m.exec(
      readFileSync(list, 'utf8'),
    )
    if (found !== null) return found[1]!
  }
  return DEFAULT_MIRROR
}

/** What fits `pattern` in `folder`: whole paths, folders too. */
function find(pattern: string, folder: string): string[] {
  if (!existsSync(folder)) return []
  return [...new Bun.Glob(pattern).scanSync({ cwd: folder, absolute: true, onlyFiles: false })]
}
