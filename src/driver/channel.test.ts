import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { anOrigin, FakeBackend } from '../../test/backend.ts'
import { bytes, hex } from '../../test/bytes.ts'
import { encodeGetFamily, GENL_ID_CTRL } from '../netlink/control.ts'
import { message, messages, NLM_F, NLMSG, readAnswer } from '../netlink/message.ts'
import { ApiError } from '../uapi/errno.ts'
import {
  type Channel,
  MessageStream,
  openUnixChannel,
  Requester,
  readOpen,
  readOption,
} from './channel.ts'
import { NetlinkServer } from './server.ts'

const header = { type: 0x20, flags: 1, seq: 1, pid: 0 }

describe('MessageStream', () => {
  const wanted = [0, 1, 5, 300, 8].map((length) => message(header, new Uint8Array(length).fill(9)))
  const stream = Buffer.concat(wanted)

  it('finds the messages wherever the stream is split', () => {
    for (let at = 0; at <= stream.length; at++) {
      const parser = new MessageStream()
      const found = [...parser.push(stream.subarray(0, at)), ...parser.push(stream.subarray(at))]
      assert.deepEqual(found.map(hex), wanted.map(hex))
    }
  })

  it('finds them byte by byte, and none before its padding', () => {
    const parser = new MessageStream()
    const found = [...stream].flatMap((byte, at) => {
      const messages = parser.push(Uint8Array.of(byte))
      assert.ok(messages.length === 0 || (at + 1) % 4 === 0)
      return messages
    })
    assert.deepEqual(found.map(hex), wanted.map(hex))
  })

  it('gives copies', () => {
    const parser = new MessageStream()
    const [first] = parser.push(wanted[2]!)
    parser.push(wanted[3]!)
    assert.deepEqual(first, wanted[2])
  })

  const wrong: [length: number, errno: string, why: string][] = [
    [0, 'EPROTO', 'no length'],
    [15, 'EPROTO', 'shorter than a header'],
    [2 ** 20 + 1, 'EMSGSIZE', 'longer than is allowed'],
    [2 ** 32 - 1, 'EMSGSIZE', 'the longest there is'],
  ]
  for (const [length, errno, why] of wrong) {
    it(`refuses ${why} as soon as it is known`, () => {
      const start = new Uint8Array(4)
      new DataView(start.buffer).setUint32(0, length, true)
      assert.throws(() => new MessageStream().push(start), { errno })
    })
  }

  it('takes the longest that is allowed', () => {
    const long = message(header, new Uint8Array(2 ** 20 - 16))
    assert.equal(new MessageStream().push(long)[0]!.length, 2 ** 20)
  })
})

describe('calls in the stream', () => {
  it('are numbers in four bytes each', () => {
    assert.equal(readOpen(bytes('10000000')), 'generic')
    assert.equal(readOpen(bytes('00000000')), 'route')
    assert.deepEqual(readOption(bytes('01000000 e9030000')), ['add-membership', 1001])
    assert.deepEqual(readOption(bytes('00010000 92100000')), ['port-id', 4242])
    assert.deepEqual(readOption(bytes('01010000 d4050000')), ['mssfix', 1492])
    assert.deepEqual(readOption(bytes('03010000 e8030000')), ['swap-wait-ms', 1000])
    assert.deepEqual(readOption(bytes('02010000 92100000')), ['process', 4242])
  })

  const unknown = ['', '10', '0f000000', '1000000000000000']
  for (const payload of unknown) {
    it(`open: "${payload}" is no protocol`, () => {
      assert.equal(readOpen(bytes(payload)), undefined)
    })
  }
  for (const payload of ['', '01000000', '03000000 01000000', '01000000 01000000 00000000']) {
    it(`option: "${payload}" is no option`, () => {
      assert.equal(readOption(bytes(payload)), undefined)
    })
  }
})

/** What a channel gets, one after another. */
function inbox(channel: Channel) {
  const got: Uint8Array[] = []
  const waiting: ((datagram: Uint8Array) => void)[] = []
  const closed = new Promise<Error | undefined>((resolve) => {
    channel.listen({
      received(datagram) {
        const next = waiting.shift()
        if (next === undefined) got.push(datagram)
        else next(datagram)
      },
      closed: resolve,
    })
  })
  return {
    closed,
    async next() {
      const datagram = got.shift() ?? (await new Promise<Uint8Array>((done) => waiting.push(done)))
      return [...messages(datagram)][0]!
    },
  }
}

