/** Owns what a run has found, as data, and its tables in Markdown. Pure. */

import { median, timesBetter } from './statistics.ts'
import type { Metric } from './subjects/subject.ts'

export interface Report {
  /** ISO 8601, UTC. */
  when: string
  /** Kernel, CPU and the like: name and value. */
  machine: Record<string, string>
  rounds: number
  seconds: number
  entrants: EntrantInfo[]
  figures: Figure[]
}

/** A contender in one set-up. */
export interface EntrantInfo {
  label: string
  cipher: string | undefined
  /** One of ours. */
  ours: boolean
  version: string
  /** Label of what it is the same as, but for what is to be shown. */
  against?: string
  /** Why it did not take part. */
  missing?: string
}

export interface Figure {
  metric: Metric
  /** By label: one value per round. */
  values: Record<string, number[]>
  /** By label: what went wrong, once for each round in which it did. */
  failures: Record<string, string[]>
}

/** All of a report, for people. */
export function renderReport(report: Report): string {
  return [
    renderHead(report),
    renderRatios(report),
    renderGains(report),
    ...report.figures.map((figure) => renderFigure(report, figure)),
  ]
    .filter((part) => part !== '')
    .join('\n\n')
}

function renderHead({ when, machine, rounds, seconds, entrants }: Report): string {
  const facts = Object.entries({
    ...machine,
    run: `${rounds} rounds, streams of ${seconds} s, ${when}`,
  })
  const versions = new Map<string, string>()
  for (const { label, version, missing } of entrants) {
    versions.set(label, missing === undefined ? version : `not measured: ${missing}`)
  }
  return [table(['', ''], facts), table(['contender', 'version'], [...versions])].join('\n\n')
}

/** How many times better ours is than each other, with the same cipher where it has one. */
function renderRatios({ entrants, figures }: Report): string {
  const others = entrants.filter(
    ({ ours, against, missing }) => !ours && against === undefined && missing === undefined,
  )
  const rows = figures.map((figure) => {
    const cells = others.map(({ label, cipher }) => {
      const reference = referenceFor(entrants, cipher)
      return reference === undefined ? '' : ratio(figure, reference.label, label)
    })
    return [figure.metric.title, ...cells]
  })
  if (rows.every(([, ...cells]) => cells.every((cell) => cell === ''))) return ''
  const head = ['times better: ovpn, one worker, same cipher', ...others.map(({ label }) => label)]
  return table(head, rows)
}

/** How many times better each is than what it is the same as otherwise. */
function renderGains({ entrants, figures }: Report): string {
  const rows = figures.flatMap((figure) => {
    const gains = entrants.map(({ label, against = '' }) => ratio(figure, label, against))
    return gains.some((gain) => gain !== '') ? [{ title: figure.metric.title, gains }] : []
  })
  const head = ['times better than without `ovpn run`', ...rows.map(({ title }) => title)]
  const lines = entrants.map(({ label }, i) => [label, ...rows.map(({ gains }) => gains[i]!)])
  return rows.length === 0
    ? ''
    : table(
        head,
        lines.filter(([, ...cells]) => cells.some((cell) => cell !== '')),
      )
}

/** The first of ours that took part, with this cipher if there is one. */
function referenceFor(
  entrants: EntrantInfo[],
  cipher: string | undefined,
): EntrantInfo | undefined {
  return entrants.find(
    ({ ours, missing, cipher: its }) =>
      ours && missing === undefined && (cipher === undefined || its === cipher),
  )
}

function renderFigure({ entrants }: Report, figure: Figure): string {
  const { title, unit, better } = figure.metric
  const rows = entrants
    .filter(({ missing }) => missing === undefined)
    .map(({ label }) => [label, ...cells(figure, label)])
    .filter(([, ...cells]) => cells.some((cell) => cell !== ''))
  const head = ['', 'median', 'least', 'most', 'rounds']
  return `**${title}**, ${unit}, ${better} is better\n\n${table(head, rows)}`
}

function cells({ values, failures }: Figure, label: string): string[] {
  const samples = values[label] ?? []
  const failed = failures[label] ?? []
  if (samples.length === 0) return [failed.length === 0 ? '' : 'failed', '', '', '']
  const rounds = `${samples.length}${failed.length > 0 ? `, ${failed.length} failed` : ''}`
  const [middle, least, most] = [median(samples), Math.min(...samples), Math.max(...samples)]
  return [number(middle), number(least), number(most), rounds]
}

function ratio({ metric, values }: Figure, ours: string, theirs: string): string {
  const [a, b] = [values[ours] ?? [], values[theirs] ?? []]
  if (a.length === 0 || b.length === 0) return ''
  return `${number(timesBetter(median(a), median(b), metric.better))}×`
}

/** Three digits that mean something, without an exponent; thousands are set apart. */
export function number(value: number): string {
  if (!Number.isFinite(value)) return '–'
  const digits = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  return value.toLocaleString('en-US', {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  })
}

/** A Markdown table that reads well as text too: first column to the left, the others to the right. */
export function table(head: string[], rows: string[][]): string {
  const widths = head.map((cell, i) =>
    Math.max(3, cell.length, ...rows.map((row) => row[i]!.length)),
  )
  const line = (row: string[]) => {
    const padded = row.map((cell, i) =>
      i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!),
    )
    return `| ${padded.join(' | ')} |`
  }
  const rule = widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
  return [line(head), `| ${rule.join(' | ')} |`, ...rows.map(line)].join('\n')
}

/**
 * `text` with what stands between the two markers called `name` replaced.
 *
 * @throws Error where the markers are missing
 */
export function publishInto(text: string, name: string, content: string): string {
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`]
  const from = text.indexOf(begin)
  const to = text.indexOf(end)
  if (from < 0 || to < from)
    throw new Error(`expected ${begin} and ${end} around what is to be replaced`)
  return `${text.slice(0, from + begin.length)}\n${content}\n${text.slice(to)}`
}
