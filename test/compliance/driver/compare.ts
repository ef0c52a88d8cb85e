/**
 * Two transcripts side by side: where they differ, and which of the differences are meant. Wordings are compared by
 * whether they are there.
 */
import type { Step, Transcript } from './transcript.ts'

/** A difference in one place of one step. */
export interface Difference {
  readonly step: string
  /** Path to the value: 'messages.0.errno'. */
  readonly place: string
  readonly kernel: unknown
  readonly user: unknown
}

/** A difference that is meant. */
export interface Deliberate {
  /** Steps by name. */
  readonly step: RegExp
  /** Places in them. */
  readonly place: RegExp
  /** Values there; any unless told. */
  readonly when?: (kernel: unknown, user: unknown) => boolean
  readonly reason: string
}

export function differences(kernel: Step, user: Step): Difference[] {
  const found: Difference[] = []
  const compare = (place: string, one: unknown, other: unknown): void => {
    if (isObject(one) && isObject(other) && Array.isArray(one) === Array.isArray(other)) {
      for (const key of new Set([...Object.keys(one), ...Object.keys(other)])) {
        compare(place === '' ? key : `${place}.${key}`, one[key], other[key])
      }
    } else if (place.endsWith('.text') && one !== undefined && other !== undefined) {
      return
    } else if (one !== other) {
      found.push({ step: kernel.name, place, kernel: one, user: other })
    }
  }
  compare('', kernel.seen, user.seen)
  return found
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null

export interface Comparison {
  /** Every step that either has, in the kernel's order. */
  readonly steps: { readonly name: string; readonly differences: readonly Difference[] }[]
  /** Deliberate differences that were none. */
  readonly unused: readonly Deliberate[]
}

/** What is left when the differences that are meant are taken out. */
export function compare(
  kernel: Transcript,
  user: Transcript,
  deliberate: readonly Deliberate[],
): Comparison {
  const ours = new Map(user.steps.map((step) => [step.name, step]))
  const used = new Set<Deliberate>()
  const isMeant = ({ step, place, kernel, user }: Difference) => {
    const entries = deliberate.filter(
      (one) => one.step.test(step) && one.place.test(place) && (one.when?.(kernel, user) ?? true),
    )
    for (const entry of entries) used.add(entry)
    return entries.length > 0
  }
  const missing = (name: string): Step => ({ name, seen: 'no such step' })
  const steps = kernel.steps.map((step) => {
    const other = ours.get(step.name) ?? missing(step.name)
    ours.delete(step.name)
    return { name: step.name, differences: differences(step, other).filter((one) => !isMeant(one)) }
  })
  for (const step of ours.values()) {
    const found = differences(missing(step.name), step).filter((one) => !isMeant(one))
    steps.push({ name: step.name, differences: found })
  }
  return { steps, unused: deliberate.filter((entry) => !used.has(entry)) }
}
