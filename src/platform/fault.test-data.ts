/**
 * Syscalls that fail on request, for tests: chosen calls give an errno, a short count or any other
 * result, all others go through. Only tests use it; it is here because it is a Syscalls.
 */

import type { SyscallName, Syscalls } from './syscalls.ts'

export interface Fault {
  readonly call: SyscallName
  /** Calls of that name to let through first; 0 unless told. */
  readonly skip?: number
  /** Calls to spoil after that; 1 unless told. */
  readonly times?: number
  /** What to return without making the call: `-errno`, or any count. */
  readonly result?: number
  /** Instead: make the call with its length (third argument) cut to this. For `read` and `write`. */
  readonly shorten?: number
}

export interface FaultySyscalls {
  readonly syscalls: Syscalls
  /** How often each fault of the plan has struck, in the plan's order. */
  readonly struck: number[]
}

/** Wraps `real`. Several faults may name one call; the first that is due strikes. */
export function faulty(real: Syscalls, plan: readonly Fault[]): FaultySyscalls {
  const seen = plan.map(() => 0)
  const struck = plan.map(() => 0)
  const syscalls = { ...real } as Record<SyscallName, (...args: number[]) => number>
  for (const name of new Set(plan.map((fault) => fault.call))) {
    const through = syscalls[name]
    syscalls[name] = (...args) => {
      let due: number | undefined
      for (const [i, fault] of plan.entries()) {
        if (fault.call !== name) continue
        const nth = seen[i]!++
        const first = fault.skip ?? 0
        if (due === undefined && nth >= first && nth < first + (fault.times ?? 1)) due = i
      }
      if (due === undefined) return through(...args)
      struck[due]!++
      const { result, shorten } = plan[due]!
      if (result !== undefined) return result
      const [fd = 0, buffer = 0, length = 0] = args
      return through(fd, buffer, Math.min(length, shorten ?? length))
    }
  }
  return { syscalls: syscalls as unknown as Syscalls, struck }
}
