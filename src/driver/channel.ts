/**
 * What a netlink socket is to the rest: messages one way and the other, and a few options. Here are the interface, the
 * kind that goes over a unix socket, and what asks over any kind; the kind within a process is server.ts's, that of the
 * kernel's own sockets platform's.
 *
 * A unix socket carries netlink messages as a stream, each padded to 4 and found by its length (at most 1 MiB, else the
 * connection ends). Messages of two reserved types, below those of netlink's own (NLMSG_MIN_TYPE), stand for what a
 * program does with its socket by other calls than send:
 *
 *     0x8 open      | protocol 4 |            first of all: 0 route, 16 generic; the port id is that of the answer
 *     0x9 option    | option 4 | value 4 |    SOL_NETLINK's numbers; 0x100: the port id that bind() asks for;
 *                                          0x101: the mssfix of peers that are added without;
 *                                          0x102: the process or thread that it is used for (server.ts, Origin);
 *                                          0x103: the swap-wait-ms of peers that are added without
 *
 * Each is answered by an ACK or an error, as if NLM_F_ACK were set. Datagram borders do not survive: a reader gets each
 * message as a datagram. A reader too slow for its notifications gets an NLMSG_OVERRUN message in place of those lost,
 * where the kernel has ENOBUFS; it should ask anew for all it wants to know. Source: docs/API.md.
 */
import { createConnection, type Socket } from 'node:net'
import { align } from '../netlink/attribute.ts'
import {
  type Message,
  message,
  messageLength,
  messages,
  NLM_F,
  NLMSG,
  NLMSG_HDRLEN,
  readAnswer,
} from '../netlink/message.ts'
import { ApiError, errnoName } from '../uapi/errno.ts'

export type Protocol = 'route' | 'generic'

/**
 * The groups of memberships are numbers; `ext-ack` and `cap-ack` are 0 or 1; `port-id` is what bind() sets; `mssfix` and
 * `swap-wait-ms` are of peers that are added without; `process` is whom the channel is used for, by its id.
 */
export type ChannelOption =
  | 'add-membership'
  | 'drop-membership'
  | 'cap-ack'
  | 'ext-ack'
  | 'port-id'
  | 'mssfix'
  | 'swap-wait-ms'
  | 'process'

export interface ChannelListener {
  /** A datagram came; it is the listener's. */
  received(datagram: Uint8Array): void
  /** The last call: nothing more comes. `error` unless this side closed it. */
  closed(error: Error | undefined): void
}

export interface Channel {
  readonly protocol: Protocol
  /** The address that messages to this channel carry. */
  readonly portId: number
  /** Who is told from now on; what came before was kept. To be called once. */
  listen(listener: ChannelListener): void
  /** Never waits; does nothing once closed. The bytes stay untouched until they were taken. */
  send(datagram: Uint8Array): void
  /** Rejects with the ApiError that setsockopt() or bind() would fail with. */
  setOption(option: ChannelOption, value: number): Promise<void>
  close(): void
}

/** Types of the messages that stand for calls. */
export const CONTROL = { OPEN: 0x8, OPTION: 0x9 } as const

const PROTOCOLS: { readonly [P in Protocol]: number } = { route: 0, generic: 16 }
const OPTIONS: { readonly [O in ChannelOption]: number } = {
  'add-membership': 1,
  'drop-membership': 2,
  'cap-ack': 10,
  'ext-ack': 11,
  'port-id': 0x100,
  mssfix: 0x101,
  process: 0x102,
  'swap-wait-ms': 0x103,
}
/** Longest message: far beyond any of the API, and what a stalled connection may hold in memory. */
const MAX_MESSAGE_BYTES = 1 << 20

function named<T extends string>(table: { readonly [K in T]: number }, number: number) {
  return (Object.keys(table) as T[]).find((name) => table[name] === number)
}

/** The payload of an `open` message. Undefined for a protocol that is none of ours. */
export function readOpen(payload: Uint8Array): Protocol | undefined {
  return payload.length === 4 ? named(PROTOCOLS, words(payload)[0]!) : undefined
}

/** The payload of an `option` message. Undefined for an option that is none of ours. */
export function readOption(payload: Uint8Array): [ChannelOption, number] | undefined {
  if (payload.length !== 8) return undefined
  const [number, value] = words(payload)
  const option = named(OPTIONS, number!)
  return option && [option, value!]
}

function words(payload: Uint8Array): number[] {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length)
  return Array.from({ length: payload.length / 4 }, (_, i) => view.getUint32(4 * i, true))
}

/** Finds the messages in a stream. */
export class MessageStream {
  #bytes = new Uint8Array(4096)
  #length = 0

