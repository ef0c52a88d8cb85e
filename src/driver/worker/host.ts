/**
 * The user-space driver: the devices there are, their workers and sockets. Answers the requests that the server has decoded
 * (server.ts), by handing each to its device, and carries what the data path tells back to it. Runs on the control thread.
 */

import { check, OsError } from '../../platform/error.ts'
import {
  AF_UNIX,
  E,
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
} from '../../platform/layout.ts'
import { openLibc } from '../../platform/libc.ts'
import { blockOf, createBlock } from '../../platform/memory.ts'
import { netnsNumber } from '../../platform/netlink.ts'
import { openSteering, type Steering } from '../../platform/steering.ts'
import { type TakenTcp, takeTcp } from '../../platform/tcp.ts'
import { hasInterface, openTun, type Tun } from '../../platform/tun.ts'
import { inspectSocket, joinUdp, PathProbe, socketNetns, udpOffloads } from '../../platform/udp.ts'
import { ApiError } from '../../uapi/errno.ts'
import { INSIDE_MAX } from '../../uapi/spec.ts'
import type {
  ArgsOf,
  DialectName,
  DriverEvent,
  Link,
  LinkKind,
  LinkNew,
  Mode,
  Peer,
  Request,
} from '../../uapi/types.ts'
import { isOcc } from '../../wire/data.ts'
import { Opcode, opcodeOf } from '../../wire/opcode.ts'
import { Device, type SocketOffer, type Transport } from '../core/device.ts'
import type { EndpointConfig, PeerHandle, TransportId } from '../core/peer.ts'
import type { LinkChange } from '../route-requests.ts'
import type { Backend, Caller, EventScope, FdWatch } from '../server.ts'
import { WorkerPool } from './pool.ts'
import type { Happening } from './protocol.ts'

/** Default MTU, as the kernel's drivers have it (driver-behaviour, 7): 1500 less the room their packets take. */
const DEFAULT_MTU: { [K in LinkKind]: number } = { ovpn: 1416, 'ovpn-dco': 1428 }
const MIN_MTU = 68
const MAX_MTU: { [K in LinkKind]: number } = { ovpn: 65451, 'ovpn-dco': 65463 }
/** How often it is looked whether streams still have an owner, in ms. */
const OWNERS_MS = 250
/** Control packets of TCP peers kept for whoever registers next. */
const UNCLAIMED_LIMIT = 256
const MAX_WORKERS = 64

export interface HostOptions {
  log(text: string): void
  /** 32 random bits. */
  random(): number
  /** Allows the cipher `none` of the RFC's dialect: for debugging. */
  allowNone: boolean
  /** Workers of a device that is not told how many; 1 by default. */
  workers?: number
  /** False: packets go one by one everywhere, as on kernels that know no offloads. */
  offload?: boolean
}

/** A transport and who counts on it. */
interface Held {
  readonly transport: Transport
  readonly cookie: bigint
  users: number
  /** Of a stream: tells whether its owner has closed it. */
  watch?: FdWatch
  /** A descriptor of its network namespace, to be closed. */
  openNetns(): number
  /** Of UDP. */
  readonly path?: PathProbe
  close(): Promise<void>
}

export class DriverHost implements Backend {
  readonly #options: HostOptions
  readonly #devices = new Set<HostedDevice>()
  readonly #listeners: ((event: DriverEvent, scope: EventScope) => void)[] = []
  /** Sockets in use, by cookie: one belongs to one device at most. */
  readonly #sockets = new Map<bigint, HostedDevice>()
  /** Sockets that workers still have though their last peer is gone, by cookie: until they are their owner's again. */
  readonly #leaving = new Map<bigint, Promise<void>>()

  constructor(options: HostOptions) {
    this.#options = options
  }

  onEvent(listener: (event: DriverEvent, scope: EventScope) => void): void {
    this.#listeners.push(listener)
  }

