import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  Extension,
  type Issued,
  issue,
  revoke,
  SubjectAlternativeNameExtension,
} from '../../../test/certificates.ts'
import { Random } from '../../../test/random.ts'
import { fingerprint, readPem } from './certificate.ts'
import { type Crl, parseCrl } from './crl.ts'
import { DerError } from './der.ts'
import { createVerifier, type PeerRules } from './verifier.ts'

const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const SIGN = 0x80
const ENCIPHER = 0x20
const CERTS = 0x04
const DAY = 86_400

const root = await issue('CN=Root', { ca: true, keyUsage: CERTS | 0x02 })
const namesake = await issue('CN=Root', { ca: true })
const middle = await issue('CN=Middle', { ca: true, by: root })
const server = await issue('C=KG, O=Test, CN=vpn.example.com', {
  by: root,
  keyUsage: SIGN,
  extendedKeyUsage: [SERVER_AUTH],
})
const client = await issue('CN=client', {
  by: root,
  keyUsage: SIGN,
  extendedKeyUsage: [CLIENT_AUTH],
})
const plain = await issue('CN=plain', { by: root })
const deep = await issue('CN=deep', { by: middle })

const now = () => Date.now() / 1000

/** Why the chain is refused; '' if it is not. */
function problem(chain: Issued[], rules: Partial<PeerRules> = {}, clock = now): string {
  const all = { peer: 'server', required: true, roots: [root.der], ...rules } as const
  return createVerifier(all, clock)(chain.map(({ der }) => der)) ?? ''
}

async function crlOf(by: Issued, revoked: Issued[], dates = {}): Promise<Crl> {
  const serials = revoked.map(({ certificate }) => certificate.serialNumber)
  return parseCrl(readPem(await revoke(by, serials, dates), 'X509 CRL')[0]!)
}

type Row = [chain: Issued[], rules: Partial<PeerRules>, expected: RegExp | 'taken', why: string]

function check(rows: Row[]): void {
  for (const [chain, rules, expected, why] of rows) {
    it(`${expected === 'taken' ? 'takes' : 'refuses'} ${why}`, () => {
      const found = problem(chain, rules)
      if (expected === 'taken') assert.equal(found, '')
      else assert.match(found, expected)
    })
  }
}

