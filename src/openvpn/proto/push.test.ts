import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { loadVectors } from '../../../test/vectors/load.ts'
import { parseMessage } from './messages.ts'
import {
  applyUpdate,
  encodePush,
  formatOption,
  MAX_PUSHED_OPTIONS,
  PUSH_MESSAGE_BYTES,
  PushCollector,
  parseOption,
  parseUpdateEntry,
  splitOptions,
  type UpdateEntry,
} from './push.ts'

describe('one option', () => {
  const rows: [words: string[], text: string, why: string][] = [
    [['route', '10.1.0.0', '255.255.0.0'], 'route 10.1.0.0 255.255.0.0', 'nothing to quote'],
    [['setenv-safe', 'NAME', 'a b'], 'setenv-safe NAME "a b"', 'a blank'],
    [['echo', ''], 'echo ""', 'nothing at all is a word, too'],
    [['echo', 'say "hi"'], 'echo "say \\"hi\\""', 'quotes'],
    [['echo', 'a\\b'], 'echo "a\\\\b"', 'a backslash'],
    [['echo', '#1', ';2'], 'echo "#1" ";2"', 'what would begin a comment'],
    [['echo', "it's"], 'echo "it\'s"', 'an apostrophe'],
  ]
  for (const [words, text, why] of rows) {
    it(`${text}: ${why}`, () => {
      assert.equal(formatOption(words), text)
      assert.deepEqual(parseOption(text), words)
    })
  }

  for (const word of ['a,b', 'a\nb', 'a\0b', 'a\x7f']) {
    it(`${JSON.stringify(word)} cannot be pushed`, () => {
      assert.throws(() => formatOption(['echo', word]), RangeError)
    })
  }

  const odd: [text: string, words: string[] | undefined, why: string][] = [
    ["echo 'a \\b'", ['echo', 'a \\b'], 'no escapes between apostrophes'],
    ['echo a\\ b', ['echo', 'a b'], 'an escaped blank'],
    ['echo a"b c"d', ['echo', 'ab cd'], 'quotes within a word'],
    ['  ping   10  # every ten', ['ping', '10'], 'blanks and a comment'],
    ['echo "a', undefined, 'a quote without an end'],
    ['echo a\\', undefined, 'a backslash without an end'],
    ['', [], 'nothing'],
  ]
  for (const [text, words, why] of odd) {
    it(`${text}: ${why}`, () => assert.deepEqual(parseOption(text), words))
  }
})

/** What a client makes of messages. */
function joined(messages: string[]): string[] | string {
  const collector = new PushCollector()
  let result: string[] | string = 'nothing'
  for (const text of messages) {
    const message = parseMessage(text)
    assert.ok(message.kind === 'push-reply' || message.kind === 'push-update')
    result = collector.add(message.body)
  }
  return result
}

describe('replies', () => {
  it('one message', () => {
    const options = ['ping 10', 'peer-id 0']
    assert.deepEqual(encodePush('PUSH_REPLY', options), ['PUSH_REPLY,ping 10,peer-id 0'])
  })

  it('no options', () => {
    assert.deepEqual(encodePush('PUSH_REPLY', []), ['PUSH_REPLY'])
    assert.deepEqual(joined(['PUSH_REPLY']), [])
  })

  it('a comma would be two options', () => {
    assert.throws(() => encodePush('PUSH_REPLY', ['echo a,b']), /comma/)
  })

  it('says which message is the last', () => {
    const options = Array.from(
      { length: 40 },
      (_, i) => `route 10.${i}.0.0 255.255.0.0 vpn_gateway`,
    )
    const messages = encodePush('PUSH_REPLY', options)
    assert.equal(messages.length, 2)
    assert.ok(messages[0]!.endsWith(',push-continuation 2'))
    assert.ok(messages[1]!.endsWith(',push-continuation 1'))
    assert.equal(joined(messages.slice(0, 1)), 'more')
    assert.deepEqual(joined(messages), options)
  })

  it('any list is joined again from messages that are short enough', () => {
    const random = new Random(3)
    for (let i = 0; i < 500; i++) {
      const options = Array.from({ length: random.below(200) }, () =>
        formatOption(['echo', 'x'.repeat(1 + random.below(200)), 'ü y']),
      )
      const messages = encodePush('PUSH_REPLY', options)
      for (const text of messages) assert.ok(Buffer.byteLength(text) <= PUSH_MESSAGE_BYTES)
      assert.deepEqual(joined(messages), options)
    }
  })

  it('an option that is too long for a message is sent nevertheless', () => {
    const options = ['a', 'x'.repeat(2000), 'b']
    assert.deepEqual(joined(encodePush('PUSH_REPLY', options)), options)
  })

  it('blanks around options do not count', () => {
    assert.deepEqual(splitOptions('a b, c d , ,e'), ['a b', 'c d', 'e'])
  })

  it('begins anew after the last, and after too much', () => {
    const collector = new PushCollector()
    assert.equal(collector.add('a,push-continuation 2'), 'more')
    assert.deepEqual(collector.add('b,push-continuation 1'), ['a', 'b'])
    assert.deepEqual(collector.add('c'), ['c'])
    assert.equal(
      collector.add(`${'x,'.repeat(MAX_PUSHED_OPTIONS + 1)}push-continuation 2`),
      'too much',
    )
    assert.deepEqual(collector.add('d'), ['d'])
  })

  it('a server that never ends is too much', () => {
    const collector = new PushCollector()
    let result = collector.add('push-continuation 2')
    for (let i = 0; result === 'more' && i < 100_000; i++) {
      result = collector.add(`${'x'.repeat(800)},push-continuation 2`)
    }
    assert.equal(result, 'too much')
  })

  for (const { name, push_reply_text } of loadVectors('live-sessions').sessions) {
    if (push_reply_text === undefined) continue
    it(`reads what a stock server sent: ${name}`, () => {
      const options = joined([push_reply_text])
      assert.ok(Array.isArray(options) && options.length > 3)
      assert.deepEqual(encodePush('PUSH_REPLY', options), [push_reply_text])
      for (const option of options) assert.equal(formatOption(parseOption(option)!), option)
    })
  }
})

