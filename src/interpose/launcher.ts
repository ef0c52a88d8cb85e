/**
 * Starts a program under the filter, with a supervisor beside it. The process that was started becomes the program: so its
 * process id, its parent, its signals, its exit status and its standard streams are what they would be without.
 *
 *     ovpn run ──starts──▶ supervisor                     (its own session; no child of the program)
 *        │  ◀── R ready, or E and why ───  │
 *        │  filter installed               │
 *        │  ─── process id, descriptor ──▶ │  takes the listener
 *        │  ◀── G ───────────────────────  │
 *     execve                               serves until the last process with the filter has ended
 *
 * The supervisor's parent is a shell that only waits: with it lies a second descriptor of the listener, so that calls go on being
 * answered when the supervisor is killed. Then the shell becomes the successor (successor.ts).
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, readFileSync, statSync, writeSync } from 'node:fs'
import { constants as osConstants } from 'node:os'
import { delimiter, join } from 'node:path'
import { errnoName, OsError } from '../platform/error.ts'
import { sendFd } from '../platform/fds.ts'
import { E, POLLFD, POLLIN } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { blockOf, createBlock } from '../platform/memory.ts'
import { openPair, setBlocking } from '../platform/relay.ts'
import {
  allowInspection,
  architecture,
  createMemoryFile,
  execute,
  fdLimit,
  installFilter,
  resetSignal,
  setFdLimit,
} from '../platform/seccomp.ts'
import { createFilter, FD_COUNT, FIRST_FD } from './filter.ts'

/** Where a supervisor finds the connection to its launcher. */
export const LAUNCHER_FD = 3
/** Where a successor finds the listener, in a socket; a supervisor has none. */
export const ESTATE_FD = 4
/** Where both find a file for the calls that are open (ledger.ts). */
export const LEDGER_FD = 5

/** The last argument of a supervisor's command, for its successor. */
export const SUCCESSOR = '--successor'

/**
 * What the shell is told, `supervisor` in place of the command: it must not keep anybody waiting who reads standard error or
 * the connection, and does not end by what ends the program's whole group. A status above 128 is that of a signal.
 */
const KEEPER = `{
  supervisor ${ESTATE_FD}<&- &
  trap '' HUP INT QUIT TERM
  exec 2>/dev/null ${LAUNCHER_FD}<&-
  wait $!
  if [ $? -gt 128 ]; then exec supervisor ${SUCCESSOR} ${LAUNCHER_FD}<&-; fi
} &
`

/** What their messages begin with. */
const READY = 'R'
const GO = 'G'
const REFUSED = 'E'

/** For the supervisor to come up: an emulated machine on a busy one has taken more than 15 s. */
const PATIENCE_MS = 60_000
const DEFAULT_LIMIT = 1024
/** Ignored by Bun, for itself. */
const SIGNALS = [osConstants.signals.SIGPIPE, osConstants.signals.SIGXFSZ]

/** The program could not be given the driver; the text says why. */
export class LaunchError extends Error {
  override readonly name = 'LaunchError'
}

/**
 * Starts a supervisor by its command line, to which this process's id and the number of a descriptor are added, and installs
 * the filter.
 *
 * @throws LaunchError; then nothing has changed, unless `final`: the filter is there and nobody behind it
 */
