/**
 * What `npm test` runs: the checks, then every test file under Bun, and those of pure folders under Node too.
 *
 *     npm test                 everything
 *     npm test -- FILTER       test files whose path contains FILTER
 *
 * Each file has a process of its own: one that crashes, hangs or holds no test is a failure with a name. Several run at a
 * time; test/README.md says what that asks of a file, and what a file can say of itself. The last line is
 * "N passed, N failed", and ", N skipped" where there are any; the exit status is 1 unless all that ran passed.
 */
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Job, type JobResult, killJobs, runJob } from './runner/job.ts'
import { installPackages } from './runner/packages.ts'
import { planJobs, testFiles } from './runner/plan.ts'
import { runPool } from './runner/pool.ts'
import { printResult, printSummary } from './runner/report.ts'

process.chdir(fileURLToPath(new URL('..', import.meta.url)))
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    killJobs()
    process.exit(1)
  })
}
process.exitCode = await main(process.argv.slice(2))

async function main(filters: string[]): Promise<number> {
  const started = performance.now()
  const files = testFiles().filter((file) => filters.every((filter) => file.includes(filter)))
  installPackages()
  const done: JobResult[] = []
  const runAll = (jobs: Job[]) =>
    runPool(jobs, availableParallelism(), async (job) => {
      const result = await runJob(job)
      printResult(result)
      done.push(result)
    })
  // Checks look at all there is; a filter asks for something else.
  if (filters.length === 0) await runAll(checks())
  await runAll(planJobs(files))
  return printSummary(done, (performance.now() - started) / 1000)
}

function checks(): Job[] {
  const check = (name: string, program: string, args: string[]): Job => {
    const command = join('node_modules', '.bin', program)
    return { name, command, args, limitSeconds: 180, load: 1 }
  }
  return [check('biome check', 'biome', ['check', '.']), check('tsc', 'tsc', ['--noEmit'])]
}
