/**
 * What the management interface acts on and tells of: a server or client, as it sees one. Who is managed gives these; commands that
 * need a part that is absent are refused.
 */
import type { ServerStatus, StatusVersion } from './status.ts'

/** `>STATE` of the process. */
export interface ProcessState {
  readonly date: Date
  readonly name: string
  readonly detail?: string
  readonly localV4?: string
  readonly remoteAddress?: string
  readonly remotePort?: number
  readonly localAddress?: string
  readonly localPort?: number
  readonly localV6?: string
}

export const AUTH_RETRY = ['none', 'nointeract', 'interact'] as const
export type AuthRetry = (typeof AUTH_RETRY)[number]

/** What the commands act on. Commands that need a part that is absent are refused. */
export interface ManagementTarget {
  /** `OpenVPN …`-like title of the program. */
  readonly title: string
  readonly pid: number
  status(): Promise<ServerStatus | undefined>
  /** What is told where no version is named (`status-version`). */
  readonly statusVersion?: StatusVersion
  /** Of a client: its counters as name and value. */
  statistics?(): Promise<readonly (readonly [name: string, value: number | string])[]>
  load(): Promise<{ clients: number; bytesIn: number; bytesOut: number }>
  /** Bytes of each client by its id; of a client program, of id undefined. */
  bytes(): Promise<readonly { id?: number; bytesIn: number; bytesOut: number }[]>
  signal(name: 'SIGHUP' | 'SIGTERM' | 'SIGUSR1' | 'SIGUSR2'): void
  verbosity: number
  /** Messages of one kind in a row that are told. */
  mute: number
  /** Of a client: what a refused password leads to. */
  authRetry?: AuthRetry
  readonly clients?: ManagedClients
  readonly questions?: ManagedQuestions
}

/** A server's clients. Each call says whether there was such a client. */
export interface ManagedClients {
  /** Ends connections of a common name or of `[protocol:]address:port`; how many. */
  kill(which: string): number
  authorize(id: number, keyId: number, lines: readonly string[]): boolean
  deny(id: number, keyId: number, reason: string, clientReason: string | undefined): boolean
  pend(id: number, keyId: number, extra: string, timeoutSeconds: number): boolean
  killOne(id: number, message: string): boolean
  /** An update of pushed options, to one or (undefined) to all; how many got it. Throws an Error that says what is wrong with it. */
  update(id: number | undefined, options: string): number
}

/** A client's questions to its user. Each call says whether that had been asked. */
export interface ManagedQuestions {
  answer(kind: 'username' | 'password' | 'needok' | 'needstr', type: string, text: string): boolean
  remote(choice: 'ACCEPT' | 'SKIP' | { host: string; port: number }): boolean
  proxy?(choice: ProxyChoice): boolean
  remotes(): readonly { host: string; port: number; protocol: string }[]
  challengeResponse(base64: string): boolean
  forgetPasswords(): void
}

export type ProxyChoice =
  | { readonly kind: 'none' }
  /** `clear`: whether a password may be sent to it as it is. */
  | { readonly kind: 'http'; readonly host: string; readonly port: number; readonly clear: boolean }
  | { readonly kind: 'socks'; readonly host: string; readonly port: number }
