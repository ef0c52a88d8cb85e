/**
 * Message × table → values, or an ApiError with the errno and the class of text that the kernel answers: the policy
 * every attribute has to meet, then what is missing. Also the checks that the kernel's handlers make beyond that, as
 * far as they need no state; those that need the device's mode, the kind of socket or the peer are functions for the
 * driver's core.
 *
 * The order in which the driver makes them, so that the errno is right (netlink-api 3.3, 5.3):
 *
 * - `peer-new`: a dialect's `decodeRequest` (policy; missing attributes; `checkPeer`) → device exists (ENODEV), is ours
 *   (EINVAL) → `peerForMode` → descriptor is a socket (ENOTSOCK) → `peerForTransport` → socket take-over (ENOTSOCK)
 *   → id and addresses free (EEXIST, EADDRINUSE)
 * - `peer-set`: `decodeRequest` → device → `peerForMode` → peer exists (ENOENT) → `peerForTransport` → addresses free
 * - `key-new`: `decodeRequest` → device → peer exists (ENOENT) → `checkKeyLengths`
 * - all others: `decodeRequest` → device → peer exists (ENOENT)
 *
 * The kernel looks for the device once the policy is met, before it finds anything missing: such errors carry the
 * `ifindex` for the server to look at first.
 */
import { attributes, type Attribute as Item, NetlinkError, nested } from '../netlink/attribute.ts'
import { formatIp, isMapped, isUnspecified, parseIp, unmapped } from './address.ts'
import { ApiError, type ErrorDetail } from './errno.ts'
import { type Attribute, type Attributes, EPOCH_SECRET_BYTES, EXTENSION_BASE } from './spec.ts'
import type { DialectName, KeyConf, Mode, PeerNew, PeerSet, Transport } from './types.ts'

/** An attribute on the wire of one dialect. */
export interface Field {
  readonly name: string
  /** The same in camel case. */
  readonly key: string
  readonly number: number
  readonly attribute: Attribute
  /** What a nest holds. */
  readonly of?: Table
}

/** A set of attributes on the wire of one dialect, as one message may hold it. */
export interface Table {
  readonly fields: readonly Field[]
  /** Names that have to be there. */
  readonly required: readonly string[]
  readonly byNumber: ReadonlyMap<number, Field>
  /** Highest number of the kernel's; beyond it an attribute is unknown, below it unsupported. */
  readonly max: number
}

export type Values = Record<string, unknown>

export const camel = (name: string): string =>
  name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())

function tableOf(fields: readonly Field[], required: readonly string[]): Table {
  const byNumber = new Map(fields.map((field) => [field.number, field]))
  const numbers = [...byNumber.keys()].filter((number) => number < EXTENSION_BASE)
  return { fields, required, byNumber, max: Math.max(0, ...numbers) }
}

/**
 * Numbers the attributes of `set` that have one in `numbers`; all are required until `select` says otherwise. `wire`
 * replaces what the specification says of an attribute, and `of` is the table of a nest.
 */
export function table<S extends Attributes>(
  set: S,
  numbers: { readonly [K in keyof S]?: number },
  of: { readonly [K in keyof S]?: Table } = {},
  wire: { readonly [K in keyof S]?: Attribute } = {},
): Table {
  const fields = Object.entries(set).flatMap(([name, declared]): Field[] => {
    const number = numbers[name]
    const inner = of[name]
    if (number === undefined) return []
    const attribute = wire[name] ?? declared
    return [{ name, key: camel(name), number, attribute, ...(inner && { of: inner }) }]
  })
  return tableOf(
    fields,
    fields.map((field) => field.name),
  )
}

/** The part of a table that one message may hold, in the order given; a table in `of` replaces that of its nest. */
export function select(
  whole: Table,
  required: readonly string[],
  optional: readonly string[] = [],
  of: { readonly [name: string]: Table } = {},
): Table {
  const fields = [...required, ...optional].map((name) => {
    const field = whole.fields.find((one) => one.name === name)
    if (field === undefined) throw new Error(`no attribute ${name}`)
    const inner = of[name]
    return inner === undefined ? field : { ...field, of: inner }
  })
  return tableOf(fields, required)
}

