import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { hex, type LiveSession, loadVectors, type WrapCase } from '../../test/vectors/load.ts'
import { type ControlPacket, decodeControl, encodeControl } from './control.ts'
import { Opcode } from './opcode.ts'
import { openWkc, sealWkc, splitWkc } from './wkc.ts'
import {
  announcesWkc,
  createWrap,
  digestBytes,
  dynamicWrap,
  RESENDS_WKC_REPLAY_ID,
  type Wrap,
  type WrapSettings,
} from './wrap.ts'

const NOW = 1_700_000_000
const random = new Random(3)
const key = random.bytes(256)
const serverKey = random.bytes(128)
const wkc = sealWkc(serverKey, key, new Uint8Array(0))

const reset: ControlPacket = {
  opcode: Opcode.HardResetClientV2,
  keyId: 0,
  sessionId: hex('6891923fa3103437'),
  acks: [],
  messageId: 0,
  payload: new Uint8Array(0),
}

/** Header and session id are before the wrap, `body` behind or in it. */
function plainOf({ packet, body }: WrapCase): ControlPacket {
  return decodeControl(hex(packet.slice(0, 18) + body))!
}

function checkCase(row: WrapCase, sender: WrapSettings, receiver: WrapSettings) {
  const plain = plainOf(row)
  const sent = createWrap(sender, row.replay_id).wrap(plain, row.replay_time)
  assert.deepEqual(sent, hex(row.packet))
  const wrap = createWrap(receiver)
  assert.deepEqual(wrap.unwrap(sent), plain)
  assert.equal(wrap.replayId, row.replay_id)
  assert.equal(wrap.unwrap(sent), undefined)
  assert.equal(wrap.refusal, 'replayed')
}

describe('tls-auth', () => {
  for (const row of loadVectors('tls-auth').cases) {
    it(`${row.name}, ${row.digest}, half ${row.key_index}`, () => {
      const settings = { kind: 'tls-auth', key: hex(row.static_key), digest: row.digest } as const
      const end =
        row.name === 'server reset sha1'
          ? [undefined, undefined]
          : [row.key_index, 1 - row.key_index]
      const [sender, receiver] = end as (0 | 1 | undefined)[]
      checkCase(row, { ...settings, direction: sender }, { ...settings, direction: receiver })
    })
  }
})

describe('tls-crypt', () => {
  for (const row of loadVectors('tls-crypt').cases) {
    if (row.header === '') continue // of a unit test that seals something else than a packet
    it(`${row.name}, half ${row.key_index}`, () => {
      const settings = { kind: 'tls-crypt', key: hex(row.key2) } as const
      const server = { ...settings, role: 'server' } as const
      const client = { ...settings, role: 'client' } as const
      const [sender, receiver] = row.key_index === 0 ? [server, client] : [client, server]
      checkCase(row, sender, receiver)
    })
  }
})

describe('tls-crypt-v2', () => {
  const { packets, wkc: wrapped } = loadVectors('tls-crypt-v2')
  for (const row of packets) {
    it('the first packet of a client that can send its WKc again', () => {
      const theirs = wrapped.find(({ client_key }) => client_key === row.kc)!
      const settings = { kind: 'tls-crypt-v2', role: 'client', key: hex(row.kc) } as const
      const client = createWrap({ ...settings, wkc: hex(theirs.wkc) }, RESENDS_WKC_REPLAY_ID)
      const packet: ControlPacket = {
        ...reset,
        opcode: Opcode.HardResetClientV3,
        sessionId: hex(row.session_id),
      }
      const sent = client.wrap(packet, row.replay_time)
      assert.deepEqual(sent, hex(row.packet))
      const split = splitWkc(sent)!
      assert.deepEqual(split.packet, hex(row.wrapped))
      const { clientKey } = openWkc(hex(theirs.server_key), split.wkc)!
      const server = createWrap({ kind: 'tls-crypt-v2', role: 'server', key: clientKey })
      assert.deepEqual(server.unwrap(sent), packet)
      assert.equal(server.replayId, row.replay_id)
      assert.ok(announcesWkc(server.replayId))
    })
  }

  it('only the packets that are to have a WKc have one', () => {
    const client = createWrap({ kind: 'tls-crypt-v2', role: 'client', key, wkc })
    const server = createWrap({ kind: 'tls-crypt-v2', role: 'server', key })
    for (const opcode of [3, 4, 5, 7, 8, 10, 11] as const) {
      const { messageId, ...ack } = { ...reset, opcode }
      const packet = opcode === Opcode.AckV1 ? ack : { ...ack, messageId: messageId! }
      const bytes = client.wrap(packet, NOW)
      const more = opcode === 10 || opcode === 11 ? client.wkcBytes : 0
      assert.equal(bytes.length, encodeControl(packet).length + client.overhead + more)
      assert.deepEqual(server.unwrap(bytes), packet)
    }
    assert.equal(client.wkcBytes, wkc.length)
    assert.equal(server.wkcBytes, 0)
  })

  const ids: [id: number, announces: boolean, why: string][] = [
    [1, false, 'a client of 2.5'],
    [0x0f000001, true, 'the first'],
    [0x0f000009, true, 'a reset that was sent again'],
    [0x0fffffff, true, 'the last of them'],
    [0x10000000, false, 'above'],
    [0x1f000001, false, 'another bit beside'],
  ]
  for (const [id, announces, why] of ids) {
    it(`replay id ${id}: ${why}`, () => assert.equal(announcesWkc(id), announces))
  }
})

