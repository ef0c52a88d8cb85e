/**
 * TCP peers of the program. The driver takes their streams over; in place of each, the program gets one end of a pair of
 * sockets that carries its control packets only, framed as in the stream: what it writes there the driver sends, and what
 * the driver sets aside is written there for it to read.
 */
import type { Channel, Protocol } from '../driver/channel.ts'
import { type DriverClient, openClient } from '../driver/client.ts'
import { E, F_DUPFD_CLOEXEC } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { blockOf, createBlock } from '../platform/memory.ts'
import { netnsId } from '../platform/netns.ts'
import { openPair, setBlocking } from '../platform/relay.ts'
import type { Listener, TrappedCall } from '../platform/seccomp.ts'
import { inspectSocket } from '../platform/udp.ts'
import { ApiError } from '../uapi/errno.ts'
import type { DialectName } from '../uapi/types.ts'
import { flagsOf, takeFdOf } from './process.ts'
import type { Program } from './supervisor.ts'
import type { Watch } from './watch.ts'

export interface StreamsOptions {
  readonly listener: Listener
  readonly watch: Watch
  openChannel(protocol: Protocol, program: Program): Promise<Channel> | Channel
  log(text: string): void
}

/** A request for a peer that the driver has granted, whose call still waits. */
export interface Adoption {
  readonly call: TrappedCall
  /** The socket, as the program numbers it. */
  readonly fd: number
  readonly peer: { dialect: DialectName; netns: number; ifindex: number; peerId: number }
}

interface Stream {
  /** Our end of the pair. */
  readonly end: number
  /** What waits for room. */
  out: Uint8Array
  /** An unfinished frame. */
  rest: Uint8Array
  /** Whether the driver still has the peer. */
  alive: boolean
  unwatch(): void
}

interface Driver {
  readonly client: DriverClient
  readonly registered: Set<number>
}

const FRAME_PREFIX = 2
const READ_BYTES = 65536
const RETRY_MS = 10
const SHUT_WR = 1
/** Packets kept for a peer that is about to be adopted. */
const EARLY_LIMIT = 64

export class Streams {
  readonly #options: StreamsOptions
  readonly #os = openLibc()
  readonly #streams = new Map<string, Stream>()
  readonly #early = new Map<string, Uint8Array[]>()
  readonly #drivers = new Map<string, Promise<Driver>>()

  constructor(options: StreamsOptions) {
    this.#options = options
  }

