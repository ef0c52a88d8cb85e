/** What our client says where a connection does not come about, what it suggests, and how it ends. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { issue } from '../certificates.ts'
import { withoutProgram } from '../interop/programs.ts'
import { identity, Peers } from './peers.ts'

const REFUSED = 1
const UNREACHABLE = 3

const SERVER = { plain: 0, crypt: 1, old: 2, password: 3 } as const

interface Row {
  server: keyof typeof SERVER | 'nothing'
  lines: string[]
  /** In the log, and in what it says at the end. */
  says: RegExp[]
  status: number
  why: string
}

const ONCE = ['connect-retry-max 1', 'connect-timeout 3', 'hand-window 4']

const rows: Row[] = [
  {
    ...{ server: 'plain', lines: identity('client', 'other'), status: UNREACHABLE },
    says: [/not among our authorities/, /'ca' is not that of this server/],
    why: 'the authority is another',
  },
  {
    ...{ server: 'old', lines: identity('client'), status: UNREACHABLE },
    says: [
      /it is expired since/,
      /the server needs a new certificate, unless this machine's clock/,
    ],
    why: "the server's certificate is expired",
  },
  {
    ...{ server: 'plain', lines: [...identity('client'), 'verify-x509-name else name'] },
    ...{ status: UNREACHABLE, says: [/another server than the profile means/] },
    why: 'the server has another name',
  },
  {
    ...{ server: 'plain', lines: identity('server'), status: UNREACHABLE },
    says: [/keys were not exchanged within 4 s/, /may not like our certificate/],
    why: 'a certificate that is not for clients: the server says no more',
  },
  {
    ...{ server: 'crypt', lines: [...identity('client'), 'tls-crypt wrong.key'] },
    ...{
      status: UNREACHABLE,
      says: [/no answer within 3 s/, /the key of tls-crypt is not its own/],
    },
    why: 'the key of tls-crypt is another',
  },
  {
    ...{ server: 'crypt', lines: identity('client'), status: UNREACHABLE },
    says: [/no answer within 3 s/, /with tls-auth or tls-crypt is silent/],
    why: 'the profile lacks tls-crypt',
  },
  {
    ...{ server: 'nothing', lines: identity('client'), status: UNREACHABLE },
    says: [/no answer within 3 s/, /is the server running/],
    why: 'there is nobody',
  },
  {
    ...{ server: 'plain', lines: [...identity('client'), 'data-ciphers CHACHA20-POLY1305'] },
    ...{ status: REFUSED, says: [/no shared cipher/, /name a cipher that the server has/] },
    why: 'there is no cipher that both have',
  },
  {
    ...{ server: 'plain', lines: [...identity('client'), 'pull-filter reject route-gateway'] },
    ...{ status: UNREACHABLE, says: [/rejects what the server pushes: route-gateway/] },
    why: 'the profile rejects what the server pushes',
  },
  {
    ...{ server: 'password', lines: [...identity('client'), 'auth-user-pass wrong'] },
    ...{ status: REFUSED, says: [/refuses this client/, /check the user name and the password/] },
    why: 'a wrong password',
  },
  {
    ...{ server: 'password', lines: [...identity('client'), 'auth-user-pass'] },
    ...{ status: UNREACHABLE, says: [/no terminal to ask at.*auth-user-pass FILE/] },
    why: 'nobody can be asked for a password',
  },
]

describe('what goes wrong', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers
  before(async () => {
    peers = await Peers.open()
    const other = await issue('CN=other', { ca: true, keyUsage: 6 })
    peers.write('other.crt', other.pem)
    const old = await issue('CN=old', {
      ...{ by: peers.authority, keyUsage: 0x80, from: -9, to: -2 },
      extendedKeyUsage: ['1.3.6.1.5.5.7.3.1'],
    })
    peers.write('old.crt', old.pem)
    peers.write('old.key', old.key)
    peers.write('wrong', 'alice\nguess\n')
    peers.write('verify.sh', '#!/bin/sh\nexit 1\n')
    await peers.genkey('tls-crypt', 'static.key')
    await peers.genkey('tls-crypt', 'wrong.key')
    const password = ['script-security 2', 'auth-user-pass-verify "/bin/sh verify.sh" via-file']
    const gcm = 'data-ciphers AES-256-GCM'
    await peers.server('2.6', SERVER.plain, [...identity('server'), gcm], 'udp')
    await peers.server('2.6', SERVER.crypt, [...identity('server'), 'tls-crypt static.key'], 'udp')
    await peers.server('2.6', SERVER.old, identity('old'), 'udp')
    await peers.server('2.6', SERVER.password, [...identity('server'), ...password], 'udp')
  })
  after(() => peers?.close())

  for (const { server, lines, says, status, why } of rows) {
    it(why, async () => {
      const number = server === 'nothing' ? 9 : SERVER[server]
      const ended = await peers.client('ours', number, [...lines, ...ONCE]).ended
      for (const pattern of says) assert.match(ended.stdout + ended.stderr, pattern)
      assert.equal(ended.status, status, ended.stderr)
      assert.match(ended.stderr, /^ovpn: /m)
    })
  }

  it('a name that does not resolve', async () => {
    const config = peers.write(
      'name.ovpn',
      ['client', 'remote nowhere.invalid', ...identity('client'), ...ONCE, ''].join('\n'),
    )
    const ended = await peers.start(peers.lab.client, 'ours', 'client', config).ended
    assert.match(ended.stdout + ended.stderr, /nowhere\.invalid.*its name cannot be resolved/)
    assert.equal(ended.status, UNREACHABLE)
  })
})