export function prepare(supervisor: readonly string[]): void {
  if (architecture === undefined) {
    throw new LaunchError(`the processor (${process.arch}) is not supported`)
  }
  const { own, other } = openPair('stream')
  setBlocking(own, true)
  const peer = new Connection(own)
  const estate = openPair('stream')
  const ledger = createMemoryFile('calls')
  const command = [...supervisor, String(process.pid), String(own)].map(quoted).join(' ')
  // Through a shell that ends at once: the program gets no child that it did not start.
  const started = spawnSync('/bin/sh', ['-s', `keeper of ${process.pid}`], {
    input: KEEPER.replaceAll('supervisor', () => command),
    stdio: ['pipe', 'ignore', 'inherit', other, estate.other, ledger],
    cwd: '/',
  })
  for (const fd of [other, estate.other, ledger]) openLibc().close(fd)
  if (started.error !== undefined) throw new LaunchError(`no shell: ${started.error.message}`)
  const answer = peer.receive()
  const pid = /^R(\d+)$/.exec(answer)?.[1]
  if (pid === undefined) throw new LaunchError(reason(answer))
  allowInspection(Number(pid))
  let listener: number
  try {
    listener = installFilter(createFilter())
  } catch (error) {
    if (!(error instanceof OsError)) throw error
    throw new LaunchError(
      error.errno === E.EBUSY
        ? "another 'ovpn run', or another user of seccomp notifications, is around already"
        : error.message,
    )
  }
  try {
    sendFd(estate.own, listener)
  } catch {
    // Nobody is there any more; the connection tells.
  }
  openLibc().close(estate.own)
  peer.send(String(listener))
  const go = peer.receive()
  if (go !== GO) {
    writeSync(2, `ovpn: the supervisor failed: ${reason(go)}\n`)
    process.exit(1)
  }
  openLibc().close(listener)
}

/** A word of a shell's. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}

function reason(answer: string): string {
  return answer.startsWith(REFUSED) ? answer.slice(1) : 'the supervisor ended'
}

/**
 * Becomes the program. Returns only if that fails.
 *
 * @returns what is wrong, and the exit status that shells give it
 */
export function become(command: string, args: readonly string[]): { text: string; status: number } {
  const path = findProgram(command)
  if (path === undefined) return { text: `${command}: command not found`, status: 127 }
  for (const signal of SIGNALS) resetSignal(signal)
  restoreLimit()
  const environment = readFileSync('/proc/self/environ')
  const errno = -execute(path, [command, ...args], environment)
  return { text: `cannot run ${path}: ${errnoName(errno)}`, status: errno === E.ENOENT ? 127 : 126 }
}

/** As execvp() looks. */
function findProgram(command: string): string | undefined {
  if (command.includes('/')) return command
  for (const folder of (process.env.PATH ?? '/usr/bin:/bin').split(delimiter)) {
    const path = join(folder || '.', command)
    try {
      accessSync(path, constants.X_OK)
      if (statSync(path).isFile()) return path
    } catch {
      // Not there; the next folder may have it.
    }
  }
  return undefined
}

/** Bun raises its limit of descriptors as far as it may. The parent's is the best guess at what it was. */
function restoreLimit(): void {
  const { hard } = fdLimit(0)
  let soft = DEFAULT_LIMIT
  try {
    if (process.ppid > 1) soft = fdLimit(process.ppid).soft
  } catch {
    // It is somebody else's.
  }
  setFdLimit({ soft: Math.min(hard, Math.max(soft, FIRST_FD + FD_COUNT)), hard })
}

/** Messages between launcher and supervisor, each ended by NUL. Blocks. */
export class Connection {
  readonly #fd: number
  readonly #os = openLibc()

  constructor(fd: number) {
    this.#fd = fd
  }

  send(text: string): void {
    const bytes = Buffer.from(`${text}\0`)
    this.#os.write(this.#fd, blockOf(bytes).base, bytes.length)
  }

  ready(): void {
    this.send(`${READY}${process.pid}`)
  }

  go(): void {
    this.send(GO)
  }

  refuse(why: string): void {
    this.send(`${REFUSED}${why}`)
  }

  /** Empty when the other end is closed. @throws LaunchError when nothing comes */
  receive(): string {
    const byte = createBlock(8)
    const bytes: number[] = []
    for (;;) {
      const wait = createBlock(POLLFD.size)
      wait.view.setInt32(POLLFD.fd, this.#fd, true)
      wait.view.setInt16(POLLFD.events, POLLIN, true)
      const ready = this.#os.poll(wait.base, 1, PATIENCE_MS)
      if (ready === -E.EINTR) continue
      if (ready <= 0) throw new LaunchError('the supervisor does not answer')
      if (this.#os.read(this.#fd, byte.base, 1) <= 0) return ''
      if (byte.u8[0] === 0) return Buffer.from(bytes).toString()
      bytes.push(byte.u8[0]!)
    }
  }
}
