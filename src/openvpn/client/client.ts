/**
 * The client: which server is tried when, what is asked of the user, and what the machine's network looks like meanwhile. One
 * connection is attempt.ts's; sockets, names, the driver and the system are passed in.
 *
 *     remotes, in order --> resolve --> attempt --> connected: addresses, routes, DNS --> ended --+
 *           ^                                                                                     |
 *           +------ the same again, its next address, the next remote; after a while -------------+
 */
import { formatOptionsString } from '../../wire/options-string.ts'
import { formatPeerInfo } from '../../wire/peer-info.ts'
import type { ClientConfig, ConnectionEntry } from '../config/client-config.ts'
import { mergeNetwork } from '../config/network.ts'
import { type PushedOptions, readPushed } from '../config/pushed.ts'
import type { DataChannel } from '../data-channel.ts'
import type { DnsPlan, Network } from '../network.ts'
import type { PendingMethod } from '../proto/messages.ts'
import { clientProto, DEFAULT_DATA_CIPHERS } from '../proto/negotiate.ts'
import { applyUpdate } from '../proto/push.ts'
import type { Millis } from '../proto/reliable.ts'
import type { TlsFactory } from '../proto/tls-engine.ts'
import type { DatagramTransport, Endpoint, Path, StreamTransport } from '../transport.ts'
import { TransportLink } from '../transport-link.ts'
import { Attempt, type AttemptWorld, type Ending, type Pushed, type Stage } from './attempt.ts'
import { type Ask, Credentials, type Shown } from './credentials.ts'
import { type NetworkPlan, planNetwork } from './plan.ts'
import { Tunnel } from './tunnel.ts'

/** A way to a server, before anything is sent. */
export interface OpenedTransport {
  readonly transport: DatagramTransport | StreamTransport
  readonly path: Path
}

export interface ClientWorld extends AttemptWorld {
  date(): Date
  random(count: number): Uint8Array
  /** Addresses of a name, in the order in which they are to be tried. Rejects where there are none. */
  resolve(host: string, family: 4 | 6 | undefined): Promise<readonly string[]>
  /** Opens a socket, or connects a stream, through a proxy where the entry names one. */
  open(entry: ConnectionEntry, remote: Endpoint, signal: AbortSignal): Promise<OpenedTransport>
  openData(name: string | undefined): Promise<DataChannel>
  /** Whether the driver knows keys with epochs. */
  readonly hasEpochs: boolean
  readonly network: Network
  nameservers(): readonly string[]
  /** Has the system ask other servers; returns what takes that back. */
  applyDns(device: string, plan: DnsPlan): Promise<() => Promise<void>>
  readonly tls: TlsFactory
  readonly ask: Ask
  /** Version and platform, for the server's log. */
  readonly version: string
  log(text: string): void
}

/** What is known of a connection that is up. */
export interface Connection {
  readonly device: string
  readonly server: Endpoint
  readonly protocol: 'udp' | 'tcp'
  readonly v4?: string
  readonly v6?: string
  readonly cipher: string
  readonly plan: NetworkPlan
  readonly pushed: PushedOptions
}

export interface ClientEvents {
  /** A stage in OpenVPN's words: RESOLVE, TCP_CONNECT, WAIT, AUTH, GET_CONFIG, ASSIGN_IP, CONNECTED, RECONNECTING, EXITING. */
  state(name: string, detail?: string): void
  connected(connection: Connection): void
  rekeyed(keyId: number): void
  pending(method: PendingMethod | undefined, seconds: number | undefined): void
  /** The connection is over; another follows unless this was the end of all. */
  disconnected(reason: string): void
}

/** Why a client has ended for good. */
export interface Verdict {
  /** `stopped`: it was asked to. */
  readonly kind: 'stopped' | 'refused' | 'halted' | 'given-up'
  readonly text: string
}

const STATES: { readonly [S in Stage]?: string } = {
  reaching: 'WAIT',
  exchanging: 'AUTH',
  asking: 'GET_CONFIG',
  joining: 'ASSIGN_IP',
}
/** Rounds through all remotes before the waiting gets longer. */
const PATIENT_ROUNDS = 5
const OUTER_HEADER_BYTES = 28
const MIN_CONTROL_BYTES = 154

