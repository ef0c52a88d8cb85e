/**
 * Owns one session with a peer, from the reset to the end, as server or as client: which packets are the peer's, which key
 * exchange they belong to, how they are wrapped, when the next exchange begins, and how long an old key lives. What goes on
 * within an exchange is key-state.ts's, first packets of unknown clients cookie.ts's; what is negotiated, pushed and decided
 * is the owner's, and so are several sessions at one address.
 *
 *     key id     0 ------------------ 1 ------------------ 2 ...7, 1 ...
 *     first      hard resets; wrap as configured
 *     later      soft resets of either end; dynamic tls-crypt, where agreed
 *     old        accepts data until `expired`: tran-window after the next one began, or when a third begins
 *
 * A session has no timer and no socket: `deadline` says when `poll` wants to be called, and `wake` that it should be called
 * soon. After `failed` it is over: a client begins another, a server waits for one. Source: OpenVPN's src/openvpn/ssl.c
 * (tls_multi_process, tls_pre_decrypt, key_state_soft_reset).
 */

import { EPOCH_SECRET_BYTES } from '../../uapi/spec.ts'
import type { KeyConf } from '../../uapi/types.ts'
import {
  type ControlOpcode,
  type ControlPacket,
  decodeResetOptions,
  SESSION_ID_BYTES,
} from '../../wire/control.ts'
import { DATA_KEYS_LABEL, dataKeys, deriveKey2, KEY2_BYTES } from '../../wire/keys.ts'
import { keyIdOf, Opcode } from '../../wire/opcode.ts'
import {
  createWrap,
  DYNAMIC_WRAP_LABEL,
  dynamicWrap,
  RESENDS_WKC_REPLAY_ID,
  type Role,
  WRAP_KEY_BYTES,
  type Wrap,
  type WrapRefusal,
  type WrapSettings,
} from '../../wire/wrap.ts'
import type { Opening } from './cookie.ts'
import { type Hello, type KeySettings, KeyState } from './key-state.ts'
import { MIN_REKEY_INTERVAL } from './limits.ts'
import { cipherOf, type Negotiated } from './negotiate.ts'
import { ACKS_ALONE, ACKS_BESIDE_MESSAGE, type Millis } from './reliable.ts'
import { SessionError } from './session-error.ts'
import type { PeerCertificates } from './tls-engine.ts'

/** Key material of one key id, as the driver takes it. */
export type SessionKey = Omit<KeyConf, 'peerId' | 'slot'>

interface CommonSettings extends KeySettings {
  /** Seconds since 1970: for the wrap. */
  readonly unixSeconds: () => number
  /** Bytes of a whole control packet: what `max-packet-size` leaves behind IP and UDP headers. */
  readonly maxPacket: number
  /** What an old key has left when the next one begins (`tran-window`). */
  readonly tranWindow: Millis
  /** When a key is renewed after it was ready: drawn anew each time; `most` 0: never by time (`reneg-sec`). */
  readonly renegotiate: { readonly least: Millis; readonly most: Millis }
}

export type SessionSettings =
  | (CommonSettings & { readonly role: 'client'; readonly wrap: WrapSettings })
  /** `opening`: from the Door. */
  | (CommonSettings & { readonly role: 'server'; readonly opening: Opening })

/**
 * Calls come from within `receive` and `poll`, but `wake`. The sink may call the session in turn, but for these two.
 */
export interface SessionSink {
  /** To the peer; the memory is the sink's. */
  send(packet: Uint8Array): void
  /** The peer's certificates are good as far as TLS knows. Nothing goes on before `admit`, so a client tells no password. */
  certificates(keyId: number, peer: PeerCertificates): void
  /** The peer's key message. A server answers with its own as soon as this returns; what is decided may be told later. */
  hello(keyId: number, hello: Hello & { certificates: PeerCertificates }): void
  /**
   * Keys may be made. The first exchange is complete, and texts may be sent: its keys are made after `agree`. A later one is when both
   * key messages are through: the peer may send with its key before what acknowledges ours has come.
   */
  ready(keyId: number): void
  /** Send data with this key from now on: the peer has it by all odds. Not told for key id 0. */
  use(keyId: number): void
  /** Forget the data key. */
  expired(keyId: number): void
  /** A text of the peer's, for messages.ts. */
  message(text: string): void
  /** The session is over. `keysUntil`: how long data keys may live on, where there are any. */
  failed(error: SessionError, keysUntil: Millis | undefined): void
  /** Call `poll` soon. */
  wake(): void
}

