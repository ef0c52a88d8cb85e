import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { Clock } from '../../../test/sim/clock.ts'
import {
  CLIENT_AT,
  type EndSettings,
  SERVER_AT,
  type ServerEnd,
  SimClient,
  SimServer,
} from '../../../test/sim/control.ts'
import { createFakeTls } from '../../../test/sim/tls.ts'
import { type Noise, SILENCE, Wire } from '../../../test/sim/wire.ts'
import { type ControlPacket, decodeControl, encodeControl } from '../../wire/control.ts'
import { Opcode } from '../../wire/opcode.ts'
import { sealWkc } from '../../wire/wkc.ts'
import { createWrap, type WrapSettings } from '../../wire/wrap.ts'
import type { DoorSettings } from './cookie.ts'
import { MAX_EARLY_TLS_BYTES } from './limits.ts'
import { MAX_MESSAGE_BYTES } from './messages.ts'
import { DEFAULT_DATA_CIPHERS } from './negotiate.ts'
import type { SessionKey } from './session.ts'

const keyRandom = new Random(99)
const KEY = keyRandom.bytes(256)
const SERVER_KEY = keyRandom.bytes(128)
const WKC = sealWkc(SERVER_KEY, KEY, new Uint8Array(0))
const MINUTE = 60_000
const HOUR = 60 * MINUTE

interface Mode {
  name: string
  client: WrapSettings
  server: DoorSettings
}

const MODES: Mode[] = [
  { name: 'no wrap', client: { kind: 'none' }, server: { wrap: { kind: 'none' } } },
  {
    name: 'tls-auth with a direction',
    client: { kind: 'tls-auth', key: KEY, digest: 'SHA256', direction: 1 },
    server: { wrap: { kind: 'tls-auth', key: KEY, digest: 'SHA256', direction: 0 } },
  },
  {
    name: 'tls-auth without',
    client: { kind: 'tls-auth', key: KEY, digest: 'SHA1' },
    server: { wrap: { kind: 'tls-auth', key: KEY, digest: 'SHA1' } },
  },
  {
    name: 'tls-crypt',
    client: { kind: 'tls-crypt', key: KEY, role: 'client' },
    server: { wrap: { kind: 'tls-crypt', key: KEY, role: 'server' } },
  },
  {
    name: 'tls-crypt-v2',
    client: { kind: 'tls-crypt-v2', key: KEY, role: 'client', wkc: WKC },
    server: { tlsCryptV2: { serverKey: SERVER_KEY, forceCookie: true } },
  },
]

/** A client and a server on one wire. */
class Rig {
  readonly clock = new Clock()
  readonly random: Random
  readonly wire: Wire
  readonly server: SimServer
  readonly client: SimClient
  clientCertificate = Uint8Array.of(1)

  constructor(
    seed: number,
    mode: Mode,
    noise: Partial<Noise> = {},
    client: Partial<EndSettings> = {},
    server: Partial<EndSettings> = {},
    push: string[] = [],
  ) {
    this.random = new Random(seed)
    const { clock, random } = this
    this.wire = new Wire(clock, random, { ...SILENCE, ...noise })
    const settings = (certificate: () => Uint8Array): EndSettings => ({
      clock,
      random,
      policy: { dataCiphers: DEFAULT_DATA_CIPHERS, epoch: true },
      tls: createFakeTls({ random, later: (run) => clock.after(0, run), certificate }),
    })
    this.server = new SimServer(
      { ...settings(() => Uint8Array.of(2)), ...server },
      mode.server,
      push,
    )
    this.server.listen(this.wire, SERVER_AT)
    this.client = new SimClient(
      { ...settings(() => this.clientCertificate), ...client },
      mode.client,
      (packet) => this.wire.send(CLIENT_AT, SERVER_AT, packet),
    )
    this.wire.attach(CLIENT_AT, ({ bytes }) => this.client.receive(bytes))
  }

  /** The server's end. */
  get peer(): ServerEnd {
    return this.server.sessions.at(-1)!
  }

  run(milliseconds: number): this {
    this.clock.runUntil(this.clock.now + milliseconds)
    return this
  }

  /** Until both ends have data keys of key id 0. */
  connect(): this {
    const end = this.clock.now + 3 * MINUTE
    while (this.client.connectedAt === undefined || this.peer?.connectedAt === undefined) {
      assert.equal(this.client.error, undefined)
      assert.ok(this.clock.now < end, 'connected in time')
      this.run(100)
    }
    return this
  }
}

