/**
 * The client: which server is tried when, what is asked of the user, and what the machine's network looks like meanwhile. One
 * connection is attempt.ts's, the machine tunnel.ts's; sockets, names, the driver and the system are passed in.
 *
 *     remotes, in order --> resolve --> attempt --> connected: addresses, routes, DNS --> ended --+
 *           ^                                                                                     |
 *           +------ the same again, its next address, the next remote; after a while -------------+
 */
import { isIP } from 'node:net'
import { formatOptionsString } from '../../wire/options-string.ts'
import type { ClientConfig, ConnectionEntry } from '../config/client-config.ts'
import { mergeNetwork, type NetworkOptions } from '../config/network.ts'
import { type PushedOptions, readPushed } from '../config/pushed.ts'
import { LEVEL, optionsText } from '../log.ts'
import { FrequencyLimit } from '../proto/limits.ts'
import type { PendingMethod } from '../proto/messages.ts'
import { agreedText, DEFAULT_DATA_CIPHERS } from '../proto/negotiate.ts'
import { applyUpdate } from '../proto/push.ts'
import type { Millis } from '../proto/reliable.ts'
import type { TlsFactory } from '../proto/tls-engine.ts'
import type { DatagramTransport, Endpoint, Path, StreamTransport } from '../transport.ts'
import { TransportLink } from '../transport-link.ts'
import { Attempt, type AttemptWorld, type Ending, type Pushed, type Stage } from './attempt.ts'
import { type Answer, type Ask, Credentials, type Question, type Shown } from './credentials.ts'
import type { ScriptSubject, ServerSubject } from './environment.ts'
import { hintFor, reasonOf, signalOf } from './explain.ts'
import { Lifetime } from './lifetime.ts'
import { clientPeerInfo, type Machine } from './peer-info.ts'
import { type NetworkPlan, planNetwork } from './plan.ts'
import { refusalByCommand } from './tls-verify.ts'
import { Tunnel, type TunnelWorld } from './tunnel.ts'

/** A way to a server, before anything is sent. */
export interface OpenedTransport {
  readonly transport: DatagramTransport | StreamTransport
  readonly path: Path
  /** The address that packets go to in the end, where the path leads to a relay on this machine. */
  readonly outer?: string
}

export interface OpenHow {
  readonly signal: AbortSignal
  /** For a proxy that wants to know who this is. */
  readonly ask: Ask
}

export interface ClientWorld extends AttemptWorld, TunnelWorld {
  date(): Date
  random(count: number): Uint8Array
  readonly pid: number
  /** Addresses of a name, in the order in which they are to be tried. Rejects where there are none. */
  resolve(host: string, family: 4 | 6 | undefined): Promise<readonly string[]>
  /**
   * Opens a socket, or connects a stream: to `remote`, which is the server's address or that of the entry's proxy. Rejects with an Error, whose
   * `code` explain.ts knows.
   */
  open(entry: ConnectionEntry, remote: Endpoint, how: OpenHow): Promise<OpenedTransport>
  /** Gives a socket buffers of so many bytes, as far as the system likes. */
  setBuffers(fd: number, sizes: { sndbuf?: number | undefined; rcvbuf?: number | undefined }): void
  /** Whether the driver knows keys with epochs. */
  readonly hasEpochs: boolean
  readonly tls: TlsFactory
  readonly ask: Ask
  /** Version, for the server's log. */
  readonly version: string
  /** For a server that is to know (`push-peer-info`). */
  machine(): Machine
  readonly advisor?: Advisor | undefined
}

/** Somebody who has a say in what is tried: who manages. */
export interface Advisor {
  /** Resolves when an attempt may begin. */
  begin(): Promise<void>
  /** A server to be tried in place of the entry's; `skip`: the next entry. */
  remote(entry: ConnectionEntry): Promise<ConnectionEntry | 'skip'>
}

/** What is known of a connection that is up. */
export interface Connection extends LocalAddresses {
  readonly device: string
  readonly server: Endpoint
  readonly protocol: 'udp' | 'tcp'
  readonly cipher: string
  readonly plan: NetworkPlan
  readonly pushed: PushedOptions
}

/** Of the interface. */
export interface LocalAddresses {
  readonly v4?: string
  readonly v6?: string
}

