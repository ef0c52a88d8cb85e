/**
 * The driver's end of every channel: does what the kernel does between a netlink socket and a driver. Finds the family,
 * has its dialect decode the request, asks the backend, and answers; carries events to the members of groups. Knows
 * nothing of devices: those are the backend's.
 *
 * Checks come in the kernel's order (netlink-api 1.3): family, header and flags, command, permission, attributes.
 * The requests of one channel are answered one after another; what its port does beyond that stands in port.ts.
 * An event raised while a request runs goes out before its ACK in the dialect `ovpn`, as the kernel's driver does, and
 * after it in the older ones, whose programs would lose it otherwise (netlink-api 2.4).
 */
import type { Duplex } from 'node:stream'
import { attributes } from '../netlink/attribute.ts'
import { answerControl, type Family, GENL_ID_CTRL } from '../netlink/control.ts'
import {
  ack,
  type Complaint,
  dump,
  GENL_HDRLEN,
  message,
  NLM_F,
  NLMSG,
  NLMSG_HDRLEN,
  readGenericHeader,
  refusal,
} from '../netlink/message.ts'
import { RTM } from '../netlink/route.ts'
import { type Dialect, dialects } from '../uapi/dialects/index.ts'
import { ApiError, errnoNumber } from '../uapi/errno.ts'
import { type Command, commands, MSSFIX_MAX, SWAP_WAIT_MAX } from '../uapi/spec.ts'
import type { DialectName, DriverEvent, Link, Reply, Request } from '../uapi/types.ts'
import type { Channel, ChannelListener, ChannelOption, Protocol } from './channel.ts'
import { Port, type PortRequest, type PortTransport } from './port.ts'
import { answerRoute, dumpRoute, type LinkChange, type LinkRequests } from './route-requests.ts'
import { serveStream } from './stream-end.ts'

/** Who is at the other end of a channel: told by whoever let them in. */
export interface Origin {
  /** Identity of their network namespace, 'dev:ino'. */
  readonly netns: string
  /** Whether they may configure it; who may connect at all is decided elsewhere. */
  readonly privileged: boolean
  /** A descriptor of this process for what they have as `fd`, the receiver's to close. Throws ApiError ENOTSOCK. */
  takeFd(fd: number): number
  /**
   * Tells later whether they still have the socket of that cookie as `fd`; for streams, which a descriptor of ours keeps
   * open. To be closed; outlives the channel. Where it is missing, nobody knows.
   */
  watchFd?(fd: number, cookie: bigint): FdWatch
  /** A descriptor of their network namespace, the receiver's to close. */
  openNetns(): number
  /** Identity of the process that connected, where there is one. */
  readonly process?: string
  /**
   * The same channel, used for another process, whose namespace, capabilities and descriptors count from then on; asked of
   * that again, whose descriptors. Interfaces made so end with the last channel of the process that connected. Throws
   * ApiError EPERM, ESRCH.
   */
  actFor?(tid: number): Origin
  /** Whether it is used so. */
  readonly acting?: boolean
}

export interface FdWatch {
  isOpen(): boolean
  close(): void
}

/** Who asks, through one channel and in one dialect. The same object for every request. */
export interface Caller extends Pick<Origin, 'netns' | 'privileged' | 'takeFd' | 'openNetns'> {
  readonly portId: number
  /** The process with whose last channel interfaces are to end that are made for this caller, if there is one. */
  readonly keeper: string | undefined
  /** Origin's; undefined where nobody knows. */
  watchFd(fd: number, cookie: bigint): FdWatch | undefined
  /** Calls back when their channel closes. */
  onClose(listener: () => void): void
  /** Tells them alone. */
  deliver(event: DriverEvent): void
}

/** Who is told of an event: members of the `peers` group of these dialects, in that network namespace. */
export interface EventScope {
  readonly netns: string
  readonly dialects: readonly DialectName[]
}

