/**
 * One netlink socket as the server sees it: its options and memberships, its requests one after another, and what goes
 * out to it, bounded. What a request means is server.ts's.
 *
 * A transport that is full (a unix socket whose reader is slow) stops that port only. Answers wait for it, and with
 * them the requests behind; a notification that finds more than a socket's buffer waiting is lost, and NLMSG_OVERRUN tells
 * of that as soon as there is room.
 */
import { type Message, message, messages, NLM_F, NLMSG } from '../netlink/message.ts'
import type { PeerNew } from '../uapi/types.ts'
import type { Protocol } from './channel.ts'

/** What may wait in a port: the receive buffer that OpenVPN gives its netlink socket. */
const QUEUE_BYTES = 1 << 20

/** What carries a port's datagrams. */
export interface PortTransport {
  /** Sends a datagram; false when it was taken but no more should come before `drained`. */
  write(datagram: Uint8Array): boolean
  /** A request was answered. */
  answered?(): void
}

export interface PortOptions {
  readonly protocol: Protocol
  readonly portId: number
  readonly transport: PortTransport
  /** Answers one request through `answer` and `answerAll`. Never rejects. */
  handle(request: PortRequest): Promise<void>
}

export interface PortRequest extends Message {
  /** Whether it asks for all there is. */
  readonly dump: boolean
  /** A dump that came while another one had not been answered to its end. */
  readonly busy: boolean
}

export class Port {
  readonly protocol: Protocol
  portId: number
  extAck = false
  capAck = false
  /** What peers have that are added without. */
  readonly peerDefaults: Partial<Pick<PeerNew, 'mssfix' | 'swapWaitMs'>> = {}
  readonly groups = new Set<number>()
  readonly #options: PortOptions
  readonly #requests: PortRequest[] = []
  readonly #outgoing: Uint8Array[] = []
  #outgoingBytes = 0
  /** Notifications for after the answer. */
  readonly #held: Uint8Array[] = []
  #heldBytes = 0
  #lost = 0
  #full = false
  #handling = false
  /** The dump that is not yet answered to its end. */
  #dump: PortRequest | undefined
  #current: PortRequest | undefined
  #closed = false
  #room: (() => void) | undefined
  readonly #onClose: (() => void)[] = []

  constructor(options: PortOptions) {
    this.#options = options
    this.protocol = options.protocol
    this.portId = options.portId
  }

  /** How many requests wait. */
  get waiting(): number {
    return this.#requests.length
  }

  get closed(): boolean {
    return this.#closed
  }

  onClose(listener: () => void): void {
    if (this.#closed) listener()
    else this.#onClose.push(listener)
  }

  /**
   * Takes a datagram, which is the port's from now on and is wiped once answered: it may hold a key. As in the kernel,
   * what follows a bad length is ignored.
   */
  receive(datagram: Uint8Array): void {
    if (this.#closed) return
    try {
      for (const request of messages(datagram)) {
        const dump = this.#isDump(request)
        // Answers go to the address of the socket, whatever the sender wrote into its message.
        const busy = dump && this.#dump !== undefined
        const asked = { ...request, pid: this.portId, dump, busy }
        this.#requests.push(asked)
        if (dump && !busy) this.#dump = asked
      }
    } catch {
      // Whoever cannot count the bytes of a message cannot be told about it either.
    }
    if (!this.#handling) void this.#handleAll()
  }

  async #handleAll(): Promise<void> {
    this.#handling = true
    for (;;) {
      const request = this.#requests.shift()
      if (request === undefined || this.#closed) break
      this.#current = request
      await this.#options.handle(request)
      this.#dumped()
      request.bytes.fill(0)
      this.#options.transport.answered?.()
      await this.#roomy()
    }
    this.#handling = false
    for (const datagram of this.#held.splice(0)) this.#send(datagram)
    this.#heldBytes = 0
    if (this.#lost > 0 && !this.#full) this.#tellLost()
  }

  /** rtnetlink takes either bit, and only with requests that read, as the bits mean something else elsewhere. */
  #isDump({ type, flags }: Message): boolean {
    const bits = flags & NLM_F.DUMP
    return this.protocol === 'route' ? (type & 3) === 2 && bits !== 0 : bits === NLM_F.DUMP
  }

  /** Sends a datagram of an answer. */
  answer(datagram: Uint8Array): void {
    this.#dumped()
    this.#send(datagram)
  }

  /** Sends the datagrams of a dump, each when there is room for it. */
  async answerAll(datagrams: Iterable<Uint8Array>): Promise<void> {
    for (const datagram of datagrams) {
      await this.#roomy()
      if (this.#closed) return
      this.#send(datagram)
    }
    this.#dumped()
  }

  /** The reader may ask for the next dump as soon as it has the last datagram of this one. */
  #dumped(): void {
    if (this.#dump === this.#current) this.#dump = undefined
  }

  /** Sends a notification; with `late`, not between a request and its answer. */
  notify(datagram: Uint8Array, late = false): void {
    if (this.#closed) return
    const hold = late && this.#handling
    const waiting = hold ? this.#heldBytes : this.#outgoingBytes
    // Once one is lost, all are until the reader has caught up: it must not take the rest for the whole.
    if (this.#lost > 0 || waiting + datagram.length > QUEUE_BYTES) {
      this.#lost++
    } else if (hold) {
      this.#held.push(datagram)
      this.#heldBytes += datagram.length
    } else {
      this.#send(datagram)
    }
  }

  /** The transport has room again. */
  drained(): void {
    this.#full = false
    while (!this.#full) {
      const datagram = this.#outgoing.shift()
      if (datagram === undefined) break
      this.#outgoingBytes -= datagram.length
      this.#full = !this.#options.transport.write(datagram)
    }
    if (this.#outgoing.length > 0) return
    if (this.#lost > 0) this.#tellLost()
    if (this.#full) return
    this.#room?.()
    this.#room = undefined
  }

  #tellLost(): void {
    this.#lost = 0
    const overrun = { type: NLMSG.OVERRUN, flags: 0, seq: 0, pid: 0 }
    this.#full = !this.#options.transport.write(message(overrun, new Uint8Array(0)))
  }

  #send(datagram: Uint8Array): void {
    if (this.#closed) return
    if (this.#full) {
      this.#outgoing.push(datagram)
      this.#outgoingBytes += datagram.length
    } else {
      this.#full = !this.#options.transport.write(datagram)
    }
  }

  #roomy(): Promise<void> {
    if (!this.#full || this.#closed) return Promise.resolve()
    return new Promise((resolve) => {
      this.#room = resolve
    })
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#requests.length = 0
    this.#outgoing.length = 0
    this.#held.length = 0
    this.#room?.()
    for (const listener of this.#onClose.splice(0)) listener()
  }
}
