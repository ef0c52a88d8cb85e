/**
 * Where the driver's time goes while one TCP stream runs through it: shares of the kernel, the cipher library and JavaScript, at the
 * sending and the receiving end, by perf. Needs root and perf (Debian's package is linux-perf).
 *
 *     bun bench/profile.ts [--cipher aes-256-gcm|chacha20-poly1305] [--seconds N] [--publish]
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Cipher } from './contenders/contender.ts'
import { ovpn } from './contenders/ovpn.ts'
import { tcpStreams } from './iperf.ts'
import { parseJitDump, renderPerfMap } from './jit-dump.ts'
import { describeMachine } from './machine.ts'
import { run } from './process.ts'
import { number, publishInto, table } from './report.ts'
import { createTopology, type Topology } from './topology.ts'

const PAGE = fileURLToPath(new URL('../docs/PERFORMANCE.md', import.meta.url))
const CIPHERS: readonly Cipher[] = ['aes-256-gcm', 'chacha20-poly1305']
const SAMPLES_PER_SECOND = 999
const RAMP_SECONDS = 1
const TOP_SYMBOLS = 25
const TOP_CALLS = 10

const { values: options } = parseArgs({
  options: {
    cipher: { type: 'string', default: 'aes-256-gcm' },
    seconds: { type: 'string', default: '5' },
    publish: { type: 'boolean', default: false },
  },
})
const cipher = CIPHERS.find((one) => one === options.cipher)
if (cipher === undefined) throw new Error(`--cipher: expected ${CIPHERS.join(' or ')}`)
const seconds = Number(options.seconds)
if (!(seconds >= 1)) throw new Error('--seconds: expected a number, 1 at least')
if (Bun.which('perf') === null)
  throw new Error("perf is not installed (Debian's package is linux-perf)")

const folder = mkdtempSync(join(tmpdir(), 'ovpn-profile-'))
// The drivers write down what code they make; they are started with this environment.
process.env.BUN_JSC_useJITDump = '1'
process.env.BUN_JSC_jitDumpDirectory = folder
let topology: Topology | undefined
const maps: string[] = []
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => void topology?.endProcesses()) // what waits for them fails, and clears up
}
try {
  topology = await createTopology()
  const text = await profile(topology, cipher)
  console.log(text)
  if (options.publish) {
    writeFileSync(PAGE, publishInto(readFileSync(PAGE, 'utf8'), 'profile', text))
  }
} finally {
  await ovpn.down()
  await topology?.remove()
  rmSync(folder, { recursive: true, force: true })
  for (const map of maps) rmSync(map, { force: true })
}

async function profile(topology: Topology, cipher: Cipher): Promise<string> {
  const tunnel = await ovpn.up(topology, { transport: 'udp', cipher, workers: 1 })
  const load = tcpStreams(topology, tunnel, {
    ...{ streams: 1, reverse: false, seconds: seconds + 3 * RAMP_SECONDS },
  })
  load.catch(() => {}) // told below
  await Bun.sleep(RAMP_SECONDS * 1000)
  const [near, far] = tunnel.processes
  const data = await Promise.all([record(near!, 'near'), record(far!, 'far')])
  const { bitsPerSecond } = await load
  nameJitCode()
  const facts = Object.entries({
    ...(await describeMachine()),
    ovpn: await ovpn.version(),
    stream: `one, ${cipher}, ${number(bitsPerSecond / 1e9)} Gbit/s while watched`,
  })
  const [sending, receiving] = await Promise.all(data.map(shares))
  const parts = [...new Set([...sending!.keys(), ...receiving!.keys()])]
  const percent = (share: number | undefined) => number(share ?? 0)
  const rows = parts
    .map((part) => [part, sending!.get(part), receiving!.get(part)] as const)
    .sort(([, a = 0, b = 0], [, c = 0, d = 0]) => c + d - a - b)
    .map(([part, one, other]) => [part, percent(one), percent(other)])
  return [
    table(['', ''], facts),
    table(["of the process's CPU time, %", 'sending end', 'receiving end'], rows),
    ...(await topLists(data[0]!, 'sending end')),
    ...(await topLists(data[1]!, 'receiving end')),
  ].join('\n\n')
}

/** Samples one process; the file they are in. */
async function record(pid: number, name: string): Promise<string> {
  const file = join(folder, `${name}.data`)
  const how = ['-F', String(SAMPLES_PER_SECOND), '-g', '-p', String(pid), '-o', file]
  await run(['perf', 'record', '-q', ...how, '--', 'sleep', String(seconds)], {
    limitSeconds: seconds + 20,
  })
  return file
}

