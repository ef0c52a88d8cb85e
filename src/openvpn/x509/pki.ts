/**
 * Owns a folder with a certificate authority of our own: making it, giving out certificates, renewing and revoking them.
 * The layout is that of easy-rsa, so that either can go on with the other's folder:
 *
 *     ca.crt                    the authority, for both ends
 *     crl.pem                   what is revoked, for the server (`crl-verify`)
 *     index.txt                 what was given out, as `openssl ca` has it: a line each
 *     issued/NAME.crt           certificates
 *     private/NAME.key          their keys, and ca.key: readable by their owner only
 *     revoked/NAME-SERIAL.crt   and .key: revoked ones
 *
 * Keys are of P-256. A file is written beside its place and moved there, so nobody reads half of one; a lock file keeps
 * two programs from changing the folder at once. Source: RFC 5280; openssl-ca(1); easy-rsa's doc/EasyRSA-Advanced.md.
 */
import { createPrivateKey, KeyObject, randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Extension, X509Certificate as LibraryCertificate } from '@peculiar/x509'
import { type Certificate, parseCertificate, readPem } from './certificate.ts'

export type CertificateKind = 'server' | 'client'

export type PkiErrorCode =
  /** There is no authority in the folder. */
  | 'PKI_MISSING'
  /** There is one already, or a certificate of that name. */
  | 'PKI_EXISTS'
  /** No name for a certificate. */
  | 'PKI_NAME'
  /** Nobody has that name. */
  | 'PKI_UNKNOWN'
  /** A file is not what it should be. */
  | 'PKI_BROKEN'
  /** Another program is changing the folder. */
  | 'PKI_BUSY'

export class PkiError extends Error {
  override readonly name = 'PkiError'
  readonly code: PkiErrorCode

  constructor(code: PkiErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause })
    this.code = code
  }
}

/** A certificate that was given out. */
export interface PkiEntry {
  name: string
  /** Undefined: its file is gone. */
  kind?: CertificateKind
  /** Hexadecimal. */
  serial: string
  notAfter: Date
  state: 'valid' | 'expired' | 'revoked'
  revokedAt?: Date
}

export interface PkiFiles {
  ca: string
  crl: string
  certificate: string
  key: string
}

/** Where commands look for the folder. */
export const DEFAULT_PKI = 'pki'

const DAY_MS = 86_400_000
const AUTHORITY_DAYS = 3650
const CERTIFICATE_DAYS = 825
/** Clocks of others may be behind. */
const BACKDATE_MS = DAY_MS

const KEY_FILE_MODE = 0o600
const FILE_MODE = 0o644
const LOCK_PATIENCE_MS = 10_000

export class Pki {
  readonly directory: string
  /** PEM of the authority. */
  readonly authority: string
  readonly #certificate: Certificate

  private constructor(directory: string) {
    this.directory = directory
    const path = join(directory, 'ca.crt')
    this.authority = read(path)
    const [der] = readPem(this.authority, 'CERTIFICATE')
    try {
      if (der === undefined) throw new Error('there is no certificate in it')
      this.#certificate = parseCertificate(der)
    } catch (error) {
      throw new PkiError('PKI_BROKEN', `${path}: ${(error as Error).message}`, error)
    }
  }

  /** Whether there is an authority in `directory`. */
  static exists(directory: string): boolean {
    return existsSync(join(directory, 'ca.crt'))
  }

  /** @throws PkiError PKI_MISSING, PKI_BROKEN */
  static open(directory: string): Pki {
    if (!Pki.exists(directory)) {
      throw new PkiError('PKI_MISSING', `there is no certificate authority in ${directory}`)
    }
    return new Pki(directory)
  }

