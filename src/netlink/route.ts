/**
 * The subset of rtnetlink that links, addresses, routes and namespace ids need, both ways. Payloads start behind the
 * netlink header; attributes that are not named here are skipped when read. Addresses are 4 or 16 bytes in network
 * order, with their text beside.
 *
 * Source: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, net_namespace.h, veth.h; netlink-api 6.
 */
import ipaddr from 'ipaddr.js'
import {
  ATTRIBUTE_HDRLEN,
  type Attribute,
  attributes,
  NetlinkError,
  nested,
  readS32,
  readString,
  readU8,
  readU32,
  readU64,
  Writer,
} from './attribute.ts'
import { NLMSG_HDRLEN } from './message.ts'

export const RTM = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWNSID: 88,
  GETNSID: 90,
} as const

export const AF = { UNSPEC: 0, INET: 2, INET6: 10, PACKET: 17 } as const

export const IFF = {
  UP: 0x1,
  POINTOPOINT: 0x10,
  RUNNING: 0x40,
  NOARP: 0x80,
  MULTICAST: 0x1000,
  LOWER_UP: 0x10000,
} as const

/** Link type of a device without link-layer addresses. */
export const ARPHRD_NONE = 0xfffe

const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  TXQLEN: 13,
  LINKINFO: 18,
  STATS64: 23,
  NET_NS_FD: 28,
  CARRIER: 33,
  LINK_NETNSID: 37,
} as const
const IFLA_INFO = { KIND: 1, DATA: 2 } as const
const IFLA_OVPN_MODE = 1
const VETH_INFO_PEER = 1
const IFA = { ADDRESS: 1, LOCAL: 2, LABEL: 3, BROADCAST: 4, FLAGS: 8 } as const
const RTA = {
  DST: 1,
  OIF: 4,
  GATEWAY: 5,
  PRIORITY: 6,
  PREFSRC: 7,
  TABLE: 15,
  VIA: 18,
} as const

const IFINFOMSG_BYTES = 16
const IFADDRMSG_BYTES = 8
const RTMSG_BYTES = 12
/** struct rtnl_link_stats64; older kernels lack some of its end. */
const STATS64_BYTES = 200

/** rtnetlink marks no nest. */
const UNMARKED = { flag: false }

const isOvpn = (kind: string | undefined): boolean => kind === 'ovpn' || kind === 'ovpn-dco'

export interface LinkCounters {
  readonly rxPackets: number
  readonly txPackets: number
  readonly rxBytes: number
  readonly txBytes: number
  readonly rxErrors: number
  readonly txErrors: number
  readonly rxDropped: number
  readonly txDropped: number
}

/** NEWLINK, DELLINK, GETLINK. What is absent is not in the message. */
export interface LinkMessage {
  readonly family?: number
  /** ARPHRD number. */
  readonly type?: number
  readonly index?: number
  readonly flags?: number
  /** Which of the flags to change. */
  readonly change?: number
  readonly name?: string
  readonly mtu?: number
  /** Packets. */
  readonly queueLength?: number
  readonly kind?: string
  /** IFLA_OVPN_MODE of the kinds `ovpn` and `ovpn-dco`, as it stands: 0 is p2p, 1 is mp. */
  readonly mode?: number
  /** The other end of a new veth pair. */
  readonly peer?: LinkMessage
  /** Descriptor of the network namespace that the link is made in or moved to. */
  readonly netnsFd?: number
  /** Namespace id of the link's other end, or of the link in a notification. */
  readonly linkNetnsId?: number
  readonly carrier?: boolean
  /** Of its hardware, as many bytes as that has. */
  readonly hardwareAddress?: Uint8Array
  readonly counters?: LinkCounters
}

/** NEWADDR, DELADDR, GETADDR. */
export interface AddressMessage {
  readonly family: number
  readonly prefix: number
  readonly index: number
  readonly scope?: number
  readonly flags?: number
  /** The peer's on a point-to-point link, else the same as `local`. */
  readonly address?: Uint8Array
  readonly local?: Uint8Array
  readonly broadcast?: Uint8Array
  readonly label?: string
}

