/**
 * CPU time that it takes to move a gigabyte: of the tunnel's processes at both ends, and of the whole machine, where the kernel's
 * part of the work and the programs that send and receive count too.
 */
import { tcpStreams } from '../iperf.ts'
import { busySeconds, cpuSeconds } from '../process.ts'
import type { Subject } from './subject.ts'

const PER_GIGABYTE = 1e9

export const cpu: Subject = {
  name: 'cpu',
  transport: 'udp',
  metrics: [
    {
      name: 'cpu-tunnel',
      title: "CPU per gigabyte, the tunnel's processes at both ends",
      unit: 's/GB',
      better: 'less',
    },
    { name: 'cpu-all', title: 'CPU per gigabyte, the whole machine', unit: 's/GB', better: 'less' },
  ],
  async measure({ topology, tunnel, seconds }) {
    const own = () => tunnel.processes.reduce((sum, pid) => sum + cpuSeconds(pid), 0)
    const before = { own: own(), all: busySeconds() }
    const { bytes } = await tcpStreams(topology, tunnel, { streams: 1, reverse: false, seconds })
    const after = { own: own(), all: busySeconds() }
    const gigabytes = bytes / PER_GIGABYTE
    const all = { 'cpu-all': (after.all - before.all) / gigabytes }
    if (tunnel.processes.length === 0) return all
    return { 'cpu-tunnel': (after.own - before.own) / gigabytes, ...all }
  },
}
