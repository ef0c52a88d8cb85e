/**
 * Who may come and what they get: asked of the program that embeds the server, of scripts, or of the management interface. All may take
 * their time: nobody else waits for it.
 */
import type { PushChange } from '../config/client-settings.ts'
import type { AuthFailure } from '../proto/messages.ts'
import type { Millis } from '../proto/reliable.ts'
import type { PeerCertificates } from '../proto/tls-engine.ts'
import type { Endpoint } from '../transport.ts'
import type { Lease } from './ip-pool.ts'
import type { Network } from './settings.ts'

export type { Network }

/** One who connects, as far as is known. */
export interface ClientIdentity {
  /** Counts from 0; never used again. */
  readonly id: number
  readonly commonName: string
  /** Empty without one. */
  readonly username: string
  readonly certificates: PeerCertificates
  readonly protocol: 'udp' | 'tcp'
  /** Where it is now. */
  readonly remote: Endpoint
  /** IV_ and UV_ values that it tells of itself: nobody has checked them. */
  readonly peerInfo: ReadonlyMap<string, string>
  /** Type and data from a tls-crypt-v2 key. */
  readonly metadata?: Uint8Array | undefined
}

export interface AuthRequest {
  readonly client: ClientIdentity
  readonly keyId: number
  readonly username: string
  readonly password: string
  /** At the renewal of keys of a client that is connected. */
  readonly again: boolean
  /** Ends when the client is gone: the answer matters no more. */
  readonly signal: AbortSignal
  /** Has the client asked for more, in the middle: a challenge or a page to visit; its answers come as `responses`. */
  pend(method: string, timeoutSeconds: number): void
  /** As the user typed them. */
  readonly responses: AsyncIterable<string>
}

export type AuthDecision =
  | {
      readonly allow: true
      readonly settings?: ClientSettings
      /** Another than the certificate's. */
      readonly commonName?: string
      /** For the client to show in place of its password from now on, and the user name to go with it. */
      readonly token?: { readonly token: string; readonly username?: string }
    }
  | { readonly allow: false; readonly failure: AuthFailure; readonly why?: string }

/** What one client gets that others do not. */
export interface ClientSettings {
  readonly v4?: string | undefined
  readonly v6?: string | undefined
  /** Networks behind it. */
  readonly routes?: readonly Network[] | undefined
  /** What becomes of the options for every client, in order. */
  readonly pushChanges?: readonly PushChange[] | undefined
  /** In place of the name that it gave. */
  readonly username?: string | undefined
  /** For a client that cannot negotiate. */
  readonly dataCiphersFallback?: string | undefined
  /** Keepalive of this client, where it is another. */
  readonly ping?: Millis | undefined
  readonly pingRestart?: Millis | undefined
  /** It goes when it moves fewer bytes in that time. */
  readonly inactive?: { readonly timeout: Millis; readonly bytes: number } | undefined
  /** It goes after that time. */
  readonly sessionTimeout?: Millis | undefined
}

/** A client with its addresses. */
export interface ConnectedClient extends ClientIdentity {
  readonly peerId: number
  readonly v4?: string | undefined
  readonly v6?: string | undefined
  readonly routes: readonly Network[]
  readonly cipher: string
  readonly since: Date
}

export interface Farewell {
  readonly reason: string
  readonly bytesReceived: number
  readonly bytesSent: number
  readonly seconds: number
}

/** Addresses for a client that is being let in: see `admit`. */
export type Reserve = (settings: ClientSettings) => Lease | undefined

export interface ServerPolicy {
  /** Why a tls-crypt-v2 key with this metadata (type and data) will not do; asked before TLS begins. Undefined: it will. */
  refusesKey?(metadata: Uint8Array): Promise<string | undefined>
  /** Why certificates that are good otherwise will not do; asked at each exchange of keys. Undefined: they will. */
  refusesCertificates?(client: ClientIdentity, signal: AbortSignal): Promise<string | undefined>
  /** Whether credentials are good; only asked where there are some, or some are required. */
  authenticate?(request: AuthRequest): Promise<AuthDecision>
  /** Ask it of clients without credentials, too. */
  readonly decidesAll?: boolean
  /**
   * What an authenticated client gets beside what `authenticate` said; `commonName` and `token` are not looked at.
   *
   * @param reserve
   * Holds the addresses that it will have with these settings, and tells them; undefined where none are free. The last word on
   * them is the settings that are answered.
   */
  admit?(client: ClientIdentity, signal: AbortSignal, reserve: Reserve): Promise<AuthDecision>
  connected?(client: ConnectedClient): void
  rekeyed?(client: ConnectedClient, keyId: number): void
  floated?(client: ConnectedClient): void
  disconnected?(client: ConnectedClient, farewell: Farewell): void
}
