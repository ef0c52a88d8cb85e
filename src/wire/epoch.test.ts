import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { hex, loadVectors } from '../../test/vectors/load.ts'
import {
  EpochChain,
  EpochReceiver,
  EpochSender,
  expandLabel,
  FUTURE_EPOCHS,
  GCM_USAGE_LIMIT,
  hkdfExpand,
  LAST_COUNTER,
  LAST_EPOCH,
  usageOf,
} from './epoch.ts'

const secret = Uint8Array.from({ length: 32 }, (_, i) => i)
const UNLIMITED = Number.POSITIVE_INFINITY

describe('derivation', () => {
  const { hkdf_expand_sha256, ovpn_expand_label } = loadVectors('hkdf')
  for (const { name, prk, info, length, okm } of hkdf_expand_sha256) {
    it(`HKDF-Expand: ${name}`, () => {
      assert.deepEqual(hkdfExpand(hex(prk), hex(info), length), hex(okm))
    })
  }
  for (const { name, secret, label_text, length, output } of ovpn_expand_label) {
    it(`labelled: ${name}`, () => {
      assert.deepEqual(expandLabel(hex(secret), label_text, length), hex(output))
    })
  }
  const { cases } = loadVectors('epoch-keys')
  for (const { name, cipher, e1, epochs } of cases) {
    it(`chain: ${name}`, () => {
      const keyBytes = { 'AES-128-GCM': 16, 'AES-192-GCM': 24 }[cipher as string] ?? 32
      const [first] = epochs
      const chain =
        e1 === undefined
          ? new EpochChain(hex(first!.secret), keyBytes, first!.epoch)
          : new EpochChain(hex(e1), keyBytes)
      for (const { epoch, key, iv } of epochs) {
        while (chain.epoch < epoch) chain.advance()
        assert.deepEqual([chain.epoch, chain.key()], [epoch, { key: hex(key), iv: hex(iv) }])
      }
    })
  }
})

describe('EpochChain', () => {
  it('wants a secret of 32 bytes, whatever the cipher', () => {
    for (const length of [0, 16, 31, 33, 64]) {
      assert.throws(() => new EpochChain(new Uint8Array(length), 16), RangeError)
    }
  })

  it('copies the secret', () => {
    const given = Uint8Array.from(secret)
    const chain = new EpochChain(given, 32)
    given.fill(0)
    assert.deepEqual(chain.key(), new EpochChain(secret, 32).key())
  })

  it('does not go on after the last epoch', () => {
    const chain = new EpochChain(secret, 32, LAST_EPOCH)
    assert.throws(() => chain.advance(), RangeError)
    assert.equal(chain.epoch, LAST_EPOCH)
  })
})

