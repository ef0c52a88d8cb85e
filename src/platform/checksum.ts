/**
 * The checksum module: sums the words of a packet in WebAssembly, in the memory the packets lie in.
 * Owns the compiled bytes of `checksum.wat`; free of bun:ffi, so that it runs in Node too.
 */

/**
 * The sum of the little-endian 16-bit words at `offset`, added to `accumulator` (u32) and folded to 16 bits.
 * An odd last byte counts as the low half of a word. Stored as little-endian, the complement of the
 * result is a header's checksum as RFC 1071 wants it, on any machine.
 */
export type Sum = (offset: number, length: number, accumulator: number) => number

/** `checksum.wat` compiled, as base64. */
export const CHECKSUM_MODULE =
  'AGFzbQEAAAABCAFgA39/fwF/Ag8BA2VudgZtZW1vcnkCAAEDAgEABwcBA3N1bQAACv4BAfsBAwF7An8BfiACrSEGIA' +
  'AgAUFwcWohBAJAA0AgACAETw0BIABBgIAQaiEFIAUgBEsEQCAEIQUL/QwAAAAAAAAAAAAAAAAAAAAAIQMDQCADIAD9' +
  'AAAA/X/9rgEhAyAAQRBqIQAgACAFSQ0ACyAD/ckBIAP9ygH9zgEhAyAGIAP9HQAgA/0dAXx8IQYMAAsLIAFBD3EhAQ' +
  'JAA0AgAUECSQ0BIAYgADMAAHwhBiAAQQJqIQAgAUECayEBDAALCyABBEAgBiAAMQAAfCEGCyAGQv//A4MgBkIQiHwh' +
  'BiAGQv//A4MgBkIQiHwhBiAGQv//A4MgBkIQiHwhBiAGpws='

let compiled: WebAssembly.Module | undefined

/** Instantiates the module over `memory`, of any size; compiled once per thread. */
export function createChecksum(memory: WebAssembly.Memory): Sum {
  compiled ??= new WebAssembly.Module(Buffer.from(CHECKSUM_MODULE, 'base64'))
  const { exports } = new WebAssembly.Instance(compiled, { env: { memory } })
  return exports.sum as Sum
}
