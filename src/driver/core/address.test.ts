import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addressBytes, addressText, addressWords, Endpoint, isV4, wordsOfBytes } from './address.ts'

describe('addresses as words', () => {
  const rows: [text: string, words: number[], v4: boolean, again: string, why: string][] = [
    ['10.8.0.2', [0, 0, 0xffff, 0x0a080002], true, '10.8.0.2', 'IPv4 is mapped'],
    ['255.255.255.255', [0, 0, 0xffff, -1], true, '255.255.255.255', 'beyond the sign'],
    ['0.0.0.0', [0, 0, 0xffff, 0], true, '0.0.0.0', 'no IPv4 address'],
    ['::ffff:10.8.0.2', [0, 0, 0xffff, 0x0a080002], true, '10.8.0.2', 'a mapped one is IPv4'],
    ['::', [0, 0, 0, 0], false, '::', 'no IPv6 address'],
    ['::1', [0, 0, 0, 1], false, '::1', 'not IPv4, though short'],
    ['fd00:0:0:0:0:0:0:2', [-0x3000000, 0, 0, 2], false, 'fd00::2', 'RFC 5952: zeros are left out'],
    [
      '2001:DB8::a:0:0:1',
      [0x20010db8, 0, 0x000a0000, 1],
      false,
      '2001:db8::a:0:0:1',
      'RFC 5952: lower case',
    ],
  ]
  for (const [text, words, v4, again, why] of rows) {
    it(`${text}: ${why}`, () => {
      const of = addressWords(text)
      assert.deepEqual([...of], words)
      assert.equal(isV4(of[0]!, of[1]!, of[2]!), v4)
      assert.equal(addressText(of), again)
      assert.equal(addressBytes(of).length, v4 ? 4 : 16)
      assert.deepEqual(wordsOfBytes(addressBytes(of)), of)
    })
  }

  for (const text of [
    '',
    '10.8.0',
    '0x0a080002',
    '010.8.0.2',
    '10.8.0.256',
    'fe80::1%eth0',
    'fd00::1::2',
    'localhost',
    '10.8.0.2/24',
  ]) {
    it(`${text || 'nothing'}: refused`, () => assert.throws(() => addressWords(text)))
  }
})

describe('Endpoint', () => {
  const one = Endpoint.of('fe80::1', 1194, 3)
  const rows: [other: Endpoint, same: boolean, sameAddress: boolean, why: string][] = [
    [Endpoint.of('fe80::1', 1194, 3), true, true, 'all of it'],
    [Endpoint.of('fe80::1', 1194, 4), true, true, 'the scope does not count'],
    [Endpoint.of('fe80::1', 1195, 3), false, true, 'another port'],
    [Endpoint.of('fe80::2', 1194, 3), false, false, 'the last word'],
    [Endpoint.of('fe80::1:0:0:1', 1194, 3), false, false, 'the third'],
    [Endpoint.of('fe80:0:0:1::1', 1194, 3), false, false, 'the second'],
    [Endpoint.of('fe81::1', 1194, 3), false, false, 'the first'],
  ]
  for (const [other, same, sameAddress, why] of rows) {
    it(`the same? ${why}: ${same}`, () => {
      assert.equal(one.sameAs(other), same)
      assert.equal(one.key === other.key, same, 'its key says the same')
      assert.equal(one.sameAddress(other), sameAddress)
    })
  }

  it('knows when it is none, in either family', () => {
    const none = ['0.0.0.0', '::', '::1', '1.0.0.0', '0:0:0:1::', '::1:0:0'].filter(
      (text) => Endpoint.of(text, 5).isUnspecified,
    )
    assert.deepEqual(none, ['0.0.0.0', '::'])
    assert.ok(new Endpoint().isUnspecified)
  })

  it('copies all fields', () => {
    const copy = new Endpoint()
    copy.copy(one)
    assert.deepEqual({ ...copy }, { ...one })
    assert.deepEqual([copy.address, copy.isV4], ['fe80::1', false])
  })
})
