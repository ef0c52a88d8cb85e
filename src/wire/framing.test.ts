import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { hex } from '../../test/vectors/load.ts'
import { Deframer, encodeFrame, FRAME_PREFIX_BYTES, FrameState, MAX_FRAME_BODY } from './framing.ts'

/** A Deframer over an area in the middle of other memory, and that memory. */
function deframer(maximum: number, capacity = maximum + FRAME_PREFIX_BYTES) {
  const memory = new Uint8Array(16 + capacity + 16).fill(0xee)
  return { memory, frames: new Deframer(memory, 16, capacity, maximum) }
}

/** Feeds all of `stream`, at most `step()` bytes at a time, as far as it is followed. */
function feed(frames: Deframer, memory: Uint8Array, stream: Uint8Array, step: () => number) {
  const packets: Uint8Array[] = []
  let state: FrameState = FrameState.Incomplete
  for (let at = 0; at < stream.length && state === FrameState.Incomplete; ) {
    const count = Math.min(step(), frames.room, stream.length - at)
    assert.ok(count > 0, 'room after Incomplete')
    memory.set(stream.subarray(at, at + count), frames.writeOffset)
    frames.wrote(count)
    at += count
    for (state = frames.next(); state === FrameState.Ready; state = frames.next()) {
      packets.push(memory.slice(frames.offset, frames.offset + frames.length))
    }
  }
  return { packets, state }
}

const concat = (parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts))

describe('one stream of several packets', () => {
  const packets = [hex('4801'), hex('28aabbcc'), hex('4b000005'.repeat(5)), hex('0000')]
  const stream = concat(packets.map(encodeFrame))

  it('is split anywhere, in two', () => {
    for (let cut = 1; cut < stream.length; cut++) {
      const { memory, frames } = deframer(64)
      const sizes = [cut, stream.length]
      const result = feed(frames, memory, stream, () => sizes.shift() ?? stream.length)
      assert.deepEqual(result, { packets, state: FrameState.Incomplete }, `cut at ${cut}`)
    }
  })

  it('comes byte by byte', () => {
    const { memory, frames } = deframer(20)
    assert.deepEqual(feed(frames, memory, stream, () => 1).packets, packets)
    assert.equal(frames.pending, 0)
  })

  it('leaves memory outside the area alone', () => {
    const { memory, frames } = deframer(20)
    feed(frames, memory, stream, () => 7)
    assert.ok(memory.subarray(0, 16).every((byte) => byte === 0xee))
    assert.ok(memory.subarray(-16).every((byte) => byte === 0xee))
  })
})

describe('lengths', () => {
  const rows: [length: number, state: FrameState, why: string][] = [
    [0, FrameState.TooShort, 'the kernel gives up on 0'],
    [1, FrameState.TooShort, 'and on 1'],
    [2, FrameState.Ready, 'the least; whether a packet can be so short is for others'],
    [3, FrameState.Ready, 'less than an op word, likewise'],
    [4, FrameState.Ready, 'an op word'],
    [1600, FrameState.Ready, 'the longest allowed here'],
    [1601, FrameState.TooLong, 'one more'],
    [65535, FrameState.TooLong, 'the longest that can be said'],
  ]
  for (const [length, state, why] of rows) {
    it(`${length}: ${why}`, () => {
      const { memory, frames } = deframer(1600)
      new DataView(memory.buffer).setUint16(frames.writeOffset, length)
      frames.wrote(FRAME_PREFIX_BYTES)
      if (state === FrameState.Ready) {
        assert.equal(frames.next(), FrameState.Incomplete)
        frames.wrote(length - 1)
        assert.equal(frames.next(), FrameState.Incomplete)
        assert.equal(frames.pending, FRAME_PREFIX_BYTES + length - 1)
        frames.wrote(1)
      }
      assert.equal(frames.next(), state)
      if (state === FrameState.Ready) assert.equal(frames.length, length)
    })
  }

  it('65535 fits an area made for it', () => {
    const { memory, frames } = deframer(MAX_FRAME_BODY)
    const packet = new Random(1).bytes(MAX_FRAME_BODY)
    const stream = concat([encodeFrame(packet), encodeFrame(packet)])
    assert.deepEqual(feed(frames, memory, stream, () => 40_000).packets, [packet, packet])
  })

  it('a stream that made no sense once stays so, and packets before that count', () => {
    const { memory, frames } = deframer(64)
    const stream = hex('0003aabbcc0000' + '0003aabbcc')
    const result = feed(frames, memory, stream, () => 64)
    assert.deepEqual(result, { packets: [hex('aabbcc')], state: FrameState.TooShort })
    assert.equal(frames.next(), FrameState.TooShort)
  })

  it('reset makes it follow another stream, from the front', () => {
    const { memory, frames } = deframer(64)
    assert.equal(feed(frames, memory, hex('0003aabb'), () => 64).state, FrameState.Incomplete)
    frames.reset()
    assert.deepEqual([frames.writeOffset, frames.room, frames.pending], [16, 66, 0])
    assert.equal(feed(frames, memory, hex('0000'), () => 64).state, FrameState.TooShort)
    frames.reset()
    assert.deepEqual(feed(frames, memory, hex('0002ccdd'), () => 64).packets, [hex('ccdd')])
  })

  it('an area too small for the longest packet is refused', () => {
    assert.throws(() => new Deframer(new Uint8Array(99), 0, 99, 98), RangeError)
    assert.throws(() => encodeFrame(new Uint8Array(65536)), RangeError)
  })
})

describe('random streams', () => {
  for (let seed = 1; seed <= 20; seed++) {
    it(`of packets, in random pieces, seed ${seed}`, () => {
      const random = new Random(seed)
      const packets = Array.from({ length: 200 }, () => random.bytes(2 + random.below(300)))
      const { memory, frames } = deframer(302, 304 + random.below(2000))
      const stream = concat(packets.map(encodeFrame))
      const result = feed(frames, memory, stream, () => 1 + random.below(700))
      assert.deepEqual(result, { packets, state: FrameState.Incomplete })
    })

    it(`of noise end in a verdict, never outside the area, seed ${seed}`, () => {
      const random = new Random(seed)
      const { memory, frames } = deframer(2000)
      const { packets, state } = feed(frames, memory, random.bytes(100_000), () => 500)
      assert.ok(state === FrameState.TooLong || state === FrameState.TooShort)
      assert.ok(packets.every(({ length }) => length >= 2 && length <= 2000))
    })
  }
})
