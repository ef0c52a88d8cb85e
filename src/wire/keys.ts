/**
 * Owns the messages of key method 2, which both ends send first within TLS, and the 256 bytes of data keys ("key2") that
 * follow from them or from TLS itself. Which of both applies is for the session to know; epochs are epoch.ts's.
 *
 *     client's  | 0 4 | 2 1 | pre-master 48 | random 32 | random 32 | options | user name | password | peer info |
 *     server's  | 0 4 | 2 1 | random 32 | random 32 | options | user name | password | peer info |      sizes in bytes
 *     each text | length with its NUL 2 | UTF-8 | NUL |, or a length of 0 and nothing
 *     key2      | client to server: cipher 64 | hmac 64 | server to client: cipher 64 | hmac 64 |
 *
 * An OpenVPN 3 server ends its message after the options; a 2.x server sends three empty texts. Source: OpenVPN's
 * openvpn-wire-protocol.xml, "Key exchange"; docs/PROTOCOL.md, "Key method 2" and "Data keys".
 */
import { createHmac } from 'node:crypto'
import { SESSION_ID_BYTES } from './control.ts'
import type { Role } from './wrap.ts'

export const KEY2_BYTES = 256
/** TLS exporter label of key2. */
export const DATA_KEYS_LABEL = 'EXPORTER-OpenVPN-datakeys'
/** What OpenVPN 2.x can read of a key message; more of it is not sent. */
export const MAX_KEY_MESSAGE_BYTES = 2048

const PRE_MASTER_BYTES = 48
const RANDOM_BYTES = 32
const KEY_METHOD = 2
const PREFIX_BYTES = 5

/** What one end puts in for the data keys. */
export interface KeySource {
  /** 48 bytes; a client's only. */
  preMaster?: Uint8Array
  /** 32 bytes each. */
  random1: Uint8Array
  random2: Uint8Array
}

export interface KeyMessage {
  source: KeySource
  /** The options string: options-string.ts. */
  options: string
  username: string
  password: string
  /** Lines of KEY=value: peer-info.ts. */
  peerInfo: string
}

/** A new source. `random`: gives that many bytes that nobody can guess. */
export function createKeySource(role: Role, random: (count: number) => Uint8Array): KeySource {
  const randoms = { random1: random(RANDOM_BYTES), random2: random(RANDOM_BYTES) }
  return role === 'client' ? { preMaster: random(PRE_MASTER_BYTES), ...randoms } : randoms
}

/**
 * The message, with a pre-master if its source has one.
 *
 * @throws RangeError for a message that OpenVPN 2.x could not read, or a text with a NUL in it
 */
export function encodeKeyMessage(message: KeyMessage): Uint8Array {
  const { source, options, username, password, peerInfo } = message
  const parts: Uint8Array[] = [Uint8Array.of(0, 0, 0, 0, KEY_METHOD)]
  if (source.preMaster !== undefined) parts.push(source.preMaster)
  parts.push(source.random1, source.random2)
  for (const text of [options, username, password, peerInfo]) {
    if (text.includes('\0')) throw new RangeError('a text of the key message has a NUL in it')
    const bytes = Buffer.from(text)
    const length = bytes.length === 0 ? 0 : bytes.length + 1
    parts.push(Uint8Array.of(length >> 8, length & 0xff), bytes)
    if (length > 0) parts.push(Uint8Array.of(0))
  }
  const encoded = Buffer.concat(parts)
  if (encoded.length > MAX_KEY_MESSAGE_BYTES) {
    throw new RangeError(
      `a key message of ${encoded.length} bytes: the peer may read ${MAX_KEY_MESSAGE_BYTES}`,
    )
  }
  return encoded
}

/**
 * Reads the message of an end that nobody has authenticated yet. Texts that are missing at the end are empty; their
 * characters are checked by whoever uses them. The source is a copy.
 *
 * @returns with `length`, the bytes it took: what follows are control messages. Undefined for what is no such message:
 *   cut short, of another key method, or with a NUL in a text (readers of C strings would see another)
 */
export function decodeKeyMessage(
  bytes: Uint8Array,
  from: Role,
): (KeyMessage & { length: number }) | undefined {
  let at = PREFIX_BYTES
  const take = (count: number) => {
    at += count
    return copyOf(bytes, at - count, at)
  }
  const preMaster = from === 'client' ? PRE_MASTER_BYTES : 0
  if (bytes.length < PREFIX_BYTES + preMaster + 2 * RANDOM_BYTES) return undefined
  if (bytes.subarray(0, 4).some((byte) => byte !== 0)) return undefined
  if ((bytes[4]! & 0x0f) !== KEY_METHOD) return undefined
  const source: KeySource = {
    ...(preMaster > 0 && { preMaster: take(preMaster) }),
    random1: take(RANDOM_BYTES),
    random2: take(RANDOM_BYTES),
  }
  const texts: string[] = []
  while (texts.length < 4 && at < bytes.length) {
    const text = textAt(bytes, at)
    if (text === undefined) {
      if (from === 'server' && texts.length > 0) break // a control message behind a short form
      return undefined
    }
    texts.push(text.value)
    at += text.length
  }
  const [options = '', username = '', password = '', peerInfo = ''] = texts
  return { source, options, username, password, peerInfo, length: at }
}

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })

/** Undefined if no whole text lies there. `length`: bytes with those of the length itself. */
function textAt(bytes: Uint8Array, at: number): { value: string; length: number } | undefined {
  if (at + 2 > bytes.length) return undefined
  const length = (bytes[at]! << 8) | bytes[at + 1]!
  if (length === 0) return { value: '', length: 2 }
  const start = at + 2
  const end = start + length - 1
  if (end >= bytes.length || bytes.indexOf(0, start) !== end) return undefined
  return { value: utf8.decode(bytes.subarray(start, end)), length: 2 + length }
}

/**
 * key2 from both ends' sources, in new memory.
 *
 * @param sessionIds of both ends, 8 bytes each: the same for all keys of a session
 * @throws RangeError if the client's source has no pre-master
 */
export function deriveKey2(
  client: KeySource,
  server: KeySource,
  sessionIds: Record<Role, Uint8Array>,
): Uint8Array {
  if (client.preMaster?.length !== PRE_MASTER_BYTES) {
    throw new RangeError('the client has a pre-master of 48 bytes')
  }
  if (
    sessionIds.client.length !== SESSION_ID_BYTES ||
    sessionIds.server.length !== SESSION_ID_BYTES
  ) {
    throw new RangeError('a session id has 8 bytes')
  }
  const seed = (label: string, ...parts: Uint8Array[]) =>
    Buffer.concat([Buffer.from(label), ...parts])
  const master = tls1Prf(
    client.preMaster,
    seed('OpenVPN master secret', client.random1, server.random1),
    48,
  )
  const key2 = tls1Prf(
    master,
    seed(
      'OpenVPN key expansion',
      client.random2,
      server.random2,
      sessionIds.client,
      sessionIds.server,
    ),
    KEY2_BYTES,
  )
  master.fill(0)
  return key2
}

/** The PRF of TLS 1.0 and 1.1 (RFC 2246, 5), with label and seed in one. */
export function tls1Prf(secret: Uint8Array, seed: Uint8Array, length: number): Uint8Array {
  const half = Math.ceil(secret.length / 2)
  const output = expand('md5', secret.subarray(0, half), seed, length)
  const other = expand('sha1', secret.subarray(secret.length - half), seed, length)
  for (let i = 0; i < length; i++) output[i]! ^= other[i]!
  return output
}

/** P_hash of RFC 2246, 5. */
function expand(hash: string, secret: Uint8Array, seed: Uint8Array, length: number): Uint8Array {
  const hmac = (...parts: Uint8Array[]) => {
    const state = createHmac(hash, secret)
    for (const part of parts) state.update(part)
    return state.digest()
  }
  const output = new Uint8Array(length)
  let a: Uint8Array = seed
  for (let at = 0; at < length; ) {
    a = hmac(a)
    const block = hmac(a, seed)
    output.set(block.subarray(0, length - at), at)
    at += block.length
  }
  return output
}

const HALF_BYTES = 128
const PART_BYTES = 64
const NONCE_TAIL_BYTES = 8

/** Key material of one direction, as the driver takes it. */
export interface DirectionKey {
  /** As many bytes as the cipher wants, or the secret of the first epoch. */
  cipherKey: Uint8Array
  /** The end of the nonce, 8 bytes; not used with epochs. */
  nonceTail: Uint8Array
}

/**
 * What each direction takes of key2, copied out.
 *
 * @param role which end this is
 * @param keyBytes of the cipher's key; 32 with epochs, whatever the cipher
 */
export function dataKeys(
  key2: Uint8Array,
  role: Role,
  keyBytes: number,
): { encryptDir: DirectionKey; decryptDir: DirectionKey } {
  const half = (index: number): DirectionKey => {
    const cipher = index * HALF_BYTES
    const hmac = cipher + PART_BYTES
    return {
      cipherKey: copyOf(key2, cipher, cipher + keyBytes),
      nonceTail: copyOf(key2, hmac, hmac + NONCE_TAIL_BYTES),
    }
  }
  const own = role === 'client' ? 0 : 1
  return { encryptDir: half(own), decryptDir: half(1 - own) }
}

/** `slice` of a Buffer would be a view, and `Uint8Array.from` goes through it byte by byte. */
function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return new Uint8Array(bytes.subarray(start, end))
}
