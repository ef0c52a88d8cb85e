/**
 * Owns the rules of epoch keys: how the keys of one direction follow from one secret, when a sender takes up the next
 * epoch, and which epochs a receiver opens. Layout and nonce are data.ts's, the ciphers the caller's.
 *
 *     E1 --datakey upd--> E2 --datakey upd--> E3 ...      secrets, 32 bytes whatever the cipher; epochs 1 to 65535
 *     |                   |                   |
 *     data_key, data_iv   data_key, data_iv   ...         key of the cipher, IV 12
 *
 * Each direction has its own chain and moves on by itself; an end that hears a newer epoch sends with that, too. A
 * receiver has the current epoch, the one before (retiring), and those up to 16 ahead (future):
 *
 *     ... | retiring | skipped ones, forgotten | current | future 1 .. 16 | not opened
 *
 * Source: data-channel reference, 4 and 6.
 */
import { createHmac } from 'node:crypto'
import { ReplayWindow } from './packet-id.ts'

const EPOCH_SECRET_BYTES = 32
export const LAST_EPOCH = 0xffff
/** Last counter of an epoch: 48 bits. */
export const LAST_COUNTER = 2 ** 48 - 1
/** When the sender gets here, another key should be negotiated. */
export const RENEGOTIATION_EPOCH = 0xf000
/** Epochs ahead of the current one that a receiver opens: what OpenVPN 2.7.0 to 2.7.6 does; later ones 4. */
export const FUTURE_EPOCHS = 16
/** Blocks of 16 bytes and packets that AES-GCM may handle with one key. ChaCha20-Poly1305 has no limit. */
export const GCM_USAGE_LIMIT = 2 ** 36 - 1
/** Forged packets per key and epoch after which the sender moves on, so that the peer does; and at which none is opened any more. */
export const FORGED_MOVE = 2 ** 35
export const FORGED_STOP = 2 ** 36

const IV_BYTES = 12
const HASH_BYTES = 32

/** HKDF-Expand with SHA-256 (RFC 5869, 2.3); there is no HKDF-Extract before it. `length`: at most 255 * 32. */
export function hkdfExpand(secret: Uint8Array, info: Uint8Array, length: number): Uint8Array {
  const output = new Uint8Array(length)
  let block: Uint8Array = new Uint8Array(0)
  for (let at = 0, counter = 1; at < length; at += HASH_BYTES, counter++) {
    const hmac = createHmac('sha256', secret)
    block = hmac.update(block).update(info).update(Uint8Array.of(counter)).digest()
    output.set(block.subarray(0, length - at), at)
  }
  block.fill(0)
  return output
}

/** TLS 1.3's HKDF-Expand-Label (RFC 8446, 7.1) with an own prefix and no context. */
export function expandLabel(secret: Uint8Array, label: string, length: number): Uint8Array {
  const name = Buffer.from(`ovpn ${label}`)
  const info = Buffer.concat([
    Uint8Array.of(length >> 8, length & 0xff, name.length),
    name,
    Uint8Array.of(0),
  ])
  return hkdfExpand(secret, info, length)
}

/** Material of one epoch in one direction, for the receiver of it to wipe. */
export interface EpochKey {
  key: Uint8Array
  /** 12 bytes. */
  iv: Uint8Array
}

/** The secrets of one direction, one at a time: those before are wiped. */
export class EpochChain {
  #epoch: number
  #secret: Uint8Array
  readonly #keyBytes: number

  /** `secret` is copied; it is that of `epoch`, 1 unless a test wants to be near the end. RangeError: its length is wrong. */
  constructor(secret: Uint8Array, keyBytes: number, epoch = 1) {
    if (secret.length !== EPOCH_SECRET_BYTES) {
      throw new RangeError(`an epoch secret has ${EPOCH_SECRET_BYTES} bytes, not ${secret.length}`)
    }
    this.#secret = Uint8Array.from(secret)
    this.#keyBytes = keyBytes
    this.#epoch = epoch
  }

  get epoch(): number {
    return this.#epoch
  }

