/** Any text may be handed to the parsers: it ends in settings, or in a ConfigError that names a place. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { type CheckedKind, checkConfig } from './check.ts'
import { readClientConfig } from './client-config.ts'
import { readClientSettings } from './client-settings.ts'
import { directiveNames } from './directives.ts'
import { ConfigError, type Files } from './parse.ts'
import { readPushed } from './pushed.ts'
import { readServerConfig } from './server-config.ts'

const ROUNDS = 500

const WORDS = [
  '0', '1', '-1', '4294967296', '1e9', '0x10', 'x', '', ' ', '"', "'", '\\', '#', ';', '--', '<ca>', '</ca>',
  '10.8.0.0', '255.255.255.0', '255.0.255.0', '10.8.0.0/24', '::', 'fd00::/64', 'fe80::1%eth0', '::ffff:1.2.3.4/96',
  'udp', 'tcp', 'dev', 'tun', 'tap', 'stdin', '[inline]', 'opt', 'server', 'address', 'unix', 'default', 'def1',
  'AES-256-GCM', 'DEFAULT', '?', ':', 'a:b', '__proto__', 'constructor', 'toString', 'é', '\u2028', '\0', '\x1b', '🙂',
  'route 10.0.0.0', 'infinite', 'migrate', 'via-env', 'file', 'a,b', 'a'.repeat(300),
] // biome-ignore format: a list of words

const files: Files = {
  read(path) {
    if (path.length % 3 === 0) throw new Error('no such file')
    return new TextEncoder().encode(path.length % 2 === 0 ? 'port 1\n' : '\0\xff<ca>')
  },
}

function randomLine(random: Random): string {
  const name = directiveNames[random.below(directiveNames.length)]!
  const words = Array.from({ length: random.below(5) }, () => WORDS[random.below(WORDS.length)]!)
  const quoted = words.map((word) => (random.below(3) === 0 ? `"${word}"` : word))
  const line = [name, ...quoted].join(' ')
  if (random.below(6) === 0) return `<${name}>\n${quoted.join('\n')}\n</${name}>`
  return random.below(9) === 0 ? line.slice(random.below(line.length)) : line
}

function randomText(random: Random): string {
  const lines = Array.from({ length: 1 + random.below(12) }, () => randomLine(random))
  if (random.below(5) === 0) lines.push(`<connection>\n${randomLine(random)}\n</connection>`)
  return lines.join(random.below(2) === 0 ? '\n' : '\r\n')
}

/** Reads, and takes a ConfigError for an answer. */
function attempt(read: () => unknown): boolean {
  try {
    read()
    return true
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    assert(error.problems.length > 0)
    for (const { place, message } of error.problems) {
      assert.notEqual(message, '')
      assert(place.line >= 0)
    }
    return false
  }
}

describe('random configurations', () => {
  const kinds: [name: string, base: string, read: (text: string) => unknown][] = [
    [
      'of servers',
      'server 10.8.0.0 255.255.255.0\n',
      (text) => readServerConfig({ file: 'f', text }, files),
    ],
    ['of clients', 'client\nremote x\n', (text) => readClientConfig({ file: 'f', text }, files)],
    ['of single clients', '', (text) => readClientSettings({ file: 'f', text }, files)],
  ]
  for (const [name, base, read] of kinds) {
    it(`${name} are settings or a ConfigError`, () => {
      const random = new Random(7)
      for (let round = 0; round < ROUNDS; round++) {
        const text = base + randomText(random)
        attempt(() => read(text))
      }
    })
  }

  it('are checked line by line', () => {
    const random = new Random(8)
    const all: CheckedKind[] = ['server', 'client', 'ccd']
    for (let round = 0; round < ROUNDS; round++) {
      const kind = all[round % 3]!
      const { lines, usable } = checkConfig({ file: 'f', text: randomText(random) }, kind, files)
      assert.equal(usable, !lines.some(({ verdict }) => verdict === 'wrong'))
    }
  })

  it('of random bytes too', () => {
    const random = new Random(9)
    for (let round = 0; round < ROUNDS; round++) {
      const text = new TextDecoder('latin1').decode(random.bytes(random.below(400)))
      attempt(() => readClientConfig({ file: 'f', text }, files))
    }
  })

  it('pushed ones never fail', () => {
    const random = new Random(10)
    for (let round = 0; round < ROUNDS; round++) {
      const options = Array.from({ length: random.below(10) }, () => randomLine(random))
      const filters = { routeNopull: round % 2 === 0, pullFilters: [] }
      const { options: read, skipped } = readPushed(options, filters)
      assert(skipped.length >= 0 && read.routes.length >= 0)
    }
  })
})