describe('dynamic tls-crypt', () => {
  for (const row of loadVectors('dynamic-tls-crypt').cases) {
    it(row.name, () => {
      const original: WrapSettings =
        row.original_key === null
          ? { kind: 'none' }
          : { kind: 'tls-crypt', key: hex(row.original_key), role: 'client' }
      const client = dynamicWrap(hex(row.ekm), original, 'client')
      const bytes = hex(row.client_soft_reset_key_id_1)
      const packet: ControlPacket = {
        ...reset,
        opcode: Opcode.SoftResetV1,
        keyId: 1,
        sessionId: bytes.slice(1, 9),
      }
      assert.deepEqual(client.wrap(packet, row.replay_time), bytes)
      const server = createWrap({ kind: 'tls-crypt', key: hex(row.key2), role: 'server' })
      assert.deepEqual(server.unwrap(bytes), packet)
      assert.deepEqual(dynamicWrap(hex(row.ekm), original, 'server').unwrap(bytes), packet)
    })
  }
})

/** What was recorded without its WKc gets one. */
function recordedPacket(session: LiveSession, type: string, packet: string): Uint8Array {
  const bytes = hex(packet)
  if (session.wkc !== undefined || (type !== 'HRC3' && type !== 'WKC')) return bytes
  const server = hex(session.tls_crypt_v2_server_key!)
  const client = hex(session.tls_crypt_v2_client_key!)
  return Uint8Array.from([...bytes, ...sealWkc(server, client, new Uint8Array(0))])
}

function recordedWrap(session: LiveSession, role: 'client' | 'server'): Wrap {
  if (session.wrap === 'none') return createWrap({ kind: 'none' })
  if (session.wrap === 'tls-crypt-v2') {
    const key = hex(session.tls_crypt_v2_client_key!)
    return role === 'server'
      ? createWrap({ kind: 'tls-crypt-v2', role, key })
      : createWrap({ kind: 'tls-crypt-v2', role, key, wkc: new Uint8Array(0) })
  }
  const key = hex(session.static_key!)
  if (session.wrap === 'tls-crypt') return createWrap({ kind: 'tls-crypt', key, role })
  const direction = session.client_key_direction
  const own = role === 'client' || direction === undefined ? direction : direction === 0 ? 1 : 0
  return createWrap({ kind: 'tls-auth', key, digest: session.digest!, direction: own })
}

describe('recorded sessions, as each end received them', () => {
  for (const session of loadVectors('live-sessions').sessions) {
    it(`${session.name}, ${session.server_text ?? session.client_text}`, () => {
      const ends = { c2s: recordedWrap(session, 'server'), s2c: recordedWrap(session, 'client') }
      let count = 0
      for (const { dir, type, packet, acks, message_id, key_id, body } of session.packets) {
        if (type === 'data') continue
        count++
        const bytes = recordedPacket(session, type, packet)
        const read = ends[dir].unwrap(bytes)
        assert.ok(read, `packet ${count}: ${ends[dir].refusal}`)
        assert.deepEqual(read.acks, acks)
        assert.equal(read.messageId ?? null, message_id)
        assert.equal(read.keyId, key_id)
        const sender = dir === 'c2s' ? session.client_session_id : session.server_session_id
        assert.deepEqual(read.sessionId, hex(sender))
        if (body !== undefined) assert.deepEqual(encodeControl(read).subarray(9), hex(body))
      }
      assert.ok(count > 10)
    })
  }
})

const kinds: [name: string, sender: WrapSettings, receiver: WrapSettings, overhead: number][] = [
  ['none', { kind: 'none' }, { kind: 'none' }, 0],
  ...(['SHA1', 'SHA256', 'SHA512'] as const).map(
    (digest, i): [string, WrapSettings, WrapSettings, number] => [
      `tls-auth ${digest}`,
      { kind: 'tls-auth', key, digest, direction: 1 },
      { kind: 'tls-auth', key, digest, direction: 0 },
      [28, 40, 72][i]!,
    ],
  ),
  [
    'tls-auth in one direction',
    { kind: 'tls-auth', key, digest: 'SHA1' },
    { kind: 'tls-auth', key, digest: 'SHA1' },
    28,
  ],
  [
    'tls-crypt',
    { kind: 'tls-crypt', key, role: 'client' },
    { kind: 'tls-crypt', key, role: 'server' },
    40,
  ],
  [
    'tls-crypt-v2',
    { kind: 'tls-crypt-v2', key, role: 'server' },
    { kind: 'tls-crypt-v2', key, role: 'client', wkc },
    40,
  ],
]

