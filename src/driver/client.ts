/**
 * The driver as an object: a typed call for every command, and events, over any channel and in any dialect. Works like
 * every netlink client (the family is asked for by name), so that it drives the kernel's driver as it does ours; where
 * our extensions are missing, interfaces are made through rtnetlink. Opening channels is the caller's business.
 */
import { decodeFamily, encodeGetFamily, type Family, GENL_ID_CTRL } from '../netlink/control.ts'
import { NLM_F } from '../netlink/message.ts'
import { decodeLink, encodeLink, RTM } from '../netlink/route.ts'
import { type Dialect, dialects } from '../uapi/dialects/index.ts'
import { ApiError } from '../uapi/errno.ts'
import { type Command, commands, EXTENSION_BASE, mode as modes } from '../uapi/spec.ts'
import type {
  ArgsOf,
  CommandName,
  DialectName,
  DriverEvent,
  KeyConf,
  KeyInfo,
  Link,
  LinkKind,
  LinkNew,
  Peer,
  PeerNew,
  PeerSet,
  ReplyOf,
  Request,
  Slot,
} from '../uapi/types.ts'
import { type Channel, Requester } from './channel.ts'

export interface ClientOptions {
  /** Makes the channel for requests and events. */
  generic(): Channel | Promise<Channel>
  /** Makes the channel for interfaces; called only if it is needed. */
  route(): Channel | Promise<Channel>
  readonly dialect: DialectName
}

/** Events were lost because nobody took them in time: what is known about peers is to be asked anew. */
export interface EventsLost {
  event: 'lost'
}

/** Events in the order in which the driver raised them. Ends when closed; throws when the channel fails. */
export interface EventStream extends AsyncIterable<DriverEvent | EventsLost>, Disposable {
  close(): void
}

/** Events that may wait in a stream. */
const EVENTS_LIMIT = 10_000
/** Names tried for an interface that was given none. */
const NAMES_LIMIT = 256

/** Rejects with the ApiError ENOENT where the driver has no such family, or with that of the channel. */
export async function openClient(options: ClientOptions): Promise<DriverClient> {
  const requester = new Requester(await options.generic())
  try {
    await requester.setOption('ext-ack', 1)
    const [reply] = await requester.request(
      { type: GENL_ID_CTRL, flags: 0 },
      encodeGetFamily(options.dialect),
    )
    if (reply === undefined) throw new ApiError('EPROTO', 'no answer about the family')
    return new DriverClient(requester, decodeFamily(reply), options)
  } catch (error) {
    requester.close()
    if (!(error instanceof ApiError) || error.errno !== 'ENOENT') throw error
    throw new ApiError('ENOENT', `there is no driver for ${options.dialect} here`)
  }
}

/**
 * Each call resolves when the driver has acknowledged it and rejects with its ApiError: errno, text, and where the
 * driver tells, the attribute.
 */
export class DriverClient {
  readonly #requester: Requester
  readonly #family: Family
  readonly #dialect: Dialect
  readonly #options: ClientOptions
  readonly #streams = new Set<Events>()
  #route: Promise<Requester> | undefined
  #joined: Promise<void> | undefined

