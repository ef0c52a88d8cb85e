/**
 * A server and its clients over one wire, with a control channel that needs no time, and traffic of which every packet
 * is known: what a device gets and was not sent to it, or had already, is an error there and then.
 *
 * Client N has the VPN addresses 10.8.0.N and fd00::N, and the network 10.9.N.0/24 behind it; the server has 10.8.0.1.
 * The server forwards from client to client.
 */
import assert from 'node:assert/strict'
import { type Endpoint, V4_MARK } from '../../src/driver/core/address.ts'
import type { KeyConfig } from '../../src/driver/core/key-slot.ts'
import { Random } from '../random.ts'
import { hasChaCha } from './aead.ts'
import { Clock } from './clock.ts'
import { Host } from './host.ts'
import {
  build,
  buildPiece,
  cut,
  Flag,
  type Packet,
  packet,
  parse,
  plainPiece,
  TCP,
  UDP,
} from './packets.ts'
import { type Datagram, type Noise, Wire } from './wire.ts'

const SERVER_PORT = 1194
/** A client's id for the server; the server's id for a client is its number. */
const ID_OFFSET = 1000
/** Handles of the client's one peer, and of the server's. */
const SERVER_HANDLE = 1
/** Flow and number of a packet, at the begin of its payload. */
const STAMP_BYTES = 8
/** A sealed keepalive; every other packet here is longer. */
const PING_BYTES = 40
const EPOCH_PING_BYTES = 44

interface Client {
  number: number
  host: Host
  keyId: number
}

/** Packets from one address to another, of one transport connection. */
interface Flow {
  from: Host
  to: Host
  next: Packet
  /** Numbers of the packets to be sent next, and last delivered. */
  number: number
  delivered: number
}

export class Network {
  readonly clock = new Clock()
  readonly wire: Wire
  readonly server: Host
  readonly clients: Client[] = []
  /** What the control channel heard, with the time. */
  readonly events: string[] = []
  /** Packets given to a device, and taken from one; every hop counts. */
  sent = 0
  delivered = 0
  /** Datagrams of sent packets that the wire let through. */
  unharmed = 0
  /** Every datagram there was, where wanted. */
  recorded: { datagram: Datagram; unharmed: boolean }[] | undefined
  /** Whether a flow's packets must arrive in order. */
  readonly #ordered: boolean
  readonly #random: Random
  readonly #flows: Flow[] = []
  /** Packets on their way, by flow and number. */
  readonly #pending = new Map<string, { bytes: Uint8Array; to: Host }>()
  readonly #keepalive: { interval: number; timeout: number }
  readonly #epochUsage: number | undefined

