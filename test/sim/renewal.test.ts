/**
 * Renewals of keys that fail, on virtual time: a real client's connection (Attempt) with a real server, and with one that knows a client
 * again as OpenVPN's does. Each end has a driver that keeps books. Whatever happens to control packets, data keys live on until their end.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Endpoint } from '../../src/driver/core/address.ts'
import { Attempt, type Ending, type JoinOptions } from '../../src/openvpn/client/attempt.ts'
import { DataChannel } from '../../src/openvpn/data-channel.ts'
import { LEVEL } from '../../src/openvpn/log.ts'
import { clientProto, DEFAULT_DATA_CIPHERS } from '../../src/openvpn/proto/negotiate.ts'
import type { Transport } from '../../src/openvpn/transport-link.ts'
import { TransportLink } from '../../src/openvpn/transport-link.ts'
import { BookDriver } from './book-driver.ts'
import { SERVER_AT, SimServer } from './control.ts'
import { ServerNet, type ServerNetOptions } from './server.ts'

const SECOND = 1000
const MINUTE = 60 * SECOND
const HAND_WINDOW = 60 * SECOND
const TRAN_WINDOW = 10 * MINUTE
const AT = Endpoint.of('192.0.2.77', 4000)
const REMOTE = { address: SERVER_AT.address, port: SERVER_AT.port, scope: 0 }

/** Of packets of a later key exchange than the first. */
const isRenewal = (packet: Uint8Array) => (packet[0]! & 7) > 0

class ClientEnd {
  readonly driver = new BookDriver()
  readonly attempt: Attempt
  readonly log: string[] = []
  readonly keys: number[] = []
  pushes = 0
  ending: Ending | undefined
  endedAt = 0
  /** Which control packets get lost, in both directions. */
  loses: (packet: Uint8Array) => boolean = () => false
  /** Why the server's certificates are refused. */
  problem: string | undefined
  readonly #net: ServerNet

  static async connect(net: ServerNet, options: Partial<JoinOptions> & { tcp?: boolean } = {}) {
    const end = new ClientEnd(net, options)
    const lost = (error: unknown) => assert.fail(String(error))
    const data = await DataChannel.open(end.driver.client, { mode: 'p2p' }, lost)
    const keepalive = { interval: 10, timeout: 60 }
    end.#join = () =>
      end.attempt.join({ data, keepalive, mssfix: undefined, farewell: 1, ...options })
    end.attempt.start()
    await net.pass(10 * SECOND)
    assert.equal(end.attempt.stage, 'connected')
    return end
  }

  #join: () => Promise<void> = async () => {}

  private constructor(net: ServerNet, { tcp = false }) {
    this.#net = net
    const policy = { dataCiphers: DEFAULT_DATA_CIPHERS, epoch: true }
    const hello = {
      options: 'V4,dev-type tun,key-method 2,tls-client',
      ...{ username: '', password: '' },
      peerInfo: `IV_PROTO=${clientProto(true)}\nIV_NCP=2\nIV_CIPHERS=${DEFAULT_DATA_CIPHERS.join(':')}\n`,
    }
    this.attempt = new Attempt(
      {
        policy,
        session: {
          role: 'client',
          wrap: { kind: 'none' },
          tls: net.tls(() => 'alice'),
          random: (count) => net.random.bytes(count),
          hello: () => hello,
          unixSeconds: () => 1_800_000_000 + Math.floor(net.clock.now / SECOND),
          ...{ maxPacket: 1222, tlsTimeout: 2 * SECOND, handWindow: HAND_WINDOW },
          ...{ tranWindow: TRAN_WINDOW, renegotiate: { least: 0, most: 0 } },
        },
        ...{ connectTimeout: MINUTE, pingRestart: 2 * MINUTE },
      },
      new TransportLink(this.#transport(tcp), { remote: REMOTE }),
      { now: () => net.clock.now, schedule: (at, call) => net.schedule(at, call) },
      {
        ...{ stage: () => {}, updated: () => false, token: () => {}, pending: () => {} },
        ...{ info: () => {}, stray: () => {}, floated: () => {} },
        verify: async () => this.problem,
        pushed: () => void this.#join(),
        pushedAgain: () => void this.pushes++,
        rekeyed: (keyId) => void this.keys.push(keyId),
        log: (text, level = LEVEL.usual) => {
          if (level <= LEVEL.usual) this.log.push(text)
        },
        ended: (ending) => {
          this.ending = ending
          this.endedAt = net.clock.now
        },
      },
    )
    net.wire.attach(AT, ({ bytes }) => {
      if (!this.loses(bytes)) this.attempt.receive(bytes)
    })
  }

  async leave(world: ServerNet): Promise<void> {
    const closing = this.attempt.close(true)
    await world.pass(2 * SECOND)
    await closing
  }

  /** The peer that packets go to, and the key they are sealed with. */
  get sends(): [peerId: number, keyId: number | undefined] | undefined {
    const [one, more] = this.driver.peersById.values()
    assert.equal(more, undefined, 'one peer')
    return one && [one.peer.id, one.keys.get('primary')]
  }

  #transport(tcp: boolean): Transport {
    const send = (packet: Uint8Array) => {
      if (!this.loses(packet)) this.#net.wire.send(AT, SERVER_AT, packet)
    }
    const close = () => {}
    const common = { fd: 5, local: REMOTE, close, send }
    if (!tcp) return { ...common, protocol: 'udp', onPacket: () => {} }
    // The driver's end of the stream is not simulated: control packets go as before.
    const path = { remote: REMOTE }
    return { ...common, protocol: 'tcp', path, start: () => {}, handOver: async () => {} }
  }
}

