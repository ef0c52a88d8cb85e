/**
 * rtnetlink in terms of the driver's own requests: RTM_NEWLINK, RTM_DELLINK and RTM_GETLINK for the driver's links become
 * link-new, link-del and link-get. Everything else, other links included, is EOPNOTSUPP: that is for the kernel to
 * answer.
 *
 * Source: net/core/rtnetlink.c, netlink-api 6.
 */
import { NetlinkError } from '../netlink/attribute.ts'
import { type Message, NLM_F } from '../netlink/message.ts'
import {
  ARPHRD_NONE,
  decodeLink,
  encodeLink,
  IFF,
  type LinkMessage,
  RTM,
} from '../netlink/route.ts'
import { ApiError } from '../uapi/errno.ts'
import { mode as modes, NAME_MAX } from '../uapi/spec.ts'
import type { Link, LinkKind, LinkNew } from '../uapi/types.ts'

/** What the requests come down to. Each rejects with an ApiError. */
export interface LinkRequests {
  create(link: LinkNew): Promise<Link>
  remove(ifindex: number): Promise<void>
  change(ifindex: number, change: LinkChange): Promise<void>
  all(): Promise<Link[]>
}

/** What can be changed of a link; absent stays as it is. */
export interface LinkChange {
  /** Bytes. */
  mtu?: number
  up?: boolean
}

const isKind = (kind: string | undefined): kind is LinkKind =>
  kind === 'ovpn' || kind === 'ovpn-dco'

/** Answers a request that is no dump: the payload of its reply, an RTM_NEWLINK, if it has one. Rejects with an ApiError. */
export async function answerRoute(
  request: Message,
  links: LinkRequests,
): Promise<Uint8Array | undefined> {
  const { type } = request
  if (type !== RTM.NEWLINK && type !== RTM.DELLINK && type !== RTM.GETLINK) throw unserved()
  const asked = decoded(request)
  const found = find(asked, await links.all())
  if (type === RTM.NEWLINK && found === undefined) {
    if ((request.flags & NLM_F.CREATE) === 0) throw unserved()
    return create(asked, links)
  }
  if (found === undefined) throw unserved()
  if (type === RTM.GETLINK) return encodeLink(described(found))
  if (type === RTM.DELLINK) await links.remove(found.ifindex)
  else await change(found, asked, request.flags, links)
  return undefined
}

/** Answers RTM_GETLINK for all links: payloads of RTM_NEWLINK, of one kind if the request names it. */
export async function dumpRoute(request: Message, links: LinkRequests): Promise<Uint8Array[]> {
  if (request.type !== RTM.GETLINK) throw unserved()
  // Old programs send one byte of a header here.
  const kind = request.payload.length < 16 ? undefined : decoded(request).kind
  const wanted = (link: Link) => kind === undefined || kind === link.kind
  return (await links.all()).filter(wanted).map((link) => encodeLink(described(link)))
}

function unserved(): ApiError {
  return new ApiError('EOPNOTSUPP', 'not a request about a link of this driver')
}

function decoded({ payload }: Message): LinkMessage {
  try {
    return decodeLink(payload)
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
    throw new ApiError('EINVAL', error.message, undefined, { offset: error.offset })
  }
}

/** By index where there is one, else by name, as the kernel looks links up. */
function find({ index, name }: LinkMessage, links: readonly Link[]): Link | undefined {
  return links.find((link) => (index ? link.ifindex === index : link.name === name))
}

async function create(asked: LinkMessage, links: LinkRequests): Promise<undefined> {
  const { kind, name, mtu, index, netnsFd, mode = 0, flags = 0 } = asked
  if (!isKind(kind)) throw new ApiError('EOPNOTSUPP', 'Unknown device type')
  const modeName = modes[mode]
  if (modeName === undefined) throw new ApiError('ERANGE', 'integer out of range', 'link.mode')
  if (name === '') throw new ApiError('EINVAL', 'an empty name', 'link.name')
  if (name !== undefined && Buffer.byteLength(name) > NAME_MAX) {
    throw new ApiError('ERANGE', `a name of up to ${NAME_MAX} bytes is needed`, 'link.name')
  }
  if (index || netnsFd !== undefined) {
    throw new ApiError('EOPNOTSUPP', 'a link is made here, under the next free index')
  }
  const link = await links.create({
    kind,
    mode: modeName,
    ...(name !== undefined && { name }),
    ...(mtu !== undefined && { mtu }),
  })
  if ((flags & IFF.UP) !== 0) await links.change(link.ifindex, { up: true })
}

async function change(
  found: Link,
  asked: LinkMessage,
  requestFlags: number,
  links: LinkRequests,
): Promise<void> {
  if ((requestFlags & NLM_F.EXCL) !== 0) {
    throw new ApiError('EEXIST', 'a link of that name or index exists')
  }
  const { name, mode, mtu, netnsFd, flags = 0, change = 0 } = asked
  if (mode !== undefined) throw new ApiError('EOPNOTSUPP', 'the mode cannot be changed')
  // A kind alone is passed over, as by the kernel.
  const renamed = name !== undefined && name !== found.name
  if (renamed || netnsFd !== undefined || (change & ~IFF.UP) !== 0) {
    throw new ApiError('EOPNOTSUPP', 'only the MTU and "up" can be changed')
  }
  const changes: LinkChange = {}
  if (mtu !== undefined) changes.mtu = mtu
  if ((change & IFF.UP) !== 0) changes.up = (flags & IFF.UP) !== 0
  await links.change(found.ifindex, changes)
}

/** As RTM_GETLINK tells it; only the upstream driver tells the mode (netlink-api 6.2). */
function described(link: Link): LinkMessage {
  const { ifindex, name, mtu, kind, mode } = link
  const multicast = kind === 'ovpn-dco' ? IFF.MULTICAST : 0
  const dropped = (tx: boolean) =>
    link.drops
      .filter(({ reason }) => reason.startsWith('tx-') === tx)
      .reduce((sum, { count }) => sum + count, 0)
  return {
    type: ARPHRD_NONE,
    index: ifindex,
    flags: IFF.POINTOPOINT | IFF.NOARP | multicast,
    name,
    mtu,
    kind,
    ...(kind === 'ovpn' && { mode: modes.indexOf(mode) }),
    counters: {
      rxPackets: link.rxPackets,
      txPackets: link.txPackets,
      rxBytes: link.rxBytes,
      txBytes: link.txBytes,
      rxErrors: 0,
      txErrors: 0,
      rxDropped: dropped(false),
      txDropped: dropped(true),
    },
  }
}
