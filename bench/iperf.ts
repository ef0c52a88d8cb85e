/** Owns iperf3: TCP streams between the two ends of a tunnel, and what they moved. One server per stream, so that no run sees another's. */
import type { Tunnel } from './contenders/contender.ts'
import { run, until } from './process.ts'
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

/** A part of iperf3's `end`. */
interface Sum {
  seconds: number
  bytes: number
  bits_per_second: number
  retransmits?: number
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
