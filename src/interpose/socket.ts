/**
 * A netlink socket as the program sees it: half the driver's, half one of the kernel's own, which acts for the program. Decides
 * message by message who answers, and queues what comes from either. How the program's calls reach this, and its
 * memory, are supervisor.ts's.
 */
import type { Channel, ChannelOption } from '../driver/channel.ts'
import { GENL_ID_CTRL } from '../netlink/control.ts'
import { type Message, message, messages, NLM_F, NLMSG, readAnswer } from '../netlink/message.ts'
import { decodeLink, encodeLink, RTM } from '../netlink/route.ts'
import { E, SOCKADDR_NL } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import type { RelaySocket } from '../platform/relay.ts'
import { descriptorsIn } from './descriptors.ts'
import { KernelAnswers } from './kernel-answers.ts'

/** Something to receive; or the errno that receiving fails with, once. */
export interface Arrival {
  readonly bytes: Uint8Array
  /** `sockaddr_nl` of the sender. */
  readonly from: Uint8Array
  readonly errno?: number
  /** Answers nothing: a notification of the driver. */
  readonly isNews?: true
}

export interface SocketOptions {
  readonly channel: Channel
  readonly relay: RelaySocket
  /** Numbers of the driver's families and of their groups. */
  readonly families: ReadonlySet<number>
  readonly groups: ReadonlySet<number>
  /** A duplicate of what the program has as `fd`, this one's to close; undefined where it has nothing there. */
  takeFd(fd: number): number | undefined
  /** Something has arrived. */
  arrived(): void
  /** A request of one of the driver's families was carried out; what this does is done before the program goes on. */
  done(family: number, payload: Uint8Array): Promise<void>
}

const ENOENT = 2
const EOPNOTSUPP = 95
const SOL_NETLINK = 270
const OPTION = { ADD_MEMBERSHIP: 1, DROP_MEMBERSHIP: 2, CAP_ACK: 10, EXT_ACK: 11 } as const
/** What may wait unread. Beyond this, the kernel keeps what it has, and what the driver says is lost, as ENOBUFS tells. */
const QUEUE_BYTES = 1 << 20

export class VirtualSocket {
  readonly queue: Arrival[] = []
  readonly #options: SocketOptions
  #queued = 0
  #lastBarrier = 0
  /** The request that the driver is answering. */
  #asking: { barrier: number; answers: Uint8Array[]; done(): void } | undefined
  /** Requests are carried out one after another. */
  #turn: Promise<unknown> = Promise.resolve()
  #closed = false
  /** Then the kernel answers everything, as one that never had a driver. */
  #driverGone = false
  readonly #answers = new KernelAnswers()

  constructor(options: SocketOptions) {
    this.#options = options
    options.channel.listen({
      received: (datagram) => this.#fromDriver(datagram),
      closed: () => {
        this.#driverGone = true
        this.#asking?.done()
      },
    })
  }

