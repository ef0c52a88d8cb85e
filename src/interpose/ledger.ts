/**
 * The calls that a supervisor has received and not answered yet, in a file that outlives it: they wait for ever unless whoever comes
 * after it answers them (successor.ts).
 *
 *     | id 8 | thread 4 | call 4 | descriptor 4 | 0 4 |      one slot; thread 0: free
 */
import { readSync, writeSync } from 'node:fs'
import type { CallObserver, TrappedCall, WaitingCall } from '../platform/seccomp.ts'

const SLOT = { id: 0, tid: 8, nr: 12, fd: 16, size: 24 }

const FREE = Buffer.alloc(SLOT.size)

/** What is known of a call that was received. */
export type OpenCall = Pick<TrappedCall, 'id' | 'tid' | 'nr'> & { readonly fd: number }

export class Ledger implements CallObserver {
  readonly #fd: number
  readonly #slots = new Map<bigint, number>()
  readonly #free: number[] = []
  #end = 0
  readonly #slot = Buffer.alloc(SLOT.size)

  constructor(fd: number) {
    this.#fd = fd
  }

  received({ id, tid, nr, ints }: TrappedCall): void {
    const at = this.#free.pop() ?? this.#end++ * SLOT.size
    this.#slots.set(id, at)
    this.#slot.writeBigUInt64LE(id, SLOT.id)
    this.#slot.writeUInt32LE(tid, SLOT.tid)
    this.#slot.writeInt32LE(nr, SLOT.nr)
    this.#slot.writeInt32LE(ints[0]!, SLOT.fd)
    this.#write(this.#slot, at)
  }

  /** Answered, or nobody waits for it. */
  done({ id }: WaitingCall): void {
    const at = this.#slots.get(id)
    if (at === undefined) return
    this.#slots.delete(id)
    this.#free.push(at)
    this.#write(FREE, at)
  }

  #write(slot: Buffer, at: number): void {
    try {
      writeSync(this.#fd, slot, 0, SLOT.size, at)
    } catch {
      // Without memory left, the call is served all the same.
    }
  }
}

/** What a ledger's owner has left open. */
export function readLedger(fd: number): OpenCall[] {
  const found: OpenCall[] = []
  const slot = Buffer.alloc(SLOT.size)
  for (let at = 0; readSync(fd, slot, 0, SLOT.size, at) === SLOT.size; at += SLOT.size) {
    const tid = slot.readUInt32LE(SLOT.tid)
    if (tid === 0) continue
    found.push({
      id: slot.readBigUInt64LE(SLOT.id),
      tid,
      nr: slot.readInt32LE(SLOT.nr),
      fd: slot.readInt32LE(SLOT.fd),
    })
  }
  return found
}
