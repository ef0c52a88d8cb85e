/**
 * The configuration of a client: complete, with defaults, its servers as a list, and files read. What it is done with is for
 * the client; what the server adds is in pushed.ts.
 */
import { type ClientKeyFile, parseClientKey } from '../../wire/static-key.ts'
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
import type { ProtocolName } from './directives/directive.ts'
import type { DirectiveName } from './directives.ts'
import { type Credentials, Fields, loadCredentials } from './fields.ts'
import { type NetworkOptions, readNetwork } from './network.ts'
import { type Files, parse, type Setting, type Settings, type Source } from './parse.ts'
import { readProcess } from './process-config.ts'
import { type Compression, type PullFilters, readCompression } from './pushed.ts'
import { portNumber } from './services.ts'
import { checkIdentity, readTls, readWrap, type WrapConfig } from './tls-config.ts'
import type { Millis, Place } from './values.ts'

/** A server to try: one `remote`, with what its connection block says about it. */
export interface ConnectionEntry {
  readonly host: string
  readonly port: number
  readonly protocol: 'udp' | 'tcp'
  /** Undefined: whatever the host's name resolves to. */
  readonly family: 4 | 6 | undefined
  readonly localHost: string | undefined
  /** Undefined: any. It is fixed only where `lport`, `bind` or `local` with a port say so. */
  readonly localPort: number | undefined
  readonly float: boolean
  readonly httpProxy: HttpProxy | undefined
  readonly socksProxy: SocksProxy | undefined
  /** How long to wait for the first answer. */
  readonly connectTimeout: Millis
  /** Between attempts; it doubles up to the second after some rounds. */
  readonly connectRetry: { readonly wait: Millis; readonly max: Millis }
  /** Attempts; Infinity: no limit. */
  readonly connectRetryMax: number
  readonly wrap: WrapConfig | TlsCryptV2Client
  readonly tunMtu: number
  /** Largest that the server may push. */
  readonly tunMtuMax: number
  /** Undefined: off. */
  readonly mssfix: Mssfix | undefined
  /** 0: the server is not told that this end leaves. */
  readonly explicitExitNotify: number
  readonly place: Place
}

interface TlsCryptV2Client extends Readonly<ClientKeyFile> {
  readonly kind: 'tls-crypt-v2'
}

export interface HttpProxy {
  readonly host: string
  readonly port: number
  /** Undefined: none is asked for or sent. */
  readonly credentials: Credentials | 'ask' | undefined
  /** Whether a password may go in the clear (`Basic`); else only as a digest. */
  readonly basic: boolean
  readonly httpVersion: string
  readonly agent: string | undefined
  readonly headers: readonly (readonly [name: string, value: string])[]
}

export interface SocksProxy {
  readonly host: string
  readonly port: number
  readonly credentials: Credentials | 'ask' | undefined
}

export interface ClientConfig extends CommonConfig, PullFilters {
  /** One at least, in the order of the profile. */
  readonly connections: readonly ConnectionEntry[]
  readonly remoteRandom: boolean
  readonly remoteRandomHostname: boolean
  /** How long a name is tried to be resolved; Infinity: for ever. */
  readonly resolvRetry: Millis
  readonly persistTun: boolean
  readonly persistRemoteIp: boolean

  /** What the profile itself says about addresses, routes and DNS: `mergeNetwork` adds what the server does. */
  readonly network: NetworkOptions
  readonly allowPullFqdn: boolean
  /** A command, `force`, or `disable`. Undefined: our own way, unless there is an `up` script. */
  readonly dnsUpdown: string | undefined

  /** 0: none. What the server pushes counts more. */
  readonly ping: Millis
  readonly pingRestart: Millis
  readonly pingExit: Millis
  readonly inactive: { readonly timeout: Millis; readonly bytes: number } | undefined
  readonly sessionTimeout: Millis | undefined

  /** Undefined: no name and password are sent. */
  readonly authUserPass: Credentials | 'ask' | 'ask-username' | undefined
  readonly authNocache: boolean
  readonly authRetry: 'none' | 'nointeract' | 'interact'
  readonly authToken: string | undefined
  readonly authTokenUser: string | undefined
  readonly staticChallenge:
    | { readonly prompt: string; readonly echo: boolean; readonly format: 'scrv1' | 'concat' }
    | undefined
  readonly pushPeerInfo: boolean
  readonly tlsExit: boolean
  /** Undefined: none was named. */
  readonly compression: Compression | undefined
  readonly ipchange: string | undefined
}

/** Throws a ConfigError with all that is wrong. */
export function readClientConfig(source: Source, files: Files): ClientConfig {
  const settings = parse(source, 'client', files)
  const config = clientConfig(settings, files)
  settings.check()
  return config
}

