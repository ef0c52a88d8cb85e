/** Epoch keys in real tunnels, with every cipher; and moves from epoch to epoch, seen from the wire. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Cipher, Slot } from '../../src/uapi/types.ts'
import { type EpochPacket, openEpoch, sealEpoch } from '../../src/wire/data.ts'
import { EpochChain } from '../../src/wire/epoch.ts'
import { withoutNamespaces } from '../namespace.ts'
import { dropped, echoRequest, HandUdp } from './hand.ts'
import { Device, type Host, keyTo, Lab, until } from './lab.ts'

interface EpochKeyOptions {
  cipher?: Cipher
  keyBytes?: number
  slot?: Slot
  keyId?: number
}

/** Gives an end's peer 1 an epoch key; `side` as in `Device.keyNew`. */
function epochKeyNew(end: Device, side: number, options: EpochKeyOptions = {}): Promise<void> {
  const { cipher = 'aes-gcm', keyBytes = 32, slot = 'primary', keyId = 0 } = options
  return end.client.keyNew(end.ifindex, {
    peerId: 1,
    slot,
    keyId,
    cipherAlg: cipher,
    encryptDir: keyTo(1 - side, { seed: keyId }),
    decryptDir: keyTo(side, { seed: keyId }),
    format: 'epoch',
    keySize: keyBytes,
  })
}

describe('tunnels with epoch keys', { skip: withoutNamespaces }, () => {
  let lab: Lab
  let a: Host
  let b: Host

  before(async () => {
    lab = new Lab('epo')
    a = await lab.host()
    b = await lab.host()
    await lab.wire(a, b, 'wire0', [['10.9.0.1/24', '10.9.0.2/24']])
  })
  after(() => lab.close())

  const ciphers: [cipher: Cipher, keyBytes: number][] = [
    ['aes-gcm', 16],
    ['aes-gcm', 24],
    ['aes-gcm', 32],
    ['chacha20-poly1305', 32],
  ]
  for (const transport of ['udp', 'tcp'] as const) {
    for (const [cipher, keyBytes] of ciphers) {
      it(`${cipher} with ${keyBytes} bytes, over ${transport}: nothing is lost`, async () => {
        const outer: [string, string] = ['10.9.0.1', '10.9.0.2']
        await using tunnel = await lab.tunnel(a, b, { outer, transport })
        const { near, far } = tunnel
        for (const [side, end] of [near, far].entries()) {
          await epochKeyNew(end, side, { cipher, keyBytes, keyId: 1 })
        }
        const { sent, got } = await a.ping('10.8.0.2', { count: 300, interval: 0.002 })
        assert.equal(got, sent)
        for (const end of [near, far]) {
          const { keys, ...counted } = await end.peer(1)
          const [key] = keys!
          assert.deepEqual([key!.format, key!.epoch, key!.packetId], ['epoch', 1, sent])
          assert.deepEqual(await end.drops(1), {})
          assert.equal(counted.linkTxBytes - counted.vpnTxBytes, 28 * sent)
          const info = await end.client.keyGet(end.ifindex, 1, 'primary')
          const expected = { peerId: 1, slot: 'primary', keyId: 1, cipherAlg: cipher }
          assert.deepEqual(info, { ...expected, format: 'epoch', epoch: 1 })
        }
      })
    }
  }

  it('a classic key takes the place of one with epochs, and the other way round', async () => {
    await using tunnel = await lab.tunnel(a, b, { outer: ['10.9.0.1', '10.9.0.2'] })
    for (const [keyId, format] of [
      [1, 'epoch'],
      [2, 'classic'],
      [3, 'epoch'],
    ] as const) {
      for (const [side, end] of [tunnel.near, tunnel.far].entries()) {
        const slot = 'secondary'
        if (format === 'epoch') await epochKeyNew(end, side, { slot, keyId })
        else await end.keyNew(1, { side, slot, keyId })
      }
      for (const end of [tunnel.near, tunnel.far]) await end.client.keySwap(end.ifindex, 1)
      await a.reach('10.8.0.2')
    }
    assert.deepEqual(await tunnel.near.drops(1), {})
  })

  it('material that does not fit is refused, and the key that is there stays', async () => {
    await using tunnel = await lab.tunnel(a, b, { outer: ['10.9.0.1', '10.9.0.2'] })
    const { near } = tunnel
    const direction = keyTo(0, { keyBytes: 16 })
    const keyconf = { peerId: 1, slot: 'primary', keyId: 5, cipherAlg: 'aes-gcm' } as const
    await assert.rejects(
      near.client.keyNew(near.ifindex, {
        ...keyconf,
        encryptDir: direction,
        decryptDir: direction,
        format: 'epoch',
      }),
      { errno: 'EINVAL' },
    )
    await a.reach('10.8.0.2')
  })
})

