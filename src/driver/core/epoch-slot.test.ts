import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createNodeAeads, hasChaCha } from '../../../test/sim/aead.ts'
import { createMemory } from '../../../test/sim/memory.ts'
import { type EpochAeadCase, hex, loadVectors } from '../../../test/vectors/load.ts'
import { FUTURE_EPOCHS, LAST_COUNTER, LAST_EPOCH } from '../../wire/epoch.ts'
import { keyIdOf, Opcode, opcodeOf, peerIdOf } from '../../wire/opcode.ts'
import type { AeadCipher, AeadProvider } from './aead.ts'
import { createKeySlot, type KeyConfig, type KeySlot } from './key-slot.ts'

const PLAIN = 1024
const SEALED = 4096
const OPENED = 8192
const AUTH_FAILED = -1
const NO_KEY = -2
const UNLIMITED = Number.POSITIVE_INFINITY

const count = (length: number, first = 0): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => first + i)
const plain = count(50)

/** A key with another secret per direction, but for `fields`; `mirror`: the other end's. */
function config(fields: Partial<KeyConfig> = {}, mirror = false): KeyConfig {
  const up = { cipherKey: count(32), nonceTail: count(8) }
  const down = { cipherKey: count(32, 50), nonceTail: count(8) }
  return {
    keyId: 3,
    cipher: 'aes-256-gcm',
    format: 'epoch',
    encrypt: mirror ? down : up,
    decrypt: mirror ? up : down,
    ...fields,
  }
}

function rig(wrap: (provider: AeadProvider) => AeadProvider = (provider) => provider) {
  const memory = createMemory(16384)
  const nonce = memory.area(12, 16)
  const provider = wrap(createNodeAeads(memory))
  const told: string[] = []
  const slot = (of: KeyConfig) =>
    createKeySlot(of, provider, memory, nonce, 0, {
      ageing: () => told.push('ageing'),
      pulled: (epoch) => told.push(`pulled to ${epoch}`),
    })
  /** Seals `plain`, as the bytes of a packet or what `seal` returned. */
  const seal = (by: KeySlot, bytes: Uint8Array = plain, peerId = 5): Uint8Array | number => {
    memory.u8.set(bytes, PLAIN)
    const written = by.seal(PLAIN, bytes.length, SEALED, peerId)
    return written <= 0 ? written : memory.u8.slice(SEALED, SEALED + written)
  }
  const sealed = (by: KeySlot, bytes?: Uint8Array, peerId?: number): Uint8Array => {
    const packet = seal(by, bytes, peerId)
    assert.ok(packet instanceof Uint8Array, `seal returned ${packet}`)
    return packet
  }
  /** Opens a packet, to its plaintext or what `open` returned. */
  const open = (by: KeySlot, packet: Uint8Array): Uint8Array | number => {
    memory.u8.set(packet, SEALED)
    const length = by.open(SEALED, packet.length, OPENED)
    return length < 0 ? length : memory.u8.slice(OPENED, OPENED + length)
  }
  /** Takes a packet as the receiver does. */
  const take = (by: KeySlot, packet: Uint8Array): 'new' | 'old' | number => {
    const opened = open(by, packet)
    if (typeof opened === 'number') return opened
    return by.fresh(SEALED, 0) ? 'new' : 'old'
  }
  return { memory, nonce, slot, seal, sealed, open, take, told }
}

const epochOf = (packet: Uint8Array) => (packet[4]! << 8) | packet[5]!

