/**
 * Bugs that other implementations have met, each by what set it off: here it must have no effect. Those of whole servers
 * (timing, floods, leaks) are hostile.test.ts's and crowd.test.ts's; sources are the advisories of the numbers given.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Glob } from 'bun'
import { dnsFromDhcp } from '../../src/openvpn/config/network.ts'
import { readPushed } from '../../src/openvpn/config/pushed.ts'
import { Door } from '../../src/openvpn/proto/cookie.ts'
import { readText } from '../../src/openvpn/proto/messages.ts'
import { checkToken } from '../../src/openvpn/server/auth-token.ts'
import type { ServerClient } from '../../src/openvpn/server/client.ts'
import type { AuthDecision } from '../../src/openvpn/server/policy.ts'
import { commonName, parseCertificate } from '../../src/openvpn/x509/certificate.ts'
import { type ControlPacket, decodeControl, encodeControl } from '../../src/wire/control.ts'
import { Opcode } from '../../src/wire/opcode.ts'
import { openWkc, sealWkc, splitWkc } from '../../src/wire/wkc.ts'
import { createWrap, RESENDS_WKC_REPLAY_ID } from '../../src/wire/wrap.ts'
import { issue } from '../certificates.ts'
import { Random } from '../random.ts'
import { SERVER_AT } from '../sim/control.ts'
import { ServerNet } from '../sim/server.ts'

const random = new Random(5)
const CLIENT_KEY = random.bytes(256)
const SERVER_KEY = random.bytes(128)
const WKC = sealWkc(SERVER_KEY, CLIENT_KEY, Uint8Array.of(1))
const NOW = 1_800_000_000
const SECRET = random.bytes(32)
const AT = '192.0.2.1:1194'

const SECOND = 1000
const MINUTE = 60 * SECOND
const SOURCES = fileURLToPath(new URL('../../src', import.meta.url))

/** Where something is compared that nobody is to guess bit by bit. AEAD tags are the cipher libraries', and platform/ipsec-mb.ts's. */
const COMPARED: [path: string, why: string][] = [
  ['wire/wrap.ts', 'HMACs of tls-auth, tags of tls-crypt'],
  ['wire/wkc.ts', 'tags of wrapped client keys'],
  ['openvpn/proto/cookie.ts', 'session ids given out'],
  ['openvpn/server/auth-token.ts', 'tokens in place of passwords'],
  ['openvpn/management/connection.ts', 'the password of the management interface'],
]
const MAKES_KEYS = ['wire/keys.ts', 'wire/epoch.ts']

const plain = () => new Door({ wrap: { kind: 'none' } }, SECRET, 60)
const reset: ControlPacket = {
  ...{ opcode: Opcode.HardResetClientV2, keyId: 0, sessionId: random.bytes(8), acks: [] },
  ...{ messageId: 0, payload: new Uint8Array(0) },
}

/** Pushed options of a hostile server: what is left of them is nothing. */
const PUSHED: [option: string, bug: string][] = [
  [
    'dhcp-option DOMAIN-SEARCH "x$(touch /tmp/x)"',
    'CVE-2025-10680: a shell runs what DNS names say',
  ],
  ['dhcp-option DOMAIN "a;reboot"', 'CVE-2025-10680: the same in a domain'],
  ['dhcp-option DOMAIN "a`id`"', 'CVE-2025-10680: the same with backticks'],
  ['dns search-domains "x$(id)"', 'CVE-2025-10680: the same with the newer option'],
  [`dns search-domains ${'a'.repeat(300)}`, 'CVE-2026-88964: names longer than names are'],
  ['dns search-domains a,,b', 'CVE-2026-13379: empty parts of a list of names'],
  ['dhcp-option DNS 1.2.3', 'CVE-2025-12106: addresses with too few parts'],
  ['dhcp-option DNS6 fe80:::1', 'CVE-2025-12106: IPv6 addresses that end too soon'],
  ['ifconfig 10.8.0.2 255.255.255', 'CVE-2025-12106: masks with too few parts'],
  ['ifconfig-ipv6 fd00::/', 'CVE-2025-12106: a prefix of nothing'],
  ['route-ipv6 ::1/129', 'CVE-2025-12106: a prefix longer than addresses'],
  ['tun-mtu 1', '2.7.5: an MTU below the least one ended the client'],
  ['tun-mtu 4294967295', 'the same far above'],
  ['peer-id 99999999', 'a peer id of more than 24 bits'],
  ['up /tmp/x', 'programs are nothing that a server may name'],
]

