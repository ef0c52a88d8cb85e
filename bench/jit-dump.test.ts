import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseJitDump, renderPerfMap } from './jit-dump.ts'

function header(): Uint8Array {
  const bytes = new Uint8Array(40)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, 0x4a695444, true)
  view.setUint32(4, 1, true)
  view.setUint32(8, 40, true)
  return bytes
}

function load(address: bigint, size: number, name: string): Uint8Array {
  const text = new TextEncoder().encode(name)
  const bytes = new Uint8Array(16 + 40 + text.length + 1 + size)
  const view = new DataView(bytes.buffer)
  view.setUint32(4, bytes.length, true)
  view.setBigUint64(16 + 16, address, true)
  view.setBigUint64(16 + 24, BigInt(size), true)
  bytes.set(text, 16 + 40)
  return bytes
}

function other(): Uint8Array {
  const bytes = new Uint8Array(24)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, 3, true)
  view.setUint32(4, bytes.length, true)
  return bytes
}

const dump = Buffer.concat([
  ...[header(), load(0x1000n, 32, 'old'), other(), load(0x2000n, 16, 'seal  fast')],
  load(0x1000n, 64, 'new'),
])

describe('a JIT dump', () => {
  it('has the code that was made last at each address', () => {
    assert.deepEqual(parseJitDump(dump), [
      { address: 0x1000n, bytes: 64n, name: 'new' },
      { address: 0x2000n, bytes: 16n, name: 'seal  fast' },
    ])
  })

  it('becomes a map with one line each', () => {
    assert.equal(renderPerfMap(parseJitDump(dump)), '1000 40 new\n2000 10 seal fast\n')
  })

  it('may end anywhere: the process still writes to it', () => {
    for (let length = 40; length < dump.length; length++) {
      assert.ok(parseJitDump(dump.subarray(0, length)).length <= 2)
    }
  })

  it('is refused when it is something else', () => {
    assert.throws(() => parseJitDump(new Uint8Array(64)), /not a JIT dump/)
    assert.throws(() => parseJitDump(dump.subarray(0, 8)), /not a JIT dump/)
  })
})
