import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { AddressMap } from './address-map.ts'

type Key = [a: number, b: number, c: number, d: number]

describe('AddressMap against Map', () => {
  for (let seed = 1; seed <= 20; seed++) {
    it(`seed ${seed}`, () => {
      const random = new Random(seed)
      const fast = new AddressMap<number>(random.below(2 ** 32))
      const slow = new Map<string, number>()
      // Keys that differ in one word only, and few enough to meet often.
      const words = 2 + random.below(10)
      const key = (): Key => {
        const word = () => (random.below(words) << (8 * random.below(4))) | 0
        return [word(), word(), random.below(2) === 0 ? 0xffff : word(), word()]
      }
      let deleted = 0
      for (let i = 0; i < 3000; i++) {
        const what = random.below(100)
        const known = [...slow.keys()]
        const k =
          random.below(2) === 0 && known.length > 0
            ? (known[random.below(known.length)]!.split(',').map(Number) as Key)
            : key()
        if (what < 50) {
          fast.set(...k, i)
          slow.set(k.join(), i)
        } else if (what < 90) {
          const was = slow.delete(k.join())
          assert.equal(fast.delete(...k), was, `step ${i}`)
          if (was) deleted++
        } else if (i % 1000 === 999) {
          fast.clear()
          slow.clear()
        }
        assert.equal(fast.get(...k), slow.get(k.join()), `step ${i}`)
        assert.equal(fast.size, slow.size, `step ${i}`)
      }
      assert.ok(deleted > 300, `${deleted} deleted: the run tells nothing`)
      for (const [k, value] of slow) {
        assert.equal(fast.get(...(k.split(',').map(Number) as Key)), value)
      }
    })
  }
})

describe('AddressMap', () => {
  it('finds 20,000 consecutive addresses, and those left after every third is gone', () => {
    const map = new AddressMap<number>(0x12345678)
    for (let i = 0; i < 20000; i++) map.set(0, 0, 0xffff, 0x0a080000 + i, i)
    for (let i = 0; i < 20000; i += 3) assert.ok(map.delete(0, 0, 0xffff, 0x0a080000 + i))
    for (let i = 0; i < 20000; i++) {
      assert.equal(map.get(0, 0, 0xffff, 0x0a080000 + i), i % 3 === 0 ? undefined : i)
    }
    assert.equal(map.size, 13333)
  })

  it('tells addresses apart that differ in any one word', () => {
    const map = new AddressMap<string>(1)
    map.set(1, 2, 3, 4, 'this')
    for (const k of [
      [0, 2, 3, 4],
      [1, 0, 3, 4],
      [1, 2, 0, 4],
      [1, 2, 3, 0],
    ] as Key[]) {
      assert.equal(map.get(...k), undefined)
      assert.equal(map.delete(...k), false)
    }
    assert.equal(map.get(1, 2, 3, 4), 'this')
  })

  it('finds words above the sign', () => {
    const map = new AddressMap<string>(-1)
    map.set(0xfd000000 | 0, 0, 0, -1, 'this')
    assert.equal(map.get(-50331648, 0, 0, 0xffffffff | 0), 'this')
  })
})
