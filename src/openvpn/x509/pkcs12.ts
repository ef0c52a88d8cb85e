/**
 * Owns the reading of certificates out of a PKCS #12 file: the authorities that `pkcs12` brings along where there is no `ca`.
 * Our own certificate and key are read from the same file by TLS, which also finds out whether the passphrase is right.
 *
 *     PFX --> AuthenticatedSafe --> SafeContents, encrypted or not --> bags, of which those of certificates are read
 *
 * Source: RFC 7292, 4 and appendix B.2; RFC 8018, 5.2 and 6.2 (PBES2). RC2, which OpenSSL 1 used, is there in
 * Bun, not in Node.
 */
import { createDecipheriv, createHash, pbkdf2Sync } from 'node:crypto'
import {
  type Der,
  DerError,
  DerReader,
  readAll,
  readDer,
  readOid,
  readSmallInteger,
  Tag,
} from './der.ts'

const Oid = {
  data: '1.2.840.113549.1.7.1',
  encryptedData: '1.2.840.113549.1.7.6',
  certificateBag: '1.2.840.113549.1.12.10.1.3',
  x509: '1.2.840.113549.1.9.22.1',
  pbes2: '1.2.840.113549.1.5.13',
  pbkdf2: '1.2.840.113549.1.5.12',
  shaAnd3Des: '1.2.840.113549.1.12.1.3',
  shaAndRc2With40: '1.2.840.113549.1.12.1.6',
} as const

const CIPHERS: Record<string, { name: string; keyBytes: number }> = {
  '2.16.840.1.101.3.4.1.2': { name: 'aes-128-cbc', keyBytes: 16 },
  '2.16.840.1.101.3.4.1.22': { name: 'aes-192-cbc', keyBytes: 24 },
  '2.16.840.1.101.3.4.1.42': { name: 'aes-256-cbc', keyBytes: 32 },
  '1.2.840.113549.3.7': { name: 'des-ede3-cbc', keyBytes: 24 },
}

const PBKDF2_DIGESTS: Record<string, string> = {
  '1.2.840.113549.2.7': 'sha1',
  '1.2.840.113549.2.9': 'sha256',
  '1.2.840.113549.2.10': 'sha384',
  '1.2.840.113549.2.11': 'sha512',
}

/** Whether a file has the outer form of one, and all of it. Lengths may be open (BER), as some programs write them. */
export function isPkcs12(file: Uint8Array): boolean {
  const OPEN = 0x80
  if (file[0] === Tag.Sequence && file[1] === OPEN) return true
  try {
    return readDer(file).tag === Tag.Sequence
  } catch {
    return false
  }
}

/**
 * DER of all certificates in a file, in its order.
 *
 * @throws DerError for what is no such file, is encrypted in a way that nobody here knows, or with another passphrase
 */
export function readPkcs12Certificates(file: Uint8Array, passphrase = ''): Uint8Array[] {
  const pfx = new DerReader(readDer(file))
  pfx.take(Tag.Integer)
  const safe = contentOf(pfx.take(Tag.Sequence), Oid.data)
  const certificates: Uint8Array[] = []
  for (const part of readAll(readDer(safe).content)) {
    const bags = readDer(readPart(part, passphrase))
    for (const bag of readAll(bags.content)) {
      const certificate = readBag(bag)
      if (certificate !== undefined) certificates.push(certificate)
    }
  }
  return certificates
}

/** What is in a ContentInfo of plain data. */
function contentOf(info: Der, type: string): Uint8Array {
  const reader = new DerReader(info)
  const found = readOid(reader.take(Tag.Oid))
  if (found !== type) throw new DerError(`content of kind ${found} is not understood`)
  return expectOctets(readDer(reader.take(0xa0).content))
}

function expectOctets({ tag, content }: Der): Uint8Array {
  if (tag !== Tag.OctetString) throw new DerError('pieces of octets are not understood')
  return content
}

/** SafeContents of one part. */
function readPart(part: Der, passphrase: string): Uint8Array {
  const reader = new DerReader(part)
  if (readOid(reader.take(Tag.Oid)) !== Oid.encryptedData) return contentOf(part, Oid.data)
  const encrypted = new DerReader(readDer(reader.take(0xa0).content))
  encrypted.take(Tag.Integer)
  const info = new DerReader(encrypted.take(Tag.Sequence))
  info.take(Tag.Oid)
  const algorithm = new DerReader(info.take(Tag.Sequence))
  const bytes = info.take(0x80).content
  return decrypt(algorithm, bytes, passphrase)
}

