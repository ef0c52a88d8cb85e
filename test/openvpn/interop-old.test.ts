/**
 * Our server and client with OpenVPN of old series at the other end, 2.4 and 2.5: keys that are not of TLS, no list of ciphers
 * or a short one, announcements of compression, exit notices among data packets, addresses in pairs.
 */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { ping, times } from '../interop/openvpn.ts'
import { findOldPrograms, STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, lost, type Maker, type Outside, Peers, stop, vpnAddresses } from './peers.ts'

await findOldPrograms()

type Old = '2.4' | '2.5'

interface Row {
  why: string
  outside?: Outside
  server?: string[]
  client?: string[]
  /** What OpenVPN's log says. */
  says?: RegExp
  /** Else all of them. */
  only?: Old
}

interface RefusedRow extends Row {
  /** What the log of ours gives as the reason. */
  refused: RegExp
}

const [PLAIN_SERVER, PLAIN_CLIENT] = [identity('server'), identity('client')]
const NUMBER = 1
const cipher = (name: string) => new RegExp(`Data Channel: Cipher '${name}'`, 'i')
/** What old series say of a packet they cannot open, which a ping may hide. */
const BAD_PACKETS = /Authenticate\/Decrypt packet error|bad packet ID|write to TUN\/TAP.*Invalid/

/** Both ways. */
const WRAPS: Row[] = [
  { why: 'no wrap, UDP', says: cipher('AES-256-GCM') },
  { why: 'no wrap, TCP', outside: 'tcp', says: cipher('AES-256-GCM') },
  { why: 'no wrap, UDP over IPv6', outside: 'udp6' },
  {
    why: 'tls-auth with direction and SHA512',
    server: ['tls-auth static.key 0', 'auth SHA512'],
    client: ['tls-auth static.key 1', 'auth SHA512'],
  },
  {
    why: 'tls-auth over TCP, without direction',
    outside: 'tcp',
    server: ['tls-auth static.key'],
    client: ['tls-auth static.key'],
  },
  { why: 'tls-crypt', server: ['tls-crypt static.key'], client: ['tls-crypt static.key'] },
  {
    why: 'tls-crypt over TCP',
    outside: 'tcp',
    server: ['tls-crypt static.key'],
    client: ['tls-crypt static.key'],
  },
  {
    why: 'TLS 1.2',
    client: ['tls-version-max 1.2'],
    says: /Control Channel: TLSv1\.2, cipher/,
  },
  {
    why: 'TLS 1.3',
    client: ['tls-version-min 1.3'],
    says: /Control Channel: TLSv1\.3, cipher/,
  },
]

const TO_OUR_SERVER: Row[] = [
  ...WRAPS,
  {
    why: 'tls-crypt-v2, which has no cookie',
    server: ['tls-crypt-v2 v2.key allow-noncookie'],
    client: ['tls-crypt-v2 v2-client.key'],
    only: '2.5',
  },
  {
    why: 'tls-crypt-v2 over TCP',
    outside: 'tcp',
    server: ['tls-crypt-v2 v2.key allow-noncookie'],
    client: ['tls-crypt-v2 v2-client.key'],
    only: '2.5',
  },
  {
    why: 'the second cipher of the server',
    server: ['data-ciphers AES-128-GCM:AES-256-GCM'],
    says: cipher('AES-128-GCM'),
  },
  {
    why: 'a cipher of the list of the client alone',
    server: ['data-ciphers AES-128-GCM:CHACHA20-POLY1305'],
    client: ['data-ciphers CHACHA20-POLY1305'],
    says: cipher('CHACHA20-POLY1305'),
    only: '2.5',
  },
  {
    why: 'the cipher of the options string, of a client that does not negotiate',
    client: ['ncp-disable', 'cipher AES-256-GCM'],
    says: cipher('AES-256-GCM'),
  },
  {
    why: 'comp-lzo no: told to leave it',
    client: ['comp-lzo no'],
    says: /PUSH_REPLY,.*compress stub-v2/,
  },
  {
    why: 'comp-lzo no at both ends: told to leave it',
    server: ['comp-lzo no', 'push "comp-lzo no"'],
    client: ['comp-lzo no'],
    says: /PUSH_REPLY,.*compress stub-v2/,
  },
  {
    why: 'comp-lzo no of a server that pushes it to all',
    server: ['comp-lzo no', 'push "comp-lzo no"'],
  },
  {
    why: 'compress: told to leave it',
    client: ['compress'],
    says: /PUSH_REPLY,.*compress stub-v2/,
  },
  { why: 'compress stub-v2, which adds nothing', client: ['compress stub-v2'], only: '2.5' },
  {
    why: 'compress lz4-v2: told to leave it',
    client: ['compress lz4-v2'],
    says: /PUSH_REPLY,.*compress stub-v2/,
  },
  {
    why: 'tun-mtu 1400, which is in the options string',
    server: ['tun-mtu 1400', 'push "tun-mtu 1400"'],
    client: ['tun-mtu 1400'],
  },
]

