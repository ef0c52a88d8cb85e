/**
 * The thread that moves packets: waits on the device, its sockets and streams, and the control thread, and runs each to
 * completion (design.md, D5). All packet work is the engine's; this owns descriptors and nothing else. Entry point of a worker.
 */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { openCiphers } from '../../platform/ciphers.ts'
import { E, EPOLL, O_CLOEXEC } from '../../platform/layout.ts'
import { openLibc } from '../../platform/libc.ts'
import { createMemory } from '../../platform/memory.ts'
import { openRouteWatch, RouteQuery } from '../../platform/netlink.ts'
import { limitThread } from '../../platform/privileges.ts'
import { steer } from '../../platform/steering.ts'
import { parseClosedSockets } from '../../platform/udp.ts'
import { IPV4_DESTINATION, IPV6_DESTINATION } from '../../wire/ip.ts'
import { Opcode, opcodeOf } from '../../wire/opcode.ts'
import { addressBytes, Endpoint, V4_MARK, wordsOfBytes } from '../core/address.ts'
import { Engine, type EngineSink } from '../core/engine.ts'
import type { Millis } from '../core/keepalive.ts'
import { Outbox } from '../core/outbox.ts'
import type { Peer, PeerConfig, PeerHandle, TransportId } from '../core/peer.ts'
import { MAX_PACKET, VNET_BYTES } from '../core/train.ts'
import { Verdict } from '../core/verdict.ts'
import { Inbox } from './inbox.ts'
import type {
  CloseWatch,
  Command,
  FromWorker,
  Happening,
  Numbered,
  Results,
  WorkerOptions,
} from './protocol.ts'
import { Stream, StreamIo } from './stream.ts'
import { UdpIo } from './udp-socket.ts'

const MEMORY_BYTES = 8 * 1024 * 1024
/** Pieces read from the device before others get their turn. */
const DEVICE_READS = 32
/** Calls of recvmmsg per turn. */
const SOCKET_READS = 4
const EVENTS = 64
/** How long a next hop is believed where nobody tells of changes. */
const ROUTE_LIFE_MS = 1000
const CONTROL_BYTES = 2 * 65536
/**
 * Peers that go between two sweeps of the heap. It is swept when much has been made, and a worker makes little: without these, what
 * is left of 5,000 peers keeps 40 MiB. Asking for one takes 0.1 ms; the collector's own thread does the work.
 */
const SWEEP_EVERY = 250

interface Socket {
  fd: number
  v6: boolean
  watch: CloseWatch | undefined
}

interface StreamState {
  stream: Stream
  transport: TransportId
  handle: PeerHandle | undefined
  reading: boolean
  writing: boolean
}

class Loop {
  readonly #sys = openLibc()
  readonly #memory = createMemory({ bytes: MEMORY_BYTES })
  readonly #options: WorkerOptions
  readonly #port: MessagePort
  readonly #provider = openCiphers(this.#memory, () => performance.now())
  readonly #udp = new UdpIo(this.#sys, this.#memory)
  readonly #streamIo = new StreamIo(this.#sys, this.#memory)
  readonly #engine: Engine
  readonly #inbox: Inbox
  readonly #routeWatch: ReturnType<typeof openRouteWatch>
  readonly #control: Outbox
  readonly #sockets = new Map<TransportId, Socket>()
  readonly #streams = new Map<TransportId, StreamState>()
  /** What to do when a descriptor is ready. */
  readonly #ready = new Map<number, (events: number) => void>()
  /** Streams that failed while packets were being sent. */
  readonly #failed = new Set<StreamState>()
  readonly #epoll: number
  readonly #events: number
  readonly #event: number
  readonly #deviceArea: number
  /** When routes have to be looked up anew; never, where the kernel tells of every change. */
  #routesOld: Millis
  #now: Millis = performance.now()
  #running = true
  /** Messages that the control thread has sent, and how many of them were taken. */
  readonly #asked: Int32Array
  #taken = 0
  /** Peers that have gone. */
  #removed = 0

