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
import { timingSafeEqual } from 'node:crypto'
import { parseOption } from '../proto/push.ts'
import { type ServerStatus, type StatusVersion, statusLines } from './status.ts'

/** What is told of one client's connection: its environment as scripts get it. */
export type ClientEnvironment = Readonly<Record<string, string>>

export type ClientEvent = 'CONNECT' | 'REAUTH' | 'CR_RESPONSE' | 'ESTABLISHED' | 'DISCONNECT'

/** `>STATE` of the process. */
export interface ProcessState {
  readonly date: Date
  readonly name: string
  readonly detail?: string
  readonly localV4?: string
  readonly remoteAddress?: string
  readonly remotePort?: number
  readonly localAddress?: string
  readonly localPort?: number
  readonly localV6?: string
}

const AUTH_RETRY = ['none', 'nointeract', 'interact'] as const
export type AuthRetry = (typeof AUTH_RETRY)[number]

/** What the commands act on. Commands that need a part that is absent are refused. */
export interface ManagementTarget {
  /** `OpenVPN …`-like title of the program. */
  readonly title: string
  readonly pid: number
  status(): Promise<ServerStatus | undefined>
  /** What is told where no version is named (`status-version`). */
  readonly statusVersion?: StatusVersion
  /** Of a client: its counters as name and value. */
  statistics?(): Promise<readonly (readonly [name: string, value: number | string])[]>
  load(): Promise<{ clients: number; bytesIn: number; bytesOut: number }>
  /** Bytes of each client by its id; of a client program, of id undefined. */
  bytes(): Promise<readonly { id?: number; bytesIn: number; bytesOut: number }[]>
  signal(name: 'SIGHUP' | 'SIGTERM' | 'SIGUSR1' | 'SIGUSR2'): void
  verbosity: number
  /** Messages of one kind in a row that are told. */
  mute: number
  /** Of a client: what a refused password leads to. */
  authRetry?: AuthRetry
  readonly clients?: ManagedClients
  readonly questions?: ManagedQuestions
}

/** A server's clients. Each call says whether there was such a client. */
export interface ManagedClients {
  /** Ends connections of a common name or of `[protocol:]address:port`; how many. */
  kill(which: string): number
  authorize(id: number, keyId: number, lines: readonly string[]): boolean
  deny(id: number, keyId: number, reason: string, clientReason: string | undefined): boolean
  pend(id: number, keyId: number, extra: string, timeoutSeconds: number): boolean
  killOne(id: number, message: string): boolean
  /** An update of pushed options, to one or (undefined) to all; how many got it. Throws an Error that says what is wrong with it. */
  update(id: number | undefined, options: string): number
}

/** A client's questions to its user. Each call says whether that had been asked. */
export interface ManagedQuestions {
  answer(kind: 'username' | 'password' | 'needok' | 'needstr', type: string, text: string): boolean
  remote(choice: 'ACCEPT' | 'SKIP' | { host: string; port: number }): boolean
  proxy?(choice: ProxyChoice): boolean
  remotes(): readonly { host: string; port: number; protocol: string }[]
  challengeResponse(base64: string): boolean
  forgetPasswords(): void
}

export type ProxyChoice =
  | { readonly kind: 'none' }
  /** `clear`: whether a password may be sent to it as it is. */
  | { readonly kind: 'http'; readonly host: string; readonly port: number; readonly clear: boolean }
  | { readonly kind: 'socks'; readonly host: string; readonly port: number }

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

const INTERFACE_VERSION = 6
/** Clients that speak this version or a later one are answered when they say so. */
const ANSWERED_VERSION = 4
const LOG_CACHE = 250
const STATES_KEPT = 100
/** A line without an end that is longer is nobody's command. */
const MAX_LINE = 16_384
/** Of commands that wait for the answer to one before. */
const MAX_UNREAD = 1 << 20
const MAX_BLOCK_LINES = 10_000

