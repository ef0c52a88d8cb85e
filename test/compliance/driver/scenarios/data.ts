/**
 * Packets over UDP: what comes out of the device and of the sockets for everything that can come in, with the counters
 * after each; replay, tampering, spoofing, floats. Source: driver-behaviour 1 to 5, 8, 10.
 */
import { KEEPALIVE_MAGIC, OCC_MAGIC } from '../../../../src/wire/data.ts'
import { INSIDE, INSIDE_TOO, INSIDE6, OUTSIDE, OUTSIDE_TOO, OUTSIDE6 } from '../lab.ts'
import { ipv4, ipv6, joined, keyconf, Remote, tampered } from '../packets.ts'
import { ETH_P_IP, ETH_P_IPV6, type Udp } from '../sockets.ts'
import type { Device, Stage } from '../stage.ts'

const HOME = { address: INSIDE, port: 1194 }
const V6 = (last: number) =>
  `fd08 0000 0000 0000 0000 0000 0000 00${last.toString(16).padStart(2, '0')}`

interface Cast {
  device: Device
  owner: Udp
  /** The sockets of peers 1 and 2, and their other ends. */
  far: Udp
  far2: Udp
  one: Remote
  two: Remote
}

/** An MP device with two peers; the first has two keys and another id for what it is sent. */
async function cast(stage: Stage): Promise<Cast> {
  const device = await stage.device('mp')
  const owner = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  const far = stage.udp('far', 'outside', OUTSIDE, 2000)
  const far2 = stage.udp('far2', 'outside', OUTSIDE, 2001)
  const { fd: socket } = owner
  await stage.mustPeer(
    device,
    {
      id: 1,
      socket,
      remoteIpv4: OUTSIDE,
      remotePort: 2000,
      vpnIpv4: '10.8.0.2',
      vpnIpv6: 'fd08::2',
      txId: 0x010203,
    },
    keyconf(1, 'primary', 0),
    keyconf(1, 'secondary', 1),
  )
  const second = { id: 2, socket, remoteIpv4: OUTSIDE, remotePort: 2001, vpnIpv4: '10.8.0.3' }
  await stage.mustPeer(device, second, keyconf(2, 'primary', 0))
  return { device, owner, far, far2, one: new Remote(1), two: new Remote(2) }
}

const inner = ipv4('10.8.0.2', '10.8.0.1')

export async function receiving(stage: Stage): Promise<void> {
  const { device, far, far2, one, two } = await cast(stage)
  const get = (what: string, packet: Uint8Array, from = far) =>
    stage.traffic(what, () => from.send(packet, HOME), { count: device })

  await get('IPv4', one.seal(inner))
  await get('IPv6', one.seal(ipv6(V6(2), V6(1))))
  await get('secondary key', one.seal(inner, { keyId: 1 }))
  await get('second peer', two.seal(ipv4('10.8.0.3', '10.8.0.1')), far2)
  await get('key id of none', one.seal(inner, { keyId: 5 }))
  await get('key of another slot under this id', tampered(one.seal(inner, { keyId: 1 }), 0))
  await get('unknown peer', one.seal(inner, { peerId: 77 }))
  await get('id of the other peer', one.seal(inner, { peerId: 2 }))
  await get('id undefined', one.seal(inner, { peerId: 0xffffff }))
  await get('id undefined, from the other peer', one.seal(inner, { peerId: 0xffffff }), far2)
  await get('two in a row', joined(one.seal(inner), one.seal(inner)))

  const good = one.seal(inner)
  for (const at of [0, 1, 2, 3, 4, 7, 8, 15, 23, 24, 30, good.length - 1]) {
    await get(`byte ${at} turned`, tampered(good, at))
  }
  for (const length of [0, 1, 2, 3, 4, 5, 7, 8, 23, 24, 25, good.length - 1]) {
    await get(`cut to ${length} bytes`, good.subarray(0, length))
  }
  await get('a byte more', joined(good, Uint8Array.of(0)))
  await get('untouched', good)
  await get('again', good)
  await plaintexts(one, get)
  await sources(stage, device, one, get)

  stage.lab.ip('link', 'set', device.name, 'down')
  await get('device down', one.seal(inner))
  stage.lab.ip('link', 'set', device.name, 'up')
  await get('device up again', one.seal(inner))
  await stage.showsLink('its counters', device)
}

