/** UDP through the tunnel: how many packets per second arrive when no more than 1 % may be lost. */
import { searchRate } from '../rate-search.ts'
import { probeUdp } from '../udp-probe.ts'
import type { Subject } from './subject.ts'

const MAX_LOSS = 0.01
const STEPS = 8
/** A probe is short, for the rate is searched with many. */
const PROBE_SHARE = 0.25
const MIN_PROBE_SECONDS = 0.5

function packets(packetBytes: number): Subject {
  const name = `udp${packetBytes}`
  return {
    name,
    transport: 'udp',
    metrics: [
      {
        name,
        title: `UDP inside, IP packets of ${packetBytes} bytes, at most 1 % lost`,
        unit: 'packets/s',
        better: 'more',
      },
    ],
    async measure({ topology, tunnel, seconds }) {
      const probeSeconds = Math.max(MIN_PROBE_SECONDS, seconds * PROBE_SHARE)
      const rate = await searchRate({
        maxLoss: MAX_LOSS,
        steps: STEPS,
        probe: (rate) => probeUdp(topology, tunnel, { packetBytes, rate, seconds: probeSeconds }),
      })
      return { [name]: rate }
    },
  }
}

export const udp64 = packets(64)
export const udp512 = packets(512)
export const udp1400 = packets(1400)
