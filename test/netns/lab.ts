/**
 * What the tests of this folder stand on: hosts (network namespaces) with wires between them, a driver that serves them
 * all, its devices and tunnels, and the programs that make traffic. What speaks the data channel by hand is hand.ts's.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { type DriverClient, openClient } from '../../src/driver/client.ts'
import { openLibc } from '../../src/platform/libc.ts'
import { inNetns } from '../../src/platform/netns.ts'
import { connectTcp, listenTcp } from '../../src/platform/tcp.ts'
import { type BoundUdp, openUdp } from '../../src/platform/udp.ts'
import { createDriver, type LocalDriver } from '../../src/runtime/driver.ts'
import { originOfNetns } from '../../src/runtime/origin.ts'
import type {
  Cipher,
  DialectName,
  DriverEvent,
  KeyConf,
  LinkKind,
  Mode,
  PeerNew,
  Slot,
} from '../../src/uapi/types.ts'
import { driverSettings } from '../driver-settings.ts'
import { openTestNetns, type TestNetns } from '../namespace.ts'

/** For a machine that is busy with other tests. */
const PATIENCE_MS = 40_000
const POLL_MS = 10

/** Calls `condition` until it gives something, and gives that; fails after `ms`, naming `what`. */
export async function until<T>(
  what: string,
  condition: () => T | Promise<T>,
  ms = PATIENCE_MS,
): Promise<NonNullable<T>> {
  const end = performance.now() + ms
  for (;;) {
    const found = await condition()
    if (found) return found
    if (performance.now() > end) assert.fail(`waited ${ms} ms in vain for ${what}`)
    await sleep(POLL_MS)
  }
}

export const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms))

/** A driver and the hosts it serves. Closing it removes all that was made through it. */
export class Lab {
  readonly driver: LocalDriver
  /** What the driver said. */
  readonly log: string[] = []
  readonly #part: string
  readonly #hosts: Host[] = []
  readonly #undo: (() => unknown)[] = []

  /** `part` goes into the names of namespaces. */
  constructor(part: string) {
    this.#part = part
    const note = (text: string) => {
      this.log.push(text)
    }
    const random = () => Math.floor(Math.random() * 2 ** 32)
    this.driver = createDriver({ error: note, info: note, debug: note }, random, driverSettings())
  }

