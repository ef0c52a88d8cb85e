/**
 * Owns the wraps of control packets: what hides or authenticates them before TLS does, and refuses what was sent before.
 * What is inside is control.ts's, wrapped client keys are wkc.ts's, key files static-key.ts's.
 *
 *     none          | op, session id 9 | rest |                                              sizes in bytes
 *     tls-auth      | op, session id 9 | HMAC of the digest | replay id 4 | time 4 | rest |
 *     tls-crypt     | op, session id 9 | replay id 4 | time 4 | tag 32 | AES-256-CTR( rest ) |
 *     tls-crypt-v2  as tls-crypt, with a key of this client's; its first packets carry that key, wrapped (WKc), behind
 *     dynamic       as tls-crypt, with a key from TLS: `dynamicWrap`
 *
 * The HMAC of tls-auth is over | replay id | time | op | session id | rest |; the tag of tls-crypt is the HMAC-SHA-256 over
 * | op | session id | replay id | time | rest |, and its first 16 bytes are the counter block. Replay ids count packets
 * from 1; the time is that of the first, in seconds since 1970.
 *
 * Of a key, two halves of 128 bytes, each direction has one: 64 bytes for the cipher, 64 for the HMAC, their fronts used.
 * Source: OpenVPN's openvpn-wire-protocol.xml; doc/tls-crypt-v2.txt; docs/PROTOCOL.md, "Wraps".
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  timingSafeEqual,
} from 'node:crypto'
import {
  CONTROL_HEADER_BYTES,
  type ControlPacket,
  decodeControl,
  encodeControl,
} from './control.ts'
import { Opcode, opcodeOf } from './opcode.ts'
import { ReplayWindow } from './packet-id.ts'
import { splitWkc } from './wkc.ts'

export const WRAP_KEY_BYTES = 256

export type Role = 'server' | 'client'

/** Keys are 256 bytes, and must not change while the wrap is in use. */
export type WrapSettings =
  | { kind: 'none' }
  | {
      kind: 'tls-auth'
      key: Uint8Array
      /** As `auth` has it: SHA1, SHA256 ... */
      digest: string
      /** 0 by convention the server's end, 1 the client's; undefined: one key for both directions. */
      direction?: 0 | 1 | undefined
    }
  | { kind: 'tls-crypt'; key: Uint8Array; role: Role }
  /** The server takes the client's key from `openWkc`. */
  | { kind: 'tls-crypt-v2'; key: Uint8Array; role: 'server' }
  | { kind: 'tls-crypt-v2'; key: Uint8Array; role: 'client'; wkc: Uint8Array }

/** Replay id of the first packet of a client that can send its WKc again; with it a server keeps nothing. */
export const RESENDS_WKC_REPLAY_ID = 0x0f000001

/** Whether the replay id of a client's first packet announces that it can send its WKc again. */
export function announcesWkc(replayId: number): boolean {
  return replayId >>> 24 === 0x0f
}

/** Why a packet was refused. */
export type WrapRefusal =
  /** Shorter than a wrapped packet, or no WKc where there should be one. */
  | 'short'
  /** Another key, another digest, or changed on the way. */
  | 'unauthentic'
  | 'replayed'
  /** It is no control packet, though authentic as far as the wrap can tell. */
  | 'malformed'

export interface Wrap {
  /** What a wrapped packet is longer than `encodeControl` makes it, without a WKc. */
  readonly overhead: number
  /** Bytes of the WKc behind P_CONTROL_HARD_RESET_CLIENT_V3 and P_CONTROL_WKC_V1 of a client; else 0. */
  readonly wkcBytes: number
  /** Why `unwrap` returned undefined the last time. */
  readonly refusal: WrapRefusal
  /** Replay id of the packet that `unwrap` returned last; 0 where packets have none. */
  readonly replayId: number
  /** The packet as it goes out, in new memory. Each call uses up a replay id, so what is sent again is wrapped again. */
  wrap(packet: ControlPacket, unixSeconds: number): Uint8Array
  /** Reads a packet of unknown origin, which is left as it is; what it returns may be views of it. */
  unwrap(bytes: Uint8Array): ControlPacket | undefined
}

