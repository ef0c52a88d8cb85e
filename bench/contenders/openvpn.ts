/**
 * OpenVPN's own data channel in user space, without offload; and the same OpenVPN under `ovpn run`, with offload to this project's
 * driver: two peers with static addresses over TLS, certificates made for the run. Beside what this needs, its defaults
 * are left as they are.
 */
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { fetchPackage } from '../../test/kernel/fetch.ts'
import { type Running, run, until } from '../process.ts'
import { type End, reaches, startInside, type Topology } from '../topology.ts'
import {
  type Contender,
  FAR_VPN,
  NEAR_VPN,
  TUNNEL_MTU,
  TUNNEL_PORT,
  type TunnelOptions,
} from './contender.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

/** A series of OpenVPN: what its version has to begin with, so that a figure never bears the wrong name, and its command. */
export interface Series {
  readonly number: string
  findProgram(): Promise<string[]>
}

/** The machine's own. */
export const SERIES_26: Series = {
  number: '2.6',
  async findProgram() {
    const path = Bun.which('openvpn', { PATH: `${process.env.PATH}:/usr/sbin` })
    if (path === null) throw new Error("openvpn is not installed (Debian's package is openvpn)")
    return [path]
  },
}

/** Debian's newest, unpacked beside. */
export const SERIES_27: Series = {
  number: '2.7',
  findProgram: async () => (await fetchPackage('openvpn')).run('/usr/sbin/openvpn'),
}

/** Rejects where there is none. */
export async function versionOf({ findProgram }: Series): Promise<string> {
  const { stdout } = Bun.spawnSync([...(await findProgram()), '--version']) // its status is 1
  return /^OpenVPN (\S+)/.exec(stdout.toString())?.[1] ?? 'unknown'
}

export const openvpn26 = contender(SERIES_26, 'plain')
export const openvpn27 = contender(SERIES_27, 'plain')
export const runOpenvpn26 = contender(SERIES_26, 'offloaded')
export const runOpenvpn27 = contender(SERIES_27, 'offloaded')

function contender(series: Series, how: 'plain' | 'offloaded'): Contender {
  const { number, findProgram } = series
  const plainName = `openvpn ${number}`
  const offloaded = how === 'offloaded'
  const name = offloaded ? `ovpn run ${plainName}` : plainName
  const running: Running[] = []
  let folder: string | undefined
  return {
    name,
    ciphers: ['aes-256-gcm', 'chacha20-poly1305'],
    transports: ['udp', 'tcp'],
    workers: [],
    ...(offloaded && { subjects: ['tcp', 'over-tcp'], against: plainName }),
    version: () => versionOf(series),
    async unavailable() {
      try {
        const found = await versionOf(series)
        if (!found.startsWith(`${number}.`)) return `this is OpenVPN ${found}`
      } catch (error) {
        return (error as Error).message
      }
      if (Bun.which('openssl') === null)
        return 'openssl, which makes the certificates, is not installed'
      return undefined
    },
    async up(topology, options) {
      folder = mkdtempSync(join(tmpdir(), 'ovpn-bench-'))
      const near = await createIdentity(folder, 'near')
      const far = await createIdentity(folder, 'far')
      const program = await findProgram()
      const command = offloaded
        ? [process.execPath, MAIN, 'run', '--driver', 'own', ...program]
        : program
      const more = offloaded ? [] : ['--disable-dco']
      const begin = (side: Side) =>
        running.push(startInside(side.end.netns, [...command, ...settings(side, options), ...more]))
      begin({
        ...{ role: 'server', own: far, other: near, end: topology.far, remote: topology.near },
        ...{ vpn: FAR_VPN, remoteVpn: NEAR_VPN },
      })
      begin({
        ...{ role: 'client', own: near, other: far, end: topology.near, remote: topology.far },
        ...{ vpn: NEAR_VPN, remoteVpn: FAR_VPN },
      })
      await ready(name, topology, options, running)
      for (const { output } of running) {
        if (offloaded !== OFFLOADED.test(output())) throw new Error(`${name}:\n${output()}`)
      }
      return { near: NEAR_VPN, far: FAR_VPN, processes: running.map(({ pid }) => pid) }
    },
    async down() {
      await Promise.all(running.splice(0).map((program) => program.stop()))
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
      folder = undefined
    },
  }
}

const OFFLOADED = /DCO device \S+ opened/

interface Identity {
  certificate: string
  key: string
  fingerprint: string
}

interface Side {
  role: 'server' | 'client'
  own: Identity
  other: Identity
  end: End
  remote: End
  vpn: string
  remoteVpn: string
}

/** Packets pass, and with the cipher that was asked for. */
async function ready(
  name: string,
  { near }: Topology,
  { cipher }: TunnelOptions,
  running: Running[],
): Promise<void> {
  await until(name, () => reaches(near.netns, FAR_VPN), running)
  const said = `cipher '${cipher?.toUpperCase()}'`
  for (const program of running) {
    if (!program.output().includes(said)) {
      throw new Error(`${name} does not say ${said}:\n${program.output()}`)
    }
  }
}

async function createIdentity(folder: string, name: string): Promise<Identity> {
  const certificate = join(folder, `${name}.crt`)
  const key = join(folder, `${name}.key`)
  await run([
    ...['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'],
    ...['-nodes', '-days', '2', '-subj', `/CN=${name}`, '-keyout', key, '-out', certificate],
  ])
  const { fingerprint256 } = new X509Certificate(readFileSync(certificate))
  return { certificate, key, fingerprint: fingerprint256 }
}

function settings(side: Side, { transport, cipher }: TunnelOptions): string[] {
  const { role, own, other, end, remote } = side
  const server = role === 'server'
  const proto = transport === 'udp' ? 'udp4' : server ? 'tcp4-server' : 'tcp4-client'
  return [
    ...['--dev', `ovb${server ? 'far' : 'near'}`, '--dev-type', 'tun', '--proto', proto],
    ...['--local', end.address, '--port', String(TUNNEL_PORT)],
    ...(server ? [] : ['--remote', remote.address, String(TUNNEL_PORT)]),
    ...(server ? ['--tls-server', '--dh', 'none'] : ['--tls-client']),
    ...['--cert', own.certificate, '--key', own.key, '--peer-fingerprint', other.fingerprint],
    ...['--ifconfig', side.vpn, side.remoteVpn],
    ...['--tun-mtu', String(TUNNEL_MTU), '--mssfix', '0', '--data-ciphers', cipher!.toUpperCase()],
    ...['--verb', '3', '--ping', '10', '--ping-restart', '60'],
  ]
}