/**
 * How much is forgiven (netlink-api 1.6):
 *
 * - `strict`: nothing; dialects B and C
 * - `lenient`: at the top unknown attributes and trailing bytes, everywhere integers that are too long; dialect A
 * - `answer`: what a driver of another age may send: unknown attributes, any width and range of integers, nests that
 *   do not call themselves that
 */
export type Policy = 'strict' | 'lenient' | 'answer'

const INTEGER_BYTES: { readonly [type: string]: number } = {
  u8: 1,
  u16: 2,
  u32: 4,
  s32: 4,
  u64: 8,
  port: 2,
  ipv4: 4,
}

/**
 * The attributes from `start` on in `message` by their names in camel case. Of an attribute that stands twice the
 * last one counts, as in the kernel. `headerBytes` stand before `message`: offsets in errors include them.
 * Binary values are copies. Throws only ApiError.
 */
export function parse(
  message: Uint8Array,
  start: number,
  whole: Table,
  policy: Policy,
  headerBytes: number,
): Values {
  const { values, missing } = parsePolicy(message, start, whole, policy, headerBytes)
  if (missing !== undefined) throw missing
  return values
}

/** As `parse`, but gives what is missing back beside what is there: the kernel finds it out later. */
export function parsePolicy(
  message: Uint8Array,
  start: number,
  whole: Table,
  policy: Policy,
  headerBytes: number,
): Run {
  return run(attributes(message, start, headerBytes), whole, policy, '')
}

export interface Run {
  readonly values: Values
  readonly missing: ApiError | undefined
}

function run(
  items: Iterable<Item>,
  whole: Table,
  policy: Policy,
  path: string,
  nestOffset?: number,
): Run {
  const forgiving = policy === 'answer' || (policy === 'lenient' && path === '')
  const values: Values = {}
  let missing: ApiError | undefined
  for (const item of tolerate(items, forgiving)) {
    const field = whole.byNumber.get(item.type)
    if (field === undefined) {
      if (forgiving) continue
      const unknown = item.type === 0 || item.type > whole.max
      throw refused(
        'EINVAL',
        unknown ? 'Unknown attribute type' : 'Unsupported attribute',
        `${path}${item.type}`,
        item,
      )
    }
    const name = path + field.name
    let value: unknown
    if (field.of !== undefined) {
      const inner = nest(item, field.of, policy, name)
      value = inner.values
      missing ??= inner.missing
    } else {
      value = read(item, field.attribute, policy, name)
    }
    if (field.attribute.multi) {
      const list = values[field.key] as unknown[] | undefined
      if (list === undefined) values[field.key] = [value]
      else list.push(value)
    } else {
      values[field.key] = value
    }
  }
  for (const name of whole.required) {
    const field = whole.fields.find((one) => one.name === name)!
    if (values[field.key] !== undefined) continue
    if (field.attribute.multi) {
      values[field.key] = []
      continue
    }
    const detail: ErrorDetail = { missType: field.number }
    if (nestOffset !== undefined) detail.missNest = nestOffset
    const errno = policy === 'answer' ? 'EPROTO' : 'EINVAL'
    missing = new ApiError(errno, 'missing attribute', path + name, detail)
    break
  }
  return { values, missing }
}

/** What is not a run of attributes ends it, or is refused. */
function* tolerate(items: Iterable<Item>, forgiving: boolean): Generator<Item> {
  try {
    yield* items
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
    if (forgiving) return
    // The kernel names no place here.
    throw new ApiError('EINVAL', 'trailing bytes or a bad attribute length')
  }
}

function refused(errno: 'EINVAL' | 'ERANGE', reason: string, name: string, item: Item): ApiError {
  return new ApiError(errno, reason, name, { offset: item.offset })
}

