/**
 * One client of the server, from the first packet that was believed to the end: its session, what was decided about it, its addresses and
 * its place in the data channel. Who else there is is the server's business.
 *
 *     handshake   the session's first key exchange     -- the client's key message has come -->
 *     deciding    the policy is asked                  -- it allows; both key messages are through; a push may be sent -->
 *     joining     addresses, peer and keys are made    -- the push is sent -->
 *     connected   keys are renewed, the policy is asked again each time
 *     leaving     it has been told to go, and has a few seconds to hear it
 *     gone        nothing of it is left
 *
 * Source: OpenVPN's src/openvpn/multi.c, push.c and ssl.c.
 */
import { ApiError } from '../../uapi/errno.ts'
import { encodeOccReply, occOperation } from '../../wire/occ.ts'
import { type PeerInfo, Proto, parsePeerInfo } from '../../wire/peer-info.ts'
import { ipv4ToNumber } from '../config/values.ts'
import type { DataChannel, DataPeer, DataPeerEvents, PeerCounters } from '../data-channel.ts'
import { LEVEL, optionsText, packetText, type Tell } from '../log.ts'
import type { Network as SystemNetwork, SystemRoute } from '../network.ts'
import type { Opening } from '../proto/cookie.ts'
import {
  type AuthFailure,
  formatAuthFailed,
  formatAuthPending,
  formatInfo,
  formatOrder,
  parseMessage,
} from '../proto/messages.ts'
import { agreedText, type Negotiated, negotiateAsServer } from '../proto/negotiate.ts'
import { encodePush } from '../proto/push.ts'
import type { Millis } from '../proto/reliable.ts'
import { Session, type SessionSettings } from '../proto/session.ts'
import type { SessionError } from '../proto/session-error.ts'
import type { PeerCertificates } from '../proto/tls-engine.ts'
import type { TransportLink } from '../transport-link.ts'
import { merge } from './configured-policy.ts'
import type { IpPool, Lease } from './ip-pool.ts'
import type {
  AuthDecision,
  ClientIdentity,
  ClientSettings,
  ConnectedClient,
  ServerPolicy,
} from './policy.ts'
import { pushedOptions } from './pushes.ts'
import { Responses } from './responses.ts'
import type { Network, ServerSettings } from './settings.ts'

/** What a client needs of its server. */
export interface ClientHost {
  readonly settings: ServerSettings
  readonly policy: ServerPolicy
  readonly data: DataChannel
  readonly pool: IpPool
  readonly network: SystemNetwork
  now(): Millis
  date(): Date
  /** Settings of a session, but for how it opened. */
  session(opening: Opening, hello: HelloSource): SessionSettings
  /** Calls back at that time or later; returns what ends the waiting. */
  schedule(at: Millis, call: () => void): () => void
  takePeerId(): number | undefined
  releasePeerId(id: number): void
  /**
   * It is who it says: others of its name, and older ones at its address, go. Resolves when they have gone, with what the former session
   * of the same client leaves.
   */
  claim(client: ServerClient): Promise<Estate | undefined>
  /** It has another common name than `former`. */
  renamed(client: ServerClient, former: string): void
  moved(client: ServerClient, from: string): void
  gone(client: ServerClient): void
  log: Tell
}

/**
 * What a client's session leaves to the next one of the same client, at the same address: its place in the data channel. So packets go on
 * when keys could not be renewed, with the old key still. Source: OpenVPN's ssl.c (tls_multi_process: a client is one
 * instance, whatever its sessions).
 */
export interface Estate {
  readonly peer: DataPeer
  readonly peerId: number
  readonly lease: Lease
  readonly counters: PeerCounters
  /** The end of its key. */
  readonly keyUntil: Millis
}

/** The options string, as an answer to the client's. */
export type HelloSource = () => { options: string }

export type Stage = 'handshake' | 'deciding' | 'joining' | 'connected' | 'leaving' | 'gone'

