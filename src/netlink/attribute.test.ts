import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { bytes, hex } from '../../test/bytes.ts'
import { Random } from '../../test/random.ts'
import {
  attributes,
  NetlinkError,
  nested,
  readS32,
  readString,
  readU8,
  readU16,
  readU32,
  readU64,
  Writer,
} from './attribute.ts'

describe('Writer', () => {
  const rows: [wire: string, fill: (w: Writer) => Writer, why: string][] = [
    ['0500 0100 07000000', (w) => w.u8(1, 7), 'one byte and three of padding'],
    ['0600 0200 3412 0000', (w) => w.u16(2, 0x1234), 'host order'],
    ['0800 0300 78563412', (w) => w.u32(3, 0x12345678), 'host order'],
    ['0800 0300 ffffffff', (w) => w.u32(3, -1), 'a signed value by its bits'],
    ['0c00 0400 04000000 01000000', (w) => w.u64(4, 2 ** 32 + 4), 'both halves'],
    ['0600 0500 04aa 0000', (w) => w.be16(5, 1194), 'a port, in network order'],
    ['0800 0600 c000020a', (w) => w.be32(6, 0xc000020a), 'an address, in network order'],
    ['0800 0700 ffffffff', (w) => w.uint(7, 2 ** 32 - 1), 'the last that fits four bytes'],
    ['0c00 0700 00000000 01000000', (w) => w.uint(7, 2 ** 32), 'the first that does not'],
    ['0900 0200 6f76706e 00000000', (w) => w.string(2, 'ovpn'), 'NUL, then padding'],
    ['0700 0800 010203 00', (w) => w.bytes(8, Uint8Array.of(1, 2, 3)), 'as they are'],
    ['0400 0900', (w) => w.flag(9), 'no payload'],
    ['0c00 0280 0800 0100 03000000', (w) => w.nest(2, (n) => n.u32(1, 3)), 'marked as a nest'],
    [
      '0c00 0200 0800 0100 03000000',
      (w) => w.nest(2, (n) => n.u32(1, 3), { flag: false }),
      'not marked',
    ],
    ['0400 0280', (w) => w.nest(2, () => {}), 'an empty nest stays'],
  ]
  for (const [wire, fill, why] of rows) {
    it(`${wire}: ${why}`, () => assert.equal(hex(fill(new Writer()).finish()), hex(bytes(wire))))
  }

  it('starts behind a header', () => {
    assert.equal(hex(new Writer(bytes('03010000')).flag(1).finish()), '0301000004000100')
  })

  it('grows, with nests open', () => {
    const big = new Uint8Array(20_000).fill(7)
    const writer = new Writer().nest(1, (w) => w.nest(2, (n) => n.bytes(3, big).u8(4, 1)))
    const [outer] = attributes(writer.finish())
    const [inner] = nested(outer!)
    const [first, second] = nested(inner!)
    assert.deepEqual(first!.payload, big)
    assert.equal(readU8(second!), 1)
  })

  it('refuses what does not fit a length of 16 bits', () => {
    assert.throws(() => new Writer().bytes(1, new Uint8Array(65_532)), RangeError)
    const half = new Uint8Array(40_000)
    assert.throws(() => new Writer().nest(1, (w) => w.bytes(1, half).bytes(2, half)), RangeError)
    assert.equal(new Writer().bytes(1, new Uint8Array(65_531)).finish().length, 65_536)
  })
})

describe('attributes', () => {
  it('strips the flag bits and tells offsets through nests', () => {
    const wire = new Writer(bytes('01020304'))
      .flag(1)
      .nest(2, (w) => w.u32(1, 5).be16(0x4000 | 5, 1194))
      .finish()
    const [first, second] = attributes(wire, 4)
    assert.deepEqual([first!.type, first!.nested, first!.offset], [1, false, 4])
    assert.deepEqual([second!.type, second!.nested, second!.offset], [2, true, 8])
    const [id, port] = nested(second!)
    assert.deepEqual([id!.type, id!.offset, port!.type, port!.offset], [1, 12, 5, 20])
    const [based] = attributes(wire, 4, 16)
    assert.equal([...nested([...attributes(wire, 4, 16)][1]!)][1]!.offset, 36)
    assert.equal(based!.offset, 20)
  })

  it('gives views of what it was given', () => {
    const wire = new Writer().bytes(1, Uint8Array.of(1, 2)).finish()
    const [attribute] = attributes(wire)
    assert.equal(attribute!.payload.buffer, wire.buffer)
  })

  it('takes a last attribute without its padding', () => {
    const [first] = attributes(bytes('0500 0100 07'))
    assert.equal(readU8(first!), 7)
  })

  const malformed: [wire: string, offset: number, why: string][] = [
    ['04', 0, 'one byte'],
    ['0400 01', 0, 'a header cut short'],
    ['0300 0100', 0, 'a length shorter than the header'],
    ['0000 0000', 0, 'a length of zero'],
    ['0900 0100 07000000', 0, 'a length past the end'],
    ['ffff 0100 07000000', 0, 'the longest length'],
    ['0400 0100 01', 4, 'trailing garbage behind a good one'],
  ]
  for (const [wire, offset, why] of malformed) {
    it(`${wire}: ${why}`, () => {
      assert.throws(
        () => [...attributes(bytes(wire))],
        (error) => error instanceof NetlinkError && error.offset === offset,
      )
    })
  }

  it('yields the good ones first', () => {
    const seen: number[] = []
    assert.throws(() => {
      for (const { type } of attributes(bytes('0400 0100 0400 0200 00'))) seen.push(type)
    }, /header of 4 bytes expected at offset 8/)
    assert.deepEqual(seen, [1, 2])
  })

  it('ends every random input in a NetlinkError or with its end', () => {
    const random = new Random(1)
    let refused = 0
    for (let i = 0; i < 5000; i++) {
      const wire = random.bytes(random.below(65))
      // Small lengths, so that some get past the first attribute.
      for (let at = 1; at < wire.length; at += 4) wire[at] = 0
      try {
        for (const attribute of attributes(wire)) {
          assert.ok(attribute.offset + 4 + attribute.payload.length <= wire.length)
        }
      } catch (error) {
        assert.ok(error instanceof NetlinkError, String(error))
        refused++
      }
    }
    assert.ok(refused > 1000)
  })
})

describe('readers', () => {
  const rows: [wire: string, read: (a: never) => unknown, value: unknown, why: string][] = [
    ['07', readU8, 7, 'u8'],
    ['3412', readU16, 0x1234, 'u16'],
    ['ffffffff', readU32, 0xffffffff, 'u32 is unsigned'],
    ['ffffffff', readS32, -1, 's32 is not'],
    ['04000000 01000000', readU64, 2 ** 32 + 4, 'u64'],
    ['6f766e00 ff', readString, 'ovn', 'a string up to its NUL'],
    ['6f766e', readString, 'ovn', 'a string without one'],
  ]
  for (const [wire, read, value, why] of rows) {
    const attribute = { type: 1, nested: false, offset: 8, payload: bytes(wire) }
    it(why, () => assert.equal(read(attribute as never), value))
    if (read === readString) continue
    it(`${why}: no other length`, () => {
      for (const length of [0, 1, 2, 3, 4, 5, 7, 8, 9, 16]) {
        if (length === attribute.payload.length) continue
        const wrong = { ...attribute, payload: new Uint8Array(length) }
        assert.throws(() => read(wrong as never), /at offset 8/)
      }
    })
  }
})
