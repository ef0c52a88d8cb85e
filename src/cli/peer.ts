/**
 * `ovpn peer`: adds, changes, tells about and removes peers. A peer lives as long as its transport socket, so `new` stays
 * to own the socket that it opened (transport.ts), and shows the control packets that arrive there.
 */
import { Command } from 'commander'
import type { DriverClient } from '../driver/client.ts'
import { json } from '../uapi/dialects/json.ts'
import type { Link, Peer, PeerNew, PeerSet } from '../uapi/types.ts'
import {
  address,
  addresses,
  descriptor,
  device,
  type HostPort,
  hostPort,
  keepalive,
  listenAt,
  mssfix,
  peerId,
  swapWait,
} from './arguments.ts'
import type { Driver, Environment } from './compose.ts'
import { attempt, CliError, EXIT } from './errors.ts'
import { formatPeer, formatTime, toJson } from './format.ts'
import {
  type DriverOptions,
  findLink,
  useDevice,
  useDriver,
  withDriver,
  withExamples,
  withJson,
} from './options.ts'
import { openTransport, type Transport, zoneIndex } from './transport.ts'

/** What `new` and `set` have in common. */
interface ChangeOptions extends DriverOptions {
  remote?: HostPort
  vpnIp?: string[]
  local?: string
  keepalive?: { interval: number; timeout: number }
  txId?: number
  mssfix?: number
  swapWait?: number
}

interface NewOptions extends ChangeOptions {
  udpListen?: HostPort
  tcpConnect?: HostPort
  tcpListen?: HostPort
  fd?: { pid?: number; fd: number }
  hold?: boolean
}

function withChanges(command: Command): Command {
  return command
    .option('--remote <addr:port>', 'where the peer is (UDP only)', hostPort)
    .option('--vpn-ip <addr>', 'its address in the tunnel; one of each family (MP only)', addresses)
    .option('--local <addr>', 'address to send from; else routing decides', address)
    .option(
      '--keepalive <interval,timeout>',
      'seconds until a ping and until it is gone, or off',
      keepalive,
    )
    .option('--tx-id <n>', 'what packets to the peer carry; else its id', peerId)
    .option(
      '--mssfix <bytes>',
      'make TCP inside fit packets of so many bytes outside, and the path (UDP only)',
      mssfix,
    )
    .option(
      '--swap-wait <ms>',
      'send with a new key when the peer is heard with it, or after so long, whichever is first, and open with a former one for so long after its end; 0: after a swap',
      swapWait,
    )
}

