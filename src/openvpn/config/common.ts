/** What the configurations of servers and clients have alike: the interface, sockets, TLS, the process. */

import { parseStaticKey } from '../../wire/static-key.ts'
import type { ProtocolName } from './directives/directive.ts'
import type { DirectiveName } from './directives.ts'
import { parseFingerprint } from './kinds.ts'
import {
  decodeText,
  type Files,
  load,
  type Note,
  resolvePath,
  type Setting,
  type Settings,
} from './parse.ts'
import type { Loaded, Millis, Place } from './values.ts'

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
  readonly mtuDisc: 'no' | 'maybe' | 'yes' | undefined
}

/** How TCP segments in the tunnel are limited; `size` in bytes. Source: docs/PROTOCOL.md and openvpn(8), `mssfix`. */
export interface Mssfix {
  readonly size: number
  /** What may be so large: the OpenVPN packet, the IP packet around it, or the IP packet inside. */
  readonly of: 'packet' | 'mtu' | 'fixed'
}

export type TlsVersion = '1.0' | '1.1' | '1.2' | '1.3'

export interface TlsConfig {
  /** PEM. */
  readonly ca: Loaded | undefined
  /** Path of a folder. */
  readonly capath: string | undefined
  readonly cert: Loaded | undefined
  readonly key: Loaded | undefined
  readonly extraCerts: Loaded | undefined
  /** DER. */
  readonly pkcs12: Loaded | undefined
  /** Password of the key: to be asked for, or what it is. */
  readonly keyPassword: 'ask' | { readonly password: string } | undefined
  readonly crlVerify: Loaded | { readonly directory: string } | undefined
  /** Lower-case hexadecimal. Of certificates that peers may have: SHA-256. */
  readonly peerFingerprints: readonly string[]
  /** Of the certificate that issued the peer's. */
  readonly verifyHash:
    | { readonly algorithm: 'SHA1' | 'SHA256'; readonly hashes: readonly string[] }
    | undefined
  readonly remoteCertTls: 'server' | 'client' | undefined
  /** Bits as in the certificate, any one of which will do; empty: only that there is a key usage. */
  readonly remoteCertKu: readonly number[] | undefined
  /** A name as OpenSSL has it, or an OID. */
  readonly remoteCertEku: string | undefined
  readonly verifyX509Name:
    | { readonly name: string; readonly type: 'subject' | 'name' | 'name-prefix' }
    | undefined
  readonly x509UsernameFields: readonly string[]
  readonly tlsVerify: string | undefined
  readonly tlsCertProfile: 'insecure' | 'legacy' | 'preferred' | 'suiteb'
  readonly tlsVersionMin: TlsVersion
  readonly tlsVersionMax: TlsVersion | undefined
  /** As written: names of IANA or of OpenSSL, or a keyword of the latter. */
  readonly tlsCipher: readonly string[] | undefined
  readonly tlsGroups: readonly string[] | undefined
  readonly forceTlsKeyMaterialExport: boolean
  readonly tlsTimeout: Millis
  readonly handWindow: Millis
  readonly tranWindow: Millis
  /** Keys are renewed after a random time between these; 0: never. */
  readonly renegSec: { readonly min: Millis; readonly max: Millis }
  /** Infinity: no limit. */
  readonly renegBytes: number
  readonly renegPackets: number
  /** OpenVPN's names in capitals, preferred first, of those that the driver has. */
  readonly dataCiphers: readonly string[]
  /** For peers that do not negotiate. Undefined: such are refused. */
  readonly dataCiphersFallback: string | undefined
  /** `cipher`, as written: for the options string. */
  readonly cipher: string | undefined
  /** Digest of `tls-auth`: a name that node:crypto knows. */
  readonly auth: string
  /** Largest control packet, with all headers. */
  readonly maxPacketSize: number
}