type Next = 'same' | 'address' | 'remote'

export class Client {
  readonly #config: ClientConfig
  readonly #world: ClientWorld
  readonly #events: ClientEvents
  readonly #credentials: Credentials
  readonly #stop = new AbortController()
  readonly #tunnel: Tunnel
  #attempt: Attempt | undefined
  #restart: (() => void) | undefined
  #connection: Connection | undefined
  /** Seconds that the server asked to wait. */
  #backoff: number | undefined

  constructor(config: ClientConfig, world: ClientWorld, events: ClientEvents) {
    this.#config = config
    this.#world = world
    this.#events = events
    this.#credentials = new Credentials(config, world.ask)
    this.#tunnel = new Tunnel(world, config)
  }

  get connection(): Connection | undefined {
    return this.#connection
  }

  get attempt(): Attempt | undefined {
    return this.#attempt
  }

  get tunnel(): Tunnel {
    return this.#tunnel
  }

  /** Connects and stays connected, until `stop`, or until there is no sense in going on. Nothing is left then. */
  async run(): Promise<Verdict> {
    try {
      const verdict = await this.#rounds()
      this.#events.state('EXITING', verdict.kind)
      return verdict
    } finally {
      await this.#tunnel.close()
    }
  }

  /** Ends it; the server is told. */
  stop(): void {
    this.#stop.abort()
    void this.#attempt?.close(true)
  }

  /** Lets go of the present server and begins anew (SIGUSR1). */
  restart(): void {
    void this.#attempt?.close(true)
    this.#restart?.()
  }

