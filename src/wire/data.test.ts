import assert from 'node:assert/strict'
import { getCiphers } from 'node:crypto'
import { describe, it } from 'node:test'
import { type DataAeadCase, hex, loadVectors } from '../../test/vectors/load.ts'
import {
  AAD_BYTES,
  type DataCipher,
  type DataKey,
  EPOCH_OVERHEAD_BYTES,
  type EpochDataKey,
  isKeepalive,
  isOcc,
  KEEPALIVE_MAGIC,
  OCC_MAGIC,
  OVERHEAD_BYTES,
  openDataV2,
  openEpoch,
  PACKET_ID_OFFSET,
  sealDataV2,
  sealEpoch,
  TAG_BYTES,
} from './data.ts'
import { EpochChain } from './epoch.ts'
import { keyIdOf, Opcode, opcodeOf, peerIdOf } from './opcode.ts'

// Bun's node:crypto has no ChaCha20-Poly1305: there the reference has to say so, and Node checks its bytes.
const hasChaCha = getCiphers().includes('chacha20-poly1305')

const cipherOf = (name: DataAeadCase['cipher']): DataCipher =>
  name === 'CHACHA20-POLY1305' ? 'chacha20-poly1305' : 'aes-gcm'
const keyOf = (one: DataAeadCase): DataKey => ({
  cipher: cipherOf(one.cipher),
  key: hex(one.key),
  nonceTail: hex(one.implicit_iv),
})
const count = (length: number, first = 0) => Uint8Array.from({ length }, (_, i) => first + i)

describe('P_DATA_V2 sealed and opened', () => {
  for (const one of loadVectors('data-aead-classic').cases) {
    const header = hex(one.header)
    // The rest are P_DATA_V1 and a published case whose header is no opcode.
    if (opcodeOf(header[0]!) !== Opcode.DataV2) continue
    const packet = {
      keyId: keyIdOf(header[0]!),
      peerId: peerIdOf(new DataView(header.buffer).getUint32(0)),
      packetId: one.packet_id,
      plaintext: hex(one.plaintext),
    }
    if (one.cipher === 'CHACHA20-POLY1305' && !hasChaCha) {
      it(`${one.name}: refused, this runtime lacks the cipher`, () => {
        assert.throws(() => sealDataV2(keyOf(one), packet))
        assert.throws(() => openDataV2(keyOf(one), hex(one.packet)))
      })
      continue
    }
    it(one.name, () => {
      assert.deepEqual(sealDataV2(keyOf(one), packet), hex(one.packet))
      assert.deepEqual(openDataV2(keyOf(one), hex(one.packet)), packet)
    })
  }
})

describe("the driver reference's examples", () => {
  const rows: [cipher: DataCipher, keyBytes: number, sealed: string][] = [
    ['aes-gcm', 32, '53b9d9997a96c0d92304973a8d6a5128e671c9ca01004182ec61d9527e066908'],
    ['aes-gcm', 16, '9155d6e01733b339d921e9a8761139ba691621137235f102537dd621339b07c5'],
    ['chacha20-poly1305', 32, '17f74c68a16a36057ccace3766303b0199b987822cb818b430ffa112b1c9b1ed'],
  ]
  for (const [cipher, keyBytes, sealed] of rows) {
    if (cipher === 'chacha20-poly1305' && !hasChaCha) continue
    it(`a keepalive with ${cipher} and a key of ${keyBytes} bytes`, () => {
      const key = { cipher, key: count(keyBytes), nonceTail: count(8, 0xa0) }
      const packet = { keyId: 3, peerId: 5, packetId: 1, plaintext: KEEPALIVE_MAGIC }
      assert.deepEqual(sealDataV2(key, packet), hex(`4b00000500000001${sealed}`))
    })
  }
})

