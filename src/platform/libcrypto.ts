/**
 * OpenSSL's libcrypto as an AEAD provider, through bun:ffi. Owns its contexts and the keys in them;
 * nonces, packet layouts and limits of use are the callers'.
 */

import { CString, dlopen, type Pointer } from 'bun:ffi'
import { blockOf, createBlock, type NativeMemory } from './memory.ts'

export type AeadCipher = 'aes-128-gcm' | 'aes-192-gcm' | 'aes-256-gcm' | 'chacha20-poly1305'

/**
 * One key in one direction. All arguments are offsets in the provider's memory, and lengths in bytes.
 * The nonce has 12 bytes, the tag 16. Plaintext and ciphertext may lie at the same offset; otherwise they
 * must not overlap. Nothing throws.
 */
export interface Aead {
  /** @returns false on a context for `open`, after `close`, and when the library refuses */
  seal(
    nonce: number,
    aad: number,
    aadLength: number,
    plain: number,
    length: number,
    cipher: number,
    tag: number,
  ): boolean
  /**
   * Writes `length` bytes at `plain` and nothing else, also when the tag is wrong: what lies there
   * then is to be thrown away.
   *
   * @returns whether the tag was right
   */
  open(
    nonce: number,
    aad: number,
    aadLength: number,
    cipher: number,
    length: number,
    plain: number,
    tag: number,
  ): boolean
  /** Cleanses the key out of memory. */
  close(): void
}

export interface AeadProvider {
  readonly name: string
  readonly version: string
  /**
   * Keeps a copy of `key` inside the library only.
   *
   * @throws RangeError on a key of the wrong length, Error when the library lacks the cipher
   */
  create(cipher: AeadCipher, key: Uint8Array, direction: 'seal' | 'open'): Aead
}

const LIBRARY = 'libcrypto.so.3'
const EVP_CTRL_AEAD_GET_TAG = 0x10
const EVP_CTRL_AEAD_SET_TAG = 0x11
const TAG_BYTES = 16
const VERSION_STRING = 6 // OPENSSL_VERSION_STRING

const declarations = {
  OpenSSL_version: { args: ['i32'], returns: 'ptr' },
  OPENSSL_cleanse: { args: ['ptr', 'u64'], returns: 'void' },
  EVP_CIPHER_fetch: { args: ['ptr', 'ptr', 'ptr'], returns: 'ptr' },
  EVP_CIPHER_CTX_new: { args: [], returns: 'ptr' },
  EVP_CIPHER_CTX_free: { args: ['ptr'], returns: 'void' },
  EVP_EncryptInit_ex: { args: ['ptr', 'ptr', 'ptr', 'ptr', 'ptr'], returns: 'i32' },
  EVP_EncryptUpdate: { args: ['ptr', 'ptr', 'ptr', 'ptr', 'i32'], returns: 'i32' },
  EVP_EncryptFinal_ex: { args: ['ptr', 'ptr', 'ptr'], returns: 'i32' },
  EVP_DecryptInit_ex: { args: ['ptr', 'ptr', 'ptr', 'ptr', 'ptr'], returns: 'i32' },
  EVP_DecryptUpdate: { args: ['ptr', 'ptr', 'ptr', 'ptr', 'i32'], returns: 'i32' },
  EVP_DecryptFinal_ex: { args: ['ptr', 'ptr', 'ptr'], returns: 'i32' },
  EVP_CIPHER_CTX_ctrl: { args: ['ptr', 'i32', 'i32', 'ptr'], returns: 'i32' },
} as const

const keyBytes: Record<AeadCipher, number> = {
  'aes-128-gcm': 16,
  'aes-192-gcm': 24,
  'aes-256-gcm': 32,
  'chacha20-poly1305': 32,
}

const libraryName: Record<AeadCipher, string> = {
  'aes-128-gcm': 'AES-128-GCM',
  'aes-192-gcm': 'AES-192-GCM',
  'aes-256-gcm': 'AES-256-GCM',
  'chacha20-poly1305': 'ChaCha20-Poly1305',
}

/**
 * Opens the library for packets in `memory`.
 *
 * @throws Error that says what to install, when it is missing
 */
