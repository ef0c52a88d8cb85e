import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { quoteWord, type Rendered, renderConfig } from './render.ts'
import { readStatements, splitLine } from './syntax.ts'

describe('words of a configuration', () => {
  const rows: [word: string, text: string, why: string][] = [
    ['1194', '1194', 'plain'],
    ['AES-256-GCM:AES-128-GCM', 'AES-256-GCM:AES-128-GCM', 'signs that mean nothing'],
    ['', '""', 'nothing'],
    ['a b', '"a b"', 'a space'],
    ['a"b', '"a\\"b"', 'a quote'],
    ["it's", '"it\'s"', 'the other quote'],
    ['c:\\x', '"c:\\\\x"', 'a backslash'],
    ['#1', '"#1"', 'what would be a comment'],
    [';1', '";1"', 'the same'],
    ['a#1', 'a#1', 'what would be none'],
    ['<ca>', '"<ca>"', 'what would be a block'],
  ]
  for (const [word, text, why] of rows) {
    it(`${JSON.stringify(word)}: ${why}`, () => {
      assert.equal(quoteWord(word), text)
      assert.deepEqual(splitLine(`x ${text}`), ['x', word])
    })
  }

  it('have no line breaks', () => assert.throws(() => quoteWord('a\nb'), /no line break/))
})

describe('a configuration as text', () => {
  it('has lines, blocks and comments', () => {
    const text = renderConfig([
      { comment: 'made for alice\n\nnot for bob' },
      { name: 'remote', args: ['vpn.example', '1194', 'udp'] },
      { name: 'ca', content: 'A\r\nB' },
    ])
    assert.equal(
      text,
      '# made for alice\n\n# not for bob\nremote vpn.example 1194 udp\n<ca>\nA\nB\n</ca>\n',
    )
  })

  it('has no block that ends in its content', () => {
    assert.throws(() => renderConfig([{ name: 'ca', content: 'x\n</ca>\nup /bin/sh' }]), /ends it/)
  })

  it('is read as what it was made of', () => {
    const random = new Random(5)
    const letters = ['a', 'B', '9', ' ', '"', "'", '\\', '#', ';', '<', '>', '/', '-', 'é', '\t']
    const word = () =>
      Array.from({ length: random.below(8) }, () => letters[random.below(letters.length)]).join('')
    for (let round = 0; round < 300; round++) {
      const parts: Rendered[] = Array.from({ length: 1 + random.below(5) }, (_, i) =>
        random.below(3) === 0
          ? { name: `b${i}`, content: `${word()}x\n${word()}y\n` }
          : { name: `n${i}`, args: Array.from({ length: random.below(5) }, word) },
      )
      const { statements, problems } = readStatements(renderConfig(parts), 'x')
      assert.deepEqual(problems, [])
      assert.deepEqual(
        statements.map(({ name, args, block }) =>
          block === undefined ? { name, args } : { name, content: block },
        ),
        parts,
      )
    }
  })
})