  /** Replaces the socket of a new peer, if it is a TCP stream. Rejects with an OsError or ApiError. */
  async adopt({ call, fd, peer }: Adoption): Promise<void> {
    const { dialect, ifindex, peerId } = peer
    // Programs of that dialect exchange control packets as messages themselves.
    if (dialect === 'ovpn-dco' || !this.#isTcp(call.tid, fd)) return
    const { blocking, cloexec } = flagsOf(call.tid, fd)
    const { own, other } = openPair('stream')
    setBlocking(other, blocking)
    const { listener, watch } = this.#options
    const place = { tid: call.tid, fd }
    const watches = await watch.forget(place)
    const given = listener.giveFd(call, other, fd, { cloexec, answer: false })
    this.#os.close(other)
    if (given < 0) {
      this.#os.close(own)
      throw ApiError.from(-given, 'cannot replace the TCP socket')
    }
    await watch.renew(place, watches)
    const { client, registered } = await this.#driver(peer.dialect, peer.netns, call.tid)
    const none = new Uint8Array(0)
    const stream: Stream = { end: own, out: none, rest: none, alive: true, unwatch: () => {} }
    const key = `${ifindex}:${peerId}`
    const early = this.#early.get(key) ?? []
    this.deleted(ifindex, peerId) // one that had the number before
    this.#streams.set(key, stream)
    stream.unwatch = watch.add(own, () => {
      if (this.#read(stream, (packet) => send(client, ifindex, packet, peerId))) return
      stream.unwatch()
      this.#os.close(own)
      if (this.#streams.get(key) === stream) this.#streams.delete(key)
      // The program has closed its socket: to the kernel's driver that is the end of the peer.
      if (stream.alive) client.peerDel(ifindex, peerId).catch(() => {})
    })
    for (const packet of early) this.#write(stream, packet)
    if (registered.has(ifindex)) return
    registered.add(ifindex)
    await client.packetRegister(ifindex)
  }

  /** The program, or the driver, has removed a peer. */
  deleted(ifindex: number, peerId: number): void {
    const key = `${ifindex}:${peerId}`
    const stream = this.#streams.get(key)
    if (stream !== undefined) stream.alive = false
    this.#streams.delete(key)
    this.#early.delete(key)
  }

  close(): void {
    for (const driver of this.#drivers.values()) {
      driver.then(
        ({ client }) => client.close(),
        () => {},
      )
    }
  }

  #isTcp(tid: number, fd: number): boolean {
    const own = takeFdOf(tid, fd)
    try {
      return inspectSocket(own).protocol === 'tcp'
    } finally {
      this.#os.close(own)
    }
  }

  #driver(dialect: DialectName, netns: number, tid: number): Promise<Driver> {
    const id = netnsId(netns)
    const key = `${dialect} ${id}`
    const known = this.#drivers.get(key)
    if (known !== undefined) return known
    const program: Program = {
      tid,
      netns: id,
      privileged: true,
      takeFd: () => {
        throw new ApiError('ENOTSOCK', 'no descriptors here')
      },
      openNetns: () => this.#os.fcntl(netns, F_DUPFD_CLOEXEC, 0),
    }
    const opened = this.#open(dialect, program)
    this.#drivers.set(key, opened)
    opened.catch(() => this.#drivers.delete(key))
    return opened
  }

  async #open(dialect: DialectName, program: Program): Promise<Driver> {
    const { openChannel, log } = this.#options
    const client = await openClient({
      generic: () => openChannel('generic', program),
      route: () => openChannel('route', program),
      dialect,
    })
    const events = await client.events()
    const follow = async () => {
      for await (const event of events) {
        if (event.event === 'packet') {
          const { packet, peerId, eof } = event.packet
          this.#arrived(`${event.ifindex}:${peerId}`, packet, eof ?? false)
        } else if (event.event === 'peer-del-ntf') {
          this.#ended(event.ifindex, event.peer.id)
        }
      }
    }
    follow()
      .catch((error: Error) => log(`control packets of TCP peers: ${error.message}`))
      .finally(() => this.#driverGone())
    return { client, registered: new Set() }
  }

  #arrived(key: string, packet: Uint8Array, eof: boolean): void {
    const stream = this.#streams.get(key)
    if (stream !== undefined) {
      if (eof) this.#os.shutdown(stream.end, SHUT_WR)
      else this.#write(stream, packet)
      return
    }
    const early = this.#early.get(key) ?? []
    if (!eof && early.length < EARLY_LIMIT) early.push(packet)
    this.#early.set(key, early)
  }

  /** The program reads the end of its stream. */
  #ended(ifindex: number, peerId: number): void {
    const stream = this.#streams.get(`${ifindex}:${peerId}`)
    if (stream !== undefined) this.#os.shutdown(stream.end, SHUT_WR)
    this.deleted(ifindex, peerId)
  }

  /** With it, its peers. */
  #driverGone(): void {
    for (const stream of this.#streams.values()) {
      stream.alive = false
      this.#os.shutdown(stream.end, SHUT_WR)
    }
    this.#streams.clear()
  }

  #write(stream: Stream, packet: Uint8Array): void {
    const waited = stream.out.length > 0
    const framed = new Uint8Array(stream.out.length + FRAME_PREFIX + packet.length)
    framed.set(stream.out)
    new DataView(framed.buffer).setUint16(stream.out.length, packet.length)
    framed.set(packet, stream.out.length + FRAME_PREFIX)
    stream.out = framed
    if (!waited) this.#flush(stream)
  }

  #flush(stream: Stream): void {
    const { out } = stream
    const written = this.#os.write(stream.end, blockOf(out).base, out.length)
    if (written < 0 && written !== -E.EAGAIN) stream.out = new Uint8Array(0)
    else stream.out = out.subarray(Math.max(written, 0))
    if (stream.out.length > 0) setTimeout(() => this.#flush(stream), RETRY_MS)
  }

  /** Hands on each whole packet that the program has written; false at the end. */
  #read(stream: Stream, each: (packet: Uint8Array) => void): boolean {
    const block = createBlock(READ_BYTES)
    const got = this.#os.read(stream.end, block.base, READ_BYTES)
    if (got === -E.EAGAIN) return true
    if (got <= 0) return false
    const bytes = new Uint8Array(stream.rest.length + got)
    bytes.set(stream.rest)
    bytes.set(block.u8.subarray(0, got), stream.rest.length)
    let at = 0
    for (;;) {
      const length =
        at + FRAME_PREFIX <= bytes.length ? (bytes[at]! << 8) | bytes[at + 1]! : Infinity
      const next = at + FRAME_PREFIX + length
      if (next > bytes.length) break
      each(bytes.subarray(at + FRAME_PREFIX, next))
      at = next
    }
    stream.rest = bytes.slice(at)
    return true
  }
}

/** A packet that cannot be sent is lost, as on the way: the control channel sends it again. */
function send(client: DriverClient, ifindex: number, packet: Uint8Array, peerId: number): void {
  client.packet(ifindex, { packet, peerId }).catch(() => {})
}
