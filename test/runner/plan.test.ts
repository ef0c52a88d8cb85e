/** The plan: what a file can say of itself, and what follows for how and when it is run. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { OTHER_DRIVERS } from '../driver-settings.ts'
import { planJobs, traitsOf } from './plan.ts'

describe('what a file says of itself', () => {
  const traits = (...said: string[]) =>
    traitsOf('test/netns/x.test.ts', said.map((text) => `// npm test: ${text}\n`).join(''))
  const plain = traits()

  it('is by default what its folder has', () => {
    assert.equal(plain.load, 0.4)
    assert.notEqual(traitsOf('src/driver/x.test.ts', '').load, plain.load)
  })

  const imports: [text: string, guest: boolean, why: string][] = [
    ["import { whyNoKernel } from './vm.ts'", true, 'beside it'],
    ["import {\n  runInKernel,\n} from '../../kernel/vm.ts'", true, 'over several lines'],
    ["import { fetchOpenvpn27 } from '../kernel/fetch.ts'", false, 'a download only'],
    ["import { Context } from 'node:vm'", false, 'something else of that name'],
  ]
  for (const [text, guest, why] of imports) {
    it(`${guest ? 'a' : 'no'} virtual machine: ${why}`, () => {
      const { load, early } = traitsOf('test/interop/x.test.ts', `${text}\n`)
      assert.deepEqual([load > plain.load, early], [guest, guest])
    })
  }

  const rows: [said: string, change: Partial<typeof plain>][] = [
    ['early', { early: true }],
    ['other drivers', { otherDrivers: true }],
    ['ordinary user', { ordinaryUser: true }],
    ['load 1.5', { load: 1.5 }],
    ['alone: it measures the machine', { load: Number.POSITIVE_INFINITY }],
    ['700 s, 90 s a test', { limitSeconds: 700, testSeconds: 90 }],
  ]
  for (const [said, change] of rows) {
    it(said, () => assert.deepEqual(traits(said), { ...plain, ...change }))
  }

  const nonsense: [said: string, why: string][] = [
    ['sometimes', 'an unknown word'],
    ['alone', 'no reason'],
    ['load much', 'no number'],
    ['700 s', 'one limit of two'],
  ]
  for (const [said, why] of nonsense) {
    it(`refused: ${said}: ${why}`, () => assert.throws(() => traits(said), /says nothing/))
  }
})

describe('a plan', () => {
  const home = process.cwd()
  let folder: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'ovpn-plan-'))
    process.chdir(folder)
  })
  after(() => {
    process.chdir(home)
    rmSync(folder, { recursive: true })
  })

  it('begins with what takes long, and ends with what wants to be alone', () => {
    const files = {
      'src/platform/fills.test.ts': '',
      'test/netns/alone.test.ts': '// npm test: alone: of its nature',
      'test/netns/waits.test.ts': '',
      'test/kernel/long.test.ts': '// npm test: early',
    }
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, text)
    }
    const order = planJobs(Object.keys(files)).map(({ name }) => /(\w+)\.test/.exec(name)![1])
    assert.deepEqual(order, ['long', 'waits', 'fills', 'alone'])
  })

  const runs: [file: string, text: string, names: string[], why: string][] = [
    ['src/wire/x.test.ts', '', ['(bun)', '(node)'], 'a pure folder'],
    ['src/driver/client.test.ts', '', ['(bun)', '(node)'], 'a pure file of a folder that is not'],
    ['src/driver/x.test.ts', '', ['x.test.ts'], 'others of it'],
    ['test/sim/x.test.ts', '', ['(bun)', '(node)'], 'a simulation'],
    [
      ...(['test/netns/x.test.ts', '// npm test: other drivers'] as const),
      ['x.test.ts', ...OTHER_DRIVERS.map((driver) => `(${driver})`)],
      'every kind of driver',
    ],
    [
      ...(['test/interop/x.test.ts', '// npm test: ordinary user'] as const),
      ['x.test.ts', 'user)'],
      'root, and nobody of note',
    ],
  ]
  for (const [file, text, names, why] of runs) {
    it(`${why}: ${names.join(', ')}`, () => {
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, text)
      const jobs = planJobs([file])
      assert.deepEqual(
        jobs.map(({ name }) => name.split(/[ /]/).at(-1)),
        names,
      )
      assert.deepEqual([...new Set(jobs.map((job) => job.file))], [file])
    })
  }
})
