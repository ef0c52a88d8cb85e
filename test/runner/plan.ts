/**
 * Owns which test files there are and how each is to be run: found by folder, told apart by folder, and by what a file
 * says of itself. Running them is pool.ts's and job.ts's.
 *
 * A file says it in lines `// npm test: ...`, which test/README.md lists.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { OTHER_DRIVERS } from '../driver-settings.ts'
import { layerOf } from '../layers.ts'
import type { Job } from './job.ts'

interface Traits {
  /** Processors that it keeps busy. Files that mostly wait have little; Infinity lets nothing else run beside it. */
  load: number
  /** How long the whole may take, and each test; a busy machine included. */
  limitSeconds: number
  testSeconds: number
  early: boolean
  otherDrivers: boolean
  ordinaryUser: boolean
}

/** The first row that fits counts. */
const FOLDERS: [prefix: string, load: number, file: number, test: number, why: string][] = [
  ['test/sim/', 1, 180, 90, 'virtual hours'],
  ['test/interop/', 0.3, 420, 180, 'sessions of real programs'],
  ['test/openvpn/', 0.25, 420, 180, 'the same, with our own client and server'],
  ['test/netns/', 0.4, 420, 180, 'keepalive timeouts in real time'],
  ['', 1, 180, 90, 'all others'],
]

/**
 * What a file costs that boots a virtual machine, wherever it lies: an emulated processor, busy all the time unless the file
 * says otherwise; perhaps the download of its kernel, and a second try.
 */
const GUEST = { load: 1, limitSeconds: 600, testSeconds: 300, early: true }
const BOOTS_GUEST = /^(?:import|\}).* from '[./]+(?:kernel\/)?vm\.ts'$/m

/** All test files, in no order that matters. */
export function testFiles(): string[] {
  return ['src', 'test', 'bench'].flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((entry) => entry.endsWith('.test.ts'))
      .map((entry) => join(folder, entry))
      .sort(),
  )
}

/**
 * What is to be run for `files`, in the order in which it should begin: long ones, then those that mostly wait, then those
 * that fill what is left of the processors; last those that want the machine for themselves.
 */
export function planJobs(files: readonly string[]): Job[] {
  const traits = new Map(files.map((file) => [file, traitsOf(file, readFileSync(file, 'utf8'))]))
  const rank = (file: string) => {
    const { load, early } = traits.get(file)!
    if (load === Number.POSITIVE_INFINITY) return 3
    return early ? 0 : load < 1 ? 1 : 2
  }
  const order = [...files].sort((a, b) => rank(a) - rank(b))
  return order.flatMap((file) => jobsOf(file, traits.get(file)!))
}

/** Throws an Error for a declaration that it cannot make sense of. */
export function traitsOf(file: string, text: string): Traits {
  const [, load, limitSeconds, testSeconds] = FOLDERS.find(([prefix]) => file.startsWith(prefix))!
  const traits: Traits = {
    ...{ load, limitSeconds, testSeconds },
    ...{ early: false, otherDrivers: false, ordinaryUser: false },
    ...(BOOTS_GUEST.test(text) && GUEST),
  }
  for (const [, said] of text.matchAll(/^\/\/ npm test: (.*)$/gm)) {
    if (!declare(traits, said!)) throw new Error(`${file}: '// npm test: ${said}' says nothing`)
  }
  return traits
}

function declare(traits: Traits, said: string): boolean {
  const load = /^load (\d+(?:\.\d+)?)$/.exec(said)
  const limits = /^(\d+) s, (\d+) s a test$/.exec(said)
  if (said === 'early') traits.early = true
  else if (said === 'other drivers') traits.otherDrivers = true
  else if (said === 'ordinary user') traits.ordinaryUser = true
  else if (/^alone: .+/.test(said)) traits.load = Number.POSITIVE_INFINITY
  else if (load !== null) traits.load = Number(load[1])
  else if (limits !== null) {
    traits.limitSeconds = Number(limits[1])
    traits.testSeconds = Number(limits[2])
  } else return false
  return true
}

/** Whether a test's subject makes no system call, so that it must run in Node too. */
function isPure(file: string): boolean {
  const subject = file.replace(/\.test\.ts$/, '.ts')
  return file.startsWith('test/sim/') || layerOf(subject)?.runsInNode === true
}

function jobsOf(file: string, traits: Traits): Job[] {
  const { load, limitSeconds, testSeconds, otherDrivers, ordinaryUser } = traits
  const shared = { file, load, limitSeconds }
  const bun: Job = {
    ...shared,
    name: isPure(file) ? `${file} (bun)` : file,
    runtime: 'bun',
    command: process.execPath,
    args: ['--timeout', `${testSeconds * 1000}`, `./${file}`],
  }
  const jobs = [bun]
  if (isPure(file)) {
    jobs.push({
      ...shared,
      name: `${file} (node)`,
      runtime: 'node',
      command: 'node',
      args: [`./${file}`],
    })
  }
  if (otherDrivers) {
    for (const driver of OTHER_DRIVERS) {
      const environment = { OVPN_TEST_DRIVER: driver }
      jobs.push({ ...bun, name: `${file} (${driver})`, environment })
    }
  }
  if (ordinaryUser) jobs.push({ ...bun, name: `${file} (ordinary user)`, ordinaryUser })
  return jobs
}
