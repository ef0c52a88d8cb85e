/**
 * Options of the management interface that decide what it asks, keeps and lets in: our client and server beside OpenVPN 2.6, in the same
 * situations.
 */
// npm test: load 1
import assert from 'node:assert/strict'
import { chmodSync, lstatSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Running, run, start } from '../command.ts'
import { type Management, openManagement } from '../interop/management.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { BUN, identity, lost, type Outside, Peers, stop } from './peers.ts'

const PROXIES = fileURLToPath(new URL('./proxies.ts', import.meta.url))
const SECONDS = 40
const MAKERS = ['ours', '2.6'] as const
type Maker = (typeof MAKERS)[number]
/** Ends without a word to its socket. */
const LEAVES_SOCKET = `
  require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`

const NUMBERS = { udp: 0, tcp: 1 }

describe('options of the management interface', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers
  let proxies: Running
  let folder: string
  before(async () => {
    peers = await Peers.open()
    folder = peers.lab.folder
    proxies = start('ip', ['netns', 'exec', peers.lab.server.name, BUN, PROXIES])
    await proxies.says(/ready/)
    await peers.server('2.6', NUMBERS.udp, identity('server'), 'udp')
    await peers.server('2.6', NUMBERS.tcp, identity('server'), 'tcp')
  })
  after(async () => {
    await peers?.close()
    if (proxies !== undefined) await stop(proxies)
  })

  let sockets = 0
  const begin = async (maker: Maker, outside: Outside & keyof typeof NUMBERS, lines: string[]) => {
    const path = join(folder, `socket${sockets++}`)
    const client = peers.client(
      maker,
      NUMBERS[outside],
      [...identity('client'), `management ${path} unix`, 'management-query-passwords', ...lines],
      { outside },
    )
    return { client, manager: await openManagement(path) }
  }
  const told = (manager: Management, line: string) =>
    until(`${line} in ${manager.told.join('\n')}`, () => manager.told.includes(line), SECONDS)

  describe('management-query-proxy', () => {
    type Row = [
      outside: 'udp' | 'tcp',
      proxy: string,
      asks: string | undefined,
      seen: RegExp | undefined,
      why: string,
    ]
    const rows: Row[] = [
      ['tcp', 'NONE', undefined, undefined, 'none'],
      ['tcp', 'HTTP 192.0.2.1 3128', undefined, /3128: to 192/, 'HTTP'],
      ['tcp', 'HTTP 192.0.2.1 3129', 'HTTP Proxy', /3129: to 192/, 'HTTP that wants a password'],
      ['tcp', 'HTTP 192.0.2.1 3130 nct', 'HTTP Proxy', /3130: to 192/, 'HTTP, never in the clear'],
      ['tcp', 'SOCKS 192.0.2.1 1080', undefined, /1080: to 192/, 'SOCKS'],
      ['udp', 'SOCKS 192.0.2.1 1080', undefined, /1080: datagrams to/, 'SOCKS for datagrams'],
    ]
    for (const maker of MAKERS) {
      for (const [outside, proxy, asks, seen, why] of rows) {
        // The proxy names no address for datagrams, which OpenVPN takes for one.
        if (maker !== 'ours' && outside === 'udp') continue
        it(`${maker}, ${outside}: ${why}`, async () => {
          const from = proxies.stdout.length
          const { client, manager } = await begin(maker, outside, ['management-query-proxy'])
          try {
            await told(manager, `>PROXY:1,${outside.toUpperCase()},192.0.2.1`)
            assert.equal(await manager.ask(`proxy ${proxy}`), 'SUCCESS: proxy command succeeded')
            if (asks !== undefined) {
              await told(manager, `>PASSWORD:Need '${asks}' username/password`)
              await manager.ask(`username "${asks}" "alice"`)
              await manager.ask(`password "${asks}" "secret"`)
            }
            await client.says(STARTED)
            assert.deepEqual(await lost(peers.lab.hosts[0]!, NUMBERS[outside]), [0, 0])
            const through = proxies.stdout.slice(from)
            if (seen === undefined) assert.equal(through, '')
            else assert.match(through, seen)
          } finally {
            manager.close()
            await stop(client)
          }
        })
      }

      // OpenVPN has no way to be told one for it: it then does without.
      if (maker === 'ours') {
        it('ours: a SOCKS proxy that wants a password has it asked for', async () => {
          const from = proxies.stdout.length
          const { client, manager } = await begin('ours', 'tcp', ['management-query-proxy'])
          try {
            await told(manager, '>PROXY:1,TCP,192.0.2.1')
            await manager.ask('proxy SOCKS 192.0.2.1 1081')
            await told(manager, ">PASSWORD:Need 'SOCKS Proxy' username/password")
            await manager.ask('username "SOCKS Proxy" "alice"')
            await manager.ask('password "SOCKS Proxy" "secret"')
            await client.says(STARTED)
            assert.match(proxies.stdout.slice(from), /1081: to 192/)
          } finally {
            manager.close()
            await stop(client)
          }
        })
      }

      it(`${maker}: HTTP cannot carry datagrams, and another answer is waited for`, async () => {
        const { client, manager } = await begin(maker, 'udp', ['management-query-proxy'])
        try {
          await told(manager, '>PROXY:1,UDP,192.0.2.1')
          assert.match(
            await manager.ask('proxy HTTP 192.0.2.1 3128'),
            /^ERROR: proxy command failed/,
          )
          assert.match(await manager.ask('proxy NONE'), /^SUCCESS/)
          await client.says(STARTED)
        } finally {
          manager.close()
          await stop(client)
        }
      })

      it(`${maker}: it is asked again for every attempt`, async () => {
        const lines = ['management-query-proxy', 'connect-timeout 2']
        const { client, manager } = await begin(maker, 'tcp', lines)
        try {
          const question = '>PROXY:1,TCP,192.0.2.1'
          await told(manager, question)
          await manager.ask('proxy SOCKS 192.0.2.1 9')
          const again = () => manager.told.filter((line) => line === question).length === 2
          await until('the question again', again, SECONDS)
          await manager.ask('proxy NONE')
          await client.says(STARTED)
        } finally {
          manager.close()
          await stop(client)
        }
      })
    }
  })

  describe('management-log-cache', () => {
    for (const maker of MAKERS) {
      it(`${maker}: so many messages are kept, the last ones`, async () => {
        const { client, manager } = await begin(maker, 'udp', ['management-log-cache 3'])
        try {
          await client.says(STARTED)
          const lines = await manager.list('log all')
          assert.equal(lines.length, 3)
          for (const line of lines) assert.match(line, /^\d{10},[IFNWD]*,./)
          assert.doesNotMatch(lines.join('\n'), /library versions|remote-cert-tls/)
        } finally {
          manager.close()
          await stop(client)
        }
      })

      it(`${maker}: more, where nothing is said`, async () => {
        const { client, manager } = await begin(maker, 'udp', [])
        try {
          await client.says(STARTED)
          assert.ok((await manager.list('log all')).length > 3)
        } finally {
          manager.close()
          await stop(client)
        }
      })
    }
  })

  it('a file at the place of the socket stays, unless it is a socket', async () => {
    const path = peers.write('notes', 'important')
    const lines = [...identity('client'), `management ${path} unix`]
    const { status, stderr } = await peers.client('ours', NUMBERS.udp, lines).ended
    assert.equal(status, 1)
    assert.match(stderr, /cannot serve the management interface at .*notes/)
    assert.equal(readFileSync(path, 'utf8'), 'important')
    rmSync(path)
    await run(BUN, ['-e', LEAVES_SOCKET, path])
    assert.ok(lstatSync(path).isSocket(), 'left behind by one that was killed')
    const client = peers.client('ours', NUMBERS.udp, lines)
    ;(await openManagement(path)).close()
    await stop(client)
  })

  describe('management-client-group', () => {
    const GROUP = 'daemon'
    const GROUP_ID = 1
    const NOBODY = 65534
    const CONNECT = `
      const socket = require('node:net').connect(process.argv[1])
      socket.on('data', (text) => { console.log(String(text)); socket.destroy() })
      socket.on('error', ({ code }) => console.log(code))`
    const heard = async (path: string, group: number) => {
      const who = ['--reuid', `${NOBODY}`, '--regid', `${group}`, '--clear-groups']
      const { stdout } = await run('setpriv', [...who, BUN, '-e', CONNECT, path])
      return stdout
    }

    for (const maker of MAKERS) {
      it(`${maker}: who is of it may manage, others may not`, async () => {
        chmodSync(folder, 0o711)
        const number = 2 + MAKERS.indexOf(maker)
        const path = join(folder, `group${number}`)
        const lines = [`management ${path} unix`, `management-client-group ${GROUP}`]
        const server = await peers.server(maker, number, [...identity('server'), ...lines], 'udp')
        try {
          assert.doesNotMatch(await heard(path, NOBODY), />INFO/)
          assert.match(await heard(path, GROUP_ID), />INFO:OpenVPN Management Interface/)
        } finally {
          await stop(server)
        }
      })
    }
  })
})
