/** Finds the process that serves a program under `ovpn run`. */
import { readdirSync, readFileSync } from 'node:fs'

/** The supervisor's process id, by that of the process that `ovpn run` was; undefined where there is none. */
export function supervisorOf(pid: number): number | undefined {
  return processWith((args) => args.includes('run-supervisor') && args.includes(String(pid)))
}

/** The shell that waits for the supervisor's end. */
export function keeperOf(pid: number): number | undefined {
  return processWith((args) => args.includes(`keeper of ${pid}`))
}

/** Whether the shell is there still that waits for the supervisor's end, or what it has become. */
export function keeperIsThere(pid: number): boolean {
  const isSuccessor = (args: string[]) => args.includes('--successor') && args.includes(String(pid))
  return keeperOf(pid) !== undefined || processWith(isSuccessor) !== undefined
}

function processWith(fits: (args: string[]) => boolean): number | undefined {
  const pids = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))
  const found = pids.find((pid) => fits(commandLine(pid)))
  return found === undefined ? undefined : Number(found)
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // it has ended
  }
}