  /**
   * Takes a datagram of the program; resolves to 0 when all of it was answered, or to -errno. `begins` is called when its turn
   * has come: several processes may share the socket.
   */
  send(
    datagram: Uint8Array,
    privileged: boolean,
    begins: () => Promise<void> | void,
  ): Promise<number> {
    const sent = this.#turn.then(async () => {
      await begins()
      return this.#send(datagram, privileged)
    })
    this.#turn = sent.catch(() => undefined)
    return sent
  }

  bind(address: Uint8Array): number {
    const result = this.#options.relay.bind(address)
    if (result >= 0) this.#tellPort()
    return result
  }

  async setOption(level: number, name: number, value: Uint8Array): Promise<number> {
    const { relay, groups } = this.#options
    if (level !== SOL_NETLINK || value.length < 4) return relay.setOption(level, name, value)
    const number = new DataView(value.buffer, value.byteOffset).getUint32(0, true)
    const joins = name === OPTION.ADD_MEMBERSHIP
    if ((joins || name === OPTION.DROP_MEMBERSHIP) && groups.has(number) && !this.#driverGone) {
      await this.#tell(joins ? 'add-membership' : 'drop-membership', number)
      return 0
    }
    if (name === OPTION.EXT_ACK) await this.#tell('ext-ack', number)
    if (name === OPTION.CAP_ACK) await this.#tell('cap-ack', number)
    return relay.setOption(level, name, value)
  }

  /** Queues what the kernel has sent, as far as there is room: false when there is none, and the rest stays where it is. */
  takeFromKernel(): boolean {
    while (!this.#closed) {
      if (this.#isFull) return false
      const got = this.#options.relay.receive()
      if (typeof got !== 'number') {
        const bytes = this.#answers.amend(got.bytes)
        if (bytes.length > 0) this.#push({ ...got, bytes })
      } else if (got === -E.EAGAIN) return true
      else {
        this.#fail(-got)
        if (got !== -E.ENOBUFS) return true
      }
    }
    return true
  }

  /** The next arrival was received. */
  shift(): void {
    const taken = this.queue.shift()
    this.#queued -= taken?.bytes.length ?? 0
  }

  close(): void {
    this.#closed = true
    this.#options.channel.close()
    this.#options.relay[Symbol.dispose]()
    this.#asking?.done()
  }

  async #send(datagram: Uint8Array, privileged: boolean): Promise<number> {
    if (this.#closed) return -E.EIO
    let all: Message[]
    try {
      all = [...messages(datagram)]
    } catch {
      return this.#toKernel(datagram) // it ignores what follows a bad length
    }
    if (!all.some((one) => this.#isOurs(one))) {
      if (!privileged && all.some((one) => changes(one, this.#options.channel.protocol))) {
        return -E.EPERM
      }
      const [only] = all
      // Several go together: the kernel carries them out without a pause.
      const isAsIs = only === undefined || all.length > 1
      return this.#toKernel(isAsIs ? datagram : await this.#asKernelIsAsked(only))
    }
    this.#tellPort()
    const news = this.#takeNews()
    try {
      return await this.#carryOut(all, privileged, news)
    } finally {
      this.queue.push(...news)
      if (news.length > 0) this.#options.arrived()
    }
  }

  /**
   * Takes out what waits and answers nothing: it is put back behind the answers. Whoever waits for answers may drop what
   * comes before them (OpenVPN 2.6 does, and would never learn that a peer is gone).
   */
  #takeNews(): Arrival[] {
    const news = this.queue.filter(({ isNews }) => isNews)
    if (news.length === 0) return news
    const others = this.queue.filter(({ isNews }) => !isNews)
    this.queue.splice(0, this.queue.length, ...others)
    return news
  }

  /** Adds to `news` what arrives before an answer. */
  async #carryOut(all: readonly Message[], privileged: boolean, news: Arrival[]): Promise<number> {
    for (const one of all) {
      const answers = this.#isOurs(one) ? await this.#ask(one) : undefined
      if (answers !== undefined && !this.#isForKernel(one, answers)) {
        const isDone = this.#options.families.has(one.type) && refusalOf(answers) === 0
        const isDump = (one.flags & NLM_F.DUMP) === NLM_F.DUMP
        if (isDone && !isDump) await this.#options.done(one.type, one.payload)
        news.push(...this.#takeNews())
        // As many answers as a dump has, but not those of a program that never reads.
        if (this.#isFull) this.#fail(E.ENOBUFS)
        else for (const bytes of answers) this.#push({ bytes, from: KERNEL })
      } else if (!privileged && changes(one, this.#options.channel.protocol)) {
        return -E.EPERM
      } else {
        const sent = this.#toKernel(await this.#asKernelIsAsked(one))
        if (sent < 0) return sent
      }
    }
    return 0
  }

  #isOurs({ type, flags, payload }: Message): boolean {
    if (this.#driverGone) return false
    const { channel, families } = this.#options
    const isDump = (flags & NLM_F.DUMP) === NLM_F.DUMP
    if (channel.protocol === 'generic') {
      return families.has(type) || (type === GENL_ID_CTRL && !isDump)
    }
    return (type === RTM.NEWLINK || type === RTM.DELLINK) && isWellFormed(payload)
  }

  /** The kernel answers what it knows of all links and families, and kernel-answers.ts what it does not. */
  #asksForLinks({ type }: Message): boolean {
    return this.#options.channel.protocol === 'route' && type === RTM.GETLINK
  }

  #asksForFamilies({ type, flags }: Message): boolean {
    const isDump = (flags & NLM_F.DUMP) === NLM_F.DUMP
    return this.#options.channel.protocol === 'generic' && type === GENL_ID_CTRL && isDump
  }

  async #learnLinks(): Promise<void> {
    const flags = NLM_F.REQUEST | NLM_F.DUMP
    const request = message({ type: RTM.GETLINK, flags, seq: 1, pid: 0 }, encodeLink({}))
    const [asked] = messages(request)
    this.#answers.learnLinks((await this.#ask(asked!)) ?? [])
  }

  /** What the kernel is asked for a program's messages that are not the driver's. */
  async #asKernelIsAsked(one: Message): Promise<Uint8Array> {
    if (this.#driverGone) return one.bytes
    if (this.#asksForLinks(one)) {
      await this.#learnLinks()
      return this.#answers.linkRequest(one)
    }
    if (this.#asksForFamilies(one)) {
      const answers = (await this.#ask(one)) ?? []
      this.#answers.learnFamilies(one, answers, this.#options.families)
    }
    return one.bytes
  }

  /** Whether the driver has refused because it is not meant. */
  #isForKernel({ type }: Message, answers: readonly Uint8Array[]): boolean {
    const errno = refusalOf(answers)
    if (this.#options.channel.protocol === 'route') return errno === EOPNOTSUPP
    return type === GENL_ID_CTRL && (errno === ENOENT || errno === EOPNOTSUPP)
  }

  /**
   * Has the driver answer; a message that only asks to be acknowledged, sent behind it, tells when it has. Undefined when the
   * driver ends meanwhile.
   */
  async #ask({ bytes }: Message): Promise<Uint8Array[] | undefined> {
    if (this.#driverGone) return undefined
    const barrier = ++this.#lastBarrier
    const flags = NLM_F.REQUEST | NLM_F.ACK
    const answers: Uint8Array[] = []
    const answered = new Promise<void>((done) => {
      this.#asking = { barrier, answers, done }
    })
    this.#options.channel.send(bytes)
    const header = { type: NLMSG.NOOP, flags, seq: barrier, pid: 0 }
    this.#options.channel.send(message(header, new Uint8Array(0)))
    await answered
    this.#asking = undefined
    return this.#driverGone ? undefined : answers
  }

  #fromDriver(datagram: Uint8Array): void {
    const [first] = messages(datagram)
    if (first === undefined || first.type === NLMSG.OVERRUN) return
    const asking = this.#asking
    if (asking !== undefined && isBarrier(first, asking.barrier)) asking.done()
    else if (asking !== undefined && (first.seq !== 0 || first.pid !== 0)) {
      asking.answers.push(datagram)
    } else if (this.#isFull) this.#fail(E.ENOBUFS)
    else this.#push({ bytes: datagram, from: KERNEL, isNews: true })
  }

  async #tell(option: ChannelOption, value: number): Promise<void> {
    try {
      await this.#options.channel.setOption(option, value)
    } catch (error) {
      if (!this.#driverGone) throw error
    }
  }

  #toKernel(datagram: Uint8Array): number {
    const { relay, channel } = this.#options
    const taken =
      channel.protocol === 'route' ? this.#takeDescriptors(datagram) : { datagram, close() {} }
    const sent = relay.send(taken.datagram)
    taken.close()
    // It has answered before the call returns.
    this.takeFromKernel()
    return sent < 0 ? sent : 0
  }

  /** The datagram with descriptors of this process in place of the program's. One that it has not stays one that nobody has. */
  #takeDescriptors(datagram: Uint8Array): { datagram: Uint8Array; close(): void } {
    const places = descriptorsIn(datagram)
    if (places.length === 0) return { datagram, close() {} }
    const { takeFd } = this.#options
    const own = datagram.slice()
    const view = new DataView(own.buffer)
    const fds = places.map((at) => takeFd(view.getInt32(at, true)))
    for (const [i, at] of places.entries()) view.setInt32(at, fds[i] ?? -1, true)
    const { close } = openLibc()
    return {
      datagram: own,
      close() {
        for (const fd of fds) if (fd !== undefined) close(fd)
      },
    }
  }

  get #isFull(): boolean {
    return this.#queued >= QUEUE_BYTES
  }

  /** The next call to receive fails, whatever waits. */
  #fail(errno: number): void {
    if (this.queue[0]?.errno === errno) return
    const none = new Uint8Array(0)
    this.queue.unshift({ bytes: none, from: none, errno })
    this.#options.arrived()
  }

  #push(arrival: Arrival): void {
    this.queue.push(arrival)
    this.#queued += arrival.bytes.length
    this.#options.arrived()
  }

  /** Answers of both carry one address. */
  #tellPort(): void {
    const { channel, relay } = this.#options
    const name = relay.name()
    if (typeof name === 'number') return
    const port = new DataView(name.buffer).getUint32(SOCKADDR_NL.pid, true)
    if (port !== 0 && port !== channel.portId) void this.#tell('port-id', port)
  }
}

