/**
 * TLS that is none, for sessions by the thousand: it takes as many flights as TLS 1.3 with certificates, brings everything
 * later and in pieces, notices every changed byte, and both ends export the same secrets.
 *
 *     record   | kind 1 | length 2 | sum 4 | content |      sizes in bytes
 */
import { createHash, createHmac } from 'node:crypto'
import type {
  PeerCertificates,
  TlsEngine,
  TlsEvents,
  TlsFactory,
} from '../../src/openvpn/proto/tls-engine.ts'
import type { Random } from '../random.ts'

const Kind = { ClientHello: 1, ServerFlight: 2, ClientFlight: 3, Ticket: 4, Data: 5 } as const

export interface FakeTlsSettings {
  random: Random
  /** Calls back later, in order. */
  later: (run: () => void) => void
  /** Our certificate. */
  certificate: () => Uint8Array
  /** Whether the peer's is good; yes, if absent. */
  verify?: (certificate: Uint8Array) => string | undefined
}

export function createFakeTls(settings: FakeTlsSettings): TlsFactory {
  return (role, events) => new FakeTls(role, events, settings)
}

const HEADER_BYTES = 7
const RANDOM_BYTES = 32

class FakeTls implements TlsEngine {
  readonly #role: 'server' | 'client'
  readonly #events: TlsEvents
  readonly #settings: FakeTlsSettings
  readonly #own: Uint8Array
  #secret: Buffer | undefined
  #stream: Buffer = Buffer.alloc(0)
  #isEstablished = false
  #isClosed = false

  constructor(role: 'server' | 'client', events: TlsEvents, settings: FakeTlsSettings) {
    this.#role = role
    this.#events = events
    this.#settings = settings
    this.#own = settings.random.bytes(RANDOM_BYTES)
    if (role === 'client') this.#emit(Kind.ClientHello, this.#own, this.#padding(400))
  }

  receive(ciphertext: Uint8Array): void {
    this.#stream = Buffer.concat([this.#stream, ciphertext])
    this.#later(() => this.#read())
  }

  write(plaintext: Uint8Array): void {
    if (!this.#isEstablished) throw new Error('not established')
    this.#emit(Kind.Data, plaintext)
  }

  exportKeyingMaterial(label: string, length: number): Uint8Array {
    if (this.#secret === undefined || this.#isClosed) throw new Error('not established')
    const output = Buffer.alloc(length)
    for (let at = 0; at < length; at += 32) {
      createHmac('sha256', this.#secret).update(`${label} ${at}`).digest().copy(output, at)
    }
    return output
  }

  close(): void {
    this.#isClosed = true
  }

  #read(): void {
    while (this.#stream.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + this.#stream.readUInt16BE(1)
      if (this.#stream.length < end) return
      const record = this.#stream.subarray(0, end)
      this.#stream = this.#stream.subarray(end)
      const kind = record[0]!
      const content = record.subarray(HEADER_BYTES)
      const isWhole = sumOf(kind, content).equals(record.subarray(3, HEADER_BYTES))
      if (isWhole && this.#handle(kind, content)) continue
      this.#settings.later(() => this.#events.failed(new Error('a record was changed')))
      this.close()
      return
    }
  }

  /** Whether such a record may come now. */
  #handle(kind: number, content: Buffer): boolean {
    const isServer = this.#role === 'server'
    const knowsPeer = this.#secret !== undefined
    switch (kind) {
      case Kind.ClientHello:
        if (!isServer || knowsPeer) return false
        this.#agree(content, this.#own)
        this.#emit(Kind.ServerFlight, this.#own, this.#settings.certificate(), this.#padding(2000))
        return true
      case Kind.ServerFlight: {
        if (isServer || knowsPeer) return false
        this.#agree(this.#own, content)
        const none = Buffer.alloc(RANDOM_BYTES)
        this.#emit(Kind.ClientFlight, none, this.#settings.certificate(), this.#padding(2000))
        this.#establish(content)
        return true
      }
      case Kind.ClientFlight:
        if (!isServer || !knowsPeer || this.#isEstablished) return false
        this.#establish(content)
        this.#emit(Kind.Ticket, this.#padding(300))
        return true
      case Kind.Ticket:
        return !isServer
      case Kind.Data:
        if (!this.#isEstablished) return false
        this.#events.plaintext(content)
        return true
      default:
        return false
    }
  }

  #agree(client: Uint8Array, server: Uint8Array): void {
    const hash = createHash('sha256').update(client.subarray(0, RANDOM_BYTES))
    this.#secret = hash.update(server.subarray(0, RANDOM_BYTES)).digest()
  }

  /** `flight`: random, certificate with its length, padding. */
  #establish(flight: Buffer): void {
    const end = RANDOM_BYTES + 2 + flight.readUInt16BE(RANDOM_BYTES)
    const certificate = Uint8Array.from(flight.subarray(RANDOM_BYTES + 2, end))
    const problem = this.#settings.verify?.(certificate)
    const peer: PeerCertificates =
      problem === undefined
        ? { chain: [certificate], verified: true }
        : { chain: [certificate], verified: false, problem }
    this.#isEstablished = true
    this.#events.established(peer)
  }

  /** Sends a record, in two pieces now and then. The second part, if there are three, has its length before it. */
  #emit(kind: number, first: Uint8Array, certificate?: Uint8Array, padding?: Uint8Array): void {
    const parts = [first]
    if (padding === undefined && certificate !== undefined) parts.push(certificate)
    if (padding !== undefined) {
      const { length } = certificate!
      parts.push(Uint8Array.of(length >> 8, length & 0xff), certificate!, padding)
    }
    const content = Buffer.concat(parts)
    const record = Buffer.concat([
      Uint8Array.of(kind, content.length >> 8, content.length & 0xff),
      sumOf(kind, content),
      content,
    ])
    const cut = this.#settings.random.below(2) * this.#settings.random.below(record.length)
    for (const piece of [record.subarray(0, cut), record.subarray(cut)]) {
      if (piece.length > 0) this.#later(() => this.#events.ciphertext(piece))
    }
  }

  #later(run: () => void): void {
    this.#settings.later(() => {
      if (!this.#isClosed) run()
    })
  }

  #padding(most: number): Uint8Array {
    return this.#settings.random.bytes(this.#settings.random.below(most))
  }
}

function sumOf(kind: number, content: Uint8Array): Buffer {
  return createHash('sha1').update(Uint8Array.of(kind)).update(content).digest().subarray(0, 4)
}