  async request(request: Request, caller: Caller, dialect: DialectName): Promise<unknown> {
    switch (request.command) {
      case 'link-new':
        return this.#create(request.args.link, caller)
      case 'link-del': {
        const device = this.#find(request.args.ifindex, caller)
        await this.#remove(device)
        return undefined
      }
      case 'link-get':
        if (request.dump) break
        return this.#find(request.args.ifindex, caller).describe()
      default:
        if (request.dump) break
        return this.#device(request.args.ifindex, caller, dialect).request(request, caller, dialect)
    }
    throw new ApiError('EOPNOTSUPP', `${request.command} cannot be asked of one`)
  }

  async dump(request: Request, caller: Caller, dialect: DialectName): Promise<unknown[]> {
    if (request.command === 'link-get') {
      const here = [...this.#devices].filter((device) => device.netns === caller.netns)
      return Promise.all(here.map((device) => device.describe()))
    }
    if (request.command === 'peer-get' && request.dump) {
      const { ifindex, extended } = request.args
      return this.#device(ifindex, caller, dialect).peers(extended ?? false, caller)
    }
    throw new ApiError('EOPNOTSUPP', `${request.command} cannot be asked of all`)
  }

  async lookUp(ifindex: number, caller: Caller, dialect: DialectName): Promise<void> {
    this.#device(ifindex, caller, dialect)
  }

  async changeLink(ifindex: number, change: LinkChange, caller: Caller): Promise<void> {
    this.#find(ifindex, caller).change(change)
  }

  /** Removes every device; its peers are told TEARDOWN. */
  async close(): Promise<void> {
    await Promise.all([...this.#devices].map((device) => this.#remove(device)))
  }

  keeperGone(keeper: string): void {
    for (const device of this.#devices) {
      if (device.keeper === keeper) void this.#remove(device)
    }
  }

  #find(ifindex: number, caller: Caller): HostedDevice {
    for (const device of this.#devices) {
      if (device.ifindex === ifindex && device.netns === caller.netns) return device
    }
    throw new ApiError('ENODEV', 'ifindex does not match any interface', 'ifindex')
  }

  /** The device, if it is of the kind that the dialect speaks of. ENODEV is fatal to OpenVPN: it is said of no other's. */
  #device(ifindex: number, caller: Caller, dialect: DialectName): HostedDevice {
    let device: HostedDevice | undefined
    try {
      device = this.#find(ifindex, caller)
    } catch (error) {
      if (!isOthers(ifindex, caller)) throw error
    }
    if (device !== undefined && (device.kind === 'ovpn') === (dialect === 'ovpn')) return device
    throw new ApiError('EINVAL', `specified interface is not ${dialect}`, 'ifindex')
  }

  async #create(link: LinkNew, caller: Caller): Promise<Link> {
    const { kind, mode } = link
    const mtu = link.mtu ?? DEFAULT_MTU[kind]
    checkMtu(mtu, kind)
    const workers = link.workers ?? this.#options.workers ?? 1
    if (workers < 1 || workers > MAX_WORKERS) {
      throw new ApiError('EINVAL', `${workers} workers, expected 1..${MAX_WORKERS}`, 'link.workers')
    }
    const netns = caller.openNetns()
    let tun: Tun
    try {
      tun = openTun({
        netns,
        mtu,
        queues: workers,
        offload: this.#options.offload ?? true,
        carrier: kind !== 'ovpn' || mode !== 'p2p',
        multicast: kind !== 'ovpn',
        ...(link.name === undefined ? {} : { name: link.name }),
      })
    } catch (error) {
      throw refusal(error)
    } finally {
      openLibc().close(netns)
    }
    let device: HostedDevice
    try {
      device = this.#host(tun, link, caller)
    } catch (error) {
      tun.close()
      throw refusal(error)
    }
    this.#devices.add(device)
    try {
      const described = await device.describe()
      this.#options.log(`${tun.name}: created (${kind}, ${mode}, mtu ${mtu})`)
      return described
    } catch (error) {
      await this.#remove(device)
      throw refusal(error)
    }
  }