export function openLibcrypto(
  memory: Pick<NativeMemory, 'base' | 'area'>,
  library: string = LIBRARY,
): AeadProvider {
  const k = load(library)
  const version = k.OpenSSL_version(VERSION_STRING) as Pointer | null
  const base = memory.base
  const lengthAt = (base + memory.area(16)) as Pointer // the int every Update and Final writes
  const fetched = new Map<AeadCipher, Pointer>()
  const fetch = (cipher: AeadCipher): Pointer => {
    let at = fetched.get(cipher)
    if (at === undefined) {
      const text = blockOf(Buffer.from(`${libraryName[cipher]}\0`))
      const found = k.EVP_CIPHER_fetch(null, text.base as Pointer, null) as Pointer | null
      if (found === null) throw new Error(`${library} offers no ${libraryName[cipher]}`)
      at = found
      fetched.set(cipher, at)
    }
    return at
  }

  return {
    name: 'libcrypto',
    version: version === null ? 'unknown' : new CString(version).toString(),
    create(cipher, key, direction) {
      if (key.length !== keyBytes[cipher]) {
        throw new RangeError(
          `a key for ${cipher} has ${keyBytes[cipher]} bytes, this one ${key.length}`,
        )
      }
      const sealing = direction === 'seal'
      const kind = fetch(cipher)
      let context: Pointer | null = k.EVP_CIPHER_CTX_new() as Pointer | null
      const secret = createBlock(key.length)
      secret.u8.set(key)
      const init = sealing ? k.EVP_EncryptInit_ex : k.EVP_DecryptInit_ex
      const ready =
        context !== null && init(context, kind, null, secret.base as Pointer, null) === 1
      k.OPENSSL_cleanse(secret.base as Pointer, key.length)
      if (!ready) {
        k.EVP_CIPHER_CTX_free(context)
        throw new Error(`${library} refused a key for ${libraryName[cipher]}`)
      }
      return {
        seal(nonce, aad, aadLength, plain, length, out, tag) {
          if (context === null || !sealing) return false
          const to = (base + out) as Pointer
          return (
            k.EVP_EncryptInit_ex(context, null, null, null, (base + nonce) as Pointer) === 1 &&
            k.EVP_EncryptUpdate(context, null, lengthAt, (base + aad) as Pointer, aadLength) ===
              1 &&
            k.EVP_EncryptUpdate(context, to, lengthAt, (base + plain) as Pointer, length) === 1 &&
            k.EVP_EncryptFinal_ex(context, to, lengthAt) === 1 &&
            k.EVP_CIPHER_CTX_ctrl(
              context,
              EVP_CTRL_AEAD_GET_TAG,
              TAG_BYTES,
              (base + tag) as Pointer,
            ) === 1
          )
        },
        open(nonce, aad, aadLength, from, length, plain, tag) {
          if (context === null || sealing) return false
          const to = (base + plain) as Pointer
          return (
            k.EVP_DecryptInit_ex(context, null, null, null, (base + nonce) as Pointer) === 1 &&
            k.EVP_CIPHER_CTX_ctrl(
              context,
              EVP_CTRL_AEAD_SET_TAG,
              TAG_BYTES,
              (base + tag) as Pointer,
            ) === 1 &&
            k.EVP_DecryptUpdate(context, null, lengthAt, (base + aad) as Pointer, aadLength) ===
              1 &&
            k.EVP_DecryptUpdate(context, to, lengthAt, (base + from) as Pointer, length) === 1 &&
            k.EVP_DecryptFinal_ex(context, to, lengthAt) === 1
          )
        },
        close() {
          // frees and cleanses: OpenSSL's contexts hold the key schedule in memory they clear
          if (context !== null) k.EVP_CIPHER_CTX_free(context)
          context = null
        },
      }
    },
  }
}

function load(library: string) {
  try {
    return dlopen(library, declarations).symbols
  } catch (cause) {
    throw new Error(
      `cannot load ${library}, OpenSSL 3's cipher library: install it (Debian's package is libssl3)`,
      { cause },
    )
  }
}
