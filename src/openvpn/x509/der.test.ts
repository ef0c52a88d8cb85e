import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../../test/random.ts'
import { hex } from '../../../test/vectors/load.ts'
import {
  DerError,
  DerReader,
  readAll,
  readBits,
  readDer,
  readOid,
  readSmallInteger,
  readText,
  readTime,
} from './der.ts'

const of = (bytes: string) => readDer(hex(bytes))

describe('DER', () => {
  it('values one after another, and within each other', () => {
    const reader = new DerReader(of('3006' + '0201050101ff'))
    assert.equal(readSmallInteger(reader.take(0x02)), 5)
    assert.equal(reader.takeIf(0x02), undefined)
    assert.deepEqual(reader.takeIf(0x01, 0x02)?.content, Uint8Array.of(0xff))
    assert.ok(reader.done)
    assert.throws(() => reader.take(), DerError)
  })

  it('long lengths', () => {
    const long = `0482012c${'ab'.repeat(300)}`
    assert.equal(of(long).content.length, 300)
    assert.equal(of('048103ababab').content.length, 3)
  })

  const bad: [bytes: string, why: string][] = [
    ['', 'nothing'],
    ['04', 'no length'],
    ['040201', 'cut short'],
    ['04010102', 'more behind it'],
    ['0480010000', 'a length without end'],
    ['0485000000000101', 'a length of 5 bytes'],
    ['04820100', 'a length beyond the end'],
    ['1f8101', 'a tag of more than one byte'],
    ['04ffffffffff', 'a length of 127 bytes'],
  ]
  for (const [bytes, why] of bad) {
    it(`refused: ${why}`, () => assert.throws(() => of(bytes), DerError))
  }

  it('never throws anything else', () => {
    const random = new Random(6)
    for (let round = 0; round < 3000; round++) {
      const bytes = random.bytes(random.below(60))
      for (const read of [readDer, readAll, (b: Uint8Array) => readOid(readDer(b))]) {
        try {
          read(bytes)
        } catch (error) {
          assert.ok(error instanceof DerError)
        }
      }
    }
  })
})

describe('object identifiers', () => {
  const rows: [bytes: string, text: string | undefined, why: string][] = [
    ['0603550403', '2.5.4.3', 'the common name'],
    ['06092a864886f70d010901', '1.2.840.113549.1.9.1', 'numbers of several bytes'],
    ['0603883703', '2.999.3', 'a first number above 39, as X.690 has it'],
    ['060100', '0.0', 'the least'],
    ['0600', undefined, 'none'],
    ['060355ff83', undefined, 'cut within a number'],
    ['060a55ffffffffffffffff7f', undefined, 'a number that is too long'],
    ['0403550403', undefined, 'another kind of value'],
  ]
  for (const [bytes, text, why] of rows) {
    it(why, () => {
      if (text === undefined) assert.throws(() => readOid(of(bytes)), DerError)
      else assert.equal(readOid(of(bytes)), text)
    })
  }
})

describe('times', () => {
  const time = (tag: number, text: string) => {
    const content = Buffer.from(text)
    return readTime({ tag, content, raw: content })
  }
  const rows: [tag: number, text: string, iso: string | undefined, why: string][] = [
    [0x17, '491231235959Z', '2049-12-31T23:59:59Z', 'the last year of two digits'],
    [0x17, '500101000000Z', '1950-01-01T00:00:00Z', 'the first one'],
    [0x18, '20500101000000Z', '2050-01-01T00:00:00Z', 'four digits'],
    [0x18, '99991231235959Z', '9999-12-31T23:59:59Z', 'no end'],
    [0x17, '20500101000000Z', undefined, 'four digits where two are'],
    [0x18, '500101000000Z', undefined, 'two digits where four are'],
    [0x17, '4912312359Z', undefined, 'no seconds'],
    [0x17, '491231235959+0100', undefined, 'a zone'],
    [0x04, '491231235959Z', undefined, 'another kind of value'],
  ]
  for (const [tag, text, iso, why] of rows) {
    it(why, () => {
      if (iso === undefined) assert.throws(() => time(tag, text), DerError)
      else assert.equal(time(tag, text), Date.parse(iso) / 1000)
    })
  }
})

describe('other values', () => {
  const texts: [bytes: string, text: string, why: string][] = [
    ['0c0641c3b6e5af86', 'Aö密', 'UTF-8'],
    ['130141', 'A', 'printable characters'],
    ['140141', 'A', 'teletex, read as Latin 1'],
    ['1e0400415bc6', 'A密', 'two bytes a character'],
    ['1c08000000410001d11e', 'A𝄞', 'four bytes a character'],
  ]
  for (const [bytes, text, why] of texts) {
    it(`text: ${why}`, () => assert.equal(readText(of(bytes)), text))
  }

  it('bits, small numbers and text that are none', () => {
    assert.deepEqual(readBits(of('03020780')), Uint8Array.of(0x80))
    for (const bytes of ['0300', '03020880']) {
      assert.throws(() => readBits(of(bytes)), DerError)
    }
    for (const bytes of ['0200', '0201ff', '02050100000000']) {
      assert.throws(() => readSmallInteger(of(bytes)), DerError)
    }
    for (const bytes of ['0c01ff', '1e0141', '1c03000000', '1c0400110000', '040141']) {
      assert.throws(() => readText(of(bytes)), DerError)
    }
  })
})
