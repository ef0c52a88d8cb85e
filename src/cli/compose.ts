/**
 * Where the commands meet the world: the one real clock, randomness, output and signals; and the drivers, whichever is
 * meant. Everything below is handed these.
 */
import { randomFillSync } from 'node:crypto'
import { writeSync } from 'node:fs'
import { openUnixChannel } from '../driver/channel.ts'
import {
  type DriverClient,
  type EventStream,
  type EventsLost,
  openClient,
} from '../driver/client.ts'
import { check, OsError } from '../platform/error.ts'
import { CLONE_NEWNET } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { openNetnsNamed } from '../platform/netns.ts'
import { createDriver, type DriverLog, type DriverSettings } from '../runtime/driver.ts'
import { KernelChannel } from '../runtime/kernel-channel.ts'
import { ApiError } from '../uapi/errno.ts'
import type { DialectName, DriverEvent, Link, LinkKind, LinkNew } from '../uapi/types.ts'
import { type ListenOptions, listen } from './driver-host.ts'
import { CliError, EXIT } from './errors.ts'
import { formatTime } from './format.ts'

export type DriverChoice = 'auto' | 'user' | 'kernel'
export type Interrupt = 'SIGINT' | 'SIGTERM'
export type LogLevel = 'error' | 'info' | 'debug'

export interface Environment {
  /** A line, or several, to standard output. */
  print(text: string): void
  /** A line to standard error, with the program's name before it. */
  note(text: string): void
  date(): Date
  /** Milliseconds of a clock that never jumps. */
  now(): number
  randomBytes(count: number): Uint8Array
  /** Calls back at the first SIGINT or SIGTERM; one that comes seconds later ends the process. */
  onInterrupt(listener: (signal: Interrupt) => void): void
  /** Calls back at each of these signals, which do not end the process then. */
  onSignal(signal: 'SIGHUP' | 'SIGUSR1' | 'SIGUSR2', listener: () => void): void
  /** Moves this process to the network namespace that `ip netns` knows by this name. */
  enterNetns(name: string): void
  /** The driver that is meant, in the namespace this process is in. Throws a CliError where it cannot be reached. */
  openDriver(choice: DriverChoice, socket: string): Promise<Driver>
}

/** A driver within reach. Interfaces of either kind are its; a client speaks of those of one. */
export interface Driver {
  readonly kind: 'user' | 'kernel'
  links(): Promise<Link[]>
  linkNew(link: LinkNew): Promise<Link>
  linkDel(ifindex: number): Promise<void>
  client(kind: LinkKind): Promise<DriverClient>
  /** Events of interfaces of all kinds. */
  events(): Promise<MergedEvents>
  close(): void
}

export interface MergedEvents extends AsyncIterable<DriverEvent | EventsLost> {
  close(): void
}

export function createEnvironment(): Environment {
  process.on('exit', flush)
  const listeners: ((signal: Interrupt) => void)[] = []
  let first = Infinity
  const interrupted = (signal: Interrupt) => {
    // `timeout`, npm and terminals send a signal to the process and to its group: both are one.
    if (performance.now() - first > PATIENCE_MS) process.exit(EXIT.refused)
    if (first !== Infinity) return
    first = performance.now()
    for (const listener of listeners) listener(signal)
  }
  return {
    print,
    note,
    date: () => new Date(),
    now: () => performance.now(),
    randomBytes: (count) => randomFillSync(new Uint8Array(count)),
    onInterrupt(listener) {
      if (listeners.length === 0) for (const signal of SIGNALS) process.on(signal, interrupted)
      listeners.push(listener)
    },
    onSignal: (signal, listener) => {
      process.on(signal, listener)
    },
    enterNetns,
    openDriver,
  }
}

const SIGNALS: readonly Interrupt[] = ['SIGINT', 'SIGTERM']
/** How long a program that was interrupted may clean up before another signal ends it. */
const PATIENCE_MS = 3000

/** Lines that are yet to be written. */
let unwritten = ''

/** Lines go out together at the end of the turn: a server that many clients come to at once would wait 70 µs for each. */
function print(text: string): void {
  if (unwritten === '') setImmediate(flush)
  unwritten += `${text}\n`
}

