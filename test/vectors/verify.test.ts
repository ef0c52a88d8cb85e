/** The vectors hold for an implementation that knows nothing of ours. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { it } from 'node:test'
import { fileURLToPath } from 'node:url'

it('verify.mjs, which uses node:crypto alone, comes to the same bytes', () => {
  const script = fileURLToPath(new URL('verify.mjs', import.meta.url))
  const { status, stdout, stderr } = spawnSync('node', [script], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  assert.match(stdout, /^[1-9]\d* values agree/)
})
