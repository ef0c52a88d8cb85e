import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { readStatements, splitLine } from './syntax.ts'

describe('the words of a line', () => {
  const lines: [line: string, words: string[] | RegExp, why: string][] = [
    ['port 1194', ['port', '1194'], 'plain'],
    ['  \tport\t 1194  ', ['port', '1194'], 'white space of any kind and amount'],
    ['', [], 'nothing'],
    ['   ', [], 'nothing but space'],
    ['# port 1194', [], 'a comment'],
    ['; port 1194', [], 'the other comment'],
    ['port 1194 # the usual', ['port', '1194'], 'a comment behind words'],
    ['port 1194;x', ['port', '1194;x'], 'a sign of comments within a word'],
    ['push "route 10.0.0.0 255.0.0.0"', ['push', 'route 10.0.0.0 255.0.0.0'], 'double quotes'],
    [
      "push 'dhcp-option \\DNS'",
      ['push', 'dhcp-option \\DNS'],
      'single quotes: nothing is escaped',
    ],
    ['a "b # c"', ['a', 'b # c'], 'a comment sign in quotes'],
    ['a ""', ['a', ''], 'an empty word'],
    ['a "b"c', ['a', 'b', 'c'], 'a word ends with its quotes'],
    ['a b"c"', ['a', 'b"c"'], 'quotes within a word are letters'],
    ['cd c:\\\\ovpn', ['cd', 'c:\\ovpn'], 'an escaped backslash'],
    ['a b\\ c', ['a', 'b c'], 'an escaped space'],
    ['a "b \\" c"', ['a', 'b " c'], 'an escaped quote'],
    ['a \\"b', ['a', '"b'], 'an escaped quote begins no quotes'],
    ['cd c:\\ovpn', /backslash/, 'a backslash before a letter'],
    ['a \\', /backslash/, 'a backslash before nothing'],
    ['a "b', /quotes/, 'quotes without end'],
    ["a 'b", /quotes/, 'single quotes without end'],
    ['a \0b', /unprintable/, 'NUL'],
    ['a \x1b[2J', /unprintable/, 'a control sequence'],
    [Array(16).fill('a').join(' '), Array(16).fill('a'), 'as many words as there may be'],
    [Array(17).fill('a').join(' '), /16 words/, 'one more'],
    ['title Müller "日本"', ['title', 'Müller', '日本'], 'letters of all kinds'],
  ]
  for (const [line, words, why] of lines) {
    it(`${JSON.stringify(line.slice(0, 40))}: ${why}`, () => {
      const found = splitLine(line)
      if (words instanceof RegExp) assert.match(found as string, words)
      else assert.deepEqual(found, words)
    })
  }
})

describe('statements', () => {
  const read = (text: string) => readStatements(text, 'x.conf')
  const names = (text: string) => read(text).statements.map(({ name }) => name)

  it('have the lines they stand in', () => {
    const { statements } = read('# first\n\nport 1\n<ca>\nX\n</ca>\nverb 3')
    assert.deepEqual(
      statements.map(({ name, place }) => [name, place.line]),
      [
        ['port', 3],
        ['ca', 4],
        ['verb', 7],
      ],
    )
  })

  it('may have two dashes before their name', () => {
    assert.deepEqual(names('--port 1\n-- x\n---x'), ['port', '--', '-x'])
  })

  it('may end in CR LF, and begin with a byte order mark', () => {
    const { statements, problems } = read('\uFEFFclient\r\n<ca>\r\nA\r\nB\r\n</ca>\r\nverb 3\r\n')
    assert.deepEqual(problems, [])
    assert.deepEqual(
      statements.map(({ name, args, block }) => [name, args, block]),
      [
        ['client', [], undefined],
        ['ca', [], 'A\nB\n'],
        ['verb', ['3'], undefined],
      ],
    )
  })

  it('keep what is in a block as it is', () => {
    const [block] = read('<ca>\n# no comment "\n  -x\\\n\n</ca>').statements
    assert.equal(block?.block, '# no comment "\n  -x\\\n\n')
  })

  const blocks: [text: string, problem: RegExp | undefined, why: string][] = [
    ['<ca>\nX\n  </ca>', undefined, 'an end that is indented'],
    ['  <ca>\nX\n</ca>', undefined, 'a beginning that is indented'],
    ['<ca>\nX\n</ca> # end', undefined, 'a comment behind the end'],
    ['<ca>\nX', /<ca> has no end/, 'no end'],
    ['<ca>\nX\n</cert>', /<ca> has no end/, 'the end of another'],
    ['</ca>', /did not begin/, 'an end alone'],
  ]
  for (const [text, problem, why] of blocks) {
    it(`${JSON.stringify(text)}: ${why}`, () => {
      const { problems } = read(text)
      if (problem === undefined) assert.deepEqual(problems, [])
      else assert.match(problems[0]?.message ?? '', problem)
    })
  }

  it('go on behind a line that is wrong', () => {
    const { statements, problems } = read('port "\nverb 3')
    assert.equal(problems.length, 1)
    assert.equal(problems[0]?.place.line, 1)
    assert.deepEqual(
      statements.map(({ name }) => name),
      ['verb'],
    )
  })

  it('are not looked for in what is too large', () => {
    const { problems } = read('#'.repeat(5 * 1024 * 1024))
    assert.match(problems[0]?.message ?? '', /4 MiB/)
    assert.match(read('a'.repeat(20_000)).problems[0]?.message ?? '', /16384 characters/)
  })
})