/** A push that was sent is not repeated sooner, however often it is asked for. */
const PUSH_REPEAT: Millis = 30_000
/** What a client that has to go has to hear it. */
const LINGER: Millis = 5000
/** Of routes to networks behind clients; as OpenVPN's with offload. */
const ROUTE_METRIC = 100
/** Packets of a client whose key is being looked at: more than its first flight. */
const MAX_EARLY = 16
const ANEW = { keepCredentials: true, nextServer: false, text: '' }
const NOBODY: PeerCertificates = { chain: [], verified: true }

interface Decision {
  readonly allow: boolean
}

export class ServerClient implements ClientIdentity {
  readonly id: number
  readonly link: TransportLink
  readonly session: Session
  readonly metadata: Uint8Array | undefined
  username = ''
  certificates = NOBODY
  lastSeen: Date
  readonly #host: ClientHost
  readonly #commonNameOf: (peer: PeerCertificates) => string
  readonly #ownOptions: () => string
  readonly #gone = new AbortController()
  readonly #responses = new Map<number, Responses>()
  #commonName = ''
  #stage: Stage = 'handshake'
  #info: PeerInfo = parsePeerInfo('')
  #options = ''
  #settings: ClientSettings | undefined
  #token: { token: string; username?: string } | undefined
  #asked = false
  #pushes: string[] = []
  #pushedAt: Millis = Number.NEGATIVE_INFINITY
  #agreed: Negotiated | undefined
  #peer: DataPeer | undefined
  #peerId: number | undefined
  #lease: Lease | undefined
  #routes: Network[] = []
  #systemRoutes: SystemRoute[] = []
  #since: Date | undefined
  /** The same by the clock that never jumps. */
  #connectedAt: Millis = 0
  /** By key id: what was decided at its renewal. */
  readonly #renewals = new Map<number, Promise<Decision>>()
  /** Those at its end. Of one that the driver has removed itself, those that were read last. */
  #counters: PeerCounters | undefined
  #countersLast: PeerCounters | undefined
  /** Left by the former session. */
  #estate: Estate | undefined
  #bequeaths = false
  /** Left to the next session. */
  #left: Estate | undefined
  #keysUntil: Millis | undefined
  /** The end of the former session's key, if no renewal comes before. */
  #formerKeyUntil: Millis = Number.POSITIVE_INFINITY
  /** When enough was moved last (`inactive`), and what had been moved until then. */
  #activeAt: Millis = 0
  #activeBytes = 0
  /** What had been moved when the present key began. */
  #countersAtKey = { bytes: 0, packets: 0 }
  #deadline: Millis
  #cancel: (() => void) | undefined
  #cancelAt: Millis = Number.POSITIVE_INFINITY
  #work: Promise<void> = Promise.resolve()
  /** What came while its key is being looked at: it is not read before. */
  #early: Uint8Array[] | undefined

