/**
 * Servers and clients of the control channel in the simulated network: sessions with the least owners that work, on virtual
 * time. What they saw and derived is kept for tests to compare. The data channel is no part of it.
 */
import { Endpoint } from '../../src/driver/core/address.ts'
import { Door, type DoorSettings, type Opening } from '../../src/openvpn/proto/cookie.ts'
import type { Hello } from '../../src/openvpn/proto/key-state.ts'
import { type ControlMessage, parseMessage } from '../../src/openvpn/proto/messages.ts'
import {
  clientProto,
  type DataPolicy,
  negotiateAsClient,
  negotiateAsServer,
} from '../../src/openvpn/proto/negotiate.ts'
import { encodePush, PushCollector, parseOption } from '../../src/openvpn/proto/push.ts'
import {
  Session,
  type SessionKey,
  type SessionSettings,
  type SessionSink,
} from '../../src/openvpn/proto/session.ts'
import type { SessionError } from '../../src/openvpn/proto/session-error.ts'
import type { TlsFactory } from '../../src/openvpn/proto/tls-engine.ts'
import { parsePeerInfo } from '../../src/wire/peer-info.ts'
import type { WrapSettings } from '../../src/wire/wrap.ts'
import type { Random } from '../random.ts'
import type { Clock } from './clock.ts'
import type { Wire } from './wire.ts'

/** When virtual time begins, in seconds since 1970. */
const EPOCH_SECONDS = 1_800_000_000

/** Carries packets one way. */
export type Send = (packet: Uint8Array) => void

/** Virtual time, or what passes for it. */
export type SimClock = Pick<Clock, 'at' | 'after'> & { readonly now: number }

export interface EndSettings {
  clock: SimClock
  random: Random
  tls: TlsFactory
  policy: DataPolicy
  /** Milliseconds. */
  renegotiate?: { least: number; most: number }
  tranWindow?: number
  maxPacket?: number
  hello?: Partial<Hello>
}

/** A session with its clock. */
abstract class End implements SessionSink {
  session: Session
  readonly settings: EndSettings
  readonly keys = new Map<number, SessionKey>()
  /** All keys ever made, in order. */
  readonly made: SessionKey[] = []
  readonly texts: string[] = []
  readonly hellos: Hello[] = []
  readonly used: number[] = []
  error: SessionError | undefined
  keysUntil: number | undefined
  connectedAt: number | undefined
  packets = 0
  readonly #send: Send
  #timer = Number.POSITIVE_INFINITY

  constructor(settings: EndSettings, send: Send, session: (sink: SessionSink) => Session) {
    this.settings = settings
    this.#send = send
    this.session = session(this)
    this.#schedule()
  }

  get now(): number {
    return this.settings.clock.now
  }

  receive(packet: Uint8Array): void {
    this.session.receive(packet, this.now)
    this.#schedule()
  }

  renegotiate(): void {
    this.session.renegotiate(this.now)
    this.#schedule()
  }

  send(packet: Uint8Array): void {
    this.packets++
    this.#send(packet)
  }

  certificates(keyId: number): void {
    this.session.admit(keyId)
  }

  hello(_keyId: number, hello: Hello): void {
    this.hellos.push(hello)
  }

  ready(keyId: number): void {
    if (keyId !== 0) this.makeKey(keyId)
  }

  use(keyId: number): void {
    this.used.push(keyId)
  }

  expired(keyId: number): void {
    this.keys.delete(keyId)
  }

  message(text: string): void {
    this.texts.push(text)
    this.handle(parseMessage(text))
  }

  failed(error: SessionError, keysUntil: number | undefined): void {
    this.error = error
    this.keysUntil = keysUntil
  }

  wake(): void {
    this.settings.clock.after(0, () => this.#poll())
  }

  abstract handle(message: ControlMessage): void

  protected makeKey(keyId: number): void {
    const key = this.session.dataKeys(keyId)
    this.keys.set(keyId, key)
    this.made.push(key)
  }

  #poll(): void {
    this.session.poll(this.now)
    this.#schedule()
  }

  #schedule(): void {
    const at = Math.max(this.now, this.session.deadline())
    if (at >= this.#timer || at === Number.POSITIVE_INFINITY) return
    this.#timer = at
    this.settings.clock.at(at, () => {
      if (this.#timer !== at) return
      this.#timer = Number.POSITIVE_INFINITY
      this.#poll()
    })
  }
}

function commonSettings({ clock, random, tls, ...settings }: EndSettings) {
  return {
    tls,
    random: (count: number) => random.bytes(count),
    unixSeconds: () => EPOCH_SECONDS + Math.floor(clock.now / 1000),
    maxPacket: settings.maxPacket ?? 1222,
    tlsTimeout: 2000,
    handWindow: 60_000,
    tranWindow: settings.tranWindow ?? 3_600_000,
    renegotiate: settings.renegotiate ?? { least: 0, most: 0 },
  }
}

export class SimClient extends End {
  readonly pushed: string[] = []
  readonly #collector = new PushCollector()