  /**
   * A new authority in `directory`, with an empty list of revoked certificates.
   *
   * @throws PkiError PKI_EXISTS; Error of the file system
   */
  static async create(
    directory: string,
    { name = 'ovpn CA', days = AUTHORITY_DAYS }: { name?: string; days?: number } = {},
  ): Promise<Pki> {
    for (const folder of ['', 'issued', 'private', 'revoked']) {
      const mode = folder === 'private' || folder === 'revoked' ? 0o700 : 0o755
      mkdirSync(join(directory, folder), { recursive: true, mode })
    }
    return locked(directory, async () => {
      for (const file of ['ca.crt', join('private', 'ca.key')]) {
        if (!existsSync(join(directory, file))) continue
        throw new PkiError('PKI_EXISTS', `there is a certificate authority in ${directory} already`)
      }
      const x509 = await library()
      const keys = await newKeys()
      const certificate = await x509.X509CertificateGenerator.createSelfSigned({
        name: [{ CN: [name] }],
        keys,
        signingAlgorithm: SIGNATURE,
        serialNumber: newSerial(),
        ...validity(days),
        extensions: [
          new x509.BasicConstraintsExtension(true, undefined, true),
          new x509.KeyUsagesExtension(
            x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
            true,
          ),
          await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
        ],
      })
      writeFile(join(directory, 'private', 'ca.key'), pemOf(keys.privateKey), KEY_FILE_MODE)
      writeFile(join(directory, 'index.txt'), '', FILE_MODE)
      writeFile(join(directory, 'ca.crt'), certificatePem(certificate), FILE_MODE)
      const pki = new Pki(directory)
      await pki.#writeCrl([])
      return pki
    })
  }

  /** Where the files of `name` are, whether they are there or not. */
  files(name: string): PkiFiles {
    return {
      ca: join(this.directory, 'ca.crt'),
      crl: join(this.directory, 'crl.pem'),
      certificate: join(this.directory, 'issued', `${name}.crt`),
      key: join(this.directory, 'private', `${name}.key`),
    }
  }

  /** Whether `name` has a certificate, of whatever age. */
  has(name: string): boolean {
    return existsSync(this.files(name).certificate)
  }

