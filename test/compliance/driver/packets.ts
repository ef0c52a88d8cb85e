/** Packets of the suite: inner ones, keys, and the data packets that a remote peer makes of them by hand. */
import type { KeyConf, Slot } from '../../../src/uapi/types.ts'
import { type DataCipher, type DataKey, openDataV2, sealDataV2 } from '../../../src/wire/data.ts'
import { addWords, fold } from '../../../src/wire/ip.ts'
import { hex, unhex } from './sockets.ts'

/** A protocol that no stack answers (RFC 3692). */
const EXPERIMENTAL = 253

const four = (address: string) => address.split('.').map(Number)

/** An IPv4 packet with a payload of `bytes` bytes. */
export function ipv4(source: string, destination: string, bytes = 8): Uint8Array {
  const packet = new Uint8Array(20 + bytes).fill(0x61, 20)
  const view = new DataView(packet.buffer)
  packet.set([0x45, 0])
  view.setUint16(2, packet.length)
  packet.set([64, EXPERIMENTAL], 8)
  packet.set(four(source), 12)
  packet.set(four(destination), 16)
  view.setUint16(10, ~fold(addWords(view, 0, 20, 0)) & 0xffff)
  return packet
}

/** An IPv6 packet with a payload of `bytes` bytes; addresses are 32 hex digits, spaces allowed. */
export function ipv6(source: string, destination: string, bytes = 8): Uint8Array {
  const packet = new Uint8Array(40 + bytes).fill(0x61, 40)
  const view = new DataView(packet.buffer)
  packet[0] = 0x60
  view.setUint16(4, bytes)
  packet.set([EXPERIMENTAL, 64], 6)
  packet.set(unhex(source), 8)
  packet.set(unhex(destination), 24)
  return packet
}

const filled = (first: number, bytes: number) =>
  Uint8Array.from({ length: bytes }, (_, i) => first + i)

/** What the driver sends with, and what it receives with, under a key id. */
const TX = 0x10
const RX = 0x60

/** Arguments of a `key-new`; each key id has keys of its own. */
export function keyconf(
  peerId: number,
  slot: Slot,
  keyId: number,
  cipherAlg: DataCipher = 'aes-gcm',
  bytes = 32,
): KeyConf {
  const direction = (first: number) => ({
    cipherKey: filled(first + keyId, bytes),
    nonceTail: filled(first + 2 * keyId, 8),
  })
  return { peerId, slot, keyId, cipherAlg, encryptDir: direction(TX), decryptDir: direction(RX) }
}

/** The other end of a peer: seals with what the driver receives with. */
export class Remote {
  readonly #peerId: number
  readonly #bytes: number
  packetId = 0

  /** `peerId` is what the driver knows it by. */
  constructor(peerId: number, bytes = 32) {
    this.#peerId = peerId
    this.#bytes = bytes
  }

  seal(
    plaintext: Uint8Array,
    { keyId = 0, packetId = ++this.packetId, peerId = this.#peerId } = {},
  ): Uint8Array {
    return sealDataV2(this.#key(RX, keyId), { keyId, peerId, packetId, plaintext })
  }

  /** What a packet from the driver says, for the transcript. */
  open(packet: Uint8Array): object | string {
    const opened = openDataV2(this.#key(TX, packet[0]! & 7), packet)
    return opened === undefined ? 'not authentic' : { ...opened, plaintext: hex(opened.plaintext) }
  }

  #key(first: number, keyId: number): DataKey {
    const { encryptDir } = keyconf(this.#peerId, 'primary', keyId, 'aes-gcm', this.#bytes)
    const shift = first - TX
    return {
      cipher: 'aes-gcm',
      key: encryptDir.cipherKey.map((byte) => byte + shift),
      nonceTail: encryptDir.nonceTail.map((byte) => byte + shift),
    }
  }
}

/** A packet with one bit turned over. */
export function tampered(packet: Uint8Array, at: number): Uint8Array {
  const copy = packet.slice()
  copy[at]! ^= 1
  return copy
}

/** Behind its length, as a stream carries it. */
export function framed(packet: Uint8Array): Uint8Array {
  const frame = new Uint8Array(2 + packet.length)
  new DataView(frame.buffer).setUint16(0, packet.length)
  frame.set(packet, 2)
  return frame
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts))
}
