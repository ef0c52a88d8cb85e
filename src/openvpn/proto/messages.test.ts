import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import {
  type AuthFailure,
  type ControlMessage,
  formatAuthFailed,
  formatAuthPending,
  formatCrResponse,
  formatInfo,
  formatOrder,
  formatPassword,
  formatPendingMethod,
  type Order,
  type PasswordField,
  type PendingMethod,
  parseMessage,
  parsePassword,
  parsePendingMethod,
  readText,
} from './messages.ts'

describe('readText', () => {
  const rows: [bytes: string, text: string | undefined, why: string][] = [
    ['PUSH_REQUEST', 'PUSH_REQUEST', 'a message'],
    ['AUTH_FAILED,no\r\n\n', 'AUTH_FAILED,no', 'line ends behind it do not count'],
    ['AUTH_FAILED,\nno', undefined, 'one within would forge a line of a log'],
    ['AUTH_FAILED,\x1b[2J', undefined, 'an escape sequence'],
    ['AUTH_FAILED,\x7f', undefined, 'DEL'],
    ['INFO,a\tb', undefined, 'a tab is unprintable, too'],
    ['INFO,für', 'INFO,für', 'UTF-8 is text'],
    ['', '', 'nothing'],
  ]
  for (const [bytes, text, why] of rows) {
    it(why, () => assert.equal(readText(Buffer.from(bytes)), text))
  }

  it('bytes that are no UTF-8 become replacement characters', () => {
    assert.equal(readText(Uint8Array.of(0x61, 0xff)), 'a\ufffd')
  })
})

const plain: Order = { keepCredentials: false, nextServer: false, text: '' }
const failed = (failure: AuthFailure): ControlMessage => ({ kind: 'auth-failed', failure })
const challenge = {
  state: 'Om01',
  username: 'cr1',
  text: 'Please enter: token, PIN',
  echo: true,
  needsResponse: true,
}

