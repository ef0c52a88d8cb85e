/**
 * What the core needs of packet memory: one flat area that packets lie in, seen through typed arrays, and a
 * checksum over it. Where the memory comes from (a WebAssembly.Memory with a native address, or a plain
 * buffer in a simulation) is the caller's business.
 */
export interface PacketMemory {
  readonly u8: Uint8Array
  readonly view: DataView
  /**
   * One's complement sum of `length` bytes at `offset` plus `accumulator`, folded to 16 bits, with the 16-bit
   * words taken little-endian (RFC 1071, section 2(B): a sum may be computed in either byte order).
   */
  sum(offset: number, length: number, accumulator: number): number
  /** Sets `bytes` aside, at an offset that is a multiple of `align`; for set-up only, nothing is ever given back. */
  area(bytes: number, align: number): number
}
