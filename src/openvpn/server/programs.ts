/**
 * Programs that a server's configuration names to decide about clients: what each is told, and how it answers. Running them, and files
 * for them, are passed in. Source: openvpn(8) of 2.6, "Script hooks" and "Environmental variables".
 *
 *     program                 is given                            allows with
 *     tls-crypt-v2-verify     metadata in a file                  status 0
 *     tls-verify              depth and subject, a run for each   status 0
 *     auth-user-pass-verify   name and password                   status 0; status 2: `1` in auth_control_file, later
 *     client-crresponse       the answer to what was asked        `1` in auth_control_file
 *     client-connect          a file for settings                 status 0; with `2` in its deferred file: `1` there, later
 */
import type { ServerConfig } from '../config/server-config.ts'
import { type AuthFailure, parseMessage, parsePassword } from '../proto/messages.ts'
import { parseOption } from '../proto/push.ts'
import {
  arrivalEnvironment,
  clean,
  type Environment,
  identityEnvironment,
  leaseEnvironment,
} from './environment.ts'
import type { Lease } from './ip-pool.ts'
import type { AuthDecision, AuthRequest, ClientIdentity } from './policy.ts'

export interface ScriptOutcome {
  readonly status: number
  readonly output: string
}

/** A file that only this process and its scripts read. */
export interface TemporaryFile {
  readonly path: string
  read(): string
  remove(): void
}

export interface ProgramParts {
  readonly config: ServerConfig
  /** Of the server: `dev`, `ifconfig_local` and the like. */
  readonly environment: () => Environment
  run(command: readonly string[], environment: Environment): Promise<ScriptOutcome>
  temporaryFile(content: string | Uint8Array): TemporaryFile
  date(): Date
  log(text: string): void
}

/** What OpenVPN calls `auth-user-pass-verify` in `script_type`. */
const PASSWORD_TYPE = 'user-pass-verify'
/** Status of a program that answers later. */
const DEFERRED = 2
const RECHECK_MS = 250
const DEFER_LIMIT_MS = 120_000

export class Programs {
  readonly #parts: ProgramParts

  constructor(parts: ProgramParts) {
    this.#parts = parts
  }

