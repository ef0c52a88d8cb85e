/**
 * The parts of the data path without system calls, timed in fresh processes; or two revisions of them in turn, to see what a change
 * has done. Owns the turns and the table; what is timed stands in micro-cases.ts.
 *
 *     bun bench/micro.ts [--runs N] [--against REVISION] [NAME PREFIX…]
 */
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { run } from './process.ts'
import { number, table } from './report.ts'
import { median } from './statistics.ts'

const TOP = fileURLToPath(new URL('..', import.meta.url))
const CASES = 'bench/micro-cases.ts'
const LIMIT_SECONDS = 120

type Timings = Map<string, number[]>

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { runs: { type: 'string', default: '3' }, against: { type: 'string' } },
})
const runs = Number(options.runs)
if (!(runs >= 1)) throw new Error(`--runs ${options.runs}: expected a number, 1 at least`)
const other = options.against === undefined ? undefined : await checkOut(options.against)
try {
  const ours: Timings = new Map()
  const theirs: Timings = new Map()
  for (let i = 0; i < runs; i++) {
    await timeOnce(TOP, ours)
    if (other !== undefined) await timeOnce(other, theirs)
  }
  console.log(`Bun ${Bun.version}, ${cpus()[0]?.model}, medians of ${runs} processes\n`)
  console.log(other === undefined ? alone(ours) : compared(ours, theirs, options.against!))
} finally {
  if (other !== undefined) rmSync(other, { recursive: true, force: true })
}

/** The revision's sources with the present cases. */
async function checkOut(revision: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-micro-'))
  const archive = join(folder, 'archive.tar')
  await run(['git', '-C', TOP, 'archive', '-o', archive, revision])
  await run(['tar', '-x', '-f', archive, '-C', folder])
  cpSync(join(TOP, CASES), join(folder, CASES))
  symlinkSync(join(TOP, 'node_modules'), join(folder, 'node_modules'))
  return folder
}

async function timeOnce(top: string, timings: Timings): Promise<void> {
  const command = [process.execPath, join(top, CASES), ...positionals]
  const found: Record<string, number> = JSON.parse(
    await run(command, { limitSeconds: LIMIT_SECONDS }),
  )
  for (const [name, time] of Object.entries(found)) {
    timings.set(name, [...(timings.get(name) ?? []), time])
  }
}

function alone(timings: Timings): string {
  const rows = Array.from(timings, ([name, times]) => [
    name,
    number(median(times)),
    speed(name, median(times)),
  ])
  return table(['', 'ns per packet', 'Gbit/s'], rows)
}

function compared(ours: Timings, theirs: Timings, revision: string): string {
  const rows = Array.from(ours, ([name, times]) => {
    const [now, before] = [median(times), median(theirs.get(name)!)]
    return [name, number(before), number(now), `${number(before / now)}×`]
  })
  return table(['ns per packet', revision, 'now', 'faster'], rows)
}

/** For cases whose name tells the size. */
function speed(name: string, nanoseconds: number): string {
  const bytes = / (64|1400)$/.exec(name)?.[1]
  return bytes === undefined ? '' : number((Number(bytes) * 8) / nanoseconds)
}
