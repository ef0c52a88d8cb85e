/**
 * One installed key: both directions, its packet ids and its replay window. Wire form and nonce: docs/PROTOCOL.md,
 * "DATA_V2"; slots and their life: driver-behaviour, 4.
 *
 *     | op, key id, peer id 4 | packet id 4 | tag 16 | ciphertext |      sizes in bytes
 *     |<------- AAD -------->|
 */
import { AAD_BYTES, OVERHEAD_BYTES, PACKET_ID_OFFSET, TAG_BYTES } from '../../wire/data.ts'
import { dataV2Word } from '../../wire/opcode.ts'
import { PacketIdCounter, ReplayWindow } from '../../wire/packet-id.ts'
import type { Aead, AeadCipher, AeadProvider } from './aead.ts'
import type { Millis } from './keepalive.ts'
import type { PacketMemory } from './memory.ts'

export type KeyCipher = AeadCipher | 'none'

/** Key material of one direction; `cipherKey` is wiped once the cipher has it. */
export interface KeyDirection {
  cipherKey: Uint8Array
  /** 8 bytes. */
  nonceTail: Uint8Array
}

export interface KeyConfig {
  keyId: number
  cipher: KeyCipher
  /** Where the key to receive with has another length. */
  decryptCipher?: AeadCipher
  encrypt: KeyDirection
  decrypt: KeyDirection
  /** For tests of the end of the packet ids; 1 by default. */
  firstPacketId?: number
}

export class KeySlot {
  readonly keyId: number
  readonly cipher: KeyCipher
  readonly installed: Millis
  /** Bytes a sealed packet has more than its plaintext. */
  readonly overhead: number
  readonly #memory: PacketMemory
  readonly #nonce: number
  readonly #sealer: Aead | undefined
  readonly #opener: Aead | undefined
  readonly #packetIds: PacketIdCounter
  readonly #window = new ReplayWindow()
  readonly #sealTail: readonly [number, number]
  readonly #openTail: readonly [number, number]

  /** `nonce`: offset of 12 bytes of scratch. Throws what the provider throws; wipes the key material in any case. */
  constructor(
    config: KeyConfig,
    provider: AeadProvider,
    memory: PacketMemory,
    nonce: number,
    now: Millis,
  ) {
    const { encrypt, decrypt, cipher } = config
    this.keyId = config.keyId
    this.cipher = cipher
    this.installed = now
    this.overhead = cipher === 'none' ? AAD_BYTES : OVERHEAD_BYTES
    this.#memory = memory
    this.#nonce = nonce
    this.#packetIds = new PacketIdCounter(config.firstPacketId)
    try {
      this.#sealTail = words(encrypt.nonceTail)
      this.#openTail = words(decrypt.nonceTail)
      if (cipher !== 'none') {
        this.#sealer = provider.create(cipher, encrypt.cipherKey, 'seal')
        try {
          const opening = config.decryptCipher ?? cipher
          this.#opener = provider.create(opening, decrypt.cipherKey, 'open')
        } catch (error) {
          this.#sealer.close()
          throw error
        }
      }
    } finally {
      wipe(config)
    }
  }

  /** The packet id last sent; 0 before the first. */
  get lastPacketId(): number {
    return (this.#packetIds.peek() || 2 ** 32) - 1
  }

  /**
   * Seals `length` bytes at `plain` to `out`; the areas do not overlap and `out` has room for `overhead` more.
   *
   * @returns bytes written; 0: no packet id is left; -1: the cipher failed (the packet id is used up all the same)
   */
  seal(plain: number, length: number, out: number, peerId: number): number {
    const { view } = this.#memory
    const packetId = this.#packetIds.next()
    if (packetId === 0) return 0
    view.setUint32(out, dataV2Word(this.keyId, peerId))
    view.setUint32(out + PACKET_ID_OFFSET, packetId)
    if (this.#sealer === undefined) {
      this.#memory.u8.copyWithin(out + AAD_BYTES, plain, plain + length)
      return AAD_BYTES + length
    }
    const nonce = this.#nonce
    view.setUint32(nonce, packetId)
    view.setInt32(nonce + 4, this.#sealTail[0])
    view.setInt32(nonce + 8, this.#sealTail[1])
    const tag = out + AAD_BYTES
    const sealed = this.#sealer.seal(nonce, out, AAD_BYTES, plain, length, tag + TAG_BYTES, tag)
    return sealed ? OVERHEAD_BYTES + length : -1
  }

  /**
   * Opens the packet of `length` bytes (header included) at `packet` to `out`, which has room for its plaintext.
   * Says nothing of its freshness: see `fresh`.
   *
   * @returns the plaintext's length, or -1: too short or not authentic
   */
  open(packet: number, length: number, out: number): number {
    const plainLength = length - this.overhead
    if (plainLength < 0) return -1
    if (this.#opener === undefined) {
      this.#memory.u8.copyWithin(out, packet + AAD_BYTES, packet + length)
      return plainLength
    }
    const { view } = this.#memory
    const nonce = this.#nonce
    view.setInt32(nonce, view.getInt32(packet + PACKET_ID_OFFSET))
    view.setInt32(nonce + 4, this.#openTail[0])
    view.setInt32(nonce + 8, this.#openTail[1])
    const tag = packet + AAD_BYTES
    const opened = this.#opener.open(
      nonce,
      packet,
      AAD_BYTES,
      tag + TAG_BYTES,
      plainLength,
      out,
      tag,
    )
    return opened ? plainLength : -1
  }

  /** Whether the authenticated packet at `packet` is new to the replay window, which then knows it. */
  fresh(packet: number, now: Millis): boolean {
    return this.#window.accept(this.#memory.view.getUint32(packet + PACKET_ID_OFFSET), now)
  }

  /** Forgets the key. */
  close(): void {
    this.#sealer?.close()
    this.#opener?.close()
  }
}

/** Overwrites the key material. */
export function wipe(config: KeyConfig): void {
  config.encrypt.cipherKey.fill(0)
  config.decrypt.cipherKey.fill(0)
}

function words(tail: Uint8Array): [number, number] {
  const view = new DataView(tail.buffer, tail.byteOffset, 8)
  return [view.getInt32(0), view.getInt32(4)]
}
