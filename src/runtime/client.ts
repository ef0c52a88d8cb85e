/** A client of a profile on this machine: real sockets, names, routes and DNS for src/openvpn/client. */
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import type { DriverClient } from '../driver/client.ts'
import { Client, type ClientEvents, type OpenedTransport } from '../openvpn/client/client.ts'
import type { Ask } from '../openvpn/client/credentials.ts'
import type { ClientConfig, ConnectionEntry } from '../openvpn/config/client-config.ts'
import { DataChannel } from '../openvpn/data-channel.ts'
import { createIdentity } from '../openvpn/identity.ts'
import type { Endpoint } from '../openvpn/transport.ts'
import type { SocketOptions } from '../platform/datagrams.ts'
import { Watch } from '../platform/watch.ts'
import { realClock } from './clock.ts'
import { openDatagrams } from './datagrams.ts'
import { applyDns, nameservers } from './dns.ts'
import { fileWatch } from './files.ts'
import { createNetwork } from './network.ts'
import { connectStream } from './streams.ts'

export interface ClientOptions {
  readonly ask: Ask
  readonly version: string
  /** Of the private key, where it is to be asked for. */
  readonly passphrase?: string | undefined
  readonly workers?: number | undefined
  readonly log: (text: string) => void
  /** The driver is gone: nothing works from then on. */
  readonly failed: (error: unknown) => void
}

export interface RunningClient {
  readonly client: Client
  /** After `client.run` has ended. */
  close(): Promise<void>
}

/** Nothing is sent before `client.run`. @throws TlsError for keys and certificates that cannot be used */
export function createRunningClient(
  driver: DriverClient,
  config: ClientConfig,
  options: ClientOptions,
  events: ClientEvents,
): RunningClient {
  const { ask, version, passphrase, workers, log, failed } = options
  const watch = new Watch()
  const sockets = socketOptions(config)
  const client = new Client(
    config,
    {
      ...realClock,
      ask,
      version,
      log,
      resolve,
      open: (entry, remote, signal) => open(watch, entry, remote, sockets, signal),
      openData: (name) =>
        DataChannel.open(
          driver,
          {
            mode: 'p2p',
            ...(name !== undefined && { name }),
            ...(workers !== undefined && { workers }),
          },
          failed,
        ),
      hasEpochs: driver.extended,
      network: createNetwork(),
      nameservers: () => nameservers(),
      applyDns: (device, plan) => applyDns(device, plan),
      tls: createIdentity(config, {
        role: 'client',
        required: true,
        requested: true,
        passphrase,
        unixSeconds: () => Math.floor(realClock.date().getTime() / 1000),
        files: fileWatch,
      }),
    },
    events,
  )
  return { client, close: () => watch.close() }
}

async function resolve(host: string, family: 4 | 6 | undefined): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [host]
  const found = await lookup(host, { all: true, ...(family !== undefined && { family }) })
  return [...new Set(found.map(({ address }) => address))]
}

async function open(
  watch: Watch,
  entry: ConnectionEntry,
  remote: Endpoint,
  sockets: SocketOptions,
  signal: AbortSignal,
): Promise<OpenedTransport> {
  const { protocol, localHost, localPort, connectTimeout } = entry
  const any = remote.address.includes(':') ? '::' : '0.0.0.0'
  const address = localHost ?? any
  if (protocol === 'udp') {
    const transport = openDatagrams(watch, address, localPort ?? 0, sockets)
    return { transport, path: { remote } }
  }
  const bound = localHost !== undefined || localPort !== undefined
  const transport = await connectStream(watch, remote, {
    ...sockets,
    ...(bound && { local: { address, port: localPort ?? 0 } }),
    timeoutMs: connectTimeout,
    signal,
  })
  return { transport, path: transport.path }
}

function socketOptions({ mark, bindDev, rcvbuf, sndbuf }: ClientConfig): SocketOptions {
  return {
    ...(mark !== undefined && { mark }),
    ...(bindDev !== undefined && { device: bindDev }),
    ...(rcvbuf !== undefined && { rcvbuf }),
    ...(sndbuf !== undefined && { sndbuf }),
  }
}
