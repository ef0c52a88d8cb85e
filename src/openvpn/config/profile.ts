/** A client's profile for a server: one text with all in it, for any OpenVPN client since 2.4. */
import { type ClientKeyFile, formatClientKey, formatStaticKey } from '../../wire/static-key.ts'
import { type Rendered, renderConfig } from './render.ts'
import type { Listener, ServerConfig } from './server-config.ts'

export interface ProfileParts {
  /** For the first line. */
  readonly name: string
  /** Names or addresses that clients reach the server by, best first. */
  readonly hosts: readonly string[]
  /** PEM of the authority that the server's certificate is of. */
  readonly ca: string
  /** Common name of the server's certificate; undefined: any server's of the authority will do. */
  readonly serverName: string | undefined
  /** PEM of the client's own; undefined where the server asks for none. */
  readonly identity: { readonly certificate: string; readonly key: string } | undefined
  /** Where the server has `tls-crypt-v2`: a key for this client. */
  readonly tlsCryptV2: ClientKeyFile | undefined
}

const DEFAULT_CIPHERS = ['AES-256-GCM', 'AES-128-GCM']
const DEFAULT_RENEG = 3_600_000

/** Throws an Error for parts that no profile can have. */
export function clientProfile(server: ServerConfig, parts: ProfileParts): string {
  const lines: (readonly [name: string, ...args: string[]])[] = [
    ['client'],
    ['dev', 'tun'],
    ...parts.hosts.flatMap((host) => server.listeners.map((listener) => remote(host, listener))),
    ['nobind'],
    ['persist-tun'],
    ['resolv-retry', 'infinite'],
    ['remote-cert-tls', 'server'],
    ['verb', '3'],
  ]
  if (parts.serverName !== undefined) lines.push(['verify-x509-name', parts.serverName, 'name'])
  if (server.authUserPassVerify !== undefined || server.management?.clientAuth) {
    lines.push(['auth-user-pass'])
  }
  if (server.tunMtu !== 1500) lines.push(['tun-mtu', `${server.tunMtu}`])
  if (server.wrap.kind === 'tls-auth' && server.auth !== 'SHA1') lines.push(['auth', server.auth])
  if (!server.dataCiphers.some((cipher) => DEFAULT_CIPHERS.includes(cipher))) {
    lines.push(['data-ciphers', server.dataCiphers.join(':')])
  }
  // A client renews after an hour by itself; where the server wants to do so later, only the server does.
  const { max } = server.renegSec
  if (max === 0 || max > DEFAULT_RENEG) lines.push(['reneg-sec', '0'])
  if (server.listeners.every(({ protocol }) => protocol === 'udp')) {
    lines.push(['explicit-exit-notify', '1'])
  }
  return renderConfig([
    { comment: `OpenVPN profile of ${oneLine(parts.name)}` },
    ...lines.map(([name, ...args]) => ({ name, args })),
    { name: 'ca', content: parts.ca },
    ...identity(parts),
    ...wrap(server, parts),
  ])
}

function oneLine(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ')
}

function remote(host: string, { protocol, family, port }: Listener): [string, ...string[]] {
  return ['remote', host, `${port}`, `${protocol}${family ?? ''}`]
}

function identity({ identity }: ProfileParts): Rendered[] {
  if (identity === undefined) return []
  return [
    { name: 'cert', content: identity.certificate },
    { name: 'key', content: identity.key },
  ]
}

/** The client's own key where there may be one, else the key of all. */
function wrap({ wrap }: ServerConfig, { tlsCryptV2 }: ProfileParts): Rendered[] {
  if (tlsCryptV2 !== undefined) {
    return [{ name: 'tls-crypt-v2', content: formatClientKey(tlsCryptV2) }]
  }
  if (wrap.kind === 'none') return []
  const block = { name: wrap.kind, content: formatStaticKey(wrap.key) }
  if (wrap.kind === 'tls-crypt' || wrap.direction === undefined) return [block]
  return [{ name: 'key-direction', args: [`${1 - wrap.direction}`] }, block]
}
