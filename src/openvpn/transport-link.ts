/** Where one client's control packets go: a datagram socket and an address that may change, or a stream that a driver may have. */
import type { DataChannel, DataPeer } from './data-channel.ts'
import type { DatagramTransport, Path, StreamTransport } from './transport.ts'

export type Transport = DatagramTransport | StreamTransport

export class TransportLink {
  readonly transport: Transport
  #path: Path
  /** Packets of a stream that is being handed over wait. */
  #waiting: Uint8Array[] | undefined
  #peer: DataPeer | undefined

  constructor(transport: Transport, path: Path) {
    this.transport = transport
    this.#path = path
  }

  get path(): Path {
    return this.#path
  }

  /** The client is heard from elsewhere. Its own address that we answer from stays. */
  move(remote: Path['remote']): void {
    this.#path = { ...this.#path, remote }
  }

  send(packet: Uint8Array): void {
    if (this.#waiting !== undefined) this.#waiting.push(packet)
    else if (this.#peer !== undefined) this.#peer.sendPacket(packet).catch(() => {})
    else if (this.transport.protocol === 'udp') this.transport.send(packet, this.#path)
    else this.transport.send(packet)
  }

  /** Gives a stream to the driver with `join`, which adds the peer; a datagram socket is only shared. */
  async join(channel: DataChannel, join: () => Promise<DataPeer>): Promise<DataPeer> {
    const { transport } = this
    if (transport.protocol === 'udp') return join()
    this.#waiting = []
    try {
      await transport.handOver(!channel.readsStreams)
      const peer = await join()
      if (channel.readsStreams) this.#peer = peer
      return peer
    } finally {
      const waiting = this.#waiting
      this.#waiting = undefined
      for (const packet of waiting) this.send(packet)
    }
  }

  /** A datagram socket is everybody's. */
  close(): void {
    if (this.transport.protocol === 'tcp') this.transport.close()
  }
}
