/**
 * Owns the rules by which a peer's certificates are accepted: the chain to a root of ours, dates, revocation, what a
 * certificate may be used for, its name and digest. TLS has proved that the peer has the key; what a certificate says is
 * certificate.ts's, lists of revoked ones crl.ts's.
 *
 * A chain is looked for from the leaf up, among our roots first and then what the peer sent, whatever its order:
 *
 *     leaf --signed by--> (sent by the peer, or in `ca`) --> ... --> a root in `ca`, signed by itself
 *
 * Source: RFC 5280, 6; openvpn(8), "TLS Mode Options"; OpenSSL's purposes sslserver and sslclient, as OpenVPN uses them.
 */
import {
  type Certificate,
  certificateIn,
  commonName,
  fingerprint,
  formatName,
  isSignedBy,
  KeyUsage,
  MAX_COMMON_NAME_BYTES,
  type NameField,
  nodeCertificate,
} from './certificate.ts'
import { type Crl, RevocationLists } from './crl.ts'
import { DerError } from './der.ts'

export interface PeerRules {
  /** What the peer is in TLS. */
  peer: 'server' | 'client'
  /** Whether it needs a certificate at all (`verify-client-cert optional` or `none`: no). */
  required: boolean
  /** `ca` and `capath`, DER; those not signed by themselves are only used on the way. */
  roots: readonly Uint8Array[]
  /** `peer-fingerprint`: SHA-256 of the leaf, hexadecimal, with or without ":". Without roots nothing else is asked. */
  fingerprints?: readonly string[] | undefined
  /** `verify-hash`: of the certificate above the leaf. */
  issuerHash?: { digest: string; algorithm: 'sha1' | 'sha256' } | undefined
  /** `remote-cert-tls` */
  certificateFor?: 'server' | 'client' | undefined
  /** `remote-cert-ku`: one of them is wanted, as the first byte of the extension. */
  keyUsages?: readonly number[] | undefined
  /** `remote-cert-eku`: object identifier, or OpenSSL's name for it. */
  extendedKeyUsage?: string | undefined
  /** `verify-x509-name` */
  name?: { value: string; kind: 'subject' | 'name' | 'name-prefix' } | undefined
  /** `x509-username-field` */
  nameFields?: readonly NameField[] | undefined
  /** `crl-verify FILE` */
  crls?: readonly Crl[] | undefined
  /** `crl-verify DIRECTORY dir`: whether a file has the decimal serial number for its name. */
  isRevoked?: ((serial: string) => boolean) | undefined
  /** `tls-cert-profile`: legacy unless set. */
  profile?: 'insecure' | 'legacy' | 'preferred' | 'suiteb' | undefined
}

/** Certificates from leaf to root. */
const MAX_DEPTH = 16
/** Signatures checked for one peer: its certificates may be many of one name. */
const MAX_CHECKS = 64

const EXTENDED_KEY_USAGES: Record<string, string> = {
  'TLS Web Server Authentication': '1.3.6.1.5.5.7.3.1',
  'TLS Web Client Authentication': '1.3.6.1.5.5.7.3.2',
  'Code Signing': '1.3.6.1.5.5.7.3.3',
  'E-mail Protection': '1.3.6.1.5.5.7.3.4',
  'Time Stamping': '1.3.6.1.5.5.7.3.8',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
}

const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'

/**
 * A function that says why a peer's certificates (DER, leaf first; maybe none) are refused; undefined: they are not. The
 * sentence is for logs; it has no control characters, whatever is in the certificates.
 *
 * @param clock seconds since 1970
 * @throws DerError if a root is no certificate
 */
export function createVerifier(
  rules: PeerRules,
  clock: () => number,
): (chain: readonly Uint8Array[]) => string | undefined {
  const roots = rules.roots.map(certificateIn)
  const lists = new RevocationLists(rules.crls ?? [])
  return (chain) => {
    try {
      verifyPeer(chain, rules, roots, lists, clock())
      return undefined
    } catch (error) {
      if (error instanceof Refusal) return error.message
      if (error instanceof DerError)
        return `the peer's certificate cannot be read: ${error.message}`
      throw error
    }
  }
}

