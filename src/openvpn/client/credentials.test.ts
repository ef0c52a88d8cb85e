/** What a client shows, and what it asks of its user for that. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { readClientConfig } from '../config/client-config.ts'
import type { Challenge } from '../proto/messages.ts'
import { type Answer, Credentials, type Question } from './credentials.ts'

const FILES: { readonly [path: string]: string } = {
  '/p/ca': '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n',
  '/p/both': 'alice\nsecret\n',
  '/p/name': 'alice\n',
}

function credentials(lines: string[], answers: Answer[]) {
  const text = ['client', 'remote a.example', 'ca ca', 'verify-x509-name a', ...lines].join('\n')
  const config = readClientConfig(
    { file: '/p/client.ovpn', text },
    {
      read: (path) => {
        const content = FILES[path]
        if (content === undefined) throw new Error(`no ${path}`)
        return new TextEncoder().encode(content)
      },
    },
  )
  const asked: Question[] = []
  const kept = new Credentials(config, async (question) => {
    asked.push(question)
    const answer = answers.shift()
    assert.ok(answer, `nobody expects the question ${JSON.stringify(question)}`)
    return answer
  })
  return { kept, asked }
}

const base64 = (text: string) => Buffer.from(text).toString('base64')

describe('the first key message', () => {
  const rows: [
    lines: string[],
    answers: Answer[],
    username: string,
    password: string,
    why: string,
  ][] = [
    [['auth-user-pass both'], [], 'alice', 'secret', 'a file has both'],
    [['auth-user-pass name'], [{ text: 'x' }], 'alice', 'x', 'the password alone is asked'],
    [['auth-user-pass'], [{ username: 'bob', text: 'x' }], 'bob', 'x', 'both are asked'],
    [
      ['auth-user-pass username-only'],
      [{ text: 'bob' }],
      'bob',
      '[[BLANK]]',
      'no password is wanted',
    ],
    [
      ['auth-user-pass both', 'static-challenge "PIN" 1'],
      [{ text: '42' }],
      'alice',
      `SCRV1:${base64('secret')}:${base64('42')}`,
      'the answer goes with the password',
    ],
    [
      ['auth-user-pass', 'static-challenge "PIN" 0 concat'],
      [{ username: 'bob', text: 'x' }, { text: '42' }],
      'bob',
      'x42',
      'as one text',
    ],
    [
      ['auth-user-pass', 'static-challenge "PIN" 0'],
      [{ username: 'bob', text: 'x', response: '42' }],
      'bob',
      `SCRV1:${base64('x')}:${base64('42')}`,
      'all was answered at once',
    ],
    [['auth-user-pass both', 'auth-token t'], [], '', 't', 'a token of the profile'],
  ]
  for (const [lines, answers, username, password, why] of rows) {
    it(`${lines.join(', ')}: ${why}`, async () => {
      const { kept } = credentials(lines, [...answers])
      assert.deepEqual(await kept.show(), { username, password })
    })
  }
})

describe('what is remembered', () => {
  it('asks once, and again where it was wrong', async () => {
    const { kept, asked } = credentials(
      ['auth-user-pass'],
      [
        { username: 'bob', text: 'x' },
        { username: 'bob', text: 'y' },
      ],
    )
    await kept.show()
    assert.equal((await kept.show()).password, 'x')
    kept.forget()
    assert.equal((await kept.show()).password, 'y')
    assert.equal(asked.length, 2)
  })

  it('forgets a password that was asked for, with auth-nocache', async () => {
    const answers = [{ username: 'bob', text: 'x' }, { text: 'y' }]
    const { kept, asked } = credentials(['auth-user-pass', 'auth-nocache'], answers)
    await kept.show()
    assert.deepEqual(await kept.show(), { username: 'bob', password: 'y' })
    assert.deepEqual(asked[1], { kind: 'credentials', what: 'Auth', username: 'bob' })
  })

  it('reads a file as often as it likes, with auth-nocache too', async () => {
    const { kept } = credentials(['auth-user-pass both', 'auth-nocache'], [])
    await kept.show()
    assert.equal((await kept.show()).password, 'secret')
  })

  it('shows a token until it is good no more', async () => {
    const { kept } = credentials(['auth-user-pass both'], [])
    await kept.show()
    kept.keepToken('SESS_ID', undefined)
    assert.deepEqual(await kept.show(), { username: 'alice', password: 'SESS_ID' })
    kept.keepToken('SESS_ID2', 'carol')
    assert.deepEqual(await kept.show(), { username: 'carol', password: 'SESS_ID2' })
    kept.forgetToken()
    assert.deepEqual(await kept.show(), { username: 'alice', password: 'secret' })
  })
})

describe('a challenge', () => {
  const challenge: Challenge = {
    ...{ state: 'st:ate', username: 'alice', text: 'Code?', echo: true, needsResponse: true },
  }

  it('is answered once, in place of the password', async () => {
    const { kept, asked } = credentials(['auth-user-pass both'], [{ text: '42' }])
    kept.answer(challenge)
    assert.deepEqual(await kept.show(), { username: 'alice', password: 'CRV1::st:ate::42' })
    assert.deepEqual(asked[0], {
      ...{ kind: 'text', text: 'Code?', echo: true },
      challenge: { kind: 'dynamic', challenge },
    })
    assert.equal((await kept.show()).password, 'secret')
  })

  it('that needs no answer asks nobody', async () => {
    const { kept } = credentials(['auth-user-pass both'], [])
    kept.answer({ ...challenge, needsResponse: false })
    assert.equal((await kept.show()).password, 'CRV1::st:ate::')
  })
})
