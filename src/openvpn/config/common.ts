/** What the configurations of servers and clients have alike beside TLS and the process: the interface, sockets, keepalive. */
import type { ProtocolName } from './directives/directive.ts'
import type { Fields } from './fields.ts'
import type { Note, Settings } from './parse.ts'
import type { ProcessConfig } from './process-config.ts'
import type { TlsConfig } from './tls-config.ts'
import type { Millis } from './values.ts'

/** Flat on purpose: a field has the name of its directive. Undefined: not set, and no default. */
export interface CommonConfig extends TlsConfig, ProcessConfig, DeviceConfig, SocketConfig {
  /** Path of the configuration. */
  readonly file: string
  /** What the user should know: lines without effect, and differences. */
  readonly notes: readonly Note[]
}

export interface DeviceConfig {
  /** Name of the interface; `tun` for the next free one. */
  readonly dev: string
  /** Packets; undefined: as the system has it. */
  readonly txqueuelen: number | undefined
  readonly ifconfigNoexec: boolean
  readonly routeNoexec: boolean
  readonly routeTable: number | undefined
}

export interface SocketConfig {
  /** Bytes; undefined: as the system has it. */
  readonly sndbuf: number | undefined
  readonly rcvbuf: number | undefined
  readonly mark: number | undefined
  readonly bindDev: string | undefined
}

/** How TCP segments in the tunnel are limited; `size` in bytes. Source: docs/PROTOCOL.md and openvpn(8), `mssfix`. */
export interface Mssfix {
  readonly size: number
  /** What may be so large: the OpenVPN packet, the IP packet around it, or the IP packet inside. */
  readonly of: 'packet' | 'mtu' | 'fixed'
}

export function readDevice({ settings }: Fields): DeviceConfig {
  const dev = settings.last('dev')
  const type = settings.last('dev-type')
  const name = dev?.args.name ?? 'tun'
  const kind = type?.args.type ?? /^(tap|null)/.exec(name)?.[0] ?? 'tun'
  if (kind !== 'tun') {
    const message = `an interface '${kind}' is not done here: packets of layer 3 only; write 'dev tun'`
    settings.problem('refused', (type ?? dev)?.place, message)
  }
  return {
    dev: name,
    txqueuelen: settings.args('txqueuelen')?.packets,
    ifconfigNoexec: settings.has('ifconfig-noexec'),
    routeNoexec: settings.has('route-noexec'),
    routeTable: settings.args('route-table')?.table,
  }
}

/** 1492 bytes on the link fit PPPoE too; a tunnel with an MTU of its own is limited by that. Source: openvpn(8) of 2.6. */
export function readMssfix(settings: Pick<Settings, 'args'>, tunMtu: number): Mssfix | undefined {
  const usual: Mssfix = tunMtu === 1500 ? { size: 1492, of: 'mtu' } : { size: tunMtu, of: 'fixed' }
  const args = settings.args('mssfix')
  const limit = settings.args('max-packet-size')?.bytes
  if (args === undefined) return limit === undefined ? usual : { size: limit, of: 'mtu' }
  if (args.size === undefined) return usual
  return args.size === 0 ? undefined : { size: args.size, of: args.measure ?? 'packet' }
}

export const DEFAULT_PORT = 1194

/** `tcp6-server` → TCP over IPv6, the end of a server. */
export function readProtocol(name: ProtocolName): {
  protocol: 'udp' | 'tcp'
  family: 4 | 6 | undefined
  end: 'server' | 'client' | undefined
} {
  const [, protocol, digit, end] = /^(udp|tcp)([46]?)(?:-(\w+))?$/.exec(name)!
  return {
    protocol: protocol as 'udp' | 'tcp',
    family: digit === '4' ? 4 : digit === '6' ? 6 : undefined,
    end: end as 'server' | 'client' | undefined,
  }
}

/** The arguments of `inactive`; 0 seconds is off. */
export function readInactive(settings: Settings): { timeout: Millis; bytes: number } | undefined {
  const args = settings.args('inactive')
  return args === undefined || args.timeout === 0 ? undefined : args
}

/** What `keepalive` may stand beside. */
export function checkKeepalive(settings: Settings): void {
  const keepalive = settings.last('keepalive')
  if (keepalive === undefined) return
  const { interval, timeout } = keepalive.args
  if (timeout < 2 * interval) {
    const message =
      'keepalive: the second number is at least twice the first, so that one lost ping does no harm'
    settings.problem('argument', keepalive.place, message)
  }
  for (const name of ['ping', 'ping-restart', 'ping-exit'] as const) {
    const other = settings.last(name)
    if (other === undefined) continue
    settings.problem('conflict', other.place, `'${name}' and 'keepalive' exclude each other`)
  }
}

export function readSocket(settings: Settings): SocketConfig {
  return {
    sndbuf: settings.args('sndbuf')?.bytes,
    rcvbuf: settings.args('rcvbuf')?.bytes,
    mark: settings.args('mark')?.mark,
    bindDev: settings.args('bind-dev')?.device,
  }
}