/** Whether it is a request about a link that can be read. The kernel has errors of its own for others. */
function isWellFormed(payload: Uint8Array): boolean {
  try {
    decodeLink(payload)
    return true
  } catch {
    return false
  }
}

/** Address of messages from the kernel: family 16, all else 0. */
const KERNEL = Uint8Array.of(16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

function isBarrier({ type, payload }: Message, barrier: number): boolean {
  if (type !== NLMSG.ERROR || payload.length < 20) return false
  const view = new DataView(payload.buffer, payload.byteOffset)
  return view.getUint16(8, true) === NLMSG.NOOP && view.getUint32(12, true) === barrier
}

/** The errno of the answer, 0 where there is none. */
function refusalOf(answers: readonly Uint8Array[]): number {
  for (const datagram of answers) {
    for (const one of messages(datagram)) {
      if (one.type === NLMSG.ERROR) return readAnswer(one).errno
    }
  }
  return 0
}

/**
 * Whether the kernel asks for CAP_NET_ADMIN before it carries it out. The relaying socket has that; the program may have
 * given it up.
 */
function changes({ type }: Message, protocol: 'route' | 'generic'): boolean {
  if (type < NLMSG.MIN_TYPE) return false
  return protocol === 'route' ? (type & 3) !== 2 : type !== GENL_ID_CTRL
}
