/**
 * A program with a proxy of every kind, for tests: `bun proxies.ts`. It says `ready`, and then one line for each way it gives.
 *
 *     3128 HTTP   3129 HTTP, Basic   3130 HTTP, Digest   3131 HTTP, refuses all   1080 SOCKS 5   1081 SOCKS 5, password
 *
 * Name and password are `alice` and `secret`. Source: RFC 9110, 7616, 7617, 1928, 1929; written without the code that it tests.
 */
import { createHash } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { connect, createServer, type Socket } from 'node:net'

const ANY = '0.0.0.0'
const NONCE = 'dcd98b7102dd2f0e8b11d0f600bfb0c093'

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** Bytes as they come, taken in pieces of a given length, or up to the end of HTTP's headers. */
class Reader {
  readonly socket: Socket
  #bytes = Buffer.alloc(0)
  #wake: () => void = () => {}

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', this.#add)
    socket.on('error', () => socket.destroy())
  }

  readonly #add = (bytes: Buffer) => {
    this.#bytes = Buffer.concat([this.#bytes, bytes])
    this.#wake()
  }

  async take(count: number): Promise<Buffer> {
    while (this.#bytes.length < count) await this.#more()
    const taken = this.#bytes.subarray(0, count)
    this.#bytes = this.#bytes.subarray(count)
    return taken
  }

  async headers(): Promise<string> {
    while (!this.#bytes.includes('\r\n\r\n')) await this.#more()
    return (await this.take(this.#bytes.indexOf('\r\n\r\n') + 4)).toString()
  }

  /** From now on both ends talk to each other. */
  join(other: Socket): void {
    this.socket.off('data', this.#add)
    other.write(this.#bytes)
    this.socket.pipe(other)
    other.pipe(this.socket)
    for (const one of [this.socket, other]) {
      one.on('error', () => {})
      one.on('close', () => {
        this.socket.destroy()
        other.destroy()
      })
    }
  }

  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}

/** Undefined where nobody listens. */
function reach(host: string, port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port }, () => resolve(socket))
    socket.on('error', () => resolve(undefined))
  })
}

type Check = (headers: string, uri: string) => boolean

function httpProxy(port: number, wants: string | undefined, isRight: Check): void {
  createServer(async (socket) => {
    const reader = new Reader(socket)
    const headers = await reader.headers()
    const [, uri = '', host = '', to = ''] = /^CONNECT ((\S+):(\d+)) /.exec(headers) ?? []
    if (port === 3131) {
      socket.end('HTTP/1.0 403 Not for you\r\n\r\n')
    } else if (wants !== undefined && !isRight(headers, uri)) {
      socket.end(`HTTP/1.0 407 Who are you\r\nProxy-Authenticate: ${wants}\r\n\r\n`)
    } else {
      const server = await reach(host, Number(to))
      if (server === undefined) {
        socket.end('HTTP/1.0 502 Nobody there\r\n\r\n')
        return
      }
      say(`${port}: to ${uri}`)
      // Headers and what the server says may come in one piece.
      socket.write('HTTP/1.0 200 Connection established\r\nVia: test\r\n\r\n')
      reader.join(server)
    }
  }).listen(port, ANY)
}

const md5 = (text: string) => createHash('md5').update(text).digest('hex')

function digestIsRight(headers: string, uri: string): boolean {
  const field = (name: string) => new RegExp(`[ ,]${name}="?([^",\\r]+)`).exec(headers)?.[1] ?? ''
  const who = md5('alice:here:secret')
  const what = md5(`CONNECT:${uri}`)
  const rest = [field('nonce'), field('nc'), field('cnonce'), 'auth'].join(':')
  return field('nonce') === NONCE && field('response') === md5(`${who}:${rest}:${what}`)
}

function socksProxy(port: number, password: boolean): void {
  createServer(async (socket) => {
    const reader = new Reader(socket)
    const [, count = 0] = await reader.take(2)
    const methods = await reader.take(count)
    const method = password ? 2 : 0
    socket.write(Buffer.from([5, methods.includes(method) ? method : 0xff]))
    if (!methods.includes(method)) return
    if (password) {
      const [, nameLength = 0] = await reader.take(2)
      const name = await reader.take(nameLength)
      const [wordLength = 0] = await reader.take(1)
      const word = await reader.take(wordLength)
      const right = `${name}:${word}` === 'alice:secret'
      socket.write(Buffer.from([1, right ? 0 : 1]))
      if (!right) return
    }
    const [, command] = await reader.take(3)
    const { host, port: to } = await readTarget(reader)
    if (command === 1) {
      const server = await reach(host, to)
      if (server === undefined) {
        socket.end(Buffer.from([5, 5, 0, 1, 0, 0, 0, 0, 0, 0]))
        return
      }
      say(`${port}: to ${host}:${to}`)
      socket.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
      reader.join(server)
    } else {
      const relay = await openRelay(port)
      socket.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, relay.port >> 8, relay.port & 0xff]))
      socket.on('close', relay.close)
    }
  }).listen(port, ANY)
}

async function readTarget(reader: Reader): Promise<{ host: string; port: number }> {
  const [kind] = await reader.take(1)
  const host =
    kind === 1
      ? [...(await reader.take(4))].join('.')
      : (await reader.take((await reader.take(1))[0]!)).toString()
  return { host, port: (await reader.take(2)).readUInt16BE() }
}

/** Datagrams of one client; each says whom it is for. */
function openRelay(proxy: number): Promise<{ port: number; close: () => void }> {
  const inner = createSocket('udp4')
  const outer = createSocket('udp4')
  let client: { address: string; port: number } | undefined
  inner.on('message', (datagram, from) => {
    if (client === undefined) say(`${proxy}: datagrams to port ${datagram.readUInt16BE(8)}`)
    client = from
    const host = [...datagram.subarray(4, 8)].join('.')
    outer.send(datagram.subarray(10), datagram.readUInt16BE(8), host)
  })
  outer.on('message', (datagram, from) => {
    const header = [0, 0, 0, 1, ...from.address.split('.').map(Number), from.port >> 8, from.port]
    if (client !== undefined) {
      inner.send(Buffer.concat([Buffer.from(header), datagram]), client.port, client.address)
    }
  })
  const close = () => {
    inner.close()
    outer.close()
  }
  outer.bind(0)
  return new Promise((resolve) => {
    inner.bind(0, ANY, () => resolve({ port: inner.address().port, close }))
  })
}

const BASIC = `Basic ${Buffer.from('alice:secret').toString('base64')}`
httpProxy(3128, undefined, () => true)
httpProxy(3129, 'Basic realm="here"', (headers) =>
  headers.includes(`Proxy-Authorization: ${BASIC}\r\n`),
)
httpProxy(
  3130,
  `Digest realm="here", qop="auth,auth-int", nonce="${NONCE}", opaque="x"`,
  digestIsRight,
)
httpProxy(3131, undefined, () => false)
socksProxy(1080, false)
socksProxy(1081, true)
say('ready')
