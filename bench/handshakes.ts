/**
 * `npm run bench -- handshakes`: servers of OpenVPN and `ovpn server` with the same configuration and certificates, and one program
 * that connects clients to them. Prints handshakes per second, the CPU time that one costs the server, and its memory
 * per client that is connected.
 *
 * A handshake is all from the first packet to the push reply, and the keys that both ends make of it: UDP, tls-crypt, TLS 1.3, EC P-256,
 * a certificate at each end. The clients stay connected, and send nothing more.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Pki } from '../src/openvpn/x509/pki.ts'
import { formatStaticKey } from '../src/wire/static-key.ts'
import { type BenchOptions, parseArguments } from './arguments.ts'
import { SERIES_26, SERIES_27, versionOf } from './contenders/openvpn.ts'
import { describeMachine } from './machine.ts'
import { cpuSeconds, linesOf, type Running, residentKilobytes, until } from './process.ts'
import { publishInto, table } from './report.ts'
import { median } from './statistics.ts'
import { createTopology, inside, startInside } from './topology.ts'

const MAIN = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url))
const LOAD = fileURLToPath(new URL('../test/openvpn/load.ts', import.meta.url))
const PAGE = fileURLToPath(new URL('../docs/PERFORMANCE.md', import.meta.url))
const RESULTS = fileURLToPath(new URL('./results/', import.meta.url))
const PORT = 1194
/** Both say so. */
const UP = /Initialization Sequence Completed/

/** Connected before anything is measured: what a program does once. */
const WARM_UP = 300
const COUNT = 1000
const AT_ONCE = 32
/** After which memory that nobody needs any more is given back, where it is. */
const SETTLE_MS = 2000

interface Contestant {
  name: string
  version: string
  command: string[]
}

interface Sample {
  handshakesPerSecond: number
  /** Milliseconds of the server's CPU time per handshake. */
  serverCpu: number
  /** The same of the program with the clients. */
  loadCpu: number
  /** KiB: before the first client, and per client connected. */
  memory: number
  perClient: number
}

const { rounds } = parseArguments(process.argv.slice(2), []) as BenchOptions
const folder = mkdtempSync(join(tmpdir(), 'ovpn-bench-'))
const topology = await createTopology()
const samples: Record<string, Sample[]> = {}
try {
  const config = await prepare()
  const contestants = await findContestants(config)
  for (let round = 0; round < rounds; round++) {
    console.error(`round ${round + 1} of ${rounds}`)
    for (let i = 0; i < contestants.length; i++) {
      const one = contestants[(i + round) % contestants.length]!
      const sample = await measure(one)
      samples[one.name] = [...(samples[one.name] ?? []), sample]
      console.error(`  ${one.name}: ${Math.round(sample.handshakesPerSecond)} handshakes/s`)
    }
  }
  const text = render(contestants)
  console.log(text)
  const when = new Date().toISOString()
  const report = { when, machine: await describeMachine(), contestants, samples }
  const path = `${RESULTS}handshakes-${when.replace(/[:.]/g, '-')}.json`
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, `${JSON.stringify(report, null, 2)}\n`)
  console.error(`samples: ${path}`)
  if (process.argv.includes('--publish')) {
    writeFileSync(PAGE, publishInto(readFileSync(PAGE, 'utf8'), 'handshakes', text))
  }
} finally {
  await topology.remove()
  rmSync(folder, { recursive: true, force: true })
}