/** From here on the client's soft resets are left out on the wire, and what follows them has numbers one lower. */
function withoutSoftResets(rig: Rig): void {
  const changed = (bytes: Uint8Array, change: (packet: ControlPacket) => void) => {
    const packet = decodeControl(bytes)!
    if (packet.keyId !== 0) change(packet)
    return encodeControl(packet)
  }
  rig.wire.detach(SERVER_AT)
  rig.wire.attach(SERVER_AT, ({ bytes }) => {
    if (decodeControl(bytes)!.opcode === Opcode.SoftResetV1) return
    rig.peer.receive(
      changed(bytes, (packet) => {
        if (packet.messageId !== undefined) packet.messageId--
      }),
    )
  })
  rig.wire.detach(CLIENT_AT)
  rig.wire.attach(CLIENT_AT, ({ bytes }) => {
    rig.client.receive(
      changed(bytes, (packet) => {
        if (packet.acks.length > 0) packet.acks = [0, ...packet.acks.map((id) => id + 1)]
      }),
    )
  })
}

/** Keys of one end as the other must have them. */
function mirrored(key: SessionKey): SessionKey {
  return { ...key, encryptDir: key.decryptDir, decryptDir: key.encryptDir }
}

function assertSameKeys(rig: Rig): void {
  assert.deepEqual(rig.peer.made.map(mirrored), rig.client.made)
}

describe('a handshake over a good wire', () => {
  for (const mode of MODES) {
    it(`${mode.name}: both ends have the same keys`, () => {
      const rig = new Rig(1, mode).connect()
      assert.equal(rig.client.connectedAt! <= 400, true, `after ${rig.client.connectedAt} ms`)
      assertSameKeys(rig)
      assert.equal(rig.server.sessions.length, 1)
      assert.equal(rig.server.replies, 1)
      assert.deepEqual([...rig.client.session.drops, ...rig.peer.session.drops], [])
      assert.ok(rig.client.keys.get(0)!.format === 'epoch')
    })
  }

  it('is the same with keys from the PRF', () => {
    const info = 'IV_PROTO=2\nIV_NCP=2\n'
    const rig = new Rig(1, MODES[0]!, {}, { hello: { peerInfo: info } }).connect()
    assertSameKeys(rig)
    assert.equal(rig.client.keys.get(0)!.format, undefined)
  })

  it('is silent when it is done', () => {
    const rig = new Rig(1, MODES[3]!).connect().run(MINUTE)
    const { packets } = rig.client
    rig.run(HOUR)
    assert.equal(rig.client.packets, packets)
  })

  it('joins a long reply', () => {
    const push = Array.from(
      { length: 300 },
      (_, i) => `route 10.${i >> 8}.${i & 255}.0 255.255.255.0`,
    )
    const rig = new Rig(1, MODES[3]!, {}, {}, {}, push).connect()
    assert.deepEqual(rig.client.pushed.slice(0, push.length), push)
  })

  it('keeps packets below the limit', () => {
    for (const mode of MODES) {
      const rig = new Rig(1, mode, {}, { maxPacket: 600 }, { maxPacket: 600 })
      let longest = 0
      rig.wire.tap = ({ bytes }) => {
        longest = Math.max(longest, bytes.length)
      }
      rig.connect()
      assert.ok(longest <= 600 && longest > 500, `${mode.name}: ${longest}`)
    }
  })
})

describe('over a stream', () => {
  for (const mode of MODES) {
    it(`${mode.name}: a first key and two more, and nothing is sent again`, () => {
      const { clock, server, client: template } = new Rig(23, mode)
      let sent = 0
      let peer: ServerEnd | undefined
      const later = (packet: Uint8Array, run: (packet: Uint8Array) => void) => {
        sent++
        clock.after(20, () => run(packet))
      }
      const client: SimClient = new SimClient(template.settings, mode.client, (packet) =>
        later(packet, (bytes) => {
          if (peer !== undefined) peer.receive(bytes)
          else peer = server.stream(bytes, (answer) => later(answer, (b) => client.receive(b)))
        }),
      )
      const run = (milliseconds: number) => clock.runUntil(clock.now + milliseconds)
      run(2000)
      client.renegotiate()
      run(2000)
      peer!.renegotiate()
      run(2000)
      assert.equal(client.made.length, 3)
      assert.deepEqual(peer!.made.map(mirrored), client.made)
      assert.deepEqual([...client.session.drops, ...peer!.session.drops], [])
      assert.ok(sent < 60, `${sent} packets`)
    })
  }

  it('nothing but a reset begins one', () => {
    const { server, client } = new Rig(24, MODES[0]!)
    const noise = Uint8Array.from({ length: 40 }, () => 0x20)
    assert.equal(
      server.stream(noise, () => {}),
      undefined,
    )
    assert.equal(client.error, undefined)
  })
})

