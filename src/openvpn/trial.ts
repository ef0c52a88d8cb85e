/**
 * What can be found out about keys, certificates and ciphers of a configuration before anything runs: `ovpn check` tells all of it,
 * `ovpn server` and `ovpn client` tell doubts when they begin, and end with what is wrong.
 */

import type { Finding } from './config/check.ts'
import type { TlsConfig } from './config/tls-config.ts'
import { createIdentity, type FileWatch, passphraseOf, rootsOf } from './identity.ts'
import { isNewestOnly, type TlsDirective, TlsError } from './tls.ts'
import { readPem } from './x509/certificate.ts'
import { doubtsAbout } from './x509/own-certificate.ts'
import { readPkcs12Certificates } from './x509/pkcs12.ts'

export interface TrialOptions {
  readonly role: 'server' | 'client'
  readonly date: Date
  readonly files: FileWatch
}

/** Everything, in any order. */
export function tryIdentity(config: TlsConfig, options: TrialOptions): Finding[] {
  return [...mistakesIn(config, options), ...doubtsIn(config, options)]
}

/** What works, but may not be what was meant. */
export function doubtsIn(config: TlsConfig, options: TrialOptions): Finding[] {
  return [...cipherDoubts(config), ...certificateDoubts(config, options)]
}

function cipherDoubts({ tlsCipher, tlsVersionMax }: TlsConfig): Finding[] {
  const ciphers = tlsCipher?.join(':')
  if (!isNewestOnly({ ciphers, maxVersion: tlsVersionMax })) return []
  const message = `tls-cipher: TLS 1.2 has none of ${ciphers} here, as there is no DHE; so TLS 1.3 alone is spoken, without the line 1.2 too`
  return [{ kind: 'doubt', directive: 'tls-cipher', message }]
}

/** What others will hold against our certificate. Of one in a file whose password has to be asked for, nothing. */
function certificateDoubts(config: TlsConfig, { role, date, files }: TrialOptions): Finding[] {
  const passphrase = passphraseOf(config)
  const { cert, extraCerts, pkcs12 } = config
  const from = (cert ?? pkcs12)?.from
  if (from === undefined) return []
  const shown = () =>
    pkcs12 !== undefined
      ? readPkcs12Certificates(pkcs12.content, passphrase)
      : [cert, extraCerts].flatMap((file) =>
          file === undefined ? [] : readPem(new TextDecoder().decode(file.content), 'CERTIFICATE'),
        )
  const own = {
    from,
    chain: unlessUnreadable(shown),
    authorities: unlessUnreadable(() => rootsOf(config, files, passphrase)),
  }
  const directive = cert === undefined ? 'pkcs12' : 'cert'
  return doubtsAbout(own, role, date).map((message) => ({ kind: 'doubt', directive, message }))
}

/** What cannot be read is a mistake, not a doubt. */
function unlessUnreadable(read: () => readonly Uint8Array[]): readonly Uint8Array[] {
  try {
    return read()
  } catch {
    return []
  }
}

/** TLS stops at the first mistake: what that is about is left out, and what is left tried again. */
function mistakesIn(config: TlsConfig, options: TrialOptions): Finding[] {
  const findings: Finding[] = []
  const { keyPassword } = config
  let left: TlsConfig | undefined = keyPassword === 'ask' ? without(config, 'key') : config
  while (left !== undefined) {
    const error = errorOf(left, options)
    if (error === undefined) break
    const { code, directive, message } = error
    const finding: Finding =
      code === 'TLS_PASSPHRASE' && keyPassword === undefined
        ? { kind: 'doubt', message: 'it has a password, which is asked for at the start' }
        : { kind: 'mistake', message }
    findings.push({ ...finding, directive })
    left = directive && without(left, directive)
  }
  return findings
}

function errorOf(config: TlsConfig, { role, date, files }: TrialOptions): TlsError | undefined {
  try {
    createIdentity(config, {
      ...{ role, required: true, requested: true, files },
      unixSeconds: () => Math.floor(date.getTime() / 1000),
    })
    return undefined
  } catch (error) {
    if (error instanceof TlsError) return error
    throw error
  }
}

function without(config: TlsConfig, directive: TlsDirective): TlsConfig {
  switch (directive) {
    case 'ca':
      return { ...config, ca: undefined }
    case 'capath':
      return { ...config, capath: undefined }
    case 'crl-verify':
      return { ...config, crlVerify: undefined }
    case 'tls-cipher':
      return { ...config, tlsCipher: undefined }
    case 'tls-groups':
      return { ...config, tlsGroups: undefined }
    case 'cert':
    case 'key':
    case 'pkcs12': {
      const none = { cert: undefined, key: undefined, extraCerts: undefined, pkcs12: undefined }
      return { ...config, ...none }
    }
  }
}
