/**
 * Owns what a certificate says: names, dates, extensions, as far as rules about peers, logs and scripts ask. Read from
 * DER here, because node:crypto does not tell key usages, and joins names into text that a name can forge. Whether a
 * certificate is to be believed is verifier.ts's.
 *
 * Source: RFC 5280, 4.1 and 4.2; openvpn(8), "Environmental Variables" and `x509-username-field`.
 */
import { createHash, X509Certificate } from 'node:crypto'
import {
  type Der,
  DerError,
  DerReader,
  readAll,
  readBits,
  readDer,
  readOid,
  readSmallInteger,
  readText,
  readTime,
  Tag,
} from './der.ts'

/** One part of a name: CN=value. */
export interface NamePart {
  /** Short name as OpenSSL has it, or the dotted object identifier. */
  name: string
  value: string
  /** Whether it is one with the part before it ("+"). */
  joined: boolean
}

/** Bits of the key usage extension (RFC 5280, 4.2.1.3), as `remote-cert-ku` counts them. */
export const KeyUsage = {
  DigitalSignature: 0x80,
  KeyEncipherment: 0x20,
  KeyAgreement: 0x08,
  KeyCertSign: 0x04,
  CrlSign: 0x02,
} as const

export interface Certificate {
  der: Uint8Array
  /** Decimal. */
  serial: string
  /** Bytes of the serial number, with ":" between, as OpenVPN shows them. */
  serialHex: string
  subject: readonly NamePart[]
  /** DER of the names, to compare. */
  subjectDer: Uint8Array
  issuerDer: Uint8Array
  /** Seconds since 1970, both within. */
  notBefore: number
  notAfter: number
  /** 1 to 3. */
  version: number
  /** Undefined: no such extension. Its first byte; the second has only decipherOnly. */
  keyUsage?: number
  /** Object identifiers. */
  extendedKeyUsage?: readonly string[]
  basicConstraints?: { ca: boolean; pathLength?: number }
  /** rfc822Name of subjectAltName. */
  emails: readonly string[]
  subjectKeyId?: Uint8Array
  authorityKeyId?: Uint8Array
  nameConstraints: boolean
  /** Critical extensions that nobody here knows. */
  unknownCritical: readonly string[]
  /** Object identifier of the signature's algorithm. */
  signatureAlgorithm: string
}

const SHORT_NAMES: Record<string, string> = {
  '2.5.4.3': 'CN',
  '2.5.4.4': 'SN',
  '2.5.4.5': 'serialNumber',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.9': 'street',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
  '2.5.4.12': 'title',
  '2.5.4.13': 'description',
  '2.5.4.17': 'postalCode',
  '2.5.4.41': 'name',
  '2.5.4.42': 'GN',
  '2.5.4.43': 'initials',
  '2.5.4.44': 'generationQualifier',
  '2.5.4.45': 'x500UniqueIdentifier',
  '2.5.4.46': 'dnQualifier',
  '2.5.4.65': 'pseudonym',
  '1.2.840.113549.1.9.1': 'emailAddress',
  '1.2.840.113549.1.9.2': 'unstructuredName',
  '0.9.2342.19200300.100.1.1': 'UID',
  '0.9.2342.19200300.100.1.25': 'DC',
}

const Extension = {
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
} as const

/** Critical ones that may be there and change nothing: policies, of which nobody asks. */
const PASSED = ['2.5.29.32', '2.5.29.33', '2.5.29.36', '2.5.29.54']

/** Reads a certificate of unknown origin. @throws DerError if it is none; its fields are views of `der` */
export function parseCertificate(der: Uint8Array): Certificate {
  const outer = new DerReader(readDer(der))
  const tbs = new DerReader(outer.take(Tag.Sequence))
  const version = tbs.takeIf(0xa0)
  const serial = tbs.take(Tag.Integer).content
  if (serial.length === 0 || serial.length > 64)
    throw new DerError('a serial number of wrong length')
  const signatureAlgorithm = readOid(new DerReader(tbs.take(Tag.Sequence)).take(Tag.Oid))
  const issuer = tbs.take(Tag.Sequence)
  const validity = new DerReader(tbs.take(Tag.Sequence))
  const [notBefore, notAfter] = [readTime(validity.take()), readTime(validity.take())]
  const subject = tbs.take(Tag.Sequence)
  tbs.take(Tag.Sequence) // the public key: node:crypto's
  tbs.takeIf(0x81, 0xa1)
  tbs.takeIf(0x82, 0xa2)
  const hex = Buffer.from(serial).toString('hex')
  const negative = serial[0]! >= 0x80
  const certificate: Certificate = {
    der,
    serial: (negative
      ? BigInt.asIntN(8 * serial.length, BigInt(`0x${hex}`))
      : BigInt(`0x${hex}`)
    ).toString(),
    serialHex: hex.replace(/^(?:00)+(?=..)/, '').replace(/..(?=.)/g, '$&:'),
    subject: readName(subject),
    subjectDer: subject.raw,
    issuerDer: issuer.raw,
    notBefore,
    notAfter,
    version: version === undefined ? 1 : 1 + readSmallInteger(readDer(version.content)),
    emails: [],
    nameConstraints: false,
    unknownCritical: [],
    signatureAlgorithm,
  }
  const extensions = tbs.takeIf(0xa3)
  if (extensions !== undefined) readExtensions(certificate, readDer(extensions.content))
  return certificate
}

