/** What each line of a configuration does here, and what differs from OpenVPN: for `ovpn check`. */
import { type ClientConfig, clientConfig } from './client-config.ts'
import { clientSettings } from './client-settings.ts'
import { type DirectiveName, directive, isDirective } from './directives.ts'
import { type Files, formatPlace, parse, type Settings, type Source } from './parse.ts'
import { quoteWord } from './render.ts'
import { type ServerConfig, serverConfig } from './server-config.ts'
import { readStatements, type Statement } from './syntax.ts'
import type { Place } from './values.ts'

export type CheckedKind = 'server' | 'client' | 'ccd'

/** What becomes of a line, the worst of what there is to say about it. */
export type Verdict =
  | 'honoured'
  /** Done, and not quite as in OpenVPN, or perhaps not as it was meant. */
  | 'differs'
  | 'no-op'
  /** The configuration itself says that it may be ignored, or a later line counts. */
  | 'ignored'
  | 'wrong'

export interface CheckedLine {
  readonly place: Place
  /** As it reads, without what is in a block, and without what may be a secret. Empty for what is about no line. */
  readonly text: string
  readonly verdict: Verdict
  /** What it does; or what is wrong with it, or different. */
  readonly message: string
}

export interface Checked {
  readonly kind: CheckedKind
  readonly lines: readonly CheckedLine[]
  /** Whether the program would start with it. */
  readonly usable: boolean
}

/** Whose configuration it is, by what only servers have; for a file in `client-config-dir` this guesses a client's. */
export function kindOf({ file, text }: Source): CheckedKind {
  const { statements } = readStatements(text, file)
  const serving = statements.some(
    ({ name, args }) =>
      /^(server|server-ipv6|server-bridge|tls-server)$/.test(name) ||
      (name === 'mode' && args[0] === 'server'),
  )
  return serving ? 'server' : 'client'
}

/** What is found out by trying. */
export interface Finding {
  /** Whether the program would not start with it, or start and perhaps not do as it was meant. */
  readonly kind: 'mistake' | 'doubt'
  /** What it is about; undefined where nobody knows. */
  readonly directive?: DirectiveName | undefined
  readonly message: string
}

/** Tries what the text does not tell: whether keys and certificates can be used. */
export type Trial = (config: ServerConfig | ClientConfig, role: 'server' | 'client') => Finding[]

/**
 * Never throws. Files that the configuration names are read. A configuration that is wrong in itself is not tried: what is missing in
 * it would be found again.
 */
export function checkConfig(
  source: Source,
  kind: CheckedKind,
  files: Files,
  trial: Trial = () => [],
): Checked {
  const settings = parse(source, kind, files)
  if (kind === 'ccd') clientSettings(settings)
  else {
    const config = kind === 'server' ? serverConfig(settings, files) : clientConfig(settings, files)
    const findings = settings.problems.length === 0 ? trial(config, kind) : []
    for (const { kind, directive, message } of findings) {
      const place = directive && settings.last(directive)?.place
      if (kind === 'mistake') settings.problem('refused', place, message)
      else settings.note('differs', place, message)
    }
  }
  const lines = settings.statements.flatMap((statement) => checkStatement(settings, statement))
  const told = new Set(settings.statements.map(({ place }) => formatPlace(place)))
  const others = [
    ...settings.problems.map(({ place, message }) => line(place, '', 'wrong', message)),
    ...settings.notes.map(({ place, kind, message }) => line(place, '', verdictOf(kind), message)),
  ].filter(({ place }) => !told.has(formatPlace(place)))
  return { kind, lines: [...lines, ...others], usable: settings.problems.length === 0 }
}

function line(place: Place, text: string, verdict: Verdict, message: string): CheckedLine {
  return { place, text, verdict, message }
}

function verdictOf(kind: Settings['notes'][number]['kind']): Verdict {
  return kind === 'overridden' ? 'ignored' : kind
}

/** One line for each thing that there is to say. */
function checkStatement(settings: Settings, statement: Statement): CheckedLine[] {
  const { place } = statement
  const text = describe(statement)
  const here = (other: { place: Place }) =>
    other.place.line === place.line && other.place.file === place.file
  const problems = settings.problems.filter(here)
  if (problems.length > 0) {
    return problems.map(({ message }) => line(place, text, 'wrong', message))
  }
  const notes = settings.notes.filter(here)
  if (notes.length > 0) {
    return notes.map((note) => line(place, text, verdictOf(note.kind), withoutName(note.message)))
  }
  const name =
    statement.name === 'setenv' && statement.args[0] === 'opt' ? statement.args[1] : undefined
  return [line(place, text, 'honoured', docOf(name ?? statement.name))]
}

/** Of a note, what is left to say where the verdict says that there is no effect. */
function withoutName(message: string): string {
  return message.replace(/^'[^']*' has no effect: /, '')
}

function docOf(name: string): string {
  if (name === 'connection') return 'A server to connect to, with settings of its own'
  return isDirective(name) ? directive(name).doc : ''
}

/** Arguments that are secrets themselves, not names of files that hold them. */
const SECRET = /^auth-token$/

function describe({ name, args, block }: Statement): string {
  if (block !== undefined) return `<${name}>`
  const words = SECRET.test(name) ? [name, '…'] : [name, ...args]
  return words.map((word) => (/\p{Cc}/u.test(word) ? '…' : quoteWord(word))).join(' ')
}
