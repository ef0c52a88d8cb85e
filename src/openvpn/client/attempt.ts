/**
 * One connection to one server, from the first packet to the end: the session, what the server pushes, and this end's place in the data
 * channel. Which server comes next, what the user is asked and what becomes of addresses and routes is client.ts's.
 *
 *     reaching     our reset is on its way           -- the server has answered -->
 *     exchanging   TLS, key messages                 -- both are through -->
 *     asking       for the push reply                -- all of it has come -->
 *     joining      the owner makes the interface     -- it is up, and has its keys -->
 *     connected    until it ends
 *
 * A renewal of keys that fails leaves the old key what is left of its time: meanwhile a new session begins, as often as it takes, over the
 * same socket. Its key takes the old one's place when the server has pushed anew. Over a stream it is the end, as in OpenVPN.
 *
 * Source: OpenVPN's src/openvpn/forward.c, push.c and ssl.c.
 */
import type { DelReason } from '../../uapi/types.ts'
import { encodeOccReply, OCC_EXIT, occOperation } from '../../wire/occ.ts'
import type { DataChannel, DataPeer, PeerCounters } from '../data-channel.ts'
import { LEVEL, packetText, type Tell } from '../log.ts'
import {
  type AuthFailure,
  formatCrResponse,
  type Order,
  type PendingMethod,
  parseMessage,
  parsePendingMethod,
} from '../proto/messages.ts'
import { type DataPolicy, type Negotiated, negotiateAsClient } from '../proto/negotiate.ts'
import { PushCollector, parseOption } from '../proto/push.ts'
import type { Millis } from '../proto/reliable.ts'
import { Session, type SessionSettings } from '../proto/session.ts'
import { SessionError } from '../proto/session-error.ts'
import type { PeerCertificates } from '../proto/tls-engine.ts'
import type { TransportLink } from '../transport-link.ts'

export interface AttemptSettings {
  readonly policy: DataPolicy
  readonly session: Extract<SessionSettings, { role: 'client' }>
  /** Without a sign of the server for that long (`server-poll-timeout`), another is tried. */
  readonly connectTimeout: Millis
  /** Until keepalive is known: no sign of the server for that long is its end. 0: never. */
  readonly pingRestart: Millis
}

/** What the server gave. */
export interface Pushed {
  readonly options: readonly string[]
  readonly negotiated: Negotiated
  readonly peerId: number
}

/** Why it is over. */
export type Ending =
  /** Nothing came; `code`: what the system says about names and connections. */
  | { readonly kind: 'unreachable'; readonly text: string; readonly code?: string | undefined }
  /** The handshake failed, or the connection did later. */
  | { readonly kind: 'failed'; readonly text: string; readonly code?: string | undefined }
  | { readonly kind: 'refused'; readonly failure: AuthFailure }
  | { readonly kind: 'ordered'; readonly halt: boolean; readonly order: Order }
  /** The server has said that it ends, or nothing was heard of it any more; `code`: a SessionErrorCode, a DelReason, or `remote-exit`. */
  | { readonly kind: 'lost'; readonly text: string; readonly code?: string | undefined }
  /** What it pushed does not fit: `reject` by a filter, a cipher that is not allowed. */
  | { readonly kind: 'unsuitable'; readonly text: string }
  | { readonly kind: 'closed' }

export interface AttemptEvents {
  stage(stage: Stage): void
  /** The server's certificates are good as far as TLS knows; why they are refused all the same. */
  verify(peer: PeerCertificates): Promise<string | undefined>
  /** All has been pushed: the owner makes the interface and gives it to `join`. */
  pushed(pushed: Pushed): void
  /** An update of what was pushed; the owner says whether it could follow. */
  updated(entries: readonly string[]): boolean
  /** A new token in place of the password. */
  token(options: readonly string[]): void
  /** All has been pushed anew, with a new session in place of the former, whose keys were not renewed. */
  pushedAgain(pushed: Pushed): void
  /** The user is asked for more. */
  pending(method: PendingMethod | undefined, timeoutSeconds: number | undefined): void
  info(text: string): void
  /** A message of the server's that means nothing here. */
  stray(text: string): void
  rekeyed(keyId: number): void
  floated(): void
  log: Tell
  ended(ending: Ending): void
}

