/**
 * What `npm test` runs: the checks, then every test file under Bun, and those of pure folders under Node too.
 *
 *     npm test                 everything
 *     npm test -- FILTER       test files whose path contains FILTER
 *
 * Each file has a process of its own: one that crashes, hangs or holds no test is a failure with a name. The last
 * line is "N passed, N failed", and ", N skipped" where there are any; the exit status is 1 unless all that ran passed.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { OTHER_DRIVERS } from './driver-settings.ts'
import { type Job, type JobResult, killJobs, runJob } from './runner/job.ts'
import { installPackages } from './runner/packages.ts'

/** Tests of code that does no system call: they run under both runtimes, two files at a time. */
const PURE = [
  'src/netlink/',
  'src/uapi/',
  'src/wire/',
  'src/driver/core/',
  'src/driver/channel.test.ts',
  'src/driver/client.test.ts',
  'test/sim/',
]

/** Seconds that a file may take, and a single test of it. The first row that fits counts. */
const LIMITS: [prefix: string, file: number, test: number, why: string][] = [
  ['test/sim/', 120, 60, 'virtual hours'],
  ...PURE.map((prefix): [string, number, number, string] => [prefix, 60, 30, 'no waiting in them']),
  ['test/kernel/', 420, 300, 'a virtual machine, and the download of its kernel'],
  ['test/compliance/', 600, 300, 'the same on a virtual machine, perhaps twice'],
  ['test/interop/', 300, 120, 'sessions of real programs'],
  ['test/netns/', 300, 120, 'keepalive timeouts in real time'],
  ['', 120, 60, 'all others'],
]

/** Files that run with other kinds of the driver too. */
const TRAFFIC = ['udp', 'tcp', 'keys', 'life', 'hostile'].map(
  (name) => `test/netns/${name}.test.ts`,
)

process.chdir(fileURLToPath(new URL('..', import.meta.url)))
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    killJobs()
    process.exit(1)
  })
}
process.exitCode = await main(process.argv.slice(2))

async function main(filters: string[]): Promise<number> {
  const files = ['src', 'test', 'bench']
    .flatMap(testFiles)
    .filter((file) => filters.every((filter) => file.includes(filter)))
  const pure = files.filter(isPure)
  installPackages()
  const done: JobResult[] = []
  // Checks look at all there is; a filter asks for something else.
  if (filters.length === 0) await runAll(checks(), 1, done)
  await runAll([...pure.map(bunJob), ...pure.map(nodeJob)], 2, done)
  // The rest share the machine's devices and time, so they take turns.
  await runAll(files.filter((file) => !isPure(file)).flatMap(jobsOf), 1, done)
  return summary(done)
}

function testFiles(folder: string): string[] {
  let entries: string[]
  try {
    entries = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  } catch {
    return [] // a folder that is not there yet
  }
  return entries
    .filter((entry) => entry.endsWith('.test.ts'))
    .map((entry) => join(folder, entry))
    .sort()
}

function isPure(file: string): boolean {
  return PURE.some((prefix) => file.startsWith(prefix))
}

function checks(): Job[] {
  const bin = (name: string) => join('node_modules', '.bin', name)
  return [
    { name: 'biome check', command: bin('biome'), args: ['check', '.'], limitSeconds: 120 },
    { name: 'tsc', command: bin('tsc'), args: ['--noEmit'], limitSeconds: 180 },
  ]
}

function limitsOf(file: string): { limitSeconds: number; testMs: number } {
  const [, limitSeconds, test] = LIMITS.find(([prefix]) => file.startsWith(prefix))!
  return { limitSeconds, testMs: test * 1000 }
}

function bunJob(file: string): Job {
  const { limitSeconds, testMs } = limitsOf(file)
  const args = ['--timeout', String(testMs), `./${file}`]
  return {
    name: `bun  ${file}`,
    command: process.execPath,
    args,
    limitSeconds,
    file,
    runtime: 'bun',
  }
}

/** The file as it is, and with other drivers where that is asked for. */
function jobsOf(file: string): Job[] {
  const job = bunJob(file)
  if (!TRAFFIC.includes(file)) return [job]
  const others = OTHER_DRIVERS.map((driver) => ({
    ...job,
    name: `${job.name} (${driver})`,
    environment: { OVPN_TEST_DRIVER: driver },
  }))
  return [job, ...others]
}

function nodeJob(file: string): Job {
  const { limitSeconds } = limitsOf(file)
  const args = [`./${file}`]
  return { name: `node ${file}`, command: 'node', args, limitSeconds, file, runtime: 'node' }
}

async function runAll(jobs: Job[], atOnce: number, done: JobResult[]): Promise<void> {
  const left = [...jobs]
  const worker = async () => {
    for (let job = left.shift(); job !== undefined; job = left.shift()) {
      const result = await runJob(job)
      report(result)
      done.push(result)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

function countsOf({ results }: JobResult) {
  const count = (outcome: string) => results.filter((result) => result.outcome === outcome).length
  return { passed: count('passed'), failed: count('failed'), skipped: count('skipped') }
}

function words({ passed, failed, skipped }: ReturnType<typeof countsOf>): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}

function report(result: JobResult): void {
  const counts = countsOf(result)
  const mark = counts.failed > 0 ? 'FAIL' : 'ok  '
  console.log(`${mark} ${result.job.name}: ${words(counts)}, ${result.seconds.toFixed(1)} s`)
  if (counts.failed > 0) console.log(`${tail(result.output).trimEnd()}\n`)
}

/** The end of what a failed file printed, as much as can be read; of passed tests the last, where a hung one began. */
function tail(output: string): string {
  const most = 20_000
  const lines = output.split('\n')
  const isPass = (line: string) => line.startsWith('(pass)')
  const last = lines.findLastIndex(isPass)
  const text = lines.filter((line, i) => !isPass(line) || i === last).join('\n')
  return text.length <= most ? text : `[...]${text.slice(-most)}`
}

function summary(done: JobResult[]): number {
  const total = { passed: 0, failed: 0, skipped: 0 }
  const skipped: string[] = []
  const failed: string[] = []
  for (const one of done) {
    const counts = countsOf(one)
    total.passed += counts.passed
    total.failed += counts.failed
    total.skipped += counts.skipped
    for (const { name, outcome, reason } of one.results) {
      const place = one.job.file === undefined ? name : `${one.job.name} > ${name}`
      if (outcome === 'skipped') skipped.push(`  ${place}: ${reason ?? 'no reason given'}`)
      if (outcome === 'failed') failed.push(`  ${place}`)
    }
  }
  if (skipped.length > 0) console.log(`\nSkipped:\n${skipped.join('\n')}`)
  if (failed.length > 0) console.log(`\nFailed:\n${failed.join('\n')}`)
  const ran = total.passed + total.failed > 0
  if (!ran) console.log('\nNothing ran.')
  console.log(`\n${words(total)}`)
  return ran && total.failed === 0 ? 0 : 1
}
