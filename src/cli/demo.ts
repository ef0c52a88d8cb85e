/**
 * `ovpn demo`: real traffic through the driver, and what it makes of it. Makes three network namespaces, a device for many
 * peers in one and a client's in each of the others, moves a TCP stream through each tunnel, exchanges the keys in the
 * middle, and removes all that it made, also when interrupted.
 *
 *     +------------- server -------------+          +- client ----------------------+
 *     | ovpn0 10.8.0.1    192.0.2.1 veth |----------| veth 192.0.2.2 ovpn0 10.8.0.2 |   UDP, AES-256-GCM
 *     |                   192.0.2.5 veth |---+      +-------------------------------+
 *     +----------------------------------+   |      +- client ----------------------+
 *                                            +------| veth 192.0.2.6 ovpn0 10.8.0.3 |   TCP, ChaCha20-Poly1305
 *                                                   +-------------------------------+
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { Command, InvalidArgumentError } from 'commander'
import { type DriverClient, openClient } from '../driver/client.ts'
import { openLibc } from '../platform/libc.ts'
import { removeNetns } from '../platform/netns.ts'
import { connectTcp, listenTcp } from '../platform/tcp.ts'
import { openUdp } from '../platform/udp.ts'
import { createDriver, type LocalDriver } from '../runtime/driver.ts'
import { originOfNetns } from '../runtime/origin.ts'
import type { Cipher, Link } from '../uapi/types.ts'
import { dataKeys, KEY2_BYTES } from '../wire/keys.ts'
import { type Environment, randomWord } from './compose.ts'
import { attempt, CliError } from './errors.ts'
import { formatBytes, formatRate, formatShow } from './format.ts'
import { Namespace } from './network.ts'
import { withExamples } from './options.ts'
import { missingForDemo } from './requirements.ts'
import type { TransferLine } from './transfer.ts'

const PREFIX = 'ovpn-demo'
const PORT = 1194
const TRANSFER_PORT = 5001
const KEY_BYTES = 32
/** What a transfer may take beyond its time: opening, and what is still under way at the end. */
const GRACE_MS = 20_000

/** A client: its tunnel is a peer with this id on both ends. */
interface Case {
  name: 'udp' | 'tcp'
  title: string
  cipher: Cipher
  peerId: number
  serverAddress: string
  clientAddress: string
  vpnAddress: string
}

const CASES: Case[] = [
  {
    name: 'udp',
    title: 'UDP, AES-256-GCM',
    cipher: 'aes-gcm',
    peerId: 1,
    serverAddress: '192.0.2.1',
    clientAddress: '192.0.2.2',
    vpnAddress: '10.8.0.2',
  },
  {
    name: 'tcp',
    title: 'TCP, ChaCha20-Poly1305',
    cipher: 'chacha20-poly1305',
    peerId: 2,
    serverAddress: '192.0.2.5',
    clientAddress: '192.0.2.6',
    vpnAddress: '10.8.0.3',
  },
]
const SERVER_VPN = '10.8.0.1'

interface Result {
  tunnel: string
  bytes: number
  ms: number
  intact: boolean
}

export function demoCommand(environment: Environment): Command {
  const seconds = (text: string) => {
    const value = Number(text)
    if (!(value >= 1 && value <= 60)) throw new InvalidArgumentError('1 to 60 seconds expected.')
    return value
  }
  const demo = new Command('demo')
    .description(
      'show it at work: two tunnels between network namespaces, with real traffic; needs root',
    )
    .option('--seconds <n>', 'how long each transfer takes', seconds, 5)
    .option('--json', 'print the results as JSON, and nothing else')
    .action(async (options: { seconds: number; json?: true }) => {
      const missing = missingForDemo()
      if (missing.length > 0) {
        throw new CliError(`cannot run the demonstration:\n  ${missing.join('\n  ')}`)
      }
      const say = options.json ? () => {} : environment.print
      const results = await new Demo(environment, say).run(options.seconds)
      if (options.json) environment.print(JSON.stringify(results, undefined, 2))
      if (results.some(({ intact }) => !intact)) {
        throw new CliError('bytes arrived that were not sent')
      }
    })
  return withExamples(demo, 'sudo ovpn demo', 'sudo ovpn demo --seconds 10 --json')
}

/** A device with what is needed to speak of it. */
interface Side {
  namespace: Namespace
  client: DriverClient
  link: Link
}

class Demo {
  readonly #environment: Environment
  readonly #say: (text: string) => void
  readonly #driver: LocalDriver
  readonly #children = new Set<ChildProcess>()
  /** What undoes the steps so far, last first. */
  readonly #undo: (() => void | Promise<void>)[] = []
  #interrupted = false

