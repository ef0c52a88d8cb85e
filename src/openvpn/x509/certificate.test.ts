import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { describe, it } from 'node:test'
import { Extension, issue, SubjectAlternativeNameExtension } from '../../../test/certificates.ts'
import {
  certificateEnvironment,
  commonName,
  fingerprint,
  formatName,
  isSignedBy,
  parseCertificate,
  readPem,
} from './certificate.ts'
import { DerError } from './der.ts'

const root = await issue('CN=Root', { ca: true, pathLength: 3, keyUsage: 0x06 })
const leaf = await issue('C=KG, ST=NA, O=OpenVPN-TEST, CN=Test-Server, E=me@example.com', {
  by: root,
  serial: '00c0ffee',
  keyUsage: 0xa0,
  extendedKeyUsage: ['1.3.6.1.5.5.7.3.1'],
  extensions: [new SubjectAlternativeNameExtension([{ type: 'email', value: 'a@b' }])],
})

describe('a certificate', () => {
  it('says what node:crypto says, and more', () => {
    const theirs = new X509Certificate(leaf.der)
    const ours = parseCertificate(leaf.der)
    assert.equal(ours.serial, String(0xc0ffee))
    assert.equal(ours.serialHex, 'c0:ff:ee')
    assert.equal(ours.version, 3)
    assert.equal(ours.notBefore, Date.parse(theirs.validFrom) / 1000)
    assert.equal(ours.notAfter, Date.parse(theirs.validTo) / 1000)
    assert.equal(fingerprint(leaf.der, 'sha256').toUpperCase(), theirs.fingerprint256)
    assert.equal(fingerprint(leaf.der, 'sha1').toUpperCase(), theirs.fingerprint)
    assert.equal(ours.keyUsage, 0xa0)
    assert.deepEqual(ours.extendedKeyUsage, ['1.3.6.1.5.5.7.3.1'])
    assert.deepEqual(ours.emails, ['a@b'])
    assert.equal(ours.basicConstraints, undefined)
    assert.deepEqual(parseCertificate(root.der).basicConstraints, { ca: true, pathLength: 3 })
    assert.equal(parseCertificate(root.der).extendedKeyUsage, undefined)
  })

  it('its name as OpenVPN prints it', () => {
    const { subject } = parseCertificate(leaf.der)
    const printed = 'C=KG, ST=NA, O=OpenVPN-TEST, CN=Test-Server, emailAddress=me@example.com'
    assert.equal(formatName(subject), printed)
  })

  it('parts that belong together are joined by "+"', async () => {
    const joined = await issue([{ O: ['a'] }, { CN: ['b'], OU: ['c'] }])
    assert.match(
      formatName(parseCertificate(joined.der).subject),
      /^O=a, (CN=b \+ OU=c|OU=c \+ CN=b)$/,
    )
  })

  it('what scripts are told', () => {
    const environment = certificateEnvironment([leaf, root].map(({ der }) => parseCertificate(der)))
    assert.equal(environment.tls_id_1, 'CN=Root')
    assert.equal(environment.tls_serial_0, '12648430')
    assert.equal(environment.tls_serial_hex_0, 'c0:ff:ee')
    assert.match(environment.tls_digest_0 ?? '', /^([0-9a-f]{2}:){19}[0-9a-f]{2}$/)
    assert.match(environment.tls_digest_sha256_1 ?? '', /^([0-9a-f]{2}:){31}[0-9a-f]{2}$/)
    assert.equal(environment.X509_0_emailAddress, 'me@example.com')
    assert.equal(environment.X509_1_CN, 'Root')
  })

  it('who signed it', async () => {
    const [certificate, issuer] = [parseCertificate(leaf.der), parseCertificate(root.der)]
    assert.ok(isSignedBy(certificate, issuer))
    assert.ok(isSignedBy(issuer, issuer))
    assert.ok(!isSignedBy(issuer, certificate))
    const namesake = await issue('CN=Root', { ca: true })
    assert.ok(!isSignedBy(certificate, parseCertificate(namesake.der)))
  })

  const fields: [fields: string[], name: string | undefined, why: string][] = [
    [['CN'], 'Test-Server', 'the common name'],
    [['cn'], 'Test-Server', 'small letters'],
    [['emailAddress'], 'me@example.com', 'another part'],
    [['ext:subjectAltName'], 'a@b', 'an address'],
    [['serialNumber'], '0xc0:ff:ee', 'the serial number'],
    [['O', 'CN'], 'OpenVPN-TEST_Test-Server', 'two joined'],
    [['OU'], undefined, 'one that is not there'],
    [['CN', 'OU'], undefined, 'one of two that is not there'],
  ]
  for (const [names, name, why] of fields) {
    it(`the name it goes by: ${why}`, () => {
      assert.equal(commonName(parseCertificate(leaf.der), names), name)
    })
  }

  it('letters beyond ASCII', async () => {
    const odd = await issue([{ CN: ['Jörg 密 𝄞'] }])
    assert.equal(commonName(parseCertificate(odd.der)), 'Jörg 密 𝄞')
  })

  it('an extension that is there twice is refused', async () => {
    const extension = () => new Extension('2.5.29.15', false, Uint8Array.of(3, 2, 0, 0x80))
    const twice = await issue('CN=x', { extensions: [extension(), extension()] })
    assert.throws(() => parseCertificate(twice.der), DerError)
  })
})

describe('PEM', () => {
  const rows: [text: string, count: number, why: string][] = [
    [leaf.pem, 1, 'one'],
    [`Certificate:\n  Data:\n${leaf.pem}\n\n${root.pem}`, 2, 'two, and text between'],
    [leaf.pem.replaceAll('\n', '\r\n'), 1, 'CRLF'],
    ['', 0, 'none'],
    [leaf.key, 0, 'a key'],
    [leaf.pem.slice(0, -10), 0, 'no last line'],
  ]
  for (const [text, count, why] of rows) {
    it(why, () => {
      const found = readPem(text, 'CERTIFICATE')
      assert.equal(found.length, count)
      if (count > 0) assert.deepEqual(found[0], leaf.der)
    })
  }
})
