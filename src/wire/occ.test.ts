import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { encodeOccReply, OCC_EXIT, occOperation } from './occ.ts'

/** The first bytes of all, from OpenVPN's occ.c. */
const MAGIC = '287f346bd4ef7a812d56b8d3afc5459c'
const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'))

describe('a message inside the data channel', () => {
  const rows: [bytes: string, operation: string | undefined, why: string][] = [
    [`${MAGIC}06`, 'exit', 'the other end leaves'],
    [`${MAGIC}0600ff`, 'exit', 'what follows is nobody’s business'],
    [`${MAGIC}00`, 'request', 'for the options string'],
    [`${MAGIC}0156342c00`, undefined, 'an answer nobody asked for'],
    [`${MAGIC}0205dc`, undefined, 'a test of the MTU'],
    [`${MAGIC}04`, undefined, 'the end of such a test'],
    [`${MAGIC}07`, undefined, 'an operation that there is not'],
    [`${MAGIC}ff`, undefined, 'nor this'],
    [MAGIC, undefined, 'no operation'],
    ['287f346bd4ef7a812d56b8d3afc5459d06', undefined, 'a byte of the magic number is another'],
    ['4500', undefined, 'a packet, or what is left of it'],
    ['', undefined, 'nothing'],
  ]
  for (const [bytes, operation, why] of rows) {
    it(`${why}: ${operation}`, () => {
      // Behind other bytes: it looks at its own.
      const whole = hex(`0000${bytes}`)
      assert.equal(occOperation(whole.subarray(2)), operation)
    })
  }

  it('of an end that leaves, as OpenVPN sends it', () =>
    assert.deepEqual(OCC_EXIT, hex(`${MAGIC}06`)))

  it('of an end that tells its options, with a NUL behind them', () =>
    assert.deepEqual(
      encodeOccReply('V4,tls-server'),
      hex(`${MAGIC}01${'56342c746c732d73657276657200'}`),
    ))
})