export function peerCommand(environment: Environment): Command {
  const add = new Command('new')
    .alias('add')
    .description('add a peer, and own its socket until interrupted; then the peer is removed')
    .argument('<dev>', 'interface: name or index', device)
    .argument('<id>', 'peer id: what packets from it carry', peerId)
    .option('--udp-listen <[addr:]port>', 'UDP socket bound here', listenAt)
    .option('--tcp-connect <addr:port>', 'TCP connection to there', hostPort)
    .option(
      '--tcp-listen <[addr:]port>',
      'TCP connection: the first one that arrives here',
      listenAt,
    )
    .option(
      '--fd <[pid:]fd>',
      'socket that is open already, in this process or another',
      descriptor,
    )
    .option('--hold', 'with --fd too: stay, and remove the peer when interrupted')
    .action((name: string, id: number, options: NewOptions) => {
      checkTransport(options)
      return useDriver(environment, options, (driver) =>
        peerNew(environment, driver, name, id, options),
      )
    })

  const set = new Command('set')
    .description('change a peer; what is not given stays as it is')
    .argument('<dev>', 'interface: name or index', device)
    .argument('<id>', 'peer id', peerId)
    .action((name: string, id: number, options: ChangeOptions) => {
      const change: PeerSet = { id, ...changes(options) }
      if (Object.keys(change).length === 1) {
        throw new CliError('nothing to change: expected one option at least', EXIT.usage)
      }
      return useDevice(environment, options, name, async (client, ifindex) => {
        await attempt(`cannot change peer ${id} of ${name}`, () => client.peerSet(ifindex, change))
      })
    })

  const get = new Command('get')
    .alias('show')
    .description('tell about a peer, or all of an interface')
    .argument('<dev>', 'interface: name or index', device)
    .argument('[id]', 'peer id', peerId)
    .action((name: string, id: number | undefined, options: DriverOptions) =>
      useDevice(environment, options, name, async (client, ifindex) => {
        const all = { extended: client.extended }
        if (id === undefined) {
          const what = `cannot list the peers of ${name}`
          const peers: Peer[] = await attempt(what, () => client.peers(ifindex, all))
          if (options.json)
            environment.print(toJson(peers.map((peer) => json.encodeReply('peer-get', peer))))
          else if (peers.length > 0) environment.print(peers.map(formatPeer).join('\n').trimEnd())
        } else {
          const what = `cannot read peer ${id} of ${name}`
          const peer = await attempt(what, () => client.peerGet(ifindex, id, all))
          environment.print(
            options.json ? toJson(json.encodeReply('peer-get', peer)) : formatPeer(peer).trimEnd(),
          )
        }
      }),
    )

  const del = new Command('del')
    .alias('delete')
    .description('remove a peer')
    .argument('<dev>', 'interface: name or index', device)
    .argument('<id>', 'peer id', peerId)
    .action((name: string, id: number, options: DriverOptions) =>
      useDevice(environment, options, name, async (client, ifindex) => {
        await attempt(`cannot remove peer ${id} of ${name}`, () => client.peerDel(ifindex, id))
      }),
    )

  withExamples(
    withJson(withDriver(withChanges(add))),
    'ovpn peer new ovpn0 1 --udp-listen 1194 --remote 192.0.2.2:1194 --vpn-ip 10.8.0.2',
    'ovpn peer new ovpn0 1 --tcp-connect 192.0.2.1:1194 --keepalive 10,60',
    'ovpn -h                      # shows a tunnel between two network namespaces',
  )
  withExamples(
    withDriver(withChanges(set)),
    'ovpn peer set ovpn0 1 --keepalive 10,60',
    'ovpn peer set ovpn0 1 --remote 192.0.2.7:1194',
  )
  withExamples(withJson(withDriver(get)), 'ovpn peer get ovpn0', 'ovpn peer get ovpn0 1 --json')
  withExamples(withDriver(del), 'ovpn peer del ovpn0 1')
  return new Command('peer')
    .description('add, change, remove peers and tell about them')
    .addCommand(add)
    .addCommand(set)
    .addCommand(get)
    .addCommand(del)
}

function checkTransport(options: NewOptions): void {
  const { udpListen, tcpConnect, tcpListen, fd, remote } = options
  const given = [udpListen, tcpConnect, tcpListen, fd].filter((one) => one !== undefined)
  const refuse = (why: string) => new CliError(why, EXIT.usage)
  if (given.length !== 1) {
    throw refuse('expected one of --udp-listen, --tcp-connect, --tcp-listen and --fd')
  }
  if (udpListen !== undefined && remote === undefined) {
    throw refuse('expected --remote ADDR:PORT with --udp-listen: where the peer is')
  }
  if ((tcpConnect ?? tcpListen) !== undefined && remote !== undefined) {
    throw refuse('expected no --remote with TCP: the connection says where the peer is')
  }
}

/** The attributes that the options name. Throws a CliError where they contradict each other. */
function changes(options: ChangeOptions): Omit<PeerSet, 'id'> {
  const { remote, vpnIp = [], local, keepalive, txId, mssfix, swapWait } = options
  const change: Omit<PeerSet, 'id'> = {}
  if (remote !== undefined) {
    if (remote.address.includes(':')) change.remoteIpv6 = remote.address
    else change.remoteIpv4 = remote.address
    if (remote.zone !== undefined) change.remoteIpv6ScopeId = zoneIndex(remote.zone)
    change.remotePort = remote.port
  }
  for (const ip of vpnIp) {
    const attribute = ip.includes(':') ? 'vpnIpv6' : 'vpnIpv4'
    if (change[attribute] !== undefined) {
      throw new CliError('expected one --vpn-ip of each address family at most', EXIT.usage)
    }
    change[attribute] = ip
  }
  if (local !== undefined) change[local.includes(':') ? 'localIpv6' : 'localIpv4'] = local
  if (keepalive !== undefined) {
    change.keepaliveInterval = keepalive.interval
    change.keepaliveTimeout = keepalive.timeout
  }
  if (txId !== undefined) change.txId = txId
  if (mssfix !== undefined) change.mssfix = mssfix
  if (swapWait !== undefined) change.swapWaitMs = swapWait
  return change
}

