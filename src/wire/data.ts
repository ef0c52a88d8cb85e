/**
 * Owns the layouts of data packets with an AEAD cipher, the two messages that are not IP packets, and a slow and
 * obvious way to seal and open, to measure the fast one by. Replay and wear-out are packet-id.ts's, the keys of epochs
 * epoch.ts's.
 *
 *     P_DATA_V2 | op, key id, peer id 4 | packet id 4 | tag 16 | ciphertext |      sizes in bytes
 *               |<------- AAD -------->|
 *     P_DATA_V1 | op, key id 1 | packet id 4 | tag 16 | ciphertext |
 *                              |<-- AAD -->|
 *     nonce     | packet id 4 | nonce tail 8 |
 *
 *     P_DATA_V2 | op, key id, peer id 4 | epoch 2 | counter 6 | ciphertext | tag 16 |      with epoch keys
 *               |<---------------- AAD ---------------->|
 *     nonce     | epoch 2 | counter 6 | 0 4 | XOR the epoch's IV
 *
 * The ciphertext is as long as the plaintext; nothing in a packet tells which of the two forms it has. Source:
 * data-channel reference, 3 and 4; driver-behaviour, 1.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto'
import { dataV2Word, keyIdOf, Opcode, opcodeOf, peerIdOf } from './opcode.ts'

export const PACKET_ID_OFFSET = 4
/** Op word and packet id: what the AAD covers in P_DATA_V2. */
export const AAD_BYTES = 8
export const TAG_BYTES = 16
/** What a sealed P_DATA_V2 packet is longer than its plaintext. */
export const OVERHEAD_BYTES = AAD_BYTES + TAG_BYTES
const NONCE_TAIL_BYTES = 8
/** What the AAD covers with epoch keys. */
export const EPOCH_AAD_BYTES = 12
/** What a sealed packet is longer than its plaintext with epoch keys. */
export const EPOCH_OVERHEAD_BYTES = EPOCH_AAD_BYTES + TAG_BYTES

/** The "ping": all of the plaintext. Source: data-channel reference, 9.2. */
export const KEEPALIVE_MAGIC = Uint8Array.from([
  0x2a, 0x18, 0x7b, 0xf3, 0x64, 0x1e, 0xb4, 0xcb, 0x07, 0xed, 0x2d, 0x0a, 0x98, 0x1f, 0xc7, 0x48,
])
/** What an OCC message begins with; its operation follows in one byte. Source: data-channel reference, 9.3. */
export const OCC_MAGIC = Uint8Array.from([
  0x28, 0x7f, 0x34, 0x6b, 0xd4, 0xef, 0x7a, 0x81, 0x2d, 0x56, 0xb8, 0xd3, 0xaf, 0xc5, 0x45, 0x9c,
])

const magicView = new DataView(KEEPALIVE_MAGIC.buffer)
const occView = new DataView(OCC_MAGIC.buffer)

/** Whether the plaintext of `length` bytes at `offset` is a keepalive: exactly that, as the kernel's driver has it. */
export function isKeepalive(view: DataView, offset: number, length: number): boolean {
  return length === KEEPALIVE_MAGIC.length && beginsWith(view, offset, magicView)
}

/** Whether the plaintext of `length` bytes at `offset` is an OCC message: magic and operation at least. */
export function isOcc(view: DataView, offset: number, length: number): boolean {
  return length > OCC_MAGIC.length && beginsWith(view, offset, occView)
}

function beginsWith(view: DataView, offset: number, magic: DataView): boolean {
  return (
    view.getInt32(offset) === magic.getInt32(0) &&
    view.getInt32(offset + 4) === magic.getInt32(4) &&
    view.getInt32(offset + 8) === magic.getInt32(8) &&
    view.getInt32(offset + 12) === magic.getInt32(12)
  )
}

/** AES by the length of its key: 16, 24 or 32 bytes; ChaCha20-Poly1305's has 32. */
export type DataCipher = 'aes-gcm' | 'chacha20-poly1305'

/** One direction of one data key. */
export interface DataKey {
  cipher: DataCipher
  key: Uint8Array
  /** 8 bytes. */
  nonceTail: Uint8Array
}

export interface DataPacket {
  /** 3 bits. */
  keyId: number
  /** 24 bits. */
  peerId: number
  /** 32 bits, 1 and up. */
  packetId: number
  plaintext: Uint8Array
}

/**
 * Seals a P_DATA_V2 packet with node:crypto. For tests and simulations.
 * Throws what node:crypto throws: a key of the wrong length, a cipher it has not (in Bun: ChaCha20-Poly1305).
 */
export function sealDataV2(key: DataKey, packet: DataPacket): Uint8Array {
  const { plaintext } = packet
  const sealed = new Uint8Array(OVERHEAD_BYTES + plaintext.length)
  const view = new DataView(sealed.buffer)
  view.setUint32(0, dataV2Word(packet.keyId, packet.peerId))
  view.setUint32(PACKET_ID_OFFSET, packet.packetId)
  const aad = sealed.subarray(0, AAD_BYTES)
  const cipher = createCipheriv(nodeName(key), key.key, nonceOf(sealed, key.nonceTail), {
    authTagLength: TAG_BYTES,
  })
  cipher.setAAD(aad, { plaintextLength: plaintext.length })
  sealed.set(cipher.update(plaintext), OVERHEAD_BYTES)
  cipher.final() // neither cipher holds anything back
  sealed.set(cipher.getAuthTag(), AAD_BYTES)
  return sealed
}

