import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { hex, loadVectors } from '../../../test/vectors/load.ts'
import { checkToken, createToken, isToken, type TokenRules, type TokenState } from './auth-token.ts'

const LOGIN = 1_700_000_000
const random = new Random(8)
const key = random.bytes(32)
const sessionId = random.bytes(12)
const rules: TokenRules = { key, lifetime: 10_000, renewal: 600 }

describe('tokens', () => {
  for (const row of loadVectors('auth-token').cases) {
    it(`as published: ${row.name}`, () => {
      const content = {
        sessionId: hex(row.session_id),
        initialTime: row.initial_time,
        time: row.time,
      }
      const key = hex(row.hmac_key)
      assert.equal(createToken(key, row.username_text, content), row.token_text)
      const rules = { key, lifetime: 0, renewal: 100 }
      const checked = checkToken(rules, row.username_text, row.token_text, row.time)
      assert.deepEqual(checked, { state: 'Authenticated', content })
    })
  }

  const token = (time: number, user = 'alice', id = sessionId) =>
    createToken(key, user, { sessionId: id, initialTime: LOGIN, time: LOGIN + time })
  const first = token(0)
  const other = token(0, 'alice', random.bytes(12))

  type Row = [password: string, after: number, state: TokenState, why: string, session?: string]
  const rows: Row[] = [
    ['secret', 0, 'Initial', 'a password'],
    ['', 0, 'Initial', 'none'],
    [first, 0, 'Authenticated', 'at once'],
    [first, 1199, 'Authenticated', 'up to twice the time of renewal'],
    [first, 1200, 'Expired', 'then no more'],
    [first, -1, 'Expired', 'before it was made'],
    [token(900), 2000, 'Authenticated', 'a renewed one'],
    [token(9900), 10_000, 'Authenticated', 'in the last second of its lifetime'],
    [token(9900), 10_001, 'Expired', 'renewed, but older than its lifetime'],
    [token(0, 'bob'), 0, 'Invalid', "another user's"],
    [token(0, ''), 0, 'AuthenticatedEmptyUser', 'made for no user'],
    [token(0, ''), 1200, 'ExpiredEmptyUser', 'made for no user, and expired'],
    [first, 0, 'Authenticated', 'of the same session', first],
    [token(900), 900, 'Authenticated', 'a later one of the same session', first],
    [other, 0, 'Invalid', 'of another session', first],
    [first, 5000, 'Authenticated', 'the first one of the session does not get old', first],
    [first, 10_001, 'Expired', 'but it has its lifetime', first],
    [token(900), 5000, 'Expired', 'others do', first],
    ['SESS_ID_AT_', 0, 'Invalid', 'nothing behind its beginning'],
    [first.slice(0, -1), 0, 'Invalid', 'a character less'],
    [`${first}A`, 0, 'Invalid', 'a character more'],
    [`${first}\n`, 0, 'Invalid', 'a line end'],
    [`${first.slice(0, -4)}!!!!`, 0, 'Invalid', 'no base64'],
    [`${first.slice(0, -4)}AA==`, 0, 'Invalid', 'filled up'],
    [first.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')), 0, 'Invalid', 'a bit changed'],
  ]
  for (const [password, after, state, why, session] of rows) {
    it(`${state}: ${why}`, () => {
      assert.equal(checkToken(rules, 'alice', password, LOGIN + after, session).state, state)
    })
  }

  it('without a lifetime they live for ever', () => {
    const late = createToken(key, 'a', { sessionId, initialTime: 0, time: LOGIN })
    assert.equal(checkToken({ ...rules, lifetime: 0 }, 'a', late, LOGIN).state, 'Authenticated')
  })

  it('with another key all are invalid', () => {
    const others = { ...rules, key: random.bytes(32) }
    assert.deepEqual(checkToken(others, 'alice', first, LOGIN), { state: 'Invalid' })
  })

  it('never throws, whatever a client sends', () => {
    for (let round = 0; round < 500; round++) {
      const noise = Buffer.from(random.bytes(random.below(120))).toString('latin1')
      checkToken(rules, noise, `SESS_ID_AT_${noise}`, LOGIN, noise)
    }
  })

  it('what they look like', () => {
    assert.equal(first.length, 91)
    assert.ok(isToken(first))
    assert.ok(!isToken(` ${first}`))
    assert.throws(
      () => createToken(key, '', { sessionId: key, initialTime: 0, time: 0 }),
      /12 bytes/,
    )
    const content = { sessionId, initialTime: 0, time: 0 }
    assert.throws(() => createToken(sessionId, '', content), /32 bytes/)
  })
})
