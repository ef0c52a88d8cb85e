/**
 * Owns what a session knows of TLS: types only. tls.ts beside this folder has it from node:tls; tests of the session have
 * one that is faster.
 *
 *     messages of the control channel --> receive --> TLS --> events.plaintext
 *     events.ciphertext <-- TLS <-- write
 */

/** What the other end showed of itself. */
export interface PeerCertificates {
  /** DER, the leaf first; empty where none was given. */
  chain: readonly Uint8Array[]
  /** Whether our rules accept it. */
  verified: boolean
  /** Why they do not. */
  problem?: string
}

/** One TLS connection, of one key state. */
export interface TlsEngine {
  /** Bytes of the other end's TLS, cut wherever the control channel cut them. Copied or used up before it returns. */
  receive(ciphertext: Uint8Array): void
  /** Sends `plaintext` as one record; only after `established`. */
  write(plaintext: Uint8Array): void
  /** RFC 5705 and RFC 8446, 7.5, without a context; only after `established`. */
  exportKeyingMaterial(label: string, length: number): Uint8Array
  /** Ends it: no event comes after. May be called at any time, and again. */
  close(): void
}

/** What TLS brings: at any time later, never from within a call of the engine's. */
export interface TlsEvents {
  ciphertext(bytes: Uint8Array): void
  established(peer: PeerCertificates): void
  /** One record or less. */
  plaintext(bytes: Uint8Array): void
  /** For good. `error.message` is meant for people. */
  failed(error: Error): void
}

export type TlsFactory = (role: 'server' | 'client', events: TlsEvents) => TlsEngine
