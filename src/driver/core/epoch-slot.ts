/**
 * A key whose material changes from epoch to epoch: the ciphers for the rules of wire/epoch.ts. Wire form and nonce:
 * docs/PROTOCOL.md, "Epoch keys".
 *
 *     | op, key id, peer id 4 | epoch 2 | counter 6 | ciphertext | tag 16 |      sizes in bytes
 *     |<----------------- AAD ------------------>|
 */
import { EPOCH_AAD_BYTES, EPOCH_OVERHEAD_BYTES, PACKET_ID_OFFSET } from '../../wire/data.ts'
import {
  EpochChain,
  type EpochKey,
  EpochReceiver,
  EpochSender,
  FORGED_MOVE,
  FORGED_STOP,
  GCM_USAGE_LIMIT,
  RENEGOTIATION_EPOCH,
  usageOf,
} from '../../wire/epoch.ts'
import { dataV2Word } from '../../wire/opcode.ts'
import type { Aead, AeadProvider } from './aead.ts'
import type { Millis } from './keepalive.ts'
import type { KeyCipher, KeyConfig, KeyListener, KeySlot } from './key-slot.ts'
import type { PacketMemory } from './memory.ts'

const COUNTER_HIGH_OFFSET = PACKET_ID_OFFSET + 2
const COUNTER_LOW_OFFSET = PACKET_ID_OFFSET + 4
const WORD = 2 ** 32

/** One epoch of one direction. */
interface EpochCipher {
  readonly epoch: number
  readonly aead: Aead
  /** The IV. */
  readonly iv0: number
  readonly iv1: number
  readonly iv2: number
  /** Left of the usage limit, and packets that were not authentic; while receiving. */
  left: number
  forged: number
  close(): void
}

export class EpochSlot implements KeySlot {
  readonly format = 'epoch'
  readonly keyId: number
  readonly cipher: KeyCipher
  readonly installed: Millis
  heard = false
  readonly overhead = EPOCH_OVERHEAD_BYTES
  readonly #provider: AeadProvider
  readonly #memory: PacketMemory
  readonly #nonce: number
  readonly #limit: number
  readonly #sendChain: EpochChain
  readonly #sender: EpochSender
  #sealing: EpochCipher
  readonly #receiver: EpochReceiver<EpochCipher>
  readonly #listener: KeyListener
  #toldAgeing = false

