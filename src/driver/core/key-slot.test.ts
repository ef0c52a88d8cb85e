import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createNodeAeads, hasChaCha } from '../../../test/sim/aead.ts'
import { createMemory } from '../../../test/sim/memory.ts'
import { type DataAeadCase, hex, loadVectors } from '../../../test/vectors/load.ts'
import { keyIdOf, Opcode, opcodeOf, peerIdOf } from '../../wire/opcode.ts'
import type { AeadCipher } from './aead.ts'
import { createKeySlot, type KeyCipher, type KeyConfig, type KeySlot } from './key-slot.ts'

const PLAIN = 1024
const SEALED = 4096
const OPENED = 8192
const LAST = 0xffffffff

const silence = {
  ageing: () => assert.fail('a classic key tells of its end only when it is there'),
  pulled: () => assert.fail('it has no epochs'),
}

const count = (length: number, first = 0) => Uint8Array.from({ length }, (_, i) => first + i)

/** A slot of AES-256-GCM with different keys and tails per direction, but for `fields`; `mirror`: the other end's. */
function config(fields: Partial<KeyConfig> = {}, mirror = false): KeyConfig {
  const up = { cipherKey: count(32), nonceTail: count(8, 100) }
  const down = { cipherKey: count(32, 50), nonceTail: count(8, 200) }
  return {
    keyId: 3,
    cipher: 'aes-256-gcm',
    encrypt: mirror ? down : up,
    decrypt: mirror ? up : down,
    ...fields,
  }
}

function rig() {
  const memory = createMemory(16384)
  const nonce = memory.area(12, 16)
  const provider = createNodeAeads(memory)
  const slot = (of: KeyConfig) => createKeySlot(of, provider, memory, nonce, 0, silence)
  /** Seals `plain`, as the bytes of a packet or what `seal` returned. */
  const seal = (by: KeySlot, plain: Uint8Array, peerId = 5): Uint8Array | number => {
    memory.u8.set(plain, PLAIN)
    const written = by.seal(PLAIN, plain.length, SEALED, peerId)
    return written <= 0 ? written : memory.u8.slice(SEALED, SEALED + written)
  }
  /** Opens a packet, to its plaintext; undefined: not authentic. */
  const open = (by: KeySlot, packet: Uint8Array): Uint8Array | undefined => {
    memory.u8.set(packet, SEALED)
    const length = by.open(SEALED, packet.length, OPENED)
    return length < 0 ? undefined : memory.u8.slice(OPENED, OPENED + length)
  }
  const sealed = (by: KeySlot, plain: Uint8Array, peerId?: number) => {
    const packet = seal(by, plain, peerId)
    assert.ok(packet instanceof Uint8Array, `seal returned ${packet}`)
    return packet
  }
  return { memory, nonce, provider, slot, seal, sealed, open }
}

describe('KeySlot against the vectors', () => {
  for (const one of loadVectors('data-aead-classic').cases) {
    const header = hex(one.header)
    // The rest are P_DATA_V1, and a published case whose header is no opcode.
    if (opcodeOf(header[0]!) !== Opcode.DataV2) continue
    const cipher = one.cipher.toLowerCase() as AeadCipher
    const direction = (material: DataAeadCase) => ({
      cipherKey: hex(material.key),
      nonceTail: hex(material.implicit_iv),
    })
    const of = (): KeyConfig => ({
      keyId: keyIdOf(header[0]!),
      cipher,
      encrypt: direction(one),
      decrypt: direction(one),
      firstPacketId: one.packet_id,
    })
    if (cipher === 'chacha20-poly1305' && !hasChaCha) {
      it(`${one.name}: refused, this runtime lacks the cipher`, () => {
        assert.throws(() => rig().slot(of()))
      })
      continue
    }
    it(one.name, () => {
      const { slot, seal, open } = rig()
      const peerId = peerIdOf(new DataView(header.buffer).getUint32(0))
      assert.deepEqual(seal(slot(of()), hex(one.plaintext), peerId), hex(one.packet))
      assert.deepEqual(open(slot(of()), hex(one.packet)), hex(one.plaintext))
    })
  }
})

