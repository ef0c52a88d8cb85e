/**
 * The password of a private key, where the configuration does not have it: when it is asked for, and what follows where it is wrong.
 * Source: openvpn(8), `askpass` and `auth-retry`; OpenVPN's doc/management-notes.txt, `password`.
 */
import type { TlsConfig } from '../openvpn/config/tls-config.ts'
import { TlsError } from '../openvpn/tls.ts'

export interface KeyQuestion {
  ask(): Promise<string>
  /** The password was wrong. */
  refused(): void
  /** Whether to ask again then (`auth-retry interact`). */
  again(): boolean
}

/** What who manages is told of a wrong one. */
export const KEY_REFUSED = "PASSWORD:Verification Failed: 'Private Key'"

/**
 * What `make` makes with the key, which may take a password: asked for where `askpass` says so, or it turns out.
 *
 * @throws whatever `make` throws; TlsError TLS_PASSPHRASE: the password is wrong
 */
export async function withKeyPassword<T>(
  configured: TlsConfig['keyPassword'],
  { ask, refused, again }: KeyQuestion,
  make: (password: string | undefined) => T,
): Promise<T> {
  for (let password = configured === 'ask' ? await ask() : undefined; ; password = await ask()) {
    try {
      return make(password)
    } catch (error) {
      if (!(error instanceof TlsError) || error.code !== 'TLS_PASSPHRASE') throw error
      const isConfigured = typeof configured === 'object'
      const isWrong = isConfigured || password !== undefined
      if (isWrong) refused()
      if (isConfigured || (isWrong && !again())) throw error
    }
  }
}
