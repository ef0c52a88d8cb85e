/**
 * One Engine on its own, for tests of single packets: what goes in is given as bytes, and everything that comes out is
 * kept. Networks of them are host.ts's.
 */
import { Endpoint } from '../../src/driver/core/address.ts'
import { Engine, type PeerSnapshot } from '../../src/driver/core/engine.ts'
import type { KeyCipher, KeyConfig } from '../../src/driver/core/key-slot.ts'
import type { Peer, PeerConfig } from '../../src/driver/core/peer.ts'
import type { RouteLookup } from '../../src/driver/core/peer-table.ts'
import type { DataKey } from '../../src/wire/data.ts'
import { createNodeAeads } from './aead.ts'
import { createMemory } from './memory.ts'
import { VNET_BYTES } from './packets.ts'

const AREA_BYTES = 1 << 17

/** Something sent: to one peer in one call. */
export interface Sent {
  peer: Peer
  segment: number
  packets: number
  bytes: Uint8Array
}

export const UP: DataKey = {
  cipher: 'aes-gcm',
  key: Uint8Array.from({ length: 32 }, (_, i) => i),
  nonceTail: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
}
export const DOWN: DataKey = {
  cipher: 'aes-gcm',
  key: Uint8Array.from({ length: 32 }, (_, i) => 100 + i),
  nonceTail: Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1),
}

/** A key whose packets from the peer are sealed with `UP`, and to it with `DOWN`. */
export function keyConfig(
  keyId: number,
  fields: { firstPacketId?: number; cipher?: KeyCipher } = {},
): KeyConfig {
  return {
    keyId,
    cipher: 'aes-256-gcm',
    encrypt: { cipherKey: Uint8Array.from(DOWN.key), nonceTail: DOWN.nonceTail },
    decrypt: { cipherKey: Uint8Array.from(UP.key), nonceTail: UP.nonceTail },
    ...fields,
  }
}

/** A UDP peer at 192.0.2.ID, port 1000, with the VPN addresses 10.8.0.ID and fd00::ID, but for `fields`. */
export function peerConfig(id: number, fields: Partial<PeerConfig> = {}): PeerConfig {
  return {
    handle: 100 + id,
    id,
    txId: 200 + id,
    transport: 1,
    stream: false,
    remote: { address: `192.0.2.${id}`, port: 1000, scope: 0 },
    vpnIpv4: `10.8.0.${id}`,
    vpnIpv6: `fd00::${id}`,
    keepaliveRule: 'together',
    keepaliveInterval: 0,
    keepaliveTimeout: 0,
    ...fields,
  }
}

/** Where packets of `peerConfig(id)` come from. */
export const homeOf = (id: number) => Endpoint.of(`192.0.2.${id}`, 1000)

const OURS = Endpoint.of('203.0.113.1', 0)

export class Rig {
  readonly engine: Engine
  /** Pieces written to the device, virtio_net_hdr included. */
  readonly delivered: Uint8Array[] = []
  readonly sent: Sent[] = []
  readonly events: string[] = []
  /** Whether the device takes what is written to it. */
  takes = true
  now = 1_000_000
  /** Ciphers that hold a key. */
  ciphers = 0
  readonly #u8: Uint8Array
  readonly #area: number

  constructor(options: { single?: boolean; routes?: RouteLookup } = {}) {
    const memory = createMemory(1 << 20)
    this.#u8 = memory.u8
    this.#area = memory.area(AREA_BYTES, 16)
    const provider = createNodeAeads(memory)
    this.engine = new Engine({
      memory,
      provider: {
        name: provider.name,
        create: (...of) => {
          const aead = provider.create(...of)
          this.ciphers++
          const close = () => {
            this.ciphers--
            aead.close()
          }
          return { ...aead, close }
        },
      },
      routes: options.routes ?? (() => undefined),
      worker: 0,
      single: options.single ?? false,
      seed: 1,
      glueUdp: true,
      sink: {
        transmit: (outbox) => {
          for (let i = 0; i < outbox.count; i++) {
            const start = outbox.offset[i]!
            this.sent.push({
              peer: outbox.peer[i]!,
              segment: outbox.segment[i]!,
              packets: outbox.packets[i]!,
              bytes: memory.u8.slice(start, start + outbox.length[i]!),
            })
          }
        },
        deliver: (offset, length) => {
          this.delivered.push(memory.u8.slice(offset, offset + length))
          return this.takes
        },
        expired: (peer) => this.events.push(`expired ${peer.id}`),
        floated: (peer) =>
          this.events.push(`floated ${peer.id} to ${peer.remote.address} ${peer.remote.port}`),
        handOverPiece: () => false,
        handOverDatagram: () => false,
        relocated: () => undefined,
        inside: (peer, message) => {
          this.events.push(`${peer.id} says ${Buffer.from(message).toString('hex')}`)
        },
        keyExhausted: (peer, keyId) => this.events.push(`exhausted ${peer.id} key ${keyId}`),
        keyAgeing: (peer, keyId) => this.events.push(`ageing ${peer.id} key ${keyId}`),
        epochPulled: (peer, keyId, epoch) =>
          this.events.push(`pulled ${peer.id} key ${keyId} to epoch ${epoch}`),
        keyHeard: (peer, keyId) => this.events.push(`heard ${peer.id} with key ${keyId}`),
      },
    })
  }

  /** A datagram arrives, and what it makes is delivered. */
  receive(bytes: Uint8Array, from: Endpoint, to = OURS): void {
    this.receiveAll([bytes], from, to)
  }

  /** Datagrams arrive together. */
  receiveAll(datagrams: Uint8Array[], from: Endpoint, to = OURS): void {
    for (const bytes of datagrams) {
      this.engine.fromLink(this.put(bytes), bytes.length, from, to, this.now)
    }
    this.engine.flush()
  }

  /** A frame arrives over the stream of the peer with this handle. */
  receiveFrame(bytes: Uint8Array, handle: number): void {
    this.engine.fromStream(this.engine.peer(handle)!, this.put(bytes), bytes.length, this.now)
    this.engine.flush()
  }

  /** The device hands over a piece, virtio_net_hdr included, and what it makes is sent. */
  send(piece: Uint8Array): void {
    this.engine.fromDevice(this.put(piece), piece.length - VNET_BYTES, this.now)
    this.engine.transmit()
  }

  /** Puts bytes where the engine can work on them: their offset. */
  put(bytes: Uint8Array): number {
    this.#u8.set(bytes, this.#area)
    return this.#area
  }

  snapshot(id: number): PeerSnapshot {
    return this.engine.snapshot(100 + id, this.now)!
  }

  /** What happened to the outside since it was last asked; counters aside. */
  takeTraces(): { delivered: Uint8Array[]; sent: Sent[]; events: string[] } {
    return {
      delivered: this.delivered.splice(0),
      sent: this.sent.splice(0),
      events: this.events.splice(0),
    }
  }
}
