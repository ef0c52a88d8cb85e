/**
 * A server's namespace and those of its clients, a cable from it to each, and OpenVPN in them: with certificates made for
 * the run; plain or under `ovpn run`. What is expected of them is the tests'.
 *
 *     server 192.0.2.1/28, 2001:db8:0:0::1/64  ──cable 0──  192.0.2.2,  2001:db8:0:0::2    first client's host
 *            192.0.2.17/28, 2001:db8:0:1::1/64 ──cable 1──  192.0.2.18, 2001:db8:0:1::2    the next one's, and so on
 *
 * In the tunnel the server is 10.8.0.1 and, where a test asks for `server-ipv6 fd00:8::/64`, fd00:8::1.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { OVPN, type Running, run, start } from '../command.ts'
import { openTestNetns, type TestNetns } from '../namespace.ts'
import { until } from './programs.ts'

/** How OpenVPN runs at one end. */
export interface Side {
  /** Its command. */
  program: string
  /** Whether under `ovpn run`. */
  offload: boolean
  /** Its name in its certificate; else `server` or `client`. */
  name?: string
  /** More of its configuration, after what it always has. */
  more?: string[]
  /** A command that starts all this, such as `setpriv` with its options. */
  through?: string[]
}

/** Of a client: where to. */
export interface ClientSide extends Side {
  host?: Host
  /** Else the server's end of the cable. */
  remote?: string
  /** Whether it has a local port of its own, which `more` may name. */
  bound?: boolean
  port?: number
}

export type Transport = 'udp' | 'tcp' | 'udp6' | 'tcp6'

/** Where a client is. */
export interface Host {
  readonly netns: TestNetns
  /** Which cable it has to the server. */
  readonly cable: number
  /** The interface of the cable at the server. */
  readonly serverDevice: string
  /** The server's addresses on the cable, and the host's own. */
  readonly server: Endpoint
  readonly own: Endpoint
}

export interface Endpoint {
  readonly ipv4: string
  readonly ipv6: string
}

export interface Lab {
  readonly server: TestNetns
  /** The namespace of the first client's host. */
  readonly client: TestNetns
  readonly hosts: readonly Host[]
  /** Where configurations and certificates lie, and more may; removed with the lab. */
  readonly folder: string
  addHost(): Host
  /** Has `server` or `client`.crt and .key lie in the folder, for ends that are started elsewhere. */
  certify(usage: 'server' | 'client'): void
  startServer(side: Side, transport: Transport): Running
  startClient(side: ClientSide, transport: Transport): Running
  close(): Promise<void>
}

const PORT = 1194
export const SERVER_VPN = '10.8.0.1'
export const SERVER_VPN6 = 'fd00:8::1'

/** What OpenVPN says when it has offload. */
export const OFFLOADED = /DCO device tun\d opened/

