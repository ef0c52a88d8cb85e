/**
 * TUN devices: made, moved to the namespace they are wanted in, and set up for whole trains of packets. What is read
 * from their queues and written to them is the driver's business.
 */

import { check, OsError } from './error.ts'
import {
  AF_INET,
  E,
  ETHTOOL_GLINK,
  IFF_MULTI_QUEUE,
  IFF_MULTICAST,
  IFF_NO_PI,
  IFF_TUN,
  IFF_TUN_EXCL,
  IFF_UP,
  IFF_VNET_HDR,
  IFINFOMSG,
  IFLA_IFNAME,
  IFLA_MTU,
  IFLA_NET_NS_FD,
  IFLA_STATS64,
  IFREQ,
  NETLINK_ROUTE,
  NLM_F_ACK,
  NLM_F_REQUEST,
  NLMSGHDR,
  RTM_GETLINK,
  RTM_NEWLINK,
  SIOCETHTOOL,
  SIOCGIFINDEX,
  SIOCGIFMTU,
  SIOCGIFNAME,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_USO4,
  TUN_F_USO6,
  TUNGETIFF,
  TUNSETCARRIER,
  TUNSETIFF,
  TUNSETOFFLOAD,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { createBlock } from './memory.ts'
import {
  askNetlink,
  decodeAttributes,
  deviceNetns,
  encodeMessage,
  openNetlink,
  u32,
} from './netlink.ts'
import { inNetns, netnsId, ownNetnsId } from './netns.ts'
import type { Syscalls } from './syscalls.ts'
import { openTunFile, TUN_PATH } from './tun-door.ts'

const DEFAULT_NAME = 'ovpn%d' // as the kernel names an `ovpn` link that was given no name
const PASSING_NAME = 'ovpnnew%d' // while the device is on its way to another namespace
const NAME_CHARS = 15

export interface TunOptions {
  /** Up to 15 characters; a `%d` in it stands for the first free number. `ovpn%d` unless told. */
  name?: string
  /** Namespace the device is to be in; the calling thread's unless told. The descriptor stays the caller's. */
  netns?: number
  mtu?: number
  /** Descriptors to read and write the device by; 1 unless told. */
  queues?: number
  /** Whole trains in both directions; true unless told. Packets carry a `virtio_net_hdr` in any case. */
  offload?: boolean
  /** Whether the device can be used at once; true unless told. */
  carrier?: boolean
  /** Whether the kernel's own multicast is sent into it; true unless told. */
  multicast?: boolean
}

/** Counted by the kernel: `rx` is what was written to a queue, `tx` what was sent into the device. */
export interface LinkStats {
  rxPackets: number
  txPackets: number
  rxBytes: number
  txBytes: number
  rxErrors: number
  txErrors: number
  rxDropped: number
  txDropped: number
}

export interface Tun extends Disposable {
  /** One per queue, non-blocking. Reads give -EBADFD once the device has been removed. */
  readonly fds: readonly number[]
  /** Name and index as they were when it was made. */
  readonly name: string
  readonly ifindex: number
  /** Which trains the kernel hands over and takes. */
  readonly offloads: { readonly tso: boolean; readonly uso: boolean }
  /** As it is now. @throws OsError when the device is gone */
  mtu(): number
  /** Changes its largest packet (bytes) and whether it is up. @throws OsError, EINVAL for an MTU it cannot have */
  configure(change: { mtu?: number; up?: boolean }): void
  /** Does nothing when the device is gone. */
  setCarrier(on: boolean): void
  /** @throws OsError when the device is gone */
  stats(): LinkStats
  /** Removes the device. */
  close(): void
}

/**
 * Makes a TUN device. Its descriptors are of the calling thread's namespace, wherever the device goes: so they do not
 * keep the device's alive, and are told EBADFD when it ends.
 *
 * @throws OsError EEXIST when the name is taken, and nothing is left behind then; ENOENT or EPERM with the remedy; EINVAL
 */
export function openTun(options: TunOptions = {}, os: Syscalls = openLibc()): Tun {
  const { name = DEFAULT_NAME, netns, mtu, queues = 1, offload = true, carrier = true } = options
  if (!/^[^/\s:\0]+$/.test(name) || name.length > NAME_CHARS || name === '.' || name === '..') {
    throw new OsError(E.EINVAL, 'TUNSETIFF', `not a name for a network device: ${name}`)
  }
  const elsewhere = netns !== undefined && netnsId(netns, os) !== ownNetnsId(os)
  const flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | (queues > 1 ? IFF_MULTI_QUEUE : 0)
  const fds: number[] = []
  const close = () => {
    for (const fd of fds.splice(0)) os.close(fd)
  }
  try {
    const first = openQueue(os)
    fds.push(first)
    const madeAs = attach(os, first, elsewhere ? PASSING_NAME : name, flags | IFF_TUN_EXCL)
    // the other queues find the device by its name, in the namespace their descriptors are of: before it moves
    while (fds.length < queues) {
      const fd = openQueue(os)
      fds.push(fd)
      attach(os, fd, madeAs, flags)
    }
    const offloads = { tso: false, uso: false }
    if (offload) {
      for (const fd of fds) Object.assign(offloads, setOffloads(os, fd))
    }
    if (!carrier) setCarrier(os, first, false)
    const { multicast } = options
    change(os, first, madeAs, elsewhere ? { netns, name, mtu, multicast } : { mtu, multicast })
    const found = inDeviceNetns(os, first, (socket) => identify(os, first, socket))
    return {
      fds,
      ...found,
      offloads,
      mtu: () => inDeviceNetns(os, first, (socket) => mtuOf(os, first, socket)),
      configure: (change) => configure(os, first, found, change),
      setCarrier: (on) => {
        if (setCarrier(os, first, on) >= 0 && on) settleCarrier(os, first)
      },
      stats: () => linkStats(first, os),
      close,
      [Symbol.dispose]: close,
    }
  } catch (error) {
    close()
    throw error
  }
}

function openQueue(os: Syscalls): number {
  const fd = openTunFile(os)
  if (fd >= 0) return fd
  throw new OsError(-fd, 'open', `cannot open ${TUN_PATH}; ${remedyOfOpen(-fd)}`)
}

function remedyOfOpen(errno: number): string {
  if (errno === E.ENOENT) {
    return `make it (mkdir -p /dev/net; mknod ${TUN_PATH} c 10 200), or start the container with --device ${TUN_PATH}`
  }
  if (errno === E.ENODEV) return 'the kernel has no TUN driver: modprobe tun'
  if (errno === E.EPERM || errno === E.EACCES) {
    return `it is closed to this process: start the container with --device ${TUN_PATH}, or allow reading and writing it`
  }
  return 'see the error'
}

/** Attaches a queue to the device called `name`, which is made unless it is there. Returns its name. */
function attach(os: Syscalls, fd: number, name: string, flags: number): string {
  const request = createBlock(IFREQ.size)
  request.u8.set(Buffer.from(name))
  request.view.setUint16(IFREQ.flags, flags, true)
  const made = os.ioctl(fd, TUNSETIFF, request.base)
  if (made === -E.EBUSY && (flags & IFF_TUN_EXCL) !== 0) throw taken(name)
  if (made === -E.EPERM) {
    throw new OsError(
      E.EPERM,
      'TUNSETIFF',
      `cannot make the network device ${name}; it takes CAP_NET_ADMIN: run as root, or start the container with --cap-add NET_ADMIN`,
    )
  }
  check(made, 'TUNSETIFF', `cannot make the network device ${name}`)
  return nameIn(request.u8)
}

function taken(name: string): OsError {
  return new OsError(E.EEXIST, 'TUNSETIFF', `a network device is already called ${name}`)
}

function nameIn(request: Uint8Array): string {
  const bytes = request.subarray(IFREQ.name, IFREQ.name + IFREQ.nameBytes)
  const end = bytes.indexOf(0)
  return Buffer.from(bytes.subarray(0, end < 0 ? undefined : end)).toString()
}

function setOffloads(os: Syscalls, fd: number): { tso: boolean; uso: boolean } {
  const tso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
  if (os.ioctl(fd, TUNSETOFFLOAD, tso | TUN_F_USO4 | TUN_F_USO6) >= 0) {
    return { tso: true, uso: true } // Linux 6.2 and later
  }
  if (os.ioctl(fd, TUNSETOFFLOAD, tso) >= 0) return { tso: true, uso: false }
  return { tso: false, uso: false }
}

function setCarrier(os: Syscalls, fd: number, on: boolean): number {
  const value = createBlock(4)
  value.view.setInt32(0, on ? 1 : 0, true)
  return os.ioctl(fd, TUNSETCARRIER, value.base)
}

/**
 * Has the kernel act on the carrier now: asking whether there is a link does that (linkwatch_sync_dev). Otherwise packets are
 * dropped without a word until it has got round to it.
 */
function settleCarrier(os: Syscalls, fd: number): void {
  const value = createBlock(8)
  value.view.setUint32(0, ETHTOOL_GLINK, true)
  try {
    inDeviceNetns(os, fd, (socket) => {
      const request = requestOf(os, fd)
      request.view.setBigUint64(IFREQ.data, BigInt(value.base), true)
      os.ioctl(socket, SIOCETHTOOL, request.base)
    })
  } catch (error) {
    if (!(error instanceof OsError)) throw error // the device is gone, and told elsewhere
  }
}

/** Changes the fresh device by one message, sent in the calling thread's namespace. */
function change(
  os: Syscalls,
  fd: number,
  madeAs: string,
  to: {
    netns?: number | undefined
    name?: string
    mtu?: number | undefined
    multicast?: boolean | undefined
  },
): void {
  const attributes: [number, Uint8Array][] = []
  if (to.netns !== undefined) attributes.push([IFLA_NET_NS_FD, u32(to.netns)])
  if (to.name !== undefined) attributes.push([IFLA_IFNAME, Buffer.from(`${to.name}\0`)])
  if (to.mtu !== undefined) attributes.push([IFLA_MTU, u32(to.mtu)])
  if (attributes.length === 0 && to.multicast !== false) return
  const header = createBlock(IFINFOMSG.size)
  if (to.multicast === false) header.view.setUint32(IFINFOMSG.change, IFF_MULTICAST, true)
  const { ifindex } = inDeviceNetns(os, fd, (socket) => identify(os, fd, socket))
  header.view.setInt32(IFINFOMSG.index, ifindex, true)
  using route = openNetlink(NETLINK_ROUTE, {}, os)
  const message = encodeMessage(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, header.u8, attributes)
  try {
    askNetlink(route, message, `cannot set up the network device ${to.name ?? madeAs}`)
  } catch (error) {
    if (error instanceof OsError && error.errno === E.EEXIST) throw taken(to.name ?? madeAs)
    throw error
  }
}

function configure(
  os: Syscalls,
  fd: number,
  device: { name: string; ifindex: number },
  { mtu, up }: { mtu?: number; up?: boolean },
): void {
  const header = createBlock(IFINFOMSG.size)
  header.view.setInt32(IFINFOMSG.index, device.ifindex, true)
  if (up !== undefined) {
    header.view.setUint32(IFINFOMSG.change, IFF_UP, true)
    header.view.setUint32(IFINFOMSG.flags, up ? IFF_UP : 0, true)
  }
  const attributes: [number, Uint8Array][] = mtu === undefined ? [] : [[IFLA_MTU, u32(mtu)]]
  const netns = deviceNetns(fd, os)
  try {
    using route = openNetlink(NETLINK_ROUTE, { netns }, os)
    const message = encodeMessage(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, header.u8, attributes)
    askNetlink(route, message, `cannot change the network device ${device.name}`)
  } finally {
    os.close(netns)
  }
}

/** Whether there is a network device of this index in a namespace, the caller's descriptor. @throws OsError */
export function hasInterface(netns: number, ifindex: number, os: Syscalls = openLibc()): boolean {
  const open = () => os.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
  const socket = check(inNetns(netns, open, os), 'socket', 'cannot ask about a network device')
  try {
    const request = createBlock(IFREQ.size)
    request.view.setInt32(IFREQ.ifindex, ifindex, true)
    return os.ioctl(socket, SIOCGIFNAME, request.base) >= 0
  } finally {
    os.close(socket)
  }
}

/** Runs `visit` with a socket of the namespace the device is in now. @throws OsError EBADFD when it is gone */
function inDeviceNetns<T>(os: Syscalls, fd: number, visit: (socket: number) => T): T {
  const netns = deviceNetns(fd, os)
  try {
    const open = () => os.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    const socket = check(inNetns(netns, open, os), 'socket', 'cannot ask about a network device')
    try {
      return visit(socket)
    } finally {
      os.close(socket)
    }
  } finally {
    os.close(netns)
  }
}

function identify(os: Syscalls, fd: number, socket: number): { name: string; ifindex: number } {
  const request = requestOf(os, fd)
  const name = nameIn(request.u8)
  check(os.ioctl(socket, SIOCGIFINDEX, request.base), 'SIOCGIFINDEX', `${name} has gone`)
  return { name, ifindex: request.view.getInt32(IFREQ.ifindex, true) }
}

function mtuOf(os: Syscalls, fd: number, socket: number): number {
  const request = requestOf(os, fd)
  check(os.ioctl(socket, SIOCGIFMTU, request.base), 'SIOCGIFMTU', 'the network device has gone')
  return request.view.getInt32(IFREQ.mtu, true)
}

/** A request about the device, under the name it has now. */
function requestOf(os: Syscalls, fd: number) {
  const request = createBlock(IFREQ.size)
  check(os.ioctl(fd, TUNGETIFF, request.base), 'TUNGETIFF', 'the network device has gone')
  return request
}

/** What the kernel has counted for the device of a queue. @throws OsError when the device is gone */
export function linkStats(tunFd: number, os: Syscalls = openLibc()): LinkStats {
  const { ifindex } = inDeviceNetns(os, tunFd, (socket) => identify(os, tunFd, socket))
  const header = createBlock(IFINFOMSG.size)
  header.view.setInt32(IFINFOMSG.index, ifindex, true)
  const netns = deviceNetns(tunFd, os)
  try {
    using route = openNetlink(NETLINK_ROUTE, { netns }, os)
    const message = encodeMessage(RTM_GETLINK, NLM_F_REQUEST, header.u8, [])
    const [link] = askNetlink(route, message, 'cannot ask about a network device')
    const stats = link && decodeAttributes(link, NLMSGHDR.size + IFINFOMSG.size).get(IFLA_STATS64)
    if (stats === undefined) throw new OsError(E.ENODEV, 'RTM_GETLINK', 'no counters of the device')
    const view = new DataView(stats.buffer, stats.byteOffset, stats.length)
    const at = (field: number) => Number(view.getBigUint64(8 * field, true))
    return {
      rxPackets: at(0),
      txPackets: at(1),
      rxBytes: at(2),
      txBytes: at(3),
      rxErrors: at(4),
      txErrors: at(5),
      rxDropped: at(6),
      txDropped: at(7),
    }
  } finally {
    os.close(netns)
  }
}
