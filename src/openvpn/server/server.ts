/**
 * The server: sorts packets to clients, lets new ones in, keeps order among them, and ends. What one client goes through is client.ts's;
 * sockets, clock and system are passed in.
 *
 *     datagram -- address known --> a client's session, by its session id
 *              -- else ----------> Door: answers without keeping anything; who comes back becomes a client
 *     stream ---------------------> a client of its own
 */
import { Opcode, opcodeOf } from '../../wire/opcode.ts'
import type { DataChannel, PeerCounters } from '../data-channel.ts'
import { LEVEL, type Tell } from '../log.ts'
import type { StatusClient } from '../management/status.ts'
import type { Network as SystemNetwork } from '../network.ts'
import { Door, type DoorRefusal, type DoorSettings, type Opening } from '../proto/cookie.ts'
import { FrequencyLimit } from '../proto/limits.ts'
import { formatOrder } from '../proto/messages.ts'
import { encodePush, parseUpdateEntry } from '../proto/push.ts'
import type { Millis } from '../proto/reliable.ts'
import { isFrom, type SessionSettings } from '../proto/session.ts'
import type { PeerCertificates, TlsFactory } from '../proto/tls-engine.ts'
import type { DatagramTransport, Path, StreamListener, StreamTransport } from '../transport.ts'
import { TransportLink } from '../transport-link.ts'
import { type ClientHost, type Estate, ServerClient } from './client.ts'
import type { IpPool } from './ip-pool.ts'
import type { ConnectedClient, ServerPolicy } from './policy.ts'
import type { ServerSettings } from './settings.ts'

export interface ServerParts {
  readonly settings: ServerSettings
  readonly policy: ServerPolicy
  readonly data: DataChannel
  readonly pool: IpPool
  readonly network: SystemNetwork
  readonly tls: TlsFactory
  readonly door: DoorSettings
  /** Whether first packets are allowed to create state without a cookie over streams. */
  readonly datagrams: readonly DatagramTransport[]
  readonly listeners: readonly StreamListener[]
  /** The name of who showed these certificates; empty without any. Throws an Error for one that may not come. */
  commonNameOf(peer: PeerCertificates): string
  /** Our options string, given the client's. */
  optionsFor(client: { options: string }): string
  now(): Millis
  date(): Date
  random(count: number): Uint8Array
  schedule(at: Millis, call: () => void): () => void
  log: Tell
}

/** What became of packets that no client has. */
export type StrayReason =
  | DoorRefusal
  | 'too-often'
  | 'too-many-clients'
  | 'data'
  | 'no-packet'
  | 'answered'

const SECRET_BYTES = 32
/** Handshakes that may go on beside the clients that are connected, at least. */
const MIN_HANDSHAKES = 256
/** Ids are used again late, so that what is told of a former peer meets no other. */
const PEER_ID_SPREAD = 4
const MIN_PEER_IDS = 1024
/** How often counters are read, for limits of bytes and for the status. */
const COUNT_EVERY: Millis = 10_000
/** What clients have to hear that the server ends. */
const FAREWELL: Millis = 2000

/** What may change while clients are connected. */
export type ServerChange = Pick<
  ServerParts,
  'settings' | 'policy' | 'tls' | 'door' | 'commonNameOf' | 'optionsFor'
>

export class Server implements ClientHost {
  readonly data: DataChannel
  readonly pool: IpPool
  readonly network: SystemNetwork
  /** Packets that no client had, by what became of them. */
  readonly strays = new Map<StrayReason, number>()
  #parts: ServerParts
  /** Of the door's cookies. */
  readonly #secret: Uint8Array
  #door: Door
  #answers: FrequencyLimit
  #arrivals: FrequencyLimit | undefined
  readonly #clients = new Set<ServerClient>()
  /** Of datagram sockets: by address. Two where a client has begun anew and the former is still there. */
  readonly #byAddress = new Map<string, ServerClient[]>()
  /** The same the other way round. */
  readonly #addresses = new Map<ServerClient, string>()
  /** Those that have a common name, by it. */
  readonly #byName = new Map<string, Set<ServerClient>>()
  readonly #peerIds = new Set<number>()
  #nextPeerId = 0
  #nextId = 0
  #counters = new Map<number, PeerCounters>()
  #endCounting: () => void = () => {}
  #closing: Promise<void> | undefined