class Refusal extends Error {}

function verifyPeer(
  chain: readonly Uint8Array[],
  rules: PeerRules,
  roots: readonly Certificate[],
  lists: RevocationLists,
  now: number,
): void {
  const [first, ...others] = chain
  if (first === undefined) {
    if (rules.required) throw new Refusal('the peer has no certificate')
    return
  }
  const leaf = certificateIn(first)
  const { fingerprints } = rules
  if (fingerprints !== undefined && !hasFingerprint(leaf, fingerprints)) {
    const found = fingerprint(leaf.der, 'sha256')
    throw refusal(leaf, `its fingerprint is not among those of peer-fingerprint: ${found}`)
  }
  checkSubject(leaf)
  if (roots.length > 0 || fingerprints === undefined) {
    const path = findPath(leaf, parseOthers(others), roots)
    checkPath(path, rules, lists, now)
    checkIssuerHash(path, rules)
  }
  checkUsage(leaf, rules)
  checkNames(leaf, rules)
}

function refusal(certificate: Certificate, reason: string): Refusal {
  return new Refusal(`certificate "${formatName(certificate.subject)}": ${reason}`)
}

function hasFingerprint(leaf: Certificate, list: readonly string[]): boolean {
  const plain = (text: string) => text.replaceAll(':', '').toLowerCase()
  const own = plain(fingerprint(leaf.der, 'sha256'))
  return list.some((entry) => plain(entry) === own)
}

/** A NUL or a line end in a name has made programs read another name. */
function checkSubject(certificate: Certificate): void {
  if (certificate.subject.some(({ value }) => /\p{Cc}/u.test(value))) {
    throw refusal(certificate, 'there are control characters in its name')
  }
}

/** What cannot be read is of no use on the way to a root. */
function parseOthers(chain: readonly Uint8Array[]): Certificate[] {
  const certificates: Certificate[] = []
  for (const der of chain.slice(0, MAX_DEPTH)) {
    try {
      certificates.push(certificateIn(der))
    } catch (error) {
      if (!(error instanceof DerError)) throw error
    }
  }
  return certificates
}

export const isSelfIssued = ({ subjectDer, issuerDer }: Certificate) =>
  Buffer.compare(subjectDer, issuerDer) === 0

/** Whether a certificate leads to one of `roots`, through these and `others`; dates and purposes are not asked about. */
export function leadsToRoot(
  leaf: Certificate,
  others: readonly Certificate[],
  roots: readonly Certificate[],
): boolean {
  try {
    findPath(leaf, others, roots)
    return true
  } catch (error) {
    if (error instanceof Refusal) return false
    throw error
  }
}

/** Certificates from the leaf to a root of ours. */
function findPath(
  leaf: Certificate,
  others: readonly Certificate[],
  roots: readonly Certificate[],
): Certificate[] {
  let checks = 0
  const known = [...roots, ...others]
  const isRoot = (certificate: Certificate) =>
    isSelfIssued(certificate) && roots.some(({ der }) => Buffer.compare(der, certificate.der) === 0)
  let lost = leaf
  const climb = (path: Certificate[]): Certificate[] | undefined => {
    const last = path.at(-1)!
    if (isRoot(last)) return path
    lost = last
    if (path.length >= MAX_DEPTH) return undefined
    for (const candidate of known) {
      if (path.includes(candidate) || Buffer.compare(last.issuerDer, candidate.subjectDer) !== 0) {
        continue
      }
      if (++checks > MAX_CHECKS || !isSignedBy(last, candidate)) continue
      const found = climb([...path, candidate])
      if (found !== undefined) return found
    }
    return undefined
  }
  const path = climb([leaf])
  if (path !== undefined) return path
  throw isSelfIssued(lost)
    ? refusal(lost, 'it is signed by itself, and not among our authorities (ca)')
    : refusal(
        lost,
        'no authority of ours (ca) has signed it, and no certificate between them was sent',
      )
}