  constructor(options: WorkerOptions, port: MessagePort) {
    this.#options = options
    this.#port = port
    this.#asked = new Int32Array(options.asked)
    const memory = this.#memory
    this.#deviceArea = memory.area(VNET_BYTES + MAX_PACKET, 64)
    this.#control = new Outbox(memory.area(CONTROL_BYTES, 16), CONTROL_BYTES)
    this.#events = memory.area(EPOLL.eventSize * EVENTS, 16)
    this.#event = memory.area(EPOLL.eventSize, 16)
    this.#epoll = check(this.#sys.epollCreate(O_CLOEXEC), 'epoll_create1')
    const query = new RouteQuery(this.#sys, options.device)
    const sink: EngineSink = {
      transmit: (outbox) => this.#transmit(outbox),
      deliver: (offset, length) =>
        this.#sys.write(options.device, memory.base + offset, length) === length,
      expired: (peer) => this.#tell({ what: 'expired', handle: peer.handle }),
      handOverPiece: (worker, vnet, length) => {
        this.#steer(worker, vnet + VNET_BYTES)
        return this.#inbox.handOverPiece(worker, vnet, length)
      },
      handOverDatagram: (worker, packet, length, from, to) =>
        this.#inbox.handOverDatagram(worker, packet, length, from, to),
      floated: (peer) => this.#moved(peer, true),
      relocated: (peer) => this.#moved(peer, false),
      inside: ({ handle }, message) =>
        this.#tell({ what: 'inside', handle, message: message.slice() }),
      keyExhausted: (peer, keyId) =>
        this.#tell({ what: 'key-exhausted', handle: peer.handle, keyId }),
      keyAgeing: (peer, keyId) => this.#tell({ what: 'key-ageing', handle: peer.handle, keyId }),
      epochPulled: ({ handle }, keyId, epoch) =>
        this.#tell({ what: 'epoch-pulled', handle, keyId, epoch }),
      keyHeard: ({ handle }, keyId) => this.#tell({ what: 'key-heard', handle, keyId }),
    }
    this.#engine = new Engine({
      memory,
      provider: this.#provider,
      routes: (address, viaDevice) => {
        const hop = query.nextHop(addressBytes(address), viaDevice ? options.ifindex : undefined)
        return hop instanceof Uint8Array ? wordsOfBytes(hop) : undefined
      },
      sink,
      worker: options.worker,
      single: options.single,
      trains: options.trains,
      seed: options.seed,
      glueUdp: options.glueUdp,
    })
    this.#inbox = new Inbox(this.#sys, memory, options.inbox)
    this.#routeWatch = openRouteWatch(this.#sys, options.device)
    this.#routesOld = this.#routeWatch.complete ? Infinity : this.#now + ROUTE_LIFE_MS
    this.#watch(options.wake, EPOLL.IN, () => this.#messages())
    this.#watch(options.inbox.read, EPOLL.IN, () => this.#handedOver())
    this.#watch(options.device, EPOLL.IN, (events) => this.#device(events))
    this.#watch(this.#routeWatch.fd, EPOLL.IN, () => {
      const { routes, overrun } = this.#routeWatch.drain()
      if (routes || overrun) this.#engine.routesChanged()
    })
  }

  run(): void {
    this.#messages()
    while (this.#running) {
      const wake = Math.min(this.#engine.deadline(), this.#routesOld)
      const wait = Math.ceil(Math.min(wake - performance.now(), 60_000))
      const { view, base } = this.#memory
      const count = this.#sys.epollWait(this.#epoll, base + this.#events, EVENTS, Math.max(wait, 0))
      this.#now = performance.now()
      for (let i = 0; i < count && this.#running; i++) {
        const at = this.#events + EPOLL.eventSize * i
        const fd = view.getInt32(at + EPOLL.eventData, true)
        this.#ready.get(fd)?.(view.getUint32(at, true))
      }
      if (this.#routesOld <= this.#now) {
        this.#engine.routesChanged()
        this.#routesOld = this.#now + ROUTE_LIFE_MS
      }
      if (this.#engine.deadline() <= this.#now) this.#engine.onDeadline(this.#now)
      if (this.#failed.size > 0) this.#dropFailed()
    }
  }

  // The control thread -----------------------------------------------------------------------------------------------

  #messages(): void {
    this.#sys.read(this.#options.wake, this.#memory.base + this.#event, 8)
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: Numbered } | undefined
      if (received === undefined) return
      this.#taken = (this.#taken + 1) | 0
      const { number, command } = received.message
      if (number === undefined) {
        this.#do(command)
        continue
      }
      try {
        this.#tell({ number, value: this.#do(command) })
      } catch (error) {
        this.#tell({ number, error: error instanceof Error ? error.message : String(error) })
      }
    }
  }

  /**
   * To be called before packets just read from `fd` are looked at: what the control thread had asked for before they came
   * is done first. False: nothing is to be read from `fd` any more.
   */
  #caughtUp(fd: number): boolean {
    if (Atomics.load(this.#asked, 0) === this.#taken) return true
    this.#engine.transmit()
    this.#engine.flush()
    this.#messages()
    return this.#running && this.#ready.has(fd)
  }

  #do(command: Command): Results[Command['op']] {
    const engine = this.#engine
    switch (command.op) {
      case 'add-socket':
        this.#addSocket(command)
        return undefined
      case 'add-stream':
        this.#streams.set(command.transport, {
          stream: new Stream(command.fd, this.#streamIo),
          transport: command.transport,
          handle: undefined,
          reading: false,
          writing: false,
        })
        return undefined
      case 'remove-transport':
        this.#removeTransport(command.transport)
        return undefined
      case 'add-peer':
        this.#addPeer(command.config)
        return undefined
      case 'change-peer':
        return engine.changePeer(command.handle, command.change, this.#now)
      case 'move-peer':
        this.#movePeer(command)
        return undefined
      case 'remove-peer':
        engine.removePeer(command.handle)
        this.#removed++
        if (this.#removed % SWEEP_EVERY === 0) Bun.gc(false)
        return undefined
      case 'install-key':
        return engine.installKey(command.handle, command.slot, command.config, this.#now)
      case 'swap-keys':
        engine.swapKeys(command.handle)
        return undefined
      case 'delete-key':
        engine.deleteKey(command.handle, command.slot, this.#now)
        return undefined
      case 'retire-key':
        engine.retireKey(command.handle, command.keyId, this.#now)
        return undefined
      case 'pull-epoch':
        engine.pullEpoch(command.handle, command.keyId, command.epoch)
        return undefined
      case 'hear-key':
        engine.keyHeard(command.handle, command.keyId)
        return undefined
      case 'snapshot':
        return engine.snapshot(command.handle, this.#now)
      case 'snapshots':
        return engine.snapshots(this.#now)
      case 'stats':
        return { ...engine.stats(), provider: `${this.#provider.name} (${this.#provider.version})` }
      case 'send-control':
        return this.#sendControl(command.handle, command.packet)
      case 'send-inside':
        return engine.sendInside(command.handle, command.message, this.#now)
      case 'listen':
        engine.listen(command.listens)
        return undefined
      case 'stop':
        this.#stop()
        return undefined
    }
  }

  #addPeer(config: PeerConfig): void {
    this.#engine.addPeer(config, this.#now)
    const state = this.#streams.get(config.transport)
    if (state === undefined || config.receiver !== this.#options.worker) return
    state.handle = config.handle
    state.reading = true
    this.#watchStream(state)
  }

  #tell(message: FromWorker): void {
    this.#port.postMessage(message)
  }

  #stop(): void {
    this.#running = false
    this.#engine.close()
    this.#routeWatch.close()
    this.#sys.close(this.#epoll)
  }

  // The device -------------------------------------------------------------------------------------------------------

  #device(events: number): void {
    const { device } = this.#options
    const area = this.#deviceArea
    const address = this.#memory.base + area
    for (let i = 0; i < DEVICE_READS; i++) {
      const got = this.#sys.read(device, address, VNET_BYTES + MAX_PACKET)
      if (got <= VNET_BYTES) {
        if (got < 0 && got !== -E.EAGAIN && (got === -E.EBADFD || events & EPOLL.ERR)) {
          this.#unwatch(device)
          this.#tell({ what: 'device-gone' })
        }
        break
      }
      if (!this.#caughtUp(device)) return
      this.#engine.fromDevice(area, got - VNET_BYTES, this.#now)
    }
    this.#engine.transmit()
  }

  #movePeer({ handle, remote, local }: Extract<Command, { op: 'move-peer' }>): void {
    const { address, port, scope } = remote
    this.#engine.movePeer(handle, Endpoint.of(address, port, scope), Endpoint.of(local, 0))
  }

  // Other workers ----------------------------------------------------------------------------------------------------

  #handedOver(): void {
    const { read } = this.#options.inbox
    this.#inbox.receive(
      {
        arrived: () => this.#caughtUp(read),
        piece: (vnet, length) => this.#engine.fromDevice(vnet, length, this.#now),
        datagram: this.#datagram,
        moved: (handle, from, to) => this.#engine.movePeer(handle, from, to),
      },
      DEVICE_READS,
    )
    this.#engine.transmit()
    this.#engine.flush()
  }

  /** Has the kernel bring packets like the one at `ip` to this worker's queue at once, from now on. */
  #steer(worker: number, ip: number): void {
    const { steering } = this.#options
    if (steering === undefined) return
    const { view, u8 } = this.#memory
    const word = (offset: number) => view.getInt32(ip + offset)
    const v4 = u8[ip]! >> 4 === 4
    const address = v4
      ? [0, 0, V4_MARK, word(IPV4_DESTINATION)]
      : [0, 4, 8, 12].map((i) => word(IPV6_DESTINATION + i))
    steer(steering, address, worker, this.#sys)
  }

  /** Tells the other workers at once, so that the answer to the packet goes to where it came from. */
  #moved({ handle, remote, local }: Peer, floated: boolean): void {
    const { worker, inbox } = this.#options
    const told = inbox.write.every(
      (_, other) => other === worker || this.#inbox.tellMoved(other, handle, remote, local),
    )
    if (told && !floated) return
    const { address, port, scope } = remote
    const to = { address, port, scope }
    this.#tell({ what: 'moved', handle, remote: to, local: local.address, floated, told })
  }

  // Transports -------------------------------------------------------------------------------------------------------

  #addSocket(command: Extract<Command, { op: 'add-socket' }>): void {
    const { fd, v6, watch } = command
    this.#sockets.set(command.transport, { fd, v6, watch })
    this.#watch(fd, EPOLL.IN, () => this.#socket(fd))
    if (watch === undefined) return
    this.#watch(watch.fd, EPOLL.IN, () => {
      const closed = parseClosedSockets(this.#sys, watch.fd)
      for (const [transport, socket] of this.#sockets) {
        if (socket.watch?.fd === watch.fd && closed.includes(watch.cookie)) {
          this.#tell({ what: 'socket-closed', transport })
        }
      }
    })
  }

  #removeTransport(transport: TransportId): void {
    const socket = this.#sockets.get(transport)
    if (socket !== undefined) {
      this.#sockets.delete(transport)
      this.#unwatch(socket.fd)
      if (socket.watch !== undefined) this.#unwatch(socket.watch.fd)
    }
    const state = this.#streams.get(transport)
    if (state !== undefined) {
      this.#streams.delete(transport)
      this.#failed.delete(state)
      this.#unwatch(state.stream.fd)
    }
  }

  #socket(fd: number): void {
    const arrived = () => this.#caughtUp(fd)
    for (let i = 0; i < SOCKET_READS; i++) {
      const count = this.#udp.receive(fd, arrived, this.#datagram)
      if (count < this.#udp.receiveLimit) break
    }
    this.#engine.flush()
  }

  readonly #datagram = (
    offset: number,
    length: number,
    from: Parameters<Engine['fromLink']>[2],
    to: Parameters<Engine['fromLink']>[3],
  ): void => this.#engine.fromLink(offset, length, from, to, this.#now)

  #stream(state: StreamState, events: number): void {
    const { stream } = state
    if (events & EPOLL.OUT) {
      if (stream.drain() < 0) this.#failed.add(state)
      this.#watchStream(state)
    }
    if (!state.reading || !(events & (EPOLL.IN | EPOLL.HUP | EPOLL.ERR))) return
    const peer = state.handle === undefined ? undefined : this.#engine.peer(state.handle)
    if (peer === undefined) {
      this.#endReading(state)
      return
    }
    let broken = false
    const arrived = () => this.#caughtUp(stream.fd)
    const end = stream.read(arrived, (offset, length) => {
      broken = !this.#frame(peer, offset, length)
      return !broken
    })
    this.#engine.flush()
    if (end === 'not-ours') return
    if (broken) {
      this.#failed.add(state)
      this.#endReading(state)
    } else if (end !== 'empty') {
      // As with the kernel's driver, the end of the stream is for its owner to act on; the peer stays.
      if (end === 'bad-frame') this.#engine.drop(Verdict.RxBadFrame, peer, 1)
      this.#endReading(state)
      this.#tell({ what: 'stream-ended', handle: peer.handle })
    }
  }

  /** Takes one packet of a stream; false: it breaks the protocol (driver-behaviour, 6.5). */
  #frame(peer: Peer, offset: number, length: number): boolean {
    if (length < 4) {
      this.#engine.drop(Verdict.RxShort, peer, 1)
      return false
    }
    const { u8 } = this.#memory
    const opcode = opcodeOf(u8[offset]!)
    if (opcode === Opcode.DataV2) {
      this.#engine.fromStream(peer, offset, length, this.#now)
    } else if (opcode === Opcode.DataV1) {
      this.#engine.drop(Verdict.RxDataV1, peer, 1)
      return false
    } else {
      const packet = u8.slice(offset, offset + length)
      this.#tell({ what: 'control', handle: peer.handle, packet })
    }
    return true
  }

  #endReading(state: StreamState): void {
    state.reading = false
    this.#watchStream(state)
  }

  #watchStream(state: StreamState): void {
    const { stream, reading } = state
    state.writing = stream.blocked
    if (!reading && !state.writing) this.#unwatch(stream.fd)
    else {
      const events = (reading ? EPOLL.IN : 0) | (state.writing ? EPOLL.OUT : 0)
      this.#watch(stream.fd, events, (ready) => this.#stream(state, ready))
    }
  }

  /** The peers of streams that cannot be used any more are removed. */
  #dropFailed(): void {
    for (const state of this.#failed) {
      this.#unwatch(state.stream.fd)
      if (state.handle === undefined || this.#engine.peer(state.handle) === undefined) continue
      this.#engine.removePeer(state.handle)
      this.#tell({ what: 'transport-error', handle: state.handle })
    }
    this.#failed.clear()
  }

  // Sending ----------------------------------------------------------------------------------------------------------

  #transmit(outbox: Outbox): void {
    for (let at = 0; at < outbox.count; ) {
      const peer = outbox.peer[at]!
      if (peer.stream) {
        this.#transmitStream(peer, outbox, at)
        at++
        continue
      }
      let end = at + 1
      while (end < outbox.count && outbox.peer[end]!.transport === peer.transport) end++
      const socket = this.#sockets.get(peer.transport)
      if (socket !== undefined) this.#udp.send(socket.fd, socket.v6, outbox, at, end, this.#drop)
      at = end
    }
  }

  readonly #drop = (verdict: Verdict, peer: Peer, packets: number): void =>
    this.#engine.drop(verdict, peer, packets)

  #transmitStream(peer: Peer, outbox: Outbox, at: number): void {
    const state = this.#streams.get(peer.transport)
    if (state === undefined || this.#failed.has(state)) {
      this.#engine.drop(Verdict.TxLink, peer, outbox.packets[at]!)
      return
    }
    const dropped = state.stream.send(outbox.offset[at]!, outbox.length[at]!)
    if (dropped < 0) {
      this.#engine.drop(Verdict.TxLink, peer, outbox.packets[at]!)
      this.#failed.add(state)
    } else {
      if (dropped > 0) this.#engine.drop(Verdict.TxQueueFull, peer, dropped)
      if (state.stream.blocked !== state.writing) this.#watchStream(state)
    }
  }

  /** Sends a packet of the control channel as it stands; errno, or 0. */
  #sendControl(handle: PeerHandle, packet: Uint8Array): number {
    const peer = this.#engine.peer(handle)
    if (peer === undefined) return E.EHOSTUNREACH
    const outbox = this.#control
    const prefix = peer.stream ? 2 : 0
    if (peer.stream) this.#memory.view.setUint16(outbox.cursor, packet.length)
    this.#memory.u8.set(packet, outbox.cursor + prefix)
    outbox.add(peer, packet.length + prefix)
    this.#transmit(outbox)
    outbox.clear()
    return 0
  }

  // Descriptors ------------------------------------------------------------------------------------------------------

  #watch(fd: number, events: number, ready: (events: number) => void): void {
    const { view, base } = this.#memory
    view.setUint32(this.#event, events, true)
    view.setInt32(this.#event + EPOLL.eventData, fd, true)
    const how = this.#ready.has(fd) ? EPOLL.CTL_MOD : EPOLL.CTL_ADD
    check(this.#sys.epollCtl(this.#epoll, how, fd, base + this.#event), 'epoll_ctl')
    this.#ready.set(fd, ready)
  }

  #unwatch(fd: number): void {
    if (!this.#ready.delete(fd)) return
    this.#sys.epollCtl(this.#epoll, EPOLL.CTL_DEL, fd, 0)
  }
}

function check(result: number, call: string): number {
  if (result < 0) throw new Error(`${call}: errno ${-result}`)
  return result
}

limitThread()
const { port, options } = workerData as { port: MessagePort; options: WorkerOptions }
try {
  new Loop(options, port).run()
} catch (error) {
  const failed: Happening = {
    what: 'failed',
    error: error instanceof Error ? (error.stack ?? error.message) : String(error),
  }
  port.postMessage(failed)
}
port.close()
