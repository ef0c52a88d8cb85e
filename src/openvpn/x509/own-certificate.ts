/** What others will hold against a certificate of ours: it is told when a server or client begins, as they may say nothing. */

import { decodeText } from '../config/parse.ts'
import type { Loaded } from '../config/values.ts'
import { type Certificate, parseCertificate, readPem } from './certificate.ts'

/** Purposes in the extended key usage. Source: RFC 5280, 4.2.1.12. */
const PURPOSES = { server: '1.3.6.1.5.5.7.3.1', client: '1.3.6.1.5.5.7.3.2' }
const ANY_PURPOSE = '2.5.29.37.0'

/** Sentences; none where all is well, or where there is no certificate to read. */
export function doubtsAbout(
  cert: Loaded | undefined,
  role: 'server' | 'client',
  date: Date,
): string[] {
  const leaf = leafOf(cert)
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
  return doubts.map((doubt) => `our certificate (${cert!.from}): ${doubt}; others may refuse it`)
}

function leafOf(cert: Loaded | undefined): Certificate | undefined {
  try {
    const [leaf] = cert === undefined ? [] : readPem(decodeText(cert.content), 'CERTIFICATE')
    return leaf && parseCertificate(leaf)
  } catch {
    return undefined // whether it will do is for the TLS library to say
  }
}

const timeText = (seconds: number) => new Date(1000 * seconds).toISOString().slice(0, 10)
