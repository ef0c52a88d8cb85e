import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { openCiphers } from './ciphers.ts'
import { openIpsecMb } from './ipsec-mb.ts'
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
const all = (JSON.parse(readFileSync(path, 'utf8')) as { cases: Vector[] }).cases
const aes = all.filter(({ cipher }) => cipher.startsWith('AES'))

const memory = createMemory({ bytes: 1 << 20 })
const provider = openIpsecMb(memory)
const skip = provider === undefined && 'libIPSec_MB.so.1 (Debian: libipsec-mb1) is not to be had'
const nonce = memory.area(12)
const aad = memory.area(64)
const tag = memory.area(16)
const plain = memory.area(4096)
const cipher = memory.area(4096)

const bytesOf = (hex: string) => new Uint8Array(Buffer.from(hex, 'hex'))
const hexAt = (at: number, length: number) =>
  Buffer.from(memory.u8.subarray(at, at + length)).toString('hex')

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

describe('ipsec-mb, on vectors made elsewhere', { skip }, () => {
  for (const vector of aes) {
    it(`seals and opens ${vector.name}`, () => {
      const { kind, key, aadLength, length } = place(vector)
      const seal = provider!.create(kind, key, 'seal')
      memory.u8.fill(0, cipher, cipher + length)
      memory.u8.fill(0, tag, tag + 16)
      assert.ok(seal.seal(nonce, aad, aadLength, plain, length, cipher, tag))
      assert.equal(hexAt(cipher, length), vector.ciphertext)
      assert.equal(hexAt(tag, 16), vector.tag)
      const open = provider!.create(kind, key, 'open')
      memory.u8.fill(0, plain, plain + length)
      assert.ok(open.open(nonce, aad, aadLength, cipher, length, plain, tag))
      assert.equal(hexAt(plain, length), vector.plaintext)
    })
  }

  it('refuses a packet that differs in any byte', () => {
    const { kind, key, aadLength, length } = place(aes[0]!)
    const open = provider!.create(kind, key, 'open')
    const places = [
      ...Array.from({ length: 12 }, (_, i) => nonce + i),
      ...Array.from({ length: aadLength }, (_, i) => aad + i),
      ...Array.from({ length: 16 }, (_, i) => tag + i),
      ...Array.from({ length }, (_, i) => cipher + i),
    ]
    for (const at of places) {
      memory.u8[at]! ^= 0x80
      assert.equal(open.open(nonce, aad, aadLength, cipher, length, plain, tag), false)
      memory.u8[at]! ^= 0x80
    }
    assert.ok(open.open(nonce, aad, aadLength, cipher, length, plain, tag))
  })

  it('knows a key only until it is closed, and one direction each', () => {
    const { kind, key, aadLength, length } = place(aes[0]!)
    const seal = provider!.create(kind, key, 'seal')
    const open = provider!.create(kind, key, 'open')
    assert.equal(seal.open(nonce, aad, aadLength, cipher, length, plain, tag), false)
    assert.equal(open.seal(nonce, aad, aadLength, plain, length, cipher, tag), false)
    seal.close()
    open.close()
    assert.equal(seal.seal(nonce, aad, aadLength, plain, length, cipher, tag), false)
    assert.equal(open.open(nonce, aad, aadLength, cipher, length, plain, tag), false)
  })

  it('refuses keys of other lengths, and ciphers it is not asked for', () => {
    assert.throws(() => provider!.create('aes-256-gcm', new Uint8Array(16), 'seal'), RangeError)
    assert.throws(() => provider!.create('chacha20-poly1305', new Uint8Array(32), 'seal'))
  })
})

describe('the choice of ciphers', () => {
  const clocks: [name: string, ms: (call: number) => number, chosen: RegExp, why: string][] = [
    ['faster', (call) => (call <= 6 ? call : 100 * call), /^ipsec-mb/, 'its trial took less time'],
    ['slower', (call) => (call <= 6 ? 100 * call : 600 + call), /^libcrypto$/, 'it took more'],
  ]
  for (const [name, ms, chosen, why] of clocks) {
    it(`takes ipsec-mb when it is ${name}: ${why}`, { skip }, () => {
      let call = 0
      assert.match(openCiphers(memory, () => ms(++call)).name, chosen)
    })
  }

  it('falls back to OpenSSL without the other library', () => {
    assert.equal(openIpsecMb(memory, 'libnot-there.so.9'), undefined)
    assert.equal(openLibcrypto(memory).name, 'libcrypto')
  })
})