describe('EpochSlot against the vectors', () => {
  for (const one of loadVectors('data-aead-epoch').cases) {
    const header = hex(one.header)
    if (opcodeOf(header[0]!) !== Opcode.DataV2) continue // published cases whose header is no opcode
    const cipher = one.cipher.toLowerCase() as AeadCipher
    if (cipher === 'chacha20-poly1305' && !hasChaCha) {
      it(`${one.name}: refused, this runtime lacks the cipher`, () => {
        assert.throws(() => rig().slot(config({ cipher })))
      })
      continue
    }
    const direction = (material: EpochAeadCase) => ({
      cipherKey: hex(material.epoch_secret),
      nonceTail: new Uint8Array(8),
    })
    const of = (firstPacketId: number): KeyConfig => ({
      keyId: keyIdOf(header[0]!),
      cipher,
      format: 'epoch',
      encrypt: direction(one),
      decrypt: direction(one),
      firstEpoch: one.epoch,
      firstPacketId,
      usageLimit: UNLIMITED,
    })
    it(one.name, () => {
      const { slot, seal, open } = rig()
      const peerId = peerIdOf(new DataView(header.buffer).getUint32(0))
      assert.deepEqual(seal(slot(of(one.counter)), hex(one.plaintext), peerId), hex(one.packet))
      assert.deepEqual(open(slot(of(1)), hex(one.packet)), hex(one.plaintext))
    })
    it(`${one.name}, from the first secret on`, () => {
      const { slot, take } = rig()
      const fromFirst = {
        ...config({ cipher, keyId: 0 }),
        decrypt: { ...direction(one), cipherKey: hex(one.e1) },
      }
      const expected = one.epoch <= 1 + FUTURE_EPOCHS ? 'new' : NO_KEY
      const by = slot(fromFirst)
      assert.equal(take(by, hex(one.packet)), expected)
    })
  }
})

