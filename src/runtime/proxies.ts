/** Ways to a server through a proxy of the profile: connections, and datagrams that a relay on this machine hands on. What is said is openvpn/client/proxies.ts's. */
import { isIP } from 'node:net'
import type { OpenedTransport, OpenHow } from '../openvpn/client/client.ts'
import {
  answerChallenge,
  type ByteStream,
  connectThroughHttp,
  connectThroughSocks,
  type Login,
  ProxyError,
  socksDatagramBody,
  socksDatagramHeader,
} from '../openvpn/client/proxies.ts'
import type { ConnectionEntry, HttpProxy, SocksProxy } from '../openvpn/config/client-config.ts'
import type { Credentials } from '../openvpn/config/fields.ts'
import type { DatagramTransport, Endpoint } from '../openvpn/transport.ts'
import type { SocketOptions } from '../platform/datagrams.ts'
import { E } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'
import type { Watch } from '../platform/watch.ts'
import { realClock } from './clock.ts'
import { openDatagrams } from './datagrams.ts'
import { type ConnectOptions, connectSocket, createStream } from './streams.ts'

const NONCE_BYTES = 16

/** Remembers what the user has said to each proxy. */
export class Proxies {
  readonly #watch: Watch
  readonly #logins = new Map<string, Login>()

  constructor(watch: Watch) {
    this.#watch = watch
  }