export type Stage = 'reaching' | 'exchanging' | 'asking' | 'joining' | 'connected' | 'ended'

/** What the attempt needs of the world. */
export interface AttemptWorld {
  now(): Millis
  schedule(at: Millis, call: () => void): () => void
}

export interface JoinOptions {
  readonly data: DataChannel
  readonly v4?: string | undefined
  readonly v6?: string | undefined
  /** Seconds; 0 for never. */
  readonly keepalive: { readonly interval: number; readonly timeout: number }
  readonly mssfix: number | undefined
  /** How long, in seconds, the farewell is repeated until the server has it (`explicit-exit-notify`). */
  readonly farewell: number
}

const FIRST_REQUEST: Millis = 1000
const REQUEST_AGAIN: Millis = 5000
/** With a new session, servers have no key before they push, and ignore requests of the first second or two. */
const REQUEST_ANEW: Millis = 1000
/** From a session that came to nothing, in place of one whose keys were not renewed, to the next. */
const SESSION_AGAIN: Millis = 5000
const SERVER_ENDS: Ending = { kind: 'lost', text: 'the server ends', code: 'remote-exit' }
const NOTHING_HEARD = 'nothing was heard of the server for too long'

/** What holds while a new session is wanted in place of one whose keys were not renewed. */
interface Succession {
  /** The old key's end. */
  readonly until: Millis
  /** When the next session begins, if there is none. */
  readonly next: Millis
  /** When the present one has to have brought a push reply. */
  pushBy: Millis
}

export class Attempt {
  readonly link: TransportLink
  readonly #settings: AttemptSettings
  readonly #world: AttemptWorld
  readonly #events: AttemptEvents
  #session: Session
  #succession: Succession | undefined
  /** Of the key before the last session's first: when it ends, if no renewal does that. */
  #formerKeyUntil: Millis = Number.POSITIVE_INFINITY
  #collector = new PushCollector()
  readonly #updates = new PushCollector()
  #stage: Stage = 'reaching'
  #serverOptions = ''
  #negotiated: Negotiated | undefined
  #peerId = 0
  #peer: DataPeer | undefined
  #requestAt: Millis = Number.POSITIVE_INFINITY
  #deadline: Millis
  #lastHeard: Millis
  /** The server has asked for patience until then. */
  #patientUntil: Millis = 0
  #joined: JoinOptions | undefined
  /** What peers have moved that the present one is the successor of. */
  readonly #formerPeers: PeerCounters[] = []
  #cancel: (() => void) | undefined
  #cancelAt: Millis = Number.NaN
  #work: Promise<void> = Promise.resolve()

  constructor(
    settings: AttemptSettings,
    link: TransportLink,
    world: AttemptWorld,
    events: AttemptEvents,
  ) {
    this.#settings = settings
    this.#world = world
    this.#events = events
    this.link = link
    const now = world.now()
    this.#deadline = now + settings.connectTimeout
    this.#lastHeard = now
    this.#session = this.#newSession(now)
  }

  get stage(): Stage {
    return this.#stage
  }

  get negotiated(): Negotiated | undefined {
    return this.#negotiated
  }

  /** Sends the first packet. */
  start(): void {
    this.#events.stage('reaching')
    this.#poll()
  }

