/**
 * A Channel over one of the kernel's own netlink sockets, for the driver that the kernel has. The socket is platform's.
 *
 * The kernel answers while the request is being sent, so answers are read right behind it; notifications come at any
 * time, and are looked for now and then.
 */
import type { Channel, ChannelListener, ChannelOption, Protocol } from '../driver/channel.ts'
import { message, NLMSG } from '../netlink/message.ts'
import { OsError } from '../platform/error.ts'
import { type NetlinkSocket, openNetlink } from '../platform/netlink.ts'
import { ApiError } from '../uapi/errno.ts'

const NUMBER: { readonly [P in Protocol]: number } = { route: 0, generic: 16 }
/** How often notifications are looked for, in ms: soon to a person. */
const LOOK_MS = 50
/** Datagrams taken at once. */
const TAKE_LIMIT = 256

export class KernelChannel implements Channel {
  readonly protocol: Protocol
  /** The kernel addresses its answers itself. */
  readonly portId = 0
  readonly #socket: NetlinkSocket
  readonly #timer: NodeJS.Timeout
  #listener: ChannelListener | undefined
  #closed = false

  /** Throws an ApiError with the errno of the call that failed. */
  constructor(protocol: Protocol) {
    this.protocol = protocol
    this.#socket = asApi(() => openNetlink(NUMBER[protocol]))
    this.#timer = setInterval(() => this.#take(), LOOK_MS)
  }

  listen(listener: ChannelListener): void {
    this.#listener = listener
  }

  send(datagram: Uint8Array): void {
    if (this.#closed) return
    try {
      this.#socket.send(datagram)
    } catch (error) {
      this.#end(refusalOf(error))
      return
    }
    // Not from within send(): the requester notes what it has sent first.
    queueMicrotask(() => this.#take())
  }

  async setOption(option: ChannelOption, value: number): Promise<void> {
    if (option === 'add-membership') asApi(() => this.#socket.join(value))
    // The socket has extended acknowledgements anyway.
    else if (option !== 'ext-ack') throw new ApiError('ENOPROTOOPT', `${option} is not used here`)
  }

  close(): void {
    this.#end(undefined)
  }

  #take(): void {
    for (let i = 0; i < TAKE_LIMIT && !this.#closed; i++) {
      let datagram: Uint8Array | undefined
      try {
        datagram = this.#socket.receive(0)
      } catch (error) {
        const refusal = refusalOf(error)
        if (refusal.errno !== 'ENOBUFS') {
          this.#end(refusal)
          return
        }
        datagram = message({ type: NLMSG.OVERRUN, flags: 0, seq: 0, pid: 0 }, new Uint8Array(0))
      }
      if (datagram === undefined) return
      this.#listener?.received(datagram)
    }
    if (!this.#closed) setTimeout(() => this.#take(), 0)
  }

  #end(error: Error | undefined): void {
    if (this.#closed) return
    this.#closed = true
    clearInterval(this.#timer)
    this.#socket.close()
    this.#listener?.closed(error)
  }
}

function asApi<T>(step: () => T): T {
  try {
    return step()
  } catch (error) {
    throw refusalOf(error)
  }
}

function refusalOf(error: unknown): ApiError {
  if (error instanceof OsError) return ApiError.from(error.errno, error.message)
  return new ApiError('EIO', String(error))
}
