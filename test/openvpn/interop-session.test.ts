/**
 * What happens to a session, between ours and OpenVPN in both roles: long replies, updates of what was pushed, exits and restarts at
 * either end, an address that changes, passwords and tokens, and who is refused.
 */
import assert from 'node:assert/strict'
import { chmodSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { issue } from '../certificates.ts'
import type { Running } from '../command.ts'
import { openManagement } from '../interop/management.ts'
import { answers, type Host, times } from '../interop/openvpn.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, lost, type Maker, Peers, stop, vpnAddresses } from './peers.ts'

const ROUTES = 300
const PATIENCE_S = 60

interface Pair {
  server: Maker
  client: Maker
  /** Of the server, and which host the client is on. */
  number: number
  host: number
}

const PAIRS: Pair[] = [
  { server: 'ours', client: '2.6', number: 0, host: 0 },
  { server: 'ours', client: '2.7', number: 0, host: 1 },
  { server: '2.6', client: 'ours', number: 1, host: 2 },
  { server: '2.7', client: 'ours', number: 2, host: 3 },
]
/** Servers that ask for passwords and give tokens have numbers so much higher. */
const ASKING = 4
/** Who has left, in the server's log. */
const LEFT: { readonly [M in Maker]?: RegExp } = {
  ours: /: it has left/,
  '2.6': /CC-EEN exit message received by peer|remote-exit/,
  '2.7': /CC-EEN exit message received by peer|remote-exit/,
}

/** What each of them says of a certificate that none of its authorities has signed, where it is alone and where its authority comes along. */
const UNTRUSTED = new RegExp(
  [
    ...['of ours \\(ca\\) has signed it', 'not among our authorities'],
    ...['error=unable to get local issuer', 'error=self-signed certificate in certificate chain'],
  ].join('|'),
)

/** Keeps count of its calls, and says why it refuses. */
const VERIFY = `#!/bin/sh
echo "$(sed -n 1p "$1")" >> "calls-$dev"
[ "$(sed -n 2p "$1")" = right ] && exit 0
echo 'the account is closed' > "$auth_failed_reason_file"
exit 1
`

describe('a session', { skip: withoutProgram('2.6', '2.7') }, () => {
  let peers: Peers
  const servers = new Map<number, Running>()
  const hostOf = ({ host }: Pair) => peers.lab.hosts[host]!
  const management = (number: number) => join(peers.lab.folder, `management-${number}`)

  const startServer = async ({ server, number }: Pair) => {
    const routes = Array.from({ length: ROUTES }, (_, i) => {
      return `push "route 10.${100 + (i >> 8)}.${i & 255}.0 255.255.255.0"`
    })
    const running = await peers.server(
      server,
      number,
      [
        ...[...identity('server'), 'duplicate-cn', 'explicit-exit-notify 1', 'crl-verify crl.pem'],
        ...[`management ${management(number)} unix`, ...routes],
      ],
      'udp',
    )
    servers.set(number, running)
  }
  const startAsking = async ({ server, number }: Pair) => {
    const running = await peers.server(server, ASKING + number, [
      ...[...identity('server'), 'duplicate-cn', 'script-security 3', 'reneg-sec 3'],
      ...['auth-user-pass-verify ./verify.sh via-file', 'auth-gen-token 0 120'],
    ])
    servers.set(ASKING + number, running)
  }
  const asked = ({ number }: Pair) => {
    const path = join(peers.lab.folder, `calls-vpn${ASKING + number}`)
    return readFileSync(path, 'utf8').split('\n').length - 1
  }

  before(async () => {
    peers = await Peers.open()
    for (let i = 1; i < PAIRS.length; i++) peers.lab.addHost()
    const other = await issue('CN=other', { ca: true, keyUsage: 0x06 })
    peers.write('other.crt', other.pem)
    await peers.certify('stranger', { by: other })
    await peers.revoke('crl.pem', [await peers.certify('revoked')])
    chmodSync(peers.write('verify.sh', VERIFY), 0o700)
    peers.write('right', 'alice\nright\n')
    peers.write('wrong', 'alice\nwrong\n')
    const wanted = PAIRS.filter(({ server, host }) => server !== 'ours' || host === 0)
    await Promise.all(wanted.flatMap((pair) => [startServer(pair), startAsking(pair)]))
  })
  after(() => peers.close())

  /** One after the other would take long. */
  const forAll = async (play: (pair: Pair, served: Running) => Promise<void>, asking = 0) => {
    const wrong = (pair: Pair) => (error: unknown) => {
      throw new Error(`server ${pair.server}, client ${pair.client}`, { cause: error })
    }
    const all = PAIRS.map((pair) =>
      play(pair, servers.get(pair.number + asking)!).catch(wrong(pair)),
    )
    await Promise.all(all)
  }
  const connect = async (pair: Pair, lines: string[] = [], relayed = false, asking = 0) => {
    const { client, number } = pair
    const more = [...identity('client'), 'explicit-exit-notify 1', ...lines]
    const host = hostOf(pair)
    const running = peers.client(client, number + asking, more, { host, relayed })
    await running.says(STARTED)
    return running
  }
  const routesIn = ({ netns }: Host, pattern: RegExp) => {
    return netns
      .ip('route')
      .split('\n')
      .filter((line) => pattern.test(line)).length
  }
  const again = (client: Running, count: number) =>
    until('another connection', () => times(client, STARTED) > count, PATIENCE_S)

  it('has all routes of a long reply; the server is told when the client goes', async () => {
    await forAll(async (pair, served) => {
      const client = await connect(pair)
      const host = hostOf(pair)
      await until('all routes', () => routesIn(host, /^10\.10[01]\./) === ROUTES, PATIENCE_S)
      assert.deepEqual(await lost(host, pair.number), [0, 0])
      const openvpn = pair.server === 'ours' ? client : served
      // A server may say it after the first packets.
      const told = /Protocol options: .*\n/
      await until('options to be told', () => told.test(openvpn.stdout), PATIENCE_S)
      const epochs = /Protocol options: .*aead-epoch/.test(openvpn.stdout)
      assert.equal(epochs, [pair.server, pair.client].includes('2.7'))
      const before = times(served, LEFT[pair.server]!)
      await stop(client)
      await until('the server to hear of it', () => times(served, LEFT[pair.server]!) > before)
      assert.equal(routesIn(host, /^10\./), 0)
    })
  })

  it('follows updates of what was pushed (2.7)', async () => {
    await forAll(async (pair) => {
      if ([pair.server, pair.client].includes('2.6')) return
      const client = await connect(pair)
      const told = await openManagement(management(pair.number))
      const answer = await told.ask('push-update-broad "route 10.77.0.0 255.255.0.0"')
      assert.match(answer, /^SUCCESS/)
      await until('the new route', () => routesIn(hostOf(pair), /^10\.77\.0\.0\/16/) === 1)
      told.close()
      await stop(client)
    })
  })

  it('outlives a change of address', async () => {
    await forAll(async (pair) => {
      const host = hostOf(pair)
      const relay = await peers.relay(host, pair.number, 0)
      const client = await connect(pair, [], true)
      assert.deepEqual(await lost(host, pair.number), [0, 0])
      relay.kill('SIGUSR1')
      await relay.says(/moved/)
      await answers(host.netns, vpnAddresses(pair.number)[0])
      assert.deepEqual(await lost(host, pair.number), [0, 0])
      assert.equal(times(client, STARTED), 1)
      await stop(client)
      await stop(relay)
    })
  })

  it('comes back after a restart of the client, and of the server', async () => {
    const clients = new Map<Pair, Running>()
    await forAll(async (pair) => {
      const client = await connect(pair, ['persist-tun'])
      clients.set(pair, client)
      client.kill('SIGUSR1')
      await again(client, 1)
      await answers(hostOf(pair).netns, vpnAddresses(pair.number)[0])
    })
    for (const pair of PAIRS) {
      if (pair.server === 'ours' && pair.host !== 0) continue
      await stop(servers.get(pair.number)!)
      await startServer(pair)
    }
    await forAll(async (pair) => {
      const client = clients.get(pair)!
      await again(client, 2)
      await answers(hostOf(pair).netns, vpnAddresses(pair.number)[0])
      assert.deepEqual(await lost(hostOf(pair), pair.number), [0, 0])
      await stop(client)
    })
  })

  it('asks for the password once, then for the token', async () => {
    await forAll(async (pair, served) => {
      const client = await connect(pair, ['auth-user-pass right'], false, ASKING)
      const openvpn = pair.server === 'ours' ? client : served
      const renewed = times(openvpn, /VERIFY OK: depth=0/)
      await until(
        'two renewals',
        () => times(openvpn, /VERIFY OK: depth=0/) >= renewed + 2,
        PATIENCE_S,
      )
      assert.deepEqual(await lost(hostOf(pair), ASKING + pair.number), [0, 0])
      assert.equal(times(client, STARTED), 1)
      await stop(client)
    }, ASKING)
    for (const pair of PAIRS) assert.equal(asked(pair), pair.server === 'ours' ? 2 : 1)
  })

  it('is refused to who has the wrong password, and the client says why', async () => {
    await forAll(async ({ client, number, host }) => {
      const lines = [...identity('client'), 'auth-user-pass wrong']
      const refused = peers.client(client, ASKING + number, lines, { host: peers.lab.hosts[host]! })
      await refused.says(/the account is closed/)
      const { status } = await refused.ended
      assert.notEqual(status, client === 'ours' ? 0 : null)
      assert.doesNotMatch(refused.stdout, STARTED)
    }, ASKING)
  })

  it('is refused to a certificate that was revoked, and the server says so', async () => {
    await forAll(async (pair, served) => {
      const before = served.stdout.length
      const client = peers.client(pair.client, pair.number, identity('revoked'), {
        host: hostOf(pair),
      })
      await until('the log', () => /revoked/.test(served.stdout.slice(before)), PATIENCE_S)
      await stop(client)
      assert.doesNotMatch(client.stdout, STARTED)
    })
  })

  it('is refused between those who trust others, and both say so', async () => {
    await forAll(async (pair, served) => {
      const before = served.stdout.length
      const host = hostOf(pair)
      const stranger = peers.client(pair.client, pair.number, identity('stranger'), { host })
      await until('the server’s log', () => UNTRUSTED.test(served.stdout.slice(before)), PATIENCE_S)
      await stop(stranger)
      const wary = peers.client(pair.client, pair.number, identity('client', 'other'), { host })
      await wary.says(UNTRUSTED)
      await stop(wary)
      assert.doesNotMatch(stranger.stdout + wary.stdout, STARTED)
    })
  })
})
