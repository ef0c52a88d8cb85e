/**
 * TCP connections as the control plane wants them (openvpn/transport.ts). Never a byte more is read than belongs to the packet
 * at hand: what follows is the driver's, once the stream is handed over.
 *
 *     | length of the packet 2 | packet | length 2 | packet | ...      sizes in bytes
 */
import type {
  Endpoint,
  StreamEvents,
  StreamListener,
  StreamTransport,
} from '../openvpn/transport.ts'
import { applyOptions, type SocketOptions } from '../platform/datagrams.ts'
import { check, OsError } from '../platform/error.ts'
import {
  AF_INET6,
  E,
  IOVEC,
  IPPROTO_TCP,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSGHDR,
  SO_ERROR,
  SO_REUSEADDR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
  TCP_NODELAY,
} from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { type Block, createBlock } from '../platform/memory.ts'
import { inNetns } from '../platform/netns.ts'
import { decodeAddress, encodeAddress, nameOf } from '../platform/sockaddr.ts'
import { getOption, setOption, trySetOption } from '../platform/sockopt.ts'
import type { Syscalls } from '../platform/syscalls.ts'
import type { Watch, Watched } from '../platform/watch.ts'

const PREFIX_BYTES = 2
/** As OpenVPN: nothing longer is a control packet or a data packet that anybody sends. */
const MAX_PACKET_BYTES = 4096
const MAX_QUEUE_BYTES = 1 << 20
const BACKLOG = 1024
/** Packets of one connection, and connections, that are taken before others get their turn. */
const TAKE_LIMIT = 64
const EINPROGRESS = 115

const wrongLength = (length: number) => new Error(`a packet of ${length} bytes was announced`)

class Stream implements StreamTransport {
  readonly protocol = 'tcp'
  readonly fd: number
  readonly path: { remote: Endpoint; local: string }
  readonly #os: Syscalls
  readonly #watch: Watch
  readonly #buffer: Block
  #watched: Watched | undefined
  #events: StreamEvents | undefined
  /** Bytes in the buffer; what they are of is told by `#wanted`. */
  #have = 0
  /** Bytes that make the prefix, or prefix and packet, whole. */
  #wanted = PREFIX_BYTES
  /** The driver cuts the stream into packets, and gives one whole packet at a time. */
  #byPacket = false
  #queue: Uint8Array[] = []
  #queued = 0
  #waiting: (() => void)[] = []
  /** What is to be done as soon as no part of a packet is held. */
  #afterPacket: (() => void) | undefined
  #closed = false

  constructor(os: Syscalls, watch: Watch, fd: number) {
    const attempt = 'a connection has no address'
    this.#os = os
    this.#watch = watch
    this.fd = fd
    const remote = decodeAddress(nameOf(os, fd, 'getpeername', attempt).block)
    const local = decodeAddress(nameOf(os, fd, 'getsockname', attempt).block)
    if (remote === undefined || local === undefined)
      throw new OsError(E.ENOTCONN, 'getpeername', attempt)
    this.path = { remote, local: local.address }
    this.#buffer = createBlock(PREFIX_BYTES + MAX_PACKET_BYTES)
    trySetOption(os, fd, IPPROTO_TCP, TCP_NODELAY, 1)
  }

  start(events: StreamEvents): void {
    this.#events = events
    this.#listen()
  }

  send(packet: Uint8Array): void {
    if (this.#closed) return
    const frame = new Uint8Array(PREFIX_BYTES + packet.length)
    new DataView(frame.buffer).setUint16(0, packet.length)
    frame.set(packet, PREFIX_BYTES)
    this.#queue.push(frame)
    this.#queued += frame.length
    if (this.#queued > MAX_QUEUE_BYTES) this.#end(new Error('the other end takes nothing'))
    else this.#write()
  }

  async handOver(reads: boolean): Promise<void> {
    while (this.#queue.length > 0 && !this.#closed) await this.#next()
    this.#afterPacket = () => {
      this.#afterPacket = undefined
      this.#byPacket = true
      if (!reads) this.#unlisten()
      this.#release()
    }
    // A packet that has come in part is awaited: the driver wants to begin at its first byte.
    if (this.#have === 0) this.#afterPacket()
    while (this.#afterPacket !== undefined && !this.#closed) await this.#next()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#unlisten()
    this.#os.close(this.fd)
    this.#release()
  }

  #listen(): void {
    this.#watched = this.#watch.add(this.fd, ({ readable, writable }) => {
      if (writable) this.#write()
      if (readable) this.#read()
    })
  }

  #unlisten(): void {
    this.#watched?.end()
    this.#watched = undefined
  }