describe('a client that cannot send its wrapped key twice (2.5)', () => {
  it('is answered with something kept, and connects', () => {
    const server: DoorSettings = { tlsCryptV2: { serverKey: SERVER_KEY, forceCookie: false } }
    const old: Mode = { name: 'old', client: MODES[4]!.client, server }
    const rig = new Rig(25, old)
    // Its replay ids begin with 1: it is what tells a server.
    const outer = createWrap(old.client)
    const inner = createWrap({ kind: 'tls-crypt-v2', key: KEY, role: 'server' })
    rig.client.send = (packet) => {
      rig.wire.send(CLIENT_AT, SERVER_AT, outer.wrap(inner.unwrap(packet)!, 1_800_000_000))
    }
    rig.connect()
    assert.equal(rig.server.replies, 0)
    assert.deepEqual(rig.peer.made.map(mirrored), rig.client.made)
  })
})

describe('renewed keys', () => {
  const byClient = (rig: Rig) => rig.client.renegotiate()
  const byServer = (rig: Rig) => rig.peer.renegotiate()
  const starts: [name: string, start: (rig: Rig) => void][] = [
    ['the client', byClient],
    ['the server', byServer],
    [
      'both at once',
      (rig) => {
        byClient(rig)
        byServer(rig)
      },
    ],
  ]
  for (const mode of MODES) {
    for (const [name, start] of starts) {
      it(`${mode.name}: ${name}, 16 times`, () => {
        const rig = new Rig(2, mode).connect().run(1000)
        const ids = [0]
        for (let i = 0; i < 16; i++) {
          start(rig)
          rig.run(2000)
          ids.push(i < 7 ? i + 1 : ((i + 7) % 7) + 1)
        }
        assert.deepEqual(
          rig.client.made.map(({ keyId }) => keyId),
          ids,
        )
        assertSameKeys(rig)
        assert.equal(rig.client.keys.size, 2, 'the last two live')
        const secrets = rig.client.made.map(({ encryptDir }) =>
          Buffer.from(encryptDir.cipherKey).toString('hex'),
        )
        assert.equal(new Set(secrets).size, 17)
      })
    }
  }

  it('are used a hand-window later, and the old ones die a tran-window later', () => {
    const rig = new Rig(3, MODES[0]!, {}, { tranWindow: 5 * MINUTE }, { tranWindow: 5 * MINUTE })
    rig.connect().run(1000)
    byClient(rig)
    rig.run(59_000)
    assert.deepEqual(rig.client.used, [])
    rig.run(2000)
    assert.deepEqual(rig.client.used, [1])
    assert.deepEqual(rig.peer.used, [1])
    assert.deepEqual([...rig.client.keys.keys()], [0, 1])
    rig.run(5 * MINUTE)
    assert.deepEqual([...rig.client.keys.keys()], [1])
    assert.deepEqual([...rig.peer.keys.keys()], [1])
  })

  it('are used at once when the next ones begin', () => {
    const rig = new Rig(3, MODES[0]!).connect()
    for (const start of [byClient, byServer, byClient]) {
      rig.run(3000)
      start(rig)
    }
    rig.run(3000)
    for (const end of [rig.client, rig.peer]) {
      assert.deepEqual(end.used, [1, 2], 'before the keys that they follow are gone')
      assert.deepEqual([...end.keys.keys()], [2, 3])
    }
  })

  describe('of a server that has them when its last message is acknowledged, as OpenVPN', () => {
    const SHORT = { renegotiate: { least: HOUR, most: 10_000 } }
    /** From here on the acknowledgements of later keys that are packets of their own are told to `gets`, and lost unless it says true. */
    const hearing = (rig: Rig, gets: (time: number) => boolean) => {
      rig.wire.detach(SERVER_AT)
      rig.wire.attach(SERVER_AT, ({ bytes }) => {
        const { opcode, keyId } = decodeControl(bytes)!
        const isLast = opcode === Opcode.AckV1 && keyId > 0 && rig.client.made.length > 1
        if (!isLast || gets(rig.clock.now)) rig.peer.receive(bytes)
      })
    }
    const renewed = (gets: (time: number) => boolean) => {
      const rig = new Rig(7, MODES[0]!, {}, SHORT).connect().run(1000)
      hearing(rig, gets)
      byClient(rig)
      while (rig.client.made.length < 2) rig.run(1)
      return rig
    }

    it('it is told three times, for each may get lost', () => {
      const told: number[] = []
      const rig = renewed((time) => told.push(time) > 0)
      const since = rig.clock.now
      rig.run(1500)
      assert.deepEqual(
        told.map((time) => Math.round((time - since) / 250)),
        [0, 1, 3],
      )
    })

    it('keys are used after half of the time to the next', () => {
      const rig = renewed(() => true)
      rig.run(4500)
      assert.deepEqual(rig.client.used, [])
      rig.run(500)
      assert.deepEqual(rig.client.used, [1])
    })

    it('they wait, and longer, for a server that does so', () => {
      const from = { time: Infinity }
      const rig = renewed((time) => time > from.time)
      rig.run(5500)
      assert.deepEqual(rig.client.used, [], 'its message came a second time after 2 s')
      rig.run(4000)
      assert.deepEqual(rig.client.used, [], 'a third time after 6 s')
      from.time = rig.clock.now
      rig.run(6000)
      assert.deepEqual(rig.client.used, [], 'a fourth time after 14 s, and it was told then')
      rig.run(16_000)
      assert.deepEqual(rig.client.used, [1])
    })
  })

  it('are exchanged with who answers a reset with TLS at once, as OpenVPN 3 does', () => {
    const noDynamicWrap = { peerInfo: 'IV_PROTO=142\nIV_NCP=2\n' }
    const rig = new Rig(7, MODES[0]!, {}, { hello: noDynamicWrap }).connect().run(1000)
    withoutSoftResets(rig)
    for (let i = 1; i <= 3; i++) {
      byServer(rig)
      rig.run(3000)
      assert.equal(rig.peer.made.length, 1 + i)
    }
    assertSameKeys(rig)
  })

  it('come by time', () => {
    const rig = new Rig(4, MODES[3]!, {}, { renegotiate: { least: HOUR, most: HOUR } })
    rig.connect().run(10 * HOUR)
    assert.equal(rig.client.made.length, 10)
    assertSameKeys(rig)
  })

  it('begin when what is on its way has arrived', () => {
    const rig = new Rig(5, MODES[0]!).connect().run(1000)
    rig.client.session.sendMessage('INFO,before')
    byClient(rig)
    assert.equal(rig.client.session.keyId, 0)
    rig.run(1000)
    assert.equal(rig.client.session.keyId, 1)
    assert.ok(rig.peer.texts.includes('INFO,before'))
  })

  it('wait until the first ones are agreed', () => {
    const rig = new Rig(6, MODES[0]!)
    byClient(rig)
    rig.connect()
    assert.equal(rig.client.made.length, 1)
    rig.run(5000) // the server drops a reset that comes at once
    assert.equal(rig.client.made.length, 2)
  })
})

