/**
 * Owns what both ends agree on for the data channel: the cipher, how its keys are made, and the form of packets and exit
 * notices. A server decides from what the client told of itself, and pushes it; a client reads it from what was pushed.
 * The data channel is the driver's: AEAD ciphers, data packets of version 2, no compression.
 *
 * Source: OpenVPN's src/openvpn/ssl_ncp.c and push.c; openvpn-wire-protocol.xml, "IV_PROTO"; openvpn(8),
 * "Data channel cipher negotiation".
 */
import type { Cipher } from '../../uapi/types.ts'
import { parseOptionsString } from '../../wire/options-string.ts'
import { type PeerInfo, Proto } from '../../wire/peer-info.ts'

export interface Negotiated {
  /** As in `data-ciphers`: AES-256-GCM ... */
  cipher: string
  /** Keys come from TLS itself (RFC 5705); else from the key messages. */
  tlsEkm: boolean
  /** Keys change by epochs. */
  epoch: boolean
  /** Control packets of later keys have a wrap that nobody else knows (dynamic tls-crypt). */
  dynamicWrap: boolean
  /** Exit notices are control messages (EXIT), not data packets. */
  exitMessage: boolean
}

/** What was agreed on, for the log. */
export function agreedText({ cipher, tlsEkm, epoch, dynamicWrap }: Negotiated): string {
  const keys = epoch ? 'with epochs' : tlsEkm ? "from TLS' exporter" : 'from the key messages'
  return `agreed: ${cipher}, keys ${keys}${dynamicWrap ? ', dynamic tls-crypt' : ''}`
}

/** Why it does not work: `reason` for people here; `tell` for the client's, with AUTH_FAILED. */
export interface Refused {
  refused: string
  tell: string
}

/** A cipher of the driver's. */
interface DataCipher {
  alg: Cipher
  keyBytes: number
}

const CIPHERS: ReadonlyMap<string, DataCipher> = new Map([
  ['AES-128-GCM', { alg: 'aes-gcm', keyBytes: 16 }],
  ['AES-192-GCM', { alg: 'aes-gcm', keyBytes: 24 }],
  ['AES-256-GCM', { alg: 'aes-gcm', keyBytes: 32 }],
  ['CHACHA20-POLY1305', { alg: 'chacha20-poly1305', keyBytes: 32 }],
])

export const DEFAULT_DATA_CIPHERS: readonly string[] = [
  'AES-256-GCM',
  'AES-128-GCM',
  'CHACHA20-POLY1305',
]

/** Undefined: the driver has no such cipher. */
export function cipherOf(name: string): DataCipher | undefined {
  return CIPHERS.get(normalCipher(name))
}

/** One name for each cipher: upper case, and not OpenSSL's `id-aes256-GCM`. */
function normalCipher(name: string): string {
  return name.toUpperCase().replace(/^ID-AES(\d+)-GCM$/, 'AES-$1-GCM')
}

/** What this end wants and can do. */
export interface DataPolicy {
  /** `data-ciphers`, preferred first. */
  dataCiphers: readonly string[]
  /** `data-ciphers-fallback`: for a peer that tells nothing. */
  fallback?: string
  /** Whether the driver knows epoch keys. */
  epoch: boolean
  /** Refuse clients whose keys cannot come from TLS (`force-tls-key-material-export`). */
  requireTlsEkm?: boolean
}

/**
 * What a server agrees on with a client, and the options that tell it.
 *
 * @param options the client's options string
 */
export function negotiateAsServer(
  policy: DataPolicy,
  info: PeerInfo,
  options: string,
): { negotiated: Negotiated; push: string[] } | Refused {
  const has = (bit: number) => (info.proto & bit) !== 0
  const peer = parseOptionsString(options)
  if (!has(Proto.DataV2)) {
    return {
      refused: 'the client does not know data packets of version 2',
      tell: 'This server needs OpenVPN 2.4 or later (data channel version 2)',
    }
  }
  const tlsEkm = has(Proto.TlsKeyExport)
  if (policy.requireTlsEkm === true && !tlsEkm) {
    return {
      refused: 'the client cannot take keys from TLS, and force-tls-key-material-export is set',
      tell: 'Client does not support Keying Material Exporters (tls-ekm)',
    }
  }
  // Two forms have bytes of their own in each packet; the second version of the stub has none in an IP packet.
  const stub = info.entries.get('IV_COMP_STUBv2') === '1'
  if (peer.compLzo && !stub) {
    return {
      refused:
        'the client frames packets for compression (comp-lzo or compress), and cannot be told not to',
      tell: 'Compression is not supported: remove comp-lzo and compress from the configuration',
    }
  }
  const offered = offeredCiphers(info, peer.cipher)
  const cipher = chooseCipher(policy, offered)
  if (cipher === undefined) {
    const theirs = offered.length > 0 ? offered.join(':') : 'nothing'
    return {
      refused: `no shared cipher: the client offers ${theirs}, this server has ${policy.dataCiphers.join(':')}`,
      tell: 'Data channel cipher negotiation failed (no shared cipher)',
    }
  }
  const knowsFlags = has(Proto.CcExitNotify)
  const negotiated: Negotiated = {
    cipher,
    tlsEkm,
    epoch: knowsFlags && tlsEkm && policy.epoch && has(Proto.DataEpoch),
    dynamicWrap: knowsFlags && has(Proto.DynTlsCrypt),
    exitMessage: knowsFlags,
  }
  const push: string[] = []
  if (peer.compLzo) push.push('compress stub-v2')
  if (info.ncp >= 2 || info.ciphers !== undefined) push.push(`cipher ${cipher}`)
  if (knowsFlags) push.push(`protocol-flags ${flagsOf(negotiated).join(' ')}`)
  else if (tlsEkm) push.push('key-derivation tls-ekm')
  return { negotiated, push }
}

