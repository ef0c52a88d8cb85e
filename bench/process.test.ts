import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { cpuSeconds, parseBusySeconds, parseCpuSeconds, run, start, until } from './process.ts'

describe('CPU time', () => {
  it('is user and system time, behind any name', () => {
    const stat = '12 (a) b (c)) S 1 2 3 0 -1 4194560 10 0 0 0 250 50 7 9 20 0 5 0 1 2 3'
    assert.equal(parseCpuSeconds(stat), 3)
  })

  it('of the machine leaves out idle, waiting and stolen time', () => {
    const stat = 'cpu  100 10 200 9999 8888 5 15 7777 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n'
    assert.equal(parseBusySeconds(stat), 3.3)
  })

  it('of this process grows with work', () => {
    const before = cpuSeconds(process.pid)
    for (const end = performance.now() + 60; performance.now() < end; );
    assert.ok(cpuSeconds(process.pid) > before)
  })
})

describe('programs', () => {
  it('run to their end', async () => assert.equal(await run(['echo', 'well']), 'well\n'))

  it('tell why they failed', async () => {
    await assert.rejects(run(['sh', '-c', 'echo no such luck >&2; exit 3']), /no such luck \(3\)/)
  })

  it('are killed when they hang', async () => {
    await assert.rejects(run(['sleep', '60'], { limitSeconds: 0.1 }), /not done after 0.1 s/)
  })

  it('stay in the background until stopped', async () => {
    const running = start(['sh', '-c', 'echo up; exec sleep 60'])
    await until('up', () => running.output().includes('up'), [running])
    assert.ok(running.alive())
    await running.stop()
    assert.ok(!running.alive())
  })

  it('that end while waited for say what they said', async () => {
    const running = start(['sh', '-c', 'echo bad key; exit 1'])
    await assert.rejects(
      until('up', () => false, [running]),
      /it has ended\nbad key/,
    )
    await running.stop()
  })
})
