/** Runs several jobs at a time, as many as the machine's processors bear. */
import type { Job } from './job.ts'

/**
 * Gives each of `jobs` to `run`. The sum of the loads of what runs at once stays within `processors`; a job that has a larger
 * load itself runs alone. Of those that wait, the first that fits begins. Resolves when all have ended, and rejects as
 * soon as `run` does.
 */
export function runPool<J extends Pick<Job, 'load'>>(
  jobs: readonly J[],
  processors: number,
  run: (job: J) => Promise<void>,
): Promise<void> {
  const waiting = [...jobs]
  let used = 0
  let running = 0
  return new Promise((resolve, reject) => {
    const begin = () => {
      if (waiting.length === 0 && running === 0) resolve()
      for (;;) {
        const next = waiting.findIndex(({ load }) => running === 0 || used + load <= processors)
        if (next === -1) return
        const [job] = waiting.splice(next, 1)
        used += job!.load
        running++
        run(job!).then(() => {
          running--
          // Loads are no whole numbers, and one may be infinite: what is left over at the end must not add up.
          used = running === 0 ? 0 : used - job!.load
          begin()
        }, reject)
      }
    }
    begin()
  })
}