export interface Backend {
  /** Carries out what is no dump. Resolves to the reply, if the command has one; rejects with an ApiError. */
  request(request: Request, caller: Caller, dialect: DialectName): Promise<unknown>
  /** All there is to a dump. Rejects with an ApiError. */
  dump(request: Request, caller: Caller, dialect: DialectName): Promise<unknown[]>
  onEvent(listener: (event: DriverEvent, scope: EventScope) => void): void
  /** Rejects with the ApiError of a request about this interface, were there nothing else wrong with it. */
  lookUp?(ifindex: number, caller: Caller, dialect: DialectName): Promise<void>
  /** What RTM_NEWLINK changes of a link; without it, nothing can be changed. Rejects with an ApiError. */
  changeLink?(ifindex: number, change: LinkChange, caller: Caller): Promise<void>
  /** The last channel of a keeper has been closed. */
  keeperGone?(keeper: string): void
}

export interface ServerOptions {
  log(text: string): void
}

/**
 * Numbers of families and groups: from the far end of what is given out (1023 is the last), so that they are none of the
 * machine's own.
 */
const FIRST_FAMILY = 1001
const FIRST_GROUP = 1001

interface Served {
  readonly dialect: Dialect
  readonly family: Family
  readonly group: number
}

const served: readonly Served[] = Object.values(dialects).map((dialect, i) => ({
  dialect,
  family: dialect.info(FIRST_FAMILY + i, FIRST_GROUP + i),
  group: FIRST_GROUP + i,
}))

/** A channel's port with those behind it. */
interface Client {
  readonly port: Port
  origin: Origin
  readonly callers: Map<DialectName, Caller>
}

export class NetlinkServer {
  readonly #backend: Backend
  readonly #options: ServerOptions
  readonly #clients = new Map<Port, Client>()
  #lastPortId = 0

  constructor(backend: Backend, options: ServerOptions) {
    this.#backend = backend
    this.#options = options
    backend.onEvent((event, scope) => this.#multicast(event, scope))
  }

  /** A channel within this process. */
  channel(protocol: Protocol, origin: Origin): Channel {
    return new InProcessChannel(
      protocol,
      (transport) => this.#connect(protocol, origin, transport),
      (port, option, value) => this.#setOption(port, option, value),
    )
  }

  /** Serves a connection that carries a stream of messages (channel.ts), until either end closes it. */
  accept(stream: Duplex, origin: Origin): void {
    serveStream(stream, {
      connect: (protocol, transport) => this.#connect(protocol, origin, transport),
      setOption: (port, option, value) => this.#setOption(port, option, value),
      complaint: (error) => this.#complaint(error),
      log: (text) => this.#options.log(text),
    })
  }

  /** Closes every channel. */
  close(): void {
    for (const port of this.#clients.keys()) port.close()
  }

  #connect(protocol: Protocol, origin: Origin, transport: PortTransport): Port {
    const portId = ++this.#lastPortId
    const handle = (request: PortRequest) => this.#handle(request, client)
    const port = new Port({ protocol, portId, transport, handle })
    const client: Client = { port, origin, callers: new Map() }
    this.#clients.set(port, client)
    port.onClose(() => this.#left(port, origin))
    return port
  }

  #left(port: Port, { process }: Origin): void {
    this.#clients.delete(port)
    if (process === undefined) return
    const others = [...this.#clients.values()]
    if (!others.some(({ origin }) => origin.process === process)) {
      this.#backend.keeperGone?.(process)
    }
  }

  /** What setsockopt() and bind() do, and what else can be said of a channel. Throws ApiError. */
  #setOption(port: Port, option: ChannelOption, value: number): void {
    if (option !== 'process') {
      setOption(port, option, value)
      return
    }
    const client = this.#clients.get(port)
    const acting = client?.origin.actFor?.(value)
    if (acting === undefined) throw new ApiError('EOPNOTSUPP', 'only who connected can be another')
    client!.origin = acting
  }

  #caller(client: Client, dialect: Dialect): Caller {
    const known = client.callers.get(dialect.name)
    if (known !== undefined) return known
    const { port } = client
    const caller: Caller = {
      get netns() {
        return client.origin.netns
      },
      get privileged() {
        return client.origin.privileged
      },
      get keeper() {
        return client.origin.acting ? client.origin.process : undefined
      },
      takeFd: (fd) => client.origin.takeFd(fd),
      watchFd: (fd, cookie) => client.origin.watchFd?.(fd, cookie),
      openNetns: () => client.origin.openNetns(),
      get portId() {
        return port.portId
      },
      onClose: (listener) => port.onClose(listener),
      deliver: (event) => {
        const family = served.find((one) => one.dialect === dialect)!
        const datagram = encodeEvent(family, event)
        if (datagram !== undefined) port.notify(datagram, isLate(dialect))
      },
    }
    client.callers.set(dialect.name, caller)
    return caller
  }