/** What a client can use, preferred by it first; empty where it tells nothing. */
function offeredCiphers(info: PeerInfo, cipher: string | undefined): string[] {
  const named = cipher === undefined ? [] : [cipher]
  if (info.ciphers !== undefined) return info.ciphers.map(normalCipher)
  const fixed = info.ncp >= 2 ? ['AES-256-GCM', 'AES-128-GCM'] : []
  return [...fixed, ...named].map(normalCipher)
}

function chooseCipher(policy: DataPolicy, offered: string[]): string | undefined {
  const own = policy.dataCiphers.map(normalCipher).filter((name) => CIPHERS.has(name))
  const common = own.find((name) => offered.includes(name))
  if (common !== undefined || offered.length > 0 || policy.fallback === undefined) return common
  const fallback = normalCipher(policy.fallback)
  return CIPHERS.has(fallback) ? fallback : undefined
}

const FLAGS: [word: string, key: 'exitMessage' | 'tlsEkm' | 'dynamicWrap' | 'epoch'][] = [
  ['cc-exit', 'exitMessage'],
  ['tls-ekm', 'tlsEkm'],
  ['dyn-tls-crypt', 'dynamicWrap'],
  ['aead-epoch', 'epoch'],
]

function flagsOf(negotiated: Negotiated): string[] {
  return FLAGS.filter(([, key]) => negotiated[key]).map(([word]) => word)
}

/** IV_PROTO of this client. `epoch`: whether the driver knows epoch keys. */
export function clientProto(epoch: boolean): number {
  const always =
    Proto.DataV2 |
    Proto.RequestPush |
    Proto.TlsKeyExport |
    Proto.AuthPendingKeyword |
    Proto.CcExitNotify |
    Proto.AuthFailTemp |
    Proto.DynTlsCrypt |
    Proto.DnsOptionV2 |
    Proto.PushUpdate
  return epoch ? always | Proto.DataEpoch : always
}

/**
 * What a client agrees on with its server.
 *
 * @param pushed  the whole push reply: the words of each option, filtered as configured
 * @param options the server's options string
 * @returns with the peer id to send with, and what is worth a line in the log
 */
export function negotiateAsClient(
  policy: DataPolicy,
  pushed: readonly (readonly string[])[],
  options: string,
): { negotiated: Negotiated; peerId: number; warnings: string[] } | Refused {
  const last = (name: string) => pushed.findLast((words) => words[0] === name)
  const refuse = (refused: string): Refused => ({ refused, tell: refused })
  for (const name of ['compress', 'comp-lzo']) {
    const words = last(name)
    // stub-v2 changes nothing in an IP packet; all others have bytes of their own in each.
    if (words !== undefined && !(name === 'compress' && words[1] === 'stub-v2')) {
      return refuse(`the server wants compression (${words.join(' ')}), which is not supported`)
    }
  }
  const peerId = last('peer-id')?.[1] ?? ''
  if (!/^\d{1,8}$/.test(peerId) || Number(peerId) >= PEER_ID_NONE) {
    return refuse('the server has not given a peer id: it does not know data packets of version 2')
  }
  const server = parseOptionsString(options)
  const cipher = clientCipher(policy, last('cipher')?.[1], server.cipher)
  if (typeof cipher !== 'string') return cipher
  const warnings: string[] = []
  if (server.compLzo && last('compress') === undefined) {
    // Which form it has is not told; with some of them all is well.
    warnings.push(
      "the server has comp-lzo or compress and does not push it: if no packet gets through, have its administrator remove it, or push 'compress stub-v2'",
    )
  }
  const flags = new Set<string>()
  for (const word of last('protocol-flags')?.slice(1) ?? []) {
    if (!FLAGS.some(([known]) => known === word)) {
      warnings.push(`the server pushed the protocol flag ${word}, which nobody knows here`)
      break // as OpenVPN 2.x does: what follows may depend on it
    }
    flags.add(word)
  }
  const negotiated: Negotiated = {
    cipher,
    tlsEkm: flags.has('tls-ekm') || last('key-derivation')?.[1] === 'tls-ekm',
    epoch: flags.has('aead-epoch'),
    dynamicWrap: flags.has('dyn-tls-crypt'),
    exitMessage: flags.has('cc-exit'),
  }
  if (negotiated.epoch && !policy.epoch) {
    return refuse('the server wants epoch data keys, which were not offered')
  }
  return { negotiated, peerId: Number(peerId), warnings }
}

/** 24 bits, all ones: nobody's. */
const PEER_ID_NONE = 0xffffff

function clientCipher(
  { dataCiphers, fallback }: DataPolicy,
  pushed: string | undefined,
  ofServer: string | undefined,
): string | Refused {
  const own = dataCiphers.map(normalCipher).filter((name) => CIPHERS.has(name))
  const allowed = own.join(':')
  if (pushed !== undefined) {
    const name = normalCipher(pushed)
    if (own.includes(name)) return name
    const refused = `the server pushed the cipher ${pushed}; data-ciphers allows ${allowed}`
    return { refused, tell: refused }
  }
  const name = normalCipher(ofServer ?? fallback ?? '')
  if (own.includes(name)) return name
  if (fallback !== undefined && CIPHERS.has(normalCipher(fallback))) return normalCipher(fallback)
  const refused = `the server did not negotiate a cipher and uses ${ofServer ?? 'one that it does not name'}; data-ciphers allows ${allowed}`
  return { refused, tell: refused }
}
