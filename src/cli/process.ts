/** What `ovpn server` and `ovpn client` have in common as processes: options, the log, and whom they become. */
import { openSync, writeFileSync, writeSync } from 'node:fs'
import { setPriority } from 'node:os'
import { type Command, Option } from 'commander'
import type { ProcessConfig } from '../openvpn/config/process-config.ts'
import { Log } from '../openvpn/log.ts'
import { becomeUser } from '../platform/privileges.ts'
import { keepTunDoor } from '../platform/tun-door.ts'
import type { DriverKind } from '../runtime/driver-client.ts'
import { groupId, userId } from '../runtime/users.ts'
import { workers } from './arguments.ts'
import type { Environment } from './compose.ts'
import { attempt } from './errors.ts'
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

/** To standard output, or the file that `log` names. @throws Error where the file cannot be opened */
export function openLog(environment: Environment, config: ProcessConfig): Log {
  const { log } = config
  const fd = log && openSync(log.path, log.append ? 'a' : 'w', 0o640)
  return new Log(config, (text, level) => {
    const line = lineOf(text, level, environment.date(), config)
    if (fd === undefined) environment.print(line)
    else writeIfRoom(fd, `${line}\n`)
  })
}

/** A log with no room is no reason to stop: what does not fit is not told. */
function writeIfRoom(fd: number, text: string): void {
  try {
    writeSync(fd, text)
  } catch {}
}

/** `machine-readable-output`: the time in seconds with a fraction, and the level where OpenVPN has its flags. */
function lineOf(
  text: string,
  level: number,
  date: Date,
  { machineReadableOutput, suppressTimestamps }: ProcessConfig,
): string {
  if (machineReadableOutput) return `${(date.getTime() / 1000).toFixed(6)} ${level} ${text}`
  return suppressTimestamps ? text : `${formatTime(date)} ${text}`
}

/** `writepid` and `nice`. Rejects with a CliError. */
export async function enterProcess({ writepid, nice }: ProcessConfig): Promise<void> {
  if (writepid !== undefined) {
    await attempt('cannot write the process id', () => writeFileSync(writepid, `${process.pid}\n`))
  }
  if (nice !== undefined) await attempt(`cannot be as nice as ${nice}`, () => setPriority(nice))
}

/**
 * `user` and `group`: before there are threads, so that all of them have no more than the network takes. Files stay within reach,
 * for a client puts resolv.conf back at the end.
 */
export function giveUpRoot({ user, group }: ProcessConfig): void {
  if (user === undefined && group === undefined) return
  const uid = user === undefined ? undefined : userId(user)
  if (uid !== undefined) keepTunDoor(uid)
  becomeUser(uid, group === undefined ? undefined : groupId(group))
}

export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
