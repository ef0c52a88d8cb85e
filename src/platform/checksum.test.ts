import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import wabt from 'wabt'
import { CHECKSUM_MODULE, createChecksum } from './checksum.ts'

const PAGE = 65536

/** The definition of RFC 1071, byte by byte. */
function slowSum(bytes: Uint8Array, at: number, length: number, accumulator: number): number {
  let sum = accumulator
  for (let i = 0; i < length; i++) sum += bytes[at + i]! * (i % 2 === 0 ? 1 : 256)
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000)
  return sum
}

function filled(pages: number, fill: (i: number) => number) {
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages })
  const u8 = new Uint8Array(memory.buffer)
  for (let i = 0; i < u8.length; i++) u8[i] = fill(i)
  return { u8, sum: createChecksum(memory) }
}

describe('the checksum module', () => {
  it('is what checksum.wat compiles to', async () => {
    const source = readFileSync(new URL('./checksum.wat', import.meta.url), 'utf8')
    const module = (await wabt()).parseWat('checksum.wat', source, { simd: true })
    module.validate()
    const { buffer } = module.toBinary({})
    assert.equal(Buffer.from(buffer).toString('base64'), CHECKSUM_MODULE)
  })

  it('equals the slow sum at every length and alignment', () => {
    const { u8, sum } = filled(1, (i) => (i * 167 + (i >> 8) * 31) & 0xff)
    for (let at = 0; at < 17; at++) {
      for (let length = 0; length < 131; length++) {
        assert.equal(sum(at, length, 0), slowSum(u8, at, length, 0), `${length} at ${at}`)
      }
    }
  })

  const accumulators: [accumulator: number, why: string][] = [
    [0, 'none'],
    [0xffff, 'a folded sum, negative zero'],
    [0x1fffe, 'two folds of carry'],
    [0xffffffff, 'the largest 32-bit number'],
  ]
  for (const [accumulator, why] of accumulators) {
    it(`adds to an accumulator of ${accumulator}: ${why}`, () => {
      const { u8, sum } = filled(1, (i) => 255 - (i & 0x7f))
      for (const length of [0, 1, 20, 1449]) {
        assert.equal(sum(3, length, accumulator), slowSum(u8, 3, length, accumulator))
      }
    })
  }

  it('sums 64 MiB of ones without overflow, to the last byte', () => {
    const { u8, sum } = filled(1, () => 0)
    assert.equal(sum(PAGE - 1, 1, 0), 0)
    u8[PAGE - 1] = 7
    assert.equal(sum(PAGE - 1, 1, 0), 7)
    const whole = new WebAssembly.Memory({ initial: 1024, maximum: 1024 })
    new Uint8Array(whole.buffer).fill(0xff)
    const sumWhole = createChecksum(whole)
    assert.equal(sumWhole(0, 1024 * PAGE, 0), 0xffff)
    assert.equal(sumWhole(1, 1024 * PAGE - 2, 0xffffffff), 0xffff)
  })
})
