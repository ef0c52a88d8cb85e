/** Certificates and lists of revoked ones for tests, of any content: made with @peculiar/x509, not with what they test. */
import 'reflect-metadata'
import { KeyObject } from 'node:crypto'
import * as x509 from '@peculiar/x509'

/** Those that tests make themselves; here, because the library wants the import above before it. */
export { Extension, SubjectAlternativeNameExtension } from '@peculiar/x509'

const DAY = 86_400_000

export interface Issued {
  pem: string
  der: Uint8Array
  /** PEM. */
  key: string
  keys: CryptoKeyPair
  certificate: x509.X509Certificate
}

export interface IssueOptions {
  /** Who signs; itself unless given. */
  by?: Issued
  ca?: boolean
  /** -1: none. */
  pathLength?: number
  /** First byte of the key usage; undefined: no such extension. */
  keyUsage?: number
  extendedKeyUsage?: string[]
  /** Days from now. */
  from?: number
  to?: number
  serial?: string
  rsa?: number
  extensions?: x509.Extension[]
  digest?: 'SHA-1' | 'SHA-256' | 'SHA-384'
}

/** A new key and a certificate of it. `name`: CN=a, or parts as the library takes them. */
export async function issue(
  name: string | x509.JsonName,
  options: IssueOptions = {},
): Promise<Issued> {
  const { by, ca, pathLength, keyUsage, extendedKeyUsage, from = -1, to = 30, digest } = options
  const hash = digest ?? 'SHA-256'
  const keys = (await crypto.subtle.generateKey(
    options.rsa === undefined
      ? { name: 'ECDSA', namedCurve: 'P-256' }
      : {
          name: 'RSASSA-PKCS1-v1_5',
          hash,
          modulusLength: options.rsa,
          publicExponent: Uint8Array.of(1, 0, 1),
        },
    true,
    ['sign', 'verify'],
  )) as CryptoKeyPair
  const extensions: x509.Extension[] = [...(options.extensions ?? [])]
  if (ca) extensions.push(new x509.BasicConstraintsExtension(true, pathLength, true))
  if (keyUsage !== undefined) {
    extensions.push(new x509.Extension('2.5.29.15', true, Uint8Array.of(3, 2, 0, keyUsage)))
  }
  if (extendedKeyUsage !== undefined) {
    extensions.push(new x509.ExtendedKeyUsageExtension(extendedKeyUsage))
  }
  const signer = by ?? { keys }
  const signing = { name: signer.keys.privateKey.algorithm.name, hash }
  const certificate = await x509.X509CertificateGenerator.create({
    subject: name,
    issuer: by === undefined ? name : new x509.Name(by.certificate.subjectName.toArrayBuffer()),
    publicKey: keys.publicKey,
    signingKey: await keyFor(signer.keys.privateKey, hash),
    signingAlgorithm: signing,
    notBefore: new Date(Date.now() + from * DAY),
    notAfter: new Date(Date.now() + to * DAY),
    serialNumber:
      options.serial ??
      Buffer.from(crypto.getRandomValues(new Uint8Array(8)))
        .toString('hex')
        .replace(/^./, '1'),
    extensions,
  })
  const key = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }) as string
  const der = new Uint8Array(certificate.rawData)
  return { pem: `${certificate.toString('pem')}\n`, der, key, keys, certificate }
}

/** The same key, for signatures with another digest: one of RSA is for a single one. */
async function keyFor(key: CryptoKey, hash: string): Promise<CryptoKey> {
  const { name } = key.algorithm
  if (name === 'ECDSA') return key
  const der = KeyObject.from(key).export({ type: 'pkcs8', format: 'der' })
  return crypto.subtle.importKey('pkcs8', der, { name, hash }, false, ['sign'])
}

/** A list of revoked serial numbers (hexadecimal), PEM. Days from now. */
export async function revoke(
  by: Issued,
  serials: string[],
  { from = -1, to = 30, extensions = [] as x509.Extension[] } = {},
): Promise<string> {
  const list = await x509.X509CrlGenerator.create({
    issuer: new x509.Name(by.certificate.subjectName.toArrayBuffer()),
    thisUpdate: new Date(Date.now() + from * DAY),
    nextUpdate: new Date(Date.now() + to * DAY),
    entries: serials.map((serialNumber) => ({ serialNumber, revocationDate: new Date() })),
    extensions,
    signingKey: by.keys.privateKey,
    signingAlgorithm: { name: by.keys.privateKey.algorithm.name, hash: 'SHA-256' },
  })
  // OpenSSL takes no empty line, as there would be behind a last one of 64.
  const lines = list
    .toString('base64')
    .match(/.{1,64}/g)!
    .join('\n')
  return `-----BEGIN X509 CRL-----\n${lines}\n-----END X509 CRL-----\n`
}
