/**
 * Owns one key exchange: a key id with its messages, its TLS connection, both key messages, and the texts that follow
 * within it. Packets, session ids, wraps and the change from one key to the next are session.ts's.
 *
 *     reset    ours is on its way                     -- the peer's has come -->
 *     tls      the handshake runs                     -- TLS is through, the owner admits the certificates -->
 *     hello    key messages: client's, then server's  -- both are there, and all that was sent is acknowledged -->
 *     ready    texts may be sent and are delivered
 *
 * TLS brings what it brings between calls; `work` does all that can be done with it.
 * Source: OpenVPN's src/openvpn/ssl.c (tls_process_state), ssl_common.h (states of a key).
 */
import {
  createKeySource,
  decodeKeyMessage,
  encodeKeyMessage,
  type KeyMessage,
  type KeySource,
} from '../../wire/keys.ts'
import { Opcode } from '../../wire/opcode.ts'
import type { Role } from '../../wire/wrap.ts'
import { MAX_EARLY_TLS_BYTES, MAX_QUEUED_MESSAGES, MAX_QUEUED_TLS_BYTES } from './limits.ts'
import { MAX_MESSAGE_BYTES, readText } from './messages.ts'
import {
  AckQueue,
  type Arrival,
  type Message,
  type Millis,
  ReceiveWindow,
  SendWindow,
} from './reliable.ts'
import { SessionError } from './session-error.ts'
import type { PeerCertificates, TlsEngine, TlsFactory } from './tls-engine.ts'

/** What one end tells the other beside its part of the keys. */
export type Hello = Omit<KeyMessage, 'source'>

export interface KeySettings {
  readonly role: Role
  readonly tls: TlsFactory
  /** Bytes that nobody can guess. */
  readonly random: (count: number) => Uint8Array
  /** Our own key message: asked for when TLS is through (client), or the client's has come (server). */
  readonly hello: (keyId: number) => Hello
  /** Until a message is sent again for the first time (`tls-timeout`). */
  readonly tlsTimeout: Millis
  /** What a key exchange may take, all in all (`hand-window`). */
  readonly handWindow: Millis
}

/** What a key state tells its session, each once but `message`. They come from within `work`. */
export interface KeyEvents {
  /** TLS is through. It goes on after `admit`. */
  certificates(peer: PeerCertificates): void
  /** The peer's key message. */
  hello(hello: Hello): void
  /** Both key messages are through, as far as this end knows. */
  exchanged(): void
  /** And the peer has acknowledged it all. */
  ready(): void
  /** A text of the peer's. */
  message(text: string): void
  /** A text that was not printable. */
  unprintable(): void
  /** For good. */
  failed(error: SessionError): void
  /** Something came from TLS: `work` has something to do. */
  wake(): void
}

/** How long an acknowledgement waits for a message that it may go with. */
const ACK_DELAY: Millis = 10
/**
 * When a client says once more that it has the server's key message, after it was ready with a later key: OpenVPN's server has that key only
 * when it hears so, and sends its message anew after two seconds; until then it hears nothing that comes with the key.
 */
const LAST_ACKS: readonly Millis[] = [250, 750]
/** From so many acknowledgements on none waits: the peer's window is full soon. */
const ACKS_TO_SEND_AT_ONCE = 4

export class KeyState {
  readonly keyId: number
  readonly created: Millis
  /** When `ready` came; undefined before. */
  readyAt: Millis | undefined
  readonly sends: SendWindow
  readonly #receives: ReceiveWindow
  readonly #acks = new AckQueue()
  readonly #settings: KeySettings
  readonly #events: KeyEvents
  /** Bytes of TLS that fit message `id`, and the opcode it has. */
  readonly #form: (id: number) => { room: number; opcode: Opcode }
  #peerStarted: boolean
  #ackAt: Millis = Number.NEGATIVE_INFINITY
  /** When the last acknowledgements go out again. */
  #lastAcksAt: Millis[] = []
  #tls: TlsEngine | undefined
  #earlyBytes = 0
  /** From TLS, not yet in messages. */
  #ciphertext: Uint8Array[] = []
  #ciphertextBytes = 0
  /** All that TLS ever gave. */
  #sealedBytes = 0
  /** `#sealedBytes` at which our key message has certainly left TLS. */
  #helloSealedAt = Number.POSITIVE_INFINITY
  /** The same of the last text. */
  #textsSealedAt = 0
  /** From TLS, not yet understood. */
  #plaintext: Uint8Array = new Uint8Array(0)
  #certificates: PeerCertificates | undefined
  #told = false
  #admitted = false
  #exchanged = false
  #ownSource: KeySource | undefined
  #peerSource: KeySource | undefined
  #texts: string[] = []
  #sentTexts: string[] = []
  #tlsError: Error | undefined
  #closed = false

