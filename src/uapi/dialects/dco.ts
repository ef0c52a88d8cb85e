/**
 * What the families `ovpn-dco` and `ovpn-dco-v2` share: a nest for each command, transport addresses as the bytes of a
 * `struct sockaddr`, narrow integers. What tells the two apart stands in their own files.
 *
 *     sockaddr_in    | family 2 | port 2 | address 4 | 0 8 |                              sizes in bytes; the family and
 *     sockaddr_in6   | family 2 | port 2 | flow 4 | address 16 | scope id 4 |             scope id in host order
 *
 * Source: include/uapi/linux/ovpn_dco.h and drivers/net/ovpn-dco/netlink.c of OpenVPN/ovpn-dco, netlink-api 3 and 4.
 */
import { formatIp, isMappedBytes, parseIp } from '../address.ts'
import { ApiError } from '../errno.ts'
import {
  type Attributes,
  cipher,
  keyconf,
  keydir,
  PEER_ID_MAX,
  packet,
  peer,
  top,
} from '../spec.ts'
import type { KeyConf, Peer, PeerNew, PeerSet } from '../types.ts'
import { camel, checkCipher, select, type Table, table, type Values } from '../validate.ts'
import {
  type Form,
  packetNumbers,
  peerNumbers,
  peerTables,
  type Wired,
  type WiredEvent,
} from './dialect.ts'

const AF_INET = 2
const AF_INET6 = 10
const SOCKADDR_IN_BYTES = 16
const SOCKADDR_IN6_BYTES = 28

/** Any number of 32 bits: these drivers find that there is no such peer where `ovpn` finds that there can be none. */
const peerId = { type: 'u32', doc: peer.id.doc } as const
const sockaddr = {
  type: 'binary',
  minLength: SOCKADDR_IN_BYTES,
  doc: 'Transport address of the other end, a struct sockaddr_in or sockaddr_in6 (UDP only)',
} as const
const localIp = {
  type: 'binary',
  maxLength: 16,
  doc: 'Address to send from, 4 or 16 bytes (UDP only)',
} as const
const seconds = (doc: string) => ({ type: 'u32', doc }) as const
const slot = { ...keyconf.slot, type: 'u8' } as const

const newPeer = {
  id: peerId,
  'sockaddr-remote': sockaddr,
  socket: peer.socket,
  'vpn-ipv4': peer['vpn-ipv4'],
  'vpn-ipv6': peer['vpn-ipv6'],
  'local-ip': localIp,
  mssfix: peer.mssfix,
  'swap-wait-ms': peer['swap-wait-ms'],
} as const satisfies Attributes

const setPeer = {
  id: peerId,
  'keepalive-interval': seconds(peer['keepalive-interval'].doc),
  'keepalive-timeout': seconds(peer['keepalive-timeout'].doc),
  mssfix: peer.mssfix,
  'swap-wait-ms': peer['swap-wait-ms'],
} as const satisfies Attributes

const newKey = {
  'peer-id': peerId,
  slot,
  'key-id': { type: 'u8', doc: 'Number of the key in packets; the low 3 bits count' },
  'cipher-alg': {
    type: 'u16',
    doc: 'Cipher: 1 AES-GCM, 2 ChaCha20-Poly1305; 0 none, as in `ovpn`',
  },
  'encrypt-dir': keyconf['encrypt-dir'],
  'decrypt-dir': keyconf['decrypt-dir'],
} as const satisfies Attributes

const delKey = { 'peer-id': peerId, slot } as const satisfies Attributes
const swapKeys = { 'peer-id': peerId } as const satisfies Attributes
const onlyId = { id: peerId } as const satisfies Attributes