export interface ClientEvents {
  /**
   * A stage in OpenVPN's words: CONNECTING, RESOLVE, TCP_CONNECT, WAIT, AUTH, GET_CONFIG, ASSIGN_IP, ADD_ROUTES, CONNECTED, RECONNECTING,
   * EXITING. `addresses`: of the interface, where they are known before `connection` is.
   */
  state(name: string, detail?: string, addresses?: LocalAddresses): void
  connected(connection: Connection): void
  rekeyed(keyId: number): void
  pending(method: PendingMethod | undefined, seconds: number | undefined): void
  /** The connection is over; another follows unless this was the end of all. */
  disconnected(reason: string): void
  /** The server refuses name and password, or their like. */
  refused?(text: string): void
  /** The server gave a token in place of the password. */
  token?(token: string): void
}

/** Why a client has ended for good. */
export interface Verdict {
  /** `stopped`: it was asked to; `ended`: by a limit of time or traffic, as the profile or the server wants it. */
  readonly kind: 'stopped' | 'ended' | 'refused' | 'halted' | 'given-up'
  readonly text: string
}

const STATES: { readonly [S in Stage]?: string } = {
  reaching: 'WAIT',
  exchanging: 'AUTH',
  asking: 'GET_CONFIG',
}
/** Rounds through all remotes before the waiting gets longer. */
const PATIENT_ROUNDS = 5
/** A server that ends a connection sooner is waited for as one that cannot be reached. */
const BRIEF: Millis = 30_000
/** Texts of a server that are told, and within which time. */
const WORDS = 30
const WORDS_IN: Millis = 60_000
const MAX_WORDS = 500
const OUTER_HEADER_BYTES = 28
const MIN_CONTROL_BYTES = 154
/** How often traffic is looked at, for limits. */
const LOOK_EVERY: Millis = 1000
const RESOLVE_AGAIN: Millis = 5000

type Next = 'same' | 'address' | 'remote'

/** What an attempt came to. */
interface Outcome {
  readonly ending: Ending
  readonly connected: boolean
  readonly lasted: Millis
}

/** There is no sense in going on. */
class Finished extends Error {
  readonly verdict: Verdict

  constructor(verdict: Verdict) {
    super(verdict.text)
    this.verdict = verdict
  }
}

export class Client {
  readonly #config: ClientConfig
  readonly #world: ClientWorld
  readonly #events: ClientEvents
  readonly #credentials: Credentials
  readonly #stop = new AbortController()
  readonly #tunnel: Tunnel
  readonly #started: Date
  /** Addresses that a server was reached at, by name. */
  readonly #reached = new Map<string, string>()
  #attempt: Attempt | undefined
  /** What ends the present opening of a socket, or waiting. */
  #interrupt: AbortController | undefined
  #connection: Connection | undefined
  #connectedAt: Millis = 0
  /** What a server says is told so often: it may say anything at any rate. */
  readonly #words = new FrequencyLimit(WORDS, WORDS_IN)
  /** Whether the user is being asked for what the server wants to know. */
  #isAsking = false
  /** What follows from what was pushed last, where that has not begun. */
  #latest: (() => Promise<void>) | undefined
  /** May be changed by who manages. */
  authRetry: ClientConfig['authRetry']
  /** Made while a connection comes about; the end waits for it. */
  #joining: Promise<void> = Promise.resolve()
  #pushedOptions: readonly string[] = []
  /** The server's certificates, as it showed them last. */
  #serverChain: readonly Uint8Array[] = []
  #exitsOnSilence = false
  #verdict: Verdict | undefined
  /** What has this end let go, or had it do so last, in OpenVPN's words (`signal` of scripts). */
  #why = 'sigterm'
  /** What can be tried, after the last failure. */
  #hint: string | undefined
  /** Seconds that the server asked to wait. */
  #backoff: number | undefined

  constructor(config: ClientConfig, world: ClientWorld, events: ClientEvents) {
    this.#config = config
    this.authRetry = config.authRetry
    this.#world = world
    this.#events = events
    this.#started = world.date()
    this.#credentials = new Credentials(config, (question) => this.#ask(question))
    this.#tunnel = new Tunnel(world, config)
  }

  get connection(): Connection | undefined {
    return this.#connection
  }

  get attempt(): Attempt | undefined {
    return this.#attempt
  }

  /** Passwords are asked for again when they are needed. */
  forgetPasswords(): void {
    this.#credentials.forget()
  }