function nest(item: Item, inner: Table, policy: Policy, name: string): Run {
  if (!item.nested && policy !== 'answer') {
    throw refused('EINVAL', 'NLA_F_NESTED is missing', name, item)
  }
  // Empty is allowed; a rest too short for one attribute fails before it is looked into.
  if (item.payload.length > 0 && item.payload.length < 4) {
    throw refused('ERANGE', 'Attribute failed policy validation', name, item)
  }
  return run(nested(item), inner, policy, `${name}.`, item.offset)
}

function read(item: Item, attribute: Attribute, policy: Policy, name: string): unknown {
  const { payload } = item
  if (item.nested && policy === 'strict') {
    throw refused('EINVAL', 'NLA_F_NESTED not expected', name, item)
  }
  switch (attribute.type) {
    case 'flag':
      if (payload.length > 0 && policy !== 'answer') {
        throw refused('ERANGE', 'Attribute failed policy validation', name, item)
      }
      return true
    case 'string':
    case 'binary':
    case 'ipv6':
      return readBytes(item, attribute, policy, name)
    default:
      return readInteger(item, attribute, policy, name)
  }
}

const decoder = new TextDecoder()

function readBytes(item: Item, attribute: Attribute, policy: Policy, name: string): unknown {
  let { payload } = item
  if (attribute.type === 'string') {
    const nul = payload.indexOf(0)
    if (nul < 0 && policy !== 'answer') {
      throw refused('EINVAL', 'Attribute failed policy validation', name, item)
    }
    if (nul >= 0) payload = payload.subarray(0, nul)
  }
  const fixed = attribute.type === 'ipv6' ? 16 : undefined
  const least = fixed ?? attribute.minLength ?? 0
  const most = fixed ?? attribute.maxLength ?? Infinity
  const inside = payload.length >= least && payload.length <= most
  if (!inside && (policy !== 'answer' || fixed !== undefined)) {
    throw refused('ERANGE', 'binary attribute size out of range', name, item)
  }
  if (attribute.type === 'string') return decoder.decode(payload)
  if (attribute.type === 'ipv6') return formatIp(payload)
  return payload.slice()
}

function readInteger(item: Item, attribute: Attribute, policy: Policy, name: string): unknown {
  const { payload } = item
  const { type } = attribute
  const bytes = INTEGER_BYTES[type] ?? (payload.length < 8 ? 4 : 8)
  const network = type === 'port' || type === 'ipv4'
  if (policy === 'answer' && !network) {
    if (![1, 2, 4, 8].includes(payload.length)) {
      throw refused('EINVAL', 'invalid attribute length', name, item)
    }
  } else if (policy === 'lenient') {
    if (payload.length < bytes) {
      throw refused('ERANGE', 'Attribute failed policy validation', name, item)
    }
  } else if (payload.length !== bytes) {
    throw refused('EINVAL', 'invalid attribute length', name, item)
  }
  if (type === 'ipv4') return formatIp(payload.subarray(0, 4))
  const used = policy === 'answer' && !network ? payload.length : bytes
  let value = 0
  for (let i = 0; i < used; i++) value = value * 256 + payload[network ? i : used - 1 - i]!
  if (type === 's32') value |= 0
  const least = attribute.min ?? (type === 'port' ? 1 : -Infinity)
  const most = attribute.enum === undefined ? attribute.max : attribute.enum.length - 1
  if (policy !== 'answer' && (value < least || value > (most ?? Infinity))) {
    throw refused('ERANGE', 'integer out of range', name, item)
  }
  if (attribute.enum === undefined) return value
  const text = attribute.enum[value]
  if (text === undefined) throw refused('EINVAL', 'a value without a meaning here', name, item)
  return text
}

/**
 * The stateless checks shared by `peer-new` and `peer-set` (netlink-api 5.3), all EINVAL. Gives the peer back with
 * IPv4-mapped addresses as the IPv4 addresses they mean, so that `remoteIpv4` and `remoteIpv6` tell the family.
 */
