/** What the command line says when something does not work, and the exit status that goes with it. */
import { getSystemErrorMap } from 'node:util'
import { OsError } from '../platform/error.ts'
import { ApiError } from '../uapi/errno.ts'

/** Exit statuses; `ovpn --help` shows them. */
export const EXIT = {
  /** The driver or the system refused. */
  refused: 1,
  /** The command line cannot be understood. */
  usage: 2,
  /** No driver could be reached. */
  unreachable: 3,
} as const

/** An error whose text is meant for the user as it stands. */
export class CliError extends Error {
  override readonly name = 'CliError'
  readonly exitCode: number

  constructor(message: string, exitCode: number = EXIT.refused, options?: ErrorOptions) {
    super(message, options)
    this.exitCode = exitCode
  }
}

/** Those that Node's table has no words for. */
const WORDS: { readonly [name: string]: string } = {
  EBADMSG: 'bad message',
  EOPNOTSUPP: 'operation not supported',
}

/** The words for an errno name: `EEXIST` → `file already exists`. */
function errnoWords(name: string): string {
  if (Object.hasOwn(WORDS, name)) return WORDS[name]!
  for (const [code, words] of getSystemErrorMap().values()) if (code === name) return words
  return name
}

/**
 * `<what>: <words of the errno> (<errno>): <reason and attribute>` for a refusal; the plain message for what is no
 * ApiError.
 */
function describeError(what: string, error: unknown): string {
  if (error instanceof ApiError) {
    const { errno, message } = error
    const detail = message === '' || message === errno ? '' : `: ${message}`
    return `${what}: ${errnoWords(errno)} (${errno})${detail}`
  }
  return `${what}: ${errorText(error, what)}`
}

/** What is wrong, in words where it is the system's; `told` is said before it. */
export function errorText(error: unknown, told = ''): string {
  if (!(error instanceof Error)) return String(error)
  if (error instanceof OsError) return `${error.message}: ${errnoWords(error.code)}`
  const { code, syscall, path } = error as NodeJS.ErrnoException
  if (code === undefined || syscall === undefined) return error.message
  const which = path === undefined || told.includes(path) ? '' : `${path}: `
  return `${which}${errnoWords(code)} (${code})`
}

/** Runs a step of a command; a failure is told with what was attempted. CliErrors pass as they are. */
export async function attempt<T>(what: string, step: () => T | Promise<T>): Promise<T> {
  try {
    return await step()
  } catch (error) {
    if (error instanceof CliError) throw error
    throw new CliError(describeError(what, error), EXIT.refused, { cause: error })
  }
}