describe('a wire that loses, repeats and reorders', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new Random(seed)
    const mode = MODES[seed % MODES.length]!
    const noise: Partial<Noise> = {
      lost: 100 * random.below(26),
      repeated: 100 * random.below(20),
      delay: random.below(100),
      jitter: random.below(200),
    }
    it(`seed ${seed}: ${mode.name}, ${noise.lost! / 100} % lost`, () => {
      const period = { least: 20 * MINUTE, most: 30 * MINUTE }
      const rig = new Rig(seed, mode, noise, { renegotiate: period }, { renegotiate: period })
      rig.run(5 * MINUTE)
      if (rig.client.connectedAt === undefined) {
        // With bad luck: back-off doubles, and 60 seconds are over.
        assert.ok(noise.lost! > 1000 && rig.client.error !== undefined, 'connected')
        return
      }
      for (let i = 0; i < 20; i++) {
        const [one, other] = random.below(2) === 0 ? [rig.client, rig.peer] : [rig.peer, rig.client]
        one.session.sendMessage(`INFO,${seed} ${i}`)
        rig.run(random.below(10 * MINUTE))
        if (one.error !== undefined || other.error !== undefined) return
      }
      rig.run(2 * MINUTE)
      const texts = [...rig.client.texts, ...rig.peer.texts]
      if (rig.client.error === undefined && rig.peer.error === undefined) {
        for (let i = 0; i < 20; i++) assert.ok(texts.includes(`INFO,${seed} ${i}`), `text ${i}`)
      }
      const common = Math.min(rig.client.made.length, rig.peer.made.length)
      assert.deepEqual(
        rig.peer.made.slice(0, common).map(mirrored),
        rig.client.made.slice(0, common),
      )
    })
  }
})