  #multicast(event: DriverEvent, scope: EventScope): void {
    for (const family of served) {
      if (!scope.dialects.includes(family.dialect.name)) continue
      const datagram = encodeEvent(family, event)
      if (datagram === undefined) continue
      for (const { port, origin } of this.#clients.values()) {
        if (!port.groups.has(family.group) || origin.netns !== scope.netns) continue
        port.notify(datagram, isLate(family.dialect))
      }
    }
  }

  /** Answers a request, whatever comes. */
  async #handle(request: PortRequest, client: Client): Promise<void> {
    const { port } = client
    try {
      // The kernel takes no notice of messages that are none of a program's requests.
      const isRequest = (request.flags & NLM_F.REQUEST) !== 0 && request.type >= NLMSG.MIN_TYPE
      if (isRequest) {
        if (request.busy) throw new ApiError('EBUSY', 'another dump of this socket is not read')
        if (port.protocol === 'route') await this.#route(request, client)
        else await this.#generic(request, client)
        if (request.dump) return
      }
      if ((request.flags & NLM_F.ACK) !== 0) port.answer(ack(request))
    } catch (error) {
      port.answer(refusal(request, this.#complaint(located(error, request)), port))
    } finally {
      // What it has made after its channel was closed is not to stay.
      if (port.closed) this.#left(port, client.origin)
    }
  }

  /** A handler's complaint comes behind those about the interface. */
  async #decode(
    request: PortRequest,
    dialect: Dialect,
    caller: Caller,
  ): Promise<Request | ApiError> {
    try {
      const decoded = decode(request, dialect, caller.privileged)
      if (decoded instanceof ApiError) await this.#lookUp(decoded, dialect, caller)
      return decoded
    } catch (error) {
      await this.#lookUp(error, dialect, caller)
      throw error
    }
  }

  async #lookUp(error: unknown, dialect: Dialect, caller: Caller): Promise<void> {
    if (!(error instanceof ApiError) || error.ifindex === undefined) return
    await this.#backend.lookUp?.(error.ifindex, caller, dialect.name)
  }

  #complaint(error: unknown): Complaint {
    if (!(error instanceof ApiError)) {
      this.#options.log(`a request failed: ${(error as Error).stack ?? error}`)
      return { errno: errnoNumber('EIO'), text: 'the driver failed' }
    }
    const { errno, message, offset, missType, missNest } = error
    const text = message === errno ? undefined : message // said nothing but that
    return { errno: errnoNumber(errno), text, offset, missType, missNest }
  }

  async #generic(request: PortRequest, client: Client): Promise<void> {
    if (request.type === GENL_ID_CTRL) return this.#control(request, client.port)
    const found = served.find(({ family }) => family.id === request.type)
    if (found === undefined) throw new ApiError('ENOENT', 'no such family')
    checkFlags(request)
    const caller = this.#caller(client, found.dialect)
    const decoded = await this.#decode(request, found.dialect, caller)
    if (request.dump) return this.#dump(request, client.port, found, caller, decoded)
    if (decoded instanceof ApiError) throw decoded
    if (decoded.command === 'peer-new') {
      decoded.args.peer = { ...client.port.peerDefaults, ...decoded.args.peer }
    }
    const value = await this.#backend.request(decoded, caller, found.dialect.name)
    const command: Command = commands[decoded.command]
    if (command.reply === undefined) return
    const payload = found.dialect.encodeReply(decoded.command, value as Reply)
    client.port.answer(message({ ...request, flags: 0 }, payload))
  }

  async #dump(
    request: PortRequest,
    port: Port,
    { dialect, family }: Served,
    caller: Caller,
    decoded: Request | ApiError,
  ): Promise<void> {
    let payloads: Uint8Array[] = []
    let complaint: Complaint | undefined
    try {
      if (decoded instanceof ApiError) throw decoded
      const values = await this.#backend.dump(decoded, caller, dialect.name)
      payloads = values.map((value) => dialect.encodeReply(decoded.command, value as Reply))
    } catch (error) {
      complaint = this.#complaint(located(error, request))
    }
    await port.answerAll(dump(request, family.id, payloads, complaint, port))
  }

  async #control(request: PortRequest, port: Port): Promise<void> {
    const families = served.map(({ family }) => family)
    const answer = answerControl(request.payload, request, families)
    if (!Array.isArray(answer)) throw ApiError.from(-answer)
    if (request.dump) {
      await port.answerAll(dump(request, GENL_ID_CTRL, answer, undefined, port))
    } else {
      for (const payload of answer) port.answer(message({ ...request, flags: 0 }, payload))
    }
  }

  async #route(request: PortRequest, client: Client): Promise<void> {
    const { port, origin } = client
    const links = this.#links(client)
    if (request.dump) {
      const payloads = await dumpRoute(request, links)
      await port.answerAll(dump(request, RTM.NEWLINK, payloads, undefined, port))
      return
    }
    // Reading is for everyone.
    if ((request.type & 3) !== 2 && !origin.privileged) {
      throw new ApiError('EPERM', 'needs CAP_NET_ADMIN')
    }
    const reply = await answerRoute(request, links)
    if (reply === undefined) return
    port.answer(message({ ...request, type: RTM.NEWLINK, flags: 0 }, reply))
  }

  /** What route requests come down to; the dialect plays no part in any of it. */
  #links(client: Client): LinkRequests {
    const dialect = dialects.ovpn
    const caller = this.#caller(client, dialect)
    const backend = this.#backend
    return {
      create: async (link) => {
        const request: Request = { command: 'link-new', args: { link } }
        return (await backend.request(request, caller, dialect.name)) as Link
      },
      remove: async (ifindex) => {
        await backend.request({ command: 'link-del', args: { ifindex } }, caller, dialect.name)
      },
      change: async (ifindex, change) => {
        if (backend.changeLink === undefined) {
          throw new ApiError('EOPNOTSUPP', 'links cannot be changed here')
        }
        await backend.changeLink(ifindex, change, caller)
      },
      all: async () => {
        const request: Request = { command: 'link-get', args: {}, dump: true }
        return (await backend.dump(request, caller, dialect.name)) as Link[]
      },
    }
  }
}

