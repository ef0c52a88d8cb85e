/** The control thread's end of a worker: starts it, asks it, hears what happens, ends it. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type { Command, FromWorker, Happening, Results, WorkerOptions } from './protocol.ts'

interface Waiting {
  resolve(value: unknown): void
  reject(error: Error): void
}

export class WorkerHandle {
  readonly #port: MessagePort
  readonly #worker: Worker
  readonly #wake: () => void
  readonly #waiting = new Map<number, Waiting>()
  #number = 0
  #ended: Error | undefined

  /** `happened` hears of things in the order in which they came to be, answers included. */
  constructor(options: WorkerOptions, wake: () => void, happened: (happening: Happening) => void) {
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
      workerData: { port: port2, options },
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
      this.#port.postMessage({ number, command })
      this.#wake()
    })
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

  #answered(answer: Exclude<FromWorker, Happening>): void {
    const waiting = this.#waiting.get(answer.number)
    this.#waiting.delete(answer.number)
    if ('error' in answer) waiting?.reject(new Error(answer.error))
    else waiting?.resolve(answer.value)
  }

  #end(error: Error): void {
    this.#ended ??= error
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }
}
