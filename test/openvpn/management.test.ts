/**
 * The management interfaces and status files of our server and client, line by line beside those of OpenVPN 2.6 and 2.7 in the same
 * situation: one client connected. Numbers and titles of programs are left out, and so is what a table says is different, and why.
 */
// npm test: load 1
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { answers } from '../interop/openvpn.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, Peers, vpnAddresses } from './peers.ts'

const SECONDS = 40
const MAKERS = ['ours', '2.6', '2.7'] as const
type Maker = (typeof MAKERS)[number]

/** Says something else than OpenVPN, for a reason. */
interface Different {
  ours: string[]
  why: string
}

const CLIENTS_ONLY = (command: string): Different => ({
  ours: [`ERROR: The '${command}' command is not supported by the current daemon mode`],
  why: 'as for other commands of clients',
})

/** What a server is asked. */
const OF_SERVERS: (string | [command: string, different: Different])[] = [
  ...['pid', 'version', 'version 3', 'version 5', 'state', 'state all', 'state 2', 'state on'],
  ...['state on all', 'state off', 'log on', 'log off', 'log bogus', 'echo', 'echo all'],
  ...['echo on all', 'echo off', 'hold', 'hold on', 'hold', 'hold off', 'hold bogus', 'verb'],
  ...['verb 3', 'mute', 'mute 5', 'mute', 'mute 0', 'load-stats', 'bytecount', 'bytecount 0'],
  ...['kill', 'kill nobody', 'client-kill', 'client-kill 77', 'client-kill x', 'client-auth'],
  ...['client-deny 77 0 "x"', 'client-deny x 0 "x"', 'client-auth-nt 77 0', 'client-auth-nt 7 x'],
  ...['client-pending-auth 77 0 "x" 10', 'signal BOGUS', 'nonsense', 'status 1', 'status 2'],
  ...['status', 'status 3', 'status 9', 'remote ACCEPT', 'username "Auth" "x"', 'forget-passwords'],
  ...['password "Auth" "x"', 'needok x ok', 'needstr x y', 'auth-retry', 'auth-retry interact'],
  ...['auth-retry none', 'net', 'proxy NONE', 'remote-entry-count', 'certificate', 'rsa-sig'],
  ...['pk-sig', 'pkcs11-id-count', 'client-pf 1', 'env-filter 2', 'env-filter', 'env-filter x'],
  ['cr-response x', CLIENTS_ONLY('cr-response')],
  [
    'verb x',
    { ours: ["ERROR: expected a number from # to #, not 'x'"], why: 'OpenVPN takes it for zero' },
  ],
]

/** What a client is asked. */
const OF_CLIENTS: typeof OF_SERVERS = [
  ...['pid', 'version', 'state', 'state all', 'load-stats', 'status', 'status 2', 'hold', 'verb'],
  ...['mute', 'bytecount 0', 'kill x', 'client-auth-nt 1 1', 'client-kill 1', 'remote ACCEPT'],
  ...['username "Auth" "x"', 'password "Auth" "x"', 'needok x ok', 'needstr x y', 'auth-retry'],
  ...['forget-passwords', 'auth-retry nointeract', 'auth-retry', 'auth-retry none', 'echo all'],
  ...['remote-entry-count', 'remote-entry-get 0', 'remote-entry-get all', 'remote-entry-get 7'],
  ...['remote-entry-get', 'signal SIGFOO', 'net'],
  [
    'proxy NONE',
    { ours: ['ERROR: proxy command failed'], why: 'nobody asked; OpenVPN takes it all the same' },
  ],
  [
    'cr-response x',
    { ours: ['ERROR: cr-response command failed'], why: 'nobody asked; OpenVPN sends it' },
  ],
]

/** Sends commands, and takes what comes until the answer to the next. */
class Manager {
  /** All that came. */
  text = ''
  readonly #socket: Socket

