/**
 * What a client changes on its machine: addresses, routes and DNS, from its configuration and what the server pushed. Pure: nothing is
 * changed here, so that all of it can be shown, compared, and taken back. Source: openvpn(8), "VPN network options"; OpenVPN's
 * src/openvpn/route.c.
 */
import ipaddr from 'ipaddr.js'
import type { DnsServer, NetworkOptions, RedirectGateway } from '../config/network.ts'
import { dnsFromDhcp } from '../config/network.ts'
import { maskToPrefix } from '../config/values.ts'
import type { DnsPlan, InterfaceAddress, NextHop, SystemRoute } from '../network.ts'

export interface PlanContext {
  /** Of the tunnel. */
  readonly ifindex: number
  /** The address outside that packets go to: the server's, or its proxy's. */
  readonly server: string
  readonly nextHop: (address: string) => NextHop | undefined
  /** Where the default route leads, past the tunnel. */
  readonly defaultHop: (family: 4 | 6) => NextHop | undefined
  /** The network that an address of this machine is in. */
  readonly localNetwork: (address: string) => InterfaceAddress | undefined
  /** Addresses of the system's present DNS servers, for `bypass-dns`. */
  readonly nameservers: readonly string[]
  /** Addresses of names in routes. */
  readonly names: ReadonlyMap<string, readonly string[]>
  /** Where neither end says otherwise, and the most that a server may push. */
  readonly mtu: { readonly usual: number; readonly most: number }
  /** Routing table that routes go to; undefined: the main one. */
  readonly table: number | undefined
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

/** Half of all IPv4 addresses each: more specific than the default route, which stays as it is, with `def1` or without. */
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
  const addresses = addressesOf(options, warnings)
  const planner = new RoutePlanner(options, context, addresses, warnings)
  const { tunMtu } = options
  const { usual, most } = context.mtu
  if (tunMtu !== undefined && tunMtu > most) {
    warnings.push(`tun-mtu ${tunMtu}: more than tun-mtu-max allows; it is ${most}`)
  }
  return {
    mtu: Math.min(tunMtu ?? usual, most),
    addresses,
    routes: planner.routes(),
    dns: dnsOf(options, warnings),
    warnings,
  }
}

function addressesOf(options: NetworkOptions, warnings: string[]): InterfaceAddress[] {
  const { ifconfig, ifconfigIpv6, topology } = options
  const addresses: InterfaceAddress[] = []
  if (ifconfig !== undefined) {
    const { local: address, remote } = ifconfig
    const prefix = maskToPrefix(remote)
    if (prefix !== undefined) addresses.push({ address, prefix })
    else addresses.push({ address, peer: remote, prefix: 32 })
    if (topology === 'subnet' && prefix === undefined) {
      warnings.push(`ifconfig ${address} ${remote}: with topology subnet the second is a netmask`)
    }
  }
  if (ifconfigIpv6 !== undefined) addresses.push(ifconfigIpv6.local)
  return addresses
}

/** The server's address inside: what `vpn_gateway` means. */
export function vpnGateway({ ifconfig, routeGateway }: NetworkOptions): string | undefined {
  if (routeGateway !== undefined && routeGateway !== 'dhcp') return routeGateway
  if (ifconfig === undefined || maskToPrefix(ifconfig.remote) !== undefined) return undefined
  return ifconfig.remote
}

type Way = Pick<SystemRoute, 'ifindex' | 'gateway'>

class RoutePlanner {
  readonly #options: NetworkOptions
  readonly #context: PlanContext
  readonly #addresses: readonly InterfaceAddress[]
  readonly #warnings: string[]
  readonly #routes: SystemRoute[] = []
  readonly #known = new Set<string>()

  constructor(
    options: NetworkOptions,
    context: PlanContext,
    addresses: readonly InterfaceAddress[],
    warnings: string[],
  ) {
    this.#options = options
    this.#context = context
    this.#addresses = addresses
    this.#warnings = warnings
  }

