/** Round-trip time through the tunnel: of a ping every 10 ms, with nothing else there and beside one TCP stream at full speed. */
import { tcpStreams } from '../iperf.ts'
import { run } from '../process.ts'
import { median, quantile } from '../statistics.ts'
import { inside } from '../topology.ts'
import type { Measurement, Metric, Subject } from './subject.ts'

const INTERVAL_SECONDS = 0.01
/** The stream has to get going before, and to outlast, what is timed. */
const RAMP_SECONDS = 1

function metrics(name: string, title: string): Metric[] {
  return [
    { name: `${name}-p50`, title: `${title}, median`, unit: 'ms', better: 'less' },
    { name: `${name}-p99`, title: `${title}, 99th percentile`, unit: 'ms', better: 'less' },
  ]
}

export const rttIdle: Subject = {
  name: 'rtt-idle',
  transport: 'udp',
  metrics: metrics('rtt-idle', 'Round trip, idle'),
  async measure(measurement) {
    const times = await ping(measurement)
    return { 'rtt-idle-p50': median(times), 'rtt-idle-p99': quantile(times, 0.99) }
  },
}

export const rttLoad: Subject = {
  name: 'rtt-load',
  transport: 'udp',
  metrics: metrics('rtt-load', 'Round trip beside one TCP stream'),
  async measure(measurement) {
    const { topology, tunnel, seconds } = measurement
    const load = tcpStreams(topology, tunnel, {
      ...{ streams: 1, reverse: false, seconds: seconds + 2 * RAMP_SECONDS },
    })
    load.catch(() => {}) // told below, after the pings
    await Bun.sleep(RAMP_SECONDS * 1000)
    const times = await ping(measurement)
    await load
    return { 'rtt-load-p50': median(times), 'rtt-load-p99': quantile(times, 0.99) }
  },
}

/** Milliseconds of each ping that was answered. */
async function ping({ topology, tunnel, seconds }: Measurement): Promise<number[]> {
  const count = Math.round(seconds / INTERVAL_SECONDS)
  const timing = ['-i', String(INTERVAL_SECONDS), '-c', String(count), '-W', '2']
  const text = await run(inside(topology.near.netns, ['ping', '-n', ...timing, tunnel.far]), {
    limitSeconds: 4 * seconds + 20,
  })
  return Array.from(text.matchAll(/ time=([\d.]+) ms/g), ([, time]) => Number(time))
}
