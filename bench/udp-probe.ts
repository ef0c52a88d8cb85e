/** Owns one stream of UDP packets through a tunnel: who sends, who counts (udp-load.ts both), and what that says of loss. */
import { fileURLToPath } from 'node:url'
import type { Tunnel } from './contenders/contender.ts'
import { run, until } from './process.ts'
import type { Probe } from './rate-search.ts'
import { inside, startInside, type Topology } from './topology.ts'
import type { Received, Sent } from './udp-load.ts'

export interface UdpOptions {
  /** Size of an IP packet inside the tunnel. */
  packetBytes: number
  /** Packets per second; Infinity: as fast as they can be sent. */
  rate: number
  seconds: number
}

const PROGRAM = fileURLToPath(new URL('./udp-load.ts', import.meta.url))
const IP_AND_UDP_BYTES = 20 + 8
const PORT = 5300

/** Lost are those that later ones have overtaken: what is under way at the end is not. */
export async function probeUdp(
  { near, far }: Topology,
  tunnel: Tunnel,
  { packetBytes, rate, seconds }: UdpOptions,
): Promise<Probe> {
  const load = (...args: (string | number)[]) => [process.execPath, PROGRAM, ...args.map(String)]
  const receiver = startInside(far.netns, load('receive', tunnel.far, PORT))
  try {
    await until('the receiver', () => receiver.output().includes('listening'), [receiver])
    const perSecond = rate === Number.POSITIVE_INFINITY ? 0 : Math.round(rate)
    const stream = [
      tunnel.near,
      tunnel.far,
      PORT,
      packetBytes - IP_AND_UDP_BYTES,
      perSecond,
      seconds,
    ]
    const text = await run(inside(near.netns, load('send', ...stream)), {
      limitSeconds: seconds + 20,
    })
    const sent: Sent = JSON.parse(text)
    await receiver.ended()
    const received: Received = JSON.parse(receiver.output().split('\n')[1]!)
    return {
      sent: sent.packets / sent.seconds,
      received: received.seconds > 0 ? received.packets / received.seconds : 0,
      loss: received.known === 0 ? 1 : 1 - received.packets / received.known,
    }
  } finally {
    await receiver.stop()
  }
}
