/** TCP through the tunnel: what one stream, four streams and the other direction move. */
import { tcpStreams } from '../iperf.ts'
import type { Subject } from './subject.ts'

const PER_GIGABIT = 1e9

function throughput(
  name: string,
  title: string,
  options: { streams: number; reverse: boolean; transport: Subject['transport'] },
): Subject {
  const { streams, reverse, transport } = options
  return {
    name,
    transport,
    metrics: [{ name, title, unit: 'Gbit/s', better: 'more' }],
    async measure({ topology, tunnel, seconds }) {
      const result = await tcpStreams(topology, tunnel, { streams, reverse, seconds })
      return { [name]: result.bitsPerSecond / PER_GIGABIT }
    },
  }
}

export const tcp = throughput('tcp', 'One TCP stream', {
  ...{ streams: 1, reverse: false, transport: 'udp' },
})
export const tcp4 = throughput('tcp4', 'Four TCP streams', {
  ...{ streams: 4, reverse: false, transport: 'udp' },
})
export const reverse = throughput('reverse', 'One TCP stream, far to near', {
  ...{ streams: 1, reverse: true, transport: 'udp' },
})
export const overTcp = throughput('over-tcp', 'One TCP stream, the tunnel itself over TCP', {
  ...{ streams: 1, reverse: false, transport: 'tcp' },
})