const net = (options: ServerNetOptions = {}) =>
  ServerNet.open({ ...options, settings: { tranWindow: TRAN_WINDOW } })

/** A server that takes a new session of a client for the same client: it keeps its peer id, 7. */
async function sameAgain(): Promise<{ world: ServerNet; server: SimServer }> {
  const made = await net()
  const { clock, random, wire } = made
  const policy = { dataCiphers: DEFAULT_DATA_CIPHERS, epoch: true }
  const server = new SimServer(
    { clock, random, tls: made.tls(() => 'server'), policy, tranWindow: TRAN_WINDOW },
    { wrap: { kind: 'none' } },
  )
  server.listen(wire, SERVER_AT)
  return { world: made, server }
}

describe('a renewal that fails at a client', () => {
  it('leaves the old key in use, and a new session follows, in which packets go on to the same peer', async () => {
    const world = await net()
    const client = await ClientEnd.connect(world)
    const before = client.sends!
    client.loses = isRenewal
    client.attempt.renegotiate()
    for (let seconds = 0; seconds < 59; seconds++) {
      await world.pass(SECOND)
      assert.deepEqual(client.sends, before)
      assert.equal(world.server.clients().length, 1)
    }
    assert.deepEqual(client.log, [])
    await world.pass(10 * SECOND)
    assert.match(client.log.join('\n'), /^keys were not renewed: nothing came from the other end/)
    const [server] = world.server.clients()
    assert.equal(world.server.size, 1)
    assert.deepEqual(client.sends, before)
    assert.equal(server!.peerId, before[0])
    // Either end takes packets of both keys.
    for (const driver of [client.driver, world.driver]) {
      const keys: Map<string, number> = driver.peersById.get(before[0])!.keys
      assert.deepEqual(Object.fromEntries(keys), { primary: 0, secondary: 0 })
    }
    assert.deepEqual([client.keys, client.pushes, client.ending], [[0], 1, undefined])
    // As good as any connection: keys are renewed in it.
    client.loses = () => false
    client.attempt.renegotiate()
    await world.pass(2 * MINUTE)
    assert.deepEqual(
      [client.keys, client.sends],
      [
        [0, 1],
        [server!.peerId, 1],
      ],
    )
    assert.deepEqual(client.driver.said, [])
    await client.leave(world)
    await world.end()
  })

  it('the new key is installed beside the old one, where the server knows the client again', async () => {
    const { world } = await sameAgain()
    const client = await ClientEnd.connect(world)
    const begun = world.clock.now
    client.attempt.renegotiate()
    await world.pass(2 * MINUTE)
    assert.deepEqual(client.sends, [7, 1])
    client.loses = (packet) => (packet[0]! & 7) === 2
    client.attempt.renegotiate()
    const failing = world.clock.now
    await world.pass(HAND_WINDOW + 10 * SECOND)
    const { keys } = client.driver.peersById.get(7)!
    assert.deepEqual(Object.fromEntries(keys), { primary: 0, secondary: 1 })
    // The old one has its time, from when the renewal began.
    await world.pass(failing + TRAN_WINDOW - 1 - world.clock.now)
    assert.equal(keys.get('secondary'), 1)
    await world.pass(SECOND)
    assert.deepEqual(Object.fromEntries(keys), { primary: 0 })
    assert.equal(client.ending, undefined)
    assert.ok(world.clock.now > begun + TRAN_WINDOW)
    await client.leave(world)
  })

  it('is tried again and again, until the old key’s end', async () => {
    const world = await net()
    const client = await ClientEnd.connect(world)
    const before = client.sends
    const begun = world.clock.now
    client.loses = () => true
    client.attempt.renegotiate()
    await world.pass(TRAN_WINDOW - 1)
    assert.deepEqual([client.sends, client.ending], [before, undefined])
    const sessions = Math.floor(TRAN_WINDOW / (HAND_WINDOW + 5 * SECOND))
    assert.equal(client.log.length, sessions)
    await world.pass(SECOND)
    assert.equal(client.ending?.kind, 'lost')
    assert.equal(client.endedAt, begun + TRAN_WINDOW)
    assert.equal(client.sends, undefined)
  })

  it('for the server’s certificate: with the next session it is looked at again', async () => {
    const world = await net()
    const client = await ClientEnd.connect(world)
    client.problem = 'tls-verify refuses it'
    client.attempt.renegotiate()
    await world.pass(MINUTE)
    assert.ok(client.log.length > 5 && client.log.length < 15, `${client.log.length} sessions`)
    assert.deepEqual([client.pushes, client.ending], [0, undefined])
    client.problem = undefined
    await world.pass(30 * SECOND)
    assert.deepEqual([client.pushes, client.ending], [1, undefined])
    await client.leave(world)
    await world.end()
  })

  it('whose new session gets no push: another follows', async () => {
    const { world, server } = await sameAgain()
    const client = await ClientEnd.connect(world)
    client.loses = (packet) => {
      const [, second] = server.sessions
      if (second !== undefined) second.handle = () => {}
      return isRenewal(packet)
    }
    client.attempt.renegotiate()
    await world.pass(4 * MINUTE)
    assert.equal(client.log.length, 2)
    assert.deepEqual([client.pushes, client.sends], [1, [7, 0]])
    await client.leave(world)
  })

  it('is the end of it over a stream', async () => {
    const world = await net()
    const client = await ClientEnd.connect(world, { tcp: true })
    client.loses = isRenewal
    client.attempt.renegotiate()
    await world.pass(HAND_WINDOW)
    assert.deepEqual(client.ending, {
      ...{ kind: 'lost', code: 'no-answer' },
      text: 'keys were not renewed: nothing came from the other end within 60 s',
    })
  })

  it('does not keep a client that leaves: it says so inside the data channel', async () => {
    const world = await net()
    const client = await ClientEnd.connect(world)
    client.loses = () => true
    client.attempt.renegotiate()
    await world.pass(2 * MINUTE)
    await client.leave(world)
    assert.equal(client.driver.said.length, 1)
    assert.deepEqual(client.ending, { kind: 'closed' })
  })
})

