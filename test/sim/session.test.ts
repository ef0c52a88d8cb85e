/** Sessions with the TLS that they have in earnest, in memory and in real time. */
// npm test: load 0.3
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { DoorSettings } from '../../src/openvpn/proto/cookie.ts'
import { MIN_REKEY_INTERVAL } from '../../src/openvpn/proto/limits.ts'
import { DEFAULT_DATA_CIPHERS } from '../../src/openvpn/proto/negotiate.ts'
import type { SessionKey } from '../../src/openvpn/proto/session.ts'
import { createTls, type TlsSettings, type TlsVersion } from '../../src/openvpn/tls.ts'
import { sealWkc } from '../../src/wire/wkc.ts'
import type { WrapSettings } from '../../src/wire/wrap.ts'
import { issue } from '../certificates.ts'
import { Random } from '../random.ts'
import { type EndSettings, SimClient, type SimClock, SimServer } from './control.ts'

const random = new Random(5)
const KEY = random.bytes(256)
const SERVER_KEY = random.bytes(128)
const root = await issue('CN=Root', { ca: true })
const certificates = {
  server: await issue('CN=server', { by: root }),
  client: await issue('CN=client', { by: root }),
}

const clock: SimClock = {
  get now() {
    return performance.now()
  },
  // What is left of a session that has ended holds nobody up.
  at: (at, run) =>
    void setTimeout(run, Math.min(Math.max(0, at - performance.now()), 2 ** 30)).unref(),
  after: (milliseconds, run) => clock.at(performance.now() + milliseconds, run),
}

function settingsOf(
  role: 'server' | 'client',
  tls: Partial<TlsSettings>,
  proto: number,
): EndSettings {
  const own = certificates[role]
  return {
    clock,
    random,
    policy: { dataCiphers: DEFAULT_DATA_CIPHERS, epoch: true },
    tls: createTls({
      ca: root.pem,
      certificate: own.pem,
      key: own.key,
      requestCertificate: true,
      verify: () => undefined,
      ...tls,
    }),
    hello: role === 'client' ? { peerInfo: `IV_PROTO=${proto}\nIV_NCP=2\n` } : {},
  }
}

/** A stream between both: in order, and later. */
function connect(
  tls: Partial<TlsSettings>,
  proto: number,
  wrap: WrapSettings,
  door: DoorSettings,
): { client: SimClient; server: SimServer } {
  const server = new SimServer(settingsOf('server', tls, proto), door)
  const client: SimClient = new SimClient(settingsOf('client', tls, proto), wrap, (packet) => {
    setImmediate(() =>
      server.datagram('somewhere', packet, (answer) => setImmediate(() => client.receive(answer))),
    )
  })
  return { client, server }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const end = performance.now() + 30_000
  while (!condition()) {
    assert.ok(performance.now() < end, what)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** As long as a peer must leave between two key exchanges; it would drop the reset, and hear it 2 s later. */
function pause(): Promise<void> {
  const end = performance.now() + 1.2 * MIN_REKEY_INTERVAL
  return until('the next exchange is allowed', () => performance.now() > end)
}

const mirrored = (key: SessionKey): SessionKey => ({
  ...key,
  encryptDir: key.decryptDir,
  decryptDir: key.encryptDir,
})

describe('sessions over node:tls', () => {
  const wkc = sealWkc(SERVER_KEY, KEY, new Uint8Array(0))
  const modes: [name: string, wrap: WrapSettings, door: DoorSettings][] = [
    ['no wrap', { kind: 'none' }, { wrap: { kind: 'none' } }],
    [
      'tls-crypt',
      { kind: 'tls-crypt', key: KEY, role: 'client' },
      { wrap: { kind: 'tls-crypt', key: KEY, role: 'server' } },
    ],
    [
      'tls-crypt-v2',
      { kind: 'tls-crypt-v2', key: KEY, role: 'client', wkc },
      { tlsCryptV2: { serverKey: SERVER_KEY, forceCookie: true } },
    ],
  ]
  const kinds: [proto: number, why: string][] = [
    [8094, 'keys from TLS'],
    [2, 'keys from the PRF'],
  ]
  for (const [name, wrap, door] of modes) {
    for (const version of ['1.2', '1.3'] satisfies TlsVersion[]) {
      for (const [proto, why] of kinds) {
        it(`${name}, TLS ${version}, ${why}: a first key and two more`, async () => {
          const tls = { minVersion: version, maxVersion: version }
          const { client, server } = connect(tls, proto, wrap, door)
          const failed = () => client.error ?? server.sessions[0]?.error
          const made = (count: number) => () => {
            assert.equal(failed(), undefined)
            return client.made.length === count && server.sessions[0]?.made.length === count
          }
          await until('the first key', made(1))
          await pause()
          client.renegotiate()
          await until('the second key', made(2))
          await pause()
          server.sessions[0]!.renegotiate()
          await until('the third key', made(3))
          assert.deepEqual(server.sessions[0]!.made.map(mirrored), client.made)
          assert.deepEqual([...client.session.drops], [])
          client.session.close()
          server.sessions[0]!.session.close()
        })
      }
    }
  }

  it('tells why it failed', async () => {
    const verify = () => 'the certificate of the server has expired'
    const { client } = connect({ verify }, 8094, { kind: 'none' }, { wrap: { kind: 'none' } })
    await until('the failure', () => client.error !== undefined)
    assert.equal(client.error!.code, 'certificate')
    assert.equal(client.error!.message, 'the certificate of the server has expired')
  })
})
