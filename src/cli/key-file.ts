/**
 * Files of key material: the 256 bytes that OpenVPN calls key2, raw or as hexadecimal lines (with or without the frame of
 * `openvpn --genkey secret`). What a direction takes of them is wire/keys.ts's, how they are written wire/static-key.ts's.
 */

export const KEY_FILE_BYTES = 256

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
