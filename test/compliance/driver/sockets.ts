/**
 * Sockets of the suite: datagrams with the addresses they came from, streams, and packets as a network device sees them.
 * Everything is non-blocking and synchronous; who waits, and for how long, is stage.ts's.
 */
import { check } from '../../../src/platform/error.ts'
import {
  E,
  IOVEC,
  IPPROTO_TCP,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSGHDR,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  TCP_NODELAY,
} from '../../../src/platform/layout.ts'
import { openLibc } from '../../../src/platform/libc.ts'
import { createBlock } from '../../../src/platform/memory.ts'
import { inNetns } from '../../../src/platform/netns.ts'
import { decodeAddress, encodeAddress } from '../../../src/platform/sockaddr.ts'
import { setOption } from '../../../src/platform/sockopt.ts'
import { openUdp } from '../../../src/platform/udp.ts'

const AF_PACKET = 17
const ETH_P_ALL = 3
export const ETH_P_IP = 0x0800
export const ETH_P_IPV6 = 0x86dd
const PACKET_OUTGOING = 4
/** struct sockaddr_ll */
const SOCKADDR_LL = { family: 0, protocol: 2, ifindex: 4, packetType: 10, size: 20 } as const
const ECONNREFUSED = 111
const NAME_BYTES = 128
const DATA_BYTES = 65_536

const os = openLibc()
const NAME_AT = MSGHDR.size
const IOV_AT = NAME_AT + NAME_BYTES
const DATA_AT = IOV_AT + IOVEC.size
/** One message at a time: nothing here waits. */
const block = createBlock(DATA_AT + DATA_BYTES)
block.view.setBigUint64(MSGHDR.iov, BigInt(block.base + IOV_AT), true)
block.view.setBigUint64(MSGHDR.iovlen, 1n, true)
block.view.setBigUint64(IOV_AT + IOVEC.base, BigInt(block.base + DATA_AT), true)

function aim(length: number, nameLength: number): void {
  const name = nameLength === 0 ? 0n : BigInt(block.base + NAME_AT)
  block.view.setBigUint64(MSGHDR.name, name, true)
  block.view.setUint32(MSGHDR.namelen, nameLength, true)
  block.view.setUint32(IOV_AT + IOVEC.len, length, true)
}

/** An address and a port. */
export interface Endpoint {
  address: string
  port: number
}

/** @returns what sendmsg returns: bytes, or -errno */
function send(fd: number, bytes: Uint8Array, nameLength: number, flags: number): number {
  block.u8.set(bytes, DATA_AT)
  aim(bytes.length, nameLength)
  return os.sendmsg(fd, block.base, flags)
}

function receive(fd: number): Uint8Array | number {
  aim(DATA_BYTES, NAME_BYTES)
  const got = os.recvmsg(fd, block.base, MSG_DONTWAIT)
  return got < 0 ? got : block.u8.slice(DATA_AT, DATA_AT + got)
}

/** A bound UDP socket. */
export class Udp {
  readonly fd: number
  readonly port: number
  #open = true

  constructor(netns: number, address: string, port: number) {
    const bound = openUdp(address, port, { netns })
    this.fd = bound.fd
    this.port = bound.port
  }

  /** @returns 0 or -errno */
  connect({ address, port }: Endpoint): number {
    const to = encodeAddress({ address, port, scope: 0 })
    return os.connect(this.fd, to.block.base, to.length)
  }

  send(bytes: Uint8Array, { address, port }: Endpoint): number {
    const to = encodeAddress({ address, port, scope: 0 })
    block.u8.set(to.block.u8, NAME_AT)
    return send(this.fd, bytes, to.length, MSG_NOSIGNAL)
  }

  /** What has come: who from, and the bytes in hex. */
  drain(): string[] {
    const found: string[] = []
    for (;;) {
      const bytes = this.#open ? receive(this.fd) : -E.EAGAIN
      // An ICMP error that came back for something sent is not what is looked for here.
      if (bytes === -ECONNREFUSED || bytes === -E.EHOSTUNREACH) continue
      if (typeof bytes === 'number') return found
      const name = { u8: block.u8.slice(NAME_AT, IOV_AT), view: nameView() }
      const from = decodeAddress(name)
      found.push(`${from?.address} ${from?.port}: ${hex(bytes)}`)
    }
  }

