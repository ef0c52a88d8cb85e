import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { hex, loadVectors } from '../../test/vectors/load.ts'
import {
  CLIENT_KEY_BYTES,
  MAX_METADATA_BYTES,
  MetadataType,
  openWkc,
  SERVER_KEY_BYTES,
  sealWkc,
  splitWkc,
  timestampMetadata,
  timestampOf,
} from './wkc.ts'

const random = new Random(7)
const serverKey = random.bytes(SERVER_KEY_BYTES)
const clientKey = random.bytes(CLIENT_KEY_BYTES)

describe('wrapped client keys', () => {
  for (const row of loadVectors('tls-crypt-v2').wkc) {
    it(row.name, () => {
      const key = hex(row.server_key)
      const content = { clientKey: hex(row.client_key), metadata: hex(row.metadata) }
      assert.deepEqual(sealWkc(key, content.clientKey, content.metadata), hex(row.wkc))
      assert.deepEqual(openWkc(key, hex(row.wkc)), content)
    })
  }

  for (const length of [0, 1, MAX_METADATA_BYTES]) {
    it(`${length} bytes of metadata`, () => {
      const metadata = random.bytes(length)
      const wkc = sealWkc(serverKey, clientKey, metadata)
      assert.equal(wkc.length, 290 + length)
      assert.deepEqual(openWkc(serverKey, wkc), { clientKey, metadata })
    })
  }

  it('opens with no other key, none of its bytes changed, and nothing cut off or added', () => {
    const wkc = sealWkc(serverKey, clientKey, timestampMetadata(1_700_000_000))
    for (let at = 0; at < wkc.length; at++) {
      const changed = Uint8Array.from(wkc)
      changed[at]! ^= 1 << (at & 7)
      assert.equal(openWkc(serverKey, changed), undefined, `byte ${at}`)
      assert.equal(openWkc(serverKey, wkc.subarray(0, at)), undefined, `the first ${at}`)
    }
    assert.equal(openWkc(serverKey, Uint8Array.from([0, ...wkc])), undefined, 'one before')
    for (const at of [0, 31, 64, 95]) {
      const other = Uint8Array.from(serverKey)
      other[at]! ^= 1
      assert.equal(openWkc(other, wkc), undefined, `byte ${at} of the key`)
    }
  })

  const wrong: [call: () => unknown, why: string][] = [
    [() => sealWkc(serverKey.subarray(1), clientKey, new Uint8Array(0)), "a short server's key"],
    [() => openWkc(serverKey.subarray(1), new Uint8Array(300)), "a short server's key to open"],
    [() => sealWkc(serverKey, clientKey.subarray(1), new Uint8Array(0)), "a short client's key"],
    [() => sealWkc(serverKey, clientKey, new Uint8Array(735)), 'more metadata than fits'],
  ]
  for (const [call, why] of wrong) it(`refuses ${why}`, () => assert.throws(call, RangeError))
})

describe('the length at the end of a packet', () => {
  const rows: [bytes: number, length: number, packet: number | undefined, why: string][] = [
    [344, 290, 54, 'the shortest'],
    [1078, 1024, 54, 'the longest'],
    [344, 289, undefined, 'shorter than one can be'],
    [2000, 1025, undefined, 'longer than one can be'],
    [344, 345, undefined, 'longer than the packet'],
    [290, 290, 0, 'nothing before it'],
    [289, 290, undefined, 'a packet too short for one'],
    [344, 0, undefined, 'none'],
    [344, 0xffff, undefined, 'all ones'],
    [1, 0, undefined, 'a packet of one byte'],
  ]
  for (const [bytes, length, packet, why] of rows) {
    it(`${length} of ${bytes}: ${why}`, () => {
      const datagram = random.bytes(bytes)
      datagram.set(bytes < 2 ? [] : [length >> 8, length & 0xff], Math.max(0, bytes - 2))
      const split = splitWkc(datagram)
      assert.equal(split?.packet.length, packet)
      if (split !== undefined) assert.equal(split.wkc.length, length)
    })
  }
})

describe('metadata', () => {
  it('tells when a key was made', () => {
    assert.deepEqual(timestampMetadata(0), hex('010000000000000000'))
    assert.equal(timestampOf(timestampMetadata(1_700_000_000.9)), 1_700_000_000)
    assert.equal(timestampOf(hex('01ffffffffffffffff')), -1)
  })

  const others: [metadata: string, why: string][] = [
    ['', 'none at all'],
    ['01', 'only a type'],
    ['0100000000000000', 'a byte less'],
    ['000000000000000000', 'another type'],
  ]
  for (const [metadata, why] of others) {
    it(`tells nothing: ${why}`, () => assert.equal(timestampOf(hex(metadata)), undefined))
  }

  it('begins with a type', () => {
    assert.equal(timestampMetadata(5)[0], MetadataType.Timestamp)
    assert.equal(MetadataType.User, 0)
  })
})