describe('EpochSender', () => {
  const sender = (limit = UNLIMITED, counter = 0, epoch = 1) =>
    new EpochSender(new EpochChain(secret, 32, epoch), limit, counter)
  /** Seals a packet as its user does: epoch and counter, or nothing. */
  const send = (by: EpochSender, length = 16): [number, number] | undefined => {
    if (by.due && by.move() === undefined) return undefined
    const counter = by.next(length)
    return [by.epoch, counter]
  }

  it('counts from 1, in every epoch', () => {
    const by = sender()
    assert.deepEqual(
      [send(by), send(by)],
      [
        [1, 1],
        [1, 2],
      ],
    )
    by.pull(2)
    assert.deepEqual(
      [send(by), send(by)],
      [
        [2, 1],
        [2, 2],
      ],
    )
  })

  it('gives the key of the epoch it moves to', () => {
    const by = sender()
    by.pull(2)
    const chain = new EpochChain(secret, 32)
    chain.advance()
    assert.deepEqual(by.move(), chain.key())
  })

  const usages: [length: number, usage: number, why: string][] = [
    [0, 1, 'a packet, no block'],
    [1, 2, 'a block that has begun'],
    [16, 2, 'a whole block'],
    [17, 3, 'one byte more'],
    [1400, 89, '87.5 blocks'],
  ]
  for (const [length, usage, why] of usages) {
    it(`${length} bytes use ${usage}: ${why}`, () => assert.equal(usageOf(length), usage))
  }

  it('moves with the packet after the one that passed the limit', () => {
    const by = sender(7) // three packets of a block use 6, four 8
    const epochs = Array.from({ length: 9 }, () => send(by)![0])
    assert.deepEqual(epochs, [1, 1, 1, 1, 2, 2, 2, 2, 3])
  })

  it('may use the limit up before it moves', () => {
    const by = sender(4)
    assert.deepEqual(
      [send(by), send(by), send(by), send(by)].map((one) => one![0]),
      [1, 1, 1, 2],
    )
  })

  it("takes AES-GCM's limit as OpenVPN's test has it", () => {
    // 680390858 packets of 1600 bytes, and no more (data-channel reference, 6).
    const fit = Math.floor(GCM_USAGE_LIMIT / usageOf(1600))
    assert.equal(fit, 680_390_858)
  })

  it('uses the last counter of an epoch, once, and goes on in the next', () => {
    const by = sender(UNLIMITED, LAST_COUNTER - 1)
    assert.deepEqual(
      [send(by), send(by)],
      [
        [1, LAST_COUNTER],
        [2, 1],
      ],
    )
  })

  it('ends with the last counter of the last epoch, for good', () => {
    const by = sender(UNLIMITED, LAST_COUNTER - 1, LAST_EPOCH)
    assert.deepEqual(
      [send(by), send(by), send(by)],
      [[LAST_EPOCH, LAST_COUNTER], undefined, undefined],
    )
    by.pull(LAST_EPOCH)
    by.pull(LAST_EPOCH + 1)
    assert.deepEqual([send(by), by.counter], [undefined, LAST_COUNTER])
  })

  it('stays in the last epoch whatever it uses there', () => {
    const by = sender(3, 0, LAST_EPOCH - 1)
    const epochs = Array.from({ length: 20 }, () => send(by)![0])
    assert.deepEqual(epochs, [LAST_EPOCH - 1, LAST_EPOCH - 1, ...new Array(18).fill(LAST_EPOCH)])
  })

  const pulls: [to: number[], epoch: number, why: string][] = [
    [[1], 1, 'where it is'],
    [[0], 1, 'back'],
    [[2], 2, 'to the next'],
    [[17], 17, 'over many at once'],
    [[9, 3], 9, 'to the highest of two'],
    [[3, 9], 9, 'in whatever order'],
    [[LAST_EPOCH + 1], 1, 'to an epoch that there is not'],
  ]
  for (const [to, epoch, why] of pulls) {
    it(`is pulled to ${to}: ${why}`, () => {
      const by = sender(5)
      for (const one of to) by.pull(one)
      assert.deepEqual(send(by), [epoch, 1])
    })
  }

  it('never uses a pair of epoch and counter twice, whatever pulls it', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed)
      const by = sender(1 + random.below(100))
      let last = 0
      for (let i = 0; i < 2000; i++) {
        if (random.below(10) === 0) by.pull(random.below(by.epoch + 3))
        const [epoch, counter] = send(by, random.below(100))!
        const id = epoch * 2 ** 20 + counter
        assert.ok(id > last, `step ${i}: ${epoch} ${counter}`)
        last = id
      }
    }
  })
})

/** A receiver whose keys are their epochs, and how many were made and closed. */
function receiver(epoch = 1) {
  const made: number[] = []
  const closed: number[] = []
  const key = (of: number) => {
    made.push(of)
    return { of, close: () => closed.push(of) }
  }
  const by = new EpochReceiver(new EpochChain(secret, 32, epoch), key(epoch), (_, of) => key(of))
  /** Takes an authentic packet. */
  const take = (of: number, counter: number, now = 0) => {
    const found = by.keyFor(of)
    if (found === undefined) return 'no key'
    assert.equal(found.of, of)
    return by.accept(of, counter, now) ? 'new' : 'old'
  }
  return { by, made, closed, take }
}

type Step = [epoch: number, counter: number, outcome: 'new' | 'old' | 'no key', why: string]

function steps(title: string, first: number, rows: Step[]): void {
  describe(title, () => {
    const { take } = receiver(first)
    for (const [epoch, counter, outcome, why] of rows) {
      it(`epoch ${epoch}, counter ${counter}: ${why}`, () => {
        assert.equal(take(epoch, counter), outcome)
      })
    }
  })
}

steps('EpochReceiver', 1, [
  [0, 1, 'no key', 'there is no epoch 0'],
  [1, 1, 'new', 'the first'],
  [1, 1, 'old', 'the same again'],
  [1, 0, 'old', 'counters begin with 1'],
  [18, 1, 'no key', 'one further ahead than there are keys'],
  [2, 0, 'old', 'counter 0 begins no epoch'],
  [3, 5, 'new', 'an epoch skipped'],
  [3, 5, 'old', 'the same again'],
  [3, 4, 'new', 'late, in the same epoch'],
  [1, 1, 'old', 'a replay from the epoch before: its window is kept'],
  [1, 2, 'new', 'late, from the epoch before'],
  [2, 1, 'no key', 'from an epoch that was skipped'],
  [18, 1, 'new', 'inside the keys by now'],
  [3, 6, 'new', 'the epoch before, which is another now'],
  [3, 5, 'old', 'with its window'],
  [1, 3, 'no key', 'two before'],
  [19, 1, 'new', 'the next'],
  [18, 1, 'old', 'retiring'],
  [19, LAST_COUNTER, 'new', 'the last counter'],
  [19, 1, 'old', 'far behind'],
  [20, 1, 'new', 'on it goes'],
  [0, 1, 'no key', 'still none'],
  [65535, 1, 'no key', 'the largest'],
])

