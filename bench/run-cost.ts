/**
 * `npm run bench -- run`: what `ovpn run` costs beside the packets: how much later a program starts, what a call takes on which
 * the supervisor acts, and the memory of the supervisor.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { run } from './process.ts'
import { publishInto, table } from './report.ts'
import { median } from './statistics.ts'
import { createTopology, inside } from './topology.ts'

const MAIN = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url))
const CALLS = fileURLToPath(new URL('./run-calls.ts', import.meta.url))
const PAGE = fileURLToPath(new URL('../docs/PERFORMANCE.md', import.meta.url))
const STARTS = 15
const UNDER = [process.execPath, MAIN, 'run', '--driver', 'own']

/** What run-calls.ts prints: microseconds. */
interface Calls {
  getsockname: number
  request: number
  untouched: number
}

const topology = await createTopology()
try {
  const plain = await calls([])
  const under = await calls(UNDER)
  const row = (what: string, of: (times: Calls) => number) => {
    return [what, `${of(plain).toFixed(2)} µs`, `${of(under).toFixed(2)} µs`]
  }
  const text = table(
    ['', 'plain', 'under `ovpn run`'],
    [
      ['a program that ends at once', await startMs([]), await startMs(UNDER)],
      row('a call on a netlink socket (`getsockname`)', (times) => times.getsockname),
      row('a request to nlctrl, with its answers: three calls', (times) => times.request),
      row('a call on any other descriptor (`getsockname`)', (times) => times.untouched),
      ['memory of the supervisor', '', await supervisorMemory()],
    ],
  )
  console.log(text)
  if (process.argv.includes('--publish')) {
    writeFileSync(PAGE, publishInto(readFileSync(PAGE, 'utf8'), 'run', text))
  }
} finally {
  await topology.remove()
}

async function calls(under: string[]): Promise<Calls> {
  const command = inside(topology.near.netns, [...under, process.execPath, CALLS])
  return JSON.parse(await run(command, { limitSeconds: 120 })) as Calls
}

async function startMs(under: string[]): Promise<string> {
  const times: number[] = []
  for (let i = 0; i < STARTS; i++) {
    const start = performance.now()
    await run([...under, 'true'])
    times.push(performance.now() - start)
  }
  return `${median(times).toFixed(1)} ms`
}

/** Resident, with the driver in it and an interface made. */
async function supervisorMemory(): Promise<string> {
  const script = `ip link add ovbrun type ovpn; ip link set ovbrun up
    for one in /proc/[0-9]*; do
      if tr '\\0' ' ' < $one/cmdline | grep -q "run-supervisor.* $$ "; then grep VmRSS $one/status; fi
    done 2>/dev/null`
  const found = await run(inside(topology.near.netns, [...UNDER, 'sh', '-c', script]))
  const kilobytes = Number(/VmRSS:\s+(\d+)/.exec(found)?.[1])
  return `${Math.round(kilobytes / 1024)} MiB`
}