  receive(packet: Uint8Array): void {
    if (this.#stage === 'ended') return
    this.#events.log(packetText('in', packet), LEVEL.packets)
    const now = this.#world.now()
    const before = this.#session.peerSessionId
    this.#session.receive(packet, now)
    if (this.#session.peerSessionId === undefined) return
    // Only what the session took counts as a sign of life.
    this.#lastHeard = now
    if (before === undefined && this.#stage === 'reaching') {
      this.#deadline = now + this.#settings.session.handWindow
      this.#advance('exchanging')
    }
    this.#poll()
  }

  /** The stream under it has ended. */
  transportEnded(error: Error | undefined): void {
    const text = error?.message ?? 'the server has closed the connection'
    const code = this.#stage === 'reaching' ? 'ECONNRESET' : undefined
    if (this.#stage === 'connected') this.#end({ kind: 'lost', text })
    else this.#end({ kind: code === undefined ? 'failed' : 'unreachable', text, code })
  }

  /** Puts this end into the data channel, with the first key. Rejects with what the driver refuses. */
  async join(options: JoinOptions): Promise<void> {
    this.#joined = options
    const peer = await this.link.join(options.data, () => this.#addPeer(options))
    this.#peer = peer
    if (this.#stage !== 'joining') {
      await peer.remove()
      return
    }
    await peer.addKey(this.#session.dataKeys(0))
    this.#advance('connected')
    this.#poll()
  }

  #addPeer({ data, v4, v6, keepalive, mssfix }: JoinOptions): Promise<DataPeer> {
    const { transport, path } = this.link
    return data.addPeer(
      {
        id: this.#peerId,
        protocol: transport.protocol,
        fd: transport.fd,
        path,
        ...(v4 !== undefined && { v4 }),
        ...(v6 !== undefined && { v6 }),
        keepalive,
        mssfix,
      },
      {
        removed: (reason) => this.#end({ kind: 'lost', text: REMOVED[reason], code: reason }),
        floated: (remote) => {
          this.link.move(remote)
          this.#events.floated()
        },
        keyWorn: () => this.renegotiate(),
        packet: (packet) => {
          if (packet === undefined) this.transportEnded(undefined)
          else this.receive(packet)
        },
        inside: (message) => this.#inside(message),
      },
    )
  }

  /** From the beginning of the connection on. */
  async counters(): Promise<PeerCounters | undefined> {
    const counters = await this.#peer?.counters()
    return counters && this.#formerPeers.reduce(addUp, counters)
  }

  renegotiate(): void {
    this.#session.renegotiate(this.#world.now())
    this.#schedule()
  }

  /** An answer to a question of the server's (`pending`). */
  respond(text: string): void {
    this.#session.sendMessage(formatCrResponse(text))
  }

  setKeepalive(interval: number, timeout: number): void {
    this.#serially(() => this.#peer?.setKeepalive(interval, timeout))
  }

  /** Ends it for a reason of the owner's, without a word to the server. */
  abandon(ending: Ending): void {
    this.#end(ending)
  }

  /** Ends it. `tellServer`: with a word to the server, which takes a moment. */
  async close(tellServer: boolean): Promise<void> {
    if (this.#stage === 'connected' && tellServer) {
      const byMessage = this.#negotiated?.exitMessage === true && this.#succession === undefined
      await (byMessage ? this.#exit() : this.#exitInside())
    }
    this.#end({ kind: 'closed' })
    await this.#work
  }

  async #exit(): Promise<void> {
    this.#session.sendMessage('EXIT')
    const until = this.#world.now() + Math.max(FAREWELL, 1000 * (this.#joined?.farewell ?? 0))
    do {
      this.#poll()
      await this.#wait(FAREWELL)
    } while (!this.#session.isAcknowledged && this.#world.now() < until)
  }

  /** To a server that knows no EXIT message (before 2.6), among data packets; nobody acknowledges it. The end of a stream says enough. */
  async #exitInside(): Promise<void> {
    if (this.link.transport.protocol === 'tcp') return
    for (let left = Math.max(1, this.#joined?.farewell ?? 0); left > 0; left--) {
      const sent = await this.#peer?.sendInside(OCC_EXIT).catch(() => false)
      if (sent !== true || left === 1) return
      await this.#wait(EXIT_AGAIN)
    }
  }

  #inside(message: Uint8Array): void {
    const operation = occOperation(message)
    if (operation === 'exit') this.#end(SERVER_ENDS)
    else if (operation === 'request') {
      const { options } = this.#settings.session.hello(0)
      // Whoever asked asks again.
      void this.#peer?.sendInside(encodeOccReply(options)).catch(() => {})
    }
  }

  #newSession(now: Millis): Session {
    const session: Session = new Session(
      this.#settings.session,
      {
        send: (packet) => {
          this.#events.log(packetText('out', packet), LEVEL.packets)
          this.link.send(packet)
        },
        certificates: (keyId, peer) => {
          this.#advance('exchanging')
          void this.#verify(session, keyId, peer)
        },
        hello: (keyId, hello) => {
          if (keyId === 0) this.#serverOptions = hello.options
        },
        ready: (keyId) => this.#ready(session, keyId),
        use: () => this.#serially(() => this.#peer?.swapKeys()),
        expired: () => this.#serially(() => this.#peer?.dropFormerKey()),
        message: (text) => this.#message(text),
        failed: (error, keysUntil) => this.#failed(error, keysUntil),
        wake: () => queueMicrotask(() => this.#poll()),
      },
      now,
    )
    return session
  }

  #wait(time: Millis): Promise<void> {
    return new Promise((resolve) => {
      this.#world.schedule(this.#world.now() + time, resolve)
    })
  }

  async #verify(session: Session, keyId: number, peer: PeerCertificates): Promise<void> {
    const problem = await this.#events.verify(peer)
    if (this.#stage === 'ended') return
    if (problem === undefined) session.admit(keyId)
    else session.reject(keyId, problem, this.#world.now())
    this.#poll()
  }

  #advance(stage: Stage): void {
    if (this.#stage === 'ended' || ORDER.indexOf(stage) <= ORDER.indexOf(this.#stage)) return
    this.#stage = stage
    this.#events.stage(stage)
  }

  #ready(session: Session, keyId: number): void {
    const now = this.#world.now()
    if (keyId === 0) {
      this.#advance('asking')
      this.#requestAt = now + FIRST_REQUEST
      if (this.#succession !== undefined) {
        this.#succession.pushBy = now + this.#settings.session.handWindow
      }
      return
    }
    this.#formerKeyUntil = Number.POSITIVE_INFINITY
    this.#serially(async () => {
      if (this.#stage !== 'connected' || session !== this.#session) return
      await this.#peer?.addKey(session.dataKeys(keyId))
      this.#events.rekeyed(keyId)
    })
  }

  #message(text: string): void {
    const message = parseMessage(text)
    switch (message.kind) {
      case 'push-reply':
        this.#reply(message.body)
        return
      case 'push-update':
        this.#update(message.body)
        return
      case 'auth-failed':
        this.#end({ kind: 'refused', failure: message.failure })
        return
      case 'auth-pending':
        if (message.timeout !== undefined) this.#extend(message.timeout)
        this.#events.pending(undefined, message.timeout)
        return
      case 'info':
        if (message.pending) this.#events.pending(parsePendingMethod(message.text), undefined)
        else this.#events.info(message.text)
        return
      case 'restart':
      case 'halt':
        this.#end({ kind: 'ordered', halt: message.kind === 'halt', order: message.order })
        return
      case 'exit':
        this.#end(SERVER_ENDS)
        return
      default:
        this.#events.stray(text)
    }
  }

  #reply(body: string): void {
    const options = this.#collector.add(body)
    if (options === 'more') return
    if (options === 'too much') {
      this.#end({ kind: 'unsuitable', text: 'the server pushes more than anybody needs' })
      return
    }
    const again = this.#succession !== undefined && this.#session.phase === 'ready'
    if (this.#stage !== 'asking' && !again) {
      this.#events.token(options)
      return
    }
    this.#requestAt = Number.POSITIVE_INFINITY
    const words = options.map((option) => parseOption(option) ?? [])
    const result = negotiateAsClient(this.#settings.policy, words, this.#serverOptions)
    if ('refused' in result) {
      this.#end({ kind: 'unsuitable', text: result.refused })
      return
    }
    for (const warning of result.warnings) this.#events.log(warning)
    this.#negotiated = result.negotiated
    this.#session.agree(result.negotiated)
    if (again) {
      this.#succeed(result.peerId)
      this.#events.pushedAgain({ ...result, options })
      return
    }
    this.#peerId = result.peerId
    // What takes its time from here on is this machine's: scripts, addresses.
    this.#deadline = Number.POSITIVE_INFINITY
    this.#advance('joining')
    const { negotiated, peerId } = result
    this.#events.pushed({ options, negotiated, peerId })
  }

  /** The session takes the place of the former: so does its key, for the same peer or another. */
  #succeed(peerId: number): void {
    const session = this.#session
    const { until } = this.#succession!
    this.#succession = undefined
    this.#serially(async () => {
      const [former, joined] = [this.#peer, this.#joined]
      if (this.#stage !== 'connected' || session !== this.#session || !former || !joined) return
      const key = session.dataKeys(0)
      if (peerId === this.#peerId) {
        await former.addKey(key)
        await former.swapKeys()
        this.#formerKeyUntil = until
      } else {
        this.#peerId = peerId
        this.#formerPeers.push(await former.counters())
        // With one peer to an interface, the new one takes the old one's place.
        former.forget()
        this.#peer = await this.#addPeer(joined)
        await this.#peer.addKey(key)
      }
      this.#events.rekeyed(0)
      this.#poll()
    })
  }

