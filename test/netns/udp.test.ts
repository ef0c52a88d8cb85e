/** Tunnels over UDP between real devices: what goes in at one end comes out at the other, however it is wrapped. */
// npm test: other drivers
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { SO_MARK, SOL_SOCKET } from '../../src/platform/layout.ts'
import { openLibc } from '../../src/platform/libc.ts'
import { getOption, setOption } from '../../src/platform/sockopt.ts'
import type { BoundUdp } from '../../src/platform/udp.ts'
import type { Cipher } from '../../src/uapi/types.ts'
import { withoutNamespaces } from '../namespace.ts'
import { Capture } from './hand.ts'
import { type Attached, type Device, type Host, iperf, Lab, remoteOf, until } from './lab.ts'

describe('tunnels over UDP', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let a: Host
  let b: Host

  before(async () => {
    lab = new Lab('udp')
    a = await lab.host()
    b = await lab.host()
    await lab.wire(a, b, 'wire0', [
      ['10.9.0.1/24', '10.9.0.2/24'],
      ['fd00:9::1/64', 'fd00:9::2/64'],
    ])
  })
  after(() => lab.close())

  const ciphers: [cipher: Cipher, keyBytes: number, outer: 4 | 6][] = [
    ['aes-gcm', 16, 4],
    ['aes-gcm', 24, 6],
    ['aes-gcm', 32, 4],
    ['aes-gcm', 32, 6],
    ['chacha20-poly1305', 32, 4],
    ['chacha20-poly1305', 32, 6],
  ]
  for (const [cipher, keyBytes, outer] of ciphers) {
    it(`${cipher} with ${8 * keyBytes} bits over IPv${outer}: IPv4 and IPv6, TCP and UDP`, async () => {
      const addresses: [string, string] =
        outer === 4 ? ['10.9.0.1', '10.9.0.2'] : ['fd00:9::1', 'fd00:9::2']
      await using tunnel = await lab.tunnel(a, b, { outer: addresses, cipher, keyBytes })
      await a.reach('10.8.0.2')
      await b.reach('fd00:8::1')
      const tcp = await iperf(a, b, 'fd00:8::2', { amount: '24M' })
      assert.ok(tcp.bytes > 1e6, `a TCP stream moves: ${tcp.bytes} bytes`)
      const udp = await iperf(b, a, '10.8.0.1', { udp: '5M', length: 1000 })
      // On a machine that is busy the program itself loses some; what the tunnel lost is counted below.
      assert.ok(udp.lost < udp.packets / 5, `${udp.lost} of ${udp.packets} datagrams lost`)
      assert.ok(udp.packets > 150, `datagrams arrive: ${udp.packets}`)
      assert.deepEqual(await tunnel.near.drops(1), {})
    })
  }

  const mtus: [mtu: number, why: string][] = [
    [68, 'the smallest of IPv4'],
    [1280, 'the smallest of IPv6'],
    [1500, 'sealed packets are longer than the path takes: each is fragmented'],
    [9000, 'each in seven fragments'],
    [65451, 'the largest: with its header a datagram of 65475 bytes'],
  ]
  for (const [mtu, why] of mtus) {
    it(`an inner MTU of ${mtu}: ${why}`, async () => {
      await using tunnel = await lab.tunnel(a, b, { outer: ['10.9.0.1', '10.9.0.2'], mtu })
      await a.reach('10.8.0.2', { size: mtu - 28, fragment: false })
      await b.reach('10.8.0.1', { size: mtu - 29, fragment: false, count: 5 })
      await a.reach('10.8.0.2', { size: Math.min(3 * mtu, 65507), count: 5 })
      const { bytes } = await iperf(a, b, '10.8.0.2')
      assert.ok(bytes > 1e5, `a TCP stream moves: ${bytes} bytes`)
      for (const end of [tunnel.near, tunnel.far]) {
        const { 'tx-queue-full': _, ...drops } = await end.drops(1)
        assert.deepEqual(drops, {}, 'nothing but a full socket drops packets')
      }
    })
  }

  it('sockets of IPv4 alone, bound to an address', async () => {
    await using tunnel = await lab.tunnel(a, b, {
      outer: ['10.9.0.1', '10.9.0.2'],
      bind: '0.0.0.0',
    })
    await a.reach('10.8.0.2', { size: 3000 })
    await a.reach('fd00:8::2', { size: 3000 })
    assert.deepEqual(await tunnel.far.drops(1), {})
  })

  it('devices of the older kind, by the API of OpenVPN 2.6', async () => {
    await using tunnel = await lab.tunnel(a, b, {
      outer: ['10.9.0.1', '10.9.0.2'],
      kind: 'ovpn-dco',
    })
    for (const { client, ifindex } of [tunnel.near, tunnel.far]) {
      await client.peerSet(ifindex, { id: 1, keepaliveInterval: 1, keepaliveTimeout: 10 })
    }
    await a.reach('10.8.0.2', { size: 3000 })
    await a.reach('fd00:8::2')
    assert.equal((await tunnel.near.link()).kind, 'ovpn-dco')
    await tunnel.far.client.peerDel(tunnel.far.ifindex, 1)
    await until('word of its end', () => tunnel.far.lost().length > 0)
    assert.deepEqual(tunnel.far.lost(), [[1, 'userspace']])
  })

  it('packets carry the id that the receiver has for the peer', async () => {
    const outer: [string, string] = ['10.9.0.1', '10.9.0.2']
    using wire = new Capture(a, 'wire0')
    await using tunnel = await lab.tunnel(a, b, { outer, ids: [0x123456, 7] })
    await a.reach('10.8.0.2', { count: 3 })
    // The answers to requests that come close together leave together: one frame on this wire.
    for (const [from, header] of [
      ['10.9.0.1', '48000007'],
      ['10.9.0.2', '48123456'],
    ] as const) {
      const frames = wire.udp4(from).map((payload) => Buffer.from(payload).toString('hex', 0, 8))
      assert.equal(frames[0], `${header}00000001`)
      for (const frame of frames) assert.equal(frame.slice(0, 8), header)
    }
    assert.equal((await tunnel.near.peer(0x123456)).txId, 7)
  })

  it('a link-local peer is reached through the interface that its scope names', async () => {
    for (const host of [a, b]) host.addAddress('wire0', `fe80::${host === a ? 1 : 2}/64`)
    await using tunnel = await lab.tunnel(a, b, {
      outer: ['fe80::1', 'fe80::2'],
      scopes: [a.indexOf('wire0'), b.indexOf('wire0')],
    })
    await a.reach('10.8.0.2')
    const { remoteIpv6, remoteIpv6ScopeId } = await tunnel.near.peer(1)
    assert.deepEqual([remoteIpv6, remoteIpv6ScopeId], ['fe80::2', a.indexOf('wire0')])
    assert.deepEqual(await tunnel.near.drops(1), {})
    assert.deepEqual(a.heard('peer-float-ntf'), [], 'it stays where it was said to be')
  })

  it("the socket's mark is on its data packets", async () => {
    const mark = 1056
    const marked = a.udp('0.0.0.0')
    setOption(openLibc(), marked.fd, SOL_SOCKET, SO_MARK, mark, 'cannot set the mark')
    const device = await a.device({ mode: 'mp', addresses: ['10.8.0.1/24'] })
    await using client = await lab.attach(device, marked, b, {
      id: 3,
      vpn: ['10.8.0.2'],
      outer: ['10.9.0.1', '10.9.0.2'],
    })
    await a.reach('10.8.0.2')
    a.ip(`rule add fwmark ${mark} unreachable`)
    const lost = await a.ping('10.8.0.2', { count: 10, seconds: 2 })
    assert.equal(lost.got, 0, 'what carries the mark is stopped')
    assert.equal((await device.drops(3))['tx-no-route'], lost.sent)
    a.ip(`rule del fwmark ${mark} unreachable`)
    await a.reach('10.8.0.2')
    await client.close()
    await device.close()
    assert.equal(getOption(openLibc(), marked.fd, SOL_SOCKET, SO_MARK, 'no mark'), mark)
    marked.close()
  })
})