  key(): EpochKey {
    return {
      key: expandLabel(this.#secret, 'data_key', this.#keyBytes),
      iv: expandLabel(this.#secret, 'data_iv', IV_BYTES),
    }
  }

  advance(): void {
    if (this.#epoch === LAST_EPOCH) throw new RangeError('there is no epoch after the last')
    const next = expandLabel(this.#secret, 'datakey upd', EPOCH_SECRET_BYTES)
    this.#secret.fill(0)
    this.#secret = next
    this.#epoch++
  }

  close(): void {
    this.#secret.fill(0)
  }
}

/** What one packet of `length` bytes takes off a usage limit: itself, and its blocks of 16 bytes. */
export function usageOf(length: number): number {
  return 1 + ((length + 15) >>> 4)
}

/**
 * Numbers the packets of one direction, and says when the next epoch is to be taken up:
 *
 *     if (sender.due) use(sender.move())
 *     counter = sender.next(length)
 */
export class EpochSender {
  readonly #chain: EpochChain
  readonly #limit: number
  #counter: number
  /** What is left to use in this epoch. Below 0: it is over, for one reason or another. */
  #left: number
  #pulledTo = 0

  /** `limit`: blocks and packets per epoch. `counter`: the last one used. */
  constructor(chain: EpochChain, limit: number, counter = 0) {
    this.#chain = chain
    this.#limit = limit
    this.#counter = counter
    this.#left = this.#allowance() - counter
  }

  get epoch(): number {
    return this.#chain.epoch
  }

  /** Last used in this epoch; 0 before the first. */
  get counter(): number {
    return this.#counter
  }

  /** Whether `move` has to come before the next packet. */
  get due(): boolean {
    return this.#left < 0
  }

  /** Takes up the next epoch, or the one pulled to: its key. Undefined: there is none, the next nonce would repeat. */
  move(): EpochKey | undefined {
    const chain = this.#chain
    if (chain.epoch === LAST_EPOCH) return undefined
    do chain.advance()
    while (chain.epoch < this.#pulledTo)
    this.#counter = 0
    this.#left = this.#allowance()
    return chain.key()
  }

  /** The counter of the next packet, used up by this; only while not `due`. `length`: of its plaintext. */
  next(length: number): number {
    const counter = ++this.#counter
    this.#left = counter === LAST_COUNTER ? -1 : this.#left - usageOf(length)
    return counter
  }

  /** Makes `epoch` the least one to send with; false if it is so already, or there is no such epoch. */
  pull(epoch: number): boolean {
    if (epoch <= Math.max(this.epoch, this.#pulledTo) || epoch > LAST_EPOCH) return false
    this.#pulledTo = epoch
    this.#left = -1
    return true
  }

  /** In the last epoch only the counter ends. */
  #allowance(): number {
    if (this.#counter === LAST_COUNTER) return -1
    return this.#chain.epoch === LAST_EPOCH ? Number.POSITIVE_INFINITY : this.#limit
  }
}

/**
 * The keys of one direction that packets may have been sealed with, and their replay windows. Keys of the future are
 * made when a packet first names them, each once: packets that nobody has authenticated cost 16 of them per
 * authenticated move, whatever they name.
 */
export class EpochReceiver<Key extends { close(): void }> {
  readonly #chain: EpochChain
  readonly #make: (material: EpochKey, epoch: number) => Key
  #epoch: number
  #current: Key
  #window = new ReplayWindow()
  /** 0: none. */
  #retiringEpoch = 0
  #retiring: Key | undefined
  #retiringWindow = this.#window
  /** Of the epochs behind the current one; the chain stands at the last of them. */
  #future: Key[] = []

  /** `current`: the key of the epoch that `chain` stands at. `make` turns material into a key, and wipes it. */
  constructor(chain: EpochChain, current: Key, make: (material: EpochKey, epoch: number) => Key) {
    this.#chain = chain
    this.#make = make
    this.#epoch = chain.epoch
    this.#current = current
  }

  /** The current epoch. */
  get epoch(): number {
    return this.#epoch
  }

  /** The key to open a packet of `epoch` (16 bits) with, if there is one. Believes nothing. */
  keyFor(epoch: number): Key | undefined {
    if (epoch === this.#epoch) return this.#current
    if (epoch === this.#retiringEpoch) return this.#retiring
    const ahead = epoch - this.#epoch
    if (ahead < 0 || ahead > FUTURE_EPOCHS) return undefined
    while (this.#future.length < ahead) {
      this.#chain.advance()
      this.#future.push(this.#make(this.#chain.key(), this.#chain.epoch))
    }
    return this.#future[ahead - 1]
  }

  /**
   * Whether the packet is new, which then is known. Ask only when it has proved authentic with the key of its epoch:
   * that a future epoch has begun is learnt by this. `counter`: 48 bits.
   */
  accept(epoch: number, counter: number, now: number): boolean {
    if (epoch === this.#epoch) return this.#window.accept(counter, now)
    if (epoch < this.#epoch) {
      return epoch === this.#retiringEpoch && this.#retiringWindow.accept(counter, now)
    }
    if (counter === 0 || epoch - this.#epoch > this.#future.length) return false
    this.#advance(epoch)
    return this.#window.accept(counter, now)
  }

  close(): void {
    for (const key of this.#future) key.close()
    this.#retiring?.close()
    this.#current.close()
    this.#chain.close()
  }

  #advance(epoch: number): void {
    this.#retiring?.close()
    this.#retiring = this.#current
    this.#retiringEpoch = this.#epoch
    this.#retiringWindow = this.#window
    const passed = this.#future.splice(0, epoch - this.#epoch)
    this.#current = passed.pop()!
    for (const key of passed) key.close()
    this.#epoch = epoch
    this.#window = new ReplayWindow()
  }
}
