/**
 * Chooses the cipher library: OpenSSL's always works; another is used for the ciphers it has if it agrees with OpenSSL and is
 * faster here. The choice is made once per packet memory.
 */
import { openIpsecMb } from './ipsec-mb.ts'
import { type AeadCipher, type AeadProvider, openLibcrypto } from './libcrypto.ts'
import type { NativeMemory } from './memory.ts'

const TRIAL_BYTES = 1400
const TRIAL_PACKETS = 100
const TAG_BYTES = 16
const AREA_BYTES = 2048
const aesCiphers: readonly AeadCipher[] = ['aes-128-gcm', 'aes-192-gcm', 'aes-256-gcm']

/**
 * @param clock monotonic milliseconds, with a fraction
 * @throws Error that says what to install, when there is no OpenSSL
 */
export function openCiphers(
  memory: Pick<NativeMemory, 'base' | 'area' | 'u8' | 'view'>,
  clock: () => number,
): AeadProvider {
  const libcrypto = openLibcrypto(memory)
  const ipsecMb = openIpsecMb(memory)
  if (ipsecMb === undefined) return libcrypto
  const trial = createTrial(memory)
  if (!aesCiphers.every((cipher) => trial.agree(libcrypto, ipsecMb, cipher))) return libcrypto
  if (trial.time(ipsecMb, clock) >= trial.time(libcrypto, clock)) return libcrypto
  return {
    name: `${ipsecMb.name}, ${libcrypto.name}`,
    version: `${ipsecMb.version}, ${libcrypto.version}`,
    create: (cipher, key, direction) =>
      (aesCiphers.includes(cipher) ? ipsecMb : libcrypto).create(cipher, key, direction),
  }
}

function createTrial({ area, u8 }: Pick<NativeMemory, 'area' | 'u8'>) {
  const nonce = area(16, 16)
  const plain = area(AREA_BYTES, 64)
  const sealed = area(AREA_BYTES, 64)
  const opened = area(AREA_BYTES, 64)
  const keyFor = (cipher: AeadCipher) =>
    Uint8Array.from({ length: Number(cipher.slice(4, 7)) / 8 }, (_, i) => 3 * i + 1)
  const fill = (length: number) => {
    for (let i = 0; i < length; i++) u8[plain + i] = (7 * i + length) & 0xff
    for (let i = 0; i < 12; i++) u8[nonce + i] = i + length
  }
  return {
    /** Whether what either library seals is the same, and opens with the other, at lengths around every block size. */
    agree(one: AeadProvider, other: AeadProvider, cipher: AeadCipher): boolean {
      const key = keyFor(cipher)
      const seal = one.create(cipher, key, 'seal')
      const sealToo = other.create(cipher, key, 'seal')
      const open = other.create(cipher, key, 'open')
      try {
        for (const length of [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1023, TRIAL_BYTES]) {
          fill(length)
          const end = sealed + TAG_BYTES + length
          if (!seal.seal(nonce, plain, 8, plain, length, sealed + TAG_BYTES, sealed)) return false
          const expected = u8.slice(sealed, end)
          if (!open.open(nonce, plain, 8, sealed + TAG_BYTES, length, opened, sealed)) return false
          if (Buffer.compare(u8.slice(opened, opened + length), u8.slice(plain, plain + length))) {
            return false
          }
          u8.fill(0, sealed, end)
          if (!sealToo.seal(nonce, plain, 8, plain, length, sealed + TAG_BYTES, sealed)) {
            return false
          }
          if (Buffer.compare(u8.slice(sealed, end), expected)) return false
          u8[sealed + (length % TAG_BYTES)]! ^= 1
          if (open.open(nonce, plain, 8, sealed + TAG_BYTES, length, opened, sealed)) return false
        }
        return true
      } finally {
        for (const aead of [seal, sealToo, open]) aead.close()
      }
    },
    /** Milliseconds for a number of packets, the best of three. */
    time(provider: AeadProvider, clock: () => number): number {
      const seal = provider.create('aes-256-gcm', keyFor('aes-256-gcm'), 'seal')
      fill(TRIAL_BYTES)
      let best = Infinity
      for (let round = 0; round < 3; round++) {
        const start = clock()
        for (let i = 0; i < TRIAL_PACKETS; i++) {
          seal.seal(nonce, plain, 8, plain, TRIAL_BYTES, sealed + TAG_BYTES, sealed)
        }
        best = Math.min(best, clock() - start)
      }
      seal.close()
      return best
    },
  }
}
