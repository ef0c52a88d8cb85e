/** A server from its configuration file: what the file names is opened here. */

import { isIP } from 'node:net'
import type { DriverClient } from '../driver/client.ts'
import type { Listener, ServerConfig } from '../openvpn/config/server-config.ts'
import { commonNameOf, createIdentity } from '../openvpn/identity.ts'
import { serverDoor, serverOptions, serverSettings } from '../openvpn/server/configured.ts'
import type { ServerPolicy } from '../openvpn/server/policy.ts'
import type { SocketOptions } from '../platform/datagrams.ts'
import { realClock } from './clock.ts'
import { fileWatch } from './files.ts'
import { type ListenAddress, openServer, type RunningServer } from './server.ts'

export interface ConfiguredOptions {
  readonly policy: ServerPolicy
  /** Of the private key, where it is to be asked for. */
  readonly passphrase?: string | undefined
  readonly workers?: number | undefined
  readonly log: (text: string) => void
  readonly failed: (error: unknown) => void
}

/** Rejects with what is wrong with keys and certificates, or what the system refuses. */
export async function openConfiguredServer(
  client: DriverClient,
  config: ServerConfig,
  options: ConfiguredOptions,
): Promise<RunningServer> {
  const unixSeconds = () => Math.floor(realClock.date().getTime() / 1000)
  const { policy, passphrase, workers, log, failed } = options
  const { poolPersist, verifyClientCert } = config
  const persisted = poolPersist && fileWatch.read(poolPersist.path)
  return openServer(
    client,
    {
      settings: { ...serverSettings(config), ...(workers !== undefined && { workers }) },
      policy,
      tls: createIdentity(config, {
        role: 'server',
        required: verifyClientCert === 'require',
        requested: verifyClientCert !== 'none',
        passphrase,
        unixSeconds,
        files: fileWatch,
      }),
      door: serverDoor(config, unixSeconds),
      commonNameOf: (peer) => commonNameOf(config, peer),
      optionsFor: serverOptions(config),
      listen: config.listeners.flatMap(addressesOf),
      sockets: socketOptions(config),
      poolPersisted: persisted && new TextDecoder().decode(persisted),
      log,
    },
    failed,
  )
}

function socketOptions(config: ServerConfig): SocketOptions & { multihome: boolean } {
  const { multihome, mark, bindDev, rcvbuf, sndbuf } = config
  return {
    multihome,
    ...(mark !== undefined && { mark }),
    ...(bindDev !== undefined && { device: bindDev }),
    ...(rcvbuf !== undefined && { rcvbuf }),
    ...(sndbuf !== undefined && { sndbuf }),
  }
}

/** Names are for clients: a server listens at addresses. */
function addressesOf({ protocol, family, host, port, ipv6only }: Listener): ListenAddress[] {
  const any = family === 4 ? '0.0.0.0' : '::'
  const address = host === undefined || host === '*' ? any : host
  if (isIP(address) === 0) throw new Error(`local: expected an address, not '${host}'`)
  return [{ protocol, address, port, v6only: ipv6only || family === 6 }]
}
