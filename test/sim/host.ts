/**
 * A machine in a simulated network: an Engine between a wire and a device that is only pretended. What the device gets
 * is cut into packets again and kept or handed on; keys and peers are given to `engine` by the test, which plays the
 * control channel.
 */
import { Endpoint } from '../../src/driver/core/address.ts'
import { Engine } from '../../src/driver/core/engine.ts'
import type { Outbox } from '../../src/driver/core/outbox.ts'
import type { Peer } from '../../src/driver/core/peer.ts'
import type { RouteLookup } from '../../src/driver/core/peer-table.ts'
import type { Random } from '../random.ts'
import { createNodeAeads } from './aead.ts'
import type { Clock } from './clock.ts'
import { createMemory } from './memory.ts'
import { packetsOf, VNET_BYTES } from './packets.ts'
import type { Datagram, Wire } from './wire.ts'

const AREA_BYTES = 1 << 17

interface HostEvents {
  /** The device got a packet. */
  delivered(bytes: Uint8Array): void
  /** The rest is told to the control channel. */
  expired?(peer: Peer): void
  floated?(peer: Peer): void
  keyExhausted?(peer: Peer, keyId: number): void
  keyAgeing?(peer: Peer, keyId: number): void
}

export class Host {
  readonly engine: Engine
  #addresses: Endpoint[]
  readonly #clock: Clock
  readonly #wire: Wire
  readonly #u8: Uint8Array
  readonly #area: number
  #flushing = false
  #wakeAt = Infinity
  #running = true

  /** `addresses`, `port`: where its socket is bound; one of each family at most. */
  constructor(options: {
    clock: Clock
    wire: Wire
    random: Random
    addresses: string[]
    port: number
    single: boolean
    routes?: RouteLookup
    events: HostEvents
  }) {
    const { events } = options
    const memory = createMemory(1 << 20)
    this.#u8 = memory.u8
    this.#area = memory.area(AREA_BYTES, 16)
    this.#clock = options.clock
    this.#wire = options.wire
    this.#addresses = options.addresses.map((address) => Endpoint.of(address, options.port))
    this.engine = new Engine({
      memory,
      provider: createNodeAeads(memory),
      routes: options.routes ?? (() => undefined),
      worker: 0,
      single: options.single,
      seed: options.random.below(2 ** 32),
      glueUdp: options.random.below(2) === 0,
      sink: {
        transmit: (outbox) => this.#transmit(outbox),
        deliver: (offset, length) => {
          const piece = memory.u8.slice(offset, offset + length)
          for (const bytes of packetsOf(piece)) events.delivered(bytes)
          return true
        },
        expired: (peer) => events.expired?.(peer),
        floated: (peer) => events.floated?.(peer),
        // There is one worker: nothing comes to a wrong one.
        handOverPiece: () => false,
        handOverDatagram: () => false,
        relocated: () => undefined,
        inside: () => undefined,
        keyExhausted: (peer, keyId) => events.keyExhausted?.(peer, keyId),
        keyAgeing: (peer, keyId) => events.keyAgeing?.(peer, keyId),
        // One engine both sends and receives.
        epochPulled: () => {},
        keyHeard: () => {},
      },
    })
    this.#attach()
  }

  /** The device hands over a piece, virtio_net_hdr included. */
  send(piece: Uint8Array): void {
    if (!this.#running) return
    this.#u8.set(piece, this.#area)
    this.engine.fromDevice(this.#area, piece.length - VNET_BYTES, this.#clock.now)
    this.engine.transmit()
    this.wake()
  }

  /** Goes to another address: its socket is bound there from now on, and nowhere else. */
  moveTo(address: string, port: number): void {
    this.#detach()
    this.#addresses = [Endpoint.of(address, port)]
    this.#attach()
  }

  /** Stops for good, as a machine does whose power fails. */
  crash(): void {
    this.#running = false
    this.#detach()
  }

  /** To be called when a peer was added or changed: its timers may want to run earlier. */
  wake(): void {
    const at = this.engine.deadline()
    if (at >= this.#wakeAt) return
    this.#wakeAt = at
    this.#clock.at(at, () => {
      if (!this.#running || this.#wakeAt !== at) return // an earlier one took its place
      this.#wakeAt = Infinity
      this.engine.onDeadline(this.#clock.now)
      this.wake()
    })
  }

  #attach(): void {
    for (const at of this.#addresses) {
      this.#wire.attach(at, (datagram) => this.#receive(datagram))
    }
  }

  #detach(): void {
    for (const at of this.#addresses) this.#wire.detach(at)
  }

  #receive({ from, to, bytes }: Datagram): void {
    this.#u8.set(bytes, this.#area)
    this.engine.fromLink(this.#area, bytes.length, from, to, this.#clock.now)
    this.wake()
    if (this.#flushing) return
    // What arrives at one instant is one batch.
    this.#flushing = true
    this.#clock.after(0, () => {
      this.#flushing = false
      this.engine.flush()
    })
  }

  #transmit(outbox: Outbox): void {
    for (let i = 0; i < outbox.count; i++) {
      const { remote } = outbox.peer[i]!
      const from = this.#addresses.find((at) => at.isV4 === remote.isV4)
      if (from === undefined) continue // no route
      const end = outbox.offset[i]! + outbox.length[i]!
      const segment = outbox.segment[i]!
      for (let at = outbox.offset[i]!; at < end; at += segment) {
        this.#wire.send(from, remote, this.#u8.subarray(at, Math.min(end, at + segment)))
      }
    }
  }
}