  /** Rejects with a ProxyError, an OsError, or what `how.ask` rejects with. */
  async openHttp(
    entry: ConnectionEntry,
    proxy: HttpProxy,
    remote: Endpoint,
    options: ConnectOptions,
    how: OpenHow,
  ): Promise<OpenedTransport> {
    const target = { host: entry.host, port: entry.port }
    let stream = await SocketBytes.connect(this.#watch, remote, options)
    try {
      const challenges = await connectThroughHttp(stream, proxy, target)
      if (challenges !== undefined) {
        stream.close()
        const { credentials } = proxy
        if (credentials === undefined) {
          const text = "the proxy wants a name and a password: add 'auto' or a file to http-proxy"
          throw new ProxyError('PROXY_AUTH', text)
        }
        const login = await this.#login(proxy, credentials, 'HTTP Proxy', how)
        const nonce = Buffer.from(realClock.random(NONCE_BYTES)).toString('hex')
        const answer = answerChallenge(challenges, proxy, target, login, nonce)
        stream = await SocketBytes.connect(this.#watch, remote, options)
        await connectThroughHttp(stream, proxy, target, answer)
      }
    } catch (error) {
      stream.close()
      if (error instanceof ProxyError && error.code === 'PROXY_AUTH') this.#forget(proxy)
      throw error
    }
    const transport = createStream(this.#watch, stream.release())
    return { transport, path: transport.path }
  }

  /** Rejects as `openHttp`. */
  async openSocks(
    entry: ConnectionEntry,
    proxy: SocksProxy,
    remote: Endpoint,
    options: ConnectOptions,
    how: OpenHow,
  ): Promise<OpenedTransport> {
    const { credentials } = proxy
    const login = credentials && (() => this.#login(proxy, credentials, 'SOCKS Proxy', how))
    const stream = await SocketBytes.connect(this.#watch, remote, options)
    try {
      const target = { host: entry.host, port: entry.port }
      if (entry.protocol === 'tcp') {
        await connectThroughSocks(stream, 'connect', target, login)
        const transport = createStream(this.#watch, stream.release())
        return { transport, path: transport.path }
      }
      const any = { host: '0.0.0.0', port: 0 }
      const relay = await connectThroughSocks(stream, 'associate', any, login)
      // Many proxies name no address: it is their own.
      const given = isIP(relay.host) !== 0 && !/^[0:.]+$/.test(relay.host)
      const address = given ? relay.host : remote.address
      const to = { address, port: relay.port, scope: 0 }
      const transport = openRelay(this.#watch, to, socksDatagramHeader(target), options, stream)
      return { ...transport, outer: address }
    } catch (error) {
      stream.close()
      if (error instanceof ProxyError && error.code === 'PROXY_AUTH') this.#forget(proxy)
      throw error
    }
  }

  async #login(
    proxy: HttpProxy | SocksProxy,
    credentials: Credentials | 'ask',
    what: 'HTTP Proxy' | 'SOCKS Proxy',
    { ask }: OpenHow,
  ): Promise<Login> {
    const known = this.#logins.get(keyOf(proxy))
    if (known !== undefined) return known
    const username = credentials === 'ask' ? undefined : credentials.username
    let login: Login
    if (credentials !== 'ask' && credentials.password !== undefined) {
      login = { username: credentials.username, password: credentials.password }
    } else {
      const answer = await ask({ kind: 'credentials', what, username })
      login = { username: username ?? answer.username ?? '', password: answer.text }
    }
    this.#logins.set(keyOf(proxy), login)
    return login
  }

  #forget(proxy: HttpProxy | SocksProxy): void {
    this.#logins.delete(keyOf(proxy))
  }
}

const keyOf = ({ host, port }: { host: string; port: number }) => `${host} ${port}`

/**
 * A socket for the driver, which knows nothing of proxies, and a relay on this machine that puts the proxy's header before each datagram:
 *
 *     transport <--> inner (127.0.0.1) | header | outer <--> the proxy
 */
function openRelay(
  watch: Watch,
  to: Endpoint,
  header: Uint8Array,
  options: SocketOptions,
  association: SocketBytes,
): { transport: DatagramTransport; path: { remote: Endpoint } } {
  const any = to.address.includes(':') ? '::' : '0.0.0.0'
  const outer = openDatagrams(watch, any, 0, options)
  const inner = openDatagrams(watch, '127.0.0.1', 0)
  const transport = openDatagrams(watch, '127.0.0.1', 0)
  const here = { remote: transport.local }
  inner.onPacket((packet, { remote }) => {
    if (remote.port !== transport.local.port) return
    const datagram = new Uint8Array(header.length + packet.length)
    datagram.set(header)
    datagram.set(packet, header.length)
    outer.send(datagram, { remote: to })
  })
  outer.onPacket((packet, { remote }) => {
    const body = remote.address === to.address ? socksDatagramBody(packet) : undefined
    if (body !== undefined) inner.send(body, here)
  })
  return {
    transport: {
      ...transport,
      close() {
        transport.close()
        inner.close()
        outer.close()
        association.close()
      },
    },
    path: { remote: inner.local },
  }
}

/** A connected socket, read as far as one asks. */
class SocketBytes implements ByteStream {
  readonly #watch: Watch
  readonly #fd: number
  readonly #signal: AbortSignal
  #open = true

  static async connect(watch: Watch, to: Endpoint, options: ConnectOptions): Promise<SocketBytes> {
    const fd = await connectSocket(watch, to, options)
    const late = AbortSignal.timeout(options.timeoutMs)
    const signal = options.signal === undefined ? late : AbortSignal.any([late, options.signal])
    return new SocketBytes(watch, fd, signal)
  }

  private constructor(watch: Watch, fd: number, signal: AbortSignal) {
    this.#watch = watch
    this.#fd = fd
    this.#signal = signal
  }

  /** A few bytes, which a new connection always has room for. */
  write(bytes: Uint8Array): void {
    const block = createBlock(bytes.length)
    block.u8.set(bytes)
    openLibc().write(this.#fd, block.base, bytes.length)
  }

  async read(count: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(count)
    for (let have = 0; have < count; ) {
      const block = createBlock(count - have)
      const got = openLibc().read(this.#fd, block.base, count - have)
      if (got === -E.EAGAIN) await this.#readable()
      else if (got <= 0) {
        throw new ProxyError('PROXY_PROTOCOL', 'the proxy has closed the connection')
      } else {
        bytes.set(block.u8.subarray(0, got), have)
        have += got
      }
    }
    return bytes
  }

  /** The descriptor, which is the caller's from now on. */
  release(): number {
    this.#open = false
    return this.#fd
  }

  close(): void {
    if (this.#open) openLibc().close(this.release())
  }

  #readable(): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (settle: () => void) => {
        watched.end()
        this.#signal.removeEventListener('abort', aborted)
        settle()
      }
      const silent = new ProxyError('PROXY_PROTOCOL', 'the proxy does not answer')
      const aborted = () => done(() => reject(silent))
      const watched = this.#watch.add(this.#fd, () => done(resolve))
      this.#signal.addEventListener('abort', aborted)
      if (this.#signal.aborted) aborted()
    })
  }
}
