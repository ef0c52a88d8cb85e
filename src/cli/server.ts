/** `ovpn server [CONFIG]`: an OpenVPN server, from an ordinary configuration file; without one, from a folder that it makes itself. */
import { Command } from 'commander'
import { formatPlace } from '../openvpn/config/parse.ts'
import { readServerConfig, type ServerConfig } from '../openvpn/config/server-config.ts'
import { LEVEL, type Log, type Tell } from '../openvpn/log.ts'
import type { ConnectedClient, ServerPolicy } from '../openvpn/server/policy.ts'
import { doubtsIn } from '../openvpn/trial.ts'
import { limitThread } from '../platform/privileges.ts'
import { checkTun } from '../platform/tun-door.ts'
import {
  type ConfiguredServer,
  type EndSignal,
  type KeptFiles,
  openConfiguredServer,
  openKeptFiles,
  type ServerSignal,
} from '../runtime/configured-server.ts'
import { driverLog } from '../runtime/driver.ts'
import { type OpenedDriver, openDriverClient } from '../runtime/driver-client.ts'
import { files, fileWatch } from '../runtime/files.ts'
import { Stopped } from '../runtime/stopped.ts'
import { port } from './arguments.ts'
import type { Environment, Interrupt } from './compose.ts'
import { readSource } from './config-files.ts'
import { attempt, CliError } from './errors.ts'
import { madeIn, ownCommand, SERVER_FOLDER } from './folders.ts'
import { formatBytes, formatEndpoint } from './format.ts'
import { withExamples } from './options.ts'
import {
  enterProcess,
  giveUpRoot,
  openLog,
  type ProcessOptions,
  textOf,
  withProcessOptions,
} from './process.ts'
import { type QuickStart, quickStart } from './quick-start.ts'
import { missingForDriver } from './requirements.ts'
import { askTerminal } from './terminal.ts'

interface Options extends ProcessOptions {
  dir: string
  port?: number
  host?: string[]
}

export function serverCommand(environment: Environment): Command {
  const command = new Command('server')
    .description('run an OpenVPN server')
    .argument('[config]', 'an OpenVPN configuration; without one, a server is made in a folder')
    .option('--dir <folder>', 'the folder, without a configuration', SERVER_FOLDER)
    .option('--port <n>', 'of a server that is made, UDP and TCP (default: 1194)', port)
    .option(
      '--host <name...>',
      'what clients reach a server that is made by (default: an address of this machine)',
    )
    .action((config: string | undefined, options: Options) => serve(environment, config, options))
  return withExamples(
    withProcessOptions(command, 'serve'),
    'ovpn server',
    'ovpn server /etc/openvpn/server/server.conf',
    'ovpn server --host vpn.example.org --dir /etc/ovpn',
  )
}

async function serve(
  environment: Environment,
  path: string | undefined,
  options: Options,
): Promise<void> {
  const { dir, port, host, driver: kind, socket, netns } = options
  const missing = kind === 'own' ? missingForDriver() : []
  if (missing.length > 0) throw new CliError(missing.join('\nand '))
  const made =
    path === undefined
      ? await quickStart(environment, { folder: dir, port, hosts: host })
      : undefined
  const read = async () => readServerConfig(await readSource(path ?? made!.config), files)
  const config = await read()
  const log = await attempt('cannot write the log', () => openLog(environment, config))
  const trial = { role: 'server', date: environment.date(), files: fileWatch } as const
  for (const { message } of doubtsIn(config, trial)) log.write(message)
  await enterProcess(config)
  if (netns !== undefined) environment.enterNetns(netns)
  const kept = await attempt('cannot write what the server keeps', () => openKeptFiles(config))
  await attempt('cannot become another user', () => giveUpRoot(config))
  const driver = await attempt('cannot reach the driver', () =>
    openDriverClient(kind, socket, driverLog(log.write)),
  )
  try {
    await new ServerProcess(environment, driver, {
      read,
      made,
      hosts: host,
      kept,
      workers: options.workers,
      log,
    }).run(config)
  } finally {
    await driver.close()
  }
}

interface ProcessParts {
  /** The configuration as it is now. */
  read(): Promise<ServerConfig>
  readonly made: QuickStart | undefined
  /** What clients reach a server that was made by, as far as it was told. */
  readonly hosts: string[] | undefined
  readonly kept: KeptFiles
  readonly workers: number | undefined
  readonly log: Log
}

/** A server for as long as the process runs: signals, and what the management interface asks for. */
class ServerProcess {
  readonly #environment: Environment
  readonly #driver: OpenedDriver
  readonly #parts: ProcessParts
  #running: ConfiguredServer | undefined
  #config: ServerConfig | undefined
  #next: ServerConfig | undefined
  #kept: KeptFiles
  #wake: (why: EndSignal) => void = () => {}

