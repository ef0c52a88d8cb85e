/**
 * Tunnels between the two drivers, as a program for a machine whose kernel has one: ours in one namespace, the kernel's in
 * another, each as the server of many peers and as the client of one. Prints a line of JSON per tunnel.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { writeSync } from 'node:fs'
import { promisify } from 'node:util'
import type { Protocol } from '../../../src/driver/channel.ts'
import { type DriverClient, openClient } from '../../../src/driver/client.ts'
import { NetlinkServer } from '../../../src/driver/server.ts'
import { DriverHost } from '../../../src/driver/worker/host.ts'
import { openLibc } from '../../../src/platform/libc.ts'
import { createNetns, inNetns, openNetnsNamed, removeNetns } from '../../../src/platform/netns.ts'
import { connectTcp, listenTcp } from '../../../src/platform/tcp.ts'
import { openUdp } from '../../../src/platform/udp.ts'
import { KernelChannel } from '../../../src/runtime/kernel-channel.ts'
import { originOfNetns } from '../../../src/runtime/origin.ts'
import type { DriverEvent, KeyConf, Peer, PeerNew } from '../../../src/uapi/types.ts'
import { sleep } from './subject.ts'

export type Who = 'user' | 'kernel'

/** What one tunnel has shown. */
export interface Tunnel {
  readonly server: Who
  readonly transport: 'udp' | 'tcp'
  readonly cipher: KeyConf['cipherAlg']
  /** Packets lost of those that were sent, by what was going on. */
  readonly lost: { readonly [during: string]: number }
  /** Bytes of a TCP stream that arrived, from the server and from the client. */
  readonly down: number
  readonly up: number
  /** Where the server says that its client has gone. */
  readonly floatedTo: string | undefined
  /** Peers as both ends count them. */
  readonly counters: { readonly server: Peer; readonly client: Peer }
}

const run = promisify(execFile)
const PORT = 1194
const PEER = 7
/** Length of a TCP stream, for iperf3. */
const STREAM = '512K'
/** Of the transport: server, client, and where the client goes. */
const OUTER = ['10.9.0.1', '10.9.0.2', '10.9.0.3'] as const
const INNER = ['10.8.0.1', '10.8.0.2'] as const

interface Side {
  readonly who: Who
  readonly name: string
  readonly netns: number
  readonly client: DriverClient
  ifindex: number
}

const host = new DriverHost({ log() {}, random: () => 1, allowNone: false })
const ours = new NetlinkServer(host, { log: (text) => process.stderr.write(`${text}\n`) })

function openSide(who: Who): Promise<Side> {
  const name = `ovi${process.pid}${who}`
  createNetns(name)
  const netns = openNetnsNamed(name)
  const channel = (protocol: Protocol) =>
    who === 'user'
      ? ours.channel(protocol, originOfNetns(netns))
      : inNetns(netns, () => new KernelChannel(protocol))
  return openClient({
    generic: () => channel('generic'),
    route: () => channel('route'),
    dialect: 'ovpn',
  }).then((client) => ({ who, name, netns, client, ifindex: 0 }))
}

/** Both ends' keys under a key id. */
function keyOf(end: 0 | 1, keyId: number, cipherAlg: KeyConf['cipherAlg'], slot: KeyConf['slot']) {
  const direction = (from: number) => ({
    cipherKey: new Uint8Array(32).fill(16 * keyId + from + 1),
    nonceTail: new Uint8Array(8).fill(from + 1),
  })
  const keyconf: KeyConf = {
    peerId: PEER,
    slot,
    keyId,
    cipherAlg,
    encryptDir: direction(end),
    decryptDir: direction(1 - end),
  }
  return keyconf
}

/**
 * Sends `count` packets through the tunnel and back. Gives how many were lost: `ping` itself stops waiting soon after its last
 * packet, and on an emulated machine packets may take seconds, so the kernel's counter has the last word.
 */
