import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { issue } from '../../../test/certificates.ts'
import { Random } from '../../../test/random.ts'
import { createTls } from '../tls.ts'
import { DerError } from './der.ts'
import { isPkcs12, readPkcs12Certificates } from './pkcs12.ts'

const version = spawnSync('openssl', ['version'], { encoding: 'utf8' })
const skip = /^OpenSSL 3/.test(version.stdout ?? '')
  ? false
  : 'there is no OpenSSL 3 to make files with'

describe('PKCS #12 files', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-pkcs12-'))
  after(() => rmSync(folder, { recursive: true }))
  const root = await issue('CN=Root', { ca: true })
  const leaf = await issue('CN=leaf', { by: root })
  const path = (name: string) => join(folder, name)
  writeFileSync(path('leaf.pem'), leaf.pem + leaf.key)
  writeFileSync(path('root.pem'), root.pem)

  const make = (...options: string[]): Uint8Array => {
    const files = ['-in', path('leaf.pem'), '-certfile', path('root.pem'), '-out', path('x.p12')]
    execFileSync('openssl', [
      'pkcs12',
      '-export',
      ...files,
      '-passout',
      'pass:pässword',
      ...options,
    ])
    return readFileSync(path('x.p12'))
  }

  const rows: [options: string[], why: string][] = [
    [[], 'AES and SHA-256, as OpenSSL 3 makes them'],
    [['-legacy'], 'RC2 with 40 bits, as OpenSSL 1 did'],
    [['-legacy', '-certpbe', 'PBE-SHA1-3DES'], '3DES, as Windows does'],
    [['-certpbe', 'AES-128-CBC', '-macalg', 'sha1'], 'AES-128'],
    [['-certpbe', 'NONE'], 'certificates in the clear'],
  ]
  for (const [options, why] of rows) {
    it(why, () => {
      const file = make(...options)
      const found = readPkcs12Certificates(file, 'pässword')
      assert.deepEqual(found, [leaf.der, root.der])
      const pkcs12 = { pkcs12: file, passphrase: 'pässword' }
      createTls({ ...pkcs12, requestCertificate: true, verify: () => undefined })
      assert.equal(isPkcs12(file), true)
    })
  }

  it('another passphrase, what is cut short and noise are refused', () => {
    const file = make()
    assert.throws(() => readPkcs12Certificates(file, 'other'), /wrong passphrase/)
    assert.throws(() => readPkcs12Certificates(make('-legacy'), ''), DerError)
    const random = new Random(12)
    for (let round = 0; round < 50; round++) {
      const cut = file.subarray(0, random.below(file.length))
      assert.throws(() => readPkcs12Certificates(cut, 'pässword'), DerError)
      assert.equal(isPkcs12(cut), false)
      assert.throws(() => readPkcs12Certificates(random.bytes(random.below(200))), DerError)
    }
  })
})
