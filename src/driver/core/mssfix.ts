/**
 * TCP inside the tunnel is told to send packets that still fit the path when they are sealed: larger ones would travel as
 * fragments, two for each, and never in trains. What is written here is what OpenVPN's option `mssfix` means.
 */
import { clampMss } from '../../wire/ip.ts'
import type { PacketMemory } from './memory.ts'
import type { Peer } from './peer.ts'

const OUTER_IPV4_BYTES = 20
const OUTER_IPV6_BYTES = 40
const UDP_BYTES = 8
/** IPv4's header and TCP's, without options, as the MSS is counted. */
const INNER_BYTES = 40
/** Least that is asked of anybody (RFC 9293, 3.7.1: the default of IPv4). */
const LEAST_MSS = 536

/**
 * Lowers the MSS of the packet at `ip`, if it opens a TCP connection, to what fits `peer.outerLimit` with `overhead` bytes
 * of sealing. Complete packets only, no pieces for the device to cut: those carry data.
 */
export function fitMss(
  { view }: PacketMemory,
  ip: number,
  length: number,
  peer: Peer,
  overhead: number,
): void {
  const outer = peer.remote.isV4 ? OUTER_IPV4_BYTES : OUTER_IPV6_BYTES
  const mss = peer.outerLimit - outer - UDP_BYTES - overhead - INNER_BYTES
  clampMss(view, ip, length, Math.max(mss, LEAST_MSS))
}
