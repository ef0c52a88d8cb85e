/**
 * A client as the management interface watches and steers it: states, questions to whoever manages, and their answers. What is said on the wire is
 * ../management/management.ts's. Source: OpenVPN's doc/management-notes.txt.
 */
import type { ClientConfig, ConnectionEntry } from '../config/client-config.ts'
import type { PeerCounters } from '../data-channel.ts'
import type { Log } from '../log.ts'
import { Management, type ManagementOptions } from '../management/management.ts'
import { timeText } from '../management/status.ts'
import type { ManagementTarget, ProxyChoice } from '../management/target.ts'
import { formatPendingMethod, type PendingMethod, parsePassword } from '../proto/messages.ts'
import type { Advisor, Client, ClientEvents, Connection, LocalAddresses } from './client.ts'
import type { Answer, Question } from './credentials.ts'

export interface ManagedParts {
  readonly title: string
  readonly pid: number
  readonly config: ClientConfig
  /** The client of now. */
  client(): Client | undefined
  date(): Date
  signal: ManagementTarget['signal']
  /** What is told, and how much of it. */
  readonly log: Log
}

/** What is waited for: of a type (`Auth`), with what has come so far. */
interface Asked {
  readonly type: string
  readonly wantsName: boolean
  username?: string
  readonly settle: (answer: { username: string | undefined; text: string }) => void
}

export class ManagedClient implements Advisor {
  readonly management: Management
  /** May be changed by who manages, also while there is no client yet. */
  authRetry: ClientConfig['authRetry']
  readonly #parts: ManagedParts
  #asked: Asked | undefined
  #remote: ((choice: 'ACCEPT' | 'SKIP' | { host: string; port: number }) => void) | undefined
  #proxy:
    | { readonly protocol: 'udp' | 'tcp'; readonly settle: (choice: ProxyChoice) => void }
    | undefined
  #response: ((text: string) => void) | undefined
  #isStarting = false

