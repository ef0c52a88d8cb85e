import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { EFD_CLOEXEC, EFD_NONBLOCK } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'
import { Watch } from './watch.ts'

describe('watched descriptors', () => {
  const os = openLibc()
  const failures: unknown[] = []
  let watch: Watch
  before(async () => {
    watch = new Watch([], (error) => failures.push(error))
    await watch.started()
  })
  after(() => watch.close())

  it('are told of again after a failure, and so are those that were ready with them', async () => {
    const one = createBlock(8)
    one.u8[0] = 1
    const fds = [0, 1].map(() => os.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))
    for (const fd of fds) os.write(fd, one.base, 8)
    const told = [0, 0]
    const again = new Promise<void>((resolve) => {
      for (const [i, fd] of fds.entries()) {
        const unwatch = watch.add(fd, () => {
          if (++told[i]! < 3) throw new Error(`failure ${told[i]}`)
          unwatch()
          if (told.every((times) => times === 3)) resolve()
        })
      }
    })
    await again
    assert.equal(failures.length, 4)
    for (const fd of fds) os.close(fd)
  })
})
