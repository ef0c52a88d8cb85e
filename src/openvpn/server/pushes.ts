/** The options that one client is sent: those for all, its own, and what the server adds about addresses, keys and formats. */
import { applyPushChanges } from '../config/client-settings.ts'
import { formatOption } from '../proto/push.ts'
import type { ClientSettings } from './policy.ts'
import type { ServerSettings } from './settings.ts'

/** What was agreed with a client. */
export interface Agreed {
  readonly peerId: number
  readonly v4?: string | undefined
  readonly v6?: string | undefined
  /** Cipher, flags and the like, as negotiated. */
  readonly formats: readonly string[]
  readonly tunMtu: number | undefined
  readonly authToken?: { readonly token: string; readonly username?: string } | undefined
}

/** In the order of OpenVPN's own server. */
export function pushedOptions(
  settings: ServerSettings,
  client: ClientSettings,
  agreed: Agreed,
): string[] {
  const { v4, v6 } = settings
  const options = applyPushChanges(settings.push, client.pushChanges ?? [])
  if (agreed.v6 !== undefined && v6 !== undefined) {
    options.push(`ifconfig-ipv6 ${agreed.v6}/${v6.prefix} ${v6.address}`)
  }
  if (agreed.v4 !== undefined && v4 !== undefined) {
    options.push(`ifconfig ${agreed.v4} ${maskOf(v4.prefix)}`)
  }
  options.push(`peer-id ${agreed.peerId}`)
  const { authToken, formats, tunMtu } = agreed
  if (authToken !== undefined) {
    options.push(`auth-token ${authToken.token}`)
    if (authToken.username !== undefined) {
      const base64 = Buffer.from(authToken.username).toString('base64')
      options.push(formatOption(['auth-token-user', base64]))
    }
  }
  options.push(...formats)
  if (tunMtu !== undefined) options.push(`tun-mtu ${tunMtu}`)
  return options
}

function maskOf(prefix: number): string {
  const bits = prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 0xff).join('.')
}