  routes(): SystemRoute[] {
    const { redirectGateway, blockIpv6 } = this.#options
    if (redirectGateway !== undefined) this.#redirect(redirectGateway)
    this.#named()
    if (blockIpv6) {
      for (const [destination, prefix] of IPV6_PARTS) {
        this.#add({ destination, prefix, unreachable: true, metric: BLOCK_METRIC })
      }
    }
    return [...this.#past(redirectGateway), ...this.#routes]
  }

  #add(route: SystemRoute): void {
    const { table } = this.#context
    const { destination, prefix, metric } = route
    const key = `${destination}/${prefix} ${metric}`
    if (this.#known.has(key)) return
    this.#known.add(key)
    this.#routes.push({ ...route, ...(table !== undefined && { table }) })
  }

  #redirect({ changesDefault, ipv4, ipv6, blockLocal }: RedirectGateway): void {
    const { ifindex } = this.#context
    if (changesDefault && ipv4) {
      for (const destination of HALVES) this.#add({ destination, prefix: 1, ifindex })
    }
    if (changesDefault && ipv6) {
      for (const [destination, prefix] of IPV6_PARTS) this.#add({ destination, prefix, ifindex })
    }
    if (blockLocal) this.#blockLocal()
  }

  /** The local network in two halves, which come before the whole; its gateway alone is still reached. */
  #blockLocal(): void {
    const { server, nextHop, localNetwork, ifindex } = this.#context
    const hop = nextHop(server)
    const network = hop?.source === undefined ? undefined : localNetwork(hop.source)
    if (hop === undefined || network === undefined || network.prefix > 30) {
      this.#warnings.push('redirect-gateway block-local: the local network is not known')
      return
    }
    const prefix = network.prefix + 1
    for (const destination of halvesOf(network)) this.#add({ destination, prefix, ifindex })
    if (hop.gateway !== undefined) this.#add(hostRoute(hop.gateway, { ifindex: hop.ifindex }))
  }

  /** What `route` and `route-ipv6` say. */
  #named(): void {
    const { routes, routesIpv6, routeMetric } = this.#options
    for (const { network, netmask, gateway, metric = routeMetric } of routes) {
      const prefix = maskToPrefix(netmask)
      const way = this.#wayTo(gateway, 4)
      const destinations = this.#destinations(network)
      if (prefix === undefined) this.#warnings.push(`route ${network}: ${netmask} is no netmask`)
      else if (destinations.length === 0)
        this.#warnings.push(`route ${network}: it has no address here`)
      else if (way === undefined)
        this.#warnings.push(`route ${network}: there is no way to ${gateway}`)
      else {
        for (const destination of destinations) {
          this.#add({ destination, prefix, ...way, ...(metric !== undefined && { metric }) })
        }
      }
    }
    for (const { network, gateway, metric = routeMetric } of routesIpv6) {
      const { address: destination, prefix } = network
      const way = this.#wayTo(gateway, 6)
      if (way === undefined)
        this.#warnings.push(`route-ipv6 ${destination}/${prefix}: there is no way to ${gateway}`)
      else this.#add({ destination, prefix, ...way, ...(metric !== undefined && { metric }) })
    }
  }

  /** A word, a name or an address as addresses. */
  #destinations(network: string): readonly string[] {
    const { server, defaultHop, names } = this.#context
    const known = (address: string | undefined) => (address === undefined ? [] : [address])
    if (network === 'remote_host') return [server]
    if (network === 'vpn_gateway') return known(vpnGateway(this.#options))
    if (network === 'net_gateway') return known(defaultHop(4)?.gateway)
    return /^[\d.]+$/.test(network) ? [network] : (names.get(network) ?? [])
  }

  /** Where a route goes: into the tunnel, which has one other end, or past it. Undefined: nowhere. */
  #wayTo(gateway: string | undefined, family: 4 | 6): Way | undefined {
    const { ifindex, server, nextHop, defaultHop } = this.#context
    if (gateway === undefined || gateway === 'vpn_gateway') return { ifindex }
    if (gateway === 'net_gateway') {
      const hop = defaultHop(family)
      return hop && wayOf(hop)
    }
    const address = gateway === 'remote_host' ? server : gateway
    const inside = gateway === vpnGateway(this.#options) || this.#addresses.some(holds(address))
    if (inside) return { ifindex }
    const hop = nextHop(address)
    if (hop === undefined || hop.ifindex === ifindex) return hop && { ifindex }
    return { ifindex: hop.ifindex, gateway: hop.gateway ?? address }
  }

  /** Routes past the tunnel for what would else go into it, and must not: its own packets first of all. */
  #past(redirect: RedirectGateway | undefined): SystemRoute[] {
    const { server, ifindex, nextHop, nameservers, table } = this.#context
    const swallowed = (address: string) =>
      this.#routes.some((route) => {
        const past = route.unreachable !== true && route.ifindex !== ifindex
        return !past && holds(address)({ address: route.destination, prefix: route.prefix })
      })
    const past: SystemRoute[] = []
    const bypassed = redirect?.bypassDns === true ? nameservers : []
    for (const address of [server, ...bypassed]) {
      const hop = swallowed(address) ? nextHop(address) : undefined
      if (!swallowed(address) || (address === server && redirect?.local === true)) continue
      if (hop === undefined) this.#warnings.push(`there is no route to ${address}`)
      // One of this very machine is reached in any case.
      else if (hop.ifindex !== LOOPBACK && hop.ifindex !== ifindex) {
        past.push({ ...hostRoute(address, wayOf(hop)), ...(table !== undefined && { table }) })
      }
    }
    return past
  }
}

