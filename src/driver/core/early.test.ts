import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { build, packet, plainPiece } from '../../../test/sim/packets.ts'
import { homeOf, keyConfig, peerConfig, Rig, UP } from '../../../test/sim/rig.ts'
import { sealDataV2 } from '../../wire/data.ts'
import { Endpoint } from './address.ts'

const inner = build(packet({ source: '10.8.0.1', destination: '10.8.0.99' }))
const noKey = (count: number) => [{ reason: 'rx-no-key', count }]

/** A packet of peer 1; ids go up. */
function seal(keyId: number, packetId: number, plaintext = inner): Uint8Array {
  return sealDataV2(UP, { keyId, peerId: 1, packetId, plaintext })
}

/** Peer 1, which has the key `keyId`. */
function rig(keyId: number): Rig {
  const made = new Rig()
  made.engine.addPeer(peerConfig(1), made.now)
  made.engine.installKey(101, 'primary', keyConfig(keyId), made.now)
  return made
}

describe('packets that come before their key', () => {
  it('wait for it, and go in as they came', () => {
    const made = rig(3)
    made.receiveAll([seal(4, 1), seal(3, 1), seal(4, 2)], homeOf(1))
    assert.equal(made.delivered.length, 1)
    assert.equal(made.snapshot(1).linkRxPackets, 3)
    made.now += 999
    made.engine.installKey(101, 'secondary', keyConfig(4), made.now)
    assert.deepEqual(made.takeTraces().delivered, [inner, inner, inner].map(plainPiece))
    const { linkRxPackets, vpnRxPackets, lastRxMs, drops } = made.snapshot(1)
    assert.deepEqual([linkRxPackets, vpnRxPackets, lastRxMs, drops], [3, 3, 0, []])
    assert.equal(made.engine.deadline(), Infinity)
  })

  it('wait over a stream as well', () => {
    const made = new Rig()
    made.engine.addPeer(peerConfig(1, { stream: true }), made.now)
    made.engine.installKey(101, 'primary', keyConfig(0), made.now)
    made.receiveFrame(seal(1, 1), 101)
    made.engine.installKey(101, 'secondary', keyConfig(1), made.now)
    assert.equal(made.delivered.length, 1)
  })

  it('are checked like any other once there is a key', () => {
    const made = rig(3)
    const forged = seal(4, 2)
    forged[30]! ^= 1
    const foreign = seal(4, 3, build(packet({ source: '10.9.0.1' })))
    made.receiveAll([seal(4, 1), seal(4, 1), forged, foreign], homeOf(1))
    made.engine.installKey(101, 'secondary', keyConfig(4), made.now)
    assert.equal(made.delivered.length, 1)
    assert.deepEqual(made.snapshot(1).drops, [
      { reason: 'rx-auth-failed', count: 1 },
      { reason: 'rx-replay', count: 1 },
      { reason: 'rx-reverse-path', count: 1 },
    ])
  })

  it('are dropped when they have waited for a second, and counted then', () => {
    const made = rig(3)
    made.receiveAll([seal(4, 1), seal(4, 2)], homeOf(1))
    assert.deepEqual(made.snapshot(1).drops, [])
    const end = made.engine.deadline()
    assert.equal(end, made.now + 1000)
    made.now = end
    made.engine.onDeadline(made.now)
    assert.deepEqual(made.snapshot(1).drops, noKey(2))
    made.engine.installKey(101, 'secondary', keyConfig(4), made.now)
    assert.equal(made.delivered.length, 0)
  })

  it('are counted to a peer that goes', () => {
    const made = rig(3)
    made.receive(seal(4, 1), homeOf(1))
    made.engine.removePeer(101)
    assert.deepEqual(made.engine.stats().drops, noKey(1))
    assert.equal(made.engine.deadline(), Infinity)
  })

  const rows: [present: number, keyId: number, waits: boolean, why: string][] = [
    [0, 1, true, 'the second key'],
    [6, 7, true, 'the seventh renewal'],
    [7, 1, true, 'after the last number comes 1'],
    [7, 0, false, 'which is the first key alone'],
    [3, 2, false, 'the one before: its key was there, and is gone'],
    [3, 5, false, 'no key comes without its predecessor'],
  ]
  for (const [present, keyId, waits, why] of rows) {
    it(`key ${keyId} where there is ${present}, ${why}: ${waits ? 'waits' : 'dropped'}`, () => {
      const made = rig(present)
      made.receive(seal(keyId, 1), homeOf(1))
      assert.deepEqual(made.snapshot(1).drops, waits ? [] : noKey(1))
    })
  }

  it('do not wait when they come from elsewhere: anybody could send them', () => {
    const made = rig(3)
    made.receive(seal(4, 1), Endpoint.of('198.51.100.7', 4242))
    assert.deepEqual(made.snapshot(1).drops, noKey(1))
  })

  it('wait up to 4 MiB of a peer', () => {
    const made = rig(3)
    const large = new Uint8Array(65_507)
    large.set([0, 0, 1], 1)
    large[0] = (9 << 3) | 4
    for (let i = 0; i < 65; i++) made.receive(large, homeOf(1))
    assert.deepEqual(made.snapshot(1).drops, noKey(1))
  })
})
