import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { OVPN, run } from '../../test/command.ts'

describe('ovpn pki, as typed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-cli-pki-'))
  after(() => rmSync(folder, { recursive: true }))
  const steps: [line: string, status: number, said: RegExp, why: string][] = [
    [
      'list',
      1,
      /no certificate authority in pki; 'ovpn pki init' makes one/,
      'before there is one',
    ],
    ['init --days 0', 2, /expected days, 1 to 36500/, 'days that are none'],
    ['init', 0, /made pki\/ca.crt.*\n.*ovpn pki server NAME/, 'an authority'],
    ['init', 1, /there is a certificate authority in pki already/, 'a second one'],
    ['list', 0, /nothing was given out so far/, 'nothing yet'],
    [
      'server vpn.example.com',
      0,
      /ca pki\/ca.crt, cert pki\/issued\/vpn.*key pki\/private/,
      'a server',
    ],
    [
      'client laptop --days 30',
      0,
      /ovpn profile laptop --config server.conf -o laptop.ovpn puts all/,
      'a client',
    ],
    [
      'client laptop',
      1,
      /has a certificate already.*--renew makes a new one/,
      'the same name again',
    ],
    [
      'client laptop --renew --json',
      0,
      /"certificate":"pki\/issued\/laptop.crt"/,
      'a new one for it',
    ],
    ['client', 2, /missing required argument 'name'/, 'no name'],
    ['client a/b', 1, /"a\/b" is no name for a certificate/, 'a name that is none'],
    ['list', 0, /NAME .*\nvpn.example.com +server +valid .*\nlaptop +client +valid/, 'both'],
    ['revoke laptop', 0, /revoked 2 of laptop: [0-9A-F]{32}, [0-9A-F]{32}/, 'revoked'],
    ['revoke laptop', 1, /no certificate that could be revoked/, 'revoked before'],
    ['crl', 0, /made pki\/crl.pem, valid as long as the authority/, 'the list anew'],
    ['list --json', 0, /"name":"laptop".*"state":"revoked"/, 'for programs'],
    ['list --dir other', 1, /no certificate authority in other/, 'another folder'],
  ]
  for (const [line, status, said, why] of steps) {
    it(`${line}: ${why}`, async () => {
      const result = await run(OVPN, ['pki', ...line.split(' ')], { cwd: folder })
      assert.match(result.stdout + result.stderr, said)
      assert.equal(result.status, status)
    })
  }

  it('left a folder with what it said', () => {
    for (const file of ['ca.crt', 'crl.pem', 'issued/vpn.example.com.crt', 'private/ca.key']) {
      assert.ok(existsSync(join(folder, 'pki', file)), file)
    }
  })
})