  async #rounds(): Promise<Verdict> {
    const entries = [...this.#config.connections]
    if (this.#config.remoteRandom) shuffle(entries, this.#world.random)
    let failures = 0
    for (let round = 0; ; round++) {
      for (let i = 0; i < entries.length; ) {
        if (this.#stop.signal.aborted) return STOPPED
        const entry = entries[i]!
        const before = failures
        const result = await this.#try(entry)
        if (this.#stop.signal.aborted) return STOPPED
        if ('verdict' in result) return result.verdict
        // A connection that had come about begins the count anew.
        failures = result.connected ? 0 : before + 1
        if (result.connected) round = 0
        if (failures >= entry.connectRetryMax * entries.length) {
          return { kind: 'given-up', text: `no connection after ${failures} attempts` }
        }
        if (result.next === 'remote' || !result.connected) i++
        this.#events.state('RECONNECTING', result.text)
        await this.#pause(entry, round, result.next === 'same' && result.connected)
      }
    }
  }

  /** One entry: its addresses in turn. */
  async #try(
    entry: ConnectionEntry,
  ): Promise<{ verdict: Verdict } | { next: Next; connected: boolean; text: string }> {
    const { host, port } = entry
    this.#events.state('RESOLVE', host)
    let addresses: readonly string[]
    try {
      addresses = await this.#world.resolve(this.#hostOf(host), entry.family)
    } catch (error) {
      const text = `${host} cannot be resolved: ${messageOf(error)}`
      this.#world.log(text)
      return { next: 'remote', connected: false, text }
    }
    let connected = false
    let text = ''
    for (const address of addresses) {
      for (let again = true; again; ) {
        again = false
        if (this.#stop.signal.aborted) return { verdict: STOPPED }
        const ending = await this.#connect(entry, { address, port, scope: 0 })
        connected ||= ending.connected
        text = textOf(ending.ending)
        if (this.#stop.signal.aborted) return { verdict: STOPPED }
        if (text !== '') this.#world.log(`${host} (${address}): ${text}`)
        const then = this.#judge(ending.ending)
        if (typeof then !== 'string') return { verdict: then }
        if (then === 'remote') return { next: 'remote', connected, text }
        if (then === 'same' && !connected) again = true
        else if (connected) return { next: then, connected, text }
        if (again) await this.#pause(entry, 0, true)
      }
    }
    return { next: 'remote', connected, text }
  }

  /** What an ending means for what comes next. */
  #judge(ending: Ending): Next | Verdict {
    const { authRetry } = this.#config
    switch (ending.kind) {
      case 'refused': {
        const { failure } = ending
        if (this.#credentials.hasToken && failure.reason !== 'temporary') {
          // The token alone may be too old: the password decides.
          this.#credentials.forgetToken()
          return 'same'
        }
        if (failure.reason === 'challenge') {
          this.#credentials.answer(failure.challenge)
          return 'same'
        }
        if (failure.reason === 'temporary') {
          this.#backoff = failure.backoff
          if (failure.advance === 'addr') return 'address'
          return failure.advance === 'no' ? 'same' : 'remote'
        }
        if (authRetry === 'none') return { kind: 'refused', text: textOf(ending) }
        if (authRetry === 'interact') this.#credentials.forget()
        return 'same'
      }
      case 'ordered':
        if (ending.halt) return { kind: 'halted', text: textOf(ending) }
        if (!ending.order.keepCredentials && typeof this.#config.authUserPass === 'string') {
          this.#credentials.forgetToken()
        }
        return ending.order.nextServer ? 'remote' : 'same'
      case 'lost':
      case 'closed':
        return 'same'
      case 'unreachable':
        return 'address'
      case 'failed':
      case 'unsuitable':
        return 'remote'
    }
  }

  async #connect(
    entry: ConnectionEntry,
    remote: Endpoint,
  ): Promise<{ ending: Ending; connected: boolean }> {
    let shown: Shown
    let opened: OpenedTransport
    await this.#tunnel.prepare(remote.address)
    try {
      shown = await this.#credentials.show()
      if (entry.protocol === 'tcp') this.#events.state('TCP_CONNECT')
      opened = await this.#world.open(entry, remote, this.#stop.signal)
    } catch (error) {
      return { ending: { kind: 'unreachable', text: messageOf(error) }, connected: false }
    }
    const { transport, path } = opened
    const link = new TransportLink(transport, path)
    const ending = await new Promise<Ending>((resolve) => {
      const attempt = this.#begin(entry, link, shown, resolve)
      this.#attempt = attempt
      if (transport.protocol === 'udp') {
        transport.onPacket((packet, from) => {
          if (entry.float || sameEnd(from.remote, link.path.remote)) attempt.receive(packet)
        })
      } else {
        transport.start({
          packet: (packet) => attempt.receive(packet),
          ended: (error) => attempt.transportEnded(error),
        })
      }
      if (this.#stop.signal.aborted) void attempt.close(false)
      else attempt.start()
    })
    transport.close()
    this.#attempt = undefined
    const connected = this.#connection !== undefined
    this.#connection = undefined
    await this.#tunnel.disconnected()
    if (connected) this.#events.disconnected(textOf(ending))
    return { ending, connected }
  }

  #begin(
    entry: ConnectionEntry,
    link: TransportLink,
    first: Shown,
    resolve: (ending: Ending) => void,
  ): Attempt {
    const config = this.#config
    const { random, date, tls } = this.#world
    const peerInfo = this.#peerInfo(entry)
    const options = optionsOf(config, entry)
    let shown = first
    const attempt: Attempt = new Attempt(
      {
        policy: {
          dataCiphers: config.dataCiphers.length > 0 ? config.dataCiphers : DEFAULT_DATA_CIPHERS,
          ...(config.dataCiphersFallback !== undefined && { fallback: config.dataCiphersFallback }),
          epoch: this.#world.hasEpochs,
        },
        session: {
          role: 'client',
          wrap: wrapOf(config, entry),
          tls,
          random,
          hello: () => ({ options, ...shown, peerInfo }),
          unixSeconds: () => Math.floor(date().getTime() / 1000),
          maxPacket: Math.max(MIN_CONTROL_BYTES, config.maxPacketSize - OUTER_HEADER_BYTES),
          tlsTimeout: config.tlsTimeout,
          handWindow: config.handWindow,
          tranWindow: config.tranWindow,
          renegotiate: { least: config.renegSec.min, most: config.renegSec.max },
        },
        connectTimeout: entry.connectTimeout,
        pingRestart: config.pingRestart,
      },
      link,
      this.#world,
      {
        stage: (stage) => {
          const name = STATES[stage]
          if (name !== undefined) this.#events.state(name)
        },
        pushed: (pushed) => {
          const joined = this.#join(attempt, entry, link, pushed)
          joined.catch((error: unknown) => {
            this.#world.log(messageOf(error))
            void attempt.close(true)
          })
        },
        updated: (entries) => this.#update(attempt, entries),
        token: (options) => {
          this.#keepToken(readPushed(options, config).options)
          const refresh = async () => {
            shown = await this.#credentials.show()
          }
          refresh().catch((error: unknown) => this.#world.log(messageOf(error)))
        },
        pending: (method, seconds) => this.#events.pending(method, seconds),
        info: (text) => this.#world.log(`the server says: ${text}`),
        rekeyed: (keyId) => this.#events.rekeyed(keyId),
        floated: () => {},
        log: (text) => this.#world.log(text),
        ended: resolve,
      },
    )
    return attempt
  }

  async #join(
    attempt: Attempt,
    entry: ConnectionEntry,
    link: TransportLink,
    { options, negotiated }: Pushed,
  ): Promise<void> {
    const config = this.#config
    const { options: pushed, skipped, rejected } = readPushed(options, config)
    if (rejected !== undefined)
      throw new Error(`the profile rejects what the server pushes: ${rejected}`)
    for (const { message } of skipped) this.#world.log(message)
    this.#keepToken(pushed)
    const remote = link.path.remote
    const network = mergeNetwork(config.network, pushed)
    await this.#tunnel.open()
    const plan = planNetwork(network, this.#tunnel.context(remote.address, entry.tunMtu))
    for (const warning of plan.warnings) this.#world.log(warning)
    this.#tunnel.address(plan)
    const seconds = (time: Millis | undefined) => (time ?? 0) / 1000
    await attempt.join({
      data: this.#tunnel.data,
      v4: undefined,
      v6: undefined,
      keepalive: {
        interval: seconds(pushed.ping ?? config.ping),
        timeout: seconds(pushed.pingRestart ?? pushed.pingExit ?? config.pingRestart),
      },
      mssfix: mssfixOf(entry),
    })
    await this.#tunnel.connect(plan)
    const [v4, v6] = [network.ifconfig?.local, network.ifconfigIpv6?.local.address]
    this.#connection = {
      device: this.#tunnel.data.name,
      server: remote,
      protocol: entry.protocol,
      ...(v4 !== undefined && { v4 }),
      ...(v6 !== undefined && { v6 }),
      cipher: negotiated.cipher,
      plan,
      pushed,
    }
    this.#pushedOptions = options
    this.#events.state('CONNECTED', 'SUCCESS')
    this.#events.connected(this.#connection)
  }

  #pushedOptions: readonly string[] = []

  #update(attempt: Attempt, entries: readonly string[]): boolean {
    const connection = this.#connection
    const result = applyUpdate(this.#pushedOptions, entries)
    if ('offending' in result || connection === undefined) return false
    for (const entry of result.skipped)
      this.#world.log(`cannot be changed while connected: ${entry}`)
    this.#pushedOptions = result.options
    const { options: pushed } = readPushed(result.options, this.#config)
    const network = mergeNetwork(this.#config.network, pushed)
    const context = this.#tunnel.context(connection.server.address, connection.plan.mtu)
    const plan = planNetwork(network, context)
    this.#connection = { ...connection, plan, pushed }
    const changed = async () => {
      this.#tunnel.address(plan)
      await this.#tunnel.connect(plan)
    }
    changed().catch((error: unknown) => {
      this.#world.log(messageOf(error))
      void attempt.close(true)
    })
    return true
  }

  #keepToken({ authToken, authTokenUser }: PushedOptions): void {
    if (authToken !== undefined) this.#credentials.keepToken(authToken, authTokenUser)
  }

  #peerInfo(entry: ConnectionEntry): string {
    const { dataCiphers, environment, pushPeerInfo } = this.#config
    const entries: [string, string][] = [
      ['IV_VER', this.#world.version],
      ['IV_PLAT', 'linux'],
      ['IV_TCPNL', '1'],
      ['IV_MTU', String(entry.tunMtuMax)],
      ['IV_NCP', '2'],
      ['IV_CIPHERS', dataCiphers.join(':')],
      ['IV_PROTO', String(clientProto(this.#world.hasEpochs))],
      ['IV_COMP_STUBv2', '1'],
      ['IV_SSO', 'openurl,webauth,crtext'],
    ]
    if (pushPeerInfo) {
      for (const [name, value] of environment)
        if (name.startsWith('UV_')) entries.push([name, value])
    }
    return formatPeerInfo(entries)
  }

  #hostOf(host: string): string {
    const isName = !/^[\d.]+$|:/.test(host)
    if (!this.#config.remoteRandomHostname || !isName) return host
    return `${Buffer.from(this.#world.random(6)).toString('hex')}.${host}`
  }

  async #pause(entry: ConnectionEntry, round: number, soon: boolean): Promise<void> {
    const { wait, max } = entry.connectRetry
    const doublings = soon ? 0 : Math.max(0, round - PATIENT_ROUNDS + 1)
    const time = Math.min(max, wait * 2 ** Math.min(doublings, 16))
    const asked = 1000 * (this.#backoff ?? 0)
    this.#backoff = undefined
    await new Promise<void>((resolve) => {
      const done = () => {
        this.#restart = undefined
        cancel()
        this.#stop.signal.removeEventListener('abort', done)
        resolve()
      }
      const cancel = this.#world.schedule(this.#world.now() + Math.max(time, asked), done)
      this.#restart = done
      this.#stop.signal.addEventListener('abort', done)
      if (this.#stop.signal.aborted) done()
    })
  }
}

const STOPPED: Verdict = { kind: 'stopped', text: 'it was asked to end' }

function textOf(ending: Ending): string {
  switch (ending.kind) {
    case 'refused': {
      const { failure } = ending
      if (failure.reason === 'challenge') return 'the server asks for more'
      const text = failure.text === '' ? 'it gives no reason' : failure.text
      return `the server refuses this client: ${text}`
    }
    case 'ordered': {
      const { halt, order } = ending
      const text = order.text === '' ? '' : `: ${order.text}`
      return `the server wants this client to ${halt ? 'end' : 'connect anew'}${text}`
    }
    case 'closed':
      return ''
    default:
      return ending.text
  }
}

function wrapOf(config: ClientConfig, { wrap }: ConnectionEntry) {
  switch (wrap.kind) {
    case 'none':
      return wrap
    case 'tls-auth':
      return { ...wrap, digest: config.auth }
    default:
      return { ...wrap, role: 'client' as const }
  }
}

function optionsOf(
  { auth, cipher }: ClientConfig,
  { wrap, tunMtu, protocol }: ConnectionEntry,
): string {
  const keyDirection = wrap.kind === 'tls-auth' ? (wrap.direction ?? 'none') : undefined
  const tcp = protocol === 'tcp'
  return formatOptionsString({ role: 'client', tunMtu, tcp, auth, cipher, keyDirection })
}

function mssfixOf({ mssfix }: ConnectionEntry): number | undefined {
  if (mssfix === undefined) return undefined
  return mssfix.of === 'mtu' ? mssfix.size : mssfix.size + OUTER_HEADER_BYTES
}

function sameEnd(a: Endpoint, b: Endpoint): boolean {
  return a.address === b.address && a.port === b.port
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Fisher and Yates. */
function shuffle<T>(items: T[], random: (count: number) => Uint8Array): void {
  for (let i = items.length - 1; i > 0; i--) {
    const [a, b] = random(2)
    const j = ((a! << 8) | b!) % (i + 1)
    const item = items[i]!
    items[i] = items[j]!
    items[j] = item
  }
}