const certificates = new WeakMap<Uint8Array, Certificate>()

/** The same, read once for the same memory: who calls does not change it from then on. @throws DerError */
export function certificateIn(der: Uint8Array): Certificate {
  let read = certificates.get(der)
  if (read === undefined) {
    read = parseCertificate(der)
    certificates.set(der, read)
  }
  return read
}

/** The parts of a name, in the order of the certificate. @throws DerError */
function readName(name: Der): NamePart[] {
  const parts: NamePart[] = []
  for (const set of readAll(name.content)) {
    let joined = false
    for (const attribute of readAll(set.content)) {
      const reader = new DerReader(attribute)
      const oid = readOid(reader.take(Tag.Oid))
      parts.push({ name: SHORT_NAMES[oid] ?? oid, value: readText(reader.take()), joined })
      joined = true
    }
  }
  return parts
}

function readExtensions(into: Certificate, list: Der): void {
  const seen = new Set<string>()
  const unknown: string[] = []
  for (const extension of readAll(list.content)) {
    const reader = new DerReader(extension)
    const oid = readOid(reader.take(Tag.Oid))
    const critical = (reader.takeIf(Tag.Boolean)?.content[0] ?? 0) !== 0
    const value = reader.take(Tag.OctetString).content
    if (seen.has(oid)) throw new DerError(`extension ${oid} is there twice`)
    seen.add(oid)
    if (!readExtension(into, oid, value) && critical && !PASSED.includes(oid)) unknown.push(oid)
  }
  into.unknownCritical = unknown
}

/** Whether it is a known one. */
function readExtension(into: Certificate, oid: string, bytes: Uint8Array): boolean {
  switch (oid) {
    case Extension.keyUsage:
      into.keyUsage = readBits(readDer(bytes))[0] ?? 0
      return true
    case Extension.extendedKeyUsage:
      into.extendedKeyUsage = readAll(readDer(bytes).content).map(readOid)
      return true
    case Extension.basicConstraints: {
      const reader = new DerReader(readDer(bytes))
      const ca = (reader.takeIf(Tag.Boolean)?.content[0] ?? 0) !== 0
      const path = reader.takeIf(Tag.Integer)
      into.basicConstraints = { ca, ...(path && { pathLength: readSmallInteger(path) }) }
      return true
    }
    case Extension.subjectAltName:
      into.emails = readAll(readDer(bytes).content)
        .filter(({ tag }) => tag === 0x81)
        .map(({ content }) => Buffer.from(content).toString('latin1'))
      return true
    case Extension.subjectKeyId:
      into.subjectKeyId = readDer(bytes).content
      return true
    case Extension.authorityKeyId: {
      const id = new DerReader(readDer(bytes)).takeIf(0x80)
      if (id !== undefined) into.authorityKeyId = id.content
      return true
    }
    case Extension.nameConstraints:
      into.nameConstraints = true
      return true
    default:
      return false
  }
}

/** A name as OpenVPN and `openssl x509 -nameopt` print it: C=KG, O=Test, CN=name. Control characters become \XX. */
export function formatName(parts: readonly NamePart[]): string {
  let text = ''
  for (const { name, value, joined } of parts) {
    text += `${text === '' ? '' : joined ? ' + ' : ', '}${name}=${escapeControls(value)}`
  }
  return text
}

function escapeControls(value: string): string {
  return value.replace(/\p{Cc}/gu, (character) => {
    return `\\${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`
  })
}

/** What `x509-username-field` may name: "CN" or another part of the subject, "ext:subjectAltName", or "serialNumber". */
export type NameField = string

/** Longest common name; more is refused, as OpenVPN does. */
export const MAX_COMMON_NAME_BYTES = 64

/**
 * The name that a peer goes by.
 *
 * @param fields joined by "_" if they are several, as `x509-username-field` has them
 * @returns undefined if the certificate has no such field, it is empty or too long, or has control characters
 */
