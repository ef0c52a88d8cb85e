/**
 * What the tunnel changes on this machine: addresses, routes, DNS. A client has it from its own configuration and from the
 * server's replies, a server from its configuration. Installing it is for others.
 */
import { domain, either, ipv4, ipv6, parseWith } from './kinds.ts'
import type { Setting, Settings } from './parse.ts'
import type { Ipv6Prefix, Millis } from './values.ts'

export type Topology = 'subnet' | 'net30' | 'p2p'

/** Network and gateway may be words too: `vpn_gateway`, `net_gateway`, `remote_host`; or names to be resolved. */
export interface Route {
  readonly network: string
  readonly netmask: string
  /** Undefined: the gateway of the tunnel. */
  readonly gateway: string | undefined
  readonly metric: number | undefined
}

export interface Ipv6Route {
  readonly network: Ipv6Prefix
  /** An address, or `net_gateway`. Undefined: the gateway of the tunnel. */
  readonly gateway: string | undefined
  readonly metric: number | undefined
}

export interface RedirectGateway {
  /** False for `redirect-private`: the default route stays. */
  readonly changesDefault: boolean
  readonly ipv4: boolean
  readonly ipv6: boolean
  /** Two routes of half the addresses each, over the default route, in place of it. */
  readonly def1: boolean
  /** The server is on the same network: no route to it is needed. */
  readonly local: boolean
  /** Find out whether that is so. */
  readonly autolocal: boolean
  readonly bypassDhcp: boolean
  readonly bypassDns: boolean
  /** No traffic with the local network but its gateway. */
  readonly blockLocal: boolean
}

/** A DNS server of `dns server N`; those with the lower number are to be preferred. */
export interface DnsServer {
  readonly priority: number
  readonly addresses: readonly { readonly address: string; readonly port: number | undefined }[]
  /** Domains that it answers for; none for all. */
  readonly resolveDomains: readonly string[]
  readonly dnssec: 'yes' | 'no' | 'optional' | undefined
  readonly transport: 'plain' | 'DoH' | 'DoT' | undefined
  readonly sni: string | undefined
}

/** Undefined and empty: not said. */
export interface NetworkOptions {
  readonly topology: Topology | undefined
  /** `remote` is the netmask in topology `subnet`. */
  readonly ifconfig: { readonly local: string; readonly remote: string } | undefined
  readonly ifconfigIpv6:
    | { readonly local: Ipv6Prefix; readonly remote: string | undefined }
    | undefined
  readonly tunMtu: number | undefined
  readonly routes: readonly Route[]
  readonly routesIpv6: readonly Ipv6Route[]
  /** An address, a name, or `dhcp`. */
  readonly routeGateway: string | undefined
  readonly routeIpv6Gateway: string | undefined
  readonly routeMetric: number | undefined
  readonly routeDelay: Millis | undefined
  readonly redirectGateway: RedirectGateway | undefined
  readonly blockIpv6: boolean
  readonly dnsServers: readonly DnsServer[]
  readonly searchDomains: readonly string[]
  /** As they came, for scripts; those about DNS are read with `dnsFromDhcp`. */
  readonly dhcpOptions: readonly { readonly type: string; readonly values: readonly string[] }[]
}

/** Directives of `NetworkOptions`: what `route-nopull` and updates are about. */
export function readNetwork(settings: Settings): NetworkOptions {
  const ifconfig = settings.args('ifconfig')
  const ifconfigIpv6 = settings.args('ifconfig-ipv6')
  return {
    topology: settings.args('topology')?.topology,
    ifconfig,
    ifconfigIpv6,
    tunMtu: settings.args('tun-mtu')?.mtu,
    routes: settings.all('route').map(({ args }) => ({
      ...args,
      netmask: args.netmask ?? '255.255.255.255',
      gateway: args.gateway === 'default' ? undefined : args.gateway,
    })),
    routesIpv6: settings.all('route-ipv6').map(({ args }) => ({
      ...args,
      gateway: args.gateway === 'default' ? undefined : args.gateway,
    })),
    routeGateway: settings.args('route-gateway')?.gateway,
    routeIpv6Gateway: settings.args('route-ipv6-gateway')?.gateway,
    routeMetric: settings.args('route-metric')?.metric,
    routeDelay: settings.args('route-delay')?.delay,
    redirectGateway: readRedirect(settings),
    blockIpv6: settings.has('block-ipv6'),
    ...readDns(settings),
    dhcpOptions: settings.all('dhcp-option').map(({ args }) => args),
  }
}