describe('a wire that changes and cuts', () => {
  for (let seed = 1; seed <= 100; seed++) {
    const mode = MODES[seed % MODES.length]!
    it(`seed ${seed}: ${mode.name}`, () => {
      const noise = { changed: 500, cut: 200, delay: 10, jitter: 50 }
      const rig = new Rig(seed, mode, noise).run(2 * MINUTE)
      if (mode.client.kind === 'none') return // TLS notices, and the session fails
      assert.equal(rig.client.error, undefined)
      assert.ok(rig.client.connectedAt !== undefined)
      assertSameKeys(rig)
    })
  }
})

describe('who stops in the middle', () => {
  /** Lets the first `count` packets of the client through. */
  function mute(count: number): Rig {
    const rig = new Rig(7, MODES[3]!)
    let sent = 0
    const { clock, wire } = rig
    rig.wire.attach(SERVER_AT, () => assert.fail('replaced'))
    wire.attach(SERVER_AT, ({ from, bytes }) => {
      if (sent++ < count)
        rig.server.datagram(from.key, bytes, (packet) => wire.send(SERVER_AT, from, packet))
    })
    clock.runUntil(5 * MINUTE)
    return rig
  }

  it('a client that was never heard is told so', () => {
    const rig = mute(0)
    assert.equal(rig.client.error?.code, 'no-answer')
    assert.match(rig.client.error!.message, /within 60 s/)
    assert.equal(rig.client.keysUntil, undefined)
  })

  it('a client that was only answered leaves nothing', () => {
    const rig = mute(1)
    assert.equal(rig.client.error?.code, 'timeout')
    assert.equal(rig.server.sessions.length, 0)
  })

  for (let count = 2; count <= 10; count++) {
    it(`a session ends that got ${count} packets`, () => {
      const rig = mute(count)
      assert.equal(rig.server.sessions.length, 1)
      const { session, error } = rig.peer
      if (rig.peer.connectedAt === undefined) {
        assert.equal(error?.code, 'timeout')
        assert.ok(session.isClosed)
      }
      if (session.isClosed) assert.equal(session.deadline(), Infinity)
    })
  }

  it('at a rekey, the keys live on for their time', () => {
    const rig = new Rig(8, MODES[3]!).connect().run(1000)
    rig.wire.detach(SERVER_AT)
    const start = rig.clock.now
    rig.client.renegotiate()
    rig.run(2 * MINUTE)
    assert.equal(rig.client.error?.code, 'no-answer')
    assert.equal(rig.client.keysUntil, start + HOUR)
    assert.deepEqual([...rig.client.keys.keys()], [0])
  })
})

describe('somebody else at a rekey', () => {
  it('another certificate ends the session', () => {
    const rig = new Rig(9, MODES[0]!).connect().run(1000)
    rig.clientCertificate = Uint8Array.of(3)
    rig.client.renegotiate()
    rig.run(MINUTE)
    assert.equal(rig.peer.error?.code, 'identity')
    assert.equal(rig.peer.made.length, 1, 'no key was made')
    assert.ok(rig.peer.keysUntil !== undefined)
  })

  it('so does another user name', () => {
    let username = 'alice'
    const hello = {
      peerInfo: 'IV_PROTO=8094\nIV_NCP=2\n',
      get username() {
        return username
      },
    }
    const rig = new Rig(9, MODES[0]!)
    Object.defineProperty(rig.client.settings, 'hello', { get: () => hello })
    rig.connect().run(1000)
    assert.equal(rig.peer.hellos[0]!.username, 'alice')
    rig.client.renegotiate()
    rig.run(5000)
    assert.equal(rig.peer.made.length, 2, 'the same name is fine')
    username = 'bob'
    rig.client.renegotiate()
    rig.run(MINUTE)
    assert.equal(rig.peer.error?.code, 'identity')
    assert.equal(rig.peer.made.length, 2)
  })
})

