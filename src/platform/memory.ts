/**
 * Memory that both JavaScript and the operating system see: a worker's packet memory, and small
 * blocks for the structures of set-up calls. What lies where in them is up to their users.
 */

import { ptr } from 'bun:ffi'
import { createChecksum, type Sum } from './checksum.ts'

const PAGE_BYTES = 65536
const FIRST_OFFSET = 64 // so that no area has offset 0, and one that was never set shows

/** A worker's packet memory. All positions in it are byte offsets. It never grows and never moves. */
export interface NativeMemory {
  readonly buffer: ArrayBuffer
  readonly u8: Uint8Array
  readonly u16: Uint16Array
  readonly u32: Uint32Array
  readonly view: DataView
  /** Address of offset 0. */
  readonly base: number
  readonly sum: Sum
  /**
   * Sets `bytes` aside for good, at a multiple of `align` (a power of two, 16 unless told).
   *
   * @returns its offset
   * @throws RangeError when the memory is used up
   */
  area(bytes: number, align?: number): number
}

/** `bytes` is rounded up to 64 KiB; at most 64 MiB. */
export function createMemory({ bytes }: { bytes: number }): NativeMemory {
  const pages = Math.ceil(bytes / PAGE_BYTES)
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages })
  const buffer = memory.buffer as ArrayBuffer
  const u8 = new Uint8Array(buffer)
  let next = FIRST_OFFSET
  return {
    buffer,
    u8,
    u16: new Uint16Array(buffer),
    u32: new Uint32Array(buffer),
    view: new DataView(buffer),
    base: ptr(u8),
    sum: createChecksum(memory),
    area(size, align = 16) {
      const at = (next + align - 1) & -align
      if (at + size > u8.length) {
        throw new RangeError(`packet memory of ${u8.length} bytes has no room for ${size} more`)
      }
      next = at + size
      return at
    },
  }
}

/** A piece of memory for one structure. It is there as long as the object is held, and in a call that is given its address. */
export interface Block {
  readonly u8: Uint8Array
  readonly view: DataView
  readonly base: number
}

/** Far more than any call is given, in structures that point to others. */
const LENT_BLOCKS = 16
/**
 * Those whose addresses were asked for last. To the collector an address is a number: where nothing else of a block is used any
 * more, its memory would be somebody else's before the call that is given it has begun.
 */
const lent: Block[] = []
let lentNext = 0

class LentBlock implements Block {
  readonly u8: Uint8Array
  readonly view: DataView
  readonly #address: number

  constructor(bytes: number) {
    this.u8 = new Uint8Array(new ArrayBuffer(bytes))
    this.view = new DataView(this.u8.buffer)
    this.#address = ptr(this.u8)
  }

  get base(): number {
    lent[lentNext] = this
    lentNext = (lentNext + 1) % LENT_BLOCKS
    return this.#address
  }
}

/** A zeroed block, of 8 bytes at least. */
export function createBlock(bytes: number): Block {
  return new LentBlock(Math.max(bytes, 8))
}

/** A block with a copy of `bytes`. */
export function blockOf(bytes: Uint8Array): Block {
  const block = createBlock(bytes.length)
  block.u8.set(bytes)
  return block
}

/** A block with a NUL-terminated string, as paths are passed. */
export function blockOfText(text: string): Block {
  return blockOf(Buffer.from(`${text}\0`))
}
