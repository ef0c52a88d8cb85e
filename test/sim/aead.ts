/**
 * Ciphers of node:crypto as the driver's core wants them: slow, and no relation of the libraries that the driver runs
 * with. Bun's node:crypto has no ChaCha20-Poly1305: `hasChaCha` tells.
 */
import { createCipheriv, createDecipheriv, getCiphers } from 'node:crypto'
import type { AeadProvider } from '../../src/driver/core/aead.ts'
import type { PacketMemory } from '../../src/driver/core/memory.ts'

const TAG_BYTES = 16
const NONCE_BYTES = 12

export const hasChaCha = getCiphers().includes('chacha20-poly1305')

/** Works on `memory`. A key of the wrong length and a cipher the runtime lacks throw at `create`. */
export function createNodeAeads(memory: PacketMemory): AeadProvider {
  const { u8 } = memory
  const bytes = (offset: number, length: number) => u8.subarray(offset, offset + length)
  return {
    name: 'node:crypto',
    create(cipher, key) {
      // One type for all: the overloads differ by cipher name only, not in what is called here.
      const name = cipher as 'aes-256-gcm'
      const options = { authTagLength: TAG_BYTES }
      const own = Uint8Array.from(key) // the caller wipes his
      createCipheriv(name, own, new Uint8Array(NONCE_BYTES), options)
      return {
        seal(nonce, aad, aadLength, plain, length, out, tag) {
          const sealer = createCipheriv(name, own, bytes(nonce, NONCE_BYTES), options)
          sealer.setAAD(bytes(aad, aadLength), { plaintextLength: length })
          u8.set(sealer.update(bytes(plain, length)), out)
          sealer.final()
          u8.set(sealer.getAuthTag(), tag)
          return true
        },
        open(nonce, aad, aadLength, sealed, length, plain, tag) {
          const opener = createDecipheriv(name, own, bytes(nonce, NONCE_BYTES), options)
          opener.setAAD(bytes(aad, aadLength), { plaintextLength: length })
          opener.setAuthTag(bytes(tag, TAG_BYTES))
          u8.set(opener.update(bytes(sealed, length)), plain)
          try {
            opener.final()
            return true
          } catch {
            return false
          }
        },
        close() {
          own.fill(0)
        },
      }
    },
  }
}
