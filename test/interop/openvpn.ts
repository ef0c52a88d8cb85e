/**
 * Two namespaces with a cable between them, and OpenVPN in both: a server with certificates made for the run, and clients;
 * each plain or under `ovpn run`. What is expected of them is the tests'.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { OVPN, type Running, run, start } from '../command.ts'
import { openTestNetns, type TestNetns } from '../namespace.ts'

/** How OpenVPN runs at one end. */
export interface Side {
  /** Its command. */
  program: string
  /** Whether under `ovpn run`. */
  offload: boolean
  /** More of its configuration. */
  more?: string[]
  /** A command that starts all this, such as `setpriv` with its options. */
  through?: string[]
}

export interface Lab {
  readonly server: TestNetns
  readonly client: TestNetns
  /** Where configurations and certificates lie, and more may; removed with the lab. */
  readonly folder: string
  startServer(side: Side, transport: 'udp' | 'tcp'): Running
  startClient(side: Side, transport: 'udp' | 'tcp'): Running
  close(): Promise<void>
}

const PORT = 1194
export const SERVER_VPN = '10.8.0.1'

export function openLab(): Lab {
  const server = openTestNetns('runs')
  const client = openTestNetns('runc')
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-interop-'))
  server.ip(`link add veth0 type veth peer name veth0 netns ${client.name}`)
  server.ip('addr add 192.0.2.1/24 dev veth0')
  client.ip('addr add 192.0.2.2/24 dev veth0')
  for (const end of [server, client]) end.ip('link set veth0 up')
  createCertificates(folder)
  const running: Running[] = []
  const begin = (netns: TestNetns, { program, offload, through = [] }: Side, config: string) => {
    const wrapped = offload ? [...through, OVPN, 'run', program] : [...through, program]
    const args = ['netns', 'exec', netns.name, ...wrapped, '--config', config]
    const one = start('ip', args)
    running.push(one)
    return one
  }
  const shared = (name: string, side: Side) => [
    ...['dev tun', 'topology subnet', 'verb 3'],
    ...[`ca ${folder}/ca.crt`, `cert ${folder}/${name}.crt`, `key ${folder}/${name}.key`],
    ...['data-ciphers AES-256-GCM:CHACHA20-POLY1305', ...(side.more ?? [])],
  ]
  let configs = 0
  const write = (lines: string[]) => {
    const path = join(folder, `${configs++}.conf`)
    writeFileSync(path, `${lines.join('\n')}\n`)
    return path
  }
  return {
    server,
    client,
    folder,
    startServer(side, transport) {
      const lines = [
        ...shared('server', side),
        ...[`proto ${transport === 'udp' ? 'udp' : 'tcp-server'}`, `port ${PORT}`, 'dh none'],
        ...['server 10.8.0.0 255.255.255.0', 'keepalive 1 10'],
        'status-version 2',
      ]
      return begin(server, side, write(lines))
    },
    startClient(side, transport) {
      const lines = [
        ...shared('client', side),
        ...['client', 'nobind', `remote 192.0.2.1 ${PORT}`, 'connect-retry 1 1'],
        ...[`proto ${transport === 'udp' ? 'udp' : 'tcp-client'}`, 'remote-cert-tls server'],
      ]
      return begin(client, side, write(lines))
    },
    async close() {
      for (const one of running) if (one.status === null) one.kill('SIGTERM')
      await Promise.all(running.map(({ ended }) => ended))
      server[Symbol.dispose]()
      client[Symbol.dispose]()
      rmSync(folder, { recursive: true })
    },
  }
}

/** A CA, and certificates `server` and `client` of it. */
function createCertificates(folder: string): void {
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  openssl('req', '-x509', ...ec, '-subj', '/CN=ca', '-keyout', 'ca.key', '-out', 'ca.crt')
  for (const name of ['server', 'client']) {
    writeFileSync(
      join(folder, 'usage'),
      `extendedKeyUsage=${name}Auth\nkeyUsage=digitalSignature\n`,
    )
    openssl('req', ...ec, '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`)
    openssl(
      ...['x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-days', '2'],
      ...['-CAcreateserial', '-extfile', 'usage', '-out', `${name}.crt`],
    )
  }
}

/** Packets lost of `count`, in percent. */
export async function ping(from: TestNetns, to: string, count = 5): Promise<number> {
  const args = ['netns', 'exec', from.name, 'ping', '-n', '-q', '-i', '0.1', '-W', '2']
  const { stdout } = await run('ip', [...args, '-c', String(count), to])
  return Number(/([\d.]+)% packet loss/.exec(stdout)?.[1] ?? 100)
}

/** Resolves with the first packet through: the server sets the peer up a little after the client says that it is done. */
export async function reached(lab: Lab): Promise<void> {
  for (let i = 0; i < 20; i++) if ((await ping(lab.client, SERVER_VPN, 1)) === 0) return
  assert.fail('no packet got through')
}

/** One TCP stream for `seconds` from the client to the server; Mbit/s received. */
export async function iperf(lab: Lab, seconds: number, reverse = false): Promise<number> {
  const sink = start('ip', ['netns', 'exec', lab.server.name, 'iperf3', '-s', '-1', '--forceflush'])
  await sink.says(/listening/)
  const more = reverse ? ['-R'] : []
  const { stdout } = await run('ip', [
    ...['netns', 'exec', lab.client.name, 'iperf3', '-J', '-c', SERVER_VPN],
    ...['-t', String(seconds), '--connect-timeout', '5000', ...more],
  ])
  sink.kill('SIGTERM')
  await sink.ended
  const { end, error } = JSON.parse(stdout)
  if (error !== undefined) throw new Error(error)
  return end.sum_received.bits_per_second / 1e6
}