describe('UnixChannel', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-channel-'))
  const path = join(folder, 'driver.sock')
  const logged: string[] = []
  const server = new NetlinkServer(new FakeBackend(), { log: (text) => logged.push(text) })
  const accepted: Socket[] = []
  let listener: Server

  before(async () => {
    listener = createServer((socket) => {
      accepted.push(socket)
      server.accept(socket, anOrigin())
    })
    listener.listen(path)
    await once(listener, 'listening')
  })
  after(() => {
    server.close()
    for (const socket of accepted) socket.destroy()
    listener.close()
    rmSync(folder, { recursive: true })
  })

  it('is told its address, which answers carry', async () => {
    const channel = await openUnixChannel(path, 'generic')
    const { next } = inbox(channel)
    assert.ok(channel.portId > 0)
    const asked = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST | NLM_F.ACK, seq: 9, pid: 77 }
    channel.send(message(asked, encodeGetFamily('ovpn')))
    const reply = await next()
    assert.deepEqual([reply.type, reply.seq, reply.pid], [GENL_ID_CTRL, 9, channel.portId])
    const acknowledged = await next()
    assert.deepEqual([acknowledged.type, acknowledged.bytes.length], [NLMSG.ERROR, 36])
    channel.close()
  })

  it('takes another address', async () => {
    const channel = await openUnixChannel(path, 'generic')
    await channel.setOption('port-id', 4242)
    assert.equal(channel.portId, 4242)
    channel.close()
  })

  it('passes options on, and their refusal', async () => {
    const channel = await openUnixChannel(path, 'generic')
    const { next } = inbox(channel)
    await assert.rejects(channel.setOption('add-membership', 5), { errno: 'ENOENT' })
    await channel.setOption('cap-ack', 1)
    const asked = { type: 0x333, flags: NLM_F.REQUEST, seq: 3, pid: 0 }
    channel.send(message(asked, new Uint8Array(100)))
    const answer = await next()
    assert.deepEqual([readAnswer(answer).errno, answer.bytes.length], [2, 36])
    channel.close()
  })

  it('tells of its end: this side', async () => {
    const channel = await openUnixChannel(path, 'route')
    const { closed } = inbox(channel)
    channel.close()
    assert.equal(await closed, undefined)
    await assert.rejects(channel.setOption('ext-ack', 1), { errno: 'EBADF' })
    channel.send(new Uint8Array(16)) // does nothing
  })

  it('tells of its end: the other side', async () => {
    const channel = await openUnixChannel(path, 'generic')
    const { closed } = inbox(channel)
    accepted.at(-1)!.destroy()
    const error = await closed
    assert.ok(error instanceof ApiError && error.errno === 'ECONNRESET', String(error))
  })

  it('rejects where no driver listens', async () => {
    await assert.rejects(openUnixChannel(join(folder, 'none.sock'), 'generic'), {
      errno: 'ENOENT',
      message: /cannot reach a driver at .*none\.sock/,
    })
  })

  it('opens again what is closed, on any order of closing', async () => {
    const channels = await Promise.all([1, 2, 3].map(() => openUnixChannel(path, 'generic')))
    assert.equal(new Set(channels.map(({ portId }) => portId)).size, 3)
    for (const channel of channels) channel.close()
  })

  const strangers: [wire: string, log: RegExp, why: string][] = [
    ['10000000 10000500 00000000 00000000', /before the open message/, 'a request first of all'],
    ['0f000000', /15 bytes/, 'a length that cannot be'],
    ['GET / HTTP/1.1\r\n\r\n', /bytes in the stream/, 'another protocol'],
  ]
  for (const [wire, log, why] of strangers) {
    it(`closes the connection at ${why}`, async () => {
      logged.length = 0
      const socket = createConnection(path)
      socket.on('error', () => {})
      socket.write(wire.startsWith('GET') ? wire : bytes(wire))
      socket.resume()
      await once(socket, 'close')
      assert.match(logged[0]!, log)
    })
  }

  const refused: [wire: string, errno: number, why: string][] = [
    ['14000000 08000500 01000000 00000000 05000000', 93, 'an unknown protocol'],
    ['18000000 09000500 01000000 00000000 0b000000 01000000', 71, 'an option before all else'],
  ]
  for (const [wire, errno, why] of refused) {
    it(`answers ${why}`, async () => {
      const socket = createConnection(path)
      socket.write(bytes(wire))
      const [chunk] = (await once(socket, 'data')) as [Uint8Array]
      const [answer] = messages(chunk)
      assert.equal(readAnswer(answer!).errno, errno)
      socket.destroy()
    })
  }

  const floods: [wire: Uint8Array, why: string][] = [
    [
      message(
        { type: GENL_ID_CTRL, flags: NLM_F.REQUEST | NLM_F.ACK, seq: 5, pid: 0 },
        encodeGetFamily('ovpn'),
      ),
      'requests',
    ],
    [bytes('18000000 09000500 05000000 00000000 0b000000 01000000'), 'options'],
  ]
  for (const [wire, why] of floods) {
    it(`reads no further from one who does not read, and answers all in the end: ${why}`, async () => {
      const socket = createConnection(path)
      socket.pause()
      socket.write(bytes('14000000 08000500 01000000 00000000 10000000'))
      const count = 40_000
      for (let i = 0; i < count; i++) socket.write(wire)
      const deadline = Date.now() + 40_000
      while (!accepted.at(-1)!.isPaused()) {
        assert.ok(Date.now() < deadline, 'the driver reads on')
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      const parser = new MessageStream()
      let acknowledged = 0
      for await (const chunk of socket as AsyncIterable<Uint8Array>) {
        for (const datagram of parser.push(chunk)) {
          const [answer] = messages(datagram)
          if (answer!.type === NLMSG.ERROR && answer!.seq === 5) acknowledged++
        }
        if (acknowledged === count) break
      }
      assert.equal(acknowledged, count)
      socket.destroy()
    })
  }
})