  #read(): void {
    for (let i = 0; i < TAKE_LIMIT && this.#watched !== undefined; i++) {
      const room = this.#byPacket ? this.#buffer.u8.length : this.#wanted - this.#have
      const got = this.#os.read(this.fd, this.#buffer.base + this.#have, room)
      if (got === -E.EAGAIN) return
      if (got <= 0) {
        this.#end(got === 0 ? undefined : new OsError(-got, 'read', 'the connection failed'))
        return
      }
      this.#have += got
      if (this.#byPacket) this.#take()
      else if (this.#have === this.#wanted) this.#advance()
    }
  }

  #advance(): void {
    if (this.#wanted > PREFIX_BYTES) {
      this.#take()
      this.#afterPacket?.()
      return
    }
    const length = this.#buffer.view.getUint16(0)
    if (length === 0 || length > MAX_PACKET_BYTES) this.#end(wrongLength(length))
    else this.#wanted = PREFIX_BYTES + length
  }

  #take(): void {
    const packet = this.#buffer.u8.slice(PREFIX_BYTES, this.#have)
    this.#have = 0
    this.#wanted = PREFIX_BYTES
    this.#events?.packet(packet)
  }

  #write(): void {
    while (this.#queue.length > 0 && !this.#closed) {
      const frame = this.#queue[0]!
      const block = createBlock(frame.length)
      block.u8.set(frame)
      const done = sendBytes(this.#os, this.fd, block, frame.length)
      if (done === -E.EAGAIN) {
        this.#watched?.writing(true)
        return
      }
      if (done < 0) {
        this.#end(new OsError(-done, 'send', 'the connection failed'))
        return
      }
      this.#queued -= done
      if (done < frame.length) this.#queue[0] = frame.subarray(done)
      else this.#queue.shift()
    }
    this.#watched?.writing(false)
    this.#release()
  }

  /** Resolves when something has changed: the queue is empty, a packet is whole, or all is over. */
  #next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #release(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  #end(error: Error | undefined): void {
    if (this.#closed) return
    this.close()
    this.#events?.ended(error)
  }
}

function sendBytes(os: Syscalls, fd: number, block: Block, length: number): number {
  const iov = createBlock(IOVEC.size)
  iov.view.setBigUint64(IOVEC.base, BigInt(block.base), true)
  iov.view.setBigUint64(IOVEC.len, BigInt(length), true)
  const header = createBlock(MSGHDR.size)
  header.view.setBigUint64(MSGHDR.iov, BigInt(iov.base), true)
  header.view.setBigUint64(MSGHDR.iovlen, 1n, true)
  return os.sendmsg(fd, header.base, MSG_DONTWAIT | MSG_NOSIGNAL)
}