describe('certificates', () => {
  const refuse = (rig: Rig) =>
    createFakeTls({
      random: rig.random,
      later: (run) => rig.clock.after(0, run),
      certificate: () => Uint8Array.of(1),
      verify: () => 'it has expired',
    })

  it('a client tells no password to a server that it does not trust', () => {
    const rig = new Rig(10, MODES[0]!)
    rig.client.settings.tls = (role, events) => refuse(rig)(role, events)
    const other = new SimClient(
      {
        ...rig.client.settings,
        tls: refuse(rig),
        hello: Object.defineProperty({}, 'password', {
          enumerable: true,
          get: () => assert.fail('asked for a password'),
        }),
      },
      MODES[0]!.client,
      (packet) => rig.wire.send(CLIENT_AT, SERVER_AT, packet),
    )
    rig.wire.attach(CLIENT_AT, ({ bytes }) => other.receive(bytes))
    rig.run(MINUTE)
    assert.equal(other.error?.code, 'certificate')
    assert.equal(other.error?.message, 'it has expired')
    assert.equal(rig.peer.hellos.length, 0)
  })

  it('nothing goes on before the owner admits them', () => {
    const rig = new Rig(11, MODES[0]!)
    const admitted: number[] = []
    rig.client.certificates = (keyId) => {
      admitted.push(keyId)
    }
    rig.run(30_000)
    assert.deepEqual(admitted, [0])
    assert.equal(rig.client.session.phase, 'tls')
    assert.equal(rig.peer.hellos.length, 0)
    rig.client.session.admit(0)
    rig.run(10_000)
    assertSameKeys(rig)
    assert.equal(rig.client.made.length, 1)
  })
})

/** Without a wrap, everybody may write packets who knows the session ids. */
describe('packets that are none of the peer', () => {
  const noDynamicWrap = { peerInfo: 'IV_PROTO=142\nIV_NCP=2\n' }
  const rig = new Rig(12, MODES[0]!, {}, { hello: noDynamicWrap }).connect().run(1000)
  const { session } = rig.peer
  const mine = {
    sessionId: rig.client.session.sessionId,
    peerSessionId: session.sessionId,
    payload: new Uint8Array(0),
  }
  type Row = [packet: Parameters<typeof encodeControl>[0], reason: string, why: string]
  const base = {
    keyId: 0,
    acks: [] as number[],
    messageId: 0,
    sessionId: mine.sessionId,
    payload: mine.payload,
  }
  const rows: Row[] = [
    [{ ...base, opcode: Opcode.HardResetServerV2 }, 'role', "a server's reset at a server"],
    [
      { ...base, opcode: Opcode.HardResetClientV2, messageId: 1 },
      'malformed',
      'a reset that is not message 0',
    ],
    [{ ...base, opcode: Opcode.HardResetClientV2 }, 'duplicate', 'the reset again'],
    [
      { ...base, opcode: Opcode.HardResetClientV2, keyId: 1 },
      'malformed',
      'a hard reset of a later key',
    ],
    [{ ...base, opcode: Opcode.SoftResetV1 }, 'malformed', 'a soft reset of the first key'],
    [{ ...base, opcode: Opcode.SoftResetV1, keyId: 2 }, 'key-id', 'not the next key'],
    [
      { ...base, opcode: Opcode.SoftResetV1, keyId: 1, messageId: 1 },
      'malformed',
      'a soft reset that is not message 0',
    ],
    [{ ...base, opcode: Opcode.ControlV1, messageId: 0 }, 'malformed', 'message 0 is a reset'],
    [
      { ...base, opcode: Opcode.ControlV1, messageId: 0, keyId: 1 },
      'key-id',
      'message 0 of a key that has not begun',
    ],
    [
      { ...base, opcode: Opcode.ControlWkcV1, messageId: 2 },
      'malformed',
      'a wrapped key comes with message 1',
    ],
    [{ ...base, opcode: Opcode.ControlV1, messageId: 1 }, 'duplicate', 'a message again'],
    [{ ...base, opcode: Opcode.ControlV1, messageId: 1000 }, 'too far ahead', 'beyond the window'],
    [{ ...base, opcode: Opcode.ControlV1, messageId: 1, keyId: 5 }, 'key-id', 'a key that is not'],
    [
      {
        ...base,
        opcode: Opcode.ControlV1,
        messageId: 1,
        sessionId: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
      },
      'session',
      "another session's",
    ],
    [
      { ...base, opcode: Opcode.ControlV1, messageId: 1, acks: [0], peerSessionId: mine.sessionId },
      'session',
      'it speaks to somebody else',
    ],
  ]
  for (const [packet, reason, why] of rows) {
    it(`${reason}: ${why}`, () => {
      const before = session.drops.get(reason as 'role') ?? 0
      rig.peer.receive(encodeControl(packet))
      assert.equal(session.drops.get(reason as 'role'), before + 1)
    })
  }

  it('and all goes on', () => {
    rig.client.renegotiate()
    rig.run(5000)
    assert.equal(rig.client.made.length, 2)
    assertSameKeys(rig)
  })

  it('a client believes only who got its reset', () => {
    const sent: Uint8Array[] = []
    const client = new SimClient(rig.client.settings, { kind: 'none' }, (packet) =>
      sent.push(packet),
    )
    rig.run(10)
    const reset = {
      ...base,
      opcode: Opcode.HardResetServerV2,
      sessionId: Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1),
    } as const
    client.receive(encodeControl(reset))
    client.receive(encodeControl({ ...reset, acks: [0], peerSessionId: mine.sessionId }))
    assert.equal(client.session.peerSessionId, undefined)
    assert.deepEqual([...client.session.drops], [['session', 2]])
    client.receive(encodeControl({ ...reset, acks: [0], peerSessionId: client.session.sessionId }))
    assert.deepEqual(client.session.peerSessionId, reset.sessionId)
    client.session.close()
  })
})