function checkPath(
  path: readonly Certificate[],
  rules: PeerRules,
  lists: RevocationLists,
  now: number,
): void {
  const usage = rules.peer === 'server' ? SERVER_AUTH : CLIENT_AUTH
  path.forEach((certificate, depth) => {
    const { notBefore, notAfter, extendedKeyUsage } = certificate
    const refuse = (reason: string) => refusal(certificate, reason)
    if (now < notBefore)
      throw refuse(`it is not valid before ${isoTime(notBefore)}; is the clock right?`)
    if (now > notAfter) throw refuse(`it is expired since ${isoTime(notAfter)}`)
    const [unknown] = certificate.unknownCritical
    if (unknown !== undefined) throw refuse(`a critical extension is not understood: ${unknown}`)
    if (certificate.nameConstraints) throw refuse('name constraints are not understood')
    if (extendedKeyUsage !== undefined && !extendedKeyUsage.includes(usage)) {
      throw refuse(`it is not for use as a ${rules.peer} (extended key usage)`)
    }
    if (depth === 0) checkKeyUsage(certificate, rules.peer)
    else checkAuthority(certificate, path.slice(1, depth), depth === path.length - 1)
    checkStrength(certificate, rules, depth === path.length - 1)
    const revoked = lists.problem(certificate, path[depth + 1] ?? certificate, now)
    if (revoked !== undefined) throw refuse(revoked)
    if (rules.isRevoked?.(certificate.serial)) throw refuse('it is revoked')
  })
}

function isoTime(seconds: number): string {
  return new Date(1000 * seconds).toISOString().replace('.000Z', 'Z')
}

/** What TLS wants of a leaf that says what its key is for. */
function checkKeyUsage(leaf: Certificate, peer: PeerRules['peer']): void {
  const { DigitalSignature, KeyAgreement, KeyEncipherment } = KeyUsage
  const wanted = DigitalSignature | KeyAgreement | (peer === 'server' ? KeyEncipherment : 0)
  if (leaf.keyUsage !== undefined && (leaf.keyUsage & wanted) === 0) {
    throw refusal(leaf, `it is not for use as a ${peer} (key usage)`)
  }
}

/** `below`: the authorities between this one and the leaf. */
function checkAuthority(
  authority: Certificate,
  below: readonly Certificate[],
  isRoot: boolean,
): void {
  const { basicConstraints, keyUsage, version } = authority
  const isOldRoot = isRoot && version < 3
  if (!basicConstraints?.ca && !isOldRoot)
    throw refusal(authority, 'it is not that of an authority')
  if (keyUsage !== undefined && (keyUsage & KeyUsage.KeyCertSign) === 0) {
    throw refusal(authority, 'it may not sign certificates (key usage)')
  }
  const allowed = basicConstraints?.pathLength ?? Number.POSITIVE_INFINITY
  if (below.filter((certificate) => !isSelfIssued(certificate)).length > allowed) {
    throw refusal(authority, 'there are more authorities below it than it allows')
  }
}

const WEAK_SIGNATURES: Record<string, string> = {
  '1.2.840.113549.1.1.2': 'MD2',
  '1.2.840.113549.1.1.3': 'MD4',
  '1.2.840.113549.1.1.4': 'MD5',
  '1.2.840.113549.1.1.5': 'SHA-1',
  '1.2.840.10045.4.1': 'SHA-1',
  '1.2.840.10040.4.3': 'SHA-1',
}

/** Curves and signatures of Suite B. */
const SUITE_B = {
  curves: ['prime256v1', 'secp384r1'],
  signatures: ['1.2.840.10045.4.3.2', '1.2.840.10045.4.3.3'],
}