/**
 * One end of the wrap of one session.
 *
 * @param firstReplayId of the first packet sent: 1, RESENDS_WKC_REPLAY_ID, or 2 after a reset that was sent without
 *   keeping anything
 * @throws RangeError for a key of another length, or a digest that nobody knows
 */
export function createWrap(settings: WrapSettings, firstReplayId = 1): Wrap {
  if (settings.kind === 'none') return new NoWrap()
  if (settings.key.length !== WRAP_KEY_BYTES) {
    throw new RangeError(`a key has ${WRAP_KEY_BYTES} bytes, not ${settings.key.length}`)
  }
  return settings.kind === 'tls-auth'
    ? new TlsAuth(settings, firstReplayId)
    : new TlsCrypt(settings, firstReplayId)
}

/**
 * The wrap of all packets with a key id above 0, where both ends agreed on dynamic tls-crypt. One for all of these key
 * ids: its replay ids go on.
 *
 * @param exported 256 bytes from TLS (DYNAMIC_WRAP_LABEL), of the session with key id 0
 * @param original what packets with key id 0 are wrapped with
 */
export function dynamicWrap(exported: Uint8Array, original: WrapSettings, role: Role): Wrap {
  const key = new Uint8Array(exported)
  if (original.kind !== 'none') for (let i = 0; i < key.length; i++) key[i]! ^= original.key[i]!
  return createWrap({ kind: 'tls-crypt', key, role })
}

/** TLS exporter label of the key for `dynamicWrap`. */
export const DYNAMIC_WRAP_LABEL = 'EXPORTER-OpenVPN-dynamic-tls-crypt'

/** Bytes of a digest's output. @throws RangeError for one that nobody knows */
export function digestBytes(name: string): number {
  try {
    return createHash(name).digest().length
  } catch (cause) {
    throw new RangeError(`there is no digest ${name}`, { cause })
  }
}

class NoWrap implements Wrap {
  readonly overhead = 0
  readonly wkcBytes = 0
  readonly refusal = 'malformed'
  readonly replayId = 0

  wrap(packet: ControlPacket): Uint8Array {
    return encodeControl(packet)
  }

  unwrap(bytes: Uint8Array): ControlPacket | undefined {
    return decodeControl(bytes)
  }
}

const REPLAY_BYTES = 8
const LAST_REPLAY_ID = 0xffffffff
/** Packets that may overtake one: more than the send window with all its repetitions. */
const REPLAY_WINDOW = 64

/** Numbers the packets of one direction: | replay id 4 | time 4 |. */
class ReplaySender {
  #next: number
  #time = 0

  constructor(first: number) {
    this.#next = first
  }

