/** The tables of docs/DIRECTIVES.md, from the tables of directives. Text around them is written by hand. */

import type { Context, Directive, Use } from './directives/directive.ts'
import { type DirectiveName, groups, usage } from './directives.ts'

const TITLES: { readonly [G in keyof typeof groups]: string } = {
  transport: 'The outer side: addresses, sockets, proxies, keepalive',
  tunnel: 'The inner side: interface, addresses, routes, DNS',
  tls: 'Keys, certificates, ciphers',
  server: 'Servers, and their single clients',
  client: 'Clients, and what they are told',
  process: 'The process: log, status, management, scripts',
  elsewhere: 'What belongs elsewhere',
}

const CONTEXTS: readonly Context[] = ['server', 'client', 'ccd', 'pushed']

/** Markdown: a table for each subject, and how many there are of each kind. */
export function directiveTables(): string {
  const tables = Object.entries(groups).map(([group, rows]) => {
    const body = Object.entries(rows as { [name: string]: Directive }).map(([name, row]) =>
      [
        code(usage(name as DirectiveName)),
        ...CONTEXTS.map((context) => mark(row[context])),
        text(row),
      ].map(escapeBar),
    )
    const head = ['directive', ...CONTEXTS, '']
    const lines = [head, head.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |`)
    return `### ${TITLES[group as keyof typeof groups]}\n\n${lines.join('\n')}`
  })
  return [counts(), ...tables].join('\n\n')
}

const code = (text: string): string => `\`${text}\``
const escapeBar = (text: string): string => text.replaceAll('|', '\\|')

function mark(use: Use | undefined): string {
  return use === undefined
    ? ''
    : { honoured: 'yes', 'no-op': 'no-op', refused: 'refused' }[use.kind]
}

function text(row: Directive): string {
  const places = [
    row.inline && 'may be a block',
    row.connection && 'also in `<connection>`',
    row.repeats && 'each counts',
    row.update && 'may be updated',
    row.since && `since ${row.since}`,
    row.removed && `gone or without effect since ${row.removed}`,
  ].filter((part) => part !== undefined)
  const reasons = new Set(
    CONTEXTS.map((context) => row[context]).flatMap((use) =>
      use?.kind === 'no-op'
        ? [`No-op: ${use.why}`]
        : use?.kind === 'refused'
          ? [`Refused: ${use.instead}`]
          : [],
    ),
  )
  const where = places.join(', ').replace(/^./, (letter) => letter.toUpperCase())
  return [row.doc, ...reasons, where].filter((part) => part !== '').join('. ')
}

function counts(): string {
  const rows = Object.values(groups).flatMap((group) =>
    Object.values(group as { [name: string]: Directive }),
  )
  const kinds = (row: Directive) => CONTEXTS.flatMap((context) => row[context]?.kind ?? [])
  const honoured = rows.filter((row) => kinds(row).includes('honoured')).length
  const noop = rows.filter(
    (row) => !kinds(row).includes('honoured') && kinds(row).includes('no-op'),
  )
  const refused = rows.length - honoured - noop.length
  return `${rows.length} directives: ${honoured} honoured in one place at least, ${noop.length} without effect, ${refused} refused.`
}