  /** `openClient` makes these. */
  constructor(requester: Requester, family: Family, options: ClientOptions) {
    this.#requester = requester
    this.#family = family
    this.#dialect = dialects[options.dialect]
    this.#options = options
    requester.listen({
      unasked: ({ type, payload }) => {
        const event = type === family.id ? this.#dialect.decodeEvent(payload) : undefined
        if (event !== undefined) for (const stream of this.#streams) stream.push(event)
      },
      overrun: () => {
        for (const stream of this.#streams) stream.lost()
      },
      closed: (error) => {
        for (const stream of this.#streams) stream.end(error)
      },
    })
  }

  get dialect(): DialectName {
    return this.#dialect.name
  }

  /** Whether the driver has our extensions; without them, `packet` and `extended` are refused. */
  get extended(): boolean {
    return this.#family.operations.some(({ id }) => id >= EXTENSION_BASE)
  }

  async peerNew(ifindex: number, peer: PeerNew): Promise<void> {
    await this.#do('peer-new', { ifindex, peer })
  }

  async peerSet(ifindex: number, peer: PeerSet): Promise<void> {
    await this.#do('peer-set', { ifindex, peer })
  }

  peerGet(ifindex: number, id: number, options: { extended?: boolean } = {}): Promise<Peer> {
    return this.#do('peer-get', { ifindex, ...options, peer: { id } })
  }

  peers(ifindex: number, options: { extended?: boolean } = {}): Promise<Peer[]> {
    return this.#dump({ command: 'peer-get', args: { ifindex, ...options }, dump: true })
  }

  async peerDel(ifindex: number, id: number): Promise<void> {
    await this.#do('peer-del', { ifindex, peer: { id } })
  }

  /** EOPNOTSUPP for epoch keys where the driver has none: the kernel's, and the older dialects. */
  async keyNew(ifindex: number, keyconf: KeyConf): Promise<void> {
    if (keyconf.format === 'epoch' && !this.extended) {
      throw new ApiError('EOPNOTSUPP', 'this driver has no epoch keys', 'keyconf.format')
    }
    await this.#do('key-new', { ifindex, keyconf })
  }

  keyGet(ifindex: number, peerId: number, slot: Slot): Promise<KeyInfo> {
    return this.#do('key-get', { ifindex, keyconf: { peerId, slot } })
  }

  async keySwap(ifindex: number, peerId: number): Promise<void> {
    await this.#do('key-swap', { ifindex, keyconf: { peerId } })
  }

  async keyDel(ifindex: number, peerId: number, slot: Slot): Promise<void> {
    await this.#do('key-del', { ifindex, keyconf: { peerId, slot } })
  }

  /** Without a name, the driver or this client finds a free one. */
  linkNew(link: LinkNew): Promise<Link> {
    return this.extended ? this.#do('link-new', { link }) : this.#routeNew(link)
  }

  async linkDel(ifindex: number): Promise<void> {
    if (this.extended) await this.#do('link-del', { ifindex })
    else await this.#routeRequest(RTM.DELLINK, 0, encodeLink({ index: ifindex }))
  }

  /** Of the kernel's driver only what rtnetlink tells is known; see `links`. */
  async link(ifindex: number): Promise<Link> {
    if (this.extended) return this.#do('link-get', { ifindex })
    const found = (await this.links()).find((link) => link.ifindex === ifindex)
    if (found !== undefined) return found
    throw new ApiError('ENODEV', 'ifindex does not match any interface', 'ifindex')
  }

  /**
   * The kernel's driver tells less: `netns` and `workers` are 0 there, `provider` is 'kernel', `drops` are empty, and `mode` is
   * 'p2p' for kind `ovpn-dco` whatever it is.
   */
  async links(): Promise<Link[]> {
    if (this.extended) return this.#dump({ command: 'link-get', args: {}, dump: true })
    const found: Link[] = []
    for (const payload of await this.#routeRequest(RTM.GETLINK, NLM_F.DUMP, encodeLink({}))) {
      const link = this.#linkOf(payload)
      if (link === undefined) continue
      link.peers = (await this.peers(link.ifindex)).length
      found.push(link)
    }
    return found
  }

  /**
   * From now on `events` brings the control packets of this interface that no socket can deliver; `extended`: and messages that come
   * inside the data channel.
   */
  async packetRegister(ifindex: number, options: { extended?: boolean } = {}): Promise<void> {
    await this.#do('packet-register', { ifindex, ...options })
  }

  async packet(ifindex: number, packet: ArgsOf<'packet'>['packet']): Promise<void> {
    await this.#do('packet', { ifindex, packet })
  }

  /** Resolves once nothing that happens from then on is missed. */
  async events(): Promise<EventStream> {
    const stream = new Events(() => this.#streams.delete(stream))
    this.#streams.add(stream)
    try {
      this.#joined ??= this.#join()
      await this.#joined
      return stream
    } catch (error) {
      this.#joined = undefined
      stream.close()
      throw error
    }
  }

  close(): void {
    this.#requester.close()
    this.#route?.then(
      (route) => route.close(),
      () => {},
    )
  }

  async #join(): Promise<void> {
    const group = this.#family.groups.find(({ name }) => name === 'peers')
    if (group === undefined) throw new ApiError('ENOENT', 'the family has no group "peers"')
    await this.#requester.setOption('add-membership', group.id)
  }

  async #do<C extends CommandName>(command: C, args: ArgsOf<C>): Promise<ReplyOf<C>> {
    // The command and the arguments belong together; a union of all pairs cannot say that of a type parameter.
    const request = { command, args } as unknown as Request
    const payload = this.#dialect.encodeRequest(request)
    const [reply] = await this.#requester.request({ type: this.#family.id, flags: 0 }, payload)
    const { reply: replies }: Command = commands[command]
    if (replies === undefined) return undefined as ReplyOf<C>
    if (reply === undefined) throw new ApiError('EPROTO', `no answer to ${command}`)
    return this.#dialect.decodeReply(command, reply)
  }

  async #dump<C extends CommandName>(
    request: Request & { command: C; dump: true },
  ): Promise<ReplyOf<C>[]> {
    const payload = this.#dialect.encodeRequest(request)
    const header = { type: this.#family.id, flags: NLM_F.DUMP }
    const replies = await this.#requester.request(header, payload)
    return replies.map((reply) => this.#dialect.decodeReply(request.command, reply))
  }

  async #routeRequest(type: number, flags: number, payload: Uint8Array): Promise<Uint8Array[]> {
    this.#route ??= Promise.resolve(this.#options.route()).then((route) => new Requester(route))
    const route = await this.#route
    return route.request({ type, flags }, payload)
  }

  async #routeNew(asked: LinkNew): Promise<Link> {
    const { kind, mode, mtu } = asked
    for (let n = 0; n < NAMES_LIMIT; n++) {
      const name = asked.name ?? `${kind}${n}`
      const link = { name, kind, mode: modes.indexOf(mode), ...(mtu !== undefined && { mtu }) }
      try {
        await this.#routeRequest(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, encodeLink(link))
      } catch (error) {
        const taken = error instanceof ApiError && error.errno === 'EEXIST'
        if (!taken || asked.name !== undefined) throw error
        continue
      }
      const [payload] = await this.#routeRequest(RTM.GETLINK, 0, encodeLink({ name }))
      const made = payload && this.#linkOf(payload)
      if (made !== undefined) return made
      throw new ApiError('ENODEV', `${name} went away as soon as it was made`)
    }
    throw new ApiError('EEXIST', `${kind}0 to ${kind}${NAMES_LIMIT - 1} are all taken`)
  }

