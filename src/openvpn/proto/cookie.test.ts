import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import {
  type ControlPacket,
  decodeControl,
  decodeResetOptions,
  encodeControl,
} from '../../wire/control.ts'
import { Opcode } from '../../wire/opcode.ts'
import { sealWkc } from '../../wire/wkc.ts'
import { createWrap, RESENDS_WKC_REPLAY_ID, type WrapSettings } from '../../wire/wrap.ts'
import { Door, type DoorSettings, type Opening } from './cookie.ts'

const random = new Random(1)
const SECRET = random.bytes(32)
const KEY = random.bytes(256)
const SERVER_KEY = random.bytes(128)
const METADATA = Uint8Array.of(0, 1, 2)
const CLIENT = random.bytes(8)
const NOTHING = new Uint8Array(0)
const WKC = sealWkc(SERVER_KEY, KEY, METADATA)
const HAND_WINDOW = 60
/** In the middle of a time slot of 30 seconds. */
const NOW = 1_800_000_015
const ADDRESS = '192.0.2.1:1194'

const v2 = (forceCookie = false): DoorSettings => ({
  tlsCryptV2: { serverKey: SERVER_KEY, forceCookie },
})

const reset = (more: Partial<ControlPacket> = {}): ControlPacket => ({
  opcode: Opcode.HardResetClientV2,
  keyId: 0,
  sessionId: CLIENT,
  acks: [],
  messageId: 0,
  payload: NOTHING,
  ...more,
})

const second = (cookie: Uint8Array, more: Partial<ControlPacket> = {}): ControlPacket => ({
  opcode: Opcode.ControlV1,
  keyId: 0,
  sessionId: CLIENT,
  acks: [0],
  peerSessionId: cookie,
  messageId: 1,
  payload: Uint8Array.of(22),
  ...more,
})

/** The server's session id in the answer to a reset. */
function cookieFrom(door: Door, address = ADDRESS, now = NOW): Uint8Array {
  const greeting = door.greet(encodeControl(reset()), address, now)
  assert.ok(greeting.action === 'reply')
  return decodeControl(greeting.packet)!.sessionId
}

describe('a door without a wrap', () => {
  const door = new Door({ wrap: { kind: 'none' } }, SECRET, HAND_WINDOW)
  const cookie = cookieFrom(door)

  it('answers a reset, and again with the same', () => {
    const greeting = door.greet(encodeControl(reset()), ADDRESS, NOW)
    assert.ok(greeting.action === 'reply')
    assert.deepEqual(decodeControl(greeting.packet), {
      opcode: Opcode.HardResetServerV2,
      keyId: 0,
      sessionId: cookie,
      acks: [0],
      peerSessionId: CLIENT,
      messageId: 0,
      payload: NOTHING,
    })
  })

  it('makes other session ids for others', () => {
    const other = new Door({ wrap: { kind: 'none' } }, new Uint8Array(32), HAND_WINDOW)
    assert.notDeepEqual(cookieFrom(other), cookie, 'another secret')
    assert.notDeepEqual(cookieFrom(door, '192.0.2.1:1195'), cookie, 'another port')
    assert.notDeepEqual(cookieFrom(door, ADDRESS, NOW + 30), cookie, 'another time')
  })

  const wrong = Uint8Array.from(cookie)
  wrong[7]! ^= 1
  type Row = [packet: ControlPacket, seconds: number, expected: string, why: string]
  const rows: Row[] = [
    [second(cookie), 0, 'create', 'the first packet of TLS'],
    [second(cookie, { payload: NOTHING }), 0, 'create', 'one with nothing in it'],
    [second(cookie, { acks: [1, 0] }), 0, 'create', 'it may acknowledge 1'],
    [second(cookie, { acks: [0, 2] }), 0, 'malformed', 'but nothing that was never sent'],
    [second(cookie, { messageId: 2 }), 0, 'malformed', 'the first packet of TLS is message 1'],
    [second(cookie, { messageId: 0 }), 0, 'create', 'OpenVPN 2.6.15 takes ids up to 1'],
    [second(cookie), 74, 'create', 'the slot before the last is good still'],
    [second(cookie), 75, 'cookie', 'an older one is not'],
    [second(cookie), -16, 'cookie', 'nor one from the future'],
    [second(wrong), 0, 'cookie', 'one bit is not ours'],
    [second(cookie, { sessionId: random.bytes(8) }), 0, 'cookie', "another client's"],
    [second(cookie, { keyId: 1 }), 0, 'unexpected', 'another key'],
    [second(cookie, { opcode: Opcode.SoftResetV1 }), 0, 'unexpected', 'a soft reset'],
    [second(cookie, { opcode: Opcode.ControlWkcV1 }), 0, 'unexpected', 'there is no v2 here'],
    [second(cookie, { opcode: Opcode.HardResetServerV2 }), 0, 'unexpected', "a server's"],
    [reset({ messageId: 1 }), 0, 'malformed', 'a reset is message 0'],
    [reset({ acks: [0], peerSessionId: cookie }), 0, 'malformed', 'a reset acknowledges nothing'],
    [reset({ opcode: Opcode.HardResetClientV3 }), 0, 'unexpected', 'there is no v2 here'],
    [reset(), 0, 'reply', 'a reset'],
  ]
  for (const [packet, seconds, expected, why] of rows) {
    it(`${expected}: ${why}`, () => {
      const greeting = door.greet(encodeControl(packet), ADDRESS, NOW + seconds)
      assert.equal(greeting.action === 'drop' ? greeting.reason : greeting.action, expected)
    })
  }

  it('believes a bare acknowledgement, too', () => {
    const { messageId: _, ...ack } = second(cookie, { opcode: Opcode.AckV1, payload: NOTHING })
    assert.equal(door.greet(encodeControl(ack), ADDRESS, NOW).action, 'create')
  })

  it('without an acknowledgement nothing comes back', () => {
    const { peerSessionId: _, ...packet } = second(cookie, { acks: [] })
    const greeting = door.greet(encodeControl(packet), ADDRESS, NOW)
    assert.deepEqual(greeting, { action: 'drop', reason: 'cookie' })
  })

  it('tells what to make a session from', () => {
    const greeting = door.greet(encodeControl(second(cookie)), ADDRESS, NOW)
    const opening: Opening = {
      peerSessionId: CLIENT,
      sessionId: cookie,
      wrap: { kind: 'none' },
      firstReplayId: 2,
    }
    assert.deepEqual(greeting, { action: 'create', opening })
  })

  it('keeps all of a stream, from its reset on', () => {
    const opening: Opening = { peerSessionId: CLIENT, wrap: { kind: 'none' }, firstReplayId: 1 }
    assert.deepEqual(door.greetStream(encodeControl(reset())), { action: 'create', opening })
    const greeting = door.greetStream(encodeControl(second(cookie)))
    assert.deepEqual(greeting, { action: 'drop', reason: 'unexpected' })
  })
})

