/** Sockets of the control channel, on loopback. */
import assert from 'node:assert/strict'
import { connect, createServer } from 'node:net'
import { after, before, describe, it } from 'node:test'
import type { Path, StreamTransport } from '../openvpn/transport.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'
import { Watch } from '../platform/watch.ts'
import { openDatagrams } from './datagrams.ts'
import { connectStream, openStreamListener } from './streams.ts'

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()
const bytes = (word: string) => new Uint8Array(Buffer.from(word))

/** What comes, to be taken in order. */
class Inbox<T> {
  readonly #items: T[] = []
  #wake: (() => void) | undefined

  put = (item: T): void => {
    this.#items.push(item)
    this.#wake?.()
  }

  async take(): Promise<T> {
    const timer = setTimeout(() => this.#wake?.(), 10_000)
    while (this.#items.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      if (this.#items.length === 0) throw new Error('nothing came')
    }
    clearTimeout(timer)
    return this.#items.shift()!
  }
}

let watch: Watch
before(() => {
  watch = new Watch()
})
after(() => watch.close())

describe('openDatagrams', () => {
  const pairs: [listen: string, from: string, to: string, why: string][] = [
    ['127.0.0.1', '127.0.0.1', '127.0.0.1', 'IPv4'],
    ['::1', '::1', '::1', 'IPv6'],
    ['::', '127.0.0.1', '127.0.0.1', 'IPv4 at a socket of both families'],
    ['::', '::1', '::1', 'IPv6 at a socket of both families'],
    ['0.0.0.0', '127.0.0.1', '127.0.0.7', 'another of our addresses'],
  ]
  for (const [listen, from, to, why] of pairs) {
    it(`answers from the address that was spoken to: ${why}`, async () => {
      const server = openDatagrams(watch, listen, 0, { multihome: true })
      const client = openDatagrams(watch, from, 0)
      const [asked, answered] = [new Inbox<[string, Path]>(), new Inbox<[string, Path]>()]
      server.onPacket((packet, path) => asked.put([text(packet), path]))
      client.onPacket((packet, path) => answered.put([text(packet), path]))
      client.send(bytes('question'), {
        remote: { address: to, port: server.local.port, scope: 0 },
      })
      const [question, path] = await asked.take()
      assert.equal(question, 'question')
      assert.equal(path.local, to)
      assert.equal(path.remote.port, client.local.port)
      server.send(bytes('answer'), path)
      const [answer, back] = await answered.take()
      assert.equal(answer, 'answer')
      assert.equal(back.remote.address, to)
      server.close()
      client.close()
      server.close()
    })
  }

  it('says what it could not open', () => {
    const first = openDatagrams(watch, '127.0.0.1', 0)
    assert.throws(
      () => openDatagrams(watch, '127.0.0.1', first.local.port),
      /cannot open a UDP socket at 127.0.0.1 port \d+: EADDRINUSE/,
    )
    first.close()
  })

  it('goes on after nobody was there', async () => {
    const one = openDatagrams(watch, '127.0.0.1', 0)
    const gone = openDatagrams(watch, '127.0.0.1', 0)
    const nobody = { remote: gone.local }
    gone.close()
    const inbox = new Inbox<string>()
    one.onPacket((packet) => inbox.put(text(packet)))
    one.send(bytes('lost'), nobody)
    one.send(bytes('to itself'), { remote: one.local })
    assert.equal(await inbox.take(), 'to itself')
    one.close()
  })
})

describe('streams', () => {
  interface End {
    stream: StreamTransport
    inbox: Inbox<string>
  }

  const follow = (stream: StreamTransport): End => {
    const inbox = new Inbox<string>()
    stream.start({
      packet: (packet) => inbox.put(text(packet)),
      ended: (error) => inbox.put(error === undefined ? 'END' : `END ${error.message}`),
    })
    return { stream, inbox }
  }

  async function pair(): Promise<{ server: End; client: End; close: () => void }> {
    const listener = openStreamListener(watch, '127.0.0.1', 0)
    const accepted = new Inbox<End>()
    listener.onStream((stream) => accepted.put(follow(stream)))
    const client = follow(await connectStream(watch, listener.local, { timeoutMs: 5000 }))
    const server = await accepted.take()
    return {
      server,
      client,
      close: () => {
        listener.close()
        client.stream.close()
        server.stream.close()
      },
    }
  }

  it('carry packets both ways, and tell of the end', async () => {
    const { server, client, close } = await pair()
    const big = 'x'.repeat(4000)
    for (const word of ['one', big, 'three']) client.stream.send(bytes(word))
    assert.equal(await server.inbox.take(), 'one')
    assert.equal(await server.inbox.take(), big)
    assert.equal(await server.inbox.take(), 'three')
    server.stream.send(bytes('back'))
    assert.equal(await client.inbox.take(), 'back')
    assert.equal(server.stream.path.local, client.stream.path.remote.address)
    client.stream.close()
    assert.equal(await server.inbox.take(), 'END')
    close()
  })

  it('are handed over at the boundary of a packet, with nothing read beyond it', async () => {
    const listener = openStreamListener(watch, '127.0.0.1', 0)
    const accepted = new Inbox<End>()
    listener.onStream((stream) => accepted.put(follow(stream)))
    const socket = connect(listener.local.port, '127.0.0.1')
    const { stream, inbox } = await accepted.take()
    socket.write(Buffer.from([0, 5, 0x68, 0x65]))
    await new Promise((resolve) => setTimeout(resolve, 50))
    let over = false
    const handed = stream.handOver(false).then(() => {
      over = true
    })
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(over, false, 'half a packet is there')
    socket.write(Buffer.from([0x6c, 0x6c, 0x6f, 0, 3, 0x61, 0x62, 0x63]))
    assert.equal(await inbox.take(), 'hello')
    await handed
    // What follows is another's: here, of whoever reads the descriptor.
    const rest = createBlock(16)
    assert.equal(openLibc().read(stream.fd, rest.base, 16), 5)
    assert.deepEqual([...rest.u8.subarray(0, 5)], [0, 3, 0x61, 0x62, 0x63])
    socket.destroy()
    stream.close()
    listener.close()
  })

  const hostile: [bytes: number[], why: string][] = [
    [[0, 0], 'a packet of no bytes'],
    [[0xff, 0xff], 'a packet longer than any'],
  ]
  for (const [sent, why] of hostile) {
    it(`end at ${why}`, async () => {
      const listener = openStreamListener(watch, '127.0.0.1', 0)
      const accepted = new Inbox<End>()
      listener.onStream((stream) => accepted.put(follow(stream)))
      const socket = connect(listener.local.port, '127.0.0.1')
      const { inbox } = await accepted.take()
      socket.on('error', () => {})
      socket.write(Buffer.from(sent))
      assert.match(await inbox.take(), /^END a packet of \d+ bytes was announced$/)
      listener.close()
      socket.destroy()
    })
  }

  it('end when the other end takes nothing', async () => {
    const slow = createServer()
    await new Promise<void>((resolve) => slow.listen(0, '127.0.0.1', resolve))
    slow.on('connection', (socket) => socket.pause())
    const { port } = slow.address() as { port: number }
    const to = { address: '127.0.0.1', port, scope: 0 }
    const end = follow(await connectStream(watch, to, { timeoutMs: 5000, sndbuf: 4096 }))
    const block = new Uint8Array(4000)
    for (let i = 0; i < 4000; i++) end.stream.send(block)
    assert.equal(await end.inbox.take(), 'END the other end takes nothing')
    slow.close()
  })

  it('say why there is none', async () => {
    const listener = openStreamListener(watch, '127.0.0.1', 0)
    const { local } = listener
    listener.close()
    await assert.rejects(
      connectStream(watch, local, { timeoutMs: 5000 }),
      /cannot connect to 127.0.0.1 port \d+: ECONNREFUSED/,
    )
    const controller = new AbortController()
    controller.abort(new Error('not wanted any more'))
    const blackhole = { address: '192.0.2.1', port: 9, scope: 0 }
    const refused = connectStream(watch, blackhole, { timeoutMs: 5000, signal: controller.signal })
    await assert.rejects(refused, /not wanted any more|ENETUNREACH|EHOSTUNREACH/)
  })
})
