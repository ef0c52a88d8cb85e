/**
 * The text of a configuration as statements: lines, words, quotes, comments, inline blocks. What the words mean is for
 * parse.ts. Any text is taken; what is wrong with it is told by line. Source: openvpn(8), "Configuration files".
 */
import type { Place } from './values.ts'

export interface Statement {
  readonly name: string
  readonly args: readonly string[]
  /** What stands between `<name>` and `</name>`; lines end in one LF each. */
  readonly block?: string
  readonly place: Place
}

/** Something that is wrong, by line. */
export interface Problem {
  readonly place: Place
  readonly code: ProblemCode
  readonly message: string
}

export type ProblemCode =
  /** A line cannot be read. */
  | 'syntax'
  /** No directive of OpenVPN. */
  | 'unknown'
  /** Too few arguments, too many, or of the wrong kind. */
  | 'argument'
  /** It may not stand here. */
  | 'context'
  /** It is not done here. */
  | 'refused'
  | 'conflict'
  | 'missing'
  /** A file cannot be read, or is not what it should be. */
  | 'file'

/** OpenVPN's own limit is 256; nobody who needs more meets it here. */
const MAX_LINE = 16_384
/** Words in a line, the directive's name among them: as in OpenVPN. */
const MAX_WORDS = 16
const MAX_TEXT = 4 * 1024 * 1024

/**
 * `file` is the name for messages; `firstLine` the number of the first line, where the text is a part of a file. A byte
 * order mark at the start is skipped, and lines may end in CR LF.
 */
export function readStatements(
  text: string,
  file: string,
  firstLine = 1,
): { statements: Statement[]; problems: Problem[] } {
  const statements: Statement[] = []
  const problems: Problem[] = []
  if (text.length > MAX_TEXT) {
    const message = `this is no configuration: it is larger than ${MAX_TEXT / 1024 / 1024} MiB`
    return { statements, problems: [{ place: { file, line: 0 }, code: 'syntax', message }] }
  }
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/)
  for (let i = 0; i < lines.length; i++) {
    const place: Place = { file, line: firstLine + i }
    const problem = (message: string) => problems.push({ place, code: 'syntax', message })
    if (lines[i]!.length > MAX_LINE) {
      problem(`a line has at most ${MAX_LINE} characters`)
      continue
    }
    const words = splitLine(lines[i]!)
    if (typeof words === 'string') {
      problem(words)
      continue
    }
    const [first, ...args] = words
    if (first === undefined) continue
    const tag = /^<([^/<>][^<>]*)>$/.exec(first)
    if (tag === null || args.length > 0) {
      if (/^<\/.*>$/.test(first)) problem(`${first} ends a block that did not begin`)
      else statements.push({ name: withoutDashes(first), args, place })
      continue
    }
    const name = tag[1]!
    const end = lines.findIndex((line, j) => j > i && line.trimStart().startsWith(`</${name}>`))
    if (end < 0) {
      problem(`<${name}> has no end: a line </${name}> was expected`)
      break
    }
    const content = lines.slice(i + 1, end)
    statements.push({ name, args, block: content.map((line) => `${line}\n`).join(''), place })
    i = end
  }
  return { statements, problems }
}

function withoutDashes(word: string): string {
  return word.length > 2 && word.startsWith('--') ? word.slice(2) : word
}

const SPACE = /[ \t\v\f\r]/

/**
 * The words of a line, without what is behind a `#` or `;` that begins a word; or what is wrong with it. In double quotes
 * and outside of quotes a backslash stands before a quote, a space or another backslash; in single quotes all is as it is.
 */
export function splitLine(line: string): string[] | string {
  const words: string[] = []
  let word: string | undefined
  let quote = ''
  for (let i = 0; i < line.length; i++) {
    let letter = line[i]!
    if (letter < ' ' && !SPACE.test(letter)) return 'an unprintable character'
    const escaped = letter === '\\' && quote !== "'"
    if (escaped) {
      letter = line[++i] ?? ''
      const plain = letter === '\\' || letter === '"' || (letter !== '' && SPACE.test(letter))
      if (!plain) {
        return "a backslash stands before a quote, a space or another backslash; write '\\\\' for one"
      }
    }
    if (word === undefined) {
      if (escaped) word = letter
      else if (letter === '#' || letter === ';') break
      else if (letter === '"' || letter === "'") {
        quote = letter
        word = ''
      } else if (!SPACE.test(letter)) word = letter
    } else if (quote === '' ? !escaped && SPACE.test(letter) : !escaped && letter === quote) {
      words.push(word)
      word = undefined
      quote = ''
    } else word += letter
  }
  if (quote !== '') return `the text in quotes does not end: ${quote} was expected`
  if (word !== undefined) words.push(word)
  if (words.length > MAX_WORDS) return `a line has at most ${MAX_WORDS} words`
  return words
}
