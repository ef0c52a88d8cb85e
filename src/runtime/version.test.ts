import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { it } from 'node:test'
import { VERSION } from './version.ts'

it('the version is that of the package', () => {
  const file = new URL('../../package.json', import.meta.url)
  assert.equal(VERSION, JSON.parse(readFileSync(file, 'utf8')).version)
})
