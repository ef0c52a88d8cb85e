/**
 * Owns what a server on UDP does with packets of peers that it does not know: it answers a reset without keeping anything,
 * and believes that somebody is there when its own session id comes back.
 *
 *     reset                        -> answer with session id = HMAC(time slot, address, client's session id)
 *     packet with that session id  -> `create`: a Session that goes on as if both resets had been exchanged
 *     anything else                -> `drop`, with a reason
 *
 * A tls-crypt-v2 client brings its wrapped key with the reset, and again with its first message if it can; one that cannot
 * (2.5) is `create`d from its reset. How often answers are given is limits.ts's FrequencyLimit, asked by the caller.
 *
 * Source: OpenVPN's src/openvpn/mudp.c and ssl_pkt.c (2.6.16 and later); doc/tls-crypt-v2.txt.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { type ControlPacket, encodeResendWkc, SESSION_ID_BYTES } from '../../wire/control.ts'
import { keyIdOf, Opcode, opcodeOf } from '../../wire/opcode.ts'
import { openWkc, splitWkc } from '../../wire/wkc.ts'
import { announcesWkc, createWrap, type WrapSettings } from '../../wire/wrap.ts'

/** How packets of clients that nobody knows yet may be wrapped: at least one of both is there. */
export interface DoorSettings {
  /** For clients without a wrapped key. */
  wrap?: Exclude<WrapSettings, { kind: 'tls-crypt-v2' }>
  tlsCryptV2?: {
    serverKey: Uint8Array
    /** Refuse clients that cannot send their wrapped key twice (`force-cookie`). */
    forceCookie: boolean
    /** Whether a client with this in its wrapped key may come; throws nothing. */
    accepts?: (metadata: Uint8Array) => boolean
  }
}

/** Why a packet of nobody's was dropped. */
export type DoorRefusal =
  /** Neither a client's reset nor what follows one. */
  | 'unexpected'
  /** The wrap refused it: another key, or no control packet at all. */
  | 'wrap'
  /** Its wrapped client key was not made with ours, or its metadata is not accepted. */
  | 'wkc'
  /** A client that can only be answered by keeping something, where that is not allowed. */
  | 'no-cookie'
  /** A reset that is none: with acknowledgements, or another id than 0. */
  | 'malformed'
  /** The session id it brings back is not ours, or too old. */
  | 'cookie'

/** What to make a Session from. */
export interface Opening {
  /** The client's. */
  peerSessionId: Uint8Array
  /** Ours, where both resets have been exchanged: then the packet is the session's first, and else it is its reset. */
  sessionId?: Uint8Array
  /** Of the session's wrap, as `createWrap` takes them; not used for any packet yet. */
  wrap: WrapSettings
  firstReplayId: number
  /** From the wrapped client key: type and data. */
  metadata?: Uint8Array
}

export type Greeting =
  | { action: 'drop'; reason: DoorRefusal }
  | { action: 'reply'; packet: Uint8Array }
  | { action: 'create'; opening: Opening }

/** Time slots before the present one whose cookies are good. */
const SLOTS_BACK = 2
/** What the packet that follows the resets may acknowledge, or have for its id, at most. */
const LAST_EARLY_ID = 1

/** The door of one server: for all its UDP sockets and all addresses. */
export class Door {
  readonly #settings: DoorSettings
  readonly #secret: Uint8Array
  readonly #slotSeconds: number

  /** @param secret 32 random bytes  @param handWindow in seconds: an answer is good for as long, at least */
  constructor(settings: DoorSettings, secret: Uint8Array, handWindow: number) {
    this.#settings = settings
    this.#secret = secret
    this.#slotSeconds = Math.max(1, Math.floor((handWindow + 1) / 2))
  }

  /** What to do with the first packet of a TCP connection: a reset, for which everything is kept. */
  greetStream(bytes: Uint8Array): Greeting {
    if (!isReset(bytes)) return drop('unexpected')
    const opened = this.#open(bytes)
    return typeof opened === 'string' ? drop(opened) : create(opened)
  }

  /**
   * What to do with a datagram from an address that has no session with its session id.
   *
   * @param address of the sender with its port, and of the socket where there are several: any text that tells them apart
   */
  greet(bytes: Uint8Array, address: string, unixSeconds: number): Greeting {
    const opened = this.#open(bytes)
    if (typeof opened === 'string') return drop(opened)
    return isReset(bytes)
      ? this.#answer(opened, address, unixSeconds)
      : this.#believe(opened, address, unixSeconds)
  }