  constructor(
    host: ClientHost,
    id: number,
    link: TransportLink,
    opening: Opening,
    commonNameOf: (peer: PeerCertificates) => string,
  ) {
    this.#host = host
    this.#commonNameOf = commonNameOf
    this.id = id
    this.link = link
    this.metadata = opening.metadata
    this.lastSeen = host.date()
    this.#deadline = host.now() + host.settings.handWindow
    const settings = host.session(opening, () => ({ options: this.#options }))
    this.#ownOptions = () => settings.hello(0).options
    this.session = new Session(
      settings,
      {
        send: (packet) => {
          this.#tell(packetText('out', packet), LEVEL.packets)
          this.link.send(packet)
        },
        certificates: (keyId, peer) => this.#certificates(keyId, peer),
        hello: (keyId, hello) => this.#hello(keyId, hello),
        ready: (keyId) => this.#ready(keyId),
        use: () => this.#serially(() => this.#peer?.swapKeys()),
        expired: () => this.#serially(() => this.#peer?.dropFormerKey()),
        message: (text) => this.#message(text),
        failed: (error, keysUntil) => this.#failed(error, keysUntil),
        wake: () => this.#wake(),
      },
      host.now(),
    )
    const { metadata } = opening
    const refuses = metadata && host.policy.refusesKey?.(metadata)
    if (refuses !== undefined) {
      this.#early = []
      const allowed = () => {
        const early = this.#early ?? []
        this.#early = undefined
        for (const packet of early) this.receive(packet)
      }
      void this.#unlessRefused(refuses, allowed, (why) => this.leave(why))
    }
    this.#schedule()
  }

  /** From the certificate, or by what was decided; '' until then. */
  get commonName(): string {
    return this.#commonName
  }

  get stage(): Stage {
    return this.#stage
  }

  get isGone(): boolean {
    return this.#stage === 'gone'
  }

  get protocol(): 'udp' | 'tcp' {
    return this.link.transport.protocol
  }

  get remote(): ClientIdentity['remote'] {
    return this.link.path.remote
  }

  get peerInfo(): ReadonlyMap<string, string> {
    return this.#info.entries
  }

  /** Of a client that is connected. */
  get facts(): ConnectedClient | undefined {
    if (this.#peerId === undefined || this.#since === undefined) return undefined
    const { id, commonName, username, certificates, protocol, remote, peerInfo, metadata } = this
    return {
      id,
      commonName,
      username,
      certificates,
      protocol,
      remote,
      peerInfo,
      metadata,
      peerId: this.#peerId,
      v4: this.#lease?.v4,
      v6: this.#lease?.v6,
      routes: this.#routes,
      cipher: this.#agreed?.cipher ?? '',
      since: this.#since,
    }
  }

  get peerId(): number | undefined {
    return this.#peerId
  }

  get canUpdate(): boolean {
    return this.#stage === 'connected' && (this.#info.proto & Proto.PushUpdate) !== 0
  }

  receive(packet: Uint8Array): void {
    if (this.isGone) return
    if (this.#early !== undefined) {
      if (this.#early.length < MAX_EARLY) this.#early.push(packet.slice())
      return
    }
    this.#tell(packetText('in', packet), LEVEL.packets)
    this.lastSeen = this.#host.date()
    this.session.receive(packet, this.#host.now())
    this.#schedule()
  }

  /** Sends a text of the control channel. */
  send(text: string): void {
    this.session.sendMessage(text)
  }

  renegotiate(): void {
    this.session.renegotiate(this.#host.now())
    this.#schedule()
  }

  /** Renews the key when enough has been sent with it. */
  noteTraffic(counters: PeerCounters): void {
    this.#countersLast = counters
    this.#noteActivity(counters.vpnRxBytes + counters.vpnTxBytes)
    const { bytes, packets } = this.#host.settings.renegotiate
    const before = this.#countersAtKey
    const moved = counters.linkRxBytes + counters.linkTxBytes - before.bytes
    const count = counters.linkRxPackets + counters.linkTxPackets - before.packets
    if ((bytes === 0 || moved < bytes) && (packets === 0 || count < packets)) return
    this.#countersAtKey = { bytes: before.bytes + moved, packets: before.packets + count }
    this.renegotiate()
  }

  #noteActivity(bytes: number): void {
    const limit = this.#settings?.inactive ?? this.#host.settings.inactive
    if (limit === undefined || this.#stage !== 'connected') return
    const now = this.#host.now()
    if (bytes - this.#activeBytes > limit.bytes) {
      this.#activeAt = now
      this.#activeBytes = bytes
    } else if (now >= this.#activeAt + limit.timeout) {
      this.leave('it moves nothing (inactive)', formatOrder('restart', ANEW))
    }
  }

  /** Tells it that it may not come, and why. */
  refuse(failure: AuthFailure, why: string): void {
    const temporary = (this.#info.proto & Proto.AuthFailTemp) !== 0
    this.leave(why, formatAuthFailed(failure, temporary))
  }

  /** Has it go: with a message it has a few seconds to hear it. */
  leave(reason: string, message?: string): void {
    if (this.#stage === 'leaving' || this.isGone) return
    const lingers = message !== undefined && !this.session.isClosed
    this.#host.log(`${this.text}: ${reason}`)
    this.#gone.abort()
    const stage = this.#stage
    this.#stage = 'leaving'
    if (lingers) this.session.sendMessage(message)
    this.#deadline = lingers ? this.#host.now() + LINGER : Number.POSITIVE_INFINITY
    this.#serially(() => this.#withdraw(reason, stage === 'connected', lingers))
    if (!lingers) this.#serially(() => this.#end())
    this.#schedule()
  }

  /** Nothing of it is left when this resolves. */
  async end(reason: string): Promise<void> {
    this.leave(reason)
    this.#serially(() => this.#end())
    await this.#work
  }

  /** As `end`, but its place in the data channel is left to whoever asked. */
  async bequeath(reason: string): Promise<Estate | undefined> {
    this.#bequeaths = this.protocol === 'udp'
    await this.end(reason)
    return this.#left
  }

  /** For the log. */
  get text(): string {
    const { address, port } = this.remote
    const where = address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
    return this.commonName === '' ? where : `${this.commonName}/${where}`
  }

  #rename(name: string): void {
    const former = this.#commonName
    this.#commonName = name
    if (name !== former) this.#host.renamed(this, former)
  }

  #certificates(keyId: number, peer: PeerCertificates): void {
    if (keyId === 0) {
      this.certificates = peer
      try {
        this.#rename(this.#commonNameOf(peer))
      } catch (error) {
        this.leave((error as Error).message)
        return
      }
    }
    const refuses = this.#host.policy.refusesCertificates?.(this, this.#gone.signal)
    if (refuses === undefined) this.session.admit(keyId)
    else {
      const refused = (why: string) => {
        this.session.reject(keyId, why, this.#host.now())
        this.#schedule()
      }
      void this.#unlessRefused(refuses, () => this.session.admit(keyId), refused)
    }
  }

  /** Goes on with `allowed` unless there is a reason why not, which is `refused`'s then. */
  async #unlessRefused(
    asked: Promise<string | undefined>,
    allowed: () => void,
    refused: (why: string) => void,
  ): Promise<void> {
    const why = await this.#unlessGone(asked).catch((error: unknown) => textOf(error))
    if (this.#gone.signal.aborted) return
    if (why === undefined) allowed()
    else refused(why)
  }

  #hello(
    keyId: number,
    hello: { options: string; username: string; password: string; peerInfo: string },
  ): void {
    const { username, password } = hello
    if (keyId > 0) {
      this.#renewals.set(keyId, this.#renew(keyId, username, password))
      return
    }
    this.#info = parsePeerInfo(hello.peerInfo)
    const info = [...this.#info.entries].map((entry) => entry.join('='))
    if (info.length > 0) this.#tell(`it says of itself: ${info.join(', ')}`, LEVEL.details)
    this.#options = hello.options
    this.username = username
    this.#stage = 'deciding'
    this.#serially(async () => {
      const decision = await this.#authenticate(keyId, username, password, false)
      if (this.#stage !== 'deciding') return
      if (!decision.allow) {
        this.refuse(decision.failure, decision.why ?? 'not authenticated')
        return
      }
      await this.#admit(decision)
    })
  }

  /**
   * A renewal that failed leaves the old key its time: the client begins a new session meanwhile. Not over a stream, where it is the
   * end, nor if the client became somebody else. Source: OpenVPN's ssl.c (tls_multi_process), ssl_verify.c, forward.c.
   */
  #failed(error: SessionError, keysUntil: Millis | undefined): void {
    const final = this.protocol === 'tcp' || error.code === 'identity'
    if (this.#stage !== 'connected' || keysUntil === undefined || final) {
      this.leave(error.message)
      return
    }
    this.#host.log(`${this.text}: keys were not renewed: ${error.message}`)
    this.#keysUntil = keysUntil
    this.#deadline = keysUntil
  }

  async #authenticate(
    keyId: number,
    username: string,
    password: string,
    again: boolean,
  ): Promise<AuthDecision> {
    const { settings, policy } = this.#host
    const given = username !== '' || password !== ''
    if (settings.passwords === 'require' && (username === '' || password === '')) {
      return denied('a user name and a password are needed')
    }
    if (policy.authenticate === undefined) return { allow: true }
    if (!given && settings.passwords === 'none' && !policy.decidesAll) return { allow: true }
    const responses = new Responses()
    this.#responses.set(keyId, responses)
    try {
      const asked = policy.authenticate({
        client: this,
        keyId,
        username,
        password,
        again,
        signal: this.#gone.signal,
        pend: (method, seconds) => this.#pend(method, seconds),
        responses,
      })
      return await this.#unlessGone(asked)
    } catch (error) {
      const text = textOf(error)
      return { ...denied('the server cannot tell who you are at present'), why: text }
    } finally {
      responses.end()
      this.#responses.delete(keyId)
    }
  }

  #pend(method: string, seconds: number): void {
    const keyword = (this.#info.proto & Proto.AuthPendingKeyword) !== 0
    this.session.sendMessage(keyword ? formatAuthPending(seconds) : formatAuthPending())
    this.session.sendMessage(formatInfo(true, method))
    this.#deadline = this.#host.now() + 1000 * seconds
    this.#schedule()
  }

  async #admit(decision: AuthDecision & { allow: true }): Promise<void> {
    const { settings, policy } = this.#host
    if (settings.usernameAsCommonName && this.username !== '') this.#rename(this.username)
    if (decision.commonName !== undefined) this.#rename(decision.commonName)
    this.#token = decision.token
    this.#inherit(await this.#host.claim(this))
    const first = decision.settings ?? {}
    const asked = policy.admit?.(this, this.#gone.signal, (more) =>
      this.#reserve(merge(first, more)),
    )
    const admitted = asked === undefined ? decision : await this.#unlessGone(asked)
    if (this.#stage !== 'deciding') return
    if (!admitted.allow) {
      this.refuse(admitted.failure, admitted.why ?? 'not admitted')
      return
    }
    this.#settings = admitted === decision ? first : merge(first, admitted.settings ?? {})
    if (this.#settings.username !== undefined) this.username = this.#settings.username
    this.#tryToJoin()
  }

  /** From now on it answers for what it was left, and removes it when it goes. */
  #inherit(estate: Estate | undefined): void {
    this.#estate = estate
    if (estate === undefined) return
    const { peer, peerId, lease } = estate
    this.#peer = peer
    this.#peerId = peerId
    this.#lease = lease
    peer.handTo(this.#dataEvents())
  }

  /**
   * The addresses that it has, or now holds, by these settings. Those in use by its former session stay as they are until it joins, and
   * what it will have in their place is told as far as it is known.
   */
  #reserve({ v4, v6 }: ClientSettings): Lease | undefined {
    const { pool, settings } = this.#host
    const fixed = { ...(v4 !== undefined && { v4 }), ...(v6 !== undefined && { v6 }) }
    if (this.#lease !== undefined) {
      if (fits(this.#lease, fixed)) return this.#lease
      if (this.#estate !== undefined) return { ...this.#lease, ...fixed }
      pool.release(this.#lease)
    }
    this.#lease = pool.acquire(settings.duplicateCn ? undefined : this.commonName, fixed)
    return this.#lease
  }

  async #renew(keyId: number, username: string, password: string): Promise<Decision> {
    const decision = await this.#authenticate(keyId, username, password, true)
    if (this.#stage !== 'connected') return { allow: false }
    if (!decision.allow) {
      this.refuse(decision.failure, decision.why ?? 'not authenticated any more')
      return decision
    }
    if (decision.token !== undefined && decision.token.token !== this.#token?.token) {
      this.#token = decision.token
      this.session.sendMessage(`PUSH_REPLY,auth-token ${decision.token.token}`)
    }
    return decision
  }

  #ready(keyId: number): void {
    if (keyId === 0) {
      this.#tryToJoin()
      return
    }
    this.#formerKeyUntil = Number.POSITIVE_INFINITY
    this.#serially(async () => {
      const decision = await this.#renewals.get(keyId)
      this.#renewals.delete(keyId)
      if (decision?.allow !== true || this.#stage !== 'connected') return
      await this.#peer?.addKey(this.session.dataKeys(keyId))
      const { facts } = this
      if (facts !== undefined) this.#host.policy.rekeyed?.(facts, keyId)
    })
  }

  #tell(text: string, level: number): void {
    this.#host.log(`${this.text}: ${text}`, level)
  }

  #message(text: string): void {
    const message = parseMessage(text)
    switch (message.kind) {
      case 'push-request':
        this.#asked = true
        if (this.#stage === 'connected') this.#push()
        else this.#tryToJoin()
        return
      case 'cr-response':
        for (const responses of this.#responses.values()) responses.put(message.response)
        return
      case 'exit':
        this.leave('it has left')
        return
      default:
        this.#host.log(`${this.text}: a message that means nothing here: ${text.slice(0, 200)}`)
    }
  }

  /** What clients that know no EXIT message have to say (before 2.6). */
  #inside(message: Uint8Array): void {
    const operation = occOperation(message)
    if (operation === 'exit') this.leave('it has left')
    else if (operation === 'request') {
      const reply = encodeOccReply(this.#ownOptions())
      // Whoever asked asks again.
      void this.#peer?.sendInside(reply).catch(() => {})
    }
  }

  #tryToJoin(): void {
    const wanted = this.#asked || (this.#info.proto & Proto.RequestPush) !== 0
    const ready = this.session.phase === 'ready' && this.#settings !== undefined
    if (this.#stage !== 'deciding' || !wanted || !ready) return
    this.#stage = 'joining'
    this.#serially(() => this.#join())
  }

  async #join(): Promise<void> {
    const { settings, data } = this.#host
    const own = this.#settings ?? {}
    const { dataCiphers } = settings
    const fallback = own.dataCiphersFallback ?? settings.dataCiphersFallback
    const result = negotiateAsServer(
      {
        dataCiphers,
        ...(fallback !== undefined && { fallback }),
        epoch: data.hasEpochs,
        requireTlsEkm: settings.requireTlsEkm,
      },
      this.#info,
      this.#options,
    )
    if ('refused' in result) {
      this.refuse({ reason: 'denied', text: result.tell }, result.refused)
      return
    }
    if (own.v4 !== undefined && !mayHave(settings.addressConstraint, own.v4)) {
      const why = `its address ${own.v4} is outside of ifconfig-push-constraint`
      this.refuse({ reason: 'denied', text: '' }, why)
      return
    }
    if (this.#estate !== undefined && !fits(this.#estate.lease, own)) {
      await this.#removePeer()
      this.#estate = undefined
      this.#counters = undefined
    }
    this.#peerId ??= this.#host.takePeerId()
    const [lease, peerId] = [this.#reserve(own), this.#peerId]
    if (lease === undefined || peerId === undefined) {
      const text = 'there is no address left for you'
      this.refuse({ reason: 'temporary', text }, 'no address is free')
      return
    }
    this.#agreed = result.negotiated
    this.#tell(agreedText(result.negotiated), LEVEL.details)
    this.session.agree(result.negotiated)
    try {
      this.#peer ??= await this.link.join(data, () => this.#addPeer(peerId, lease))
      await this.#peer.addKey(this.session.dataKeys(0))
      this.#addRoutes(own.routes ?? [])
    } catch (error) {
      if (this.#stage !== 'joining') return
      const text = textOf(error)
      const refusal = 'the server cannot carry your packets at present'
      this.refuse({ reason: 'temporary', text: refusal }, `the driver refuses it: ${text}`)
      return
    }
    if (this.#stage !== 'joining') return
    this.#stage = 'connected'
    this.#since = this.#host.date()
    this.#connectedAt = this.#host.now()
    this.#deadline = this.#host.now() + (this.#sessionTimeout() ?? Number.POSITIVE_INFINITY)
    this.#activeAt = this.#host.now()
    const options = pushedOptions(settings, own, {
      peerId,
      v4: lease.v4,
      v6: lease.v6,
      formats: result.push,
      tunMtu: this.#info.mtu === undefined ? undefined : settings.tunMtu,
      authToken: this.#token,
    })
    this.#pushes = encodePush('PUSH_REPLY', options)
    this.#tell(`it is pushed: ${optionsText(options)}`, LEVEL.steps)
    this.#push()
    if (this.#estate !== undefined) this.#succeed(this.#estate)
    this.#host.log(`${this.text}: connected, ${[lease.v4, lease.v6].filter(Boolean).join(' ')}`)
    this.#host.policy.connected?.(this.facts!)
    this.#schedule()
  }

  /** Sends with the new key; the old one is accepted to its end. */
  #succeed({ keyUntil, counters }: Estate): void {
    this.#formerKeyUntil = keyUntil
    this.#activeBytes = counters.vpnRxBytes + counters.vpnTxBytes
    this.#countersAtKey = {
      bytes: counters.linkRxBytes + counters.linkTxBytes,
      packets: counters.linkRxPackets + counters.linkTxPackets,
    }
    const { interval, timeout } = this.#keepalive()
    this.#serially(async () => {
      await this.#peer?.swapKeys()
      await this.#peer?.setKeepalive(interval, timeout)
    })
  }

  #sessionTimeout(): Millis | undefined {
    return this.#settings?.sessionTimeout ?? this.#host.settings.sessionTimeout
  }

  #keepalive(): { interval: number; timeout: number } {
    const { interval, timeout } = this.#host.settings.keepalive
    const { ping, pingRestart } = this.#settings ?? {}
    return {
      interval: ping === undefined ? interval : ping / 1000,
      timeout: pingRestart === undefined ? timeout : pingRestart / 1000,
    }
  }

  #addPeer(peerId: number, lease: Lease): Promise<DataPeer> {
    const { settings, data } = this.#host
    const { transport, path } = this.link
    return data.addPeer(
      {
        id: peerId,
        protocol: transport.protocol,
        fd: transport.fd,
        path,
        ...lease,
        keepalive: this.#keepalive(),
        mssfix: settings.mssfix,
      },
      this.#dataEvents(),
    )
  }

  #dataEvents(): DataPeerEvents {
    return {
      removed: (reason) => this.leave(REMOVED[reason]),
      floated: (remote) => {
        const from = this.text
        this.link.move(remote)
        this.#host.moved(this, from)
        if (this.facts !== undefined) this.#host.policy.floated?.(this.facts)
      },
      keyWorn: () => this.renegotiate(),
      packet: (packet) => {
        if (packet === undefined) this.leave('the connection has ended')
        else this.receive(packet)
      },
      inside: (message) => this.#inside(message),
    }
  }

  #addRoutes(routes: readonly Network[]): void {
    const { settings, network, data } = this.#host
    const allowed = routes.slice(0, settings.maxRoutesPerClient)
    for (const { network: destination, prefix } of allowed) {
      const gateway = destination.includes(':') ? this.#lease?.v6 : this.#lease?.v4
      if (gateway === undefined) continue
      const route = { destination, prefix, gateway, ifindex: data.ifindex, metric: ROUTE_METRIC }
      try {
        network.addRoute(route)
        this.#systemRoutes.push(route)
        this.#routes.push({ network: destination, prefix })
      } catch (error) {
        this.#host.log(`${this.text}: ${(error as Error).message}`)
      }
    }
  }

  #push(): void {
    const now = this.#host.now()
    if (now < this.#pushedAt + PUSH_REPEAT) return
    this.#pushedAt = now
    for (const message of this.#pushes) this.session.sendMessage(message)
  }

  /** Takes all away that it has in the data channel; `lingers`: but for the way that its last message takes. */
  async #withdraw(reason: string, wasConnected: boolean, lingers: boolean): Promise<void> {
    const { facts } = this
    const before = this.#estate?.counters
    for (const route of this.#systemRoutes.splice(0)) {
      try {
        this.#host.network.removeRoute(route)
      } catch (error) {
        this.#host.log(`${this.text}: ${(error as Error).message}`)
      }
    }
    const overDriver = this.protocol === 'tcp' && lingers
    if (this.#bequeaths) await this.#leaveEstate()
    if (!overDriver) await this.#removePeer()
    if (wasConnected && facts !== undefined) {
      if (overDriver) this.#counters = await this.#peer?.counters().catch(() => undefined)
      const counters = this.#counters ?? this.#countersLast
      this.#host.policy.disconnected?.(facts, {
        reason,
        bytesReceived: (counters?.linkRxBytes ?? 0) - (before?.linkRxBytes ?? 0),
        bytesSent: (counters?.linkTxBytes ?? 0) - (before?.linkTxBytes ?? 0),
        seconds: Math.floor((this.#host.now() - this.#connectedAt) / 1000),
      })
    }
  }

  async #leaveEstate(): Promise<void> {
    const [peer, peerId, lease] = [this.#peer, this.#peerId, this.#lease]
    if (peer === undefined || peerId === undefined || lease === undefined) return
    const counters = await peer.counters()
    this.#counters = counters
    const keyUntil = this.#keysUntil ?? this.#host.now() + this.#host.settings.tranWindow
    this.#left = { peer, peerId, lease, counters, keyUntil }
    this.#peer = undefined
    this.#peerId = undefined
    this.#lease = undefined
  }

  async #removePeer(): Promise<void> {
    const peer = this.#peer
    this.#peer = undefined
    const counters = await peer?.remove()
    this.#counters ??= counters
    if (this.#lease !== undefined) this.#host.pool.release(this.#lease)
    if (this.#peerId !== undefined) this.#host.releasePeerId(this.#peerId)
    this.#lease = undefined
    this.#peerId = undefined
  }

  async #end(): Promise<void> {
    if (this.isGone) return
    this.#stage = 'gone'
    this.#cancel?.()
    await this.#removePeer()
    this.session.close()
    this.link.close()
    this.#host.gone(this)
  }

  /** What is asked of the policy: rejects as soon as the client is gone, whatever the policy does. */
  #unlessGone<T>(asked: Promise<T>): Promise<T> {
    const { signal } = this.#gone
    return new Promise((resolve, reject) => {
      const gone = () => reject(new Error('the client has gone'))
      if (signal.aborted) gone()
      signal.addEventListener('abort', gone)
      asked.then(resolve, reject).finally(() => signal.removeEventListener('abort', gone))
    })
  }

  /** One thing after the other, in the order in which they were asked for. */
  #serially(step: () => Promise<void> | undefined): void {
    this.#work = this.#work.then(step).catch((error: unknown) => {
      if (this.#gone.signal.aborted) return
      const refused = error instanceof ApiError && ['ENOENT', 'ENODEV'].includes(error.errno)
      if (refused) return // the driver has removed the peer meanwhile, and says so
      this.#host.log(`${this.text}: ${textOf(error)}`)
      this.leave('something went wrong')
    })
  }

  #wake(): void {
    queueMicrotask(() => {
      if (this.isGone) return
      this.session.poll(this.#host.now())
      this.#schedule()
    })
  }

  #schedule(): void {
    if (this.isGone) return
    const at = Math.min(this.session.deadline(), this.#deadline, this.#formerKeyUntil)
    // Deadlines move with every packet: one call too many costs less than a timer for each.
    if (at >= this.#cancelAt) return
    this.#cancel?.()
    this.#cancelAt = at
    this.#cancel = this.#host.schedule(at, () => this.#due())
  }

  #due(): void {
    this.#cancelAt = Number.POSITIVE_INFINITY
    if (this.isGone) return
    const now = this.#host.now()
    this.session.poll(now)
    if (now >= this.#formerKeyUntil) {
      this.#formerKeyUntil = Number.POSITIVE_INFINITY
      this.#serially(() => this.#peer?.dropFormerKey())
    }
    if (now >= this.#deadline) {
      this.#deadline = Number.POSITIVE_INFINITY
      if (this.#stage === 'leaving') this.#serially(() => this.#end())
      else if (this.#stage !== 'connected') this.leave('it did not finish to connect in time')
      else if (this.session.isClosed) this.leave('its keys are too old')
      else this.leave('its time is over (session-timeout)', formatOrder('restart', ANEW))
    }
    this.#schedule()
  }
}

const REMOVED = {
  teardown: 'the interface was removed',
  userspace: 'somebody else has removed it',
  expired: 'nothing was heard of it for too long',
  'transport-error': 'its transport failed',
  'transport-disconnect': 'the connection has ended',
} as const

/** Whether the addresses that it had are those that it is to have. */
function fits(lease: Lease, { v4, v6 }: ClientSettings): boolean {
  return (v4 === undefined || v4 === lease.v4) && (v6 === undefined || v6 === lease.v6)
}

function mayHave(constraint: Network | undefined, address: string): boolean {
  if (constraint === undefined) return true
  const size = 2 ** (32 - constraint.prefix)
  const networkOf = (text: string) => Math.floor(ipv4ToNumber(text) / size)
  return networkOf(address) === networkOf(constraint.network)
}

function denied(text: string): AuthDecision & { allow: false } {
  return { allow: false, failure: { reason: 'denied', text }, why: text }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