  /** `epochUsage`: keys have epochs, each for so many blocks and packets. */
  constructor(options: {
    seed: number
    clients: number
    noise: Noise
    keepalive?: { interval: number; timeout: number }
    epochUsage?: number
  }) {
    const { clients, noise } = options
    this.#random = new Random(options.seed)
    this.#ordered = noise.jitter === 0 && noise.repeated === 0
    this.#keepalive = options.keepalive ?? { interval: 0, timeout: 0 }
    this.#epochUsage = options.epochUsage
    const pingBytes = options.epochUsage === undefined ? PING_BYTES : EPOCH_PING_BYTES
    this.wire = new Wire(this.clock, new Random(options.seed + 1_000_000), noise)
    this.wire.tap = (datagram, unharmed) => {
      if (unharmed && datagram.bytes.length !== pingBytes) this.unharmed++
      this.recorded?.push({ datagram, unharmed })
    }
    this.server = this.#host('server', {
      addresses: ['203.0.113.1', '2001:db8:1::1'],
      port: SERVER_PORT,
      single: false,
      // 10.9.N.x lies behind 10.8.0.N.
      routes: (to: Int32Array) =>
        to[2] === V4_MARK && to[3]! >>> 16 === 0x0a09
          ? Int32Array.of(0, 0, V4_MARK, 0x0a080000 | ((to[3]! >> 8) & 0xff))
          : undefined,
    })
    for (let number = 2; number < 2 + clients; number++) this.#connect(number)
  }

  /** Gives `client` and the server a new key each, which each uses when it likes within the next `within` milliseconds. */
  rotate(client: Client, within = 500, firstPacketId = 1): void {
    const { clock, server } = this
    client.keyId = (client.keyId % 7) + 1
    const [up, down] = this.#keys(client.keyId, firstPacketId)
    const { host, number } = client
    host.engine.installKey(SERVER_HANDLE, 'secondary', up, clock.now)
    server.engine.installKey(number, 'secondary', down, clock.now)
    clock.after(this.#random.below(within), () => host.engine.swapKeys(SERVER_HANDLE))
    clock.after(this.#random.below(within), () => server.engine.swapKeys(number))
  }

  /** Adds a flow between devices, from and to VPN addresses; its number. */
  addFlow(from: Host, to: Host, source: string, destination: string, protocol = TCP): number {
    const number = this.#flows.length
    const next = packet({
      source,
      destination,
      protocol,
      sourcePort: 1024 + number,
      dontFragment: false,
      id: this.#random.below(65536),
      sequence: this.#random.below(2 ** 32),
    })
    this.#flows.push({ from, to, next, number: 0, delivered: -1 })
    return number
  }

  /** Flows of all kinds: up, down, from client to client, from behind a client, of either family and protocol. */
  addFlows(): void {
    const { server, clients } = this
    for (const [i, { host, number }] of clients.entries()) {
      const protocol = i % 2 === 0 ? TCP : UDP
      const neighbour = clients[(i + 1) % clients.length]!
      this.addFlow(host, server, `10.8.0.${number}`, '10.8.0.1', TCP)
      this.addFlow(server, host, '10.8.0.1', `10.8.0.${number}`, protocol)
      this.addFlow(host, server, `fd00::${number}`, 'fd00::1', protocol)
      this.addFlow(server, host, 'fd00::1', `fd00::${number}`, TCP)
      this.addFlow(host, server, `10.9.${number}.7`, '10.8.0.1', protocol)
      this.addFlow(server, host, '10.8.0.1', `10.9.${number}.7`, TCP)
      this.addFlow(host, neighbour.host, `10.8.0.${number}`, `10.9.${neighbour.number}.9`, protocol)
    }
  }

  /** Sends something on a flow, or on any: a packet, or many in one piece. */
  sendSome(flow = this.#random.below(this.#flows.length)): void {
    const random = this.#random
    const of = this.#flows[flow]!
    const size = STAMP_BYTES + random.below(random.below(4) === 0 ? 1300 : 100)
    const count = random.below(3) === 0 ? 1 + random.below(12) : 1
    const payload = random.bytes(size * count)
    const view = new DataView(payload.buffer)
    const first = of.number
    for (let i = 0; i < count; i++) {
      view.setUint32(size * i, flow)
      view.setUint32(size * i + 4, of.number++)
    }
    const flags = Flag.Ack | (random.below(4) === 0 ? Flag.Psh : 0)
    const whole = { ...of.next, flags, payload }
    for (const [i, one] of cut(whole, size).entries()) {
      this.#pending.set(`${flow} ${first + i}`, { bytes: build(one), to: of.to })
    }
    of.next = {
      ...whole,
      id: (whole.id + count) % 65536,
      sequence: (whole.sequence + payload.length) % 2 ** 32,
    }
    this.sent += count
    const complete = count === 1 && random.below(2) === 0
    of.from.send(complete ? plainPiece(build(whole)) : buildPiece(whole, size))
  }

  /** Packets of a flow that have not arrived. */
  missing(flow: number): number {
    let count = 0
    for (const key of this.#pending.keys()) if (key.startsWith(`${flow} `)) count++
    return count
  }

  #connect(number: number): void {
    const random = this.#random
    const v6 = number % 3 === 0
    const address = v6 ? `2001:db8:2::${number}` : `198.51.100.${number}`
    const port = 1024 + random.below(60000)
    const host = this.#host(`${number}`, { addresses: [address], port, single: true })
    const client: Client = { number, host, keyId: 0 }
    const { interval, timeout } = this.#keepalive
    const common = {
      transport: 1,
      stream: false,
      keepaliveRule: 'together',
      keepaliveInterval: interval,
      keepaliveTimeout: timeout,
    } as const
    const { clock, server } = this
    const to = v6 ? '2001:db8:1::1' : '203.0.113.1'
    host.engine.addPeer(
      {
        ...common,
        handle: SERVER_HANDLE,
        id: ID_OFFSET + number,
        txId: number,
        remote: { address: to, port: SERVER_PORT, scope: 0 },
      },
      clock.now,
    )
    server.engine.addPeer(
      {
        ...common,
        handle: number,
        id: number,
        txId: ID_OFFSET + number,
        remote: { address, port, scope: 0 },
        vpnIpv4: `10.8.0.${number}`,
        vpnIpv6: `fd00::${number}`,
      },
      clock.now,
    )
    const [up, down] = this.#keys(0, 1)
    host.engine.installKey(SERVER_HANDLE, 'primary', up, clock.now)
    server.engine.installKey(number, 'primary', down, clock.now)
    host.wake()
    server.wake()
    this.clients.push(client)
  }

  /** A client's configuration of a new key, and the server's. */
  #keys(keyId: number, firstPacketId: number): [KeyConfig, KeyConfig] {
    const random = this.#random
    const ciphers = ['aes-128-gcm', 'aes-256-gcm', 'aes-192-gcm', 'chacha20-poly1305'] as const
    const cipher = ciphers[random.below(hasChaCha ? 4 : 3)]!
    const usageLimit = this.#epochUsage
    const short = { 'aes-128-gcm': 16, 'aes-192-gcm': 24 }[cipher as string]
    const bytes = usageLimit === undefined ? (short ?? 32) : 32
    const direction = () => ({ cipherKey: random.bytes(bytes), nonceTail: random.bytes(8) })
    const [up, down] = [direction(), direction()]
    const copy = ({ cipherKey, nonceTail }: typeof up) => ({
      cipherKey: Uint8Array.from(cipherKey), // its owner wipes it
      nonceTail,
    })
    const epoch = usageLimit === undefined ? {} : ({ format: 'epoch', usageLimit } as const)
    const common = { keyId, cipher, firstPacketId, ...epoch }
    return [
      { ...common, encrypt: copy(up), decrypt: copy(down) },
      { ...common, encrypt: down, decrypt: up },
    ]
  }

  #host(
    name: string,
    options: Pick<
      ConstructorParameters<typeof Host>[0],
      'addresses' | 'port' | 'single' | 'routes'
    >,
  ): Host {
    const { clock, wire } = this
    const tell = (what: string) => this.events.push(`${clock.now} ${name}: ${what}`)
    const host: Host = new Host({
      ...options,
      clock,
      wire,
      random: this.#random,
      events: {
        delivered: (bytes) => this.#delivered(host, bytes),
        expired: ({ id, lastReceived }) => tell(`expired ${id} after ${clock.now - lastReceived}`),
        floated: ({ id, remote }) => tell(`floated ${id} to ${place(remote)}`),
        keyExhausted: ({ id }, keyId) => tell(`exhausted ${id} key ${keyId}`),
        keyAgeing: ({ id }, keyId) => tell(`ageing ${id} key ${keyId}`),
      },
    })
    return host
  }

  #delivered(at: Host, bytes: Uint8Array): void {
    this.delivered++
    const { payload } = parse(bytes)
    const view = new DataView(payload.buffer)
    const [flow, number] = [view.getUint32(0), view.getUint32(4)]
    const key = `${flow} ${number}`
    const pending = this.#pending.get(key)
    assert.ok(pending, `${this.clock.now}: ${key} was never sent, or came twice`)
    assert.ok(Buffer.compare(bytes, pending.bytes) === 0, `${this.clock.now}: ${key} was changed`)
    if (at === this.server && pending.to !== at) {
      this.sent++
      // Later, as a kernel's forwarding is: the engine is in the middle of something.
      this.clock.after(0, () => at.send(plainPiece(bytes)))
      return
    }
    assert.equal(at, pending.to, `${this.clock.now}: ${key} came to the wrong host`)
    this.#pending.delete(key)
    const of = this.#flows[flow]!
    if (this.#ordered) assert.ok(number > of.delivered, `${key} after ${of.delivered}`)
    of.delivered = number
  }
}

function place({ address, port }: Endpoint): string {
  return `${address} ${port}`
}
