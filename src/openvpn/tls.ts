/**
 * Owns TLS: the engine of proto/tls-engine.ts from node:tls, over a pipe in memory in place of a socket. It proves that the
 * peer has the key of its certificate; whether that certificate is a right one is x509/verifier.ts's, passed in as
 * `verify`. Certificates, keys and names come as the configuration has read them.
 *
 *     receive --> Pipe --> TLSSocket --> plaintext         write --> queue --> TLSSocket --> Pipe --> ciphertext
 *
 * node:tls joins what is written before the last write is through into one record. A control message must be a record of
 * its own (OpenVPN 2.x reads no other), so writes wait for each other here.
 */
import assert from 'node:assert/strict'
import { constants } from 'node:crypto'
import { Duplex } from 'node:stream'
import tls from 'node:tls'
import type { TlsEngine, TlsEvents, TlsFactory } from './proto/tls-engine.ts'
import { KnownCertificates } from './x509/known-certificates.ts'
import { isPkcs12 } from './x509/pkcs12.ts'

export type TlsVersion = '1.0' | '1.1' | '1.2' | '1.3'

export interface TlsSettings {
  /** PEM of the roots; a server names them to its clients, so that they choose a certificate. */
  ca?: string | undefined
  /** PEM: our certificate, then those between it and the root. */
  certificate?: string | undefined
  /** PEM of its key. */
  key?: string | undefined
  /** Certificate, key and what is between in one file (`pkcs12`), in place of the two before. */
  pkcs12?: Uint8Array | undefined
  /** Of `key` or `pkcs12`. */
  passphrase?: string | undefined
  /** 1.2 unless set. */
  minVersion?: TlsVersion | undefined
  maxVersion?: TlsVersion | undefined
  /** `tls-cipher`: names as OpenSSL or as IANA has them, of TLS 1.2 and before. Those of TLS 1.3 cannot be chosen. */
  ciphers?: string | undefined
  /** `tls-groups`: names with ":" between them. */
  groups?: string | undefined
  /** Whether a server asks clients for a certificate. */
  requestCertificate: boolean
  /** Why the certificates of a peer (DER, leaf first; maybe none) are refused; undefined: they are not. */
  verify(chain: readonly Uint8Array[]): string | undefined
}

export type TlsErrorCode =
  /** Our own certificate, key, ciphers ... cannot be used. */
  | 'TLS_SETTINGS'
  /** Our own key is encrypted, with another passphrase than was given, or with one where none was. */
  | 'TLS_PASSPHRASE'
  /** The peer gave up, and said so. */
  | 'TLS_ALERT'
  | 'TLS_NO_COMMON_VERSION'
  | 'TLS_NO_COMMON_CIPHER'
  /** What came is no TLS, or was forged. */
  | 'TLS_PROTOCOL'
  /** The peer sent more than a handshake needs. */
  | 'TLS_TOO_LONG'
  | 'TLS_CLOSED'

/** What of a configuration can be at fault. */
export type TlsDirective =
  | 'ca'
  | 'capath'
  | 'cert'
  | 'key'
  | 'pkcs12'
  | 'crl-verify'
  | 'tls-cipher'
  | 'tls-groups'

/** Why TLS does not come about; the message is meant for people, the cause is what OpenSSL said. */
export class TlsError extends Error {
  override readonly name = 'TlsError'
  readonly code: TlsErrorCode
  /** What has to be changed, as far as one thing is at fault. */
  readonly directive: TlsDirective | undefined

  constructor(code: TlsErrorCode, message: string, cause?: unknown, directive?: TlsDirective) {
    super(message, cause === undefined ? {} : { cause })
    this.code = code
    this.directive = directive
  }
}

/** More than any chain of certificates that BoringSSL takes; until then nobody knows the peer. */
const MAX_HANDSHAKE_BYTES = 128 * 1024

/** OpenVPN's own choice, of which BoringSSL has what is left. */
const DEFAULT_CIPHERS = 'DEFAULT:!EXP:!LOW:!MEDIUM:!kDH:!kECDH:!DSS:!PSK:!SRP:!kRSA'

/**
 * Engines with `settings`; certificate and key are read once.
 *
 * @throws TlsError TLS_SETTINGS or TLS_PASSPHRASE if they cannot be used
 */
export function createTls(settings: TlsSettings): TlsFactory {
  const context = createContext(settings)
  const known = new KnownCertificates()
  return (role, events) => new NodeTls(role, context, settings, known, events)
}