/** A peer as GET_PEER answers it, ours behind the driver's. */
const gotPeer = {
  id: peerId,
  'sockaddr-remote': sockaddr,
  'vpn-ipv4': peer['vpn-ipv4'],
  'vpn-ipv6': peer['vpn-ipv6'],
  'local-ip': localIp,
  'local-port': peer['local-port'],
  'keepalive-interval': setPeer['keepalive-interval'],
  'keepalive-timeout': setPeer['keepalive-timeout'],
  'vpn-rx-bytes': { ...peer['vpn-rx-bytes'], type: 'u64' },
  'vpn-tx-bytes': { ...peer['vpn-tx-bytes'], type: 'u64' },
  'vpn-rx-packets': { ...peer['vpn-rx-packets'], type: 'u32' },
  'vpn-tx-packets': { ...peer['vpn-tx-packets'], type: 'u32' },
  'link-rx-bytes': { ...peer['link-rx-bytes'], type: 'u64' },
  'link-tx-bytes': { ...peer['link-tx-bytes'], type: 'u64' },
  'link-rx-packets': { ...peer['link-rx-packets'], type: 'u32' },
  'link-tx-packets': { ...peer['link-tx-packets'], type: 'u32' },
  transport: peer.transport,
  mssfix: peer.mssfix,
  'swap-wait-ms': peer['swap-wait-ms'],
  keys: peer.keys,
  drops: peer.drops,
  'last-rx-ms': peer['last-rx-ms'],
  'last-tx-ms': peer['last-tx-ms'],
  'tx-id': { ...peer['tx-id'], extension: true },
} as const satisfies Attributes

const nestAttribute = (of: Attributes, doc: string) => ({ type: 'nest', of, doc }) as const

/** The top level of both; which numbers it has differs. */
const dcoTop = {
  ifindex: top.ifindex,
  'new-peer': nestAttribute(newPeer, 'A peer to add'),
  'set-peer': nestAttribute(setPeer, 'What to change of a peer'),
  'del-peer': nestAttribute(onlyId, 'A peer to remove, or removed'),
  'new-key': nestAttribute(newKey, 'A key to install'),
  'swap-keys': nestAttribute(swapKeys, 'A peer whose slots to swap'),
  'del-key': nestAttribute(delKey, 'A slot to empty'),
  packet: top.packet,
  'get-peer': nestAttribute(gotPeer, 'A peer asked for, or told about'),
  extended: top.extended,
} as const satisfies Attributes

const direction = table(
  { ...keydir, 'cipher-key': { ...keydir['cipher-key'], maxLength: 255 } },
  {
    'cipher-key': 1,
    'nonce-tail': 2,
  },
)

const newPeerTable = table(newPeer, {
  id: 1,
  'sockaddr-remote': 2,
  socket: 3,
  'vpn-ipv4': 4,
  'vpn-ipv6': 5,
  'local-ip': 6,
  mssfix: peerNumbers.mssfix,
  'swap-wait-ms': peerNumbers['swap-wait-ms'],
})
const setPeerTable = table(setPeer, {
  id: 1,
  'keepalive-interval': 2,
  'keepalive-timeout': 3,
  mssfix: peerNumbers.mssfix,
  'swap-wait-ms': peerNumbers['swap-wait-ms'],
})
const newKeyTable = table(
  newKey,
  {
    'peer-id': 1,
    slot: 2,
    'key-id': 3,
    'cipher-alg': 4,
    'encrypt-dir': 5,
    'decrypt-dir': 6,
  },
  { 'encrypt-dir': direction, 'decrypt-dir': direction },
)
const delKeyTable = table(delKey, { 'peer-id': 1, slot: 2 })
const swapKeysTable = table(swapKeys, { 'peer-id': 1 })
const getPeerTable = table(onlyId, { id: 1 })

/** Of a packet, in dialect A as everywhere. */
export const packetTable = table(packet, packetNumbers)

const gotPeerNumbers = {
  id: 1,
  'sockaddr-remote': 2,
  'vpn-ipv4': 3,
  'vpn-ipv6': 4,
  'local-ip': 5,
  'local-port': 6,
  'keepalive-interval': 7,
  'keepalive-timeout': 8,
  'vpn-rx-bytes': 9,
  'vpn-tx-bytes': 10,
  'vpn-rx-packets': 11,
  'vpn-tx-packets': 12,
  ...peerNumbers,
  'tx-id': 73,
} as const

