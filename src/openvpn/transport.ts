/**
 * The outer side as the control plane sees it: sockets that carry whole packets, passed in by whoever has real ones
 * (src/runtime). Which packets are good, and who is behind them, is the sessions' business.
 */

/** An address and port; `scope` is the interface's index where the address is link-local IPv6, else 0. */
export interface Endpoint {
  readonly address: string
  readonly port: number
  readonly scope: number
}

/** The way a datagram came, and the way an answer goes. */
export interface Path {
  readonly remote: Endpoint
  /** Our address that the peer speaks to, where the socket tells (`multihome`): answers leave from it. */
  readonly local?: string
}

/** A bound UDP socket. The driver joins it by its descriptor and takes the data packets of the peers it knows. */
export interface DatagramTransport {
  readonly protocol: 'udp'
  readonly fd: number
  readonly local: Endpoint
  onPacket(listener: (packet: Uint8Array, path: Path) => void): void
  /** Never throws: what the system refuses is lost, as on the network. */
  send(packet: Uint8Array, path: Path): void
  close(): void
}

export interface StreamEvents {
  packet(packet: Uint8Array): void
  /** The last that is told: the other end has closed (no error), or the stream failed. Not told after `close`. */
  ended(error?: Error): void
}

/** One TCP connection; packets in it have their length before them. */
export interface StreamTransport {
  readonly protocol: 'tcp'
  readonly fd: number
  readonly path: Path
  /** Begins to read. */
  start(events: StreamEvents): void
  /** Queues up to a limit; beyond it the stream fails, for its other end takes nothing. */
  send(packet: Uint8Array): void
  /**
   * Resolves when all that was queued has been written and nothing is being read, at the boundary of a packet: now the
   * stream may be handed to a driver. `reads`: the driver leaves control packets to be read from and written to the
   * socket here, as the kernel's does; otherwise this end is only there to be closed.
   */
  handOver(reads: boolean): Promise<void>
  close(): void
}

/** A listening TCP socket. */
export interface StreamListener {
  readonly local: Endpoint
  onStream(listener: (stream: StreamTransport) => void): void
  close(): void
}