  async host(): Promise<Host> {
    const netns = openTestNetns(this.#part)
    const host = new Host(netns, this)
    this.#undo.push(() => host[Symbol.dispose]())
    // Addresses are to be of use at once, and no interface is to speak on its own account.
    host.sysctl('net/ipv6/conf/default/accept_dad', 0)
    host.sysctl('net/ipv6/conf/default/addr_gen_mode', 1)
    host.sysctl('net/ipv6/conf/default/router_solicitations', 0)
    await host.client('ovpn')
    this.#hosts.push(host)
    return host
  }

  /** A wire between two hosts: a veth pair, each end with the addresses given for it (address/prefix). */
  async wire(
    near: Host,
    far: Host,
    name: string,
    addresses: [near: string, far: string][],
  ): Promise<void> {
    near.ip(`link add ${name} type veth peer name ${name} netns ${far.name}`)
    for (const [host, which] of [
      [near, 0],
      [far, 1],
    ] as const) {
      host.ip(`link set ${name} up`)
      for (const pair of addresses) host.addAddress(name, pair[which])
    }
    await near.ready(name)
    await far.ready(name)
  }

  /** What the devices of all hosts have dropped, in words. */
  async drops(): Promise<string[]> {
    const all = await Promise.all(
      this.#hosts.map(async (host) => {
        const links = await (await host.client('ovpn')).links()
        return links.map(({ name, drops }) => `${host.name} ${name} ${JSON.stringify(drops)}`)
      }),
    )
    return all.flat()
  }

  /** Something to be undone at the end, before what was made earlier. */
  defer(undo: () => unknown): void {
    this.#undo.push(undo)
  }

  /**
   * A tunnel between two point-to-point devices, with a key at both ends: 10.8.0.1 and fd00:8::1 in `near`, 10.8.0.2
   * and fd00:8::2 in `far`.
   */
  async tunnel(near: Host, far: Host, options: TunnelOptions): Promise<Tunnel> {
    const { outer, transport = 'udp', kind = 'ovpn', mtu, bind } = options
    const device = { mode: 'p2p' as const, kind, ...(mtu && { mtu }) }
    const ends = [
      await near.device({ ...device, addresses: ['10.8.0.1/24', 'fd00:8::1/64'] }),
      await far.device({ ...device, addresses: ['10.8.0.2/24', 'fd00:8::2/64'] }),
    ] as const
    const sockets =
      transport === 'udp' ? udpSockets(near, far, bind) : tcpSockets(near, far, outer[0])
    const close = async () => {
      for (const end of ends) await end.close()
      for (const socket of sockets) socket.close()
    }
    try {
      await addPeers(ends, sockets, options)
    } catch (error) {
      await close()
      throw error
    }
    return {
      near: ends[0],
      far: ends[1],
      sockets: [sockets[0].fd, sockets[1].fd],
      close,
      [Symbol.asyncDispose]: close,
    }
  }

  /** Makes `client` a peer of `server`, a multi-peer device, over UDP: with a device, and a key at both ends. */
  async attach(
    server: Device,
    socket: { port: number; fd: number },
    client: Host,
    options: AttachOptions,
  ): Promise<Attached> {
    const { id, clientId = id, vpn, outer, mtu, keepalive } = options
    const [interval, timeout] = keepalive ?? [0, 0]
    const alive = keepalive && { keepaliveInterval: interval, keepaliveTimeout: timeout }
    const device = await client.device({
      mode: 'p2p',
      addresses: vpn
        .filter((address) => address !== undefined)
        .map((address) => `${address}/${address.includes(':') ? 64 : 24}`),
      ...(mtu && { mtu }),
    })
    const own = client.udp('::')
    const [vpnIpv4, vpnIpv6] = vpn
    await server.peerNew({
      id,
      socket: socket.fd,
      vpnIpv4,
      ...(vpnIpv6 && { vpnIpv6 }),
      ...(clientId !== id && { txId: clientId }),
      ...remoteOf(outer[1], own.port),
      ...alive,
    })
    await device.peerNew({
      id: clientId,
      socket: own.fd,
      ...(clientId !== id && { txId: id }),
      ...remoteOf(outer[0], socket.port),
      ...alive,
    })
    await server.keyNew(id, { side: 0, seed: id })
    await device.keyNew(clientId, { side: 1, seed: id })
    const close = async () => {
      await device.close()
      own.close()
    }
    return { device, socket: own, close, [Symbol.asyncDispose]: close }
  }

  async close(): Promise<void> {
    await this.driver.close()
    for (const undo of this.#undo.reverse()) await undo()
    this.#undo.length = 0
  }
}

export interface TunnelOptions {
  /** Outer addresses of the two ends. */
  outer: [near: string, far: string]
  transport?: 'udp' | 'tcp'
  /** Peer ids: what packets to each end carry. */
  ids?: [near: number, far: number]
  cipher?: Cipher
  keyBytes?: number
  mtu?: number
  kind?: LinkKind
  /** Seconds: interval and timeout. */
  keepalive?: [number, number]
  /** Index of the interface at each end that link-local addresses belong to. */
  scopes?: [near: number, far: number]
  /** Address that the UDP sockets are bound to; `::` unless told. */
  bind?: string
}

export interface AttachOptions {
  /** Of the peer at the server; what packets to the server carry. */
  id: number
  /** Of the server at the client; the same unless told. */
  clientId?: number
  /** VPN addresses of the client: IPv4, and IPv6 if it has one. */
  vpn: [v4: string, v6?: string]
  /** Outer addresses. */
  outer: [server: string, client: string]
  mtu?: number
  /** Seconds: interval and timeout. */
  keepalive?: [number, number]
}

export interface Attached extends AsyncDisposable {
  readonly device: Device
  readonly socket: BoundUdp
  close(): Promise<void>
}

export interface Tunnel extends AsyncDisposable {
  readonly near: Device
  readonly far: Device
  /** Descriptors of the transport's two ends. */
  readonly sockets: [near: number, far: number]
  close(): Promise<void>
}

/** Makes two ends the peers of each other, with a key. */
async function addPeers(
  ends: readonly [Device, Device],
  sockets: readonly [Socket, Socket],
  options: TunnelOptions,
): Promise<void> {
  const { ids = [1, 1], outer, transport = 'udp', keepalive, scopes } = options
  const [interval, timeout] = keepalive ?? [0, 0]
  for (const i of [0, 1] as const) {
    await ends[i].peerNew({
      id: ids[i],
      socket: sockets[i].fd,
      ...(ids[0] !== ids[1] && { txId: ids[1 - i]! }),
      ...(keepalive && { keepaliveInterval: interval, keepaliveTimeout: timeout }),
      ...(transport === 'udp' && remoteOf(outer[1 - i]!, sockets[1 - i]!.port)),
      ...(scopes && { remoteIpv6ScopeId: scopes[i] }),
    })
    await ends[i].keyNew(ids[i], { side: i, ...options })
  }
}

