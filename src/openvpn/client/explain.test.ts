/** Sentences about what went wrong, and hints. What servers and the system really say is test/openvpn/client-failures.test.ts's. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Ending } from './attempt.ts'
import { hintFor, reasonOf, signalOf, type Tried } from './explain.ts'

const tried: Tried = {
  ...{ protocol: 'udp', port: 1194, wrap: 'none', proxy: undefined },
  date: new Date('2026-01-02T03:04:05Z'),
}
const failed = (code: string, text: string): Ending => ({ kind: 'failed', code, text })
const unreachable = (code?: string): Ending => ({ kind: 'unreachable', text: 'x', code })

describe('hints', () => {
  const rows: [ending: Ending, hint: RegExp | undefined, why: string, changes?: Partial<Tried>][] =
    [
      [unreachable(), /UDP port 1194 through/, 'silence'],
      [
        unreachable(),
        /key of tls-crypt-v2/,
        'silence may be a wrong key',
        { wrap: 'tls-crypt-v2' },
      ],
      [unreachable(), /the SOCKS proxy let TCP/, 'a proxy', { protocol: 'tcp', proxy: 'SOCKS' }],
      [unreachable('ECONNREFUSED'), /nobody listens/, 'a closed port'],
      [unreachable('ENETUNREACH'), /online/, 'no network'],
      [unreachable('EAI_AGAIN'), /DNS server/, 'DNS is silent'],
      [unreachable('ESOMETHING'), undefined, 'an error that nobody has thought of'],
      [failed('certificate', 'it is expired since 2025'), /clock says 2026-01-02/, 'or the clock'],
      [failed('certificate', 'it is not valid before 2027'), /clock says 2026/, 'the clock'],
      [failed('certificate', 'it is revoked'), /new profile/, 'revoked'],
      [failed('certificate', 'not among our authorities'), /'ca' is not that/, 'another authority'],
      [failed('tls', 'alert: certificate expired'), /this client's certificate/, 'ours is refused'],
      [failed('tls', 'no version of TLS that both allow'), /tls-version-min/, 'versions'],
      [failed('timeout', 'within 60 s'), /tun-mtu/, 'large packets are lost'],
      [failed('malformed', 'x'), undefined, 'nothing that a user can do'],
      [{ kind: 'lost', text: 'x' }, undefined, 'it was there before'],
    ]
  for (const [ending, hint, why, changes] of rows) {
    it(why, () => {
      const found = hintFor(ending, { ...tried, ...changes })
      if (hint === undefined) assert.equal(found, undefined)
      else assert.match(found ?? '', hint)
    })
  }
})

describe('reasons', () => {
  const order = { keepCredentials: true, nextServer: false, text: '' }
  const rows: [ending: Ending, reason: string, why: string][] = [
    [{ kind: 'closed' }, '', 'the user knows'],
    [
      { kind: 'refused', failure: { reason: 'denied', text: '' } },
      'the server refuses this client: it gives no reason',
      'without a word',
    ],
    [
      { kind: 'ordered', halt: true, order: { ...order, text: 'gone' } },
      'the server wants this client to end: gone',
      'with a word',
    ],
    [
      { kind: 'ordered', halt: false, order },
      'the server wants this client to connect anew',
      'a restart',
    ],
  ]
  for (const [ending, reason, why] of rows) {
    it(`${ending.kind}: ${why}`, () => assert.equal(reasonOf(ending), reason))
  }
})

describe('what scripts are told as `signal`', () => {
  const lost = (code?: string): Ending => ({ kind: 'lost', text: 'x', code })
  const order = { keepCredentials: true, nextServer: false, text: '' }
  const rows: [ending: Ending, signal: string, exitsOnSilence?: true][] = [
    [{ kind: 'closed' }, 'sigint'],
    [{ kind: 'ordered', halt: true, order }, 'server-pushed-halt'],
    [{ kind: 'ordered', halt: false, order }, 'server-pushed-connection-reset'],
    [{ kind: 'refused', failure: { reason: 'denied', text: '' } }, 'auth-failure'],
    [lost('expired'), 'ping-restart'],
    [lost('expired'), 'ping-exit', true],
    [lost('remote-exit'), 'remote-exit'],
    [lost('transport-disconnect'), 'connection-reset'],
    [lost('transport-error'), 'connection-reset'],
    [lost('identity'), 'tls-error'],
    [lost(), 'tls-error'],
  ]
  for (const [ending, signal, exitsOnSilence = false] of rows) {
    it(`${JSON.stringify(ending)}, ${exitsOnSilence ? 'ping-exit' : 'ping-restart'}`, () => {
      assert.equal(signalOf(ending, 'sigint', exitsOnSilence), signal)
    })
  }
})
