/**
 * The user-space driver, of every kind that tests know, and the kernel's, on the same scenarios: every reply, errno,
 * notification, counter and packet compared, step by step. What differs on purpose stands in deliberate.ts, and with the same reasons in docs/API.md.
 */
// Its machine waits half of the time, as keepalives do.
// npm test: load 0.7
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { DRIVERS } from '../../driver-settings.ts'
import { whyNoKernel } from '../../kernel/vm.ts'
import { type Comparison, compare, type Deliberate, differences } from './compare.ts'
import { deliberate } from './deliberate.ts'
import { playInKernel } from './guest.ts'
import type { Step, Transcript } from './transcript.ts'

const SUITE = 'test/compliance/driver/suite.ts'
const ROOT = new URL('../../../', import.meta.url)

const skip = (process.getuid?.() === 0 ? undefined : 'needs root') ?? (await whyNoKernel()) ?? false

/** Scenarios, as the subtests group them. */
const scenarioOf = (name: string) => name.slice(0, name.indexOf(':'))

const comparisons: Map<string, Comparison> = skip ? new Map() : await play()

/** The transcripts, compared before there are tests: each of their steps is one. */
async function play() {
  const recorded = onKernel()
  const transcripts = new Map<string, Transcript>()
  for (const driver of DRIVERS) transcripts.set(driver, await onUser(driver))
  const kernel = await recorded
  const found = new Map<string, Comparison>()
  for (const [driver, user] of transcripts)
    found.set(driver, await compareTwice(driver, kernel, user))
  return found
}

/** On a busy machine a packet may come after the wait for it: only what differs twice differs. */
async function compareTwice(driver: string, kernel: Transcript, user: Transcript) {
  const first = compare(kernel, user, deliberate)
  const differing = first.steps.filter((step) => step.differences.length > 0)
  let { steps } = user
  for (const scenario of new Set(differing.map(({ name }) => scenarioOf(name)))) {
    console.log(`${driver}: ${scenario} differs, once more`)
    const isOfIt = ({ name }: Step) => scenarioOf(name) === scenario
    const again = (await onUser(driver, scenario)).steps.filter(isOfIt)
    steps = [...steps.filter((step) => !isOfIt(step)), ...again]
  }
  return compare(kernel, { ...user, steps }, deliberate)
}

async function onKernel(): Promise<Transcript> {
  const options = { timeoutMs: 400_000, modules: ['chacha'] }
  const [transcript] = await playInKernel(SUITE, ['kernel'], options)
  return transcript as Transcript
}

async function onUser(driver: string, scenario = ''): Promise<Transcript> {
  const env = { ...process.env, OVPN_TEST_DRIVER: driver }
  const options = { cwd: ROOT, env, maxBuffer: 64 << 20, timeout: 200_000 }
  const { stdout } = await promisify(execFile)(process.execPath, [SUITE, 'user', scenario], options)
  return JSON.parse(stdout) as Transcript
}

for (const driver of DRIVERS) {
  describe(`the user-space driver (${driver}) and the kernel agree`, () => {
    const { steps, unused } = comparisons.get(driver) ?? { steps: [], unused: [] }
    it('on more than nothing', { skip }, () => assert.notEqual(steps.length, 0))

    for (const scenario of new Set(steps.map(({ name }) => scenarioOf(name)))) {
      describe(scenario, () => {
        for (const { name, differences } of steps) {
          if (scenarioOf(name) !== scenario) continue
          it(name.slice(scenario.length + 2), () => assert.deepEqual(differences, []))
        }
      })
    }

    for (const entry of deliberate) {
      it(`but for ${entry.step} ${entry.place}: ${entry.reason}`, { skip }, () => {
        assert.ok(!unused.includes(entry), 'they agree here now')
      })
    }
  })
}

describe('docs/API.md', () => {
  let text: string
  before(() => {
    const [, section] = readFileSync(new URL('docs/API.md', ROOT), 'utf8').split(
      '## What differs from the kernel',
    )
    text = section!.replaceAll(/\s+/g, ' ')
  })
  for (const reason of new Set(deliberate.map((one) => one.reason))) {
    it(`says: ${reason}`, () => assert.ok(text.includes(reason)))
  }
})

describe('a comparison finds', () => {
  const rows: [why: string, kernel: unknown, user: unknown, places: string[]][] = [
    ['nothing in equal steps', { a: [1, { b: 2 }] }, { a: [1, { b: 2 }] }, []],
    ['another value', { a: [1, { b: 2 }] }, { a: [1, { b: 3 }] }, ['a.1.b']],
    ['what is missing', { a: [1, 2] }, { a: [1] }, ['a.1']],
    ['what is too much', {}, { a: 1 }, ['a']],
    ['an object in place of a list', { a: [1] }, { a: { 0: 1 } }, ['a']],
    ['no difference in wording', { a: { text: 'x' } }, { a: { text: 'y' } }, []],
    ['a wording that is missing', { a: { text: 'x' } }, { a: {} }, ['a.text']],
    ['another kind of value', { a: 1 }, { a: '1' }, ['a']],
  ]
  const step = (seen: unknown): Step => ({ name: 's: a', seen })
  const transcript = (...steps: Step[]): Transcript => ({ driver: 'user', kernel: '', steps })
  for (const [why, kernel, user, places] of rows) {
    it(why, () => {
      const found = differences(step(kernel), step(user))
      assert.deepEqual(
        found.map(({ place }) => place),
        places,
      )
    })
  }

  const entry: Deliberate = {
    step: /^s:/,
    place: /^a$/,
    when: (kernel) => kernel === 1,
    reason: '',
  }
  const comparisons: [why: string, kernel: unknown, left: number, unused: number][] = [
    ['no more than is not meant', { a: 1 }, 0, 0],
    ['what is meant of other values', { a: 3 }, 1, 1],
    ['that what is meant is not so', { a: 2 }, 0, 1],
  ]
  for (const [why, kernel, left, unused] of comparisons) {
    it(why, () => {
      const found = compare(transcript(step(kernel)), transcript(step({ a: 2 })), [entry])
      assert.equal(found.steps[0]!.differences.length, left)
      assert.equal(found.unused.length, unused)
    })
  }

  it('steps that only one of them has', () => {
    const other: Step = { name: 's: b', seen: {} }
    const found = compare(transcript(step({})), transcript(other), [])
    assert.deepEqual(
      found.steps.map(({ name, differences }) => [name, differences.length]),
      [
        ['s: a', 1],
        ['s: b', 1],
      ],
    )
  })
})