function flush(): void {
  const text = unwritten
  unwritten = ''
  if (text !== '') standardOutput().write(text)
}

let hasOutput = false

/** Asked for where something is printed, and not before: see `complain`. */
function standardOutput(): NodeJS.WriteStream {
  const { stdout } = process
  // A reader that has seen enough (`ovpn monitor | head`) ends the program.
  if (!hasOutput) stdout.on('error', () => process.exit(0))
  hasOutput = true
  return stdout
}

function note(text: string): void {
  flush()
  complain(`ovpn: ${text}\n`)
}

/**
 * To standard error, at once. Bun's `process.stdout` and `process.stderr` make a pipe non-blocking, for whoever has it: under
 * `ovpn run` also for the program, whose writes would fail with EAGAIN where the reader is slow.
 */
function complain(text: string): void {
  const bytes = Buffer.from(text)
  let written = 0
  try {
    while (written < bytes.length) written += writeSync(STDERR, bytes, written)
  } catch (error) {
    // Somebody else has made it so; otherwise nobody reads it.
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN')
      process.stderr.write(bytes.subarray(written))
  }
}

const STDERR = 2

function enterNetns(name: string): void {
  try {
    const os = openLibc()
    const fd = openNetnsNamed(name)
    try {
      check(os.setns(fd, CLONE_NEWNET), 'setns', `cannot enter the network namespace ${name}`)
    } finally {
      os.close(fd)
    }
  } catch (error) {
    if (!(error instanceof OsError) && !(error instanceof RangeError)) throw error
    const root = process.getuid?.() === 0 ? '' : ' (only root may)'
    throw new CliError(`${error.message}${root}`)
  }
}

async function openDriver(choice: DriverChoice, socket: string): Promise<Driver> {
  if (choice === 'kernel') return openKernelDriver()
  try {
    return await OpenDriver.open('user', {
      generic: () => openUnixChannel(socket, 'generic'),
      route: () => openUnixChannel(socket, 'route'),
    })
  } catch (error) {
    const unreachable = explain(error, socket)
    if (choice === 'user') throw unreachable
    return openKernelDriver().catch(() => {
      throw unreachable
    })
  }
}

async function openKernelDriver(): Promise<Driver> {
  try {
    return await OpenDriver.open('kernel', {
      generic: () => new KernelChannel('generic'),
      route: () => new KernelChannel('route'),
    })
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    throw new CliError(
      "the kernel has no ovpn driver (Linux 6.16 has one: 'modprobe ovpn'); use '--driver user'",
      EXIT.unreachable,
      { cause: error },
    )
  }
}

/** Why there is no driver behind a socket, and what to do about it. */
function explain(error: unknown, socket: string): CliError {
  const errno = error instanceof ApiError ? error.errno : undefined
  if (errno === 'ENOENT' || errno === 'ECONNREFUSED') {
    return new CliError(
      `no driver is running at ${socket}; start one as root with 'ovpn driver' (a server or client that was started without has its own, which nobody else sees)`,
      EXIT.unreachable,
    )
  }
  if (errno === 'EACCES' || errno === 'EPERM') {
    return new CliError(
      `you may not use the driver at ${socket}; root may, and whoever its owner lets in ` +
        "('ovpn driver --mode 0660 --group NAME')",
      EXIT.unreachable,
    )
  }
  const text = error instanceof Error ? error.message : String(error)
  return new CliError(`cannot reach the driver at ${socket}: ${text}`, EXIT.unreachable)
}

type Channels = Omit<Parameters<typeof openClient>[0], 'dialect'>

/** The dialect in which interfaces of a kind are spoken of. */
const DIALECT: { readonly [K in LinkKind]: DialectName } = {
  ovpn: 'ovpn',
  'ovpn-dco': 'ovpn-dco-v2',
}

class OpenDriver implements Driver {
  readonly kind: 'user' | 'kernel'
  readonly #channels: Channels
  readonly #clients = new Map<LinkKind, DriverClient>()