describe('chains', async () => {
  const leafAuthority = await issue('CN=no CA', { by: root })
  const below = await issue('CN=below', { by: leafAuthority })
  const unsigning = await issue('CN=unsigning', { ca: true, by: root, keyUsage: SIGN })
  const belowUnsigning = await issue('CN=x', { by: unsigning })
  const short = await issue('CN=short', { ca: true, by: root, pathLength: 0 })
  const tooDeep = await issue('CN=middle 2', { ca: true, by: short })
  const belowTooDeep = await issue('CN=x', { by: tooDeep })
  const selfSigned = await issue('CN=self')
  const forged = await issue('CN=client', { by: namesake })
  const critical = await issue('CN=x', {
    by: root,
    extensions: [new Extension('1.2.3.4', true, Uint8Array.of(5, 0))],
  })
  const uncritical = await issue('CN=x', {
    by: root,
    extensions: [new Extension('1.2.3.4', false, Uint8Array.of(5, 0))],
  })
  const constrained = await issue('CN=constrained', {
    ca: true,
    by: root,
    extensions: [new Extension('2.5.29.30', false, Uint8Array.of(0x30, 0))],
  })
  const belowConstrained = await issue('CN=x', { by: constrained })
  check([
    [[plain], {}, 'taken', 'what our authority signed'],
    [[deep, middle], {}, 'taken', 'one with an authority between'],
    [[deep, middle, root], {}, 'taken', 'the root sent along'],
    [[deep, client, root, middle], {}, 'taken', 'any order, and what does not belong to it'],
    [[deep], { roots: [root.der, middle.der] }, 'taken', 'an authority between that we have in ca'],
    [[deep], { roots: [middle.der] }, /no authority of ours/, 'one whose root we do not have'],
    [
      [deep],
      {},
      /"CN=deep": no authority of ours \(ca\) has signed it/,
      'one without what is between',
    ],
    [[forged, namesake], {}, /"CN=Root": it is signed by itself/, 'another root of the same name'],
    [[forged], {}, /no authority of ours/, 'a signature of another root of the same name'],
    [[selfSigned], {}, /signed by itself, and not among/, 'one signed by itself'],
    [[selfSigned], { roots: [selfSigned.der] }, 'taken', 'one signed by itself that we have in ca'],
    [[below, leafAuthority], {}, /"CN=no CA": it is not that of an authority/, 'a leaf that signs'],
    [
      [belowUnsigning, unsigning],
      {},
      /may not sign certificates/,
      'an authority that may not sign',
    ],
    [[belowTooDeep, tooDeep, short], {}, /more authorities below/, 'more levels than allowed'],
    [[critical], {}, /critical extension is not understood: 1.2.3.4/, 'a critical extension'],
    [[uncritical], {}, 'taken', 'an extension that is not critical'],
    [[belowConstrained, constrained], {}, /name constraints/, 'an authority for some names only'],
    [[], {}, /the peer has no certificate/, 'none'],
    [[], { required: false }, 'taken', 'none where none is needed'],
  ])

  it('an authority that is its own issuer in a circle ends', async () => {
    const a = await issue('CN=A', { ca: true })
    const b = await issue('CN=B', { ca: true, by: a })
    const many = await Promise.all(
      Array.from({ length: 20 }, () => issue('CN=A', { ca: true, by: b })),
    )
    const leaf = await issue('CN=leaf', { by: b })
    assert.match(problem([leaf, b, a, ...many]), /authorit/)
  })
})

describe('dates', async () => {
  const old = await issue('CN=old', { by: root, from: -10, to: -1 })
  const young = await issue('CN=young', { by: root, from: 2, to: 10 })
  const oldMiddle = await issue('CN=old middle', { ca: true, by: root, from: -10, to: -1 })
  const belowOld = await issue('CN=x', { by: oldMiddle })
  check([
    [[old], {}, /"CN=old": it is expired since 20/, 'one that is expired'],
    [[young], {}, /not valid before 20.*is the clock right/, 'one that is not valid yet'],
    [[belowOld, oldMiddle], {}, /"CN=old middle": it is expired/, 'an authority that is expired'],
  ])

  it('the day of the authority', () => {
    assert.equal(problem([plain]), '')
    assert.match(
      problem([plain], {}, () => now() + 31 * DAY),
      /expired/,
    )
    assert.match(
      problem([plain], {}, () => now() - 2 * DAY),
      /not valid before/,
    )
  })
})

