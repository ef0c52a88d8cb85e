/** What the run prints: a line for each job as it ends, and at the end what was skipped, failed and slow, and the sum. */
import type { JobResult } from './job.ts'

const SLOWEST = 12
const OUTPUT_CHARACTERS = 20_000
const EXCERPT_CHARACTERS = 3_000

interface Counts {
  passed: number
  failed: number
  skipped: number
}

function countsOf({ results }: JobResult): Counts {
  const count = (outcome: string) => results.filter((result) => result.outcome === outcome).length
  return { passed: count('passed'), failed: count('failed'), skipped: count('skipped') }
}

const hasFailed = (result: JobResult) => countsOf(result).failed > 0

function words({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}

function times({ seconds, cpuSeconds }: Pick<JobResult, 'seconds' | 'cpuSeconds'>): string {
  return `${seconds.toFixed(1)} s (processor: ${cpuSeconds.toFixed(1)} s)`
}

/** Tells of one job; of one that failed, also what it printed. */
export function printResult(result: JobResult): void {
  const mark = hasFailed(result) ? 'FAIL' : 'ok  '
  console.log(`${mark} ${result.job.name}: ${words(countsOf(result))}, ${times(result)}`)
  if (hasFailed(result)) console.log(`${tail(result.output, OUTPUT_CHARACTERS)}\n`)
}

/** The end of what a failed file printed, as much as can be read; of passed tests the last, where a hung one began. */
function tail(output: string, most: number): string {
  const lines = output.split('\n')
  const isPass = (line: string) => line.startsWith('(pass)')
  const last = lines.findLastIndex(isPass)
  const text = lines.filter((line, i) => !isPass(line) || i === last).join('\n')
  return (text.length <= most ? text : `[...]${text.slice(-most)}`).trimEnd()
}

/**
 * Tells of all, the sum in the last line.
 *
 * @returns the exit status: 0 if something ran and nothing failed
 */
export function printSummary(done: readonly JobResult[], seconds: number): number {
  printNames('Skipped', done, 'skipped')
  const failed = done.filter(hasFailed)
  for (const result of failed) {
    console.log(`\nFailed: ${result.job.name}\n${tail(result.output, EXCERPT_CHARACTERS)}`)
  }
  printNames('Failed', done, 'failed')
  printSlowest(done, seconds)
  const total: Counts = { passed: 0, failed: 0, skipped: 0 }
  for (const counts of done.map(countsOf)) {
    total.passed += counts.passed
    total.failed += counts.failed
    total.skipped += counts.skipped
  }
  const ran = total.passed + total.failed > 0
  if (!ran) console.log('\nNothing ran.')
  console.log(`\n${words(total)}`)
  return ran && total.failed === 0 ? 0 : 1
}

function printNames(title: string, done: readonly JobResult[], wanted: 'skipped' | 'failed'): void {
  const lines: string[] = []
  for (const { job, results } of done) {
    for (const { name, outcome, reason } of results) {
      if (outcome !== wanted) continue
      const place = job.file === undefined ? name : `${job.name} > ${name}`
      lines.push(wanted === 'failed' ? place : `${place}: ${reason ?? 'no reason given'}`)
    }
  }
  if (lines.length > 0) console.log(`\n${title}:\n${lines.map((line) => `  ${line}`).join('\n')}`)
}

function printSlowest(done: readonly JobResult[], seconds: number): void {
  if (done.length < 2) return
  const slowest = [...done].sort((a, b) => b.seconds - a.seconds).slice(0, SLOWEST)
  const cpuSeconds = done.reduce((sum, result) => sum + result.cpuSeconds, 0)
  console.log(`\nThe slowest of ${times({ seconds, cpuSeconds })} in all:`)
  for (const result of slowest) console.log(`  ${times(result).padEnd(30)} ${result.job.name}`)
}
