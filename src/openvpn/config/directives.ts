/**
 * Every directive of OpenVPN 2.4 to 2.7, once: arguments, where it may stand, what becomes of it here. The tables are in
 * directives/, by subject; docs/DIRECTIVES.md is made from them.
 */
import { client } from './directives/client.ts'
import type { ArgsOf, Directive } from './directives/directive.ts'
import { elsewhere } from './directives/elsewhere.ts'
import { process } from './directives/process.ts'
import { server } from './directives/server.ts'
import { tls } from './directives/tls.ts'
import { transport } from './directives/transport.ts'
import { tunnel } from './directives/tunnel.ts'

/** By subject, for documents. */
export const groups = { transport, tunnel, tls, server, client, process, elsewhere }

const directives = {
  ...transport,
  ...tunnel,
  ...tls,
  ...server,
  ...client,
  ...process,
  ...elsewhere,
}

export type DirectiveName = keyof typeof directives

/** Values of the arguments of a directive. */
export type Args<N extends DirectiveName> = ArgsOf<(typeof directives)[N]>

export const directiveNames = Object.keys(directives) as DirectiveName[]

export function isDirective(name: string): name is DirectiveName {
  return Object.hasOwn(directives, name)
}

export function directive(name: DirectiveName): Directive {
  return directives[name]
}

/** `port` → `port PORT`; optional arguments in brackets, such as may be many with dots. */
export function usage(name: DirectiveName): string {
  const parts = Object.entries(directive(name).args).map(([argument, { word, optional, rest }]) => {
    const text = `${word ?? argument.toUpperCase()}${rest === undefined ? '' : '…'}`
    return optional === undefined ? text : `[${text}]`
  })
  return [name, ...parts].join(' ')
}

/** Known names that somebody who wrote `name` may have meant, nearest first, three at most. */
export function similarNames(name: string): string[] {
  const limit = name.length < 6 ? 1 : name.length < 12 ? 2 : 3
  return directiveNames
    .map((known) => ({ known, distance: editDistance(name.toLowerCase(), known, limit) }))
    .filter(({ distance }) => distance <= limit)
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ known }) => known)
}

/** Letters to insert, remove, replace or swap with their neighbour to come from `a` to `b`; more than `limit` is not told. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1
  let before: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let best = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (same ? 0 : 1))
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      if (swapped) best = Math.min(best, before[j - 2]! + 1)
      row.push(best)
    }
    before = last
    last = row
  }
  return last[b.length]!
}