describe('EpochSlot', () => {
  it('uses a secret per direction', () => {
    const { slot, sealed, open } = rig()
    const [here, there] = [slot(config()), slot(config({}, true))]
    assert.deepEqual(open(there, sealed(here)), plain)
    assert.deepEqual(open(here, sealed(there)), plain)
    assert.equal(open(here, sealed(here)), AUTH_FAILED, 'its own packet thrown back')
  })

  it('takes 28 bytes more than the plaintext, also of nothing', () => {
    const { slot, sealed, open } = rig()
    const [here, there] = [slot(config()), slot(config({}, true))]
    const packet = sealed(here, new Uint8Array(0))
    assert.deepEqual([packet.length, here.overhead], [28, 28])
    assert.deepEqual(open(there, packet), new Uint8Array(0))
  })

  it('opens nothing that has one bit changed, and does not move by it', () => {
    const { slot, sealed, open } = rig()
    const packet = sealed(slot(config()))
    const there = slot(config({}, true))
    for (let bit = 0; bit < 8 * packet.length; bit++) {
      const changed = Uint8Array.from(packet)
      changed[bit >> 3]! ^= 1 << (bit & 7)
      assert.ok((open(there, changed) as number) < 0, `bit ${bit}`)
    }
    assert.deepEqual(open(there, packet), plain)
    assert.equal(there.epoch, 1)
  })

  it('opens nothing that is cut short or has grown', () => {
    const { slot, sealed, open } = rig()
    const packet = sealed(slot(config()))
    const there = slot(config({}, true))
    for (let length = 0; length < packet.length; length++) {
      assert.ok((open(there, packet.slice(0, length)) as number) < 0, `${length} bytes`)
    }
    assert.equal(open(there, Uint8Array.of(...packet, 0)), AUTH_FAILED)
  })

  it('tells the epoch and the counter last sent with', () => {
    const { slot, sealed } = rig()
    const here = slot(config({ usageLimit: 5 })) // 50 bytes are 4 blocks and a packet
    const told = () => [here.epoch, here.lastPacketId]
    assert.deepEqual(told(), [1, 0])
    const after = Array.from({ length: 4 }, () => [epochOf(sealed(here)), ...told()])
    assert.deepEqual(after, [
      [1, 1, 1],
      [1, 1, 2],
      [2, 2, 1],
      [2, 2, 2],
    ])
  })

  it('carries packets on from epoch to epoch, both ways, and late ones of the epoch before', () => {
    const { slot, sealed, take } = rig()
    // 20 packets in an epoch, opened ones as sealed ones.
    const limited = { usageLimit: 99 }
    const [here, there] = [slot(config(limited)), slot(config(limited, true))]
    for (let i = 0; i < 300; i++) {
      const packets = [sealed(here), sealed(here), sealed(here)]
      const backwards = packets.reverse().map((packet) => take(there, packet))
      assert.deepEqual(backwards, ['new', 'new', 'new'], `round ${i}`)
      assert.deepEqual(
        packets.map((packet) => take(there, packet)),
        ['old', 'old', 'old'],
      )
      assert.equal(take(here, sealed(there)), 'new')
    }
    assert.ok(here.epoch > 40 && Math.abs(there.epoch - here.epoch) < 2)
  })

  it('answers with the epoch it has heard', () => {
    const { slot, sealed, take } = rig()
    const [here, there] = [slot(config({ usageLimit: 1 })), slot(config({}, true))]
    for (let i = 0; i < 10; i++) take(there, sealed(here))
    assert.deepEqual([there.epoch, there.lastPacketId], [1, 0], 'it has not sent yet')
    assert.equal(epochOf(sealed(there)), 10)
    assert.deepEqual([there.epoch, there.lastPacketId], [10, 1])
  })

  it('does not answer with an epoch that was only claimed', () => {
    const { slot, sealed, take } = rig()
    const [here, there] = [slot(config()), slot(config({}, true))]
    const forged = sealed(here)
    for (const [epoch, outcome] of [
      [2, AUTH_FAILED],
      [17, AUTH_FAILED],
      [18, NO_KEY],
      [0, NO_KEY],
      [65535, NO_KEY],
    ] as const) {
      forged[4] = epoch >> 8
      forged[5] = epoch & 255
      assert.equal(take(there, forged), outcome, `epoch ${epoch}`)
    }
    assert.equal(epochOf(sealed(there)), 1)
    assert.equal(take(there, sealed(here)), 'new')
  })

  it('moves on when the peer has used its key up, so that it follows', () => {
    const { slot, sealed, take } = rig()
    // The other end counts less: its own limit is never reached.
    const [here, there] = [slot(config({ usageLimit: 9 })), slot(config({}, true))]
    assert.equal(take(here, sealed(there)), 'new')
    assert.equal(epochOf(sealed(here)), 1)
    assert.equal(take(here, sealed(there)), 'new') // 10 of 9
    const pulling = sealed(here)
    assert.equal(epochOf(pulling), 2)
    assert.equal(take(there, pulling), 'new')
    assert.equal(epochOf(sealed(there)), 2)
  })

  it('does so once, however much the peer goes on', () => {
    const { slot, sealed, take } = rig()
    const [here, there] = [slot(config({ usageLimit: 9 })), slot(config({}, true))]
    for (let i = 0; i < 30; i++) take(here, sealed(there))
    const epochs = [sealed(here), sealed(here)].map(epochOf)
    for (let i = 0; i < 30; i++) take(here, sealed(there))
    assert.deepEqual([...epochs, here.epoch], [2, 2, 2])
  })

  it('tells what it was pulled to, and can be pulled by who was told', () => {
    const { slot, sealed, take, told } = rig()
    const here = slot(config({ usageLimit: 9 }))
    // The other end's key in two places: one sends, one receives.
    const [sends, receives] = [slot(config({}, true)), slot(config({ usageLimit: 9 }, true))]
    for (const outcome of [[], ['pulled to 2'], [], ['pulled to 3']]) {
      assert.equal(take(receives, sealed(here)), 'new')
      assert.deepEqual(told.splice(0), outcome)
    }
    sends.pull(2)
    sends.pull(1)
    assert.equal(epochOf(sealed(sends)), 2)
  })

  it('takes the last counter of an epoch, and goes on with the next', () => {
    const { slot, sealed, take } = rig()
    const here = slot(config({ firstPacketId: LAST_COUNTER, usageLimit: UNLIMITED }))
    const there = slot(config({}, true))
    const [last, next] = [sealed(here), sealed(here)]
    assert.deepEqual(last.slice(4, 12), hex('0001ffffffffffff'))
    assert.deepEqual(next.slice(4, 12), hex('0002000000000001'))
    assert.deepEqual(
      [last, next, last].map((packet) => take(there, packet)),
      ['new', 'new', 'old'],
    )
  })

  it('ends with the last counter of the last epoch', () => {
    const { slot, seal, sealed } = rig()
    const here = slot(config({ firstEpoch: LAST_EPOCH, firstPacketId: LAST_COUNTER }))
    assert.deepEqual(sealed(here).slice(4, 12), hex('ffffffffffffffff'))
    assert.deepEqual([seal(here), seal(here), here.lastPacketId], [0, 0, LAST_COUNTER])
  })

  it('asks for a successor once, when it begins epoch 0xf000, and works on', () => {
    const { slot, sealed, told } = rig()
    const here = slot(config({ firstEpoch: 0xefff, usageLimit: 1 }))
    const seen = Array.from({ length: 4 }, () => [epochOf(sealed(here)), told.length])
    assert.deepEqual(seen, [
      [0xefff, 0],
      [0xf000, 1],
      [0xf001, 1],
      [0xf002, 1],
    ])
  })

  // CVE-2025-15497: the epochs an authenticated peer chose led OpenVPN 2.7's candidates into an assertion.
  it('survives a peer that runs through the epochs to their end', () => {
    const { slot, sealed, take } = rig()
    const first = LAST_EPOCH - 5 * FUTURE_EPOCHS - 3
    const there = slot(config({ firstEpoch: first }, true))
    for (let epoch = first; epoch <= LAST_EPOCH; ) {
      // The peer's own key, begun at that epoch of the same chain.
      const here = slot(config({ firstEpoch: first, usageLimit: 1 }))
      let packet = sealed(here)
      while (epochOf(packet) < epoch) packet = sealed(here)
      assert.equal(take(there, packet), 'new', `epoch ${epoch}`)
      assert.equal(epochOf(sealed(there)), epoch)
      if (epoch === LAST_EPOCH) break
      epoch = Math.min(LAST_EPOCH, epoch + FUTURE_EPOCHS)
    }
  })

  it('makes ciphers for 16 epochs ahead, once, however many packets claim them', () => {
    let created = 0
    const { slot, sealed, take } = rig((provider) => ({
      name: 'counting',
      create: (...of) => {
        created++
        return provider.create(...of)
      },
    }))
    const there = slot(config({}, true))
    assert.equal(created, 2)
    const forged = sealed(there) // sealed with the other secret
    for (let i = 0; i < 3000; i++) {
      forged[5] = i & 255
      forged[4] = i >> 8
      assert.ok((take(there, forged) as number) < 0)
    }
    assert.equal(created, 2 + FUTURE_EPOCHS)
  })

  it('drops packets where a cipher cannot be had any more, and throws nothing', () => {
    let left = 4
    const { slot, seal, sealed, take } = rig((provider) => ({
      name: 'exhausted',
      create: (...of) => {
        if (left-- <= 0) throw new Error('out of memory')
        return provider.create(...of)
      },
    }))
    const [here, there] = [slot(config({ usageLimit: 1 })), slot(config({}, true))]
    const first = sealed(here)
    assert.deepEqual([seal(here), here.epoch, here.lastPacketId], [-1, 2, 1])
    assert.equal(take(there, first), 'new')
    const second = Uint8Array.from(first)
    second[5] = 2
    assert.equal(take(there, second), AUTH_FAILED)
    here.close()
    there.close()
  })
})