describe('parseMessage', () => {
  const rows: [text: string, message: ControlMessage, why: string][] = [
    ['PUSH_REQUEST', { kind: 'push-request' }, 'as every client sends it'],
    ['PUSH_REQUEST,x', { kind: 'unknown', text: 'PUSH_REQUEST,x' }, 'it has no arguments'],
    ['PUSH_REQUESTS', { kind: 'unknown', text: 'PUSH_REQUESTS' }, 'another word'],
    ['PUSH_REPLY', { kind: 'push-reply', body: '' }, 'no options at all'],
    ['PUSH_REPLY,a,b c', { kind: 'push-reply', body: 'a,b c' }, 'two options'],
    ['PUSH_UPDATE,-a', { kind: 'push-update', body: '-a' }, 'an update'],
    ['AUTH_FAILED', failed({ reason: 'denied', text: '' }), 'no reason given'],
    ['AUTH_FAILED,a, b', failed({ reason: 'denied', text: 'a, b' }), 'a reason with a comma'],
    ['AUTH_FAILED,SESSION:x', failed({ reason: 'session', text: 'x' }), 'an old token'],
    ['AUTH_FAILED,TEMP:x', failed({ reason: 'temporary', text: 'x' }), 'no hints'],
    ['AUTH_FAILED,TEMP', failed({ reason: 'temporary', text: '' }), 'not even a colon'],
    [
      'AUTH_FAILED,TEMP[backoff 42,advance no]:x:y',
      failed({ reason: 'temporary', text: 'x:y', backoff: 42, advance: 'no' }),
      'hints, and a colon in the text',
    ],
    [
      'AUTH_FAILED,TEMP[backoff -1,advance up,color red]:x',
      failed({ reason: 'temporary', text: 'x' }),
      'hints without sense',
    ],
    [
      'AUTH_FAILED,TEMPERATURE',
      failed({ reason: 'denied', text: 'TEMPERATURE' }),
      'a text that begins alike',
    ],
    [
      'AUTH_FAILED,CRV1:R,E:Om01:Y3Ix:Please enter: token, PIN',
      failed({ reason: 'challenge', challenge }),
      'the example of the management notes, longer',
    ],
    [
      'AUTH_FAILED,CRV1:R:Om01:%:x',
      failed({ reason: 'denied', text: 'CRV1:R:Om01:%:x' }),
      'a user name that is no base64',
    ],
    ['AUTH_FAILED,CRV1:R', failed({ reason: 'denied', text: 'CRV1:R' }), 'cut short'],
    ['AUTH_PENDING', { kind: 'auth-pending' }, 'to old clients'],
    ['AUTH_PENDING,timeout 120', { kind: 'auth-pending', timeout: 120 }, 'with a time'],
    ['AUTH_PENDING,x,timeout 1e3', { kind: 'auth-pending' }, 'a time that is none'],
    ['INFO_PRE,OPEN_URL:x', { kind: 'info', pending: true, text: 'OPEN_URL:x' }, 'before'],
    ['INFO,a,b', { kind: 'info', pending: false, text: 'a,b' }, 'after'],
    ['CR_RESPONSE,aGk=', { kind: 'cr-response', response: 'hi' }, 'an answer'],
    ['CR_RESPONSE,%', { kind: 'unknown', text: 'CR_RESPONSE,%' }, 'not base64'],
    ['CR_RESPONSE', { kind: 'cr-response', response: '' }, 'an empty answer'],
    ['RESTART', { kind: 'restart', order: plain }, 'forget the credentials, stay here'],
    ['RESTART,[N]', { kind: 'restart', order: { ...plain, nextServer: true } }, 'go elsewhere'],
    [
      'HALT,[PN]bye, now',
      { kind: 'halt', order: { keepCredentials: true, nextServer: true, text: 'bye, now' } },
      'flags and a text',
    ],
    ['HALT,x[P]', { kind: 'halt', order: { ...plain, text: 'x[P]' } }, 'brackets later on'],
    ['EXIT', { kind: 'exit' }, 'the other end leaves'],
    ['RELAY,x', { kind: 'unknown', text: 'RELAY,x' }, "another program's"],
    ['', { kind: 'unknown', text: '' }, 'nothing'],
  ]
  for (const [text, message, why] of rows) {
    it(`${text}: ${why}`, () => assert.deepEqual(parseMessage(text), message))
  }

  it('throws at nothing', () => {
    const random = new Random(7)
    const words = [
      'AUTH_FAILED',
      'CRV1:',
      'TEMP',
      'SESSION:',
      '[',
      ']',
      ',',
      ':',
      'INFO_PRE',
      'P',
      '=',
    ]
    words.push(
      'RESTART',
      'HALT',
      'CR_RESPONSE',
      'AUTH_PENDING',
      'timeout ',
      '\0',
      'ü',
      '%',
      'Y3Ix',
      '9'.repeat(30),
    )
    for (let i = 0; i < 20_000; i++) {
      const text = Array.from(
        { length: random.below(8) },
        () => words[random.below(words.length)],
      ).join('')
      parseMessage(text)
      parsePendingMethod(text)
      parsePassword(text)
    }
  })
})

