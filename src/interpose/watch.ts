/** Tells this thread's event loop when descriptors that Bun does not know become readable. A thread does the waiting. */
import { Worker } from 'node:worker_threads'
import { check } from '../platform/error.ts'
import { EFD_CLOEXEC, EPOLL, SOCK_CLOEXEC } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'

const EPOLLRDHUP = 0x2000
const EPOLLONESHOT = 1 << 30

interface Watched {
  readonly fd: number
  readable(): void
}

export class Watch {
  readonly #os = openLibc()
  readonly #epoll: number
  readonly #end: number
  readonly #thread: Worker
  readonly #watched = new Map<number, Watched>()
  #last = 0

  /** @throws OsError */
  constructor() {
    this.#epoll = check(this.#os.epollCreate(SOCK_CLOEXEC), 'epoll_create1', 'cannot watch')
    this.#end = check(this.#os.eventfd(0, EFD_CLOEXEC), 'eventfd', 'cannot watch')
    this.#control(EPOLL.CTL_ADD, this.#end, 0)
    this.#thread = new Worker(new URL('./watch-thread.ts', import.meta.url), {
      workerData: { epoll: this.#epoll },
    })
    this.#thread.on('message', (ready: number[]) => {
      for (const key of ready) this.#ready(key)
    })
  }

  /**
   * Calls `readable` whenever there is something to read at `fd`, or its other end is closed. To be ended before `fd` is
   * closed. Returns what ends it.
   */
  add(fd: number, readable: () => void): () => void {
    const key = ++this.#last
    this.#watched.set(key, { fd, readable })
    this.#control(EPOLL.CTL_ADD, fd, key)
    return () => {
      if (this.#watched.delete(key)) this.#control(EPOLL.CTL_DEL, fd, key)
    }
  }

  async close(): Promise<void> {
    const gone = new Promise<void>((resolve) => this.#thread.once('exit', () => resolve()))
    const one = createBlock(8)
    one.u8[0] = 1
    this.#os.write(this.#end, one.base, 8)
    await gone
    this.#os.close(this.#end)
    this.#os.close(this.#epoll)
  }

  #ready(key: number): void {
    const watched = this.#watched.get(key)
    if (watched === undefined) return
    watched.readable()
    if (this.#watched.has(key)) this.#control(EPOLL.CTL_MOD, watched.fd, key)
  }

  #control(operation: number, fd: number, key: number): void {
    const event = createBlock(EPOLL.eventSize)
    event.view.setUint32(0, EPOLL.IN | EPOLLRDHUP | EPOLLONESHOT, true)
    event.view.setUint32(EPOLL.eventData, key, true)
    this.#os.epollCtl(this.#epoll, operation, fd, event.base)
  }
}