async function ping(from: Side, to: string, count: number): Promise<number> {
  const before = await echoReplies(from)
  const args = ['-c', `${count}`, '-i', '0.02', '-W', '2', '-q', to]
  await run('ip', ['netns', 'exec', from.name, 'ping', ...args]).catch(() => undefined) // all were lost
  for (let tries = 0; tries < 50; tries++) {
    if ((await echoReplies(from)) - before >= count) return 0
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  return count - ((await echoReplies(from)) - before)
}

/** Echo replies that have come to a side since it was made. */
async function echoReplies({ name }: Side): Promise<number> {
  const { stdout } = await run('ip', ['netns', 'exec', name, 'cat', '/proc/net/snmp'])
  const [names, values] = stdout
    .split('\n')
    .filter((line) => line.startsWith('Icmp:'))
    .map((line) => line.split(' '))
  return Number(values![names!.indexOf('InEchoReps')])
}

/** A TCP stream each way, as long as it takes an emulated machine. Gives bytes that arrived: from the server of the tunnel, and from its client. */
async function load(server: Side, client: Side): Promise<{ down: number; up: number }> {
  const bytes: number[] = []
  for (const reverse of [['-R'], []]) {
    let end: ChildProcess | undefined
    try {
      const one = ['-s', '-1', '-B', INNER[0], '--forceflush']
      end = spawn('ip', ['netns', 'exec', server.name, 'iperf3', ...one])
      await said(end, 'Server listening')
      const args = ['netns', 'exec', client.name, 'iperf3', '-c', INNER[0], '-J']
      // The small window keeps most of it from waiting in buffers when the sender is through.
      const bounds = ['-n', STREAM, '-w', '64K', ...reverse]
      const { stdout } = await run('ip', [...args, ...bounds], { timeout: 60_000 })
      const { end: sums, error } = JSON.parse(stdout)
      if (error !== undefined) throw new Error(`iperf3: ${error}`)
      bytes.push(sums.sum_received.bytes)
    } finally {
      end?.kill()
    }
  }
  return { down: bytes[0]!, up: bytes[1]! }
}

/** Resolves when a program has printed `text`, rejects when it ends before. Reads on, so that it can print on. */
function said(program: ChildProcess, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let all = ''
    program.stdout!.on('data', (chunk) => {
      all += chunk
      if (all.includes(text)) resolve()
    })
    program.on('exit', () => reject(new Error(`no ${JSON.stringify(text)}, but: ${all}`)))
  })
}

/** Sockets of both ends, which stay the caller's. */
function openSockets(transport: 'udp' | 'tcp', server: Side, client: Side): [number, number] {
  if (transport === 'udp') {
    return [
      openUdp('0.0.0.0', PORT, { netns: server.netns }).fd,
      openUdp('0.0.0.0', PORT, { netns: client.netns }).fd,
    ]
  }
  using listener = listenTcp(OUTER[0], PORT, { netns: server.netns })
  const fd = connectTcp(OUTER[0], PORT, { netns: client.netns })
  return [listener.accept(2000)!, fd]
}

const ip = (side: Side, ...args: string[]) => run('ip', ['-n', side.name, ...args])

