/** Owns the search for the highest packet rate that still gets through. Pure: who sends is passed in. */

export interface Probe {
  /** Packets per second that were sent: fewer than asked where the sender could not keep up. */
  sent: number
  /** Packets per second that arrived. */
  received: number
  /** Share of the packets that did not, 0..1. */
  loss: number
}

export interface RateSearch {
  /** Share of packets that may be lost. */
  maxLoss: number
  /** Rates that are tried at most, the first one included. */
  steps: number
  /** Sends at `rate` packets per second; as fast as it can at Infinity. */
  probe(rate: number): Promise<Probe>
}

/** More than this share lost is no hiccup of the machine. */
const CLEAR_LOSS = 0.1
/** Bounds this close are one rate. */
const CLOSE = 1.04

/**
 * Finds the rate by bisection (of the logarithm). The first probe floods, and what arrives of that bounds the search:
 * a receiver that is not drowned gets more through than one that is, but hardly three times as much.
 *
 * @returns packets per second that arrived in the best probe within `maxLoss`; 0 where none was
 */
export async function searchRate({ maxLoss, steps, probe }: RateSearch): Promise<number> {
  const flood = await probe(Number.POSITIVE_INFINITY)
  if (flood.loss <= maxLoss) return flood.received
  let high = Math.min(flood.sent, 3 * flood.received)
  let low = flood.received / 16
  let best = 0
  for (let step = 1; step < steps && high / low > CLOSE; step++) {
    const rate = Math.sqrt(low * high)
    let { received, loss } = await probe(rate)
    // Whatever else the machine does can only add loss, so a rate has failed when it has failed twice.
    if (loss > maxLoss && loss < CLEAR_LOSS) ({ received, loss } = await probe(rate))
    if (loss > maxLoss) {
      high = rate
      continue
    }
    best = Math.max(best, received)
    low = rate
  }
  return best
}
