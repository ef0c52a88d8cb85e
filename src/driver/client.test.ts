import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { aLink, anOrigin, aPeer, FakeBackend } from '../../test/backend.ts'
import { answerControl, decodeFamily, encodeGetFamily, GENL_ID_CTRL } from '../netlink/control.ts'
import { GENL_HDRLEN, message, messages } from '../netlink/message.ts'
import { dialects } from '../uapi/dialects/index.ts'
import { ApiError } from '../uapi/errno.ts'
import type { DialectName, DriverEvent, KeyConf, PeerNew } from '../uapi/types.ts'
import { type Channel, openUnixChannel } from './channel.ts'
import { type DriverClient, type EventsLost, openClient } from './client.ts'
import { NetlinkServer } from './server.ts'

const names = Object.keys(dialects) as DialectName[]
const here = { netns: '4:1', dialects: names }
const gone: DriverEvent = {
  event: 'peer-del-ntf',
  ifindex: 7,
  peer: { id: 3, delReason: 'expired' },
}
const turn = () => new Promise((resolve) => setTimeout(resolve, 0))

const keydir = { cipherKey: new Uint8Array(32).fill(1), nonceTail: new Uint8Array(8).fill(2) }
const keyconf: KeyConf = {
  peerId: 3,
  slot: 'primary',
  keyId: 1,
  cipherAlg: 'aes-gcm',
  encryptDir: keydir,
  decryptDir: keydir,
}

function start() {
  const backend = new FakeBackend()
  const server = new NetlinkServer(backend, { log: (text) => assert.fail(text) })
  return { backend, server }
}

async function startClient(dialect: DialectName = 'ovpn') {
  const { backend, server } = start()
  const client = await openClient({
    generic: () => server.channel('generic', anOrigin()),
    route: () => assert.fail('the extensions are there'),
    dialect,
  })
  return { backend, server, client }
}

/** Every command; what it asked of the backend, in order. */
async function tryAll(client: DriverClient, backend: FakeBackend): Promise<void> {
  backend.peers = [
    aPeer({ remoteIpv4: '192.0.2.10', remotePort: 1194, localIpv4: '0.0.0.0' }),
    aPeer({ id: 4 }),
  ]
  const peer: PeerNew = { id: 3, socket: 6, remoteIpv4: '192.0.2.10', remotePort: 1194 }
  peer.vpnIpv4 = '10.8.0.2'
  await client.peerNew(7, peer)
  await client.peerSet(7, { id: 3, keepaliveInterval: 10, keepaliveTimeout: 60 })
  const got = await client.peerGet(7, 3)
  assert.deepEqual([got.remoteIpv4, got.remotePort, got.vpnTxPackets], ['192.0.2.10', 1194, 4])
  assert.deepEqual(
    (await client.peers(7)).map(({ id }) => id),
    [3, 4],
  )
  await client.keyNew(7, keyconf)
  await client.keySwap(7, 3)
  await client.keyDel(7, 3, 'secondary')
  await client.peerDel(7, 3)
  const link = await client.linkNew({ kind: 'ovpn', mode: 'mp', name: 'tun5', mtu: 1400 })
  assert.deepEqual([link.name, link.mtu, link.features], ['tun5', 1400, 'tso,uso'])
  assert.deepEqual(
    (await client.links()).map(({ name }) => name),
    ['tun0', 'tun5'],
  )
  assert.equal((await client.link(7)).name, 'tun0')
  await client.linkDel(link.ifindex)
  await client.packetRegister(7)
  await client.packet(7, { packet: Uint8Array.of(0x38, 1, 2, 3), peerId: 3 })
  assert.deepEqual(
    backend.asked.map(({ request }) => [request.command, request.args]),
    [
      ['peer-new', { ifindex: 7, peer }],
      ['peer-set', { ifindex: 7, peer: { id: 3, keepaliveInterval: 10, keepaliveTimeout: 60 } }],
      ['peer-get', { ifindex: 7, peer: { id: 3 } }],
      ['peer-get', { ifindex: 7 }],
      ['key-new', { ifindex: 7, keyconf }],
      ['key-swap', { ifindex: 7, keyconf: { peerId: 3 } }],
      ['key-del', { ifindex: 7, keyconf: { peerId: 3, slot: 'secondary' } }],
      ['peer-del', { ifindex: 7, peer: { id: 3 } }],
      ['link-new', { link: { kind: 'ovpn', mode: 'mp', name: 'tun5', mtu: 1400 } }],
      ['link-get', {}],
      ['link-get', { ifindex: 7 }],
      ['link-del', { ifindex: 8 }],
      ['packet-register', { ifindex: 7 }],
      ['packet', { ifindex: 7, packet: { packet: Uint8Array.of(0x38, 1, 2, 3), peerId: 3 } }],
    ],
  )
}

