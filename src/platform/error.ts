/**
 * OsError: a refusal by the operating system during set-up. Hot paths do not throw: they hand on
 * `-errno`. What a refused request means to a user is decided by those who catch this.
 */

import { constants } from 'node:os'

const nameOf = new Map<number, string>()
for (const [name, number] of Object.entries(constants.errno)) {
  // EWOULDBLOCK and EOPNOTSUPP share numbers with EAGAIN and ENOTSUP: the first and usual name stays
  if (!nameOf.has(number)) nameOf.set(number, name)
}
nameOf.set(11, 'EAGAIN')
nameOf.set(77, 'EBADFD')
nameOf.set(95, 'EOPNOTSUPP')

/** The name of a positive error number (`16` → `'EBUSY'`), or `'E<number>'` where there is none. */
export function errnoName(errno: number): string {
  return nameOf.get(errno) ?? `E${errno}`
}

/** `code` is the errno's name, `errno` its positive number, `call` the system call that failed. */
export class OsError extends Error {
  override readonly name = 'OsError'
  readonly code: string
  readonly errno: number
  readonly call: string

  constructor(errno: number, call: string, attempt: string, options?: ErrorOptions) {
    const code = errnoName(errno)
    super(`${attempt}: ${code} (${call})`, options)
    this.code = code
    this.errno = errno
    this.call = call
  }
}

/**
 * Lets a result ≥ 0 through.
 *
 * @throws OsError of `-result`, with `attempt` as its text
 */
export function check(result: number, call: string, attempt: string): number {
  if (result < 0) throw new OsError(-result, call, attempt)
  return result
}