function createContext(settings: TlsSettings): tls.SecureContext {
  const { ca, certificate, key, pkcs12, passphrase, groups } = settings
  const newestOnly = isNewestOnly(settings)
  const ciphers = newestOnly ? undefined : settings.ciphers
  const minVersion = newestOnly ? '1.3' : (settings.minVersion ?? '1.2')
  try {
    return tls.createSecureContext({
      ...(ca !== undefined && { ca }),
      ...(certificate !== undefined && { cert: certificate }),
      ...(key !== undefined && { key }),
      ...(pkcs12 !== undefined && { pfx: Buffer.from(pkcs12) }),
      ...(passphrase !== undefined && { passphrase }),
      ...(groups !== undefined && { ecdhCurve: groups }),
      ciphers: ciphers === undefined ? DEFAULT_CIPHERS : opensslNames(ciphers),
      minVersion: protocolName(minVersion),
      maxVersion: protocolName(settings.maxVersion ?? '1.3'),
      // Nothing is resumed: every key has a handshake of its own, and tickets would only fill packets.
      secureOptions: constants.SSL_OP_NO_TICKET,
    })
  } catch (cause) {
    throw settingsError(cause as Error, settings)
  }
}

/**
 * Whether TLS 1.3 alone is spoken, because `ciphers` has names for older versions that BoringSSL does not know any more (those with
 * DHE, say). To 1.3 they do not apply, as in OpenSSL.
 */
export function isNewestOnly({
  ciphers,
  maxVersion = '1.3',
}: Pick<TlsSettings, 'ciphers' | 'maxVersion'>): boolean {
  if (ciphers === undefined || maxVersion !== '1.3') return false
  if (!ciphers.split(':').some((name) => CIPHER_NAME.test(name))) return false
  try {
    tls.createSecureContext({ ciphers: opensslNames(ciphers) })
    return false
  } catch {
    return true
  }
}

/** Of one cipher, as OpenSSL or as IANA spells it; other words are groups of them, or mistakes. */
const CIPHER_NAME = /^[A-Z0-9]+(?:[-_][A-Z0-9]+)*[-_](?:SHA\d*|MD5|POLY1305|CCM8?)$/

function protocolName(version: TlsVersion): tls.SecureVersion {
  return version === '1.0' ? 'TLSv1' : `TLSv${version}`
}

/** Names of IANA, as `TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384`, become OpenSSL's; others stay. */
export function opensslNames(list: string): string {
  return list
    .split(':')
    .map((name) =>
      /^([!+-]?)TLS[-_](.+)$/.test(name)
        ? name
            .replaceAll('_', '-')
            .replace(/TLS-/, '')
            .replace('-WITH-', '-')
            .replace(/^([!+-]?)RSA-/, '$1')
            .replace(/AES-(128|256)-(GCM|CCM|CBC)/, 'AES$1-$2')
            .replace('-CBC-', '-')
            .replace(/(CHACHA20-POLY1305)-SHA256$/, '$1')
        : name,
    )
    .join(':')
}

/** What node:tls means. It says the same of a file of PKCS #12 that is none as of one with another passphrase. */
function settingsError(error: Error, settings: TlsSettings): TlsError {
  const { certificate, ciphers, groups, pkcs12 } = settings
  const text = `${'code' in error ? error.code : ''} ${error.message}`
  const wrong = (directive: TlsDirective, message: string) =>
    new TlsError('TLS_SETTINGS', message, error, directive)
  if (/KEY_VALUES_MISMATCH|key values mismatch/i.test(text)) {
    return wrong('key', 'the key is not that of the certificate')
  }
  if (/UNSUPPORTED_ALGORITHM/.test(text)) {
    const message = 'keys of this kind cannot be used: RSA, P-256, P-384, P-521 and Ed25519 can'
    return wrong(pkcs12 === undefined ? 'key' : 'pkcs12', message)
  }
  if (/NO_CIPHER_MATCH|no cipher match/i.test(text)) {
    const message = `tls-cipher: none of ${ciphers} is known to TLS here, which has no DHE; remove the line: both ends then choose the best they have`
    return wrong('tls-cipher', message)
  }
  if (/ECDH curve/i.test(text)) {
    return wrong('tls-groups', `there is no group of that name: ${groups}`)
  }
  if (/invalid ca/i.test(text)) return wrong('ca', 'what is in ca is no certificate')
  if (/BAD_DECRYPT|bad decrypt|mac verif|INTERRUPTED|BAD_PASSWORD/i.test(text)) {
    if (pkcs12 === undefined || isPkcs12(pkcs12)) {
      const file = pkcs12 === undefined ? 'key' : 'pkcs12 file'
      const message = `the ${file} cannot be decrypted: a wrong passphrase, or none`
      const directive = pkcs12 === undefined ? 'key' : 'pkcs12'
      return new TlsError('TLS_PASSPHRASE', message, error, directive)
    }
  }
  if (pkcs12 !== undefined) return wrong('pkcs12', 'that is no pkcs12 file that can be read')
  if (certificate !== undefined && !isReadable(certificate)) {
    return wrong('cert', 'the certificate cannot be read: it is no PEM file, or damaged')
  }
  if (/NO_START_LINE|no start line|bad base64|PEM|DECODE/i.test(text)) {
    return wrong('key', 'the key cannot be read: it is no PEM file, or damaged')
  }
  const message = `certificate, key or ciphers cannot be used: ${error.message}`
  return new TlsError('TLS_SETTINGS', message, error)
}