  /** A link of this driver's kind, with what rtnetlink tells of it. */
  #linkOf(payload: Uint8Array): Link | undefined {
    const { index, name, kind, mode, mtu, counters } = decodeLink(payload)
    if (kind !== this.#dialect.linkKind || index === undefined || name === undefined) {
      return undefined
    }
    return {
      ifindex: index,
      name,
      kind: kind as LinkKind,
      mode: modes[mode ?? 0] ?? 'p2p',
      mtu: mtu ?? 0,
      netns: 0,
      workers: 0,
      provider: 'kernel',
      features: '',
      rxBytes: counters?.rxBytes ?? 0,
      rxPackets: counters?.rxPackets ?? 0,
      txBytes: counters?.txBytes ?? 0,
      txPackets: counters?.txPackets ?? 0,
      peers: 0,
      drops: [],
    }
  }
}

/** Events of one reader, in a bounded queue. */
class Events implements EventStream {
  readonly #onClose: () => void
  readonly #queue: (DriverEvent | EventsLost)[] = []
  #wake: (() => void) | undefined
  #ended: { error: Error | undefined } | undefined
  /** Events are left out until the reader has caught up: it must not take the rest for the whole. */
  #losing = false

  constructor(onClose: () => void) {
    this.#onClose = onClose
  }

  push(event: DriverEvent): void {
    if (this.#losing) return
    if (this.#queue.length < EVENTS_LIMIT) this.#add(event)
    else this.lost()
  }

  lost(): void {
    if (this.#losing) return
    this.#losing = this.#queue.length >= EVENTS_LIMIT
    this.#add({ event: 'lost' })
  }

  end(error: Error | undefined): void {
    this.#ended ??= { error }
    this.#wake?.()
  }

  close(): void {
    this.#onClose()
    this.#queue.length = 0
    this.end(undefined)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<DriverEvent | EventsLost> {
    try {
      for (;;) {
        const event = this.#queue.shift()
        if (event !== undefined) {
          if (this.#queue.length === 0) this.#losing = false
          yield event
        } else if (this.#ended !== undefined) {
          if (this.#ended.error !== undefined) throw this.#ended.error
          return
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve
          })
        }
      }
    } finally {
      this.close()
    }
  }

  #add(event: DriverEvent | EventsLost): void {
    this.#queue.push(event)
    this.#wake?.()
  }
}