  constructor(settings: EndSettings, wrap: WrapSettings, send: Send) {
    const hello = () => ({
      options: 'V4,dev-type tun,key-method 2,tls-client',
      username: '',
      password: '',
      peerInfo: `IV_PROTO=${clientProto(settings.policy.epoch)}\nIV_NCP=2\nIV_CIPHERS=${settings.policy.dataCiphers.join(':')}\n`,
      ...settings.hello,
    })
    super(settings, send, (sink) => {
      const own: SessionSettings = { ...commonSettings(settings), role: 'client', wrap, hello }
      return new Session(own, sink, settings.clock.now)
    })
  }

  override ready(keyId: number): void {
    super.ready(keyId)
    if (keyId === 0) this.#ask()
  }

  handle(message: ControlMessage): void {
    if (message.kind !== 'push-reply' || this.connectedAt !== undefined) return
    const options = this.#collector.add(message.body)
    if (!Array.isArray(options)) return
    this.pushed.push(...options)
    const words = options.map((option) => parseOption(option)!)
    const agreed = negotiateAsClient(this.settings.policy, words, this.hellos[0]!.options)
    if ('refused' in agreed) throw new Error(agreed.refused)
    this.session.agree(agreed.negotiated)
    this.makeKey(0)
    this.connectedAt = this.now
  }

  /** Every 5 seconds, until there is an answer. */
  #ask(): void {
    if (this.connectedAt !== undefined || this.session.isClosed) return
    this.session.sendMessage('PUSH_REQUEST')
    this.settings.clock.after(5000, () => this.#ask())
  }
}

class ServerEnd extends End {
  readonly #push: readonly string[]
  #agreed = false

  constructor(settings: EndSettings, opening: Opening, push: readonly string[], send: Send) {
    const hello = () => ({
      options: 'V4,dev-type tun,key-method 2,tls-server',
      username: '',
      password: '',
      peerInfo: '',
      ...settings.hello,
    })
    super(settings, send, (sink) => {
      const own: SessionSettings = { ...commonSettings(settings), role: 'server', opening, hello }
      return new Session(own, sink, settings.clock.now)
    })
    this.#push = push
  }

  handle(message: ControlMessage): void {
    if (message.kind !== 'push-request') return
    const [hello] = this.hellos
    const info = parsePeerInfo(hello!.peerInfo)
    const agreed = negotiateAsServer(this.settings.policy, info, hello!.options)
    if ('refused' in agreed) throw new Error(agreed.refused)
    if (!this.#agreed) {
      this.#agreed = true
      this.session.agree(agreed.negotiated)
      this.makeKey(0)
      this.connectedAt = this.now
    }
    const options = [...this.#push, 'peer-id 7', ...agreed.push]
    for (const text of encodePush('PUSH_REPLY', options)) this.session.sendMessage(text)
  }
}

export type { ServerEnd }

/** A server at one address: a door, and the sessions that came through it. */
export class SimServer {
  readonly sessions: ServerEnd[] = []
  readonly refusals: string[] = []
  replies = 0
  readonly #settings: EndSettings
  readonly #door: Door
  readonly #push: readonly string[]
  readonly #bySender = new Map<string, ServerEnd>()

  constructor(settings: EndSettings, door: DoorSettings, push: readonly string[] = []) {
    this.#settings = settings
    this.#door = new Door(door, settings.random.bytes(32), 60)
    this.#push = push
  }

  /** Datagrams at `at` of `wire`. */
  listen(wire: Wire, at: Endpoint): void {
    wire.attach(at, ({ from, bytes }) => {
      this.datagram(from.key, bytes, (packet) => wire.send(at, from, packet))
    })
  }

  datagram(from: string, bytes: Uint8Array, send: Send): void {
    const sender = `${from} ${Buffer.from(bytes.subarray(1, 9)).toString('hex')}`
    const known = this.#bySender.get(sender)
    if (known !== undefined && !known.session.isClosed) {
      known.receive(bytes)
      return
    }
    const seconds = EPOCH_SECONDS + Math.floor(this.#settings.clock.now / 1000)
    const greeting = this.#door.greet(bytes, from, seconds)
    if (greeting.action === 'drop') this.refusals.push(greeting.reason)
    if (greeting.action === 'reply') {
      this.replies++
      send(greeting.packet)
    }
    if (greeting.action === 'create') this.#create(sender, greeting.opening, bytes, send)
  }

  /** The first packet of a stream. Later ones go to the session. */
  stream(bytes: Uint8Array, send: Send): ServerEnd | undefined {
    const greeting = this.#door.greetStream(bytes)
    if (greeting.action !== 'create') return undefined
    return this.#create(`stream ${this.sessions.length}`, greeting.opening, bytes, send)
  }

  #create(sender: string, opening: Opening, bytes: Uint8Array, send: Send): ServerEnd {
    const end = new ServerEnd(this.#settings, opening, this.#push, send)
    this.sessions.push(end)
    this.#bySender.set(sender, end)
    end.receive(bytes)
    return end
  }
}

export const CLIENT_AT = Endpoint.of('192.0.2.1', 1000)
export const SERVER_AT = Endpoint.of('203.0.113.1', 1194)
