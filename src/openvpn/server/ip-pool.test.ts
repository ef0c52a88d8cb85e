import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { IpPool, type Lease } from './ip-pool.ts'

const three = { first: '10.8.0.2', last: '10.8.0.4' }
const six = { first: 'fd00::1000', last: 'fd00::1fff' }

describe('IpPool', () => {
  it('gives both families by one index, and says when it is empty', () => {
    const pool = new IpPool({ v4: three, v6: six })
    assert.equal(pool.size, 3)
    assert.deepEqual(pool.acquire('a'), { v4: '10.8.0.2', v6: 'fd00::1000' })
    assert.deepEqual(pool.acquire('b'), { v4: '10.8.0.3', v6: 'fd00::1001' })
    assert.deepEqual(pool.acquire('c'), { v4: '10.8.0.4', v6: 'fd00::1002' })
    assert.equal(pool.acquire('d'), undefined)
  })

  it('gives a name its own address again, and others what was free for longest', () => {
    const pool = new IpPool({ v4: three })
    const leases = ['a', 'b', 'c'].map((name) => pool.acquire(name)) as Lease[]
    for (const lease of [leases[1]!, leases[0]!]) pool.release(lease)
    assert.deepEqual(pool.acquire('a'), { v4: '10.8.0.2' }, 'its own, though b is free for longer')
    assert.deepEqual(pool.acquire('d'), { v4: '10.8.0.3' })
    assert.equal(pool.acquire('b'), undefined, 'its own has gone to d')
  })

  it('prefers what nobody ever had', () => {
    const pool = new IpPool({ v4: three })
    pool.release(pool.acquire('a')!)
    assert.deepEqual(pool.acquire('b'), { v4: '10.8.0.3' })
  })

  it('never gives what a client has by hand', () => {
    const pool = new IpPool({ v4: three })
    const lease = pool.acquire('z', { v4: '10.8.0.2' })!
    assert.deepEqual(pool.acquire('a'), { v4: '10.8.0.3' })
    assert.equal(pool.acquire('y', { v4: '10.8.0.2' }), undefined, 'taken by hand')
    assert.equal(pool.acquire('y', { v4: '10.8.0.3' }), undefined, 'taken from the pool')
    assert.deepEqual(
      pool.acquire('x', { v4: '10.9.9.9' }),
      { v4: '10.9.9.9' },
      'outside of the pool',
    )
    pool.release(lease)
    pool.release(lease)
    assert.equal(pool.holds('10.8.0.2'), false)
  })

  it('takes the missing family from the pool', () => {
    const pool = new IpPool({ v4: three, v6: six })
    assert.deepEqual(pool.acquire('a', { v4: '10.8.0.99' }), { v4: '10.8.0.99', v6: 'fd00::1000' })
  })

  it('remembers names in the form of ifconfig-pool-persist', () => {
    const pool = new IpPool({ v4: three, v6: six })
    pool.acquire('a')
    pool.release(pool.acquire('b')!)
    pool.acquire(undefined)
    assert.equal(pool.persisted(), 'a,10.8.0.2,fd00::1000\nb,10.8.0.3,fd00::1001\n')

    const again = new IpPool({ v4: three, v6: six })
    assert.deepEqual(again.restore(pool.persisted()), [])
    assert.deepEqual(again.acquire('b'), { v4: '10.8.0.3', v6: 'fd00::1001' })
    assert.deepEqual(again.acquire('new'), { v4: '10.8.0.4', v6: 'fd00::1002' })
  })

  it('says what of such a file it cannot use', () => {
    const pool = new IpPool({ v4: three })
    const problems = pool.restore(
      '# comment\n\na,10.8.0.2\nb,10.8.0.2\nc,10.9.0.1\nnonsense\n,10.8.0.3\n',
    )
    assert.deepEqual(
      problems.map((text) => text.slice(0, 7)),
      ['line 4:', 'line 5:', 'line 6:', 'line 7:'],
    )
    assert.equal(pool.persisted(), 'a,10.8.0.2\n')
  })

  it('refuses ranges that are none', () => {
    assert.throws(() => new IpPool({ v4: { first: '10.0.0.2', last: '10.0.0.1' } }), RangeError)
    assert.throws(() => new IpPool({ v4: { first: 'fd00::1', last: 'fd00::2' } }), RangeError)
  })
})
