/** The control thread's end of a worker: starts it, asks it, hears what happens, ends it. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type {
  Command,
  FromWorker,
  Happening,
  Numbered,
  Results,
  WorkerOptions,
} from './protocol.ts'

/** How long a worker may sleep after a request that nobody waits for, in ms. */
const WAKE_MS = 1

interface Waiting {
  resolve(value: unknown): void
  reject(error: Error): void
}

export class WorkerHandle {
  readonly #port: MessagePort
  readonly #worker: Worker
  readonly #wake: () => void
  readonly #asked = new Int32Array(new SharedArrayBuffer(4))
  readonly #waiting = new Map<number, Waiting>()
  #number = 0
  #ended: Error | undefined
  #waking: NodeJS.Timeout | undefined

  /** `happened` hears of things in the order in which they came to be, answers included. */
  constructor(
    options: Omit<WorkerOptions, 'asked'>,
    wake: () => void,
    happened: (happening: Happening) => void,
  ) {
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    this.#wake = wake
    port1.on('message', (message: FromWorker) => {
      if ('number' in message) this.#answered(message)
      else {
        if (message.what === 'failed') this.#end(new Error(message.error))
        happened(message)
      }
    })
    this.#worker = new Worker(new URL('./loop.ts', import.meta.url), {
      workerData: { port: port2, options: { ...options, asked: this.#asked.buffer } },
      transferList: [port2],
    })
    this.#worker.on('error', (error) => {
      this.#end(error)
      happened({ what: 'failed', error: String(error) })
    })
    this.#worker.on('exit', () => this.#end(new Error('the worker has ended')))
  }

  /** Has the worker do it; rejects with the worker's error. */
  call<C extends Command>(command: C): Promise<Results[C['op']]> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended)
    const number = ++this.#number
    return new Promise<Results[C['op']]>((resolve, reject) => {
      this.#waiting.set(number, {
        resolve: (value) => resolve(value as Results[C['op']]),
        reject,
      })
      this.#send({ number, command })
      this.#wakeNow()
    })
  }

  /**
   * Has the worker do what cannot fail, without waiting for it. It is done before any packet is that comes to the machine
   * after this has returned: the worker looks for requests when it has got packets, before it looks at them. So it is woken
   * late, once for many requests.
   */
  post(command: Command): void {
    if (this.#ended !== undefined) return // it has said so itself
    this.#send({ number: undefined, command })
    this.#waking ??= setTimeout(() => this.#wakeNow(), WAKE_MS)
  }

  /** Ends the worker; its descriptors may be closed afterwards. */
  async stop(): Promise<void> {
    if (this.#ended === undefined) {
      const exited = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()))
      await this.call({ op: 'stop' }).catch(() => undefined)
      await exited
    }
    this.#port.close()
  }

  #send(message: Numbered): void {
    this.#port.postMessage(message)
    Atomics.add(this.#asked, 0, 1)
  }

  #wakeNow(): void {
    clearTimeout(this.#waking)
    this.#waking = undefined
    this.#wake()
  }

  #answered(answer: Exclude<FromWorker, Happening>): void {
    const waiting = this.#waiting.get(answer.number)
    this.#waiting.delete(answer.number)
    if ('error' in answer) waiting?.reject(new Error(answer.error))
    else waiting?.resolve(answer.value)
  }

  #end(error: Error): void {
    this.#ended ??= error
    clearTimeout(this.#waking)
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }
}