/** Always in a reply; the order of all is that of the driver (netlink-api 3.3, 4). */
const gotPeerAlways = ['id', 'local-port', 'keepalive-interval', 'keepalive-timeout'] as const
const gotPeerOrder = [
  'id',
  'vpn-ipv4',
  'vpn-ipv6',
  'keepalive-interval',
  'keepalive-timeout',
  'sockaddr-remote',
  'local-ip',
  'local-port',
  'vpn-rx-bytes',
  'vpn-rx-packets',
  'vpn-tx-bytes',
  'vpn-tx-packets',
  'link-rx-bytes',
  'link-rx-packets',
  'link-tx-bytes',
  'link-tx-packets',
  'tx-id',
  'transport',
  'mssfix',
  'swap-wait-ms',
  'last-rx-ms',
  'last-tx-ms',
  'keys',
  'drops',
]

/** What is different between the two. */
export interface DcoVariant {
  readonly name: string
  readonly numbers: { readonly [K in keyof typeof dcoTop]: number }
  /** Of the command GET_PEER. */
  readonly getPeer: number
  readonly delReasons: readonly string[]
  /** Leaves it to the device whether packets may go unencrypted, as the RFC has that for debugging. */
  readonly cipherNone: boolean
  /** The link counters in replies; where the driver counts once only, they are an extension. */
  readonly linkCounters: {
    readonly 'link-rx-bytes': number
    readonly 'link-tx-bytes': number
    readonly 'link-rx-packets': number
    readonly 'link-tx-packets': number
  }
  readonly linkCountersAlways: boolean
}

/** Commands and the notification that both have, and the table of the top level. */
export function dcoCommands(variant: DcoVariant): {
  whole: Table
  commands: { [C in DcoCommand]: Wired }
  event: WiredEvent
} {
  const reason = { ...peer['del-reason'], type: 'u8', enum: variant.delReasons } as const
  const delPeerTable = table({ 'del-reason': reason, id: peerId }, { 'del-reason': 1, id: 2 })
  const gotPeerTable = table(gotPeer, { ...gotPeerNumbers, ...variant.linkCounters }, peerTables)
  const whole = table(dcoTop, variant.numbers, {
    'new-peer': select(newPeerTable, [], names(newPeerTable)),
    'set-peer': select(setPeerTable, [], names(setPeerTable)),
    'del-peer': select(delPeerTable, [], names(delPeerTable)),
    'new-key': keysOptional,
    'swap-keys': select(swapKeysTable, [], names(swapKeysTable)),
    'del-key': select(delKeyTable, [], names(delKeyTable)),
    packet: select(packetTable, [], ['packet', 'peer-id']),
    'get-peer': select(getPeerTable, [], names(getPeerTable)),
  })

  /** A request with everything let pass at the top, as the family's one policy does. */
  const request = (nest: DcoNest, inner: Table, convert: Convert): Form => {
    const required = ['ifindex', nest]
    const others = names(whole).filter((name) => !required.includes(name))
    return {
      table: select(whole, required, others, { [nest]: inner }),
      order: nest === 'get-peer' ? ['ifindex', 'extended', nest] : ['ifindex', nest],
      inner: names(inner),
      ...convert,
    }
  }
  const dumpOthers = names(whole).filter((name) => name !== 'ifindex')
  const peerGet: Wired = {
    number: variant.getPeer,
    do: request('get-peer', getPeerTable, renamed('peer', 'getPeer')),
    dump: {
      table: select(whole, ['ifindex'], dumpOthers),
      order: ['ifindex', 'extended'],
      fromWire: ({ ifindex, extended }) =>
        extended === undefined ? { ifindex } : { ifindex, extended },
    },
    reply: {
      table: select(whole, ['get-peer'], [], {
        'get-peer': select(gotPeerTable, gotPeerAlways, otherThan(gotPeerTable, gotPeerAlways)),
      }),
      order: ['get-peer'],
      inner: gotPeerOrder,
      toWire: ({ peer }) => ({ getPeer: peerToWire(peer as Peer, variant) }),
      fromWire: ({ getPeer }) => ({ peer: peerFromWire(getPeer as Values) }),
    },
  }
  return {
    whole,
    commands: {
      'peer-new': {
        number: 1,
        do: request('new-peer', select(newPeerTable, ['id', 'socket'], newPeerOptional), {
          toWire: ({ ifindex, peer }) => ({ ifindex, newPeer: newPeerToWire(peer as PeerNew) }),
          fromWire: ({ ifindex, newPeer }) => ({
            ifindex,
            peer: newPeerFromWire(newPeer as Values),
          }),
        }),
      },
      'peer-set': {
        number: 2,
        do: request(
          'set-peer',
          select(
            setPeerTable,
            ['id'],
            ['keepalive-interval', 'keepalive-timeout', 'mssfix', 'swap-wait-ms'],
          ),
          {
            toWire: ({ ifindex, peer }) => ({ ifindex, setPeer: setPeerToWire(peer as PeerSet) }),
            fromWire: ({ ifindex, setPeer }) => ({
              ifindex,
              peer: setPeerFromWire(setPeer as Values),
            }),
          },
        ),
      },
      'peer-get': peerGet,
      'peer-del': {
        number: 3,
        do: request('del-peer', select(delPeerTable, ['id'], ['del-reason']), {
          toWire: ({ ifindex, peer }) => ({ ifindex, delPeer: peer }),
          fromWire: ({ ifindex, delPeer }) => ({
            ifindex,
            peer: { id: (delPeer as Values).id },
          }),
        }),
      },
      'key-new': {
        number: 4,
        do: request('new-key', newKeyTable, {
          toWire: ({ ifindex, keyconf }) => ({ ifindex, newKey: keyToWire(keyconf as KeyConf) }),
          fromWire: ({ ifindex, newKey }) => ({
            ifindex,
            keyconf: keyFromWire(newKey as Values, variant),
          }),
        }),
      },
      'key-swap': {
        number: 5,
        do: request('swap-keys', swapKeysTable, renamed('keyconf', 'swapKeys')),
      },
      'key-del': {
        number: 6,
        do: request('del-key', delKeyTable, renamed('keyconf', 'delKey')),
      },
    },
    event: {
      number: 3,
      form: {
        table: select(whole, ['ifindex', 'del-peer'], [], { 'del-peer': delPeerTable }),
        order: ['ifindex', 'del-peer'],
        inner: ['del-reason', 'id'],
        toWire: ({ ifindex, peer }) => {
          const { id, delReason } = peer as { id: number; delReason: string }
          const known = variant.delReasons.includes(delReason) ? delReason : 'transport-error'
          return { ifindex, delPeer: { id, delReason: known } }
        },
        fromWire: ({ ifindex, delPeer }) => ({ ifindex, peer: delPeer }),
      },
    },
  }
}