  /**
   * @param exchanged whether both resets are through already
   * @param form      bytes of TLS that fit the message with an id, and its opcode
   */
  constructor(
    settings: KeySettings,
    events: KeyEvents,
    keyId: number,
    now: Millis,
    exchanged: boolean,
    form: (id: number) => { room: number; opcode: Opcode },
  ) {
    this.#settings = settings
    this.#events = events
    this.#form = form
    this.keyId = keyId
    this.created = now
    this.#peerStarted = exchanged
    this.sends = new SendWindow(settings.tlsTimeout, exchanged ? 1 : 0)
    this.#receives = new ReceiveWindow(exchanged ? 1 : 0)
  }

  get phase(): 'reset' | 'tls' | 'hello' | 'ready' {
    if (this.readyAt !== undefined) return 'ready'
    if (this.#admitted) return 'hello'
    return this.#peerStarted ? 'tls' : 'reset'
  }

  /** Whether both key messages are through, as far as this end knows: the peer may be ready before we are. */
  get isExchanged(): boolean {
    return this.#ownSource !== undefined && this.#peerSource !== undefined
  }

  /** Whether nothing of ours is on its way, or waits to be. */
  get isIdle(): boolean {
    return this.isAcknowledged && this.#texts.length === 0 && this.#sentTexts.length === 0
  }

  /** Texts that the peer may not have got. */
  get unsureTexts(): string[] {
    return [...this.#sentTexts, ...this.#texts]
  }

  /** Both ends' parts of the keys, once exchanged. */
  get sources(): Record<Role, KeySource> | undefined {
    const [own, peer] = [this.#ownSource, this.#peerSource]
    if (own === undefined || peer === undefined) return undefined
    return this.#settings.role === 'client'
      ? { client: own, server: peer }
      : { client: peer, server: own }
  }

  /** Sends our reset. */
  begin(opcode: Opcode, now: Millis): void {
    this.sends.push(opcode, new Uint8Array(0), now)
  }

  /** Takes a message of the peer's; what it means is found out in `work`. Copies the payload. */
  receive(message: Message, now: Millis): Arrival {
    const arrival = this.#receives.accept(message)
    if (arrival === 'too far ahead') return arrival
    this.#acks.add(message.id)
    // The handshake goes on with an answer, and a client that sends a text asks for something.
    const isAnswered = this.#peerSource === undefined || this.#settings.role === 'server'
    const mayAnswer = arrival === 'new' && message.payload.length > 0 && isAnswered
    this.#ackAt = mayAnswer ? now + ACK_DELAY : now
    return arrival
  }

  /** The acknowledgements of one packet. */
  takeAcks(limit: number, now: Millis): number[] {
    this.#lastAcksAt = this.#lastAcksAt.filter((at) => at > now)
    return this.#acks.take(limit)
  }

  /** Whether acknowledgements should go in a packet of their own. */
  wantsAck(now: Millis): boolean {
    return now >= this.#ackDeadline()
  }

  /** When there is something to do, if nothing comes before. */
  deadline(): Millis {
    if (this.#closed) return this.#ackDeadline()
    const end = this.readyAt === undefined ? this.created + this.#settings.handWindow : Infinity
    return Math.min(this.sends.deadline(), this.#ackDeadline(), end)
  }

  /** The owner accepts the peer's certificates; there is nothing more to wait for. */
  admit(): void {
    this.#admitted = this.#certificates !== undefined
  }

  /** Sends a text, now or when ready. False: too many wait. */
  send(text: string): boolean {
    if (this.#texts.length >= MAX_QUEUED_MESSAGES) return false
    this.#texts.push(text)
    return true
  }

  /** Of this key's TLS connection. @throws Error while there is none */
  exportKeyingMaterial(label: string, length: number): Uint8Array {
    if (this.#tls === undefined) throw new Error(`key ${this.keyId} has no TLS connection`)
    return this.#tls.exportKeyingMaterial(label, length)
  }

  /** Does all that can be done. */
  work(now: Millis): void {
    try {
      this.#deliver()
      this.#handshake()
      this.#fill(now)
      if (this.isExchanged && !this.#exchanged && !this.#closed) {
        this.#exchanged = true
        this.#events.exchanged()
      }
      if (this.isExchanged && this.isAcknowledged && this.#sealedBytes >= this.#helloSealedAt) {
        this.complete(now)
      }
      this.#talk(now)
      if (this.readyAt === undefined && now >= this.created + this.#settings.handWindow) {
        throw this.#late()
      }
    } catch (error) {
      if (!(error instanceof SessionError)) throw error
      if (this.#closed) return
      this.close()
      this.#events.failed(error)
    }
  }

  /** Both ends have what they need: found out by `work`, or because the peer begins with its next key. */
  complete(now: Millis): void {
    if (this.readyAt !== undefined || this.#closed) return
    this.readyAt = now
    if (this.#settings.role === 'client' && this.keyId !== 0) {
      this.#lastAcksAt = LAST_ACKS.map((after) => now + after)
    }
    this.#events.ready()
  }

  /** Ends TLS and all that goes out, but acknowledgements; forgets what keys could be made of. May be called again. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#tls?.close()
    this.#tls = undefined
    this.#ciphertext = []
    this.#ciphertextBytes = 0
    this.#plaintext = new Uint8Array(0)
    this.#texts = []
    for (const source of [this.#ownSource, this.#peerSource]) {
      source?.preMaster?.fill(0)
      source?.random1.fill(0)
      source?.random2.fill(0)
    }
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** Whether the peer has all that was sent so far. */
  get isAcknowledged(): boolean {
    return this.sends.isEmpty && this.#ciphertextBytes === 0
  }

  /** Messages in order: the reset, if the peer sends one, then TLS. */
  #deliver(): void {
    for (let message = this.#receives.take(); message; message = this.#receives.take()) {
      if (this.#closed) continue
      if (message.id === 0) this.#peerStarted = true
      if (message.opcode !== Opcode.ControlV1 && message.opcode !== Opcode.ControlWkcV1) continue
      if (this.#peerSource === undefined) {
        this.#earlyBytes += message.payload.length
        if (this.#earlyBytes > MAX_EARLY_TLS_BYTES) {
          throw new SessionError('flood', 'too many bytes of TLS before a key message')
        }
      }
      if (message.payload.length > 0) this.#engine().receive(message.payload)
    }
    if (this.#peerStarted && this.#settings.role === 'client' && !this.#closed) this.#engine()
    if (this.#tlsError !== undefined) {
      throw new SessionError('tls', this.#tlsError.message, { cause: this.#tlsError })
    }
  }

  /** A server has one only when there is something for it: a reset costs nothing. */
  #engine(): TlsEngine {
    this.#tls ??= this.#settings.tls(this.#settings.role, {
      ciphertext: (bytes) => {
        if (this.#closed) return
        this.#ciphertext.push(bytes)
        this.#ciphertextBytes += bytes.length
        this.#sealedBytes += bytes.length
        this.#events.wake()
      },
      established: (peer) => {
        this.#certificates ??= peer
        this.#events.wake()
      },
      plaintext: (bytes) => {
        if (this.#closed) return
        this.#plaintext = Buffer.concat([this.#plaintext, bytes])
        this.#events.wake()
      },
      failed: (error) => {
        this.#tlsError ??= error
        this.#events.wake()
      },
    })
    return this.#tls
  }

  #handshake(): void {
    if (this.#certificates !== undefined && !this.#told) {
      const { verified, problem = 'no reason is known' } = this.#certificates
      if (!verified) throw new SessionError('certificate', problem)
      this.#told = true
      this.#events.certificates(this.#certificates)
    }
    if (!this.#admitted || this.#closed) return
    if (this.#settings.role === 'client') this.#sayHello()
    if (this.#peerSource === undefined && this.#plaintext.length > 0) this.#readHello()
    if (this.#peerSource !== undefined) this.#sayHello()
  }

  #readHello(): void {
    const { role } = this.#settings
    const message = decodeKeyMessage(this.#plaintext, role === 'client' ? 'server' : 'client')
    // One record is one message, as in OpenVPN 2.x: what is not there does not come later.
    if (message === undefined) throw new SessionError('malformed', 'a key message without sense')
    const { source, length, ...hello } = message
    this.#plaintext = this.#plaintext.subarray(length)
    this.#peerSource = source
    this.#events.hello(hello)
  }

  #sayHello(): void {
    if (this.#ownSource !== undefined || this.#closed) return
    const { role, random, hello } = this.#settings
    const source = createKeySource(role, random)
    let bytes: Uint8Array
    try {
      bytes = encodeKeyMessage({ source, ...hello(this.keyId) })
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause
      throw new SessionError('hello', cause.message, { cause })
    }
    this.#ownSource = source
    this.#helloSealedAt = this.#sealedBytes + bytes.length
    this.#engine().write(bytes)
    bytes.fill(0)
  }

  /** Puts what TLS has into messages, as many as may be on their way. */
  #fill(now: Millis): void {
    if (this.#ciphertextBytes > MAX_QUEUED_TLS_BYTES) {
      throw new SessionError('flood', 'the other end acknowledges too little')
    }
    while (this.#ciphertextBytes > 0 && this.sends.hasRoom) {
      const { opcode, room } = this.#form(this.sends.nextId)
      this.sends.push(opcode, this.#take(room), now)
    }
  }

  /** At most `room` bytes of what TLS has. */
  #take(room: number): Uint8Array {
    const taken = new Uint8Array(Math.min(room, this.#ciphertextBytes))
    let at = 0
    while (at < taken.length) {
      const first = this.#ciphertext[0]!
      const part = first.subarray(0, taken.length - at)
      taken.set(part, at)
      at += part.length
      if (part.length === first.length) this.#ciphertext.shift()
      else this.#ciphertext[0] = first.subarray(part.length)
    }
    this.#ciphertextBytes -= taken.length
    return taken
  }

  /** Texts of the peer's, and ours. */
  #talk(now: Millis): void {
    if (this.readyAt === undefined) {
      if (this.#plaintext.length > MAX_MESSAGE_BYTES) {
        throw new SessionError('flood', 'messages before the key exchange is complete')
      }
      return
    }
    for (let end = this.#plaintext.indexOf(0); end >= 0; end = this.#plaintext.indexOf(0)) {
      const text = readText(this.#plaintext.subarray(0, end))
      this.#plaintext = this.#plaintext.subarray(end + 1)
      if (text === undefined) this.#events.unprintable()
      else if (text !== '') this.#events.message(text)
      if (this.#closed) return
    }
    if (this.#plaintext.length > MAX_MESSAGE_BYTES) {
      throw new SessionError('flood', 'a message without an end')
    }
    if (this.isAcknowledged && this.#sealedBytes >= this.#textsSealedAt) this.#sentTexts = []
    for (const text of this.#texts.splice(0)) {
      const bytes = Buffer.from(`${text}\0`)
      this.#sentTexts.push(text)
      this.#textsSealedAt = Math.max(this.#textsSealedAt, this.#sealedBytes) + bytes.length
      this.#tls?.write(bytes)
    }
    this.#fill(now)
  }

  #ackDeadline(): Millis {
    const { waiting } = this.#acks
    if (waiting === 0) return this.#lastAcksAt[0] ?? Number.POSITIVE_INFINITY
    // A client's first message brings the acknowledgement of the server's reset: an empty packet before it would make a
    // server without state forget a wrapped client key.
    const first = this.#settings.role === 'client' && this.sends.nextId <= 1
    if (first && !this.#closed) return Number.POSITIVE_INFINITY
    return waiting >= ACKS_TO_SEND_AT_ONCE ? Number.NEGATIVE_INFINITY : this.#ackAt
  }

  #late(): SessionError {
    const seconds = `within ${this.#settings.handWindow / 1000} s`
    switch (this.phase) {
      case 'reset':
        return new SessionError('no-answer', `nothing came from the other end ${seconds}`)
      case 'tls':
        return new SessionError('timeout', `the TLS handshake was not finished ${seconds}`)
      default:
        return new SessionError('timeout', `the keys were not exchanged ${seconds}`)
    }
  }
}