export function checkPeer<P extends PeerNew | PeerSet>(peer: P): P {
  const { remoteIpv4, remoteIpv6, localIpv4, localIpv6 } = peer
  const remote = remoteIpv4 ?? remoteIpv6
  if (remoteIpv4 !== undefined && remoteIpv6 !== undefined) {
    throw new ApiError('EINVAL', 'both an IPv4 and an IPv6 remote address', 'peer.remote-ipv6')
  }
  if (remote === undefined && peer.remotePort !== undefined) {
    throw new ApiError('EINVAL', 'remote port without a remote address', 'peer.remote-port')
  }
  if (remote !== undefined && peer.remotePort === undefined) {
    throw new ApiError('EINVAL', 'remote address without a remote port', 'peer.remote-port')
  }
  if (localIpv4 !== undefined && remoteIpv4 === undefined) {
    throw new ApiError(
      'EINVAL',
      'local IPv4 address without an IPv4 remote address',
      'peer.local-ipv4',
    )
  }
  if (localIpv6 !== undefined && remoteIpv6 === undefined) {
    throw new ApiError(
      'EINVAL',
      'local IPv6 address without an IPv6 remote address',
      'peer.local-ipv6',
    )
  }
  const mapped = remoteIpv6 !== undefined && isMapped(remoteIpv6)
  if (localIpv6 !== undefined && isMapped(localIpv6) !== mapped) {
    throw new ApiError(
      'EINVAL',
      'local and remote addresses of different families',
      'peer.local-ipv6',
    )
  }
  if (peer.remoteIpv6ScopeId !== undefined && (remoteIpv6 === undefined || mapped)) {
    throw new ApiError(
      'EINVAL',
      'scope id without an IPv6 remote address',
      'peer.remote-ipv6-scope-id',
    )
  }
  if ((peer.keepaliveInterval === undefined) !== (peer.keepaliveTimeout === undefined)) {
    throw new ApiError(
      'EINVAL',
      'keepalive interval and timeout go together',
      peer.keepaliveInterval === undefined ? 'peer.keepalive-interval' : 'peer.keepalive-timeout',
    )
  }
  if (!mapped) return peer
  const { remoteIpv6: _remote, localIpv6: _local, ...rest } = peer
  const plain = { ...rest, remoteIpv4: unmapped(remoteIpv6) } as unknown as P
  if (localIpv6 !== undefined) plain.localIpv4 = unmapped(localIpv6)
  return plain
}

/**
 * The rules for VPN addresses that hang on the mode, all EINVAL; gives the peer back with the VPN addresses that
 * count. Many peers need one each; a single one needs none: dialect C refuses it, A and B take no notice.
 * 0.0.0.0 and :: count as absent in `peer-new`; in `peer-set` they remove an address, and whether another one remains
 * is for the device to check.
 */
export function peerForMode<P extends PeerNew | PeerSet>(
  command: 'peer-new' | 'peer-set',
  peer: P,
  mode: Mode,
  dialect: DialectName,
): P {
  const { vpnIpv4, vpnIpv6, ...rest } = peer
  const given = vpnIpv4 !== undefined || vpnIpv6 !== undefined
  if (mode === 'p2p') {
    if (given && dialect === 'ovpn') {
      throw new ApiError('EINVAL', 'VPN address in point-to-point mode', 'peer.vpn-ipv4')
    }
    return given ? (rest as unknown as P) : peer
  }
  if (dialect === 'ovpn') {
    refuseUnusable(vpnIpv4, 'peer.vpn-ipv4')
    refuseUnusable(vpnIpv6, 'peer.vpn-ipv6')
  }
  if (command === 'peer-set') return peer
  const kept = rest as unknown as P
  if (vpnIpv4 !== undefined && !isUnspecified(vpnIpv4)) kept.vpnIpv4 = vpnIpv4
  if (vpnIpv6 !== undefined && !isUnspecified(vpnIpv6)) kept.vpnIpv6 = vpnIpv6
  const counted = dialect === 'ovpn' ? (kept.vpnIpv4 ?? kept.vpnIpv6) !== undefined : given
  if (!counted) throw new ApiError('EINVAL', 'a VPN address is needed', 'peer.vpn-ipv4')
  return kept
}