interface Line {
  readonly date: Date
  readonly flags: string
  readonly text: string
}

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
    const connection = this.#connection
    if (connection === undefined) return
    const lines = [`>CLIENT:${[event, ...ids].join(',')}`]
    for (const [name, value] of Object.entries(environment)) {
      lines.push(`>CLIENT:ENV,${name}=${oneLine(value)}`)
    }
    lines.push('>CLIENT:ENV,END')
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

interface Histories {
  readonly log: History<Line>
  readonly states: History<ProcessState>
  readonly echoes: History<Line>
}

class History<T> {
  limit: number
  readonly #entries: T[] = []

  constructor(limit: number) {
    this.limit = limit
  }

  add(entry: T): void {
    this.#entries.push(entry)
    if (this.#entries.length > this.limit) this.#entries.shift()
  }

  last(count: number): readonly T[] {
    return count === 0 ? [] : this.#entries.slice(-count)
  }
}

interface Block {
  readonly lines: string[]
  done(lines: readonly string[]): void
}

class Connection implements ManagementConnection {
  readonly wants = { log: false, state: false, echo: false }
  readonly #management: Management
  readonly #target: ManagementTarget
  readonly #options: ManagementOptions
  readonly #send: (text: string) => void
  readonly #close: () => void
  #rest = ''
  /** Something is looked up, and the lines that have come since wait for it. */
  #answering = false
  #block: Block | undefined
  #authenticated: boolean
  #bytecount: (() => void) | undefined
  #ended = false

  constructor(
    management: Management,
    target: ManagementTarget,
    options: ManagementOptions,
    send: (text: string) => void,
    close: () => void,
  ) {
    this.#management = management
    this.#target = target
    this.#options = options
    this.#send = send
    this.#close = close
    this.#authenticated = options.password === undefined
    if (this.#authenticated) this.#greet()
    else send('ENTER PASSWORD:')
  }

  receive(text: string): void {
    this.#rest += text
    if (this.#rest.length > MAX_UNREAD) {
      this.tell('ERROR: too much at once')
      this.end()
      return
    }
    this.#read()
  }

  /** Lines, each answered before the next is looked at. */
  #read(): void {
    while (!this.#ended && !this.#answering) {
      const end = this.#rest.indexOf('\n')
      if (end < 0) {
        if (this.#rest.length <= MAX_LINE) return
        this.tell('ERROR: the line is too long')
        this.end()
        return
      }
      const line = this.#rest.slice(0, end).replace(/\r$/, '')
      this.#rest = this.#rest.slice(end + 1)
      this.#line(line)
    }
  }

  closed(): void {
    this.#stop()
  }

  tell(...lines: string[]): void {
    if (!this.#ended && this.#authenticated) this.#send(lines.map((line) => `${line}\r\n`).join(''))
  }

  end(): void {
    this.#stop()
  }

  #stop(): void {
    if (this.#ended) return
    this.#ended = true
    this.#bytecount?.()
    this.#close()
  }

  #greet(): void {
    this.tell(
      `>INFO:OpenVPN Management Interface Version ${INTERFACE_VERSION} -- type 'help' for more info`,
    )
    const { waiting, openQuestion } = this.#management
    if (waiting) this.tell('>HOLD:Waiting for hold release:0')
    if (openQuestion !== undefined) this.tell(`>${openQuestion}`)
  }

  #line(line: string): void {
    if (!this.#authenticated) {
      this.#checkPassword(line)
      return
    }
    const block = this.#block
    if (block !== undefined) {
      if (line === 'END') {
        this.#block = undefined
        block.done(block.lines)
      } else if (block.lines.push(line) > MAX_BLOCK_LINES) {
        this.#block = undefined
        this.tell('ERROR: too many lines before END')
      }
      return
    }
    const words = parseOption(line)
    if (words === undefined) this.tell('ERROR: a quotation mark is not closed')
    else if (words.length > 0) this.#command(words[0]!, words.slice(1))
  }

