import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { issue } from '../../test/certificates.ts'
import { checkConfig } from './config/check.ts'
import { tryIdentity } from './trial.ts'

const version = spawnSync('openssl', ['version'], { encoding: 'utf8' })
const skip = /^OpenSSL 3/.test(version.stdout ?? '')
  ? false
  : 'there is no OpenSSL 3 to encrypt keys with'

type Role = 'server' | 'client'
/** Lines that are not simply done: number, verdict, message. */
type Expected = [line: number, verdict: 'wrong' | 'differs', message: RegExp][]

describe('what a trial finds', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-trial-'))
  after(() => rmSync(folder, { recursive: true }))
  const write = (name: string, text: string) => writeFileSync(join(folder, name), text)
  const root = await issue('CN=root', { ca: true })
  const other = await issue('CN=other', { ca: true })
  write('ca.crt', root.pem)
  write('other-ca.crt', other.pem)
  for (const [name, options] of [
    ['good', { by: root }],
    ['old', { by: root, from: -9, to: -1 }],
    ['foreign', { by: other }],
  ] as const) {
    const issued = await issue(`CN=${name}`, options)
    write(`${name}.crt`, issued.pem)
    write(`${name}.key`, issued.key)
    execFileSync(
      'openssl',
      [
        ...['pkcs12', '-export', '-in', `${name}.crt`, '-inkey', `${name}.key`, '-certfile'],
        ...['ca.crt', '-out', `${name}.p12`, '-passout', 'pass:secret'],
      ],
      { cwd: folder },
    )
  }
  execFileSync(
    'openssl',
    ['pkcs8', '-topk8', '-in', 'good.key', '-out', 'hidden.key', '-passout', 'pass:secret'],
    { cwd: folder },
  )
  write('password', 'secret\n')
  write('wrong.password', 'guess\n')
  write('noise.p12', 'noise')
  const damaged = (kind: string) => `-----BEGIN ${kind}-----\nAAAA\n-----END ${kind}-----\n`
  write('damaged.crt', damaged('CERTIFICATE'))
  write('damaged.crl', damaged('X509 CRL'))

  const files = { read: (path: string) => readFileSync(join(folder, path)) }
  const watch = { read: files.read, version: () => undefined, list: () => undefined }
  const GOOD = 'ca ca.crt\ncert good.crt\nkey good.key'
  const rows: [role: Role, lines: string, expected: Expected, why: string][] = [
    ['server', GOOD, [], 'all is well'],
    ['client', GOOD, [], 'all is well'],
    [
      'server',
      'ca ca.crt\ncert good.crt\nkey old.key',
      [[3, 'wrong', /^the key is not that of the certificate$/]],
      "another certificate's key",
    ],
    [
      'client',
      'ca ca.crt\ncert damaged.crt\nkey good.key',
      [[2, 'wrong', /certificate cannot be read/]],
      'a damaged certificate',
    ],
    [
      'client',
      'ca damaged.crt\ncert good.crt\nkey good.key',
      [[1, 'wrong', /ca is no certificate/]],
      'a damaged authority',
    ],
    [
      'server',
      `${GOOD}\ncrl-verify damaged.crl`,
      [[4, 'wrong', /damaged.crl cannot be used/]],
      'a damaged list of revoked certificates',
    ],
    [
      'server',
      'ca ca.crt\ncert old.crt\nkey old.key',
      [[2, 'differs', /old.crt\): it is expired since/]],
      'an expired certificate',
    ],
    [
      'server',
      'ca ca.crt\ncert foreign.crt\nkey foreign.key',
      [[2, 'differs', /foreign.crt\): no authority of ours \(ca\) has signed it/]],
      'a certificate of another authority',
    ],
    [
      'client',
      'ca ca.crt\npkcs12 foreign.p12\naskpass password',
      [[2, 'differs', /foreign.p12\): no authority of ours \(ca\) has signed it/]],
      'the same in a pkcs12 file',
    ],
    ['client', 'pkcs12 good.p12\naskpass password', [], 'a pkcs12 file with its password'],
    [
      'client',
      'pkcs12 old.p12\naskpass password',
      [[1, 'differs', /it is expired since/]],
      'an expired certificate in a pkcs12 file',
    ],
    [
      'client',
      'pkcs12 good.p12\naskpass wrong.password',
      [[1, 'wrong', /cannot be decrypted: a wrong passphrase/]],
      'a wrong password',
    ],
    [
      'client',
      'pkcs12 good.p12',
      [[1, 'differs', /^it has a password, which is asked for/]],
      'a password that the user knows',
    ],
    [
      'client',
      'ca ca.crt\ncert good.crt\nkey hidden.key',
      [[3, 'differs', /^it has a password, which is asked for/]],
      'the same of a key in PEM',
    ],
    ['client', 'pkcs12 noise.p12', [[1, 'wrong', /no pkcs12 file/]], 'no pkcs12 file'],
    [
      'server',
      'ca ca.crt\ncert good.crt\nkey hidden.key',
      [[3, 'differs', /^it has a password, which is asked for/]],
      'the same of a server',
    ],
    ['client', 'ca ca.crt\ncert good.crt\nkey hidden.key\naskpass', [], 'a client that is to ask'],
    [
      'client',
      `${GOOD}\ntls-cipher TLS-DHE-RSA-WITH-AES-256-GCM-SHA384`,
      [
        [
          4,
          'differs',
          /none of TLS-DHE-RSA-WITH-AES-256-GCM-SHA384 here.* TLS 1.3 alone is spoken/,
        ],
      ],
      'ciphers of older TLS that are not there',
    ],
    [
      'client',
      `${GOOD}\ntls-cipher TLS-DHE-RSA-WITH-AES-256-GCM-SHA384\ntls-version-max 1.2`,
      [[4, 'wrong', /none of TLS-DHE-RSA-WITH-AES-256-GCM-SHA384 is known/]],
      'the same where TLS 1.3 is not allowed',
    ],
    [
      'server',
      `ca ca.crt\ncert good.crt\nkey old.key\ntls-cipher NONE-SUCH\ntls-groups none-such`,
      [
        [3, 'wrong', /not that of the certificate/],
        [4, 'wrong', /none of NONE-SUCH is known/],
        [5, 'wrong', /no group of that name: none-such/],
      ],
      'all mistakes at once',
    ],
    [
      'client',
      'pkcs12 good.p12\ntls-groups none-such',
      [
        [1, 'differs', /asked for/],
        [2, 'wrong', /no group/],
      ],
      'what is wrong beside a key that cannot be read yet',
    ],
  ]
  for (const [role, lines, expected, why] of rows) {
    it(`${role}: ${why}`, () => {
      const rest = role === 'server' ? 'server 10.8.0.0 255.255.255.0' : 'client\nremote a'
      const text = `${lines}\n${rest}\nremote-cert-tls ${role === 'server' ? 'client' : 'server'}`
      const { lines: checked, usable } = checkConfig(
        { file: 'x.conf', text },
        role,
        files,
        (config, role) => tryIdentity(config, { role, date: new Date(), files: watch }),
      )
      const told = checked.filter(({ verdict }) => verdict !== 'honoured')
      assert.deepEqual(
        told.map(({ place, verdict }) => [place.line, verdict]),
        expected.map(([line, verdict]) => [line, verdict]),
        JSON.stringify(told),
      )
      expected.forEach(([, , message], i) => void assert.match(told[i]!.message, message))
      assert.equal(usable, !expected.some(([, verdict]) => verdict === 'wrong'))
    })
  }
})
