/**
 * Files of key material: the 256 bytes that OpenVPN calls key2, raw or as hexadecimal lines (with or without the frame of
 * `openvpn --genkey secret`), and which of them a direction uses. Pure; reading and writing files is key.ts's.
 *
 *     | client → server: cipher 64 | hmac 64 | server → client: cipher 64 | hmac 64 |      sizes in bytes
 *
 * Of a cipher part the front is the key, of an hmac part the first 8 bytes are the end of the nonce.
 * Source: OpenVPN's data channel, key material (data-channel, 2).
 */
import { NONCE_TAIL_BYTES } from '../uapi/spec.ts'
import type { KeyDir } from '../uapi/types.ts'

export const KEY_FILE_BYTES = 256
const HALF_BYTES = 128
const PART_BYTES = 64
const LINE_BYTES = 16

const BEGIN = '-----BEGIN OpenVPN Static key V1-----'
const END = '-----END OpenVPN Static key V1-----'

/**
 * The 256 bytes of a key file; a copy, to be wiped by the caller.
 *
 * @throws Error that says what was expected, and never shows what was found
 */
export function parseKeyFile(content: Uint8Array): Uint8Array {
  if (content.length === KEY_FILE_BYTES && content.some((byte) => byte > 0x7f)) {
    return content.slice()
  }
  const key = new Uint8Array(KEY_FILE_BYTES)
  let digits = 0
  let line = 0
  for (const text of new TextDecoder().decode(content).split('\n')) {
    line++
    const hex = text.trim()
    if (hex === '' || hex.startsWith('#') || hex.startsWith(';') || hex.startsWith('-----'))
      continue
    if (!/^[0-9a-fA-F]+$/.test(hex)) {
      throw new Error(`hexadecimal digits expected in line ${line}, or ${KEY_FILE_BYTES} raw bytes`)
    }
    for (const digit of hex) {
      const at = digits++ >> 1
      if (at < KEY_FILE_BYTES) key[at] = (key[at]! << 4) | Number.parseInt(digit, 16)
    }
  }
  if (digits !== 2 * KEY_FILE_BYTES) {
    key.fill(0)
    throw new Error(`${2 * KEY_FILE_BYTES} hexadecimal digits expected, not ${digits}`)
  }
  return key
}

/** Text of a key file, as `openvpn --genkey secret` writes it. */
export function formatKeyFile(key: Uint8Array): string {
  const lines: string[] = []
  for (let at = 0; at < KEY_FILE_BYTES; at += LINE_BYTES) {
    lines.push(Buffer.from(key.subarray(at, at + LINE_BYTES)).toString('hex'))
  }
  return ['#', '# 2048 bit OpenVPN static key', '#', BEGIN, ...lines, END, ''].join('\n')
}

/**
 * The key material of both directions, copied out. Direction 0 is the client's end, which sends with the first
 * half; direction 1 the server's.
 */
export function keyDirections(
  key: Uint8Array,
  direction: 0 | 1,
  keyBytes: number,
): { encryptDir: KeyDir; decryptDir: KeyDir } {
  const half = (index: number): KeyDir => {
    const cipher = index * HALF_BYTES
    const hmac = cipher + PART_BYTES
    return {
      cipherKey: key.slice(cipher, cipher + keyBytes),
      nonceTail: key.slice(hmac, hmac + NONCE_TAIL_BYTES),
    }
  }
  return { encryptDir: half(direction), decryptDir: half(1 - direction) }
}