describe('Requester', () => {
  /** A channel whose other end is the test. */
  function pair() {
    const sent: Uint8Array[] = []
    let listener: Parameters<Channel['listen']>[0]
    const channel: Channel = {
      protocol: 'generic',
      portId: 1,
      listen: (given) => {
        listener = given
      },
      send: (datagram) => sent.push(datagram),
      setOption: async () => {},
      close: () => {},
    }
    const requester = new Requester(channel)
    const say = (wire: Uint8Array) => listener.received(wire)
    return { requester, sent, say, fail: (error: Error) => listener.closed(error) }
  }
  const ask = { type: 0x20, flags: 0 }
  const answered = (seq: number) =>
    message({ type: NLMSG.ERROR, flags: NLM_F.CAPPED, seq, pid: 1 }, new Uint8Array(20))

  it('finds the request an answer belongs to', async () => {
    const { requester, say } = pair()
    const [one, two] = [requester.request(ask, bytes('01')), requester.request(ask, bytes('02'))]
    say(message({ type: 0x20, flags: 0, seq: 2, pid: 1 }, bytes('aa')))
    say(answered(2))
    say(answered(1))
    assert.deepEqual([await one, (await two).map(hex)], [[], ['aa']])
  })

  it('asks for one dump after another', async () => {
    const { requester, sent, say } = pair()
    const dump = { type: 0x20, flags: NLM_F.DUMP }
    const all = [requester.request(dump, bytes('')), requester.request(dump, bytes(''))]
    const done = (seq: number) =>
      message({ type: NLMSG.DONE, flags: NLM_F.MULTI, seq, pid: 1 }, new Uint8Array(4))
    await Promise.resolve()
    assert.equal(sent.length, 1)
    say(done(1))
    await all[0]
    await Promise.resolve()
    assert.equal(sent.length, 2)
    say(done(2))
    await all[1]
  })

  it('tells what was not asked for, and what was lost', () => {
    const { requester, say } = pair()
    const told: string[] = []
    requester.listen({
      unasked: ({ type }) => told.push(`type ${type}`),
      overrun: () => told.push('overrun'),
      closed: () => told.push('closed'),
    })
    say(message({ type: 0x20, flags: 0, seq: 0, pid: 0 }, bytes('')))
    say(message({ type: 0x20, flags: 0, seq: 99, pid: 0 }, bytes(''))) // late: nobody waits for it
    say(message({ type: NLMSG.OVERRUN, flags: 0, seq: 0, pid: 0 }, bytes('')))
    assert.deepEqual(told, ['type 32', 'overrun'])
  })

  it('gives up at an answer that is malformed, and at a channel that fails', async () => {
    const broken = pair()
    const one = broken.requester.request(ask, bytes(''))
    broken.say(bytes('0102'))
    await assert.rejects(one, { errno: 'EPROTO' })
    await assert.rejects(broken.requester.request(ask, bytes('')), { errno: 'EPROTO' })
    const gone = pair()
    const two = gone.requester.request(ask, bytes(''))
    gone.fail(new ApiError('ECONNRESET', 'gone'))
    await assert.rejects(two, { errno: 'ECONNRESET' })
  })
})