  /** The messages that `chunk` completes, as copies. Throws ApiError EPROTO or EMSGSIZE at a length that cannot be. */
  push(chunk: Uint8Array): Uint8Array[] {
    this.#append(chunk)
    const found: Uint8Array[] = []
    let at = 0
    while (this.#length - at >= 4) {
      const length = messageLength(this.#bytes, at)
      if (length < NLMSG_HDRLEN) {
        throw new ApiError('EPROTO', `a message of ${length} bytes in the stream`)
      }
      if (length > MAX_MESSAGE_BYTES) {
        throw new ApiError('EMSGSIZE', `a message of ${length} bytes in the stream`)
      }
      const end = at + align(length)
      if (end > this.#length) break
      found.push(this.#bytes.slice(at, end))
      at = end
    }
    this.#bytes.copyWithin(0, at, this.#length)
    this.#bytes.fill(0, this.#length - at, this.#length) // may hold a key
    this.#length -= at
    return found
  }

  #append(chunk: Uint8Array): void {
    const needed = this.#length + chunk.length
    if (needed > this.#bytes.length) {
      const bytes = new Uint8Array(Math.max(needed, 2 * this.#bytes.length))
      bytes.set(this.#bytes.subarray(0, this.#length))
      this.#bytes.fill(0)
      this.#bytes = bytes
    }
    this.#bytes.set(chunk, this.#length)
    this.#length = needed
  }
}

/** Connects to the driver that listens at `path`. Rejects with an ApiError where there is none, or it says no. */
export async function openUnixChannel(path: string, protocol: Protocol): Promise<Channel> {
  const socket = createConnection(path)
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', (error: NodeJS.ErrnoException) => {
      reject(unreachable(path, error))
    })
  })
  const channel = new UnixChannel(socket, protocol)
  await channel.opened
  return channel
}

function unreachable(path: string, error: NodeJS.ErrnoException): ApiError {
  const errno = errnoName(Math.abs(error.errno ?? 0)) ?? codeOf(error) ?? 'EIO'
  return new ApiError(errno, `cannot reach a driver at ${path} (${error.code ?? error.message})`)
}

/** Bun leaves `errno` out of some errors. */
function codeOf({ code }: NodeJS.ErrnoException) {
  return code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'EACCES' ? code : undefined
}

/** A channel over a connected stream socket. */
class UnixChannel implements Channel {
  readonly protocol: Protocol
  /** Settles when the other end has agreed to be a channel. */
  readonly opened: Promise<void>
  readonly #socket: Socket
  readonly #stream = new MessageStream()
  readonly #calls = new Map<number, { resolve(): void; reject(error: Error): void }>()
  #portId = 0
  #lastCall = 0
  #listener: ChannelListener | undefined
  /** What came before there was a listener. */
  #early: Uint8Array[] = []
  #ended: { error: Error | undefined } | undefined

