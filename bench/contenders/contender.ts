/** What a contender is: a tunnel (or none) between the two ends of the topology, brought up and taken down as often as asked. */
import type { Topology } from '../topology.ts'

export type Cipher = 'aes-256-gcm' | 'chacha20-poly1305'
export type Transport = 'udp' | 'tcp'

/** How a contender is set up for a run. */
export interface TunnelOptions {
  transport: Transport
  /** Undefined where there is nothing to choose. */
  cipher: Cipher | undefined
  workers: number | undefined
}

/** A tunnel that carries packets. */
export interface Tunnel {
  /** Addresses inside the tunnel. */
  near: string
  far: string
  /** Processes that carry the packets, at both ends. */
  processes: number[]
}

export interface Contender {
  readonly name: string
  /** Ciphers that it is measured with; empty where there is nothing to choose. */
  readonly ciphers: readonly Cipher[]
  readonly transports: readonly Transport[]
  /** Numbers of workers that it is measured with; empty where there is nothing to choose. */
  readonly workers: readonly number[]
  /** The only subjects it is measured with; all where it is left out. */
  readonly subjects?: readonly string[]
  /** Name of the contender that it is the same as, but for one thing: what it is compared with. */
  readonly against?: string
  /** Why it, or one set-up of it, cannot take part; undefined if it can. May fetch what it needs. */
  unavailable(options: TunnelOptions): Promise<string | undefined>
  /** Only asked of what is available. */
  version(): Promise<string>
  up(topology: Topology, options: TunnelOptions): Promise<Tunnel>
  /** Undoes `up`, or what there is of it. */
  down(): Promise<void>
}

/**
 * MTU of every tunnel: what WireGuard takes by default, and what all contenders' packets have room for in 1,500 bytes. So each
 * carries the same packets, and none is cut in two on the wire.
 */
export const TUNNEL_MTU = 1420

/** Addresses inside the tunnels. */
export const NEAR_VPN = '10.91.0.1'
export const FAR_VPN = '10.91.0.2'
/** Port of the tunnels' own packets, at both ends. */
export const TUNNEL_PORT = 1194
