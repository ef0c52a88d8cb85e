/** Finds the process that serves a program under `ovpn run`. */
import { readdirSync, readFileSync } from 'node:fs'

/** The supervisor's process id, by that of the process that `ovpn run` was; undefined where there is none. */
export function supervisorOf(pid: number): number | undefined {
  const found = readdirSync('/proc').find((entry) => {
    const args = /^\d+$/.test(entry) ? commandLine(entry) : []
    return args.includes('run-supervisor') && args.includes(String(pid))
  })
  return found === undefined ? undefined : Number(found)
}

/** Whether the shell is there still that waits for the supervisor's end, or what it has become. */
export function keeperIsThere(pid: number): boolean {
  return readdirSync('/proc').some((entry) => {
    const args = /^\d+$/.test(entry) ? commandLine(entry) : []
    const isSuccessor = args.includes('--successor') && args.includes(String(pid))
    return isSuccessor || args.includes(`keeper of ${pid}`)
  })
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // it has ended
  }
}