interface Socket {
  fd: number
  port: number
  close(): void
}

function udpSockets(near: Host, far: Host, address = '::'): [Socket, Socket] {
  return [near.udp(address), far.udp(address)]
}

/** The two ends of a stream from `far` to the address of `near`. */
export function tcpSockets(near: Host, far: Host, address: string): [Socket, Socket] {
  using listener = listenTcp(address, 0, { netns: near.fd })
  const connected = connectTcp(address, listener.port, { netns: far.fd })
  const accepted = listener.accept(PATIENCE_MS)
  assert.ok(accepted !== undefined, 'a connection arrives')
  const socket = (fd: number) => ({ fd, port: listener.port, close: () => openLibc().close(fd) })
  return [socket(accepted), socket(connected)]
}

/** Where a peer is, as requests have it. */
export function remoteOf(
  address: string,
  port: number,
): { remoteIpv4: string; remotePort: number } | { remoteIpv6: string; remotePort: number } {
  return address.includes(':')
    ? { remoteIpv6: address, remotePort: port }
    : { remoteIpv4: address, remotePort: port }
}

/** A network namespace, and the driver as programs in it see it. */
export class Host {
  readonly name: string
  readonly fd: number
  readonly lab: Lab
  /** Events of the dialect `ovpn`, as they came. */
  readonly events: DriverEvent[] = []
  readonly #netns: TestNetns
  readonly #clients = new Map<DialectName, DriverClient>()
  #removed = false

  constructor(netns: TestNetns, lab: Lab) {
    this.#netns = netns
    this.lab = lab
    this.name = netns.name
    this.fd = netns.fd
  }

  ip(command: string): string {
    return this.#netns.ip(command)
  }

  addAddress(link: string, address: string): void {
    this.ip(`addr add ${address} dev ${link}${address.includes(':') ? ' nodad' : ''}`)
  }

