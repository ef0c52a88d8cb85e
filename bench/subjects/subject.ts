/** What a subject is: something measured of a tunnel, and what its figures are called. */
import type { Transport, Tunnel } from '../contenders/contender.ts'
import type { Topology } from '../topology.ts'

export interface Metric {
  /** Unique among all subjects' metrics. */
  readonly name: string
  readonly title: string
  readonly unit: string
  readonly better: 'more' | 'less'
}

export interface Subject {
  readonly name: string
  /** What the tunnels run over while this is measured. */
  readonly transport: Transport
  readonly metrics: readonly Metric[]
  /** A figure for each metric; one that means nothing for this tunnel may be missing. Throws an Error when it cannot be measured. */
  measure(run: Measurement): Promise<Record<string, number>>
}

export interface Measurement {
  topology: Topology
  tunnel: Tunnel
  /** How long a stream runs. */
  seconds: number
}