describe('calls', () => {
  for (const name of names) {
    it(`${name}: every command, within the process`, async () => {
      const { backend, client } = await startClient(name)
      assert.deepEqual([client.dialect, client.extended], [name, true])
      await tryAll(client, backend)
      client.close()
    })
  }

  it('tell which key is in a slot', async () => {
    const { client } = await startClient()
    const expected = { peerId: 3, slot: 'primary', keyId: 1, cipherAlg: 'aes-gcm' }
    assert.deepEqual(await client.keyGet(7, 3, 'primary'), expected)
    const { client: old } = await startClient('ovpn-dco')
    await assert.rejects(old.keyGet(7, 3, 'primary'), { errno: 'EOPNOTSUPP' })
  })

  it('ask for more than the kernel tells only when they are told to', async () => {
    const { backend, client } = await startClient()
    backend.peers = [
      aPeer({ transport: 'udp', drops: [{ reason: 'rx-replay', count: 2 }], keys: [] }),
    ]
    const peer = await client.peerGet(7, 3, { extended: true })
    await client.peers(7, { extended: true })
    assert.deepEqual(peer.drops, [{ reason: 'rx-replay', count: 2 }])
    assert.deepEqual(
      backend.asked.map(({ request }) => request.args),
      [
        { ifindex: 7, extended: true, peer: { id: 3 } },
        { ifindex: 7, extended: true },
      ],
    )
  })

  it('reject with what the driver said', async () => {
    const { backend, client } = await startClient()
    backend.answer = () =>
      Promise.reject(new ApiError('EINVAL', 'no socket', 'peer.socket', { missType: 6 }))
    const expected = {
      name: 'ApiError',
      errno: 'EINVAL',
      message: 'no socket: peer.socket',
      missType: 6,
    }
    await assert.rejects(client.peerDel(7, 3), expected)
    await assert.rejects(client.peers(7), expected)
  })

  it('may run side by side', async () => {
    const { backend, client } = await startClient()
    backend.peers = Array.from({ length: 30 }, (_, id) => aPeer({ id }))
    const all = await Promise.all([
      ...backend.peers.map(({ id }) => client.peerGet(7, id).then((peer) => peer.id)),
      ...[1, 2, 3].map(() => client.peers(7).then((peers) => peers.length)),
    ])
    assert.deepEqual(all, [...backend.peers.map(({ id }) => id), 30, 30, 30])
  })

  it('reject once the client is closed, and so do those under way', async () => {
    const { backend, client } = await startClient()
    backend.answer = () => new Promise(() => {})
    const pending = client.peerDel(7, 3)
    client.close()
    await assert.rejects(pending, { errno: 'EBADF' })
    await assert.rejects(client.peerDel(7, 3), { errno: 'EBADF' })
  })

  it('are not possible where the family is missing', async () => {
    const silent = new NetlinkServer(new FakeBackend(), { log: () => {} })
    const options = {
      generic: () => silent.channel('generic', anOrigin()),
      route: () => assert.fail('unused'),
    }
    const strange = { ...options, dialect: 'wireguard' as DialectName }
    await assert.rejects(openClient(strange), {
      errno: 'ENOENT',
      message: /no driver for wireguard/,
    })
  })
})

describe('events', () => {
  for (const name of names) {
    it(`${name}: come typed, in order, from when they were asked for`, async () => {
      const { backend, client } = await startClient(name)
      backend.emit(gone, here)
      const events = await client.events()
      backend.emit(gone, here)
      const packet = { packet: Uint8Array.of(0x38, 1, 2, 3), peerId: 3 }
      await client.packetRegister(7)
      const told: DriverEvent = { event: 'packet', ifindex: 7, packet }
      backend.asked.at(-1)!.caller.deliver(told)
      const seen: unknown[] = []
      for await (const event of events) {
        seen.push(event)
        if (seen.length === 2) break
      }
      assert.deepEqual(seen, [gone, told])
    })
  }

  it('reach every reader, who may close, before or while it waits', async () => {
    const { backend, client } = await startClient()
    const [one, two] = await Promise.all([client.events(), client.events()])
    const drain = async (events: typeof one) => {
      let count = 0
      for await (const _ of events) count++
      return count
    }
    const counts = Promise.all([drain(one), drain(two)])
    backend.emit(gone, here)
    await turn()
    one.close()
    backend.emit(gone, here)
    await turn()
    two.close()
    assert.deepEqual(await counts, [1, 2])
  })

  it('end in the error of the channel', async () => {
    const { server, client } = await startClient()
    const events = await client.events()
    const read = (async () => {
      for await (const _ of events) assert.fail('nothing happens here')
    })()
    server.close()
    await read // within the process, the driver's end is an orderly one
    await assert.rejects(client.peers(7), { errno: 'EBADF' })
  })

  it('that nobody takes are lost, and the reader is told where', async () => {
    const { backend, client } = await startClient()
    const events = await client.events()
    for (let i = 0; i < 10_050; i++) backend.emit(gone, here)
    const seen: (DriverEvent | EventsLost)['event'][] = []
    for await (const { event } of events) {
      if (seen.push(event) === 10_001) backend.emit(gone, here)
      if (seen.length === 10_002) break
    }
    assert.deepEqual(
      [seen[9_999], seen[10_000], seen[10_001]],
      ['peer-del-ntf', 'lost', 'peer-del-ntf'],
    )
  })
})

