/** How peers and devices come to an end, and who is told; where peers move to; and what is counted meanwhile. */
// npm test: other drivers
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { withoutNamespaces } from '../namespace.ts'
import { dropped, echoRequest, HandKey, HandUdp } from './hand.ts'
import { type Device, type Host, iperf, Lab, remoteOf, until } from './lab.ts'

/** Counters of both ends, as peers and as links, once the last packet of a stream has been counted by all of them. */
async function settled(near: Device, far: Device) {
  const read = () => Promise.all([near.peer(1), far.peer(1), near.link(), far.link()])
  const packetsOf = ([a, b, c, d]: Awaited<ReturnType<typeof read>>) =>
    [
      a.vpnTxPackets,
      a.linkRxPackets,
      b.vpnTxPackets,
      b.linkRxPackets,
      c.txPackets,
      d.rxPackets,
    ].join()
  let last = await read()
  await until('packets to cease', async () => {
    const before = packetsOf(last)
    last = await read()
    return packetsOf(last) === before
  })
  return last
}

const OUTER: [string, string] = ['10.9.0.1', '10.9.0.2']

describe('lives of peers and devices', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let a: Host
  let b: Host

  before(async () => {
    lab = new Lab('life')
    a = await lab.host()
    b = await lab.host()
    await lab.wire(a, b, 'wire0', [
      ['10.9.0.1/24', '10.9.0.2/24'],
      ['fd00:9::1/64', 'fd00:9::2/64'],
    ])
  })
  after(() => lab.close())

  it('a client whose address changes is followed, and that is told once', async () => {
    await using device = await a.device({ mode: 'mp', addresses: ['10.8.0.1/24'] })
    using socket = a.udp('::')
    await using client = await lab.attach(device, socket, b, {
      id: 4,
      vpn: ['10.8.0.2'],
      outer: OUTER,
    })
    await b.reach('10.8.0.1')
    const heard = a.heard('peer-float-ntf').length
    b.ip('addr del 10.9.0.2/24 dev wire0')
    b.addAddress('wire0', '10.9.0.3/24')
    await b.reach('10.8.0.1')
    await a.reach('10.8.0.2')
    await until('word of the move', () => a.heard('peer-float-ntf').length > heard)
    const floats = a.heard('peer-float-ntf').slice(heard)
    assert.deepEqual(
      floats.map(({ ifindex, peer }) => ({ ifindex, peer })),
      [
        {
          ifindex: device.ifindex,
          peer: { id: 4, remoteIpv4: '10.9.0.3', remotePort: client.socket.port },
        },
      ],
    )
    assert.equal((await device.peer(4)).remoteIpv4, '10.9.0.3')
    b.ip('addr del 10.9.0.3/24 dev wire0')
    b.addAddress('wire0', '10.9.0.2/24')
  })

  it('to another family and back; but never for a packet that is not authentic, or not new', async () => {
    await using device = await a.device({ mode: 'p2p', addresses: ['10.8.0.1/24'] })
    using socket = a.udp('::')
    using v4 = new HandUdp(b.udp('10.9.0.2'))
    using v6 = new HandUdp(b.udp('fd00:9::2'))
    await device.peerNew({ id: 1, socket: socket.fd, ...remoteOf('10.9.0.2', v4.port) })
    await device.keyNew(1, { side: 0 })
    const key = new HandKey(1)
    const heard = a.heard('peer-float-ntf').length
    const first = key.seal(echoRequest('10.8.0.2', '10.8.0.1', 1))
    v4.send(first, { address: '10.9.0.1', port: socket.port })
    await v4.find('an answer', (bytes) => key.answer(bytes, 1))

    const forged = key.seal(echoRequest('10.8.0.2', '10.8.0.1', 2))
    forged[30]! ^= 1
    v6.send(forged, { address: 'fd00:9::1', port: socket.port })
    await dropped(() => device.drops(1), 'rx-auth-failed', 1)
    v6.send(first, { address: 'fd00:9::1', port: socket.port })
    await dropped(() => device.drops(1), 'rx-replay', 1)
    assert.equal(a.heard('peer-float-ntf').length, heard, 'it has not moved')
    assert.equal((await device.peer(1)).remotePort, v4.port)

    v6.send(key.seal(echoRequest('10.8.0.2', '10.8.0.1', 3)), {
      address: 'fd00:9::1',
      port: socket.port,
    })
    await v6.find('an answer at the new place', (bytes) => key.answer(bytes, 3))
    v4.send(key.seal(echoRequest('10.8.0.2', '10.8.0.1', 4)), {
      address: '10.9.0.1',
      port: socket.port,
    })
    await v4.find('an answer at the old place', (bytes) => key.answer(bytes, 4))
    await until('word of both moves', () => a.heard('peer-float-ntf').length >= heard + 2)
    const floats = a.heard('peer-float-ntf').slice(heard)
    assert.deepEqual(
      floats.map(({ peer }) => peer.remoteIpv6 ?? peer.remoteIpv4),
      ['fd00:9::2', '10.9.0.2'],
    )
  })

  it('pings keep idle peers alive; the end of one is the end of the other, and both are told', async () => {
    await using tunnel = await lab.tunnel(a, b, { outer: OUTER, keepalive: [1, 3] })
    await until('pings both ways', async () => {
      const { linkRxPackets, linkTxPackets } = await tunnel.near.peer(1)
      return linkRxPackets >= 4 && linkTxPackets >= 4
    })
    const { vpnRxPackets, vpnTxPackets } = await tunnel.near.peer(1)
    assert.deepEqual([vpnRxPackets, vpnTxPackets], [0, 0], 'a ping is none of the inner packets')
    assert.deepEqual(tunnel.near.lost(), [])
    b.ip('link set wire0 down')
    const start = performance.now()
    await until('both ends', () => tunnel.near.lost().length + tunnel.far.lost().length === 2)
    const ms = performance.now() - start
    assert.ok(ms > 1500 && ms < 12_000, `after ${ms.toFixed(0)} ms`)
    assert.deepEqual(tunnel.near.lost(), [[1, 'expired']])
    assert.deepEqual(tunnel.far.lost(), [[1, 'expired']])
    b.ip('link set wire0 up')
    b.addAddress('wire0', 'fd00:9::2/64')
    // Who was asked for in vain meanwhile is given up a little later, and with that all packets that wait for the answer.
    for (const [from, to] of [
      [a, '10.9.0.2'],
      [b, '10.9.0.1'],
    ] as const) {
      await until(`an answer of ${to}`, async () => (await from.ping(to, { count: 1 })).got === 1)
    }
  })

  it('a new peer of a point-to-point device takes the place of the old one', async () => {
    await using tunnel = await lab.tunnel(a, b, { outer: OUTER })
    await a.reach('10.8.0.2')
    const { near, far } = tunnel
    for (const [end, i] of [
      [near, 0],
      [far, 1],
    ] as const) {
      const { remoteIpv4, remotePort } = await end.peer(1)
      await end.peerNew({
        id: 2,
        socket: tunnel.sockets[i],
        remoteIpv4: remoteIpv4!,
        remotePort: remotePort!,
      })
      await end.keyNew(2, { side: i, seed: 9 })
    }
    await a.reach('10.8.0.2')
    await until('word of its end', () => near.lost().length > 0)
    assert.deepEqual(near.lost(), [[1, 'teardown']])
    assert.equal((await near.link()).peers, 1)
  })

  it('what is acknowledged holds for the very next packet', async () => {
    const LIVES = 100
    await using device = await a.device({ mode: 'mp', addresses: ['10.8.0.1/24'] })
    using socket = a.udp('::')
    using hand = new HandUdp(b.udp('10.9.0.2'))
    const here = { address: '10.9.0.1', port: socket.port }
    const peer = { socket: socket.fd, ...remoteOf('10.9.0.2', hand.port) }
    // Another one keeps the socket with the driver.
    await device.peerNew({ ...peer, id: 4, vpnIpv4: '10.8.0.4' })
    for (let life = 0; life < LIVES; life++) {
      const [keyId, seed] = [life & 7, life]
      await device.client.peerNew(device.ifindex, { ...peer, id: 5, vpnIpv4: '10.8.0.5' })
      await device.keyNew(5, { side: 0, keyId, seed })
      const key = new HandKey(5, { keyId, seed })
      hand.send(key.seal(echoRequest('10.8.0.5', '10.8.0.1', life)), here)
      await hand.find(`an answer in life ${life}`, (bytes) => key.answer(bytes, life))
      await device.client.peerDel(device.ifindex, 5)
      hand.send(key.seal(echoRequest('10.8.0.5', '10.8.0.1', life)), here)
    }
    // Whether the next life has begun by the time a late packet is looked at is chance; its key has not.
    await until('all late packets', async () => {
      const drops = await device.drops()
      const { 'rx-unknown-peer': unknown = 0, 'rx-no-key': early = 0, ...others } = drops
      assert.deepEqual(others, {})
      return unknown + early === LIVES
    })
  })

  it('a peer deleted under load, and made again', async () => {
    await using tunnel = await lab.tunnel(a, b, { outer: OUTER })
    const { near } = tunnel
    const flood = b.start('ping', ['-f', '-q', '-w', '4', '10.8.0.1'])
    for (let i = 0; i < 20; i++) {
      const { remoteIpv4, remotePort } = await near.peer(1)
      await near.client.peerDel(near.ifindex, 1)
      await near.client.peerNew(near.ifindex, {
        id: 1,
        socket: tunnel.sockets[0],
        remoteIpv4: remoteIpv4!,
        remotePort: remotePort!,
      })
      await near.keyNew(1, { side: 0 })
    }
    await flood.kill()
    await a.ready('ovpn0')
    await until('word of each end', () => near.lost().length >= 20)
    assert.equal(near.lost().length, 20)
    assert.ok(near.lost().every(([, reason]) => reason === 'userspace'))
    // Its new life began with packet id 1, which the other end has seen: a key has but one life.
    await near.keyNew(1, { side: 0, keyId: 1 })
    await tunnel.far.keyNew(1, { side: 1, keyId: 1 })
    await a.reach('10.8.0.2')
  })

  it('a socket closed by its owner takes its peers along, and no others', async () => {
    await using device = await a.device({ mode: 'mp', addresses: ['10.8.0.1/24'] })
    const mortal = a.udp('::')
    using other = a.udp('::')
    for (const id of [1, 2, 3, 4]) {
      await device.peerNew({
        id,
        socket: id === 4 ? other.fd : mortal.fd,
        vpnIpv4: `10.8.0.${id + 1}`,
        ...remoteOf('10.9.0.2', 1000 + id),
      })
    }
    mortal.close()
    await until('three ends', () => device.lost().length === 3)
    assert.deepEqual(
      device.lost(),
      [1, 2, 3].map((id) => [id, 'transport-disconnect']),
    )
    assert.equal((await device.link()).peers, 1)
  })

  it('a socket belongs to one device; another has a socket of its own', async () => {
    await using first = await a.device({ mode: 'mp', name: 'one', addresses: ['10.8.1.1/24'] })
    await using second = await a.device({ mode: 'mp', name: 'two', addresses: ['10.8.2.1/24'] })
    using shared = a.udp('::')
    using own = a.udp('::')
    await using near = await lab.attach(first, shared, b, {
      id: 1,
      vpn: ['10.8.1.2'],
      outer: OUTER,
    })
    const peer = { id: 1, vpnIpv4: '10.8.2.2', ...remoteOf('10.9.0.2', 9) }
    await assert.rejects(second.peerNew({ ...peer, socket: shared.fd }), { errno: 'ENOTSOCK' })
    await second.peerNew({ ...peer, socket: own.fd })
    await a.reach('10.8.1.2')
    await near.close()
    await first.client.peerDel(first.ifindex, 1)
    await second.peerNew({ ...peer, id: 2, vpnIpv4: '10.8.2.3', socket: shared.fd })
  })

  it('the last peer gone, the socket is as it was before', async () => {
    await using device = await a.device({ mode: 'p2p', addresses: ['10.8.0.1/24'] })
    using socket = a.udp('10.9.0.1')
    using hand = new HandUdp(b.udp('10.9.0.2'))
    const owner = new HandUdp(socket)
    const data = Uint8Array.of(0x48, 0, 0, 1, 1, 2, 3, 4)
    await device.peerNew({ id: 1, socket: socket.fd, ...remoteOf('10.9.0.2', hand.port) })
    hand.send(data, { address: '10.9.0.1', port: socket.port })
    await dropped(() => device.drops(1), 'rx-no-key', 1)
    await device.client.peerDel(device.ifindex, 1)
    await until('data at its owner', () => {
      hand.send(data, { address: '10.9.0.1', port: socket.port })
      return owner.poll()
    })
  })

  it('a device in one namespace, its socket in another; where its events go', async () => {
    const inner = await lab.host()
    await using device = await inner.device({ mode: 'p2p', addresses: ['10.8.7.1/24'] })
    await using far = await b.device({ mode: 'p2p', addresses: ['10.8.7.2/24'] })
    using near = a.udp('::')
    using other = b.udp('::')
    await device.peerNew({ id: 1, socket: near.fd, ...remoteOf('10.9.0.2', other.port) })
    await far.peerNew({ id: 1, socket: other.fd, ...remoteOf('10.9.0.1', near.port) })
    await device.keyNew(1, { side: 0 })
    await far.keyNew(1, { side: 1 })
    await inner.reach('10.8.7.2')
    await device.client.peerDel(device.ifindex, 1)
    const told = () =>
      a.heard('peer-del-ntf', ({ ifindex, peer }) => ifindex === device.ifindex && peer.id === 1)
    await until("the end, told in the socket's namespace", () => told().length > 0)
    assert.deepEqual(inner.heard('peer-del-ntf'), [])
  })

  it('ip link del: the peers are told of, the socket works on', async () => {
    const tunnel = await lab.tunnel(a, b, { outer: OUTER })
    await a.reach('10.8.0.2')
    a.ip('link del ovpn0')
    await until('its end', () => tunnel.near.lost().length === 1)
    assert.deepEqual(tunnel.near.lost(), [[1, 'teardown']])
    await assert.rejects(tunnel.near.link(), { errno: 'ENODEV' })
    await b.reach('10.9.0.1', { count: 2 })
    await tunnel.close()
  })

  it('the namespace of a device removed', async () => {
    const tunnel = await lab.tunnel(a, b, { outer: OUTER })
    const doomed = await lab.host()
    const device = await doomed.device({ mode: 'mp', addresses: ['10.8.3.1/24'] })
    using socket = a.udp('::')
    await device.peerNew({
      id: 8,
      socket: socket.fd,
      vpnIpv4: '10.8.3.2',
      ...remoteOf('10.9.0.2', 99),
    })
    doomed.remove()
    const told = () =>
      a.heard('peer-del-ntf', ({ ifindex, peer }) => ifindex === device.ifindex && peer.id === 8)
    await until('the end of its peer', () => told().length === 1)
    assert.equal(told()[0]!.peer.delReason, 'teardown')
    await a.reach('10.8.0.2')
    await tunnel.close()
  })

  it('what programs moved is what was counted, and a new peer begins at zero', async () => {
    await using tunnel = await lab.tunnel(a, b, { outer: OUTER })
    const { near, far } = tunnel
    for (const host of [a, b]) host.sysctl('net/ipv6/conf/ovpn0/disable_ipv6', 1)
    const start = await Promise.all([near.peer(1), far.peer(1)])
    await a.reach('10.8.0.2', { count: 50, size: 972 })
    const [n, f] = await Promise.all([near.peer(1), far.peer(1)])
    for (const [peer, before] of [
      [n, start[0]],
      [f, start[1]],
    ] as const) {
      assert.equal(peer.vpnTxPackets - before.vpnTxPackets, 50)
      assert.equal(peer.vpnRxPackets - before.vpnRxPackets, 50)
      assert.equal(peer.vpnTxBytes - before.vpnTxBytes, 50 * 1000)
      assert.equal(peer.vpnRxBytes - before.vpnRxBytes, 50 * 1000)
      assert.equal(peer.linkTxBytes - before.linkTxBytes, 50 * 1024)
      assert.equal(peer.linkRxBytes - before.linkRxBytes, 50 * 1024)
    }
    const moved = await iperf(a, b, '10.8.0.2')
    const [sender, receiver, ...links] = await settled(near, far)
    assert.ok(receiver.vpnRxBytes > moved.bytes, 'all that arrived was counted, and its headers')
    assert.ok(receiver.vpnRxBytes < moved.sent * 1.1, 'and little more')
    assert.ok(
      sender.vpnTxBytes >= receiver.vpnRxBytes && sender.linkTxPackets >= receiver.linkRxPackets,
    )
    assert.equal(links[1].rxBytes, receiver.vpnRxBytes)
    assert.equal(links[0].txBytes, sender.vpnTxBytes)
    // The kernel sees what was glued together: fewer headers.
    const kernel = Number(/RX:\s+bytes.*\n\s+(\d+)/.exec(b.ip('-s link show ovpn0'))?.[1])
    assert.ok(kernel <= receiver.vpnRxBytes && kernel >= moved.bytes, `${kernel} by the kernel`)

    await near.peerNew({ id: 5, socket: tunnel.sockets[0], ...remoteOf('10.9.0.2', 9) })
    const fresh = await near.peer(5)
    assert.deepEqual([fresh.vpnRxBytes, fresh.linkTxPackets], [0, 0])
  })
})
