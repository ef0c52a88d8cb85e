/** What a server is told by a configuration file, in the form that it wants. */
import { formatOptionsString, parseOptionsString } from '../../wire/options-string.ts'
import { timestampOf } from '../../wire/wkc.ts'
import type { ServerConfig } from '../config/server-config.ts'
import { maskToPrefix } from '../config/values.ts'
import type { DoorSettings } from '../proto/cookie.ts'
import type { Network, ServerSettings } from './settings.ts'

/** IP and UDP headers, which `max-packet-size` counts in. */
const OUTER_HEADER_BYTES = 28
const MIN_CONTROL_BYTES = 154
const DAY = 86_400

export function serverSettings(config: ServerConfig): ServerSettings {
  const { ifconfig, ifconfigIpv6, pool, poolIpv6 } = config
  const finite = (count: number) => (Number.isFinite(count) ? count : 0)
  return {
    device: config.dev === 'tun' ? undefined : config.dev,
    v4: ifconfig && {
      address: ifconfig.local,
      prefix: maskToPrefix(ifconfig.netmask) ?? 32,
      pool: pool && { first: pool.start, last: pool.end },
    },
    v6: ifconfigIpv6 && {
      address: ifconfigIpv6.local.address,
      prefix: ifconfigIpv6.local.prefix,
      pool: poolIpv6 && { first: poolIpv6.address, last: lastOf(poolIpv6) },
    },
    setsAddresses: !config.ifconfigNoexec,
    queueLength: config.txqueuelen,
    tunMtu: config.tunMtu,
    mssfix: mssfixOf(config),
    push: config.push,
    keepalive: { interval: config.ping / 1000, timeout: config.pingRestart / 1000 },
    routes: config.routeNoexec ? [] : routesOf(config),
    routeTable: config.routeTable,
    clientToClient: config.clientToClient,
    addressConstraint: config.pushConstraint && {
      network: config.pushConstraint.network,
      prefix: maskToPrefix(config.pushConstraint.netmask) ?? 32,
    },
    maxClients: config.maxClients,
    duplicateCn: config.duplicateCn,
    maxRoutesPerClient: config.maxRoutesPerClient,
    connectFrequency: config.connectFreq && {
      count: config.connectFreq.count,
      per: config.connectFreq.interval,
    },
    connectFrequencyInitial: {
      count: config.connectFreqInitial.count,
      per: config.connectFreqInitial.interval,
    },
    dataCiphers: config.dataCiphers,
    dataCiphersFallback: config.dataCiphersFallback,
    requireTlsEkm: config.forceTlsKeyMaterialExport,
    passwords: passwordsOf(config),
    usernameAsCommonName: config.usernameAsCommonName,
    inactive: config.inactive,
    sessionTimeout: config.sessionTimeout,
    renegotiate: {
      after: config.renegSec.max,
      atLeast: config.renegSec.min,
      bytes: finite(config.renegBytes),
      packets: finite(config.renegPackets),
    },
    handWindow: config.handWindow,
    tranWindow: config.tranWindow,
    tlsTimeout: config.tlsTimeout,
    maxPacketBytes: Math.max(MIN_CONTROL_BYTES, config.maxPacketSize - OUTER_HEADER_BYTES),
    explicitExitNotify: Math.min(2, config.explicitExitNotify) as 0 | 1 | 2,
  }
}

/** How first packets are wrapped. `unixSeconds`: for `tls-crypt-v2-max-age`. @throws Error for keys that are none */
export function serverDoor(config: ServerConfig, unixSeconds: () => number): DoorSettings {
  const { wrap, tlsCryptV2 } = config
  const door: { -readonly [K in keyof DoorSettings]: DoorSettings[K] } = {}
  if (wrap.kind === 'tls-crypt') {
    door.wrap = { kind: 'tls-crypt', key: wrap.key, role: 'server' }
  } else if (wrap.kind === 'tls-auth') {
    const { key, direction } = wrap
    door.wrap = { kind: 'tls-auth', key, digest: config.auth, direction }
  } else if (tlsCryptV2 === undefined) {
    door.wrap = { kind: 'none' }
  }
  if (tlsCryptV2 !== undefined) {
    const { key, forceCookie, maxAge } = tlsCryptV2
    door.tlsCryptV2 = {
      serverKey: key,
      forceCookie,
      ...(maxAge !== undefined && {
        accepts: (metadata) => {
          const made = timestampOf(metadata)
          return made === undefined || unixSeconds() - made <= (maxAge / 1000 / DAY) * DAY
        },
      }),
    }
  }
  return door
}

/** Our options string, as a counterpart of the client's. */
export function serverOptions(config: ServerConfig): (client: { options: string }) => string {
  const { wrap, tunMtu, auth, cipher } = config
  const keyDirection = wrap.kind === 'tls-auth' ? (wrap.direction ?? 'none') : undefined
  return ({ options }) => {
    const tcp = /,proto TCP/.test(options)
    const { compLzo } = parseOptionsString(options)
    return formatOptionsString({ role: 'server', tunMtu, tcp, auth, cipher, keyDirection, compLzo })
  }
}

function passwordsOf(config: ServerConfig): ServerSettings['passwords'] {
  const asks = config.authUserPassVerify !== undefined || config.management?.clientAuth === true
  if (!asks) return 'none'
  // The management interface may let clients in without.
  const optional = config.authUserPassOptional || config.authUserPassVerify === undefined
  return optional ? 'optional' : 'require'
}

/** Largest packet outside that TCP inside is made to fit; undefined: TCP is left alone. */
function mssfixOf({ mssfix }: ServerConfig): number | undefined {
  if (mssfix === undefined) return undefined
  return mssfix.of === 'mtu' ? mssfix.size : mssfix.size + OUTER_HEADER_BYTES
}

function routesOf(config: ServerConfig): (Network & { metric?: number | undefined })[] {
  return [
    ...config.routes.map(({ network, netmask, metric }) => ({
      network,
      prefix: maskToPrefix(netmask) ?? 32,
      metric: metric ?? config.routeMetric,
    })),
    ...config.routesIpv6.map(({ network, metric }) => ({
      network: network.address,
      prefix: network.prefix,
      metric: metric ?? config.routeMetric,
    })),
  ]
}

function lastOf({ address, prefix }: { address: string; prefix: number }): string {
  const groups = expand(address)
  for (let bit = prefix; bit < 128; bit++) groups[bit >> 4]! |= 0x8000 >> (bit & 15)
  return groups.map((group) => group.toString(16)).join(':')
}

function expand(address: string): number[] {
  const [head = '', tail] = address.split('::')
  const parse = (text: string) =>
    text === '' ? [] : text.split(':').map((part) => Number.parseInt(part, 16))
  if (tail === undefined) return parse(head)
  const [first, last] = [parse(head), parse(tail)]
  return [...first, ...new Array<number>(8 - first.length - last.length).fill(0), ...last]
}