  constructor(environment: Environment, say: (text: string) => void) {
    this.#environment = environment
    this.#say = say
    const silent = () => {}
    const error = (text: string) => environment.note(text)
    this.#driver = createDriver({ error, info: silent, debug: silent }, () =>
      randomWord(environment),
    )
  }

  async run(seconds: number): Promise<Result[]> {
    removeLeftovers()
    this.#environment.onInterrupt(() => {
      this.#interrupted = true
      for (const child of this.#children) child.kill('SIGKILL')
    })
    try {
      const sides = await this.#build()
      const results: Result[] = []
      for (const one of CASES) results.push(await this.#transfer(one, sides, seconds))
      for (const side of sides.values()) {
        this.#say(`\n# ovpn show -n ${side.namespace.name}\n\n${await show(side)}`)
      }
      const lines = results.map(
        ({ tunnel, bytes, ms, intact }) =>
          `  ${tunnel.padEnd(24)} ${formatRate(bytes, ms).padStart(12)}   ${formatBytes(bytes)} in ` +
          `${(ms / 1000).toFixed(1)} s, ${intact ? 'every byte as it was sent' : 'WRONG BYTES'}`,
      )
      this.#say(
        [
          'Results (one TCP stream through each tunnel, keys exchanged in the middle):',
          ...lines,
        ].join('\n'),
      )
      return results
    } finally {
      for (const undo of this.#undo.reverse()) {
        try {
          await undo()
        } catch (error) {
          this.#environment.note(`while cleaning up: ${(error as Error).message}`)
        }
      }
      this.#say('Removed all that was made.')
    }
  }

  /** Throws if the user wants an end of it. */
  #goOn(): void {
    if (this.#interrupted) throw new CliError('interrupted')
  }

  async #build(): Promise<Map<string, Side>> {
    const sides = new Map<string, Side>()
    const server = this.#namespace('server')
    // Devices go before their namespaces, so that each is told of its end by the driver.
    const clients = CASES.map((one) => ({ one, namespace: this.#namespace(one.name) }))
    this.#undo.push(() => this.#driver.close())
    sides.set('server', await this.#side(server, 'mp', SERVER_VPN))
    for (const { one, namespace } of clients) {
      this.#goOn()
      server.connect(namespace, `to-${one.name}`, 'to-server')
      server.addAddress(server.indexOf(`to-${one.name}`), one.serverAddress, 30)
      namespace.addAddress(namespace.indexOf('to-server'), one.clientAddress, 30)
      sides.set(one.name, await this.#side(namespace, 'p2p', one.vpnAddress))
      await this.#addPeers(one, sides.get('server')!, sides.get(one.name)!)
      await this.#newKeys(one, sides, 'primary', 0)
      this.#say(
        `${namespace.name}: ${one.vpnAddress} over ${one.title}, through ${one.serverAddress}`,
      )
    }
    return sides
  }

  #namespace(name: string): Namespace {
    const namespace = new Namespace(`${PREFIX}-${process.pid}-${name}`)
    this.#undo.push(() => namespace[Symbol.dispose]())
    return namespace
  }

  async #side(namespace: Namespace, mode: 'mp' | 'p2p', address: string): Promise<Side> {
    const origin = originOfNetns(namespace.fd)
    const client = await openClient({
      generic: () => this.#driver.server.channel('generic', origin),
      route: () => this.#driver.server.channel('route', origin),
      dialect: 'ovpn',
    })
    this.#undo.push(() => client.close())
    const link = await attempt(`cannot make an interface in ${namespace.name}`, () =>
      client.linkNew({ name: 'ovpn0', kind: 'ovpn', mode }),
    )
    namespace.addAddress(link.ifindex, address, 24)
    namespace.up(link.ifindex)
    return { namespace, client, link }
  }

  async #addPeers(one: Case, server: Side, client: Side): Promise<void> {
    const sockets =
      one.name === 'udp'
        ? this.#udpSockets(one, server, client)
        : this.#tcpSockets(one, server, client)
    const id = one.peerId
    const keepalive = { keepaliveInterval: 5, keepaliveTimeout: 30 }
    const remote = (address: string) =>
      one.name === 'udp' ? { remoteIpv4: address, remotePort: PORT } : {}
    await server.client.peerNew(server.link.ifindex, {
      id,
      socket: sockets.server,
      vpnIpv4: one.vpnAddress,
      ...remote(one.clientAddress),
      ...keepalive,
    })
    await client.client.peerNew(client.link.ifindex, {
      id,
      socket: sockets.client,
      ...remote(one.serverAddress),
      ...keepalive,
    })
  }

  #udpSockets(one: Case, server: Side, client: Side) {
    const open = ({ namespace }: Side, address: string) => {
      const socket = openUdp(address, PORT, { netns: namespace.fd })
      this.#undo.push(() => socket.close())
      return socket.fd
    }
    return { server: open(server, one.serverAddress), client: open(client, one.clientAddress) }
  }

  #tcpSockets(one: Case, server: Side, client: Side) {
    const listener = listenTcp(one.serverAddress, PORT, { netns: server.namespace.fd })
    try {
      const connected = connectTcp(one.serverAddress, PORT, { netns: client.namespace.fd })
      this.#undo.push(() => void openLibc().close(connected))
      const accepted = listener.accept(GRACE_MS)
      if (accepted === undefined) throw new CliError('a connection was made and never arrived')
      this.#undo.push(() => void openLibc().close(accepted))
      return { server: accepted, client: connected }
    } finally {
      listener.close()
    }
  }

  /** Gives both ends a key; the server receives with it before anybody sends. */
  async #newKeys(
    one: Case,
    sides: Map<string, Side>,
    slot: 'primary' | 'secondary',
    keyId: number,
  ): Promise<void> {
    const key = this.#environment.randomBytes(KEY2_BYTES)
    const ends = [
      { side: sides.get('server')!, role: 'server' },
      { side: sides.get(one.name)!, role: 'client' },
    ] as const
    for (const { side, role } of ends) {
      await side.client.keyNew(side.link.ifindex, {
        peerId: one.peerId,
        slot,
        keyId,
        cipherAlg: one.cipher,
        ...dataKeys(key, role, KEY_BYTES),
      })
    }
    key.fill(0)
  }

  /** Moves a stream from the client to the server for some seconds, with a new key half-way. */
  async #transfer(one: Case, sides: Map<string, Side>, seconds: number): Promise<Result> {
    this.#goOn()
    const { now } = this.#environment
    const server = sides.get('server')!
    const client = sides.get(one.name)!
    this.#say(
      `\n${one.title}: one TCP stream from ${one.vpnAddress} to ${SERVER_VPN} for ${seconds} s`,
    )
    const seed = Buffer.from(this.#environment.randomBytes(16)).toString('hex')
    const at = `${SERVER_VPN}:${TRANSFER_PORT}`
    const common = ['--seed', seed, '--seconds', String(seconds)]
    const receiver = this.#child(server.namespace, ['--receive', at, ...common])
    await receiver.next()
    const sender = this.#child(client.namespace, ['--send', at, ...common])

    let ended = false
    const watch = async () => {
      const start = now()
      let before = { at: start, bytes: 0 }
      let swapped = false
      for (let tick = 1; !ended; tick++) {
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, start + 500 * tick - now())))
        if (ended || this.#interrupted) return
        if (!swapped && now() - start >= seconds * 500) {
          swapped = true
          await this.#exchangeKeys(one, sides)
          this.#say('       new keys in use at both ends')
        }
        if (tick % 2 !== 0) continue
        const peer = await server.client.peerGet(server.link.ifindex, one.peerId)
        const time = now()
        const rate = formatRate(peer.vpnRxBytes - before.bytes, time - before.at)
        this.#say(
          `  ${String(tick / 2).padStart(3)} s  ${rate.padStart(12)}  ${formatBytes(peer.vpnRxBytes)} so far`,
        )
        before = { at: time, bytes: peer.vpnRxBytes }
      }
    }
    const watching = watch()
    try {
      const [sent, received] = await Promise.all([sender.next(), receiver.next()])
      const { bytes, ms, intact } = received
      return { tunnel: one.title, bytes, ms, intact: intact && sent.bytes === bytes }
    } finally {
      ended = true
      await watching.catch(() => undefined)
    }
  }

  async #exchangeKeys(one: Case, sides: Map<string, Side>): Promise<void> {
    await this.#newKeys(one, sides, 'secondary', 1)
    for (const name of [one.name, 'server']) {
      const { client, link } = sides.get(name)!
      await client.keySwap(link.ifindex, one.peerId)
    }
  }

  /** Starts `ovpn transfer` in a namespace. `next` gives its next line. */
  #child(namespace: Namespace, args: string[]) {
    this.#goOn()
    const [command, ...before] = ownCommand()
    const child = spawn(command!, [...before, 'transfer', '--netns', namespace.name, ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#children.add(child)
    const exited = new Promise<void>((resolve) => {
      child.on('close', () => {
        this.#children.delete(child)
        resolve()
      })
    })
    const timer = setTimeout(() => child.kill('SIGKILL'), GRACE_MS + 60_000)
    void exited.then(() => clearTimeout(timer))
    this.#undo.push(() => {
      child.kill('SIGKILL')
      return exited
    })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    return {
      next: async (): Promise<{ bytes: number; ms: number; intact: boolean }> => {
        const { value, done } = await lines.next()
        this.#goOn()
        if (done === true) throw new CliError('a transfer ended early')
        const line = JSON.parse(value) as TransferLine
        return 'listening' in line ? { bytes: 0, ms: 0, intact: true } : line
      },
    }
  }
}

/** What starts this program again: the script by its runtime, or the executable it was compiled to. */
function ownCommand(): string[] {
  const script = process.argv[1]
  const compiled = script === undefined || script.startsWith('/$bunfs/')
  return compiled ? [process.execPath] : [process.execPath, script]
}

async function show({ client, link }: Side): Promise<string> {
  const peers = await client.peers(link.ifindex, { extended: true })
  return formatShow([{ link: await client.link(link.ifindex), peers }])
}

/** Namespaces of a demonstration that was killed before it could clean up. */
function removeLeftovers(): void {
  const folder = '/run/netns'
  if (!existsSync(folder)) return
  for (const name of readdirSync(folder)) {
    const pid = new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeNetns(name)
  }
}
