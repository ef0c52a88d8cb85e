import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { directiveTables } from './docs.ts'

const path = new URL('../../../docs/DIRECTIVES.md', import.meta.url)
const BEGIN = '<!-- tables: made by src/openvpn/config/docs.ts -->\n'
const END = '<!-- end of tables -->\n'

describe('docs/DIRECTIVES.md', () => {
  it('has the tables that the directives give (UPDATE_DOCS=1 writes them anew)', () => {
    const text = readFileSync(path, 'utf8')
    const [before, rest] = text.split(BEGIN) as [string, string]
    const [tables, after] = rest.split(END) as [string, string]
    const fresh = `\n${directiveTables()}\n\n`
    if (process.env.UPDATE_DOCS === '1') writeFileSync(path, before + BEGIN + fresh + END + after)
    else assert.equal(tables, fresh)
  })
})