  /** Ends the namespace now; what is in it ends with it, as far as nobody holds on to that. */
  remove(): void {
    this.#removed = true
    for (const client of this.#clients.values()) client.close()
    this.#netns[Symbol.dispose]()
  }

  /** The same with the lab. */
  [Symbol.dispose](): void {
    if (!this.#removed) this.#netns[Symbol.dispose]()
  }

  /**
   * Waits for an interface that has got its carrier: until the kernel has taken note of that, in its own time, it throws
   * away what is sent there, and counts nothing.
   */
  async ready(link: string): Promise<void> {
    const isReady = () => / state (UP|UNKNOWN) /.test(this.ip(`-o link show ${link}`))
    await until(`${link} to be ready`, isReady)
  }

  indexOf(link: string): number {
    return Number(/^(\d+):/.exec(this.ip(`-o link show ${link}`))?.[1])
  }

  sysctl(path: string, value: number): void {
    inNetns(this.fd, () => writeFileSync(`/proc/sys/${path}`, String(value)))
  }

  async client(dialect: DialectName): Promise<DriverClient> {
    const known = this.#clients.get(dialect)
    if (known !== undefined) return known
    const origin = originOfNetns(this.fd)
    const { server } = this.lab.driver
    const client = await openClient({
      generic: () => server.channel('generic', origin),
      route: () => server.channel('route', origin),
      dialect,
    })
    this.lab.defer(() => client.close())
    this.#clients.set(dialect, client)
    const events = await client.events()
    void (async () => {
      for await (const event of events) if (event.event !== 'lost') this.events.push(event)
    })()
    return client
  }

  /** Makes a device, gives it the addresses (address/prefix), and sets it up. */
  async device(options: DeviceOptions): Promise<Device> {
    const { mode, kind = 'ovpn', mtu, name = 'ovpn0', addresses = [] } = options
    const client = await this.client(kind === 'ovpn' ? 'ovpn' : 'ovpn-dco-v2')
    const link = await client.linkNew({ name, kind, mode, ...(mtu && { mtu }) })
    const v6 = addresses.some((address) => address.includes(':')) && (mtu ?? 1280) >= 1280
    // Else the stack would announce itself: packets that no test has sent.
    if (!v6 && (mtu ?? 1280) >= 1280) this.sysctl(`net/ipv6/conf/${name}/disable_ipv6`, 1)
    for (const address of addresses) {
      if (v6 || !address.includes(':')) this.addAddress(name, address)
    }
    this.ip(`link set ${name} up`)
    return new Device(this, client, link.ifindex, name)
  }

  udp(address: string, port = 0): BoundUdp {
    return openUdp(address, port, { netns: this.fd })
  }

  /** Events so far that `wanted` likes. */
  heard<E extends DriverEvent['event']>(
    event: E,
    wanted: (event: Extract<DriverEvent, { event: E }>) => boolean = () => true,
  ): Extract<DriverEvent, { event: E }>[] {
    const of = this.events.filter((one): one is Extract<DriverEvent, { event: E }> => {
      return one.event === event
    })
    return of.filter(wanted)
  }

  /** Starts a program here; it is killed with the lab at the latest. */
  start(command: string, args: string[], stdin: 'ignore' | 'pipe' = 'ignore'): Program {
    const program = new Program(
      spawn('ip', ['netns', 'exec', this.name, command, ...args], {
        stdio: [stdin, 'pipe', 'pipe'],
      }),
    )
    this.lab.defer(() => program.kill())
    return program
  }

  async ping(target: string, options: PingOptions = {}): Promise<{ sent: number; got: number }> {
    const { count = 20, interval = 0.01, size, from, seconds = 5, fragment } = options
    const args = ['-n', '-q', '-c', `${count}`, '-i', `${interval}`, '-W', `${seconds}`]
    if (size !== undefined) args.push('-s', String(size))
    if (from !== undefined) args.push('-I', from)
    if (fragment === false) args.push('-M', 'do')
    const before = this.#echoReplies()
    const { output } = await this.start('ping', [...args, target]).ended
    const found = /(\d+) packets transmitted, (\d+) received/.exec(output)
    assert.ok(found, `ping says what became of its packets: ${output}`)
    const [sent, got] = [Number(found[1]), Number(found[2])]
    if (got === 0 || got === sent) return { sent, got }
    // Once it has sent all, ping waits for two round trips only: on a busy machine the last answers find it gone.
    const arrived = () => this.#echoReplies() - before
    await until('late answers', () => arrived() >= sent, 2000).catch(() => undefined)
    return { sent, got: Math.min(sent, Math.max(got, arrived())) }
  }

  /** Echo replies that have arrived here so far, whoever asked. */
  #echoReplies(): number {
    const read = (file: string) =>
      inNetns(this.fd, () => readFileSync(`/proc/thread-self/net/${file}`, 'utf8'))
    const [names, values] = read('snmp')
      .split('\n')
      .filter((line) => line.startsWith('Icmp:'))
    const v4 = Number(values!.split(' ')[names!.split(' ').indexOf('InEchoReps')])
    const v6 = Number(/Icmp6InEchoReplies\s+(\d+)/.exec(read('snmp6'))?.[1])
    return v4 + v6
  }

  /** Pings, and fails when an answer is missing. */
  async reach(target: string, options: PingOptions = {}): Promise<void> {
    const { sent, got } = await this.ping(target, options)
    if (got === sent) return
    const drops = await this.lab.drops()
    assert.fail(`${got} answers of ${target} to ${sent} requests; dropped: ${drops.join('; ')}`)
  }
}

export interface PingOptions {
  count?: number
  /** Seconds between packets. */
  interval?: number
  /** Bytes of payload. */
  size?: number
  from?: string
  /** How long to wait for the last answer. */
  seconds?: number
  /** False: the packets may not be fragmented. */
  fragment?: boolean
}

export interface DeviceOptions {
  mode: Mode
  kind?: LinkKind
  mtu?: number
  name?: string
  addresses?: string[]
}

export interface KeyOptions {
  /** The two ends of a tunnel have opposite directions. */
  side: number
  cipher?: Cipher
  keyBytes?: number
  slot?: Slot
  keyId?: number
  /** What the key is made of; the key id unless told, so that no two keys are the same. */
  seed?: number
}

/** The key of one direction: to side 0 or side 1. */
export function keyTo(
  side: number,
  { seed = 0, keyBytes = 32 }: { seed?: number; keyBytes?: number },
) {
  return {
    cipherKey: new Uint8Array(keyBytes).fill(0x10 + 2 * seed + side),
    nonceTail: new Uint8Array(8).fill(0x80 + 2 * seed + side),
  }
}

/** A device, and its requests. */
export class Device {
  readonly host: Host
  readonly client: DriverClient
  readonly ifindex: number
  readonly name: string