export interface ProcessConfig {
  readonly verb: number
  readonly mute: number | undefined
  readonly log: { readonly path: string; readonly append: boolean } | undefined
  readonly suppressTimestamps: boolean
  readonly machineReadableOutput: boolean
  readonly writepid: string | undefined
  readonly status: { readonly path: string; readonly interval: Millis } | undefined
  readonly statusVersion: 1 | 2 | 3
  readonly user: string | undefined
  readonly group: string | undefined
  readonly nice: number | undefined
  readonly remapUsr1: 'SIGHUP' | 'SIGTERM' | undefined
  /** Variables for scripts, in order. */
  readonly environment: readonly (readonly [name: string, value: string])[]
  /** Whether passwords may be in them (`script-security 3`). */
  readonly passwordsInEnvironment: boolean
  readonly tmpDir: string
  readonly up: string | undefined
  readonly down: string | undefined
  readonly downPre: boolean
  readonly upRestart: boolean
  readonly upDelay: boolean
  readonly routeUp: string | undefined
  readonly routePreDown: string | undefined
  readonly echo: readonly string[]
  readonly management: ManagementConfig | undefined
}

export interface ManagementConfig {
  readonly at:
    | { readonly kind: 'tcp'; readonly address: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string }
  /** Connects there in place of listening. */
  readonly client: boolean
  readonly password: 'ask' | { readonly password: string } | undefined
  readonly queryPasswords: boolean
  readonly queryProxy: boolean
  readonly queryRemote: boolean
  readonly hold: boolean
  readonly signal: boolean
  readonly forgetDisconnect: boolean
  readonly upDown: boolean
  /** Lines. */
  readonly logCache: number
  readonly clientAuth: boolean
  readonly clientUser: string | undefined
  readonly clientGroup: string | undefined
}

/** How control packets are wrapped; keys are of 256 bytes. */
export type WrapConfig =
  | { readonly kind: 'none' }
  /** No direction: both ends use the same half of the key. */
  | { readonly kind: 'tls-auth'; readonly key: Uint8Array; readonly direction: 0 | 1 | undefined }
  | { readonly kind: 'tls-crypt'; readonly key: Uint8Array }

/** A name and a password from a file of two lines. */
export interface Credentials {
  readonly username: string
  /** Undefined: to be asked for. */
  readonly password: string | undefined
}

/** Reads what is asked of settings, and files with them. */
export class Fields {
  readonly settings: Settings
  readonly files: Files

  constructor(settings: Settings, files: Files) {
    this.settings = settings
    this.files = files
  }

  place(name: DirectiveName): Place | undefined {
    return this.settings.last(name)?.place
  }

  /** The file or block of the last `name`. `marker`: what its text must have, and what it is then. */
  loaded(name: FileDirective, marker?: Marker): Loaded | undefined {
    const setting = this.settings.last(name)
    if (setting === undefined) return undefined
    const loaded = load(this.settings, this.files, setting, setting.args.file)
    if (loaded === undefined || marker === undefined) return loaded
    const text = decodeText(loaded.content)
    if (!marker.pattern.test(text)) {
      const message = `${name}: ${loaded.from} is no ${marker.what}`
      this.settings.problem('file', setting.place, message)
    }
    return loaded
  }

  /** The key in the file or block of the last `name`, as `parseKey` reads it. */
  key<K>(name: KeyDirective, parseKey: (text: string) => K): K | undefined {
    const loaded = this.loaded(name)
    if (loaded === undefined) return undefined
    try {
      return parseKey(decodeText(loaded.content))
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      this.settings.problem('file', this.place(name), `${name}: ${loaded.from}: ${reason}`)
      return undefined
    }
  }

  /** The path in the argument of the last `name`, from the folder it stands in. */
  path(name: PathDirective): string | undefined {
    const setting = this.settings.last(name)
    if (setting === undefined) return undefined
    const { file, directory } = setting.args as { file?: string; directory?: string }
    return resolvePath(setting.folder, file ?? directory ?? '')
  }

