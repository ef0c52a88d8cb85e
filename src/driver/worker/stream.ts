/**
 * A TCP stream that the driver has taken over: cuts what arrives into packets, and queues what the socket does not take
 * at once. Bytes of an unfinished frame and of the queue are kept per stream; everything else lies in areas that all
 * streams of a worker share.
 */
import { E, IOVEC, MSG_DONTWAIT, MSG_NOSIGNAL, MSGHDR } from '../../platform/layout.ts'
import type { NativeMemory } from '../../platform/memory.ts'
import type { Syscalls } from '../../platform/syscalls.ts'
import { Deframer, FRAME_PREFIX_BYTES, FrameState, MAX_FRAME_BODY } from '../../wire/framing.ts'

/** Read at once, beside what is left of an unfinished frame. */
const READ_BYTES = 256 * 1024
const AREA_BYTES = READ_BYTES + FRAME_PREFIX_BYTES + MAX_FRAME_BODY
/** Copied into packet memory at once, to be written again. */
const STAGE_BYTES = 64 * 1024
/** Packets that wait for a slow receiver: beyond this, new ones are dropped, as inner TCP expects of a full link. */
const QUEUE_BYTES = 512 * 1024

/** The areas in packet memory that the streams of a worker share. */
export class StreamIo {
  readonly sys: Syscalls
  readonly memory: NativeMemory
  readonly deframer: Deframer
  readonly stage: number
  readonly #message: number
  readonly #iovec: number

  constructor(sys: Syscalls, memory: NativeMemory) {
    this.sys = sys
    this.memory = memory
    this.deframer = new Deframer(memory.u8, memory.area(AREA_BYTES, 64), AREA_BYTES)
    this.stage = memory.area(STAGE_BYTES, 64)
    this.#message = memory.area(MSGHDR.size, 16)
    this.#iovec = memory.area(IOVEC.size, 16)
    memory.u8.fill(0, this.#message, this.#message + MSGHDR.size)
    memory.view.setBigUint64(this.#message + MSGHDR.iov, BigInt(memory.base + this.#iovec), true)
    memory.view.setUint32(this.#message + MSGHDR.iovlen, 1, true)
  }

  /** Bytes taken, or -errno. The descriptor may be shared with its former owner, so it is never set non-blocking. */
  send(fd: number, offset: number, length: number): number {
    this.#aim(offset, length)
    return this.sys.sendmsg(fd, this.memory.base + this.#message, MSG_DONTWAIT | MSG_NOSIGNAL)
  }

  /** Bytes read, 0 at the end, or -errno. */
  receive(fd: number, offset: number, length: number): number {
    this.#aim(offset, length)
    return this.sys.recvmsg(fd, this.memory.base + this.#message, MSG_DONTWAIT)
  }

  #aim(offset: number, length: number): void {
    const { view, base } = this.memory
    view.setBigUint64(this.#iovec + IOVEC.base, BigInt(base + offset), true)
    view.setUint32(this.#iovec + IOVEC.len, length, true)
    view.setUint32(this.#iovec + IOVEC.len + 4, 0, true)
  }
}

/**
 * How reading ended: nothing more now; the stream's end; a stream that cannot be cut into packets; it is not to be read any
 * more; an error (-errno).
 */
export type ReadEnd = 'empty' | 'ended' | 'bad-frame' | 'not-ours' | number

export class Stream {
  readonly fd: number
  readonly #io: StreamIo
  #rest = new Uint8Array(0)
  readonly #queue: Uint8Array[] = []
  /** Of the first chunk in the queue, already written. */
  #written = 0
  #queued = 0

  constructor(fd: number, io: StreamIo) {
    this.fd = fd
    this.#io = io
  }

  /** Whether packets wait for the socket to become writable. */
  get blocked(): boolean {
    return this.#queue.length > 0
  }

  /**
   * Reads once and hands each whole packet to `each`, which says whether to go on. When `arrived`, called once before that,
   * says false, they are lost.
   */
  read(arrived: () => boolean, each: (offset: number, length: number) => boolean): ReadEnd {
    const { deframer, memory } = this.#io
    deframer.reset()
    memory.u8.set(this.#rest, deframer.writeOffset)
    deframer.wrote(this.#rest.length)
    const got = this.#io.receive(this.fd, deframer.writeOffset, READ_BYTES)
    if (got > 0 && !arrived()) return 'not-ours'
    if (got <= 0) return got === 0 ? 'ended' : got === -E.EAGAIN ? 'empty' : got
    deframer.wrote(got)
    let state = deframer.next()
    while (state === FrameState.Ready) {
      if (!each(deframer.offset, deframer.length)) return 'bad-frame'
      state = deframer.next()
    }
    if (state !== FrameState.Incomplete) return 'bad-frame'
    const end = deframer.writeOffset
    this.#rest = memory.u8.slice(end - deframer.pending, end)
    return 'empty'
  }

  /**
   * Sends `length` bytes of whole frames at `offset`.
   *
   * @returns frames that found no room, or -errno
   */
  send(offset: number, length: number): number {
    let sent = 0
    if (!this.blocked) {
      const taken = this.#io.send(this.fd, offset, length)
      if (taken === length) return 0
      if (taken < 0 && taken !== -E.EAGAIN) return taken
      sent = Math.max(taken, 0)
    }
    return this.#enqueue(offset, length, sent)
  }

  /** Writes of the queue what the socket takes; 0 or -errno. */
  drain(): number {
    const { memory, stage } = this.#io
    while (this.blocked) {
      const chunk = this.#queue[0]!
      const bytes = Math.min(chunk.length - this.#written, STAGE_BYTES)
      memory.u8.set(chunk.subarray(this.#written, this.#written + bytes), stage)
      const taken = this.#io.send(this.fd, stage, bytes)
      if (taken === -E.EAGAIN) return 0
      if (taken < 0) return taken
      this.#written += taken
      this.#queued -= taken
      if (this.#written === chunk.length) {
        this.#queue.shift()
        this.#written = 0
      }
      if (taken < bytes) return 0
    }
    return 0
  }

  /** Keeps what was not sent: the rest of the frame that is under way always, whole frames while there is room. */
  #enqueue(offset: number, length: number, sent: number): number {
    const { u8, view } = this.#io.memory
    const end = offset + length
    let keep = offset
    let dropped = 0
    while (keep < end) {
      const next = keep + FRAME_PREFIX_BYTES + view.getUint16(keep)
      const begun = keep < offset + sent
      if (!begun && this.#queued + next - (offset + sent) > QUEUE_BYTES) {
        for (let at = keep; at < end; at += FRAME_PREFIX_BYTES + view.getUint16(at)) dropped++
        break
      }
      keep = next
    }
    if (keep > offset + sent) {
      this.#queue.push(u8.slice(offset + sent, keep))
      this.#queued += keep - offset - sent
    }
    return dropped
  }
}
