/**
 * Owns OpenVPN's own messages inside the data channel (OCC): sealed like packets, told from them by the magic number that they begin
 * with (data.ts). What is done about them is the control plane's. Source: OpenVPN's src/openvpn/occ.c and occ.h.
 *
 *     | magic 16 | operation 1 | what belongs to it |      sizes in bytes
 */
import { isOcc, OCC_MAGIC } from './data.ts'

/** By their numbers; those left out test the path's MTU. */
const operations: { readonly [number: number]: OccOperation } = { 0: 'request', 6: 'exit' }
const REPLY = 1

/** `request`: for our options string (a relic of static keys, answered with TLS too); `exit`: the other end leaves. */
export type OccOperation = 'request' | 'exit'

/** Tells the other end that this one leaves. */
export const OCC_EXIT: Uint8Array = Uint8Array.of(...OCC_MAGIC, 6)

/** The answer to `request`. */
export function encodeOccReply(options: string): Uint8Array {
  return Uint8Array.of(...OCC_MAGIC, REPLY, ...Buffer.from(`${options}\0`))
}

/** What a message asks of its receiver; undefined: nothing that is done here, or no message at all. */
export function occOperation(bytes: Uint8Array): OccOperation | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return isOcc(view, 0, bytes.length) ? operations[bytes[OCC_MAGIC.length]!] : undefined
}