describe('replayed packets', () => {
  for (const mode of MODES) {
    it(`${mode.name}: change nothing`, () => {
      const rig = new Rig(13, mode)
      const recorded: { to: 'client' | 'server'; bytes: Uint8Array }[] = []
      rig.wire.tap = ({ to, bytes }) => {
        recorded.push({
          to: to.key === SERVER_AT.key ? 'server' : 'client',
          bytes: Uint8Array.from(bytes),
        })
      }
      rig.connect().run(1000)
      for (let turn = 0; turn < 3; turn++) {
        for (const { to, bytes } of recorded.slice()) {
          if (to === 'server') rig.peer.receive(bytes)
          else rig.client.receive(bytes)
        }
        rig.client.renegotiate()
        rig.run(5000)
      }
      assert.equal(rig.client.made.length, 4)
      assertSameKeys(rig)
      assert.equal(rig.peer.texts.length, 1)
    })
  }
})

describe('a hostile peer within TLS', () => {
  /** A client whose TLS says what it likes. */
  function withEngine(seed: number, change: (write: (text: Uint8Array) => void) => void): Rig {
    const rig = new Rig(seed, MODES[0]!).connect().run(1000)
    const { tls } = rig.client.settings
    let write: ((bytes: Uint8Array) => void) | undefined
    rig.client.settings.tls = (role, events) => {
      const engine = tls(role, events)
      write = (bytes) => engine.write(bytes)
      return engine
    }
    const client = new SimClient(rig.client.settings, MODES[0]!.client, (packet) =>
      rig.wire.send(CLIENT_AT, SERVER_AT, packet),
    )
    rig.wire.attach(CLIENT_AT, ({ bytes }) => client.receive(bytes))
    rig.run(2000)
    assert.equal(rig.server.sessions.length, 2)
    change(write!)
    rig.run(MINUTE)
    return rig
  }

  it('a text with control characters is not delivered', () => {
    const rig = withEngine(14, (write) => write(Buffer.from('INFO,\x1b[2J\0INFO,good\0')))
    assert.deepEqual(rig.peer.texts.slice(1), ['INFO,good'])
    assert.equal(rig.peer.session.drops.get('unprintable'), 1)
  })

  it('texts may be joined and cut, and have line ends', () => {
    const rig = withEngine(15, (write) => {
      write(Buffer.from('INFO,a\0INF'))
      write(Buffer.from('O,b\r\n\0\0\0'))
    })
    assert.deepEqual(rig.peer.texts.slice(1), ['INFO,a', 'INFO,b'])
  })

  it('a text without an end is too much in the end', () => {
    const rig = withEngine(16, (write) => {
      for (let bytes = 0; bytes <= MAX_MESSAGE_BYTES; bytes += 1024)
        write(new Uint8Array(1024).fill(65))
    })
    assert.equal(rig.peer.error?.code, 'flood')
  })

  it('bytes before its key message are too much in the end', () => {
    const rig = new Rig(17, MODES[0]!)
    const client = new SimClient(
      {
        ...rig.client.settings,
        tls: (_role, { ciphertext }) => {
          rig.clock.after(0, () => ciphertext(new Uint8Array(MAX_EARLY_TLS_BYTES + 1)))
          return {
            receive() {},
            write() {},
            close() {},
            exportKeyingMaterial: () => new Uint8Array(0),
          }
        },
      },
      MODES[0]!.client,
      (packet) => rig.wire.send(CLIENT_AT, SERVER_AT, packet),
    )
    const engineless = {
      receive() {},
      write() {},
      close() {},
      exportKeyingMaterial: () => new Uint8Array(0),
    }
    const server = new SimServer(
      { ...rig.client.settings, tls: () => engineless },
      MODES[0]!.server,
    )
    server.listen(rig.wire, SERVER_AT)
    rig.wire.attach(CLIENT_AT, ({ bytes }) => client.receive(bytes))
    rig.run(MINUTE)
    assert.equal(server.sessions[0]!.error?.code, 'flood')
  })
})

