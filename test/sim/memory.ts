/**
 * Packet memory over a plain ArrayBuffer: areas one after another, and a checksum too simple to be wrong. Whatever
 * leaves the memory throws.
 */
import type { PacketMemory } from '../../src/driver/core/memory.ts'

export function createMemory(bytes: number): PacketMemory {
  const buffer = new ArrayBuffer(bytes)
  const u8 = new Uint8Array(buffer)
  let used = 0
  return {
    u8,
    view: new DataView(buffer),
    sum(offset, length, accumulator) {
      if (offset < 0 || length < 0 || offset + length > bytes) {
        throw new RangeError(`sum of ${length} bytes at ${offset}`)
      }
      const end = offset + length
      let sum = accumulator
      for (let at = offset; at < end; at += 2) {
        sum += u8[at]! + (at + 1 < end ? u8[at + 1]! << 8 : 0)
      }
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
      return sum
    },
    area(size, align) {
      const start = Math.ceil(used / align) * align
      if (start + size > bytes) throw new RangeError(`no room for ${size} bytes`)
      used = start + size
      return start
    },
  }
}
