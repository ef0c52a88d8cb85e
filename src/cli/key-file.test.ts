import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { formatStaticKey } from '../wire/static-key.ts'
import { parseKeyFile } from './key-file.ts'

/** Byte `i` is `i`: every part is told by its first byte. */
const key = Uint8Array.from({ length: 256 }, (_, i) => i)
const encode = (text: string) => new TextEncoder().encode(text)
const hex = Buffer.from(key).toString('hex')

describe('parseKeyFile', () => {
  const good: [content: Uint8Array, why: string][] = [
    [key, 'raw bytes'],
    [encode(formatStaticKey(key)), "OpenVPN's frame"],
    [encode(hex), 'one long line'],
    [encode(`# mine\r\n\r\n${hex.slice(0, 100)}\r\n${hex.slice(100).toUpperCase()}\r\n`), 'CRLF'],
    [encode(`${hex.slice(0, 101)}\n${hex.slice(101)}`), 'a line that ends within a byte'],
  ]
  for (const [content, why] of good) {
    it(why, () => assert.deepEqual(parseKeyFile(content), key))
  }

  const bad: [content: Uint8Array, message: RegExp, why: string][] = [
    [new Uint8Array(0), /512 hexadecimal digits expected, not 0/, 'an empty file'],
    [encode(hex.slice(1)), /not 511/, 'a digit lost'],
    [encode(`${hex}00`), /not 514/, 'a byte too many'],
    [encode(`${hex.slice(0, 510)}\nzz`), /expected in line 2/, 'no digits'],
    [key.subarray(1), /expected in line 1/, '255 raw bytes'],
  ]
  for (const [content, message, why] of bad) {
    it(`refused: ${why}`, () => assert.throws(() => parseKeyFile(content), message))
  }

  it('does not show what it found', () => {
    assert.throws(
      () => parseKeyFile(encode('secret-password')),
      (error: Error) => !error.message.includes('secret'),
    )
  })
})
