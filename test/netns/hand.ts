/**
 * The other end by hand: sockets that send any bytes, data packets sealed and opened without the driver, inner packets
 * written byte by byte, and what passes on a wire. Hosts and devices are lab.ts's.
 */
import assert from 'node:assert/strict'
import { check } from '../../src/platform/error.ts'
import { E, IOVEC, MSG_DONTWAIT, MSGHDR } from '../../src/platform/layout.ts'
import { openLibc } from '../../src/platform/libc.ts'
import { type Block, blockOf, createBlock } from '../../src/platform/memory.ts'
import { inNetns } from '../../src/platform/netns.ts'
import { decodeAddress, encodeAddress, type SocketAddress } from '../../src/platform/sockaddr.ts'
import { type DataPacket, openDataV2, sealDataV2 } from '../../src/wire/data.ts'
import { type Host, keyTo, sleep, until } from './lab.ts'

const os = openLibc()
const BUFFER_BYTES = 65536
const AF_PACKET = 17
const SOCK_RAW = 3
const ETH_P_ALL = 0x0003
const ETHERNET_BYTES = 14
const SOCKADDR_LL = { family: 0, protocol: 2, ifindex: 4, size: 20 } as const

/** A structure for sendmsg and recvmsg, with what it points to. */
class Message {
  readonly data: Block
  readonly name: Block
  readonly #header = createBlock(MSGHDR.size)
  readonly #iovec = createBlock(IOVEC.size)

