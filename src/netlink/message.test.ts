import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { bytes, hex } from '../../test/bytes.ts'
import { Random } from '../../test/random.ts'
import { NetlinkError } from './attribute.ts'
import {
  ack,
  dump,
  genericHeader,
  type Message,
  message,
  messages,
  NLM_F,
  NLMSG,
  readAnswer,
  readGenericHeader,
  refusal,
} from './message.ts'

const plain = { extAck: false, capAck: false }

/** GETFAMILY for `ovpn`, as libnl's resolver sends it (netlink-api, appendix A). */
const getFamily = bytes('20000000 10000500 e8030000 92100000 03010000 09000200 6f76706e 00000000')
const [request] = messages(getFamily) as Iterable<Message> as [Message]
const first = (wire: Uint8Array): Message => [...messages(wire)][0]!

describe('messages', () => {
  it('reads a header', () => {
    const { type, flags, seq, pid, payload } = request
    assert.deepEqual([type, flags, seq, pid], [0x10, NLM_F.REQUEST | NLM_F.ACK, 1000, 4242])
    assert.equal(payload.length, 16)
  })

  it('writes it again', () => assert.deepEqual(message(request, request.payload), getFamily))

  it('pads, and splits a datagram of several', () => {
    const one = message({ type: 0x20, flags: 0, seq: 1, pid: 0 }, Uint8Array.of(1))
    assert.equal(one.length, 20)
    const all = [...messages(bytes(hex(one) + hex(getFamily) + hex(one.subarray(0, 17))))]
    assert.deepEqual(
      all.map((each) => each.bytes.length),
      [17, 32, 17],
    )
  })

  const malformed: [wire: string, offset: number, why: string][] = [
    ['20', 0, 'a header cut short'],
    ['0f000000 10000500 e8030000 92100000', 0, 'a length shorter than the header'],
    ['11000000 10000500 e8030000 92100000', 0, 'a length past the end'],
    ['ffffffff 10000500 e8030000 92100000', 0, 'the longest length'],
    ['10000000 10000500 e8030000 92100000 00', 16, 'trailing garbage'],
  ]
  for (const [wire, offset, why] of malformed) {
    it(`refuses ${why}`, () => {
      assert.throws(
        () => [...messages(bytes(wire))],
        (error) => error instanceof NetlinkError && error.offset === offset,
      )
    })
  }

  it('refuses a datagram truncated at any byte', () => {
    for (let length = 1; length < getFamily.length; length++) {
      assert.throws(() => [...messages(getFamily.subarray(0, length))], NetlinkError)
    }
  })
})

describe('generic header', () => {
  it('is command, version, two bytes reserved', () => {
    assert.deepEqual(readGenericHeader(bytes('0301 0200')), {
      command: 3,
      version: 1,
      reserved: 2,
    })
    assert.equal(hex(genericHeader(3)), '03010000')
    assert.throws(() => readGenericHeader(bytes('030100')), NetlinkError)
  })
})

