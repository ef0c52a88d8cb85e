/** A disk of texts for tests. */
import type { Files } from './parse.ts'

export function textFiles(texts: { readonly [path: string]: string }): Files {
  return {
    read(path) {
      const text = Object.hasOwn(texts, path) ? texts[path] : undefined
      if (text === undefined) throw Object.assign(new Error(`no ${path}`), { code: 'ENOENT' })
      return new TextEncoder().encode(text)
    },
  }
}

const base64 = (bytes: number) => btoa('k'.repeat(bytes)).replace(/.{64}/g, '$&\n')
const frame = (name: string, body: string) =>
  `-----BEGIN ${name}-----\n${body}\n-----END ${name}-----\n`

/** Of the right form, and of nobody. */
export const CERTIFICATE = frame('CERTIFICATE', base64(400))
export const PRIVATE_KEY = frame('PRIVATE KEY', base64(120))
export const CRL = frame('X509 CRL', base64(100))
export const STATIC_KEY = frame(
  'OpenVPN Static key V1',
  `${'00112233445566778899aabbccddeeff\n'.repeat(16)}`,
)
export const V2_SERVER_KEY = frame('OpenVPN tls-crypt-v2 server key', base64(128))
export const AUTH_TOKEN_KEY = frame('OpenVPN auth-token server key', base64(128))
