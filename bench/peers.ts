/**
 * `npm run bench -- peers`: one device with 1, 100 and 10,000 peers. Prints how fast they are made, the driver's memory, what one
 * TCP stream to one of them moves, and the round trip to it while others come and go as fast as they can.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tcpStreams } from './iperf.ts'
import { linesOf, type Running, residentKilobytes, run, start, until } from './process.ts'
import { publishInto, table } from './report.ts'
import { median, quantile } from './statistics.ts'
import { createTopology, type End, inside } from './topology.ts'

const MAIN = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url))
const END = fileURLToPath(new URL('./peers-end.ts', import.meta.url))
const PAGE = fileURLToPath(new URL('../docs/PERFORMANCE.md', import.meta.url))
const COUNTS = [1, 100, 10_000]
const SECONDS = 3
const CHURN_SECONDS = 5

interface Told {
  count: number
  seconds: number
}

const folder = mkdtempSync(join(tmpdir(), 'ovpn-bench-'))
const topology = await createTopology()
const running: Running[] = []
try {
  const { near, far } = topology
  const server = await startEnd('mp', near, far, '10.8.0.1')
  const client = await startEnd('p2p', far, near, '10.8.0.2')
  const tunnel = {
    ...{ near: '10.8.0.1', far: '10.8.0.2' },
    processes: [server.driver.pid, client.driver.pid],
  }
  const rows: string[][] = []
  let before = 0
  for (const count of COUNTS) {
    const told = await server.say(`grow ${count}`)
    const memory = residentKilobytes(server.driver.pid)
    const each = before === 0 ? '' : `${((memory - before) / told.count).toFixed(1)} KiB`
    before ||= memory
    const { bitsPerSecond } = await tcpStreams(topology, tunnel, {
      ...{ streams: 1, reverse: false, seconds: SECONDS },
    })
    const rate = told.count === 0 ? '' : Math.round(told.count / told.seconds).toString()
    const gigabits = `${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s`
    rows.push([`${count}`, rate, `${Math.round(memory / 1024)} MiB`, each, gigabits])
  }
  const idle = await ping(CHURN_SECONDS)
  const pings = ping(CHURN_SECONDS)
  const churned = await server.say(`churn ${CHURN_SECONDS}`)
  const times = await pings
  const churn = `${Math.round(churned.count / churned.seconds)} peers made and removed a second`
  const times99 = (list: number[]) => [
    `${median(list).toFixed(2)} ms`,
    `${quantile(list, 0.99).toFixed(2)} ms`,
  ]
  const text = [
    table(['peers', 'made per second', 'memory', 'per peer', 'TCP to one of them'], rows),
    table(
      ['round trip to one of them, meanwhile', 'median', '99 % within'],
      [
        ['nothing', ...times99(idle)],
        [churn, ...times99(times)],
      ],
    ),
  ].join('\n\n')
  console.log(text)
  if (process.argv.includes('--publish')) {
    writeFileSync(PAGE, publishInto(readFileSync(PAGE, 'utf8'), 'peers', text))
  }

  async function ping(seconds: number): Promise<number[]> {
    const options = ['-n', '-i', '0.01', '-c', `${seconds * 100}`, tunnel.far]
    const text = await run(inside(near.netns, ['ping', ...options]), { limitSeconds: 4 * seconds })
    return Array.from(text.matchAll(/ time=([\d.]+) ms/g), ([, time]) => Number(time))
  }
} finally {
  for (const program of running) await program.stop()
  await topology.remove()
  rmSync(folder, { recursive: true, force: true })
}

/** A driver with its device, up and with its address, and the program that tells it what to do. */
async function startEnd(mode: 'mp' | 'p2p', own: End, other: End, vpn: string) {
  const socket = join(folder, `${mode}.sock`)
  const driver = start([process.execPath, MAIN, 'driver', '--socket', socket])
  running.push(driver)
  await until('the driver', () => driver.output().includes('listening'), [driver])
  const program = Bun.spawn(
    inside(own.netns, [process.execPath, END, socket, mode, own.address, other.address]),
    { stdin: 'pipe', stdout: 'pipe', stderr: 'inherit' },
  )
  const lines = linesOf(program.stdout)
  await lines.next()
  await run(['ip', '-n', own.netns, 'address', 'add', `${vpn}/16`, 'dev', 'ovpn0'])
  await run(['ip', '-n', own.netns, 'link', 'set', 'ovpn0', 'up'])
  return {
    driver,
    async say(line: string): Promise<Told> {
      program.stdin.write(`${line}\n`)
      program.stdin.flush()
      const { value, done } = await lines.next()
      if (done) throw new Error('the other program has ended')
      return JSON.parse(value) as Told
    },
  }
}