  #checkPassword(line: string): void {
    const [given, wanted] = [Buffer.from(line), Buffer.from(this.#options.password ?? '')]
    if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) {
      this.#send('ERROR: bad password\r\n')
      this.end()
      return
    }
    this.#authenticated = true
    this.tell('SUCCESS: password is correct')
    this.#greet()
  }

  #command(name: string, args: string[]): void {
    const command = COMMANDS[name]
    if (command === undefined) {
      this.tell(`ERROR: unknown command [${oneLine(name)}], enter 'help' for more options`)
      return
    }
    const [least, most] = command.args
    if (args.length < least || args.length > most) {
      const [amount, count] =
        least === most
          ? ['', least]
          : args.length < least
            ? ['at least ', least]
            : ['at most ', most]
      const parameters = count === 1 ? 'parameter' : 'parameters'
      this.tell(`ERROR: the '${name}' command requires ${amount}${count} ${parameters}`)
      return
    }
    try {
      const answer = command.run(
        { connection: this, management: this.#management, target: this.#target },
        args,
      )
      if (answer instanceof Promise) void this.#later(answer)
      else this.#answer(answer)
    } catch (error) {
      this.#refuse(error)
    }
  }

  async #later(answer: Promise<Answer>): Promise<void> {
    this.#answering = true
    try {
      this.#answer(await answer)
    } catch (error) {
      this.#refuse(error)
    }
    this.#answering = false
    this.#read()
  }

  #answer(answer: Answer): void {
    if (typeof answer === 'string') this.tell(answer)
    else if (answer !== undefined) this.tell(...answer)
  }

  #refuse(error: unknown): void {
    this.tell(`ERROR: ${oneLine(error instanceof Error ? error.message : String(error))}`)
  }

  /** Takes the lines that follow, up to END. */
  collect(done: (lines: readonly string[]) => Answer): void {
    this.#block = {
      lines: [],
      done: (lines) => {
        try {
          this.#answer(done(lines))
        } catch (error) {
          this.#refuse(error)
        }
      },
    }
  }

  reportBytes(seconds: number): void {
    this.#bytecount?.()
    this.#bytecount = undefined
    if (seconds === 0) return
    this.#bytecount = this.#options.every(1000 * seconds, () => {
      this.#target.bytes().then(
        (all) => {
          for (const { id, bytesIn, bytesOut } of all) {
            if (id === undefined) this.tell(`>BYTECOUNT:${bytesIn},${bytesOut}`)
            else this.tell(`>BYTECOUNT_CLI:${id},${bytesIn},${bytesOut}`)
          }
        },
        () => {},
      )
    })
  }
}

/** Lines to be sent; undefined where the answer comes otherwise. */
type Answer = string | readonly string[] | undefined

interface Context {
  readonly connection: Connection
  readonly management: Management
  readonly target: ManagementTarget
}

interface Command {
  /** How many parameters, at least and at most. */
  readonly args: readonly [number, number]
  readonly help: string
  run(context: Context, args: string[]): Answer | Promise<Answer>
}

const ok = (text: string): string => `SUCCESS: ${text}`

