import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { openTestNetns, withoutNamespaces } from '../../test/namespace.ts'
import { IPPROTO_TCP, TCP_NODELAY } from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOf, createBlock } from './memory.ts'
import { netnsId, ownNetnsId } from './netns.ts'
import { getOption } from './sockopt.ts'
import { connectTcp, listenTcp, takeTcp } from './tcp.ts'
import { openUdp } from './udp.ts'

const os = openLibc()
const F_GETFL = 3
const root = process.getuid?.() === 0 ? false : 'telling the namespace of a socket takes root'

describe('a TCP stream', { skip: root }, () => {
  const places: [listen: string, connect: string, seen: string, why: string][] = [
    ['127.0.0.1', '127.0.0.1', '127.0.0.1', 'IPv4'],
    ['::1', '::1', '::1', 'IPv6'],
    ['::', '127.0.0.1', '127.0.0.1', 'IPv4 on a socket of both families is plain IPv4'],
  ]
  for (const [listen, connect, seen, why] of places) {
    it(`is taken over with its addresses: ${why}`, () => {
      using listener = listenTcp(listen, 0)
      const client = connectTcp(connect, listener.port)
      const server = listener.accept(1000) ?? assert.fail('nobody came')
      const flags = os.fcntl(server, F_GETFL, 0)
      const there = takeTcp(client)
      const here = takeTcp(server)
      assert.deepEqual(here.local, { address: seen, port: listener.port, scope: 0 })
      assert.deepEqual(there.remote, here.local)
      assert.deepEqual(there.local, here.remote)
      assert.equal(here.netns, ownNetnsId())
      assert.equal(getOption(os, server, IPPROTO_TCP, TCP_NODELAY, ''), 1)
      assert.equal(os.fcntl(server, F_GETFL, 0), flags)
      const message = blockOf(new Uint8Array([1, 2, 3]))
      const got = createBlock(8)
      assert.equal(os.write(client, message.base, 3), 3)
      Bun.sleepSync(20)
      assert.equal(os.read(server, got.base, 8), 3)
      os.close(client)
      os.close(server)
    })
  }

  it('is refused when it is none, or leads nowhere', () => {
    using listener = listenTcp('127.0.0.1', 0)
    using udp = openUdp('127.0.0.1', 0)
    assert.throws(() => takeTcp(udp.fd), { code: 'EPROTOTYPE' })
    assert.throws(() => takeTcp(listener.fd), { code: 'ENOTCONN' })
    const client = connectTcp('127.0.0.1', listener.port)
    const server = listener.accept(1000) ?? assert.fail('nobody came')
    os.close(client)
    Bun.sleepSync(20)
    assert.throws(() => takeTcp(server), { code: 'ENOTCONN' }, 'the other end has closed')
    os.close(server)
  })

  it('is of the namespace it was opened in', { skip: withoutNamespaces }, () => {
    using netns = openTestNetns('platform')
    using listener = listenTcp('127.0.0.1', 0, { netns: netns.fd })
    assert.throws(() => connectTcp('127.0.0.1', listener.port), { code: 'ECONNREFUSED' })
    const client = connectTcp('127.0.0.1', listener.port, { netns: netns.fd })
    assert.equal(takeTcp(client).netns, netnsId(netns.fd))
    os.close(client)
  })
})

describe('a TCP listener', () => {
  it('waits no longer than it was told', () => {
    using listener = listenTcp('127.0.0.1', 0)
    assert.equal(listener.accept(0), undefined)
    assert.equal(listener.accept(20), undefined)
  })

  it('is refused a taken port', () => {
    using listener = listenTcp('127.0.0.1', 0)
    assert.throws(() => listenTcp('127.0.0.1', listener.port), { code: 'EADDRINUSE' })
  })
})