describe('a door with a wrap', () => {
  const wraps: [
    name: string,
    server: Exclude<WrapSettings, { kind: 'tls-crypt-v2' }>,
    client: WrapSettings,
  ][] = [
    [
      'tls-auth',
      { kind: 'tls-auth', key: KEY, digest: 'SHA256', direction: 0 },
      { kind: 'tls-auth', key: KEY, digest: 'SHA256', direction: 1 },
    ],
    [
      'tls-crypt',
      { kind: 'tls-crypt', key: KEY, role: 'server' },
      { kind: 'tls-crypt', key: KEY, role: 'client' },
    ],
  ]
  for (const [name, server, settings] of wraps) {
    it(`${name}: answers, and its session goes on with the wrap`, () => {
      const door = new Door({ wrap: server }, SECRET, HAND_WINDOW)
      const client = createWrap(settings)
      const greeting = door.greet(client.wrap(reset(), NOW), ADDRESS, NOW)
      assert.ok(greeting.action === 'reply')
      const answer = client.unwrap(greeting.packet)!
      const next = door.greet(client.wrap(second(answer.sessionId), NOW), ADDRESS, NOW)
      assert.ok(next.action === 'create')
      const { wrap, firstReplayId } = next.opening
      const packet = createWrap(wrap, firstReplayId).wrap(reset(), NOW)
      assert.ok(client.unwrap(packet), 'within the same second it is no replay')
    })

    it(`${name}: drops what was wrapped with another key`, () => {
      const door = new Door({ wrap: server }, SECRET, HAND_WINDOW)
      const other = createWrap({ ...settings, key: random.bytes(256) } as WrapSettings)
      const greeting = door.greet(other.wrap(reset(), NOW), ADDRESS, NOW)
      assert.deepEqual(greeting, { action: 'drop', reason: 'wrap' })
    })
  }
})

