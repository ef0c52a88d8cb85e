/** The thread of watch.ts: waits on an epoll descriptor and tells what is ready. Everything is watched for one event at a time. */
import { parentPort, workerData } from 'node:worker_threads'
import { EPOLL } from './layout.ts'
import { openLibc } from './libc.ts'
import { createBlock } from './memory.ts'
import { limitThread } from './privileges.ts'

/** What the thread tells: pairs of a key and the events (EPOLLIN and the like) that are there. */
export type Ready = number[]

const EVENTS_AT_ONCE = 256
const EINTR = 4

limitThread()
const os = openLibc()
const { epoll } = workerData as { epoll: number }
const events = createBlock(EVENTS_AT_ONCE * EPOLL.eventSize)
for (let ended = false; !ended; ) {
  const count = os.epollWait(epoll, events.base, EVENTS_AT_ONCE, -1)
  if (count === -EINTR) continue
  if (count < 0) break
  const ready: Ready = []
  for (let i = 0; i < count; i++) {
    const at = i * EPOLL.eventSize
    const key = events.view.getUint32(at + EPOLL.eventData, true)
    // Key 0 is the call to end.
    if (key === 0) ended = true
    else ready.push(key, events.view.getUint32(at, true))
  }
  if (ready.length > 0) parentPort!.postMessage(ready)
}