const REFUSED_CLIENTS: RefusedRow[] = [
  {
    why: 'a client that does not negotiate and has CBC',
    client: ['ncp-disable', 'cipher AES-256-CBC'],
    refused: /no shared cipher: the client offers AES-256-CBC/,
    says: /AUTH_FAILED,.*no shared cipher/,
  },
  {
    why: 'a client that cannot take keys of TLS, where they are wanted',
    server: ['force-tls-key-material-export'],
    refused: /cannot take keys from TLS/,
    says: /AUTH_FAILED,.*Keying Material Exporters/,
  },
]

const TO_OLD_SERVER: Row[] = [
  ...WRAPS,
  {
    why: 'tls-crypt-v2',
    server: ['tls-crypt-v2 v2.key'],
    client: ['tls-crypt-v2 v2-client.key'],
    only: '2.5',
  },
  {
    why: 'the cipher that the server has chosen',
    server: ['data-ciphers CHACHA20-POLY1305'],
    says: cipher('CHACHA20-POLY1305'),
    only: '2.5',
  },
  {
    why: 'the cipher of the options string, of a server that does not negotiate',
    server: ['ncp-disable', 'cipher AES-128-GCM'],
    says: cipher('AES-128-GCM'),
  },
  { why: 'compress stub-v2 pushed', server: ['compress stub-v2', 'push "compress stub-v2"'] },
  { why: 'topology net30: an address and its other end', server: ['topology net30'] },
  { why: 'topology p2p: the server at the other end', server: ['topology p2p'] },
]

const REFUSED_SERVERS: RefusedRow[] = [
  {
    why: 'a server that pushes comp-lzo no',
    server: ['comp-lzo no', 'push "comp-lzo no"'],
    refused: /the server wants compression \(comp-lzo no\)/,
  },
  {
    why: 'a server that pushes compress lz4-v2',
    server: ['compress lz4-v2', 'push "compress lz4-v2"'],
    refused: /the server wants compression \(compress lz4-v2\)/,
  },
  {
    why: 'a server that does not negotiate and has CBC',
    server: ['ncp-disable', 'cipher AES-256-CBC'],
    refused: /cipher AES-256-CBC; data-ciphers allows AES-256-GCM/,
  },
]

const RENEWALS: [by: 'server' | 'client', outside: Outside][] = [
  ['server', 'udp'],
  ['server', 'tcp'],
  ['client', 'udp'],
]