  #answer(opened: Opened, address: string, unixSeconds: number): Greeting {
    const { packet, replayId, settings } = opened
    const bringsWkc = packet.opcode === Opcode.HardResetClientV3
    if (bringsWkc && !announcesWkc(replayId)) {
      return this.#settings.tlsCryptV2?.forceCookie === true ? drop('no-cookie') : create(opened)
    }
    const reply: ControlPacket = {
      opcode: Opcode.HardResetServerV2,
      keyId: 0,
      sessionId: this.#cookie(this.#slot(unixSeconds), address, packet.sessionId),
      acks: [0],
      peerSessionId: packet.sessionId,
      messageId: 0,
      payload: bringsWkc ? encodeResendWkc() : new Uint8Array(0),
    }
    // A wrap of its own: its ids begin anew, for nothing is known of answers before.
    return { action: 'reply', packet: createWrap(settings).wrap(reply, unixSeconds) }
  }

  #believe(opened: Opened, address: string, unixSeconds: number): Greeting {
    const { sessionId, peerSessionId: cookie, acks, messageId } = opened.packet
    // Without an acknowledgement it brings no session id back.
    if (cookie === undefined) return drop('cookie')
    if (acks.some((id) => id > LAST_EARLY_ID) || (messageId ?? 0) > LAST_EARLY_ID) {
      return drop('malformed')
    }
    if (!this.#knows(cookie, address, sessionId, unixSeconds)) return drop('cookie')
    return create(opened, cookie)
  }

  /** Unwraps a packet without remembering it. */
  #open(bytes: Uint8Array): Opened | DoorRefusal {
    const first = bytes[0] ?? 0
    const opcode = opcodeOf(first)
    if (keyIdOf(first) !== 0) return 'unexpected'
    const { wrap, tlsCryptV2 } = this.#settings
    switch (opcode) {
      case Opcode.HardResetClientV2:
      case Opcode.AckV1:
      case Opcode.ControlV1:
        return wrap === undefined ? 'unexpected' : unwrap(wrap, bytes)
      case Opcode.HardResetClientV3:
      case Opcode.ControlWkcV1:
        break
      default:
        return 'unexpected'
    }
    if (tlsCryptV2 === undefined) return 'unexpected'
    const split = splitWkc(bytes)
    const key = split && openWkc(tlsCryptV2.serverKey, split.wkc)
    if (key === undefined) return 'wkc'
    const { clientKey, metadata } = key
    const opened = unwrap({ kind: 'tls-crypt-v2', key: clientKey, role: 'server' }, bytes)
    if (typeof opened === 'string') return opened
    return tlsCryptV2.accepts?.(metadata) === false ? 'wkc' : { ...opened, metadata }
  }

  #knows(cookie: Uint8Array, address: string, peer: Uint8Array, unixSeconds: number): boolean {
    const slot = this.#slot(unixSeconds)
    let known = false
    for (let back = 0; back <= SLOTS_BACK; back++) {
      if (timingSafeEqual(this.#cookie(slot - back, address, peer), cookie)) known = true
    }
    return known
  }

  #slot(unixSeconds: number): number {
    return Math.floor(unixSeconds / this.#slotSeconds)
  }

  #cookie(slot: number, address: string, peerSessionId: Uint8Array): Uint8Array {
    return createHmac('sha256', this.#secret)
      .update(`${slot} ${address} `)
      .update(peerSessionId)
      .digest()
      .subarray(0, SESSION_ID_BYTES)
  }
}

interface Opened {
  packet: ControlPacket
  replayId: number
  settings: WrapSettings
  metadata?: Uint8Array
}

function unwrap(settings: WrapSettings, bytes: Uint8Array): Opened | DoorRefusal {
  const wrap = createWrap(settings)
  const packet = wrap.unwrap(bytes)
  if (packet === undefined) return 'wrap'
  if (isReset(bytes) && (packet.messageId !== 0 || packet.acks.length > 0)) return 'malformed'
  return { packet, replayId: wrap.replayId, settings }
}

function isReset(bytes: Uint8Array): boolean {
  const opcode = opcodeOf(bytes[0] ?? 0)
  return opcode === Opcode.HardResetClientV2 || opcode === Opcode.HardResetClientV3
}

/** `cookie`: our session id, where it has been given out. */
function create({ packet, settings, metadata }: Opened, cookie?: Uint8Array): Greeting {
  const opening: Opening = {
    peerSessionId: packet.sessionId.slice(),
    wrap: settings,
    firstReplayId: cookie === undefined ? 1 : 2,
  }
  if (cookie !== undefined) opening.sessionId = cookie.slice()
  if (metadata !== undefined) opening.metadata = metadata
  return { action: 'create', opening }
}

function drop(reason: DoorRefusal): Greeting {
  return { action: 'drop', reason }
}