async function peerNew(
  environment: Environment,
  driver: Driver,
  name: string,
  id: number,
  options: NewOptions,
): Promise<void> {
  const change = changes(options)
  const link = await findLink(driver, name)
  const client = await driver.client(link.kind)
  const transport = await openTransport(options)
  try {
    const hold = transport.own || options.hold === true
    // Before there is a peer: nothing that happens to it is missed.
    const events = hold ? await driver.events() : undefined
    try {
      const peer: PeerNew = { id, socket: transport.fd, ...change }
      await attempt(`cannot add peer ${id} to ${name}`, () => addPeer(client, link, peer))
      if (events === undefined) return
      environment.note(
        `peer ${id} of ${name} over ${transport.text}; its socket is --fd ${process.pid}:${transport.fd}; ` +
          'interrupt to remove it',
      )
      await holdPeer(environment, driver, { link, id, transport, events, json: options.json })
    } finally {
      events?.close()
    }
  } finally {
    transport.close()
  }
}

/** Adds a peer, whole or not at all. */
async function addPeer(client: DriverClient, link: Link, peer: PeerNew): Promise<void> {
  const { keepaliveInterval, keepaliveTimeout, ...rest } = peer
  if (link.kind === 'ovpn' || keepaliveInterval === undefined || keepaliveTimeout === undefined) {
    await client.peerNew(link.ifindex, peer)
    return
  }
  // In the older dialects a peer is given its keepalive behind.
  await client.peerNew(link.ifindex, rest)
  try {
    await client.peerSet(link.ifindex, { id: peer.id, keepaliveInterval, keepaliveTimeout })
  } catch (error) {
    await client.peerDel(link.ifindex, peer.id)
    throw error
  }
}

interface Held {
  link: Link
  id: number
  transport: Transport
  events: Awaited<ReturnType<Driver['events']>>
  json: true | undefined
}

/** Until interrupted, or until the peer is gone. */
async function holdPeer(environment: Environment, driver: Driver, held: Held): Promise<void> {
  const { link, id, transport, events, json } = held
  const client = await driver.client(link.kind)
  const show = (packet: Uint8Array, from?: string) => {
    const time = environment.date()
    const hex = Buffer.from(packet).toString('hex')
    environment.print(
      json
        ? JSON.stringify({ time, dev: link.name, event: 'control', from, packet: hex })
        : `${formatTime(time)}  ${from ?? `peer ${id}`}  ${hex}`,
    )
  }
  let interrupted = false
  environment.onInterrupt(() => {
    interrupted = true
    events.close()
  })
  if (driver.kind === 'user' && transport.stream) {
    // The driver reads the stream; control packets come to the one who registers.
    await client.packetRegister(link.ifindex).catch(() => {
      environment.note('another program receives the control packets of this interface')
    })
  } else if (transport.own) transport.onControl(show)

  for await (const event of events) {
    if (event.event === 'lost') {
      await attempt(`peer ${id} of ${link.name} is gone`, () => client.peerGet(link.ifindex, id))
      continue
    }
    if (event.ifindex !== link.ifindex) continue
    if (event.event === 'packet' && event.packet.peerId === id) {
      if (event.packet.eof) environment.note(`peer ${id} of ${link.name} has ended its stream`)
      else show(event.packet.packet)
    }
    if (event.event !== 'peer-del-ntf' || event.peer.id !== id) continue
    environment.note(`peer ${id} of ${link.name} was removed: ${event.peer.delReason}`)
    return
  }
  if (!interrupted) throw new CliError('the driver has closed the connection', EXIT.unreachable)
  await attempt(`cannot remove peer ${id} of ${link.name}`, () => client.peerDel(link.ifindex, id))
}
