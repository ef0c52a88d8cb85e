/** Our server with OpenVPN 3's client: its core is a program of its own, with other options, timing and messages than OpenVPN 2's. */
import assert from 'node:assert/strict'
import { chmodSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { openManagement } from '../interop/management.ts'
import { answers, type Host, ping } from '../interop/openvpn.ts'
import { STARTED, until } from '../interop/programs.ts'
import { Openvpn3, withoutOpenvpn3 } from './openvpn3.ts'
import { identity, lost, type Outside, Peers, stop, vpnAddresses } from './peers.ts'

const NUMBER = 1
const PORT = 1194 + NUMBER
const PATIENCE_S = 60
const PROFILE = 'client.ovpn'

interface Row {
  why: string
  outside?: Outside
  server?: string[]
  client?: string[]
  /** What the client's log says. */
  says?: RegExp
}

const epochs = /data channel: cipher AES-256-GCM, peer-id \d+, aead-epoch/
const cipher = (name: string) => new RegExp(`data channel: cipher ${name}, peer-id`)

const ROWS: Row[] = [
  { why: 'no wrap, UDP, epoch data keys', says: epochs },
  { why: 'no wrap, TCP, epoch data keys', outside: 'tcp', says: epochs },
  { why: 'no wrap, UDP over IPv6', outside: 'udp6' },
  {
    why: 'tls-auth with direction and SHA512',
    server: ['tls-auth static.key 0', 'auth SHA512'],
    client: ['tls-auth static.key 1', 'auth SHA512'],
    says: /control channel: tls-auth/,
  },
  {
    why: 'tls-crypt over TCP',
    outside: 'tcp',
    server: ['tls-crypt static.key'],
    client: ['tls-crypt static.key'],
    says: /control channel: tls-crypt enabled/,
  },
  {
    why: 'tls-crypt-v2, with a cookie',
    server: ['tls-crypt-v2 v2.key force-cookie'],
    client: ['tls-crypt-v2 v2-client.key'],
    says: /control channel: tls-crypt v2 enabled/,
  },
  {
    why: 'TLS 1.2',
    server: ['tls-version-max 1.2'],
    says: /SSL Handshake: .*TLSv1\.2/,
  },
  {
    why: 'a cipher of the server’s list',
    server: ['data-ciphers AES-128-GCM:AES-256-GCM'],
    says: cipher('AES-128-GCM'),
  },
  {
    why: 'ChaCha20-Poly1305',
    server: ['data-ciphers CHACHA20-POLY1305'],
    says: cipher('CHACHA20-POLY1305'),
  },
  {
    why: 'comp-lzo no: told to leave it',
    client: ['comp-lzo no', 'allow-compression no'],
    says: /\[compress\] \[stub-v2\]/,
  },
]

interface Renewing {
  by: 'server' | 'client'
  outside: Outside
  server: string[]
  seconds: number
  renewals: number
}

/**
 * OpenVPN 3 renews no sooner than after 10 s, and sends with a new key half of its own `reneg-sec` after it has begun: a server that
 * renews more often than that never hears the new one.
 */
const RENEWALS: Renewing[] = [
  { by: 'server', outside: 'udp', server: ['reneg-sec 6'], seconds: 16, renewals: 2 },
  { by: 'client', outside: 'tcp', server: ['reneg-sec 0'], seconds: 14, renewals: 1 },
]

const VERIFY = `#!/bin/sh
[ "$(sed -n 2p "$1")" = right ] && exit 0
echo 'the account is closed' > "$auth_failed_reason_file"
exit 1
`

describe('OpenVPN 3', { skip: withoutOpenvpn3 }, () => {
  let peers: Peers
  let client: Openvpn3
  const host = (): Host => peers.lab.hosts[0]!

  before(async () => {
    peers = await Peers.open()
    await Promise.all([
      peers.genkey('tls-crypt', 'static.key'),
      peers.genkey('tls-crypt-v2-server', 'v2.key'),
    ])
    await peers.genkey('tls-crypt-v2-client', 'v2-client.key', '--server-key', 'v2.key')
    chmodSync(peers.write('verify.sh', VERIFY), 0o700)
    client = await Openvpn3.open(host(), peers.lab.folder)
  })
  after(async () => {
    await client?.close()
    await peers?.close()
  })

  const connect = (lines: string[] = [], outside: Outside = 'udp') => {
    const { ipv4, ipv6 } = host().server
    const remote = `remote ${outside.endsWith('6') ? ipv6 : ipv4} ${PORT} ${outside}`
    const always = ['client', 'dev tun', 'nobind', 'remote-cert-tls server', 'verb 6']
    const profile = [...always, remote, ...identity('client'), ...lines, '']
    peers.write(PROFILE, profile.join('\n'))
    client.start(PROFILE)
  }
  const connected = (count = 1) =>
    until(`a connection in ${client.log}`, () => client.connections >= count, PATIENCE_S)
  const withBoth = async (
    { outside, server: more = [], client: own }: Omit<Row, 'why'>,
    check: (server: Running) => Promise<void>,
  ) => {
    const lines = [...identity('server'), 'explicit-exit-notify 1', ...more]
    const server = await peers.server('ours', NUMBER, lines)
    connect(own, outside)
    try {
      await check(server)
    } finally {
      await client.leave(PROFILE)
      await stop(server)
    }
  }

  for (const row of ROWS) {
    it(row.why, () =>
      withBoth(row, async () => {
        await connected()
        assert.deepEqual(await lost(host(), NUMBER), [0, 0])
        if (row.says !== undefined) assert.match(client.log, row.says)
        assert.match(client.log, /key-derivation: TLS Keying Material Exporter/)
      }),
    )
  }

  it('has all of a long reply, and the name server; the server hears that it leaves', () => {
    const routes = Array.from({ length: 120 }, (_, i) => `10.77.${i}.0`)
    const server = [
      ...routes.map((route) => `push "route ${route} 255.255.255.0"`),
      ...['push "dhcp-option DNS 10.8.1.1"', 'push "dhcp-option DOMAIN inside.example"'],
    ]
    return withBoth({ server }, async (ours) => {
      await connected()
      const there = host()
        .netns.ip('route')
        .match(/^10\.77\.\d+\.0/gm)
      assert.deepEqual(new Set(there), new Set(routes))
      const names = readFileSync(join(peers.lab.folder, 'resolv.conf'), 'utf8')
      assert.match(names, /^nameserver 10\.8\.1\.1$/m)
      assert.match(names, /^search inside\.example$/m)
      await client.leave(PROFILE)
      await ours.says(/: it has left/)
    })
  })

  for (const { by, outside, server, seconds, renewals } of RENEWALS) {
    it(`${outside}: keys renewed by the ${by}, not a packet lost`, () =>
      withBoth({ outside, server, client: ['reneg-sec 10'] }, async () => {
        await connected()
        assert.deepEqual(await lost(host(), NUMBER), [0, 0])
        assert.equal(await ping(host().netns, vpnAddresses(NUMBER)[0], 10 * seconds), 0)
        assert.ok(client.times(/Sending Peer Info/) > renewals, client.log)
        assert.equal(client.connections, 1)
      }))
  }

  it('shows a password, then a token at each renewal', () => {
    const login = '<auth-user-pass>\nalice\nright\n</auth-user-pass>'
    const verify = ['auth-user-pass-verify ./verify.sh via-file', 'script-security 2']
    const server = [...verify, 'auth-gen-token', 'reneg-sec 6']
    return withBoth({ server, client: [login, 'reneg-sec 10'] }, async () => {
      await connected()
      await until('two renewals', () => client.times(/Sending Peer Info/) >= 3, PATIENCE_S)
      await answers(host().netns, vpnAddresses(NUMBER)[0])
      assert.equal(client.connections, 1)
    })
  })

  it('is refused with a wrong password', () => {
    const login = '<auth-user-pass>\nalice\nwrong\n</auth-user-pass>'
    const server = ['auth-user-pass-verify ./verify.sh via-file', 'script-security 2']
    return withBoth({ server, client: [login] }, async () => {
      await client.says(/Authentication failed/)
      assert.equal(client.connections, 0)
    })
  })

  it('is asked to open a page while it waits, and let in after that', () => {
    const login = '<auth-user-pass>\nalice\nright\n</auth-user-pass>'
    const server = ['management three.sock unix', 'management-client-auth']
    return withBoth({ server, client: [login] }, async () => {
      const manager = await openManagement(join(peers.lab.folder, 'three.sock'))
      const asked = () => manager.told.find((line) => line.startsWith('>CLIENT:CONNECT'))
      await until('the question', () => asked() !== undefined, PATIENCE_S)
      const ids = asked()!.split(',').slice(1).join(' ')
      const page = 'WEB_AUTH::https://login.example/42'
      assert.match(await manager.ask(`client-pending-auth ${ids} "${page}" 60`), /^SUCCESS/)
      await client.says(/Auth pending request received, timeout: 60/)
      client.command('session-auth')
      await client.says(/Auth URL: https:\/\/login\.example\/42/)
      assert.match(await manager.ask(`client-auth-nt ${ids}`), /^SUCCESS/)
      await connected()
      manager.close()
    })
  })

  it('comes back after its own restart, and the server’s', () =>
    withBoth({}, async (ours) => {
      await connected()
      client.manage(PROFILE, '--restart')
      await connected(2)
      await stop(ours)
      const again = await peers.server('ours', NUMBER, identity('server'))
      assert.match(again.stdout, STARTED)
      await connected(3)
      assert.deepEqual(await lost(host(), NUMBER), [0, 0])
      await client.leave(PROFILE)
      await stop(again)
    }))
})
