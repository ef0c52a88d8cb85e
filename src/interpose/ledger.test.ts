import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { describe, it } from 'node:test'
import { architecture, createMemoryFile, type TrappedCall } from '../platform/seccomp.ts'
import { Ledger, readLedger } from './ledger.ts'

const skip = architecture === undefined ? `no system call numbers for ${process.arch}` : false

describe('the ledger of open calls', { skip }, () => {
  const call = (id: bigint): TrappedCall => {
    const ints = [Number(id & 0xffn), 0, 0, 0, 0, 0]
    return { id, tid: 7, nr: 45, args: ints, ints }
  }
  const idsIn = (fd: number) => readLedger(fd).map(({ id }) => id)

  it('has what was received and not answered, and uses places again', () => {
    const fd = createMemoryFile('test')
    const ledger = new Ledger(fd)
    assert.deepEqual(readLedger(fd), [])
    for (const id of [2n ** 63n + 1n, 2n, 3n]) ledger.received(call(id))
    assert.deepEqual(readLedger(fd)[0], { id: 2n ** 63n + 1n, tid: 7, nr: 45, fd: 1 })
    ledger.done(call(2n))
    ledger.done(call(2n)) // nobody waits: told twice
    ledger.done(call(9n)) // never received
    assert.deepEqual(idsIn(fd), [2n ** 63n + 1n, 3n])
    ledger.received(call(4n))
    ledger.received(call(5n))
    assert.deepEqual(idsIn(fd), [2n ** 63n + 1n, 4n, 3n, 5n])
    for (const id of [2n ** 63n + 1n, 3n, 4n, 5n]) ledger.done(call(id))
    assert.deepEqual(idsIn(fd), [])
    closeSync(fd)
  })

  it('is no hindrance where it cannot be written', () => {
    const fd = createMemoryFile('test')
    closeSync(fd)
    const ledger = new Ledger(fd)
    ledger.received(call(1n))
    ledger.done(call(1n))
  })
})
