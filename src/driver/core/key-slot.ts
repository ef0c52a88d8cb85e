/**
 * What the data path needs of an installed key, whatever its format (classic-slot.ts, epoch-slot.ts). Slots and their
 * life: driver-behaviour, 4.
 */
import type { AeadCipher, AeadProvider } from './aead.ts'
import { ClassicSlot } from './classic-slot.ts'
import { EpochSlot } from './epoch-slot.ts'
import type { Millis } from './keepalive.ts'
import type { PacketMemory } from './memory.ts'

export type KeyCipher = AeadCipher | 'none'
export type KeyFormat = 'classic' | 'epoch'

/** Key material of one direction; `cipherKey` is wiped once the cipher has it. */
export interface KeyDirection {
  /** The cipher's key; with epoch keys the secret of the first epoch, 32 bytes. */
  cipherKey: Uint8Array
  /** 8 bytes; not used with epoch keys. */
  nonceTail: Uint8Array
}

export interface KeyConfig {
  keyId: number
  /** With epoch keys, one of the AEADs. */
  cipher: KeyCipher
  /** Where the key to receive with has another length; classic keys only. */
  decryptCipher?: AeadCipher
  /** Classic where absent. */
  format?: KeyFormat
  encrypt: KeyDirection
  decrypt: KeyDirection
  /** For tests of the end of the packet ids; 1 by default. */
  firstPacketId?: number
  /** For tests of the end of the epochs: that of the secrets; 1 by default. */
  firstEpoch?: number
  /** For tests of moving on: blocks and packets in an epoch; the cipher's limit by default. */
  usageLimit?: number
}

/** What a key tells of itself. */
export interface KeyListener {
  /** Called once when the key, still usable, should have a successor. */
  ageing(): void
  /** By what was received, this is the least epoch to send with: for who sends elsewhere with the same key. */
  pulled(epoch: number): void
}

/** One key: both directions, its packet ids and replay windows. All positions are offsets in the packet memory. */
export interface KeySlot {
  readonly format: KeyFormat
  readonly keyId: number
  readonly cipher: KeyCipher
  readonly installed: Millis
  /** Whether a packet from the peer came with it: the peer has it, and may be sent to with it. */
  heard: boolean
  /** Bytes a sealed packet has more than its plaintext. */
  readonly overhead: number
  /** Epoch last sent with; 0 for a key that has none. */
  readonly epoch: number
  /** The packet id last sent, of that epoch; 0 before the first. */
  readonly lastPacketId: number
  /**
   * Seals `length` bytes at `plain` to `out`; the areas do not overlap and `out` has room for `overhead` more.
   *
   * @returns bytes written; 0: no packet id is left; -1: the cipher failed (the packet id is used up all the same)
   */
  seal(plain: number, length: number, out: number, peerId: number): number
  /**
   * Opens the packet of `length` bytes (header included) at `packet` to `out`, which has room for its plaintext.
   * Says nothing of its freshness: see `fresh`.
   *
   * @returns the plaintext's length; -1: too short or not authentic; -2: there is no key for its epoch
   */
  open(packet: number, length: number, out: number): number
  /** Whether the authenticated packet at `packet` is new to the replay window, which then knows it. */
  fresh(packet: number, now: Millis): boolean
  /** Makes `epoch` the least one to send with, where there are any. */
  pull(epoch: number): void
  /** Forgets the key. */
  close(): void
}

/** `nonce`: offset of 12 bytes of scratch. Throws what the provider throws; wipes the key material in any case. */
export function createKeySlot(
  config: KeyConfig,
  provider: AeadProvider,
  memory: PacketMemory,
  nonce: number,
  now: Millis,
  listener: KeyListener,
): KeySlot {
  try {
    return config.format === 'epoch'
      ? new EpochSlot(config, provider, memory, nonce, now, listener)
      : new ClassicSlot(config, provider, memory, nonce, now)
  } finally {
    wipe(config)
  }
}

/** Overwrites the key material. */
export function wipe(config: KeyConfig): void {
  config.encrypt.cipherKey.fill(0)
  config.decrypt.cipherKey.fill(0)
}