export function openLab(): Lab {
  const server = openTestNetns('runs')
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-interop-'))
  createAuthority(folder)
  const hosts: Host[] = []
  const addHost = () => {
    const host = openHost(server, openTestNetns('runc'), hosts.length)
    hosts.push(host)
    return host
  }
  const first = addHost()
  const running: Running[] = []
  const begin = (netns: TestNetns, { program, offload, through = [] }: Side, config: string) => {
    const wrapped = offload ? [...through, OVPN, 'run', program] : [...through, program]
    const args = ['netns', 'exec', netns.name, ...wrapped, '--config', config]
    const one = start('ip', args)
    running.push(one)
    return one
  }
  const shared = (usage: Usage, { name = usage, more = [] }: Side) => {
    createCertificate(folder, name, usage)
    return [
      ...['dev tun', 'topology subnet', 'verb 3'],
      ...[`ca ${folder}/ca.crt`, `cert ${folder}/${name}.crt`, `key ${folder}/${name}.key`],
      ...['data-ciphers AES-256-GCM:CHACHA20-POLY1305', ...more],
    ]
  }
  let configs = 0
  const write = (lines: string[]) => {
    const path = join(folder, `${configs++}.conf`)
    writeFileSync(path, `${lines.join('\n')}\n`)
    return path
  }
  return {
    ...{ server, client: first.netns, hosts, folder, addHost },
    certify: (usage) => createCertificate(folder, usage, usage),
    startServer(side, transport) {
      const lines = [
        ...[`proto ${protocol(transport, 'server')}`, `port ${PORT}`, 'dh none'],
        ...['server 10.8.0.0 255.255.255.0', 'keepalive 1 10', 'status-version 2'],
        ...shared('server', side),
      ]
      return begin(server, side, write(lines))
    },
    startClient(side, transport) {
      const { host = first, bound = false, port = PORT } = side
      const remote = side.remote ?? (isIpv6(transport) ? host.server.ipv6 : host.server.ipv4)
      const lines = [
        ...['client', ...(bound ? [] : ['nobind']), `remote ${remote} ${port}`],
        ...[`proto ${protocol(transport, 'client')}`, 'connect-retry 1 1'],
        ...['remote-cert-tls server', ...shared('client', side)],
      ]
      return begin(host.netns, side, write(lines))
    },
    async close() {
      for (const one of running) if (one.status === null) one.kill('SIGTERM')
      await Promise.all(running.map(({ ended }) => ended))
      for (const { netns } of hosts) netns[Symbol.dispose]()
      server[Symbol.dispose]()
      rmSync(folder, { recursive: true })
    },
  }
}

const isIpv6 = (transport: Transport) => transport.endsWith('6')

function protocol(transport: Transport, role: 'server' | 'client'): string {
  return transport.startsWith('udp') ? transport : `${transport}-${role}`
}

function openHost(server: TestNetns, netns: TestNetns, cable: number): Host {
  const serverDevice = `veth${cable}`
  server.ip(`link add ${serverDevice} type veth peer name veth0 netns ${netns.name}`)
  const end = (which: number): Endpoint => ({
    ipv4: `192.0.2.${cable * 16 + which}`,
    ipv6: `2001:db8:0:${cable}::${which}`,
  })
  const ends: [TestNetns, string, Endpoint][] = [
    [server, serverDevice, end(1)],
    [netns, 'veth0', end(2)],
  ]
  for (const [at, device, { ipv4, ipv6 }] of ends) {
    at.ip(`addr add ${ipv4}/28 dev ${device}`)
    at.ip(`addr add ${ipv6}/64 dev ${device} nodad`)
    at.ip(`link set ${device} up`)
  }
  return { netns, cable, serverDevice, server: end(1), own: end(2) }
}

type Usage = 'server' | 'client'

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']

function openssl(folder: string, ...args: string[]): void {
  execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
}

function createAuthority(folder: string): void {
  const about = ['-x509', '-subj', '/CN=ca', '-days', '2']
  openssl(folder, 'req', ...about, ...EC, '-keyout', 'ca.key', '-out', 'ca.crt')
}