  /** Writes the next id to `bytes` at `offset`. */
  write(bytes: Uint8Array, offset: number, unixSeconds: number): void {
    if (this.#time === 0) this.#time = unixSeconds
    if (this.#next > LAST_REPLAY_ID) {
      this.#time = Math.max(this.#time + 1, unixSeconds)
      this.#next = 1
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    view.setUint32(offset, this.#next++)
    view.setUint32(offset + 4, this.#time)
  }
}

/** Tells which packets of one direction are new. A later time begins anew, an earlier one is old. */
class ReplayReceiver {
  #time = -1
  #window = new ReplayWindow(REPLAY_WINDOW)

  accept(id: number, time: number): boolean {
    if (id === 0 || time < this.#time) return false
    if (time > this.#time) {
      this.#time = time
      this.#window = new ReplayWindow(REPLAY_WINDOW)
    }
    return this.#window.accept(id, 0) // nothing grows old: retransmissions are wrapped anew
  }
}

/** What tls-auth and tls-crypt have in common: replay ids, and what becomes of a packet. */
abstract class Authenticated implements Wrap {
  abstract readonly overhead: number
  wkcBytes = 0
  refusal: WrapRefusal = 'short'
  replayId = 0
  protected readonly sent: ReplaySender
  readonly #received = new ReplayReceiver()

  constructor(firstReplayId: number) {
    this.sent = new ReplaySender(firstReplayId)
  }

  abstract wrap(packet: ControlPacket, unixSeconds: number): Uint8Array
  abstract unwrap(bytes: Uint8Array): ControlPacket | undefined

  /** An authentic packet whose replay field lies at `offset` of `bytes`. */
  protected accept(
    bytes: Uint8Array,
    offset: number,
    plain: Uint8Array,
  ): ControlPacket | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    const id = view.getUint32(offset)
    if (!this.#received.accept(id, view.getUint32(offset + 4))) return this.refuse('replayed')
    this.replayId = id
    return decodeControl(plain) ?? this.refuse('malformed')
  }

  protected refuse(reason: WrapRefusal): undefined {
    this.refusal = reason
    return undefined
  }
}

const HALF_BYTES = 128
const PART_BYTES = 64

/** `length` bytes of the part for the HMAC in half `index` of a key. */
function hmacKey(key: Uint8Array, index: 0 | 1, length: number): Uint8Array {
  const start = index * HALF_BYTES + PART_BYTES
  return key.subarray(start, start + length)
}

class TlsAuth extends Authenticated {
  readonly overhead: number
  readonly #digest: string
  readonly #sendKey: Uint8Array
  readonly #receiveKey: Uint8Array

  constructor(settings: Extract<WrapSettings, { kind: 'tls-auth' }>, firstReplayId: number) {
    super(firstReplayId)
    const { key, digest, direction } = settings
    const length = digestBytes(digest)
    this.#digest = digest
    this.overhead = length + REPLAY_BYTES
    this.#sendKey = hmacKey(key, direction ?? 0, length)
    this.#receiveKey = hmacKey(key, direction === 0 ? 1 : 0, length)
  }

  wrap(packet: ControlPacket, unixSeconds: number): Uint8Array {
    const bytes = encodeControl(packet, this.overhead)
    this.sent.write(bytes, this.#replayOffset, unixSeconds)
    bytes.set(this.#authenticate(this.#sendKey, bytes), CONTROL_HEADER_BYTES)
    return bytes
  }

  unwrap(bytes: Uint8Array): ControlPacket | undefined {
    const rest = CONTROL_HEADER_BYTES + this.overhead
    if (bytes.length <= rest) return this.refuse('short')
    const given = bytes.subarray(CONTROL_HEADER_BYTES, this.#replayOffset)
    if (!timingSafeEqual(this.#authenticate(this.#receiveKey, bytes), given)) {
      return this.refuse('unauthentic')
    }
    const plain = new Uint8Array(bytes.length - this.overhead)
    plain.set(bytes.subarray(0, CONTROL_HEADER_BYTES))
    plain.set(bytes.subarray(rest), CONTROL_HEADER_BYTES)
    return this.accept(bytes, this.#replayOffset, plain)
  }

  get #replayOffset(): number {
    return CONTROL_HEADER_BYTES + this.overhead - REPLAY_BYTES
  }

  #authenticate(key: Uint8Array, bytes: Uint8Array): Buffer {
    const replay = this.#replayOffset
    return createHmac(this.#digest, key)
      .update(bytes.subarray(replay, replay + REPLAY_BYTES))
      .update(bytes.subarray(0, CONTROL_HEADER_BYTES))
      .update(bytes.subarray(replay + REPLAY_BYTES))
      .digest()
  }
}

const CIPHER = 'aes-256-ctr'
const CIPHER_KEY_BYTES = 32
const COUNTER_BYTES = 16
const TAG_BYTES = 32
const TAG_OFFSET = CONTROL_HEADER_BYTES + REPLAY_BYTES
const SEALED_OFFSET = TAG_OFFSET + TAG_BYTES

class TlsCrypt extends Authenticated {
  readonly overhead = REPLAY_BYTES + TAG_BYTES
  readonly #sendKey: CryptKey
  readonly #receiveKey: CryptKey
  /** What a client's first packets end with; it is cut off them at a server. */
  readonly #wkc: Uint8Array | undefined
  readonly #cutsWkc: boolean

  constructor(
    settings: Extract<WrapSettings, { kind: 'tls-crypt' | 'tls-crypt-v2' }>,
    firstReplayId: number,
  ) {
    super(firstReplayId)
    const isServer = settings.role === 'server'
    this.#sendKey = cryptKey(settings.key, isServer ? 0 : 1)
    this.#receiveKey = cryptKey(settings.key, isServer ? 1 : 0)
    this.#wkc = 'wkc' in settings ? settings.wkc : undefined
    this.wkcBytes = this.#wkc?.length ?? 0
    this.#cutsWkc = settings.kind === 'tls-crypt-v2' && isServer
  }

  wrap(packet: ControlPacket, unixSeconds: number): Uint8Array {
    const wkc = carriesWkc(packet.opcode) ? this.#wkc : undefined
    const bytes = encodeControl(packet, this.overhead, wkc?.length)
    this.sent.write(bytes, CONTROL_HEADER_BYTES, unixSeconds)
    const end = bytes.length - (wkc?.length ?? 0)
    const rest = bytes.subarray(SEALED_OFFSET, end)
    const tag = authenticate(this.#sendKey, bytes, rest)
    bytes.set(tag, TAG_OFFSET)
    const cipher = createCipheriv(CIPHER, this.#sendKey.cipher, counterOf(tag))
    bytes.set(cipher.update(rest), SEALED_OFFSET)
    if (wkc !== undefined) bytes.set(wkc, end)
    return bytes
  }

  unwrap(datagram: Uint8Array): ControlPacket | undefined {
    let bytes = datagram
    if (this.#cutsWkc && carriesWkc(opcodeOf(bytes[0] ?? 0))) {
      const split = splitWkc(bytes)
      if (split === undefined) return this.refuse('short')
      bytes = split.packet
    }
    if (bytes.length <= SEALED_OFFSET) return this.refuse('short')
    const tag = bytes.subarray(TAG_OFFSET, SEALED_OFFSET)
    const cipher = createDecipheriv(CIPHER, this.#receiveKey.cipher, counterOf(tag))
    const rest = cipher.update(bytes.subarray(SEALED_OFFSET))
    if (!timingSafeEqual(authenticate(this.#receiveKey, bytes, rest), tag)) {
      return this.refuse('unauthentic')
    }
    const plain = new Uint8Array(CONTROL_HEADER_BYTES + rest.length)
    plain.set(bytes.subarray(0, CONTROL_HEADER_BYTES))
    plain.set(rest, CONTROL_HEADER_BYTES)
    return this.accept(bytes, CONTROL_HEADER_BYTES, plain)
  }
}

/** What a direction takes of a key of tls-crypt. */
interface CryptKey {
  readonly cipher: Uint8Array
  readonly hmac: Uint8Array
}

function cryptKey(key: Uint8Array, index: 0 | 1): CryptKey {
  const start = index * HALF_BYTES
  return {
    cipher: key.subarray(start, start + CIPHER_KEY_BYTES),
    hmac: hmacKey(key, index, TAG_BYTES),
  }
}

/** The tag of a packet whose header and replay field are `bytes`' first. */
function authenticate({ hmac }: CryptKey, bytes: Uint8Array, rest: Uint8Array): Buffer {
  return createHmac('sha256', hmac).update(bytes.subarray(0, TAG_OFFSET)).update(rest).digest()
}

function counterOf(tag: Uint8Array): Uint8Array {
  return tag.subarray(0, COUNTER_BYTES)
}

function carriesWkc(opcode: number): boolean {
  return opcode === Opcode.HardResetClientV3 || opcode === Opcode.ControlWkcV1
}