describe('an owner', () => {
  it('may not call a session while it calls', () => {
    const rig = new Rig(18, MODES[0]!)
    rig.client.certificates = () => rig.client.session.poll(rig.clock.now)
    assert.throws(() => rig.run(1000), /while it works/)
  })

  it('may close it at any time', () => {
    for (const event of ['certificates', 'hello', 'ready', 'message', 'use', 'expired'] as const) {
      const rig = new Rig(19, MODES[0]!, {}, { tranWindow: MINUTE }).connect().run(1000)
      rig.client[event] = () => rig.client.session.close()
      rig.peer.session.sendMessage('INFO,x')
      rig.client.renegotiate()
      rig.run(5 * MINUTE)
      assert.ok(rig.client.session.isClosed, event)
      assert.equal(rig.client.error, undefined)
    }
  })

  it('is told when too many texts wait', () => {
    const rig = new Rig(20, MODES[0]!)
    let accepted = 0
    while (rig.client.session.sendMessage('INFO,x')) accepted++
    assert.equal(accepted, 256)
    rig.connect().run(5000)
    assert.equal(rig.peer.texts.filter((text) => text === 'INFO,x').length, 256)
  })

  it('gets no keys that are not there', () => {
    const rig = new Rig(21, MODES[0]!)
    assert.throws(() => rig.client.session.dataKeys(0), /no data keys/)
    rig.connect()
    assert.throws(() => rig.client.session.dataKeys(1), /no data keys/)
  })
})

describe('fuzz: every packet changed', () => {
  for (const mode of MODES) {
    it(`${mode.name}: throws nothing, and a wrap keeps the session whole`, () => {
      const rig = new Rig(22, mode)
      const random = new Random(22)
      const { wire } = rig
      wire.tap = ({ from, to, bytes }) => {
        for (let i = 0; i < 20; i++) {
          const changed = Uint8Array.from(bytes).slice(0, 1 + random.below(2 * bytes.length))
          for (let n = 1 + random.below(3); n > 0; n--) {
            const at =
              random.below(2) === 0
                ? random.below(Math.min(40, changed.length))
                : random.below(changed.length)
            changed[at] = random.below(256)
          }
          if (Buffer.compare(changed, bytes) !== 0)
            wire.inject({ from, to, bytes: changed }, random.below(30))
        }
      }
      rig.run(MINUTE)
      if (mode.client.kind === 'none') return
      assert.equal(rig.client.error, undefined)
      rig.client.renegotiate()
      rig.run(MINUTE)
      assert.equal(rig.client.made.length, 2)
      assertSameKeys(rig)
    })
  }
})
