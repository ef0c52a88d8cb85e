import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { type AeadCipher, openLibcrypto } from './libcrypto.ts'
import { createMemory } from './memory.ts'

interface Vector {
  name: string
  cipher: string
  key: string
  nonce: string
  aad: string
  plaintext: string
  ciphertext: string
  tag: string
}

const path = new URL('../../test/vectors/data-aead-classic.json', import.meta.url)
const { cases } = JSON.parse(readFileSync(path, 'utf8')) as { cases: Vector[] }

const memory = createMemory({ bytes: 65536 })
const provider = openLibcrypto(memory)
const nonce = memory.area(12)
const aad = memory.area(64)
const tag = memory.area(16)
const plain = memory.area(4096)
const cipher = memory.area(4096)

const bytesOf = (hex: string) => new Uint8Array(Buffer.from(hex, 'hex'))
const hexAt = (at: number, length: number) =>
  Buffer.from(memory.u8.subarray(at, at + length)).toString('hex')

/** Puts a vector's fields into memory; returns their lengths and the key. */
function place(vector: Vector) {
  const text = bytesOf(vector.plaintext)
  const extra = bytesOf(vector.aad)
  memory.u8.set(bytesOf(vector.nonce), nonce)
  memory.u8.set(extra, aad)
  memory.u8.set(text, plain)
  memory.u8.set(bytesOf(vector.ciphertext), cipher)
  memory.u8.set(bytesOf(vector.tag), tag)
  const kind = vector.cipher.toLowerCase() as AeadCipher
  return { kind, key: bytesOf(vector.key), aadLength: extra.length, length: text.length }
}

describe('libcrypto, on vectors made elsewhere', () => {
  it('has vectors for every cipher', () => {
    assert.deepEqual([...new Set(cases.map((vector) => vector.cipher))].sort(), [
      'AES-128-GCM',
      'AES-192-GCM',
      'AES-256-GCM',
      'CHACHA20-POLY1305',
    ])
  })

  for (const vector of cases) {
    it(`seals ${vector.name}`, () => {
      const { kind, key, aadLength, length } = place(vector)
      memory.u8.fill(0, cipher, cipher + length)
      memory.u8.fill(0, tag, tag + 16)
      const aead = provider.create(kind, key, 'seal')
      for (let again = 0; again < 2; again++) {
        assert.ok(aead.seal(nonce, aad, aadLength, plain, length, cipher, tag))
        assert.equal(hexAt(cipher, length), vector.ciphertext)
        assert.equal(hexAt(tag, 16), vector.tag)
      }
      aead.close()
    })

    it(`opens ${vector.name}`, () => {
      const { kind, key, aadLength, length } = place(vector)
      memory.u8.fill(0xee, plain, plain + length + 64)
      const aead = provider.create(kind, key, 'open')
      assert.ok(aead.open(nonce, aad, aadLength, cipher, length, plain, tag))
      assert.equal(hexAt(plain, length), vector.plaintext)
      assert.equal(hexAt(plain + length, 64), 'ee'.repeat(64), 'nothing behind the plaintext')
      aead.close()
    })

    it(`refuses ${vector.name} with any byte changed, and then opens it unchanged`, () => {
      const { kind, key, aadLength, length } = place(vector)
      const aead = provider.create(kind, key, 'open')
      const parts = [
        { at: nonce, length: 12 },
        { at: aad, length: aadLength },
        { at: cipher, length },
        { at: tag, length: 16 },
      ]
      for (const part of parts) {
        for (let i = part.at; i < part.at + part.length; i++) {
          memory.u8[i]! ^= 0x40
          assert.equal(aead.open(nonce, aad, aadLength, cipher, length, plain, tag), false)
          memory.u8[i]! ^= 0x40
        }
      }
      assert.ok(aead.open(nonce, aad, aadLength, cipher, length, plain, tag))
      assert.equal(hexAt(plain, length), vector.plaintext)
      aead.close()
    })
  }
})

describe('libcrypto', () => {
  const key = new Uint8Array(32).fill(7)

  it('names itself and its version', () => {
    assert.equal(provider.name, 'libcrypto')
    assert.match(provider.version, /^3\.\d/)
  })

  it('seals and opens in place, at any alignment, down to nothing', () => {
    const sealer = provider.create('chacha20-poly1305', key, 'seal')
    const opener = provider.create('chacha20-poly1305', key, 'open')
    for (const length of [0, 1, 15, 16, 17, 63, 1400]) {
      for (let at = plain; at < plain + 5; at++) {
        memory.u8.fill(length & 0xff, at, at + length)
        const before = hexAt(at, length)
        assert.ok(sealer.seal(nonce, aad, 8, at, length, at, tag))
        if (length > 8) assert.notEqual(hexAt(at, length), before)
        assert.ok(opener.open(nonce, aad, 8, at, length, at, tag))
        assert.equal(hexAt(at, length), before)
      }
    }
    sealer.close()
    opener.close()
  })

  it('refuses the other direction, and everything after close', () => {
    const sealer = provider.create('aes-256-gcm', key, 'seal')
    assert.equal(sealer.open(nonce, aad, 8, cipher, 8, plain, tag), false)
    sealer.close()
    sealer.close()
    assert.equal(sealer.seal(nonce, aad, 8, plain, 8, cipher, tag), false)
  })

  const badKeys: [cipher: AeadCipher, bytes: number, why: string][] = [
    ['aes-128-gcm', 32, 'too long'],
    ['aes-256-gcm', 16, 'too short'],
    ['chacha20-poly1305', 0, 'empty'],
  ]
  for (const [kind, bytes, why] of badKeys) {
    it(`refuses a key of ${bytes} bytes for ${kind}: ${why}`, () => {
      assert.throws(() => provider.create(kind, new Uint8Array(bytes), 'seal'), RangeError)
    })
  }

  it('says what to install when it is missing', () => {
    assert.throws(() => openLibcrypto(memory, 'libcrypto.so.0-none'), /libssl3/)
  })
})
