/**
 * Owns the reliability layer of one key state: which control messages are on their way, when one is sent again, which
 * of the peer's are delivered, and which acknowledgements ride in the next packet. Packets, their wraps and what the
 * messages carry are session.ts's and key-state.ts's.
 *
 *     ids of one direction:   ... acked | unacked, at most SEND_WINDOW | not sent yet ...
 *                             ... delivered | early ones, kept, below next + RECEIVE_WINDOW | dropped ...
 *
 * Message ids are u32 and count from 0 in every key state; 0 is its reset. The same timers run over TCP: a peer drops a
 * soft reset for which it is not ready, whatever brought it.
 *
 * Source: OpenVPN's src/openvpn/reliable.c and reliable.h (2.6 and later); openvpn3's openvpn/reliable.
 */
import type { Opcode } from '../../wire/opcode.ts'

/** Monotonic milliseconds. */
export type Millis = number

/** Messages without an acknowledgement at a time: what a receiver of 2.6 (12), openvpn3 and 2.4 (8) has room for. */
export const SEND_WINDOW = 6
/** Messages ahead of the next one that are kept. */
export const RECEIVE_WINDOW = 12
/** Bytes that may wait ahead of the next message: many times what a sender of full packets has in its window. */
export const EARLY_BYTES = 64 * 1024
/** Acknowledgements in a packet with a message, and in one that has nothing else. */
export const ACKS_BESIDE_MESSAGE = 4
export const ACKS_ALONE = 8
/** Acknowledgements kept for being sent again. */
const RECENT_ACKS = 8
/** So many later messages acknowledged tell that one was lost. */
const LATER_ACKS = 3
const LAST_MESSAGE_ID = 0xffffffff

export interface Message {
  readonly id: number
  readonly opcode: Opcode
  readonly payload: Uint8Array
}

interface Sent extends Message {
  /** When to send it again; now, or before, for the first time. */
  due: Millis
  /** How long to wait after the next time. */
  timeout: Millis
  /** Acknowledgements of later messages since it was sent. */
  laterAcks: number
}

/** Numbers outgoing messages, and keeps each until it is acknowledged. */
export class SendWindow {
  readonly #firstTimeout: Millis
  readonly #unacked: Sent[] = []
  #nextId: number

  /** `firstTimeout`: until a message is sent for the second time; it doubles from then on (`tls-timeout`). */
  constructor(firstTimeout: Millis, nextId = 0) {
    this.#firstTimeout = firstTimeout
    this.#nextId = nextId
  }

  /** Whether one more message may be put in. */
  get hasRoom(): boolean {
    const oldest = this.#unacked[0]
    if (this.#nextId > LAST_MESSAGE_ID) return false
    return oldest === undefined || this.#nextId < oldest.id + SEND_WINDOW
  }

  /** Whether everything put in has been acknowledged. */
  get isEmpty(): boolean {
    return this.#unacked.length === 0
  }

  /** Id of the message that `push` takes next. */
  get nextId(): number {
    return this.#nextId
  }

  /** Puts in a message, due at once. Only while `hasRoom`; `payload` is kept, not copied. */
  push(opcode: Opcode, payload: Uint8Array, now: Millis): void {
    const timeout = this.#firstTimeout
    this.#unacked.push({ id: this.#nextId++, opcode, payload, due: now, timeout, laterAcks: 0 })
  }

  /** The peer has `id`. Unknown ids mean nothing. */
  acknowledge(id: number): void {
    const unacked = this.#unacked
    const at = unacked.findIndex((message) => message.id === id)
    if (at < 0) return
    unacked.splice(at, 1)
    for (let i = 0; i < at; i++) unacked[i]!.laterAcks++
  }

  /** The next message to send at `now`, the oldest first; it then waits for its timeout. */
  take(now: Millis): Message | undefined {
    for (const message of this.#unacked) {
      if (message.due > now && message.laterAcks < LATER_ACKS) continue
      message.due = now + message.timeout
      message.timeout *= 2
      message.laterAcks = 0
      return message
    }
    return undefined
  }

  /** When `take` has something; Infinity while nothing is on its way. */
  deadline(): Millis {
    let first = Number.POSITIVE_INFINITY
    for (const { due, laterAcks } of this.#unacked) {
      first = Math.min(first, laterAcks < LATER_ACKS ? due : Number.NEGATIVE_INFINITY)
    }
    return first
  }
}

/** What became of a message that arrived. The first two are to be acknowledged. */
export type Arrival = 'new' | 'duplicate' | 'too far ahead'

/** Brings the peer's messages into order, each once. */
export class ReceiveWindow {
  readonly #early = new Map<number, Message>()
  #earlyBytes = 0
  #next: number

  constructor(next = 0) {
    this.#next = next
  }

  /** Keeps a copy of the message if it is new and there is room. */
  accept({ id, opcode, payload }: Message): Arrival {
    if (id < this.#next || this.#early.has(id)) return 'duplicate'
    if (id >= this.#next + RECEIVE_WINDOW) return 'too far ahead'
    // The next one is always taken: it is the one that makes room.
    if (id !== this.#next && this.#earlyBytes + payload.length > EARLY_BYTES) return 'too far ahead'
    this.#early.set(id, { id, opcode, payload: payload.slice() })
    this.#earlyBytes += payload.length
    return 'new'
  }

  /** The next message in order, if it is there. */
  take(): Message | undefined {
    const message = this.#early.get(this.#next)
    if (message === undefined) return undefined
    this.#early.delete(this.#next++)
    this.#earlyBytes -= message.payload.length
    return message
  }
}

/**
 * Acknowledgements to be sent: those waiting, oldest first, then those sent lately, again. The repetition is what keeps a
 * handshake alive whose server keeps nothing until it sees its session id: every packet of the client brings it.
 */
export class AckQueue {
  readonly #waiting: number[] = []
  #recent: number[] = []

  /** How many wait that have not been sent since they were added. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** Beyond ACKS_ALONE none is remembered: the peer sends such a message again. */
  add(id: number): void {
    if (this.#waiting.length < ACKS_ALONE && !this.#waiting.includes(id)) this.#waiting.push(id)
  }

  /** The acknowledgements of one packet with room for `limit`. */
  take(limit: number): number[] {
    const acks = this.#waiting.splice(0, limit)
    for (const id of this.#recent) {
      if (acks.length === limit) break
      if (!acks.includes(id)) acks.push(id)
    }
    this.#recent = recentAcks(acks, this.#recent)
    return acks
  }
}

/** The list of acknowledgements to repeat, newest first, after a packet with `acks` was sent. */
export function recentAcks(acks: readonly number[], before: readonly number[]): number[] {
  return [...new Set([...acks, ...before])].slice(0, RECENT_ACKS)
}