  #update(body: string): void {
    const entries = this.#updates.add(body)
    if (entries === 'more' || this.#stage !== 'connected') return
    if (entries !== 'too much' && this.#events.updated(entries)) return
    this.#end({ kind: 'lost', text: 'the server changes what cannot be changed here' })
  }

  /** More time for the user or for whoever decides: as much as the server gives, within what the configuration allows. */
  #extend(seconds: number): void {
    const { handWindow, renegotiate } = this.#settings.session
    const most = Math.max(renegotiate.most / 2, handWindow)
    this.#patientUntil = this.#world.now() + Math.min(1000 * seconds, most)
    if (this.#succession !== undefined) this.#succession.pushBy = this.#patientUntil
    else if (this.#stage !== 'connected') this.#deadline = this.#patientUntil
  }

  #failed(error: SessionError, keysUntil: Millis | undefined): void {
    const text = error.message
    const { code } = error
    if (this.#stage === 'connected') this.#notRenewed(error, keysUntil)
    else if (code === 'no-answer') this.#end({ kind: 'unreachable', text })
    else this.#end({ kind: 'failed', text, code })
  }

  /** Source: OpenVPN's src/openvpn/ssl.c (tls_multi_process), forward.c (check_tls_errors_co). */
  #notRenewed({ message, code }: SessionError, keysUntil: Millis | undefined): void {
    const now = this.#world.now()
    const text = `keys were not renewed: ${message}`
    const before = this.#succession
    const until = before?.until ?? keysUntil ?? now
    const final = this.link.transport.protocol === 'tcp' || code === 'identity'
    if (final || now >= until) {
      this.#end({ kind: 'lost', text, code })
      return
    }
    this.#events.log(text)
    const next = before === undefined ? now : now + SESSION_AGAIN
    this.#succession = { until, next, pushBy: Number.POSITIVE_INFINITY }
    this.#requestAt = Number.POSITIVE_INFINITY
    this.#collector = new PushCollector()
    queueMicrotask(() => this.#poll())
  }

  /** Begins the next session when it is time, and ends all when the old key's is over. */
  #pursue(now: Millis, { until, next, pushBy }: Succession): void {
    if (now >= until) {
      this.#end({ kind: 'lost', text: 'keys were not renewed, and the old ones are too old' })
    } else if (now >= pushBy) {
      this.#session.close()
      this.#failed(new SessionError('timeout', 'the server has not pushed anew'), undefined)
    } else if (this.#session.isClosed && now >= next) {
      this.#session = this.#newSession(now)
    }
  }

  #poll(): void {
    if (this.#stage === 'ended') return
    const now = this.#world.now()
    if (this.#succession !== undefined) this.#pursue(now, this.#succession)
    if (now >= this.#formerKeyUntil) {
      this.#formerKeyUntil = Number.POSITIVE_INFINITY
      this.#serially(() => this.#peer?.dropFormerKey())
    }
    if (now >= this.#requestAt) {
      this.#requestAt = now + (this.#succession === undefined ? REQUEST_AGAIN : REQUEST_ANEW)
      this.#session.sendMessage('PUSH_REQUEST')
    }
    this.#session.poll(now)
    if (now >= this.#deadline) this.#late()
    const { pingRestart } = this.#settings
    const silent =
      pingRestart > 0 && now >= Math.max(this.#lastHeard + pingRestart, this.#patientUntil)
    if (silent && this.#stage !== 'connected') this.#end({ kind: 'lost', text: NOTHING_HEARD })
    this.#schedule()
  }

  #late(): void {
    if (this.#stage === 'reaching') {
      const seconds = this.#settings.connectTimeout / 1000
      this.#end({ kind: 'unreachable', text: `no answer within ${seconds} s` })
    } else if (this.#stage === 'asking') {
      this.#end({ kind: 'failed', text: 'the server has not told what this client gets' })
    } else if (this.#stage !== 'connected') {
      this.#end({ kind: 'failed', text: 'the connection did not come about in time' })
    }
  }

  #schedule(): void {
    if (this.#stage === 'ended') return
    const succession = this.#succession
    const next = this.#session.isClosed ? succession?.next : succession?.pushBy
    const at = Math.min(
      this.#session.deadline(),
      this.#deadline,
      this.#requestAt,
      this.#formerKeyUntil,
      next ?? Number.POSITIVE_INFINITY,
      succession?.until ?? Number.POSITIVE_INFINITY,
    )
    if (at === this.#cancelAt) return
    this.#cancel?.()
    this.#cancelAt = at
    this.#cancel =
      at === Number.POSITIVE_INFINITY
        ? undefined
        : this.#world.schedule(at, () => {
            this.#cancelAt = Number.NaN
            this.#poll()
          })
  }

  #serially(step: () => Promise<void> | undefined): void {
    this.#work = this.#work.then(step).catch((error: unknown) => {
      const text = error instanceof Error ? error.message : String(error)
      this.#end({ kind: 'lost', text: `the driver refuses: ${text}` })
    })
  }

