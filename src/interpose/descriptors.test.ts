import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { Writer } from '../netlink/attribute.ts'
import { message } from '../netlink/message.ts'
import { RTM } from '../netlink/route.ts'
import { descriptorsIn } from './descriptors.ts'

const FD = 1234
const NET_NS_FD = 28

const link = (write: (writer: Writer) => Writer) =>
  write(new Writer(new Uint8Array(16)).string(3, 'name')).finish()
const request = (type: number, payload: Uint8Array) =>
  message({ type, flags: 1, seq: 1, pid: 0 }, payload)
const info = (kind: string, data: Uint8Array) =>
  new Writer().string(1, kind).bytes(2, data).finish()

/** A pair of which the other end has the descriptor, if `kind` has other ends. */
const pair = (kind: string) => {
  const peer = link((writer) => writer.u32(NET_NS_FD, FD))
  const data = new Writer().bytes(1, peer).finish()
  return request(
    RTM.NEWLINK,
    link((writer) => writer.bytes(18, info(kind, data))),
  )
}

const rows: [why: string, datagram: Uint8Array, count: number][] = [
  [
    'a link to move',
    request(
      RTM.NEWLINK,
      link((writer) => writer.u32(NET_NS_FD, FD)),
    ),
    1,
  ],
  ['the other end of a pair', pair('veth'), 1],
  ['a kind whose data means something else', pair('vlan'), 0],
  ['a number asked for', request(90, new Writer(new Uint8Array(4)).u32(3, FD).finish()), 1],
  ['a number given', request(88, new Writer(new Uint8Array(4)).u32(1, 7).u32(3, FD).finish()), 1],
  [
    'a process instead',
    request(
      RTM.NEWLINK,
      link((writer) => writer.u32(19, FD)),
    ),
    0,
  ],
  [
    'too short for a number',
    request(
      RTM.NEWLINK,
      link((writer) => writer.u16(NET_NS_FD, 1)),
    ),
    0,
  ],
  [
    'a question',
    request(
      RTM.GETLINK,
      link((writer) => writer.u32(NET_NS_FD, FD)),
    ),
    0,
  ],
  ['two messages', Buffer.concat([pair('veth'), pair('vxcan')]), 2],
]

describe('descriptors in rtnetlink messages', () => {
  for (const [why, datagram, count] of rows) {
    it(`${why}: ${count}`, () => {
      const view = new DataView(datagram.buffer, datagram.byteOffset)
      const found = descriptorsIn(datagram).map((at) => view.getInt32(at, true))
      assert.deepEqual(found, Array(count).fill(FD))
    })
  }

  it('malformed ones have none beyond their end', () => {
    const random = new Random(1)
    for (let i = 0; i < 2000; i++) {
      const datagram = Uint8Array.from(pair('veth'))
      for (let j = 0; j < 3; j++)
        datagram[16 + random.below(datagram.length - 16)] = random.below(256)
      for (const at of descriptorsIn(datagram)) assert.ok(at >= 16 && at + 4 <= datagram.length)
    }
  })
})
