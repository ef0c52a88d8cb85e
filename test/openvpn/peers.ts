/**
 * Servers and clients of either maker — ours and OpenVPN — in the namespaces of interop/openvpn.ts, with certificates of an
 * authority that is made for the run. What is expected of them is the tests'.
 *
 * Server number N serves at port 1194 + N, is 10.8.N.1 and fd00:8:N::1 in its tunnel, and its interface is `vpnN`. Interfaces of
 * clients are called `tun` and a number, or `ovpn` and a number.
 */
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Issued, issue, revoke } from '../certificates.ts'
import { OVPN, type Running, run, start } from '../command.ts'
import { type Host, type Lab, openLab, ping } from '../interop/openvpn.ts'
import { programs, STARTED } from '../interop/programs.ts'
import type { TestNetns } from '../namespace.ts'

type Series = '2.4' | '2.5' | '2.6' | '2.7'
/** `offloaded`: under `ovpn run`. */
export type Maker = 'ours' | Series | `${Series} offloaded`
export type Outside = 'udp' | 'tcp' | 'udp6' | 'tcp6'

export const BUN = fileURLToPath(new URL('../../node_modules/.bin/bun', import.meta.url))
const RELAY = fileURLToPath(new URL('./relay.ts', import.meta.url))
const PORT = 1194
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const SIGNS_CERTIFICATES = 0x06
const SIGNS = 0x80
const RSA_BITS = 2048

export const vpnAddresses = (number: number): [ipv4: string, ipv6: string] => [
  `10.8.${number}.1`,
  `fd00:8:${number}::1`,
]

/** Names of `ca`, `cert` and `key` in the folder: `ca`, `server`, `client`, `rsa-server`, `rsa-client`, and of more that tests make. */
export const identity = (name: string, ca = 'ca'): string[] => [
  `ca ${ca}.crt`,
  `cert ${name}.crt`,
  `key ${name}.key`,
]

export interface ClientOptions {
  outside?: Outside
  /** The first, unless told. */
  host?: Host
  /** Through what `relay` started there. */
  relayed?: boolean
}

export class Peers {
  readonly lab: Lab
  readonly authority: Issued
  readonly #running: Running[] = []

  static async open(): Promise<Peers> {
    const authority = await issue('CN=authority', { ca: true, keyUsage: SIGNS_CERTIFICATES })
    const peers = new Peers(openLab(), authority)
    peers.write('ca.crt', authority.pem)
    await peers.certify('server')
    await peers.certify('client')
    return peers
  }

  private constructor(lab: Lab, authority: Issued) {
    this.lab = lab
    this.authority = authority
  }

  /** A certificate and its key as files of that name; of a server where the name ends so. */
  async certify(name: string, options: { rsa?: boolean; by?: Issued } = {}): Promise<Issued> {
    const { rsa = false, by = this.authority } = options
    const issued = await issue(`CN=${name}`, {
      ...{ by, keyUsage: SIGNS },
      extendedKeyUsage: [name.endsWith('server') ? SERVER_AUTH : CLIENT_AUTH],
      ...(rsa && { rsa: RSA_BITS }),
    })
    this.write(`${name}.crt`, issued.pem)
    this.write(`${name}.key`, issued.key)
    return issued
  }

  /** SHA-256 of a certificate, as `peer-fingerprint` has it. */
  fingerprint(name: string): string {
    return new X509Certificate(readFileSync(join(this.lab.folder, `${name}.crt`))).fingerprint256
  }

  /** A list that names these as revoked, as a file. */
  async revoke(file: string, revoked: Issued[]): Promise<void> {
    const serials = revoked.map(({ certificate }) => certificate.serialNumber)
    this.write(file, await revoke(this.authority, serials))
  }

  write(name: string, text: string): string {
    const path = join(this.lab.folder, name)
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }

  /** A file with a key, by `ovpn genkey`. */
  async genkey(type: string, file: string, ...more: string[]): Promise<void> {
    const args = ['genkey', type, file, ...more]
    const { status, stderr } = await run(OVPN, args, { cwd: this.lab.folder })
    assert.equal(status, 0, stderr)
  }

  /**
   * Starts a server and waits for it. `lines` come after what all have; none of them is about ports: ours listens with UDP and
   * TCP, OpenVPN with `outside`.
   */
  async server(
    maker: Maker,
    number: number,
    lines: string[],
    outside: Outside = 'udp6',
  ): Promise<Running> {
    const port = PORT + number
    const listen =
      maker === 'ours'
        ? [`local * ${port} udp`, `local * ${port} tcp`]
        : [`port ${port}`, `proto ${outside.startsWith('udp') ? outside : `${outside}-server`}`]
    const config = this.write(
      `server${number}.conf`,
      [
        ...[...listen, `dev vpn${number}`, 'dev-type tun', 'dh none', 'verb 3'],
        ...['topology subnet', `server 10.8.${number}.0 255.255.255.0`],
        ...[`server-ipv6 fd00:8:${number}::/64`, 'keepalive 2 60', ...lines, ''],
      ].join('\n'),
    )
    const server = this.start(this.lab.server, maker, 'server', config)
    await server.says(STARTED)
    return server
  }

  /** Starts a client of that server. `lines` come after what all have. */
  client(
    maker: Maker,
    number: number,
    lines: string[],
    { outside = 'udp', host = this.lab.hosts[0]!, relayed = false }: ClientOptions = {},
  ): Running {
    const direct = outside.endsWith('6') ? host.server.ipv6 : host.server.ipv4
    const remote = relayed ? '127.0.0.1' : direct
    const protocol = outside.startsWith('udp') ? outside : `${outside}-client`
    const config = this.write(
      `client${number}-${host.cable}.ovpn`,
      [
        ...['client', 'nobind', 'dev tun', `remote ${remote} ${PORT + number} ${protocol}`],
        ...['connect-retry 1 1', 'remote-cert-tls server', 'verb 3', ...lines, ''],
      ].join('\n'),
    )
    return this.start(host.netns, maker, 'client', config)
  }

  /** A bad network between a host and a server: relay.ts. `loss` in percent. */
  async relay({ netns, server }: Host, number: number, loss: number): Promise<Running> {
    const port = `${PORT + number}`
    const args = ['netns', 'exec', netns.name, BUN, RELAY, port, server.ipv4, port, `${loss}`]
    const relay = start('ip', args)
    this.#running.push(relay)
    await relay.says(/relaying/)
    return relay
  }

  start(netns: TestNetns, maker: Maker, role: 'server' | 'client', config: string): Running {
    const { folder } = this.lab
    const [series = '', offloaded] = maker.split(' ')
    const openvpn = [...(offloaded ? [OVPN, 'run'] : []), programs[series]!, '--config', config]
    const command = maker === 'ours' ? [OVPN, role, config] : openvpn
    const running = start('ip', ['netns', 'exec', netns.name, ...command], { cwd: folder })
    this.#running.push(running)
    return running
  }

  async close(): Promise<void> {
    await Promise.all(this.#running.map(stop))
    await this.lab.close()
  }
}

/** Of a few packets over IPv4 and over IPv6 from a client to its server, how many are lost: in percent. */
export async function lost({ netns }: Host, number: number): Promise<[ipv4: number, ipv6: number]> {
  const [ipv4, ipv6] = vpnAddresses(number)
  return Promise.all([ping(netns, ipv4), ping(netns, ipv6)])
}

/** Ends a program as a user does. */
export async function stop(running: Running): Promise<void> {
  if (running.status === null) running.kill('SIGTERM')
  await running.ended
}
