/**
 * What other processes' epoll descriptors watch: ending it, and beginning it anew. An epoll descriptor knows what it watches by file
 * and number, so whoever changes that must have the file at that number: to be used where the table of descriptors is nobody
 * else's, in a thread that has left its process's or in a process of its own.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { check } from '../platform/error.ts'
import { EPOLL, F_DUPFD_CLOEXEC, O_CLOEXEC } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'
import { identityOf, takeFdOf } from './process.ts'

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

/** What is asked: to end all watches of a descriptor, which is about to become another file; or to begin these. */
export type Question =
  | { forget: Place; number: number }
  | { renew: Place; watches: readonly ForeignWatch[]; number: number }

/** To the question of the same number: the watches that were ended. */
export interface Answer {
  readonly number: number
  readonly watches: readonly ForeignWatch[]
}

/** Answers what the process that started this one asks, until that one ends; says first that it listens. */
export function serveQuestions(): Promise<void> {
  process.on('message', (question: Question) => process.send!(answer(question)))
  const listens: Answer = { number: 0, watches: [] }
  process.send!(listens)
  return new Promise((resolve) => process.on('disconnect', resolve))
}

const ASIDE = 1000
const os = openLibc()

export function answer(question: Question): Answer {
  const { number } = question
  try {
    if ('forget' in question) return { number, watches: forget(question.forget) }
    renew(question.renew, question.watches)
  } catch {
    // The process has ended, or is none that may be looked into: its watches stay what they are.
  }
  return { number, watches: [] }
}

function forget(place: Place): ForeignWatch[] {
  const { tid, fd } = place
  const found: ForeignWatch[] = []
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
