/** Keys in real tunnels: exchanged under load without loss, in either slot, and gone when they are deleted. */
// npm test: other drivers
import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { withoutNamespaces } from '../namespace.ts'
import { dropped, echoRequest, HandKey, HandUdp } from './hand.ts'
import { type Device, type Host, Lab, sleep, type Tunnel, until } from './lab.ts'

describe('keys', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let a: Host
  let b: Host
  let tunnel: Tunnel

  before(async () => {
    lab = new Lab('key')
    a = await lab.host()
    b = await lab.host()
    await lab.wire(a, b, 'wire0', [['10.9.0.1/24', '10.9.0.2/24']])
  })
  after(() => lab.close())
  beforeEach(async () => {
    tunnel = await lab.tunnel(a, b, { outer: ['10.9.0.1', '10.9.0.2'] })
  })
  afterEach(() => tunnel.close())

  /** A new key at both ends, each sending with it as soon as the other can receive: what a renegotiation does. */
  async function rekey(keyId: number, seed: number): Promise<void> {
    const { near, far } = tunnel
    await near.keyNew(1, { side: 0, slot: 'secondary', keyId, seed })
    await far.keyNew(1, { side: 1, slot: 'secondary', keyId, seed })
    await near.client.keySwap(near.ifindex, 1)
    await far.client.keySwap(far.ifindex, 1)
  }

  it('a swap under load loses nothing', async () => {
    const flood = a.ping('10.8.0.2', { count: 2000, interval: 0.001 })
    const ends = [tunnel.near, tunnel.far]
    const sent = () => Promise.all(ends.map(async (end) => (await end.peer(1)).vpnTxPackets))
    await until('packets go both ways', async () => (await sent()).every((count) => count > 100))
    await rekey(1, 1)
    const { sent: asked, got } = await flood
    assert.equal(got, asked)
    for (const end of ends) {
      assert.deepEqual(await end.drops(1), {})
      const { keys } = await end.peer(1)
      assert.deepEqual(
        keys?.map(({ slot, keyId }) => [slot, keyId]),
        [
          ['primary', 1],
          ['secondary', 0],
        ],
      )
      const [primary, secondary] = keys!
      assert.ok(primary!.packetId > 0 && secondary!.packetId > 0, 'both have sent')
    }
  })

  it('a new key every 200 ms for 5 s, both ways at once', async () => {
    const floods = [
      a.ping('10.8.0.2', { count: 2500, interval: 0.002 }),
      b.ping('10.8.0.1', { count: 2500, interval: 0.002 }),
    ]
    for (let n = 1; n <= 25; n++) {
      await rekey(n % 8, n)
      await sleep(200)
    }
    for (const { sent, got } of await Promise.all(floods)) assert.equal(got, sent)
    assert.deepEqual(await tunnel.near.drops(1), {})
    assert.deepEqual(await tunnel.far.drops(1), {})
  })

  it('one end that still sends with the older key is understood', async () => {
    const { near, far } = tunnel
    await near.keyNew(1, { side: 0, slot: 'secondary', keyId: 1 })
    await far.keyNew(1, { side: 1, slot: 'secondary', keyId: 1 })
    await far.client.keySwap(far.ifindex, 1)
    await a.reach('10.8.0.2')
    const [info, other] = [
      await near.client.keyGet(near.ifindex, 1, 'primary'),
      await far.client.keyGet(far.ifindex, 1, 'primary'),
    ]
    assert.deepEqual(info, { peerId: 1, slot: 'primary', keyId: 0, cipherAlg: 'aes-gcm' })
    assert.equal(other.keyId, 1)
  })

  it('a swap with an empty slot leaves nothing to send with, and another brings it back', async () => {
    const { near } = tunnel
    await near.client.keySwap(near.ifindex, 1)
    const { sent, got } = await a.ping('10.8.0.2', { count: 5, seconds: 1 })
    assert.equal(got, 0)
    assert.deepEqual(await near.drops(1), { 'tx-no-key': sent })
    await near.client.keySwap(near.ifindex, 1)
    await a.reach('10.8.0.2')
  })

  it('without a key nothing comes in, and nothing goes out', async () => {
    const { near } = tunnel
    await near.client.keyDel(near.ifindex, 1, 'primary')
    await near.client.keyDel(near.ifindex, 1, 'primary')
    const asked = await b.ping('10.8.0.1', { count: 5, seconds: 1 })
    const sent = await a.ping('10.8.0.2', { count: 5, seconds: 1 })
    assert.deepEqual([asked.got, sent.got], [0, 0])
    assert.deepEqual(await near.drops(1), { 'rx-no-key': 5, 'tx-no-key': 5 })
    await assert.rejects(near.client.keyGet(near.ifindex, 1, 'primary'), { errno: 'ENOENT' })
    await near.keyNew(1, { side: 0, keyId: 2 })
    await tunnel.far.keyNew(1, { side: 1, keyId: 2 })
    await a.reach('10.8.0.2')
  })

  it('a key installed in the place of another starts anew', async () => {
    await a.reach('10.8.0.2', { count: 5 })
    await tunnel.near.keyNew(1, { side: 0, keyId: 3 })
    await tunnel.far.keyNew(1, { side: 1, keyId: 3 })
    await a.reach('10.8.0.2', { count: 5 })
    const { keys } = await tunnel.near.peer(1)
    assert.deepEqual(
      keys?.map(({ keyId, packetId }) => [keyId, packetId]),
      [[3, 5]],
    )
  })
})