  #host(tun: Tun, { kind, mode }: LinkNew, caller: Caller): HostedDevice {
    const device = new HostedDevice({
      tun,
      kind,
      mode,
      netns: caller.netns,
      keeper: caller.keeper,
      host: this.#options,
      sockets: this.#sockets,
      leaving: this.#leaving,
      notify: (event, scope) => {
        for (const listener of this.#listeners) listener(event, scope)
      },
      gone: (why) => {
        this.#options.log(`${tun.name}: ${why}`)
        void this.#remove(device)
      },
    })
    return device
  }

  async #remove(device: HostedDevice): Promise<void> {
    if (!this.#devices.delete(device)) return
    const drops = await device.drops().catch(() => []) // its workers may be what has failed
    await device.close()
    const dropped = drops.map(({ reason, count }) => `${reason} ${count}`).join(', ')
    this.#options.log(`${device.name}: removed${dropped && `; dropped: ${dropped}`}`)
  }
}

interface HostedOptions {
  tun: Tun
  kind: LinkKind
  mode: Mode
  netns: string
  keeper: string | undefined
  host: HostOptions
  sockets: Map<bigint, HostedDevice>
  leaving: Map<bigint, Promise<void>>
  notify: (event: DriverEvent, scope: EventScope) => void
  /** The device cannot go on: it was removed by somebody else, or its worker failed. */
  gone(why: string): void
}

/** A device with what belongs to it in this process: its queue, its worker, its transports. */
class HostedDevice {
  readonly kind: LinkKind
  readonly netns: string
  readonly device: Device
  readonly #options: HostedOptions
  readonly #sys = openLibc()
  readonly #steering: Steering | undefined
  readonly #udp: { gso: boolean; gro: boolean }
  /** Of each worker, closed when all have ended. */
  readonly #descriptors: number[] = []
  /** What wakes a worker: 1, as an eventfd takes it. */
  readonly #one = blockOf(new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]))
  readonly #pool: WorkerPool
  readonly #transports = new Map<TransportId, Held>()
  #lastTransport = 0
  #owners: NodeJS.Timeout | undefined
  #registered: Caller | undefined
  readonly #unclaimed: DriverEvent[] = []
  #unclaimedDropped = 0

  constructor(options: HostedOptions) {
    const { tun, kind, mode } = options
    this.#options = options
    this.kind = kind
    this.netns = options.netns
    this.#steering = this.#openSteering()
    this.#udp = options.host.offload === false ? { gso: false, gro: false } : udpOffloads()
    const wakes = tun.fds.map(() => this.#keep(this.#sys.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)))
    const inboxes = tun.fds.map(() => this.#openInbox())
    const seed = options.host.random()
    this.#pool = new WorkerPool({
      workers: tun.fds.map((device, worker) => ({
        worker,
        wake: wakes[worker]!,
        inbox: { read: inboxes[worker]!.read, write: inboxes.map(({ write }) => write) },
        steering: this.#steering?.map,
        device,
        glueUdp: tun.offloads.uso,
        trains: this.#udp.gso,
        single: mode === 'p2p',
        seed,
        ifindex: tun.ifindex,
      })),
      wake: (worker) => this.#sys.write(wakes[worker]!, this.#one.base, 8),
      steering: this.#steering?.map,
      happened: (happening) => this.#happened(happening),
    })
    this.device = new Device({
      ifindex: tun.ifindex,
      kind,
      mode,
      allowNone: options.host.allowNone,
      path: this.#pool,
      sink: {
        detach: (transport) => this.#detach(transport),
        notify: (event, netns) => this.#notify(event, netns),
        pathMtu: (transport, remote) => this.#pathMtu(transport, remote),
        carrier: (on) => tun.setCarrier(on),
      },
    })
  }