/** Whether a dialect's events wait for the answer to a request that is under way. */
const isLate = (dialect: Dialect): boolean => dialect.name !== 'ovpn'

function encodeEvent({ dialect, family }: Served, event: DriverEvent): Uint8Array | undefined {
  const payload = dialect.encodeEvent(event)
  return payload && message({ type: family.id, flags: 0, seq: 0, pid: 0 }, payload)
}

/** A complaint about the interface says where in the request it is named, as the kernel's does. */
function located(error: unknown, { payload }: PortRequest): unknown {
  const isMeant =
    error instanceof ApiError && error.errno === 'EINVAL' && error.attribute === 'ifindex'
  if (!isMeant || error.missType !== undefined || error.offset !== undefined) return error
  let offset: number | undefined
  try {
    for (const item of attributes(payload, GENL_HDRLEN, NLMSG_HDRLEN)) {
      if (item.type === IFINDEX) offset = item.offset
    }
  } catch {
    // Behind what was read nothing counts.
  }
  if (offset === undefined) return error
  return new ApiError(error.errno, error.reason, error.attribute, { offset })
}

/** Number of the attribute in every dialect. */
const IFINDEX = 1

/** EINVAL for flags that a generic request cannot have (netlink-api 1.3). */
function checkFlags({ flags, dump: isDump }: PortRequest): void {
  const known = NLM_F.REQUEST | NLM_F.ACK | NLM_F.ECHO | (isDump ? NLM_F.DUMP : 0)
  if ((flags & ~known) !== 0) throw new ApiError('EINVAL', 'unexpected flags in the header')
}