describe('slots, seen from the wire', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let device: Device
  let hand: HandUdp
  let here: { address: string; port: number }

  before(async () => {
    lab = new Lab('key')
    const a = await lab.host()
    const b = await lab.host()
    await lab.wire(a, b, 'wire0', [['10.9.0.1/24', '10.9.0.2/24']])
    device = await a.device({ mode: 'p2p', addresses: ['10.8.0.1/24'] })
    const socket = a.udp('0.0.0.0')
    hand = new HandUdp(b.udp('10.9.0.2'))
    lab.defer(() => {
      hand[Symbol.dispose]()
      socket.close()
    })
    here = { address: '10.9.0.1', port: socket.port }
    await device.peerNew({
      id: 1,
      socket: socket.fd,
      remoteIpv4: '10.9.0.2',
      remotePort: hand.port,
    })
  })
  after(() => lab.close())

  /** Sends an echo request with one key, and tells which key id the answer has. */
  async function answerTo(key: HandKey, keys: HandKey[]): Promise<number> {
    hand.send(key.seal(echoRequest('10.8.0.2', '10.8.0.1', 1)), here)
    return hand
      .find('an answer', (bytes) => {
        const opened = keys.find((one) => one.keyId === (bytes[0]! & 7))?.open(bytes)
        return opened && `${opened.keyId}`
      })
      .then(Number)
  }

  it('receives with both, by key id, and sends with the primary', async () => {
    const keys = [2, 5].map((keyId) => new HandKey(1, { keyId }))
    await device.keyNew(1, { side: 0, slot: 'primary', keyId: 2 })
    await device.keyNew(1, { side: 0, slot: 'secondary', keyId: 5 })
    assert.equal(await answerTo(keys[0]!, keys), 2)
    assert.equal(await answerTo(keys[1]!, keys), 2)
    await device.client.keySwap(device.ifindex, 1)
    assert.equal(await answerTo(keys[0]!, keys), 5)
    assert.equal(await answerTo(keys[1]!, keys), 5)
  })

  it('after a swap sends with the former key until it hears the new one, for as long as it was told', async () => {
    const [former, next] = [0, 1].map((keyId) => new HandKey(1, { keyId, seed: 20 + keyId }))
    const keys = [former!, next!]
    const renew = async (swapWaitMs: number) => {
      await device.keyNew(1, { side: 0, slot: 'primary', keyId: 0, seed: 20 })
      await device.keyNew(1, { side: 0, slot: 'secondary', keyId: 1, seed: 21 })
      await device.client.peerSet(device.ifindex, { id: 1, swapWaitMs })
      await device.client.keySwap(device.ifindex, 1)
    }
    await renew(60_000)
    assert.equal((await device.peer(1)).swapWaitMs, 60_000)
    assert.equal(await answerTo(former!, keys), 0)
    assert.equal(await answerTo(former!, keys), 0)
    await until('it sends with the new key', async () => (await answerTo(next!, keys)) === 1)
    assert.equal(await answerTo(former!, keys), 1)
    await device.keyNew(1, { side: 0, slot: 'secondary', keyId: 0, seed: 20 })
    await until(
      'it follows the peer before a swap',
      async () => (await answerTo(former!, keys)) === 0,
    )
    await renew(300)
    await until('its time is over', async () => (await answerTo(former!, keys)) === 1)
    await renew(0)
    assert.equal(await answerTo(former!, keys), 1)
  })

  it('a swap keeps the replay window; a new key has one of its own', async () => {
    const key = new HandKey(1, { keyId: 6, seed: 30 })
    const next = new HandKey(1, { keyId: 6, seed: 31 })
    await device.keyNew(1, { side: 0, slot: 'primary', keyId: 6, seed: 30 })
    const packet = key.seal(echoRequest('10.8.0.2', '10.8.0.1', 1), { packetId: 9 })
    const drops = () => device.drops(1)
    const before = (await drops())['rx-replay'] ?? 0
    hand.send(packet, here)
    await device.client.keySwap(device.ifindex, 1)
    hand.send(packet, here)
    await dropped(drops, 'rx-replay', before + 1)
    await device.keyNew(1, { side: 0, slot: 'primary', keyId: 6, seed: 31 })
    const { vpnRxPackets } = await device.peer(1)
    hand.send(next.seal(echoRequest('10.8.0.2', '10.8.0.1', 1), { packetId: 9 }), here)
    await until('the packet', async () => (await device.peer(1)).vpnRxPackets > vpnRxPackets)
  })

  it('two keys of one key id: both open, the primary seals; another one opens nothing', async () => {
    const [primary, secondary, other] = [40, 41, 42].map(
      (seed) => new HandKey(1, { keyId: 7, seed }),
    )
    await device.keyNew(1, { side: 0, slot: 'primary', keyId: 7, seed: 40 })
    await device.keyNew(1, { side: 0, slot: 'secondary', keyId: 7, seed: 41 })
    assert.equal(await answerTo(primary!, [primary!]), 7)
    assert.equal(await answerTo(secondary!, [primary!]), 7)
    const before = (await device.drops(1))['rx-auth-failed'] ?? 0
    hand.send(other!.seal(echoRequest('10.8.0.2', '10.8.0.1', 1)), here)
    await dropped(() => device.drops(1), 'rx-auth-failed', before + 1)
  })
})
