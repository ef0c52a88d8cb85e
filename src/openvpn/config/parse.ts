/**
 * Statements and the table of directives together: a configuration as settings with typed arguments, and a list of what is
 * wrong with it. Reads included files through what it is handed. What settings mean together is for server-config.ts and
 * the others.
 */

import type { Context, Directive } from './directives/directive.ts'
import {
  type Args,
  type DirectiveName,
  directive,
  isDirective,
  similarNames,
  usage,
} from './directives.ts'
import { ArgumentError, type Kind } from './kinds.ts'
import { type Problem, type ProblemCode, readStatements, type Statement } from './syntax.ts'
import type { Loaded, Place } from './values.ts'

/** Where files are read from. Paths are as the configuration has them, after the folder of the configuration. */
export interface Files {
  /** The content. Throws an Error where there is none, of the system's with its `code`, or with a message that says why. */
  read(path: string): Uint8Array
}

/** A configuration as it comes. */
export interface Source {
  /** For messages, and where relative paths start from: its path. */
  readonly file: string
  readonly text: string
}

/** A directive where it stands. */
export interface Setting<N extends DirectiveName = DirectiveName> {
  readonly name: N
  readonly args: Args<N>
  /** Where the first argument, a file, stands in a block instead. Its path in `args` is then `[inline NAME]`. */
  readonly block?: string
  /** Folder that its relative paths start from; '' is the current one. */
  readonly folder: string
  readonly place: Place
}

/** Something that the user should know though nothing is wrong. */
export interface Note {
  readonly place: Place
  readonly kind: /** Has no effect here. */
    | 'no-op'
    /** An unknown directive that the configuration itself says may be ignored. */
    | 'ignored'
    /** A later line of the same name counts. */
    | 'overridden'
    /** Is not quite what OpenVPN does, or likely not what was meant. */
    | 'differs'
  readonly message: string
}

/** All that is wrong with a configuration, one `file:line: message` a line. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly code = 'CONFIG'
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    super(problems.map(formatProblem).join('\n'))
    this.problems = problems
  }
}

export function formatPlace({ file, line }: Place): string {
  return line === 0 ? file : `${file}:${line}`
}

function formatProblem({ place, message }: Problem): string {
  return `${formatPlace(place)}: ${message}`
}

/** Settings in the order in which they stand, included files in place of the line that includes them. */
export class Settings {
  readonly file: string
  readonly problems: Problem[] = []
  readonly notes: Note[] = []
  /** `<connection>` blocks. They share `problems`, `notes` and `statements` with the whole. */
  readonly connections: { settings: Settings; place: Place }[] = []
  /** All that was read, right or wrong. */
  readonly statements: Statement[] = []
  readonly #all: Setting[] = []

  constructor(file: string, shared?: Settings) {
    this.file = file
    if (shared !== undefined) {
      this.problems = shared.problems
      this.notes = shared.notes
      this.statements = shared.statements
    }
  }

  [Symbol.iterator](): Iterator<Setting> {
    return this.#all[Symbol.iterator]()
  }

  add(setting: Setting): void {
    this.#all.push(setting)
  }

  has(name: DirectiveName): boolean {
    return this.#all.some((setting) => setting.name === name)
  }

  /** The setting that counts of a directive: the last. */
  last<N extends DirectiveName>(name: N): Setting<N> | undefined {
    return this.all(name).at(-1)
  }

  all<N extends DirectiveName>(name: N): Setting<N>[] {
    return this.#all.filter((setting) => setting.name === name) as Setting[] as Setting<N>[]
  }

  /** The arguments of the setting that counts. */
  args<N extends DirectiveName>(name: N): Args<N> | undefined {
    return this.last(name)?.args
  }

  problem(code: ProblemCode, place: Place | undefined, message: string): void {
    this.problems.push({ code, place: place ?? { file: this.file, line: 0 }, message })
  }

  note(kind: Note['kind'], place: Place | undefined, message: string): void {
    this.notes.push({ kind, place: place ?? { file: this.file, line: 0 }, message })
  }

