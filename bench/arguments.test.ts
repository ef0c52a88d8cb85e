import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type BenchOptions, parseArguments } from './arguments.ts'

const KNOWN = ['tcp', 'udp64']
const DEFAULTS: BenchOptions = {
  ...{ subjects: [], contenders: [], rounds: 5, seconds: 5, publish: false, json: undefined },
}

describe('arguments', () => {
  const good: [args: string[], expected: Partial<BenchOptions> | 'help' | 'list', why: string][] = [
    [[], {}, 'everything, at its usual length'],
    [['tcp', 'udp64'], { subjects: ['tcp', 'udp64'] }, 'some subjects'],
    [['--quick'], { rounds: 1, seconds: 1 }, 'short'],
    [['--quick', '--rounds', '3'], { rounds: 3, seconds: 1 }, 'short, but three times'],
    [['--contender', 'a', '--contender', 'b c'], { contenders: ['a', 'b c'] }, 'two contenders'],
    [['--publish', '--json', 'x.json'], { publish: true, json: 'x.json' }, 'written down'],
    [['--help', 'nonsense'], 'help', 'help, whatever else is said'],
    [['--list'], 'list', 'the list'],
  ]
  for (const [args, expected, why] of good) {
    it(`${args.join(' ')}: ${why}`, () => {
      const wanted = typeof expected === 'string' ? expected : { ...DEFAULTS, ...expected }
      assert.deepEqual(parseArguments(args, KNOWN), wanted)
    })
  }

  const bad: [args: string[], error: RegExp, why: string][] = [
    [['tpc'], /"tpc"; expected tcp, udp64/, 'an unknown subject'],
    [['--rounds', '0'], /--rounds 0: expected .* 1 to 50/, 'no round'],
    [['--seconds', '2.5'], /--seconds 2.5: expected a whole number/, 'half a second'],
    [['--seconds', '3600'], /1 to 60/, 'an hour'],
    [['--publish', '--quick'], /not for figures/, 'figures of a short run'],
    [['--fast'], /--fast/, 'an unknown option'],
  ]
  for (const [args, error, why] of bad) {
    it(`${args.join(' ')}: ${why}`, () => assert.throws(() => parseArguments(args, KNOWN), error))
  }
})
