/**
 * The configuration of a server: complete, with defaults, helper directives expanded and files read. What it is done with is
 * for the server.
 */
import { parseAuthTokenKey, parseServerKey } from '../../wire/static-key.ts'
import {
  type CommonConfig,
  checkKeepalive,
  DEFAULT_PORT,
  type Mssfix,
  readDevice,
  readInactive,
  readMssfix,
  readProtocol,
  readSocket,
} from './common.ts'
import { Fields } from './fields.ts'
import { type Ipv6Route, type Route, readNetwork } from './network.ts'
import { type Files, parse, type Setting, type Settings, type Source } from './parse.ts'
import { readProcess } from './process-config.ts'
import { checkPush, NO_FRAMING, readCompression } from './pushed.ts'
import { portNumber } from './services.ts'
import { checkIdentity, readTls, readWrap, type WrapConfig } from './tls-config.ts'
import {
  type Ipv6Prefix,
  ipv4ToNumber,
  ipv6Plus,
  type Millis,
  maskToPrefix,
  numberToIpv4,
  type Place,
} from './values.ts'

/** A socket to listen with. */
export interface Listener {
  readonly protocol: 'udp' | 'tcp'
  /** Undefined: IPv4 and IPv6 where no address is given, else what the address is of. */
  readonly family: 4 | 6 | undefined
  /** Undefined: every address. */
  readonly host: string | undefined
  readonly port: number
  /** An IPv6 socket that takes no IPv4. */
  readonly ipv6only: boolean
}

export interface ServerConfig extends CommonConfig {
  /** One at least. */
  readonly listeners: readonly Listener[]
  readonly multihome: boolean

  readonly tunMtu: number
  /** Undefined: off. */
  readonly mssfix: Mssfix | undefined
  /** Our address and the netmask. Topology is `subnet`, always. */
  readonly ifconfig: { readonly local: string; readonly netmask: string } | undefined
  readonly ifconfigIpv6: { readonly local: Ipv6Prefix } | undefined
  /** First and last address for clients. */
  readonly pool: { readonly start: string; readonly end: string } | undefined
  /** First IPv6 address for clients, and the length of the prefix it is of. */
  readonly poolIpv6: Ipv6Prefix | undefined
  /** Interval 0: the file is only read. */
  readonly poolPersist: { readonly path: string; readonly interval: Millis } | undefined
  readonly pushConstraint: { readonly network: string; readonly netmask: string } | undefined
  /** Routes of the server's own system. */
  readonly routes: readonly Route[]
  readonly routesIpv6: readonly Ipv6Route[]
  readonly routeMetric: number | undefined

  /** Options for every client in order, helpers' among them; addresses and what is negotiated are not. */
  readonly push: readonly string[]
  readonly clientConfigDir: string | undefined
  readonly ccdExclusive: boolean
  readonly clientToClient: boolean
  readonly duplicateCn: boolean
  readonly maxClients: number
  readonly maxRoutesPerClient: number
  /** So many within so long. */
  readonly connectFreq: { readonly count: number; readonly interval: Millis } | undefined
  readonly connectFreqInitial: { readonly count: number; readonly interval: Millis }

  /** 0: none. */
  readonly ping: Millis
  readonly pingRestart: Millis
  readonly inactive: { readonly timeout: Millis; readonly bytes: number } | undefined
  readonly sessionTimeout: Millis | undefined
  /** 0: clients are not told that the server ends; 1: to connect again; 2: to go to their next server. */
  readonly explicitExitNotify: number

  readonly wrap: WrapConfig
  /** Beside `wrap`: clients may have either. */
  readonly tlsCryptV2: TlsCryptV2Server | undefined
  readonly verifyClientCert: 'none' | 'optional' | 'require'
  readonly usernameAsCommonName: boolean
  readonly authUserPassVerify:
    | { readonly command: string; readonly method: 'via-env' | 'via-file' }
    | undefined
  readonly authUserPassOptional: boolean
  readonly authGenToken: AuthGenToken | undefined

  readonly clientConnect: string | undefined
  readonly clientDisconnect: string | undefined
  readonly clientCrresponse: string | undefined
  readonly learnAddress: string | undefined
}

