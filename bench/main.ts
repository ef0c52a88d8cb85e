/**
 * `npm run bench`: brings the contenders up in turn, measures the subjects, and prints medians. Owns the order of things and the
 * clearing up; what is measured and of whom stands in subjects/ and contenders/, what it means in README.md.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type BenchOptions, parseArguments, USAGE } from './arguments.ts'
import type { Contender, Transport, Tunnel, TunnelOptions } from './contenders/contender.ts'
import { openvpn26, openvpn27, runOpenvpn26, runOpenvpn27 } from './contenders/openvpn.ts'
import { ovpn } from './contenders/ovpn.ts'
import { veth } from './contenders/veth.ts'
import { wireguardGo } from './contenders/wireguard-go.ts'
import { describeMachine } from './machine.ts'
import { run } from './process.ts'
import {
  type EntrantInfo,
  type Figure,
  number,
  publishInto,
  type Report,
  renderReport,
} from './report.ts'
import { cpu } from './subjects/cpu.ts'
import { rttIdle, rttLoad } from './subjects/rtt.ts'
import type { Subject } from './subjects/subject.ts'
import { overTcp, reverse, tcp, tcp4 } from './subjects/tcp.ts'
import { udp64, udp512, udp1400 } from './subjects/udp.ts'
import { createTopology, type Topology } from './topology.ts'

const CONTENDERS: Contender[] = [
  ...[veth, openvpn26, openvpn27, wireguardGo, ovpn, runOpenvpn26, runOpenvpn27],
]
const SUBJECTS: Subject[] = [
  ...[tcp, tcp4, reverse, udp64, udp512, udp1400, rttIdle, rttLoad, cpu, overTcp],
]

const PAGE = fileURLToPath(new URL('../docs/PERFORMANCE.md', import.meta.url))
const PUBLISHED = fileURLToPath(new URL('../docs/performance.json', import.meta.url))
const FORMATTER = fileURLToPath(new URL('../node_modules/.bin/biome', import.meta.url))
const RESULTS = fileURLToPath(new URL('./results/', import.meta.url))

/** What does not fit the tables, each measured by a program of its own. */
const PROGRAMS: { readonly [subject: string]: string } = {
  handshakes: fileURLToPath(new URL('./handshakes.ts', import.meta.url)),
  peers: fileURLToPath(new URL('./peers.ts', import.meta.url)),
  run: fileURLToPath(new URL('./run-cost.ts', import.meta.url)),
}
const INHERITED: ['ignore', 'inherit', 'inherit'] = ['ignore', 'inherit', 'inherit']

/** A contender in one set-up: what has a row in the tables. */
interface Entrant {
  label: string
  contender: Contender
  setup: Omit<TunnelOptions, 'transport'>
}

let topology: Topology | undefined
let interrupted = false

process.exitCode = await main(process.argv.slice(2))

async function main(args: string[]): Promise<number> {
  let options: ReturnType<typeof parseArguments>
  try {
    options = parseArguments(args, [...SUBJECTS.map(({ name }) => name), ...Object.keys(PROGRAMS)])
  } catch (error) {
    console.error(`bench: ${(error as Error).message}\n\n${USAGE}`)
    return 2
  }
  if (options === 'help') console.log(USAGE)
  else if (options === 'list') list()
  else if (process.getuid?.() !== 0) {
    console.error('bench: network namespaces need root: run it as root, in a container of its own')
    return 1
  } else return measureAll(options)
  return 0
}

/** The tables, and then the programs. */
async function measureAll(options: BenchOptions): Promise<number> {
  const all = options.subjects.length === 0
  const subjects = options.subjects.filter((name) => PROGRAMS[name] === undefined)
  if (all || subjects.length > 0) {
    const code = await measure({ ...options, subjects })
    if (code !== 0) return code
  }
  const args = ['--rounds', `${options.rounds}`, ...(options.publish ? ['--publish'] : [])]
  for (const [subject, program] of Object.entries(PROGRAMS)) {
    if (!all && !options.subjects.includes(subject)) continue
    const child = Bun.spawn([process.execPath, program, ...args], { stdio: INHERITED })
    const code = await child.exited
    if (code !== 0) return code
  }
  return 0
}

function list(): void {
  for (const { name, metrics } of SUBJECTS) {
    console.log(
      `${name.padEnd(10)} ${metrics.map(({ title, unit }) => `${title} (${unit})`).join('; ')}`,
    )
  }
  console.log(
    `\n${CONTENDERS.flatMap(entrantsOf)
      .map(({ label }) => label)
      .join('\n')}`,
  )
}

