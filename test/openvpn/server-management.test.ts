/** The management interface of `ovpn server`, as programs use it, with OpenVPN as clients. */
// npm test: load 1
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, type Maker, Peers, stop } from './peers.ts'

const SECONDS = 40

/** All that was said, in order, and a way to ask. */
class Manager {
  text = ''
  readonly #socket: Socket

  static async open(path: string): Promise<Manager> {
    await until('the socket', () => existsSync(path), SECONDS)
    return new Manager(connect(path))
  }

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text) => {
      this.text += text
    })
  }

  write(...lines: string[]): void {
    for (const line of lines) this.#socket.write(`${line}\n`)
  }

  async says(pattern: RegExp): Promise<RegExpExecArray> {
    await until(`${pattern} in ${this.text}`, () => pattern.test(this.text), SECONDS)
    return pattern.exec(this.text)!
  }

  /** Sends a command and waits for what it is answered from here on. */
  async ask(command: string, pattern: RegExp): Promise<RegExpExecArray> {
    this.text = ''
    this.write(command)
    return this.says(pattern)
  }

  close(): void {
    this.#socket.destroy()
  }
}

describe('the management interface of a server', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers
  let server: Running
  let manager: Manager
  let config: string

  before(async () => {
    peers = await Peers.open()
    const { folder } = peers.lab
    config = peers.write(
      'managed.conf',
      [
        ...['port 1195', 'dev vpn1', 'dev-type tun', 'topology subnet', 'verb 3'],
        ...['server 10.8.1.0 255.255.255.0', 'keepalive 1 10', 'explicit-exit-notify 1'],
        ...[...identity('server'), `management ${folder}/socket unix`, 'management-hold'],
        ...['management-client-auth', 'auth-user-pass-optional', 'echo hello there', ''],
      ].join('\n'),
    )
    server = peers.start(peers.lab.server, 'ours', 'server', config)
    manager = await Manager.open(join(folder, 'socket'))
  })
  after(async () => {
    manager?.close()
    await peers?.close()
  })

  const client = (maker: Maker, ...more: string[]) =>
    peers.client(maker, 1, [...identity('client'), 'explicit-exit-notify 1', ...more])

  it('holds the start until it is released', async () => {
    await manager.says(/>HOLD:Waiting for hold release/)
    assert.doesNotMatch(server.stdout, STARTED)
    await manager.ask('hold release', /SUCCESS: hold release succeeded/)
    await server.says(STARTED)
    await manager.ask('state', /\d+,CONNECTED,SUCCESS,10\.8\.1\.1/)
    await manager.ask('echo all', /\d+,hello there\r\nEND/)
    await manager.ask('version', /Management Version: \d+\r\nEND/)
  })

  it('decides about clients, watches them and sends them away', async () => {
    peers.write('login', 'alice\nwonderland\n')
    manager.text = ''
    const one = client('2.6', `auth-user-pass ${peers.lab.folder}/login`)
    const [, id, key] = await manager.says(/>CLIENT:CONNECT,(\d+),(\d+)\r\n[\s\S]*>CLIENT:ENV,END/)
    const asked = manager.text
    for (const line of ['username=alice', 'password=wonderland', 'common_name=client']) {
      assert(asked.includes(`>CLIENT:ENV,${line}\r\n`), line)
    }
    manager.text = ''
    manager.write(`client-auth ${id} ${key}`, 'push "route 10.44.0.0 255.255.0.0"', 'END')
    await manager.says(/SUCCESS: client-auth command succeeded/)
    await one.says(STARTED)
    assert.match(peers.lab.client.ip('route'), /10\.44\.0\.0\/16/)
    await manager.says(/>CLIENT:ADDRESS,\d+,10\.8\.1\.2,1/)
    await manager.says(new RegExp(`>CLIENT:ESTABLISHED,${id}\r\n`))

    await manager.ask('status 2', /CLIENT_LIST,client,(udp4:)?192\.0\.2\.2:\d+,10\.8\.1\.2,/)
    await manager.ask('load-stats', /SUCCESS: nclients=1,bytesin=\d+,bytesout=\d+/)
    await manager.ask('bytecount 1', new RegExp(`>BYTECOUNT_CLI:${id},\\d+,\\d+`))
    await manager.ask('bytecount 0', /SUCCESS/)
    await manager.ask('kill nobody', /ERROR: /)
    await manager.ask('kill client', /SUCCESS: /)
    await manager.says(new RegExp(`>CLIENT:DISCONNECT,${id}\r\n[\\s\\S]*bytes_received=\\d+`))
    // It was told to come again.
    const [, next, nextKey] = await manager.says(
      />CLIENT:CONNECT,(\d+),(\d+)\r\n[\s\S]*>CLIENT:ENV,END/,
    )
    assert.notEqual(next, id)
    manager.write(`client-deny ${next} ${nextKey} "not today" "come back tomorrow"`)
    await one.says(/come back tomorrow/)
    await stop(one)
  })

  const without27 = withoutProgram('2.7')
  it('changes what was pushed, to OpenVPN 2.7', { skip: without27 }, async () => {
    manager.text = ''
    const one = client('2.7')
    const [, id, key] = await manager.says(/>CLIENT:CONNECT,(\d+),(\d+)\r\n/)
    manager.write(`client-auth-nt ${id} ${key}`)
    await one.says(STARTED)
    await manager.says(/>CLIENT:ESTABLISHED/)
    await manager.ask(
      `push-update-cid ${id} "route 10.45.0.0 255.255.0.0"`,
      /SUCCESS: push-update command succeeded/,
    )
    await until(
      'the new route',
      () => peers.lab.client.ip('route').includes('10.45.0.0/16'),
      SECONDS,
    )
    await stop(one)
  })

  it('ends the server', async () => {
    await manager.ask('signal SIGTERM', /SUCCESS: signal SIGTERM thrown/)
    assert.equal((await server.ended).status, 0)
  })
})
