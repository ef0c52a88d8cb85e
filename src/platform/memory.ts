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

/**
 * A zeroed piece of memory for one structure, kept by reference: hold on to the object until the
 * call that got its address has returned.
 */
export interface Block {
  readonly u8: Uint8Array
  readonly view: DataView
  readonly base: number
}

export function createBlock(bytes: number): Block {
  const u8 = new Uint8Array(new ArrayBuffer(Math.max(bytes, 8)))
  return { u8, view: new DataView(u8.buffer), base: ptr(u8) }
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