type Get = (what: string, packet: Uint8Array, from?: Udp) => Promise<void>

async function plaintexts(one: Remote, get: Get): Promise<void> {
  const rows: [what: string, plaintext: Uint8Array][] = [
    ['nothing', new Uint8Array(0)],
    ['one byte 0x45', Uint8Array.of(0x45)],
    ['one byte 0', Uint8Array.of(0)],
    ['a keepalive', KEEPALIVE_MAGIC],
    ['a keepalive less a byte', KEEPALIVE_MAGIC.subarray(0, 15)],
    ['a keepalive and a byte', joined(KEEPALIVE_MAGIC, Uint8Array.of(0))],
    ['a keepalive with a bit turned', tampered(KEEPALIVE_MAGIC, 9)],
    ['an exit message', joined(OCC_MAGIC, Uint8Array.of(6))],
    ['IPv4 of 19 bytes', inner.subarray(0, 19)],
    ['IPv4 of 20 bytes', ipv4('10.8.0.2', '10.8.0.1', 0)],
    ['IPv4 that says it is longer', inner.subarray(0, 24)],
    ['IPv4 that says it is shorter', joined(inner, new Uint8Array(6))],
    [
      'IPv4 with a short header length',
      Uint8Array.from(inner, (byte, i) => (i === 0 ? 0x44 : byte)),
    ],
    ['IPv4 with a wrong checksum', tampered(inner, 10)],
    ['version 5', Uint8Array.from(inner, (byte, i) => (i === 0 ? 0x55 : byte))],
    ['version 0', Uint8Array.from(inner, (byte, i) => (i === 0 ? 0x05 : byte))],
    ['IPv6 of 39 bytes', ipv6(V6(2), V6(1)).subarray(0, 39)],
    ['IPv6 of 40 bytes', ipv6(V6(2), V6(1), 0)],
    ['IPv6 of 20 bytes', ipv6(V6(2), V6(1)).subarray(0, 20)],
    ['IPv6 that says it is longer', ipv6(V6(2), V6(1)).subarray(0, 44)],
    ['IPv4 of 1416 bytes', ipv4('10.8.0.2', '10.8.0.1', 1396)],
    ['IPv4 of 3000 bytes', ipv4('10.8.0.2', '10.8.0.1', 2980)],
  ]
  for (const [what, plaintext] of rows) await get(`plaintext: ${what}`, one.seal(plaintext))
}

async function sources(stage: Stage, device: Device, one: Remote, get: Get): Promise<void> {
  const rows: [what: string, plaintext: Uint8Array][] = [
    ["the other peer's", ipv4('10.8.0.3', '10.8.0.1')],
    ["nobody's", ipv4('10.8.0.77', '10.8.0.1')],
    ['0.0.0.0', ipv4('0.0.0.0', '10.8.0.1')],
    ['broadcast', ipv4('255.255.255.255', '10.8.0.1')],
    ['multicast', ipv4('224.0.0.1', '10.8.0.1')],
    ['IPv6 of nobody', ipv6(V6(0x77), V6(1))],
    ['IPv6 link-local', ipv6('fe80 0000 0000 0000 0000 0000 0000 0002', V6(1))],
    ['IPv6 ::', ipv6('0000 '.repeat(8), V6(1))],
    ['behind the peer', ipv4('10.77.0.5', '10.8.0.1')],
    ['behind the other peer', ipv4('10.78.0.5', '10.8.0.1')],
  ]
  for (const [what, plaintext] of rows) await get(`source: ${what}`, one.seal(plaintext))
  stage.lab.ip('addr', 'add', '10.8.0.1/24', 'dev', device.name)
  stage.lab.ip('route', 'add', '10.77.0.0/24', 'via', '10.8.0.2', 'dev', device.name)
  stage.lab.ip('route', 'add', '10.78.0.0/24', 'via', '10.8.0.3', 'dev', device.name)
  await stage.settle()
  for (const [what, plaintext] of rows) {
    // To nobody, so that nothing answers.
    if (plaintext[0] === 0x45) plaintext.set([10, 8, 0, 99], 16)
    await get(`source, with routes: ${what}`, one.seal(plaintext))
  }
  stage.lab.ip('addr', 'flush', 'dev', device.name)
}