describe('EpochSlot: key material', () => {
  const zeros = (bytes: Uint8Array) => bytes.every((byte) => byte === 0)
  const rows: [why: string, config: KeyConfig, throws: boolean][] = [
    ['when the chains have it', config(), false],
    [
      'when it is too short',
      config({ decrypt: { cipherKey: count(16, 1), nonceTail: count(8) } }),
      true,
    ],
    [
      'when it is too long',
      config({ encrypt: { cipherKey: count(64, 1), nonceTail: count(8) } }),
      true,
    ],
    ['when no cipher is wanted', config({ cipher: 'none' }), true],
  ]
  for (const [why, of, throws] of rows) {
    it(`is wiped ${why}`, () => {
      const { slot } = rig()
      if (throws) assert.throws(() => slot(of))
      else slot(of)
      assert.ok(zeros(of.encrypt.cipherKey) && zeros(of.decrypt.cipherKey))
    })
  }

  it('of a cipher is wiped when the cipher has it, and ciphers are closed', () => {
    const given: Uint8Array[] = []
    let open = 0
    const { slot, sealed, take } = rig((provider) => ({
      name: 'watching',
      create: (cipher, key, direction) => {
        given.push(key)
        open++
        const aead = provider.create(cipher, key, direction)
        return { ...aead, close: () => open-- }
      },
    }))
    const [here, there] = [slot(config({ usageLimit: 1 })), slot(config({}, true))]
    for (let i = 0; i < 40; i++) assert.equal(take(there, sealed(here)), 'new')
    assert.ok(given.length > 40 && given.every(zeros))
    assert.equal(open, 2 + 3, 'one to send with and one to receive at each end, and one retiring')
    here.close()
    there.close()
    assert.equal(open, 0)
  })
})
