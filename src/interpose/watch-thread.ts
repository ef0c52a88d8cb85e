/**
 * The thread of watch.ts: waits on an epoll descriptor and tells what is ready. Everything is watched for one event at a time.
 *
 * Where it may, it has a table of descriptors of its own, a copy of the process's as of its start, and answers questions about other
 * processes' watches (foreign-epoll.ts).
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { E, EPOLL } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'
import { type Answer, answer, type Question } from './foreign-epoll.ts'

/** What the thread is told; `wake` makes it listen. */
export type ToThread = { end: true } | Question

/** Whether it can answer questions, first of all; then keys of what is ready, and answers. */
export type FromThread = { apart: boolean } | { ready: number[] } | Answer

const EVENTS_AT_ONCE = 64
const CLONE_FILES = 0x400
/** The process's standard streams and its launcher are nothing to hold on to. */
const INHERITED = 4

const os = openLibc()
const { epoll, wake } = workerData as { epoll: number; wake: number }
// Containers may forbid it.
const apart = os.unshare(CLONE_FILES) >= 0
if (apart) for (let fd = 0; fd < INHERITED; fd++) os.close(fd)
tell({ apart })
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
    tell(answer(told))
  }
}

function tell(message: FromThread): void {
  parentPort!.postMessage(message)
}