/** By which a server may refuse a client's certificate, while `refused` says so. */
const REFUSING: [rule: string, options: (refused: () => boolean) => ServerNetOptions][] = [
  ['crl-verify', (refused) => ({ refuses: () => (refused() ? 'it is revoked' : undefined) })],
  [
    'tls-verify',
    (refused) => ({
      policy: { refusesCertificates: async () => (refused() ? 'it is refused' : undefined) },
    }),
  ],
]

for (const [rule, options] of REFUSING) {
  describe(`a renewal whose certificate ${rule} refuses at a server`, () => {
    it('leaves the old key its time, and no more', async () => {
      let refused = false
      const world = await net(options(() => refused))
      const client = await ClientEnd.connect(world)
      const [peerId] = client.sends!
      refused = true
      client.attempt.renegotiate()
      await world.pass(SECOND)
      assert.match(world.logged.join('\n'), /keys were not renewed: it is re(vok|fus)ed/)
      // The client tries again and again, and is known at the server all the while.
      await world.pass(TRAN_WINDOW - 2 * SECOND)
      assert.deepEqual([...world.driver.peersById.keys()], [peerId])
      assert.deepEqual([client.sends, client.ending], [[peerId, 0], undefined])
      await world.pass(2 * SECOND)
      assert.deepEqual([...world.driver.peersById.keys()], [])
      assert.match(world.logged.join('\n'), /its keys are too old/)
      assert.equal(client.ending?.kind, 'lost')
      await world.end()
    })

    it('is forgotten with the next session, if that is not refused', async () => {
      let refused = false
      const world = await net(options(() => refused))
      const client = await ClientEnd.connect(world)
      const before = client.sends!
      refused = true
      client.attempt.renegotiate()
      await world.pass(2 * MINUTE)
      refused = false
      await world.pass(2 * MINUTE)
      assert.deepEqual([client.sends, client.pushes], [before, 1])
      await world.pass(TRAN_WINDOW)
      assert.deepEqual([...world.driver.peersById.keys()], [before[0]])
      assert.deepEqual([world.server.clients().length, client.ending], [1, undefined])
      await client.leave(world)
      await world.end()
    })
  })
}
