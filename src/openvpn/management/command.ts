/** What a command of the management interface is, and what commands have in common: how numbers are read, how answers begin. */
import type { Connection } from './connection.ts'
import type { Management } from './management.ts'
import type { ManagementTarget } from './target.ts'

/** Of the interface, as it is announced. */
export const INTERFACE_VERSION = 6

/** Lines to be sent; undefined where the answer comes otherwise. */
export type Answer = string | readonly string[] | undefined

export interface Context {
  readonly connection: Connection
  readonly management: Management
  readonly target: ManagementTarget
}

export interface Command {
  /** How many parameters, at least and at most. */
  readonly args: readonly [number, number]
  readonly help: string
  run(context: Context, args: string[]): Answer | Promise<Answer>
}

/** By name, in the order in which `help` tells them. */
export type Commands = Readonly<Record<string, Command>>

export const ok = (text: string): string => `SUCCESS: ${text}`

export function done(found: boolean, command: string, hint = ''): string {
  if (!found) throw new Error(`${command} command failed${hint}`)
  return ok(`${command} command succeeded`)
}

export function unsupported(command: string): Error {
  return new Error(`The '${command}' command is not supported by the current daemon mode`)
}

export function whole(text: string, least: number, most: number): number {
  const number = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
  if (number >= least && number <= most) return number
  throw new Error(`expected a number from ${least} to ${most}, not '${text}'`)
}