describe('formatting', () => {
  const failures: AuthFailure[] = [
    { reason: 'denied', text: '' },
    { reason: 'denied', text: 'no' },
    { reason: 'session', text: 'too old' },
    { reason: 'temporary', text: 'later' },
    { reason: 'temporary', text: '', backoff: 7, advance: 'remote' },
    { reason: 'challenge', challenge },
    { reason: 'challenge', challenge: { ...challenge, echo: false, needsResponse: false } },
  ]
  for (const failure of failures) {
    it(`${formatAuthFailed(failure, true)} is read as it was meant`, () => {
      assert.deepEqual(parseMessage(formatAuthFailed(failure, true)), failed(failure))
    })
  }

  const rows: [text: string, expected: string, why: string][] = [
    [
      formatAuthFailed({ reason: 'temporary', text: 'later', backoff: 3 }, false),
      'AUTH_FAILED,later',
      'a client that does not know TEMP would show it',
    ],
    [
      formatAuthFailed({ reason: 'denied', text: 'no\r\nPUSH_REPLY' }, true),
      'AUTH_FAILED,no PUSH_REPLY',
      'a client refuses messages with control characters',
    ],
    [formatAuthPending(), 'AUTH_PENDING', 'without a time'],
    [formatAuthPending(120), 'AUTH_PENDING,timeout 120', 'with a time'],
    [formatInfo(true, 'CR_TEXT:E:x'), 'INFO_PRE,CR_TEXT:E:x', 'while pending'],
    [formatInfo(false, 'hello'), 'INFO,hello', 'later'],
    [formatOrder('restart', { ...plain, nextServer: true }), 'RESTART,[N]', 'flags only'],
    [formatOrder('halt', { ...plain, text: 'x' }), 'HALT,x', 'a text only'],
    [formatOrder('halt', plain), 'HALT', 'neither'],
    [
      formatOrder('restart', { keepCredentials: true, nextServer: true, text: 'x' }),
      'RESTART,[PN]x',
      'all',
    ],
    [formatCrResponse('hi'), 'CR_RESPONSE,aGk=', 'an answer'],
  ]
  for (const [text, expected, why] of rows)
    it(`${expected}: ${why}`, () => assert.equal(text, expected))

  const methods: [method: PendingMethod, text: string][] = [
    [
      { method: 'crtext', text: 'Code: 6 digits', echo: true, needsResponse: true },
      'CR_TEXT:E,R:Code: 6 digits',
    ],
    [{ method: 'crtext', text: 'Wait', echo: false, needsResponse: false }, 'CR_TEXT::Wait'],
    [
      { method: 'webauth', url: 'https://example.org/a:b', flags: ['hidden', 'external'] },
      'WEB_AUTH:hidden,external:https://example.org/a:b',
    ],
    [{ method: 'webauth', url: 'https://example.org', flags: [] }, 'WEB_AUTH::https://example.org'],
    [{ method: 'openurl', url: 'https://example.org' }, 'OPEN_URL:https://example.org'],
  ]
  for (const [method, text] of methods) {
    it(text, () => {
      assert.equal(formatPendingMethod(method), text)
      assert.deepEqual(parsePendingMethod(text), method)
    })
  }

  it('other methods are nobody’s', () => {
    for (const text of ['ACC:2048,6:A,x', 'CR_TEXT:E', 'hello', '']) {
      assert.equal(parsePendingMethod(text), undefined, text)
    }
  })
})

describe('the password field', () => {
  const rows: [field: string, meaning: PasswordField, why: string][] = [
    ['secret', { kind: 'plain', password: 'secret' }, 'a password'],
    ['', { kind: 'plain', password: '' }, 'none'],
    [
      'SCRV1:Zm9v:YmFy',
      { kind: 'static', password: 'foo', response: 'bar' },
      'the example of the management notes',
    ],
    [
      'CRV1::Om01::8675309',
      { kind: 'dynamic', state: 'Om01', response: '8675309' },
      'the example of the management notes',
    ],
    [
      'CRV1::Om01::a::b',
      { kind: 'dynamic', state: 'Om01', response: 'a::b' },
      'an answer with colons',
    ],
  ]
  for (const [field, meaning, why] of rows) {
    it(`${field}: ${why}`, () => {
      assert.deepEqual(parsePassword(field), meaning)
      assert.equal(formatPassword(meaning), field)
    })
  }

  for (const field of ['SCRV1:Zm9v', 'SCRV1:%:YmFy', 'CRV1:x', 'SCRV1:a:b:c']) {
    it(`${field} is a strange password`, () => {
      assert.deepEqual(parsePassword(field), { kind: 'plain', password: field })
    })
  }
})
