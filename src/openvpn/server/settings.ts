/**
 * What a server is told, whether by a configuration file or by a program: complete, nothing is left to be guessed. How files become this is
 * src/openvpn/config's.
 */

import type { Millis } from '../proto/reliable.ts'
import type { AddressRange } from './ip-pool.ts'

/** The server's own address in one family, and what clients get. */
export interface TunnelNetwork {
  readonly address: string
  /** Bits of the network that server and clients share. */
  readonly prefix: number
  readonly pool?: AddressRange | undefined
}

export interface Network {
  /** `10.2.0.0`, `fd02::` */
  readonly network: string
  readonly prefix: number
}

export interface ServerSettings {
  /** Name of the interface; a free one if absent. */
  readonly device?: string | undefined
  /** Threads of the user-space driver. */
  readonly workers?: number | undefined
  readonly v4?: TunnelNetwork | undefined
  readonly v6?: TunnelNetwork | undefined
  /** Whether the interface is given addresses; else a script does it. */
  readonly setsAddresses: boolean
  /** Packets that the interface holds back; undefined: as the system has it. */
  readonly queueLength: number | undefined
  readonly tunMtu: number
  /** Largest packet outside, in bytes, that TCP inside is made to fit; undefined: TCP is left alone. */
  readonly mssfix: number | undefined
  /** Options for every client, as pushed. Addresses, peer ids and keys are added by the server. */
  readonly push: readonly string[]
  /** Seconds; 0 for never. */
  readonly keepalive: { readonly interval: number; readonly timeout: number }
  /** Networks that the system is to route into the tunnel. */
  readonly routes: readonly (Network & { readonly metric?: number | undefined })[]
  /** Of those routes; the main one where undefined. */
  readonly routeTable: number | undefined
  readonly clientToClient: boolean

  /** Where IPv4 addresses must be that single clients are given by hand. */
  readonly addressConstraint: Network | undefined
  readonly maxClients: number
  readonly duplicateCn: boolean
  readonly maxRoutesPerClient: number
  /** New clients in that time; undefined: any number. */
  readonly connectFrequency: { readonly count: number; readonly per: Millis } | undefined
  /** Answers to first packets. */
  readonly connectFrequencyInitial: { readonly count: number; readonly per: Millis }

  /** Names, most wanted first. */
  readonly dataCiphers: readonly string[]
  /** For clients that cannot negotiate. */
  readonly dataCiphersFallback: string | undefined

  /** Clients whose keys cannot come from TLS are refused. */
  readonly requireTlsEkm: boolean
  /** Whether users and passwords are asked for. */
  readonly passwords: 'require' | 'optional' | 'none'
  readonly usernameAsCommonName: boolean

  /** Clients that move fewer bytes in that time go. */
  readonly inactive: { readonly timeout: Millis; readonly bytes: number } | undefined
  /** Clients go after that time. */
  readonly sessionTimeout: Millis | undefined

  readonly renegotiate: {
    readonly after: Millis
    /** Random between this and `after`, so that not all clients come at once. */
    readonly atLeast: Millis
    /** 0: no limit. */
    readonly bytes: number
    readonly packets: number
  }
  readonly handWindow: Millis
  readonly tranWindow: Millis
  readonly tlsTimeout: Millis
  readonly maxPacketBytes: number
  /** 0: clients are told nothing at the end; 1: to connect again; 2: to try the next server. */
  readonly explicitExitNotify: 0 | 1 | 2
}
