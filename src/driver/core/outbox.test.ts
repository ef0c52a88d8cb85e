import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Outbox } from './outbox.ts'
import { Peer } from './peer.ts'

const peerOf = (id: number, stream = false) =>
  new Peer(
    {
      handle: id,
      id,
      txId: id,
      transport: 1,
      stream,
      keepaliveRule: 'together',
      keepaliveInterval: 0,
      keepaliveTimeout: 0,
    },
    0,
  )

const one = peerOf(1)
const two = peerOf(2)
const stream = peerOf(3, true)
const limited = peerOf(4)
limited.trainLimit = 1300

const times = <T>(count: number, of: T): T[] => new Array(count).fill(of)

describe('Outbox: what goes together', () => {
  type Message = [peer: Peer, bytes: number, segment: number, packets: number]
  const rows: [why: string, packets: [peer: Peer, bytes: number][], messages: Message[]][] = [
    ['datagrams of one size', times(3, [one, 1400]), [[one, 4200, 1400, 3]]],
    [
      'a shorter one ends the train',
      [
        [one, 9],
        [one, 8],
        [one, 8],
      ],
      [
        [one, 17, 9, 2],
        [one, 8, 8, 1],
      ],
    ],
    [
      'a longer one begins another',
      [
        [one, 8],
        [one, 9],
      ],
      [
        [one, 8, 8, 1],
        [one, 9, 9, 1],
      ],
    ],
    [
      'longer, equal, shorter, equal',
      [
        [one, 8],
        [one, 9],
        [one, 9],
        [one, 1],
        [one, 1],
      ],
      [
        [one, 8, 8, 1],
        [one, 19, 9, 3],
        [one, 1, 1, 1],
      ],
    ],
    [
      'another peer',
      [
        [one, 9],
        [two, 9],
        [one, 9],
      ],
      [
        [one, 9, 9, 1],
        [two, 9, 9, 1],
        [one, 9, 9, 1],
      ],
    ],
    [
      '64 datagrams at most',
      times(65, [one, 100]),
      [
        [one, 6400, 100, 64],
        [one, 100, 100, 1],
      ],
    ],
    [
      '65507 bytes at most',
      [...times(46, [one, 1424]), [one, 4]] as [Peer, number][],
      [
        [one, 65504, 1424, 46],
        [one, 4, 4, 1],
      ],
    ],
    [
      '65507 bytes exactly',
      [...times(46, [one, 1424]), [one, 3]] as [Peer, number][],
      [[one, 65507, 1424, 47]],
    ],
    [
      'too long for the peer’s path in a train',
      times(2, [limited, 1301]),
      [
        [limited, 1301, 1301, 1],
        [limited, 1301, 1301, 1],
      ],
    ],
    ['just short enough for it', times(2, [limited, 1300]), [[limited, 2600, 1300, 2]]],
    [
      'frames of any size',
      [
        [stream, 5],
        [stream, 9],
        [stream, 2],
        [stream, 9],
      ],
      [[stream, 25, 5, 4]],
    ],
    ['frames beyond a datagram', times(70, [stream, 1426]), [[stream, 99820, 1426, 70]]],
    [
      'a stream after a datagram',
      [
        [one, 9],
        [stream, 9],
        [stream, 9],
      ],
      [
        [one, 9, 9, 1],
        [stream, 18, 9, 2],
      ],
    ],
  ]
  for (const [why, packets, messages] of rows) {
    it(why, () => {
      const outbox = new Outbox(1000, 200_000)
      let cursor = 1000
      for (const [peer, bytes] of packets) {
        assert.ok(outbox.hasRoom(bytes))
        assert.equal(outbox.cursor, cursor, 'packets lie back to back')
        outbox.add(peer, bytes)
        cursor += bytes
      }
      const made: Message[] = []
      let offset = 1000
      for (let i = 0; i < outbox.count; i++) {
        assert.equal(outbox.offset[i], offset, 'messages lie back to back')
        offset += outbox.length[i]!
        made.push([outbox.peer[i]!, outbox.length[i]!, outbox.segment[i]!, outbox.packets[i]!])
      }
      assert.deepEqual(made, messages)
    })
  }
})

describe('Outbox: how much it holds', () => {
  it('bytes up to the end of its area', () => {
    const outbox = new Outbox(1000, 100)
    outbox.add(one, 60)
    assert.deepEqual([outbox.hasRoom(40), outbox.hasRoom(41)], [true, false])
  })

  it('64 messages', () => {
    const outbox = new Outbox(0, 100_000)
    for (let i = 0; i < 64; i++) {
      assert.ok(outbox.hasRoom(10))
      outbox.add(i % 2 === 0 ? one : two, 10)
    }
    assert.equal(outbox.count, 64)
    assert.equal(outbox.hasRoom(10), false)
  })

  it('nothing after clear, and no train goes on', () => {
    const outbox = new Outbox(1000, 100)
    outbox.add(one, 60)
    outbox.clear()
    assert.deepEqual([outbox.count, outbox.cursor, outbox.peer[0]], [0, 1000, undefined])
    outbox.add(one, 60)
    assert.deepEqual([outbox.count, outbox.offset[0], outbox.packets[0]], [1, 1000, 1])
  })
})