  /** Connects and stays connected, until `stop`, or until there is no sense in going on. Nothing is left then. */
  async run(): Promise<Verdict> {
    try {
      const verdict = await this.#rounds().catch((error: unknown) => {
        if (error instanceof Finished) return error.verdict
        throw error
      })
      this.#events.state('EXITING', verdict.kind)
      return verdict
    } finally {
      await this.#tunnel.close(this.#why)
    }
  }

  /** Ends it; the server is told. `why`: for scripts. */
  stop(why: 'SIGHUP' | 'SIGINT' | 'SIGTERM' | 'SIGUSR1' = 'SIGTERM'): void {
    this.#why = why.toLowerCase()
    this.#stop.abort()
    this.#interrupt?.abort()
    void this.#attempt?.close(true)
  }

  /** Lets go of the present server and begins anew (SIGUSR1). */
  restart(): void {
    this.#why = 'sigusr1'
    this.#interrupt?.abort()
    void this.#attempt?.close(true)
  }

  /** Ends it for good, with the server told. */
  #finish(verdict: Verdict): void {
    this.#verdict ??= verdict
    void this.#attempt?.close(true)
  }

  #checkStopped(): void {
    if (this.#stop.signal.aborted) throw new Finished(STOPPED)
  }

  /** @throws Finished where nobody answers */
  async #ask(question: Question): Promise<Answer> {
    this.#checkStopped()
    return new Promise((resolve, reject) => {
      this.#stop.signal.addEventListener('abort', () => reject(new Finished(STOPPED)))
      this.#world.ask(question).then(resolve, (error: unknown) => {
        reject(new Finished({ kind: 'given-up', text: messageOf(error) }))
      })
    })
  }

  async #rounds(): Promise<never> {
    const entries = [...this.#config.connections]
    this.#events.state('CONNECTING')
    const { advisor } = this.#world
    if (this.#config.remoteRandom) shuffle(entries, this.#world.random)
    let failures = 0
    /** Connections in a row that a server ended as soon as they were there. */
    let brief = 0
    for (let at = 0; ; ) {
      this.#checkStopped()
      await Promise.race([advisor?.begin(), this.#stopped()])
      this.#checkStopped()
      const named = entries[at]!
      const entry = (await advisor?.remote(named)) ?? named
      if (entry === 'skip') {
        at = (at + 1) % entries.length
        continue
      }
      const { next, connected, isBrief, text } = await this.#try(entry, entries.length > 1)
      this.#checkStopped()
      brief = isBrief ? brief + 1 : 0
      // A connection that had come about begins the count anew.
      failures = connected ? 0 : failures + 1
      if (failures >= entry.connectRetryMax * entries.length) {
        const attempts = failures === 1 ? 'an attempt' : `${failures} attempts`
        throw this.#final('given-up', `no connection after ${attempts}; the last: ${text}`)
      }
      if (next === 'remote') at = (at + 1) % entries.length
      this.#events.state('RECONNECTING', text)
      await this.#pause(entry, Math.floor(failures / entries.length) + brief)
    }
  }

  /** One entry: its addresses in turn. */
  async #try(
    entry: ConnectionEntry,
    others: boolean,
  ): Promise<{ next: 'same' | 'remote'; connected: boolean; isBrief: boolean; text: string }> {
    const failed = { connected: false, isBrief: false }
    const { host, port } = entry.httpProxy ?? entry.socksProxy ?? entry
    let text = ''
    const addresses = await this.#resolve(entry, host, others)
    if ('text' in addresses) return { next: 'remote', ...failed, text: addresses.text }
    for (const address of addresses) {
      this.#checkStopped()
      const { ending, connected, lasted } = await this.#connect(entry, host, {
        address,
        port,
        scope: 0,
      })
      this.#checkStopped()
      // Of a connection that was there, the end has been told.
      this.#hint = undefined
      text = connected ? reasonOf(ending) : this.#tell(entry, host, address, ending)
      if (this.#verdict !== undefined) throw new Finished(this.#verdict)
      const next = this.#judge(ending, text)
      if (connected) {
        const isBrief = ending.kind !== 'closed' && lasted < BRIEF
        return { next: next === 'remote' ? next : 'same', connected, isBrief, text }
      }
      if (next !== 'address') return { next, ...failed, text }
    }
    return { next: 'remote', ...failed, text }
  }

  /** Addresses, the one that was reached last first. A finite `resolv-retry` has patience with names. */
  async #resolve(
    entry: ConnectionEntry,
    host: string,
    others: boolean,
  ): Promise<readonly string[] | { text: string }> {
    const { persistRemoteIp, resolvRetry } = this.#config
    const reached = this.#reached.get(host)
    if (reached !== undefined && persistRemoteIp) return [reached]
    if (isIP(host) === 0) this.#events.state('RESOLVE', host)
    const family = host === entry.host ? entry.family : undefined
    const patience = resolvRetry < Number.POSITIVE_INFINITY && others ? resolvRetry : 0
    const until = this.#world.now() + patience
    for (;;) {
      this.#checkStopped()
      try {
        const found = await this.#world.resolve(this.#randomized(host), family)
        const first = found.filter((address) => address === reached)
        return [...first, ...found.filter((address) => address !== reached)]
      } catch (error) {
        const ending = {
          ...{ kind: 'unreachable' as const, code: codeOf(error) },
          text: `its name cannot be resolved: ${messageOf(error)}`,
        }
        const text = this.#tell(entry, host, undefined, ending)
        await this.#tunnel.release()
        if (this.#world.now() + RESOLVE_AGAIN > until) return { text }
        await this.#sleep(RESOLVE_AGAIN)
      }
    }
  }

  /** The end of all, for a reason that was told with what can be tried. */
  #final(kind: Verdict['kind'], text: string): Finished {
    const hint = this.#hint === undefined ? '' : ` (${this.#hint})`
    return new Finished({ kind, text: `${text}${hint}` })
  }

  /** Tells why it is over, and what can be tried; gives the reason. */
  #tell(entry: ConnectionEntry, host: string, address: string | undefined, ending: Ending): string {
    const { log, date } = this.#world
    const reason = reasonOf(ending)
    if (reason === '') return reason
    const { protocol, port, wrap, httpProxy, socksProxy } = entry
    const where = address === undefined || address === host ? host : `${host} (${address})`
    const hint = hintFor(ending, {
      ...{ protocol, port, wrap: wrap.kind, date: date() },
      proxy: httpProxy === undefined ? socksProxy && 'SOCKS' : 'HTTP',
    })
    log(`${where}: ${reason}`)
    if (hint !== undefined) log(`  ${hint}`)
    this.#hint = hint
    return reason
  }

  /** What an ending means for what comes next. @throws Finished */
  #judge(ending: Ending, text: string): Next {
    const { tlsExit } = this.#config
    switch (ending.kind) {
      case 'refused': {
        const { failure } = ending
        if (failure.reason === 'temporary') {
          this.#backoff = failure.backoff
          if (failure.advance === 'addr') return 'address'
          return failure.advance === 'no' ? 'same' : 'remote'
        }
        if (failure.reason === 'challenge') {
          this.#credentials.forgetToken()
          this.#credentials.answer(failure.challenge)
          return 'same'
        }
        this.#events.refused?.(failure.text)
        if (this.#credentials.hasToken) {
          // The token alone may be too old: the password decides.
          this.#credentials.forgetToken()
          return 'same'
        }
        if (this.authRetry === 'none') throw this.#final('refused', text)
        if (this.authRetry === 'interact') this.#credentials.forget()
        return 'same'
      }
      case 'ordered':
        if (ending.halt) throw new Finished({ kind: 'halted', text })
        if (!ending.order.keepCredentials) this.#credentials.forgetToken()
        return ending.order.nextServer ? 'remote' : 'same'
      case 'lost':
        if (ending.code === 'expired' && this.#exitsOnSilence) {
          throw new Finished({ kind: 'ended', text: `ping-exit: ${text}` })
        }
        if (tlsExit && ending.code === 'tls') throw this.#final('given-up', text)
        return 'same'
      case 'closed':
        return 'same'
      case 'unreachable':
        return 'address'
      case 'failed':
        if (tlsExit) throw this.#final('given-up', text)
        return 'remote'
      case 'unsuitable':
        return 'remote'
    }
  }

  async #connect(entry: ConnectionEntry, host: string, remote: Endpoint): Promise<Outcome> {
    const shown = await this.#credentials.show()
    this.#tunnel.prepare(remote.address)
    this.#interrupt = new AbortController()
    const signal = AbortSignal.any([this.#stop.signal, this.#interrupt.signal])
    let opened: OpenedTransport
    try {
      if (entry.protocol === 'tcp') this.#events.state('TCP_CONNECT')
      const ask: Ask = (question) => this.#ask(question)
      opened = await this.#world.open(entry, remote, { signal, ask })
    } catch (error) {
      if (error instanceof Finished) throw error
      if (signal.aborted) return { ending: { kind: 'closed' }, connected: false, lasted: 0 }
      const ending = { kind: 'unreachable', text: messageOf(error), code: codeOf(error) } as const
      return { ending, connected: false, lasted: 0 }
    }
    const { transport, path, outer = path.remote.address } = opened
    const link = new TransportLink(transport, path)
    const ending = await new Promise<Ending>((resolve) => {
      const attempt = this.#begin({ entry, link, outer, shown, host, resolve })
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
      if (signal.aborted) void attempt.close(false)
      else attempt.start()
    })
    transport.close()
    this.#attempt = undefined
    await this.#joining
    const connected = this.#connection !== undefined
    this.#connection = undefined
    const isOver = this.#stop.signal.aborted || this.#verdict !== undefined
    this.#why = signalOf(ending, this.#why, this.#exitsOnSilence)
    await (isOver ? this.#tunnel.close(this.#why) : this.#tunnel.disconnected(this.#why))
    const reason = reasonOf(ending) || (this.#verdict?.text ?? 'this end lets go')
    if (connected) this.#events.disconnected(reason)
    return { ending, connected, lasted: this.#world.now() - this.#connectedAt }
  }

  #begin(parts: Parts): Attempt {
    const { entry, link, host, resolve } = parts
    const config = this.#config
    const { random, date, tls } = this.#world
    const peerInfo = this.#peerInfo(entry)
    const options = optionsOf(config, entry)
    const joined: Joined = { ...parts, shown: parts.shown }
    const attempt: Attempt = new Attempt(
      {
        policy: {
          dataCiphers: this.#dataCiphers(),
          ...(config.dataCiphersFallback !== undefined && { fallback: config.dataCiphersFallback }),
          epoch: this.#world.hasEpochs,
        },
        session: {
          role: 'client',
          wrap: wrapOf(config, entry),
          tls,
          random,
          hello: () => ({ options, ...joined.shown, peerInfo }),
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
          if (stage === 'exchanging') this.#reached.set(host, link.path.remote.address)
          const name = STATES[stage]
          if (name !== undefined) this.#events.state(name)
        },
        verify: async (peer) => {
          this.#serverChain = peer.chain
          const { tlsVerify } = config
          if (tlsVerify === undefined) return undefined
          return refusalByCommand(tlsVerify, this.#serverSubject(joined), this.#world)
        },
        pushed: (pushed) => {
          this.#joining = this.#join(attempt, joined, pushed).catch((error: unknown) => {
            if (error instanceof Finished) this.#verdict ??= error.verdict
            attempt.abandon({ kind: 'failed', text: messageOf(error) })
          })
        },
        updated: (entries) => this.#update(attempt, joined, entries),
        token: (options) => {
          const { options: pushed } = readPushed(options, config)
          this.#keepToken(pushed, joined)
        },
        pushedAgain: (pushed) => this.#followAgain(attempt, joined, pushed),
        pending: (method, seconds) => {
          if (this.#words.take(this.#world.now())) this.#pending(attempt, method, seconds)
        },
        info: (text) => this.#quote(`the server says: ${text}`),
        rekeyed: (keyId) => this.#events.rekeyed(keyId),
        floated: () => {},
        stray: (text) => this.#quote(`a message that means nothing here: ${text}`),
        log: this.#world.log,
        ended: resolve,
      },
    )
    return attempt
  }

  /** Tells what a server said, in part and not too often. */
  #quote(text: string): void {
    if (this.#words.take(this.#world.now())) this.#world.log(text.slice(0, MAX_WORDS))
  }

  /** More is wanted of the user, while the server waits. */
  #pending(attempt: Attempt, method: PendingMethod | undefined, seconds: number | undefined): void {
    this.#events.state('AUTH_PENDING')
    this.#events.pending(method, seconds)
    if (method?.method !== 'crtext') return
    if (!method.needsResponse) {
      this.#quote(`the server says: ${method.text}`)
      return
    }
    if (this.#isAsking) return
    this.#isAsking = true
    const { text, echo } = method
    this.#ask({ kind: 'text', text, echo, challenge: { kind: 'pending' } }).then(
      (answer) => {
        this.#isAsking = false
        if (this.#attempt === attempt) attempt.respond(answer.text)
      },
      // A program may answer by other ways: `Attempt.respond`.
      (error: unknown) => {
        this.#isAsking = false
        if (!this.#stop.signal.aborted) this.#world.log(messageOf(error))
      },
    )
  }

  async #join(attempt: Attempt, parts: Joined, { options, negotiated }: Pushed): Promise<void> {
    const { entry, link, outer } = parts
    const config = this.#config
    const { log } = this.#world
    log(`the server pushes: ${optionsText(options)}`, LEVEL.steps)
    const { options: pushed, skipped, filtered, rejected } = readPushed(options, config)
    const unsuitable = unsuitableIn(config, pushed, rejected, negotiated.tlsEkm)
    if (unsuitable !== undefined) {
      attempt.abandon({ kind: 'unsuitable', text: unsuitable })
      return
    }
    for (const { message } of skipped) log(message)
    if (filtered.length > 0) log(`left out by this profile: ${optionsText(filtered)}`, LEVEL.steps)
    log(agreedText(negotiated), LEVEL.details)
    this.#keepToken(pushed, parts)
    this.#pushedOptions = options
    this.#world.setBuffers(link.transport.fd, pushed)
    const network = mergeNetwork(config.network, pushed)
    const names = await this.#routeNames(network)
    const isOver = () => attempt.stage === 'ended'
    if (isOver()) return
    const [v4, v6] = [network.ifconfig?.local, network.ifconfigIpv6?.local.address]
    const addresses = { ...(v4 !== undefined && { v4 }), ...(v6 !== undefined && { v6 }) }
    this.#events.state('ASSIGN_IP', undefined, addresses)
    const subject = await this.#fatally(async () => {
      await this.#tunnel.open()
      const mtu = { usual: entry.tunMtu, most: entry.tunMtuMax }
      const plan = planNetwork(network, this.#tunnel.context(outer, mtu, names))
      for (const warning of plan.warnings) this.#world.log(warning)
      const subject = this.#subject(parts, network, plan, pushed)
      await this.#tunnel.serverKnown(subject)
      await this.#tunnel.address(subject)
      return subject
    })
    if (isOver()) return
    const keepalive = this.#keepalive(pushed)
    await attempt.join({
      data: this.#tunnel.data,
      keepalive,
      mssfix: mssfixOf(entry),
      farewell: pushed.explicitExitNotify ?? entry.explicitExitNotify,
    })
    if (isOver()) return
    if (subject.plan.routes.length > 0) this.#events.state('ADD_ROUTES')
    await this.#tunnel.connect(subject)
    if (isOver()) return
    this.#connection = {
      device: this.#tunnel.data.name,
      server: link.path.remote,
      protocol: entry.protocol,
      ...addresses,
      cipher: negotiated.cipher,
      plan: subject.plan,
      pushed,
    }
    this.#connectedAt = this.#world.now()
    this.#limit(attempt, pushed)
    this.#events.state('CONNECTED', 'SUCCESS')
    this.#events.connected(this.#connection)
  }

  /** What this machine refuses now it refuses later. */
  async #fatally<T>(step: () => Promise<T>): Promise<T> {
    try {
      return await step()
    } catch (error) {
      throw new Finished({ kind: 'given-up', text: messageOf(error) })
    }
  }

  #serverSubject({ entry, link }: Joined): ServerSubject {
    return {
      config: this.#config,
      entry,
      server: link.path.remote,
      serverChain: this.#serverChain,
      pid: this.#world.pid,
      started: this.#started,
    }
  }

  #subject(
    joined: Joined,
    options: NetworkOptions,
    plan: NetworkPlan,
    pushed: PushedOptions,
  ): ScriptSubject {
    const { network } = this.#world
    const { shown } = joined
    return {
      ...this.#serverSubject(joined),
      device: this.#tunnel.data.name,
      options,
      plan,
      netGateway: network.defaultHop(4)?.gateway,
      username: shown.username,
      ...(this.#config.passwordsInEnvironment && { password: shown.password }),
      pushed: pushed.environment,
    }
  }

  /** Addresses of the names in routes. A server's names count with `allow-pull-fqdn` alone. */
  async #routeNames(network: NetworkOptions): Promise<Map<string, readonly string[]>> {
    const { allowPullFqdn, network: own } = this.#config
    const names = new Map<string, readonly string[]>()
    const trusted = allowPullFqdn ? network.routes : own.routes
    for (const { network: name } of trusted) {
      if (/^[\d.]+$|^(vpn_gateway|net_gateway|remote_host)$/.test(name) || names.has(name)) continue
      try {
        names.set(name, await this.#world.resolve(name, 4))
      } catch (error) {
        this.#world.log(`route ${name}: ${messageOf(error)}`)
      }
    }
    return names
  }

  /** Seconds; and whether silence ends it for good. */
  #keepalive(pushed: PushedOptions): { interval: number; timeout: number } {
    const { ping, pingRestart, pingExit } = this.#config
    const own = pushed.pingRestart === undefined && pushed.pingExit === undefined
    this.#exitsOnSilence = own ? pingExit > 0 : pushed.pingRestart === undefined
    const timeout = own ? pingExit || pingRestart : (pushed.pingRestart ?? pushed.pingExit ?? 0)
    return { interval: (pushed.ping ?? ping) / 1000, timeout: timeout / 1000 }
  }

  /** Looks at time and traffic, where there are limits, until the connection ends. */
  #limit(attempt: Attempt, pushed: PushedOptions): void {
    const { renegBytes, renegPackets, inactive, sessionTimeout } = this.#config
    const lifetime = new Lifetime(
      {
        keyBytes: renegBytes,
        keyPackets: renegPackets,
        inactive: pushed.inactive ?? inactive,
        session: pushed.sessionTimeout ?? sessionTimeout,
      },
      this.#world.now(),
    )
    if (!lifetime.isLimited) return
    const later = () => this.#world.schedule(this.#world.now() + LOOK_EVERY, () => void look())
    const look = async () => {
      const counters = await attempt.counters().catch(() => undefined)
      if (attempt.stage !== 'connected') return
      const due = counters && lifetime.look(counters, this.#world.now())
      if (due === 'renew') attempt.renegotiate()
      else if (due !== undefined) {
        this.#why = due.limit
        this.#finish({ kind: 'ended', text: `${due.limit}: ${due.text}` })
      }
      later()
    }
    later()
  }

  #update(attempt: Attempt, parts: Joined, entries: readonly string[]): boolean {
    const result = applyUpdate(this.#pushedOptions, entries)
    if ('offending' in result) {
      this.#world.log(`the server changes what no client can change: ${result.offending}`)
      return false
    }
    if (this.#connection === undefined) return false
    for (const entry of result.skipped) this.#quote(`cannot be changed while connected: ${entry}`)
    this.#follow(attempt, parts, result.options)
    return true
  }

  /** A new session has brought options of its own; most often the same. */
  #followAgain(attempt: Attempt, parts: Joined, { options, negotiated }: Pushed): void {
    const { options: pushed, rejected } = readPushed(options, this.#config)
    const unsuitable = unsuitableIn(this.#config, pushed, rejected, negotiated.tlsEkm)
    if (unsuitable !== undefined) {
      attempt.abandon({ kind: 'unsuitable', text: unsuitable })
      return
    }
    this.#keepToken(pushed, parts)
    const before = this.#pushedOptions.filter(isLasting)
    const same = before.join() === options.filter(isLasting).join()
    this.#pushedOptions = options
    if (this.#connection === undefined) return
    this.#connection = { ...this.#connection, cipher: negotiated.cipher }
    if (!same) this.#follow(attempt, parts, options)
  }

  /** Has the machine's network follow what is pushed now. */
  #follow(attempt: Attempt, parts: Joined, options: readonly string[]): void {
    this.#pushedOptions = options
    const change = async () => {
      const { options: pushed } = readPushed(options, this.#config)
      const network = mergeNetwork(this.#config.network, pushed)
      const names = await this.#routeNames(network)
      const before = this.#connection
      if (attempt.stage !== 'connected' || before === undefined) return
      const { tunMtu, tunMtuMax } = parts.entry
      const mtu = { usual: tunMtu, most: tunMtuMax }
      const plan = planNetwork(network, this.#tunnel.context(parts.outer, mtu, names))
      for (const warning of plan.warnings) this.#quote(warning)
      const subject = this.#subject(parts, network, plan, pushed)
      const { interval, timeout } = this.#keepalive(pushed)
      attempt.setKeepalive(interval, timeout)
      this.#connection = { ...before, plan, pushed }
      await this.#tunnel.address(subject)
      await this.#tunnel.connect(subject)
    }
    const isFirst = this.#latest === undefined
    this.#latest = change
    if (!isFirst) return
    // However many come meanwhile, only what holds in the end is done.
    const follow = () => {
      const latest = this.#latest
      this.#latest = undefined
      return latest?.()
    }
    this.#joining = this.#joining.then(follow).catch((error: unknown) => {
      attempt.abandon({ kind: 'failed', text: messageOf(error) })
    })
  }

  /** From now on the token is shown, at the next key too. */
  #keepToken({ authToken, authTokenUser }: PushedOptions, parts: Joined): void {
    if (authToken === undefined) return
    this.#credentials.keepToken(authToken, authTokenUser)
    const { username } = parts.shown
    parts.shown = { username: authTokenUser ?? username, password: authToken }
    this.#events.token?.(authToken)
  }

  #dataCiphers(): readonly string[] {
    const { dataCiphers } = this.#config
    return dataCiphers.length > 0 ? dataCiphers : DEFAULT_DATA_CIPHERS
  }

  #peerInfo({ tunMtuMax }: ConnectionEntry): string {
    const { environment, pushPeerInfo } = this.#config
    const { version, hasEpochs, machine } = this.#world
    return clientPeerInfo({
      ...{ version, tunMtuMax, environment, epoch: hasEpochs },
      dataCiphers: this.#dataCiphers(),
      machine: pushPeerInfo ? machine() : undefined,
    })
  }

  #randomized(host: string): string {
    const isName = !/^[\d.]+$|:/.test(host)
    if (!this.#config.remoteRandomHostname || !isName) return host
    return `${Buffer.from(this.#world.random(6)).toString('hex')}.${host}`
  }

  async #pause(entry: ConnectionEntry, rounds: number): Promise<void> {
    const { wait, max } = entry.connectRetry
    const doublings = Math.max(0, rounds - PATIENT_ROUNDS + 1)
    const time = Math.min(max, wait * 2 ** Math.min(doublings, 16))
    const asked = 1000 * (this.#backoff ?? 0)
    this.#backoff = undefined
    await this.#sleep(Math.max(time, asked))
  }

  /** Until then, or until `stop` or `restart`. */
  async #sleep(time: Millis): Promise<void> {
    this.#interrupt = new AbortController()
    const signal = AbortSignal.any([this.#stop.signal, this.#interrupt.signal])
    await new Promise<void>((resolve) => {
      const done = () => {
        cancel()
        signal.removeEventListener('abort', done)
        resolve()
      }
      const cancel = this.#world.schedule(this.#world.now() + time, done)
      signal.addEventListener('abort', done)
      if (signal.aborted) done()
    })
  }

  #stopped(): Promise<void> {
    const { signal } = this.#stop
    if (signal.aborted || this.#world.advisor === undefined) return Promise.resolve()
    return new Promise((resolve) => signal.addEventListener('abort', () => resolve()))
  }
}