/** EADDRNOTAVAIL: no peer can be loopback, multicast, broadcast, IPv4-compatible or IPv4-mapped inside the tunnel. */
function refuseUnusable(address: string | undefined, name: string): void {
  if (address === undefined || isUnspecified(address)) return
  const bytes = parseIp(address)!
  const v6in4 = bytes.length === 16 && bytes.subarray(0, 10).every((byte) => byte === 0)
  const unusable =
    bytes.length === 4
      ? bytes[0] === 127 || (bytes[0]! >= 224 && bytes[0]! <= 239) || address === '255.255.255.255'
      : bytes[0] === 0xff ||
        (v6in4 && bytes[10] === bytes[11] && (bytes[10] === 0 || bytes[10] === 0xff))
  if (unusable) throw new ApiError('EADDRNOTAVAIL', 'not an address a peer can have', name)
}

/**
 * The rules for addresses that hang on the transport, all EINVAL; gives the peer back with those that count. A new UDP
 * peer needs a remote address. A TCP peer has none: dialect C refuses it, A and B take no notice, as OpenVPN 2.6 sends it.
 */
export function peerForTransport<P extends PeerNew | PeerSet>(
  command: 'peer-new' | 'peer-set',
  peer: P,
  transport: Transport,
  dialect: DialectName,
): P {
  const given = peer.remoteIpv4 !== undefined || peer.remoteIpv6 !== undefined
  if (transport === 'udp') {
    if (command === 'peer-new' && !given) {
      throw new ApiError('EINVAL', 'a UDP peer needs a remote address', 'peer.remote-ipv4')
    }
    return peer
  }
  if (!given) return peer
  if (dialect === 'ovpn') {
    throw new ApiError('EINVAL', 'a TCP peer has no remote address', 'peer.remote-ipv4')
  }
  const { remoteIpv4, remoteIpv6, remoteIpv6ScopeId, remotePort, localIpv4, localIpv6, ...rest } =
    peer
  return rest as unknown as P
}

/** EINVAL for the cipher that is none; dialect A leaves it to the device. */
export function checkCipher(keyconf: KeyConf): KeyConf {
  if (keyconf.cipherAlg !== 'none') return keyconf
  throw new ApiError('EINVAL', 'unsupported cipher', 'keyconf.cipher-alg')
}

/** EINVAL for keys that do not fit their cipher and format. The kernel finds out after it has found the peer. */
export function checkKeyLengths(keyconf: KeyConf): void {
  const { keySize } = keyconf
  const sizes = keyconf.cipherAlg === 'aes-gcm' ? [16, 24, 32] : [32]
  const epoch = keyconf.format === 'epoch'
  if (keySize !== undefined && !(epoch && sizes.includes(keySize))) {
    const reason = epoch ? `${sizes.join(', ')} expected` : 'a key tells its size itself'
    throw new ApiError('EINVAL', reason, 'keyconf.key-size')
  }
  const lengths = epoch ? [EPOCH_SECRET_BYTES] : sizes
  const wrong = (['encryptDir', 'decryptDir'] as const).find(
    (direction) => !lengths.includes(keyconf[direction].cipherKey.length),
  )
  if (wrong === undefined) return
  const name = wrong === 'encryptDir' ? 'encrypt-dir' : 'decrypt-dir'
  throw new ApiError(
    'EINVAL',
    `a ${epoch ? 'secret' : 'key'} of ${lengths.join(', ')} bytes is needed`,
    `keyconf.${name}.cipher-key`,
  )
}