  /** A command, where scripts may be run. */
  command(name: CommandDirective): string | undefined {
    const setting = this.settings.last(name)
    if (setting === undefined) return undefined
    const level = this.settings.args('script-security')?.level ?? 1
    if (level < 2) {
      const message = `'${name}' runs a program, and that needs a line 'script-security 2'`
      this.settings.problem('conflict', setting.place, message)
    }
    return setting.args.command
  }
}

/** Name and password in the file, or the block, of a setting. */
export function loadCredentials(
  settings: Settings,
  files: Files,
  setting: Setting,
  path: string,
): Credentials | undefined {
  const loaded = load(settings, files, setting, path)
  if (loaded === undefined) return undefined
  const [username = '', password] = decodeText(loaded.content).split(/\r?\n/)
  if (username === '') {
    const message = `${setting.name}: the first line of ${loaded.from} is the user name, and it is empty`
    settings.problem('file', setting.place, message)
  }
  return { username, password: password === '' ? undefined : password }
}

type FileDirective = 'ca' | 'cert' | 'key' | 'extra-certs' | 'pkcs12' | 'crl-verify' | KeyDirective
type KeyDirective = 'tls-auth' | 'tls-crypt' | 'tls-crypt-v2' | 'auth-gen-token-secret'
type PathDirective =
  | 'capath'
  | 'log'
  | 'log-append'
  | 'writepid'
  | 'status'
  | 'tmp-dir'
  | 'client-config-dir'
  | 'ifconfig-pool-persist'
type CommandDirective =
  | 'up'
  | 'down'
  | 'route-up'
  | 'route-pre-down'
  | 'ipchange'
  | 'tls-verify'
  | 'client-connect'
  | 'client-disconnect'
  | 'client-crresponse'
  | 'learn-address'
  | 'auth-user-pass-verify'
  | 'tls-crypt-v2-verify'

interface Marker {
  readonly pattern: RegExp
  readonly what: string
}

const CERTIFICATE: Marker = {
  pattern: /-----BEGIN (X509 |TRUSTED )?CERTIFICATE-----/,
  what: 'certificate in PEM',
}
const PRIVATE_KEY: Marker = { pattern: /-----BEGIN .*PRIVATE KEY-----/, what: 'private key in PEM' }
const CRL: Marker = { pattern: /-----BEGIN X509 CRL-----/, what: 'list of revocations in PEM' }

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
    sndbuf: settings.args('sndbuf')?.bytes || undefined,
    rcvbuf: settings.args('rcvbuf')?.bytes || undefined,
    mark: settings.args('mark')?.mark,
    bindDev: settings.args('bind-dev')?.device,
    mtuDisc: settings.args('mtu-disc')?.type,
  }
}

/** `tls-auth` or `tls-crypt`, of the settings of `fields`; what a connection block does not say, `whole` does. */
export function readWrap(fields: Fields, whole = fields.settings): WrapConfig | undefined {
  const { settings } = fields
  const crypt = fields.key('tls-crypt', parseStaticKey)
  const auth = settings.last('tls-auth')
  if (crypt !== undefined && auth !== undefined) {
    const message =
      "'tls-auth' and 'tls-crypt' exclude each other; keep the one that the other end has"
    settings.problem('conflict', auth.place, message)
  }
  if (crypt !== undefined) return { kind: 'tls-crypt', key: crypt }
  const key = fields.key('tls-auth', parseStaticKey)
  if (key === undefined) return undefined
  const half = settings.args('key-direction') ?? whole.args('key-direction')
  const direction = auth?.args.direction ?? half?.direction
  return {
    kind: 'tls-auth',
    key,
    direction: direction === undefined ? undefined : direction === '0' ? 0 : 1,
  }
}

const DEFAULT_HAND_WINDOW = 60_000
const DEFAULT_RENEG = 3_600_000