describe('answers', () => {
  it('acknowledges with the header of the request (netlink-api, appendix A)', () => {
    const wire = '24000000 02000001 e8030000 92100000 00000000 20000000 10000500 e8030000 92100000'
    assert.equal(hex(ack(request)), hex(bytes(wire)))
    assert.equal(readAnswer(first(ack(request))).errno, 0)
  })

  // Captured from Linux 6.18: an unknown family, and a name that is too long with EXT_ACK on.
  it('refuses with a copy of the request, as Linux does', () => {
    const asked = '20000000 10000500 e8030000 00000000 03010000 09000200 6e6f7065 00000000'
    const answer = `34000000 02000000 e8030000 e0260000 feffffff ${asked}`
    const received = { ...first(bytes(asked)), pid: 0x26e0 } // the socket's address, not the sender's word
    assert.equal(hex(refusal(received, { errno: 2 }, plain)), hex(bytes(answer)))
  })

  it('reads what Linux complains about', () => {
    const answer = bytes(
      `88000000 02000002 e8030000 e0260000 eaffffff
       30000000 10000500 e8030000 00000000 03010000 19000200 6e6f7065 6e6f7065 6e6f7065 6e6f7065
       6e6f7065 00000000 27000100 41747472 69627574 65206661 696c6564 20706f6c 69637920 76616c69
       64617469 6f6e0000 08000200 14000000 14000480 08000700 0f000000 08000100 0c000000`,
    )
    assert.deepEqual(readAnswer(first(answer)), {
      errno: 22,
      text: 'Attribute failed policy validation',
      offset: 20,
      missType: undefined,
      missNest: undefined,
    })
  })

  const complaint = { errno: 22, text: 'no socket', offset: 20, missType: 6, missNest: 28 }
  const lengths: [extAck: boolean, capAck: boolean, flags: number, length: number][] = [
    [false, false, 0, 16 + 4 + 32],
    [false, true, NLM_F.CAPPED, 16 + 4 + 16],
    [true, false, NLM_F.ACK_TLVS, 16 + 4 + 32 + 16 + 3 * 8],
    [true, true, NLM_F.ACK_TLVS | NLM_F.CAPPED, 16 + 4 + 16 + 16 + 3 * 8],
  ]
  for (const [extAck, capAck, flags, length] of lengths) {
    it(`EXT_ACK ${extAck}, CAP_ACK ${capAck}: flags ${flags}, ${length} bytes`, () => {
      const answer = first(refusal(request, complaint, { extAck, capAck }))
      assert.deepEqual([answer.flags, answer.bytes.length], [flags, length])
      assert.deepEqual([answer.seq, answer.pid], [1000, 4242])
      assert.deepEqual(readAnswer(answer), extAck ? complaint : { errno: 22 })
    })
  }

  it('sets no ACK_TLVS where there is nothing to say', () => {
    const answer = first(refusal(request, { errno: 2 }, { extAck: true, capAck: false }))
    assert.equal(answer.flags, 0)
  })

  it('copies an unaligned request so that what follows is aligned', () => {
    const odd = first(message({ type: 0x20, flags: 5, seq: 1, pid: 2 }, new Uint8Array(5)))
    const answer = first(refusal(odd, complaint, { extAck: true, capAck: false }))
    assert.deepEqual(readAnswer(answer), complaint)
  })

  it('refuses an answer truncated at any byte, or lying about its copy', () => {
    const wire = refusal(request, complaint, { extAck: true, capAck: false })
    const whole = first(wire)
    for (let length = 0; length < whole.payload.length; length++) {
      const cut = { ...whole, payload: whole.payload.subarray(0, length) }
      const read = () => readAnswer(cut)
      // Cut between two attributes, or in padding, it is whole, and says less.
      if ([36, 50, 51, 52, 60, 68].includes(length)) assert.equal(read().missNest, undefined)
      else assert.throws(read, NetlinkError, `cut at ${length}`)
    }
    for (const length of [0xffffffff, 0x80000000, 0x7ffffffd, whole.payload.length]) {
      const lying = Uint8Array.from(wire)
      new DataView(lying.buffer).setUint32(20, length, true)
      assert.throws(() => readAnswer(first(lying)), NetlinkError)
    }
  })

  it('reads random answers or throws a NetlinkError', () => {
    const random = new Random(2)
    for (let i = 0; i < 5000; i++) {
      const payload = random.bytes(random.below(81))
      const type = random.below(2) === 0 ? NLMSG.ERROR : NLMSG.DONE
      const answer = { ...request, type, flags: random.below(0x400), payload }
      try {
        readAnswer(answer)
      } catch (error) {
        assert.ok(error instanceof NetlinkError, String(error))
      }
    }
  })
})

describe('dump', () => {
  const asked = first(
    message({ type: 0x1d, flags: NLM_F.REQUEST | NLM_F.DUMP, seq: 1002, pid: 4242 }, bytes('0')),
  )

  it('ends with DONE alone (netlink-api, appendix A)', () => {
    const [end, ...more] = dump(asked, 0x1d, [], undefined, plain)
    assert.equal(hex(end!), hex(bytes('14000000 03000200 ea030000 92100000 00000000')))
    assert.deepEqual(more, [])
  })

  it('packs objects up to what any reader takes, and DONE behind', () => {
    const objects = Array.from({ length: 100 }, (_, i) => new Uint8Array(100).fill(i))
    const datagrams = [...dump(asked, 0x1d, objects, undefined, plain)]
    assert.equal(datagrams.length, 5)
    const seen = datagrams.flatMap((datagram) => {
      assert.ok(datagram.length <= 3776)
      return [...messages(datagram)]
    })
    assert.ok(seen.every(({ flags, seq, pid }) => flags === 2 && seq === 1002 && pid === 4242))
    assert.deepEqual(
      seen.slice(0, -1).map(({ payload }) => payload),
      objects,
    )
    assert.deepEqual([...messages(datagrams.at(-1)!)].length, 1)
    assert.equal(seen.at(-1)!.type, NLMSG.DONE)
  })

  it('sends an object larger than that alone', () => {
    const objects = [new Uint8Array(8), new Uint8Array(5000), new Uint8Array(8)]
    const datagrams = [...dump(asked, 0x1d, objects, undefined, plain)]
    assert.deepEqual(
      datagrams.map(({ length }) => length),
      [24, 5016, 24, 20],
    )
  })

  it('says in DONE why it failed', () => {
    const complaint = { errno: 19, text: 'ifindex does not match any interface', offset: 20 }
    const [quiet] = dump(asked, 0x1d, [], complaint, plain)
    assert.deepEqual(readAnswer(first(quiet!)), { errno: 19 })
    const [told] = dump(asked, 0x1d, [], complaint, { extAck: true, capAck: false })
    const answer = first(told!)
    assert.equal(answer.flags, NLM_F.MULTI | NLM_F.ACK_TLVS)
    assert.deepEqual(readAnswer(answer), { ...complaint, missType: undefined, missNest: undefined })
  })
})