describe('entries of an update', () => {
  const rows: [text: string, entry: UpdateEntry | undefined, why: string][] = [
    ['route 10.1.0.0', { action: 'set', option: 'route 10.1.0.0', optional: false }, 'set'],
    ['-route', { action: 'remove', option: 'route', optional: false }, 'remove'],
    ['?dns server 1', { action: 'set', option: 'dns server 1', optional: true }, 'set if you can'],
    ['-?dns', { action: 'remove', option: 'dns', optional: true }, 'remove if you can'],
    ['?-dns', undefined, 'the signs in the other order'],
    ['--dns', undefined, 'a sign twice'],
    ['-route 10.1.0.0', undefined, 'all values are removed, not one'],
    ['-', undefined, 'nothing to remove'],
    ['', undefined, 'nothing'],
  ]
  for (const [text, entry, why] of rows) {
    it(`${text}: ${why}`, () => {
      assert.deepEqual(parseUpdateEntry(text), entry)
    })
  }
})

describe('updates', () => {
  const before = ['route a', 'route b', 'dhcp-option DNS 1', 'ping 10', 'redirect-gateway def1']
  type Row = [entries: string, after: string[] | string, why: string]
  const rows: Row[] = [
    ['', before, 'nothing'],
    [
      'route c,route d',
      ['dhcp-option DNS 1', 'ping 10', 'redirect-gateway def1', 'route c', 'route d'],
      'the first removes those before, the second adds',
    ],
    ['-route', ['dhcp-option DNS 1', 'ping 10', 'redirect-gateway def1'], 'all are removed'],
    [
      'route c,-route',
      ['dhcp-option DNS 1', 'ping 10', 'redirect-gateway def1'],
      'the new ones, too',
    ],
    [
      '-route, route c',
      ['dhcp-option DNS 1', 'ping 10', 'redirect-gateway def1', 'route c'],
      'removed and set, with a blank',
    ],
    ['redirect-private', [...before.slice(0, 4), 'redirect-private'], 'one instead of the other'],
    ['tun-mtu 1400', [...before, 'tun-mtu 1400'], 'a new one'],
    ['cipher AES-128-GCM', 'cipher AES-128-GCM', 'it cannot be updated'],
    ['-ping', '-ping', 'nor can this'],
    ['?cipher x,-?ping', before, 'they need not be followed'],
    ['route c,?-dns', '?-dns', 'an entry that is none'],
  ]
  for (const [entries, after, why] of rows) {
    it(`${entries}: ${why}`, () => {
      const result = applyUpdate(before, splitOptions(entries))
      assert.deepEqual('offending' in result ? result.offending : result.options, after)
    })
  }

  it('tells what to apply, and what was skipped', () => {
    const result = applyUpdate(before, ['-route', 'dns server 1 address 1.1.1.1', '?verb 3'])
    assert.ok(!('offending' in result))
    assert.deepEqual([...result.changed], ['route', 'dns'])
    assert.deepEqual(result.skipped, ['?verb 3'])
  })

  it('are split and joined as replies are', () => {
    const entries = Array.from({ length: 60 }, (_, i) => `?route 10.${i}.0.0 255.255.0.0`)
    const messages = encodePush('PUSH_UPDATE', entries)
    assert.ok(messages.length > 1)
    assert.deepEqual(joined(messages), entries)
  })
})