/** What is not data, or not of a kind that this driver takes. */
export async function opcodes(stage: Stage): Promise<void> {
  const { device, far } = await cast(stage)
  const stranger = stage.udp('stranger', 'outside', OUTSIDE, 2999)
  for (let opcode = 0; opcode < 32; opcode++) {
    const packet = new Uint8Array(30).fill(0x5a)
    packet.set([(opcode << 3) | 1, 0, 0, 1])
    await stage.traffic(`opcode ${opcode}`, () => far.send(packet, HOME), { count: device })
    if (opcode !== 7 && opcode !== 9 && opcode !== 6) continue
    await stage.traffic(`opcode ${opcode}, from a stranger`, () => stranger.send(packet, HOME))
  }
  for (const length of [0, 1, 2, 3, 4]) {
    const packet = Uint8Array.of(0x38, 0, 0, 1).subarray(0, length)
    await stage.traffic(`a control packet of ${length} bytes`, () => far.send(packet, HOME), {
      count: device,
    })
  }
  await stage.must('peer-del', { ifindex: device.ifindex, peer: { id: 1 } })
  await stage.must('peer-del', { ifindex: device.ifindex, peer: { id: 2 } })
  const data = Uint8Array.of(0x48, 0, 0, 1, 0, 0, 0, 1)
  await stage.traffic('data, when the last peer is gone', () => far.send(data, HOME))
  await stage.traffic('3 bytes, when the last peer is gone', () =>
    far.send(data.subarray(0, 3), HOME),
  )
}

/** Replay and reordering, each on a key of its own. */
export async function replay(stage: Stage): Promise<void> {
  const { device, far } = await cast(stage)
  const one = new Remote(1)
  const runs: [what: string, ids: number[]][] = [
    ['first 5, then the lower ones', [5, 4, 3, 2, 1, 5, 1, 6]],
    ['zero', [0, 1, 0]],
    ['first 3000, then at the edge of the window', [3000, 953, 952, 954, 953, 3001, 954, 955]],
    ['a jump by 2047', [1, 2048, 1, 2, 2049]],
    ['a jump by 2048', [1, 2, 2050, 2, 3, 1]],
    ['a jump by more', [10, 100_000, 97_953, 97_952, 99_999, 10]],
    ['the last one', [1, 0xffffffff, 0xfffffffe, 0xffffffff, 2, 0]],
    ['every second one, then those between', [2, 4, 6, 8, 10, 9, 7, 5, 3, 1, 8, 7]],
  ]
  for (const [what, ids] of runs) {
    const { ifindex } = device
    await stage.must('key-new', { ifindex, keyconf: keyconf(1, 'primary', 0) })
    for (const [i, packetId] of ids.entries()) {
      await stage.traffic(`${what}: ${i}, id ${packetId}`, () =>
        far.send(one.seal(inner, { packetId }), HOME),
      )
    }
  }
  await stage.traffic('counters', () => undefined, { count: device })
}

