/**
 * A server for who has no configuration yet: a folder with an authority, a server's certificate, keys, a configuration and a client's profile,
 * made at the first start and left alone later. Everything in it is an ordinary OpenVPN file.
 *
 *     ovpn-server/
 *       server.conf          what `ovpn server` runs; to be changed by hand
 *       client.ovpn          for the first client
 *       tls-crypt-v2.key     wraps the control channel, with another key for each client
 *       pki/                 of `ovpn pki`
 */
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Pki } from '../openvpn/x509/pki.ts'
import { formatServerKey } from '../wire/static-key.ts'
import { SERVER_KEY_BYTES } from '../wire/wkc.ts'
import type { Environment } from './compose.ts'
import { attempt } from './errors.ts'
import { madeIn } from './folders.ts'
import { makeProfile } from './profile.ts'

const DEFAULT_PORT = 1194
const SERVER_NAME = 'server'
const CLIENT_NAME = 'client'

export interface QuickStart {
  readonly folder: string
  /** The configuration's path. */
  readonly config: string
  /** Whether it was made just now. */
  readonly fresh: boolean
}

export interface QuickStartOptions {
  readonly folder: string
  /** 1194 if absent. */
  readonly port?: number | undefined
  /** What clients reach the server by; an address of this machine if absent. */
  readonly hosts?: string[] | undefined
}

/** Makes the folder, if it is not there. Rejects with a CliError; nothing is left then. */
export async function quickStart(
  environment: Environment,
  { folder, port, hosts }: QuickStartOptions,
): Promise<QuickStart> {
  const { config } = madeIn(folder)
  if (existsSync(config)) {
    if (port !== undefined || hosts !== undefined) {
      environment.note(`${folder} is made already: --port and --host change nothing in it`)
    }
    return { folder, config, fresh: false }
  }
  const next = `${folder}.new`
  await attempt(`cannot make the folder ${folder}`, async () => {
    rmSync(next, { recursive: true, force: true })
    mkdirSync(next, { recursive: true, mode: 0o700 })
    await fill(environment, next, port ?? DEFAULT_PORT)
    const profile = await makeProfile(environment, CLIENT_NAME, {
      ...madeIn(next),
      ...(hosts !== undefined && { host: hosts }),
    })
    write(next, 'client.ovpn', profile)
    renameSync(next, folder)
  })
  return { folder, config, fresh: true }
}

async function fill(environment: Environment, folder: string, port: number): Promise<void> {
  const pki = join(folder, 'pki')
  const authority = await Pki.create(pki, { name: 'ovpn CA' })
  await authority.issue('server', SERVER_NAME)
  await authority.issue('client', CLIENT_NAME)
  write(folder, 'tls-crypt-v2.key', formatServerKey(environment.randomBytes(SERVER_KEY_BYTES)))
  write(folder, 'server.conf', configuration(port, uniqueLocalPrefix(environment)))
}

function write(folder: string, name: string, text: string): void {
  writeFileSync(join(folder, name), text, { mode: 0o600 })
}

/** A network of RFC 4193: nobody else's, by all odds. */
function uniqueLocalPrefix({ randomBytes }: Environment): string {
  const id = Buffer.from(randomBytes(5)).toString('hex')
  return `fd${id.slice(0, 2)}:${id.slice(2, 6)}:${id.slice(6, 10)}::/64`
}

function configuration(port: number, prefix: string): string {
  return `# Made by 'ovpn server'. Any directive of an OpenVPN server may be added ('ovpn check server.conf').
local * ${port} udp
local * ${port} tcp
dev tun
topology subnet
server 10.8.0.0 255.255.255.0
server-ipv6 ${prefix}
# All of a client's traffic through this server, and a DNS server for it:
#   push "redirect-gateway def1 ipv6"
#   push "dhcp-option DNS 10.8.0.1"
keepalive 10 60
explicit-exit-notify 1
push "explicit-exit-notify 1"
ca pki/ca.crt
cert pki/issued/${SERVER_NAME}.crt
key pki/private/${SERVER_NAME}.key
crl-verify pki/crl.pem
remote-cert-tls client
tls-crypt-v2 tls-crypt-v2.key
ifconfig-pool-persist addresses.txt
status status.log 10
`
}
