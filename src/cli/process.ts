/** What `ovpn server` and `ovpn client` have in common as processes: options, the log, and whom they become. */
import { openSync, writeSync } from 'node:fs'
import { type Command, Option } from 'commander'
import type { ProcessConfig } from '../openvpn/config/process-config.ts'
import { becomeUser } from '../platform/privileges.ts'
import type { DriverKind } from '../runtime/driver-client.ts'
import { groupId, userId } from '../runtime/users.ts'
import { workers } from './arguments.ts'
import type { Environment } from './compose.ts'
import { formatTime } from './format.ts'
import { socketOption } from './options.ts'

export interface ProcessOptions {
  driver: DriverKind
  socket: string
  netns?: string
  workers?: number
}

/** @param action what is done in the network namespace */
export function withProcessOptions(command: Command, action: string): Command {
  const kinds: DriverKind[] = ['own', 'user', 'kernel']
  const text = "this process's own driver, the one that runs, or the kernel's"
  return command
    .addOption(new Option('--driver <which>', text).choices(kinds).default('own'))
    .addOption(socketOption('socket of the driver that runs'))
    .option('-n, --netns <name>', `network namespace to ${action} in, one of \`ip netns\``)
    .option('--workers <n>', 'threads that move packets', workers)
}

/** To standard output, or the file that `log` names. */
export class ProcessLog {
  verbosity: number
  readonly #environment: Environment
  readonly #config: ProcessConfig
  readonly #fd: number | undefined

  /** @throws Error where the file cannot be opened */
  constructor(environment: Environment, config: ProcessConfig) {
    const { log, verb } = config
    this.#environment = environment
    this.#config = config
    this.#fd = log && openSync(log.path, log.append ? 'a' : 'w', 0o640)
    this.verbosity = verb
  }

  /** @param level of `verb` from which on it is told */
  write(text: string, level = 1): void {
    if (this.verbosity < level) return
    const line = this.#line(text)
    if (this.#fd === undefined) this.#environment.print(line)
    else writeSync(this.#fd, `${line}\n`)
  }

  /** `machine-readable-output`: the time in seconds with a fraction, and OpenVPN's flag of what is information. */
  #line(text: string): string {
    const date = this.#environment.date()
    const { machineReadableOutput, suppressTimestamps } = this.#config
    if (machineReadableOutput) return `${(date.getTime() / 1000).toFixed(6)} 1 ${text}`
    return suppressTimestamps ? text : `${formatTime(date)} ${text}`
  }
}

/**
 * `user` and `group`: before there are threads, so that all of them have no more than the network takes. Files stay within reach,
 * for a client puts resolv.conf back at the end.
 */
export function giveUpRoot({ user, group }: ProcessConfig): void {
  if (user === undefined && group === undefined) return
  const uid = user === undefined ? undefined : userId(user)
  becomeUser(uid, group === undefined ? undefined : groupId(group))
}

export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