  /** Throws a ConfigError with all problems, in the order of lines, where there are any. */
  check(): void {
    if (this.problems.length === 0) return
    const order = (problem: Problem) => (problem.place.line === 0 ? Infinity : problem.place.line)
    throw new ConfigError(this.problems.toSorted((a, b) => order(a) - order(b)))
  }
}

const MAX_DEPTH = 10
const MAX_STATEMENTS = 100_000

/** A statement, and the folder that relative paths in it start from. */
interface Found extends Statement {
  folder: string
  /** From `setenv opt`: whatever is wrong with it, it is ignored. */
  tolerant?: true
  /** Of a connection block: what is in it. */
  inner?: readonly Statement[]
}

/** Never throws: what is wrong is in `problems` of what is returned. */
export function parse(source: Source, context: Context, files: Files): Settings {
  const settings = new Settings(source.file)
  const found = new Includer(settings, context === 'pushed' ? undefined : files)
  found.add(source.text, source.file, folderOf(source.file), 0)
  new Reader(settings, context, found.statements).read()
  return settings
}

/** `etc/server.conf` → `etc`; '' where there is none. */
function folderOf(path: string): string {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? '' : path.slice(0, slash) || '/'
}

/** A path from a configuration whose relative paths start from `folder`. */
export function resolvePath(folder: string, path: string): string {
  if (path.startsWith('/') || folder === '') return path
  return folder === '/' ? `/${path}` : `${folder}/${path}`
}

/** Puts included files in their place, and follows `cd`. */
class Includer {
  readonly statements: Found[] = []
  readonly #settings: Settings
  readonly #files: Files | undefined

  constructor(settings: Settings, files: Files | undefined) {
    this.#settings = settings
    this.#files = files
  }

  /** Returns the folder at its end. */
  add(text: string, file: string, folder: string, depth: number): string {
    const { statements, problems } = readStatements(text, file)
    this.#settings.problems.push(...problems)
    let current = folder
    for (const statement of statements) {
      if (this.statements.length >= MAX_STATEMENTS) {
        const message = `a configuration has at most ${MAX_STATEMENTS} directives`
        this.#settings.problem('syntax', statement.place, message)
        return current
      }
      const { name, args } = statement
      const path = args.length === 1 && statement.block === undefined ? args[0]! : undefined
      const found: Found = { ...statement, folder: current }
      this.statements.push(found)
      this.#settings.statements.push(statement)
      if (name === 'connection') found.inner = this.#inner(statement)
      if (path === undefined || this.#files === undefined) continue
      if (name === 'cd') current = resolvePath(current, path)
      if (name === 'config') current = this.#include(found, path, this.#files, depth + 1)
    }
    return current
  }

  #inner({ block, place }: Statement): Statement[] {
    const { statements, problems } = readStatements(block ?? '', place.file, place.line + 1)
    this.#settings.problems.push(...problems)
    this.#settings.statements.push(...statements)
    return statements
  }

  #include({ folder, place }: Found, path: string, files: Files, depth: number): string {
    if (depth > MAX_DEPTH) {
      const message = `files include each other more than ${MAX_DEPTH} deep`
      this.#settings.problem('file', place, message)
      return folder
    }
    const file = resolvePath(folder, path)
    const content = readFile(this.#settings, files, file, 'config', place)
    if (content === undefined) return folder
    return this.add(decodeText(content), file, folder, depth)
  }
}

function readFile(
  settings: Settings,
  files: Files,
  path: string,
  name: string,
  place: Place,
): Uint8Array | undefined {
  try {
    return files.read(path)
  } catch (error) {
    settings.problem('file', place, `${name}: cannot read '${path}': ${reasonOf(error)}`)
    return undefined
  }
}

const REASONS: { readonly [code: string]: string } = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'there is no such file',
  EACCES: 'this user may not read it',
  EISDIR: 'it is a folder',
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { code } = error as { code?: unknown }
  return (typeof code === 'string' ? REASONS[code] : undefined) ?? error.message
}