  constructor(data: Block, bytes: number, name: Block, nameBytes: number) {
    this.data = data
    this.name = name
    const { view } = this.#header
    this.#iovec.view.setBigUint64(IOVEC.base, BigInt(data.base), true)
    this.#iovec.view.setBigUint64(IOVEC.len, BigInt(bytes), true)
    view.setBigUint64(MSGHDR.name, BigInt(nameBytes === 0 ? 0 : name.base), true)
    view.setUint32(MSGHDR.namelen, nameBytes, true)
    view.setBigUint64(MSGHDR.iov, BigInt(this.#iovec.base), true)
    view.setBigUint64(MSGHDR.iovlen, 1n, true)
  }

  get base(): number {
    return this.#header.base
  }
}

/** Where a datagram goes to or comes from. */
type Place = Pick<SocketAddress, 'address' | 'port'> & { scope?: number }

/** A UDP socket of no driver. */
export class HandUdp implements Disposable {
  readonly fd: number
  readonly port: number

  /** Takes a bound socket over. */
  constructor({ fd, port }: { fd: number; port: number }) {
    this.fd = fd
    this.port = port
  }

  send(bytes: Uint8Array, to: Place): void {
    const name = encodeAddress({ scope: 0, ...to })
    const message = new Message(blockOf(bytes), bytes.length, name.block, name.length)
    for (;;) {
      const sent = os.sendmsg(this.fd, message.base, 0)
      if (sent === -E.EAGAIN) continue // its buffer is emptied by the kernel, whatever this thread does
      check(sent, 'sendmsg', `cannot send ${bytes.length} bytes`)
      return
    }
  }

  /** What has arrived, if there is anything. */
  poll(): { bytes: Uint8Array; from: SocketAddress } | undefined {
    const message = new Message(createBlock(BUFFER_BYTES), BUFFER_BYTES, createBlock(128), 128)
    const got = os.recvmsg(this.fd, message.base, MSG_DONTWAIT)
    if (got === -E.EAGAIN) return undefined
    check(got, 'recvmsg', 'cannot receive')
    return { bytes: message.data.u8.slice(0, got), from: decodeAddress(message.name)! }
  }

  receive(): Promise<{ bytes: Uint8Array; from: SocketAddress }> {
    return until('a datagram', () => this.poll())
  }

  /** The next that `wanted` makes something of; others are thrown away. */
  find<T>(what: string, wanted: (bytes: Uint8Array) => T | undefined): Promise<NonNullable<T>> {
    return until(what, () => {
      for (let got = this.poll(); got !== undefined; got = this.poll()) {
        const found = wanted(got.bytes)
        if (found !== undefined && found !== null) return found
      }
      return undefined
    })
  }

  [Symbol.dispose](): void {
    os.close(this.fd)
  }
}

/** One end of a TCP stream, as bytes. */
export class HandTcp {
  readonly fd: number

  constructor(fd: number) {
    this.fd = fd
  }

  async write(bytes: Uint8Array): Promise<void> {
    const block = blockOf(bytes)
    let at = 0
    await until('room in the stream', () => {
      while (at < bytes.length) {
        const sent = os.write(this.fd, block.base + at, bytes.length - at)
        if (sent === -E.EAGAIN) return false
        at += check(sent, 'write', 'cannot write to the stream')
      }
      return true
    })
  }

  /** What has arrived: undefined for nothing yet, empty for the end. */
  poll(): Uint8Array | undefined {
    const block = createBlock(BUFFER_BYTES)
    const got = os.read(this.fd, block.base, BUFFER_BYTES)
    if (got === -E.EAGAIN) return undefined
    return block.u8.slice(0, check(got, 'read', 'cannot read from the stream'))
  }

  close(): void {
    os.close(this.fd)
  }
}

/** Cuts a stream into frames. */
export class Frames {
  #bytes = new Uint8Array(0)

  push(bytes: Uint8Array): Uint8Array[] {
    this.#bytes = Uint8Array.from(Buffer.concat([this.#bytes, bytes]))
    const found: Uint8Array[] = []
    while (this.#bytes.length >= 2) {
      const end = 2 + ((this.#bytes[0]! << 8) | this.#bytes[1]!)
      if (this.#bytes.length < end) break
      found.push(this.#bytes.slice(2, end))
      this.#bytes = this.#bytes.slice(end)
    }
    return found
  }
}

/** A packet behind its length, as TCP carries it. */
export function framed(packet: Uint8Array): Uint8Array {
  return Uint8Array.from([packet.length >> 8, packet.length & 0xff, ...packet])
}

/** Side 1 of a tunnel whose side 0 is the driver's: AES-GCM, with the keys of `Device.keyNew`. */
export class HandKey {
  readonly peerId: number
  readonly keyId: number
  readonly #seed: number
  #packetId = 0

  constructor(peerId: number, { keyId = 0, seed = keyId }: { keyId?: number; seed?: number } = {}) {
    this.peerId = peerId
    this.keyId = keyId
    this.#seed = seed
  }

  /** `changes` stand in for what the packet would carry. */
  /** Packets from now on have ids above this one. */
  skipTo(packetId: number): void {
    this.#packetId = packetId
  }

  seal(plaintext: Uint8Array, changes: Partial<DataPacket> = {}): Uint8Array {
    const { cipherKey: key, nonceTail } = keyTo(0, { seed: this.#seed })
    const packetId = changes.packetId ?? ++this.#packetId
    const packet = { keyId: this.keyId, peerId: this.peerId, plaintext, ...changes, packetId }
    return sealDataV2({ cipher: 'aes-gcm', key, nonceTail }, packet)
  }

  open(packet: Uint8Array): DataPacket | undefined {
    const { cipherKey: key, nonceTail } = keyTo(1, { seed: this.#seed })
    return openDataV2({ cipher: 'aes-gcm', key, nonceTail }, packet)
  }

  /** The plaintext if the packet is an answer to an echo request with this number. */
  answer(packet: Uint8Array, sequence: number): Uint8Array | undefined {
    const plain = this.open(packet)?.plaintext
    return plain !== undefined && plain[9] === 1 && plain[20] === 0 && plain[27] === sequence
      ? plain
      : undefined
  }
}

function ones(data: Uint8Array): number {
  let sum = 0
  for (let i = 0; i < data.length; i += 2) sum += (data[i]! << 8) | (data[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16)
  return ~sum & 0xffff
}

/** An IPv4 packet with an ICMP echo request in it; `sequence` up to 255. */
export function echoRequest(from: string, to: string, sequence: number, bytes = 32): Uint8Array {
  const packet = new Uint8Array(28 + bytes)
  const view = new DataView(packet.buffer)
  packet.set([0x45, 0])
  view.setUint16(2, packet.length)
  packet.set([64, 1], 8) // hops, ICMP
  packet.set(from.split('.').map(Number), 12)
  packet.set(to.split('.').map(Number), 16)
  view.setUint16(10, ones(packet.subarray(0, 20)))
  packet[20] = 8
  view.setUint16(24, 0x7357)
  view.setUint16(26, sequence)
  for (let i = 28; i < packet.length; i++) packet[i] = i
  view.setUint16(22, ones(packet.subarray(20)))
  return packet
}

/** What passes an interface of `host` while it is open: frames without their Ethernet header. */
export class Capture implements Disposable {
  readonly #fd: number
  readonly #packets: Uint8Array[] = []

  constructor(host: Host, link: string) {
    const protocol = ((ETH_P_ALL & 0xff) << 8) | (ETH_P_ALL >> 8)
    const attempt = `cannot see what passes ${link}`
    this.#fd = check(
      inNetns(host.fd, () => os.socket(AF_PACKET, SOCK_RAW | 0o4000, protocol)),
      'socket',
      attempt,
    )
    const address = createBlock(SOCKADDR_LL.size)
    address.view.setUint16(SOCKADDR_LL.family, AF_PACKET, true)
    address.view.setUint16(SOCKADDR_LL.protocol, ETH_P_ALL)
    address.view.setInt32(SOCKADDR_LL.ifindex, host.indexOf(link), true)
    check(os.bind(this.#fd, address.base, SOCKADDR_LL.size), 'bind', attempt)
  }

  /** All so far. */
  packets(): Uint8Array[] {
    const block = createBlock(BUFFER_BYTES + ETHERNET_BYTES)
    for (;;) {
      const got = os.read(this.#fd, block.base, BUFFER_BYTES + ETHERNET_BYTES)
      if (got === -E.EAGAIN) return this.#packets
      check(got, 'read', 'cannot read what passed')
      this.#packets.push(block.u8.slice(ETHERNET_BYTES, got))
    }
  }

  /** Payloads of UDP over IPv4 that `from` sent. */
  udp4(from: string): Uint8Array[] {
    const source = from.split('.').map(Number)
    return this.packets()
      .filter((ip) => ip[0]! >> 4 === 4 && ip[9] === 17)
      .filter((ip) => source.every((byte, i) => ip[12 + i] === byte))
      .map((ip) => ip.subarray(4 * (ip[0]! & 15) + 8))
  }

  [Symbol.dispose](): void {
    os.close(this.#fd)
  }
}

/** Sends `total` packets in bursts that a socket's buffer holds, so that what is lost is lost by the driver. */
export async function paced(total: number, send: (i: number) => void, burst = 100): Promise<void> {
  for (let i = 0; i < total; i++) {
    send(i)
    if (i % burst === burst - 1) await sleep(1)
  }
}

/** Fails unless `count` of `reason` was counted in time, in all of `drops`. */
export async function dropped(
  drops: () => Promise<Record<string, number>>,
  reason: string,
  count: number,
): Promise<void> {
  let last: Record<string, number> = {}
  await until(`${count} of ${reason}`, async () => {
    last = await drops()
    return (last[reason] ?? 0) >= count
  }).catch((error: Error) => {
    throw new Error(`${error.message}; counted: ${JSON.stringify(last)}`)
  })
  assert.equal(last[reason], count, reason)
}