describe('a door with tls-crypt-v2', () => {
  const settings = { kind: 'tls-crypt-v2', key: KEY, role: 'client', wkc: WKC } as const
  const first = reset({ opcode: Opcode.HardResetClientV3 })

  it('asks for the wrapped key again, keeps nothing, and then has all', () => {
    const door = new Door(v2(true), SECRET, HAND_WINDOW)
    const client = createWrap(settings, RESENDS_WKC_REPLAY_ID)
    const greeting = door.greet(client.wrap(first, NOW), ADDRESS, NOW)
    assert.ok(greeting.action === 'reply')
    const answer = client.unwrap(greeting.packet)!
    assert.deepEqual(decodeResetOptions(answer.payload), { resendWkc: true })
    const packet = second(answer.sessionId, { opcode: Opcode.ControlWkcV1 })
    const next = door.greet(client.wrap(packet, NOW), ADDRESS, NOW)
    assert.ok(next.action === 'create')
    assert.deepEqual(next.opening.metadata, METADATA)
    assert.deepEqual(next.opening.wrap, { kind: 'tls-crypt-v2', key: KEY, role: 'server' })
  })

  it('keeps the key of a client that cannot send it twice (2.5)', () => {
    const packet = createWrap(settings).wrap(first, NOW)
    const greeting = new Door(v2(), SECRET, HAND_WINDOW).greet(packet, ADDRESS, NOW)
    assert.ok(greeting.action === 'create')
    assert.equal(greeting.opening.sessionId, undefined)
    assert.deepEqual(new Door(v2(true), SECRET, HAND_WINDOW).greet(packet, ADDRESS, NOW), {
      action: 'drop',
      reason: 'no-cookie',
    })
  })

  it('has a stream send its key once', () => {
    const packet = createWrap(settings, RESENDS_WKC_REPLAY_ID).wrap(first, NOW)
    const greeting = new Door(v2(true), SECRET, HAND_WINDOW).greetStream(packet)
    assert.equal(greeting.action, 'create')
  })

  it('has clients of both kinds', () => {
    const door = new Door({ ...v2(), wrap: { kind: 'none' } }, SECRET, HAND_WINDOW)
    assert.equal(door.greet(encodeControl(reset()), ADDRESS, NOW).action, 'reply')
    const packet = createWrap(settings, RESENDS_WKC_REPLAY_ID).wrap(first, NOW)
    assert.equal(door.greet(packet, ADDRESS, NOW).action, 'reply')
  })

  const refusals: [door: Door, wkc: Uint8Array, reason: string, why: string][] = [
    [
      new Door(v2(), SECRET, HAND_WINDOW),
      sealWkc(new Uint8Array(128), KEY, METADATA),
      'wkc',
      'made with the key of another server',
    ],
    [
      new Door(v2(), SECRET, HAND_WINDOW),
      sealWkc(SERVER_KEY, new Uint8Array(256), METADATA),
      'wrap',
      'not the key that the packet was wrapped with',
    ],
    [new Door(v2(), SECRET, HAND_WINDOW), Uint8Array.of(1, 44), 'wkc', 'a length and nothing'],
    [
      new Door(
        { tlsCryptV2: { serverKey: SERVER_KEY, forceCookie: false, accepts: () => false } },
        SECRET,
        HAND_WINDOW,
      ),
      WKC,
      'wkc',
      'its metadata is not accepted',
    ],
  ]
  for (const [door, wkc, reason, why] of refusals) {
    it(`drops a wrapped key: ${why}`, () => {
      const packet = createWrap({ ...settings, wkc }, RESENDS_WKC_REPLAY_ID).wrap(first, NOW)
      assert.deepEqual(door.greet(packet, ADDRESS, NOW), { action: 'drop', reason })
    })
  }
})

it('answers neither a packet that was changed nor one that was cut', () => {
  const settings = { kind: 'tls-crypt-v2', key: KEY, role: 'client', wkc: WKC } as const
  const door = new Door(v2(), SECRET, HAND_WINDOW)
  const good = createWrap(settings, RESENDS_WKC_REPLAY_ID).wrap(
    reset({ opcode: Opcode.HardResetClientV3 }),
    NOW,
  )
  for (let length = 0; length < good.length; length++) {
    assert.equal(door.greet(good.slice(0, length), ADDRESS, NOW).action, 'drop')
    const changed = Uint8Array.from(good)
    changed[length]! ^= 1 << random.below(8)
    assert.equal(door.greet(changed, ADDRESS, NOW).action, 'drop', `byte ${length}`)
  }
})

it('throws at nothing, whatever comes', () => {
  const doors = [
    new Door({ wrap: { kind: 'none' } }, SECRET, HAND_WINDOW),
    new Door(v2(), SECRET, 1),
  ]
  for (let i = 0; i < 20_000; i++) {
    const noise = random.bytes(random.below(400))
    if (noise.length > 0) noise[0] = (3 + random.below(9)) << 3
    for (const door of doors) {
      door.greet(noise, ADDRESS, NOW)
      door.greetStream(noise)
    }
  }
})