// CVE-2025-15497: an authenticated peer whose epochs came near the end met an assertion of OpenVPN 2.7's candidates.
steps('EpochReceiver at the end of the epochs', LAST_EPOCH - FUTURE_EPOCHS - 2, [
  [LAST_EPOCH, 1, 'no key', 'too far ahead by two'],
  [LAST_EPOCH - 2, 1, 'new', 'the furthest key'],
  [LAST_EPOCH, 1, 'new', 'the last epoch: there are fewer keys ahead than usual'],
  [LAST_EPOCH, 2, 'new', 'it goes on'],
  [LAST_EPOCH - 2, 2, 'new', 'retiring'],
  [LAST_EPOCH - 1, 1, 'no key', 'skipped'],
  [0, 1, 'no key', 'epochs do not wrap'],
  [1, 1, 'no key', 'nor begin anew'],
  [LAST_EPOCH, LAST_COUNTER, 'new', 'the very last packet'],
  [LAST_EPOCH, LAST_COUNTER, 'old', 'the same again'],
])

describe('EpochReceiver', () => {
  for (const stride of [1, 2, 7, FUTURE_EPOCHS]) {
    it(`follows a peer to the last epoch, ${stride} at a time`, () => {
      const first = LAST_EPOCH - 2000
      const { take, made, closed } = receiver(first)
      let epoch = first
      while (epoch < LAST_EPOCH) {
        epoch = Math.min(LAST_EPOCH, epoch + stride)
        assert.equal(take(epoch, 1), 'new')
      }
      assert.equal(take(LAST_EPOCH, 1), 'old')
      assert.equal(made.length, 2001)
      assert.equal(closed.length, 1999, 'all but the current and the retiring one')
    })
  }

  it('makes 16 keys for whatever is claimed, once, and none until something is', () => {
    const { by, made } = receiver()
    assert.deepEqual(made, [1])
    for (let epoch = 0; epoch <= LAST_EPOCH; epoch++) by.keyFor(epoch)
    for (let epoch = LAST_EPOCH; epoch >= 0; epoch--) by.keyFor(epoch)
    assert.equal(made.length, 1 + FUTURE_EPOCHS)
    assert.equal(by.epoch, 1, 'what is not authenticated moves nothing')
  })

  it('does not believe in an epoch whose key nobody asked for', () => {
    const { by } = receiver()
    assert.deepEqual(
      [by.accept(2, 1, 0), by.accept(17, 1, 0), by.accept(60000, 1, 0), by.epoch],
      [false, false, false, 1],
    )
  })

  it('forgets every key on close', () => {
    const { by, take, made, closed } = receiver()
    take(4, 1)
    by.keyFor(9)
    by.close()
    assert.deepEqual(
      closed.sort((a, b) => a - b),
      made,
    )
  })

  it('does as a slow one that remembers everything', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed)
      const first = seed % 3 === 0 ? LAST_EPOCH - 60 : 1
      const { by, take, made, closed } = receiver(first)
      const seen = new Set<string>()
      const highest = new Map<number, number>()
      let current = first
      let retiring = 0
      for (let i = 0; i < 3000; i++) {
        const epoch = Math.min(
          LAST_EPOCH,
          Math.max(0, current - 2 + random.below(random.below(20) === 0 ? 22 : 3)),
        )
        const top = highest.get(epoch) ?? 0
        const counter = Math.max(
          0,
          top - 2100 + random.below(random.below(4) === 0 ? 2200 : 2) + 2100,
        )
        const known =
          epoch !== 0 &&
          (epoch === retiring || (epoch >= current && epoch <= current + FUTURE_EPOCHS))
        const fresh = counter > 0 && !seen.has(`${epoch} ${counter}`) && counter > top - 2048
        assert.equal(
          take(epoch, counter),
          known ? (fresh ? 'new' : 'old') : 'no key',
          `step ${i}: ${epoch} ${counter}`,
        )
        if (!known || !fresh) continue
        seen.add(`${epoch} ${counter}`)
        highest.set(epoch, Math.max(top, counter))
        if (epoch <= current) continue
        retiring = current
        current = epoch
      }
      assert.equal(by.epoch, current)
      assert.equal(new Set(made).size, made.length, 'no key is made twice')
      assert.ok(made.length - closed.length <= FUTURE_EPOCHS + 2)
      assert.ok(seen.size > 500, `${seen.size}: the run tells nothing`)
    }
  })
})