for (const old of ['2.4', '2.5'] as const) {
  describe(`OpenVPN ${old}`, { skip: withoutProgram(old) }, () => {
    let peers: Peers
    before(async () => {
      peers = await Peers.open()
      await Promise.all([
        peers.genkey('tls-crypt', 'static.key'),
        peers.genkey('tls-crypt-v2-server', 'v2.key'),
      ])
      await peers.genkey('tls-crypt-v2-client', 'v2-client.key', '--server-key', 'v2.key')
    })
    after(() => peers.close())

    /** Runs a server and a client of it; `check` when they have begun. */
    const withBoth = async (
      makers: { server: Maker; client: Maker },
      { outside = 'udp', server: more = [], client: own = [] }: Omit<Row, 'why'>,
      check: (server: Running, client: Running) => Promise<void>,
    ) => {
      const listen = outside.startsWith('udp') ? 'udp6' : 'tcp6'
      const server = await peers.server(makers.server, NUMBER, [...PLAIN_SERVER, ...more], listen)
      const client = peers.client(makers.client, NUMBER, [...PLAIN_CLIENT, ...own], { outside })
      try {
        await check(server, client)
      } finally {
        await stop(client)
        await stop(server)
      }
    }
    const host = () => peers.lab.hosts[0]!
    const fits = ({ only }: Row) => only === undefined || only === old

    for (const ours of ['server', 'client'] as const) {
      const makers =
        ours === 'server'
          ? { server: 'ours' as const, client: old }
          : { server: old, client: 'ours' as const }
      const pick = (server: Running, client: Running) =>
        ours === 'server' ? { own: server, theirs: client } : { own: client, theirs: server }
      const [taken, refused] =
        ours === 'server' ? [TO_OUR_SERVER, REFUSED_CLIENTS] : [TO_OLD_SERVER, REFUSED_SERVERS]

      describe(`with our ${ours}`, () => {
        for (const row of taken.filter(fits)) {
          it(row.why, () =>
            withBoth(makers, row, async (server, client) => {
              await client.says(STARTED)
              assert.deepEqual(await lost(host(), NUMBER), [0, 0])
              const { theirs } = pick(server, client)
              if (row.says !== undefined) await theirs.says(row.says)
              assert.doesNotMatch(theirs.stdout, BAD_PACKETS)
            }),
          )
        }

        for (const row of refused.filter(fits)) {
          it(`refuses ${row.why}`, () =>
            withBoth(makers, row, async (server, client) => {
              const { own, theirs } = pick(server, client)
              await own.says(row.refused)
              if (row.says !== undefined) await theirs.says(row.says)
              assert.doesNotMatch(client.stdout, STARTED)
            }))
        }

        it('120 routes, pushed in several messages', () => {
          const routes = Array.from({ length: 120 }, (_, i) => `10.77.${i}.0`)
          const server = routes.map((route) => `push "route ${route} 255.255.255.0"`)
          return withBoth(makers, { server }, async (_server, client) => {
            await client.says(STARTED)
            const there = host()
              .netns.ip('route')
              .match(/^10\.77\.\d+\.0/gm)
            assert.deepEqual(new Set(there), new Set(routes))
          })
        })

        for (const [renewing, outside] of RENEWALS) {
          // Who sends with a key until the next but one begins loses what is on its way then, hence the hand-window.
          const waiting = renewing === 'server' ? 'client' : 'server'
          const lines = { outside, [renewing]: ['reneg-sec 3'], [waiting]: ['hand-window 2'] }
          it(`${outside}: keys renewed by the ${renewing} every 3 s, not a packet lost`, () =>
            withBoth(makers, lines, async (server, client) => {
              await client.says(STARTED)
              const { theirs } = pick(server, client)
              assert.deepEqual(await lost(host(), NUMBER), [0, 0])
              assert.equal(await ping(host().netns, vpnAddresses(NUMBER)[0], 100), 0)
              assert.ok(times(theirs, /Control Channel: TLSv/) >= 3, theirs.stdout)
              assert.doesNotMatch(theirs.stdout, BAD_PACKETS)
            }))
        }
      })
    }

    it('goes from our server at once: its exit notice is a data packet', () => {
      const row = { client: ['explicit-exit-notify 1'] }
      return withBoth({ server: 'ours', client: old }, row, async (server, client) => {
        await client.says(STARTED)
        assert.deepEqual(await lost(host(), NUMBER), [0, 0])
        await stop(client)
        await server.says(/client\/.*: it has left/)
      })
    })

    it('hears from our client that it leaves, as its server: among data packets', () => {
      // Nothing else ends it: keepalive would take a minute.
      const row = { server: ['verb 4'] }
      return withBoth({ server: old, client: 'ours' }, row, async (server, client) => {
        await client.says(STARTED)
        assert.deepEqual(await lost(host(), NUMBER), [0, 0])
        await stop(client)
        await server.says(/SIG(TERM|USR1)\[soft,remote-exit\] received, client-instance/)
      })
    })

    it('has our client warn of compression that its server does not push', () => {
      const lines = { server: ['comp-lzo no'] }
      return withBoth({ server: old, client: 'ours' }, lines, async (_server, client) => {
        await client.says(STARTED)
        await client.says(/the server has comp-lzo or compress and does not push it/)
      })
    })

    it('ends as our client’s server: the client connects anew', () => {
      // For a second it lets clients in again; who comes then is left without a word.
      const lines = { server: ['explicit-exit-notify 1'], client: ['connect-retry 3 3'] }
      return withBoth({ server: old, client: 'ours' }, lines, async (server, client) => {
        await client.says(STARTED)
        await stop(server)
        await client.says(/the server wants this client to connect anew/)
        const again = await peers.server(old, NUMBER, PLAIN_SERVER)
        await until('the client to be back', () => times(client, STARTED) === 2, 30)
        assert.deepEqual(await lost(host(), NUMBER), [0, 0])
        await stop(again)
      })
    })
  })
}