  constructor(parts: ManagedParts, options: ManagementOptions) {
    this.#parts = parts
    this.authRetry = parts.config.authRetry
    this.management = new Management(this.#target(), options)
  }

  /** What the client tells goes there. */
  get events(): ClientEvents {
    const { management } = this
    return {
      state: (...told) => management.state(this.#state(...told)),
      connected: (connection) => this.#connected(connection),
      rekeyed: () => {},
      pending: (method) => this.#pending(method),
      disconnected: () => {
        if (this.#parts.config.management?.upDown === true) this.#upDown('DOWN', {})
      },
      refused: (text) => {
        const reason = text === '' ? '' : ` ['${text}']`
        management.notify(`PASSWORD:Verification Failed: 'Auth'${reason}`)
      },
      token: (token) => management.notify(`PASSWORD:Auth-Token:${token}`),
    }
  }

  /** Asks whoever manages (`management-query-passwords`), for as long as it takes. */
  async ask(question: Question): Promise<Answer> {
    switch (question.kind) {
      case 'passphrase': {
        const { text } = await this.#need('Private Key', false)
        return { text }
      }
      case 'credentials': {
        const { what, username, challenge } = question
        const told = await this.#need(what, username === undefined, challenge && scText(challenge))
        const field = parsePassword(told.text)
        const name = told.username === undefined ? {} : { username: told.username }
        return field.kind === 'static'
          ? { ...name, text: field.password, response: field.response }
          : { ...name, text: told.text, ...(challenge?.concat === true && { response: '' }) }
      }
      case 'text':
        return { text: await this.#askText(question) }
    }
  }

  /** Waits for `hold release`, where that is wanted; the first attempt then begins at once. */
  async start(): Promise<void> {
    await this.management.released()
    this.#isStarting = true
  }

  /** Waits for `hold release`, where that is wanted. */
  async begin(): Promise<void> {
    if (!this.#isStarting) await this.management.released()
    this.#isStarting = false
  }

  /** Asks about a server, and about a proxy to it, where that is wanted. */
  async remote(entry: ConnectionEntry): Promise<ConnectionEntry | 'skip'> {
    const { queryRemote = false, queryProxy = false } = this.#parts.config.management ?? {}
    let chosen = entry
    if (queryRemote) {
      const { host, port, protocol } = entry
      const choice = await this.#question<'ACCEPT' | 'SKIP' | { host: string; port: number }>(
        `REMOTE:${host},${port},${protocol}`,
        (settle) => {
          this.#remote = settle
        },
      )
      this.#remote = undefined
      if (choice === 'SKIP') return 'skip'
      if (choice !== 'ACCEPT') chosen = { ...entry, ...choice }
    }
    if (!queryProxy) return chosen
    const index = this.#parts.config.connections.indexOf(entry) + 1
    const choice = await this.#question<ProxyChoice>(
      `PROXY:${index},${entry.protocol.toUpperCase()},${chosen.host}`,
      (settle) => {
        this.#proxy = { protocol: entry.protocol, settle }
      },
    )
    this.#proxy = undefined
    return withProxy(chosen, choice)
  }

  /** The last word before the end. */
  fatal(text: string): void {
    this.management.notify(`FATAL:${text}`)
  }

  #question<T>(text: string, wait: (settle: (answer: T) => void) => void): Promise<T> {
    return new Promise((resolve) => {
      wait((answer) => {
        this.management.question(undefined)
        resolve(answer)
      })
      this.management.question(text)
    })
  }

  #need(
    type: string,
    wantsName: boolean,
    more = '',
  ): Promise<{ username: string | undefined; text: string }> {
    const what = wantsName ? 'username/password' : 'password'
    return this.#question(`PASSWORD:Need '${type}' ${what}${more}`, (settle) => {
      this.#asked = { type, wantsName, settle }
    })
  }

  async #askText(question: Extract<Question, { kind: 'text' }>): Promise<string> {
    const { text, echo, challenge } = question
    switch (challenge?.kind) {
      case 'pending':
        // It was told as a message of the server's, and is answered as one.
        return new Promise((resolve) => {
          this.#response = resolve
        })
      case 'dynamic': {
        const { state, username, echo, needsResponse } = challenge.challenge
        const flags = [...(needsResponse ? ['R'] : []), ...(echo ? ['E'] : [])].join()
        const name = Buffer.from(username).toString('base64')
        const crv1 = `CRV1:${flags}:${state}:${name}:${text}`
        this.management.notify(`PASSWORD:Verification Failed: 'Auth' ['${crv1}']`)
        const told = await this.#need('Auth', true)
        const field = parsePassword(told.text)
        return field.kind === 'dynamic' ? field.response : told.text
      }
      case 'static': {
        const more = scText({ text, echo, concat: challenge.concat })
        const field = parsePassword((await this.#need('Auth', true, more)).text)
        return field.kind === 'static'
          ? field.response
          : field.kind === 'plain'
            ? field.password
            : ''
      }
      default:
        return (await this.#need('Auth', true)).username ?? ''
    }
  }

  #pending(method: PendingMethod | undefined): void {
    if (method !== undefined) this.management.notify(`INFOMSG:${formatPendingMethod(method)}`)
  }

  #connected(connection: Connection): void {
    const { device, v4, v6, pushed, plan } = connection
    for (const text of [...this.#parts.config.echo, ...pushed.echo]) this.management.echo(text)
    if (this.#parts.config.management?.upDown !== true) return
    this.#upDown('UP', {
      dev: device,
      tun_mtu: String(plan.mtu),
      ...(v4 !== undefined && { ifconfig_local: v4 }),
      ...(v6 !== undefined && { ifconfig_ipv6_local: v6 }),
    })
  }

  #upDown(what: 'UP' | 'DOWN', environment: Readonly<Record<string, string>>): void {
    this.management.upDown(what, environment)
  }

  #state(name: string, detail: string | undefined, addresses?: LocalAddresses) {
    const connection = this.#parts.client()?.connection
    const { v4, v6 } = addresses ?? connection ?? {}
    return {
      name,
      // OpenVPN does not tell which name it looks up.
      ...(detail !== undefined && name !== 'RESOLVE' && { detail }),
      ...(v4 !== undefined && { localV4: v4 }),
      ...(v6 !== undefined && { localV6: v6 }),
      ...(connection !== undefined && {
        remoteAddress: connection.server.address,
        remotePort: connection.server.port,
      }),
    }
  }

  #target(): ManagementTarget {
    const { title, pid, client, date, signal, log, config } = this.#parts
    const managed = this
    const counters = async () => client()?.attempt?.counters()
    return {
      title,
      pid,
      signal,
      get verbosity() {
        return log.verbosity
      },
      set verbosity(level) {
        log.verbosity = level
      },
      get mute() {
        return log.mute
      },
      set mute(count) {
        log.mute = count
      },
      get authRetry() {
        return managed.authRetry
      },
      set authRetry(wanted) {
        managed.authRetry = wanted
        const present = client()
        if (present !== undefined) present.authRetry = wanted
      },
      status: async () => undefined,
      statistics: async () => statisticsOf(await counters(), date()),
      load: async () => {
        const { bytesIn, bytesOut } = bytesOf(await counters())
        return { clients: 0, bytesIn, bytesOut }
      },
      bytes: async () => [bytesOf(await counters())],
      questions: {
        answer: (kind, type, text) => this.#answer(kind, type, text),
        remote: (choice) => settled(this.#remote, choice),
        proxy: (choice) => this.#chosen(choice),
        remotes: () =>
          config.connections.map(({ host, port, protocol }) => ({ host, port, protocol })),
        challengeResponse: (base64) => {
          const waiting = this.#response
          this.#response = undefined
          return settled(waiting, Buffer.from(base64, 'base64').toString())
        },
        forgetPasswords: () => client()?.forgetPasswords(),
      },
    }
  }

  /** HTTP carries no datagrams: then another choice is waited for. */
  #chosen(choice: ProxyChoice): boolean {
    if (choice.kind === 'http' && this.#proxy?.protocol === 'udp') return false
    return settled(this.#proxy?.settle, choice)
  }

  #answer(
    kind: 'username' | 'password' | 'needok' | 'needstr',
    type: string,
    text: string,
  ): boolean {
    const asked = this.#asked
    if (asked === undefined || asked.type !== type) return false
    if (kind === 'username' && asked.wantsName) {
      asked.username = text
      return true
    }
    if (kind !== 'password' || (asked.wantsName && asked.username === undefined)) return false
    this.#asked = undefined
    asked.settle({ username: asked.username, text })
    return true
  }
}