/** UTF-8, or what its byte order mark says: PowerShell and older editors on Windows write UTF-16. */
export function decodeText(content: Uint8Array): string {
  const mark = (content[0] ?? 0) * 0x100 + (content[1] ?? 0)
  const encoding = mark === 0xfffe ? 'utf-16le' : mark === 0xfeff ? 'utf-16be' : 'utf-8'
  return new TextDecoder(encoding).decode(content)
}

/** The file of a setting, or its block. Undefined where it cannot be read; then `settings` has the problem. */
export function load(
  settings: Settings,
  files: Files,
  { name, block, folder, place }: Setting,
  path: string,
): Loaded | undefined {
  if (block !== undefined) {
    return { content: new TextEncoder().encode(block), from: path, path: undefined }
  }
  const full = resolvePath(folder, path)
  const content = readFile(settings, files, full, name, place)
  return content && { content, from: full, path: full }
}

/** Statements → settings. */
class Reader {
  readonly #settings: Settings
  readonly #context: Context
  readonly #statements: readonly Found[]
  /** Names that may be unknown. */
  readonly #ignorable = new Set<string>()
  #ignoreAll = false
  /** Arguments behind `name [inline]`, which older programs write beside a block. */
  readonly #markers = new Map<string, readonly string[]>()

  constructor(settings: Settings, context: Context, statements: readonly Found[]) {
    this.#settings = settings
    this.#context = context
    this.#statements = statements
    for (const { name, args } of statements) {
      if (name === 'ignore-unknown-option') for (const arg of args) this.#ignorable.add(arg)
      if (name === 'setenv' && args[0] === 'FORWARD_COMPATIBLE' && args[1] === '1') {
        this.#ignoreAll = true
      }
      if (isMarker(args)) this.#markers.set(name, args.slice(1))
    }
  }

