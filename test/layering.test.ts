/** Who may import whom in src/ (layers.ts), read from every import there is; and that what is exported has a user. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { LAYERS, layerOf } from './layers.ts'
import { type Module, parseModule, readModules } from './modules.ts'

const isTest = (path: string) => path.includes('.test')
const modules = readModules('src')
const shipped = modules.filter(({ path }) => !isTest(path))
const dependencies = Object.keys(
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).dependencies,
)

/** What is wrong with what `module` imports. */
function trespasses({ path, imports, code }: Module): string[] {
  const layer = layerOf(path)
  if (layer === undefined) return ['belongs to no layer']
  const below = LAYERS.slice(0, LAYERS.indexOf(layer)).map(({ name }) => name)
  const allowed = layer.layers === 'all below' ? below : layer.layers
  const wrong: string[] = []
  for (const { from, own } of imports) {
    if (own) {
      const other = layerOf(from)
      if (other === layer || (other !== undefined && allowed.includes(other.name))) continue
      wrong.push(`${layer.name} may not import ${from}`)
    } else if (layer.outside !== null) {
      if (!layer.outside.includes(from)) wrong.push(`${layer.name} may not import ${from}`)
    } else if (from === 'bun:ffi') {
      if (layer.name !== 'platform') wrong.push('native code belongs to platform')
    } else if (!/^(node|bun):/.test(from) && !dependencies.includes(packageOf(from))) {
      wrong.push(`${from} is not in package.json's dependencies`)
    }
  }
  if (layer.runsInNode && /\bBun\b/.test(code)) wrong.push(`${layer.name} runs in Node: no Bun`)
  return wrong
}

function packageOf(specifier: string): string {
  const parts = specifier.split('/')
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : parts[0]!
}

describe('layers', () => {
  it('name only what stands above them in the table', () => {
    LAYERS.forEach(({ name, layers }, i) => {
      if (layers === 'all below') return
      const above = LAYERS.slice(0, i).map((layer) => layer.name)
      assert.deepEqual(
        layers.filter((layer) => !above.includes(layer)),
        [],
        name,
      )
    })
  })

  for (const module of shipped) {
    it(module.path, () => assert.deepEqual(trespasses(module), []))
  }

  const rows: [path: string, text: string, wrong: number, why: string][] = [
    ['src/wire/x.ts', "import { a } from '../uapi/b.ts'", 1, 'sideways'],
    ['src/wire/x.ts', "import type { a } from '../driver/core/b.ts'", 1, 'upward, a type only'],
    ['src/uapi/x.ts', "import { a } from '../netlink/b.ts'", 0, 'downward'],
    ['src/uapi/x.ts', "import fs from 'node:fs'", 1, 'a system call in a pure folder'],
    ['src/uapi/x.ts', "const a = await import('bun:ffi')", 1, 'Bun, later'],
    ['src/uapi/x.ts', 'Bun.gc(true)', 1, 'Bun, without an import'],
    ['src/uapi/x.ts', '// Bun has none', 0, 'a comment about it'],
    ['src/driver/x.ts', "import { dlopen } from 'bun:ffi'", 1, 'native code outside of platform'],
    ['src/driver/x.ts', "import { a } from '../platform/b.ts'", 1, 'only workers touch platform'],
    ['src/driver/core/x.ts', "import { a } from '../client.ts'", 1, 'from core to client'],
    ['src/driver/worker/x.ts', "import { a } from '../server.ts'", 0, 'from worker to server'],
    ['src/openvpn/x.ts', "import { a } from '../driver/server.ts'", 1, "past the driver's client"],
    ['src/openvpn/x.ts', "import { a } from '../driver/client.ts'", 0, "the driver's client"],
    ['src/cli/x.ts', "import { z } from 'tsx'", 1, 'not a dependency of the package'],
    ['src/cli/x.ts', "import { Command } from 'commander'", 0, 'a dependency'],
    ['src/other/x.ts', '', 1, 'a folder that nobody wrote down'],
  ]
  for (const [path, text, wrong, why] of rows) {
    it(`would find: ${why}`, () => {
      assert.equal(trespasses(parseModule(path, text)).length, wrong)
    })
  }
})

describe('exports of src', () => {
  const users = [...modules, ...readModules('test'), ...benchModules()]
  const used = new Map<string, Set<string>>()
  for (const { path, imports } of users) {
    for (const { from, own, names } of imports) {
      if (!own || from === path) continue
      const known = used.get(from) ?? new Set()
      for (const name of names) known.add(name)
      used.set(from, known)
    }
  }

  for (const module of shipped) {
    const { path, exports } = module
    it(`${path}: each has a user, and none is "default"`, () => {
      assert.ok(!exports.includes('default'), 'exports have names')
      // The public API: its users are elsewhere.
      if (['src/index.ts', 'src/node.ts', 'src/driver-client.ts'].includes(path)) return
      const names = used.get(path) ?? new Set()
      if (names.has('*')) return
      assert.deepEqual(
        exports.filter((name) => !names.has(name) && !isOfOwnSignature(module, name)),
        [],
        'nobody imports',
      )
    })
  }
})

/** A type that the file's other exports speak of: whoever calls them may want its name. */
function isOfOwnSignature({ types, code }: Module, name: string): boolean {
  return types.includes(name) && code.match(new RegExp(`\\b${name}\\b`, 'g'))!.length > 1
}

function benchModules(): Module[] {
  try {
    return readModules('bench')
  } catch {
    return [] // there is no such folder yet
  }
}

describe('what is read of a source file', () => {
  const text = `/** import { no } from './comment.ts' */
import './effect.ts'
import fs, { type Stats } from 'node:fs'
import * as all from '../all.ts'
import type { A, B as C } from './types.ts'
import {
  long,
  lines,
} from './lines.ts'
export { again as other } from './again.ts'
export * from './star.ts'
export const one = 1, text = "from 'nowhere'"
export async function two() { return import('./later.ts') }
export abstract class Three {}
export type Four = A
export interface Five {}
const worker = new URL('./thread.ts', import.meta.url)
export { worker as six, type C as Seven }
`
  const module = parseModule('src/a/b.ts', text)

  it('its imports', () => {
    const found = module.imports.map(({ from, names }) => [from, ...names].join(' ')).sort()
    assert.deepEqual(found, [
      'node:fs Stats default',
      'src/a/again.ts again',
      'src/a/effect.ts',
      'src/a/later.ts *',
      'src/a/lines.ts long lines',
      'src/a/star.ts *',
      'src/a/thread.ts',
      'src/a/types.ts A B',
      'src/all.ts *',
    ])
  })

  it('its exports', () => {
    const names = ['Five', 'Four', 'Seven', 'Three', 'one', 'other', 'six', 'two']
    assert.deepEqual(module.exports.sort(), names)
    assert.deepEqual(module.types.sort(), ['Five', 'Four'])
  })
})