/** The lines of a client's status, but for its first and last. Source: OpenVPN's src/openvpn/sig.c. */
export function statisticsOf(
  counters: PeerCounters | undefined,
  date: Date,
): (readonly [name: string, value: number | string])[] {
  return [
    ['Updated', timeText(date)],
    ['TUN/TAP read bytes', counters?.vpnTxBytes ?? 0],
    ['TUN/TAP write bytes', counters?.vpnRxBytes ?? 0],
    ['TCP/UDP read bytes', counters?.linkRxBytes ?? 0],
    ['TCP/UDP write bytes', counters?.linkTxBytes ?? 0],
    ['Auth read bytes', counters?.vpnRxBytes ?? 0],
  ]
}

function bytesOf(counters: PeerCounters | undefined): { bytesIn: number; bytesOut: number } {
  return { bytesIn: counters?.linkRxBytes ?? 0, bytesOut: counters?.linkTxBytes ?? 0 }
}

/** Bit 0: what is typed may be seen; bit 1: password and answer go as one text. */
function scText(challenge: { text: string; echo: boolean; concat: boolean }): string {
  return ` SC:${(challenge.echo ? 1 : 0) + (challenge.concat ? 2 : 0)},${challenge.text}`
}

function settled<T>(settle: ((value: T) => void) | undefined, value: T): boolean {
  settle?.(value)
  return settle !== undefined
}

function withProxy(entry: ConnectionEntry, choice: ProxyChoice): ConnectionEntry {
  const none = { ...entry, httpProxy: undefined, socksProxy: undefined }
  if (choice.kind === 'none') return none
  const { host, port } = choice
  if (choice.kind === 'socks') return { ...none, socksProxy: { host, port, credentials: 'ask' } }
  const http = { httpVersion: '1.0', agent: undefined, headers: [] }
  return {
    ...none,
    httpProxy: { host, port, credentials: 'ask', basic: choice.clear, ...http },
  }
}