  constructor(host: Host, client: DriverClient, ifindex: number, name: string) {
    this.host = host
    this.client = client
    this.ifindex = ifindex
    this.name = name
  }

  async peerNew(peer: PeerNew): Promise<void> {
    await this.client.peerNew(this.ifindex, peer)
    await this.host.ready(this.name)
  }

  keyNew(peerId: number, options: KeyOptions): Promise<void> {
    const { side, cipher = 'aes-gcm', keyBytes = 32, slot = 'primary', keyId = 0 } = options
    const seed = options.seed ?? keyId
    const keyconf: KeyConf = {
      peerId,
      slot,
      keyId,
      cipherAlg: cipher,
      encryptDir: keyTo(1 - side, { seed, keyBytes }),
      decryptDir: keyTo(side, { seed, keyBytes }),
    }
    return this.client.keyNew(this.ifindex, keyconf)
  }

  peer(id: number) {
    return this.client.peerGet(this.ifindex, id, { extended: true })
  }

  link() {
    return this.client.link(this.ifindex)
  }

  /** Packets dropped, by reason: of a peer, or of the device. */
  async drops(peerId?: number): Promise<Record<string, number>> {
    const { drops } = peerId === undefined ? await this.link() : await this.peer(peerId)
    return Object.fromEntries((drops ?? []).map(({ reason, count }) => [reason, count]))
  }

  /** Why peers of it went, in order of peer id. */
  lost(): [id: number, reason: string][] {
    const own = this.host.heard('peer-del-ntf', ({ ifindex }) => ifindex === this.ifindex)
    const lost = own.map(({ peer }): [number, string] => [peer.id, peer.delReason])
    return lost.sort(([a], [b]) => a - b)
  }

  async close(): Promise<void> {
    const there = (await this.client.links()).some(({ ifindex }) => ifindex === this.ifindex)
    if (there) await this.client.linkDel(this.ifindex)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** A program under way. */
export class Program {
  readonly child: ChildProcess
  output = ''
  readonly ended: Promise<{ status: number | null; output: string }>

  constructor(child: ChildProcess) {
    this.child = child
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text
      })
    }
    this.ended = new Promise((resolve) => {
      child.on('close', (status) => resolve({ status, output: this.output }))
    })
  }

  async says(text: string): Promise<void> {
    await until(`"${text}"`, () => this.output.includes(text))
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.child.kill(signal)
    await this.ended
  }
}

export interface IperfOptions {
  /** Bytes to send, as iperf3 has them ("24M"); a second long unless told. */
  amount?: string
  /** Bits per second: UDP instead of TCP. */
  udp?: string
  reverse?: boolean
  /** Bytes per datagram or write. */
  length?: number
}

export interface IperfResult {
  /** Bytes that arrived; over TCP, until the sender was through. */
  bytes: number
  /** Bytes that were sent. */
  sent: number
  /** Datagrams sent, and lost of those. */
  packets: number
  lost: number
}

/** One stream to `address` in `server`. */
export async function iperf(
  client: Host,
  server: Host,
  address: string,
  options: IperfOptions = {},
): Promise<IperfResult> {
  const listening = server.start('iperf3', ['-s', '-1', '-B', address, '--forceflush'])
  await listening.says('Server listening')
  const { amount } = options
  const end = amount === undefined ? ['-t', '1'] : ['-n', amount]
  const args = ['-c', address, ...end, '-J', '--connect-timeout', '10000']
  if (options.udp !== undefined) args.push('-u', '-b', options.udp)
  if (options.reverse) args.push('-R')
  if (options.length !== undefined) args.push('-l', String(options.length))
  const program = client.start('iperf3', args)
  const timer = setTimeout(() => void program.kill(), 60_000)
  const { output } = await program.ended
  clearTimeout(timer)
  await listening.kill()
  const result = JSON.parse(output)
  assert.equal(result.error, undefined, 'iperf3 has no complaint')
  const { sum, sum_sent: sent, sum_received: received } = result.end
  if (options.udp !== undefined) {
    return { bytes: sum.bytes, sent: sum.bytes, packets: sum.packets, lost: sum.lost_packets }
  }
  return { bytes: received.bytes, sent: sent.bytes, packets: 0, lost: 0 }
}
