/**
 * A key of the form every version speaks: both directions, 32-bit packet ids and their replay window. Wire form and
 * nonce: docs/PROTOCOL.md, "DATA_V2".
 *
 *     | op, key id, peer id 4 | packet id 4 | tag 16 | ciphertext |      sizes in bytes
 *     |<------- AAD -------->|
 */
import { AAD_BYTES, OVERHEAD_BYTES, PACKET_ID_OFFSET, TAG_BYTES } from '../../wire/data.ts'
import { dataV2Word } from '../../wire/opcode.ts'
import { PacketIdCounter, ReplayWindow } from '../../wire/packet-id.ts'
import type { Aead, AeadProvider } from './aead.ts'
import type { Millis } from './keepalive.ts'
import type { KeyCipher, KeyConfig, KeySlot } from './key-slot.ts'
import type { PacketMemory } from './memory.ts'

export class ClassicSlot implements KeySlot {
  readonly format = 'classic'
  readonly epoch = 0
  readonly keyId: number
  readonly cipher: KeyCipher
  readonly installed: Millis
  heard = false
  readonly overhead: number
  readonly #memory: PacketMemory
  readonly #nonce: number
  readonly #sealer: Aead | undefined
  readonly #opener: Aead | undefined
  readonly #packetIds: PacketIdCounter
  readonly #window = new ReplayWindow()
  // Words of the nonces' tails. Here and not in arrays: among many peers each object that a packet needs is a cache miss.
  readonly #sealTail0: number
  readonly #sealTail1: number
  readonly #openTail0: number
  readonly #openTail1: number

  /** `nonce`: offset of 12 bytes of scratch. Throws what the provider throws. */
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
    ;[this.#sealTail0, this.#sealTail1] = words(encrypt.nonceTail)
    ;[this.#openTail0, this.#openTail1] = words(decrypt.nonceTail)
    if (cipher === 'none') return
    this.#sealer = provider.create(cipher, encrypt.cipherKey, 'seal')
    try {
      const opening = config.decryptCipher ?? cipher
      this.#opener = provider.create(opening, decrypt.cipherKey, 'open')
    } catch (error) {
      this.#sealer.close()
      throw error
    }
  }

  get lastPacketId(): number {
    return (this.#packetIds.peek() || 2 ** 32) - 1
  }

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
    view.setInt32(nonce + 4, this.#sealTail0)
    view.setInt32(nonce + 8, this.#sealTail1)
    const tag = out + AAD_BYTES
    const sealed = this.#sealer.seal(nonce, out, AAD_BYTES, plain, length, tag + TAG_BYTES, tag)
    return sealed ? OVERHEAD_BYTES + length : -1
  }

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
    view.setInt32(nonce + 4, this.#openTail0)
    view.setInt32(nonce + 8, this.#openTail1)
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

  fresh(packet: number, now: Millis): boolean {
    return this.#window.accept(this.#memory.view.getUint32(packet + PACKET_ID_OFFSET), now)
  }

  pull(): void {}

  close(): void {
    this.#sealer?.close()
    this.#opener?.close()
  }
}

function words(tail: Uint8Array): [number, number] {
  const view = new DataView(tail.buffer, tail.byteOffset, 8)
  return [view.getInt32(0), view.getInt32(4)]
}
