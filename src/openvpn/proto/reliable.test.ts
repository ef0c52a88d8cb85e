import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { loadVectors } from '../../../test/vectors/load.ts'
import { Opcode } from '../../wire/opcode.ts'
import {
  ACKS_ALONE,
  ACKS_BESIDE_MESSAGE,
  AckQueue,
  EARLY_BYTES,
  type Message,
  RECEIVE_WINDOW,
  ReceiveWindow,
  recentAcks,
  SEND_WINDOW,
  SendWindow,
} from './reliable.ts'

const vectors = loadVectors('reliability')
const NOTHING = new Uint8Array(0)

const message = (id: number, payload = NOTHING): Message => ({
  id,
  opcode: Opcode.ControlV1,
  payload,
})

/** A window with `count` messages, ids 0 and up, each sent once at 0. */
function sent(count: number): SendWindow {
  const window = new SendWindow(2000)
  for (let i = 0; i < count; i++) window.push(Opcode.ControlV1, NOTHING, 0)
  assert.deepEqual(
    taken(window, 0),
    Array.from({ length: count }, (_, i) => i),
  )
  return window
}

function taken(window: SendWindow, now: number): number[] {
  const ids: number[] = []
  for (let next = window.take(now); next; next = window.take(now)) ids.push(next.id)
  return ids
}

describe('SendWindow', () => {
  const times = vectors.retransmit_times_seconds_after_first_send['openvpn 2.x, tls-timeout 2']

  it(`sends again after ${times.join(', ')} s`, () => {
    const window = sent(1)
    for (const second of times) {
      assert.equal(window.deadline(), 1000 * second)
      assert.deepEqual(taken(window, 1000 * second - 1), [])
      assert.deepEqual(taken(window, 1000 * second), [0])
    }
  })

  it('waits longer where it is looked at late', () => {
    const window = sent(1)
    assert.deepEqual(taken(window, 5000), [0])
    assert.equal(window.deadline(), 9000)
  })

  it('has room for six', () => {
    const window = new SendWindow(2000)
    for (let i = 0; i < SEND_WINDOW; i++) {
      assert.ok(window.hasRoom, `message ${i}`)
      window.push(Opcode.ControlV1, NOTHING, 0)
    }
    assert.ok(!window.hasRoom)
    for (const id of [1, 2, 3, 4, 5]) window.acknowledge(id)
    assert.ok(!window.hasRoom, 'the oldest decides, however many are acknowledged')
    window.acknowledge(0)
    assert.ok(window.hasRoom)
    assert.ok(window.isEmpty)
    assert.equal(window.deadline(), Number.POSITIVE_INFINITY)
  })

  it('sends at once what three later messages have overtaken', () => {
    const window = sent(6)
    window.acknowledge(2)
    window.acknowledge(3)
    assert.deepEqual(taken(window, 1), [], 'two may have been reordered')
    window.acknowledge(5)
    assert.ok(window.deadline() <= 1)
    assert.deepEqual(taken(window, 1), [0, 1], 'not 4: one acknowledgement only')
    assert.deepEqual(taken(window, 1), [], 'once')
    window.acknowledge(5)
    window.acknowledge(5)
    window.acknowledge(5)
    assert.deepEqual(taken(window, 2), [], 'an acknowledgement counts once')
  })

  it('can begin behind its reset', () => {
    const window = new SendWindow(2000, 1)
    window.acknowledge(0) // of a reset that nobody remembers
    window.push(Opcode.ControlV1, NOTHING, 0)
    assert.equal(window.take(0)?.id, 1)
  })

  it('stops at the last id', () => {
    const window = new SendWindow(2000, 0xffffffff)
    window.push(Opcode.ControlV1, NOTHING, 0)
    window.acknowledge(0xffffffff)
    assert.ok(!window.hasRoom, 'no id is used twice')
  })
})

