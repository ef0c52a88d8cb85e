/**
 * A client that is only a session over a UDP socket: it connects as any other, makes its data keys and sends nothing with them. Hundreds
 * fit in a process, for loads of handshakes, and a test may stop one in the middle. What it takes from the server is told to
 * nobody; interfaces and addresses are the real client's.
 */
import { randomBytes } from 'node:crypto'
import { parseMessage } from '../../src/openvpn/proto/messages.ts'
import {
  clientProto,
  DEFAULT_DATA_CIPHERS,
  negotiateAsClient,
} from '../../src/openvpn/proto/negotiate.ts'
import { PushCollector, parseOption } from '../../src/openvpn/proto/push.ts'
import { Session, type SessionKey } from '../../src/openvpn/proto/session.ts'
import type { TlsFactory } from '../../src/openvpn/proto/tls-engine.ts'
import type { WrapSettings } from '../../src/wire/wrap.ts'

export interface LightSettings {
  readonly address: string
  readonly port: number
  readonly wrap: WrapSettings
  readonly tls: TlsFactory
  /** What is sent in place of a packet, the first of which has index 0; undefined: nothing. */
  readonly tamper?: (packet: Uint8Array, index: number) => Uint8Array | undefined
}

/** How far it is: `stopped` before it was through. */
export type LightStage = 'connecting' | 'connected' | 'stopped'

const POLICY = { dataCiphers: DEFAULT_DATA_CIPHERS, epoch: false }
const PEER_INFO = `IV_VER=2.6.14\nIV_PLAT=linux\nIV_NCP=2\nIV_TCPNL=1\nIV_CIPHERS=${DEFAULT_DATA_CIPHERS.join(':')}\nIV_PROTO=${clientProto(false)}\n`
const OPTIONS = 'V4,dev-type tun,link-mtu 1549,tun-mtu 1500,proto UDPv4,key-method 2,tls-client'
const HAND_WINDOW_MS = 60_000
const ASK_AGAIN_MS = 5000

export class LightClient {
  stage: LightStage = 'connecting'
  /** What was pushed. */
  pushed: readonly string[] = []
  key: SessionKey | undefined
  /** Why it stopped. */
  problem = ''
  readonly #collector = new PushCollector()
  readonly #session: Session
  readonly #socket: Bun.udp.ConnectedSocket<'buffer'>
  readonly #done: (client: LightClient) => void
  #serverOptions = ''
  #timer: ReturnType<typeof setTimeout> | undefined
  #timerAt = Number.POSITIVE_INFINITY

  /** Sends the first packet. `done` is called once: connected, or stopped before. */
  static async start(
    settings: LightSettings,
    done: (client: LightClient) => void,
  ): Promise<LightClient> {
    let client: LightClient | undefined
    const socket = await Bun.udpSocket({
      connect: { hostname: settings.address, port: settings.port },
      socket: { data: (_, packet) => client?.receive(packet) },
    })
    client = new LightClient(settings, socket, done)
    client.#poll()
    return client
  }

  private constructor(
    { wrap, tls, tamper = (packet) => packet }: LightSettings,
    socket: Bun.udp.ConnectedSocket<'buffer'>,
    done: (client: LightClient) => void,
  ) {
    this.#socket = socket
    this.#done = done
    let packets = 0
    this.#session = new Session(
      {
        role: 'client',
        wrap,
        tls,
        random: (count) => new Uint8Array(randomBytes(count)),
        hello: () => ({ options: OPTIONS, username: '', password: '', peerInfo: PEER_INFO }),
        unixSeconds: () => Math.floor(Date.now() / 1000),
        maxPacket: 1222,
        tlsTimeout: 2000,
        handWindow: HAND_WINDOW_MS,
        tranWindow: 3_600_000,
        renegotiate: { least: 0, most: 0 },
      },
      {
        send: (packet) => {
          const sent = tamper(packet, packets++)
          if (sent !== undefined) socket.send(sent)
        },
        certificates: (keyId) => this.#session.admit(keyId),
        hello: (_, { options }) => {
          this.#serverOptions = options
        },
        ready: () => this.#ask(),
        use: () => {},
        expired: () => {},
        message: (text) => this.#message(text),
        failed: ({ message }) => this.stop(message),
        wake: () => queueMicrotask(() => this.#poll()),
      },
      performance.now(),
    )
  }

  receive(packet: Uint8Array): void {
    if (this.stage === 'stopped') return
    this.#session.receive(packet, performance.now())
    this.#schedule()
  }

  /** Tells the server that it leaves, and forgets all as soon as the server has heard it. */
  async leave(): Promise<void> {
    this.#session.sendMessage('EXIT')
    this.#poll()
    const end = performance.now() + ASK_AGAIN_MS
    // TLS takes a moment to make packets of it: until then everything seems to have arrived.
    do await Bun.sleep(20)
    while (!this.#session.isAcknowledged && performance.now() < end)
    this.stop('it has left')
  }

  /** Falls silent. */
  stop(problem: string): void {
    if (this.stage === 'stopped') return
    const before = this.stage
    this.stage = 'stopped'
    this.problem = problem
    clearTimeout(this.#timer)
    // Within the session's own call it cannot be closed yet.
    queueMicrotask(() => {
      this.#session.close()
      this.#socket.close()
    })
    if (before === 'connecting') this.#done(this)
  }

  #ask(): void {
    if (this.stage !== 'connecting') return
    this.#session.sendMessage('PUSH_REQUEST')
    setTimeout(() => {
      this.#ask()
      this.#poll()
    }, ASK_AGAIN_MS).unref()
  }

  #message(text: string): void {
    const message = parseMessage(text)
    if (message.kind === 'auth-failed') this.stop(text)
    if (message.kind !== 'push-reply' || this.stage !== 'connecting') return
    const options = this.#collector.add(message.body)
    if (!Array.isArray(options)) return
    const words = options.map((option) => parseOption(option) ?? [])
    const agreed = negotiateAsClient(POLICY, words, this.#serverOptions)
    if ('refused' in agreed) {
      this.stop(agreed.refused)
      return
    }
    this.pushed = options
    this.#session.agree(agreed.negotiated)
    this.key = this.#session.dataKeys(0)
    this.stage = 'connected'
    this.#done(this)
  }

  #poll(): void {
    if (this.stage === 'stopped') return
    this.#session.poll(performance.now())
    this.#schedule()
  }

  #schedule(): void {
    if (this.stage === 'stopped') return
    const at = this.#session.deadline()
    if (at === this.#timerAt) return
    clearTimeout(this.#timer)
    this.#timerAt = at
    if (at === Number.POSITIVE_INFINITY) return
    this.#timer = setTimeout(
      () => {
        this.#timerAt = Number.POSITIVE_INFINITY
        this.#poll()
      },
      Math.max(0, Math.ceil(at - performance.now())),
    )
  }
}