export async function sending(stage: Stage): Promise<void> {
  const { device, far, one, two, far2 } = await cast(stage)
  const { ifindex, tap } = device
  stage.lab.ip('link', 'set', device.name, 'mtu', '4000')
  const put = (what: string, packet: Uint8Array, protocol = ETH_P_IP) =>
    stage.traffic(what, () => tap.send(packet, protocol), { count: device })
  const from = '10.8.0.1'
  await put('to peer 1', ipv4(from, '10.8.0.2'))
  await put('to peer 1 again', ipv4(from, '10.8.0.2'))
  await put('to peer 2', ipv4(from, '10.8.0.3'))
  await put('IPv6 to peer 1', ipv6(V6(1), V6(2)), ETH_P_IPV6)
  await put('IPv6 to nobody', ipv6(V6(1), V6(3)), ETH_P_IPV6)
  for (const to of [
    '10.8.0.99',
    '10.8.0.255',
    '255.255.255.255',
    '224.0.0.1',
    '0.0.0.0',
    '127.0.0.1',
  ]) {
    await put(`to ${to}`, ipv4(from, to))
  }
  await put('IPv4 of 20 bytes', ipv4(from, '10.8.0.2', 0))
  await put('IPv4 of 19 bytes', ipv4(from, '10.8.0.2').subarray(0, 19))
  await put('IPv4 of 1 byte', ipv4(from, '10.8.0.2').subarray(0, 1))
  await put('IPv6 of 40 bytes', ipv6(V6(1), V6(2), 0), ETH_P_IPV6)
  await put('IPv6 of 39 bytes', ipv6(V6(1), V6(2)).subarray(0, 39), ETH_P_IPV6)
  await put('IPv4 that says it is longer', ipv4(from, '10.8.0.2').subarray(0, 24))
  await put('IPv4 that says it is shorter', joined(ipv4(from, '10.8.0.2'), new Uint8Array(6)))
  await put(
    'version 5',
    Uint8Array.from(ipv4(from, '10.8.0.2'), (byte, i) => (i === 0 ? 0x55 : byte)),
  )
  await put('1500 bytes', ipv4(from, '10.8.0.2', 1480))
  await put('3000 bytes', ipv4(from, '10.8.0.2', 2980))

  await stage.must('key-swap', { ifindex, keyconf: { peerId: 1 } })
  await put('after a swap', ipv4(from, '10.8.0.2'))
  await stage.traffic('under the old key, after a swap', () => far.send(one.seal(inner), HOME), {
    count: device,
  })
  await stage.must('key-swap', { ifindex, keyconf: { peerId: 1 } })
  await put('swapped back: the counter goes on', ipv4(from, '10.8.0.2'))
  await stage.must('key-new', { ifindex, keyconf: keyconf(1, 'primary', 0) })
  await put('the same key again: the counter begins anew', ipv4(from, '10.8.0.2'))
  await stage.must('key-swap', { ifindex, keyconf: { peerId: 2 } })
  await put('swapped with an empty slot', ipv4(from, '10.8.0.3'))
  await stage.traffic(
    'received after that',
    () => far2.send(two.seal(ipv4('10.8.0.3', from)), HOME),
    { count: device },
  )
  await stage.must('key-del', { ifindex, keyconf: { peerId: 2, slot: 'secondary' } })
  await stage.traffic(
    'received without a key',
    () => far2.send(two.seal(ipv4('10.8.0.3', from)), HOME),
    { count: device },
  )
  await stage.must('peer-set', { ifindex, peer: { id: 1, vpnIpv4: '10.8.0.55', txId: 5 } })
  await put('to the old VPN address', ipv4(from, '10.8.0.2'))
  await put('to the new VPN address', ipv4(from, '10.8.0.55'))
  await stage.must('peer-set', { ifindex, peer: { id: 1, remoteIpv4: OUTSIDE, remotePort: 2001 } })
  await put('after a new remote', ipv4(from, '10.8.0.55'))
  await stage.must('peer-set', {
    ifindex,
    peer: { id: 1, remoteIpv4: OUTSIDE, remotePort: 2000, localIpv4: INSIDE_TOO },
  })
  await put('from another local address', ipv4(from, '10.8.0.55'))
  await stage.must('peer-set', {
    ifindex,
    peer: { id: 1, remoteIpv4: OUTSIDE, remotePort: 2000, localIpv4: '192.0.2.1' },
  })
  await put('from an address that is not here', ipv4(from, '10.8.0.55'))
  await stage.must('peer-set', {
    ifindex,
    peer: { id: 1, remoteIpv4: '203.0.113.1', remotePort: 2000 },
  })
  await put('without a route', ipv4(from, '10.8.0.55'))
  await stage.showsLink('its counters', device)
  await routed(stage, device)
}

