/** Running the command line as users do: one command and its end, or one that stays and what it says meanwhile. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** `bin/ovpn` of the checkout. */
export const OVPN = fileURLToPath(new URL('../bin/ovpn', import.meta.url))
/** For a machine that is busy with other tests. */
const PATIENCE_MS = 40_000

export interface Ended {
  status: number | null
  stdout: string
  stderr: string
}

export interface CommandOptions {
  env?: { [name: string]: string }
  input?: string
  cwd?: string
}

/** A command that is still running. */
export interface Running extends Ended {
  readonly pid: number
  /** Resolves when `pattern` has shown up in what it printed; fails when it ends before, or takes too long. */
  says(pattern: RegExp): Promise<RegExpExecArray>
  kill(signal: NodeJS.Signals): void
  ended: Promise<Ended>
}

export function start(command: string, args: string[], options: CommandOptions = {}): Running {
  const child = spawn(command, args, {
    stdio: 'pipe',
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  })
  child.stdin.on('error', () => {}) // it may end without having read
  child.stdin.end(options.input ?? '')
  const waiting = new Set<() => void>()
  const running: Running = {
    pid: child.pid!,
    status: null,
    stdout: '',
    stderr: '',
    kill: (signal) => void child.kill(signal),
    ended: endOf(child, () => running),
    says: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = pattern.exec(running.stdout + running.stderr)
          if (found === null && !over) return
          clearTimeout(timer)
          waiting.delete(look)
          if (found !== null) resolve(found)
          else reject(new assert.AssertionError({ message: `never said ${pattern}: ${all()}` }))
        }
        const timer = setTimeout(() => {
          over = true
          look()
        }, PATIENCE_MS)
        waiting.add(look)
        look()
      }),
  }
  let over = false
  const all = () => running.stdout + running.stderr
  const wake = () => {
    for (const look of [...waiting]) look()
  }
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8')
    child[stream].on('data', (text: string) => {
      running[stream] += text
      wake()
    })
  }
  void running.ended.then(() => {
    over = true
    wake()
  })
  return running
}

function endOf(child: ChildProcess, running: () => Running): Promise<Ended> {
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (status) => {
      const { stdout, stderr } = running()
      running().status = status
      resolve({ status, stdout, stderr })
    })
  })
}

export function run(command: string, args: string[], options?: CommandOptions): Promise<Ended> {
  return start(command, args, options).ended
}