for (const [name, sender, receiver, overhead] of kinds) {
  describe(name, () => {
    it('takes back what it gave, whatever the packet', () => {
      const [from, to] = [createWrap(sender), createWrap(receiver)]
      assert.equal(from.overhead, overhead)
      for (let round = 0; round < 200; round++) {
        const acks = Array.from({ length: random.below(9) }, () => random.below(2 ** 32))
        const packet: ControlPacket = {
          opcode: Opcode.ControlV1,
          keyId: random.below(8),
          sessionId: random.bytes(8),
          acks,
          ...(acks.length > 0 && { peerSessionId: random.bytes(8) }),
          messageId: round,
          payload: random.bytes(random.below(1300)),
        }
        const bytes = from.wrap(packet, NOW + round)
        assert.equal(bytes.length, encodeControl(packet).length + overhead)
        assert.deepEqual(to.unwrap(bytes), packet)
      }
    })

    it('refuses what is cut short or noise, and is not moved by it', () => {
      const [from, to] = [createWrap(sender), createWrap(receiver)]
      const bytes = from.wrap(reset, NOW)
      for (let length = 0; length < bytes.length; length++) {
        assert.equal(to.unwrap(bytes.subarray(0, length)), undefined, `${length} bytes`)
      }
      for (let round = 0; round < 300; round++) {
        const noise = random.bytes(random.below(1500))
        if (noise.length > 0) noise[0] = [0x20, 0x38, 0x50, 0x58][random.below(4)]!
        if (sender.kind !== 'none') assert.equal(to.unwrap(noise), undefined)
        else to.unwrap(noise)
      }
      assert.deepEqual(to.unwrap(bytes), reset)
    })
  })

  if (sender.kind === 'none') continue

  describe(`${name}: what is not from the other end`, () => {
    it('any bit changed is noticed', () => {
      const [from, to] = [createWrap(sender), createWrap(receiver)]
      const bytes = from.wrap(reset, NOW)
      for (let bit = 0; bit < 8 * bytes.length; bit++) {
        const changed = Uint8Array.from(bytes)
        changed[bit >> 3]! ^= 1 << (bit & 7)
        assert.equal(to.unwrap(changed), undefined, `bit ${bit}`)
        assert.match(to.refusal, /unauthentic|short/)
      }
      assert.deepEqual(to.unwrap(bytes), reset)
    })

    it('replays are refused, within the window and behind it; a later start is another', () => {
      const from = createWrap(sender)
      const to = createWrap(receiver)
      const sent = Array.from({ length: 100 }, () => from.wrap(reset, NOW))
      for (const i of [0, 5, 3, 99, 40]) assert.ok(to.unwrap(sent[i]!), `packet ${i}`)
      for (const i of [0, 5, 99, 40, 20]) {
        assert.equal(to.unwrap(sent[i]!), undefined, `packet ${i} again`)
        assert.equal(to.refusal, 'replayed')
      }
      const later = createWrap(sender).wrap(reset, NOW + 1)
      assert.ok(to.unwrap(later), 'ids from 1, at a later time')
      assert.equal(to.unwrap(sent[98]!), undefined, 'of the earlier time, though never seen')
    })

    it('the time is that of the first packet, and moves on when ids are used up', () => {
      const from = createWrap(sender, 0xfffffffe)
      const to = createWrap(receiver)
      const ids: number[] = []
      for (const seconds of [0, 10, 0, 1]) {
        assert.ok(to.unwrap(from.wrap(reset, NOW + seconds)), to.refusal)
        ids.push(to.replayId)
      }
      assert.deepEqual(ids, [0xfffffffe, 0xffffffff, 1, 2])
    })

    it('says what is authentic, and no packet', () => {
      const [from, to] = [createWrap(sender), createWrap(receiver)]
      const zero = { ...reset, sessionId: new Uint8Array(8) }
      assert.equal(to.unwrap(from.wrap(zero, NOW)), undefined)
      assert.equal(to.refusal, 'malformed')
    })

    it('its own packets sent back to it are refused', () => {
      if (sender.kind === 'tls-auth' && sender.direction === undefined) return // one key: they are taken
      const from = createWrap(sender)
      assert.equal(from.unwrap(from.wrap(reset, NOW)), undefined)
      assert.equal(from.refusal, 'unauthentic')
    })
  })
}

describe('settings of a wrap', () => {
  it('keys of another length and digests of nobody are refused', () => {
    const short = key.subarray(1)
    assert.throws(() => createWrap({ kind: 'tls-crypt', key: short, role: 'client' }), RangeError)
    assert.throws(() => createWrap({ kind: 'tls-auth', key, digest: 'SHA3000' }), /SHA3000/)
  })

  const digests: [name: string, length: number][] = [
    ['MD5', 16],
    ['SHA1', 20],
    ['sha1', 20],
    ['SHA224', 28],
    ['SHA256', 32],
    ['SHA384', 48],
    ['SHA512', 64],
  ]
  for (const [name, length] of digests) {
    it(`${name} has ${length} bytes`, () => assert.equal(digestBytes(name), length))
  }
})