  /** Runs a command with more parameters; what is wrong is logged. */
  async run(
    type: string,
    command: string,
    args: readonly string[],
    environment: Environment,
  ): Promise<ScriptOutcome> {
    const { config } = this.#parts
    const own = Object.fromEntries(config.environment.map(([name, value]) => [name, clean(value)]))
    const all = { ...own, ...this.#parts.environment(), ...environment }
    return this.#run(type, command, args, all)
  }

  /** Why a client may not come with its tls-crypt-v2 key. The program is told of nothing but the key's metadata. */
  async refusesKey(metadata: Uint8Array): Promise<string | undefined> {
    const verify = this.#parts.config.tlsCryptV2?.verify
    if (verify === undefined) return undefined
    const file = this.#parts.temporaryFile(metadata.subarray(1))
    try {
      const environment = { metadata_type: String(metadata[0] ?? 0), metadata_file: file.path }
      const { status } = await this.#run('tls-crypt-v2-verify', verify, [], environment)
      return status === 0 ? undefined : 'tls-crypt-v2-verify refuses its key'
    } finally {
      file.remove()
    }
  }

  /** Why a client may not come with its certificates, the farthest from its own first. */
  async refusesCertificates(client: ClientIdentity): Promise<string | undefined> {
    const { tlsVerify } = this.#parts.config
    if (tlsVerify === undefined) return undefined
    const environment = identityEnvironment(client)
    for (let depth = client.certificates.chain.length - 1; depth >= 0; depth--) {
      const subject = environment[`tls_id_${depth}`] ?? ''
      const { status } = await this.run(
        'tls-verify',
        tlsVerify,
        [String(depth), clean(subject)],
        environment,
      )
      if (status !== 0) return `tls-verify refuses the certificate of ${clean(subject)}`
    }
    return undefined
  }

  async verifyPassword(request: AuthRequest, environment: Environment): Promise<AuthDecision> {
    const { authUserPassVerify } = this.#parts.config
    if (authUserPassVerify === undefined) return { allow: true }
    const { command, method } = authUserPassVerify
    const { username } = request
    const password = passwordFor(request.password)
    // A line break would add a line to the file, and a variable to the environment.
    if (/\p{Cc}/u.test(username) || /[\r\n\0]/.test(password)) {
      return denied('control characters in a user name or password')
    }
    const { temporaryFile } = this.#parts
    const [control, pending, reason] = [temporaryFile(''), temporaryFile(''), temporaryFile('')]
    const secret = method === 'via-file' ? temporaryFile(`${username}\n${password}\n`) : undefined
    const told: Environment = {
      ...environment,
      username,
      auth_control_file: control.path,
      auth_pending_file: pending.path,
      auth_failed_reason_file: reason.path,
    }
    const type = PASSWORD_TYPE
    try {
      const { status } = await this.run(type, command, secret === undefined ? [] : [secret.path], {
        ...told,
        ...(secret === undefined && { password }),
      })
      secret?.remove()
      const allowed =
        status === DEFERRED
          ? await this.#decidedLater(request, told, control, pending)
          : status === 0
      return allowed ? { allow: true } : denied('auth-user-pass-verify refuses it', reason.read())
    } finally {
      for (const file of [control, pending, reason, secret]) file?.remove()
    }
  }

  /**
   * Settings for a client that is being let in, as in a file of `client-config-dir`; undefined where the program refuses it.
   */
  async clientConnect(
    command: string,
    client: ClientIdentity,
    lease: Lease | undefined,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { temporaryFile } = this.#parts
    const [settings, deferred] = [temporaryFile(''), temporaryFile('')]
    try {
      const { status } = await this.run('client-connect', command, [settings.path], {
        ...arrivalEnvironment(client, this.#parts.date()),
        ...leaseEnvironment(lease ?? {}),
        client_connect_deferred_file: deferred.path,
        client_connect_config_file: settings.path,
      })
      const [word = '1'] = deferred.read()
      const allowed =
        status === 0 &&
        (word === '2' ? await decided(deferred, DEFER_LIMIT_MS, signal) : word === '1')
      return allowed ? settings.read() : undefined
    } finally {
      settings.remove()
      deferred.remove()
    }
  }

  /** Asks the client what the program wants asked, and brings it the answers, until it has decided. */
  async #decidedLater(
    request: AuthRequest,
    environment: Environment,
    control: TemporaryFile,
    pending: TemporaryFile,
  ): Promise<boolean> {
    const [seconds = '', , extra] = pending.read().split('\n')
    const timeout = /^\d{1,5}$/.test(seconds) ? Number(seconds) : 0
    if (extra !== undefined && timeout > 0) request.pend(clean(extra), timeout)
    void this.#bringResponses(request, environment)
    return decided(control, timeout === 0 ? DEFER_LIMIT_MS : 1000 * timeout, request.signal)
  }

  async #bringResponses({ responses }: AuthRequest, environment: Environment): Promise<void> {
    const { clientCrresponse } = this.#parts.config
    if (clientCrresponse === undefined) return
    for await (const response of responses) {
      const file = this.#parts.temporaryFile(Buffer.from(response).toString('base64'))
      await this.run('client-crresponse', clientCrresponse, [file.path], environment)
      file.remove()
    }
  }

  async #run(
    type: string,
    command: string,
    args: readonly string[],
    environment: Environment,
  ): Promise<ScriptOutcome> {
    const words = parseOption(command) ?? []
    const outcome = await this.#parts.run([...words, ...args], {
      ...environment,
      script_type: type,
    })
    const { status } = outcome
    const deferred = type === PASSWORD_TYPE && status === DEFERRED
    const output = outcome.output === '' ? '' : `: ${clean(outcome.output)}`
    if (status !== 0 && !deferred) {
      this.#parts.log(`${type}: ${words[0]} ended with ${status}${output}`)
    }
    return outcome
  }
}

/** A script gets the password itself, or both it and the answer to the question. */
function passwordFor(field: string): string {
  const parsed = parsePassword(field)
  return parsed.kind === 'plain' ? parsed.password : field
}

/** Whether a `1` is written to the file before long; a `0` is no. */
async function decided(
  file: TemporaryFile,
  limitMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  for (let waited = 0; waited < limitMs && !signal.aborted; waited += RECHECK_MS) {
    const [word] = file.read()
    if (word === '1') return true
    if (word === '0') return false
    await new Promise((resolve) => setTimeout(resolve, RECHECK_MS))
  }
  return false
}

/** `text`: for the client, in the words of AUTH_FAILED. */
function denied(why: string, text = ''): AuthDecision & { allow: false } {
  const message = parseMessage(`AUTH_FAILED,${clean(text.trim())}`)
  const failure: AuthFailure =
    message.kind === 'auth-failed' ? message.failure : { reason: 'denied', text: '' }
  return { allow: false, failure, why }
}