export function commonName(
  certificate: Certificate,
  fields: readonly NameField[] = ['CN'],
): string | undefined {
  const values: string[] = []
  for (const field of fields) {
    const value = fieldOf(certificate, field)
    if (value === undefined || value === '' || /\p{Cc}/u.test(value)) return undefined
    values.push(value)
  }
  const name = values.join('_')
  return Buffer.byteLength(name) > MAX_COMMON_NAME_BYTES ? undefined : name
}

/** Of several parts of that name the last, as OpenVPN has it. */
function fieldOf(certificate: Certificate, field: NameField): string | undefined {
  if (field === 'serialNumber') return `0x${certificate.serialHex}`
  if (field === 'ext:subjectAltName') return certificate.emails.at(-1)
  const wanted = field.toLowerCase()
  return certificate.subject.findLast(({ name }) => name.toLowerCase() === wanted)?.value
}

/** Digest of the whole certificate: hexadecimal with ":" between bytes, as OpenVPN shows and reads it. */
export function fingerprint(der: Uint8Array, algorithm: 'sha1' | 'sha256'): string {
  const hex = createHash(algorithm).update(der).digest('hex')
  return hex.replace(/..(?=.)/g, '$&:')
}

/** What scripts find in their environment about a peer's chain, leaf first. */
export function certificateEnvironment(chain: readonly Certificate[]): Record<string, string> {
  const environment: Record<string, string> = {}
  chain.forEach((certificate, depth) => {
    environment[`tls_id_${depth}`] = formatName(certificate.subject)
    environment[`tls_digest_${depth}`] = fingerprint(certificate.der, 'sha1')
    environment[`tls_digest_sha256_${depth}`] = fingerprint(certificate.der, 'sha256')
    environment[`tls_serial_${depth}`] = certificate.serial
    environment[`tls_serial_hex_${depth}`] = certificate.serialHex
    for (const { name, value } of certificate.subject) {
      if (/^[A-Za-z0-9]+$/.test(name)) {
        environment[`X509_${depth}_${name}`] = value.replace(/\p{Cc}/gu, '_')
      }
    }
  })
  return environment
}

/** The same of encoded ones: nothing of a chain that cannot be understood, which has been refused or was never asked for. */
export function chainEnvironment(chain: readonly Uint8Array[]): Record<string, string> {
  try {
    return certificateEnvironment(chain.map(parseCertificate))
  } catch {
    return {}
  }
}

/** The DER of each PEM block of that kind in `text`, which may have anything between them. */
export function readPem(text: string, kind: 'CERTIFICATE' | 'X509 CRL'): Uint8Array[] {
  const blocks: Uint8Array[] = []
  const pattern = new RegExp(`-----BEGIN ${kind}-----([^-]*)-----END ${kind}-----`, 'g')
  for (const [, body] of text.matchAll(pattern)) {
    blocks.push(Uint8Array.from(Buffer.from(body!, 'base64')))
  }
  return blocks
}

const signatures = new WeakMap<Certificate, WeakMap<Certificate, boolean>>()

/** Whether `issuer` signed `certificate`: names and key ids fit, and the signature is right. Found out once for the same two. */
export function isSignedBy(certificate: Certificate, issuer: Certificate): boolean {
  let known = signatures.get(certificate)
  if (known === undefined) {
    known = new WeakMap()
    signatures.set(certificate, known)
  }
  let signed = known.get(issuer)
  if (signed === undefined) {
    signed = hasSignatureOf(certificate, issuer)
    known.set(issuer, signed)
  }
  return signed
}

function hasSignatureOf(certificate: Certificate, issuer: Certificate): boolean {
  if (Buffer.compare(certificate.issuerDer, issuer.subjectDer) !== 0) return false
  const { authorityKeyId } = certificate
  const { subjectKeyId } = issuer
  if (authorityKeyId && subjectKeyId && Buffer.compare(authorityKeyId, subjectKeyId) !== 0) {
    return false
  }
  try {
    return nodeCertificate(certificate).verify(nodeCertificate(issuer).publicKey)
  } catch {
    return false // an algorithm or a key that nobody here knows
  }
}

const nodeCertificates = new WeakMap<Certificate, X509Certificate>()

/** The same certificate as node:crypto has it; made once, as that costs more than reading it here. @throws Error */
export function nodeCertificate(certificate: Certificate): X509Certificate {
  let made = nodeCertificates.get(certificate)
  if (made === undefined) {
    made = new X509Certificate(certificate.der)
    nodeCertificates.set(certificate, made)
  }
  return made
}
