/** What others will hold against a certificate of ours: it is told when a server or client begins, as they may say nothing. */

import { type Certificate, parseCertificate } from './certificate.ts'
import { isSelfIssued, leadsToRoot } from './verifier.ts'

/** Purposes in the extended key usage. Source: RFC 5280, 4.2.1.12. */
const PURPOSES = { server: '1.3.6.1.5.5.7.3.1', client: '1.3.6.1.5.5.7.3.2' }
const ANY_PURPOSE = '2.5.29.37.0'

export interface OwnCertificates {
  /** For messages: where they were read. */
  readonly from: string
  /** DER, ours first, then what is shown with it. */
  readonly chain: readonly Uint8Array[]
  /** DER of those whom we trust ourselves, who as a rule are those whom others trust. */
  readonly authorities: readonly Uint8Array[]
}

/** Sentences; none where all is well, or where there is no certificate that can be read. */
export function doubtsAbout(
  { from, chain, authorities }: OwnCertificates,
  role: 'server' | 'client',
  date: Date,
): string[] {
  const [leaf, ...others] = readable(chain)
  if (leaf === undefined) return []
  const { notBefore, notAfter, extendedKeyUsage } = leaf
  const doubts: string[] = []
  const now = date.getTime() / 1000
  if (now > notAfter) doubts.push(`it is expired since ${timeText(notAfter)}`)
  if (now < notBefore) {
    doubts.push(`it is not valid before ${timeText(notBefore)}; is the clock right?`)
  }
  const suits = [PURPOSES[role], ANY_PURPOSE].some((one) => extendedKeyUsage?.includes(one))
  if (extendedKeyUsage !== undefined && !suits) doubts.push(`it is not made for a ${role}`)
  const roots = readable(authorities)
  // One that is signed by itself is known to others by its fingerprint.
  if (roots.length > 0 && !isSelfIssued(leaf) && !leadsToRoot(leaf, others, roots)) {
    doubts.push('no authority of ours (ca) has signed it')
  }
  return doubts.map((doubt) => `our certificate (${from}): ${doubt}; others may refuse it`)
}

function readable(certificates: readonly Uint8Array[]): Certificate[] {
  return certificates.flatMap((der) => {
    try {
      return [parseCertificate(der)]
    } catch {
      return [] // whether it will do is for the TLS library to say
    }
  })
}

const timeText = (seconds: number) => new Date(1000 * seconds).toISOString().slice(0, 10)