function readRedirect(settings: Settings): RedirectGateway | undefined {
  const gateway = settings.args('redirect-gateway')
  const flags = (gateway ?? settings.args('redirect-private'))?.flags
  if (flags === undefined) return undefined
  return {
    changesDefault: gateway !== undefined,
    ipv4: !flags.includes('!ipv4'),
    ipv6: flags.includes('ipv6'),
    def1: flags.includes('def1'),
    local: flags.includes('local'),
    autolocal: flags.includes('autolocal'),
    bypassDhcp: flags.includes('bypass-dhcp'),
    bypassDns: flags.includes('bypass-dns'),
    blockLocal: flags.includes('block-local'),
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

function readDns(settings: Settings): Pick<NetworkOptions, 'dnsServers' | 'searchDomains'> {
  const servers = new Map<number, Mutable<DnsServer>>()
  const searchDomains: string[] = []
  for (const setting of settings.all('dns')) {
    const { what, values } = setting.args
    if (what === 'search-domains') searchDomains.push(...domainsIn(settings, setting, values))
    else addDnsServer(settings, servers, setting, values)
  }
  for (const [priority, { addresses }] of servers) {
    if (addresses.length > 0) continue
    servers.delete(priority)
    const place = settings.last('dns')?.place
    settings.problem('missing', place, `dns: server ${priority} has no address`)
  }
  const dnsServers = [...servers.values()].sort((a, b) => a.priority - b.priority)
  return { dnsServers, searchDomains }
}

const DNS_USAGE = 'dns server NUMBER address|resolve-domains|dnssec|transport|sni VALUE…'

function addDnsServer(
  settings: Settings,
  servers: Map<number, Mutable<DnsServer>>,
  setting: Setting<'dns'>,
  [number = '', option = '', ...values]: readonly string[],
): void {
  const wrong = (message: string) => settings.problem('argument', setting.place, `dns: ${message}`)
  const priority = /^-?\d{1,3}$/.test(number) ? Number(number) : Number.NaN
  if (!(priority >= -128 && priority <= 127)) {
    wrong(`a server's number is from -128 to 127, not '${number}'`)
    return
  }
  const [value] = values
  if (value === undefined) {
    wrong(`it is written: ${DNS_USAGE}`)
    return
  }
  const server = servers.get(priority) ?? {
    priority,
    addresses: [],
    resolveDomains: [],
    dnssec: undefined,
    transport: undefined,
    sni: undefined,
  }
  servers.set(priority, server)
  if (option === 'address') {
    const addresses = values.map(parseDnsAddress)
    const bad = values.find((_, i) => addresses[i] === undefined)
    if (bad !== undefined) wrong(`expected ADDRESS, ADDRESS:PORT or [IPV6]:PORT, not '${bad}'`)
    const good = addresses.filter((address) => address !== undefined)
    server.addresses = [...server.addresses, ...good]
    if (server.addresses.length > MAX_DNS_ADDRESSES) {
      wrong(`a server has at most ${MAX_DNS_ADDRESSES} addresses`)
    }
  } else if (option === 'resolve-domains') {
    server.resolveDomains = [...server.resolveDomains, ...domainsIn(settings, setting, values)]
  } else if (option === 'dnssec' && (value === 'yes' || value === 'no' || value === 'optional')) {
    server.dnssec = value
  } else if (option === 'transport' && (value === 'plain' || value === 'DoH' || value === 'DoT')) {
    server.transport = value
  } else if (option === 'sni') server.sni = domainsIn(settings, setting, [value])[0]
  else wrong(`'${option} ${value}' is not of a server; it is written: ${DNS_USAGE}`)
}

/** Those that are domains: they go on to programs and files that think something else of a space, or worse. */
function domainsIn(
  settings: Settings,
  { place }: Setting<'dns'>,
  values: readonly string[],
): string[] {
  const isDomain = (value: string) => parseWith(domain, value) !== undefined
  const bad = values.find((value) => !isDomain(value))
  if (bad !== undefined) settings.problem('argument', place, `dns: '${bad}' is no domain`)
  return values.filter(isDomain)
}

const MAX_DNS_ADDRESSES = 8

function parseDnsAddress(text: string): DnsServer['addresses'][number] | undefined {
  const [, v6, v6Port, v4, v4Port] =
    /^\[([^\]]+)\](?::(\d{1,5}))?$|^([\d.]+)(?::(\d{1,5}))?$/.exec(text) ?? []
  const portText = v6Port ?? v4Port
  const port = portText === undefined ? undefined : Number(portText)
  if (port !== undefined && (port < 1 || port > 65_535)) return undefined
  const address = v4 === undefined ? parseWith(ipv6, v6 ?? text) : parseWith(ipv4, v4)
  return address === undefined ? undefined : { address, port }
}

/** DNS servers and domains that `dhcp-option` names: the older way, for where there is no `dns`. */
export function dnsFromDhcp({ dhcpOptions }: NetworkOptions): {
  servers: string[]
  /** Domain of this machine in the tunnel; the first is its own, all are searched. */
  domains: string[]
} {
  const servers: string[] = []
  const domains: string[] = []
  for (const { type, values } of dhcpOptions) {
    const [value] = values
    if (value === undefined) continue
    const address = parseWith(type === 'DNS6' ? ipv6 : either(ipv4, ipv6), value)
    if (type === 'DNS' || type === 'DNS6') {
      if (address !== undefined) servers.push(address)
    } else if (/^(DOMAIN|DOMAIN-SEARCH|ADAPTER_DOMAIN_SUFFIX)$/.test(type)) {
      if (parseWith(domain, value) !== undefined) domains.push(value)
    }
  }
  return { servers, domains }
}

/** What a server has sent over what the client's own configuration says: lists after each other, else the server's word. */
export function mergeNetwork(own: NetworkOptions, pushed: NetworkOptions): NetworkOptions {
  return {
    topology: pushed.topology ?? own.topology,
    ifconfig: pushed.ifconfig ?? own.ifconfig,
    ifconfigIpv6: pushed.ifconfigIpv6 ?? own.ifconfigIpv6,
    tunMtu: pushed.tunMtu ?? own.tunMtu,
    routes: [...own.routes, ...pushed.routes],
    routesIpv6: [...own.routesIpv6, ...pushed.routesIpv6],
    routeGateway: pushed.routeGateway ?? own.routeGateway,
    routeIpv6Gateway: pushed.routeIpv6Gateway ?? own.routeIpv6Gateway,
    routeMetric: pushed.routeMetric ?? own.routeMetric,
    routeDelay: pushed.routeDelay ?? own.routeDelay,
    redirectGateway: pushed.redirectGateway ?? own.redirectGateway,
    blockIpv6: pushed.blockIpv6 || own.blockIpv6,
    dnsServers: [...own.dnsServers, ...pushed.dnsServers],
    searchDomains: [...own.searchDomains, ...pushed.searchDomains],
    dhcpOptions: [...own.dhcpOptions, ...pushed.dhcpOptions],
  }
}