interface TlsCryptV2Server {
  /** 128 bytes. */
  readonly key: Uint8Array
  /** Clients without the cookie of OpenVPN 2.6 are refused (`force-cookie`). */
  readonly forceCookie: boolean
  readonly verify: string | undefined
  readonly maxAge: Millis | undefined
}

interface AuthGenToken {
  /** 0: without end. */
  readonly lifetime: Millis
  readonly renewal: Millis
  /** Tokens are also shown to whoever decides about passwords. */
  readonly externalAuth: boolean
  /** 32 bytes. Undefined: new ones at each start. */
  readonly secret: Uint8Array | undefined
}

/**
 * `decides`: the program that runs the server decides about passwords itself.
 *
 * @throws ConfigError with all that is wrong
 */
export function readServerConfig(source: Source, files: Files, decides = false): ServerConfig {
  const settings = parse(source, 'server', files)
  const config = serverConfig(settings, files, decides)
  settings.check()
  return config
}

/** As far as it goes: `settings` then has what is wrong. */
export function serverConfig(settings: Settings, files: Files, decides = false): ServerConfig {
  const fields = new Fields(settings, files)
  const network = readNetwork(settings)
  const addresses = readAddresses(settings)
  const keepalive = readKeepalive(settings)
  const helperPush: string[] = []
  if (addresses.ifconfig !== undefined) {
    const pushes = (name: string) =>
      settings.all('push').some(({ args }) => args.option.split(' ')[0] === name)
    if (!pushes('route-gateway')) helperPush.push(`route-gateway ${addresses.ifconfig.local}`)
    if (!pushes('topology')) helperPush.push('topology subnet')
  }
  helperPush.push(...keepalive.push)
  if (settings.has('tcp-nodelay')) helperPush.push('socket-flags TCP_NODELAY')
  const tunMtu = network.tunMtu ?? 1500
  const tls = readTls(fields, 'server')
  checkRole(settings)
  checkCompress(settings)
  checkRoutes(settings)
  checkIdentity(settings, 'needed')
  const config: ServerConfig = {
    file: settings.file,
    notes: settings.notes,
    ...readDevice(fields),
    ...readSocket(settings),
    ...tls,
    ...readProcess(fields),
    listeners: readListeners(fields),
    multihome: settings.has('multihome'),
    tunMtu,
    mssfix: readMssfix(settings, tunMtu),
    ...addresses,
    poolPersist: readPoolPersist(fields),
    pushConstraint: settings.args('ifconfig-push-constraint'),
    routes: network.routes,
    routesIpv6: network.routesIpv6,
    routeMetric: network.routeMetric,
    push: [...readPush(settings), ...helperPush],
    clientConfigDir: fields.folder('client-config-dir'),
    ccdExclusive: settings.has('ccd-exclusive'),
    clientToClient: settings.has('client-to-client'),
    duplicateCn: settings.has('duplicate-cn'),
    maxClients: settings.args('max-clients')?.count ?? 1024,
    maxRoutesPerClient: settings.args('max-routes-per-client')?.count ?? 256,
    connectFreq: settings.args('connect-freq'),
    connectFreqInitial: settings.args('connect-freq-initial') ?? { count: 100, interval: 10_000 },
    ping: keepalive.ping,
    pingRestart: keepalive.pingRestart,
    inactive: readInactive(settings),
    sessionTimeout: settings.args('session-timeout')?.timeout || undefined,
    explicitExitNotify: settings.args('explicit-exit-notify')?.attempts ?? 0,
    wrap: readWrap(fields) ?? { kind: 'none' },
    tlsCryptV2: readTlsCryptV2(fields),
    verifyClientCert: settings.args('verify-client-cert')?.mode ?? 'require',
    usernameAsCommonName: settings.has('username-as-common-name'),
    authUserPassVerify: readPasswordVerify(fields),
    authUserPassOptional: settings.has('auth-user-pass-optional'),
    authGenToken: readAuthGenToken(fields, tls.renegSec.max, tls.handWindow),
    clientConnect: fields.command('client-connect'),
    clientDisconnect: fields.command('client-disconnect'),
    clientCrresponse: fields.command('client-crresponse'),
    learnAddress: fields.command('learn-address'),
  }
  const asked = decides || settings.has('auth-user-pass-verify') || config.management?.clientAuth
  if (!asked) checkAuthentication(settings, config)
  return config
}