/**
 * Opens a P_DATA_V2 packet with node:crypto; undefined: not one, too short, or not authentic.
 * For tests and simulations; throws as `sealDataV2` does.
 */
export function openDataV2(key: DataKey, packet: Uint8Array): DataPacket | undefined {
  if (packet.length < OVERHEAD_BYTES || opcodeOf(packet[0]!) !== Opcode.DataV2) return undefined
  const decipher = createDecipheriv(nodeName(key), key.key, nonceOf(packet, key.nonceTail), {
    authTagLength: TAG_BYTES,
  })
  const ciphertext = packet.subarray(OVERHEAD_BYTES)
  decipher.setAAD(packet.subarray(0, AAD_BYTES), { plaintextLength: ciphertext.length })
  decipher.setAuthTag(packet.subarray(AAD_BYTES, OVERHEAD_BYTES))
  const plaintext = new Uint8Array(decipher.update(ciphertext))
  try {
    decipher.final()
  } catch {
    return undefined
  }
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
  return {
    keyId: keyIdOf(packet[0]!),
    peerId: peerIdOf(view.getUint32(0)),
    packetId: view.getUint32(PACKET_ID_OFFSET),
    plaintext,
  }
}

/** One epoch of one direction. */
export interface EpochDataKey {
  cipher: DataCipher
  key: Uint8Array
  /** 12 bytes. */
  iv: Uint8Array
}

export interface EpochPacket {
  keyId: number
  peerId: number
  /** 16 bits, 1 and up. */
  epoch: number
  /** 48 bits, 1 and up. */
  counter: number
  plaintext: Uint8Array
}

/** As `sealDataV2`, in the epoch form. */
export function sealEpoch(key: EpochDataKey, packet: EpochPacket): Uint8Array {
  const { plaintext, epoch, counter } = packet
  const sealed = new Uint8Array(EPOCH_OVERHEAD_BYTES + plaintext.length)
  const view = new DataView(sealed.buffer)
  view.setUint32(0, dataV2Word(packet.keyId, packet.peerId))
  view.setBigUint64(PACKET_ID_OFFSET, (BigInt(epoch) << 48n) | BigInt(counter))
  const cipher = createCipheriv(nodeName(key), key.key, epochNonceOf(sealed, key.iv), {
    authTagLength: TAG_BYTES,
  })
  cipher.setAAD(sealed.subarray(0, EPOCH_AAD_BYTES), { plaintextLength: plaintext.length })
  sealed.set(cipher.update(plaintext), EPOCH_AAD_BYTES)
  cipher.final()
  sealed.set(cipher.getAuthTag(), EPOCH_AAD_BYTES + plaintext.length)
  return sealed
}

/** As `openDataV2`, in the epoch form. The key is that of the packet's epoch, whatever the packet says. */
export function openEpoch(key: EpochDataKey, packet: Uint8Array): EpochPacket | undefined {
  if (packet.length < EPOCH_OVERHEAD_BYTES || opcodeOf(packet[0]!) !== Opcode.DataV2) {
    return undefined
  }
  const decipher = createDecipheriv(nodeName(key), key.key, epochNonceOf(packet, key.iv), {
    authTagLength: TAG_BYTES,
  })
  const ciphertext = packet.subarray(EPOCH_AAD_BYTES, -TAG_BYTES)
  decipher.setAAD(packet.subarray(0, EPOCH_AAD_BYTES), { plaintextLength: ciphertext.length })
  decipher.setAuthTag(packet.subarray(-TAG_BYTES))
  const plaintext = new Uint8Array(decipher.update(ciphertext))
  try {
    decipher.final()
  } catch {
    return undefined
  }
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
  return {
    keyId: keyIdOf(packet[0]!),
    peerId: peerIdOf(view.getUint32(0)),
    epoch: view.getUint16(PACKET_ID_OFFSET),
    counter: Number(view.getBigUint64(PACKET_ID_OFFSET) & 0xffff_ffff_ffffn),
    plaintext,
  }
}

// One type for both: their overloads differ by cipher name only, not in what is called here.
function nodeName(key: Pick<DataKey, 'cipher' | 'key'>): 'aes-256-gcm' {
  const name = key.cipher === 'aes-gcm' ? `aes-${key.key.length * 8}-gcm` : key.cipher
  return name as 'aes-256-gcm'
}

function nonceOf(packet: Uint8Array, tail: Uint8Array): Uint8Array {
  const nonce = new Uint8Array(4 + NONCE_TAIL_BYTES)
  nonce.set(packet.subarray(PACKET_ID_OFFSET, AAD_BYTES))
  nonce.set(tail, 4)
  return nonce
}

function epochNonceOf(packet: Uint8Array, iv: Uint8Array): Uint8Array {
  const nonce = Uint8Array.from(iv)
  for (let i = 0; i < 8; i++) nonce[i]! ^= packet[PACKET_ID_OFFSET + i]!
  return nonce
}
