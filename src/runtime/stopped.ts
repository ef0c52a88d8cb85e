/** Openings that wait for somebody, and may be called off meanwhile. */

/** It was called off by who asked for it. */
export class Stopped extends Error {
  override readonly name = 'Stopped'
}

/** What `wait` resolves with. Rejects with Stopped as soon as `signal` is aborted. */
export async function unlessStopped<T>(
  signal: AbortSignal | undefined,
  wait: Promise<T>,
): Promise<T> {
  if (signal === undefined) return wait
  let stop = () => {}
  const stopped = new Promise<never>((_resolve, reject) => {
    stop = () => reject(new Stopped('it was asked to end'))
    signal.addEventListener('abort', stop)
    if (signal.aborted) stop()
  })
  try {
    return await Promise.race([wait, stopped])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
