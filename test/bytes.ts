/** How tests write bytes. */

/** Bytes of hexadecimal text; blanks and line ends do not count. */
export function bytes(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replace(/\s+/g, ''), 'hex'))
}

export const hex = (data: Uint8Array): string => Buffer.from(data).toString('hex')