/** Why a packet, or a text, was dropped; besides what the wrap says. */
export type DropReason =
  | WrapRefusal
  /** Another session's. */
  | 'session'
  /** Of an opcode that this end sends, not the peer. */
  | 'role'
  /** Of a key id that is not, or not any more. */
  | 'key-id'
  /** A soft reset while an exchange goes on, or right after one. */
  | 'too-soon'
  | 'duplicate'
  | 'too far ahead'
  /** A text with control characters. */
  | 'unprintable'

/** Bytes of a control packet without a wrap that are not its payload, with as many acknowledgements as go beside it. */
const HEADER_BYTES = 1 + SESSION_ID_BYTES + 1 + 4 * ACKS_BESIDE_MESSAGE + SESSION_ID_BYTES + 4
/** Of TLS in a packet, however little room there is. */
const MIN_PAYLOAD = 64
const LAST_KEY_ID = 7
/** Of the time until a message is sent again: enough for it to arrive. */
const SURE = 1.25
const NOTHING = new Uint8Array(0)

export class Session {
  readonly role: Role
  readonly sessionId: Uint8Array
  /** Packets dropped, by reason. */
  readonly drops = new Map<DropReason, number>()
  readonly #settings: SessionSettings
  readonly #sink: SessionSink
  readonly #wrapSettings: WrapSettings
  readonly #wrap: Wrap
  /** Of key ids above 0, where agreed. */
  #dynamicWrap: Wrap | undefined
  #peerSessionId: Uint8Array | undefined
  #resendsWkc = false
  #current: KeyState
  #old: KeyState | undefined
  #agreed: Negotiated | undefined
  /** What the first key exchange told of the peer. */
  #certificates: PeerCertificates | undefined
  #username: string | undefined
  #wantsRekey = false
  #renegotiateAt: Millis = Infinity
  #useAt: Millis = Infinity
  #now: Millis
  #expireAt: Millis = Infinity
  #started = false
  #busy = false
  #closed = false

  /** Sends nothing yet: a client's reset goes with the first `poll`. */
  constructor(settings: SessionSettings, sink: SessionSink, now: Millis) {
    this.role = settings.role
    this.#settings = settings
    this.#sink = sink
    this.#now = now
    if (settings.role === 'server') {
      const { wrap, firstReplayId, sessionId, peerSessionId } = settings.opening
      this.#wrapSettings = wrap
      this.#wrap = createWrap(wrap, firstReplayId)
      this.#peerSessionId = peerSessionId
      this.sessionId = sessionId ?? newSessionId(settings.random)
      this.#started = sessionId !== undefined
    } else {
      const { wrap } = settings
      this.#wrapSettings = wrap
      this.#wrap = createWrap(wrap, wrap.kind === 'tls-crypt-v2' ? RESENDS_WKC_REPLAY_ID : 1)
      this.sessionId = newSessionId(settings.random)
    }
    this.#current = this.#keyState(0, now, this.#started)
  }

  /** Undefined until a client has heard of its server. */
  get peerSessionId(): Uint8Array | undefined {
    return this.#peerSessionId
  }

  /** Of the newest key exchange. */
  get keyId(): number {
    return this.#current.keyId
  }

  /** How far the newest key exchange is. */
  get phase(): KeyState['phase'] {
    return this.#current.phase
  }

