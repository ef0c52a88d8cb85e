/** Reads the vector files beside it. What the fields mean stands in README.md here; each value carries its source. */
import { readFileSync } from 'node:fs'

/** One data packet with an AEAD cipher: bytes are lower-case hex. */
export interface DataAeadCase {
  name: string
  cipher: 'AES-128-GCM' | 'AES-192-GCM' | 'AES-256-GCM' | 'CHACHA20-POLY1305'
  direction: 'c2s' | 's2c'
  header: string
  packet_id: number
  plaintext: string
  key: string
  implicit_iv: string
  nonce: string
  aad: string
  tag: string
  ciphertext: string
  packet: string
}

/** One data packet of the epoch format. */
export interface EpochAeadCase extends Omit<DataAeadCase, 'direction' | 'packet_id'> {
  e1: string
  epoch_secret: string
  epoch: number
  counter: number
}

/** Keys of some epochs of one chain; without `e1`, a secret in the middle of one. */
export interface EpochKeysCase {
  name: string
  cipher: DataAeadCase['cipher']
  e1?: string
  epochs: { epoch: number; secret: string; key: string; iv: string }[]
}

export interface HkdfVectors {
  hkdf_expand_sha256: { name: string; prk: string; info: string; length: number; okm: string }[]
  ovpn_expand_label: {
    name: string
    secret: string
    label_text: string
    length: number
    output: string
  }[]
}

export interface ReplayCase {
  name: string
  window: number
  steps: {
    id: number
    result: 'accept' | 'reject-zero' | 'reject-replay' | 'reject-backtrack'
  }[]
}

/** A recorded session with a stock peer; only what data packets need is typed here. */
export interface LiveSession {
  name: string
  cipher: DataAeadCase['cipher']
  data_format: 'classic' | 'epoch'
  key2: string
  packets: { dir: 'c2s' | 's2c'; type: string; packet: string; plaintext?: string }[]
}

export interface VectorFiles {
  'data-aead-classic': { cases: DataAeadCase[] }
  'data-aead-epoch': { cases: EpochAeadCase[] }
  'epoch-keys': { cases: EpochKeysCase[] }
  hkdf: HkdfVectors
  'packet-id': {
    replay_window_id_only: ReplayCase[]
    epoch_packet_id_encoding: { epoch: number; counter: number; bytes: string }[]
  }
  'live-sessions': { sessions: LiveSession[] }
}

/** The content of `NAME.json`. Its form is trusted: the tests that use it fail if it is another. */
export function loadVectors<Name extends keyof VectorFiles>(name: Name): VectorFiles[Name] {
  return JSON.parse(readFileSync(new URL(`${name}.json`, import.meta.url), 'utf8'))
}

/** Bytes of a hex string. */
export function hex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16))
}
