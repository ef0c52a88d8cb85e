/** Owns running other programs: to their end, or in the background until stopped; what they say, and the CPU time and memory they use. */
import { readFileSync } from 'node:fs'

/** Clock ticks per second in /proc: USER_HZ, 100 on every Linux that Bun runs on (proc(5)). */
const TICKS_PER_SECOND = 100
const STOP_MS = 3000

export interface RunOptions {
  /** After which it is killed. */
  limitSeconds?: number
}

/**
 * Runs a program to its end.
 *
 * @returns what it printed
 * @throws Error with what it said, when it cannot be started, fails or takes too long
 */
export async function run(
  command: string[],
  { limitSeconds = 30 }: RunOptions = {},
): Promise<string> {
  const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' })
  let late = false
  const timer = setTimeout(() => {
    late = true
    child.kill('SIGKILL')
  }, limitSeconds * 1000)
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  const code = await child.exited
  clearTimeout(timer)
  if (late) throw new Error(`${command.join(' ')}: not done after ${limitSeconds} s`)
  if (code !== 0) {
    throw new Error(`${command.join(' ')}: ${(err.trim() || out.trim()).slice(-1000)} (${code})`)
  }
  return out
}

/** A program in the background. */
export interface Running {
  readonly pid: number
  /** Whether it still runs. */
  alive(): boolean
  /** What it has printed so far, both streams. */
  output(): string
  /** Resolves when it has ended by itself and all that it printed is there. */
  ended(): Promise<void>
  /** Ends it, by force if it takes long, and waits for that. */
  stop(): Promise<void>
}

export function start(command: string[], environment: Record<string, string> = {}): Running {
  const child = Bun.spawn(command, {
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
    env: { ...process.env, ...environment },
  })
  let printed = ''
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder()
    for await (const chunk of stream) printed = (printed + decoder.decode(chunk)).slice(-20_000)
  }
  const collected = Promise.all([collect(child.stdout), collect(child.stderr)])
  return {
    pid: child.pid,
    alive: () => child.exitCode === null && child.signalCode === null,
    output: () => printed,
    async ended() {
      await child.exited
      await collected
    },
    async stop() {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
      await child.exited
      clearTimeout(timer)
      await collected
    },
  }
}

/**
 * Waits until `condition` holds, and fails when a program that should bring it about has ended.
 *
 * @throws Error with what the program said
 */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  programs: readonly Running[],
  limitSeconds = 20,
): Promise<void> {
  const end = performance.now() + limitSeconds * 1000
  for (;;) {
    if (await condition()) return
    const dead = programs.find((program) => !program.alive())
    const late = performance.now() > end
    if (dead !== undefined || late) {
      const said = (dead === undefined ? programs : [dead]).map((program) => program.output())
      throw new Error(
        `${what}: ${dead ? 'it has ended' : 'not in time'}\n${said.join('\n').trim()}`,
      )
    }
    await Bun.sleep(50)
  }
}

/** CPU seconds, user and system, that a process has used with all its threads (proc(5), `stat`). */
export function cpuSeconds(pid: number): number {
  return parseCpuSeconds(readFileSync(`/proc/${pid}/stat`, 'utf8'))
}

/** The same from the text of /proc/PID/stat. The name in it may hold spaces and brackets. */
export function parseCpuSeconds(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  // utime and stime are fields 14 and 15; what follows the name starts with field 3
  return (Number(fields[14 - 3]) + Number(fields[15 - 3])) / TICKS_PER_SECOND
}

/** CPU seconds in which the machine did anything at all, interrupts included (proc(5), /proc/stat). */
export function busySeconds(): number {
  return parseBusySeconds(readFileSync('/proc/stat', 'utf8'))
}

/** The same from the text of /proc/stat: user, nice, system, irq and softirq; not idle, iowait and steal. */
export function parseBusySeconds(stat: string): number {
  const [user, nice, system, , , irq, softirq] = stat
    .split('\n')[0]!
    .split(/\s+/)
    .slice(1)
    .map(Number)
  return (user! + nice! + system! + irq! + softirq!) / TICKS_PER_SECOND
}

/** Resident memory of a process, in KiB (proc(5), `status`). */
export function residentKilobytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1])
}

/** Lines of what a program prints, without their ends. */
export async function* linesOf(
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true })
    const lines = rest.split('\n')
    rest = lines.pop()!
    yield* lines
  }
  return undefined
}
