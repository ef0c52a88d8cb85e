/**
 * An OpenVPN server inside a program: `createServer`. What it serves is said with OpenVPN's own directives; who may come and what each
 * client gets, the program can decide. Needs Bun, /dev/net/tun and CAP_NET_ADMIN over the network namespace.
 */
import { EventEmitter } from 'node:events'
import { DEFAULT_SOCKET } from '../driver/socket-path.ts'
import { readServerConfig } from '../openvpn/config/server-config.ts'
import { Log } from '../openvpn/log.ts'
import type { StatusClient } from '../openvpn/management/status.ts'
import type {
  AuthDecision,
  AuthRequest,
  ClientIdentity,
  ConnectedClient,
  Farewell,
  Reserve,
} from '../openvpn/server/policy.ts'
import {
  openConfiguredServer,
  openKeptFiles,
  type ServerSignal,
} from '../runtime/configured-server.ts'
import { driverLog } from '../runtime/driver.ts'
import { type DriverKind, type OpenedDriver, openDriverClient } from '../runtime/driver-client.ts'
import { files } from '../runtime/files.ts'
import type { RunningServer } from '../runtime/server.ts'

const NOBODY_TO_ASK =
  "the key has a password, and there is nobody to ask for it; write 'askpass FILE', or 'management-query-passwords'"

export interface ServerOptions {
  /** An OpenVPN server configuration. Certificates and keys are inline (`<ca>`), or files. */
  readonly config: string
  /** Folder that relative paths in it start from; the current one unless told. */
  readonly folder?: string
  /** `own` unless told: a driver in this process. */
  readonly driver?: DriverKind
  /** Of the driver in user space. */
  readonly socket?: string
  readonly workers?: number
  /** Whether a client may come: asked with its credentials, and again when keys are renewed. */
  readonly authenticate?: (request: AuthRequest) => Promise<AuthDecision>
  /** What an authenticated client gets: addresses, networks behind it, options; or a refusal. */
  readonly admit?: (
    client: ClientIdentity,
    signal: AbortSignal,
    reserve: Reserve,
  ) => Promise<AuthDecision>
}

export interface ServerEvents {
  connected: [client: ConnectedClient]
  rekeyed: [client: ConnectedClient, keyId: number]
  floated: [client: ConnectedClient]
  disconnected: [client: ConnectedClient, farewell: Farewell]
  /** A line for the log. */
  log: [text: string]
  /** The driver is gone: nothing works from then on. */
  failed: [error: unknown]
  /** Somebody at the management interface wants it. */
  signal: [name: ServerSignal]
}

export class EmbeddedServer extends EventEmitter<ServerEvents> {
  /** Name of the interface. */
  readonly device: string
  /** Where it listens. */
  readonly listening: RunningServer['listening']
  readonly #running: RunningServer
  readonly #driver: OpenedDriver

  /** `createServer` makes these. */
  constructor(running: RunningServer, driver: OpenedDriver) {
    super()
    this.#running = running
    this.#driver = driver
    this.device = running.data.name
    this.listening = running.listening
  }

  /** Those that are connected, with counters as of now. */
  clients(): Promise<StatusClient[]> {
    return this.#running.server.status()
  }

  /** Ends a client's connection: it is told to connect anew. False: there is no such client. */
  disconnect(id: number, reason: string): boolean {
    return this.#running.server.dismiss(id, reason)
  }

  /**
   * Changes pushed options of a client, or of all, while they are connected; older clients take no notice.
   *
   * @param entries `route 10.2.0.0 255.255.0.0` sets, `-dns` removes
   * @returns how many were told
   */
  update(id: number | undefined, entries: readonly string[]): number {
    return this.#running.server.update(id, entries)
  }

  /** Tells clients, as `explicit-exit-notify` says, and removes all that was made. */
  async close(): Promise<void> {
    await this.#running.close()
    await this.#driver.close()
  }
}

/**
 * Starts a server. Rejects with a ConfigError, which names each line that is wrong; with an OsError or ApiError for what the system
 * refuses; nothing is left then.
 */
export async function createServer(options: ServerOptions): Promise<EmbeddedServer> {
  const { config: text, folder = '.', driver: kind = 'own', socket = DEFAULT_SOCKET } = options
  const { authenticate, admit, workers } = options
  const source = { file: `${folder}/server.conf`, text }
  const config = readServerConfig(source, files, authenticate !== undefined)
  // Events may come before there is anybody to tell.
  let server: EmbeddedServer | undefined
  const log = new Log(config, (text) => server?.emit('log', text))
  const driver = await openDriverClient(kind, socket, driverLog(log.write))
  try {
    const running = await openConfiguredServer(driver.client, config, {
      ask: () => Promise.reject(new Error(NOBODY_TO_ASK)),
      policy: {
        ...(authenticate !== undefined && { authenticate, decidesAll: true }),
        ...(admit !== undefined && { admit }),
        connected: (client) => server?.emit('connected', client),
        rekeyed: (client, keyId) => server?.emit('rekeyed', client, keyId),
        floated: (client) => server?.emit('floated', client),
        disconnected: (client, farewell) => server?.emit('disconnected', client, farewell),
      },
      workers,
      kept: openKeptFiles(config),
      log,
      failed: (error) => server?.emit('failed', error),
      signal: (name) => server?.emit('signal', name),
    })
    server = new EmbeddedServer(running, driver)
    return server
  } catch (error) {
    await driver.close()
    throw error
  }
}
