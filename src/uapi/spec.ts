/**
 * The driver's API, declared once as data: enums, attribute sets, commands and notifications, each with its
 * documentation. Types (types.ts), checks (validate.ts), the three wire dialects (dialects/) and docs/API.md
 * follow from it. Numbers and widths on the wire are the dialects' business; what a request does is the driver's.
 *
 * Names are those of Linux's `ovpn` specification (Documentation/netlink/specs/ovpn.yaml); what that lacks is ours
 * and says so (`extension`).
 */

/** What an attribute holds; in brackets its form in TypeScript. */
export type AttributeType =
  /** Integers in host byte order [number]. */
  | 'u8'
  | 'u16'
  | 'u32'
  | 's32'
  | 'u64'
  /** 4 bytes where the value fits, else 8 [number]. */
  | 'uint'
  /** 16 bits in network byte order, never 0 [number]. */
  | 'port'
  /** 4 and 16 address bytes [string, RFC 5952]. */
  | 'ipv4'
  | 'ipv6'
  /** [Uint8Array] */
  | 'binary'
  /** With a NUL behind it [string]. */
  | 'string'
  /** There or not [boolean]. */
  | 'flag'
  /** Attributes inside [object]. */
  | 'nest'

export interface Attribute {
  readonly type: AttributeType
  readonly doc: string
  /** Value `n` on the wire is `enum[n]` in TypeScript. */
  readonly enum?: readonly string[]
  /** What a nest holds; every attribute of it is required. */
  readonly of?: Attributes
  /** May stand several times; an array in TypeScript. */
  readonly multi?: true
  /** Bounds of an integer. */
  readonly min?: number
  readonly max?: number
  /** Bounds of the length of a binary or string (NUL not counted), in bytes. */
  readonly minLength?: number
  readonly maxLength?: number
  /** Ours, not the kernel's. */
  readonly extension?: true
}

export interface Attributes {
  readonly [name: string]: Attribute
}

/** Keeps the literal types of a set of attributes. */
function attributes<const T extends Attributes>(set: T): T {
  return set
}

