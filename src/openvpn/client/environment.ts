/**
 * What scripts of a client are told, under OpenVPN's names. Whatever a server chose is cleaned: no value begins a line of its own.
 * Source: openvpn(8), "Environmental variables"; OpenVPN's src/openvpn/init.c, route.c and dns.c.
 */

import type { ClientConfig, ConnectionEntry } from '../config/client-config.ts'
import type { NetworkOptions } from '../config/network.ts'
import { ipv4ToNumber, maskToPrefix, numberToIpv4 } from '../config/values.ts'
import type { Endpoint } from '../transport.ts'
import { chainEnvironment } from '../x509/certificate.ts'
import { type NetworkPlan, vpnGateway } from './plan.ts'

export type Environment = Record<string, string>

/** What there is to tell of a server that has shown its certificates. */
export interface ServerSubject {
  readonly config: ClientConfig
  readonly entry: ConnectionEntry
  readonly server: Endpoint
  /** Its certificates, its own first. */
  readonly serverChain: readonly Uint8Array[]
  readonly pid: number
  readonly started: Date
}

/** What there is to tell of a connection. */
export interface ScriptSubject extends ServerSubject {
  readonly device: string
  readonly options: NetworkOptions
  readonly plan: NetworkPlan
  /** Where the default route led without the tunnel. */
  readonly netGateway: string | undefined
  readonly username: string
  /** With `script-security 3` alone. */
  readonly password?: string
  /** From the server: `setenv-safe`. */
  readonly pushed: readonly (readonly [name: string, value: string])[]
}

/** Of `tls-verify`. */
export function serverEnvironment(subject: ServerSubject): Environment {
  return clean({ ...Object.fromEntries(subject.config.environment), ...serverVariables(subject) })
}

/** Of all others. */
export function scriptEnvironment(subject: ScriptSubject): Environment {
  const { config, device, server, options, plan, netGateway, username, password } = subject
  const v6 = server.address.includes(':')
  return clean({
    ...Object.fromEntries(config.environment),
    ...Object.fromEntries(subject.pushed),
    ...serverVariables(subject),
    dev: device,
    dev_type: 'tun',
    tun_mtu: String(plan.mtu),
    link_mtu: '0',
    [v6 ? 'trusted_ip6' : 'trusted_ip']: server.address,
    trusted_port: String(server.port),
    ...(username !== '' && { username }),
    ...(password !== undefined && { password }),
    ...addressVariables(options),
    ...routeVariables(options, netGateway),
    ...dnsVariables(options),
  })
}

function clean(environment: Environment): Environment {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, value.replace(/\p{Cc}/gu, '_')]),
  )
}

/** Parameters that `up` and `down` get, after their own. */
export function interfaceParameters(
  { device, plan, options }: Pick<ScriptSubject, 'device' | 'plan' | 'options'>,
  context: 'init' | 'restart',
): string[] {
  const { local, remote } = options.ifconfig ?? { local: '', remote: '' }
  return [device, String(plan.mtu), '0', local, remote, context]
}

function serverVariables(subject: ServerSubject): Environment {
  const { config, entry, server, serverChain, pid, started } = subject
  const certificates = chainEnvironment(serverChain)
  const { X509_0_CN: commonName } = certificates
  return {
    config: config.file,
    verb: String(config.verb),
    daemon: '0',
    daemon_log_redirect: config.log === undefined ? '0' : '1',
    daemon_pid: String(pid),
    daemon_start_time: String(Math.floor(started.getTime() / 1000)),
    remote_1: entry.host,
    remote_port_1: String(entry.port),
    proto_1: entry.protocol,
    ...(entry.localPort !== undefined && { local_port_1: String(entry.localPort) }),
    [server.address.includes(':') ? 'untrusted_ip6' : 'untrusted_ip']: server.address,
    untrusted_port: String(server.port),
    ...certificates,
    ...(commonName !== undefined && { common_name: commonName }),
  }
}

function addressVariables({ ifconfig, ifconfigIpv6, topology }: NetworkOptions): Environment {
  const environment: Environment = {}
  if (ifconfig !== undefined) {
    const { local, remote } = ifconfig
    const prefix = maskToPrefix(remote)
    environment.ifconfig_local = local
    if (prefix === undefined) environment.ifconfig_remote = remote
    else {
      environment.ifconfig_netmask = remote
      const host = (~ipv4ToNumber(remote) >>> 0) | ipv4ToNumber(local)
      if (topology !== 'p2p') environment.ifconfig_broadcast = numberToIpv4(host >>> 0)
    }
  }
  if (ifconfigIpv6 !== undefined) {
    const { local, remote } = ifconfigIpv6
    environment.ifconfig_ipv6_local = local.address
    environment.ifconfig_ipv6_netbits = String(local.prefix)
    if (remote !== undefined) environment.ifconfig_ipv6_remote = remote
  }
  return environment
}

function routeVariables(options: NetworkOptions, netGateway: string | undefined): Environment {
  const environment: Environment = {}
  const gateway = vpnGateway(options)
  if (gateway !== undefined) environment.route_vpn_gateway = gateway
  if (netGateway !== undefined) environment.route_net_gateway = netGateway
  environment.redirect_gateway = options.redirectGateway?.changesDefault === true ? '1' : '0'
  for (const [i, route] of options.routes.entries()) {
    const n = i + 1
    environment[`route_network_${n}`] = route.network
    environment[`route_netmask_${n}`] = route.netmask
    const via = route.gateway ?? gateway
    if (via !== undefined) environment[`route_gateway_${n}`] = via
    const metric = route.metric ?? options.routeMetric
    if (metric !== undefined) environment[`route_metric_${n}`] = String(metric)
  }
  for (const [i, { network, gateway: via, metric }] of options.routesIpv6.entries()) {
    const n = i + 1
    environment[`route_ipv6_network_${n}`] = `${network.address}/${network.prefix}`
    if (via !== undefined) environment[`route_ipv6_gateway_${n}`] = via
    if (metric !== undefined) environment[`route_ipv6_metric_${n}`] = String(metric)
  }
  return environment
}

/** `dhcp-option` in the old way, and `dns` in that of OpenVPN 2.6. */
function dnsVariables({ dhcpOptions, dnsServers, searchDomains }: NetworkOptions): Environment {
  const environment: Environment = {}
  for (const [i, { type, values }] of dhcpOptions.entries()) {
    environment[`foreign_option_${i + 1}`] = ['dhcp-option', type, ...values].join(' ')
  }
  for (const [i, domain] of searchDomains.entries()) {
    environment[`dns_search_domain_${i + 1}`] = domain
  }
  for (const [i, server] of dnsServers.entries()) {
    const name = `dns_server_${i + 1}`
    for (const [j, { address, port }] of server.addresses.entries()) {
      environment[`${name}_address_${j + 1}`] = address
      if (port !== undefined) environment[`${name}_port_${j + 1}`] = String(port)
    }
    for (const [j, domain] of server.resolveDomains.entries()) {
      environment[`${name}_resolve_domain_${j + 1}`] = domain
    }
    const { dnssec, transport, sni } = server
    if (dnssec !== undefined) environment[`${name}_dnssec`] = dnssec
    if (transport !== undefined) environment[`${name}_transport`] = transport
    if (sni !== undefined) environment[`${name}_sni`] = sni
  }
  return environment
}