const COMMANDS: Readonly<Record<string, Command>> = {
  help: {
    args: [0, 0],
    help: 'help: print this message',
    run: () => [
      'Management Interface for OpenVPN',
      'Commands:',
      ...Object.values(COMMANDS).map(({ help }) => help),
      'END',
    ],
  },
  version: {
    args: [0, 1],
    help: 'version [n]: tell the versions, or what version this client speaks',
    run: ({ target }, [number]) =>
      number === undefined
        ? [`OpenVPN Version: ${target.title}`, `Management Version: ${INTERFACE_VERSION}`, 'END']
        : // Older clients do not expect an answer.
          whole(number, 1, 1000) < ANSWERED_VERSION
          ? undefined
          : ok(`Management client version set to ${number}`),
  },
  pid: {
    args: [0, 0],
    help: 'pid: tell the process id',
    run: ({ target }) => ok(`pid=${target.pid}`),
  },
  exit: {
    args: [0, 0],
    help: 'exit|quit: close this connection',
    run: ({ connection }) => end(connection),
  },
  quit: { args: [0, 0], help: 'quit: the same', run: ({ connection }) => end(connection) },
  log: realtime('log', ({ log }) => log, logText),
  state: realtime('state', ({ states }) => states, stateText),
  echo: realtime('echo', ({ echoes }) => echoes, echoText),
  hold: {
    args: [0, 1],
    help: 'hold [on|off|release]: whether a start waits, and end the waiting',
    run({ management }, [what]) {
      if (what === undefined) return ok(`hold=${management.holding ? 1 : 0}`)
      if (what === 'release') {
        management.release()
        return ok('hold release succeeded')
      }
      if (what !== 'on' && what !== 'off') throw new Error('bad hold command parameter')
      management.holding = what === 'on'
      return ok(`hold flag set to ${what.toUpperCase()}`)
    },
  },
  status: {
    args: [0, 1],
    help: 'status [1|2|3]: who is connected',
    async run({ target }, [version = `${target.statusVersion ?? 1}`]) {
      if (!/^[123]$/.test(version)) throw new Error('bad status format version number')
      const form = Number(version) as StatusVersion
      const status = await target.status()
      if (status !== undefined) return statusLines(status, form)
      const statistics = (await target.statistics?.()) ?? []
      return ['OpenVPN STATISTICS', ...statistics.map((pair) => pair.join(',')), 'END']
    },
  },
  'load-stats': {
    args: [0, 0],
    help: 'load-stats: how many clients, and bytes of all',
    async run({ target }) {
      const { clients, bytesIn, bytesOut } = await target.load()
      return ok(`nclients=${clients},bytesin=${bytesIn},bytesout=${bytesOut}`)
    },
  },
  bytecount: {
    args: [1, 1],
    help: 'bytecount n: tell bytes every n seconds; 0 ends it',
    run({ connection }, [seconds]) {
      connection.reportBytes(whole(seconds!, 0, 86_400))
      return ok('bytecount interval changed')
    },
  },
  signal: {
    args: [1, 1],
    help: 'signal SIGHUP|SIGTERM|SIGUSR1|SIGUSR2: as if the process had got it',
    run({ target }, [name]) {
      if (!isSignal(name!)) throw new Error(`signal '${name}' is not a known signal type`)
      target.signal(name)
      return ok(`signal ${name} thrown`)
    },
  },
  verb: {
    args: [0, 1],
    help: 'verb [n]: how much is logged',
    run({ target }, [level]) {
      if (level === undefined) return ok(`verb=${target.verbosity}`)
      target.verbosity = whole(level, 0, 15)
      return ok('verb level changed')
    },
  },
  mute: {
    args: [0, 1],
    help: 'mute [n]: messages of one kind in a row that are told; 0 for all',
    run({ target }, [count]) {
      if (count === undefined) return ok(`mute=${target.mute}`)
      target.mute = whole(count, 0, 0x7fffffff)
      return ok('mute level changed')
    },
  },
  kill: {
    args: [1, 1],
    help: 'kill cn|[protocol:]address:port: end connections of clients',
    run({ target }, [which]) {
      const count = clientsOf(target, 'kill').kill(which!)
      const isAddress = /:\d+$/.test(which!)
      if (count === 0) {
        throw new Error(
          isAddress ? `client at address ${which} not found` : `common name '${which}' not found`,
        )
      }
      return ok(
        isAddress
          ? `${count} client(s) at address ${which} killed`
          : `common name '${which}' found, ${count} client(s) killed`,
      )
    },
  },
  'client-auth': {
    args: [2, 2],
    help: 'client-auth CID KID: accept; configuration lines follow, then END',
    run({ connection, target }, [cid, kid]) {
      const clients = clientsOf(target, 'client-auth')
      const [id, keyId] = [clientId(cid!), keyIdOf(kid!)]
      connection.collect((lines) => done(clients.authorize(id, keyId, lines), 'client-auth'))
      return undefined
    },
  },
  'client-auth-nt': {
    args: [2, 2],
    help: 'client-auth-nt CID KID: accept, without configuration',
    run: ({ target }, [cid, kid]) =>
      done(
        clientsOf(target, 'client-auth').authorize(clientId(cid!), keyIdOf(kid!), []),
        'client-auth',
      ),
  },
  'client-deny': {
    args: [3, 4],
    help: 'client-deny CID KID reason [client-reason]: refuse',
    run: ({ target }, [cid, kid, reason, clientReason]) =>
      done(
        clientsOf(target, 'client-deny').deny(clientId(cid!), keyIdOf(kid!), reason!, clientReason),
        'client-deny',
      ),
  },
  'client-pending-auth': {
    args: [4, 4],
    help: 'client-pending-auth CID KID extra timeout: ask the client for more',
    run({ target }, [cid, kid, extra, timeout]) {
      const clients = clientsOf(target, 'client-pending-auth')
      const [id, keyId] = [clientId(cid!), keyIdOf(kid!)]
      return done(
        clients.pend(id, keyId, extra!, whole(timeout!, 1, 86_400)),
        'client-pending-auth',
        '. Extra parameter might be too long',
      )
    },
  },
  'client-kill': {
    args: [1, 2],
    help: 'client-kill CID [message]: end its connection; RESTART is sent unless told',
    run: ({ target }, [cid, message = 'RESTART']) =>
      done(clientsOf(target, 'client-kill').killOne(clientId(cid!), message), 'client-kill'),
  },
  'push-update-broad': {
    args: [1, 1],
    help: 'push-update-broad "options": change pushed options of all clients',
    run({ target }, [options]) {
      const count = clientsOf(target, 'push-update-broad').update(undefined, options!)
      return ok(`push-update command succeeded: ${count} client(s)`)
    },
  },
  'push-update-cid': {
    args: [2, 2],
    help: 'push-update-cid CID "options": change pushed options of a client',
    run: ({ target }, [cid, options]) =>
      done(
        clientsOf(target, 'push-update-cid').update(clientId(cid!), options!) > 0,
        'push-update',
      ),
  },
  username: answering('username', 'username', 'username type text: answer a question'),
  password: {
    args: [1, 2],
    help: 'password type [text]: answer a question; without a text, base64 in lines that follow, then END',
    run({ connection, target }, [type, text]) {
      const give = (password: string) => answered(target, 'password', 'password', type!, password)
      if (text !== undefined) return give(text)
      connection.collect((lines) => give(Buffer.from(lines.join(''), 'base64').toString()))
      return undefined
    },
  },
  needok: answering('needok', 'needok-confirmation', 'needok type ok|cancel: answer a question'),
  needstr: answering('needstr', 'needstr-string', 'needstr type text: answer a question'),
  'auth-retry': {
    args: [0, 1],
    help: 'auth-retry [none|nointeract|interact]: what a refused password leads to',
    run({ target }, [wanted]) {
      if (wanted === undefined) return ok(`auth-retry=${target.authRetry ?? 'none'}`)
      const chosen = AUTH_RETRY.find((one) => one === wanted)
      if (chosen === undefined) throw new Error('bad auth-retry parameter')
      if (target.authRetry !== undefined) target.authRetry = chosen
      return ok('auth-retry parameter changed')
    },
  },
  'forget-passwords': {
    args: [0, 0],
    help: 'forget-passwords: ask again when they are needed',
    run({ target }) {
      target.questions?.forgetPasswords()
      return ok('Passwords were forgotten')
    },
  },
  'cr-response': {
    args: [1, 1],
    help: 'cr-response base64: answer a challenge',
    run: ({ target }, [text]) =>
      done(questionsOf(target, 'cr-response').challengeResponse(text!), 'cr-response'),
  },
  remote: {
    args: [1, 3],
    help: 'remote ACCEPT|SKIP|MOD host port: what to connect to',
    run({ target }, [what, host, port]) {
      const questions = questionsOf(target, 'remote')
      const choose = (choice: Parameters<ManagedQuestions['remote']>[0]) =>
        done(questions.remote(choice), 'remote')
      if (what === 'MOD' && host !== undefined && port !== undefined) {
        return choose({ host, port: whole(port, 1, 65_535) })
      }
      if (what === 'ACCEPT' || what === 'SKIP') return choose(what)
      throw new Error('expected ACCEPT, SKIP or MOD host port')
    },
  },
  proxy: {
    args: [1, 4],
    help: 'proxy NONE|HTTP host port [nct]|SOCKS host port: what to connect through',
    run({ target }, [what, host, port, flag]) {
      const questions = questionsOf(target, 'proxy')
      const choose = (choice: ProxyChoice) => done(questions.proxy?.(choice) === true, 'proxy')
      if (what === 'NONE') return choose({ kind: 'none' })
      if ((what !== 'HTTP' && what !== 'SOCKS') || host === undefined || port === undefined) {
        throw new Error('expected NONE, HTTP host port [nct] or SOCKS host port')
      }
      const at = { host, port: whole(port, 1, 65_535) }
      if (what === 'SOCKS') return choose({ kind: 'socks', ...at })
      return choose({ kind: 'http', ...at, clear: flag !== 'nct' })
    },
  },
  'remote-entry-count': {
    args: [0, 0],
    help: 'remote-entry-count: how many servers the profile names',
    run: ({ target }) => [
      String(questionsOf(target, 'remote-entry-count').remotes().length),
      'END',
    ],
  },
  'remote-entry-get': {
    args: [1, 2],
    help: 'remote-entry-get i|all [j]: the servers that the profile names, i to j - 1',
    run({ target }, [from, to]) {
      const remotes = questionsOf(target, 'remote-entry-get').remotes()
      const number = (text: string) => whole(text, 0, 1_000_000)
      const first = from === 'all' ? 0 : number(from!)
      const last = from === 'all' ? remotes.length : to === undefined ? first + 1 : number(to)
      const lines = remotes.map(
        ({ host, port, protocol }, i) => `${i},${host},${port},${protocol},enabled`,
      )
      return [...lines.slice(first, last), 'END']
    },
  },
  test: {
    args: [1, 1],
    help: 'test n: so many lines, to try a reader with',
    run: (_, [count]) =>
      Array.from(
        { length: whole(count!, 1, 10_000) },
        (_, i) => `[${i}] a line to try a reader with`,
      ),
  },
  'pkcs11-id-count': {
    args: [0, 0],
    help: 'pkcs11-id-count: none, smart cards are not used',
    run: () => '>PKCS11ID-COUNT:0',
  },
  net: refusing('net', 'Sorry, this command is currently only implemented on Windows'),
  'rsa-sig': refusing('rsa-sig', 'The rsa-sig command is not currently available'),
  'pk-sig': refusing('pk-sig', 'The pk-sig command is not currently available'),
  certificate: refusing('certificate', 'The certificate command is not currently available'),
}