describe('what a certificate is for', async () => {
  const encipher = await issue('CN=x', { by: root, keyUsage: ENCIPHER })
  const signsOnly = await issue('CN=x', { by: root, keyUsage: CERTS })
  const both = await issue('CN=x', {
    by: root,
    keyUsage: SIGN | ENCIPHER,
    extendedKeyUsage: [SERVER_AUTH, CLIENT_AUTH],
  })
  const serversMiddle = await issue('CN=m', {
    ca: true,
    by: root,
    extendedKeyUsage: [SERVER_AUTH],
  })
  const belowServers = await issue('CN=x', { by: serversMiddle })
  check([
    [[server], {}, 'taken', "a server's as a server"],
    [[server], { peer: 'client' }, /not for use as a client \(extended/, "a server's as a client"],
    [[client], {}, /not for use as a server \(extended/, "a client's as a server"],
    [[client], { peer: 'client' }, 'taken', "a client's as a client"],
    [[both], { peer: 'client' }, 'taken', 'one for both'],
    [[plain], { peer: 'client' }, 'taken', 'one that does not say'],
    [[encipher], {}, 'taken', 'encipherment as a server'],
    [[encipher], { peer: 'client' }, /not for use as a client \(key/, 'encipherment as a client'],
    [[signsOnly], {}, /not for use as a server \(key/, 'a key for certificates only'],
    [[belowServers, serversMiddle], {}, 'taken', 'an authority for servers'],
    [
      [belowServers, serversMiddle],
      { peer: 'client' },
      /"CN=m": it is not for use/,
      'an authority for servers, a client',
    ],
    [[server], { certificateFor: 'server' }, 'taken', 'remote-cert-tls server'],
    [
      [plain],
      { certificateFor: 'server' },
      /no key usage \(remote-cert-tls\)/,
      'remote-cert-tls: none',
    ],
    [
      [encipher],
      { certificateFor: 'server' },
      /remote-cert-tls server/,
      'remote-cert-tls: no extended',
    ],
    [[server], { keyUsages: [0xa0, 0x80] }, 'taken', 'remote-cert-ku: one of them'],
    [
      [server],
      { keyUsages: [0xa0, 0x88] },
      /key usage is 80.*remote-cert-ku/,
      'remote-cert-ku: another',
    ],
    [[plain], { keyUsages: [0x80] }, /no key usage \(remote-cert-ku\)/, 'remote-cert-ku: none'],
    [[server], { extendedKeyUsage: SERVER_AUTH }, 'taken', 'remote-cert-eku by number'],
    [
      [server],
      { extendedKeyUsage: 'TLS Web Server Authentication' },
      'taken',
      'remote-cert-eku by name',
    ],
    [
      [server],
      { extendedKeyUsage: 'TLS Web Client Authentication' },
      /remote-cert-eku TLS Web Client/,
      'remote-cert-eku: another',
    ],
    [[plain], { extendedKeyUsage: SERVER_AUTH }, /remote-cert-eku/, 'remote-cert-eku: none'],
  ])
})

describe('names', async () => {
  const parts = await issue(
    [{ O: ['Example'] }, { CN: ['first'] }, { CN: ['second'] }, { DC: ['u1'] }],
    { by: root },
  )
  const nul = await issue([{ CN: ['admin\0.evil'] }], { by: root })
  const line = await issue([{ O: ['x\nCN=admin'] }, { CN: ['x'] }], { by: root })
  const nameless = await issue([{ O: ['Example'] }], { by: root })
  const long = await issue([{ O: ['x'] }, { CN: ['a'.repeat(65)] }], { by: root })
  const longest = await issue([{ CN: ['a'.repeat(64)] }], { by: root })
  const mail = await issue('CN=x', {
    by: root,
    extensions: [
      new SubjectAlternativeNameExtension([
        { type: 'dns', value: 'x.example.com' },
        { type: 'email', value: 'x@example.com' },
      ]),
    ],
  })
  const forging = await issue([{ CN: ['x, O=Test, CN=vpn.example.com'] }], { by: root })
  const subject = 'C=KG, O=Test, CN=vpn.example.com'
  const rule = (kind: 'subject' | 'name' | 'name-prefix', value: string) => ({
    name: { kind, value },
  })
  check([
    [[server], rule('subject', subject), 'taken', 'the whole subject'],
    [
      [server],
      rule('subject', 'CN=vpn.example.com'),
      /its name is not "CN=vpn.*x509-name subject/,
      'a part of it',
    ],
    [[server], rule('name', 'vpn.example.com'), 'taken', 'the common name'],
    [[server], rule('name', 'VPN.example.com'), /its name is not/, 'capitals'],
    [[server], rule('name-prefix', 'vpn.'), 'taken', 'the beginning of it'],
    [[server], rule('name-prefix', 'example'), /its name is not/, 'its middle'],
    [
      [forging],
      rule('name', 'vpn.example.com'),
      /its name is not/,
      'a common name that looks like a subject',
    ],
    [[parts], rule('name', 'second'), 'taken', 'the last of several common names'],
    [[parts], { ...rule('name', 'u1'), nameFields: ['DC'] }, 'taken', 'another field'],
    [
      [parts],
      { ...rule('name', 'Example_second'), nameFields: ['O', 'CN'] },
      'taken',
      'fields joined',
    ],
    [[parts], { nameFields: ['OU'] }, /no name to go by \(OU/, 'a field that is not there'],
    [
      [mail],
      { ...rule('name', 'x@example.com'), nameFields: ['ext:subjectAltName'] },
      'taken',
      'the address',
    ],
    [[nul], {}, /control characters in its name/, 'a NUL in the name'],
    [[line], {}, /control characters in its name/, 'a line end in another part'],
    [[nameless], {}, /no name to go by/, 'no common name'],
    [[long], {}, /no name to go by/, 'a common name of 65 bytes'],
    [[longest], {}, 'taken', 'a common name of 64 bytes'],
  ])

  it('a sentence for logs has no control characters', () => {
    for (const found of [problem([nul]), problem([line])]) {
      assert.doesNotMatch(found, /\p{Cc}/u)
      assert.match(found, /\\(00|0A)/)
    }
  })
})

describe('digests', async () => {
  const own = await issue('CN=own')
  const oldOwn = await issue('CN=own', { from: -10, to: -1 })
  const print = (issued: Issued) => fingerprint(issued.der, 'sha256')
  const only = (...issued: Issued[]) => ({ roots: [], fingerprints: issued.map(print) })
  const sha1 = fingerprint(root.der, 'sha1')
  check([
    [[own], only(client, own), 'taken', 'one of several, in place of an authority'],
    [[own], { roots: [], fingerprints: [print(own).toUpperCase()] }, 'taken', 'capitals'],
    [[own], { roots: [], fingerprints: [print(own).replaceAll(':', '')] }, 'taken', 'no ":"'],
    [[oldOwn], only(oldOwn), 'taken', 'an expired one: nothing else is asked, as OpenVPN has it'],
    [[client], only(own), /fingerprint is not among.*: ([0-9a-f]{2}:){31}/, 'another one'],
    [[], only(own), /no certificate/, 'none'],
    [
      [own],
      { fingerprints: [print(own)] },
      /not among our authorities/,
      'with an authority: both count',
    ],
    [[server], { fingerprints: [print(server)] }, 'taken', 'with an authority: both right'],
    [[server], { roots: [], fingerprints: [] }, /not among/, 'an empty list'],
    [
      [server],
      { issuerHash: { algorithm: 'sha1', digest: sha1 } },
      'taken',
      'verify-hash of the authority',
    ],
    [
      [server],
      { issuerHash: { algorithm: 'sha1', digest: '00'.repeat(20) } },
      /verify-hash: [0-9a-f:]+$/,
      'verify-hash of another',
    ],
    [
      [deep, middle],
      { issuerHash: { algorithm: 'sha1', digest: sha1 } },
      /verify-hash/,
      'verify-hash is of the one above the leaf',
    ],
  ])
})

describe('lists of revoked certificates', async () => {
  const list = await crlOf(root, [client])
  const empty = await crlOf(root, [])
  const stale = await crlOf(root, [client], { from: -10, to: -1 })
  const early = await crlOf(root, [], { from: 1, to: 10 })
  const forged = await crlOf(namesake, [plain])
  const withoutMiddle = await crlOf(root, [middle])
  const ofMiddle = await crlOf(middle, [deep])
  const serial = BigInt(`0x${server.certificate.serialNumber}`).toString()
  check([
    [[server], { crls: [list] }, 'taken', 'one that is not on it'],
    [[client], { peer: 'client', crls: [list] }, /"CN=client": it is revoked/, 'one that is on it'],
    [[client], { peer: 'client', crls: [empty, list] }, /it is revoked/, 'one on the second list'],
    [
      [server],
      { crls: [stale] },
      /list of revoked certificates is expired/,
      'all, with an old list',
    ],
    [[server], { crls: [early] }, /not valid yet/, 'all, with a list of the future'],
    [[plain], { crls: [forged] }, /not signed by its issuer/, 'all, with a list of another root'],
    [
      [deep, middle],
      { crls: [withoutMiddle] },
      /"CN=Middle": it is revoked/,
      'below one that is on it',
    ],
    [
      [deep, middle],
      { crls: [empty, ofMiddle] },
      /"CN=deep": it is revoked/,
      'one on the list of its issuer',
    ],
    [[deep, middle], { crls: [empty] }, 'taken', 'one whose issuer has no list'],
    [
      [server],
      { isRevoked: (found) => found === serial },
      /it is revoked/,
      'one with a file of its number',
    ],
    [[server], { isRevoked: () => false }, 'taken', 'one without such a file'],
  ])

  it('critical extensions of a list, or of an entry, are refused', async () => {
    const indirect = new Extension('2.5.29.28', true, Uint8Array.of(0x30, 0))
    const text = await revoke(root, [], { extensions: [indirect] })
    assert.throws(() => parseCrl(readPem(text, 'X509 CRL')[0]!), /critical extension.*2.5.29.28/)
  })
})

describe('tls-cert-profile', async () => {
  const weakRoot = await issue('CN=Weak', { ca: true, rsa: 2048, digest: 'SHA-1' })
  const sha1 = await issue('CN=sha1', { by: weakRoot, digest: 'SHA-1' })
  const sha256 = await issue('CN=sha256', { by: weakRoot })
  const rsa1024 = await issue('CN=small', { by: root, rsa: 1024 })
  const roots = [weakRoot.der]
  check([
    [[sha1], { roots }, /signed with SHA-1 \(tls-cert-profile legacy\)/, 'SHA-1 unless set'],
    [[sha1], { roots, profile: 'insecure' }, 'taken', 'SHA-1 if insecure'],
    [[sha256], { roots }, 'taken', "SHA-1 in the root's own signature: nobody asks it"],
    [[rsa1024], {}, 'taken', 'RSA with 1024 bits unless set'],
    [
      [rsa1024],
      { profile: 'preferred' },
      /key has 1024 bits only/,
      'RSA with 1024 bits if preferred',
    ],
    [[server], { profile: 'preferred' }, 'taken', 'P-256 if preferred'],
    [[server], { profile: 'suiteb' }, 'taken', 'P-256 in Suite B'],
    [[sha256], { roots, profile: 'suiteb' }, /not of Suite B/, 'RSA in Suite B'],
  ])
})

describe('what is no certificate', () => {
  it('is refused, and never throws: noise, and any byte changed', () => {
    const random = new Random(11)
    const verify = createVerifier({ peer: 'server', required: true, roots: [root.der] }, now)
    assert.match(verify([new Uint8Array(0)]) ?? '', /cannot be read/)
    for (let round = 0; round < 300; round++) {
      assert.notEqual(verify([random.bytes(random.below(400))]), undefined)
      assert.equal(verify([server.der, random.bytes(random.below(400))]), undefined)
      const changed = Uint8Array.from(server.der)
      const at = random.below(changed.length)
      changed[at]! ^= 1 << random.below(8)
      const found = verify([changed])
      assert.ok(found !== undefined, `byte ${at}`)
      assert.doesNotMatch(found, /\p{Cc}/u)
      assert.notEqual(verify([server.der.subarray(0, at)]), undefined)
    }
  })

  it('roots that are none are an error of ours', () => {
    const rules = { peer: 'server', required: true, roots: [Uint8Array.of(1)] } as const
    assert.throws(() => createVerifier(rules, now), DerError)
  })
})
