/** The runner on files that go wrong: whatever a process does, a failure has a name and a skip a reason. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { withoutNamespaces } from '../namespace.ts'
import { USER, withoutOrdinaryUser } from '../ordinary-user.ts'
import { type JobResult, runJob } from './job.ts'

const head = "import { after, before, describe, it } from 'node:test'\n"
const good = "it('fine', () => {})\n"

interface Row {
  why: string
  source: string
  /** Failed tests: how their names begin. */
  failed: string[]
  passed: number
  /** How long it may take; long enough for a busy machine unless told. */
  limitSeconds?: number
  /** Skipped tests with their reasons. */
  skipped?: [name: string, reason: string | undefined][]
}

const rows: Row[] = [
  { why: 'all is well', source: head + good, failed: [], passed: 1 },
  {
    why: 'names are those of the describes and the test',
    source: `${head}describe('a "b" <c>', () => { it('d & e', () => { throw new Error('no') }) })`,
    failed: ['a '],
    passed: 0,
  },
  { why: 'no test at all', source: 'export {}', failed: ['(the file)'], passed: 0 },
  { why: 'it does not load', source: "throw new Error('boom')", failed: ['(the file)'], passed: 0 },
  {
    why: 'it ends itself amid its tests, with status 0',
    source: `${head}${good}it('ends', () => process.exit(0))\n${good}`,
    failed: ['(the file)'],
    passed: 0,
  },
  {
    why: 'it is killed',
    source: `${head}${good}it('dies', () => { process.kill(process.pid, 'SIGKILL') })`,
    failed: ['(the file): SIGKILL'],
    passed: 0,
  },
  {
    why: 'it hangs',
    source: `${head}${good}it('hangs', () => { for (;;) ; })`,
    failed: ['(the file): killed after 3 s'],
    passed: 0,
    limitSeconds: 3,
  },
  {
    why: 'a hook throws, in no test',
    source: `${head}describe('late', () => { after(() => { throw new Error('no') })\n${good}})`,
    failed: ['(outside of its tests): exit code 1'],
    passed: 1,
  },
  {
    why: 'skips of every kind have their reason',
    source: `${head}${good}
      it('one', { skip: 'a & b' }, () => {})
      it('two', { skip: false }, () => {})
      describe('three', { skip: 'all of it' }, () => { it('inner', () => {}) })
      it('four', (t) => { t.skip('as it ran') })`,
    failed: [],
    passed: 2,
    skipped: [
      ['four', 'as it ran'],
      ['one', 'a & b'],
      ['three', 'all of it'],
    ],
  },
  {
    why: 'all of it is skipped',
    source: `${head}describe('all', { skip: 'a reason' }, () => { it('inner', () => {}) })`,
    failed: [],
    passed: 0,
    skipped: [['all', 'a reason']],
  },
]

for (const runtime of ['bun', 'node'] as const) {
  describe(`a test file under ${runtime}`, () => {
    let folder: string
    before(() => {
      folder = mkdtempSync(join(tmpdir(), 'ovpn-job-'))
      writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
    })
    after(() => rmSync(folder, { recursive: true, force: true }))

    const run = ({
      source,
      limitSeconds = 30,
    }: Pick<Row, 'source' | 'limitSeconds'>): Promise<JobResult> => {
      const file = join(folder, 'one.test.ts')
      writeFileSync(file, source)
      const command = runtime === 'bun' ? process.execPath : 'node'
      return runJob({ name: file, command, args: [file], limitSeconds, load: 1, file, runtime })
    }

    // What becomes of the tests behind the hook differs; that it is no success does not.
    it('a hook before its tests throws', async () => {
      const source = `${head}describe('early', () => { before(() => { throw new Error('no') })\n${good}})`
      const { results } = await run({ source })
      assert.ok(results.some(({ outcome }) => outcome === 'failed'))
    })

    for (const row of rows) {
      const { why, failed, passed, skipped = [] } = row
      it(why, async () => {
        const { results, output } = await run(row)
        const names = results.filter(({ outcome }) => outcome === 'failed').map(({ name }) => name)
        assert.equal(names.length, failed.length, `${names.join('; ')}\n${output}`)
        failed.forEach((begin, i) => {
          assert.ok(names[i]!.startsWith(begin), names[i])
        })
        assert.equal(results.filter(({ outcome }) => outcome === 'passed').length, passed)
        const found = results.filter(({ outcome }) => outcome === 'skipped')
        assert.deepEqual(found.map(({ name, reason }) => [name, reason]).sort(), skipped)
      })
    }
  })
}

describe('what a file leaves behind', () => {
  it('a namespace, when it is killed: removed', { skip: withoutNamespaces }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ovpn-job-'))
    try {
      const file = join(folder, 'one.test.ts')
      const helper = fileURLToPath(new URL('../namespace.ts', import.meta.url))
      const source = `import { it } from 'node:test'
        import { openTestNetns } from '${helper}'
        it('dies', () => { console.log(openTestNetns('job').name); process.kill(process.pid, 'SIGKILL') })`
      writeFileSync(file, source)
      const command = process.execPath
      const job = { name: file, file, command, args: [file], limitSeconds: 30, load: 1 }
      const { output } = await runJob({ ...job, runtime: 'bun' })
      const name = /ovjob\d+-0/.exec(output)![0]
      assert.ok(!existsSync(`/run/netns/${name}`))
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('a file that an ordinary user runs', { skip: withoutNamespaces }, () => {
  it('is that of nobody who matters outside, and is told of as others are', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'ovpn-job-'))
    try {
      const why = await withoutOrdinaryUser(folder)
      if (why !== false) return t.skip(why)
      const file = join(folder, 'one.test.ts')
      const source = `${head}import { readFileSync } from 'node:fs'
        it('who', () => { console.log('map', readFileSync('/proc/self/uid_map', 'utf8')) })
        it('skipped', { skip: 'a reason' }, () => {})
        it('fails', () => { throw new Error('no') })`
      writeFileSync(file, source)
      const job = { name: file, file, command: process.execPath, args: [file], load: 1 }
      const how = { limitSeconds: 60, runtime: 'bun', ordinaryUser: true } as const
      const { output, results } = await runJob({ ...job, ...how })
      assert.match(output, new RegExp(`map +0 +${USER} +1\n`))
      assert.deepEqual(
        results.map(({ outcome, reason }) => [outcome, reason]),
        [
          ['passed', undefined],
          ['skipped', 'a reason'],
          ['failed', undefined],
        ],
      )
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('a check', () => {
  it('is one test, by its exit status', async () => {
    const job = { name: 'check', limitSeconds: 30, load: 1 }
    const well = await runJob({ ...job, command: 'true', args: [] })
    assert.deepEqual(well.results, [{ name: 'check', outcome: 'passed', reason: undefined }])
    const ill = await runJob({ ...job, command: 'false', args: [] })
    assert.equal(ill.results[0]!.outcome, 'failed')
    const missing = await runJob({ ...job, command: 'no-such-command', args: [] })
    assert.equal(missing.results[0]!.outcome, 'failed')
  })
})
