/**
 * Programs that configurations name (`up`, `client-connect`, `auth-user-pass-verify` …), run as OpenVPN runs them: without a
 * shell, with an environment of their own and nothing else. They never hold up anything but what asked for them.
 */
import { spawn } from 'node:child_process'

export interface ScriptResult {
  readonly status: number
  /** What it wrote to standard output and standard error, cut at a limit. */
  readonly output: string
}

export interface ScriptOptions {
  readonly environment: Readonly<Record<string, string>>
  /** After that it is ended and counts as failed. */
  readonly timeoutMs?: number
}

const TIMEOUT_MS = 60_000
const OUTPUT_LIMIT = 16_384
/** Of a program that a signal ended, or that could not be run. */
const FAILED = 255
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Runs `command` (the program and its parameters). Never rejects: what went wrong is in the output. */
export function runScript(
  command: readonly string[],
  options: ScriptOptions,
): Promise<ScriptResult> {
  const { environment, timeoutMs = TIMEOUT_MS } = options
  const [program = '', ...parameters] = command
  return new Promise((resolve) => {
    let output = ''
    const child = spawn(program, parameters, {
      env: { PATH, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const timer = setTimeout(() => {
      output += `\nended after ${timeoutMs / 1000} seconds`
      child.kill('SIGKILL')
    }, timeoutMs)
    const collect = (bytes: Buffer) => {
      if (output.length < OUTPUT_LIMIT) output += bytes.toString().slice(0, OUTPUT_LIMIT)
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    const finish = (status: number) => {
      clearTimeout(timer)
      resolve({ status, output: output.trim() })
    }
    child.on('error', (error) => {
      output += error.message
      finish(FAILED)
    })
    // Not `close`: a child of its own may keep the pipes for as long as it lives.
    child.on('exit', (status) => setImmediate(() => finish(status ?? FAILED)))
  })
}