  read(): void {
    for (const statement of this.#statements) this.#add(statement, this.#settings, false)
    noteOverridden(this.#settings)
  }

  #add(statement: Found, to: Settings, inConnection: boolean): void {
    const { name, args, place, block, inner } = statement
    if (name === 'setenv' && args[0] === 'opt' && this.#context !== 'pushed') {
      const [, opt, ...rest] = args
      if (opt === undefined) to.note('ignored', place, "'setenv opt' without a directive")
      else this.#add({ ...statement, name: opt, args: rest, tolerant: true }, to, inConnection)
      return
    }
    if (inner !== undefined && block !== undefined) {
      this.#addConnection(statement, inner)
      return
    }
    if (isMarker(args) && isDirective(name) && directive(name).inline) return
    const problem = this.#find(statement, to, inConnection)
    if (problem === undefined) return
    const [code, message] = problem
    const ignorable =
      statement.tolerant ||
      (this.#ignorable.has(name) && (code === 'unknown' || code === 'refused')) ||
      (this.#ignoreAll && code === 'unknown')
    if (ignorable) to.note('ignored', place, `ignored: ${message}`)
    else to.problem(code, place, message)
  }

  #addConnection({ folder, place }: Found, inner: readonly Statement[]): void {
    if (this.#context !== 'client') {
      const message = `<connection> is of clients; ${HERE[this.#context]}`
      this.#settings.problem('context', place, message)
      return
    }
    const settings = new Settings(this.#settings.file, this.#settings)
    this.#settings.connections.push({ settings, place })
    for (const statement of inner) this.#add({ ...statement, folder }, settings, true)
    noteOverridden(settings)
  }

  /** Adds the setting; or tells what is wrong with it. */
  #find(
    { name, args, block, folder, place }: Found,
    to: Settings,
    inConnection: boolean,
  ): [ProblemCode, string] | undefined {
    if (!isDirective(name)) return ['unknown', unknown(name, this.#context)]
    const row = directive(name)
    const use = row[this.#context]
    if (use === undefined) return ['context', outOfContext(name, row, this.#context)]
    if (inConnection && row.connection === undefined) {
      return ['context', `'${name}' may not stand in a <connection> block; put it before the block`]
    }
    if (use.kind === 'refused') return ['refused', `'${name}' is not done here: ${use.instead}`]
    const texts =
      block === undefined ? args : [inlineName(name), ...(this.#markers.get(name) ?? [])]
    if (block !== undefined && row.inline === undefined) {
      return ['syntax', `'${name}' has no block; write it as: ${usage(name)}`]
    }
    let values: { [argument: string]: unknown }
    try {
      values = argumentsOf(name, row, texts, block !== undefined)
    } catch (error) {
      if (!(error instanceof ArgumentError)) throw error
      return ['argument', error.message]
    }
    const setting = { name, args: values as Args<DirectiveName>, folder, place }
    to.add(block === undefined ? setting : { ...setting, block })
    if (use.kind === 'no-op') to.note('no-op', place, `'${name}' has no effect: ${use.why}`)
    return undefined
  }
}

function isMarker(args: readonly string[]): boolean {
  return args[0] === '[inline]'
}

function inlineName(name: string): string {
  return `[inline ${name}]`
}

/** Throws an ArgumentError. */
function argumentsOf(
  name: DirectiveName,
  row: Directive,
  texts: readonly string[],
  inline: boolean,
): { [argument: string]: unknown } {
  const values: { [argument: string]: unknown } = {}
  const kinds = Object.entries(row.args)
  const wanted = kinds.filter(([, { optional }]) => optional === undefined).length
  const unlimited = kinds.some(([, { rest }]) => rest)
  if (texts.length < wanted) {
    throw new ArgumentError(`'${name}' is written: ${usage(name)}`)
  }
  if (texts.length > kinds.length && !unlimited) {
    const many = kinds.length === 0 ? 'no arguments' : `at most ${kinds.length}`
    throw new ArgumentError(`'${name}' takes ${many}: ${usage(name)}`)
  }
  kinds.forEach(([argument, of], i) => {
    const text = texts[i]
    if (text === undefined) values[argument] = of.optional?.value
    else if (inline && i === 0) values[argument] = text
    else values[argument] = argumentOf(name, of, of.rest ? texts.slice(i) : [text])
  })
  return values
}

function argumentOf(name: string, of: Kind<unknown>, texts: readonly string[]): unknown {
  try {
    const values = texts.map((text) => of.parse(text))
    return of.rest ? values.flat() : values[0]
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error
    throw new ArgumentError(`${name}: ${error.message}`)
  }
}

function unknown(name: string, context: Context): string {
  // Who sends a reply cannot be told; and may send many.
  if (context === 'pushed') return `there is no directive '${name}'`
  const similar = similarNames(name).map((known) => `'${known}'`)
  const hint = similar.length === 0 ? '' : `; did you mean ${similar.join(' or ')}?`
  return `there is no directive '${name}'${hint}`
}

const HERE: { readonly [C in Context]: string } = {
  server: "this is a server's configuration",
  client: "this is a client's configuration",
  ccd: 'these are the settings of one client at the server',
  pushed: 'a server may not push it',
}

function outOfContext(name: string, row: Directive, context: Context): string {
  if (context === 'pushed') return `'${name}' is not taken from a server`
  const owners = [
    row.client && 'clients',
    row.server && 'servers',
    row.ccd && "clients' files at the server",
    row.pushed && 'replies of servers',
  ].filter((owner) => owner !== undefined)
  return `'${name}' is of ${owners.join(' and ')}; ${HERE[context]}`
}

function noteOverridden(settings: Settings): void {
  const last = new Map<string, Setting>()
  for (const setting of settings) {
    const before = last.get(setting.name)
    last.set(setting.name, setting)
    if (before === undefined || directive(setting.name).repeats) continue
    const message = `'${setting.name}' is overridden at ${formatPlace(setting.place)}`
    settings.note('overridden', before.place, message)
  }
}