function checkRole(settings: Settings): void {
  const serving = settings.args('mode')?.mode === 'server' || settings.has('server')
  if (!serving && !settings.has('server-ipv6')) {
    const message =
      "nothing says which addresses clients get; add 'server 10.8.0.0 255.255.255.0' (a tunnel between two fixed ends, without 'mode server', is not done here)"
    settings.problem('missing', undefined, message)
  }
  if (settings.has('ccd-exclusive') && !settings.has('client-config-dir')) {
    const place = settings.last('ccd-exclusive')?.place
    settings.problem('missing', place, "'ccd-exclusive' needs 'client-config-dir'")
  }
}

function readListeners(fields: Fields): Listener[] {
  const { settings } = fields
  const proto = settings.last('proto')
  const named = settings.last('lport') ?? settings.last('port')
  const ipv6only = settings.args('bind')?.only === 'ipv6only'
  const usual = proto?.args.protocol ?? 'udp'
  const listeners: Listener[] = []
  const seen = new Map<string, Place | undefined>()
  const add = (local: Setting<'local'> | undefined) => {
    const { args, place } = local ?? { args: undefined, place: proto?.place }
    const { end, ...kind } = readProtocol(args?.protocol ?? usual)
    if (end === 'client') {
      settings.problem('conflict', place, "a server listens: write 'udp' or 'tcp'")
    }
    const text = args?.port ?? named?.args.port ?? DEFAULT_PORT
    const at = args?.port === undefined ? named : local
    const port = portNumber(fields, text, kind.protocol, at)
    const listener = { ...kind, host: args?.host, port, ipv6only }
    const key = JSON.stringify(listener)
    if (seen.has(key)) settings.problem('conflict', place, 'it is listened there already')
    seen.set(key, place)
    listeners.push(listener)
  }
  for (const local of settings.all('local')) add(local)
  if (listeners.length === 0) add(undefined)
  return listeners
}

type Addresses = Pick<ServerConfig, 'ifconfig' | 'ifconfigIpv6' | 'pool' | 'poolIpv6'>

/** `server` and `server-ipv6`, or what they stand for. Source: openvpn(8), "server". */
function readAddresses(settings: Settings): Addresses {
  const topology = settings.last('topology')
  if (topology !== undefined && topology.args.topology !== 'subnet') {
    const message = `topology ${topology.args.topology} is not done by servers here: write 'topology subnet'; clients take it as it is`
    settings.problem('refused', topology.place, message)
  }
  return { ...readIpv4(settings), ...readIpv6(settings) }
}

function readIpv4(settings: Settings): Pick<Addresses, 'ifconfig' | 'pool'> {
  const server = settings.last('server')
  const own = settings.last('ifconfig')
  const pool = settings.last('ifconfig-pool')
  if (server === undefined) {
    const ifconfig = own && { local: own.args.local, netmask: own.args.remote }
    if (ifconfig !== undefined && maskToPrefix(ifconfig.netmask) === undefined) {
      const message = `ifconfig: expected the netmask of the clients' network behind our address, not '${ifconfig.netmask}'`
      settings.problem('argument', own?.place, message)
    }
    if (pool !== undefined) checkPool(settings, pool.args, ifconfig, pool.place)
    return { ifconfig, pool: pool && { start: pool.args.start, end: pool.args.end } }
  }
  const { network, netmask, nopool } = server.args
  const first = ipv4ToNumber(network)
  const size = 2 ** (32 - (maskToPrefix(netmask) ?? 32))
  const ifconfig = { local: numberToIpv4(first + 1), netmask }
  if (first % size !== 0) {
    const right = numberToIpv4(first - (first % size))
    const message = `server: ${network} is no network of mask ${netmask}; ${right} is`
    settings.problem('argument', server.place, message)
  } else if (size < 8 || size > 2 ** 16) {
    const message =
      'server: a network has from 8 (255.255.255.248) to 65536 addresses (255.255.0.0)'
    settings.problem('argument', server.place, message)
  }
  if (own !== undefined) {
    const message = "'server' gives us the first address of its network; remove 'ifconfig'"
    settings.problem('conflict', own.place, message)
  }
  if (nopool === undefined && pool !== undefined) {
    const message = "'server' makes a pool of its network; write 'server … nopool', or remove this"
    settings.problem('conflict', pool.place, message)
  }
  if (nopool !== undefined) {
    if (pool !== undefined) checkPool(settings, pool.args, ifconfig, pool.place)
    return { ifconfig, pool: pool && { start: pool.args.start, end: pool.args.end } }
  }
  return { ifconfig, pool: { start: numberToIpv4(first + 2), end: numberToIpv4(first + size - 2) } }
}

