/** Packets of an enemy at a real socket: each counted under its reason, and none of them anybody else's trouble. */
// npm test: other drivers
import assert from 'node:assert/strict'
import { after, afterEach, before, describe, it } from 'node:test'
import { withoutNamespaces } from '../namespace.ts'
import { Random } from '../random.ts'
import { Capture, dropped, echoRequest, HandKey, HandUdp, paced } from './hand.ts'
import { type Attached, type Device, type Host, Lab, remoteOf, sleep, until } from './lab.ts'

describe('hostile packets', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let server: Host
  let device: Device
  let friend: Attached
  let socket: ReturnType<Host['udp']>
  /** The peer's own place, and another at the same host. */
  let hand: HandUdp
  let stranger: HandUdp
  let key: HandKey
  let here: { address: string; port: number }
  const ID = 0x20
  const VPN = '10.8.0.32'
  let sequence = 0

  before(async () => {
    lab = new Lab('bad')
    server = await lab.host()
    const client = await lab.host()
    const enemy = await lab.host()
    await lab.wire(server, client, 'wire1', [['10.9.1.1/24', '10.9.1.2/24']])
    await lab.wire(server, enemy, 'wire2', [['10.9.2.1/24', '10.9.2.2/24']])
    device = await server.device({ mode: 'mp', addresses: ['10.8.0.1/24'] })
    socket = server.udp('0.0.0.0')
    lab.defer(() => socket.close())
    const outer: [string, string] = ['10.9.1.1', '10.9.1.2']
    friend = await lab.attach(device, socket, client, { id: 1, vpn: ['10.8.0.2'], outer })
    hand = new HandUdp(enemy.udp('10.9.2.2'))
    stranger = new HandUdp(enemy.udp('10.9.2.2'))
    lab.defer(() => {
      hand[Symbol.dispose]()
      stranger[Symbol.dispose]()
    })
    here = { address: '10.9.2.1', port: socket.port }
    await device.peerNew({
      id: ID,
      socket: socket.fd,
      vpnIpv4: VPN,
      ...remoteOf('10.9.2.2', hand.port),
    })
    await device.keyNew(ID, { side: 0, seed: ID })
    key = new HandKey(ID, { keyId: 0, seed: ID })
  })
  after(() => lab.close())

  /** Nobody else has noticed: the friend's traffic, the enemy's own peer, and where that is. */
  afterEach(async () => {
    await friend.device.host.reach('10.8.0.1', { count: 10 })
    const number = ++sequence & 0xff
    hand.send(key.seal(echoRequest(VPN, '10.8.0.1', number)), here)
    await hand.find('an answer', (bytes) => key.answer(bytes, number))
    const { remoteIpv4, remotePort } = await device.peer(ID)
    assert.deepEqual([remoteIpv4, remotePort], ['10.9.2.2', hand.port])
    assert.deepEqual(server.heard('peer-float-ntf'), [])
    assert.deepEqual(device.lost(), [])
  })

  /** Sends, and expects `count` more drops of `reason`: at the peer, or at the device alone. */
  async function expect(reason: string, count: number, at: 'peer' | 'device', send: () => unknown) {
    const drops = at === 'peer' ? () => device.drops(ID) : () => device.drops()
    const before = (await drops())[reason] ?? 0
    await send()
    await dropped(drops, reason, before + count)
  }

  const request = () => echoRequest(VPN, '10.8.0.1', 200)
  const flipped = (packet: Uint8Array, at: number) => {
    packet[at]! ^= 1
    return packet
  }

  it('a bit flipped anywhere', async () => {
    const { length } = key.seal(request())
    // The last of the id: an id of nobody. The first byte: another opcode. Both are below.
    const places = Array.from({ length: length - 4 }, (_, i) => i + 4)
    await expect('rx-auth-failed', places.length, 'peer', () =>
      paced(places.length, (i) => stranger.send(flipped(key.seal(request()), places[i]!), here)),
    )
  })

  it('cut anywhere', async () => {
    const { length } = key.seal(request())
    await expect('rx-short', 20, 'peer', () =>
      paced(20, (i) => hand.send(key.seal(request()).subarray(0, 4 + i), here)),
    )
    await expect('rx-auth-failed', length - 24, 'peer', () =>
      paced(length - 24, (i) => hand.send(key.seal(request()).subarray(0, 24 + i), here)),
    )
  })

  it('shorter than a header: neither the driver nor the owner of the socket has any use for it', async () => {
    await expect('rx-short', 4, 'device', () => {
      for (let i = 0; i < 4; i++) stranger.send(key.seal(request()).subarray(0, i), here)
    })
  })

  it('longer than any packet that can be in it', () =>
    expect('rx-auth-failed', 1, 'peer', () => {
      const packet = new Uint8Array(65507).fill(0x55)
      packet.set([0x48, 0, 0, ID])
      stranger.send(packet, here)
    }))

  it('an id of nobody', () =>
    expect('rx-unknown-peer', 256, 'device', () =>
      paced(256, (i) => hand.send(key.seal(request(), { peerId: 0x100 + i }), here)),
    ))

  it("sealed with the peer's key, under the id of another", async () => {
    const before = (await device.drops(1))['rx-auth-failed'] ?? 0
    hand.send(key.seal(request(), { peerId: 1 }), here)
    await dropped(() => device.drops(1), 'rx-auth-failed', before + 1)
  })

  it('the undefined id: known by its address or not at all', async () => {
    await expect('rx-unknown-peer', 1, 'device', () =>
      stranger.send(key.seal(request(), { peerId: 0xffffff }), here),
    )
    hand.send(key.seal(echoRequest(VPN, '10.8.0.1', 201), { peerId: 0xffffff }), here)
    await hand.find('an answer', (bytes) => key.answer(bytes, 201))
  })

  it('a key id of no key', () =>
    expect('rx-no-key', 7, 'peer', () => {
      for (let keyId = 1; keyId < 8; keyId++) hand.send(key.seal(request(), { keyId }), here)
    }))

  it('replayed, from the same place and from another', async () => {
    const packet = key.seal(request())
    hand.send(packet, here)
    await expect('rx-replay', 51, 'peer', () => {
      for (let i = 0; i < 50; i++) stranger.send(packet, here)
      hand.send(packet, here)
    })
  })

  it('packet id 0, and ids behind the window', async () => {
    hand.send(key.seal(request(), { packetId: 100_000 }), here)
    hand.send(key.seal(request(), { packetId: 100_000 - 2047 }), here)
    await expect('rx-replay', 2, 'peer', () => {
      hand.send(key.seal(request(), { packetId: 0 }), here)
      hand.send(key.seal(request(), { packetId: 100_000 - 2048 }), here)
    })
    key.skipTo(100_000)
  })

  const plains: [plain: Uint8Array, reason: string, why: string][] = [
    [new Uint8Array(0), 'rx-malformed', 'nothing'],
    [new Uint8Array(19).fill(0x45), 'rx-malformed', 'less than a header'],
    [new Uint8Array(39).fill(0x60), 'rx-malformed', 'less than a header of IPv6'],
    [new Uint8Array(64).fill(0x50), 'rx-malformed', 'IP version 5'],
    [echoRequest('10.8.0.2', '10.8.0.1', 1), 'rx-reverse-path', "another peer's address"],
    [echoRequest('192.0.2.1', '10.8.0.1', 1), 'rx-reverse-path', 'an address of nobody'],
  ]
  for (const [plain, reason, why] of plains) {
    it(`authentic, but inside: ${why}`, () =>
      expect(reason, 1, 'peer', () => hand.send(key.seal(plain), here)))
  }

  it('authentic, with an IP header that lies about its length: for the stack to refuse', async () => {
    const { vpnRxPackets } = await device.peer(ID)
    for (const length of [0, 19, 20, 0xffff]) {
      const plain = request()
      new DataView(plain.buffer).setUint16(2, length)
      hand.send(key.seal(plain), here)
    }
    for (const words of [4, 15]) {
      const plain = request()
      plain[0] = 0x40 | words
      hand.send(key.seal(plain), here)
    }
    await until('all six', async () => (await device.peer(ID)).vpnRxPackets === vpnRxPackets + 6)
  })

  it('P_DATA_V1', () =>
    expect('rx-data-v1', 8, 'device', () => {
      for (let keyId = 0; keyId < 8; keyId++) {
        stranger.send(new Uint8Array(100).fill(0x30 | keyId), here)
      }
    }))

  it("other opcodes reach the socket's owner, untouched", async () => {
    const owner = new HandUdp(socket)
    const opcodes = Array.from({ length: 32 }, (_, i) => i).filter((op) => op !== 6 && op !== 9)
    for (const op of opcodes) stranger.send(Uint8Array.of(op << 3, 1, 2, 3, op), here)
    for (const op of opcodes) {
      assert.deepEqual([...(await owner.receive()).bytes], [op << 3, 1, 2, 3, op])
    }
  })

  it('50,000 packets of noise while a friend is at work', async () => {
    const random = new Random(0x0bad)
    const noise = Array.from({ length: 64 }, () => {
      const packet = random.bytes(4 + random.below(1400))
      packet.set([0x48 | random.below(8), 0, 0, random.below(2) === 0 ? ID : random.below(256)])
      return packet
    })
    const linkBefore = await counted()
    const work = friend.device.host.ping('10.8.0.1', { count: 400, interval: 0.005 })
    await paced(50_000, (i) => stranger.send(noise[i % noise.length]!, here), 64)
    const { sent, got } = await work
    assert.ok(got >= sent * 0.9, `${got} answers to ${sent} requests of the friend`)
    await sleep(100)
    // What the socket's buffer did not hold is the kernel's loss; that nearly all came is enough.
    const arrived = (await counted()) - linkBefore
    assert.ok(arrived > 25_000, `${arrived} of 50,000 counted`)
  })

  async function counted(): Promise<number> {
    const drops = Object.values(await device.drops())
    return drops.reduce((sum, count) => sum + count, 0)
  }

  it('broadcast and multicast into the device: no peer has such an address', async () => {
    const before = (await device.drops())['tx-no-peer'] ?? 0
    server.ip('route add 224.0.0.0/4 dev ovpn0')
    const { sent } = await server.ping('224.1.2.3', { count: 3, seconds: 1 })
    await dropped(() => device.drops(), 'tx-no-peer', before + sent)
    server.ip('route del 224.0.0.0/4')
  })

  it('what is sent to the enemy is for its key alone', async () => {
    using wire = new Capture(server, 'wire2')
    const number = ++sequence & 0xff
    hand.send(key.seal(echoRequest(VPN, '10.8.0.1', number, 64)), here)
    await hand.find('an answer', (bytes) => key.answer(bytes, number))
    const plain = Buffer.from(echoRequest(VPN, '10.8.0.1', number, 64).subarray(28))
    const packets = wire.udp4('10.9.2.1')
    assert.ok(packets.length > 0, 'it was on the wire')
    for (const packet of packets) {
      assert.equal(Buffer.from(packet).indexOf(plain), -1, 'no plaintext on the wire')
    }
  })
})