/** `remote-ipv4` → `remoteIpv4`. */
export type Camel<S extends string> = S extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<Camel<Tail>>}`
  : S

type One<A extends Attribute> = A extends { enum: readonly (infer E)[] }
  ? E
  : A extends { type: 'nest'; of: infer Of extends Attributes }
    ? Infer<Of>
    : A['type'] extends 'ipv4' | 'ipv6' | 'string'
      ? string
      : A['type'] extends 'binary'
        ? Uint8Array
        : A['type'] extends 'flag'
          ? boolean
          : number

type Value<A extends Attribute> = A extends { multi: true } ? One<A>[] : One<A>

/** The object that holds all attributes of a set. */
export type Infer<S extends Attributes> = { [K in keyof S & string as Camel<K>]: Value<S[K]> }

/** The object that holds the attributes `R` of a set, and perhaps `O`. */
export type Select<S extends Attributes, R extends string, O extends string> = {
  [K in keyof S & R as Camel<K>]: Value<S[K]>
} & { [K in keyof S & O as Camel<K>]?: Value<S[K]> }

/** Highest peer id: packets carry 24 bits, and all ones means "none". */
export const PEER_ID_MAX = 0xffffff
/** Longest keepalive interval and timeout, in seconds. */
export const KEEPALIVE_MAX = 86_400
/** The part of a nonce that is not the packet id, in bytes. */
const NONCE_TAIL_BYTES = 8
/** The secret that epoch keys follow from, in bytes, whatever the cipher. */
export const EPOCH_SECRET_BYTES = 32
/** Largest packet that `mssfix` can name: no limit but the path's. */
export const MSSFIX_MAX = 65_535
/** Longest message inside the data channel that is handed on, in bytes. */
export const INSIDE_MAX = 1024
/** Longest wait after a `key-swap`, in milliseconds. */
export const SWAP_WAIT_MAX = 60_000
/** Longest device name, in bytes (IFNAMSIZ without the NUL). */
export const NAME_MAX = 15
/** Numbers from here up are ours: commands, top-level attributes, attributes of the kernel's own sets. */
export const EXTENSION_BASE = 64

export const cipher = ['none', 'aes-gcm', 'chacha20-poly1305'] as const
export const keySlot = ['primary', 'secondary'] as const
export const delReason = [
  'teardown',
  'userspace',
  'expired',
  'transport-error',
  'transport-disconnect',
] as const
export const mode = ['p2p', 'mp'] as const
export const keyFormat = ['classic', 'epoch'] as const
export const linkKind = ['ovpn', 'ovpn-dco'] as const
export const transport = ['udp', 'tcp'] as const

export const keydir = attributes({
  'cipher-key': {
    type: 'binary',
    maxLength: 256,
    doc: 'Key of the cipher: 16, 24 or 32 bytes for AES-GCM, 32 for ChaCha20-Poly1305; with epoch keys the first secret, 32',
  },
  'nonce-tail': {
    type: 'binary',
    minLength: NONCE_TAIL_BYTES,
    maxLength: NONCE_TAIL_BYTES,
    doc: 'Last 8 bytes of the nonce, behind the packet id; epoch keys do not use it',
  },
})

export const keyconf = attributes({
  'peer-id': { type: 'u32', max: PEER_ID_MAX, doc: 'Peer the key belongs to' },
  slot: { type: 'u32', enum: keySlot, doc: 'Where the key goes' },
  'key-id': { type: 'u32', max: 7, doc: 'Number of the key in packets' },
  'cipher-alg': {
    type: 'u32',
    enum: cipher,
    doc: 'Cipher; `none` is for debugging and refused unless the driver was told to allow it',
  },
  'encrypt-dir': { type: 'nest', of: keydir, doc: 'Key material to send with' },
  'decrypt-dir': { type: 'nest', of: keydir, doc: 'Key material to receive with' },
  format: {
    type: 'u32',
    enum: keyFormat,
    extension: true,
    doc: 'Form of the packets, classic if absent; with `epoch`, keys follow from a secret, one after the other',
  },
  'key-size': {
    type: 'u32',
    extension: true,
    doc: "Bytes of AES-GCM's keys, which an epoch secret does not tell: 16, 24 or 32; 32 if absent",
  },
  epoch: { type: 'u32', extension: true, doc: 'Epoch last sent with' },
})

export const drop = attributes({
  reason: { type: 'string', doc: 'Why packets were dropped' },
  count: { type: 'uint', doc: 'How many' },
})

/** A key as it may be shown: no material. */
export const peerKey = attributes({
  slot: { type: 'u32', enum: keySlot, doc: 'Where the key is' },
  'key-id': { type: 'u32', max: 7, doc: 'Number of the key in packets' },
  'cipher-alg': { type: 'u32', enum: cipher, doc: 'Cipher' },
  'age-ms': { type: 'uint', doc: 'Milliseconds since it was installed' },
  'packet-id': { type: 'uint', doc: 'Packet id last sent, in its epoch; 0 before the first' },
  format: { type: 'u32', enum: keyFormat, doc: 'Form of the packets' },
  epoch: { type: 'u32', doc: 'Epoch last sent with; 0 for a key that has none' },
})

export const peer = attributes({
  id: { type: 'u32', max: PEER_ID_MAX, doc: 'Number of the peer; what packets from it carry' },
  'remote-ipv4': { type: 'ipv4', doc: 'IPv4 address of the other end (UDP only)' },
  'remote-ipv6': { type: 'ipv6', doc: 'IPv6 address of the other end (UDP only)' },
  'remote-ipv6-scope-id': { type: 'u32', doc: 'Interface of a link-local remote address' },
  'remote-port': { type: 'port', doc: 'Port of the other end (UDP only)' },
  socket: { type: 'u32', doc: 'Descriptor of the transport socket in the caller' },
  'socket-netnsid': {
    type: 's32',
    doc: "Network namespace of the socket, where it is not the requester's",
  },
  'vpn-ipv4': { type: 'ipv4', doc: 'IPv4 address of the peer inside the tunnel' },
  'vpn-ipv6': { type: 'ipv6', doc: 'IPv6 address of the peer inside the tunnel' },
  'local-ipv4': { type: 'ipv4', doc: 'IPv4 address to send from; 0.0.0.0 leaves it to routing' },
  'local-ipv6': { type: 'ipv6', doc: 'IPv6 address to send from; :: leaves it to routing' },
  'local-port': { type: 'port', doc: 'Port of the transport socket' },
  'keepalive-interval': {
    type: 'u32',
    max: KEEPALIVE_MAX,
    doc: 'Seconds without sending after which a ping is sent',
  },
  'keepalive-timeout': {
    type: 'u32',
    max: KEEPALIVE_MAX,
    doc: 'Seconds without receiving after which the peer is removed',
  },
  'del-reason': { type: 'u32', enum: delReason, doc: 'Why the peer was removed' },
  'vpn-rx-bytes': { type: 'uint', doc: 'Bytes received inside the tunnel' },
  'vpn-tx-bytes': { type: 'uint', doc: 'Bytes sent inside the tunnel' },
  'vpn-rx-packets': { type: 'uint', doc: 'Packets received inside the tunnel' },
  'vpn-tx-packets': { type: 'uint', doc: 'Packets sent inside the tunnel' },
  'link-rx-bytes': { type: 'uint', doc: 'Bytes received by the transport' },
  'link-tx-bytes': { type: 'uint', doc: 'Bytes sent by the transport' },
  'link-rx-packets': { type: 'uint', doc: 'Packets received by the transport' },
  'link-tx-packets': { type: 'uint', doc: 'Packets sent by the transport' },
  'tx-id': { type: 'u32', max: PEER_ID_MAX, doc: 'What packets to the peer carry; else its id' },
  transport: { type: 'u32', enum: transport, extension: true, doc: 'How packets travel' },
  mssfix: {
    type: 'u32',
    max: MSSFIX_MAX,
    extension: true,
    doc: 'Bytes of a packet outside, IP header included, that TCP inside is made to fit (MSS), if the path takes no less (UDP only); 0: TCP is left alone',
  },
  'swap-wait-ms': {
    type: 'u32',
    max: SWAP_WAIT_MAX,
    extension: true,
    doc: 'Milliseconds after which packets are sent with the later one of two keys, swapped or not, as the peer has it by then; from the first packet heard with it, if that is earlier; until then with the former one, though `key-swap` came. A former key that was heard and is deleted opens packets for as long. 0: `key-swap` and `key-del` alone decide',
  },
  'last-rx-ms': {
    type: 'uint',
    extension: true,
    doc: 'Milliseconds since something was received; absent before the first packet',
  },
  'last-tx-ms': {
    type: 'uint',
    extension: true,
    doc: 'Milliseconds since something was sent; absent before the first packet',
  },
  keys: {
    type: 'nest',
    of: peerKey,
    multi: true,
    extension: true,
    doc: 'A key of the peer, one attribute for each',
  },
  drops: {
    type: 'nest',
    of: drop,
    multi: true,
    extension: true,
    doc: 'Packets of the peer that were dropped, one attribute per reason',
  },
})

export const link = attributes({
  ifindex: { type: 'u32', doc: 'Index of the interface' },
  name: { type: 'string', minLength: 1, maxLength: NAME_MAX, doc: 'Name of the interface' },
  kind: { type: 'u32', enum: linkKind, doc: 'Kind as rtnetlink has it' },
  mode: { type: 'u32', enum: mode, doc: 'One peer, or many told apart by VPN address' },
  mtu: { type: 'u32', doc: 'Largest packet inside the tunnel, in bytes' },
  netns: { type: 'uint', doc: 'Inode of the network namespace the interface was created in' },
  workers: { type: 'u32', doc: 'Threads that move packets' },
  provider: { type: 'string', doc: 'Library that encrypts' },
  features: { type: 'string', doc: 'Offloads in use, comma between them' },
  'rx-bytes': { type: 'uint', doc: 'Bytes received inside the tunnel' },
  'rx-packets': { type: 'uint', doc: 'Packets received inside the tunnel' },
  'tx-bytes': { type: 'uint', doc: 'Bytes sent inside the tunnel' },
  'tx-packets': { type: 'uint', doc: 'Packets sent inside the tunnel' },
  peers: { type: 'u32', doc: 'How many peers there are' },
  drops: {
    type: 'nest',
    of: drop,
    multi: true,
    doc: 'Packets that were dropped, one attribute per reason',
  },
})

export const packet = attributes({
  packet: {
    type: 'binary',
    maxLength: 65_535,
    doc: 'Control packet from its opcode on: no UDP header, no TCP length; with `inside`, what is sealed',
  },
  'peer-id': { type: 'u32', max: PEER_ID_MAX, doc: 'Peer it came from or goes to' },
  eof: {
    type: 'flag',
    extension: true,
    doc: "The peer's TCP stream ended; from the driver only, with an empty packet",
  },
  inside: {
    type: 'flag',
    extension: true,
    doc: "No control packet, but a message of OpenVPN's own (OCC) that travels sealed among data packets",
  },
})

/** Attributes at the top of a message. */
export const top = attributes({
  ifindex: { type: 'u32', doc: 'Interface the message is about' },
  peer: { type: 'nest', of: peer, doc: 'A peer' },
  keyconf: { type: 'nest', of: keyconf, doc: 'A key' },
  link: { type: 'nest', of: link, extension: true, doc: 'An interface' },
  packet: { type: 'nest', of: packet, extension: true, doc: 'A control packet' },
  extended: {
    type: 'flag',
    extension: true,
    doc: "Asks `peer-get` for this driver's own attributes too, `packet-register` for messages `inside` too",
  },
})

/** The nests a message can hold one of. */
export const nests = { peer, keyconf, link, packet } as const
export type NestName = keyof typeof nests

/** What one message holds: perhaps an ifindex, perhaps one nest. */
export type Message =
  | { readonly ifindex: boolean; readonly extended?: true; readonly nest?: undefined }
  | {
      [N in NestName]: {
        readonly ifindex: boolean
        readonly extended?: true
        readonly nest: N
        readonly required: readonly (keyof (typeof nests)[N])[]
        readonly optional: readonly (keyof (typeof nests)[N])[]
      }
    }[NestName]

export interface Command {
  readonly doc: string
  readonly extension?: true
  /** Request for one thing. */
  readonly do?: Message
  /** Request for all things. */
  readonly dump?: Message
  /** Answer beside the acknowledgement; a dump has one per thing. */
  readonly reply?: Message
}

export interface Notification {
  readonly doc: string
  readonly extension?: true
  readonly message: Message
}

const linkReply = {
  ifindex: false,
  nest: 'link',
  required: [
    'ifindex',
    'name',
    'kind',
    'mode',
    'mtu',
    'netns',
    'workers',
    'provider',
    'features',
    'rx-bytes',
    'rx-packets',
    'tx-bytes',
    'tx-packets',
    'peers',
    'drops',
  ],
  optional: [],
} as const satisfies Message

/** What a peer is told at its making, and may be told anew. */
const peerSettings = [
  'remote-ipv4',
  'remote-ipv6',
  'remote-ipv6-scope-id',
  'remote-port',
  'vpn-ipv4',
  'vpn-ipv6',
  'local-ipv4',
  'local-ipv6',
  'keepalive-interval',
  'keepalive-timeout',
  'tx-id',
  'mssfix',
  'swap-wait-ms',
] as const

export const commands = {
  'peer-new': {
    doc: 'Adds a peer. In point-to-point mode it takes the place of the one that is there.',
    do: {
      ifindex: true,
      nest: 'peer',
      required: ['id', 'socket'],
      optional: peerSettings,
    },
  },
  'peer-set': {
    doc: 'Changes a peer; what is absent stays as it is.',
    do: {
      ifindex: true,
      nest: 'peer',
      required: ['id'],
      optional: peerSettings,
    },
  },
  'peer-get': {
    doc: 'Tells about one peer, or all.',
    do: { ifindex: true, extended: true, nest: 'peer', required: ['id'], optional: [] },
    dump: { ifindex: true, extended: true },
    reply: {
      ifindex: false,
      nest: 'peer',
      required: [
        'id',
        'local-port',
        'keepalive-interval',
        'keepalive-timeout',
        'vpn-rx-bytes',
        'vpn-tx-bytes',
        'vpn-rx-packets',
        'vpn-tx-packets',
        'link-rx-bytes',
        'link-tx-bytes',
        'link-rx-packets',
        'link-tx-packets',
      ],
      optional: [
        'tx-id',
        'socket-netnsid',
        'remote-ipv4',
        'remote-ipv6',
        'remote-ipv6-scope-id',
        'remote-port',
        'vpn-ipv4',
        'vpn-ipv6',
        'local-ipv4',
        'local-ipv6',
        'transport',
        'mssfix',
        'swap-wait-ms',
        'last-rx-ms',
        'last-tx-ms',
        'keys',
        'drops',
      ],
    },
  },
  'peer-del': {
    doc: 'Removes a peer.',
    do: { ifindex: true, nest: 'peer', required: ['id'], optional: [] },
  },
  'key-new': {
    doc: 'Puts a key into a slot, in place of what is there.',
    do: {
      ifindex: true,
      nest: 'keyconf',
      required: ['peer-id', 'slot', 'key-id', 'cipher-alg', 'encrypt-dir', 'decrypt-dir'],
      optional: ['format', 'key-size'],
    },
  },
  'key-get': {
    doc: 'Tells which key is in a slot, without its material.',
    do: { ifindex: true, nest: 'keyconf', required: ['peer-id', 'slot'], optional: [] },
    reply: {
      ifindex: false,
      nest: 'keyconf',
      required: ['peer-id', 'slot', 'key-id', 'cipher-alg'],
      optional: ['format', 'epoch'],
    },
  },
  'key-swap': {
    doc: 'Makes the primary key the secondary and the secondary the primary, empty slots included.',
    do: { ifindex: true, nest: 'keyconf', required: ['peer-id'], optional: [] },
  },
  'key-del': {
    doc: 'Empties a slot.',
    do: { ifindex: true, nest: 'keyconf', required: ['peer-id', 'slot'], optional: [] },
  },
  'link-new': {
    doc: 'Creates an interface, as RTM_NEWLINK does.',
    extension: true,
    do: {
      ifindex: false,
      nest: 'link',
      required: ['kind', 'mode'],
      optional: ['name', 'mtu', 'workers'],
    },
    reply: linkReply,
  },
  'link-del': {
    doc: 'Removes an interface and its peers, as RTM_DELLINK does.',
    extension: true,
    do: { ifindex: true },
  },
  'link-get': {
    doc: 'Tells about one interface, or all.',
    extension: true,
    do: { ifindex: true },
    dump: { ifindex: false },
    reply: linkReply,
  },
  'packet-register': {
    doc: "Brings the interface's control packets that no socket can deliver to the requester, one per interface.",
    extension: true,
    do: { ifindex: true, extended: true },
  },
  packet: {
    doc: 'Sends a control packet to a peer as it stands, or a message inside the data channel.',
    extension: true,
    do: { ifindex: true, nest: 'packet', required: ['packet', 'peer-id'], optional: ['inside'] },
  },
} as const satisfies { readonly [name: string]: Command }

export const notifications = {
  'peer-del-ntf': {
    doc: 'A peer is gone.',
    message: { ifindex: true, nest: 'peer', required: ['id', 'del-reason'], optional: [] },
  },
  'key-swap-ntf': {
    doc: "Another key is needed. This one's packet ids are used up and it was removed; or it has epochs, works, and most are used up.",
    message: { ifindex: true, nest: 'keyconf', required: ['peer-id', 'key-id'], optional: [] },
  },
  'peer-float-ntf': {
    doc: 'A peer was heard, authenticated, from a new transport address.',
    message: {
      ifindex: true,
      nest: 'peer',
      required: ['id', 'remote-port'],
      optional: ['remote-ipv4', 'remote-ipv6', 'remote-ipv6-scope-id'],
    },
  },
  packet: {
    doc: 'A control packet or message of a peer, to the one who registered for them; not multicast.',
    extension: true,
    message: {
      ifindex: true,
      nest: 'packet',
      required: ['packet', 'peer-id'],
      optional: ['eof', 'inside'],
    },
  },
} as const satisfies { readonly [name: string]: Notification }
