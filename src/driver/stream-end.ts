/**
 * The server's end of a connection that carries a stream of netlink messages: the calls and the flow control of
 * channel.ts's format, before a port.
 */
import type { Duplex } from 'node:stream'
import { ack, type Complaint, type Message, messages, refusal } from '../netlink/message.ts'
import { ApiError } from '../uapi/errno.ts'
import {
  type ChannelOption,
  CONTROL,
  MessageStream,
  type Protocol,
  readOpen,
  readOption,
} from './channel.ts'
import type { Port, PortTransport } from './port.ts'

/** Requests that may wait before the connection is read no further. */
const WAITING_LIMIT = 64

/** What the connection needs of the server. */
export interface StreamHost {
  connect(protocol: Protocol, transport: PortTransport): Port
  /** Throws ApiError. */
  setOption(port: Port, option: ChannelOption, value: number): void
  complaint(error: unknown): Complaint
  log(text: string): void
}

/** Serves `stream` until either end closes it. */
export function serveStream(stream: Duplex, host: StreamHost): void {
  new StreamEnd(stream, host)
}

class StreamEnd {
  readonly #stream: Duplex
  readonly #host: StreamHost
  readonly #parser = new MessageStream()
  #port: Port | undefined

  constructor(stream: Duplex, host: StreamHost) {
    this.#stream = stream
    this.#host = host
    stream.on('data', (chunk: Uint8Array) => this.#read(chunk))
    stream.on('drain', () => {
      this.#port?.drained()
      this.#resume()
    })
    for (const last of ['error', 'end', 'close']) stream.on(last, () => this.#close())
  }

  #read(chunk: Uint8Array): void {
    try {
      for (const datagram of this.#parser.push(chunk)) this.#take(datagram)
    } catch (error) {
      this.#host.log(`a connection was closed: ${(error as Error).message}`)
      this.#close()
    }
    if (this.#port !== undefined && this.#port.waiting >= WAITING_LIMIT) this.#stream.pause()
  }

  #take(datagram: Uint8Array): void {
    const [request] = messages(datagram)
    if (request?.type === CONTROL.OPEN || request?.type === CONTROL.OPTION) this.#call(request)
    else if (this.#port !== undefined) this.#port.receive(datagram)
    else throw new ApiError('EPROTO', 'a message before the open message')
  }

  #call(request: Message): void {
    let complaint: Complaint | undefined
    try {
      if (request.type === CONTROL.OPEN) this.#open(request.payload)
      else this.#setOption(request.payload)
    } catch (error) {
      complaint = this.#host.complaint(error)
    }
    const asked = { ...request, pid: this.#port?.portId ?? 0 }
    const told = { extAck: true, capAck: true }
    const answer = complaint === undefined ? ack(asked) : refusal(asked, complaint, told)
    if (!this.#stream.write(answer)) this.#stream.pause()
  }

  #resume(): void {
    if (this.#stream.writableNeedDrain || !this.#stream.isPaused()) return
    if (this.#port === undefined || this.#port.waiting < WAITING_LIMIT) this.#stream.resume()
  }

  #open(payload: Uint8Array): void {
    if (this.#port !== undefined) throw new ApiError('EALREADY', 'the channel is open')
    const protocol = readOpen(payload)
    if (protocol === undefined) throw new ApiError('EPROTONOSUPPORT', 'no such protocol')
    const port = this.#host.connect(protocol, {
      write: (datagram) => this.#stream.write(datagram),
      answered: () => this.#resume(),
    })
    this.#port = port
    port.onClose(() => this.#stream.destroy())
  }

  #setOption(payload: Uint8Array): void {
    if (this.#port === undefined) throw new ApiError('EPROTO', 'the channel is not open')
    const read = readOption(payload)
    if (read === undefined) throw new ApiError('ENOPROTOOPT', 'no such option')
    this.#host.setOption(this.#port, ...read)
  }

  #close(): void {
    this.#port?.close()
    this.#stream.destroy()
  }
}
