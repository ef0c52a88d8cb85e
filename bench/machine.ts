/** Owns what is said of the machine under a table: whoever compares figures has to know whose they are. */
import { readFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { run } from './process.ts'

/** Names and values, in the order in which they are printed. */
export async function describeMachine(): Promise<Record<string, string>> {
  const system = /^PRETTY_NAME="(.*)"$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  const processors = cpus()
  return {
    kernel: release(),
    system: system ?? 'unknown',
    CPU: `${processors.length} × ${processors[0]?.model.trim() ?? 'unknown'}`,
    'load before': loadavg()[0]!.toFixed(2), // others at work make every figure worse, and not all alike
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    Bun: Bun.version,
    iperf3: (await run(['iperf3', '--version'])).split('\n')[0]!.split(' ')[1] ?? 'unknown',
  }
}