/** Index of `lo` in every namespace. */
const LOOPBACK = 1

function wayOf({ ifindex, gateway }: NextHop): Way {
  return gateway === undefined ? { ifindex } : { ifindex, gateway }
}

function hostRoute(destination: string, way: Way): SystemRoute {
  return { destination, prefix: destination.includes(':') ? 128 : 32, ...way }
}

/** Whether an address lies in a network. */
function holds(address: string): (network: InterfaceAddress) => boolean {
  return ({ address: network, prefix, peer }) => {
    if (!ipaddr.isValid(address)) return false
    const [one, other] = [ipaddr.parse(address), ipaddr.parse(peer ?? network)]
    return one.kind() === other.kind() && one.match(other, prefix)
  }
}

function halvesOf({ address, prefix }: InterfaceAddress): [string, string] {
  const bytes = ipaddr.parse(address).toByteArray()
  const half = (upper: boolean) => {
    const own = bytes.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, prefix - 8 * i))))
    if (upper) own[prefix >> 3]! |= 0x80 >> (prefix & 7)
    return ipaddr.fromByteArray(own.map((byte) => byte & 0xff)).toString()
  }
  return [half(false), half(true)]
}

/** Undefined: the system's DNS stays as it is. */
function dnsOf(options: NetworkOptions, warnings: string[]): DnsPlan | undefined {
  const { dnsServers, searchDomains } = options
  // One group of servers at a time, as OpenVPN; the system tells where it cannot do the transport.
  const [chosen] = [...dnsServers]
    .filter(({ transport }) => transport !== 'DoH')
    .sort((a, b) => a.priority - b.priority)
  if (dnsServers.length > 0 && chosen === undefined) {
    warnings.push('dns: DNS over HTTPS is not what the system can do; its own DNS stays')
  }
  if (chosen !== undefined) {
    const { addresses, resolveDomains, transport, sni, dnssec } = chosen
    return {
      servers: addresses.map(serverText),
      searchDomains: [...searchDomains],
      routeDomains: [...resolveDomains],
      ...(transport === 'DoT' && { tls: { name: sni } }),
      ...(dnssec !== undefined && { dnssec }),
    }
  }
  const { servers, domains } = dnsFromDhcp(options)
  if (servers.length === 0 && domains.length === 0 && searchDomains.length === 0) return undefined
  return { servers, searchDomains: [...searchDomains, ...domains], routeDomains: [] }
}

function serverText({ address, port }: DnsServer['addresses'][number]): string {
  if (port === undefined || port === 53) return address
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}