describe('KeySlot', () => {
  const plain = count(50)

  it('uses a key and a nonce tail per direction', () => {
    const { slot, sealed, open } = rig()
    const [here, there] = [slot(config()), slot(config({}, true))]
    assert.deepEqual(open(there, sealed(here, plain)), plain)
    assert.deepEqual(open(here, sealed(there, plain)), plain)
    assert.equal(open(here, sealed(here, plain)), undefined, 'its own packet thrown back')
  })

  it('uses keys of a length per direction', () => {
    const { slot, sealed, open } = rig()
    const short = () => ({ cipherKey: count(16, 50), nonceTail: count(8, 200) })
    const one = slot(config({ decrypt: short(), decryptCipher: 'aes-128-gcm' }))
    const other = slot(
      config({ cipher: 'aes-128-gcm', encrypt: short(), decryptCipher: 'aes-256-gcm' }, true),
    )
    assert.deepEqual(open(other, sealed(one, plain)), plain)
    assert.deepEqual(open(one, sealed(other, plain)), plain)
  })

  it('opens nothing that has one bit changed, the peer id and the packet id included', () => {
    const { slot, sealed, open } = rig()
    const packet = sealed(slot(config()), plain)
    const there = slot(config({}, true))
    for (let bit = 0; bit < 8 * packet.length; bit++) {
      const changed = Uint8Array.from(packet)
      changed[bit >> 3]! ^= 1 << (bit & 7)
      assert.equal(open(there, changed), undefined, `bit ${bit}`)
    }
    assert.deepEqual(open(there, packet), plain)
  })

  it('opens nothing that is cut short or has grown', () => {
    const { slot, sealed, open } = rig()
    const packet = sealed(slot(config()), plain)
    const there = slot(config({}, true))
    for (let length = 0; length < packet.length; length++) {
      assert.equal(open(there, packet.slice(0, length)), undefined, `${length} bytes`)
    }
    assert.equal(open(there, Uint8Array.of(...packet, 0)), undefined)
  })

  it('seals nothing, to a header and a tag', () => {
    const { slot, sealed, open } = rig()
    const packet = sealed(slot(config()), new Uint8Array(0))
    assert.equal(packet.length, 24)
    assert.deepEqual(open(slot(config({}, true)), packet), new Uint8Array(0))
  })

  it('gives every packet an id of its own, and tells the last', () => {
    const { slot, sealed, memory } = rig()
    const here = slot(config())
    assert.equal(here.lastPacketId, 0)
    const ids = [1, 2, 3].map(() => {
      sealed(here, plain)
      return memory.view.getUint32(SEALED + 4)
    })
    assert.deepEqual(ids, [1, 2, 3])
    assert.equal(here.lastPacketId, 3)
  })

  it('uses the last packet id, once', () => {
    const { slot, seal, sealed, open } = rig()
    const here = slot(config({ firstPacketId: LAST }))
    const packet = sealed(here, plain)
    assert.deepEqual(packet.slice(4, 8), hex('ffffffff'))
    assert.deepEqual(open(slot(config({}, true)), packet), plain)
    assert.deepEqual([seal(here, plain), seal(here, plain)], [0, 0])
    assert.equal(here.lastPacketId, LAST)
  })

  it('uses a packet id up even if the cipher fails', () => {
    const { provider, memory, nonce } = rig()
    const failing: typeof provider = {
      name: 'failing',
      create: (...of) => ({ ...provider.create(...of), seal: () => false }),
    }
    const here = createKeySlot(config(), failing, memory, nonce, 0, silence)
    assert.deepEqual([here.seal(PLAIN, 5, SEALED, 1), here.lastPacketId], [-1, 1])
  })

  it('knows a packet it has seen, whatever was opened in between', () => {
    const { slot, sealed, open, memory } = rig()
    const [here, there] = [slot(config()), slot(config({}, true))]
    const [first, second] = [sealed(here, plain), sealed(here, plain)]
    const fresh = (packet: Uint8Array) => {
      assert.deepEqual(open(there, packet), plain)
      return there.fresh(SEALED, 0)
    }
    assert.deepEqual([second, first, first, second].map(fresh), [true, true, false, false])
    // A new slot starts afresh: the same id is another nonce under another key.
    const later = slot(config({}, true))
    memory.u8.set(first, SEALED)
    assert.equal(later.fresh(SEALED, 0), true)
  })

  it('carries packets in the clear where no cipher is wanted', () => {
    const { slot, sealed, open } = rig()
    const packet = sealed(slot(config({ cipher: 'none' })), plain)
    assert.deepEqual(packet, Uint8Array.of(...hex('4b00000500000001'), ...plain))
    assert.deepEqual(open(slot(config({ cipher: 'none' })), packet), plain)
    assert.equal(open(slot(config({ cipher: 'none' })), packet.slice(0, 7)), undefined)
  })
})

describe('KeySlot: key material', () => {
  const zeros = (bytes: Uint8Array) => bytes.every((byte) => byte === 0)
  const short = (): KeyConfig => ({
    ...config(),
    decrypt: { cipherKey: count(31, 1), nonceTail: count(8) },
  })
  const noTail = (): KeyConfig => ({
    ...config(),
    decrypt: { cipherKey: count(32, 1), nonceTail: count(7) },
  })
  const rows: [why: string, config: KeyConfig, throws: boolean][] = [
    ['when the ciphers have it', config(), false],
    ['when nobody wants it', config({ cipher: 'none' }), false],
    ['when a key has the wrong length', short(), true],
    ['when a nonce tail is too short', noTail(), true],
    ['when there is no such cipher', config({ cipher: 'rot13' as KeyCipher }), true],
  ]
  for (const [why, of, throws] of rows) {
    it(`is wiped ${why}`, () => {
      const { slot } = rig()
      if (throws) assert.throws(() => slot(of))
      else slot(of)
      assert.ok(zeros(of.encrypt.cipherKey) && zeros(of.decrypt.cipherKey))
    })
  }

  it('is forgotten on close, and after a half that failed', () => {
    const { provider, memory, nonce } = rig()
    const closed: string[] = []
    const watching: typeof provider = {
      name: 'watching',
      create: (cipher, key, direction) => {
        const aead = provider.create(cipher, key, direction)
        return { ...aead, close: () => closed.push(direction) }
      },
    }
    createKeySlot(config(), watching, memory, nonce, 0, silence).close()
    assert.deepEqual(closed.sort(), ['open', 'seal'])
    closed.length = 0
    assert.throws(() => createKeySlot(short(), watching, memory, nonce, 0, silence))
    assert.deepEqual(closed, ['seal'])
  })
})