/** What belongs to one attempt. */
interface Parts {
  readonly entry: ConnectionEntry
  readonly link: TransportLink
  /** The address that packets go to in the end. */
  readonly outer: string
  readonly shown: Shown
  /** Name that was resolved. */
  readonly host: string
  readonly resolve: (ending: Ending) => void
}

interface Joined extends Omit<Parts, 'shown'> {
  /** At the next key exchange. */
  shown: Shown
}

const STOPPED: Verdict = { kind: 'stopped', text: 'it was asked to end' }

/** Why what the server pushed cannot be followed at all. */
function unsuitableIn(
  config: ClientConfig,
  pushed: PushedOptions,
  rejected: string | undefined,
  tlsEkm: boolean,
): string | undefined {
  if (rejected !== undefined) return `the profile rejects what the server pushes: ${rejected}`
  if (config.forceTlsKeyMaterialExport && !tlsEkm) {
    return 'the server does not take keys from TLS, and the profile says force-tls-key-material-export'
  }
  const compression = pushed.compression ?? config.compression
  if (compression?.framed !== true) return undefined
  return `'${compression.text}' puts a byte before each packet, which the offloaded data channel does not: remove it at the server, or push 'compress migrate' there`
}

/** Whether an option says something about the network, and not about the session that it came with. Source: options.c (pull digest). */
function isLasting(option: string): boolean {
  return !/^(peer-id|auth-token|auth-token-user|protocol-flags|key-derivation|cipher) /.test(option)
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

function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : undefined
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
