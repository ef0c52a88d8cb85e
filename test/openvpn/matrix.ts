/**
 * Our server or client with OpenVPN at the other end: every way of wrapping control packets, every cipher, both versions of
 * TLS, both kinds of keys, both protocols and both versions of IP outside.
 */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { STARTED, withoutProgram } from '../interop/programs.ts'
import { identity, lost, type Maker, type Outside, Peers, stop } from './peers.ts'

const CIPHERS = ['AES-256-GCM', 'AES-128-GCM', 'AES-192-GCM', 'CHACHA20-POLY1305']
const ALL_CIPHERS = `data-ciphers ${CIPHERS.join(':')}`

interface Row {
  outside: Outside
  /** Of the client. */
  lines: string[]
  /** What OpenVPN's log says. */
  says: RegExp
  why: string
}

interface ServerRow {
  what: string
  lines: string[]
  clients: Row[]
}

const plain = identity('client')
const cipher = (name: string) =>
  new RegExp(`(?:Data Channel: cipher '|PUSH_REPLY,.*,cipher )${name}`)
const [TLS12, TLS13] = [/Control Channel: TLSv1\.2, cipher/, /Control Channel: TLSv1\.3, cipher/]

const SERVERS: ServerRow[] = [
  {
    what: 'no wrap',
    lines: [...identity('server'), ALL_CIPHERS],
    clients: [
      ...CIPHERS.map(
        (name, i): Row => ({
          outside: (['udp', 'tcp', 'udp6', 'tcp6'] as const)[i]!,
          lines: [...plain, `data-ciphers ${name}`],
          says: cipher(name),
          why: `${name}, which the client alone has`,
        }),
      ),
      {
        ...{ outside: 'udp', lines: [...plain, 'tls-version-max 1.2'], says: TLS12 },
        why: 'TLS 1.2, keys of EC at both ends',
      },
      {
        ...{ outside: 'udp', lines: [...plain, 'tls-version-min 1.3'], says: TLS13 },
        why: 'TLS 1.3',
      },
      {
        outside: 'tcp',
        lines: [...plain, 'tls-cipher TLS-DHE-RSA-WITH-AES-256-GCM-SHA384'],
        says: TLS13,
        why: 'ciphers that TLS 1.2 has not at our end, and TLS 1.3 does not ask about',
      },
      {
        ...{ outside: 'tcp', lines: identity('rsa-client'), says: TLS13 },
        why: 'a client whose key is RSA',
      },
    ],
  },
  {
    what: 'tls-auth without direction, a key of RSA',
    lines: [...identity('rsa-server'), 'tls-auth static.key'],
    clients: [
      {
        outside: 'udp',
        lines: [...identity('rsa-client'), 'tls-auth static.key', 'tls-version-max 1.2'],
        says: TLS12,
        why: 'RSA at both ends, TLS 1.2',
      },
      {
        ...{ outside: 'tcp', lines: [...plain, 'tls-auth static.key'], says: TLS13 },
        why: 'EC at the client',
      },
    ],
  },
  {
    what: 'tls-auth with direction and SHA512',
    lines: [...identity('server'), 'tls-auth static.key 0', 'auth SHA512'],
    clients: [
      {
        outside: 'udp',
        lines: [...plain, 'tls-auth static.key 1', 'auth SHA512'],
        says: TLS13,
        why: 'the other direction',
      },
    ],
  },
  {
    what: 'tls-crypt, beside tls-crypt-v2 with cookie',
    lines: [...identity('server'), 'tls-crypt static.key', 'tls-crypt-v2 v2.key force-cookie'],
    clients: [
      { outside: 'udp', lines: [...plain, 'tls-crypt static.key'], says: TLS13, why: 'tls-crypt' },
      {
        ...{ outside: 'tcp6', lines: [...plain, 'tls-crypt static.key'], says: TLS13 },
        why: 'tls-crypt over TCP',
      },
      {
        ...{ outside: 'udp6', lines: [...plain, 'tls-crypt-v2 v2-client.key'], says: TLS13 },
        why: 'tls-crypt-v2, which shows the cookie',
      },
      {
        ...{ outside: 'tcp', lines: [...plain, 'tls-crypt-v2 v2-client.key'], says: TLS13 },
        why: 'tls-crypt-v2 over TCP',
      },
    ],
  },
  {
    what: 'tls-crypt-v2 without cookie, fingerprints and no authority',
    lines: [
      ...['cert server.crt', 'key server.key', 'config only-client.conf'],
      'tls-crypt-v2 v2.key allow-noncookie',
    ],
    clients: [
      {
        outside: 'udp',
        lines: [
          ...['cert client.crt', 'key client.key', 'config only-server.conf'],
          'tls-crypt-v2 v2-client.key',
        ],
        says: TLS13,
        why: 'who has shown the certificate of that fingerprint',
      },
    ],
  },
]

/**
 * One of the two is ours, the other OpenVPN's, whose log tells what was agreed on. OpenVPN before 2.7 listens with one protocol
 * only: its servers are one for UDP and one for TCP.
 */
export function testMatrix(server: Maker, client: Maker): void {
  const skip = withoutProgram(...[server, client].filter((maker) => maker !== 'ours'))
  describe(`server: ${server}, client: ${client}`, { skip }, () => {
    let peers: Peers
    before(async () => {
      peers = await Peers.open()
      await Promise.all([
        ...[peers.certify('rsa-server', { rsa: true }), peers.certify('rsa-client', { rsa: true })],
        peers.genkey('tls-crypt', 'static.key'),
        peers.genkey('tls-crypt-v2-server', 'v2.key'),
      ])
      await peers.genkey('tls-crypt-v2-client', 'v2-client.key', '--server-key', 'v2.key')
      for (const name of ['client', 'server']) {
        peers.write(`only-${name}.conf`, `peer-fingerprint ${peers.fingerprint(name)}\n`)
      }
    })
    after(() => peers.close())

    for (const [i, { what, lines, clients }] of SERVERS.entries()) {
      describe(what, () => {
        const numberOf = (outside: Outside) => 2 * i + (outside.startsWith('udp') ? 0 : 1)
        const servers = new Map<number, Running>()
        before(async () => {
          const protocols = clients.map(({ outside }) => outside.slice(0, 3))
          for (const protocol of new Set(server === 'ours' ? ['udp'] : protocols)) {
            const outside = protocol === 'udp' ? 'udp6' : 'tcp6'
            const number = numberOf(outside)
            servers.set(number, await peers.server(server, number, lines, outside))
          }
        })

        for (const { outside, lines, says, why } of clients) {
          it(`${outside}: ${why}`, async () => {
            const number = server === 'ours' ? 2 * i : numberOf(outside)
            const served = servers.get(number)!
            const before = served.stdout.length
            const connected = peers.client(client, number, lines, { outside })
            try {
              await connected.says(STARTED)
              assert.deepEqual(await lost(peers.lab.hosts[0]!, number), [0, 0])
              assert.match(client === 'ours' ? served.stdout.slice(before) : connected.stdout, says)
            } finally {
              await stop(connected)
            }
          })
        }
      })
    }
  })
}