function checkPool(
  settings: Settings,
  { start, end }: { start: string; end: string },
  ifconfig: { local: string; netmask: string } | undefined,
  place: Place,
): void {
  const [first, last] = [ipv4ToNumber(start), ipv4ToNumber(end)]
  if (last < first || last - first >= 2 ** 16) {
    const message = 'ifconfig-pool: expected a first and a last address, and at most 65536 in all'
    settings.problem('argument', place, message)
  }
  if (ifconfig === undefined) {
    const message = "'ifconfig-pool' needs our own address: add 'ifconfig ADDRESS NETMASK'"
    settings.problem('missing', place, message)
    return
  }
  const size = 2 ** (32 - (maskToPrefix(ifconfig.netmask) ?? 0))
  const network = (address: number) => Math.floor(address / size)
  const own = network(ipv4ToNumber(ifconfig.local))
  if (network(first) !== own || network(last) !== own) {
    const message = `ifconfig-pool: ${start} to ${end} is not all in the network of ${ifconfig.local} ${ifconfig.netmask}`
    settings.problem('conflict', place, message)
  }
}

function readIpv6(settings: Settings): Pick<Addresses, 'ifconfigIpv6' | 'poolIpv6'> {
  const server = settings.last('server-ipv6')
  const own = settings.last('ifconfig-ipv6')
  const pool = settings.last('ifconfig-ipv6-pool')
  if (server === undefined) {
    if (pool !== undefined && own === undefined) {
      const message = "'ifconfig-ipv6-pool' needs our own address: add 'ifconfig-ipv6 ADDRESS/BITS'"
      settings.problem('missing', pool.place, message)
    }
    return {
      ifconfigIpv6: own && { local: own.args.local },
      poolIpv6: pool?.args.network,
    }
  }
  for (const other of [own, pool]) {
    if (other === undefined) continue
    const message = `'server-ipv6' says all of that; remove '${other.name}'`
    settings.problem('conflict', other.place, message)
  }
  const { address, prefix } = server.args.network
  // Room is left before the pool where there is enough of it.
  const offset = prefix < 112 ? 0x1000 : 2
  return {
    ifconfigIpv6: { local: { address: ipv6Plus(address, prefix, 1), prefix } },
    poolIpv6: { address: ipv6Plus(address, prefix, offset), prefix },
  }
}

function readPoolPersist(fields: Fields): ServerConfig['poolPersist'] {
  const path = fields.path('ifconfig-pool-persist')
  const interval = fields.settings.args('ifconfig-pool-persist')?.interval ?? 0
  return path === undefined ? undefined : { path, interval }
}

function readKeepalive(settings: Settings): { ping: Millis; pingRestart: Millis; push: string[] } {
  const keepalive = settings.last('keepalive')
  const [ping, restart] = [settings.last('ping'), settings.last('ping-restart')]
  if (keepalive === undefined) {
    return { ping: ping?.args.interval ?? 0, pingRestart: restart?.args.timeout ?? 0, push: [] }
  }
  checkKeepalive(settings)
  const { interval, timeout } = keepalive.args
  return {
    ping: interval,
    // A client gives up first, and comes again as a new one.
    pingRestart: 2 * timeout,
    push: [`ping ${interval / 1000}`, `ping-restart ${timeout / 1000}`],
  }
}

