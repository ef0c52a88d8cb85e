/** Owns what is computed from samples: medians, quantiles, ratios. Pure. */

/** The value in the middle; between the two middle ones where their number is even. Throws on none. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** Linear between the two nearest ranks, as R's and NumPy's default. `q` is in 0..1. Throws on no values. */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) throw new RangeError('no values')
  const sorted = [...values].sort((a, b) => a - b)
  const rank = q * (sorted.length - 1)
  const below = Math.floor(rank)
  const low = sorted[below]!
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!
  return low + (high - low) * (rank - below)
}

/** How many times better `ours` is than `theirs`: above 1 where ours is the better one. */
export function timesBetter(ours: number, theirs: number, better: 'more' | 'less'): number {
  return better === 'more' ? ours / theirs : theirs / ours
}