  constructor(parts: ServerParts) {
    this.#parts = parts
    this.data = parts.data
    this.pool = parts.pool
    this.network = parts.network
    this.#secret = parts.random(SECRET_BYTES)
    const { door, answers, arrivals } = this.#entrance()
    this.#door = door
    this.#answers = answers
    this.#arrivals = arrivals
    for (const [index, transport] of parts.datagrams.entries()) {
      transport.onPacket((packet, path) => this.#datagram(transport, index, packet, path))
    }
    for (const listener of parts.listeners) listener.onStream((stream) => this.#stream(stream))
    this.#count()
  }

  get settings(): ServerSettings {
    return this.#parts.settings
  }

  get policy(): ServerPolicy {
    return this.#parts.policy
  }

  /** From now on other rules hold; who is connected stays so, and meets them when keys are renewed. */
  change(change: ServerChange): void {
    this.#parts = { ...this.#parts, ...change }
    const { door, answers, arrivals } = this.#entrance()
    this.#door = door
    this.#answers = answers
    this.#arrivals = arrivals
  }

  /** All that are connected. */
  clients(): ServerClient[] {
    return [...this.#clients].filter(({ stage }) => stage === 'connected')
  }

  client(id: number): ServerClient | undefined {
    return [...this.#clients].find((client) => client.id === id && !client.isGone)
  }

  /** How many are there, in any stage. */
  get size(): number {
    return this.#clients.size
  }

  /** Of those connected, with counters as of now. */
  async status(): Promise<StatusClient[]> {
    await this.#readCounters()
    return this.clients().flatMap((client) => {
      const { facts } = client
      return facts === undefined ? [] : [this.#statusOf(client, facts)]
    })
  }

  /**
   * Changes pushed options of one client, or of all that know how to.
   *
   * @param entries as in PUSH_UPDATE: `route 10.2.0.0 255.255.0.0`, `-dns`
   * @returns how many clients were told
   * @throws Error for an update that no client could take
   */
  update(id: number | undefined, entries: readonly string[]): number {
    for (const entry of entries) {
      if (parseUpdateEntry(entry) === undefined) throw new Error(`no option to update: '${entry}'`)
    }
    const messages = encodePush('PUSH_UPDATE', entries)
    const clients = this.clients().filter(
      (client) => client.canUpdate && (id === undefined || client.id === id),
    )
    for (const client of clients) for (const message of messages) client.send(message)
    return clients.length
  }

  /** Has a client go and connect anew. False: there is none with that id. */
  dismiss(id: number, reason: string): boolean {
    const client = this.client(id)
    if (client === undefined) return false
    const order = { keepCredentials: true, nextServer: false, text: reason }
    client.leave(reason, formatOrder('restart', order))
    return true
  }

  /** Ends everything. Clients are told, if the settings say so. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  // What clients ask of their server:

  now(): Millis {
    return this.#parts.now()
  }

  date(): Date {
    return this.#parts.date()
  }

  schedule(at: Millis, call: () => void): () => void {
    return this.#parts.schedule(at, call)
  }

  log(text: string, level?: number): void {
    this.#parts.log(text, level)
  }

  session(opening: Opening, client: () => { options: string }): SessionSettings {
    const { settings, tls, random, date, optionsFor } = this.#parts
    const { renegotiate } = settings
    return {
      role: 'server',
      opening,
      tls,
      random,
      hello: () => ({ options: optionsFor(client()), username: '', password: '', peerInfo: '' }),
      unixSeconds: () => Math.floor(date().getTime() / 1000),
      maxPacket: settings.maxPacketBytes,
      tlsTimeout: settings.tlsTimeout,
      handWindow: settings.handWindow,
      tranWindow: settings.tranWindow,
      renegotiate: { least: renegotiate.atLeast, most: renegotiate.after },
    }
  }

  takePeerId(): number | undefined {
    const ids = Math.max(MIN_PEER_IDS, PEER_ID_SPREAD * this.settings.maxClients)
    if (this.#peerIds.size >= Math.min(this.settings.maxClients, ids)) return undefined
    for (;;) {
      const id = this.#nextPeerId
      this.#nextPeerId = (id + 1) % ids
      if (this.#peerIds.has(id)) continue
      this.#peerIds.add(id)
      return id
    }
  }

  releasePeerId(id: number): void {
    this.#peerIds.delete(id)
  }

  async claim(client: ServerClient): Promise<Estate | undefined> {
    const { duplicateCn } = this.settings
    const { commonName, username } = client
    const isOlder = (other: ServerClient) => other.id < client.id && !other.isGone
    const sameAddress = new Set(this.#at(client).filter(isOlder))
    const sameName = duplicateCn ? [] : [...(this.#byName.get(commonName) ?? [])].filter(isOlder)
    const leaving: Promise<void>[] = []
    let estate: Promise<Estate | undefined> | undefined
    for (const other of sameAddress) {
      const same = other.commonName === commonName && other.username === username
      if (same && other.stage === 'connected') estate = other.bequeath('it has connected anew')
      else leaving.push(other.end('it has connected anew'))
    }
    for (const other of sameName) {
      // One that has not said who it is yet is not the older instance of anybody.
      if (sameAddress.has(other) || other.stage === 'handshake') continue
      leaving.push(other.end(`${commonName} has connected from elsewhere`))
    }
    await Promise.all(leaving)
    return estate
  }

  renamed(client: ServerClient, former: string): void {
    this.#unname(client, former)
    const { commonName } = client
    if (commonName === '') return
    const namesakes = this.#byName.get(commonName)
    if (namesakes === undefined) this.#byName.set(commonName, new Set([client]))
    else namesakes.add(client)
  }

  moved(client: ServerClient, from: string): void {
    this.#forget(client)
    const { transport, path } = client.link
    const index = this.#parts.datagrams.indexOf(transport as DatagramTransport)
    const key = keyOf(index, path)
    for (const other of this.#byAddress.get(key) ?? []) {
      void other.end('another client has its address now')
    }
    this.#remember(key, client)
    this.log(`${from}: is heard from ${client.text} now`, LEVEL.keys)
  }

  gone(client: ServerClient): void {
    this.#clients.delete(client)
    this.#forget(client)
    this.#unname(client, client.commonName)
  }

  #unname(client: ServerClient, name: string): void {
    const namesakes = this.#byName.get(name)
    namesakes?.delete(client)
    if (namesakes?.size === 0) this.#byName.delete(name)
  }

  #entrance(): { door: Door; answers: FrequencyLimit; arrivals: FrequencyLimit | undefined } {
    const { settings, door } = this.#parts
    const { handWindow, connectFrequency, connectFrequencyInitial: initial } = settings
    return {
      door: new Door(door, this.#secret, handWindow / 1000),
      answers: new FrequencyLimit(initial.count, initial.per),
      arrivals:
        connectFrequency && new FrequencyLimit(connectFrequency.count, connectFrequency.per),
    }
  }

  #datagram(transport: DatagramTransport, index: number, packet: Uint8Array, path: Path): void {
    if (packet.length < MIN_PACKET) {
      this.#stray('no-packet', path)
      return
    }
    const opcode = opcodeOf(packet[0]!)
    if (opcode === Opcode.DataV1 || opcode === Opcode.DataV2) {
      this.#stray('data', path)
      return
    }
    const key = keyOf(index, path)
    const known = this.#byAddress.get(key)?.find((client) => isOf(packet, client))
    if (known !== undefined) {
      known.receive(packet)
      return
    }
    if (this.#closing !== undefined) return
    const greeting = this.#door.greet(packet, key, this.#unixSeconds())
    if (greeting.action === 'drop') {
      this.#stray(greeting.reason, path)
    } else if (greeting.action === 'reply') {
      const allowed = this.#answers.take(this.now())
      this.#stray(allowed ? 'answered' : 'too-often', path)
      if (allowed) transport.send(greeting.packet, path)
    } else {
      const client = this.#welcome(new TransportLink(transport, path), greeting.opening)
      if (client === undefined) return
      this.#answers.giveBack()
      // One at an address is in its handshake: the newest.
      for (const other of this.#byAddress.get(key) ?? []) {
        if (other.stage === 'handshake') void other.end('it has begun anew')
      }
      this.#remember(key, client)
      client.receive(packet)
    }
  }

  #stream(stream: StreamTransport): void {
    let client: ServerClient | undefined
    const link = new TransportLink(stream, stream.path)
    const endSilence = this.schedule(this.now() + this.settings.handWindow, () => {
      if (client === undefined) stream.close()
    })
    stream.start({
      packet: (packet) => {
        if (client !== undefined) {
          client.receive(packet)
          return
        }
        const greeting = this.#door.greetStream(packet)
        if (greeting.action === 'create') client = this.#welcome(link, greeting.opening)
        else if (greeting.action === 'drop') this.#stray(greeting.reason, stream.path)
        endSilence()
        if (client === undefined) stream.close()
        else client.receive(packet)
      },
      ended: (error) => {
        endSilence()
        void client?.end(error?.message ?? 'the connection has ended')
      },
    })
  }

  #welcome(link: TransportLink, opening: Opening): ServerClient | undefined {
    if (this.#closing !== undefined) return undefined
    const connected = this.#peerIds.size
    const handshakes = this.#clients.size - connected
    const limit = Math.max(MIN_HANDSHAKES, this.settings.maxClients)
    if (handshakes >= limit) {
      this.#stray('too-many-clients', link.path)
      return undefined
    }
    if (this.#arrivals?.take(this.now()) === false) {
      this.#stray('too-often', link.path)
      return undefined
    }
    const { commonNameOf } = this.#parts
    const client = new ServerClient(this, this.#nextId++, link, opening, commonNameOf)
    this.#clients.add(client)
    this.log(`${client.text}: begins a handshake`, LEVEL.steps)
    return client
  }

  #at(client: ServerClient): ServerClient[] {
    return this.#byAddress.get(this.#addresses.get(client) ?? '') ?? []
  }

  #remember(key: string, client: ServerClient): void {
    this.#addresses.set(client, key)
    const clients = this.#byAddress.get(key)
    if (clients === undefined) this.#byAddress.set(key, [client])
    else clients.push(client)
  }

  #forget(client: ServerClient): void {
    const key = this.#addresses.get(client)
    if (key === undefined) return
    this.#addresses.delete(client)
    const left = this.#byAddress.get(key)!.filter((other) => other !== client)
    if (left.length === 0) this.#byAddress.delete(key)
    else this.#byAddress.set(key, left)
  }

  #stray(reason: StrayReason, { remote }: Path): void {
    const level = reason === 'data' || reason === 'answered' ? LEVEL.packets : LEVEL.details
    this.log(`${remote.address}, port ${remote.port}: a packet of nobody's: ${reason}`, level)
    this.strays.set(reason, (this.strays.get(reason) ?? 0) + 1)
  }

  #unixSeconds(): number {
    return Math.floor(this.date().getTime() / 1000)
  }

  #count(): void {
    this.#endCounting = this.schedule(this.now() + COUNT_EVERY, () => {
      this.#readCounters()
        .catch((error: unknown) => this.log(String(error)))
        .finally(() => {
          if (this.#closing === undefined) this.#count()
        })
    })
  }

  async #readCounters(): Promise<void> {
    this.#counters = await this.data.counters()
    for (const client of this.clients()) {
      const counters = this.#counters.get(client.peerId ?? -1)
      if (counters !== undefined) client.noteTraffic(counters)
    }
  }

  #statusOf(client: ServerClient, facts: ConnectedClient): StatusClient {
    const counters = this.#counters.get(facts.peerId)
    return {
      id: facts.id,
      peerId: facts.peerId,
      commonName: facts.commonName,
      username: facts.username,
      protocol: facts.protocol,
      remote: facts.remote,
      ...(facts.v4 !== undefined && { v4: facts.v4 }),
      ...(facts.v6 !== undefined && { v6: facts.v6 }),
      routes: facts.routes.map(({ network, prefix }) => `${network}/${prefix}`),
      bytesReceived: counters?.linkRxBytes ?? 0,
      bytesSent: counters?.linkTxBytes ?? 0,
      connectedSince: facts.since,
      lastSeen: client.lastSeen,
      cipher: facts.cipher,
    }
  }

  async #close(): Promise<void> {
    this.#endCounting()
    const { explicitExitNotify } = this.settings
    const told = this.clients()
    if (explicitExitNotify > 0 && told.length > 0) {
      const order = { keepCredentials: true, nextServer: explicitExitNotify === 2, text: '' }
      for (const client of told) client.leave('the server ends', formatOrder('restart', order))
      await new Promise<void>((resolve) => {
        this.schedule(this.now() + FAREWELL, resolve)
      })
    }
    await Promise.all([...this.#clients].map((client) => client.end('the server ends')))
    for (const transport of this.#parts.datagrams) transport.close()
    for (const listener of this.#parts.listeners) listener.close()
  }
}

/** An opcode and a session id. */
const MIN_PACKET = 9

function isOf(packet: Uint8Array, client: ServerClient): boolean {
  const id = client.session.peerSessionId
  return id !== undefined && isFrom(packet, id)
}

function keyOf(socket: number, { remote, local }: Path): string {
  return `${socket} ${remote.address}%${remote.scope}:${remote.port} ${local ?? ''}`
}