/** `tls-cert-profile`: OpenSSL's security levels 0, 1 and 2, and Suite B. A root's own signature does not matter. */
function checkStrength(
  certificate: Certificate,
  { profile = 'legacy' }: PeerRules,
  isRoot: boolean,
): void {
  if (profile === 'insecure') return
  const weak = WEAK_SIGNATURES[certificate.signatureAlgorithm]
  if (weak !== undefined && !isRoot) {
    throw refusal(certificate, `it is signed with ${weak} (tls-cert-profile ${profile})`)
  }
  const { modulusLength, namedCurve } = keyDetails(certificate)
  const least = profile === 'legacy' ? 1024 : 2048
  if (modulusLength !== undefined && modulusLength < least) {
    throw refusal(
      certificate,
      `its key has ${modulusLength} bits only (tls-cert-profile ${profile})`,
    )
  }
  if (profile !== 'suiteb') return
  const signed = isRoot || SUITE_B.signatures.includes(certificate.signatureAlgorithm)
  if (!signed || !SUITE_B.curves.includes(namedCurve ?? '')) {
    throw refusal(certificate, 'it is not of Suite B (tls-cert-profile suiteb)')
  }
}

function keyDetails(certificate: Certificate): { modulusLength?: number; namedCurve?: string } {
  try {
    return nodeCertificate(certificate).publicKey.asymmetricKeyDetails ?? {}
  } catch {
    return {}
  }
}

function checkIssuerHash(path: readonly Certificate[], { issuerHash }: PeerRules): void {
  if (issuerHash === undefined) return
  const issuer = path[1]
  const wanted = issuerHash.digest.replaceAll(':', '').toLowerCase()
  const found = issuer && fingerprint(issuer.der, issuerHash.algorithm)
  if (issuer === undefined || found?.replaceAll(':', '') !== wanted) {
    throw refusal(
      issuer ?? path[0]!,
      `its digest is not that of verify-hash: ${found ?? 'there is none'}`,
    )
  }
}

/** What the configuration wants the leaf to be for. */
function checkUsage(leaf: Certificate, rules: PeerRules): void {
  const { keyUsage } = leaf
  if (rules.certificateFor !== undefined) {
    if (keyUsage === undefined) throw refusal(leaf, 'it has no key usage (remote-cert-tls)')
    const wanted = rules.certificateFor === 'server' ? SERVER_AUTH : CLIENT_AUTH
    checkExtendedUsage(leaf, wanted, `remote-cert-tls ${rules.certificateFor}`)
  }
  const { keyUsages, extendedKeyUsage } = rules
  if (keyUsages !== undefined) {
    if (keyUsage === undefined) throw refusal(leaf, 'it has no key usage (remote-cert-ku)')
    if (!keyUsages.some((bits) => (keyUsage & bits) === bits)) {
      const found = keyUsage.toString(16).padStart(2, '0')
      throw refusal(leaf, `its key usage is ${found}, and not as remote-cert-ku has it`)
    }
  }
  if (extendedKeyUsage !== undefined) {
    const wanted = EXTENDED_KEY_USAGES[extendedKeyUsage] ?? extendedKeyUsage
    checkExtendedUsage(leaf, wanted, `remote-cert-eku ${extendedKeyUsage}`)
  }
}

function checkExtendedUsage(leaf: Certificate, wanted: string, rule: string): void {
  if (leaf.extendedKeyUsage?.includes(wanted)) return
  throw refusal(leaf, `its extended key usage is not as wanted (${rule})`)
}

function checkNames(leaf: Certificate, { name, nameFields }: PeerRules): void {
  const own = commonName(leaf, nameFields)
  if (own === undefined) {
    const field = (nameFields ?? ['CN']).join(', ')
    const limit = `at most ${MAX_COMMON_NAME_BYTES} bytes without control characters`
    throw refusal(leaf, `it has no name to go by (${field}: ${limit})`)
  }
  if (name === undefined) return
  const { kind, value } = name
  const found = kind === 'subject' ? formatName(leaf.subject) : own
  const fits = kind === 'name-prefix' ? found.startsWith(value) : found === value
  if (!fits) throw refusal(leaf, `its name is not "${value}" (verify-x509-name ${kind})`)
}
