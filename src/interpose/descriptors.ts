/**
 * Descriptors that a program names in its rtnetlink messages: of network namespaces. The kernel would look for them in the
 * process whose socket carries the message, which is not the program. Pure.
 */
import { type Attribute, align, attributes, NetlinkError, nested } from '../netlink/attribute.ts'
import { messages, NLMSG_HDRLEN } from '../netlink/message.ts'
import { RTM } from '../netlink/route.ts'

const IFINFOMSG_BYTES = 16
const RTGENMSG_BYTES = 4 // one byte, and padding
const RTM_NEWNSID = 88
const RTM_GETNSID = 90
const NETNSA_FD = 3
const IFLA_LINKINFO = 18
const IFLA_INFO_DATA = 2
const IFLA_NET_NS_FD = 28
/** VETH_INFO_PEER, VXCAN_INFO_PEER, IFLA_NETKIT_PEER_INFO: an ifinfomsg and attributes, of the other end. */
const PEERS: { readonly [kind: string]: number } = { veth: 1, vxcan: 1, netkit: 1 }
const IFLA_INFO_KIND = 1
const ATTRIBUTE_HEADER_BYTES = 4

/** Where descriptors stand in a datagram, each an `int`. What is malformed has none: the kernel refuses it. */
export function descriptorsIn(datagram: Uint8Array): number[] {
  const found: number[] = []
  let at = 0
  lenient(() => {
    for (const { type, payload, bytes } of messages(datagram)) {
      const start = at + NLMSG_HDRLEN
      at += align(bytes.length)
      lenient(() => {
        if (type === RTM.NEWLINK) found.push(...ofLink(payload, IFINFOMSG_BYTES, start))
        else if (type === RTM_NEWNSID || type === RTM_GETNSID) {
          found.push(...named(attributes(payload, RTGENMSG_BYTES, start), NETNSA_FD))
        }
      })
    }
  })
  return found
}

function lenient(read: () => void): void {
  try {
    read()
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
  }
}

function ofLink(payload: Uint8Array, header: number, start: number): number[] {
  const all = [...attributes(payload, header, start)]
  const info = all.find(({ type }) => type === IFLA_LINKINFO)
  const peer = info === undefined ? undefined : peerOf(info)
  return [
    ...named(all, IFLA_NET_NS_FD),
    ...(peer === undefined
      ? []
      : ofLink(peer.payload, IFINFOMSG_BYTES, peer.offset + ATTRIBUTE_HEADER_BYTES)),
  ]
}

function peerOf(info: Attribute): Attribute | undefined {
  const about = [...nested(info)]
  const kind = about.find(({ type }) => type === IFLA_INFO_KIND)
  const data = about.find(({ type }) => type === IFLA_INFO_DATA)
  if (kind === undefined || data === undefined) return undefined
  const number = PEERS[Buffer.from(kind.payload).toString().replace(/\0.*$/s, '')]
  return [...nested(data)].find(({ type }) => type === number)
}

function named(all: Iterable<Attribute>, type: number): number[] {
  return [...all]
    .filter((one) => one.type === type && one.payload.length === 4)
    .map(({ offset }) => offset + ATTRIBUTE_HEADER_BYTES)
}