describe('recorded packets of stock peers', () => {
  for (const session of loadVectors('live-sessions').sessions) {
    if (session.data_format !== 'classic') continue
    if (session.cipher === 'CHACHA20-POLY1305' && !hasChaCha) continue
    const packets = session.packets.filter(
      ({ type, packet }) => type === 'data' && opcodeOf(hex(packet)[0]!) === Opcode.DataV2,
    )
    if (packets.length === 0) continue // the session that speaks P_DATA_V1
    it(`${session.name}: ${packets.length} of them`, () => {
      const key2 = hex(session.key2)
      const keyBytes = session.cipher === 'AES-128-GCM' ? 16 : 32
      for (const { dir, packet, plaintext } of packets) {
        const at = dir === 'c2s' ? 0 : 128
        const key = {
          cipher: cipherOf(session.cipher),
          key: key2.subarray(at, at + keyBytes),
          nonceTail: key2.subarray(at + 64, at + 72),
        }
        assert.deepEqual(openDataV2(key, hex(packet))?.plaintext, hex(plaintext!))
      }
    })
  }
})

/** Key of the direction's half of key2, in its first epoch. */
function firstEpochOf(cipher: DataAeadCase['cipher'], half: Uint8Array): EpochDataKey {
  const chain = new EpochChain(half.subarray(0, 32), cipher === 'AES-128-GCM' ? 16 : 32)
  return { cipher: cipherOf(cipher), ...chain.key() }
}

describe('packets of the epoch form, sealed and opened', () => {
  for (const one of loadVectors('data-aead-epoch').cases) {
    const header = hex(one.header)
    if (opcodeOf(header[0]!) !== Opcode.DataV2) continue // published cases whose header is no opcode
    const key = { cipher: cipherOf(one.cipher), key: hex(one.key), iv: hex(one.implicit_iv) }
    const packet = {
      keyId: keyIdOf(header[0]!),
      peerId: peerIdOf(new DataView(header.buffer).getUint32(0)),
      epoch: one.epoch,
      counter: one.counter,
      plaintext: hex(one.plaintext),
    }
    if (one.cipher === 'CHACHA20-POLY1305' && !hasChaCha) {
      it(`${one.name}: refused, this runtime lacks the cipher`, () => {
        assert.throws(() => sealEpoch(key, packet))
        assert.throws(() => openEpoch(key, hex(one.packet)))
      })
      continue
    }
    it(one.name, () => {
      assert.deepEqual(sealEpoch(key, packet), hex(one.packet))
      assert.deepEqual(openEpoch(key, hex(one.packet)), packet)
    })
  }

  for (const { epoch, counter, bytes } of loadVectors('packet-id').epoch_packet_id_encoding) {
    it(`the packet id of epoch ${epoch}, counter ${counter}`, () => {
      const key: EpochDataKey = { cipher: 'aes-gcm', key: count(32), iv: count(12) }
      const packet = { keyId: 0, peerId: 0, epoch, counter, plaintext: count(1) }
      const sealed = sealEpoch(key, packet)
      assert.deepEqual(sealed.slice(4, 12), hex(bytes))
      assert.deepEqual(openEpoch(key, sealed), packet)
    })
  }

  for (const session of loadVectors('live-sessions').sessions) {
    if (session.data_format !== 'epoch') continue
    if (session.cipher === 'CHACHA20-POLY1305' && !hasChaCha) continue
    const packets = session.packets.filter(({ type }) => type === 'data')
    it(`${session.name}: ${packets.length} of a stock peer`, () => {
      assert.ok(packets.length > 0)
      const key2 = hex(session.key2)
      for (const { dir, packet, plaintext } of packets) {
        const key = firstEpochOf(session.cipher, key2.subarray(dir === 'c2s' ? 0 : 128))
        assert.deepEqual(openEpoch(key, hex(packet))?.plaintext, hex(plaintext!))
      }
    })
  }

  it('nothing that is cut short or has one bit changed opens', () => {
    const key: EpochDataKey = { cipher: 'aes-gcm', key: count(32), iv: count(12) }
    const packet = sealEpoch(key, {
      keyId: 1,
      peerId: 2,
      epoch: 3,
      counter: 4,
      plaintext: count(9),
    })
    assert.equal(packet.length, 9 + EPOCH_OVERHEAD_BYTES)
    for (let length = 0; length < packet.length; length++) {
      assert.equal(openEpoch(key, packet.slice(0, length)), undefined, `${length} bytes`)
    }
    for (let bit = 0; bit < 8 * packet.length; bit++) {
      const changed = Uint8Array.from(packet)
      changed[bit >> 3]! ^= 1 << (bit & 7)
      assert.equal(openEpoch(key, changed), undefined, `bit ${bit}`)
    }
  })
})

