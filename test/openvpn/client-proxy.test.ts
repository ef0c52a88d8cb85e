/** Our client through proxies of every kind to a server of OpenVPN 2.6. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Running, start } from '../command.ts'
import { STARTED, withoutProgram } from '../interop/programs.ts'
import { identity, lost, Peers, stop } from './peers.ts'

const BUN = fileURLToPath(new URL('../../node_modules/.bin/bun', import.meta.url))
const PROXIES = fileURLToPath(new URL('./proxies.ts', import.meta.url))

type Row = [outside: 'udp' | 'tcp', lines: string[], says: RegExp, why: string]

const ways: Row[] = [
  ['tcp', ['http-proxy PROXY 3128'], /3128: to 192/, 'HTTP, and it asks for nothing'],
  ['tcp', ['http-proxy PROXY 3129 login basic'], /3129: to 192/, 'HTTP with Basic'],
  ['tcp', ['http-proxy PROXY 3130 login basic'], /3130: to 192/, 'HTTP with a digest'],
  ['tcp', ['socks-proxy PROXY 1080'], /1080: to 192/, 'SOCKS, and it asks for nothing'],
  ['tcp', ['socks-proxy PROXY 1081 login'], /1081: to 192/, 'SOCKS with a password'],
  ['udp', ['socks-proxy PROXY 1081 login'], /1081: datagrams to/, 'SOCKS for datagrams'],
]

const refusals: Row[] = [
  [
    'tcp',
    ['http-proxy PROXY 3131'],
    /does not connect to .*403 Not for you/,
    'it may not go there',
  ],
  ['tcp', ['http-proxy PROXY 3129'], /wants a name and a password/, 'it has no login'],
  ['tcp', ['http-proxy PROXY 3129 wrong basic'], /refuses name and password/, 'a wrong password'],
  [
    'tcp',
    [
      'http-proxy PROXY 3129 auto-nct',
      '<http-proxy-user-pass>',
      'alice',
      'secret',
      '</http-proxy-user-pass>',
    ],
    /in the clear/,
    'no password in the clear',
  ],
  ['tcp', ['socks-proxy PROXY 1081'], /wants a name and a password/, 'SOCKS wants a login'],
  ['tcp', ['socks-proxy PROXY 1081 wrong'], /refuses name and password/, 'SOCKS, wrong password'],
  [
    'tcp',
    ['socks-proxy PROXY 3128', 'connect-timeout 2'],
    /the proxy does not answer/,
    'a proxy of another kind',
  ],
  ['tcp', ['http-proxy PROXY 9'], /nobody listens there/, 'there is none'],
]

describe('proxies', { skip: withoutProgram('2.6') }, () => {
  const numbers = { udp: 0, tcp: 1 }
  let peers: Peers
  let proxies: Running
  before(async () => {
    peers = await Peers.open()
    peers.write('login', 'alice\nsecret\n')
    peers.write('wrong', 'alice\nguess\n')
    proxies = start('ip', ['netns', 'exec', peers.lab.server.name, BUN, PROXIES])
    await proxies.says(/ready/)
    await peers.server('2.6', numbers.udp, identity('server'), 'udp')
    await peers.server('2.6', numbers.tcp, identity('server'), 'tcp')
  })
  after(async () => {
    await peers?.close()
    if (proxies !== undefined) await stop(proxies)
  })

  const begin = (outside: 'udp' | 'tcp', lines: string[], more: string[] = []) => {
    const proxy = peers.lab.hosts[0]!.server.ipv4
    const named = lines.map((line) => line.replace('PROXY', proxy))
    return peers.client('ours', numbers[outside], [...identity('client'), ...named, ...more], {
      outside,
    })
  }

  for (const [outside, lines, says, why] of ways) {
    it(`${outside}, ${lines[0]}: ${why}`, async () => {
      const before = proxies.stdout.length
      const client = begin(outside, lines)
      try {
        await client.says(STARTED)
        assert.deepEqual(await lost(peers.lab.hosts[0]!, numbers[outside]), [0, 0])
        assert.match(proxies.stdout.slice(before), says)
      } finally {
        await stop(client)
      }
    })
  }

  for (const [outside, lines, says, why] of refusals) {
    it(`${lines[0]}: ${why}`, async () => {
      const client = begin(outside, lines, ['connect-retry-max 1'])
      const { status, stdout, stderr } = await client.ended
      assert.match(stdout + stderr, says)
      assert.equal(status, 3)
    })
  }
})
