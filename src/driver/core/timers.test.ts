import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { Timers } from './timers.ts'

class Owner {
  readonly name: number
  at = Infinity

  constructor(name: number) {
    this.name = name
  }

  deadline(): number {
    return this.at
  }
}

/** Lets `owner` be called at `at`. */
function schedule(timers: Timers<Owner>, owner: Owner, at: number): void {
  owner.at = at
  timers.schedule(owner)
}

describe('Timers', () => {
  it('says nothing is due when nothing is', () => {
    const timers = new Timers<Owner>()
    timers.schedule(new Owner(1)) // for never
    assert.equal(timers.next(), Infinity)
    timers.run(1e9, () => assert.fail('called'))
  })

  it('calls an owner whose deadline moved earlier, once', () => {
    const timers = new Timers<Owner>()
    const owner = new Owner(1)
    schedule(timers, owner, 100)
    schedule(timers, owner, 50)
    assert.equal(timers.next(), 50)
    let calls = 0
    timers.run(1000, () => calls++)
    assert.equal(calls, 1)
    assert.equal(timers.next(), Infinity)
  })

  it('asks again when a deadline moved later without a word', () => {
    const timers = new Timers<Owner>()
    const owner = new Owner(1)
    schedule(timers, owner, 100)
    owner.at = 150
    timers.run(149, () => assert.fail('called early'))
    assert.equal(timers.next(), 150)
  })

  it('forgets an owner whose deadline moved to never', () => {
    const timers = new Timers<Owner>()
    const owner = new Owner(1)
    schedule(timers, owner, 100)
    owner.at = Infinity
    timers.run(1000, () => assert.fail('called'))
    assert.equal(timers.next(), Infinity)
  })

  it('passes over an owner that was removed, even while others are called', () => {
    const timers = new Timers<Owner>()
    const [first, second, third] = [new Owner(1), new Owner(2), new Owner(3)]
    schedule(timers, first, 10)
    schedule(timers, second, 20)
    schedule(timers, third, 30)
    timers.remove(third)
    const called: number[] = []
    timers.run(100, (owner) => {
      called.push(owner.name)
      timers.remove(second)
    })
    assert.deepEqual(called, [1])
  })

  it('keeps nothing of an owner that was removed, or whose deadline was replaced', () => {
    const timers = new Timers<Owner>()
    const [first, second] = [new Owner(1), new Owner(2)]
    schedule(timers, first, 10)
    schedule(timers, second, 40)
    timers.remove(first)
    assert.equal(timers.next(), 40)
    schedule(timers, second, 20)
    timers.remove(second)
    assert.equal(timers.next(), Infinity)
  })

  it('calls an owner that was removed and came back at its new deadline', () => {
    const timers = new Timers<Owner>()
    const owner = new Owner(1)
    schedule(timers, owner, 10)
    timers.remove(owner)
    schedule(timers, owner, 30)
    timers.run(20, () => assert.fail('called at the old one'))
    assert.equal(timers.next(), 30)
  })
})

describe('Timers against a sorted list', () => {
  for (let seed = 1; seed <= 20; seed++) {
    it(`seed ${seed}`, () => {
      const random = new Random(seed)
      const timers = new Timers<Owner>()
      const owners = Array.from({ length: 50 }, (_, i) => new Owner(i))
      const present = new Set<Owner>()
      let now = 0
      let calls = 0
      for (let step = 0; step < 2000; step++) {
        const owner = owners[random.below(50)]!
        const what = random.below(10)
        if (what < 4) {
          // Earlier, or new: told.
          const at = now + 1 + random.below(1000)
          if (!present.has(owner) || at < owner.at) schedule(timers, owner, at)
          present.add(owner)
        } else if (what < 6) {
          owner.at += random.below(500) // later: not told
        } else if (what < 7) {
          timers.remove(owner)
          present.delete(owner)
        } else {
          now += random.below(200)
          const due = [...present].filter((one) => one.at <= now)
          const called: Owner[] = []
          const after = random.below(300)
          timers.run(now, (one) => {
            assert.ok(one.at <= now, 'called early')
            called.push(one)
            present.delete(one)
            if (one.name % 2 === 0) return
            schedule(timers, one, now + 1 + after)
            present.add(one)
          })
          calls += called.length
          const byName = (a: Owner, b: Owner) => a.name - b.name
          assert.deepEqual(called.sort(byName), due.sort(byName), `step ${step}`)
        }
        const earliest = Math.min(Infinity, ...[...present].map((one) => one.at))
        assert.ok(timers.next() <= earliest, 'would wake too late')
      }
      assert.ok(calls > 300, `${calls} calls: the run tells nothing`)
    })
  }
})
