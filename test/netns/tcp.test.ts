/** Tunnels over TCP: streams that the driver has taken over, cut into packets wherever the network cuts them. */
// npm test: other drivers
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { openLibc } from '../../src/platform/libc.ts'
import { createBlock } from '../../src/platform/memory.ts'
import type { DriverEvent } from '../../src/uapi/types.ts'
import { withoutNamespaces } from '../namespace.ts'
import { echoRequest, Frames, framed, HandKey, HandTcp } from './hand.ts'
import { type Device, type Host, iperf, Lab, sleep, tcpSockets, until } from './lab.ts'

/** One whose stream leads here. */
interface Peer {
  id: number
  stream: HandTcp
  frames: Frames
  key: HandKey
}

/** Opcode 4, P_CONTROL_V1, and something behind it. */
const control = (...rest: number[]) => Uint8Array.from([0x20, ...rest])

describe('tunnels over TCP', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let a: Host
  let b: Host

  before(async () => {
    lab = new Lab('tcp')
    a = await lab.host()
    b = await lab.host()
    await lab.wire(a, b, 'wire0', [
      ['10.9.0.1/24', '10.9.0.2/24'],
      ['fd00:9::1/64', 'fd00:9::2/64'],
    ])
  })
  after(() => lab.close())

  const rows: [outer: [string, string], cipher: 'aes-gcm' | 'chacha20-poly1305'][] = [
    [['10.9.0.1', '10.9.0.2'], 'aes-gcm'],
    [['fd00:9::1', 'fd00:9::2'], 'chacha20-poly1305'],
  ]
  for (const [outer, cipher] of rows) {
    it(`${cipher} between ${outer.join(' and ')}: IPv4 and IPv6, TCP and UDP, small and large`, async () => {
      await using tunnel = await lab.tunnel(a, b, { transport: 'tcp', outer, cipher })
      await a.reach('10.8.0.2', { size: 3000 })
      await b.reach('fd00:8::1')
      const tcp = await iperf(a, b, '10.8.0.2', { amount: '24M' })
      assert.ok(tcp.bytes > 1e6, `a TCP stream moves: ${tcp.bytes} bytes`)
      const udp = await iperf(b, a, 'fd00:8::1', { udp: '5M', length: 1000 })
      // On a machine that is busy the program itself loses some; what the tunnel lost is counted below.
      assert.ok(udp.lost < udp.packets / 5, `${udp.lost} of ${udp.packets} datagrams lost`)
      for (const end of [tunnel.near, tunnel.far]) {
        const { 'tx-queue-full': _, ...drops } = await end.drops(1)
        assert.deepEqual(drops, {}, 'nothing but a full queue drops packets')
      }
      const { transport, remotePort } = await tunnel.near.peer(1)
      assert.equal(transport, 'tcp')
      assert.ok(remotePort! > 0, 'the extended answer says where a stream leads')
    })
  }
})