/** Known to OpenVPN's tools; what it is about cannot be here. */
function refusing(name: string, why: string): Command {
  return {
    args: [0, 0],
    help: `${name}: not available`,
    run() {
      throw new Error(why)
    },
  }
}

function realtime<T>(
  name: 'log' | 'state' | 'echo',
  historyOf: (histories: Histories) => History<T>,
  textOf: (entry: T) => string,
): Command {
  return {
    args: [name === 'state' ? 0 : 1, 2],
    help: `${name} [on|off] [n|all]: what was, and whether to be told of more`,
    run({ connection, management }, args) {
      const words = [...args]
      const history = historyOf(management.histories)
      let told: string | undefined
      if (words[0] === 'on' || words[0] === 'off') {
        const wanted = words.shift() === 'on'
        connection.wants[name] = wanted
        told = ok(`real-time ${name} notification set to ${wanted ? 'ON' : 'OFF'}`)
        if (words.length === 0) return told
      }
      const [count] = words
      // Without a number, `state` tells the present one, and the others all.
      const number =
        count === undefined && name === 'state'
          ? 1
          : count === undefined || count === 'all'
            ? Infinity
            : Number(count)
      if (!(number >= 1)) {
        throw new Error(`${name} parameter must be 'on' or 'off' or some number n or 'all'`)
      }
      const lines = [...history.last(number).map(textOf), 'END']
      return told === undefined ? lines : [told, ...lines]
    },
  }
}