/** Networks behind peers, as the IP stack sends to them. */
async function routed(stage: Stage, device: Device): Promise<void> {
  const { ifindex, name } = device
  await stage.must('peer-set', {
    ifindex,
    peer: { id: 1, remoteIpv4: OUTSIDE, remotePort: 2000, vpnIpv4: '10.8.0.2' },
  })
  await stage.must('key-new', { ifindex, keyconf: keyconf(2, 'primary', 0) })
  stage.lab.ip('addr', 'add', '10.8.0.1/24', 'dev', name)
  stage.lab.ip('route', 'add', '10.77.0.0/24', 'via', '10.8.0.2', 'dev', name)
  const program = stage.udp('program', 'inside', '10.8.0.1', 4000)
  const put = (what: string, address: string) =>
    stage.traffic(what, () => program.send(Uint8Array.of(1), { address, port: 4001 }), {
      count: device,
      // IP ids are drawn by the stack: only what comes out where matters.
      shape: (line) => line.slice(0, line.indexOf(':') + 10),
    })
  await put('to a network behind peer 1', '10.77.0.5')
  stage.lab.ip('route', 'change', '10.77.0.0/24', 'via', '10.8.0.3', 'dev', name)
  await put('that has moved behind peer 2', '10.77.0.5')
  stage.lab.ip('route', 'change', '10.77.0.0/24', 'dev', name)
  await put("that is nobody's", '10.77.0.5')
  await put('to a peer itself', '10.8.0.3')
}

export async function floats(stage: Stage): Promise<void> {
  const device = await stage.device('mp')
  const { ifindex, tap } = device
  const { fd: socket } = stage.udp('owner', 'inside', '::', 1194)
  const far = stage.udp('far', 'outside', OUTSIDE, 2000)
  const moved = stage.udp('moved', 'outside', OUTSIDE_TOO, 2000)
  const port = stage.udp('port', 'outside', OUTSIDE, 2007)
  const six = stage.udp('six', 'outside', OUTSIDE6, 2000)
  const peer = { id: 1, socket, remoteIpv4: OUTSIDE, remotePort: 2000, vpnIpv4: '10.8.0.2' }
  await stage.mustPeer(device, peer, keyconf(1, 'primary', 0))
  const one = new Remote(1)
  const home6 = { address: INSIDE6, port: 1194 }
  const get = (what: string, from: Udp, packet: Uint8Array, to = HOME) =>
    stage.traffic(what, () => from.send(packet, to), { count: device })
  const put = (what: string) =>
    stage.traffic(what, () => tap.send(ipv4('10.8.0.1', '10.8.0.2'), ETH_P_IP), { count: device })

  await get('from where it was', far, one.seal(inner))
  await get('forged, from elsewhere', moved, tampered(one.seal(inner), 30))
  await get('replayed, from elsewhere', moved, one.seal(inner, { packetId: 1 }))
  await get('unknown key, from elsewhere', moved, one.seal(inner, { keyId: 3 }))
  await put('answer before the float')
  await get('from elsewhere', moved, one.seal(inner))
  await put('answer')
  await get('from another port', port, one.seal(inner))
  await put('answer to the port')
  await get('a keepalive from where it was first', far, one.seal(KEEPALIVE_MAGIC))
  await get('spoofed inside, from elsewhere', moved, one.seal(ipv4('10.8.0.9', '10.8.0.1')))
  await get('nonsense inside, from another port', port, one.seal(Uint8Array.of(1, 2)))
  await get('id undefined, from elsewhere', moved, one.seal(inner, { peerId: 0xffffff }))
  await get('id undefined, from where it is', port, one.seal(inner, { peerId: 0xffffff }))
  await get('IPv6', six, one.seal(inner), home6)
  await put('answer over IPv6')
  await get('to another address of ours', far, one.seal(inner), { address: INSIDE_TOO, port: 1194 })
  await put('answer from that address')
  await get('to the first address again', far, one.seal(inner))
  await put('answer from the first address')
  await stage.must('peer-set', {
    ifindex,
    peer: { id: 1, remoteIpv4: OUTSIDE_TOO, remotePort: 2000 },
  })
  await put('set elsewhere by request')
  await get('heard from where it was', far, one.seal(inner))
  const control = Uint8Array.of(0x38, 1, 2, 3, 4, 5)
  await get('a control packet from elsewhere', moved, control)
  await put('answer after that')
}