type DcoCommand =
  | 'peer-new'
  | 'peer-set'
  | 'peer-get'
  | 'peer-del'
  | 'key-new'
  | 'key-swap'
  | 'key-del'
type DcoNest =
  | 'new-peer'
  | 'set-peer'
  | 'del-peer'
  | 'new-key'
  | 'swap-keys'
  | 'del-key'
  | 'get-peer'
type Convert = Required<Pick<Form, 'toWire' | 'fromWire'>>

const newPeerOptional = [
  'sockaddr-remote',
  'vpn-ipv4',
  'vpn-ipv6',
  'local-ip',
  'mssfix',
  'swap-wait-ms',
]
const keysOptional = select(newKeyTable, [], names(newKeyTable), {
  'encrypt-dir': select(direction, [], names(direction)),
  'decrypt-dir': select(direction, [], names(direction)),
})

function names(whole: Table): string[] {
  return whole.fields.map((field) => field.name)
}

function otherThan(whole: Table, some: readonly string[]): string[] {
  return names(whole).filter((name) => !some.includes(name))
}

/** The nest `canonical` is called `wire` there and is the same otherwise. */
function renamed(canonical: string, wire: string): Convert {
  const rename = (values: Values, from: string, to: string): Values => ({
    ifindex: values.ifindex,
    ...(values.extended !== undefined && { extended: values.extended }),
    [to]: values[from],
  })
  return {
    toWire: (values) => rename(values, canonical, wire),
    fromWire: (values) => rename(values, wire, canonical),
  }
}

interface Remote {
  remoteIpv4?: string
  remoteIpv6?: string
  remoteIpv6ScopeId?: number
  remotePort?: number
}

