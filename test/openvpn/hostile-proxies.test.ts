/** Our client as a process, at servers and proxies that write without end, nonsense, or a letter now and then: it goes on to the next, and stays small. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { issue } from '../certificates.ts'
import { OVPN, start } from '../command.ts'
import { withoutNamespaces } from '../namespace.ts'

const BLOCK = 60_000
const MAX_GROWTH_KIB = 64 * 1024

/** Writes as long as it is read. */
const endless = (bytes: Uint8Array | string) => (socket: Socket) => {
  const go = () => {
    while (!socket.destroyed && socket.write(bytes)) {}
    if (!socket.destroyed) socket.once('drain', go)
  }
  go()
}
const letters = (socket: Socket) => {
  const timer = setInterval(() => socket.write('H'), 100)
  socket.on('close', () => clearInterval(timer))
}
const demand = `HTTP/1.0 407 no\r\n${'Proxy-Authenticate: Basic realm="\u001b[2J"\r\n'.repeat(1000)}`
const socks = Uint8Array.of(5, 0, 5, 0, 0, 3, 255, ...new Uint8Array(255).fill(65))

const rows: [kind: 'tcp' | 'http' | 'socks', serve: (socket: Socket) => void, says: RegExp][] = [
  ['tcp', endless(new Uint8Array(BLOCK).fill(0xa5)), /a packet of 42405 bytes was announced/],
  ['tcp', endless(new Uint8Array(BLOCK)), /a packet of 0 bytes was announced/],
  ['http', endless('X'.repeat(BLOCK)), /the proxy says too much/],
  [
    'http',
    endless('HTTP/1.0 100 Continue\r\n\r\n'.repeat(1000)),
    /does not connect to 192\.0\.2\.9/,
  ],
  ['http', endless(demand), /the proxy says too much/],
  ['http', letters, /the proxy does not answer/],
  ['http', endless(new Uint8Array(BLOCK).fill(10)), /what answers there is no HTTP proxy/],
  ['socks', endless(socks), /what answers there is no SOCKS 5 proxy|the proxy/],
  ['socks', endless(new Uint8Array(BLOCK)), /what answers there is no SOCKS 5 proxy/],
]

describe('servers and proxies that mean harm', { skip: withoutNamespaces }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-hostile-'))
  const servers: Server[] = []
  const sockets = new Set<Socket>()
  before(async () => {
    const authority = await issue('CN=authority', { ca: true })
    writeFileSync(join(folder, 'ca.crt'), authority.pem)
    writeFileSync(join(folder, 'login'), 'alice\nsecret\n')
    const entries: string[] = []
    for (const [kind, serve] of rows) {
      const server = createServer((socket) => {
        sockets.add(socket)
        socket.on('error', () => socket.destroy())
        serve(socket)
      })
      servers.push(server)
      await once(server.listen(0, '127.0.0.1'), 'listening')
      const { port } = server.address() as AddressInfo
      const remote = kind === 'tcp' ? `127.0.0.1 ${port}` : '192.0.2.9 1194'
      const proxy = kind === 'tcp' ? '' : `${kind}-proxy 127.0.0.1 ${port}`
      entries.push(`<connection>\nremote ${remote} tcp-client\n${proxy}\n</connection>`)
    }
    const more = ['client', 'dev tun', 'nobind', 'ca ca.crt', 'auth-user-pass login', 'verb 3']
    const limits = ['remote-cert-tls server', 'connect-timeout 1', 'connect-retry 1 1']
    writeFileSync(join(folder, 'c.ovpn'), [...more, ...limits, ...entries].join('\n'))
  })
  after(() => {
    for (const socket of sockets) socket.destroy()
    for (const server of servers) server.close()
    rmSync(folder, { recursive: true })
  })

  it('are left for the next one; memory stays as it was, and the log is printable', async () => {
    const client = start(OVPN, ['client', 'c.ovpn'], { cwd: folder })
    const size = () =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${client.pid}/status`, 'utf8'))?.[1])
    await client.says(rows[0]![2])
    const first = size()
    for (const [, , says] of rows) await client.says(says)
    // Once around.
    const again = new RegExp(`${rows[0]![2].source}[^]*${rows[0]![2].source}`)
    await client.says(again)
    assert(size() - first < MAX_GROWTH_KIB, `${first} KiB, then ${size()}`)
    assert.doesNotMatch(client.stdout, /[^\P{Cc}\n]/u)
    client.kill('SIGTERM')
    const { status } = await client.ended
    assert.equal(status, 0)
  })
})