  #end(ending: Ending): void {
    if (this.#stage === 'ended') return
    this.#stage = 'ended'
    this.#cancel?.()
    this.#session.close()
    this.#work = this.#work
      .then(() => this.#peer?.remove())
      .catch(() => {})
      .then(() => {
        this.link.close()
        this.#events.ended(ending)
      })
  }
}

/** How often it is looked whether the server has heard that this end leaves, and how long at least. */
const FAREWELL: Millis = 100
/** As OpenVPN has it (sig.c, process_explicit_exit_notification_timer_wakeup). */
const EXIT_AGAIN: Millis = 1000
const ORDER: readonly Stage[] = [
  'reaching',
  'exchanging',
  'asking',
  'joining',
  'connected',
  'ended',
]

function addUp(a: PeerCounters, b: PeerCounters): PeerCounters {
  return {
    vpnRxBytes: a.vpnRxBytes + b.vpnRxBytes,
    vpnTxBytes: a.vpnTxBytes + b.vpnTxBytes,
    linkRxBytes: a.linkRxBytes + b.linkRxBytes,
    linkTxBytes: a.linkTxBytes + b.linkTxBytes,
    linkRxPackets: a.linkRxPackets + b.linkRxPackets,
    linkTxPackets: a.linkTxPackets + b.linkTxPackets,
  }
}

const REMOVED: { readonly [R in DelReason]: string } = {
  teardown: 'the interface was removed',
  userspace: 'somebody has removed the peer',
  expired: NOTHING_HEARD,
  'transport-error': 'the transport has failed',
  'transport-disconnect': 'the server has closed the connection',
}
