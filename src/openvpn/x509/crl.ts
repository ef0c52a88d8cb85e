/**
 * Owns lists of revoked certificates: reading one, and whether a certificate is on it. Which certificates are asked about,
 * and what a missing list means, is verifier.ts's.
 *
 * Source: RFC 5280, 5. Lists of changes only, and lists of other issuers than the certificate's, are not understood: their
 * extensions are critical, and refused as such.
 */
import { verify } from 'node:crypto'
import { type Certificate, KeyUsage, nodeCertificate } from './certificate.ts'
import { DerError, DerReader, readAll, readBits, readDer, readOid, readTime, Tag } from './der.ts'

export interface Crl {
  issuerDer: Uint8Array
  thisUpdate: number
  /** Undefined: good for ever. Both in seconds since 1970. */
  nextUpdate?: number
  /** Serial numbers as `Certificate.serialHex` has them. */
  revoked: ReadonlySet<string>
  /** The part that is signed. */
  tbs: Uint8Array
  signature: Uint8Array
  /** Object identifier. */
  signatureAlgorithm: string
}

/** Digests of the kinds of signatures that lists have. Ed25519 and Ed448 have none. */
const DIGESTS: Record<string, string | null> = {
  '1.2.840.113549.1.1.5': 'sha1',
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
  '1.2.840.10045.4.1': 'sha1',
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  '1.3.101.112': null,
  '1.3.101.113': null,
}

/** Reads a list. @throws DerError if it is none, or has a critical extension: none is understood here */
export function parseCrl(der: Uint8Array): Crl {
  const outer = new DerReader(readDer(der))
  const tbsValue = outer.take(Tag.Sequence)
  const signatureAlgorithm = readOid(new DerReader(outer.take(Tag.Sequence)).take(Tag.Oid))
  const signature = readBits(outer.take(Tag.BitString))
  const tbs = new DerReader(tbsValue)
  tbs.takeIf(Tag.Integer)
  tbs.take(Tag.Sequence)
  const issuerDer = tbs.take(Tag.Sequence).raw
  const thisUpdate = readTime(tbs.take())
  const next = tbs.takeIf(Tag.UtcTime, Tag.GeneralizedTime)
  const revoked = new Set<string>()
  for (const entry of readAll(tbs.takeIf(Tag.Sequence)?.content ?? new Uint8Array(0))) {
    const reader = new DerReader(entry)
    revoked.add(serialHex(reader.take(Tag.Integer).content))
    readTime(reader.take())
    const extensions = reader.takeIf(Tag.Sequence)
    if (extensions !== undefined) refuseCritical(extensions.content)
  }
  const extensions = tbs.takeIf(0xa0)
  if (extensions !== undefined) refuseCritical(readDer(extensions.content).content)
  return {
    issuerDer,
    thisUpdate,
    ...(next !== undefined && { nextUpdate: readTime(next) }),
    revoked,
    tbs: tbsValue.raw,
    signature,
    signatureAlgorithm,
  }
}

function serialHex(serial: Uint8Array): string {
  const hex = Buffer.from(serial).toString('hex')
  return hex.replace(/^(?:00)+(?=..)/, '').replace(/..(?=.)/g, '$&:')
}

function refuseCritical(extensions: Uint8Array): void {
  for (const extension of readAll(extensions)) {
    const reader = new DerReader(extension)
    const oid = readOid(reader.take(Tag.Oid))
    if ((reader.takeIf(Tag.Boolean)?.content[0] ?? 0) !== 0) {
      throw new DerError(`the list has a critical extension that is not understood: ${oid}`)
    }
  }
}

/** The lists that a verifier was given. Signatures are checked once for each list and issuer. */
export class RevocationLists {
  readonly #lists: readonly Crl[]
  readonly #checked = new Map<Crl, { issuer: Uint8Array; good: boolean }>()

  constructor(lists: readonly Crl[]) {
    this.#lists = lists
  }

  /**
   * Why `certificate`, which `issuer` signed, does not pass; undefined: it does, or there is no list of that issuer.
   *
   * @param now seconds since 1970
   */
  problem(certificate: Certificate, issuer: Certificate, now: number): string | undefined {
    for (const list of this.#lists) {
      if (Buffer.compare(list.issuerDer, certificate.issuerDer) !== 0) continue
      if (!this.#isSignedBy(list, issuer))
        return 'the list of revoked certificates is not signed by its issuer'
      if (now < list.thisUpdate) return 'the list of revoked certificates is not valid yet'
      if (list.nextUpdate !== undefined && now > list.nextUpdate) {
        return 'the list of revoked certificates is expired: a new one has to be made'
      }
      if (list.revoked.has(certificate.serialHex)) return 'it is revoked'
    }
    return undefined
  }

  #isSignedBy(list: Crl, issuer: Certificate): boolean {
    const known = this.#checked.get(list)
    if (known !== undefined && Buffer.compare(known.issuer, issuer.der) === 0) return known.good
    const mayList = issuer.keyUsage === undefined || (issuer.keyUsage & KeyUsage.CrlSign) !== 0
    const good = mayList && hasSignature(list, issuer)
    this.#checked.set(list, { issuer: issuer.der, good })
    return good
  }
}

function hasSignature({ tbs, signature, signatureAlgorithm }: Crl, issuer: Certificate): boolean {
  const digest = DIGESTS[signatureAlgorithm]
  if (digest === undefined) return false
  try {
    return verify(digest, tbs, nodeCertificate(issuer).publicKey, signature)
  } catch {
    return false
  }
}
