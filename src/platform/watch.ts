/** Tells this thread's event loop when descriptors that Bun does not know are ready. A thread does the waiting. */
import { Worker } from 'node:worker_threads'
import { check } from './error.ts'
import { EFD_CLOEXEC, EPOLL, SOCK_CLOEXEC } from './layout.ts'
import { openLibc } from './libc.ts'
import { createBlock } from './memory.ts'
import type { Ready } from './ready-thread.ts'

const EPOLLRDHUP = 0x2000
const EPOLLONESHOT = 1 << 30
const WAKE = 0

export interface Readiness {
  /** There is something to read, or the other end is closed, or there is an error to be fetched. */
  readonly readable: boolean
  readonly writable: boolean
}

export interface Watched {
  /** Whether to be told of room for writing as well; not at first. */
  writing(wanted: boolean): void
  /** To be called before the descriptor is closed. */
  end(): void
}

interface Entry {
  readonly fd: number
  events: number
  ready(what: Readiness): void
}

export class Watch {
  readonly #os = openLibc()
  readonly #epoll: number
  readonly #wake: number
  readonly #thread: Worker
  readonly #entries = new Map<number, Entry>()
  #last = WAKE

  /** @throws OsError */
  constructor() {
    this.#epoll = check(this.#os.epollCreate(SOCK_CLOEXEC), 'epoll_create1', 'cannot watch')
    this.#wake = check(this.#os.eventfd(0, EFD_CLOEXEC), 'eventfd', 'cannot watch')
    this.#control(EPOLL.CTL_ADD, this.#wake, WAKE, EPOLL.IN)
    this.#thread = new Worker(new URL('./ready-thread.ts', import.meta.url), {
      workerData: { epoll: this.#epoll },
    })
    this.#thread.on('message', (ready: Ready) => {
      for (let i = 0; i < ready.length; i += 2) this.#ready(ready[i]!, ready[i + 1]!)
    })
  }

  /** Calls `ready` each time, until it is ended; what was not read then is told of again. @throws OsError */
  add(fd: number, ready: (what: Readiness) => void): Watched {
    const key = ++this.#last
    const entry: Entry = { fd, ready, events: EPOLL.IN | EPOLLRDHUP }
    this.#entries.set(key, entry)
    this.#control(EPOLL.CTL_ADD, fd, key, entry.events | EPOLLONESHOT)
    return {
      writing: (wanted) => {
        const events = wanted ? entry.events | EPOLL.OUT : entry.events & ~EPOLL.OUT
        if (events === entry.events || !this.#entries.has(key)) return
        entry.events = events
        this.#control(EPOLL.CTL_MOD, fd, key, events | EPOLLONESHOT)
      },
      end: () => {
        if (this.#entries.delete(key)) this.#control(EPOLL.CTL_DEL, fd, key, 0)
      },
    }
  }

  async close(): Promise<void> {
    this.#entries.clear()
    const gone = new Promise<void>((resolve) => this.#thread.once('exit', () => resolve()))
    const one = createBlock(8)
    one.u8[0] = 1
    this.#os.write(this.#wake, one.base, 8)
    await gone
    this.#os.close(this.#wake)
    this.#os.close(this.#epoll)
  }

  #ready(key: number, events: number): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    const readable = (events & ~EPOLL.OUT) !== 0
    entry.ready({ readable, writable: (events & EPOLL.OUT) !== 0 })
    if (this.#entries.has(key)) {
      this.#control(EPOLL.CTL_MOD, entry.fd, key, entry.events | EPOLLONESHOT)
    }
  }

  #control(operation: number, fd: number, key: number, events: number): void {
    const event = createBlock(EPOLL.eventSize)
    event.view.setUint32(0, events, true)
    event.view.setUint32(EPOLL.eventData, key, true)
    this.#os.epollCtl(this.#epoll, operation, fd, event.base)
  }
}