/** As far as it goes: `settings` then has what is wrong. */
export function clientConfig(settings: Settings, files: Files): ClientConfig {
  const fields = new Fields(settings, files)
  const network = readNetwork(settings)
  const challenge = settings.args('static-challenge')
  checkRole(settings)
  checkKeepalive(settings)
  checkIdentity(settings, 'optional')
  checkCredentials(settings)
  const keepalive = settings.args('keepalive')
  return {
    file: settings.file,
    notes: settings.notes,
    ...readDevice(fields),
    ...readSocket(settings),
    ...readTls(fields, 'client'),
    ...readProcess(fields),
    connections: readConnections(fields),
    remoteRandom: settings.has('remote-random'),
    remoteRandomHostname: settings.has('remote-random-hostname'),
    resolvRetry: settings.args('resolv-retry')?.wait ?? Infinity,
    persistTun: settings.has('persist-tun'),
    persistRemoteIp: settings.has('persist-remote-ip'),
    network,
    routeNopull: settings.has('route-nopull'),
    pullFilters: settings.all('pull-filter').map(({ args }) => args),
    allowPullFqdn: settings.has('allow-pull-fqdn'),
    dnsUpdown: readDnsUpdown(fields),
    ping: keepalive?.interval ?? settings.args('ping')?.interval ?? 0,
    pingRestart: keepalive?.timeout ?? settings.args('ping-restart')?.timeout ?? PING_RESTART,
    pingExit: settings.args('ping-exit')?.timeout ?? 0,
    inactive: readInactive(settings),
    sessionTimeout: settings.args('session-timeout')?.timeout || undefined,
    authUserPass: readAuthUserPass(fields),
    authNocache: settings.has('auth-nocache'),
    authRetry: settings.args('auth-retry')?.type ?? 'none',
    authToken: settings.args('auth-token')?.token,
    authTokenUser: settings.args('auth-token-user')?.user,
    staticChallenge: challenge && { ...challenge, echo: challenge.echo === '1' },
    pushPeerInfo: settings.has('push-peer-info') || hasSetenv(settings, 'PUSH_PEER_INFO'),
    tlsExit: settings.has('tls-exit'),
    compression: readFraming(settings),
    ipchange: fields.command('ipchange'),
  }
}

/** What a client that takes options waits for a sign of its server. Source: openvpn(8), "ping-restart". */
const PING_RESTART = 120_000

function hasSetenv(settings: Settings, name: string): boolean {
  return settings.all('setenv').some(({ args }) => args.name === name)
}

function checkRole(settings: Settings): void {
  const mode = settings.last('mode')
  if (mode?.args.mode === 'server') {
    const message = "this is a server's configuration; use it with 'ovpn server'"
    settings.problem('context', mode.place, message)
  } else if (!settings.has('client') && !(settings.has('pull') && settings.has('tls-client'))) {
    const message =
      "there is no line 'client'; tunnels between two fixed ends, without a server, are not done here"
    settings.problem('missing', undefined, message)
  }
  const generic = settings.all('setenv').find(({ args }) => args.name === 'GENERIC_CONFIG')
  if (generic !== undefined) {
    const message = "this profile is of nobody in particular: ask for one with a user's certificate"
    settings.problem('missing', generic.place, message)
  }
}

function checkCredentials(settings: Settings): void {
  const own = ['cert', 'pkcs12', 'auth-user-pass'] as const
  if (!own.some((name) => settings.has(name))) {
    const message =
      "nothing says who this client is; add 'cert FILE' and 'key FILE', or 'auth-user-pass'"
    settings.problem('missing', undefined, message)
  }
  const checks = [
    'remote-cert-tls',
    'remote-cert-eku',
    'remote-cert-ku',
    'verify-x509-name',
    'verify-hash',
    'peer-fingerprint',
    'tls-verify',
  ] as const
  if (!checks.some((name) => settings.has(name))) {
    const message =
      "any certificate of the same authority passes as the server, another client's too; add 'remote-cert-tls server'"
    settings.note('differs', undefined, message)
  }
  for (const name of ['auth-nocache', 'static-challenge'] as const) {
    const setting = settings.last(name)
    if (setting === undefined || settings.has('auth-user-pass') || settings.has('askpass')) continue
    settings.note('no-op', setting.place, `'${name}' has no effect without 'auth-user-pass'`)
  }
}

function readDnsUpdown({ settings }: Fields): string | undefined {
  const setting = settings.last('dns-updown')
  const text = setting?.args.command
  if (setting === undefined || text === 'disable' || text === 'force') return text
  if ((settings.args('script-security')?.level ?? 1) < 2) {
    const message = "'dns-updown' runs a program, and that needs a line 'script-security 2'"
    settings.problem('conflict', setting.place, message)
  }
  return text
}

