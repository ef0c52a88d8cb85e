/** The thread of watch.ts: waits on an epoll descriptor and tells what is ready. Everything is watched for one event at a time. */
import { parentPort, workerData } from 'node:worker_threads'
import { E, EPOLL } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'

const EVENTS_AT_ONCE = 64

const os = openLibc()
const { epoll } = workerData as { epoll: number }
const events = createBlock(EVENTS_AT_ONCE * EPOLL.eventSize)
let ended = false
while (!ended) {
  const count = os.epollWait(epoll, events.base, EVENTS_AT_ONCE, -1)
  if (count === -E.EINTR) continue
  const ready: number[] = []
  for (let i = 0; i < count; i++) {
    ready.push(events.view.getUint32(i * EPOLL.eventSize + EPOLL.eventData, true))
  }
  // 0 stands for the end; an error of the descriptor is one too.
  ended = count < 0 || ready.includes(0)
  parentPort!.postMessage(ready)
}
