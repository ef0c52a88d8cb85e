/** TLS, keys and ciphers as a configuration has them, for either end: who is trusted, with what, for how long. */
import { parseStaticKey } from '../../wire/static-key.ts'
import { type Fields, firstLine, type Marker } from './fields.ts'
import { parseFingerprint } from './kinds.ts'
import { decodeText, load, resolvePath, type Settings } from './parse.ts'
import type { Loaded, Millis } from './values.ts'

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

/** How control packets are wrapped; keys are of 256 bytes. */
export type WrapConfig =
  | { readonly kind: 'none' }
  /** No direction: both ends use the same half of the key. */
  | { readonly kind: 'tls-auth'; readonly key: Uint8Array; readonly direction: 0 | 1 | undefined }
  | { readonly kind: 'tls-crypt'; readonly key: Uint8Array }

const CERTIFICATE: Marker = {
  pattern: /-----BEGIN (X509 |TRUSTED )?CERTIFICATE-----/,
  what: 'certificate in PEM',
}
const PRIVATE_KEY: Marker = { pattern: /-----BEGIN .*PRIVATE KEY-----/, what: 'private key in PEM' }
const CRL: Marker = { pattern: /-----BEGIN X509 CRL-----/, what: 'list of revocations in PEM' }

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