  get ifindex(): number {
    return this.#options.tun.ifindex
  }

  get name(): string {
    return this.#options.tun.name
  }

  get keeper(): string | undefined {
    return this.#options.keeper
  }

  #keep(fd: number): number {
    this.#descriptors.push(fd)
    return fd
  }

  /** Several queues want to be chosen by destination; where that is not permitted, packets are handed over. */
  #openSteering(): Steering | undefined {
    const { fds } = this.#options.tun
    const steering = fds.length > 1 ? openSteering(this.#sys) : undefined
    if (steering === undefined || steering.attach(fds[0]!) >= 0) return steering
    steering.close()
    return undefined
  }

  /** Where a worker gets what came to another. */
  #openInbox(): { read: number; write: number } {
    const pair = createBlock(8)
    const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC
    check(this.#sys.socketpair(AF_UNIX, type, 0, pair.base), 'socketpair', 'cannot make an inbox')
    return {
      read: this.#keep(pair.view.getInt32(0, true)),
      write: this.#keep(pair.view.getInt32(4, true)),
    }
  }

  /** Carries out a request about peers, keys or control packets. */
  async request(request: Request, caller: Caller, dialect: DialectName): Promise<unknown> {
    const { device } = this
    switch (request.command) {
      case 'peer-new':
        return device.peerNew(request.args.peer, (fd) => this.#offer(fd, caller), dialect)
      case 'peer-set':
        return device.peerSet(request.args.peer, dialect)
      case 'peer-get':
        if (request.dump) break
        return this.#inNetns(
          await device.peerGet(request.args.peer.id, request.args.extended ?? false),
          caller,
        )
      case 'peer-del':
        await device.peerDel(request.args.peer.id)
        // Acknowledged, the socket is its owner's alone again.
        await Promise.all(this.#options.leaving.values())
        return undefined
      case 'key-new':
        return device.keyNew(request.args.keyconf, dialect)
      case 'key-get':
        return device.keyGet(request.args.keyconf.peerId, request.args.keyconf.slot)
      case 'key-swap':
        return device.keySwap(request.args.keyconf.peerId)
      case 'key-del':
        return device.keyDel(request.args.keyconf.peerId, request.args.keyconf.slot)
      case 'packet-register':
        return this.#register(caller, request.args.extended ?? false)
      case 'packet':
        return request.args.packet.inside === true
          ? this.#sendInside(request.args.packet)
          : this.#sendControl(request.args.packet)
    }
    throw new ApiError('EOPNOTSUPP', `${request.command} is not a request about a device`)
  }

  async peers(extended: boolean, caller: Caller): Promise<Peer[]> {
    const peers = await this.device.peers(extended)
    return peers.map((peer) => this.#inNetns(peer, caller))
  }

  /** A peer with the number of its socket's namespace, where that is not the caller's. */
  #inNetns(peer: Peer, caller: Caller): Peer {
    const transport = this.device.transportOf(peer.id)
    const held = transport && this.#transports.get(transport.id)
    if (held === undefined || held.transport.netns === caller.netns) return peer
    const from = caller.openNetns()
    try {
      const of = held.openNetns()
      try {
        return { ...peer, socketNetnsid: netnsNumber(from, of) }
      } finally {
        this.#sys.close(of)
      }
    } catch (error) {
      throw refusal(error)
    } finally {
      this.#sys.close(from)
    }
  }

  async drops(): Promise<Link['drops']> {
    return this.#withUnclaimed((await this.#pool.stats()).drops)
  }

  #withUnclaimed(drops: Link['drops']): Link['drops'] {
    if (this.#unclaimedDropped === 0) return drops
    return [...drops, { reason: 'rx-control-unclaimed', count: this.#unclaimedDropped }]
  }

  async describe(): Promise<Link> {
    const { tun, kind, netns } = this.#options
    const stats = await this.#pool.stats()
    return {
      ifindex: tun.ifindex,
      name: tun.name,
      kind,
      mode: this.device.mode,
      mtu: tun.mtu(),
      netns: Number(netns.split(':')[1]),
      workers: this.#pool.size,
      provider: stats.provider,
      features: Object.entries({
        ...tun.offloads,
        ...this.#udp,
        steering: this.#steering !== undefined,
      })
        .filter(([, on]) => on)
        .map(([feature]) => feature)
        .join(','),
      rxBytes: stats.rxBytes,
      rxPackets: stats.rxPackets,
      txBytes: stats.txBytes,
      txPackets: stats.txPackets,
      peers: this.device.peerCount,
      drops: this.#withUnclaimed(stats.drops),
    }
  }

  change(change: LinkChange): void {
    if (change.mtu !== undefined) checkMtu(change.mtu, this.kind)
    try {
      this.#options.tun.configure(change)
    } catch (error) {
      throw refusal(error)
    }
  }

  async close(): Promise<void> {
    await this.device.close()
    await this.#pool.stop()
    await Promise.all(this.#options.leaving.values())
    for (const held of this.#transports.values()) await held.close()
    clearInterval(this.#owners)
    this.#options.tun.close()
    this.#steering?.close()
    for (const fd of this.#descriptors) this.#sys.close(fd)
  }

  // Control packets --------------------------------------------------------------------------------------------------

  #register(caller: Caller, inside: boolean): void {
    if (this.#registered !== undefined) {
      throw new ApiError('EBUSY', 'somebody else receives the control packets of this interface')
    }
    this.#registered = caller
    if (inside) this.#pool.listen(true)
    caller.onClose(() => {
      if (this.#registered !== caller) return
      this.#registered = undefined
      if (inside) this.#pool.listen(false)
    })
    for (const event of this.#unclaimed.splice(0)) caller.deliver(event)
  }

  async #sendControl({ packet, peerId }: ArgsOf<'packet'>['packet']): Promise<void> {
    if (packet.length < 4 || packet.length > this.#options.tun.mtu()) {
      throw new ApiError('EINVAL', `packet of ${packet.length} bytes`, 'packet.packet')
    }
    const opcode = opcodeOf(packet[0]!)
    if (opcode === Opcode.DataV1 || opcode === Opcode.DataV2) {
      throw new ApiError('EINVAL', 'data packets are made by the driver', 'packet.packet')
    }
    const handle = this.device.handleOf(peerId)
    const errno = handle && (await this.#pool.sendControl(handle, packet))
    if (errno !== 0) {
      throw ApiError.from(errno ?? E.EHOSTUNREACH, `cannot send to peer ${peerId}`)
    }
  }

  async #sendInside({ packet, peerId }: ArgsOf<'packet'>['packet']): Promise<void> {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
    // What is no message could be a packet that nobody routed here.
    if (packet.length > INSIDE_MAX || !isOcc(view, 0, packet.length)) {
      throw new ApiError('EINVAL', 'no message of OpenVPN’s own', 'packet.packet')
    }
    const handle = this.device.handleOf(peerId)
    const sent = handle !== undefined && (await this.#pool.sendInside(handle, packet))
    if (!sent) throw new ApiError('EHOSTUNREACH', `cannot send to peer ${peerId}`)
  }

  /** To who listens; messages wait for nobody. */
  #inside(handle: PeerHandle, packet: Uint8Array): void {
    const peerId = this.device.idOf(handle)
    if (peerId === undefined) return
    const { ifindex } = this
    this.#registered?.deliver({
      event: 'packet',
      ifindex,
      packet: { packet, peerId, inside: true },
    })
  }

  #control(handle: PeerHandle, packet: Uint8Array, eof: boolean): void {
    const peerId = this.device.idOf(handle)
    if (peerId === undefined) return
    const event: DriverEvent = {
      event: 'packet',
      ifindex: this.ifindex,
      packet: eof ? { packet, peerId, eof } : { packet, peerId },
    }
    if (this.#registered !== undefined) this.#registered.deliver(event)
    else if (this.#unclaimed.length < UNCLAIMED_LIMIT) this.#unclaimed.push(event)
    else this.#unclaimedDropped++
  }

  // What the worker tells --------------------------------------------------------------------------------------------

  #happened(happening: Happening): void {
    const { device } = this
    switch (happening.what) {
      case 'expired':
        device.peerLost(happening.handle, 'expired')
        break
      case 'transport-error':
        device.peerLost(happening.handle, 'transport-error')
        break
      case 'moved':
        device.peerFloated(happening.handle, happening.remote)
        break
      case 'key-exhausted':
        device.keyExhausted(happening.handle, happening.keyId)
        break
      case 'key-ageing':
        device.keyAgeing(happening.handle, happening.keyId)
        break
      case 'socket-closed':
        device.transportClosed(happening.transport)
        break
      case 'control':
        this.#control(happening.handle, happening.packet, false)
        break
      case 'inside':
        this.#inside(happening.handle, happening.message)
        break
      case 'stream-ended':
        this.#control(happening.handle, new Uint8Array(0), true)
        break
      case 'device-gone':
        this.#options.gone('the interface was removed')
        break
      case 'failed':
        this.#options.gone(`its worker failed: ${happening.error}`)
        break
    }
  }

  #notify(event: DriverEvent, socketNetns: string): void {
    const { notify, kind, netns } = this.#options
    if (kind === 'ovpn') notify(event, { netns: socketNetns, dialects: ['ovpn'] })
    else notify(event, { netns, dialects: ['ovpn-dco', 'ovpn-dco-v2'] })
  }

  // Transports -------------------------------------------------------------------------------------------------------

  /** Looks at the socket that the caller has as `fd`. */
  #offer(fd: number, caller: Caller): SocketOffer {
    const own = caller.takeFd(fd)
    let kept = false
    const close = () => {
      if (!kept) this.#sys.close(own)
    }
    try {
      const found = inspectSocket(own)
      if (found.protocol === 'other') throw notEncapsulated('EOPNOTSUPP')
      const stream = found.protocol === 'tcp'
      return {
        stream,
        attach: async () => {
          await this.#options.leaving.get(found.cookie)
          const owner = this.#options.sockets.get(found.cookie)
          if (owner !== undefined && (owner !== this || stream)) throw notEncapsulated('EBUSY')
          const held =
            [...this.#transports.values()].find(({ cookie }) => cookie === found.cookie) ??
            (stream
              ? await this.#holdStream(own, found.cookie, caller.watchFd(fd, found.cookie))
              : await this.#holdUdp(own, found.cookie))
          kept = stream
          held.users++
          return held.transport
        },
        release: close,
      }
    } catch (error) {
      close()
      throw error instanceof OsError ? notEncapsulated(error.code) : error
    }
  }

  async #holdUdp(fd: number, cookie: bigint): Promise<Held> {
    const joined = attempt(() =>
      joinUdp(fd, {
        shards: this.#pool.size,
        gro: this.#udp.gro,
        steering: { v1: this.kind === 'ovpn' ? 'drop' : 'pass' },
      }),
    )
    const id = ++this.#lastTransport
    const path = new PathProbe(joined.shards[0]!)
    const held: Held = {
      transport: { id, stream: false, localPort: joined.localPort, netns: joined.netns },
      cookie,
      users: 0,
      path,
      openNetns: () => socketNetns(joined.shards[0]!),
      close: async () => {
        path[Symbol.dispose]()
        joined.close()
      },
    }
    const watch = { fd: joined.closeWatch, cookie }
    const v6 = joined.family === 6
    await this.#hold(held, () => this.#pool.addSocket(id, joined.shards, v6, watch))
    return held
  }

  async #holdStream(fd: number, cookie: bigint, watch: FdWatch | undefined): Promise<Held> {
    let taken: TakenTcp
    try {
      taken = attempt(() => takeTcp(fd))
    } catch (error) {
      watch?.close()
      throw error
    }
    const { local, remote, netns } = taken
    const id = ++this.#lastTransport
    const held: Held = {
      transport: { id, stream: true, localPort: local.port, remote, local, netns },
      cookie,
      users: 0,
      ...(watch && { watch }),
      openNetns: () => socketNetns(fd),
      close: async () => {
        this.#sys.close(fd)
      },
    }
    await this.#hold(held, () => this.#pool.addStream(id, fd))
    return held
  }

  async #hold(held: Held, tellWorkers: () => Promise<void>): Promise<void> {
    this.#transports.set(held.transport.id, held)
    this.#options.sockets.set(held.cookie, this)
    this.#watchOwners()
    try {
      await tellWorkers()
    } catch (error) {
      this.#drop(held)
      if (!held.transport.stream) await held.close()
      throw error
    }
  }

  #pathMtu({ id }: Transport, remote: EndpointConfig): number | undefined {
    try {
      return this.#transports.get(id)?.path?.mtu(remote)
    } catch (error) {
      if (!(error instanceof OsError)) throw error
      return undefined
    }
  }

  #detach(transport: Transport): void {
    const held = this.#transports.get(transport.id)
    if (held === undefined || --held.users > 0) return
    this.#drop(held)
    const { leaving } = this.#options
    const left = this.#pool
      .removeTransport(transport.id)
      .catch(() => undefined)
      .then(() => held.close())
      .finally(() => {
        if (leaving.get(held.cookie) === left) leaving.delete(held.cookie)
      })
    leaving.set(held.cookie, left)
  }

  #drop(held: Held): void {
    this.#transports.delete(held.transport.id)
    this.#options.sockets.delete(held.cookie)
    held.watch?.close()
    this.#watchOwners()
  }

  /**
   * Looks now and then whether streams are still their owners', as long as there are any: nothing tells of that while we
   * have them too. In the older drivers a stream outlives its owner's descriptor (driver-behaviour 6.1).
   */
  #watchOwners(): void {
    const watched = [...this.#transports.values()].some(({ watch }) => watch !== undefined)
    if (this.kind !== 'ovpn' || watched === (this.#owners !== undefined)) return
    clearInterval(this.#owners)
    this.#owners = watched ? setInterval(() => this.#dropOrphans(), OWNERS_MS) : undefined
    this.#owners?.unref()
  }

  #dropOrphans(): void {
    for (const { transport, watch } of [...this.#transports.values()]) {
      if (watch !== undefined && !watch.isOpen()) this.device.transportClosed(transport.id)
    }
  }
}

function checkMtu(mtu: number, kind: LinkKind): void {
  if (mtu >= MIN_MTU && mtu <= MAX_MTU[kind]) return
  throw new ApiError('EINVAL', `mtu ${mtu} is not in ${MIN_MTU}..${MAX_MTU[kind]}`, 'link.mtu')
}

/** Whether it is an interface, though none of this driver's. */
function isOthers(ifindex: number, caller: Caller): boolean {
  const netns = caller.openNetns()
  try {
    return hasInterface(netns, ifindex)
  } finally {
    openLibc().close(netns)
  }
}

function notEncapsulated(code: string): ApiError {
  return new ApiError('ENOTSOCK', `cannot encapsulate socket: ${code}`, 'peer.socket')
}

/** Runs a step of a take-over, whose failures of whatever kind are ENOTSOCK (netlink-api, 5.3). */
function attempt<T>(step: () => T): T {
  try {
    return step()
  } catch (error) {
    throw error instanceof OsError
      ? new ApiError('ENOTSOCK', `cannot encapsulate socket: ${error.message}`, 'peer.socket')
      : error
  }
}

function refusal(error: unknown): unknown {
  return error instanceof OsError ? ApiError.from(error.errno, error.message) : error
}
