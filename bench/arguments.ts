/** Owns the benchmark's command line: what was asked for, or what is wrong with it. Pure. */
import { parseArgs } from 'node:util'

export interface BenchOptions {
  /** Subjects by name; empty: all. */
  subjects: string[]
  /** Only contenders whose label begins with one of these; empty: all. */
  contenders: string[]
  rounds: number
  seconds: number
  publish: boolean
  /** Where the report is written as JSON. */
  json: string | undefined
}

export const USAGE = `Usage: npm run bench -- [NAME…] [options]

  NAME…                one or more subjects; all without
  --contender PREFIX   only contenders whose name begins so; may be repeated
  --rounds N           how often each is measured (5)
  --seconds N          how long a stream runs (5)
  --quick              one round of short streams: to see that it works, not for figures
  --json FILE          where the samples are written (bench/results/DATE.json)
  --publish            write docs/performance.json, and the tables into docs/PERFORMANCE.md
  --list               subjects and contenders
  --help               this`

const ROUNDS = 5
const SECONDS = 5
const QUICK_SECONDS = 1
const MAX_ROUNDS = 50
const MAX_SECONDS = 60

/**
 * @param known names of the subjects there are
 * @returns the options, or 'help' or 'list'
 * @throws Error that says what was expected
 */
export function parseArguments(
  args: string[],
  known: readonly string[],
): BenchOptions | 'help' | 'list' {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      contender: { type: 'string', multiple: true, default: [] },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      publish: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return 'help'
  if (values.list) return 'list'
  for (const name of positionals) {
    if (!known.includes(name)) {
      throw new Error(`no subject is called "${name}"; expected ${known.join(', ')}`)
    }
  }
  if (values.publish && values.quick) {
    throw new Error('--quick is not for figures: expected --publish without it')
  }
  return {
    subjects: positionals,
    contenders: values.contender,
    rounds: amount('--rounds', values.rounds, values.quick ? 1 : ROUNDS, MAX_ROUNDS),
    seconds: amount(
      '--seconds',
      values.seconds,
      values.quick ? QUICK_SECONDS : SECONDS,
      MAX_SECONDS,
    ),
    publish: values.publish,
    json: values.json,
  }
}

function amount(option: string, text: string | undefined, fallback: number, most: number): number {
  if (text === undefined) return fallback
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < 1 || value > most) {
    throw new Error(`${option} ${text}: expected a whole number, 1 to ${most}`)
  }
  return value
}
