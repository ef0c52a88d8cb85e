/** `ovpn client PROFILE`: connects to an OpenVPN server, and stays connected. */
import { Command } from 'commander'
import type { ClientEvents, Connection, Verdict } from '../openvpn/client/client.ts'
import { type ClientConfig, readClientConfig } from '../openvpn/config/client-config.ts'
import { formatPlace } from '../openvpn/config/parse.ts'
import { LEVEL, type Log } from '../openvpn/log.ts'
import type { PendingMethod } from '../openvpn/proto/messages.ts'
import { doubtsIn } from '../openvpn/trial.ts'
import { type ConfiguredClient, openConfiguredClient } from '../runtime/configured-client.ts'
import type { ServerSignal } from '../runtime/configured-server.ts'
import { driverLog } from '../runtime/driver.ts'
import { type OpenedDriver, openDriverClient } from '../runtime/driver-client.ts'
import { files, fileWatch } from '../runtime/files.ts'
import { Stopped } from '../runtime/stopped.ts'
import type { Environment, Interrupt } from './compose.ts'
import { readSource } from './config-files.ts'
import { attempt, CliError, EXIT } from './errors.ts'
import { withExamples } from './options.ts'
import {
  enterProcess,
  giveUpRoot,
  openLog,
  type ProcessOptions,
  textOf,
  withProcessOptions,
} from './process.ts'
import { missingForDriver } from './requirements.ts'
import { askTerminal } from './terminal.ts'

export function clientCommand(environment: Environment): Command {
  const command = new Command('client')
    .description('connect to an OpenVPN server')
    .argument('<profile>', 'an OpenVPN profile')
    .action((path: string, options: ProcessOptions) => connect(environment, path, options))
  return withExamples(
    withProcessOptions(command, 'connect'),
    'ovpn client office.ovpn',
    'ovpn client --netns office office.ovpn    # only what runs in that namespace uses the tunnel',
  )
}

async function connect(
  environment: Environment,
  path: string,
  options: ProcessOptions,
): Promise<void> {
  const { driver: kind, socket, netns } = options
  const missing = kind === 'own' ? missingForDriver() : []
  if (missing.length > 0) throw new CliError(missing.join('\nand '))
  const read = async () => readClientConfig(await readSource(path), files)
  const config = await read()
  const log = await attempt('cannot write the log', () => openLog(environment, config))
  const trial = { role: 'client', date: environment.date(), files: fileWatch } as const
  for (const { message } of doubtsIn(config, trial)) log.write(message)
  await enterProcess(config)
  if (netns !== undefined) environment.enterNetns(netns)
  await attempt('cannot become another user', () => giveUpRoot(config))
  const driver = await attempt('cannot reach the driver', () =>
    openDriverClient(kind, socket, driverLog(log.write)),
  )
  let verdict: Verdict
  try {
    const process = new ClientProcess(environment, driver, { read, log, options })
    verdict = await attempt('cannot connect', () => process.run(config))
  } finally {
    await driver.close()
  }
  if (verdict.kind === 'ended') log.write(verdict.text)
  else if (verdict.kind === 'given-up') throw new CliError(verdict.text, EXIT.unreachable)
  else if (verdict.kind !== 'stopped') throw new CliError(verdict.text)
}

interface ProcessParts {
  /** The profile as it is now. */
  read(): Promise<ClientConfig>
  readonly log: Log
  readonly options: ProcessOptions
}

/** A client for as long as the process runs: signals, and what the management interface asks for. */
class ClientProcess {
  readonly #driver: OpenedDriver
  readonly #parts: ProcessParts
  #running: ConfiguredClient | undefined
  #config: ClientConfig | undefined
  #next: ClientConfig | undefined
  #stopped: Interrupt | undefined
  /** Aborted where the next client is not to be waited for. */
  #opening = new AbortController()

  constructor(environment: Environment, driver: OpenedDriver, parts: ProcessParts) {
    this.#driver = driver
    this.#parts = parts
    environment.onInterrupt((name) => this.#signal(name))
    for (const name of ['SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const) {
      environment.onSignal(name, () => this.#signal(name))
    }
  }

  async run(first: ClientConfig): Promise<Verdict> {
    const { log } = this.#parts
    for (let config = first; ; config = this.#next) {
      for (const { place, message } of config.notes) log.write(`${formatPlace(place)}: ${message}`)
      this.#next = undefined
      this.#config = config
      const verdict = await this.#runOne(config)
      if (this.#next === undefined || this.#stopped !== undefined) return verdict
      log.write('the profile was read anew')
    }
  }

  async #runOne(config: ClientConfig): Promise<Verdict> {
    this.#opening = new AbortController()
    try {
      this.#running = await this.#open(config)
    } catch (error) {
      if (error instanceof Stopped) return { kind: 'stopped', text: error.message }
      throw error
    }
    try {
      if (this.#stopped !== undefined) this.#running.stop(this.#stopped)
      return await this.#running.run()
    } finally {
      this.#running = undefined
    }
  }

  #open(config: ClientConfig): Promise<ConfiguredClient> {
    const { log, options } = this.#parts
    const { workers, netns } = options
    return openConfiguredClient(this.#driver.client, config, {
      ask: askTerminal,
      workers,
      resolvConf: netns === undefined ? undefined : `/etc/netns/${netns}/resolv.conf`,
      log,
      events: telling(log),
      failed: (error) => {
        log.write(`the driver has failed: ${textOf(error)}`, LEVEL.error)
        this.#signal('SIGTERM')
      },
      signal: (name) => this.#signal(name),
      stopping: this.#opening.signal,
    })
  }

  #signal(asked: ServerSignal | Interrupt): void {
    const name = asked === 'SIGUSR1' ? (this.#config?.remapUsr1 ?? asked) : asked
    const act = async () => {
      if (name === 'SIGUSR1') this.#running?.restart()
      else if (name === 'SIGUSR2') {
        for (const line of (await this.#running?.statusText()) ?? []) this.#parts.log.write(line)
      } else {
        // What is wrong with a profile leaves the connection as it is.
        if (name === 'SIGHUP') this.#next = await this.#parts.read()
        else this.#stopped = name
        this.#opening.abort()
        this.#running?.stop(name)
      }
    }
    act().catch((error: unknown) => {
      this.#parts.log.write(`${name}: ${textOf(error)}`, LEVEL.error)
    })
  }
}

function telling({ write }: Log): ClientEvents {
  return {
    state(name, detail) {
      const shown = name === 'RECONNECTING' || detail === undefined ? name : `${name}: ${detail}`
      if (name !== 'CONNECTED') write(shown, name === 'RECONNECTING' ? LEVEL.usual : LEVEL.steps)
    },
    connected: (connection) => write(connectedText(connection)),
    rekeyed: (keyId) => write(`keys renewed: ${keyId}`, LEVEL.keys),
    pending: (method, seconds) => write(pendingText(method, seconds)),
    disconnected: (reason) => write(`disconnected: ${reason}`),
  }
}

function connectedText({ device, v4, v6, cipher, server, protocol }: Connection): string {
  const addresses = [v4, v6].filter(Boolean).join(' ')
  const { address, port } = server
  return `Initialization Sequence Completed: ${device} ${addresses}, ${cipher}, over ${protocol} to ${address} port ${port}`
}

function pendingText(method: PendingMethod | undefined, seconds: number | undefined): string {
  if (method === undefined) {
    const time = seconds === undefined ? '' : `, for ${seconds} s at most`
    return `the server wants more before it lets this client in${time}`
  }
  return method.method === 'crtext'
    ? `the server asks: ${method.text}`
    : `to go on, open in a browser: ${method.url}`
}
