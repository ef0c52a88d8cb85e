/**
 * The management interface: a line protocol by which programs watch and steer a server or client. Owns the protocol as existing
 * tools speak it (version 5 of OpenVPN 2.6 with what 2.7 added); what a command does is its target's, connections are passed in.
 *
 *     < >INFO:OpenVPN Management Interface Version 6 -- type 'help' for more info
 *     > state                          a command and its parameters, quoted as in configuration files
 *     < 1795417114,CONNECTED,…         lines up to END, or SUCCESS: …, or ERROR: …
 *     < >STATE:1795417120,…            told unasked
 *
 * Source: OpenVPN's doc/management-notes.txt and src/openvpn/manage.c.
 */
import { Connection } from './connection.ts'
import { isTold } from './environment.ts'
import {
  echoText,
  type Histories,
  History,
  type Line,
  logText,
  oneLine,
  stateText,
} from './history.ts'
import type { ManagementTarget, ProcessState } from './target.ts'

/** What is told of one client's connection: its environment as scripts get it. */
export type ClientEnvironment = Readonly<Record<string, string>>

export type ClientEvent = 'CONNECT' | 'REAUTH' | 'CR_RESPONSE' | 'ESTABLISHED' | 'DISCONNECT'

export interface ManagementOptions {
  /** Asked for before anything else. */
  readonly password?: string
  /** Lines of log and state that are kept for those who come later. */
  readonly logCache?: number
  /** Wait for `hold release` at the start (`management-hold`). */
  readonly hold?: boolean
  readonly now: () => Date
  /** Calls back every so many ms until ended. */
  readonly every: (ms: number, call: () => void) => () => void
}

/** One that is connected. */
export interface ManagementConnection {
  /** Bytes that came. */
  receive(text: string): void
  closed(): void
}

const LOG_CACHE = 250
const STATES_KEPT = 100

export class Management {
  readonly #target: ManagementTarget
  readonly #options: ManagementOptions
  readonly #log = new History<Line>(LOG_CACHE)
  readonly #states = new History<ProcessState>(STATES_KEPT)
  readonly #echoes = new History<Line>(LOG_CACHE)
  #connection: Connection | undefined
  #held: (() => void)[] = []
  #holding: boolean
  #question: string | undefined

  constructor(target: ManagementTarget, options: ManagementOptions) {
    this.#target = target
    this.#options = options
    this.#holding = options.hold === true
    if (options.logCache !== undefined) this.#log.limit = options.logCache
  }

  /**
   * Serves a connection, if it is the only one. `send` takes text as it goes out.
   *
   * @returns undefined where another is being served: it is to be closed
   */
  connect(send: (text: string) => void, close: () => void): ManagementConnection | undefined {
    if (this.#connection !== undefined) return undefined
    const connection = new Connection(this, this.#target, this.#options, send, () => {
      this.#connection = undefined
      close()
    })
    this.#connection = connection
    return connection
  }

  get connected(): boolean {
    return this.#connection !== undefined
  }

  /** Resolves at once, or when a `hold` is released. */
  async released(): Promise<void> {
    if (!this.#holding) return
    this.#connection?.tell('>HOLD:Waiting for hold release:0')
    await new Promise<void>((resolve) => this.#held.push(resolve))
  }

  log(text: string, flags = 'I'): void {
    const line = { date: this.#options.now(), flags, text: oneLine(text) }
    this.#log.add(line)
    if (this.#connection?.wants.log === true) this.#connection.tell(`>LOG:${logText(line)}`)
  }

  state(state: Omit<ProcessState, 'date'>): void {
    const dated = { date: this.#options.now(), ...state }
    this.#states.add(dated)
    if (this.#connection?.wants.state === true) this.#connection.tell(`>STATE:${stateText(dated)}`)
  }

  /** What a server pushed with `echo`. */
  echo(text: string): void {
    const line = { date: this.#options.now(), flags: '', text: oneLine(text) }
    this.#echoes.add(line)
    if (this.#connection?.wants.echo === true) this.#connection.tell(`>ECHO:${echoText(line)}`)
  }

  /** Something of one of the server's clients. `keyId`: of what awaits a decision. */
  client(
    event: ClientEvent,
    ids: readonly (number | string)[],
    environment: ClientEnvironment,
  ): void {
    this.#tellWith('CLIENT', [event, ...ids].join(','), environment)
  }

  /** The client's interface comes or goes (`management-up-down`). */
  upDown(what: 'UP' | 'DOWN', environment: ClientEnvironment): void {
    this.#tellWith('UPDOWN', what, environment)
  }

  /** What happened, and variables about it, as far as who is connected wants them. */
  #tellWith(kind: 'CLIENT' | 'UPDOWN', what: string, environment: ClientEnvironment): void {
    const connection = this.#connection
    if (connection === undefined) return
    const lines = [`>${kind}:${what}`]
    for (const [name, value] of Object.entries(environment)) {
      if (isTold(name, connection.envFilter)) lines.push(`>${kind}:ENV,${name}=${oneLine(value)}`)
    }
    lines.push(`>${kind}:ENV,END`)
    connection.tell(...lines)
  }

  /** A client of the server got an address. */
  clientAddress(id: number, address: string, primary: boolean): void {
    this.#connection?.tell(`>CLIENT:ADDRESS,${id},${address},${primary ? 1 : 0}`)
  }

  /** Any other line that is told unasked, without its `>`: `PASSWORD:Need 'Auth' username/password`. */
  notify(text: string): void {
    this.#connection?.tell(`>${oneLine(text)}`)
  }

  /** A line that waits for an answer: who connects later is told too. Undefined: it has been answered. */
  question(text: string | undefined): void {
    this.#question = text
    if (text !== undefined) this.notify(text)
  }

  get openQuestion(): string | undefined {
    return this.#question
  }

  /** Commands that concern the interface itself. */
  get histories(): Histories {
    return { log: this.#log, states: this.#states, echoes: this.#echoes }
  }

  get holding(): boolean {
    return this.#holding
  }

  set holding(wanted: boolean) {
    this.#holding = wanted
  }

  release(): void {
    const held = this.#held
    this.#held = []
    for (const resolve of held) resolve()
  }

  get waiting(): boolean {
    return this.#held.length > 0
  }

  /** Ends the connection that there is. */
  close(): void {
    this.#connection?.end()
  }
}