function isReadable(certificate: string): boolean {
  try {
    tls.createSecureContext({ cert: certificate })
    return true
  } catch {
    return false
  }
}

/** The ends of a pipe: what TLS writes goes to `ciphertext`, what is pushed is read by TLS. */
class Pipe extends Duplex {
  readonly #ciphertext: (bytes: Uint8Array) => void

  constructor(ciphertext: (bytes: Uint8Array) => void) {
    super()
    this.#ciphertext = ciphertext
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#ciphertext(chunk)
    done()
  }
}

class NodeTls implements TlsEngine {
  readonly #pipe: Pipe
  readonly #socket: tls.TLSSocket
  readonly #settings: TlsSettings
  readonly #known: KnownCertificates
  /** Undefined: closed. */
  #events: TlsEvents | undefined
  #established = false
  #handshakeBytes = 0
  /** Records that wait for the one before; the first is being written. */
  readonly #records: Uint8Array[] = []
  /** Events that wait for the end of the present call. */
  #waiting: ((events: TlsEvents) => void)[] = []

  constructor(
    role: 'server' | 'client',
    secureContext: tls.SecureContext,
    settings: TlsSettings,
    known: KnownCertificates,
    events: TlsEvents,
  ) {
    this.#events = events
    this.#settings = settings
    this.#known = known
    this.#pipe = new Pipe((bytes) => this.#tell((to) => to.ciphertext(bytes)))
    if (role === 'server') {
      this.#socket = new tls.TLSSocket(this.#pipe, {
        isServer: true,
        secureContext,
        requestCert: settings.requestCertificate,
        rejectUnauthorized: false,
      })
      this.#socket.on('secure', () => this.#handshakeDone())
    } else {
      this.#socket = tls.connect({
        socket: this.#pipe,
        secureContext,
        rejectUnauthorized: false,
        checkServerIdentity: () => undefined,
      })
      this.#socket.on('secureConnect', () => this.#handshakeDone())
    }
    this.#socket.on('data', (bytes: Buffer) => this.#tell((to) => to.plaintext(bytes)))
    this.#socket.on('error', (error) => this.#fail(describe(error, settings)))
    const closed = () => {
      if (this.#events === undefined) return // it was closed here, and making an error is not cheap
      this.#fail(new TlsError('TLS_CLOSED', "the peer's TLS has ended"))
    }
    this.#socket.on('end', closed)
    this.#socket.on('close', closed)
    this.#pipe.on('error', () => {}) // of a pipe that is closed: there is no other
  }

  receive(ciphertext: Uint8Array): void {
    if (this.#events === undefined || this.#pipe.destroyed) return
    if (!this.#established) {
      this.#handshakeBytes += ciphertext.length
      if (this.#handshakeBytes > MAX_HANDSHAKE_BYTES) {
        this.#fail(new TlsError('TLS_TOO_LONG', 'the peer sends more than a handshake needs'))
        return
      }
    }
    this.#pipe.push(Buffer.from(ciphertext))
  }

  write(plaintext: Uint8Array): void {
    assert.ok(this.#established, 'TLS writes after the handshake')
    if (this.#events === undefined) return
    this.#records.push(new Uint8Array(plaintext))
    if (this.#records.length === 1) this.#writeNext()
  }

  exportKeyingMaterial(label: string, length: number): Uint8Array {
    assert.ok(this.#established, 'TLS exports after the handshake')
    // A context that is empty is another one than none in TLS 1.2.
    const context = undefined as unknown as Buffer
    return this.#socket.exportKeyingMaterial(length, label, context)
  }

  close(): void {
    if (this.#events === undefined) return
    this.#events = undefined
    this.#waiting = []
    this.#records.length = 0
    this.#socket.destroy()
    this.#pipe.destroy()
  }

  #writeNext(): void {
    const record = this.#records[0]
    if (record === undefined) return
    this.#socket.write(record, () => {
      this.#records.shift()
      this.#writeNext()
    })
  }

  #handshakeDone(): void {
    if (this.#events === undefined || this.#established) return
    this.#established = true
    try {
      const chain = chainOf(this.#socket, this.#known)
      const problem = this.#settings.verify(chain)
      const verified = problem === undefined
      if (verified) this.#known.remember(chain)
      this.#tell((to) => to.established({ chain, verified, ...(!verified && { problem }) }))
    } catch (cause) {
      // Whatever the peer sent to get here: nobody is let in because of it.
      const what = `the peer's certificates cannot be checked: ${(cause as Error).message}`
      this.#fail(new TlsError('TLS_PROTOCOL', what, cause))
    }
  }

  #fail(error: TlsError): void {
    this.#tell((to) => {
      this.close()
      to.failed(error)
    })
  }

  /** In order, and never while the owner is calling. */
  #tell(event: (events: TlsEvents) => void): void {
    if (this.#events === undefined) return
    this.#waiting.push(event)
    if (this.#waiting.length === 1) queueMicrotask(() => this.#deliver())
  }

  #deliver(): void {
    while (this.#waiting.length > 0 && this.#events !== undefined) {
      const waiting = this.#waiting
      this.#waiting = []
      for (const event of waiting) {
        if (this.#events !== undefined) event(this.#events)
      }
    }
  }
}

/** More than `depth` can be. */
const MAX_CHAIN = 16

/**
 * What the peer sent, leaf first; with roots of ours that node:tls found to belong to it. Of a leaf that was accepted before, the
 * chain that it had then: node:tls takes 20 µs for each certificate that is looked at.
 */
function chainOf(socket: tls.TLSSocket, known: KnownCertificates): readonly Uint8Array[] {
  const leaf: Buffer | undefined = socket.getPeerCertificate(false)?.raw
  if (leaf === undefined) return []
  const before = known.chainOf(leaf)
  if (before !== undefined) return before
  const chain: Uint8Array[] = []
  let next: tls.DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (next?.raw !== undefined && chain.length < MAX_CHAIN) {
    chain.push(new Uint8Array(next.raw))
    next = next.issuerCertificate === next ? undefined : next.issuerCertificate
  }
  return known.recall(chain)
}

const ALERTS: Record<string, string> = {
  UNKNOWN_CA: 'it does not know the authority of our certificate',
  BAD_CERTIFICATE: 'it refuses our certificate',
  UNSUPPORTED_CERTIFICATE: 'it cannot use a certificate of this kind',
  CERTIFICATE_REVOKED: 'our certificate is revoked',
  CERTIFICATE_EXPIRED: 'our certificate is expired',
  CERTIFICATE_UNKNOWN: 'it refuses our certificate',
  CERTIFICATE_REQUIRED: 'it wants a certificate, and we have none',
  ACCESS_DENIED: 'it refuses our certificate',
  HANDSHAKE_FAILURE: 'there is no cipher, group or kind of signature that both have',
  PROTOCOL_VERSION: 'there is no version of TLS that both allow',
  INSUFFICIENT_SECURITY: 'our ciphers are too weak for it',
  DECRYPT_ERROR: 'a signature is wrong: is our certificate of another authority of that name?',
  INTERNAL_ERROR: 'it has an error of its own',
}

/** What an error of node:tls means. Codes are those of Node and of Bun. */
function describe(error: Error, { certificate, pkcs12 }: TlsSettings): TlsError {
  const code = 'code' in error ? String(error.code) : ''
  const alert = /(?:SSLV3|TLSV1|TLSV13)_ALERT_([A-Z0-9_]+)/.exec(code)?.[1]
  if (alert !== undefined) {
    const name = alert.toLowerCase().replaceAll('_', ' ')
    const anonymous = certificate === undefined && pkcs12 === undefined
    // Before TLS 1.3 there is no alert of its own for it.
    const wanted = alert === 'HANDSHAKE_FAILURE' && anonymous ? 'CERTIFICATE_REQUIRED' : alert
    const meaning = ALERTS[wanted]
    const text = `the peer gave up TLS: ${name}${meaning === undefined ? '' : ` (${meaning})`}`
    return new TlsError('TLS_ALERT', text, error)
  }
  if (/UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE/.test(code)) {
    return new TlsError(
      'TLS_NO_COMMON_VERSION',
      'there is no version of TLS that both allow',
      error,
    )
  }
  if (/NO_SHARED_|NO_SUITABLE_|WRONG_CURVE|WRONG_CIPHER|NO_COMMON_SIGNATURE/.test(code)) {
    const what = 'there is no cipher, group or kind of signature that both have'
    return new TlsError('TLS_NO_COMMON_CIPHER', what, error)
  }
  return new TlsError('TLS_PROTOCOL', `what the peer sends is not right: ${reasonOf(error)}`, error)
}

function reasonOf(error: Error): string {
  const { reason, code } = error as { reason?: string; code?: string }
  return (reason ?? code ?? error.message).toLowerCase().replaceAll('_', ' ')
}