/** `name`.crt and `name`.key in the folder, where they are not there yet. */
function createCertificate(folder: string, name: string, usage: Usage): void {
  if (existsSync(join(folder, `${name}.crt`))) return
  const extensions = `extendedKeyUsage=${usage}Auth\nkeyUsage=digitalSignature\n`
  writeFileSync(join(folder, 'usage'), extensions)
  const request = ['-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`]
  openssl(folder, 'req', ...EC, ...request)
  openssl(
    ...[folder, 'x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.crt', '-CAkey', 'ca.key'],
    ...['-days', '2', '-CAcreateserial', '-extfile', 'usage', '-out', `${name}.crt`],
  )
}

/** How long after the last packet of those that count an answer may come. */
const LATE_S = 2

/**
 * Packets lost of `count`, in percent; `more` are options of ping. It goes on until each of them is answered, for ping on its own ends
 * with so many answers, whichever, or two round trips after its last packet: on a busy machine one that is late is none that is lost.
 */
export async function ping(
  from: TestNetns,
  to: string,
  count = 5,
  more: string[] = [],
): Promise<number> {
  // For a moment the system does not use a new address: packets would go with another, which no peer may have.
  const isOfUse = () => from.ip('-6 addr show tentative') === ''
  if (to.includes(':')) await until('addresses to be of use', isOfUse, 30)
  const interval = more.includes('-i') ? Number(more[more.indexOf('-i') + 1]) : 0.1
  const deadline = String(5 + Math.ceil(count * interval) + LATE_S)
  const args = ['netns', 'exec', from.name, 'ping', '-n', '-i', '0.1', '-w', deadline]
  const running = start('ip', [...args, ...more, to])
  const answered = () =>
    Array.from(running.stdout.matchAll(/icmp_seq=(\d+) .*time=/g), ([, number]) => Number(number))
  const firstOf = (numbers: number[]) => new Set(numbers.filter((number) => number <= count)).size
  const last = count + LATE_S / interval
  const isOver = () => {
    const numbers = answered()
    return firstOf(numbers) === count || (numbers.at(-1) ?? 0) > last || running.status !== null
  }
  while (!isOver()) await sleep(20)
  running.kill('SIGINT')
  await running.ended
  return ((count - firstOf(answered())) / count) * 100
}

/** Resolves with the first packet through: the server sets the peer up a little after the client says that it is done. */
export async function reached(lab: Lab): Promise<void> {
  await answers(lab.client, SERVER_VPN)
}

/** Resolves with the first packet through, from anywhere to any address. */
export async function answers(from: TestNetns, to: string): Promise<void> {
  for (let i = 0; i < 40; i++) if ((await ping(from, to, 1, ['-w', '1'])) === 0) return
  assert.fail(`no packet got through to ${to}`)
}

/** One TCP stream for `seconds` from the client to the server; Mbit/s received. */
export async function iperf(lab: Lab, seconds: number, reverse = false): Promise<number> {
  const ends = { from: lab.client, to: lab.server, address: SERVER_VPN }
  const { bits_per_second } = await stream(ends, [
    ...['-t', String(seconds)],
    ...(reverse ? ['-R'] : []),
  ])
  return bits_per_second / 1e6
}

export interface Ends {
  from: TestNetns
  to: TestNetns
  /** Of `to`. */
  address: string
}

/** One TCP stream of `bytes`; fails where they do not arrive. Some MB may be under way when iperf3 looks. */
export async function transfer(ends: Ends, bytes = 2e7): Promise<void> {
  const received = await stream(ends, ['-n', String(bytes)])
  assert.ok(received.bytes > bytes / 2, `${received.bytes} bytes of ${bytes} arrived`)
}

interface Received {
  bytes: number
  bits_per_second: number
}

async function stream({ from, to, address }: Ends, options: string[]): Promise<Received> {
  const sink = start('ip', ['netns', 'exec', to.name, 'iperf3', '-s', '-1', '--forceflush'])
  await sink.says(/listening/)
  const { stdout } = await run('ip', [
    ...['netns', 'exec', from.name, 'iperf3', '-J', '-c', address, '--connect-timeout', '5000'],
    ...options,
  ])
  sink.kill('SIGTERM')
  await sink.ended
  const { end, error } = JSON.parse(stdout)
  if (error !== undefined) throw new Error(error)
  return end.sum_received
}

/** How often OpenVPN has said it. */
export function times(running: Running, pattern: RegExp): number {
  return (running.stdout.match(new RegExp(pattern, 'g')) ?? []).length
}

/** Has a host pass packets on between its interfaces. */
export function forward({ name }: TestNetns): void {
  const settings = ['ipv4/ip_forward', 'ipv6/conf/all/forwarding']
  const script = settings.map((setting) => `echo 1 >/proc/sys/net/${setting}`).join('; ')
  execFileSync('ip', ['netns', 'exec', name, 'sh', '-c', script])
}
