/** Addresses and routes of a network namespace, through the kernel's rtnetlink (openvpn/network.ts). */
import { networkInterfaces } from 'node:os'
import { message, NLM_F, NLMSG_HDRLEN } from '../netlink/message.ts'
import {
  decodeLink,
  decodeRoute,
  encodeAddress,
  encodeLink,
  encodeRoute,
  formatAddress,
  IFF,
  parseAddress,
  RTM,
} from '../netlink/route.ts'
import type { InterfaceAddress, Network, NextHop, SystemRoute } from '../openvpn/network.ts'
import { OsError } from '../platform/error.ts'
import { AF_INET, AF_INET6, E } from '../platform/layout.ts'
import { askNetlink, openNetlink } from '../platform/netlink.ts'

const NETLINK_ROUTE = 0
const ESRCH = 3
const RTPROT_STATIC = 4
const RT_SCOPE_LINK = 253
const RTN_UNICAST = 1
const RTN_UNREACHABLE = 7
const MAIN_TABLE = 254
const ETHERNET_ADDRESS_BYTES = 6
/** IFA_F_NODAD: an address of a tunnel is nobody else's, so IPv6 need not look for others that have it. */
const NODAD = 2

/** Of this thread's namespace, or of that of the descriptor `netns`. */
export function createNetwork(netns?: number): Network {
  const ask = (type: number, flags: number, payload: Uint8Array, what: string): Uint8Array[] => {
    using socket = openNetlink(NETLINK_ROUTE, netns === undefined ? {} : { netns })
    const header = { type, flags: NLM_F.REQUEST | NLM_F.ACK | flags, seq: 1, pid: 0 }
    return askNetlink(socket, message(header, payload), `cannot ${what}`)
  }
  const unlessGone = (remove: () => void) => {
    try {
      remove()
    } catch (error) {
      const gone: number[] = [E.ENODEV, E.EADDRNOTAVAIL, E.ENOENT, ESRCH]
      if (!(error instanceof OsError) || !gone.includes(error.errno)) throw error
    }
  }
  return {
    up(ifindex, mtu, queueLength) {
      const change = encodeLink({
        ...{ index: ifindex, mtu, flags: IFF.UP, change: IFF.UP },
        ...(queueLength !== undefined && { queueLength }),
      })
      ask(RTM.NEWLINK, 0, change, `bring interface ${ifindex} up`)
    },
    addAddress(ifindex, address) {
      const flags = NLM_F.CREATE | NLM_F.REPLACE
      ask(RTM.NEWADDR, flags, addressOf(ifindex, address), `add the address ${textOf(address)}`)
    },
    removeAddress(ifindex, address) {
      unlessGone(() => {
        ask(RTM.DELADDR, 0, addressOf(ifindex, address), `remove the address ${textOf(address)}`)
      })
    },
    addRoute(route) {
      const flags = NLM_F.CREATE | NLM_F.EXCL
      ask(RTM.NEWROUTE, flags, routeOf(route), `add the route ${routeText(route)}`)
    },
    removeRoute(route) {
      unlessGone(() => {
        ask(RTM.DELROUTE, 0, routeOf(route), `remove the route ${routeText(route)}`)
      })
    },
    nextHop(address) {
      const destination = parseAddress(address)
      const family = destination.length === 4 ? AF_INET : AF_INET6
      let answer: Uint8Array | undefined
      try {
        const query = encodeRoute({ family, destination, protocol: 0, table: 0 })
        answer = ask(RTM.GETROUTE, 0, query, `look up the route to ${address}`)[0]
      } catch (error) {
        const none: number[] = [E.ENETUNREACH, E.EHOSTUNREACH, E.EACCES, E.EINVAL]
        if (error instanceof OsError && none.includes(error.errno)) return undefined
        throw error
      }
      return answer === undefined ? undefined : nextHopOf(answer)
    },
    defaultHop(family) {
      const query = encodeRoute({
        family: family === 4 ? AF_INET : AF_INET6,
        protocol: 0,
        table: 0,
      })
      const routes = ask(RTM.GETROUTE, NLM_F.DUMP, query, 'list the routes')
        .map((answer) => ({ answer, route: decodeRoute(answer.subarray(NLMSG_HDRLEN)) }))
        .filter(({ route }) => route.destination === undefined && route.table === MAIN_TABLE)
        .filter(({ route }) => (route.type ?? RTN_UNICAST) === RTN_UNICAST)
        .sort((a, b) => (a.route.priority ?? 0) - (b.route.priority ?? 0))
      return routes[0] === undefined ? undefined : nextHopOf(routes[0].answer)
    },
    hardwareAddress(index) {
      const [answer] = ask(RTM.GETLINK, 0, encodeLink({ index }), `look at interface ${index}`)
      const bytes = answer && decodeLink(answer.subarray(NLMSG_HDRLEN)).hardwareAddress
      if (bytes?.length !== ETHERNET_ADDRESS_BYTES) return undefined
      return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':')
    },
    localNetwork(wanted) {
      const all = Object.values(networkInterfaces()).flatMap((some) => some ?? [])
      const [address, prefix] = all.find((one) => one.address === wanted)?.cidr?.split('/') ?? []
      return address === undefined ? undefined : { address, prefix: Number(prefix) }
    },
  }
}