/** Packets that are handed to the device under another protocol's name. */
export async function declared(stage: Stage): Promise<void> {
  const { device } = await cast(stage)
  const rows: [what: string, packet: Uint8Array, protocol: number][] = [
    ['IPv4 as IPv6', ipv4('10.8.0.1', '10.8.0.2'), ETH_P_IPV6],
    ['IPv6 as IPv4', ipv6(V6(1), V6(2)), ETH_P_IP],
    ['IPv4 as neither', ipv4('10.8.0.1', '10.8.0.2'), 0x88b5],
  ]
  for (const [what, packet, protocol] of rows) {
    await stage.traffic(what, () => device.tap.send(packet, protocol), { count: device })
  }
}

/** One peer: its id must fit, addresses inside are not looked at. */
export async function single(stage: Stage): Promise<void> {
  const device = await stage.device('p2p')
  const { ifindex, tap } = device
  const { fd: socket } = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  const far = stage.udp('far', 'outside', OUTSIDE, 2000)
  const peer = { socket, remoteIpv4: OUTSIDE, remotePort: 2000 }
  const one = new Remote(1)
  const get = (what: string, packet: Uint8Array) =>
    stage.traffic(what, () => far.send(packet, HOME), { count: device })
  const put = (what: string, packet: Uint8Array, protocol = ETH_P_IP) =>
    stage.traffic(what, () => tap.send(packet, protocol), { count: device })
  await put('without a peer', ipv4('10.8.0.1', '10.8.0.2'))
  await stage.mustPeer(device, { ...peer, id: 1 }, keyconf(1, 'primary', 0))
  await put('IPv4', ipv4('10.8.0.1', '10.8.0.2'))
  await put('broadcast', ipv4('10.8.0.1', '255.255.255.255'))
  await put('multicast', ipv4('10.8.0.1', '224.0.0.1'))
  await put('IPv6', ipv6(V6(1), V6(2)), ETH_P_IPV6)
  await put('IPv6 multicast', ipv6(V6(1), 'ff02 0000 0000 0000 0000 0000 0000 0001'), ETH_P_IPV6)
  await get('from anywhere inside', one.seal(ipv4('198.51.100.1', '10.8.0.1')))
  await get('IPv6 from anywhere inside', one.seal(ipv6(V6(0x99), V6(1))))
  await get('another id', one.seal(inner, { peerId: 2 }))
  await get('id undefined', one.seal(inner, { peerId: 0xffffff }))
  await stage.mustPeer(device, { ...peer, id: 2 })
  await get('for the peer that was replaced', one.seal(inner))
  await put('to a peer without keys', ipv4('10.8.0.1', '10.8.0.2'))
  await stage.must('key-new', { ifindex, keyconf: keyconf(2, 'primary', 0) })
  await put('to the new peer', ipv4('10.8.0.1', '10.8.0.2'))
}

/** The wire format of each cipher. */
export async function ciphers(stage: Stage): Promise<void> {
  const device = await stage.device('p2p')
  const { ifindex, tap } = device
  const { fd: socket } = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  const far = stage.udp('far', 'outside', OUTSIDE, 2000)
  await stage.mustPeer(device, { id: 1, socket, remoteIpv4: OUTSIDE, remotePort: 2000 })
  const rows = [
    ['aes-gcm', 16],
    ['aes-gcm', 24],
    ['aes-gcm', 32],
    ['chacha20-poly1305', 32],
  ] as const
  for (const [cipher, bytes] of rows) {
    const name = `${cipher} ${bytes}`
    await stage.must('key-new', { ifindex, keyconf: keyconf(1, 'primary', 7, cipher, bytes) })
    await stage.traffic(`${name} sent`, () => tap.send(ipv4('10.8.0.1', '10.8.0.2'), ETH_P_IP))
    if (cipher !== 'aes-gcm') continue
    const packet = new Remote(1, bytes).seal(inner, { keyId: 7 })
    await stage.traffic(`${name} received`, () => far.send(packet, HOME))
  }
}