/** A channel to a driver without our extensions: the family's operations end where the kernel's do. */
function kernelLike(channel: Channel): Channel {
  const filtered = (datagram: Uint8Array): Uint8Array => {
    const [reply] = messages(datagram)
    if (reply!.type !== GENL_ID_CTRL) return datagram
    const family = decodeFamily(reply!.payload)
    const operations = family.operations.filter(({ id }) => id < 64)
    const answer = answerControl(encodeGetFamily(family.name), { dump: false }, [
      { ...family, operations },
    ])
    return message(reply!, (answer as Uint8Array[])[0]!)
  }
  return {
    protocol: channel.protocol,
    portId: channel.portId,
    listen: (listener) =>
      channel.listen({
        received: (datagram) => listener.received(filtered(datagram)),
        closed: (error) => listener.closed(error),
      }),
    send(datagram) {
      const [request] = messages(datagram)
      const extension = request!.type !== GENL_ID_CTRL && request!.payload[0]! >= 64
      assert.ok(!extension || request!.payload.length < GENL_HDRLEN, 'an extension was used')
      channel.send(datagram)
    },
    setOption: (option, value) => channel.setOption(option, value),
    close: () => channel.close(),
  }
}

describe('links of a driver without our extensions', () => {
  async function startKernelLike() {
    const { backend, server } = start()
    backend.links = []
    const client = await openClient({
      generic: () => kernelLike(server.channel('generic', anOrigin())),
      route: () => server.channel('route', anOrigin()),
      dialect: 'ovpn',
    })
    return { backend, client }
  }

  it('are made, told and removed through rtnetlink', async () => {
    const { backend, client } = await startKernelLike()
    assert.equal(client.extended, false)
    await assert.rejects(client.keyNew(7, { ...keyconf, format: 'epoch' }), {
      errno: 'EOPNOTSUPP',
      attribute: 'keyconf.format',
    })
    const made = await client.linkNew({ kind: 'ovpn', mode: 'mp', name: 'tun5', mtu: 1400 })
    assert.deepEqual(
      [made.name, made.mode, made.mtu, made.provider],
      ['tun5', 'mp', 1400, 'kernel'],
    )
    backend.links.push(aLink({ ifindex: 99, name: 'old', kind: 'ovpn-dco' }))
    backend.peers = [aPeer({}), aPeer({ id: 4 })]
    const [link, ...more] = await client.links()
    assert.deepEqual(
      [link!.ifindex, link!.peers, link!.txPackets, more.length],
      [made.ifindex, 2, 4, 0],
    )
    assert.equal((await client.link(made.ifindex)).name, 'tun5')
    await assert.rejects(client.link(12345), { errno: 'ENODEV' })
    await client.linkDel(made.ifindex)
    assert.deepEqual(await client.links(), [])
    client.close()
  })

  it('get a free name', async () => {
    const { client } = await startKernelLike()
    const link = { kind: 'ovpn', mode: 'p2p' } as const
    assert.deepEqual(
      [(await client.linkNew(link)).name, (await client.linkNew(link)).name],
      ['ovpn0', 'ovpn1'],
    )
    await assert.rejects(client.linkNew({ ...link, name: 'ovpn1' }), { errno: 'EEXIST' })
  })
})

describe('over a unix socket', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-client-'))
  const path = join(folder, 'driver.sock')
  const { backend, server } = start()
  let listener: Server

  before(async () => {
    listener = createServer((socket) => server.accept(socket, anOrigin()))
    listener.listen(path)
    await once(listener, 'listening')
  })
  after(() => {
    server.close()
    listener.close()
    rmSync(folder, { recursive: true })
  })
  const open = () =>
    openClient({
      generic: () => openUnixChannel(path, 'generic'),
      route: () => openUnixChannel(path, 'route'),
      dialect: 'ovpn',
    })

  it('every command works', async () => {
    const client = await open()
    await tryAll(client, backend)
    client.close()
  })

  it('a large dump and events get through side by side', async () => {
    const client = await open()
    const events = await client.events()
    backend.peers = Array.from({ length: 20_000 }, (_, id) => aPeer({ id }))
    const peers = client.peers(7)
    for (let i = 0; i < 100; i++) backend.emit(gone, here)
    let count = 0
    for await (const _ of events) if (++count === 100) break
    assert.equal((await peers).length, 20_000)
    client.close()
  })

  it('the end of the driver is told to calls and readers', async () => {
    const client = await open()
    const events = await client.events()
    backend.answer = () => new Promise(() => {})
    const call = client.peerDel(7, 3)
    await turn()
    server.close()
    await assert.rejects(call, { errno: 'ECONNRESET' })
    await assert.rejects(
      (async () => {
        for await (const _ of events) assert.fail('nothing happens here')
      })(),
      { errno: 'ECONNRESET' },
    )
    backend.answer = undefined
  })
})
