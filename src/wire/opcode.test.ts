import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { hex, loadVectors } from '../../test/vectors/load.ts'
import { dataV2Word, keyIdOf, Opcode, opcodeOf, PEER_ID_UNDEF, peerIdOf } from './opcode.ts'

describe('the first word of P_DATA_V2', () => {
  const words: [keyId: number, peerId: number, word: number, why: string][] = [
    [0, 0, 0x48000000, 'all zero but the opcode'],
    [3, 5, 0x4b000005, "the driver reference's example"],
    [7, PEER_ID_UNDEF, 0x4fffffff, 'all bits set'],
    [1, 0x800000, 0x49800000, "the peer id's top bit"],
  ]
  for (const [keyId, peerId, word, why] of words) {
    it(`${word.toString(16)}: ${why}`, () => {
      assert.equal(dataV2Word(keyId, peerId), word)
      assert.equal(opcodeOf(word >>> 24), Opcode.DataV2)
      assert.equal(keyIdOf(word >>> 24), keyId)
      assert.equal(peerIdOf(word), peerId)
      assert.equal(peerIdOf(word | 0), peerId, 'read as a signed number')
    })
  }
})

describe('what a packet is by its first byte', () => {
  const firsts: [first: number, opcode: number, why: string][] = [
    [0x30, Opcode.DataV1, 'P_DATA_V1'],
    [0x37, Opcode.DataV1, 'P_DATA_V1 with key id 7'],
    [0x48, Opcode.DataV2, 'P_DATA_V2'],
    [0x4f, Opcode.DataV2, 'P_DATA_V2 with key id 7'],
    [0x38, Opcode.HardResetClientV2, 'the reset between the two'],
    [0x50, Opcode.HardResetClientV3, 'the reset behind them'],
    [0x58, Opcode.ControlWkcV1, 'the last one given out'],
    [0x28, Opcode.AckV1, 'the one before them'],
    [0x00, 0, 'no opcode'],
    [0xff, 31, 'no opcode; not negative either'],
  ]
  for (const [first, opcode, why] of firsts) {
    it(`${first.toString(16)}: ${why}`, () => {
      assert.equal(opcodeOf(first), opcode)
    })
  }

  it('agrees with every packet of the recorded sessions', () => {
    const opcodes: Record<string, number> = {
      HRC2: Opcode.HardResetClientV2,
      HRC3: Opcode.HardResetClientV3,
      HRS2: Opcode.HardResetServerV2,
      CTRL: Opcode.ControlV1,
      WKC: Opcode.ControlWkcV1,
      ACK: Opcode.AckV1,
    }
    let seen = 0
    for (const { packets } of loadVectors('live-sessions').sessions) {
      for (const { type, packet } of packets) {
        const first = hex(packet)[0]!
        const isData = [Opcode.DataV1, Opcode.DataV2].some((opcode) => opcode === opcodeOf(first))
        assert.equal(isData, type === 'data', `${type} ${packet}`)
        if (type !== 'data') assert.equal(opcodeOf(first), opcodes[type], type)
        seen++
      }
    }
    assert.ok(seen > 200)
  })
})