function readAuthUserPass(fields: Fields): ClientConfig['authUserPass'] {
  const setting = fields.settings.last('auth-user-pass')
  if (setting === undefined) return undefined
  const { file } = setting.args
  if (file === undefined || file === 'stdin') return 'ask'
  if (file === 'username-only') return 'ask-username'
  return loadCredentials(fields.settings, fields.files, setting, file)
}

function readFraming(settings: Settings): Compression | undefined {
  const compression = readCompression(settings)
  if (compression?.framed) {
    const place = (settings.last('compress') ?? settings.last('comp-lzo'))?.place
    const message = `'${compression.text}' puts a byte before each packet, which the offloaded data channel does not: the connection fails unless the server replaces it; if it does fail, try without this line`
    settings.note('differs', place, message)
  }
  return compression
}

/** Settings of a connection block over those of the whole. */
class Merged {
  readonly #own: Settings | undefined
  readonly #whole: Settings

  constructor(own: Settings | undefined, whole: Settings) {
    this.#own = own
    this.#whole = whole
  }

  last<N extends DirectiveName>(name: N): Setting<N> | undefined {
    return this.#own?.last(name) ?? this.#whole.last(name)
  }

  args<N extends DirectiveName>(name: N): Setting<N>['args'] | undefined {
    return this.last(name)?.args
  }

  has(name: DirectiveName): boolean {
    return this.last(name) !== undefined
  }

  all<N extends DirectiveName>(name: N): Setting<N>[] {
    const own = this.#own?.all(name) ?? []
    return own.length > 0 ? own : this.#whole.all(name)
  }
}

function readConnections(fields: Fields): ConnectionEntry[] {
  const { settings, files } = fields
  const wrap = readClientWrap(fields) ?? { kind: 'none' }
  const entries: ConnectionEntry[] = []
  const add = (own: Settings | undefined, remote: Setting<'remote'>) => {
    const merged = new Merged(own, settings)
    const ownWrap = own && readClientWrap(new Fields(own, files), settings)
    entries.push(readConnection(fields, merged, remote, ownWrap ?? wrap))
  }
  for (const remote of settings.all('remote')) add(undefined, remote)
  for (const { settings: own, place } of settings.connections) {
    const remotes = own.all('remote')
    if (remotes.length === 0) {
      settings.problem('missing', place, "<connection> needs a line 'remote HOST PORT'")
    }
    for (const remote of remotes) add(own, remote)
  }
  if (entries.length === 0) {
    settings.problem('missing', undefined, "there is no server: add 'remote HOST PORT'")
  }
  const force = settings.last('proto-force')
  if (force === undefined) return entries
  const { protocol } = readProtocol(force.args.protocol)
  const left = entries.filter((entry) => entry.protocol === protocol)
  if (left.length === 0 && entries.length > 0) {
    const message = `proto-force ${protocol} leaves no server to connect to`
    settings.problem('conflict', force.place, message)
  }
  return left
}

/** Undefined where none of the directives is there. */
function readClientWrap(fields: Fields, whole?: Settings): ConnectionEntry['wrap'] | undefined {
  const { settings } = fields
  const wrap = readWrap(fields, whole)
  const key = fields.key('tls-crypt-v2', parseClientKey)
  if (key === undefined) return wrap
  if (wrap !== undefined) {
    const message = "'tls-crypt-v2' excludes 'tls-crypt' and 'tls-auth'"
    settings.problem('conflict', settings.last('tls-crypt-v2')?.place, message)
  }
  return { kind: 'tls-crypt-v2', ...key }
}

function readConnection(
  fields: Fields,
  settings: Merged,
  remote: Setting<'remote'>,
  wrap: ConnectionEntry['wrap'],
): ConnectionEntry {
  const { args, place } = remote
  const name: ProtocolName = args.protocol ?? settings.args('proto')?.protocol ?? 'udp'
  const { protocol, family, end } = readProtocol(name)
  if (end === 'server') {
    const at = args.protocol === undefined ? settings.last('proto')?.place : place
    const message = "a client connects: write 'tcp' or 'tcp-client'"
    fields.settings.problem('conflict', at, message)
  }
  const rport = settings.last('rport') ?? settings.last('port')
  const named = args.port === undefined ? rport : remote
  const text = named?.args.port ?? DEFAULT_PORT
  const port = portNumber(fields, text, protocol, named)
  if (text === 0) fields.settings.problem('argument', place, 'a server has no port 0')
  const tunMtu = settings.args('tun-mtu')?.mtu ?? 1500
  const retry = settings.args('connect-retry')
  const wait = retry?.wait ?? 1000
  const timeout = settings.args('server-poll-timeout') ?? settings.args('connect-timeout')
  return {
    host: args.host,
    port,
    protocol,
    family,
    ...readLocal(fields, settings, protocol),
    float: settings.has('float'),
    ...readProxies(fields, settings, protocol, place),
    connectTimeout: timeout?.wait ?? 120_000,
    connectRetry: { wait, max: Math.max(wait, retry?.max ?? 300_000) },
    connectRetryMax: settings.args('connect-retry-max')?.count ?? Infinity,
    wrap,
    tunMtu,
    tunMtuMax: Math.max(tunMtu, settings.args('tun-mtu-max')?.mtu ?? 1600),
    mssfix: readMssfix(settings, tunMtu),
    explicitExitNotify: settings.args('explicit-exit-notify')?.attempts ?? 0,
    place,
  }
}