  constructor(socket: Socket, protocol: Protocol) {
    this.#socket = socket
    this.protocol = protocol
    socket.on('data', (chunk) => this.#read(chunk))
    socket.on('error', (error) => this.#end(new ApiError('ECONNRESET', error.message)))
    socket.on('close', () => {
      this.#end(new ApiError('ECONNRESET', 'the driver closed the connection'))
    })
    this.opened = this.#call(CONTROL.OPEN, [PROTOCOLS[protocol]])
    this.opened.catch((error: Error) => this.#end(error))
  }

  get portId(): number {
    return this.#portId
  }

  listen(listener: ChannelListener): void {
    this.#listener = listener
    for (const datagram of this.#early.splice(0)) listener.received(datagram)
    if (this.#ended !== undefined) listener.closed(this.#ended.error)
  }

  send(datagram: Uint8Array): void {
    if (this.#ended === undefined) this.#socket.write(datagram)
  }

  async setOption(option: ChannelOption, value: number): Promise<void> {
    await this.#call(CONTROL.OPTION, [OPTIONS[option], value])
  }

  close(): void {
    this.#end(undefined)
  }

  #call(type: number, values: readonly number[]): Promise<void> {
    if (this.#ended !== undefined) {
      return Promise.reject(this.#ended.error ?? new ApiError('EBADF', 'the channel is closed'))
    }
    const seq = ++this.#lastCall
    const payload = new Uint8Array(4 * values.length)
    const view = new DataView(payload.buffer)
    for (const [i, value] of values.entries()) view.setUint32(4 * i, value, true)
    const flags = NLM_F.REQUEST | NLM_F.ACK
    return new Promise((resolve, reject) => {
      this.#calls.set(seq, { resolve, reject })
      this.send(message({ type, flags, seq, pid: 0 }, payload))
    })
  }

  #read(chunk: Uint8Array): void {
    if (this.#ended !== undefined) return
    try {
      for (const datagram of this.#stream.push(chunk)) {
        const [answer] = messages(datagram)
        if (answer !== undefined && isCallAnswer(answer)) this.#answered(answer)
        else if (this.#listener === undefined) this.#early.push(datagram)
        else this.#listener.received(datagram)
      }
    } catch (error) {
      this.#end(error as Error)
    }
  }

  #answered(answer: Message): void {
    const call = this.#calls.get(answer.seq)
    if (call === undefined) return
    this.#calls.delete(answer.seq)
    const { errno, text } = readAnswer(answer)
    this.#portId = answer.pid
    if (errno === 0) call.resolve()
    else call.reject(ApiError.from(errno, text))
  }

  #end(error: Error | undefined): void {
    if (this.#ended !== undefined) return
    this.#ended = { error }
    this.#socket.destroy()
    for (const call of this.#calls.values()) {
      call.reject(error ?? new ApiError('EBADF', 'the channel is closed'))
    }
    this.#calls.clear()
    this.#listener?.closed(error)
  }
}

/** Whether it answers a call rather than a request: the copy of what it answers tells. */
function isCallAnswer({ type, payload }: Message): boolean {
  if (type !== NLMSG.ERROR || payload.length < 4 + NLMSG_HDRLEN) return false
  const asked = payload[8]! | (payload[9]! << 8)
  return asked === CONTROL.OPEN || asked === CONTROL.OPTION
}

/** Milliseconds after which a request that is not answered fails: a driver answers at once or is stuck. */
const ANSWER_TIMEOUT = 30_000

export interface RequesterListener {
  /** A message that answers nothing. */
  unasked(message: Message): void
  /** Messages were lost. */
  overrun(): void
  /** The last call; `error` unless this side closed the channel. */
  closed(error: Error | undefined): void
}

interface Pending {
  readonly replies: Uint8Array[]
  readonly timer: ReturnType<typeof setTimeout>
  resolve(replies: Uint8Array[]): void
  reject(error: Error): void
}

/** The asking end of a channel: numbers requests, gathers what answers each, and tells apart what comes unasked. */
export class Requester {
  readonly #channel: Channel
  readonly #pending = new Map<number, Pending>()
  #listener: RequesterListener | undefined
  #lastSeq = 0
  /** The dump under way: a socket has one at a time. */
  #dump: Promise<unknown> = Promise.resolve()
  #closed: Error | undefined

  constructor(channel: Channel) {
    this.#channel = channel
    channel.listen({
      received: (datagram) => this.#received(datagram),
      closed: (error) => this.#end(error),
    })
  }

  /** Who is told of what was not asked for. */
  listen(listener: RequesterListener): void {
    this.#listener = listener
  }

  setOption(option: ChannelOption, value: number): Promise<void> {
    return this.#channel.setOption(option, value)
  }

  /**
   * Sends a request; REQUEST and ACK are added to its flags. Resolves to the payloads of its replies once the last was
   * acknowledged. Rejects with the ApiError that the answer is, ETIMEDOUT, or that of the channel.
   */
  request(header: { type: number; flags: number }, payload: Uint8Array): Promise<Uint8Array[]> {
    if (header.flags !== NLM_F.DUMP) return this.#send(header, payload)
    const send = () => this.#send(header, payload)
    const answer = this.#dump.then(send, send)
    this.#dump = answer
    return answer
  }

  close(): void {
    this.#channel.close()
    this.#end(undefined)
  }

  #send({ type, flags }: { type: number; flags: number }, payload: Uint8Array) {
    if (this.#closed !== undefined) return Promise.reject(this.#closed)
    // 0 marks what is unasked.
    this.#lastSeq = (this.#lastSeq + 1) >>> 0 || 1
    const seq = this.#lastSeq
    return new Promise<Uint8Array[]>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(seq)
        reject(new ApiError('ETIMEDOUT', 'the driver does not answer'))
      }, ANSWER_TIMEOUT)
      this.#pending.set(seq, { replies: [], timer, resolve, reject })
      const all = NLM_F.REQUEST | NLM_F.ACK | flags
      this.#channel.send(message({ type, flags: all, seq, pid: 0 }, payload))
    })
  }

  /** A driver that sends nonsense is as good as gone. */
  #received(datagram: Uint8Array): void {
    try {
      for (const one of messages(datagram)) this.#take(one)
    } catch (error) {
      const { message: text } = error as Error
      this.#channel.close()
      this.#end(new ApiError('EPROTO', `the driver's answer is malformed: ${text}`))
    }
  }

  #take(one: Message): void {
    if (one.type === NLMSG.OVERRUN) {
      this.#listener?.overrun()
      return
    }
    const pending = one.seq === 0 ? undefined : this.#pending.get(one.seq)
    if (pending === undefined) {
      if (one.seq === 0 && one.type >= NLMSG.MIN_TYPE) this.#listener?.unasked(one)
    } else if (one.type === NLMSG.ERROR || one.type === NLMSG.DONE) {
      this.#pending.delete(one.seq)
      clearTimeout(pending.timer)
      const { errno, text, ...detail } = readAnswer(one)
      if (errno === 0) pending.resolve(pending.replies)
      else pending.reject(ApiError.from(errno, text, known(detail)))
    } else if (one.type >= NLMSG.MIN_TYPE) {
      pending.replies.push(one.payload)
    }
  }

  #end(error: Error | undefined): void {
    if (this.#closed !== undefined) return
    this.#closed = error ?? new ApiError('EBADF', 'the channel is closed')
    for (const { timer, reject } of this.#pending.values()) {
      clearTimeout(timer)
      reject(this.#closed)
    }
    this.#pending.clear()
    this.#listener?.closed(error)
  }
}

/** Without what is undefined. */
function known<T extends object>(detail: T) {
  const entries = Object.entries(detail).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as { [K in keyof T]?: NonNullable<T[K]> }
}
