import { type Pointer, toArrayBuffer } from 'bun:ffi'
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { openLibc } from './libc.ts'
import { blockOf, blockOfText, createBlock, createMemory } from './memory.ts'

describe('packet memory', () => {
  it('is the same bytes to JavaScript and to the system', () => {
    const os = openLibc()
    const memory = createMemory({ bytes: 1 })
    assert.equal(memory.u8.length, 65536)
    const fds = memory.area(8, 4)
    assert.equal(os.socketpair(1, 2, 0, memory.base + fds), 0) // AF_UNIX, SOCK_DGRAM
    const [a, b] = [memory.u32[fds / 4]!, memory.u32[fds / 4 + 1]!]
    const from = memory.area(4)
    const to = memory.area(4)
    memory.view.setUint32(from, 0xdecade01)
    assert.equal(os.write(a, memory.base + from, 4), 4)
    assert.equal(os.read(b, memory.base + to, 4), 4)
    assert.equal(memory.view.getUint32(to), 0xdecade01)
    assert.equal(memory.sum(to, 4, 0), memory.sum(from, 4, 0))
    os.close(a)
    os.close(b)
  })

  it('sets areas aside without overlap, aligned, and never at 0', () => {
    const memory = createMemory({ bytes: 65536 })
    const first = memory.area(3, 1)
    assert.notEqual(first, 0)
    assert.equal(memory.area(1, 1), first + 3)
    assert.equal(memory.area(100, 4096) % 4096, 0)
    assert.equal(memory.area(1) % 16, 0)
  })

  it('gives its last byte and refuses one more', () => {
    const memory = createMemory({ bytes: 65536 })
    const first = memory.area(1, 1)
    memory.area(65536 - first - 1, 1)
    assert.throws(() => memory.area(1, 1), RangeError)
  })
})

describe('blocks', () => {
  it('are zeroed and have an address each', () => {
    const a = createBlock(4)
    const b = createBlock(0)
    assert.deepEqual([...a.u8.subarray(0, 4)], [0, 0, 0, 0])
    assert.notEqual(a.base, b.base)
    assert.notEqual(b.base, 0)
  })

  it('are still there in a call that has nothing but their addresses', async () => {
    const lend = (seed: number) => blockOf(new Uint8Array(36).fill(seed)).base
    const change = (seed: number) => {
      for (let i = 0; i < 1000; i++) new Uint8Array(new ArrayBuffer(36)).fill(seed)
    }
    for (let round = 1; round <= 20; round++) {
      const addresses = [lend(round), lend(round + 100)]
      await Bun.sleep(0)
      Bun.gc(true)
      change(255)
      const found = addresses.map(
        (at) => new Set(new Uint8Array(toArrayBuffer(at as Pointer, 0, 36))),
      )
      assert.deepEqual(found, [new Set([round]), new Set([round + 100])])
    }
  })

  it('copy what they are made of', () => {
    const bytes = new Uint8Array([1, 2, 3])
    const block = blockOf(bytes)
    bytes[0] = 9
    assert.deepEqual([...block.u8.subarray(0, 3)], [1, 2, 3])
    assert.deepEqual([...blockOfText('ü').u8.subarray(0, 3)], [0xc3, 0xbc, 0])
  })
})
