import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { blockOf } from './memory.ts'
import { decodeAddress, encodeAddress } from './sockaddr.ts'

describe('a socket address', () => {
  const rows: [address: string, port: number, scope: number, hex: string, why: string][] = [
    ['10.8.0.2', 1194, 0, '020004aa0a0800020000000000000000', 'IPv4'],
    ['255.255.255.255', 65535, 0, '0200ffffffffffff0000000000000000', 'the largest of all'],
    [
      'fe80::1',
      1194,
      3,
      '0a0004aa00000000fe80000000000000000000000000000103000000',
      'link-local IPv6, by its interface',
    ],
    ['::', 0, 0, '0a000000000000000000000000000000000000000000000000000000', 'any IPv6'],
  ]
  for (const [address, port, scope, hex, why] of rows) {
    it(`is ${address} port ${port} in bytes and back: ${why}`, () => {
      const { block, length } = encodeAddress({ address, port, scope })
      assert.equal(Buffer.from(block.u8.subarray(0, length)).toString('hex'), hex)
      assert.deepEqual(decodeAddress(block), { address, port, scope })
    })
  }

  it('is plain IPv4 when it is mapped', () => {
    const { block, length } = encodeAddress({ address: '::ffff:10.8.0.2', port: 7, scope: 0 })
    const mapped = '0a0000070000000000000000000000000000ffff0a08000200000000'
    assert.equal(Buffer.from(block.u8.subarray(0, length)).toString('hex'), mapped)
    assert.deepEqual(decodeAddress(block), { address: '10.8.0.2', port: 7, scope: 0 })
  })

  it('is undefined of another family', () => {
    assert.equal(decodeAddress(blockOf(new Uint8Array([1, 0, 47, 120, 0, 0, 0, 0]))), undefined)
  })

  it('is refused where the text is none', () => {
    assert.throws(() => encodeAddress({ address: 'localhost', port: 1, scope: 0 }))
  })
})
