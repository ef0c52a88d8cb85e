/** Owns iperf3: streams between the two ends of a tunnel, and what they moved. One server per stream, so that no run sees another's. */
import type { Tunnel } from './contenders/contender.ts'
import { run, until } from './process.ts'
import type { Probe } from './rate-search.ts'
import { inside, startInside, type Topology } from './topology.ts'

export interface TcpOptions {
  streams: number
  /** The far end sends. */
  reverse: boolean
  seconds: number
}

export interface TcpResult {
  /** Received. */
  bitsPerSecond: number
  bytes: number
  retransmits: number
}

/** Moves as much as TCP can, for `seconds`. Throws an Error when iperf3 fails. */
export async function tcpStreams(
  topology: Topology,
  tunnel: Tunnel,
  { streams, reverse, seconds }: TcpOptions,
): Promise<TcpResult> {
  const more = ['--parallel', String(streams), ...(reverse ? ['--reverse'] : [])]
  const { sum_received: received, sum_sent: sent } = await iperf(topology, tunnel, seconds, more)
  return {
    bitsPerSecond: received!.bits_per_second,
    bytes: received!.bytes,
    retransmits: sent!.retransmits ?? 0,
  }
}

export interface UdpOptions {
  /** Size of an IP packet inside the tunnel. */
  packetBytes: number
  /** Packets per second; Infinity: as fast as they are sent. */
  rate: number
  seconds: number
}

const IP_AND_UDP_BYTES = 20 + 8

/** Sends UDP packets at a steady rate. Lost are those that later ones have overtaken: what is under way at the end is not. */
export async function udpStream(
  topology: Topology,
  tunnel: Tunnel,
  { packetBytes, rate, seconds }: UdpOptions,
): Promise<Probe> {
  const payload = packetBytes - IP_AND_UDP_BYTES
  const bits = rate === Number.POSITIVE_INFINITY ? 0 : Math.round(rate * payload * 8)
  const more = ['--udp', '--length', String(payload), '--bitrate', String(bits)]
  // iperf3 sends in bursts, one per tick: a tenth of its usual millisecond fits into any queue
  const { sum, sum_sent: sent } = await iperf(topology, tunnel, seconds, [
    ...more,
    ...['--pacing-timer', '100'],
  ])
  const received = sum!.packets! - sum!.lost_packets!
  return {
    sent: sent!.packets! / sent!.seconds,
    received: received / sum!.seconds,
    // no packet at all is no loss to iperf3
    loss: sum!.packets === 0 ? 1 : sum!.lost_packets! / sum!.packets!,
  }
}

/** A part of iperf3's `end`. */
interface Sum {
  seconds: number
  bytes: number
  bits_per_second: number
  retransmits?: number
  packets?: number
  lost_packets?: number
}

async function iperf(
  { near, far }: Topology,
  tunnel: Tunnel,
  seconds: number,
  more: string[],
): Promise<Record<string, Sum | undefined>> {
  const server = startInside(far.netns, ['iperf3', '-s', '-1', '-B', tunnel.far, '--forceflush'])
  try {
    await until('iperf3', () => server.output().includes('Server listening'), [server])
    const client = ['iperf3', '-c', tunnel.far, '-B', tunnel.near, '-t', String(seconds), '-J']
    const text = await run(inside(near.netns, [...client, '--connect-timeout', '5000', ...more]), {
      limitSeconds: seconds + 20,
    })
    const { end, error } = JSON.parse(text)
    if (error !== undefined) throw new Error(`iperf3: ${error}`)
    return end
  } finally {
    await server.stop()
  }
}