  /** Whether the peer has all that was sent so far in the newest exchange. */
  get isAcknowledged(): boolean {
    return this.#current.isAcknowledged
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** Takes a packet, whole and wrapped, that came from the peer's address. Hostile ones change nothing but `drops`. */
  receive(bytes: Uint8Array, now: Millis): void {
    this.#run(now, () => {
      const reason = this.#accept(bytes, now)
      if (reason !== undefined) this.#drop(reason)
    })
  }

  /** Does what is due: timers, and what TLS brought. */
  poll(now: Millis): void {
    this.#run(now, () => {})
  }

  /** When `poll` wants to be called. */
  deadline(): Millis {
    if (this.#closed) return Infinity
    if (!this.#started && this.role === 'client') return this.#current.created
    return Math.min(
      this.#current.deadline(),
      this.#old?.deadline() ?? Infinity,
      this.#renegotiateAt,
      this.#useAt,
      this.#expireAt,
    )
  }

  /** Lets the exchange go on, after `certificates`. */
  admit(keyId: number): void {
    if (this.#current.keyId !== keyId) return
    this.#current.admit()
    this.#wake()
  }

  /** Ends the exchange for good, in place of `admit`: the owner refuses the certificates. */
  reject(keyId: number, problem: string, now: Millis): void {
    const state = this.#current
    if (this.#closed || state.keyId !== keyId) return
    this.#now = now
    this.#failed(state, new SessionError('certificate', problem))
  }

  /**
   * What was negotiated with the first key exchange, once and for all: before it no keys are made, and none are renewed.
   *
   * @throws Error before key id 0 is ready
   */
  agree(negotiated: Negotiated): void {
    if (this.#current.readyAt === undefined) throw new Error('the first key is not ready')
    this.#agreed = negotiated
    if (negotiated.dynamicWrap) {
      const key = this.#current.exportKeyingMaterial(DYNAMIC_WRAP_LABEL, WRAP_KEY_BYTES)
      this.#dynamicWrap = dynamicWrap(key, this.#wrapSettings, this.role)
    }
    this.#wake()
  }

  /**
   * The data keys of a key id, in new memory, from its `ready` on until the next one is ready.
   *
   * @throws Error if there are none, or nothing is agreed
   */
  dataKeys(keyId: number): SessionKey {
    const state = [this.#current, this.#old].find((one) => one?.keyId === keyId)
    const sources = state?.sources
    const agreed = this.#agreed
    if (state === undefined || sources === undefined || state.isClosed || agreed === undefined) {
      throw new Error(`key ${keyId} has no data keys`)
    }
    const cipher = cipherOf(agreed.cipher)
    if (cipher === undefined) throw new Error(`there is no cipher ${agreed.cipher}`)
    const key2 = agreed.tlsEkm
      ? state.exportKeyingMaterial(DATA_KEYS_LABEL, KEY2_BYTES)
      : deriveKey2(sources.client, sources.server, this.#sessionIds())
    const keys = dataKeys(key2, this.role, agreed.epoch ? EPOCH_SECRET_BYTES : cipher.keyBytes)
    key2.fill(0)
    const key: SessionKey = { keyId, cipherAlg: cipher.alg, ...keys }
    return agreed.epoch ? { ...key, format: 'epoch', keySize: cipher.keyBytes } : key
  }

  /** Sends a text as soon as a key exchange is complete. False: too many wait already. */
  sendMessage(text: string): boolean {
    if (this.#closed) return false
    const sent = this.#current.send(text)
    this.#wake()
    return sent
  }

  /** Begins the next key exchange as soon as that is possible. */
  renegotiate(now: Millis): void {
    this.#wantsRekey = true
    if (!this.#busy) this.poll(now)
  }

  /** Ends it at once, without a word to the peer. */
  close(): void {
    this.#closed = true
    this.#current.close()
    this.#old?.close()
  }

  /** Does `first`, and then all that follows from it. */
  #run(now: Millis, first: () => void): void {
    if (this.#closed) return
    if (this.#busy) throw new Error('a session is called by its sink while it works')
    this.#busy = true
    this.#now = now
    try {
      first()
      this.#start(now)
      this.#old?.work(now)
      this.#current.work(now)
      if (!this.#closed) this.#tick(now)
      if (!this.#closed && this.#old !== undefined) this.#transmit(this.#old, now)
      if (!this.#closed) this.#transmit(this.#current, now)
    } finally {
      this.#busy = false
    }
  }

  /** Undefined: the packet was good. */
  #accept(bytes: Uint8Array, now: Millis): DropReason | undefined {
    const { sessionId } = this
    const known = this.#peerSessionId
    // It is in clear in every wrap: what is somebody else's costs no HMAC.
    if (known !== undefined && !isFrom(bytes, known)) return 'session'
    const wrap = this.#wrapOf(keyIdOf(bytes[0] ?? 0))
    const packet = wrap.unwrap(bytes)
    if (packet === undefined) return wrap.refusal
    const { opcode, messageId, acks } = packet
    if (packet.peerSessionId !== undefined && !equal(packet.peerSessionId, sessionId)) {
      return 'session'
    }
    const wrong = this.#misfit(packet)
    if (wrong !== undefined) return wrong
    if (known === undefined) {
      // Its acknowledgement tells that it comes from who got our reset.
      if (opcode !== Opcode.HardResetServerV2 || acks.length === 0) return 'session'
      this.#peerSessionId = packet.sessionId.slice()
      this.#resendsWkc = this.#wrap.wkcBytes > 0 && decodeResetOptions(packet.payload).resendWkc
    }
    if (!this.#started && this.role === 'server') {
      if (!isHardReset(opcode)) return 'key-id'
      this.#started = true
      this.#current.begin(Opcode.HardResetServerV2, now)
    }
    const state = this.#stateOf(packet, now)
    if (typeof state === 'string') return state
    for (const id of acks) state.sends.acknowledge(id)
    if (messageId === undefined) return undefined
    const arrival = state.receive({ id: messageId, opcode, payload: packet.payload }, now)
    if (arrival === 'duplicate' && state === this.#current && this.#useAt !== Infinity) {
      this.#postpone(state.readyAt!, now)
    }
    return arrival === 'new' ? undefined : arrival
  }

  /** Whether such a packet can come from the peer. */
  #misfit({ opcode, keyId, messageId }: ControlPacket): DropReason | undefined {
    const isServer = this.role === 'server'
    switch (opcode) {
      case Opcode.HardResetClientV2:
      case Opcode.HardResetClientV3:
        if (!isServer) return 'role'
        return keyId === 0 && messageId === 0 ? undefined : 'malformed'
      case Opcode.HardResetServerV2:
        if (isServer) return 'role'
        return keyId === 0 && messageId === 0 ? undefined : 'malformed'
      case Opcode.SoftResetV1:
        return keyId !== 0 && messageId === 0 ? undefined : 'malformed'
      case Opcode.ControlWkcV1:
        if (!isServer) return 'role'
        return keyId === 0 && messageId === 1 ? undefined : 'malformed'
      case Opcode.ControlV1:
        // OpenVPN 3 answers a soft reset with TLS at once, and sends none of its own.
        return messageId !== 0 || keyId !== 0 ? undefined : 'malformed'
      case Opcode.AckV1:
        return undefined
    }
  }

  /** The key exchange that a packet belongs to, which may begin with it. */
  #stateOf({ opcode, keyId }: ControlPacket, now: Millis): KeyState | DropReason {
    const current = this.#current
    if (keyId === current.keyId) return current
    if (keyId === this.#old?.keyId) return this.#old
    if (opcode !== Opcode.SoftResetV1 || keyId !== nextKeyId(current.keyId)) return 'key-id'
    if (this.#agreed === undefined || !current.isExchanged) return 'too-soon'
    // It is ready, and so would we be, if its last acknowledgement had not got lost.
    current.complete(now)
    if (now < (current.readyAt ?? Infinity) + MIN_REKEY_INTERVAL) return 'too-soon'
    this.#rekey(now)
    return this.#current
  }

  #start(now: Millis): void {
    if (this.#started || this.role === 'server') return
    this.#started = true
    const withKey = this.#wrap.wkcBytes > 0
    const opcode = withKey ? Opcode.HardResetClientV3 : Opcode.HardResetClientV2
    this.#current.begin(opcode, now)
  }

  #rekey(now: Millis): void {
    // The key before it goes now, so this one is to send with, however young.
    if (this.#useAt !== Infinity) this.#sink.use(this.#current.keyId)
    this.#expire()
    this.#old = this.#current
    this.#expireAt = now + this.#settings.tranWindow
    this.#wantsRekey = false
    this.#renegotiateAt = Infinity
    this.#useAt = Infinity
    this.#current = this.#keyState(nextKeyId(this.#old.keyId), now, false)
    this.#current.begin(Opcode.SoftResetV1, now)
  }

  #expire(): void {
    const old = this.#old
    if (old === undefined) return
    this.#old = undefined
    this.#expireAt = Infinity
    old.close()
    this.#sink.expired(old.keyId)
  }

  /** Timers, but those of the key exchange itself. */
  #tick(now: Millis): void {
    if (now >= this.#useAt) {
      this.#useAt = Infinity
      this.#sink.use(this.#current.keyId)
    }
    if (now >= this.#expireAt) this.#expire()
    if (now >= this.#renegotiateAt) {
      this.#renegotiateAt = Infinity
      this.#wantsRekey = true
    }
    // What is on its way would be lost: a peer listens to its newest key only.
    const { readyAt, isIdle } = this.#current
    if (this.#wantsRekey && this.#agreed !== undefined && readyAt !== undefined && isIdle) {
      this.#rekey(now)
    }
  }

  #keyState(keyId: number, now: Millis, exchanged: boolean): KeyState {
    const sink = this.#sink
    let certificates: PeerCertificates
    const state: KeyState = new KeyState(
      this.#settings,
      {
        certificates: (peer) => {
          this.#pinCertificates(peer)
          certificates = peer
          sink.certificates(keyId, peer)
        },
        hello: (hello) => {
          if (this.role === 'server') this.#pinUsername(hello.username)
          sink.hello(keyId, { ...hello, certificates })
        },
        exchanged: () => {
          if (state.keyId !== 0) this.#sink.ready(state.keyId)
        },
        ready: () => this.#ready(state),
        message: (text) => sink.message(text),
        unprintable: () => this.#drop('unprintable'),
        failed: (error) => this.#failed(state, error),
        wake: () => this.#wake(),
      },
      keyId,
      now,
      exchanged,
      (id) => this.#form(keyId, id),
    )
    return state
  }

  /** The peer must be who it was: a stolen session is no way to another's certificate, nor back. */
  #pinCertificates(peer: PeerCertificates): void {
    this.#certificates ??= peer
    const first = this.#certificates.chain
    const same =
      first.length === peer.chain.length && first.every((one, i) => equal(one, peer.chain[i]!))
    if (!same) throw new SessionError('identity', "the peer's certificate is not what it was")
  }

  #pinUsername(username: string): void {
    this.#username ??= username
    if (username !== this.#username) {
      throw new SessionError('identity', "the peer's user name is not what it was")
    }
  }

  #ready(state: KeyState): void {
    const { handWindow, renegotiate } = this.#settings
    const { least, most } = renegotiate
    const now = state.readyAt!
    if (most > 0) {
      const drawn = new DataView(this.#settings.random(4).slice().buffer).getUint32(0) / 2 ** 32
      this.#renegotiateAt = now + least + drawn * (most - least)
    }
    if (state.keyId !== 0) {
      const delay = most > 0 ? Math.min(handWindow, most / 2) : handWindow
      this.#useAt = Math.max(now, state.created + delay)
    }
    if (this.#old !== undefined) {
      for (const text of this.#old.unsureTexts) state.send(text)
      // Its acknowledgements go on: the peer may still send what it sent last.
      this.#old.close()
    }
    if (state.keyId === 0) this.#sink.ready(state.keyId)
  }

  /**
   * A message of the newest exchange came once more, which is ready here since `readyAt`. A server of OpenVPN's has the key when it
   * knows that we have its last message, which it sends again after the timeout, and then after twice the time before: until the next
   * such time has passed, the key is not used. A client has it as soon as it has our message.
   */
  #postpone(readyAt: Millis, now: Millis): void {
    if (this.role === 'server') return
    const next = now + (now - readyAt) + SURE * this.#settings.tlsTimeout
    this.#useAt = Math.max(this.#useAt, next)
  }

  #failed(state: KeyState, error: SessionError): void {
    if (state !== this.#current) return // an old one has done its work
    const { tranWindow } = this.#settings
    let keysUntil: Millis | undefined
    if (this.#old !== undefined) keysUntil = this.#expireAt
    if (state.readyAt !== undefined && this.#agreed !== undefined)
      keysUntil = this.#now + tranWindow
    this.close()
    this.#sink.failed(error, keysUntil)
  }

  #transmit(state: KeyState, now: Millis): void {
    if (!state.isClosed) {
      for (let next = state.sends.take(now); next; next = state.sends.take(now)) {
        const { opcode, id: messageId, payload } = next
        const acks = state.takeAcks(ACKS_BESIDE_MESSAGE, now)
        this.#send(state, { opcode: opcode as ControlOpcode, acks, messageId, payload })
      }
    }
    while (state.wantsAck(now)) {
      const acks = state.takeAcks(this.#acksAlone, now)
      this.#send(state, { opcode: Opcode.AckV1, acks, payload: NOTHING })
    }
  }

  #send(
    { keyId }: KeyState,
    fields: Pick<ControlPacket, 'opcode' | 'acks' | 'messageId' | 'payload'>,
  ): void {
    const packet: ControlPacket = { ...fields, keyId, sessionId: this.sessionId }
    if (fields.acks.length > 0) packet.peerSessionId = this.#peerSessionId!
    this.#sink.send(this.#wrapOf(keyId).wrap(packet, this.#settings.unixSeconds()))
  }

  /** Room for TLS in a message, and its opcode. */
  #form(keyId: number, id: number): { room: number; opcode: ControlOpcode } {
    const { overhead, wkcBytes } = this.#wrapOf(keyId)
    const carriesKey = this.#resendsWkc && keyId === 0 && id === 1
    const room = this.#settings.maxPacket - overhead - HEADER_BYTES - (carriesKey ? wkcBytes : 0)
    return {
      room: Math.max(MIN_PAYLOAD, room),
      opcode: carriesKey ? Opcode.ControlWkcV1 : Opcode.ControlV1,
    }
  }

  /** SoftEther's server takes four; it knows no wrap. */
  get #acksAlone(): number {
    const maybeSoftEther = this.role === 'client' && this.#wrapSettings.kind === 'none'
    return maybeSoftEther ? ACKS_BESIDE_MESSAGE : ACKS_ALONE
  }

  #wrapOf(keyId: number): Wrap {
    return keyId > 0 && this.#dynamicWrap !== undefined ? this.#dynamicWrap : this.#wrap
  }

  #sessionIds(): Record<Role, Uint8Array> {
    const [own, peer] = [this.sessionId, this.#peerSessionId!]
    return this.role === 'client' ? { client: own, server: peer } : { client: peer, server: own }
  }

  #drop(reason: DropReason): void {
    this.drops.set(reason, (this.drops.get(reason) ?? 0) + 1)
  }

  /** What happens within `poll` is seen to by it. */
  #wake(): void {
    if (!this.#busy && !this.#closed) this.#sink.wake()
  }
}

function nextKeyId(keyId: number): number {
  return keyId === LAST_KEY_ID ? 1 : keyId + 1
}

function isHardReset(opcode: Opcode): boolean {
  return opcode === Opcode.HardResetClientV2 || opcode === Opcode.HardResetClientV3
}

function newSessionId(random: (count: number) => Uint8Array): Uint8Array {
  const id = random(SESSION_ID_BYTES)
  return id.some((byte) => byte !== 0) ? id : Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 1)
}

/** Whether a packet has this session id of its sender. */
export function isFrom(packet: Uint8Array, sessionId: Uint8Array): boolean {
  for (let i = 0; i < SESSION_ID_BYTES; i++) if (packet[1 + i] !== sessionId[i]) return false
  return true
}

/** Public values: in no constant time. */
function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}