for (const workers of [1, 2]) {
  describe(`epochs, seen from the wire, ${workers} worker(s)`, { skip: withoutNamespaces }, () => {
    let lab: Lab
    let device: Device
    let hand: HandUdp
    let here: { address: string; port: number }
    /** Counters used so far; the peer's are all different, whatever the epoch. */
    let counter = 0

    before(async () => {
      lab = new Lab('epo')
      const a = await lab.host()
      const b = await lab.host()
      await lab.wire(a, b, 'wire0', [['10.9.0.1/24', '10.9.0.2/24']])
      const client = await a.client('ovpn')
      const link = await client.linkNew({ name: 'ovpn0', kind: 'ovpn', mode: 'mp', workers })
      device = new Device(a, client, link.ifindex, 'ovpn0')
      a.sysctl('net/ipv6/conf/ovpn0/disable_ipv6', 1)
      a.addAddress('ovpn0', '10.8.0.1/24')
      a.ip('link set ovpn0 up')
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
        vpnIpv4: '10.8.0.2',
      })
      await epochKeyNew(device, 0)
    })
    after(() => lab.close())

    const keyOf = (side: number, epoch: number) => {
      const chain = new EpochChain(keyTo(side, {}).cipherKey, 32)
      while (chain.epoch < epoch) chain.advance()
      return { cipher: 'aes-gcm' as const, ...chain.key() }
    }
    const seal = (epoch: number, keyEpoch = epoch) =>
      sealEpoch(keyOf(0, keyEpoch), {
        keyId: 0,
        peerId: 1,
        epoch,
        counter: ++counter,
        plaintext: echoRequest('10.8.0.2', '10.8.0.1', 1),
      })
    /** Sends an echo request, and tells of the answer. */
    const answerTo = async (epoch: number): Promise<EpochPacket> => {
      hand.send(seal(epoch), here)
      const bytes = await hand.find('an answer', (one) => one)
      const answer = openEpoch(keyOf(1, (bytes[4]! << 8) | bytes[5]!), bytes)
      assert.ok(answer, 'the answer is authentic')
      return answer
    }

    it('answers with the epoch that it was sent, and counts from 1 in it', async () => {
      const first = await answerTo(1)
      assert.deepEqual([first.epoch, first.counter], [1, 1])
      for (const epoch of [2, 4, 20]) {
        // Where another worker sends than receives, it hears of the epoch a little later.
        let [answer, before] = [await answerTo(epoch), 0]
        await until(`epoch ${epoch}`, async () => {
          if (answer.epoch === epoch) return true
          before = answer.epoch
          answer = await answerTo(epoch)
          return false
        })
        assert.ok(before < epoch && answer.counter === 1, `${answer.counter}`)
        assert.equal((await device.peer(1)).keys![0]!.epoch, epoch)
      }
    })

    it('hears nothing from epochs too far ahead, long gone, or claimed', async () => {
      await answerTo(20)
      const drops = () => device.drops(1)
      for (const [epoch, keyEpoch, reason] of [
        [37, 37, 'rx-no-key'],
        [2, 2, 'rx-no-key'],
        [0, 1, 'rx-no-key'],
        [65535, 20, 'rx-no-key'],
        [21, 20, 'rx-auth-failed'],
      ] as const) {
        const before = (await drops())[reason] ?? 0
        hand.send(seal(epoch, keyEpoch), here)
        await dropped(drops, reason, before + 1)
      }
      assert.equal((await answerTo(20)).epoch, 20)
    })
  })
}