describe('a stream whose other end is written by hand', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let a: Host
  let b: Host
  let device: Device
  let other: Peer
  const packets: Extract<DriverEvent, { event: 'packet' }>['packet'][] = []
  let lastId = 10
  let sequence = 0

  /** A peer of the device, whose stream leads here. `early`: bytes that wait in the stream when it is taken over. */
  async function peer(early?: Uint8Array) {
    const id = ++lastId
    const [near, far] = tcpSockets(a, b, '10.9.0.1')
    const stream = new HandTcp(far.fd)
    if (early !== undefined) {
      await stream.write(early)
      await sleep(50)
    }
    await device.peerNew({ id, socket: near.fd, vpnIpv4: vpn(id) })
    await device.keyNew(id, { side: 0, seed: id })
    lab.defer(() => near.close())
    const key = new HandKey(id, { keyId: 0, seed: id })
    return { id, stream, frames: new Frames(), key, owner: near }
  }

  const vpn = (id: number) => `10.8.0.${id}`
  const of = (id: number) => packets.filter(({ peerId }) => peerId === id)

  /** Asks the device through a stream for an echo, in pieces as `cut` makes them, and waits for the answer. */
  async function echo(
    { id, stream, frames, key }: Peer,
    cut: (frame: Uint8Array) => Promise<void> = (frame) => stream.write(frame),
  ): Promise<void> {
    const number = ++sequence & 0xff
    await cut(framed(key.seal(echoRequest(vpn(id), '10.8.0.1', number))))
    await until(`an answer to peer ${id}`, () => {
      const bytes = stream.poll()
      return (
        bytes !== undefined &&
        frames.push(bytes).some((frame) => key.answer(frame, number) !== undefined)
      )
    })
  }

  before(async () => {
    lab = new Lab('tcp')
    a = await lab.host()
    b = await lab.host()
    await lab.wire(a, b, 'wire0', [['10.9.0.1/24', '10.9.0.2/24']])
    device = await a.device({ mode: 'mp', addresses: ['10.8.0.1/24'] })
    await device.client.packetRegister(device.ifindex)
    const events = await device.client.events()
    void (async () => {
      for await (const event of events) if (event.event === 'packet') packets.push(event.packet)
    })()
    other = await peer()
  })
  after(() => lab.close())

  it('answers, framed', () => echo(other))

  it('every place at which a frame can be cut', async () => {
    const mine = await peer()
    const frame = framed(mine.key.seal(echoRequest(vpn(mine.id), '10.8.0.1', 0)))
    for (let at = 1; at < frame.length; at++) {
      await echo(mine, async (bytes) => {
        await mine.stream.write(bytes.subarray(0, at))
        await sleep(1)
        await mine.stream.write(bytes.subarray(at))
      })
    }
    assert.deepEqual(await device.drops(mine.id), {})
    mine.stream.close()
  })

  it('byte by byte, and control packets between data packets', async () => {
    const mine = await peer()
    await echo(mine, async (bytes) => {
      for (const byte of [...framed(control(1, 2, 3)), ...bytes, ...framed(control(4, 5, 6, 7))]) {
        await mine.stream.write(Uint8Array.of(byte))
        await sleep(1)
      }
    })
    await until('both control packets', () => of(mine.id).length === 2)
    assert.deepEqual(
      of(mine.id).map(({ packet }) => [...packet]),
      [
        [0x20, 1, 2, 3],
        [0x20, 4, 5, 6, 7],
      ],
    )
    mine.stream.close()
  })

  it('many frames in one write', async () => {
    const mine = await peer()
    const requests = Array.from({ length: 100 }, (_, i) =>
      framed(mine.key.seal(echoRequest(vpn(mine.id), '10.8.0.1', i))),
    )
    await mine.stream.write(Uint8Array.from(Buffer.concat(requests)))
    const frames = new Frames()
    const answered = new Set<number>()
    await until('100 answers', () => {
      for (const frame of frames.push(mine.stream.poll() ?? new Uint8Array(0))) {
        const plain = mine.key.open(frame)?.plaintext
        if (plain?.[20] === 0) answered.add(plain[27]!)
      }
      return answered.size === 100
    })
    mine.stream.close()
  })

  it('what was in the stream before the hand-over', async () => {
    const mine = await peer(framed(control(9, 9, 9, 9)))
    await until('the control packet', () => of(mine.id).length === 1)
    assert.deepEqual([...of(mine.id)[0]!.packet], [0x20, 9, 9, 9, 9])
    await echo(mine)
    mine.stream.close()
  })

  it('control packets go down as they are, framed', async () => {
    const mine = await peer()
    const packet = control(1, 1, 2, 3, 5, 8)
    await device.client.packet(device.ifindex, { peerId: mine.id, packet })
    const frames = new Frames()
    const found = await until(
      'the frame',
      () => frames.push(mine.stream.poll() ?? new Uint8Array(0))[0],
    )
    assert.deepEqual(found, packet)
    mine.stream.close()
  })

  it('the end of a stream is told; the peer stays until its owner acts', async () => {
    const mine = await peer()
    mine.stream.close()
    await until('the end', () => of(mine.id).some(({ eof }) => eof === true))
    assert.equal((await device.peer(mine.id)).id, mine.id)
    await device.client.peerDel(device.ifindex, mine.id)
    await echo(other)
  })

  it('a reset: told as the end; what is sent afterwards ends the peer', async () => {
    const mine = await peer()
    await mine.stream.write(framed(control(1, 2, 3)))
    await sleep(20)
    // Unread bytes make the kernel answer the close with a reset.
    await device.client.packet(device.ifindex, { peerId: mine.id, packet: control(5, 5, 5) })
    await sleep(20)
    mine.stream.close()
    await until('the end', () => of(mine.id).some(({ eof }) => eof === true))
    await a.ping(vpn(mine.id), { count: 3, seconds: 1 })
    await until('its end', () => device.lost().some(([id]) => id === mine.id))
    assert.deepEqual(device.lost().at(-1), [mine.id, 'transport-error'])
    await echo(other)
  })

  const broken: [bytes: number[], end: 'told' | 'transport-error', reason: string, why: string][] =
    [
      [[0, 0], 'told', 'rx-bad-frame', 'a length of 0 cannot be: nothing behind it can be found'],
      [[0, 1, 0x48], 'told', 'rx-bad-frame', 'a length of 1'],
      [[0, 2, 0x48, 0], 'transport-error', 'rx-short', 'a packet of 2 bytes'],
      [[0, 3, 0x48, 0, 0], 'transport-error', 'rx-short', 'a packet of 3 bytes'],
      [[0, 5, 0x30, 0, 0, 0, 0], 'transport-error', 'rx-data-v1', 'P_DATA_V1'],
    ]
  for (const [bytes, end, reason, why] of broken) {
    it(`${why}: ${end}`, async () => {
      const before = (await device.drops())[reason] ?? 0
      const mine = await peer()
      await mine.stream.write(Uint8Array.from(bytes))
      await until('its end', () =>
        end === 'told'
          ? of(mine.id).some(({ eof }) => eof === true)
          : device.lost().some(([id, why]) => id === mine.id && why === end),
      )
      assert.equal((await device.drops())[reason], before + 1)
      await echo(other)
      mine.stream.close()
    })
  }

  it('a packet too short for its cipher, and one of 4 bytes, are dropped; the stream goes on', async () => {
    const mine = await peer()
    await mine.stream.write(framed(Uint8Array.from([0x48, 0, 0, mine.id])))
    await mine.stream.write(framed(new Uint8Array(23).fill(0x48)))
    await mine.stream.write(framed(new Uint8Array(65535).fill(0x48)))
    await echo(mine)
    assert.deepEqual(await device.drops(mine.id), { 'rx-short': 2, 'rx-auth-failed': 1 })
    mine.stream.close()
  })

  it('a receiver that does not read: its queue is bounded, and nobody else waits', async () => {
    const mine = await peer()
    const flood = a.start('ping', ['-f', '-q', '-s', '60000', '-w', '30', vpn(mine.id)])
    await until('a full queue', async () => (await device.drops(mine.id))['tx-queue-full'] ?? 0)
    // What does not fit into the device with all that flood is dropped by the kernel: asked for again, then.
    const { id, stream, frames, key } = other
    const asked = performance.now()
    const answered = new Set<number>()
    for (let number = 0; answered.size < 20; number++) {
      await stream.write(framed(key.seal(echoRequest(vpn(id), '10.8.0.1', number & 0xff))))
      await sleep(10)
      for (const frame of frames.push(stream.poll() ?? new Uint8Array(0))) {
        const plain = key.open(frame)?.plaintext
        if (plain?.[20] === 0) answered.add(plain[27]!)
      }
      const ms = performance.now() - asked
      assert.ok(ms < 10_000, `${answered.size} echoes of another peer in ${ms.toFixed(0)} ms`)
    }
    await flood.kill()

    // It reads at last: whole frames, and none of them damaged.
    let whole = 0
    await until('the last of what was queued', async () => {
      const bytes = mine.stream.poll()
      if (bytes === undefined) {
        await sleep(100)
        return mine.stream.poll() === undefined
      }
      for (const frame of mine.frames.push(bytes)) {
        assert.ok(mine.key.open(frame), 'a frame that is authentic')
        whole++
      }
      return false
    })
    assert.ok(whole > 100, `${whole} packets were queued`)
    mine.stream.close()
  })

  it("a stream closed by its owner, and the peer deleted: the driver's hand is off it", async () => {
    const mine = await peer()
    await device.client.peerDel(device.ifindex, mine.id)
    await mine.stream.write(framed(control(1, 2, 3)))
    const block = createBlock(64)
    const got = await until('the bytes at their owner', () => {
      const count = openLibc().read(mine.owner.fd, block.base, 64)
      return count > 0 ? count : undefined
    })
    assert.deepEqual([...block.u8.subarray(0, got)], [0, 4, 0x20, 1, 2, 3])
    mine.stream.close()
  })
})
