/**
 * Owns the options string of the key message: what each end says of its configuration, so that the other can warn. Nobody
 * refuses a peer for it; old peers' cipher and compression are read from it.
 *
 *     V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client
 *
 * Source: OpenVPN's openvpn-wire-protocol.xml, "OCC options"; docs/PROTOCOL.md, "Options string".
 */
import { digestBytes, type Role } from './wrap.ts'

export interface LocalOptions {
  role: Role
  tunMtu: number
  tcp: boolean
  /** `cipher`, where it is configured and may be used. */
  cipher?: string | undefined
  /** `auth` */
  auth: string
  /** Of tls-auth: 'none' for tls-auth with one key, undefined without tls-auth. */
  keyDirection?: 0 | 1 | 'none' | undefined
  /** Whether packets have a byte that tells of compression. */
  compLzo?: boolean
}

/** The string as OpenVPN 2.6 and 2.7 write it. @throws RangeError for an `auth` that nobody knows */
export function formatOptionsString(options: LocalOptions): string {
  const { role, tunMtu, tcp, cipher, auth, keyDirection } = options
  const fields = [
    'V4',
    'dev-type tun',
    `link-mtu ${linkMtu(options)}`,
    `tun-mtu ${tunMtu}`,
    `proto ${tcp ? `TCPv4_${role.toUpperCase()}` : 'UDPv4'}`,
  ]
  if (options.compLzo) fields.push('comp-lzo')
  if (typeof keyDirection === 'number') fields.push(`keydir ${keyDirection}`)
  if (cipher !== undefined) fields.push(`cipher ${cipher === 'none' ? '[null-cipher]' : cipher}`)
  const { aead, keyBits } = cipherOf(cipher)
  fields.push(`auth ${aead || auth === 'none' ? '[null-digest]' : auth}`, `keysize ${keyBits}`)
  if (keyDirection !== undefined) fields.push('tls-auth')
  fields.push('key-method 2', `tls-${role}`)
  return fields.join(',')
}

/**
 * A number of old, compared and used no more: without `cipher` it is that of BF-CBC, which was the default once.
 *
 * @returns bytes
 */
export function linkMtu({
  tunMtu,
  tcp,
  cipher,
  auth,
  compLzo,
}: Pick<LocalOptions, 'tunMtu' | 'tcp' | 'cipher' | 'auth' | 'compLzo'>): number {
  const { aead, block } = cipherOf(cipher)
  const digest = auth === 'none' ? 0 : digestBytes(auth)
  const opcodeAndId = 1 + 4
  const sealing = aead ? 16 + 12 + 16 : digest + 2 * block
  return tunMtu + opcodeAndId + (tcp ? 2 : 0) + (compLzo ? 1 : 0) + sealing
}

function cipherOf(name = 'BF-CBC'): { aead: boolean; block: number; keyBits: number } {
  const upper = name.toUpperCase()
  if (upper === 'NONE') return { aead: false, block: 0, keyBits: 0 }
  const aead = upper.endsWith('-GCM') || upper === 'CHACHA20-POLY1305'
  const keyBits = Number(/-(128|192|256)(?:-|$)/.exec(upper)?.[1] ?? (aead ? 256 : 128))
  return { aead, block: /^(BF|DES|CAST5)/.test(upper) ? 8 : 16, keyBits }
}

/** What of a peer's string is of use. */
export interface PeerOptions {
  /** As it stands there; undefined: not named. "[null-cipher]": none. */
  cipher?: string
  compLzo: boolean
  fields: ReadonlyMap<string, string>
}

const MAX_FIELDS = 32
const MAX_FIELD_CHARACTERS = 128

/** Reads what nobody has authenticated: printable ASCII only, and not more than a string has. */
export function parseOptionsString(text: string): PeerOptions {
  const fields = new Map<string, string>()
  for (const field of text.split(',', MAX_FIELDS)) {
    if (field.length > MAX_FIELD_CHARACTERS || !/^[\x21-\x7e][\x20-\x7e]*$/.test(field)) continue
    const space = field.indexOf(' ')
    fields.set(space < 0 ? field : field.slice(0, space), space < 0 ? '' : field.slice(space + 1))
  }
  const cipher = fields.get('cipher')
  const options: PeerOptions = { fields, compLzo: fields.has('comp-lzo') }
  if (cipher !== undefined) options.cipher = cipher
  return options
}
