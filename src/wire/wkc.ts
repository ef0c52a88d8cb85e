/**
 * Owns wrapped client keys (WKc) of tls-crypt-v2: how a server hides a client's key from the client itself, so that it
 * need not remember any. Key files are static-key.ts's, packets with these keys wrap.ts's.
 *
 *     WKc | tag 32 | AES-256-CTR( client key 256 | metadata ) | length of all 2 |      sizes in bytes
 *     tag = HMAC-SHA-256( length | client key | metadata ), and its first 16 bytes are the counter block
 *
 * The server's key has 128 bytes: of the first 64 the front is the cipher's key, of the others the HMAC's. Metadata is a
 * type and data; it may be empty. Source: OpenVPN's doc/tls-crypt-v2.txt.
 */
import { createCipheriv, createDecipheriv, createHmac, timingSafeEqual } from 'node:crypto'

export const SERVER_KEY_BYTES = 128
export const CLIENT_KEY_BYTES = 256
/** What `sealWkc` takes; with it a WKc has 1024 bytes. */
export const MAX_METADATA_BYTES = 734

const TAG_BYTES = 32
const LENGTH_BYTES = 2
const MIN_WKC_BYTES = TAG_BYTES + CLIENT_KEY_BYTES + LENGTH_BYTES
const MAX_WKC_BYTES = MIN_WKC_BYTES + MAX_METADATA_BYTES

/** What the first byte of metadata says. */
export const MetadataType = {
  /** Data of whoever made the key. */
  User: 0,
  /** When the key was made: seconds since 1970, signed, 8 bytes. */
  Timestamp: 1,
} as const

/** Metadata that tells when a key was made. */
export function timestampMetadata(unixSeconds: number): Uint8Array {
  const metadata = new Uint8Array(9)
  metadata[0] = MetadataType.Timestamp
  new DataView(metadata.buffer).setBigInt64(1, BigInt(Math.floor(unixSeconds)))
  return metadata
}

/** When metadata says that a key was made, in seconds since 1970; undefined: it does not. */
export function timestampOf(metadata: Uint8Array): number | undefined {
  if (metadata.length !== 9 || metadata[0] !== MetadataType.Timestamp) return undefined
  return Number(new DataView(metadata.buffer, metadata.byteOffset).getBigInt64(1))
}

/**
 * Wraps a client's key.
 *
 * @throws RangeError if a length is wrong
 */
export function sealWkc(
  serverKey: Uint8Array,
  clientKey: Uint8Array,
  metadata: Uint8Array,
): Uint8Array {
  checkServerKey(serverKey)
  if (clientKey.length !== CLIENT_KEY_BYTES) {
    throw new RangeError(`a client key has ${CLIENT_KEY_BYTES} bytes, not ${clientKey.length}`)
  }
  if (metadata.length > MAX_METADATA_BYTES) {
    throw new RangeError(`metadata has at most ${MAX_METADATA_BYTES} bytes, not ${metadata.length}`)
  }
  const total = MIN_WKC_BYTES + metadata.length
  const length = Uint8Array.of(total >> 8, total & 0xff)
  const tag = authenticate(serverKey, length, [clientKey, metadata])
  const cipher = createCipheriv('aes-256-ctr', serverKey.subarray(0, 32), tag.subarray(0, 16))
  const wkc = new Uint8Array(total)
  wkc.set(tag)
  wkc.set(cipher.update(clientKey), TAG_BYTES)
  wkc.set(cipher.update(metadata), TAG_BYTES + CLIENT_KEY_BYTES)
  wkc.set(length, total - LENGTH_BYTES)
  return wkc
}

export interface ClientKey {
  /** 256 bytes, used as a static key is. */
  clientKey: Uint8Array
  /** Type and data; may be empty. */
  metadata: Uint8Array
}

/**
 * Opens a WKc of unknown origin, in new memory.
 *
 * @returns undefined if it was not made with `serverKey`
 * @throws RangeError if the length of `serverKey` is wrong
 */
export function openWkc(serverKey: Uint8Array, wkc: Uint8Array): ClientKey | undefined {
  checkServerKey(serverKey)
  const end = wkc.length - LENGTH_BYTES
  if (wkcLengthAtEnd(wkc) !== wkc.length) return undefined
  const tag = wkc.subarray(0, TAG_BYTES)
  const cipher = createDecipheriv('aes-256-ctr', serverKey.subarray(0, 32), tag.subarray(0, 16))
  const plain = cipher.update(wkc.subarray(TAG_BYTES, end))
  if (!timingSafeEqual(authenticate(serverKey, wkc.subarray(end), [plain]), tag)) {
    plain.fill(0)
    return undefined
  }
  const clientKey = new Uint8Array(plain.subarray(0, CLIENT_KEY_BYTES))
  const metadata = new Uint8Array(plain.subarray(CLIENT_KEY_BYTES))
  plain.fill(0)
  return { clientKey, metadata }
}

/**
 * The WKc at the end of a packet of unknown origin, and what is before it; views. Undefined: the length at the end cannot
 * be that of one.
 */
export function splitWkc(bytes: Uint8Array): { packet: Uint8Array; wkc: Uint8Array } | undefined {
  const length = wkcLengthAtEnd(bytes)
  if (length === undefined) return undefined
  const start = bytes.length - length
  return { packet: bytes.subarray(0, start), wkc: bytes.subarray(start) }
}

/** Undefined: none that a WKc may have, or more than there is. */
function wkcLengthAtEnd(bytes: Uint8Array): number | undefined {
  if (bytes.length < MIN_WKC_BYTES) return undefined
  const length = (bytes[bytes.length - 2]! << 8) | bytes[bytes.length - 1]!
  if (length < MIN_WKC_BYTES || length > MAX_WKC_BYTES || length > bytes.length) return undefined
  return length
}

function authenticate(serverKey: Uint8Array, length: Uint8Array, parts: Uint8Array[]): Buffer {
  const hmac = createHmac('sha256', serverKey.subarray(64, 96)).update(length)
  for (const part of parts) hmac.update(part)
  return hmac.digest()
}

function checkServerKey(key: Uint8Array): void {
  if (key.length !== SERVER_KEY_BYTES) {
    throw new RangeError(`a server key has ${SERVER_KEY_BYTES} bytes, not ${key.length}`)
  }
}