function readLocal(
  fields: Fields,
  merged: Merged,
  protocol: 'udp' | 'tcp',
): Pick<ConnectionEntry, 'localHost' | 'localPort'> {
  const local = merged.last('local')
  const nobind = merged.last('nobind')
  const lport = merged.last('lport')
  if (nobind !== undefined && (local?.args.port !== undefined || lport !== undefined)) {
    const message =
      "'nobind' leaves the local port to the system; 'lport' and the port of 'local' fix it"
    fields.settings.problem('conflict', nobind.place, message)
  }
  const bound = merged.has('bind') ? merged.last('port') : undefined
  const fixed = [lport, local, bound].find((setting) => setting?.args.port !== undefined)
  const port = fixed?.args.port ?? (merged.has('bind') ? DEFAULT_PORT : undefined)
  const isAny = port === undefined || nobind !== undefined
  return {
    localHost: local?.args.host,
    localPort: isAny ? undefined : portNumber(fields, port, protocol, fixed),
  }
}

function readProxies(
  fields: Fields,
  merged: Merged,
  protocol: 'udp' | 'tcp',
  place: Place,
): Pick<ConnectionEntry, 'httpProxy' | 'socksProxy'> {
  const http = merged.last('http-proxy')
  const socks = merged.last('socks-proxy')
  if (http !== undefined && socks !== undefined) {
    const message = "'http-proxy' and 'socks-proxy' exclude each other"
    fields.settings.problem('conflict', socks.place, message)
  }
  if (http !== undefined && protocol === 'udp') {
    const message = `an HTTP proxy (${http.place.file}:${http.place.line}) carries TCP only: write 'tcp-client' as the protocol of this server`
    fields.settings.problem('conflict', place, message)
  }
  const socksProxy = socks && {
    host: socks.args.host,
    port: portNumber(fields, socks.args.port, 'tcp', socks),
    credentials: proxyCredentials(fields, socks, socks.args.auth),
  }
  return { httpProxy: http && readHttpProxy(fields, merged, http), socksProxy }
}

function readHttpProxy(fields: Fields, merged: Merged, http: Setting<'http-proxy'>): HttpProxy {
  const { host, auth, method } = http.args
  if (method === 'ntlm' || method === 'ntlm2') {
    const message = 'http-proxy: NTLM is not done here; proxies that have it often take basic too'
    fields.settings.problem('refused', http.place, message)
  }
  const inline = merged.last('http-proxy-user-pass')
  const automatic = auth === 'auto' || auth === 'auto-nct'
  const options = merged.all('http-proxy-option')
  const option = (name: string) => options.findLast(({ args }) => args.option === name)?.args.values
  return {
    host,
    port: portNumber(fields, http.args.port, 'tcp', http),
    credentials:
      inline !== undefined
        ? proxyCredentials(fields, inline, inline.args.file)
        : automatic
          ? 'ask'
          : method === 'none'
            ? undefined
            : proxyCredentials(fields, http, auth),
    basic: auth !== 'auto-nct',
    httpVersion: option('VERSION')?.[0] ?? '1.0',
    agent: option('AGENT')?.join(' '),
    headers: options
      .filter(({ args }) => args.option === 'CUSTOM-HEADER')
      .map(({ args: { values } }) => readHeader(values)),
  }
}

/** `NAME VALUE`, or one text `NAME: VALUE`. */
function readHeader([name = '', ...values]: readonly string[]): [string, string] {
  if (values.length > 0) return [name.replace(/:$/, ''), values.join(' ')]
  const colon = name.indexOf(':')
  return colon < 0 ? [name, ''] : [name.slice(0, colon), name.slice(colon + 1).trim()]
}

function proxyCredentials(
  { settings, files }: Fields,
  setting: Setting,
  path: string | undefined,
): Credentials | 'ask' | undefined {
  if (path === undefined) return undefined
  return path === 'stdin' ? 'ask' : loadCredentials(settings, files, setting, path)
}