/** NEWROUTE, DELROUTE, GETROUTE; in a GETROUTE without DUMP, `destination` is what to look up. */
export interface RouteMessage {
  readonly family: number
  /** Absent for the default route. */
  readonly destination?: Uint8Array
  /** Bits of `destination`; all of it where absent, 0 without one. */
  readonly prefix?: number
  /** Of either family: one of the other goes as RTA_VIA. */
  readonly gateway?: Uint8Array
  /** Index of the outgoing interface. */
  readonly oif?: number
  /** 254 (main) where absent. */
  readonly table?: number
  readonly priority?: number
  /** Preferred source address. */
  readonly source?: Uint8Array
  /** Who made it; 3 (boot) where absent. */
  readonly protocol?: number
  /** 0 (universe) where absent; 253 (link) for what is reached without gateway. */
  readonly scope?: number
  /** 1 (unicast) where absent. */
  readonly type?: number
  readonly flags?: number
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

const dataView = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** The fixed part of a payload. Throws a NetlinkError if it is cut short. */
function fixedPart(payload: Uint8Array, bytes: number, base = NLMSG_HDRLEN): DataView {
  if (payload.length < bytes) {
    throw new NetlinkError(`${bytes} bytes expected, not ${payload.length},`, base)
  }
  return dataView(payload)
}

export function encodeLink(link: LinkMessage): Uint8Array {
  return encodeLinkInto(new Writer(ifinfomsg(link)), link).finish()
}

/** `| family 1 | 0 1 | type 2 | index 4 | flags 4 | change 4 |` */
function ifinfomsg(link: LinkMessage): Uint8Array {
  const bytes = new Uint8Array(IFINFOMSG_BYTES)
  const view = dataView(bytes)
  view.setUint8(0, link.family ?? AF.UNSPEC)
  view.setUint16(2, link.type ?? 0, true)
  view.setInt32(4, link.index ?? 0, true)
  view.setUint32(8, link.flags ?? 0, true)
  view.setUint32(12, link.change ?? 0, true)
  return bytes
}

function encodeLinkInto(writer: Writer, link: LinkMessage): Writer {
  const { name, mtu, queueLength, kind, mode, peer, netnsFd, linkNetnsId, carrier, counters } = link
  if (name !== undefined) writer.string(IFLA.IFNAME, name)
  if (mtu !== undefined) writer.u32(IFLA.MTU, mtu)
  if (queueLength !== undefined) writer.u32(IFLA.TXQLEN, queueLength)
  if (netnsFd !== undefined) writer.u32(IFLA.NET_NS_FD, netnsFd)
  if (linkNetnsId !== undefined) writer.u32(IFLA.LINK_NETNSID, linkNetnsId)
  if (carrier !== undefined) writer.u8(IFLA.CARRIER, carrier ? 1 : 0)
  if (counters !== undefined) writer.bytes(IFLA.STATS64, encodeCounters(counters))
  if (kind === undefined) return writer
  const data = (info: Writer) => {
    if (mode !== undefined) info.u8(IFLA_OVPN_MODE, mode)
    if (peer !== undefined) {
      const other = new Writer(ifinfomsg(peer))
      info.bytes(VETH_INFO_PEER, encodeLinkInto(other, peer).finish())
    }
  }
  const info = (writer: Writer) => {
    writer.string(IFLA_INFO.KIND, kind)
    if (mode !== undefined || peer !== undefined) writer.nest(IFLA_INFO.DATA, data, UNMARKED)
  }
  return writer.nest(IFLA.LINKINFO, info, UNMARKED)
}

/** Throws a NetlinkError on a message that is malformed. */
export function decodeLink(payload: Uint8Array): LinkMessage {
  return decodeLinkAt(payload, NLMSG_HDRLEN, false)
}

/** `ofPair`: as the other end of a veth pair, which has none of its own: bounds the recursion. */
function decodeLinkAt(payload: Uint8Array, base: number, ofPair: boolean): LinkMessage {
  const view = fixedPart(payload, IFINFOMSG_BYTES, base)
  const link: Mutable<LinkMessage> = {
    family: view.getUint8(0),
    type: view.getUint16(2, true),
    index: view.getInt32(4, true),
    flags: view.getUint32(8, true),
    change: view.getUint32(12, true),
  }
  for (const attribute of attributes(payload, IFINFOMSG_BYTES, base)) {
    const { type } = attribute
    if (type === IFLA.IFNAME) link.name = readString(attribute)
    else if (type === IFLA.ADDRESS) link.hardwareAddress = attribute.payload
    else if (type === IFLA.MTU) link.mtu = readU32(attribute)
    else if (type === IFLA.TXQLEN) link.queueLength = readU32(attribute)
    else if (type === IFLA.NET_NS_FD) link.netnsFd = readU32(attribute)
    else if (type === IFLA.LINK_NETNSID) link.linkNetnsId = readS32(attribute)
    else if (type === IFLA.CARRIER) link.carrier = readU8(attribute) !== 0
    else if (type === IFLA.STATS64) link.counters = decodeCounters(attribute)
    else if (type === IFLA.LINKINFO) decodeInfo(attribute, link, ofPair)
  }
  return link
}

function decodeInfo(info: Attribute, link: Mutable<LinkMessage>, ofPair: boolean): void {
  let data: Attribute | undefined
  for (const attribute of nested(info)) {
    if (attribute.type === IFLA_INFO.KIND) link.kind = readString(attribute)
    else if (attribute.type === IFLA_INFO.DATA) data = attribute
  }
  if (data === undefined) return
  if (isOvpn(link.kind)) {
    for (const attribute of nested(data)) {
      // As the kernel reads it: bytes behind the first do not count, and without one it is out of range.
      if (attribute.type === IFLA_OVPN_MODE) link.mode = attribute.payload[0] ?? 0xff
    }
  } else if (link.kind === 'veth' && !ofPair) {
    for (const attribute of nested(data)) {
      const { type, payload, offset } = attribute
      if (type === VETH_INFO_PEER)
        link.peer = decodeLinkAt(payload, offset + ATTRIBUTE_HDRLEN, true)
    }
  }
}

const COUNTERS = [
  'rxPackets',
  'txPackets',
  'rxBytes',
  'txBytes',
  'rxErrors',
  'txErrors',
  'rxDropped',
  'txDropped',
] as const satisfies readonly (keyof LinkCounters)[]

function encodeCounters(counters: LinkCounters): Uint8Array {
  const bytes = new Uint8Array(STATS64_BYTES)
  const view = dataView(bytes)
  for (const [i, name] of COUNTERS.entries()) {
    view.setUint32(8 * i, counters[name], true)
    view.setUint32(8 * i + 4, counters[name] / 2 ** 32, true)
  }
  return bytes
}

function decodeCounters(attribute: Attribute): LinkCounters {
  const { payload, offset } = attribute
  if (payload.length < 8 * COUNTERS.length) {
    throw new NetlinkError(`${8 * COUNTERS.length} bytes of link counters expected`, offset)
  }
  const counter = (i: number) => {
    return readU64({ ...attribute, payload: payload.subarray(8 * i, 8 * i + 8) })
  }
  return Object.fromEntries(
    COUNTERS.map((name, i) => [name, counter(i)]),
  ) as unknown as LinkCounters
}

export function encodeAddress(address: AddressMessage): Uint8Array {
  const { family, prefix, index, scope = 0, flags = 0 } = address
  // | family 1 | prefix 1 | flags 1 | scope 1 | index 4 |
  const fixed = new Uint8Array(IFADDRMSG_BYTES)
  const view = dataView(fixed)
  fixed.set([family, prefix, flags & 0xff, scope])
  view.setUint32(4, index, true)
  const writer = new Writer(fixed)
  if (address.address !== undefined) writer.bytes(IFA.ADDRESS, address.address)
  if (address.local !== undefined) writer.bytes(IFA.LOCAL, address.local)
  if (address.label !== undefined) writer.string(IFA.LABEL, address.label)
  if (address.broadcast !== undefined) writer.bytes(IFA.BROADCAST, address.broadcast)
  if (flags > 0xff) writer.u32(IFA.FLAGS, flags)
  return writer.finish()
}

/** Throws a NetlinkError on a message that is malformed. */
export function decodeAddress(payload: Uint8Array): AddressMessage {
  const view = fixedPart(payload, IFADDRMSG_BYTES)
  const address: Mutable<AddressMessage> = {
    family: view.getUint8(0),
    prefix: view.getUint8(1),
    flags: view.getUint8(2),
    scope: view.getUint8(3),
    index: view.getUint32(4, true),
  }
  for (const attribute of attributes(payload, IFADDRMSG_BYTES, NLMSG_HDRLEN)) {
    const { type } = attribute
    if (type === IFA.ADDRESS) address.address = readAddress(attribute)
    else if (type === IFA.LOCAL) address.local = readAddress(attribute)
    else if (type === IFA.BROADCAST) address.broadcast = readAddress(attribute)
    else if (type === IFA.LABEL) address.label = readString(attribute)
    else if (type === IFA.FLAGS) address.flags = readU32(attribute)
  }
  return address
}

export function encodeRoute(route: RouteMessage): Uint8Array {
  const { family, destination, gateway, source, oif, priority, table = 254 } = route
  // | family 1 | dst bits 1 | src bits 1 | tos 1 | table 1 | protocol 1 | scope 1 | type 1 | flags 4 |
  const fixed = new Uint8Array(RTMSG_BYTES)
  const prefix = route.prefix ?? 8 * (destination?.length ?? 0)
  const { protocol = 3, scope = 0, type = 1, flags = 0 } = route
  fixed.set([family, prefix, 0, 0, table > 0xff ? 0 : table, protocol, scope, type])
  dataView(fixed).setUint32(8, flags, true)
  const writer = new Writer(fixed)
  if (table > 0xff) writer.u32(RTA.TABLE, table)
  if (destination !== undefined) writer.bytes(RTA.DST, destination)
  if (source !== undefined) writer.bytes(RTA.PREFSRC, source)
  if (gateway !== undefined) {
    if (familyOf(gateway) === family) {
      writer.bytes(RTA.GATEWAY, gateway)
    } else {
      const via = new Uint8Array(2 + gateway.length)
      dataView(via).setUint16(0, familyOf(gateway), true)
      via.set(gateway, 2)
      writer.bytes(RTA.VIA, via)
    }
  }
  if (oif !== undefined) writer.u32(RTA.OIF, oif)
  if (priority !== undefined) writer.u32(RTA.PRIORITY, priority)
  return writer.finish()
}

/** Throws a NetlinkError on a message that is malformed. */
export function decodeRoute(payload: Uint8Array): RouteMessage {
  const view = fixedPart(payload, RTMSG_BYTES)
  const route: Mutable<RouteMessage> = {
    family: view.getUint8(0),
    prefix: view.getUint8(1),
    table: view.getUint8(4),
    protocol: view.getUint8(5),
    scope: view.getUint8(6),
    type: view.getUint8(7),
    flags: view.getUint32(8, true),
  }
  for (const attribute of attributes(payload, RTMSG_BYTES, NLMSG_HDRLEN)) {
    const { type } = attribute
    if (type === RTA.DST) route.destination = readAddress(attribute)
    else if (type === RTA.PREFSRC) route.source = readAddress(attribute)
    else if (type === RTA.GATEWAY) route.gateway = readAddress(attribute)
    else if (type === RTA.VIA) route.gateway = readVia(attribute)
    else if (type === RTA.OIF) route.oif = readU32(attribute)
    else if (type === RTA.PRIORITY) route.priority = readU32(attribute)
    else if (type === RTA.TABLE) route.table = readU32(attribute)
  }
  return route
}

function readAddress({ payload, type, offset }: Attribute): Uint8Array {
  if (payload.length !== 4 && payload.length !== 16) {
    throw new NetlinkError(
      `an address of 4 or 16 bytes expected in attribute ${type}, not ${payload.length},`,
      offset,
    )
  }
  return payload.slice()
}

/** struct rtvia: `| family 2 | address 4 or 16 |` */
function readVia(attribute: Attribute): Uint8Array {
  return readAddress({ ...attribute, payload: attribute.payload.subarray(2) })
}

const familyOf = (address: Uint8Array): number => (address.length === 4 ? AF.INET : AF.INET6)

/** Four numbers without leading zeros, which would make them octal elsewhere. */
const IPV4 = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/

/** Bytes of an address in text: 4 or 16. Throws a RangeError on anything but a plain IPv4 or IPv6 address. */
export function parseAddress(text: string): Uint8Array {
  // IPv4 in other than four decimal parts, and zones, are for no message to carry. ipaddr.js takes 9 µs, and a new peer has ten of them.
  const parts = IPV4.exec(text)
  if (parts !== null) {
    const bytes = new Uint8Array(4)
    for (let i = 0; i < 4; i++) {
      const part = Number(parts[i + 1])
      if (part > 255) throw new RangeError(`an IPv4 address has no part ${part}: ${text}`)
      bytes[i] = part
    }
    return bytes
  }
  if (text.includes('%') || !ipaddr.IPv6.isValid(text)) {
    throw new RangeError(`an IPv4 or IPv6 address expected, not ${JSON.stringify(text)}`)
  }
  return Uint8Array.from(ipaddr.IPv6.parse(text).toByteArray())
}

/** Text of 4 or 16 bytes: dotted, or RFC 5952 (an IPv4-mapped address with its dotted part, section 5 there). */
export function formatAddress(bytes: Uint8Array): string {
  const address = ipaddr.fromByteArray([...bytes])
  if (address instanceof ipaddr.IPv4) return address.toString()
  const v6 = address as ipaddr.IPv6
  return v6.isIPv4MappedAddress() ? `::ffff:${v6.toIPv4Address()}` : v6.toRFC5952String()
}