function encodeSockaddr(remote: Remote): Uint8Array | undefined {
  const { remoteIpv4, remoteIpv6 } = remote
  const text = remoteIpv4 ?? remoteIpv6
  if (text === undefined) return undefined
  const v4 = remoteIpv4 !== undefined
  const address = addressBytes(text, v4)
  const bytes = new Uint8Array(v4 ? SOCKADDR_IN_BYTES : SOCKADDR_IN6_BYTES)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, v4 ? AF_INET : AF_INET6, true)
  view.setUint16(2, remote.remotePort ?? 0)
  bytes.set(address, v4 ? 4 : 8)
  if (!v4) view.setUint32(24, remote.remoteIpv6ScopeId ?? 0, true)
  return bytes
}

/** An IPv4-mapped address becomes IPv4; AF_UNSPEC is no address. */
function decodeSockaddr(bytes: Uint8Array, name: string): Remote {
  if (bytes.length < SOCKADDR_IN_BYTES) throw new ApiError('EINVAL', 'too short', name)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const family = view.getUint16(0, true)
  const remotePort = view.getUint16(2)
  if (family === 0) return {}
  if (family === AF_INET && bytes.length === SOCKADDR_IN_BYTES) {
    return { remoteIpv4: formatIp(bytes.subarray(4, 8)), remotePort }
  }
  if (family === AF_INET6 && bytes.length === SOCKADDR_IN6_BYTES) {
    const address = bytes.subarray(8, 24)
    if (isMappedBytes(address)) return { remoteIpv4: formatIp(address.subarray(12)), remotePort }
    const remoteIpv6ScopeId = view.getUint32(24, true)
    return {
      remoteIpv6: formatIp(address),
      ...(remoteIpv6ScopeId !== 0 && { remoteIpv6ScopeId }),
      remotePort,
    }
  }
  throw new ApiError('EINVAL', 'neither a sockaddr_in nor a sockaddr_in6', name)
}

function addressBytes(text: string, v4: boolean): Uint8Array {
  const bytes = parseIp(text)
  if (bytes?.length === (v4 ? 4 : 16)) return bytes
  throw new ApiError('EINVAL', `no ${v4 ? 'IPv4' : 'IPv6'} address: ${text}`)
}

/** Refuses what the dialect has no attribute for. */
function refuse(values: object, keys: readonly string[], what: string): void {
  const key = keys.find((one) => (values as Values)[one] !== undefined)
  if (key !== undefined) throw new ApiError('EOPNOTSUPP', `${what} cannot carry ${key} here`)
}

function newPeerToWire(peer: PeerNew): Values {
  const { id, socket, vpnIpv4, vpnIpv6, localIpv4, localIpv6, txId, mssfix, swapWaitMs } = peer
  refuse(peer, ['keepaliveInterval', 'keepaliveTimeout'], 'peer-new')
  if (txId !== undefined && txId !== id) refuse(peer, ['txId'], 'peer-new')
  const local = localIpv4 ?? localIpv6
  return {
    id,
    socket,
    sockaddrRemote: encodeSockaddr(peer),
    vpnIpv4,
    vpnIpv6,
    localIp: local === undefined ? undefined : addressBytes(local, localIpv4 !== undefined),
    mssfix,
    swapWaitMs,
  }
}

function newPeerFromWire(wire: Values): PeerNew {
  const { id, socket, vpnIpv4, vpnIpv6, mssfix, swapWaitMs } = wire as unknown as PeerNew
  // No packet can carry a longer id; the kernel's driver would take it and never hear the peer.
  if (id > PEER_ID_MAX) throw new ApiError('ERANGE', 'integer out of range', 'new-peer.id')
  const peer: PeerNew = { id, socket, ...ours({ mssfix, swapWaitMs }) }
  if (vpnIpv4 !== undefined) peer.vpnIpv4 = vpnIpv4
  if (vpnIpv6 !== undefined) peer.vpnIpv6 = vpnIpv6
  if (wire.sockaddrRemote === undefined) return peer
  Object.assign(peer, decodeSockaddr(wire.sockaddrRemote as Uint8Array, 'new-peer.sockaddr-remote'))
  if (wire.localIp === undefined || peer.remotePort === undefined) return peer
  let local = wire.localIp as Uint8Array
  const v4 = peer.remoteIpv4 !== undefined
  if (v4 && local.length === 16 && isMappedBytes(local)) local = local.subarray(12)
  const mapped = local.length === 16 && isMappedBytes(local)
  if (local.length !== (v4 ? 4 : 16) || mapped) {
    throw new ApiError(
      'EINVAL',
      'local address of another family than the remote one',
      'new-peer.local-ip',
    )
  }
  if (v4) peer.localIpv4 = formatIp(local)
  else peer.localIpv6 = formatIp(local)
  return peer
}

