/**
 * An OpenVPN client inside a program: `connect`. Needs Bun, /dev/net/tun and CAP_NET_ADMIN over the network namespace; addresses, routes and
 * DNS are changed as the profile and the server say, and all is taken back.
 */
import { EventEmitter } from 'node:events'
import { DEFAULT_SOCKET } from '../driver/socket-path.ts'
import type { Client, Connection, Verdict } from '../openvpn/client/client.ts'
import type { Ask } from '../openvpn/client/credentials.ts'
import { readClientConfig } from '../openvpn/config/client-config.ts'
import type { PeerCounters } from '../openvpn/data-channel.ts'
import { Log } from '../openvpn/log.ts'
import type { PendingMethod } from '../openvpn/proto/messages.ts'
import { createRunningClient } from '../runtime/client.ts'
import { driverLog } from '../runtime/driver.ts'
import { type DriverKind, openDriverClient } from '../runtime/driver-client.ts'
import { files } from '../runtime/files.ts'
import { VERSION } from '../runtime/version.ts'

export interface ConnectOptions {
  /** An OpenVPN profile. Certificates and keys are inline (`<ca>`), or files. */
  readonly profile: string
  /** Folder that relative paths in it start from; the current one unless told. */
  readonly folder?: string
  /** `own` unless told: a driver in this process. */
  readonly driver?: DriverKind
  /** Of the driver in user space. */
  readonly socket?: string
  readonly workers?: number
  /** Answers what the server or the profile asks of the user: name and password, a challenge. */
  readonly ask?: Ask
  /** Of the private key, where it is encrypted. */
  readonly passphrase?: string
  readonly signal?: AbortSignal
}

export interface ConnectionEvents {
  /** RESOLVE, WAIT, AUTH, GET_CONFIG, ASSIGN_IP, CONNECTED, RECONNECTING, EXITING. */
  state: [name: string, detail: string | undefined]
  connected: [connection: Connection]
  rekeyed: [keyId: number]
  /** The server wants more of the user: a challenge, a page to open. */
  pending: [method: PendingMethod | undefined, seconds: number | undefined]
  /** It is not connected at present; it connects again. */
  disconnected: [reason: string]
  /** The end of all, and why. */
  closed: [verdict: Verdict]
  log: [text: string]
}

/** Why `connect` gave up: `code` is the kind of verdict. */
export class ConnectError extends Error {
  override readonly name = 'ConnectError'
  readonly code: Verdict['kind']

  constructor(verdict: Verdict) {
    super(verdict.text)
    this.code = verdict.kind
  }
}

export class EmbeddedConnection extends EventEmitter<ConnectionEvents> {
  readonly #client: Client
  readonly #ended: Promise<Verdict>

  /** `connect` makes these. */
  constructor(client: Client, ended: Promise<Verdict>) {
    super()
    this.#client = client
    this.#ended = ended
  }

  /** What is known of the present connection; undefined while there is none. */
  get connection(): Connection | undefined {
    return this.#client.connection
  }

  statistics(): Promise<PeerCounters | undefined> {
    return this.#client.attempt?.counters() ?? Promise.resolve(undefined)
  }

  /** Answers a challenge (`pending`). */
  respond(text: string): void {
    this.#client.attempt?.respond(text)
  }

  /** Lets go of the server and connects anew. */
  restart(): void {
    this.#client.restart()
  }

  /** Tells the server, and takes everything back. */
  async close(): Promise<Verdict> {
    this.#client.stop()
    return this.#ended
  }
}

/**
 * Connects, and stays connected until `close`. Resolves with the first connection. Rejects with a ConfigError, which names each line that is
 * wrong; with a ConnectError where there is no sense in going on; with an ApiError or OsError for what the system refuses.
 */
export async function connect(options: ConnectOptions): Promise<EmbeddedConnection> {
  const { profile, folder = '.', driver: kind = 'own', socket = DEFAULT_SOCKET, signal } = options
  const { workers, passphrase } = options
  const config = readClientConfig({ file: `${folder}/client.ovpn`, text: profile }, files)
  let told: EmbeddedConnection | undefined
  const log = new Log(config, (text) => told?.emit('log', text)).write
  const driver = await openDriverClient(kind, socket, driverLog(log))
  const ask: Ask =
    options.ask ??
    (() => Promise.reject(new Error("the profile wants to ask the user: give 'ask' to connect")))
  return new Promise((resolve, reject) => {
    try {
      const running = createRunningClient(
        driver.client,
        config,
        { ask, version: VERSION, workers, passphrase, log, failed: () => running.client.stop() },
        {
          state: (name, detail) => told?.emit('state', name, detail),
          connected: (connection) => {
            told?.emit('connected', connection)
            if (told !== undefined) resolve(told)
          },
          rekeyed: (keyId) => told?.emit('rekeyed', keyId),
          pending: (method, seconds) => told?.emit('pending', method, seconds),
          disconnected: (reason) => told?.emit('disconnected', reason),
        },
      )
      signal?.addEventListener('abort', () => running.client.stop())
      const ended = running.client.run().finally(async () => {
        await running.close()
        await driver.close()
      })
      told = new EmbeddedConnection(running.client, ended)
      ended.then((verdict) => {
        told?.emit('closed', verdict)
        reject(new ConnectError(verdict))
      }, reject)
    } catch (error) {
      driver.close().finally(() => reject(error))
    }
  })
}