describe('what does not open', () => {
  const key: DataKey = { cipher: 'aes-gcm', key: count(32), nonceTail: count(8) }
  const plaintext = count(60)
  const sealed = sealDataV2(key, { keyId: 1, peerId: 2, packetId: 3, plaintext })

  it('a packet with any single bit changed', () => {
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const forged = Uint8Array.from(sealed)
      forged[bit >> 3]! ^= 1 << (bit & 7)
      assert.equal(openDataV2(key, forged), undefined, `bit ${bit}`)
    }
  })

  it('a packet cut short anywhere', () => {
    for (let length = 0; length < sealed.length; length++) {
      assert.equal(openDataV2(key, sealed.subarray(0, length)), undefined, `${length} bytes`)
    }
  })

  it('an empty plaintext is no such case: 24 bytes open', () => {
    const empty = sealDataV2(key, { keyId: 0, peerId: 0, packetId: 1, plaintext: count(0) })
    assert.equal(empty.length, OVERHEAD_BYTES)
    assert.equal(openDataV2(key, empty)?.plaintext.length, 0)
  })
})

describe('layout', () => {
  const one = loadVectors('data-aead-classic').cases.find(({ header }) => header === '4b012345')!
  const bytes = hex(one.packet)

  it('lies where the vectors have it', () => {
    assert.deepEqual(bytes.subarray(0, AAD_BYTES), hex(one.aad))
    assert.equal(new DataView(bytes.buffer).getUint32(PACKET_ID_OFFSET), one.packet_id)
    assert.deepEqual(bytes.subarray(AAD_BYTES, AAD_BYTES + TAG_BYTES), hex(one.tag))
    assert.deepEqual(bytes.subarray(OVERHEAD_BYTES), hex(one.ciphertext))
  })
})

describe('plaintext that is no IP packet', () => {
  const ping = '2a187bf3641eb4cb07ed2d0a981fc748'
  const occ = '287f346bd4ef7a812d56b8d3afc5459c'
  const rows: [bytes: string, keepalive: boolean, occ: boolean, why: string][] = [
    [ping, true, false, 'a keepalive'],
    [`${ping}00`, false, false, 'a keepalive and a byte more'],
    [ping.slice(0, -2), false, false, 'a keepalive and a byte less'],
    [`${ping.slice(0, -2)}49`, false, false, 'the last byte differs'],
    [`00${ping.slice(2)}`, false, false, 'the first byte differs'],
    [`${occ}06`, false, true, 'OCC: exit'],
    [occ, false, false, 'OCC without an operation'],
    [`${occ.slice(0, -2)}0006`, false, false, 'nearly OCC'],
    ['', false, false, 'nothing'],
    ['450000', false, false, 'shorter than either'],
  ]
  for (const [text, keepalive, isOccMessage, why] of rows) {
    it(why, () => {
      const padded = hex(`ff${text}`)
      const view = new DataView(padded.buffer)
      assert.equal(isKeepalive(view, 1, padded.length - 1), keepalive)
      assert.equal(isOcc(view, 1, padded.length - 1), isOccMessage)
    })
  }
  it('the constants are those bytes', () => {
    assert.deepEqual(KEEPALIVE_MAGIC, hex(ping))
    assert.deepEqual(OCC_MAGIC, hex(occ))
  })
})
