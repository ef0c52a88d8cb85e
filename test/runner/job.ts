/** Owns running one thing that can fail: a check, or one test file under one runtime; with a time limit. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { removeNetnsOf } from '../namespace.ts'
import { asOrdinaryUser, withoutOrdinaryUser } from '../ordinary-user.ts'
import { parseJunit, type TestResult } from './junit.ts'
import type { SkipNote } from './skips.ts'

export interface Job {
  /** "bun src/wire/ip.test.ts", "biome": unique. */
  name: string
  command: string
  args: string[]
  limitSeconds: number
  /** The test file that this runs; without one, the job itself is the one test. */
  file?: string
  runtime?: 'bun' | 'node'
  /** Beside this process's own. */
  environment?: Record<string, string>
  /** Whether an ordinary user runs it, in namespaces of theirs. */
  ordinaryUser?: boolean
  /** How many of the machine's processors it keeps busy; see pool.ts. */
  load: number
}

export interface JobResult {
  job: Job
  seconds: number
  /** Of processor time, its own and that of the programs it has waited for. */
  cpuSeconds: number
  results: TestResult[]
  /** What it printed. */
  output: string
}

const running = new Set<number>()

/** Ends what still runs, and removes what that has made. */
export function killJobs(): void {
  for (const pid of running) killGroup(pid)
  for (const pid of running) removeNetnsOf(pid)
}

/** Runs `job`. Whatever happens, there is a result: a process that crashes, hangs or tests nothing has failed. */
export async function runJob(job: Job): Promise<JobResult> {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-test-'))
  try {
    const why = job.ordinaryUser ? await withoutOrdinaryUser(folder) : false
    if (why !== false) return skippedJob(job, why)
    const report = join(folder, 'report.xml')
    const skips = join(folder, 'skips')
    const printed = join(folder, 'output')
    const started = performance.now()
    const plain = [job.command, ...reportArgs(job, report), ...job.args]
    const command = job.ordinaryUser ? asOrdinaryUser(plain, folder) : plain
    const { end, cpuSeconds } = await runProcess(job, command, printed, skips)
    const seconds = (performance.now() - started) / 1000
    const output = readFileSync(printed, 'utf8')
    const told = { end, report, output, notes: readNotes(skips) }
    const results = job.file === undefined ? checkResult(job, end) : fileResults(job, told)
    return { job, seconds, cpuSeconds, results, output }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function skippedJob(job: Job, reason: string): JobResult {
  const results: TestResult[] = [{ name: '(the file)', outcome: 'skipped', reason }]
  return { job, seconds: 0, cpuSeconds: 0, results, output: '' }
}

function reportArgs({ runtime }: Job, report: string): string[] {
  if (runtime === 'bun') {
    const preload = './test/runner/skips.ts'
    return ['test', '--preload', preload, '--reporter=junit', `--reporter-outfile=${report}`]
  }
  if (runtime === 'node') {
    return [
      ...['--test-reporter=junit', `--test-reporter-destination=${report}`],
      ...['--test-reporter=spec', '--test-reporter-destination=stdout'],
      ...['--import', 'tsx'],
    ]
  }
  return []
}

interface ProcessEnd {
  /** How it ended: '' if well, else in words. */
  end: string
  cpuSeconds: number
}

async function runProcess(
  job: Job,
  command: string[],
  printed: string,
  skips: string,
): Promise<ProcessEnd> {
  const output = openSync(printed, 'w')
  let child: Bun.Subprocess
  try {
    // In a process group of its own, so that what a hung test has started ends with it.
    child = Bun.spawn(command, {
      stdio: ['ignore', output, output],
      detached: true,
      env: { ...process.env, ...job.environment, OVPN_TEST_SKIPS: skips },
    })
  } catch (error) {
    return { end: (error as Error).message, cpuSeconds: 0 }
  } finally {
    closeSync(output)
  }
  const { pid } = child
  running.add(pid)
  let late = false
  const timer = setTimeout(() => {
    late = true
    killGroup(pid)
  }, job.limitSeconds * 1000)
  await child.exited
  clearTimeout(timer)
  running.delete(pid)
  killGroup(pid)
  removeNetnsOf(pid)
  return {
    end: late ? `killed after ${job.limitSeconds} s` : endOf(child),
    cpuSeconds: Number(child.resourceUsage()?.cpuTime.total ?? 0n) / 1e6,
  }
}

function endOf({ exitCode, signalCode }: Bun.Subprocess): string {
  if (signalCode !== null) return `${signalCode}`
  return exitCode === 0 ? '' : `exit code ${exitCode}`
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // Gone already.
  }
}

function checkResult(job: Job, end: string): TestResult[] {
  const name = end === '' ? job.name : `${job.name}: ${end}`
  return [{ name, outcome: end === '' ? 'passed' : 'failed', reason: undefined }]
}

interface Told {
  end: string
  /** The path of its report. */
  report: string
  output: string
  notes: SkipNote[]
}

function fileResults(job: Job, { end, report, output, notes }: Told): TestResult[] {
  const results: TestResult[] = []
  const failed = (name: string) => results.push({ name, outcome: 'failed', reason: undefined })
  // Bun writes no report where every describe is skipped.
  const isSkipped = end === '' && notes.length > 0 && /^Ran 0 tests across 1 file/m.test(output)
  try {
    if (!isSkipped) results.push(...parseJunit(readFileSync(report, 'utf8'), job.file!))
  } catch (error) {
    failed(`(the file): ${end === '' ? `no results: ${(error as Error).message}` : end}`)
    return results
  }
  addSkips(results, notes)
  if (results.length === 0) failed('(the file): holds no test')
  // A hook or stray callback that throws belongs to no test in these reports.
  const told = results.some(({ outcome }) => outcome === 'failed')
  if (end !== '' && !told) failed(`(outside of its tests): ${end}`)
  return results
}

function readNotes(path: string): SkipNote[] {
  try {
    const lines = readFileSync(path, 'utf8').split('\n')
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line))
  } catch {
    return [] // nothing was skipped, or Node has put the reasons into the report
  }
}

/** Gives skipped tests their reason, and adds skipped describes, which the report left out. */
function addSkips(results: TestResult[], notes: SkipNote[]): void {
  const bare = results.filter(
    ({ outcome, reason }) => outcome === 'skipped' && reason === undefined,
  )
  for (const { name, reason } of notes) {
    const at = bare.findIndex((result) => result.name.split(' > ').at(-1) === name)
    if (at === -1) results.push({ name, outcome: 'skipped', reason })
    else bare.splice(at, 1)[0]!.reason = reason
  }
}
