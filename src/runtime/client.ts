/** A client of a profile on this machine: real sockets, names, routes and DNS for src/openvpn/client. */
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { release } from 'node:os'
import ipaddr from 'ipaddr.js'
import type { DriverClient } from '../driver/client.ts'
import {
  type Advisor,
  Client,
  type ClientEvents,
  type OpenedTransport,
  type OpenHow,
} from '../openvpn/client/client.ts'
import type { Ask } from '../openvpn/client/credentials.ts'
import type { Machine } from '../openvpn/client/peer-info.ts'
import type { ClientConfig, ConnectionEntry } from '../openvpn/config/client-config.ts'
import { DataChannel } from '../openvpn/data-channel.ts'
import { createIdentity } from '../openvpn/identity.ts'
import type { Tell } from '../openvpn/log.ts'
import type { Network } from '../openvpn/network.ts'
import type { Endpoint } from '../openvpn/transport.ts'
import type { SocketOptions } from '../platform/datagrams.ts'
import { SO_RCVBUF, SO_RCVBUFFORCE, SO_SNDBUF, SO_SNDBUFFORCE } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { setBuffer } from '../platform/sockopt.ts'
import { Watch } from '../platform/watch.ts'
import { realClock } from './clock.ts'
import { openDatagrams } from './datagrams.ts'
import { applyDns, nameservers, repairDns } from './dns.ts'
import { fileWatch } from './files.ts'
import { createNetwork } from './network.ts'
import { Proxies } from './proxies.ts'
import { runScript } from './scripts.ts'
import { type ConnectOptions, connectStream } from './streams.ts'

export interface ClientOptions {
  readonly ask: Ask
  readonly version: string
  /** Of the private key, where it is to be asked for. */
  readonly passphrase?: string | undefined
  readonly workers?: number | undefined
  /** The system's DNS, where it is not that of `/etc/resolv.conf`: another namespace's. */
  readonly resolvConf?: string | undefined
  readonly advisor?: Advisor | undefined
  readonly log: Tell
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
  const { ask, version, passphrase, workers, resolvConf, advisor, log, failed } = options
  const tls = createIdentity(config, {
    role: 'client',
    required: true,
    requested: true,
    passphrase,
    unixSeconds: () => Math.floor(realClock.date().getTime() / 1000),
    files: fileWatch,
  })
  const watch = new Watch()
  const proxies = new Proxies(watch)
  const network = createNetwork()
  if (resolvConf === undefined) repairDns()
  const client = new Client(
    config,
    {
      ...realClock,
      ask,
      version,
      advisor,
      log,
      resolve,
      pid: process.pid,
      open: (entry, remote, how) => open(watch, proxies, config, entry, remote, how),
      setBuffers,
      run: (command, environment) => runScript(command, { environment }),
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
      machine: () => describeMachine(network),
      network,
      nameservers: () => nameservers(resolvConf),
      applyDns: (device, plan) => applyDns(device, plan, log, resolvConf),
      tls,
    },
    events,
  )
  return { client, close: () => watch.close() }
}

function describeMachine(network: Network): Machine {
  const hop = network.defaultHop(4) ?? network.defaultHop(6)
  return {
    hardwareAddress: hop && network.hardwareAddress(hop.ifindex),
    // Bun has a revision of it, and no version.
    tls: `BoringSSL of Bun ${process.versions.bun}`,
    release: release(),
  }
}

async function resolve(host: string, family: 4 | 6 | undefined): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [asReceived(host)]
  const found = await lookup(host, { all: true, ...(family !== undefined && { family }) })
  return [...new Set(found.map(({ address }) => asReceived(address)))]
}

/** As sockets spell the addresses that packets come from: `2001:db8:0:0::1` is `2001:db8::1`. */
function asReceived(address: string): string {
  return ipaddr.process(address).toString()
}

async function open(
  watch: Watch,
  proxies: Proxies,
  config: ClientConfig,
  entry: ConnectionEntry,
  remote: Endpoint,
  how: OpenHow,
): Promise<OpenedTransport> {
  const { protocol, localHost, localPort, connectTimeout, httpProxy, socksProxy } = entry
  const sockets = socketOptions(config)
  const family = remote.address.includes(':') ? 6 : 4
  const any = family === 6 ? '::' : '0.0.0.0'
  const [address = any] = localHost === undefined ? [] : await resolve(localHost, family)
  const bound = localHost !== undefined || localPort !== undefined
  const stream: ConnectOptions = {
    ...sockets,
    ...(bound && { local: { address, port: localPort ?? 0 } }),
    timeoutMs: connectTimeout,
    signal: how.signal,
  }
  if (httpProxy !== undefined) return proxies.openHttp(entry, httpProxy, remote, stream, how)
  if (socksProxy !== undefined) return proxies.openSocks(entry, socksProxy, remote, stream, how)
  if (protocol === 'udp') {
    const transport = openDatagrams(watch, address, localPort ?? 0, sockets)
    return { transport, path: { remote } }
  }
  const transport = await connectStream(watch, remote, stream)
  return { transport, path: transport.path }
}

function setBuffers(
  fd: number,
  { sndbuf, rcvbuf }: { sndbuf?: number | undefined; rcvbuf?: number | undefined },
): void {
  const os = openLibc()
  if (sndbuf !== undefined) setBuffer(os, fd, SO_SNDBUFFORCE, SO_SNDBUF, sndbuf)
  if (rcvbuf !== undefined) setBuffer(os, fd, SO_RCVBUFFORCE, SO_RCVBUF, rcvbuf)
}

function socketOptions({ mark, bindDev, rcvbuf, sndbuf }: ClientConfig): SocketOptions {
  return {
    ...(mark !== undefined && { mark }),
    ...(bindDev !== undefined && { device: bindDev }),
    ...(rcvbuf !== undefined && { rcvbuf }),
    ...(sndbuf !== undefined && { sndbuf }),
  }
}