  /**
   * Gives `name` a certificate and a key.
   *
   * @param options `renew`: in place of those that it has, which stay good until they expire or are revoked; `days`
   *   until then, at most as long as the authority has
   * @throws PkiError PKI_NAME, PKI_EXISTS, PKI_UNKNOWN (nothing to renew), PKI_BROKEN
   */
  async issue(
    kind: CertificateKind,
    name: string,
    { days = CERTIFICATE_DAYS, renew = false }: { days?: number; renew?: boolean } = {},
  ): Promise<PkiFiles> {
    checkName(name)
    return locked(this.directory, async () => {
      const files = this.files(name)
      if (this.has(name) !== renew) {
        throw renew
          ? new PkiError('PKI_UNKNOWN', `${name} has no certificate to renew`)
          : new PkiError('PKI_EXISTS', `${name} has a certificate already: ${files.certificate}`)
      }
      const x509 = await library()
      const keys = await newKeys()
      const dates = validity(days)
      const serial = newSerial()
      const usages =
        kind === 'server'
          ? x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyAgreement
          : x509.KeyUsageFlags.digitalSignature
      const use = x509.ExtendedKeyUsage[kind === 'server' ? 'serverAuth' : 'clientAuth']
      const extensions: Extension[] = [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(usages, true),
        new x509.ExtendedKeyUsageExtension([use]),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ]
      const authorityKeyId = this.#authorityKeyId(x509)
      if (authorityKeyId !== undefined) extensions.push(authorityKeyId)
      const notAfter = new Date(
        Math.min(dates.notAfter.getTime(), 1000 * this.#certificate.notAfter),
      )
      const certificate = await x509.X509CertificateGenerator.create({
        subject: [{ CN: [name] }],
        issuer: new x509.Name(this.#certificate.subjectDer),
        publicKey: keys.publicKey,
        ...(await this.#signer()),
        serialNumber: serial,
        notBefore: dates.notBefore,
        notAfter,
        extensions,
      })
      const line: IndexLine = {
        state: 'V',
        notAfter,
        serial: serial.toUpperCase(),
        name,
        subject: `/CN=${name}`,
      }
      this.#writeIndex([...this.#readIndex(), line])
      writeFile(files.key, pemOf(keys.privateKey), KEY_FILE_MODE)
      writeFile(files.certificate, certificatePem(certificate), FILE_MODE)
      return files
    })
  }

  /**
   * Revokes all certificates of `name`, and writes the list. A server that reads it refuses them from then on.
   *
   * @returns serial numbers, hexadecimal
   * @throws PkiError PKI_UNKNOWN, PKI_BROKEN
   */
  async revoke(name: string): Promise<string[]> {
    checkName(name)
    return locked(this.directory, async () => {
      const index = this.#readIndex()
      const revoked = index.filter((line) => line.name === name && line.state !== 'R')
      if (revoked.length === 0) {
        throw new PkiError('PKI_UNKNOWN', `${name} has no certificate that could be revoked`)
      }
      for (const line of revoked) {
        line.state = 'R'
        line.revokedAt = new Date()
      }
      await this.#writeCrl(index) // first: what is on the list and not in the index can be revoked again
      this.#writeIndex(index)
      const { certificate, key } = this.files(name)
      const place = join(this.directory, 'revoked', `${name}-${revoked.at(-1)!.serial}`)
      if (existsSync(certificate)) renameSync(certificate, `${place}.crt`)
      if (existsSync(key)) renameSync(key, `${place}.key`)
      return revoked.map(({ serial }) => serial)
    })
  }

  /** Writes the list of revoked certificates anew, for as long as the authority has: it must not expire before. */
  async refreshCrl(): Promise<void> {
    await locked(this.directory, () => this.#writeCrl(this.#readIndex()))
  }

  /** All that was given out, in that order. @throws PkiError PKI_BROKEN */
  list(now = new Date()): PkiEntry[] {
    return this.#readIndex().map(({ state, notAfter, revokedAt, serial, name }) => {
      const kind = this.#kindOf(name, serial)
      return {
        name,
        ...(kind && { kind }),
        serial,
        notAfter,
        state: state === 'R' ? 'revoked' : notAfter < now ? 'expired' : 'valid',
        ...(revokedAt && { revokedAt }),
      }
    })
  }

  #kindOf(name: string, serial: string): CertificateKind | undefined {
    const places = [
      this.files(name).certificate,
      join(this.directory, 'revoked', `${name}-${serial}.crt`),
    ]
    for (const place of places) {
      if (!existsSync(place)) continue
      const [der] = readPem(read(place), 'CERTIFICATE')
      if (der === undefined) continue
      const { extendedKeyUsage } = parseCertificate(der)
      if (extendedKeyUsage?.includes('1.3.6.1.5.5.7.3.1')) return 'server'
      if (extendedKeyUsage?.includes('1.3.6.1.5.5.7.3.2')) return 'client'
    }
    return undefined
  }

  async #writeCrl(index: readonly IndexLine[]): Promise<void> {
    const x509 = await library()
    const authorityKeyId = this.#authorityKeyId(x509)
    const extensions: Extension[] = [new x509.Extension('2.5.29.20', false, crlNumber())]
    if (authorityKeyId !== undefined) extensions.push(authorityKeyId)
    const list = await x509.X509CrlGenerator.create({
      issuer: new x509.Name(this.#certificate.subjectDer),
      thisUpdate: new Date(Date.now() - BACKDATE_MS),
      nextUpdate: new Date(1000 * this.#certificate.notAfter),
      entries: index
        .filter(({ state }) => state === 'R')
        .map(({ serial, revokedAt }) => ({
          serialNumber: serial,
          revocationDate: revokedAt ?? new Date(),
        })),
      extensions,
      ...(await this.#signer()),
    })
    writeFile(this.files('').crl, pemBlock('X509 CRL', list.toString('base64')), FILE_MODE)
  }

  #authorityKeyId(x509: Library): Extension | undefined {
    const { subjectKeyId } = this.#certificate
    if (subjectKeyId === undefined) return undefined
    return new x509.AuthorityKeyIdentifierExtension(Buffer.from(subjectKeyId).toString('hex'))
  }

  /** Our own key, or that of an authority that easy-rsa made. */
  async #signer(): Promise<{ signingKey: CryptoKey; signingAlgorithm: typeof SIGNATURE }> {
    const path = join(this.directory, 'private', 'ca.key')
    let key: KeyObject
    try {
      key = createPrivateKey(read(path))
    } catch (cause) {
      if (cause instanceof PkiError) throw cause
      const text = read(path).includes('ENCRYPTED')
        ? 'it is encrypted: it has to be decrypted first (openssl pkey)'
        : 'there is no key in it'
      throw new PkiError('PKI_BROKEN', `${path}: ${text}`, cause)
    }
    const algorithm =
      key.asymmetricKeyType === 'rsa'
        ? { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
        : { ...SIGNATURE, namedCurve: curveOf(key, path) }
    const der = key.export({ type: 'pkcs8', format: 'der' })
    const signingKey = await crypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign'])
    return { signingKey, signingAlgorithm: { name: algorithm.name, hash: 'SHA-256' } }
  }

  #readIndex(): IndexLine[] {
    const path = join(this.directory, 'index.txt')
    if (!existsSync(path)) return []
    return read(path)
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line, i) => {
        const parsed = parseIndexLine(line)
        if (parsed === undefined)
          throw new PkiError('PKI_BROKEN', `${path}:${i + 1}: not understood`)
        return parsed
      })
  }

  #writeIndex(index: readonly IndexLine[]): void {
    const text = index.map((line) => `${formatIndexLine(line)}\n`).join('')
    writeFile(join(this.directory, 'index.txt'), text, FILE_MODE)
  }
}