describe('one device for many peers', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let server: Host
  let clients: Host[]
  let socket: BoundUdp
  let device: Device
  let attached: Attached[]

  const CLIENTS: { id: number; clientId?: number; outer: [string, string]; why: string }[] = [
    { id: 1, outer: ['10.9.1.1', '10.9.1.2'], why: 'over IPv4' },
    { id: 2, outer: ['fd00:9:2::1', 'fd00:9:2::2'], why: 'over IPv6' },
    { id: 3, clientId: 0xabcdef, outer: ['10.9.3.1', '10.9.3.2'], why: 'with an id for each way' },
  ]
  const vpn4 = (id: number) => `10.8.0.${id + 1}`
  const vpn6 = (id: number) => `fd00:8::${id + 1}`

  before(async () => {
    lab = new Lab('udp')
    server = await lab.host()
    server.sysctl('net/ipv4/ip_forward', 1)
    device = await server.device({ mode: 'mp', addresses: ['10.8.0.1/24', 'fd00:8::1/64'] })
    socket = server.udp('::')
    lab.defer(() => socket.close())
    clients = []
    attached = []
    for (const { id, outer, ...ids } of CLIENTS) {
      const client = await lab.host()
      await lab.wire(server, client, `wire${id}`, [
        [`10.9.${id}.1/24`, `10.9.${id}.2/24`],
        [`fd00:9:${id}::1/64`, `fd00:9:${id}::2/64`],
      ])
      clients.push(client)
      const vpn: [string, string] = [vpn4(id), vpn6(id)]
      attached.push(await lab.attach(device, socket, client, { id, vpn, outer, ...ids }))
    }
  })
  after(() => lab.close())

  for (const { id, why } of CLIENTS) {
    it(`a client ${why}: both ways, small and large`, async () => {
      const client = clients[id - 1]!
      await server.reach(vpn4(id))
      await server.reach(vpn6(id), { size: 3000 })
      await client.reach('10.8.0.1', { size: 3000 })
      await client.reach('fd00:8::1')
    })
  }

  it('all at once', async () => {
    const flood = { count: 300, interval: 0.002 }
    await Promise.all(CLIENTS.map(({ id }) => server.reach(vpn4(id), flood)))
    await Promise.all(clients.map((client) => client.reach('fd00:8::1', flood)))
    const drops = await device.drops()
    assert.deepEqual(drops, {})
  })

  it('from client to client, through the server', async () => {
    await clients[0]!.reach(vpn4(2), { size: 2000 })
    await clients[2]!.reach(vpn4(1))
  })

  it('a network behind a client, and where it moves to', async () => {
    for (const client of clients) client.addAddress('lo', '11.11.11.11/32')
    server.ip(`route add 11.11.11.0/24 via ${vpn4(1)} dev ovpn0`)
    await server.reach('11.11.11.11')
    const before = await Promise.all([1, 2].map(async (id) => (await device.peer(id)).vpnTxPackets))
    await clients[0]!.reach('10.8.0.1', { from: '11.11.11.11' })

    server.ip(`route replace 11.11.11.0/24 via ${vpn4(2)} dev ovpn0`)
    await server.reach('11.11.11.11', { count: 20 })
    const after = await Promise.all([1, 2].map(async (id) => (await device.peer(id)).vpnTxPackets))
    assert.equal(after[0]! - before[0]!, 20, 'answers to the client that had it')
    assert.equal(after[1]! - before[1]!, 20, 'requests to the client that has it now')

    const refused = await clients[0]!.ping('10.8.0.1', {
      from: '11.11.11.11',
      count: 5,
      seconds: 1,
    })
    assert.equal(refused.got, 0, 'its former owner may not use it any more')
    assert.equal((await device.drops(1))['rx-reverse-path'], refused.sent)

    server.ip('route del 11.11.11.0/24')
    const unknown = await server
      .ping('11.11.11.11', { count: 2, seconds: 1 })
      .catch(() => undefined)
    assert.ok(unknown === undefined || unknown.got === 0, 'without a route there is no way')
  })

  it("nobody sends from another's VPN address", async () => {
    const before = (await device.drops(3))['rx-reverse-path'] ?? 0
    clients[2]!.addAddress('ovpn0', `${vpn4(1)}/32`)
    const { sent, got } = await clients[2]!.ping('10.8.0.1', {
      from: vpn4(1),
      count: 5,
      seconds: 1,
    })
    assert.equal(got, 0)
    assert.equal((await device.drops(3))['rx-reverse-path'], before + sent)
    clients[2]!.ip(`addr del ${vpn4(1)}/32 dev ovpn0`)
  })

  it('packets to an address of nobody, and to all, are dropped and counted', async () => {
    const before = (await device.drops())['tx-no-peer'] ?? 0
    const { sent } = await server.ping('10.8.0.99', { count: 4, seconds: 1 })
    assert.equal((await device.drops())['tx-no-peer'], before + sent)
  })

  it('answers come from the address that was asked, on a host that has several', async () => {
    server.addAddress('wire1', '10.9.1.77/24')
    const { port } = socket
    using wire = new Capture(clients[0]!, 'wire1')
    await attached[0]!.device.client.peerSet(attached[0]!.device.ifindex, {
      id: 1,
      ...remoteOf('10.9.1.77', port),
    })
    await clients[0]!.reach('10.8.0.1', { count: 5 })
    assert.ok(wire.udp4('10.9.1.77').length > 0)
    assert.equal(wire.udp4('10.9.1.1').length, 0)
    assert.equal((await device.peer(1)).localIpv4, '10.9.1.77')

    // Gone from the host: routing chooses another.
    server.ip('addr del 10.9.1.77/24 dev wire1')
    await attached[0]!.device.client.peerSet(attached[0]!.device.ifindex, {
      id: 1,
      ...remoteOf('10.9.1.1', port),
    })
    await server.reach(vpn4(1), { count: 5 })
    assert.equal((await device.peer(1)).localIpv4, '10.9.1.1')
  })

  it('the first packet comes from the local address that the request names', async () => {
    server.addAddress('wire1', '10.9.1.78/24')
    using wire = new Capture(clients[0]!, 'wire1')
    await device.client.peerSet(device.ifindex, {
      id: 1,
      ...remoteOf('10.9.1.2', attached[0]!.socket.port),
      localIpv4: '10.9.1.78',
    })
    await server.reach(vpn4(1), { count: 1 })
    assert.ok(wire.udp4('10.9.1.78').length >= 1)
  })
})