type AnswerKind = 'username' | 'password' | 'needok' | 'needstr'

function answering(kind: AnswerKind, what: string, help: string): Command {
  return {
    args: [2, 2],
    help,
    run: ({ target }, [type, text]) => answered(target, kind, what, type!, text!),
  }
}

/** `what`: the kind in OpenVPN's words. */
function answered(
  { questions }: ManagementTarget,
  kind: AnswerKind,
  what: string,
  type: string,
  text: string,
): string {
  if (questions?.answer(kind, type, text) === true) {
    return ok(`'${type}' ${kind} entered, but not yet verified`)
  }
  throw new Error(`no ${what} is currently needed at this time`)
}

function end(connection: Connection): undefined {
  connection.end()
}

function done(found: boolean, command: string, hint = ''): string {
  if (!found) throw new Error(`${command} command failed${hint}`)
  return ok(`${command} command succeeded`)
}

function clientsOf({ clients }: ManagementTarget, command: string): ManagedClients {
  if (clients === undefined) throw unsupported(command)
  return clients
}

/** A server has questions too, but of passwords alone. */
function questionsOf({ clients, questions }: ManagementTarget, command: string): ManagedQuestions {
  if (clients !== undefined || questions === undefined) throw unsupported(command)
  return questions
}

function unsupported(command: string): Error {
  return new Error(`The '${command}' command is not supported by the current daemon mode`)
}