function readBag(bag: Der): Uint8Array | undefined {
  const reader = new DerReader(bag)
  if (readOid(reader.take(Tag.Oid)) !== Oid.certificateBag) return undefined
  const certificate = new DerReader(readDer(reader.take(0xa0).content))
  if (readOid(certificate.take(Tag.Oid)) !== Oid.x509) return undefined
  return Uint8Array.from(expectOctets(readDer(certificate.take(0xa0).content)))
}

function decrypt(algorithm: DerReader, bytes: Uint8Array, passphrase: string): Uint8Array {
  const oid = readOid(algorithm.take(Tag.Oid))
  const parameters = new DerReader(algorithm.take(Tag.Sequence))
  if (oid === Oid.pbes2) return decryptPbes2(parameters, bytes, passphrase)
  const salt = expectOctets(parameters.take())
  const iterations = readSmallInteger(parameters.take(Tag.Integer))
  const derive = (purpose: number, length: number) =>
    deriveKey(passphrase, salt, iterations, purpose, length)
  if (oid === Oid.shaAnd3Des) return decipher('des-ede3-cbc', derive(1, 24), derive(2, 8), bytes)
  if (oid === Oid.shaAndRc2With40) return decipher('rc2-40-cbc', derive(1, 5), derive(2, 8), bytes)
  throw new DerError(`encryption of kind ${oid} is not understood`)
}

function decryptPbes2(parameters: DerReader, bytes: Uint8Array, passphrase: string): Uint8Array {
  const derivation = new DerReader(parameters.take(Tag.Sequence))
  const scheme = new DerReader(parameters.take(Tag.Sequence))
  const cipher = CIPHERS[readOid(scheme.take(Tag.Oid))]
  if (cipher === undefined || readOid(derivation.take(Tag.Oid)) !== Oid.pbkdf2) {
    throw new DerError('encryption of this kind is not understood')
  }
  const iv = expectOctets(scheme.take())
  const values = new DerReader(derivation.take(Tag.Sequence))
  const salt = expectOctets(values.take())
  const iterations = readSmallInteger(values.take(Tag.Integer))
  values.takeIf(Tag.Integer)
  const prf = values.takeIf(Tag.Sequence)
  const digest =
    prf === undefined ? 'sha1' : PBKDF2_DIGESTS[readOid(new DerReader(prf).take(Tag.Oid))]
  if (digest === undefined) throw new DerError('a key derivation of this kind is not understood')
  const key = pbkdf2Sync(passphrase, salt, iterations, cipher.keyBytes, digest)
  return decipher(cipher.name, key, iv, bytes)
}

function decipher(name: string, key: Uint8Array, iv: Uint8Array, bytes: Uint8Array): Uint8Array {
  try {
    const cipher = createDecipheriv(name, key, iv)
    return Buffer.concat([cipher.update(bytes), cipher.final()])
  } catch {
    throw new DerError(`it cannot be decrypted (${name}): a wrong passphrase?`)
  }
}

const BLOCK_BYTES = 64

/** RFC 7292, B.2, with SHA-1. `purpose`: 1 for a key, 2 for an initialisation vector. */
function deriveKey(
  passphrase: string,
  salt: Uint8Array,
  iterations: number,
  purpose: number,
  length: number,
): Uint8Array {
  const password = Buffer.from(`${passphrase}\0`, 'utf16le').swap16()
  const input = Buffer.concat([fill(salt), fill(password)])
  const output = Buffer.alloc(length)
  for (let at = 0; at < length; at += 20) {
    let hash = createHash('sha1').update(Buffer.alloc(BLOCK_BYTES, purpose)).update(input).digest()
    for (let i = 1; i < iterations; i++) hash = createHash('sha1').update(hash).digest()
    hash.copy(output, at)
    const more = fill(hash)
    for (let block = 0; block < input.length; block += BLOCK_BYTES) {
      let carry = 1
      for (let i = BLOCK_BYTES - 1; i >= 0; i--) {
        carry += input[block + i]! + more[i]!
        input[block + i] = carry & 0xff
        carry >>= 8
      }
    }
  }
  return output
}

/** Repeated up to whole blocks. */
function fill(bytes: Uint8Array): Buffer {
  return Buffer.alloc(Math.ceil(bytes.length / BLOCK_BYTES) * BLOCK_BYTES, bytes)
}