  /** Rejects with an ApiError where neither kind is known. */
  static async open(kind: 'user' | 'kernel', channels: Channels): Promise<Driver> {
    const driver = new OpenDriver(kind, channels)
    try {
      await driver.client('ovpn')
    } catch (error) {
      // A kernel may have the older driver alone.
      if (kind === 'user') throw error
      await driver.client('ovpn-dco')
    }
    return driver
  }

  private constructor(kind: 'user' | 'kernel', channels: Channels) {
    this.kind = kind
    this.#channels = channels
  }

  async client(kind: LinkKind): Promise<DriverClient> {
    const known = this.#clients.get(kind)
    if (known !== undefined) return known
    const client = await openClient({ ...this.#channels, dialect: DIALECT[kind] })
    this.#clients.set(kind, client)
    return client
  }

  async links(): Promise<Link[]> {
    const lists = await Promise.all((await this.#enough()).map((client) => client.links()))
    return lists.flat().sort((a, b) => a.ifindex - b.ifindex)
  }

  async linkNew(link: LinkNew): Promise<Link> {
    return (await this.client(link.kind)).linkNew(link)
  }

  async linkDel(ifindex: number): Promise<void> {
    const [client] = await this.#enough()
    await client!.linkDel(ifindex)
  }

  async events(): Promise<MergedEvents> {
    return merge(await Promise.all((await this.#all()).map((client) => client.events())))
  }

  close(): void {
    for (const client of this.#clients.values()) client.close()
  }

  /** The clients that know all interfaces: our driver tells of both kinds in every dialect, the kernel's only of its own. */
  async #enough(): Promise<DriverClient[]> {
    return this.kind === 'user' ? [await this.client('ovpn')] : this.#all()
  }

  /** A client of each kind that there is. */
  async #all(): Promise<DriverClient[]> {
    const kinds: LinkKind[] = ['ovpn', 'ovpn-dco']
    const clients = await Promise.all(kinds.map((kind) => this.client(kind).catch(() => undefined)))
    return clients.filter((client) => client !== undefined)
  }
}

/** Several streams as one, to be read once: ends when one of them does, throws when one does. */
function merge(streams: EventStream[]): MergedEvents {
  const queue: (DriverEvent | EventsLost)[] = []
  let wake: (() => void) | undefined
  let ended: { error?: unknown } | undefined
  const pump = async (stream: EventStream) => {
    try {
      for await (const event of stream) {
        queue.push(event)
        wake?.()
      }
      ended ??= {}
    } catch (error) {
      ended ??= { error }
    }
    wake?.()
  }
  const close = () => {
    for (const stream of streams) stream.close()
  }
  for (const stream of streams) void pump(stream)
  return {
    close,
    async *[Symbol.asyncIterator]() {
      try {
        for (;;) {
          const event = queue.shift()
          if (event !== undefined) yield event
          else if (ended !== undefined) break
          else {
            await new Promise<void>((resolve) => {
              wake = resolve
            })
          }
        }
        if (ended.error !== undefined) throw ended.error
      } finally {
        close()
      }
    },
  }
}

/** Runs the driver until `stop`. Throws a CliError where it cannot start. */
export async function startDriver(
  environment: Environment,
  options: ListenOptions & { level: LogLevel; settings: DriverSettings },
): Promise<{ stop(): Promise<void> }> {
  const log = createLog(environment, options.level)
  const driver = createDriver(log, () => randomWord(environment), options.settings)
  const listening = await listen(driver, options, log)
  log.info(`listening on ${options.socket}`)
  return {
    async stop() {
      await driver.close()
      await listening.stop()
      log.info('ended')
    },
  }
}

/** 32 random bits. */
export function randomWord(environment: Environment): number {
  return new DataView(environment.randomBytes(4).buffer).getUint32(0)
}

const LEVELS: LogLevel[] = ['error', 'info', 'debug']

function createLog(environment: Environment, level: LogLevel): DriverLog {
  const line = (of: LogLevel) => (text: string) => {
    if (LEVELS.indexOf(of) > LEVELS.indexOf(level)) return
    complain(`${formatTime(environment.date())} ${of}: ${text}\n`)
  }
  return { error: line('error'), info: line('info'), debug: line('debug') }
}
