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

/** A recorded session with a stock peer; only what tests need is typed here. Control packets have acks and a body. */
export interface LiveSession {
  name: string
  server_text?: string
  client_text?: string
  transport: 'udp' | 'tcp'
  wrap: 'none' | 'tls-auth' | 'tls-crypt' | 'tls-crypt-v2'
  digest?: string
  client_key_direction?: 0 | 1
  static_key?: string
  tls_crypt_v2_client_key?: string
  tls_crypt_v2_server_key?: string
  wkc?: string
  client_session_id: string
  server_session_id: string
  key_method_2_client: string
  key_method_2_server: string
  push_reply_text?: string
  peer_info_text?: string
  derivation: 'prf' | 'tls-ekm'
  cipher: DataAeadCase['cipher']
  data_format: 'classic' | 'epoch'
  key2: string
  packets: {
    dir: 'c2s' | 's2c'
    type: string
    key_id?: number
    packet: string
    plaintext?: string
    acks?: number[]
    message_id?: number | null
    body?: string
  }[]
}

export interface ControlCase {
  name: string
  packet: string
  opcode: number
  key_id: number
  session_id: string
  acks: number[]
  ack_remote_session_id: string | null
  message_id: number | null
  payload: string
}

/** A packet in a wrap: `body` is what follows the session id in it without the wrap. */
export interface WrapCase {
  name: string
  key_index: 0 | 1
  replay_id: number
  replay_time: number
  body: string
  packet: string
}

/** Texts that are null or missing are absent in the message. */
export interface KeyMessageCase {
  name: string
  derivation_case: string
  options_text: string
  username_text?: string | null
  password_text?: string | null
  peer_info_text?: string | null
  message: string
}

export interface PrfVectors {
  tls1_prf: { name: string; secret: string; seed: string; length: number; output: string }[]
  key_method_2_derivation: {
    name: string
    client_pre_master: string
    client_random1: string
    client_random2: string
    server_random1: string
    server_random2: string
    client_session_id: string
    server_session_id: string
    key2: string
  }[]
}

export interface ReliabilityVectors {
  ack_mru_list: { size: number; steps: { acks_in_packet: number[]; list_after: number[] }[] }
  recv_window: {
    next_expected: number
    window: number
    id: number
    verdict: 'accept' | 'drop-no-ack' | 'duplicate-ack-again'
  }[]
  retransmit_times_seconds_after_first_send: { 'openvpn 2.x, tls-timeout 2': number[] }
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
  'control-packets': { cases: ControlCase[] }
  'tls-auth': { cases: (WrapCase & { static_key: string; digest: string })[] }
  'tls-crypt': { cases: (WrapCase & { key2: string; header: string })[] }
  'tls-crypt-v2': {
    wkc: {
      name: string
      server_key: string
      client_key: string
      metadata: string
      wkc: string
      client_pem_body_b64?: string
    }[]
    packets: {
      kc: string
      session_id: string
      replay_id: number
      replay_time: number
      wrapped: string
      packet: string
    }[]
  }
  'dynamic-tls-crypt': {
    cases: {
      name: string
      ekm: string
      original_key: string | null
      key2: string
      client_soft_reset_key_id_1: string
      replay_time: number
    }[]
  }
  'auth-token': {
    cases: {
      name: string
      hmac_key: string
      username_text: string
      session_id: string
      initial_time: number
      time: number
      token_text: string
    }[]
  }
  'key-method-2': { cases: KeyMessageCase[] }
  prf: PrfVectors
  mtu: {
    occ_link_mtu: {
      transport: 'udp' | 'tcp'
      tls: boolean
      cipher: string
      auth: string
      tun_mtu: number
      link_mtu: number
    }[]
  }
  reliability: ReliabilityVectors
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
