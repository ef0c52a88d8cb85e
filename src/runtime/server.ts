/**
 * Brings a server up on this machine: its sockets, its interface with addresses and routes, the server itself; and takes all of it down
 * again. What it does is src/openvpn/server's.
 */
import { writeFileSync } from 'node:fs'
import type { DriverClient } from '../driver/client.ts'
import { DataChannel } from '../openvpn/data-channel.ts'
import type { Network, SystemRoute } from '../openvpn/network.ts'
import { IpPool } from '../openvpn/server/ip-pool.ts'
import { Server, type ServerParts } from '../openvpn/server/server.ts'
import type { DatagramTransport, StreamListener } from '../openvpn/transport.ts'
import type { SocketOptions } from '../platform/datagrams.ts'
import { Watch } from '../platform/watch.ts'
import { realClock } from './clock.ts'
import { openDatagrams } from './datagrams.ts'
import { createNetwork } from './network.ts'
import { openStreamListener } from './streams.ts'

export interface ListenAddress {
  readonly protocol: 'udp' | 'tcp'
  readonly address: string
  /** 0 for any. */
  readonly port: number
  /** An IPv6 address that takes no IPv4. */
  readonly v6only: boolean
}

export type ServerDescription = Pick<
  ServerParts,
  'settings' | 'policy' | 'tls' | 'door' | 'commonNameOf' | 'optionsFor' | 'log'
> & {
  readonly listen: readonly ListenAddress[]
  readonly sockets: SocketOptions & { readonly multihome: boolean }
  /** Text of a file of `ifconfig-pool-persist`. */
  readonly poolPersisted?: string | undefined
}

export interface RunningServer {
  readonly server: Server
  readonly data: DataChannel
  readonly pool: IpPool
  /** Where it listens, with the ports it got. */
  readonly listening: readonly { protocol: 'udp' | 'tcp'; address: string; port: number }[]
  /** Tells clients, and removes all that was made. */
  close(): Promise<void>
}

/**
 * Of a UDP socket for control packets, unless `rcvbuf` says otherwise: the first packets of some 2,000 clients that come at once. With the
 * system's 208 KiB 500 clients took 6.3 s, since what is lost is sent again after seconds; with this, 1.3 s.
 */
const RECEIVE_BYTES = 4 << 20

/**
 * @param client of the driver that is to have the interface
 * @param failed is called when the driver is gone: nothing works from then on
 * @throws OsError or ApiError for what the system refuses; nothing is left then
 */
export async function openServer(
  client: DriverClient,
  description: ServerDescription,
  failed: (error: unknown) => void,
): Promise<RunningServer> {
  const { settings, listen, sockets, log } = description
  const undo: (() => unknown)[] = []
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    const watch = new Watch()
    undo.push(() => watch.close())
    const datagrams: DatagramTransport[] = []
    const listeners: StreamListener[] = []
    const network = createNetwork()
    for (const { protocol, address, port, v6only } of listen) {
      const options = { ...sockets, v6only }
      if (protocol === 'udp') {
        const rcvbuf = options.rcvbuf ?? RECEIVE_BYTES
        const transport = openDatagrams(watch, address, port, { ...options, rcvbuf })
        undo.push(() => transport.close())
        datagrams.push(transport)
      } else {
        const listener = openStreamListener(watch, address, port, options)
        undo.push(() => listener.close())
        listeners.push(listener)
      }
    }
    const data = await DataChannel.open(
      client,
      {
        mode: 'mp',
        ...(settings.device !== undefined && { name: settings.device }),
        ...(settings.workers !== undefined && { workers: settings.workers }),
      },
      failed,
    )
    undo.push(() => data.close())
    configure(network, data, description)
    if (settings.clientToClient) allowForwarding(data.name, log)
    const pool = new IpPool({ v4: settings.v4?.pool, v6: settings.v6?.pool })
    for (const problem of pool.restore(description.poolPersisted ?? '')) {
      log(`ifconfig-pool-persist: ${problem}`)
    }
    const server = new Server({
      ...description,
      ...realClock,
      data,
      pool,
      network,
      datagrams,
      listeners,
    })
    undo.push(() => server.close())
    const listening = [
      ...datagrams.map(({ local }) => ({ protocol: 'udp' as const, ...local })),
      ...listeners.map(({ local }) => ({ protocol: 'tcp' as const, ...local })),
    ]
    return { server, data, pool, listening, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Behind routes to the networks of clients (`iroute`), which say which client it is. */
const ROUTE_METRIC = 200

/** Addresses and routes of the interface; they go with it. */
function configure(
  network: Network,
  data: DataChannel,
  { settings, log }: ServerDescription,
): void {
  const { v4, v6, setsAddresses, routes, routeTable, tunMtu, queueLength } = settings
  for (const family of setsAddresses ? [v4, v6] : []) {
    if (family !== undefined) network.addAddress(data.ifindex, family)
  }
  network.up(data.ifindex, tunMtu, queueLength)
  for (const { network: destination, prefix, metric } of routes) {
    const route: SystemRoute = {
      destination,
      prefix,
      ifindex: data.ifindex,
      metric: metric ?? ROUTE_METRIC,
      ...(routeTable !== undefined && { table: routeTable }),
    }
    try {
      network.addRoute(route)
    } catch (error) {
      log((error as Error).message)
    }
  }
}

/** Packets from one client to another go through the system, which does not forward unless told. */
function allowForwarding(device: string, log: (text: string) => void): void {
  for (const family of ['ipv4', 'ipv6']) {
    const path = `/proc/sys/net/${family}/conf/${device}/forwarding`
    try {
      writeFileSync(path, '1')
    } catch (error) {
      log(`client-to-client: ${path} cannot be set: ${(error as Error).message}`)
    }
  }
}
