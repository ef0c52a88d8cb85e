/**
 * The thread of watch.ts: waits on an epoll descriptor and tells what is ready. Everything is watched for one event at a time.
 *
 * Where it may, it has a table of descriptors of its own, a copy of the process's as of its start: so it can have a foreign file at a
 * number of its choice, which is what it takes to end another process's watch on it.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { check } from '../platform/error.ts'
import { E, EPOLL, F_DUPFD_CLOEXEC, O_CLOEXEC } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'
import { identityOf, takeFdOf } from './process.ts'

/** What the thread is told; `wake` makes it listen. */
export type ToThread =
  | { end: true }
  | { forget: Place; number: number }
  | { renew: Place; watches: readonly ForeignWatch[]; number: number }

/** A descriptor of a process. */
export interface Place {
  readonly tid: number
  readonly fd: number
}

/** What an epoll descriptor of a process watches of another: `epoll_event`. */
export interface ForeignWatch {
  readonly epoll: number
  readonly events: number
  readonly data: bigint
}

/** Keys of what is ready; or what a request has found. */
export type FromThread = { ready: number[] } | { number: number; watches: ForeignWatch[] }

const EVENTS_AT_ONCE = 64
const CLONE_FILES = 0x400
/** The process's standard streams and its launcher are nothing to hold on to. */
const INHERITED = 4
const ASIDE = 1000

const os = openLibc()
const { epoll, wake } = workerData as { epoll: number; wake: number }
// Containers may forbid it.
const apart = os.unshare(CLONE_FILES) >= 0
if (apart) for (let fd = 0; fd < INHERITED; fd++) os.close(fd)
const events = createBlock(EVENTS_AT_ONCE * EPOLL.eventSize)
const counter = createBlock(8)
let ended = false
while (!ended) {
  const count = os.epollWait(epoll, events.base, EVENTS_AT_ONCE, -1)
  if (count === -E.EINTR) continue
  if (count < 0) break
  const ready: number[] = []
  for (let i = 0; i < count; i++) {
    const key = events.view.getUint32(i * EPOLL.eventSize + EPOLL.eventData, true)
    if (key !== 0) ready.push(key)
    else listen()
  }
  if (ready.length > 0) tell({ ready })
}

function listen(): void {
  os.read(wake, counter.base, 8)
  for (;;) {
    const told = receiveMessageOnPort(parentPort!)?.message as ToThread | undefined
    if (told === undefined) return
    if ('end' in told) {
      ended = true
      return
    }
    let watches: ForeignWatch[] = []
    try {
      if ('forget' in told) watches = forget(told.forget)
      else renew(told.renew, told.watches)
    } catch {
      // The process has ended, or is none that may be looked into: its watches stay what they are.
    }
    tell({ number: told.number, watches })
  }
}

function tell(message: FromThread): void {
  parentPort!.postMessage(message)
}

function forget(place: Place): ForeignWatch[] {
  const { tid, fd } = place
  const found: ForeignWatch[] = []
  if (!apart) return found
  for (const name of readdirSync(`/proc/${tid}/fd`)) {
    const epoll = Number(name)
    if (identityOf(tid, epoll) !== 'anon_inode:[eventpoll]') continue
    // tfd: 7 events: 19 data: 5 ...
    const text = readFileSync(`/proc/${tid}/fdinfo/${epoll}`, 'utf8')
    const line = new RegExp(`^tfd:\\s*${fd} events:\\s*(\\w+) data:\\s*(\\w+)`, 'm').exec(text)
    if (line === null) continue
    const events = Number.parseInt(line[1]!, 16)
    found.push({ epoll, events, data: BigInt(`0x${line[2]}`) })
    change(place, epoll, EPOLL.CTL_DEL, 0)
  }
  return found
}

function renew(place: Place, watches: readonly ForeignWatch[]): void {
  for (const { epoll, events, data } of watches) {
    const event = createBlock(EPOLL.eventSize)
    event.view.setUint32(0, events, true)
    event.view.setBigUint64(EPOLL.eventData, data, true)
    change(place, epoll, EPOLL.CTL_ADD, event.base)
  }
}

/** An epoll descriptor knows what it watches by file and number: both must be the same here. */
function change({ tid, fd }: Place, epoll: number, operation: number, event: number): void {
  const file = aside(takeFdOf(tid, fd))
  const theirs = aside(takeFdOf(tid, epoll))
  // Whatever this thread has at that number is put back.
  const saved = os.fcntl(fd, F_DUPFD_CLOEXEC, ASIDE)
  os.dup3(file, fd, O_CLOEXEC)
  os.epollCtl(theirs, operation, fd, event)
  os.close(fd)
  if (saved >= 0) {
    os.dup3(saved, fd, O_CLOEXEC)
    os.close(saved)
  }
  os.close(file)
  os.close(theirs)
}

/** Moves a descriptor to a number that programs hardly use. */
function aside(fd: number): number {
  const moved = os.fcntl(fd, F_DUPFD_CLOEXEC, ASIDE)
  os.close(fd)
  return check(moved, 'fcntl', 'too many descriptors')
}