  static async open(path: string): Promise<Manager> {
    await until('the socket', () => existsSync(path), SECONDS)
    const manager = new Manager(connect(path))
    await manager.says(/>INFO:.*\r\n/)
    return manager
  }

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text) => {
      this.text += text
    })
  }

  says(pattern: RegExp): Promise<void> {
    return until(`${pattern} in ${this.text}`, () => pattern.test(this.text), SECONDS)
  }

  /** Lines that a command is answered with. */
  async ask(command: string): Promise<string[]> {
    this.text = ''
    // What ends an answer is the answer to the next command: some have no other end.
    this.#socket.write(`${command}\npid\n`)
    const ends = command === 'pid' ? 2 : 1
    const all = () => this.text.match(/^SUCCESS: pid=\d+\r\n/gm)?.length === ends
    await until(`an end in ${this.text}`, all, SECONDS)
    const lines = this.text.split('\r\n').slice(0, -1)
    return lines.toSpliced(
      lines.findLastIndex((line) => line.startsWith('SUCCESS: pid=')),
      1,
    )
  }

  send(line: string): void {
    this.text = ''
    this.#socket.write(`${line}\n`)
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** Without what differs between two situations that are alike. */
function plain(line: string): string {
  return line
    .replace(/^(TITLE[,\t]|OpenVPN Version: |Management Interface for ).*/, '$1…')
    .replace(/\b(udp|tcp)4:/g, '')
    .replace(/unknown command \[.*\]/, 'unknown command')
    .replace(/\d+/g, '#')
}

/** All of them; OpenVPN lists addresses in no order. */
function plainLines(lines: string[]): string[] {
  const all = lines.map(plain)
  const routes = all.filter((line) => ROUTE.test(line)).sort()
  return all.map((line) => (ROUTE.test(line) ? routes.shift()! : line))
}

const ROUTE = /^(ROUTING_TABLE[,\t])?(#\.#|fd#)/

/** Realtime lines of OpenVPN's own log of commands, which ours has not. */
const isTold = (line: string) => line.startsWith('>')

/** But for GET_CONFIG: OpenVPN asks for its configuration, and says so, only where that has not come within a second. */
const states = (text: string) =>
  [...text.matchAll(/^>STATE:\d+,(\w+),/gm)]
    .map(([, name]) => name)
    .filter((name) => name !== 'GET_CONFIG')

describe('management and status', { skip: withoutProgram('2.6', '2.7') }, () => {
  let peers: Peers
  const servers = new Map<Maker, Manager>()
  const clients = new Map<Maker, Manager>()
  const programs = new Map<Maker, Running>()
  const numberOf = (maker: Maker) => 1 + MAKERS.indexOf(maker)

  before(async () => {
    peers = await Peers.open()
    for (let i = 1; i < MAKERS.length; i++) peers.lab.addHost()
    await Promise.all(MAKERS.map(begin))
  })
  after(async () => {
    for (const one of [...servers.values(), ...clients.values()]) one.close()
    await peers?.close()
  })

  async function begin(maker: Maker): Promise<void> {
    const number = numberOf(maker)
    const { folder } = peers.lab
    const host = peers.lab.hosts[MAKERS.indexOf(maker)]!
    const lines = [
      ...[...identity('server'), `management ${folder}/server-${number} unix`, 'echo hello there'],
      ...[
        `status ${folder}/status-${number} 1`,
        'status-version 2',
        'push "route 10.66.0.0 255.255.0.0"',
      ],
    ]
    await peers.server(maker, number, lines, 'udp')
    servers.set(maker, await Manager.open(`${folder}/server-${number}`))
    const client = peers.client(
      maker,
      number,
      [...identity('client'), `management ${folder}/client-${number} unix`, 'echo hello client'],
      { host },
    )
    programs.set(maker, client)
    await client.says(STARTED)
    // Packets both ways, so that the server has all that it lists.
    for (const address of vpnAddresses(number)) await answers(host.netns, address)
    clients.set(maker, await Manager.open(`${folder}/client-${number}`))
  }

  const askAll = async (managers: Map<Maker, Manager>, commands: typeof OF_SERVERS) => {
    const wrong: unknown[] = []
    for (const row of commands) {
      const [command, different] = typeof row === 'string' ? [row] : row
      const lines = new Map<Maker, string[]>()
      const askOne = async (maker: Maker) => {
        const said = await managers.get(maker)!.ask(command)
        const answers = said.filter((line) => !isTold(line) || line.startsWith('>PKCS11ID'))
        lines.set(maker, plainLines(answers.filter((line) => !/,GET_CONFIG,/.test(line))))
      }
      await Promise.all(MAKERS.map(askOne))
      const ours = lines.get('ours')!
      if (different !== undefined) assert.deepEqual(ours, different.ours, different.why)
      const others = (['2.6', '2.7'] as const).filter(
        (maker) => JSON.stringify(lines.get(maker)) === JSON.stringify(ours),
      )
      const same = others.length > 0
      if (same !== (different === undefined)) wrong.push({ command, ...Object.fromEntries(lines) })
    }
    assert.deepEqual(wrong, [])
  }

  it('a server answers as OpenVPN’s', () => askAll(servers, OF_SERVERS))

  it('a client answers as OpenVPN’s', () => askAll(clients, OF_CLIENTS))

  it('its help names all commands of OpenVPN 2.7', async () => {
    const names = async (maker: Maker) => {
      const lines = await servers.get(maker)!.ask('help')
      const words = lines.flatMap((line) => /^([a-z][a-z0-9|-]+)/.exec(line)?.[1]?.split('|') ?? [])
      return new Set(words)
    }
    const [ours, theirs] = [await names('ours'), await names('2.7')]
    const missing = [...theirs].filter((name) => !ours.has(name))
    // Smart cards are not used.
    assert.deepEqual(missing, ['pkcs11-id-get'])
  })

  it('the status file is as OpenVPN’s', async () => {
    const read = (maker: Maker) =>
      readFileSync(join(peers.lab.folder, `status-${numberOf(maker)}`), 'utf8')
    for (const maker of MAKERS) {
      const whole = () => /^CLIENT_LIST[\s\S]*^ROUTING_TABLE,fd00[\s\S]*^END/m.test(read(maker))
      await until(`the status of ${maker}`, whole, SECONDS)
    }
    const [ours, ...others] = MAKERS.map((maker) => plainLines(read(maker).split('\n')))
    for (const other of others) assert.deepEqual(ours, other)
  })

  it('bytes and states are told as by OpenVPN', async () => {
    const told = new Map<Maker, unknown>()
    await Promise.all(
      MAKERS.map(async (maker) => {
        const [server, client] = [servers.get(maker)!, clients.get(maker)!]
        server.send('bytecount 1')
        await server.says(/^>BYTECOUNT_CLI:0,\d+,\d+\r$/m)
        server.send('bytecount 0')
        await client.ask('state on')
        const before = programs.get(maker)!.stdout.match(new RegExp(STARTED, 'g'))!.length
        client.send('signal SIGUSR1')
        await client.says(/^>STATE:\d+,CONNECTED,SUCCESS,/m)
        assert.match(client.text, /^SUCCESS: signal SIGUSR1 thrown\r$/m)
        const log = programs.get(maker)!
        const again = () => log.stdout.match(new RegExp(STARTED, 'g'))!.length > before
        await until('the client', again, SECONDS)
        told.set(maker, states(client.text))
      }),
    )
    assert.deepEqual(told.get('ours'), told.get('2.6'))
    assert.deepEqual(told.get('ours'), told.get('2.7'))
  })

  it('a client that is sent away is told so, and comes again', async () => {
    const told = new Map<Maker, unknown>()
    await Promise.all(
      MAKERS.map(async (maker) => {
        const [server, client] = [servers.get(maker)!, clients.get(maker)!]
        const listed = async () =>
          (await server.ask('status 2')).find((line) => line.startsWith('CLIENT_LIST'))
        let there = await listed()
        while (there === undefined) there = await listed()
        client.text = ''
        const id = there.split(',')[10]
        const sent = await server.ask(`client-kill ${id}`)
        await client.says(/^>STATE:\d+,CONNECTED,SUCCESS,/m)
        const again = states(client.text)
        const killed = await server.ask('kill client')
        const answers = [...sent, ...killed].filter((line) => !isTold(line))
        told.set(maker, { answers, again, left: await listed() })
      }),
    )
    assert.deepEqual(told.get('ours'), told.get('2.6'))
    assert.deepEqual(told.get('ours'), told.get('2.7'))
  })
})