function readPush(settings: Settings): string[] {
  const wanted = settings.all('push').filter(({ args, place }) => {
    return checkPush(settings, args.option, place)
  })
  return wanted.map(({ args }) => args.option)
}

function readTlsCryptV2(fields: Fields): TlsCryptV2Server | undefined {
  const { settings } = fields
  const key = fields.key('tls-crypt-v2', parseServerKey)
  const verify = fields.command('tls-crypt-v2-verify')
  const days = settings.args('tls-crypt-v2-max-age')?.days
  if (key === undefined) {
    for (const name of ['tls-crypt-v2-verify', 'tls-crypt-v2-max-age'] as const) {
      if (settings.has(name) && !settings.has('tls-crypt-v2')) {
        settings.problem('missing', fields.place(name), `'${name}' needs 'tls-crypt-v2 FILE'`)
      }
    }
    return undefined
  }
  return {
    key,
    forceCookie: settings.args('tls-crypt-v2')?.cookie === 'force-cookie',
    verify,
    maxAge: days === undefined ? undefined : days * 86_400_000,
  }
}

function readPasswordVerify(fields: Fields): ServerConfig['authUserPassVerify'] {
  const command = fields.command('auth-user-pass-verify')
  const setting = fields.settings.last('auth-user-pass-verify')
  if (command === undefined || setting === undefined) return undefined
  const level = fields.settings.args('script-security')?.level ?? 1
  if (setting.args.method === 'via-env' && level < 3) {
    const message =
      "a password in the environment needs a line 'script-security 3'; or write 'via-file'"
    fields.settings.problem('conflict', setting.place, message)
  }
  return { command, method: setting.args.method }
}

function readAuthGenToken(fields: Fields, reneg: Millis, hand: Millis): AuthGenToken | undefined {
  const { settings } = fields
  const setting = settings.last('auth-gen-token')
  const secret = fields.key('auth-gen-token-secret', parseAuthTokenKey)
  if (setting === undefined) {
    if (secret !== undefined) {
      const place = fields.place('auth-gen-token-secret')
      settings.problem('missing', place, "'auth-gen-token-secret' needs 'auth-gen-token'")
    }
    return undefined
  }
  const { lifetime, renewal, external } = setting.args
  const externalAuth = renewal === 'external-auth' || external !== undefined
  const period = typeof renewal === 'number' ? renewal : reneg
  if (typeof renewal === 'number' && renewal < 2 * hand) {
    const message = `auth-gen-token: a token is renewed after ${(2 * hand) / 1000} seconds (twice 'hand-window') at the earliest`
    settings.problem('argument', setting.place, message)
  }
  return { lifetime, renewal: period, externalAuth, secret }
}

/** Routes lead into the tunnel, whatever address in it they name. */
function checkRoutes(settings: Settings): void {
  for (const { name, args, place } of [...settings.all('route'), ...settings.all('route-ipv6')]) {
    if (args.gateway !== 'net_gateway' && args.gateway !== 'remote_host') continue
    const message = `${name}: routes of a server lead into the tunnel; for one to ${args.gateway} use ip(8)`
    settings.problem('refused', place, message)
  }
}

/** Clients that have `comp-lzo` are told to leave it in any case, as `compress migrate` wants it. */
function checkCompress(settings: Settings): void {
  if (readCompression(settings)?.framed !== true) return
  for (const { name, place } of [...settings.all('comp-lzo'), ...settings.all('compress')]) {
    settings.note('differs', place, `${name}: ${NO_FRAMING}`)
  }
}

/** What asks for passwords where nobody decides about them. */
function checkAuthentication(settings: Settings, config: ServerConfig): void {
  const add = "add 'auth-user-pass-verify COMMAND via-file', or 'management-client-auth'"
  const none = settings.last('verify-client-cert')
  if (config.verifyClientCert !== 'require') {
    const message = `clients without a certificate need a password: ${add}`
    settings.problem('missing', none?.place, message)
  }
  for (const name of ['username-as-common-name', 'auth-user-pass-optional'] as const) {
    const setting = settings.last(name)
    if (setting === undefined) continue
    settings.problem('missing', setting.place, `'${name}' needs passwords: ${add}`)
  }
}
