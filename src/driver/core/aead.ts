/**
 * The cipher as the core sees it: sealing and opening in packet memory, by offsets. Providers (libcrypto, and in
 * simulations node:crypto) live outside.
 */
export type AeadCipher = 'aes-128-gcm' | 'aes-192-gcm' | 'aes-256-gcm' | 'chacha20-poly1305'

/** One key in one direction. All arguments are offsets and lengths in the packet memory; nonces are 12 bytes, tags 16. */
export interface Aead {
  /** Seals `length` bytes at `plain` to `cipher` and writes the tag; false if the cipher failed. */
  seal(
    nonce: number,
    aad: number,
    aadLength: number,
    plain: number,
    length: number,
    cipher: number,
    tag: number,
  ): boolean
  /** Opens `length` bytes at `cipher` to `plain`; false if the tag does not fit (`plain` is then garbage). */
  open(
    nonce: number,
    aad: number,
    aadLength: number,
    cipher: number,
    length: number,
    plain: number,
    tag: number,
  ): boolean
  /** Forgets the key. */
  close(): void
}

export interface AeadProvider {
  readonly name: string
  /** Throws when the cipher is not to be had or the key has the wrong length. */
  create(cipher: AeadCipher, key: Uint8Array, direction: 'seal' | 'open'): Aead
}