const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' }

type Library = typeof import('@peculiar/x509')

/** Loaded when something is to be signed: it takes a tenth of a second. */
async function library(): Promise<Library> {
  await import('reflect-metadata')
  return import('@peculiar/x509')
}

async function newKeys(): Promise<CryptoKeyPair> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
  return (await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as CryptoKeyPair
}

/** 16 bytes, positive and without a zero before them, hexadecimal. */
function newSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = (bytes[0]! & 0x7f) | 0x40
  return bytes.toString('hex')
}

function validity(days: number): { notBefore: Date; notAfter: Date } {
  const now = Math.floor(Date.now() / 1000) * 1000
  return { notBefore: new Date(now - BACKDATE_MS), notAfter: new Date(now + days * DAY_MS) }
}

/** A number that grows with each list: DER of the time in seconds. */
function crlNumber(): Uint8Array {
  const value = Buffer.alloc(6)
  value.writeUIntBE(Math.floor(Date.now() / 1000), 0, 6)
  let start = 0
  while (start < value.length - 1 && value[start] === 0 && value[start + 1]! < 0x80) start++
  const digits = value.subarray(start)
  return Uint8Array.from([2, digits.length, ...digits])
}

function curveOf(key: KeyObject, path: string): string {
  const names: Record<string, string> = {
    prime256v1: 'P-256',
    secp384r1: 'P-384',
    secp521r1: 'P-521',
  }
  const curve = names[key.asymmetricKeyDetails?.namedCurve ?? '']
  if (curve !== undefined) return curve
  throw new PkiError('PKI_BROKEN', `${path}: the key of an authority is RSA, P-256, P-384 or P-521`)
}

function pemOf(key: CryptoKey): string {
  return KeyObject.from(key).export({ type: 'pkcs8', format: 'pem' }) as string
}

function certificatePem(certificate: LibraryCertificate): string {
  return pemBlock('CERTIFICATE', certificate.toString('base64'))
}

function pemBlock(label: string, base64: string): string {
  const lines = base64.match(/.{1,64}/g) ?? []
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n')
}