export function readTls(fields: Fields, role: 'server' | 'client'): TlsConfig {
  const { settings } = fields
  const pkcs12 = fields.loaded('pkcs12')
  const reneg = settings.args('reneg-sec')
  const max = reneg?.max ?? DEFAULT_RENEG
  const ciphers = readCiphers(settings)
  return {
    ca: fields.loaded('ca', CERTIFICATE),
    capath: fields.path('capath'),
    cert: fields.loaded('cert', CERTIFICATE),
    key: fields.loaded('key', PRIVATE_KEY),
    extraCerts: fields.loaded('extra-certs', CERTIFICATE),
    pkcs12: pkcs12 && decodePkcs12(settings, pkcs12),
    keyPassword: readKeyPassword(fields),
    crlVerify: readCrl(fields),
    peerFingerprints: readFingerprints(settings),
    verifyHash: readVerifyHash(settings),
    remoteCertTls: settings.args('remote-cert-tls')?.type,
    remoteCertKu: readKeyUsages(settings),
    remoteCertEku: settings.args('remote-cert-eku')?.usage,
    verifyX509Name: settings.args('verify-x509-name'),
    x509UsernameFields: settings.args('x509-username-field')?.fields ?? ['CN'],
    tlsVerify: fields.command('tls-verify'),
    tlsCertProfile: settings.args('tls-cert-profile')?.profile ?? 'legacy',
    ...readTlsVersions(settings),
    tlsCipher: settings.args('tls-cipher')?.ciphers,
    tlsGroups: settings.args('tls-groups')?.groups,
    forceTlsKeyMaterialExport: settings.has('force-tls-key-material-export'),
    tlsTimeout: settings.args('tls-timeout')?.wait ?? 2000,
    handWindow: settings.args('hand-window')?.window ?? DEFAULT_HAND_WINDOW,
    tranWindow: settings.args('tran-window')?.window ?? 3_600_000,
    // A server spreads the renewals of its clients.
    renegSec: { max, min: Math.min(max, reneg?.min ?? (role === 'server' ? max * 0.9 : max)) },
    renegBytes: settings.args('reneg-bytes')?.bytes || Infinity,
    renegPackets: settings.args('reneg-pkts')?.packets || Infinity,
    ...ciphers,
    auth: readDigest(settings),
    maxPacketSize: settings.args('max-packet-size')?.bytes ?? 1250,
  }
}

/** Whether there is something to check the peer with, and something to show it. */
export function checkIdentity(settings: Settings, own: 'needed' | 'optional'): void {
  const trust = ['ca', 'capath', 'pkcs12', 'peer-fingerprint'] as const
  if (!trust.some((name) => settings.has(name))) {
    const message = "nothing says which peers to trust; add 'ca FILE', or 'peer-fingerprint'"
    settings.problem('missing', undefined, message)
  }
  if (settings.has('pkcs12')) {
    for (const name of ['cert', 'key'] as const) {
      if (settings.has(name)) {
        const message = `'${name}' and 'pkcs12' exclude each other`
        settings.problem('conflict', settings.last(name)?.place, message)
      }
    }
    return
  }
  const [cert, key] = [settings.last('cert'), settings.last('key')]
  if (cert !== undefined && key === undefined) {
    settings.problem('missing', cert.place, "'cert' needs its private key: add 'key FILE'")
  } else if (cert === undefined && key !== undefined) {
    settings.problem('missing', key.place, "'key' needs its certificate: add 'cert FILE'")
  } else if (cert === undefined && own === 'needed') {
    const message =
      "there is no certificate: add 'cert FILE' and 'key FILE' ('ovpn pki init' makes them)"
    settings.problem('missing', undefined, message)
  }
}

function readKeyPassword({ settings, files }: Fields): TlsConfig['keyPassword'] {
  const setting = settings.last('askpass')
  if (setting === undefined) return undefined
  const path = setting.args.file
  if (path === undefined || path === 'stdin') return 'ask'
  const loaded = load(settings, files, setting, path)
  return loaded && { password: firstLine(loaded) }
}

function firstLine({ content }: Loaded): string {
  return decodeText(content).split(/\r?\n/)[0]!
}

function readCrl(fields: Fields): TlsConfig['crlVerify'] {
  const setting = fields.settings.last('crl-verify')
  if (setting?.args.directory === undefined) return fields.loaded('crl-verify', CRL)
  return { directory: resolvePath(setting.folder, setting.args.file) }
}