/** Gives perf the names of JavaScript functions: where it looks for them. */
function nameJitCode(): void {
  for (const entry of readdirSync(folder)) {
    const pid = /^jit-(?:\d+-)?(\d+)\.dump$/.exec(entry)?.[1]
    const map = `/tmp/perf-${pid}.map`
    if (pid === undefined || existsSync(map)) continue
    writeFileSync(map, renderPerfMap(parseJitDump(readFileSync(join(folder, entry)))))
    maps.push(map)
  }
}

interface Entry {
  percent: number
  /** File or memory that the code is in. */
  object: string
  symbol: string
}

async function entries(data: string, more: string[]): Promise<Entry[]> {
  const how = ['--stdio', '-g', 'none', '-t', '\t', '-i', data]
  const text = await run(['perf', 'report', ...how, ...more], { limitSeconds: 120 })
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('#'))
  return lines.map((line) => {
    const [percent, object, symbol] = line.split('\t').map((field) => field.trim())
    return { percent: Number.parseFloat(percent!), object: object!, symbol: symbol ?? '' }
  })
}

/** Percent by what the code belongs to. */
async function shares(data: string): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  for (const { percent, object, symbol } of await entries(data, [
    ...['--no-children', '-F', 'overhead,dso,sym'],
  ])) {
    const part = partOf(object, symbol)
    found.set(part, (found.get(part) ?? 0) + percent)
  }
  return found
}

function partOf(object: string, symbol: string): string {
  if (symbol.startsWith('[k]') || object.startsWith('[kernel')) return 'kernel'
  if (object.startsWith('libcrypto')) return 'libcrypto'
  if (object.startsWith('libIPSec_MB')) return 'ipsec-mb'
  if (object.includes('JIT') || object.startsWith('perf-')) {
    return symbol.includes('wasm') ? 'WebAssembly (checksums)' : 'JavaScript'
  }
  if (symbol.includes('llint') || symbol.includes('ipint')) return 'JavaScript, interpreted'
  if (object.startsWith('bun')) return "Bun's own code"
  return object === '[vdso]' || object.startsWith('libc.') ? 'C library' : 'other'
}

async function topLists(data: string, end: string): Promise<string[]> {
  const symbols = await entries(data, ['--no-children', '-F', 'overhead,dso,sym'])
  const rows = symbols
    .slice(0, TOP_SYMBOLS)
    .map(({ percent, object, symbol }) => [
      ...[symbol.replace(/^\[.\] /, ''), object, number(percent)],
    ])
  const inclusive = await entries(data, ['--children', '-F', 'overhead_children,dso,sym'])
  const calls = inclusive
    .map(({ percent, symbol }) => ({
      percent,
      call: /(?:__(?:x64|arm64)_sys_|ksys_)(\w+)/.exec(symbol)?.[1],
    }))
    .filter(({ call }) => call !== undefined)
    .slice(0, TOP_CALLS)
    .map(({ percent, call }) => [call!, number(percent)])
  return [
    `**System calls, ${end}**, with all that the kernel does in them`,
    table(['', '%'], calls),
    `**Functions, ${end}**`,
    table(['', 'in', '%'], rows),
  ]
}