  /** See `createKeySlot`. Throws what the provider throws, and RangeError where a secret has not 32 bytes. */
  constructor(
    config: KeyConfig,
    provider: AeadProvider,
    memory: PacketMemory,
    nonce: number,
    now: Millis,
    listener: KeyListener,
  ) {
    const { encrypt, decrypt, cipher, firstEpoch } = config
    this.keyId = config.keyId
    this.cipher = cipher
    this.installed = now
    this.#provider = provider
    this.#memory = memory
    this.#nonce = nonce
    this.#listener = listener
    this.#limit =
      config.usageLimit ??
      (cipher === 'chacha20-poly1305' ? Number.POSITIVE_INFINITY : GCM_USAGE_LIMIT)
    const keyBytes = cipher === 'aes-128-gcm' ? 16 : cipher === 'aes-192-gcm' ? 24 : 32
    this.#sendChain = new EpochChain(encrypt.cipherKey, keyBytes, firstEpoch)
    const receiveChain = new EpochChain(decrypt.cipherKey, keyBytes, firstEpoch)
    this.#sender = new EpochSender(this.#sendChain, this.#limit, (config.firstPacketId ?? 1) - 1)
    this.#sealing = this.#create(this.#sendChain.key(), this.#sendChain.epoch, 'seal')
    try {
      const first = this.#create(receiveChain.key(), receiveChain.epoch, 'open')
      this.#receiver = new EpochReceiver(receiveChain, first, (material, epoch) =>
        this.#createOrFail(material, epoch, 'open'),
      )
    } catch (error) {
      this.#sealing.close()
      throw error
    }
  }

  get epoch(): number {
    return this.#sender.epoch
  }

  get lastPacketId(): number {
    return this.#sender.counter
  }

  seal(plain: number, length: number, out: number, peerId: number): number {
    const sender = this.#sender
    if (sender.due && !this.#move()) return 0
    const counter = sender.next(length)
    const { view } = this.#memory
    const { aead, epoch, iv0, iv1, iv2 } = this.#sealing
    const high = (epoch << 16) | (counter / WORD)
    view.setUint32(out, dataV2Word(this.keyId, peerId))
    view.setInt32(out + PACKET_ID_OFFSET, high)
    view.setInt32(out + COUNTER_LOW_OFFSET, counter)
    const nonce = this.#nonce
    view.setInt32(nonce, iv0 ^ high)
    view.setInt32(nonce + 4, iv1 ^ counter)
    view.setInt32(nonce + 8, iv2)
    const sealed = out + EPOCH_AAD_BYTES
    return aead.seal(nonce, out, EPOCH_AAD_BYTES, plain, length, sealed, sealed + length)
      ? EPOCH_OVERHEAD_BYTES + length
      : -1
  }

  open(packet: number, length: number, out: number): number {
    const plainLength = length - EPOCH_OVERHEAD_BYTES
    if (plainLength < 0) return -1
    const { view } = this.#memory
    const of = this.#receiver.keyFor(view.getUint16(packet + PACKET_ID_OFFSET))
    if (of === undefined || of.forged > FORGED_STOP) return -2
    const nonce = this.#nonce
    view.setInt32(nonce, of.iv0 ^ view.getInt32(packet + PACKET_ID_OFFSET))
    view.setInt32(nonce + 4, of.iv1 ^ view.getInt32(packet + COUNTER_LOW_OFFSET))
    view.setInt32(nonce + 8, of.iv2)
    const sealed = packet + EPOCH_AAD_BYTES
    const tag = sealed + plainLength
    if (!of.aead.open(nonce, packet, EPOCH_AAD_BYTES, sealed, plainLength, out, tag)) {
      if (++of.forged > FORGED_MOVE) this.#leave(of)
      return -1
    }
    of.left -= usageOf(plainLength)
    if (of.left < 0) this.#leave(of)
    return plainLength
  }

  fresh(packet: number, now: Millis): boolean {
    const { view } = this.#memory
    const epoch = view.getUint16(packet + PACKET_ID_OFFSET)
    const counter =
      view.getUint16(packet + COUNTER_HIGH_OFFSET) * WORD +
      view.getUint32(packet + COUNTER_LOW_OFFSET)
    const current = this.#receiver.epoch
    const isFresh = this.#receiver.accept(epoch, counter, now)
    if (this.#receiver.epoch !== current) this.#pullAll(this.#receiver.epoch)
    return isFresh
  }

  pull(epoch: number): void {
    this.#sender.pull(epoch)
  }

  close(): void {
    this.#sealing.close()
    this.#sendChain.close()
    this.#receiver.close()
  }

  /** Seals with the epoch that is due; false: there is none. */
  #move(): boolean {
    const material = this.#sender.move()
    if (material === undefined) return false
    this.#sealing.close()
    this.#sealing = this.#createOrFail(material, this.#sender.epoch, 'seal')
    if (this.#sender.epoch >= RENEGOTIATION_EPOCH && !this.#toldAgeing) {
      this.#toldAgeing = true
      this.#listener.ageing()
    }
    return true
  }

  /** Has used up the current receive key: sends with the next epoch, so that the peer follows. */
  #leave(of: EpochCipher): void {
    const isLimited = this.#limit !== Number.POSITIVE_INFINITY
    if (isLimited && of.epoch === this.#receiver.epoch) this.#pullAll(of.epoch + 1)
  }

  #pullAll(epoch: number): void {
    if (this.#sender.pull(epoch)) this.#listener.pulled(epoch)
  }

  #create({ key, iv }: EpochKey, epoch: number, direction: 'seal' | 'open'): EpochCipher {
    try {
      // A KeySlot's config with the cipher `none` ends here, as the provider has none.
      const aead = this.#provider.create(this.cipher as Exclude<KeyCipher, 'none'>, key, direction)
      const view = new DataView(iv.buffer, iv.byteOffset, iv.length)
      return {
        epoch,
        aead,
        iv0: view.getInt32(0),
        iv1: view.getInt32(4),
        iv2: view.getInt32(8),
        left: this.#limit,
        forged: 0,
        close: () => aead.close(),
      }
    } finally {
      key.fill(0)
      iv.fill(0)
    }
  }

  /** On the packets' path, where nothing throws: a cipher that cannot be had refuses every packet. */
  #createOrFail(material: EpochKey, epoch: number, direction: 'seal' | 'open'): EpochCipher {
    try {
      return this.#create(material, epoch, direction)
    } catch {
      const aead = { seal: () => false, open: () => false, close: () => undefined }
      return {
        epoch,
        aead,
        iv0: 0,
        iv1: 0,
        iv2: 0,
        left: this.#limit,
        forged: 0,
        close: aead.close,
      }
    }
  }
}