/** Certificates, a key and the servers' configuration, all in `folder`. */
async function prepare(): Promise<string> {
  const pki = await Pki.create(join(folder, 'pki'))
  const server = await pki.issue('server', 'server')
  const client = await pki.issue('client', 'client')
  writeFileSync(join(folder, 'client.crt'), readFileSync(client.certificate))
  writeFileSync(join(folder, 'client.key'), readFileSync(client.key))
  const key = crypto.getRandomValues(new Uint8Array(256))
  writeFileSync(join(folder, 'tc.key'), formatStaticKey(key))
  const config = join(folder, 'server.conf')
  writeFileSync(
    config,
    `port ${PORT}
proto udp
dev ovbserver
dev-type tun
topology subnet
server 10.9.0.0 255.255.0.0
ca ${server.ca}
cert ${server.certificate}
key ${server.key}
dh none
tls-crypt ${join(folder, 'tc.key')}
duplicate-cn
max-clients 8000
# Of each address; all of them come from one.
connect-freq-initial 1000000 10
verb 1
`,
  )
  return config
}

async function findContestants(config: string): Promise<Contestant[]> {
  const found: Contestant[] = []
  for (const series of [SERIES_26, SERIES_27]) {
    const name = `openvpn ${series.number}`
    try {
      const command = [...(await series.findProgram()), '--config', config, '--disable-dco']
      found.push({ name, version: await versionOf(series), command })
    } catch (error) {
      console.error(`${name}: not measured: ${(error as Error).message}`)
    }
  }
  const command = [process.execPath, MAIN, 'server', config]
  found.push({ name: 'ovpn server', version: `Bun ${Bun.version}`, command })
  return found
}

async function measure({ name, command }: Contestant): Promise<Sample> {
  const { near, far } = topology
  const server = startInside(far.netns, command)
  const load = Bun.spawn(
    inside(near.netns, [process.execPath, LOAD, folder, far.address, `${PORT}`]),
    { stdin: 'pipe', stdout: 'pipe', stderr: 'inherit' },
  )
  const answers = linesOf(load.stdout)
  const connect = async (count: number) => {
    load.stdin.write(`connect ${count} ${AT_ONCE}\n`)
    load.stdin.flush()
    const { value } = await answers.next()
    const told = JSON.parse(value ?? '{}') as { connected?: number; seconds?: number }
    if (told.connected !== count) throw new Error(`${name}: ${value}\n${server.output()}`)
    return told.seconds!
  }
  try {
    await until(name, () => UP.test(server.output()), [server])
    const memory = residentKilobytes(server.pid)
    await connect(WARM_UP)
    const before = { memory: await settled(server), ...cpu(server, load.pid) }
    const seconds = await connect(COUNT)
    const after = { ...cpu(server, load.pid), memory: await settled(server) }
    return {
      handshakesPerSecond: COUNT / seconds,
      serverCpu: (1000 * (after.server - before.server)) / COUNT,
      loadCpu: (1000 * (after.load - before.load)) / COUNT,
      memory,
      perClient: (after.memory - before.memory) / COUNT,
    }
  } finally {
    load.kill('SIGKILL')
    await load.exited
    await server.stop()
  }
}

function cpu(server: Running, load: number): { server: number; load: number } {
  return { server: cpuSeconds(server.pid), load: cpuSeconds(load) }
}

async function settled(server: Running): Promise<number> {
  await Bun.sleep(SETTLE_MS)
  return residentKilobytes(server.pid)
}

function render(contestants: Contestant[]): string {
  const rows = contestants.map(({ name, version }) => {
    const of = (figure: (sample: Sample) => number) => median(samples[name]!.map(figure))
    const rates = samples[name]!.map(({ handshakesPerSecond }) => Math.round(handshakesPerSecond))
    return [
      `${name} (${version})`,
      `${Math.round(of((sample) => sample.handshakesPerSecond))}`,
      `${Math.min(...rates)}–${Math.max(...rates)}`,
      `${of(({ serverCpu }) => serverCpu).toFixed(2)} ms`,
      `${of(({ loadCpu }) => loadCpu).toFixed(2)} ms`,
      `${Math.round(of(({ memory }) => memory) / 1024)} MiB`,
      `${of(({ perClient }) => perClient).toFixed(1)} KiB`,
    ]
  })
  const head = ['server', 'handshakes per second', 'least–most', "server's CPU each"]
  return table([...head, "clients' CPU each", 'memory', 'per client'], rows)
}
