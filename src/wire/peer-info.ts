/**
 * Owns peer info: what a client tells of itself in its key message, as lines of KEY=value. What follows from it for ciphers
 * and flags is negotiated elsewhere.
 *
 * It comes before anybody is authenticated and goes on to logs and the environment of scripts, so it is bounded and
 * cleaned here. Source: OpenVPN's openvpn-wire-protocol.xml, "Peer info"; openvpn(8), `push-peer-info`.
 */

/** Bits of IV_PROTO: what a peer can do beyond the first versions. */
export const Proto = {
  DataV2: 1 << 1,
  /** Takes a push reply that it has not asked for. */
  RequestPush: 1 << 2,
  TlsKeyExport: 1 << 3,
  AuthPendingKeyword: 1 << 4,
  NcpP2p: 1 << 5,
  DnsOption: 1 << 6,
  /** EXIT as a message; also: knows `protocol-flags`. */
  CcExitNotify: 1 << 7,
  AuthFailTemp: 1 << 8,
  DynTlsCrypt: 1 << 9,
  DataEpoch: 1 << 10,
  DnsOptionV2: 1 << 11,
  PushUpdate: 1 << 12,
} as const

export interface PeerInfo {
  /** All of it: keys as they came, values cleaned. */
  entries: ReadonlyMap<string, string>
  /** IV_PROTO; 0 without. */
  proto: number
  /** IV_NCP; 0 without. */
  ncp: number
  /** IV_CIPHERS, preferred first; undefined without. */
  ciphers?: string[]
  /** IV_MTU: the largest tun-mtu that may be pushed; undefined: none may. */
  mtu?: number
  /** ID: the peer id that this peer wants to receive with. */
  id?: number
  /** IV_SSO: ways of pending authentication that its user interface can do. */
  sso: string[]
}

const MAX_ENTRIES = 64
const MAX_VALUE_CHARACTERS = 512
const KEY = /^(?:IV|UV)_[A-Za-z0-9_]{1,61}$|^ID$/

/** Reads what nobody has authenticated. Lines with other keys, or without "=", are left out; a key's last value counts. */
export function parsePeerInfo(text: string): PeerInfo {
  const entries = new Map<string, string>()
  for (const line of text.split('\n')) {
    const equals = line.indexOf('=')
    const key = line.slice(0, Math.max(0, equals))
    if (!KEY.test(key) || (entries.size >= MAX_ENTRIES && !entries.has(key))) continue
    entries.set(key, clean(line.slice(equals + 1, equals + 1 + MAX_VALUE_CHARACTERS)))
  }
  const info: PeerInfo = {
    entries,
    proto: integer(entries.get('IV_PROTO')) ?? 0,
    ncp: integer(entries.get('IV_NCP')) ?? 0,
    sso: list(entries.get('IV_SSO'), ','),
  }
  const ciphers = entries.get('IV_CIPHERS')
  if (ciphers !== undefined) info.ciphers = list(ciphers, ':')
  const mtu = integer(entries.get('IV_MTU'))
  if (mtu !== undefined) info.mtu = mtu
  const id = entries.get('ID')
  if (id !== undefined && /^[0-9a-f]{1,6}$/i.test(id)) info.id = Number.parseInt(id, 16)
  return info
}

/**
 * Lines of peer info, in order, as many as fit `maxBytes`.
 *
 * @param maxBytes OpenVPN 2.x has room for 1536, in a message of 2048 that names and passwords are in, too
 * @throws RangeError for a key that a server would leave out, or a value of more than one line
 */
export function formatPeerInfo(
  entries: Iterable<[key: string, value: string]>,
  maxBytes = 1535,
): string {
  let text = ''
  for (const [key, value] of entries) {
    if (!KEY.test(key)) throw new RangeError(`no server reads "${key}" in peer info`)
    if (clean(value) !== value) throw new RangeError(`${key} is not one line of text`)
    const line = `${key}=${value}\n`
    if (Buffer.byteLength(text) + Buffer.byteLength(line) > maxBytes) break
    text += line
  }
  return text
}

/** Control characters, and what is no character at all, become "_". */
function clean(value: string): string {
  return value.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\ufffd]/gu, '_')
}

function integer(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined
}

function list(text: string | undefined, separator: string): string[] {
  return (text ?? '').split(separator).filter((item) => item !== '')
}
