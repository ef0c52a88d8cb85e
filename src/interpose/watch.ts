/** Tells this thread's event loop when descriptors that Bun does not know become readable. A thread does the waiting. */
import { Worker } from 'node:worker_threads'
import { check } from '../platform/error.ts'
import { EFD_CLOEXEC, EPOLL, SOCK_CLOEXEC } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'
import type { Answer, ForeignWatch, Place, Question } from './foreign-epoll.ts'
import type { FromThread, ToThread } from './watch-thread.ts'

const EPOLLRDHUP = 0x2000
const EPOLLONESHOT = 1 << 30

interface Watched {
  readonly fd: number
  readonly events: number
  readable(): void
}

export class Watch {
  readonly #os = openLibc()
  readonly #epoll: number
  readonly #wake: number
  readonly #thread: Worker
  readonly #watched = new Map<number, Watched>()
  readonly #asked = new Map<number, (watches: readonly ForeignWatch[]) => void>()
  /** Whether the thread answers questions about other processes. */
  readonly #apart: Promise<boolean>
  readonly #helper: readonly string[]
  readonly #failed: (error: unknown) => void
  /** Answers them where the thread cannot. */
  #answerer: Promise<Bun.Subprocess> | undefined
  #last = 0

  /**
   * `helper`: command of a process that answers the questions of foreign-epoll.ts (`serveQuestions`), where no thread may.
   * `failed` hears what is thrown by those who are told; they are told of the next thing all the same.
   *
   * @throws OsError
   */
  constructor(helper: readonly string[], failed: (error: unknown) => void) {
    this.#helper = helper
    this.#failed = failed
    this.#epoll = check(this.#os.epollCreate(SOCK_CLOEXEC), 'epoll_create1', 'cannot watch')
    this.#wake = check(this.#os.eventfd(0, EFD_CLOEXEC), 'eventfd', 'cannot watch')
    this.#control(EPOLL.CTL_ADD, this.#wake, 0, EPOLL.IN)
    this.#thread = new Worker(new URL('./watch-thread.ts', import.meta.url), {
      workerData: { epoll: this.#epoll, wake: this.#wake },
    })
    this.#apart = new Promise((resolve) => {
      this.#thread.on('message', (told: FromThread) => {
        if ('apart' in told) resolve(told.apart)
        else if ('ready' in told) for (const key of told.ready) this.#ready(key)
        else this.#answered(told)
      })
    })
  }

  /**
   * Resolves when watching has begun. What is opened before may be held open by the thread's own table of descriptors, so that
   * its other end never hears of its end.
   */
  async started(): Promise<void> {
    await this.#apart
  }

  /**
   * Calls `readable` whenever there is something to read at `fd`, or its other end is closed. To be ended before `fd` is
   * closed. Returns what ends it.
   */
  add(fd: number, readable: () => void): () => void {
    return this.#add({ fd, events: EPOLL.IN | EPOLLRDHUP, readable })
  }

  /** The same for the end of the other end only. */
  addEnd(fd: number, ended: () => void): () => void {
    return this.#add({ fd, events: 0, readable: ended })
  }

  #add(watched: Watched): () => void {
    const key = ++this.#last
    const { fd, events } = watched
    this.#watched.set(key, watched)
    this.#control(EPOLL.CTL_ADD, fd, key, events)
    return () => {
      if (this.#watched.delete(key)) this.#control(EPOLL.CTL_DEL, fd, key, 0)
    }
  }

  /** Ends what a process's epoll descriptors watch of a descriptor, which is about to become another file. */
  async forget(place: Place): Promise<readonly ForeignWatch[]> {
    return this.#ask({ forget: place, number: ++this.#last })
  }

  /** Has them watch again what is there now. */
  async renew(place: Place, watches: readonly ForeignWatch[]): Promise<void> {
    if (watches.length > 0) await this.#ask({ renew: place, watches, number: ++this.#last })
  }

  async close(): Promise<void> {
    void this.#answerer?.then((process) => process.kill())
    const gone = new Promise<void>((resolve) => this.#thread.once('exit', () => resolve()))
    this.#tell({ end: true })
    await gone
    this.#os.close(this.#wake)
    this.#os.close(this.#epoll)
  }

  async #ask(question: Question): Promise<readonly ForeignWatch[]> {
    const other = (await this.#apart) ? undefined : await this.#otherProcess()
    return new Promise((resolve) => {
      this.#asked.set(question.number, resolve)
      if (other === undefined) this.#tell(question)
      else if (other.exitCode !== null) this.#answered({ number: question.number, watches: [] })
      else other.send(question)
    })
  }

  #answered({ number, watches }: Answer): void {
    this.#asked.get(number)?.(watches)
    this.#asked.delete(number)
  }

  #otherProcess(): Promise<Bun.Subprocess> {
    this.#answerer ??= new Promise((resolve) => {
      const process = Bun.spawn([...this.#helper], {
        stdio: ['ignore', 'ignore', 'ignore'],
        serialization: 'advanced', // numbers of 64 bits
        ipc: (told: Answer) => {
          resolve(process) // what is sent before it listens is lost
          this.#answered(told)
        },
        onExit: () => {
          this.#answerer = undefined
          resolve(process)
          for (const number of [...this.#asked.keys()]) this.#answered({ number, watches: [] })
        },
      })
    })
    return this.#answerer
  }

  #tell(message: ToThread): void {
    this.#thread.postMessage(message)
    const one = createBlock(8)
    one.u8[0] = 1
    this.#os.write(this.#wake, one.base, 8)
  }

  #ready(key: number): void {
    const watched = this.#watched.get(key)
    if (watched === undefined) return
    try {
      watched.readable()
    } catch (error) {
      this.#failed(error)
    }
    if (this.#watched.has(key)) this.#control(EPOLL.CTL_MOD, watched.fd, key, watched.events)
  }

  #control(operation: number, fd: number, key: number, events: number): void {
    const event = createBlock(EPOLL.eventSize)
    const once = key === 0 ? 0 : EPOLLONESHOT
    event.view.setUint32(0, events | once, true)
    event.view.setUint32(EPOLL.eventData, key, true)
    this.#os.epollCtl(this.#epoll, operation, fd, event.base)
  }
}