function nextHopOf(answer: Uint8Array): NextHop | undefined {
  const { oif, gateway, source } = decodeRoute(answer.subarray(NLMSG_HDRLEN))
  if (oif === undefined) return undefined
  return {
    ifindex: oif,
    ...(gateway === undefined ? {} : { gateway: formatAddress(gateway) }),
    ...(source === undefined ? {} : { source: formatAddress(source) }),
  }
}

function addressOf(index: number, { address, prefix, peer }: InterfaceAddress): Uint8Array {
  const local = parseAddress(address)
  const v4 = local.length === 4
  return encodeAddress({
    family: v4 ? AF_INET : AF_INET6,
    prefix,
    index,
    local,
    address: peer === undefined ? local : parseAddress(peer),
    flags: v4 ? 0 : NODAD,
    ...(v4 && peer === undefined && prefix < 31 ? { broadcast: broadcastOf(local, prefix) } : {}),
  })
}

function broadcastOf(address: Uint8Array, prefix: number): Uint8Array {
  const bytes = address.slice()
  const view = new DataView(bytes.buffer)
  view.setUint32(0, view.getUint32(0) | (0xffffffff >>> prefix))
  return bytes
}

function routeOf({
  destination,
  prefix,
  gateway,
  ifindex,
  metric,
  unreachable,
  table,
}: SystemRoute): Uint8Array {
  const network = parseAddress(destination)
  return encodeRoute({
    family: network.length === 4 ? AF_INET : AF_INET6,
    prefix,
    protocol: RTPROT_STATIC,
    scope: isDirect(gateway, unreachable) && network.length === 4 ? RT_SCOPE_LINK : 0,
    ...(unreachable === true && { type: RTN_UNREACHABLE }),
    ...(prefix === 0 ? {} : { destination: network }),
    ...(gateway === undefined ? {} : { gateway: parseAddress(gateway) }),
    ...(ifindex === undefined ? {} : { oif: ifindex }),
    ...(metric === undefined ? {} : { priority: metric }),
    ...(table === undefined ? {} : { table }),
  })
}

function isDirect(gateway: string | undefined, unreachable = false): boolean {
  return gateway === undefined && !unreachable
}

function textOf({ address, prefix, peer }: InterfaceAddress): string {
  return peer === undefined ? `${address}/${prefix}` : `${address} peer ${peer}/${prefix}`
}

function routeText({ destination, prefix, gateway, metric }: SystemRoute): string {
  const via = gateway === undefined ? '' : ` via ${gateway}`
  return `${destination}/${prefix}${via}${metric === undefined ? '' : ` metric ${metric}`}`
}