const TOKENS: [token: string, why: string][] = [
  ['SESS_ID_AT_', 'nothing in it'],
  [`SESS_ID_AT_${'A'.repeat(20)}`, 'too short'],
  [`SESS_ID_AT_${'A'.repeat(20_000)}`, 'too long'],
  ['SESS_ID_AT_\0\0\0\0', 'no base64'],
]

const TEXTS: [text: string, why: string][] = [
  ['PUSH_REQUEST\x1b[2J', 'escape sequences for terminals'],
  ['INFO,a\nMULTI: forged line', 'lines of their own for logs'],
  ['AUTH_FAILED,\x00more', 'what is behind an end'],
]

describe('known bugs', () => {
  describe('in what a server pushes', () => {
    for (const [option, bug] of PUSHED) {
      it(bug, () => {
        const { skipped, options } = readPushed([option], { routeNopull: false, pullFilters: [] })
        if (skipped.length > 0) return
        // What is none of its own goes to scripts, as text in the environment; DNS takes nothing of it.
        assert.match(option, /^dhcp-option /)
        assert.deepEqual(dnsFromDhcp(options), { servers: [], domains: [] })
      })
    }
  })

  describe('CVE-2026-13122: malformed tokens', () => {
    for (const [token, why] of TOKENS) {
      it(why, () => {
        const rules = { key: random.bytes(32), lifetime: 0, renewal: 60 }
        assert.equal(checkToken(rules, 'alice', token, NOW).state, 'Invalid')
      })
    }
  })

  describe('CVE-2024-5594: messages with what cannot be printed', () => {
    for (const [text, why] of TEXTS) {
      it(why, () => assert.equal(readText(Buffer.from(text)), undefined))
    }
  })

  it('CVE-2026-84790, CVE-2017-7522: a name with NUL is nobody’s', async () => {
    const { der } = await issue([{ CN: ['alice\0.example'] }])
    assert.equal(commonName(parseCertificate(der), ['CN']), undefined)
  })

  it('CVE-2025-13086: a session id that was not given out is no way in', () => {
    const door = plain()
    const answer = door.greet(encodeControl(reset), AT, NOW)
    assert.ok(answer.action === 'reply')
    const given = decodeControl(answer.packet)!.sessionId
    const second = (peerSessionId: Uint8Array): Uint8Array =>
      encodeControl({
        ...{ ...reset, opcode: Opcode.ControlV1, messageId: 1, acks: [0] },
        ...{ peerSessionId, payload: Uint8Array.of(22) },
      })
    for (let i = 0; i < 64; i++) {
      const other = given.slice()
      other[i >> 3]! ^= 1 << (i & 7)
      const greeting = door.greet(second(other), AT, NOW)
      assert.deepEqual(greeting, { action: 'drop', reason: 'cookie' }, `bit ${i}`)
    }
    assert.equal(door.greet(second(given), '192.0.2.1:1195', NOW).action, 'drop', 'another port')
    assert.equal(door.greet(second(given), AT, NOW).action, 'create')
  })

  it('2.7.6: a reset with another message id than 0', () => {
    for (const messageId of [1, 2, 0xffffffff]) {
      const greeting = plain().greet(encodeControl({ ...reset, messageId }), AT, NOW)
      assert.deepEqual(greeting, { action: 'drop', reason: 'malformed' })
    }
  })

  it('CVE-2017-7478: a control packet as large as datagrams are', () => {
    const greeting = plain().greet(new Uint8Array(65_507).fill(Opcode.ControlV1 << 3), AT, NOW)
    assert.equal(greeting.action, 'drop')
  })

  it('CVE-2026-35058, CVE-2025-2704: a good client key around what makes no sense', () => {
    const door = new Door({ tlsCryptV2: { serverKey: SERVER_KEY, forceCookie: true } }, SECRET, 60)
    const wrap = { kind: 'tls-crypt-v2', key: CLIENT_KEY, role: 'client', wkc: WKC } as const
    const opcode = Opcode.HardResetClientV3
    const good = createWrap(wrap, RESENDS_WKC_REPLAY_ID).wrap({ ...reset, opcode }, NOW)
    assert.equal(door.greet(good, AT, NOW).action, 'reply')
    for (let length = 0; length < good.length - WKC.length; length++) {
      const cut = Buffer.concat([good.subarray(0, length), WKC])
      assert.equal(door.greet(cut, AT, NOW).action, 'drop', `${length} bytes before the key`)
    }
    for (const acks of [[0], [0, 1, 2, 3, 4, 5, 6, 7]]) {
      const odd: ControlPacket = { ...reset, opcode, acks, peerSessionId: random.bytes(8) }
      const bytes = createWrap(wrap, RESENDS_WKC_REPLAY_ID).wrap(odd, NOW)
      assert.equal(door.greet(bytes, AT, NOW).action, 'drop')
    }
  })

  it('openvpn3, July 2026: a wrapped key with a length that is not its own', () => {
    for (const length of [0, 1, 2, 3, 289, WKC.length - 1, WKC.length + 1, 1024, 0xffff]) {
      const wkc = WKC.slice()
      new DataView(wkc.buffer).setUint16(wkc.length - 2, length)
      assert.equal(openWkc(SERVER_KEY, wkc), undefined, `${length}`)
      const split = splitWkc(Buffer.concat([new Uint8Array(54), wkc]))
      if (split !== undefined) assert.equal(openWkc(SERVER_KEY, split.wkc), undefined, `${length}`)
    }
  })

  it('2.7.5: a reply is not overwritten by the next one, to somebody else', () => {
    const door = plain()
    const answer = (at: string) => {
      const greeting = door.greet(encodeControl(reset), at, NOW)
      return greeting.action === 'reply' ? greeting.packet : assert.fail()
    }
    const first = answer(AT)
    const kept = first.slice()
    assert.notDeepEqual(answer('198.51.100.9:1194'), kept)
    assert.deepEqual(first, kept)
  })

  it('CVE-2026-84471, -12996, -13117: all that one session ever sent, while the next takes its place and after', async () => {
    const net = await ServerNet.open()
    const first = net.client('alice')
    const sent: Uint8Array[] = []
    net.wire.tap = ({ to, bytes }) => {
      // The first ones would begin a session of their own: without a wrap they are anybody's.
      const { messageId = 2, acks = [] } = decodeControl(bytes) ?? {}
      const isLater = (bytes[0]! & 7) > 0 || (messageId > 1 && acks.some((id) => id > 1))
      if (to.key === SERVER_AT.key && isLater) sent.push(bytes)
    }
    await net.pass(10 * SECOND)
    first.renegotiate()
    await net.pass(10 * SECOND)
    assert.ok(sent.some((bytes) => (bytes[0]! & 7) === 1))
    net.wire.tap = undefined
    const replay = (key: number) => {
      for (const bytes of sent) {
        const odd = bytes.slice()
        odd[0] = (odd[0]! & 0xf8) | key
        net.wire.inject({ from: first.at, to: SERVER_AT, bytes: odd }, 1)
        net.wire.inject({ from: first.at, to: SERVER_AT, bytes }, 1)
      }
    }
    const second = net.client('alice', { at: first.at })
    for (let step = 0; step < 80; step++) {
      await net.pass(10)
      replay(step % 8)
    }
    await net.pass(20 * SECOND)
    assert.ok(second.connectedAt !== undefined)
    second.renegotiate()
    replay(1)
    await net.pass(10 * SECOND)
    assert.deepEqual([[...second.keys.keys()].at(-1), net.server.size], [1, 1])
    assert.deepEqual(
      net.logged.filter((line) => /wrong|not a function|undefined/.test(line)),
      [],
    )
    await net.end()
  })

  it('CVE-2026-40215: nothing of a handshake goes to who begins another from the same address', async () => {
    const net = await ServerNet.open({ seed: 3 })
    const first = net.client('alice', { packets: 3 })
    await net.pass(SECOND)
    assert.equal(net.server.size, 1)
    const former = first.session.sessionId
    const second = net.client('alice', { at: first.at })
    let begun = false
    let toFormer = 0
    net.wire.tap = ({ from, bytes }) => {
      if (from.key !== SERVER_AT.key) return
      const packet = decodeControl(bytes)!
      begun ||= packet.peerSessionId !== undefined && packet.opcode === Opcode.ControlV1
      if (begun && packet.peerSessionId !== undefined) {
        if (Buffer.compare(packet.peerSessionId, former) === 0) toFormer++
      }
    }
    await net.pass(MINUTE)
    assert.ok(begun && second.connectedAt !== undefined)
    assert.equal(toFormer, 0)
    await net.end()
  })

  it('CVE-2024-28882: who has to go goes, whatever it says meanwhile', async () => {
    const net = await ServerNet.open()
    const client = net.client('mallory')
    await net.pass(10 * SECOND)
    const [{ id }] = net.server.clients() as [ServerClient]
    net.server.dismiss(id, 'enough')
    for (let i = 0; i < 8; i++) {
      for (const text of ['EXIT', 'PUSH_REQUEST', 'CR_RESPONSE,eA=='])
        client.session.sendMessage(text)
      client.renegotiate()
      await net.pass(SECOND)
    }
    assert.equal(net.server.size, 0)
    assert.deepEqual([...net.driver.peersById], [])
    await net.end()
  })

  it('CVE-2020-15078: nothing is pushed, and nothing carried, before somebody has decided', async () => {
    let decide: (decision: AuthDecision) => void = () => {}
    const authenticate = () => new Promise<AuthDecision>((resolve) => (decide = resolve))
    const net = await ServerNet.open({ policy: { authenticate, decidesAll: true } })
    const client = net.client('mallory')
    for (let i = 0; i < 20; i++) {
      client.session.sendMessage('PUSH_REQUEST')
      await net.pass(SECOND)
    }
    assert.deepEqual([client.texts, [...net.driver.peersById]], [[], []])
    decide({ allow: false, failure: { reason: 'denied', text: 'no' } })
    await net.pass(3 * SECOND)
    assert.deepEqual(client.texts, ['AUTH_FAILED,no'])
    assert.deepEqual([...net.driver.peersById], [])
    await net.end()
  })

  it('CVE-2022-0547: of two who decide, one that allows is not enough', async () => {
    const refused = { allow: false, failure: { reason: 'denied', text: 'no' } } as const
    for (const [first, second] of [
      [refused, { allow: true }],
      [{ allow: true }, refused],
    ] as const) {
      const net = await ServerNet.open({
        policy: { authenticate: async () => first, admit: async () => second, decidesAll: true },
      })
      const client = net.client('mallory')
      await net.pass(10 * SECOND)
      assert.deepEqual([client.texts, [...net.driver.peersById]], [['AUTH_FAILED,no'], []])
      await net.end()
    }
  })

  it('CVE-2026-12932, -13698: first packets with a client’s key leave nothing at the server', async () => {
    const net = await ServerNet.open({ tlsCryptV2: SERVER_KEY })
    const wrap = { kind: 'tls-crypt-v2', key: CLIENT_KEY, role: 'client', wkc: WKC } as const
    for (let i = 0; i < 200; i++) net.client(`client ${i}`, { wrap, packets: 1 })
    await net.pass(SECOND)
    assert.equal(net.server.strays.get('answered'), 200)
    assert.equal(net.server.size, 0)
    await net.end()
  })

  describe('what is secret is compared without telling how much of it was right', () => {
    const sources = [...new Glob('**/*.ts').scanSync(SOURCES)].filter(
      (path) => !path.includes('.test'),
    )
    const texts = new Map(sources.map((path) => [path, readFileSync(join(SOURCES, path), 'utf8')]))

    it('there are sources to look at', () => assert.ok(texts.size > 150))

    for (const [path, why] of COMPARED) {
      it(`${path}: ${why}`, () => assert.match(texts.get(path) ?? '', /timingSafeEqual\(/))
    }

    it('whoever makes a MAC compares it so, or makes keys of it', () => {
      const compared = COMPARED.map(([path]) => path)
      for (const [path, text] of texts) {
        if (!text.includes('createHmac(') || MAKES_KEYS.includes(path)) continue
        assert.ok(compared.includes(path), `${path} makes MACs: what compares them?`)
      }
    })

    it('no bytes are compared by what stops at the first that differs', () => {
      for (const [path, text] of texts) {
        if (!text.includes('createHmac(') && !text.includes('timingSafeEqual(')) continue
        assert.doesNotMatch(text, /\.equals\(|Buffer\.compare\(|digest\([^)]*\) *[!=]==/, path)
      }
    })
  })
})
