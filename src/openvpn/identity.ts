/**
 * TLS and the rules about the peer's certificates, from a configuration: the same for servers and clients. Files that may change while it
 * runs (revocations) are looked at again, through what is passed in.
 */

import type { TlsConfig } from './config/tls-config.ts'
import type { PeerCertificates, TlsFactory } from './proto/tls-engine.ts'
import { createTls, type TlsDirective, TlsError } from './tls.ts'
import { certificateIn, commonName, parseCertificate, readPem } from './x509/certificate.ts'
import { parseCrl } from './x509/crl.ts'
import { DerError } from './x509/der.ts'
import { readPkcs12Certificates } from './x509/pkcs12.ts'
import { createVerifier, type PeerRules } from './x509/verifier.ts'

/** What is asked of the file system. Each gives undefined where there is no such file. */
export interface FileWatch {
  read(path: string): Uint8Array | undefined
  /** Changes whenever the file does. */
  version(path: string): string | undefined
  /** Names in a folder. */
  list(path: string): readonly string[] | undefined
}

export interface IdentityOptions {
  readonly role: 'server' | 'client'
  /** Whether the peer needs a certificate; false with `verify-client-cert none` and `optional`. */
  readonly required: boolean
  /** Whether it is asked for one. */
  readonly requested: boolean
  /** Of the key, where the configuration leaves it to be asked for. */
  readonly passphrase?: string | undefined
  readonly unixSeconds: () => number
  readonly files: FileWatch
}

/** What `askpass` says, where it says it. */
export function passphraseOf({ keyPassword }: TlsConfig): string | undefined {
  return typeof keyPassword === 'object' ? keyPassword.password : undefined
}

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** @throws TlsError for certificates and keys that cannot be used */
export function createIdentity(config: TlsConfig, options: IdentityOptions): TlsFactory {
  const { role, required, requested, unixSeconds, files } = options
  const { ca, cert, key, extraCerts, pkcs12 } = config
  const passphrase = options.passphrase ?? passphraseOf(config)
  // Before anything else is read, as it finds out whether the passphrase is right.
  const tls = createTls({
    ca: ca === undefined ? undefined : decode(ca.content),
    certificate:
      cert === undefined
        ? undefined
        : [cert, extraCerts].map((file) => (file ? decode(file.content) : '')).join('\n'),
    key: key === undefined ? undefined : decode(key.content),
    pkcs12: pkcs12?.content,
    passphrase,
    minVersion: config.tlsVersionMin,
    maxVersion: config.tlsVersionMax,
    ciphers: config.tlsCipher?.join(':'),
    groups: config.tlsGroups?.join(':'),
    requestCertificate: requested,
    verify: (chain) => verify(chain),
  })
  const roots = rootsOf(config, files, passphrase)
  const rules: PeerRules = {
    peer: role === 'server' ? 'client' : 'server',
    required,
    roots,
    fingerprints: config.peerFingerprints.length > 0 ? config.peerFingerprints : undefined,
    certificateFor: config.remoteCertTls,
    keyUsages: config.remoteCertKu,
    extendedKeyUsage: config.remoteCertEku,
    name: config.verifyX509Name && {
      value: config.verifyX509Name.name,
      kind: config.verifyX509Name.type,
    },
    nameFields: config.x509UsernameFields,
    profile: config.tlsCertProfile,
  }
  const verify = verifierOf(config, rules, unixSeconds, files)
  return tls
}

/** The name of a peer; empty where it showed no certificate. @throws Error for a name that may not be */
export function commonNameOf(config: TlsConfig, peer: PeerCertificates): string {
  const [leaf] = peer.chain
  if (leaf === undefined) return ''
  const name = commonName(certificateIn(leaf), config.x509UsernameFields)
  if (name !== undefined) return name
  throw new Error(`its certificate has no usable ${config.x509UsernameFields.join(' and ')}`)
}

/** DER of the authorities that are trusted. @throws TlsError for what is none */
export function rootsOf(config: TlsConfig, files: FileWatch, passphrase?: string): Uint8Array[] {
  const { ca, capath, pkcs12 } = config
  if (pkcs12 !== undefined && ca === undefined && capath === undefined) {
    return understood('pkcs12', pkcs12.from, () => {
      const brought = readPkcs12Certificates(pkcs12.content, passphrase)
      return brought.filter((der) => parseCertificate(der).basicConstraints?.ca)
    })
  }
  const certificates = (directive: TlsDirective, from: string, content: Uint8Array) =>
    understood(directive, from, () => {
      const found = readPem(decode(content), 'CERTIFICATE')
      for (const der of found) certificateIn(der)
      return found
    })
  const roots = ca === undefined ? [] : certificates('ca', ca.from, ca.content)
  if (capath === undefined) return roots
  for (const name of files.list(capath) ?? []) {
    const path = `${capath}/${name}`
    const content = files.read(path)
    if (content !== undefined) roots.push(...certificates('capath', path, content))
  }
  return roots
}

/** What `read` gives. @throws TlsError that names the file, where it cannot be understood */
function understood<T>(directive: TlsDirective, from: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof DerError)) throw error
    const message = `${directive}: ${from} cannot be used: ${error.message}`
    throw new TlsError('TLS_SETTINGS', message, error, directive)
  }
}

type Verify = (chain: readonly Uint8Array[]) => string | undefined

function verifierOf(
  config: TlsConfig,
  rules: PeerRules,
  unixSeconds: () => number,
  files: FileWatch,
): Verify {
  const { crlVerify, verifyHash } = config
  const hashes = verifyHash?.hashes ?? []
  // One of several hashes will do; the rules know one.
  const withHash = (more: Partial<PeerRules>): Verify => {
    if (hashes.length === 0) return createVerifier({ ...rules, ...more }, unixSeconds)
    const algorithm = verifyHash?.algorithm === 'SHA1' ? 'sha1' : 'sha256'
    const verifiers = hashes.map((digest) =>
      createVerifier({ ...rules, ...more, issuerHash: { digest, algorithm } }, unixSeconds),
    )
    return (chain) => {
      let problem: string | undefined
      for (const verify of verifiers) {
        problem = verify(chain)
        if (problem === undefined) return undefined
      }
      return problem
    }
  }
  if (crlVerify === undefined) return withHash({})
  if ('directory' in crlVerify) {
    const { directory } = crlVerify
    return withHash({
      isRevoked: (serial) => files.version(`${directory}/${serial}`) !== undefined,
    })
  }
  const { path, content, from } = crlVerify
  const make = (pem: Uint8Array) =>
    understood('crl-verify', from, () =>
      withHash({ crls: readPem(decode(pem), 'X509 CRL').map(parseCrl) }),
    )
  let verify = make(content)
  if (path === undefined) return verify
  let version = files.version(path)
  return (chain) => {
    const present = files.version(path)
    if (present !== version) {
      const pem = files.read(path)
      if (pem === undefined || present === undefined)
        return 'the file of revocations cannot be read'
      try {
        verify = make(pem)
      } catch {
        return 'the file of revocations makes no sense'
      }
      version = present
    }
    return verify(chain)
  }
}