/** What may be a file's name, a common name and a word in a configuration, and nothing else. */
function checkName(name: string): void {
  if (/^[A-Za-z0-9_@][A-Za-z0-9_.@+-]{0,63}$/.test(name) && name !== 'ca') return
  throw new PkiError(
    'PKI_NAME',
    `"${name}" is no name for a certificate: up to 64 of A-Z a-z 0-9 _ . @ + -, and not "ca"`,
  )
}

/** A line of index.txt: | V, E or R | expires | revoked | serial | file | /CN=name |, tabs between. */
interface IndexLine {
  state: 'V' | 'E' | 'R'
  notAfter: Date
  revokedAt?: Date
  /** Hexadecimal, capitals. */
  serial: string
  /** As the line has it: /CN=name, or more. */
  subject: string
  name: string
}

function parseIndexLine(line: string): IndexLine | undefined {
  const [state, expires, revoked = '', serial = '', , subject = ''] = line
    .replace(/\r$/, '')
    .split('\t')
  const notAfter = parseIndexTime(expires ?? '')
  if ((state !== 'V' && state !== 'E' && state !== 'R') || notAfter === undefined) return undefined
  if (!/^[0-9A-F]+$/i.test(serial)) return undefined
  const revokedAt = parseIndexTime(revoked.split(',')[0]!)
  const name = /\/CN=([^/]*)/.exec(subject)?.[1] ?? subject
  return { state, notAfter, ...(revokedAt && { revokedAt }), serial, subject, name }
}

function formatIndexLine({ state, notAfter, revokedAt, serial, subject }: IndexLine): string {
  const revoked = revokedAt === undefined ? '' : formatIndexTime(revokedAt)
  return [state, formatIndexTime(notAfter), revoked, serial, 'unknown', subject].join('\t')
}

/** UTCTime before 2050, else GeneralizedTime. */
function parseIndexTime(text: string): Date | undefined {
  const match = /^(\d\d|\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text)
  if (match === null) return undefined
  const [, year, month, day, hour, minute, second] = match
  const full = year!.length === 4 ? year : `20${year}`
  return new Date(`${full}-${month}-${day}T${hour}:${minute}:${second}Z`)
}

function formatIndexTime(date: Date): string {
  const digits = date.toISOString().slice(0, 19).replace(/[-:T]/g, '')
  return `${digits < '2050' ? digits.slice(2) : digits}Z`
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new PkiError('PKI_BROKEN', `cannot read ${path}: ${(cause as Error).message}`, cause)
  }
}

/** All of the file, or none of it. */
function writeFile(path: string, text: string, mode: number): void {
  const beside = join(dirname(path), `.${basename(path)}.${process.pid}`)
  const fd = openSync(beside, 'w', mode)
  try {
    writeFileSync(fd, text)
    fsyncSync(fd)
    renameSync(beside, path)
  } catch (error) {
    rmSync(beside, { force: true })
    throw error
  } finally {
    closeSync(fd)
  }
}

/** Does `work` while no other program does; one that has died does not count. */
async function locked<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const path = join(directory, '.lock')
  const deadline = Date.now() + LOCK_PATIENCE_MS
  for (;;) {
    try {
      writeFileSync(path, String(process.pid), { flag: 'wx', mode: KEY_FILE_MODE })
      break
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
        rmSync(path, { force: true }) // made, but there was no room to write into it
        throw error
      }
    }
    const owner = ownerOf(path)
    if (owner !== undefined && !isAlive(owner)) {
      rmSync(path, { force: true })
    } else if (Date.now() > deadline) {
      throw new PkiError('PKI_BUSY', `another program is changing ${directory}: ${path}`)
    } else {
      await sleep(50)
    }
  }
  try {
    return await work()
  } finally {
    rmSync(path, { force: true })
  }
}

/** Undefined: the lock is gone, or its file not written yet. */
function ownerOf(path: string): number | undefined {
  try {
    return Number.parseInt(readFileSync(path, 'utf8'), 10) || undefined
  } catch {
    return undefined
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
