/**
 * What a client changes on its machine: addresses, routes and DNS, from its configuration and what the server pushed. Pure: nothing is
 * changed here, so that all of it can be shown, compared, and taken back.
 */
import type { NetworkOptions, RedirectGateway, Route } from '../config/network.ts'
import { dnsFromDhcp } from '../config/network.ts'
import { maskToPrefix } from '../config/values.ts'
import type { DnsPlan, InterfaceAddress, NextHop, SystemRoute } from '../network.ts'

export interface PlanContext {
  /** Of the tunnel. */
  readonly ifindex: number
  /** The server's address outside. */
  readonly server: string
  readonly nextHop: (address: string) => NextHop | undefined
  /** Addresses of the system's present DNS servers, for `bypass-dns`. */
  readonly nameservers: readonly string[]
  /** Where neither end says otherwise. */
  readonly defaultMtu: number
}

export interface NetworkPlan {
  readonly mtu: number
  readonly addresses: readonly InterfaceAddress[]
  /** In the order in which they are to be made. */
  readonly routes: readonly SystemRoute[]
  readonly dns: DnsPlan | undefined
  /** What could not be followed. */
  readonly warnings: readonly string[]
}

/** Half of all IPv4 addresses each: more specific than the default route, which stays for later. */
const HALVES = ['0.0.0.0', '128.0.0.0']
/** All of IPv6 that is in use, as OpenVPN divides it. */
const IPV6_PARTS: readonly (readonly [network: string, prefix: number])[] = [
  ['::', 3],
  ['2000::', 4],
  ['3000::', 4],
  ['fc00::', 7],
]
/** Refused packets come last: what goes into the tunnel is more specific or preferred. */
const BLOCK_METRIC = 4096

export function planNetwork(options: NetworkOptions, context: PlanContext): NetworkPlan {
  const warnings: string[] = []
  const routes: SystemRoute[] = []
  const add = (route: SystemRoute) => {
    const same = ({ destination, prefix, metric }: SystemRoute) =>
      destination === route.destination && prefix === route.prefix && metric === route.metric
    if (!routes.some(same)) routes.push(route)
  }
  const { redirectGateway, routeMetric } = options
  if (redirectGateway !== undefined) {
    for (const route of redirected(redirectGateway, context, warnings)) add(route)
  }
  for (const route of options.routes) {
    const found = plannedRoute(route, routeMetric, context)
    if (typeof found === 'string') warnings.push(found)
    else add(found)
  }
  for (const { network, gateway, metric = routeMetric } of options.routesIpv6) {
    const { address: destination, prefix } = network
    const via = gatewayOf(gateway, context)
    if (via === undefined)
      warnings.push(`route-ipv6 ${destination}/${prefix}: there is no way to ${gateway}`)
    else add({ destination, prefix, ...via, ...(metric !== undefined && { metric }) })
  }
  if (options.blockIpv6) {
    for (const [destination, prefix] of IPV6_PARTS) {
      add({ destination, prefix, unreachable: true, metric: BLOCK_METRIC })
    }
  }
  return {
    mtu: options.tunMtu ?? context.defaultMtu,
    addresses: addressesOf(options, warnings),
    routes,
    dns: dnsOf(options),
    warnings,
  }
}

function addressesOf(options: NetworkOptions, warnings: string[]): InterfaceAddress[] {
  const { ifconfig, ifconfigIpv6, topology } = options
  const addresses: InterfaceAddress[] = []
  if (ifconfig !== undefined) {
    const { local: address, remote } = ifconfig
    const prefix = topology === 'subnet' ? maskToPrefix(remote) : undefined
    if (topology === 'subnet' && prefix === undefined) {
      warnings.push(`ifconfig ${address} ${remote}: with topology subnet the second is a netmask`)
    }
    if (prefix !== undefined) addresses.push({ address, prefix })
    else if (maskToPrefix(remote) === undefined)
      addresses.push({ address, peer: remote, prefix: 32 })
    else addresses.push({ address, prefix: maskToPrefix(remote)! })
  }
  if (ifconfigIpv6 !== undefined) addresses.push(ifconfigIpv6.local)
  return addresses
}

function* redirected(
  redirect: RedirectGateway,
  context: PlanContext,
  warnings: string[],
): Generator<SystemRoute> {
  const { server, ifindex, nextHop, nameservers } = context
  const direct = [
    // Else the tunnel's own packets would go into the tunnel.
    ...(redirect.local ? [] : [server]),
    ...(redirect.bypassDns ? nameservers : []),
  ]
  for (const address of direct) {
    const hop = nextHop(address)
    if (hop === undefined) {
      warnings.push(`redirect-gateway: there is no route to ${address}`)
      continue
    }
    const onLink = hop.gateway === undefined
    if (onLink && (redirect.autolocal || address !== server)) continue
    yield {
      destination: address,
      prefix: address.includes(':') ? 128 : 32,
      ifindex: hop.ifindex,
      ...(hop.gateway !== undefined && { gateway: hop.gateway }),
    }
  }
  if (redirect.changesDefault && redirect.ipv4) {
    for (const destination of HALVES) yield { destination, prefix: 1, ifindex }
  }
  if (redirect.ipv6) {
    for (const [destination, prefix] of IPV6_PARTS) yield { destination, prefix, ifindex }
  }
}

/** A text says why there is none. */
function plannedRoute(
  { network, netmask, gateway, metric }: Route,
  usual: number | undefined,
  context: PlanContext,
): SystemRoute | string {
  const prefix = maskToPrefix(netmask)
  const destination = network === 'remote_host' ? context.server : network
  if (prefix === undefined) return `route ${network}: ${netmask} is no netmask`
  if (!/^[\d.]+$/.test(destination)) return `route ${network}: names are not resolved here`
  const via = gatewayOf(gateway, context)
  if (via === undefined) return `route ${network}: there is no way to ${gateway}`
  const chosen = metric ?? usual
  return { destination, prefix, ...via, ...(chosen !== undefined && { metric: chosen }) }
}

/** Where a route goes: into the tunnel, which has one other end, or past it. */
function gatewayOf(
  gateway: string | undefined,
  { ifindex, server, nextHop }: PlanContext,
): { ifindex: number; gateway?: string } | undefined {
  if (gateway === undefined || gateway === 'vpn_gateway' || gateway === 'default')
    return { ifindex }
  const outside = gateway === 'net_gateway' || gateway === 'remote_host'
  const hop = nextHop(outside ? server : gateway)
  if (hop === undefined) return undefined
  if (outside)
    return { ifindex: hop.ifindex, ...(hop.gateway !== undefined && { gateway: hop.gateway }) }
  return hop.ifindex === ifindex ? { ifindex } : { ifindex: hop.ifindex, gateway }
}

/** Undefined: the system's DNS stays as it is. */
function dnsOf(options: NetworkOptions): DnsPlan | undefined {
  const { dnsServers, searchDomains } = options
  if (dnsServers.length > 0) {
    // The first whose transport the system has; as OpenVPN, one group of servers at a time.
    const plain = [...dnsServers]
      .sort((a, b) => a.priority - b.priority)
      .find(({ transport }) => transport === undefined || transport === 'plain')
    if (plain !== undefined) {
      const servers = plain.addresses.map(({ address }) => address)
      return { servers, searchDomains: [...searchDomains], routeDomains: [...plain.resolveDomains] }
    }
  }
  const { servers, domains } = dnsFromDhcp(options)
  if (servers.length === 0 && domains.length === 0 && searchDomains.length === 0) return undefined
  return { servers, searchDomains: [...searchDomains, ...domains], routeDomains: [] }
}