const SIGNALS = ['SIGHUP', 'SIGTERM', 'SIGUSR1', 'SIGUSR2'] as const

function isSignal(name: string): name is (typeof SIGNALS)[number] {
  return (SIGNALS as readonly string[]).includes(name)
}

const clientId = (text: string): number => idOf(text, 'CID')
const keyIdOf = (text: string): number => idOf(text, 'KID')

function idOf(text: string, what: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new Error(`cannot parse ${what}`)
  return Number(text)
}

function whole(text: string, least: number, most: number): number {
  const number = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
  if (number >= least && number <= most) return number
  throw new Error(`expected a number from ${least} to ${most}, not '${text}'`)
}

const unix = (date: Date): number => Math.floor(date.getTime() / 1000)

function logText({ date, flags, text }: Line): string {
  return `${unix(date)},${flags},${text}`
}

function echoText({ date, text }: Line): string {
  return `${unix(date)},${text}`
}

function stateText(state: ProcessState): string {
  const {
    date,
    name,
    detail,
    localV4,
    remoteAddress,
    remotePort,
    localAddress,
    localPort,
    localV6,
  } = state
  const parts = [detail, localV4, remoteAddress, remotePort, localAddress, localPort]
  const known = localV6 === undefined ? parts : [...parts, localV6]
  return [unix(date), name, ...known.map((part) => part ?? '')].join(',')
}

/** Nothing that is told may begin a line of its own. */
function oneLine(text: string): string {
  return text.replace(/[\r\n]+/g, ' ').replace(/\p{Cc}/gu, '?')
}
