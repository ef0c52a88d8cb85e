import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { hex, loadVectors } from '../../test/vectors/load.ts'
import {
  type ControlPacket,
  controlHeaderBytes,
  decodeControl,
  decodeResetOptions,
  encodeControl,
  encodeResendWkc,
  isControlOpcode,
} from './control.ts'
import { Opcode } from './opcode.ts'

const sessionId = hex('6891923fa3103437')

describe('control packets', () => {
  for (const row of loadVectors('control-packets').cases) {
    it(`as published or recorded: ${row.name}`, () => {
      const bytes = hex(row.packet)
      const packet = decodeControl(bytes)
      assert.ok(packet)
      const expected: ControlPacket = {
        opcode: row.opcode as ControlPacket['opcode'],
        keyId: row.key_id,
        sessionId: hex(row.session_id),
        acks: row.acks,
        payload: hex(row.payload),
      }
      if (row.ack_remote_session_id !== null) {
        expected.peerSessionId = hex(row.ack_remote_session_id)
      }
      if (row.message_id !== null) expected.messageId = row.message_id
      assert.deepEqual(packet, expected)
      assert.deepEqual(encodeControl(packet), bytes)
      assert.equal(controlHeaderBytes(packet), bytes.length - expected.payload.length)
    })
  }

  const ack = '28aeb9afe1f01d79c80100000000dd85db535623b02e'
  const rows: [packet: string, taken: boolean, why: string][] = [
    ['', false, 'nothing'],
    ['386891923fa31034370000000000', true, 'the smallest reset'],
    ['386891923fa310343700000000', false, 'one byte less'],
    ['38000000000000000000' + '00000000', false, 'the session id that means none'],
    [ack, true, 'the smallest P_ACK_V1'],
    [ack.slice(0, -2), false, "a byte less of the peer's session id"],
    ['28aeb9afe1f01d79c800', true, 'a P_ACK_V1 that acknowledges nothing'],
    [`20aeb9afe1f01d79c808${'00000001'.repeat(8)}${'01'.repeat(8)}00000001`, true, '8 acks'],
    [`20aeb9afe1f01d79c809${'00000001'.repeat(9)}${'01'.repeat(8)}00000001`, false, '9 acks'],
    [`20aeb9afe1f01d79c8ff${'00000001'.repeat(255)}${'01'.repeat(12)}`, false, '255 acks'],
    ['08' + '6891923fa31034370000000000', false, 'key method 1'],
    ['10' + '6891923fa31034370000000000', false, 'key method 1 of a server'],
    ['30' + '6891923fa31034370000000000', false, 'P_DATA_V1'],
    ['48' + '6891923fa31034370000000000', false, 'P_DATA_V2'],
    ['00' + '6891923fa31034370000000000', false, 'opcode 0'],
    ['60' + '6891923fa31034370000000000', false, 'opcode 12'],
    ['f8' + '6891923fa31034370000000000', false, 'opcode 31'],
  ]
  for (const [packet, taken, why] of rows) {
    it(`${taken ? 'takes' : 'refuses'}: ${why}`, () => {
      assert.equal(decodeControl(hex(packet)) !== undefined, taken)
    })
  }

  it('round trip, cut short or changed anywhere', () => {
    const random = new Random(1)
    for (let round = 0; round < 2000; round++) {
      const opcodes = [3, 4, 5, 7, 8, 10, 11] as const
      const opcode = opcodes[random.below(opcodes.length)]!
      const acks = Array.from({ length: random.below(9) }, () => random.below(2 ** 32))
      const packet: ControlPacket = {
        opcode,
        keyId: random.below(8),
        sessionId: random.bytes(8),
        acks,
        ...(acks.length > 0 && { peerSessionId: random.bytes(8) }),
        ...(opcode !== Opcode.AckV1 && { messageId: random.below(2 ** 32) }),
        payload: random.bytes(random.below(40)),
      }
      const bytes = encodeControl(packet)
      assert.deepEqual(decodeControl(bytes), packet)
      assert.equal(
        decodeControl(bytes.subarray(0, random.below(controlHeaderBytes(packet)))),
        undefined,
      )
      bytes[random.below(bytes.length)] = random.below(256)
      const changed = decodeControl(bytes)
      if (changed !== undefined) assert.deepEqual(encodeControl(changed), bytes)
      decodeControl(random.bytes(random.below(100)))
    }
  })

  it('finds packets in the middle of other memory', () => {
    const bytes = hex(ack)
    const memory = new Uint8Array(100).fill(0xee)
    memory.set(bytes, 33)
    const packet = decodeControl(memory.subarray(33, 33 + bytes.length))!
    assert.deepEqual(encodeControl(packet), bytes)
  })

  const mistakes: [change: Partial<ControlPacket>, why: string][] = [
    [{ sessionId: new Uint8Array(7) }, 'a short session id'],
    [{ acks: [1] }, "acks without the peer's session id"],
    [{ acks: [1], peerSessionId: new Uint8Array(9) }, "a long peer's session id"],
    [{ acks: new Array(9).fill(1), peerSessionId: sessionId }, '9 acks'],
    [{ opcode: Opcode.AckV1 }, 'P_ACK_V1 with a message id'],
  ]
  for (const [change, why] of mistakes) {
    it(`never writes ${why}`, () => {
      const right: ControlPacket = {
        opcode: Opcode.ControlV1,
        keyId: 0,
        sessionId,
        acks: [],
        messageId: 1,
        payload: new Uint8Array(0),
      }
      encodeControl(right)
      assert.throws(() => encodeControl({ ...right, ...change }), RangeError)
    })
  }

  it('seven opcodes are of the control channel', () => {
    const found = Array.from({ length: 32 }, (_, opcode) => opcode).filter(isControlOpcode)
    assert.deepEqual(found, [3, 4, 5, 7, 8, 10, 11])
  })
})

describe("what a server's reset may carry", () => {
  const rows: [payload: string, resendWkc: boolean, why: string][] = [
    ['', false, 'nothing'],
    ['000100020001', true, 'as recorded of 2.6 and 2.7'],
    ['00000000000100020001', true, "after a list entry of nothing, as OpenVPN 3's server has it"],
    ['0007000312345600010002ff01', true, 'after an unknown entry; other flags are ignored'],
    ['000100020002', false, 'another flag'],
    ['00010001ff', false, 'flags too short'],
    ['00010002', false, 'cut short'],
    ['0001ffff0001', false, 'a length beyond the end'],
    ['000100', false, 'half a header'],
  ]
  for (const [payload, resendWkc, why] of rows) {
    it(why, () => assert.deepEqual(decodeResetOptions(hex(payload)), { resendWkc }))
  }

  it('is written as recorded', () => assert.deepEqual(encodeResendWkc(), hex('000100020001')))
})