/**
 * Permission comes behind the command and before its attributes. What a dump is refused with is thrown, and ends it before
 * it starts, unless it lacks an attribute: its handler finds that out, and it is returned (netlink-api 1.5).
 */
function decode(request: PortRequest, dialect: Dialect, privileged: boolean): Request | ApiError {
  const { payload, dump: isDump } = request
  let error: unknown
  let decoded: Request | undefined
  try {
    decoded = dialect.decodeRequest(payload, { dump: isDump })
  } catch (caught) {
    error = caught
  }
  const early =
    payload.length < GENL_HDRLEN ||
    readGenericHeader(payload).reserved !== 0 ||
    (error instanceof ApiError && error.errno === 'EOPNOTSUPP')
  if (!early && !privileged) throw new ApiError('EPERM', 'needs CAP_NET_ADMIN')
  if (decoded !== undefined) return decoded
  if (isDump && error instanceof ApiError && error.missType !== undefined) return error
  throw error
}

function setOption(port: Port, option: Exclude<ChannelOption, 'process'>, value: number): void {
  switch (option) {
    case 'ext-ack':
      port.extAck = value !== 0
      return
    case 'cap-ack':
      port.capAck = value !== 0
      return
    case 'port-id':
      if (value !== 0) port.portId = value
      return
    case 'mssfix':
      if (value > MSSFIX_MAX) throw new ApiError('EINVAL', `mssfix of ${value} bytes`)
      port.peerDefaults.mssfix = value
      return
    case 'swap-wait-ms':
      if (value > SWAP_WAIT_MAX) throw new ApiError('EINVAL', `swap-wait-ms of ${value} ms`)
      port.peerDefaults.swapWaitMs = value
      return
    case 'add-membership':
    case 'drop-membership':
      setMembership(port, value, option === 'add-membership')
  }
}

function setMembership(port: Port, group: number, member: boolean): void {
  if (port.protocol === 'route') {
    throw new ApiError('EOPNOTSUPP', 'changes of links are announced by the kernel')
  }
  // nlctrl's own group has the number of its family; families come and go too rarely here to be told of.
  if (group !== GENL_ID_CTRL && !served.some((one) => one.group === group)) {
    throw new ApiError(group === 0 ? 'EINVAL' : 'ENOENT', `no group ${group}`)
  }
  if (member) port.groups.add(group)
  else port.groups.delete(group)
}

/** A channel whose other end is in the same process. */
class InProcessChannel implements Channel {
  readonly protocol: Protocol
  readonly #port: Port
  readonly #setOption: (port: Port, option: ChannelOption, value: number) => void
  #listener: ChannelListener | undefined
  #early: Uint8Array[] = []

  constructor(
    protocol: Protocol,
    connect: (transport: PortTransport) => Port,
    setOption: (port: Port, option: ChannelOption, value: number) => void,
  ) {
    this.protocol = protocol
    this.#setOption = setOption
    this.#port = connect({
      write: (datagram) => {
        if (this.#listener === undefined) this.#early.push(datagram)
        else this.#listener.received(datagram)
        return true
      },
    })
  }

  get portId(): number {
    return this.#port.portId
  }

  listen(listener: ChannelListener): void {
    this.#listener = listener
    for (const datagram of this.#early.splice(0)) listener.received(datagram)
    this.#port.onClose(() => listener.closed(undefined))
  }

  send(datagram: Uint8Array): void {
    this.#port.receive(datagram.slice())
  }

  async setOption(option: ChannelOption, value: number): Promise<void> {
    this.#setOption(this.#port, option, value)
  }

  close(): void {
    this.#port.close()
  }
}