function decodePkcs12(settings: Settings, loaded: Loaded): Loaded {
  if (loaded.path !== undefined) return loaded
  const text = decodeText(loaded.content).replace(/\s/g, '')
  if (!/^[A-Za-z0-9+/]+=*$/.test(text)) {
    settings.problem('file', settings.last('pkcs12')?.place, 'pkcs12: base64 was expected inline')
  }
  const content = Uint8Array.from(atobOr(text), (letter) => letter.charCodeAt(0))
  return { ...loaded, content }
}

function atobOr(text: string): string {
  try {
    return atob(text)
  } catch {
    return ''
  }
}

/** Lines of a block that are not empty and no comments. */
function listLines(block: string): string[] {
  return block
    .split('\n')
    .map((line) => line.replace(/[#;].*/, '').trim())
    .filter((line) => line !== '')
}

function readFingerprints(settings: Settings): string[] {
  return settings.all('peer-fingerprint').flatMap(({ args, block, place }) => {
    const texts = block === undefined ? [args.fingerprint] : listLines(block)
    return texts.flatMap((text) => {
      const hash = parseFingerprint(text)
      if (hash?.length === 64) return [hash]
      const message = `peer-fingerprint: expected 32 bytes (SHA-256), colons between, not '${text}'`
      settings.problem('argument', place, message)
      return []
    })
  })
}

function readVerifyHash(settings: Settings): TlsConfig['verifyHash'] {
  const setting = settings.last('verify-hash')
  if (setting === undefined) return undefined
  const { args, block, place } = setting
  const algorithm = block === undefined ? args.algorithm : 'SHA256'
  const texts = block === undefined ? [args.hash] : listLines(block)
  const hashes = texts.map((text) => parseFingerprint(text) ?? '')
  const digits = algorithm === 'SHA1' ? 40 : 64
  if (hashes.length === 0 || hashes.some((hash) => hash.length !== digits)) {
    const message = `verify-hash: expected ${digits / 2} bytes (${algorithm}), colons between`
    settings.problem('argument', place, message)
  }
  return { algorithm, hashes }
}

function readKeyUsages(settings: Settings): number[] | undefined {
  const setting = settings.last('remote-cert-ku')
  return setting?.args.usages.flatMap((text) => {
    const bits = /^[0-9a-f]{1,4}$/i.test(text) ? Number.parseInt(text, 16) : 0
    if (bits !== 0) return [bits]
    const message = `remote-cert-ku: expected hexadecimal bits such as a0, not '${text}'`
    settings.problem('argument', setting.place, message)
    return []
  })
}

const TLS_VERSIONS: readonly TlsVersion[] = ['1.0', '1.1', '1.2', '1.3']

function readTlsVersions(settings: Settings): Pick<TlsConfig, 'tlsVersionMin' | 'tlsVersionMax'> {
  const min = settings.last('tls-version-min')
  const max = settings.args('tls-version-max')?.version
  const old = compatibleWith(settings, '2.3.6') // the last that spoke TLS 1.0 alone
  const tlsVersionMin = min?.args.version ?? (old ? '1.0' : '1.2')
  if (max !== undefined && TLS_VERSIONS.indexOf(max) < TLS_VERSIONS.indexOf(tlsVersionMin)) {
    const message = `tls-version-max ${max} is older than tls-version-min ${tlsVersionMin}`
    settings.problem('conflict', settings.last('tls-version-max')?.place, message)
  }
  return { tlsVersionMin, tlsVersionMax: max }
}

/** Whether `compat-mode` reaches down to a version. */
function compatibleWith(settings: Settings, version: string): boolean {
  const setting = settings.last('compat-mode')
  if (setting === undefined) return false
  const numbers = (text: string) => text.split('.').map(Number)
  const [major, minor = 0, patch = 0] = numbers(setting.args.version)
  if (!/^2\.\d+(\.\d+)?$/.test(setting.args.version)) {
    const message = `compat-mode: expected a version such as 2.4.0, not '${setting.args.version}'`
    settings.problem('argument', setting.place, message)
    return false
  }
  const [, wantedMinor = 0, wantedPatch = 99] = numbers(version)
  return major === 2 && (minor < wantedMinor || (minor === wantedMinor && patch <= wantedPatch))
}

/** What the driver seals with. */
const CIPHERS = ['AES-256-GCM', 'AES-128-GCM', 'CHACHA20-POLY1305', 'AES-192-GCM']
const DEFAULT_CIPHERS = CIPHERS.slice(0, 3)

export function supportedCipher(name: string): string | undefined {
  return CIPHERS.find((cipher) => cipher === name.toUpperCase())
}

function readCiphers(
  settings: Settings,
): Pick<TlsConfig, 'dataCiphers' | 'dataCiphersFallback' | 'cipher'> {
  const list = settings.last('data-ciphers') ?? settings.last('ncp-ciphers')
  const ciphers = new Set<string>()
  for (const word of list?.args.ciphers ?? ['DEFAULT']) {
    const name = word.replace(/^\?/, '')
    if (name === 'DEFAULT') for (const usual of DEFAULT_CIPHERS) ciphers.add(usual)
    else {
      const known = supportedCipher(name)
      if (known !== undefined) ciphers.add(known)
      else if (name === word) {
        const message = `${list?.name}: ${name} is left out: the driver has ${CIPHERS.join(', ')}`
        settings.note('differs', list?.place, message)
      }
    }
  }
  if (ciphers.size === 0) {
    const message = `${list?.name}: none of these is a cipher of the driver, which has ${CIPHERS.join(', ')}; add one, at the other end too`
    settings.problem('refused', list?.place, message)
  }
  const cipher = settings.last('cipher')
  const own = cipher && supportedCipher(cipher.args.cipher)
  if (own !== undefined && compatibleWith(settings, '2.5')) ciphers.add(own)
  if (cipher !== undefined && !(own !== undefined && ciphers.has(own))) {
    const message = `cipher ${cipher.args.cipher} is not used: ciphers are negotiated (data-ciphers); only ends before OpenVPN 2.4 would need it`
    settings.note('differs', cipher.place, message)
  }
  const fallback = settings.last('data-ciphers-fallback')
  const dataCiphersFallback = fallback && supportedCipher(fallback.args.cipher)
  if (fallback !== undefined && dataCiphersFallback === undefined) {
    const message = `data-ciphers-fallback ${fallback.args.cipher} is no cipher of the driver: peers that cannot negotiate are refused`
    settings.note('differs', fallback.place, message)
  }
  return { dataCiphers: [...ciphers], dataCiphersFallback, cipher: cipher?.args.cipher }
}

const DIGESTS = ['SHA1', 'SHA224', 'SHA256', 'SHA384', 'SHA512', 'MD5', 'RIPEMD160']

function readDigest(settings: Settings): string {
  const setting = settings.last('auth')
  if (setting === undefined) return 'SHA1'
  const text = setting.args.digest.toUpperCase()
  const digest = DIGESTS.find((name) => name === text.replace(/^RSA-/, '').replace('-', ''))
  if (digest !== undefined) return digest
  if (
    settings.has('tls-auth') ||
    settings.connections.some((one) => one.settings.has('tls-auth'))
  ) {
    const message = `auth: 'tls-auth' is done with ${DIGESTS.join(', ')}; not with '${setting.args.digest}'`
    settings.problem('refused', setting.place, message)
  } else {
    const message = `auth ${setting.args.digest} is not used: data ciphers authenticate by themselves`
    settings.note('differs', setting.place, message)
  }
  return 'SHA1'
}

export function readProcess(fields: Fields): ProcessConfig {
  const { settings } = fields
  const [log, append] = [fields.path('log'), fields.path('log-append')]
  const status = fields.path('status')
  const interval = settings.args('status')?.interval
  return {
    verb: settings.args('verb')?.level ?? 1,
    mute: settings.args('mute')?.count || undefined,
    log:
      append !== undefined
        ? { path: append, append: true }
        : log === undefined
          ? undefined
          : { path: log, append: false },
    suppressTimestamps: settings.has('suppress-timestamps'),
    machineReadableOutput: settings.has('machine-readable-output'),
    writepid: fields.path('writepid'),
    status: status === undefined ? undefined : { path: status, interval: interval ?? 60_000 },
    statusVersion: (settings.args('status-version')?.version ?? 1) as 1 | 2 | 3,
    user: settings.args('user')?.name,
    group: settings.args('group')?.name,
    nice: settings.args('nice')?.level,
    remapUsr1: settings.args('remap-usr1')?.signal,
    environment: readEnvironment(settings),
    passwordsInEnvironment: (settings.args('script-security')?.level ?? 1) >= 3,
    tmpDir: fields.path('tmp-dir') ?? '/tmp',
    up: fields.command('up'),
    down: fields.command('down'),
    downPre: settings.has('down-pre'),
    upRestart: settings.has('up-restart'),
    upDelay: settings.has('up-delay'),
    routeUp: fields.command('route-up'),
    routePreDown: fields.command('route-pre-down'),
    echo: [...settings.all('echo'), ...settings.all('parameter')].map(({ args }) =>
      args.words.join(' '),
    ),
    management: readManagement(fields),
  }
}

function readEnvironment(settings: Settings): [string, string][] {
  const all: [string, string][] = []
  for (const setting of settings) {
    if (setting.name === 'setenv-safe') {
      const { name, value } = setting.args as { name: string; value: string }
      all.push([`OPENVPN_${name}`, value])
    } else if (setting.name === 'setenv') {
      const { name, values } = setting.args as { name: string; values: string[] }
      if (name === 'FORWARD_COMPATIBLE') continue
      if (!/^[A-Za-z0-9_]+$/.test(name)) {
        const message = `setenv: a variable has letters, digits and underscores, not '${name}'`
        settings.problem('argument', setting.place, message)
      }
      all.push([name, values.join(' ')])
    }
  }
  return all
}

function readManagement({ settings, files }: Fields): ManagementConfig | undefined {
  const setting = settings.last('management')
  const clientUser = settings.args('management-client-user')?.name
  const clientGroup = settings.args('management-client-group')?.name
  if (setting === undefined) {
    for (const { name, place } of settings) {
      if (!name.startsWith('management-')) continue
      settings.problem('missing', place, `'${name}' needs a line 'management ADDRESS PORT'`)
    }
    return undefined
  }
  const { address, port, password } = setting.args
  const unix = port === 'unix'
  if (!unix && !(/^\d{1,5}$/.test(port) && Number(port) <= 65_535)) {
    const message = `management: expected a port or the word 'unix', not '${port}'`
    settings.problem('argument', setting.place, message)
  }
  if (!unix && (clientUser ?? clientGroup) !== undefined) {
    const message = 'who may use a TCP port of the management interface cannot be told by user'
    settings.problem('conflict', setting.place, `${message}; use a Unix socket`)
  }
  const loaded =
    password === undefined || password === 'stdin'
      ? undefined
      : load(settings, files, setting, password)
  return {
    at: unix
      ? { kind: 'unix', path: resolvePath(setting.folder, address) }
      : { kind: 'tcp', address, port: Number(port) },
    client: settings.has('management-client'),
    password: password === 'stdin' ? 'ask' : loaded && { password: firstLine(loaded) },
    queryPasswords: settings.has('management-query-passwords'),
    queryProxy: settings.has('management-query-proxy'),
    queryRemote: settings.has('management-query-remote'),
    hold: settings.has('management-hold'),
    signal: settings.has('management-signal'),
    forgetDisconnect: settings.has('management-forget-disconnect'),
    upDown: settings.has('management-up-down'),
    logCache: settings.args('management-log-cache')?.lines ?? 250,
    clientAuth: settings.has('management-client-auth'),
    clientUser,
    clientGroup,
  }
}