async function tunnel(
  server: Side,
  client: Side,
  transport: Tunnel['transport'],
  cipher: Tunnel['cipher'],
): Promise<Tunnel> {
  const sockets = openSockets(transport, server, client)
  const ends = [server, client] as const
  const events = await server.client.events()
  try {
    for (const [i, side] of ends.entries()) {
      const { client: driver } = side
      const mode = i === 0 ? 'mp' : 'p2p'
      side.ifindex = (await driver.linkNew({ name: 'ovpn0', kind: 'ovpn', mode })).ifindex
      await ip(side, 'addr', 'add', `${INNER[i]}/24`, 'dev', 'ovpn0')
      await ip(side, 'link', 'set', 'ovpn0', 'up')
      const peer: PeerNew = { id: PEER, socket: sockets[i]! }
      if (i === 0) peer.vpnIpv4 = INNER[1]
      if (transport === 'udp') Object.assign(peer, { remoteIpv4: OUTER[1 - i], remotePort: PORT })
      await driver.peerNew(side.ifindex, peer)
      await driver.keyNew(side.ifindex, keyOf(i as 0 | 1, 0, cipher, 'primary'))
    }
    const lost: Record<string, number> = {
      'from the server': await ping(server, INNER[1], 20),
      'from the client': await ping(client, INNER[0], 20),
    }
    const { down, up } = await load(server, client)
    for (const [i, side] of ends.entries()) {
      await side.client.keyNew(side.ifindex, keyOf(i as 0 | 1, 1, cipher, 'secondary'))
    }
    const swapped = ping(client, INNER[0], 100)
    for (const side of ends) {
      await sleep(500)
      await side.client.keySwap(side.ifindex, PEER)
    }
    lost['during swaps'] = await swapped
    let floatedTo: string | undefined
    if (transport === 'udp') {
      await ip(client, 'addr', 'add', `${OUTER[2]}/24`, 'dev', 'v')
      await ip(client, 'addr', 'del', `${OUTER[1]}/24`, 'dev', 'v')
      // Without an address on its network before: deleting the first has taken the second along.
      await ip(client, 'addr', 'replace', `${OUTER[2]}/24`, 'dev', 'v')
      lost['after a float'] = await ping(client, INNER[0], 20)
      floatedTo = await floatOf(events)
      await ip(client, 'addr', 'replace', `${OUTER[1]}/24`, 'dev', 'v')
      await ip(client, 'addr', 'del', `${OUTER[2]}/24`, 'dev', 'v')
      await ip(client, 'addr', 'replace', `${OUTER[1]}/24`, 'dev', 'v')
    }
    const [atServer, atClient] = await Promise.all(
      ends.map((side) => side.client.peerGet(side.ifindex, PEER)),
    )
    const counters = { server: atServer!, client: atClient! }
    return { server: server.who, transport, cipher, lost, down, up, floatedTo, counters }
  } finally {
    events.close()
    for (const side of ends) await side.client.linkDel(side.ifindex)
    for (const fd of sockets) openLibc().close(fd)
  }
}

/** The address in the first notification of a float, if one comes soon. */
async function floatOf(events: AsyncIterable<DriverEvent | { event: 'lost' }>) {
  const found = (async () => {
    for await (const event of events) {
      if (event.event === 'peer-float-ntf') return event.peer.remoteIpv4
    }
    return undefined
  })()
  return Promise.race([found, sleep(2000).then(() => undefined)])
}

async function main(): Promise<void> {
  const user = await openSide('user')
  const kernel = await openSide('kernel')
  try {
    await run('ip', [
      '-n',
      user.name,
      ...'link add v type veth peer name v netns'.split(' '),
      kernel.name,
    ])
    for (const side of [user, kernel]) {
      await ip(side, 'link', 'set', 'lo', 'up')
      await ip(side, 'link', 'set', 'v', 'up')
    }
    for (const [server, client] of [
      [user, kernel],
      [kernel, user],
    ] as const) {
      await ip(server, 'addr', 'flush', 'dev', 'v')
      await ip(client, 'addr', 'flush', 'dev', 'v')
      await ip(server, 'addr', 'add', `${OUTER[0]}/24`, 'dev', 'v')
      await ip(client, 'addr', 'add', `${OUTER[1]}/24`, 'dev', 'v')
      for (const transport of ['udp', 'tcp'] as const) {
        for (const cipher of ['aes-gcm', 'chacha20-poly1305'] as const) {
          const shown = await tunnel(server, client, transport, cipher)
          writeSync(1, `${JSON.stringify(shown)}\n`)
        }
      }
    }
  } finally {
    await host.close()
    for (const side of [user, kernel]) {
      side.client.close()
      removeNetns(side.name)
    }
  }
}

if (import.meta.main) {
  await main()
  process.exit(0)
}