  close(): void {
    if (this.#open) os.close(this.fd)
    this.#open = false
  }
}

function nameView(): DataView {
  const copy = block.u8.slice(NAME_AT, IOV_AT)
  return new DataView(copy.buffer)
}

/** A connected TCP stream. */
export class Stream {
  readonly fd: number
  #open = true

  constructor(fd: number) {
    this.fd = fd
    setOption(os, fd, IPPROTO_TCP, TCP_NODELAY, 1, 'cannot set up a stream')
  }

  /** @returns bytes taken, or -errno */
  send(bytes: Uint8Array): number {
    return send(this.fd, bytes, 0, MSG_NOSIGNAL | MSG_DONTWAIT)
  }

  /** One read: its bytes in hex, 'end', or undefined when nothing has come; a failure by its number. */
  read(): string | undefined {
    const bytes = this.#open ? receive(this.fd) : -E.EAGAIN
    if (bytes === -E.EAGAIN) return undefined
    if (typeof bytes === 'number') return `errno ${-bytes}`
    return bytes.length === 0 ? 'end' : hex(bytes)
  }

  shutdown(): void {
    os.shutdown(this.fd, 1)
  }

  close(): void {
    if (this.#open) os.close(this.fd)
    this.#open = false
  }
}

/** What goes through a network device, both ways. Packets start with their IP header. */
export class PacketTap {
  readonly fd: number
  readonly #ifindex: number

  constructor(netns: number, ifindex: number) {
    this.#ifindex = ifindex
    const open = () => os.socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    this.fd = check(inNetns(netns, open), 'socket', 'cannot open a packet socket')
    const name = this.#name(ETH_P_ALL)
    check(os.bind(this.fd, name.base, SOCKADDR_LL.size), 'bind', 'cannot bind a packet socket')
  }

  /** Hands a packet to the device, as the IP stack would. @returns bytes, or -errno */
  send(packet: Uint8Array, protocol: number): number {
    block.u8.set(this.#name(protocol).u8.subarray(0, SOCKADDR_LL.size), NAME_AT)
    return send(this.fd, packet, SOCKADDR_LL.size, 0)
  }

  /** Packets that the device has delivered, in hex; not those it was given. */
  drain(): string[] {
    const found: string[] = []
    for (;;) {
      const bytes = receive(this.fd)
      if (typeof bytes === 'number') return found
      if (block.u8[NAME_AT + SOCKADDR_LL.packetType] !== PACKET_OUTGOING) found.push(hex(bytes))
    }
  }

  close(): void {
    os.close(this.fd)
  }

  #name(protocol: number) {
    const name = createBlock(SOCKADDR_LL.size)
    name.view.setUint16(SOCKADDR_LL.family, AF_PACKET, true)
    name.view.setUint16(SOCKADDR_LL.protocol, protocol)
    name.view.setInt32(SOCKADDR_LL.ifindex, this.#ifindex, true)
    return name
  }
}

/** A pair of connected unix sockets, or a pipe: descriptors that are no transport. */
export function openOther(
  kind: 'pipe' | 'unix' | 'icmp',
  netns: number,
): { fd: number; close(): void } {
  const two = createBlock(8)
  if (kind === 'icmp') {
    const raw = () => os.socket(2, 3 | SOCK_CLOEXEC, 1)
    const fd = check(inNetns(netns, raw), 'socket', 'cannot open a raw socket')
    return { fd, close: () => os.close(fd) }
  }
  const made =
    kind === 'unix'
      ? os.socketpair(1, 1 | SOCK_CLOEXEC, 0, two.base)
      : os.syscall(SYS_PIPE2, two.base, SOCK_CLOEXEC, 0, 0, 0, 0)
  check(made, kind, 'cannot open a pair of descriptors')
  const [fd, other] = [two.view.getInt32(0, true), two.view.getInt32(4, true)]
  return {
    fd,
    close() {
      os.close(fd)
      os.close(other)
    },
  }
}

const SYS_PIPE2 = process.arch === 'arm64' ? 59 : 293

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

export function unhex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'))
}