  constructor(environment: Environment, driver: OpenedDriver, parts: ProcessParts) {
    this.#environment = environment
    this.#driver = driver
    this.#parts = parts
    this.#kept = parts.kept
    environment.onInterrupt((name) => this.#signal(name))
    for (const name of ['SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const) {
      environment.onSignal(name, () => this.#signal(name))
    }
  }

  async run(first: ServerConfig): Promise<void> {
    const { made, hosts } = this.#parts
    const log = this.#parts.log.write
    for (let config: ServerConfig | undefined = first; config !== undefined; config = this.#next) {
      for (const { place, message } of config.notes) log(`${formatPlace(place)}: ${message}`)
      const opening = new AbortController()
      const ended = new Promise<EndSignal>((resolve) => {
        this.#wake = (why) => {
          opening.abort()
          resolve(why)
        }
      })
      this.#next = undefined
      this.#config = config
      const running = await this.#open(config, opening.signal)
      if (running === undefined) continue
      this.#running = running
      limitThread()
      for (const { protocol, address, port } of running.listening) {
        log(`listening: ${protocol} ${formatEndpoint(address, port)}`)
      }
      log(`Initialization Sequence Completed: ${running.data.name} ${addressesOf(config)}`)
      if (made !== undefined && config === first) this.#environment.print(instructions(made, hosts))
      const why = await ended
      this.#running = undefined
      await running.close(why)
    }
  }

  /** Undefined: it was called off. */
  #open(config: ServerConfig, stopping: AbortSignal): Promise<ConfiguredServer | undefined> {
    const { log, workers } = this.#parts
    const opened = openConfiguredServer(this.#driver.client, config, {
      ask: askTerminal,
      policy: announcing(log.write),
      workers,
      kept: this.#kept,
      log,
      failed: (error) => {
        log.write(`the driver has failed: ${textOf(error)}`, LEVEL.error)
        this.#signal('SIGTERM')
      },
      signal: (name) => this.#signal(name),
      stopping,
    })
    return opened.catch((error: unknown) => {
      if (error instanceof Stopped) return undefined
      throw error
    })
  }

  #signal(asked: ServerSignal | Interrupt): void {
    const name = asked === 'SIGUSR1' ? (this.#config?.remapUsr1 ?? asked) : asked
    const act = async () => {
      if (name === 'SIGTERM' || name === 'SIGINT') this.#wake(name)
      else if (name === 'SIGUSR2') await this.#tellStatus()
      else await this.#reread(name)
    }
    act().catch((error: unknown) => {
      this.#parts.log.write(`${name}: ${textOf(error)}`, LEVEL.error)
    })
  }

  async #tellStatus(): Promise<void> {
    for (const line of (await this.#running?.statusText()) ?? []) this.#parts.log.write(line)
  }

  /** SIGUSR1: as it was read, for files may be out of reach by now. What is wrong with a configuration leaves the server as it is. */
  async #reread(name: 'SIGHUP' | 'SIGUSR1'): Promise<void> {
    const anew = name === 'SIGUSR1'
    const { read } = this.#parts
    const log = this.#parts.log.write
    const config = anew && this.#config !== undefined ? this.#config : await read()
    const running = this.#running
    const fixed = anew ? [] : (running?.reload(config) ?? [])
    if (!anew && running !== undefined && fixed.length === 0) {
      this.#config = config
      log('the configuration was read anew; clients stay connected')
      return
    }
    // Whatever fails here leaves the server as it is.
    if (fixed.includes('user') || fixed.includes('group')) {
      throw new Error(
        'a change of user or group takes a new process: end this one and start another',
      )
    }
    if (this.#driver.kind === 'own') checkTun()
    if (fixed.some((name) => KEPT_FILES.has(name))) this.#kept = openKeptFiles(config)
    log(fixed.length === 0 ? 'starting anew' : `starting anew, because of: ${fixed.join(', ')}`)
    this.#next = config
    this.#wake(name)
  }
}

/** What `KeptFiles` are of. */
const KEPT_FILES: ReadonlySet<string> = new Set(['status', 'poolPersist'])

function announcing(log: Tell): ServerPolicy {
  return {
    rekeyed: (client, keyId) => log(`${nameOf(client)}: keys renewed: ${keyId}`, LEVEL.keys),
    disconnected: (client, { bytesReceived, bytesSent, seconds }) => {
      const moved = `${formatBytes(bytesReceived)} in, ${formatBytes(bytesSent)} out`
      log(`${nameOf(client)}: gone after ${seconds} s; ${moved}`)
    },
  }
}

function nameOf({ commonName, remote }: ConnectedClient): string {
  return `${commonName}/${formatEndpoint(remote.address, remote.port)}`
}

function addressesOf({ ifconfig, ifconfigIpv6 }: ServerConfig): string {
  return [ifconfig?.local, ifconfigIpv6?.local.address].filter(Boolean).join(' ')
}

function instructions({ folder, fresh }: QuickStart, hosts: string[] = []): string {
  const ovpn = ownCommand()
  const { config, pki } = madeIn(folder)
  const [from, dir] =
    folder === SERVER_FOLDER ? ['', ''] : [` --config ${config} --pki ${pki}`, ` --dir ${pki}`]
  const host = hosts.length === 0 ? '' : ` --host ${hosts.join(' ')}`
  return `
${fresh ? 'Made' : 'Using'} ${folder}: server.conf, certificates and keys, and client.ovpn, the profile of a first client.
To connect, copy ${folder}/client.ovpn to the other machine, and there
  with OpenVPN:             sudo openvpn --config client.ovpn
  with this program:        sudo ovpn client client.ovpn
  on a phone or a desktop:  import client.ovpn into OpenVPN Connect, Tunnelblick, NetworkManager ...
Another client:             ${ovpn} profile NAME${from} -o NAME.ovpn${host}
A client no more:           ${ovpn} pki revoke NAME${dir}
Clients are shown here as they come and go. Ctrl-C ends the server.
`
}