/** Opens a listening socket; port 0 for any. @throws OsError EADDRINUSE and the like */
export function openStreamListener(
  watch: Watch,
  address: string,
  port: number,
  options: SocketOptions = {},
  os: Syscalls = openLibc(),
): StreamListener {
  const attempt = `cannot listen for TCP at ${address} port ${port}`
  const fd = openSocket(os, address, options, attempt)
  let listener: ((stream: StreamTransport) => void) | undefined
  let closed = false
  const accept = () => {
    for (let i = 0; i < TAKE_LIMIT && listener !== undefined; i++) {
      const accepted = os.accept4(fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)
      // Whatever else is wrong concerns that one connection.
      if (accepted === -E.EAGAIN) return
      if (accepted < 0) continue
      let stream: Stream
      try {
        stream = new Stream(os, watch, accepted)
      } catch {
        os.close(accepted)
        continue
      }
      listener(stream)
    }
  }
  try {
    setOption(os, fd, SOL_SOCKET, SO_REUSEADDR, 1, attempt)
    const at = encodeAddress({ address, port, scope: 0 })
    check(os.bind(fd, at.block.base, at.length), 'bind', attempt)
    check(os.listen(fd, BACKLOG), 'listen', attempt)
    const local = decodeAddress(nameOf(os, fd, 'getsockname', attempt).block)!
    const watched = watch.add(fd, accept)
    return {
      local,
      onStream(wanted) {
        listener = wanted
        accept()
      },
      close() {
        if (closed) return
        closed = true
        listener = undefined
        watched.end()
        os.close(fd)
      },
    }
  } catch (error) {
    os.close(fd)
    throw error
  }
}

export interface ConnectOptions extends SocketOptions {
  /** Where to connect from. */
  readonly local?: { address: string; port: number }
  readonly timeoutMs: number
  readonly signal?: AbortSignal
}

/** Connects. Rejects with an OsError: ECONNREFUSED, ETIMEDOUT and the like; or with the signal's reason. */
export async function connectStream(
  watch: Watch,
  to: Endpoint,
  options: ConnectOptions,
  os: Syscalls = openLibc(),
): Promise<StreamTransport> {
  return createStream(watch, await connectSocket(watch, to, options, os), os)
}

/** Takes a connected socket, which is closed with the stream, or at once where this fails. @throws OsError */
export function createStream(watch: Watch, fd: number, os: Syscalls = openLibc()): StreamTransport {
  try {
    return new Stream(os, watch, fd)
  } catch (error) {
    os.close(fd)
    throw error
  }
}

/** The descriptor of a connection. Rejects as `connectStream` does. */
export async function connectSocket(
  watch: Watch,
  to: Endpoint,
  options: ConnectOptions,
  os: Syscalls = openLibc(),
): Promise<number> {
  const attempt = `cannot connect to ${to.address} port ${to.port}`
  const fd = openSocket(os, to.address, options, attempt)
  try {
    if (options.local !== undefined) {
      setOption(os, fd, SOL_SOCKET, SO_REUSEADDR, 1, attempt)
      const at = encodeAddress({ ...options.local, scope: 0 })
      check(os.bind(fd, at.block.base, at.length), 'bind', attempt)
    }
    const name = encodeAddress(to)
    const begun = os.connect(fd, name.block.base, name.length)
    if (begun !== -EINPROGRESS) check(begun, 'connect', attempt)
    else await writable(watch, fd, options, attempt)
    check(-getOption(os, fd, SOL_SOCKET, SO_ERROR, attempt), 'connect', attempt)
    return fd
  } catch (error) {
    os.close(fd)
    throw error
  }
}

const ETIMEDOUT = 110

function writable(
  watch: Watch,
  fd: number,
  options: ConnectOptions,
  attempt: string,
): Promise<void> {
  const { timeoutMs, signal } = options
  return new Promise((resolve, reject) => {
    const done = (settle: () => void) => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', aborted)
      watched.end()
      settle()
    }
    const aborted = () => done(() => reject(signal?.reason))
    const timer = setTimeout(() => {
      done(() => reject(new OsError(ETIMEDOUT, 'connect', attempt)))
    }, timeoutMs)
    const watched = watch.add(fd, () => done(resolve))
    watched.writing(true)
    signal?.addEventListener('abort', aborted)
    if (signal?.aborted === true) aborted()
  })
}

function openSocket(
  os: Syscalls,
  address: string,
  options: SocketOptions,
  attempt: string,
): number {
  const { family } = encodeAddress({ address, port: 0, scope: 0 })
  const open = () => os.socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP)
  const { netns } = options
  const fd = check(netns === undefined ? open() : inNetns(netns, open, os), 'socket', attempt)
  try {
    applyOptions(os, fd, family === AF_INET6, options, attempt)
  } catch (error) {
    os.close(fd)
    throw error
  }
  return fd
}
