/**
 * What scripts and the management interface are told of a client, under OpenVPN's names. Whatever the client chose itself is cleaned: no value
 * begins a line of its own. Source: openvpn(8), "Environmental variables".
 */

import { timeText } from '../management/status.ts'
import { chainEnvironment } from '../x509/certificate.ts'
import type { ClientIdentity, ConnectedClient, Farewell } from './policy.ts'

export type Environment = Record<string, string>

/** Of anyone who connects. */
export function identityEnvironment(client: ClientIdentity): Environment {
  const { commonName, username, remote, protocol, peerInfo, certificates } = client
  const v6 = remote.address.includes(':')
  const environment: Environment = {
    common_name: clean(commonName),
    [v6 ? 'untrusted_ip6' : 'untrusted_ip']: remote.address,
    untrusted_port: String(remote.port),
    proto_1: protocol,
  }
  if (username !== '') environment.username = clean(username)
  for (const [name, value] of peerInfo) environment[name] = clean(value)
  return { ...environment, ...chainEnvironment(certificates.chain) }
}

/** Of one that has shown who it is, and comes now. */
export function arrivalEnvironment(client: ClientIdentity, since: Date): Environment {
  const { address, port } = client.remote
  return {
    ...identityEnvironment(client),
    [address.includes(':') ? 'trusted_ip6' : 'trusted_ip']: address,
    trusted_port: String(port),
    time_unix: String(Math.floor(since.getTime() / 1000)),
    time_ascii: timeText(since),
  }
}

/** Of one that has been let in. */
export function connectedEnvironment(client: ConnectedClient): Environment {
  return { ...arrivalEnvironment(client, client.since), ...leaseEnvironment(client) }
}

interface Addresses {
  readonly v4: string | undefined
  readonly v6: string | undefined
}

/** Of the addresses that it has, or will have. */
export function leaseEnvironment({ v4, v6 }: Partial<Addresses>): Environment {
  return {
    ...(v4 !== undefined && { ifconfig_pool_remote_ip: v4 }),
    ...(v6 !== undefined && { ifconfig_pool_remote_ip6: v6 }),
  }
}

export function farewellEnvironment({ bytesReceived, bytesSent, seconds }: Farewell): Environment {
  return {
    bytes_received: String(bytesReceived),
    bytes_sent: String(bytesSent),
    time_duration: String(seconds),
  }
}

/** Control characters become "_", as OpenVPN does. */
export function clean(text: string): string {
  return text.replace(/\p{Cc}/gu, '_')
}
