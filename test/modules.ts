/** Reads what a source file of ours imports and exports, by its text: the format that Biome gives makes that safe. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'

export interface Import {
  /** Path from the checkout's top for our own files; the specifier itself for anything else. */
  from: string
  own: boolean
  /** Names as the other file exports them; '*' for all. */
  names: string[]
}

export interface Module {
  path: string
  imports: Import[]
  exports: string[]
  /** Those of them that are an interface or a type alias. */
  types: string[]
  /** Text without comments. */
  code: string
}

/** All modules below `folder`, a path from the checkout's top, tests included. */
export function readModules(folder: string): Module[] {
  const top = new URL('..', import.meta.url)
  return readdirSync(new URL(folder, top), { recursive: true, encoding: 'utf8' })
    .filter((entry) => entry.endsWith('.ts'))
    .map((entry) => join(folder, entry))
    .sort()
    .map((path) => parseModule(path, readFileSync(new URL(path, top), 'utf8')))
}

const STATEMENT = /^(?:import|export)\s+(?:type\s+)?([^'"`;=()]*?)\s*from\s+'([^']+)'/gm
const BARE_IMPORT = /^import\s+'([^']+)'/gm
const DYNAMIC_IMPORT = /\bimport\(\s*'([^']+)'/g
/** What a worker is started from. */
const URL_IMPORT = /\bnew URL\(\s*'(\.[^']+\.ts)',\s*import\.meta\.url/g
const DECLARATION =
  /^export\s+(?:declare\s+)?(?:abstract\s+)?(?:async\s+)?(?:const|let|function\*?|class|interface|type|namespace)\s+([\w$]+)/gm
const TYPE = /^export\s+(?:declare\s+)?(?:interface|type)\s+([\w$]+)/gm
const DEFAULT = /^export\s+default\b/m
const LIST = /^export\s+(?:type\s+)?\{([^}]*)\}/gm
const DESTRUCTURED = /^export\s+const\s+\{([^}]*)\}/gm

export function parseModule(path: string, text: string): Module {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1')
  const imports: Import[] = []
  const add = (specifier: string, names: string[]) => {
    const own = specifier.startsWith('.')
    const from = own ? normalize(join(dirname(path), specifier)) : specifier
    imports.push({ from, own, names })
  }
  for (const [, clause, specifier] of code.matchAll(STATEMENT))
    add(specifier!, clauseNames(clause!))
  for (const [, specifier] of code.matchAll(BARE_IMPORT)) add(specifier!, [])
  for (const [, specifier] of code.matchAll(DYNAMIC_IMPORT)) add(specifier!, ['*'])
  for (const [, specifier] of code.matchAll(URL_IMPORT)) add(specifier!, [])
  const exports = new Set<string>()
  for (const [, name] of code.matchAll(DECLARATION)) exports.add(name!)
  for (const [, list] of [...code.matchAll(LIST), ...code.matchAll(DESTRUCTURED)]) {
    for (const { local, outer } of listed(list!)) exports.add(outer ?? local)
  }
  if (DEFAULT.test(code)) exports.add('default')
  const types = Array.from(code.matchAll(TYPE), ([, name]) => name!)
  return { path, imports, exports: [...exports], types, code }
}

/** `a, { b as c, type D }` or `* as e`, as the names that the other module has for them. */
function clauseNames(clause: string): string[] {
  const braces = /\{([^}]*)\}/.exec(clause)
  const names = braces === null ? [] : listed(braces[1]!).map(({ local }) => local)
  const outside = clause
    .replace(/\{[^}]*\}/, '')
    .replace(/,/g, ' ')
    .trim()
  if (outside.startsWith('*')) names.push('*')
  else if (outside !== '') names.push('default')
  return names
}

/** The names between the braces of an import or export. */
function listed(list: string): { local: string; outer: string | undefined }[] {
  const entries = list.split(',').map((entry) => entry.trim().replace(/^type\s+/, ''))
  return entries
    .filter((entry) => entry !== '')
    .map((entry) => {
      const [local, outer] = entry.split(/\s+as\s+|\s*:\s*/)
      return { local: local!, outer }
    })
}