async function measure(options: BenchOptions): Promise<number> {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, interrupt)
  const subjects = SUBJECTS.filter(
    ({ name }) => options.subjects.length === 0 || options.subjects.includes(name),
  )
  const entrants = CONTENDERS.flatMap(entrantsOf).filter(
    ({ label }) =>
      options.contenders.length === 0 ||
      options.contenders.some((prefix) => label.startsWith(prefix)),
  )
  if (entrants.length === 0) {
    console.error(
      `bench: no contender's name begins with ${options.contenders.join(' or ')} (--list)`,
    )
    return 2
  }
  const figures = subjects.flatMap(({ metrics }) =>
    metrics.map((metric): Figure => ({ metric, values: {}, failures: {} })),
  )
  const infos = await Promise.all(entrants.map(describe))
  const present = entrants.filter((_, i) => infos[i]!.missing === undefined)
  for (const { label, missing } of infos) {
    if (missing !== undefined) console.error(`${label}: not measured: ${missing}`)
  }
  const report: Report = {
    when: new Date().toISOString(),
    machine: await describeMachine(),
    ...{ rounds: options.rounds, seconds: options.seconds, entrants: infos, figures },
  }
  try {
    if (!interrupted) topology = await createTopology()
    for (let round = 0; round < options.rounds && !interrupted; round++) {
      console.error(`round ${round + 1} of ${options.rounds}`)
      // Whoever goes first in one round does not in the next: what warms up or slows down with time meets all.
      const order = present.map((_, i) => present[(i + round) % present.length]!)
      await measureRound(order, subjects, figures, options.seconds)
    }
  } finally {
    await topology?.remove()
  }
  if (interrupted) return 130
  console.log(renderReport(report))
  await save(report, options)
  return figures.some(({ failures }) => Object.keys(failures).length > 0) ? 1 : 0
}

/** What runs in the namespaces is ended, so whatever waits for it goes on and finds that it should stop. */
function interrupt(): void {
  if (interrupted) process.exit(130) // asked twice: in a hurry
  interrupted = true
  console.error('interrupted: clearing up')
  void topology?.endProcesses()
}

function entrantsOf(contender: Contender): Entrant[] {
  const ciphers = contender.ciphers.length === 0 ? [undefined] : contender.ciphers
  const workers = contender.workers.length === 0 ? [undefined] : contender.workers
  return workers.flatMap((workers) =>
    ciphers.map((cipher) => {
      const name = cipher === undefined ? contender.name : `${contender.name} ${cipher}`
      const label = workers === undefined || workers === 1 ? name : `${name} ${workers} workers`
      return { label, contender, setup: { cipher, workers } }
    }),
  )
}

async function describe({ label, contender, setup }: Entrant): Promise<EntrantInfo> {
  const against = CONTENDERS.filter(({ name }) => name === contender.against)
    .flatMap(entrantsOf)
    .find((other) => other.setup.cipher === setup.cipher)?.label
  const info: EntrantInfo = {
    ...{ label, cipher: setup.cipher, ours: contender === ovpn, version: '' },
    ...(against !== undefined && { against }),
  }
  try {
    const missing = await contender.unavailable({ ...setup, transport: 'udp' })
    if (missing !== undefined) return { ...info, missing }
    return { ...info, version: await contender.version() }
  } catch (error) {
    return { ...info, missing: (error as Error).message }
  }
}

async function measureRound(
  entrants: Entrant[],
  subjects: Subject[],
  figures: Figure[],
  seconds: number,
): Promise<void> {
  for (const transport of ['udp', 'tcp'] as const) {
    const some = subjects.filter((subject) => subject.transport === transport)
    if (some.length === 0) continue
    for (const entrant of entrants) {
      if (interrupted) return
      if (!entrant.contender.transports.includes(transport)) continue
      const { subjects: only } = entrant.contender
      const its = some.filter(({ name }) => only === undefined || only.includes(name))
      if (its.length > 0) await measureEntrant(entrant, transport, its, figures, seconds)
    }
  }
}

async function measureEntrant(
  { label, contender, setup }: Entrant,
  transport: Transport,
  subjects: Subject[],
  figures: Figure[],
  seconds: number,
): Promise<void> {
  const fail = (subject: Subject, error: unknown) => {
    if (interrupted) return
    const text = (error as Error).message
    console.error(`  ${label}, ${subject.name}: ${text}`)
    for (const { metric, failures } of figures) {
      if (subject.metrics.includes(metric)) add(failures, label, text)
    }
  }
  try {
    let tunnel: Tunnel
    try {
      tunnel = await contender.up(topology!, { ...setup, transport })
    } catch (error) {
      for (const subject of subjects) fail(subject, error)
      return
    }
    for (const subject of subjects) {
      if (interrupted) return
      try {
        const found = await subject.measure({ topology: topology!, tunnel, seconds })
        for (const { metric, values } of figures) {
          const value = found[metric.name]
          if (value === undefined) continue
          add(values, label, value)
          console.error(`  ${label}, ${metric.title}: ${number(value)} ${metric.unit}`)
        }
      } catch (error) {
        fail(subject, error)
      }
    }
  } finally {
    await contender.down()
  }
}

function add<T>(lists: Record<string, T[]>, label: string, value: T): void {
  lists[label] = [...(lists[label] ?? []), value]
}

async function save(report: Report, { json, publish }: BenchOptions): Promise<void> {
  const text = `${JSON.stringify(report, null, 2)}\n`
  const path = json ?? `${RESULTS}${report.when.replace(/[:.]/g, '-')}.json`
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  console.error(`samples: ${path}`)
  if (!publish) return
  writeFileSync(PUBLISHED, text)
  await run([FORMATTER, 'format', '--write', PUBLISHED]) // or the repository's check would refuse it
  writeFileSync(PAGE, publishInto(readFileSync(PAGE, 'utf8'), 'bench', renderReport(report)))
  console.error(`published: ${PUBLISHED}, ${PAGE}`)
}