describe('ReceiveWindow', () => {
  const verdicts = {
    accept: 'new',
    'drop-no-ack': 'too far ahead',
    'duplicate-ack-again': 'duplicate',
  } as const
  for (const { next_expected, window, id, verdict } of vectors.recv_window) {
    it(`expects ${next_expected}, gets ${id}: ${verdict}`, () => {
      assert.equal(window, RECEIVE_WINDOW)
      assert.equal(new ReceiveWindow(next_expected).accept(message(id)), verdicts[verdict])
    })
  }

  it('delivers in order, each once', () => {
    const window = new ReceiveWindow()
    const ids: number[] = []
    for (const id of [1, 3, 1, 0, 0, 2, 3, 5]) {
      window.accept(message(id))
      for (let next = window.take(); next; next = window.take()) ids.push(next.id)
    }
    assert.deepEqual(ids, [0, 1, 2, 3])
  })

  it('keeps a copy', () => {
    const window = new ReceiveWindow()
    const memory = Uint8Array.of(1)
    window.accept(message(0, memory))
    memory[0] = 2
    assert.deepEqual(window.take()?.payload, Uint8Array.of(1))
  })

  it('keeps a bounded number of bytes, and always the next message', () => {
    const window = new ReceiveWindow()
    const big = new Uint8Array(EARLY_BYTES / 2)
    assert.equal(window.accept(message(1, big)), 'new')
    assert.equal(window.accept(message(2, big)), 'new')
    assert.equal(window.accept(message(3, Uint8Array.of(1))), 'too far ahead')
    assert.equal(window.accept(message(0, big)), 'new')
    for (const id of [0, 1, 2]) assert.equal(window.take()?.id, id)
    assert.equal(window.accept(message(4, big)), 'new', 'there is room again')
  })
})

describe('AckQueue', () => {
  it('repeats acknowledgements as the published list says', () => {
    let list: number[] = []
    for (const { acks_in_packet, list_after } of vectors.ack_mru_list.steps) {
      list = recentAcks(acks_in_packet, list)
      assert.deepEqual(list, list_after)
    }
  })

  type Step = [add: number[], limit: number, acks: number[], why: string]
  const steps: Step[] = [
    [[], ACKS_BESIDE_MESSAGE, [], 'nothing was received'],
    [[0], ACKS_BESIDE_MESSAGE, [0], 'the reset'],
    [[], ACKS_BESIDE_MESSAGE, [0], 'it again'],
    [[1, 2], ACKS_BESIDE_MESSAGE, [1, 2, 0], 'those that wait go first, the oldest first'],
    [[3, 3], ACKS_ALONE, [3, 1, 2, 0], 'one that is asked for twice goes once'],
    [[4, 5, 6, 7, 8], ACKS_BESIDE_MESSAGE, [4, 5, 6, 7], 'as many as there is room for'],
    [[], ACKS_BESIDE_MESSAGE, [8, 4, 5, 6], 'the rest, and those sent just now'],
    [[2], ACKS_ALONE, [2, 8, 4, 5, 6, 7, 3, 1], 'at most eight'],
  ]
  const queue = new AckQueue()
  for (const [add, limit, acks, why] of steps) {
    it(`${add.join()} in ${limit}: ${why}`, () => {
      for (const id of add) queue.add(id)
      assert.equal(queue.waiting > 0, add.length > 0 || why.startsWith('the rest'))
      assert.deepEqual(queue.take(limit), acks)
    })
  }

  it('remembers no more than a packet carries', () => {
    const queue = new AckQueue()
    for (let id = 0; id < 1000; id++) queue.add(id)
    assert.equal(queue.waiting, ACKS_ALONE)
  })
})

describe('two ends over a wire that loses and reorders', () => {
  for (let seed = 1; seed <= 200; seed++) {
    it(`seed ${seed}`, () => {
      const random = new Random(seed)
      const loss = random.below(5) * 10 // percent
      const sends = new SendWindow(2000)
      const receives = new ReceiveWindow()
      const acks = new AckQueue()
      const wire: (() => void)[] = []
      const delivered: number[] = []
      const COUNT = 40
      const send = (packet: () => void) => {
        if (random.below(100) >= loss) wire.splice(random.below(wire.length + 1), 0, packet)
      }
      let now = 0
      for (let turn = 0; delivered.length < COUNT || !sends.isEmpty; turn++) {
        assert.ok(turn < 100_000, 'comes to an end')
        while (sends.hasRoom && sends.nextId < COUNT) {
          sends.push(Opcode.ControlV1, Uint8Array.of(sends.nextId), now)
        }
        for (let next = sends.take(now); next; next = sends.take(now)) {
          const copy = next
          send(() => {
            const arrival = receives.accept(copy)
            assert.notEqual(arrival, 'too far ahead')
            acks.add(copy.id)
            for (let got = receives.take(); got; got = receives.take()) {
              delivered.push(got.payload[0]!)
            }
            const ids = acks.take(ACKS_ALONE)
            send(() => {
              for (const id of ids) sends.acknowledge(id)
            })
          })
        }
        const packet = wire.pop()
        if (packet) packet()
        else
          now = Math.max(
            now,
            sends.deadline() === Number.POSITIVE_INFINITY ? now : sends.deadline(),
          )
      }
      assert.deepEqual(
        delivered,
        Array.from({ length: COUNT }, (_, i) => i),
      )
    })
  }
})