/** Those attributes of a peer's that every dialect has from us, as far as they are there. */
function ours({ mssfix, swapWaitMs }: { [K in keyof Ours]: Ours[K] | undefined }): Partial<Ours> {
  return {
    ...(mssfix !== undefined && { mssfix }),
    ...(swapWaitMs !== undefined && { swapWaitMs }),
  }
}
type Ours = Required<Pick<PeerSet, 'mssfix' | 'swapWaitMs'>>

function setPeerToWire(peer: PeerSet): Values {
  const { id, keepaliveInterval, keepaliveTimeout, mssfix, swapWaitMs, ...others } = peer
  refuse(others, Object.keys(others), 'peer-set')
  return { id, keepaliveInterval, keepaliveTimeout, mssfix, swapWaitMs }
}

/** One keepalive value without the other has no effect, and is no error (netlink-api 3.2). */
function setPeerFromWire(wire: Values): PeerSet {
  const { id, keepaliveInterval, keepaliveTimeout, mssfix, swapWaitMs } = wire as unknown as PeerSet
  const peer: PeerSet = { id, ...ours({ mssfix, swapWaitMs }) }
  if (keepaliveInterval === undefined || keepaliveTimeout === undefined) return peer
  return { ...peer, keepaliveInterval, keepaliveTimeout }
}

function keyToWire(key: KeyConf): Values {
  if (key.format === 'epoch') refuse(key, ['format'], 'key-new')
  return { ...key, cipherAlg: cipher.indexOf(key.cipherAlg) }
}

function keyFromWire(wire: Values, variant: DcoVariant): KeyConf {
  const key = wire as unknown as Omit<KeyConf, 'cipherAlg'> & { cipherAlg: number }
  const cipherAlg = cipher[key.cipherAlg]
  if (cipherAlg === undefined) {
    throw new ApiError('EINVAL', 'unsupported cipher', 'new-key.cipher-alg')
  }
  const keyconf = { ...key, keyId: key.keyId & 7, cipherAlg }
  return variant.cipherNone ? keyconf : checkCipher(keyconf)
}

/** Ours go out only with a reply that was asked to be extended: `transport` tells. */
function peerToWire(peer: Peer, variant: DcoVariant): Values {
  const { remoteIpv4, localIpv4, localIpv6, txId, ...rest } = peer
  const extended = peer.transport !== undefined
  const wire: Values = { ...rest }
  const sockaddrRemote = encodeSockaddr(peer)
  if (sockaddrRemote !== undefined) {
    const v4 = remoteIpv4 !== undefined
    wire.sockaddrRemote = sockaddrRemote
    wire.localIp = addressBytes((v4 ? localIpv4 : localIpv6) ?? (v4 ? '0.0.0.0' : '::'), v4)
  }
  if (extended) wire.txId = txId
  if (!extended && !variant.linkCountersAlways) {
    for (const name of Object.keys(variant.linkCounters)) {
      delete wire[camel(name)]
    }
  }
  return wire
}

/** A driver that does not count on the link, or not at all, answers 0. */
function peerFromWire(wire: Values): Values {
  const { sockaddrRemote, localIp, ...rest } = wire
  const peer: Values = {
    vpnRxBytes: 0,
    vpnTxBytes: 0,
    vpnRxPackets: 0,
    vpnTxPackets: 0,
    linkRxBytes: 0,
    linkTxBytes: 0,
    linkRxPackets: 0,
    linkTxPackets: 0,
    ...rest,
  }
  if (sockaddrRemote !== undefined) {
    Object.assign(peer, decodeSockaddr(sockaddrRemote as Uint8Array, 'get-peer.sockaddr-remote'))
  }
  const local = localIp as Uint8Array | undefined
  if (local?.length === 4) peer.localIpv4 = formatIp(local)
  if (local?.length === 16) peer.localIpv6 = formatIp(local)
  return peer
}
