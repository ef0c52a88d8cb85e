import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { build, packet, plainPiece } from '../../../test/sim/packets.ts'
import { homeOf, keyConfig, peerConfig, Rig, UP } from '../../../test/sim/rig.ts'
import { sealDataV2 } from '../../wire/data.ts'

const WAIT = 1000
const FORMER = 3
const NEXT = 4
const outwards = plainPiece(build(packet({ source: '10.8.0.99', destination: '10.8.0.1' })))
const inwards = build(packet({ source: '10.8.0.1', destination: '10.8.0.99' }))

/** Peer 1 with both keys, which may be late with the next one. */
function rig(swapWait = WAIT, firstPacketId = 1): Rig {
  const made = new Rig()
  made.engine.addPeer(peerConfig(1, { swapWait }), made.now)
  made.engine.installKey(101, 'primary', keyConfig(FORMER, { firstPacketId }), made.now)
  made.now += 5000
  made.engine.installKey(101, 'secondary', keyConfig(NEXT), made.now)
  return made
}

const swap = (made: Rig) => made.engine.swapKeys(101)

function hear(made: Rig, keyId: number, packetId = 1, spoil = false): void {
  const bytes = sealDataV2(UP, { keyId, peerId: 1, packetId, plaintext: inwards })
  if (spoil) bytes[30]! ^= 1
  made.receive(bytes, homeOf(1))
}

/** The key that a packet is sent with. */
function sentWith(made: Rig): number | undefined {
  made.takeTraces()
  made.send(outwards)
  const [sent] = made.sent
  return sent && sent.bytes[0]! & 7
}

describe('the key that is sealed with, after a swap', () => {
  const rows: [why: string, keyId: number, act: (made: Rig) => void][] = [
    ['the peer may be without the new key', FORMER, () => {}],
    ['it was heard with the former one only', FORMER, (made) => hear(made, FORMER)],
    ['who knows the key id only is not the peer', FORMER, (made) => hear(made, NEXT, 1, true)],
    ['it was heard with the new key', NEXT, (made) => hear(made, NEXT)],
    ['time is nearly over', FORMER, (made) => (made.now += WAIT - 1)],
    ['it may wait as well, so time ends', NEXT, (made) => (made.now += WAIT)],
    ['the former key is gone', NEXT, (made) => made.engine.deleteKey(101, 'secondary', made.now)],
    [
      'another key is in the place of the former one',
      NEXT,
      (made) => made.engine.installKey(101, 'secondary', keyConfig(5), made.now),
    ],
    [
      'the new key is another one: it was put there to be used',
      5,
      (made) => made.engine.installKey(101, 'primary', keyConfig(5), made.now),
    ],
    ['swapped back, it goes on as before', FORMER, swap],
    ['waiting was ended', NEXT, (made) => made.engine.changePeer(101, { swapWait: 0 }, made.now)],
    ['another worker has heard it', NEXT, (made) => made.engine.keyHeard(101, NEXT)],
  ]
  for (const [why, keyId, act] of rows) {
    it(`${why}: key ${keyId}`, () => {
      const made = rig()
      swap(made)
      act(made)
      assert.equal(sentWith(made), keyId)
    })
  }

  it('nothing is awaited of a peer that was heard with the new key before', () => {
    const made = rig()
    hear(made, NEXT)
    swap(made)
    assert.equal(sentWith(made), NEXT)
  })

  it('nothing is awaited unless asked for', () => {
    const made = rig(0)
    swap(made)
    assert.equal(sentWith(made), NEXT)
  })

  it('an empty slot leaves nothing to send with', () => {
    const made = rig()
    made.engine.deleteKey(101, 'secondary', made.now)
    swap(made)
    assert.equal(sentWith(made), undefined)
    assert.deepEqual(made.snapshot(1).drops, [{ reason: 'tx-no-key', count: 1 }])
  })

  it('a former key without packet ids gives way, and opens packets still', () => {
    const made = rig(WAIT, 0xffff_ffff)
    swap(made)
    assert.deepEqual([sentWith(made), sentWith(made), sentWith(made)], [FORMER, NEXT, NEXT])
    hear(made, FORMER)
    const { drops, vpnRxPackets } = made.snapshot(1)
    assert.deepEqual([drops, vpnRxPackets, made.events], [[], 1, []])
  })

  it('keepalives go with the former key as well', () => {
    const made = rig()
    made.engine.changePeer(101, { keepalive: { interval: 1, timeout: 9 } }, made.now)
    made.engine.changePeer(101, { swapWait: 5000 }, made.now)
    swap(made)
    made.takeTraces()
    made.now += 1000
    made.engine.onDeadline(made.now)
    assert.equal(made.sent[0]!.bytes[0]! & 7, FORMER)
  })

  it('a worker that does not send to the peer tells, once, that it has the key', () => {
    const made = new Rig()
    made.engine.addPeer(peerConfig(1, { sender: 1, swapWait: WAIT }), made.now)
    made.engine.installKey(101, 'primary', keyConfig(NEXT), made.now)
    hear(made, NEXT, 1, true)
    assert.deepEqual(made.events, [])
    hear(made, NEXT, 2)
    hear(made, NEXT, 3)
    assert.deepEqual(made.events, [`heard 1 with key ${NEXT}`])
  })
})

describe('the key that is sealed with, before a swap', () => {
  const rows: [why: string, keyId: number, act: (made: Rig) => void][] = [
    ['nothing was heard', FORMER, () => {}],
    ['nor has it been there for long enough', FORMER, (made) => (made.now += WAIT - 1)],
    ['the peer has it by now, and may give the former one up', NEXT, (made) => (made.now += WAIT)],
    ['the peer uses the new key, and may give the former one up', NEXT, (made) => hear(made, NEXT)],
    ['who knows the key id only is not the peer', FORMER, (made) => hear(made, NEXT, 1, true)],
    ['another worker has heard it', NEXT, (made) => made.engine.keyHeard(101, NEXT)],
    [
      'the new key is gone',
      FORMER,
      (made) => {
        hear(made, NEXT)
        made.engine.deleteKey(101, 'secondary', made.now)
      },
    ],
    [
      'the next new key was not heard yet',
      FORMER,
      (made) => {
        hear(made, NEXT)
        made.engine.installKey(101, 'secondary', keyConfig(5), made.now)
      },
    ],
    [
      'what comes late with the former key changes nothing',
      NEXT,
      (made) => {
        hear(made, NEXT)
        hear(made, FORMER)
      },
    ],
    [
      'it was not asked for',
      FORMER,
      (made) => {
        made.engine.changePeer(101, { swapWait: 0 }, made.now)
        hear(made, NEXT)
      },
    ],
  ]
  for (const [why, keyId, act] of rows) {
    it(`${why}: key ${keyId}`, () => {
      const made = rig()
      act(made)
      assert.equal(sentWith(made), keyId)
    })
  }

  it('a swap is not waited for once more', () => {
    const made = rig()
    made.now += WAIT - 1
    swap(made)
    assert.equal(sentWith(made), FORMER)
    made.now += 1
    assert.equal(sentWith(made), NEXT)
  })

  it('a later key without packet ids gives way to the primary', () => {
    const made = new Rig()
    made.engine.addPeer(peerConfig(1, { swapWait: WAIT }), made.now)
    made.engine.installKey(101, 'primary', keyConfig(FORMER), made.now)
    made.now += WAIT
    const spent = keyConfig(NEXT, { firstPacketId: 0xffff_ffff })
    made.engine.installKey(101, 'secondary', spent, made.now)
    made.now += WAIT
    assert.deepEqual([sentWith(made), sentWith(made)], [NEXT, FORMER])
  })

  it('long after it was heard', () => {
    const made = rig()
    hear(made, NEXT)
    made.now += 60_000
    assert.equal(sentWith(made), NEXT)
  })
})

describe('a former key that was deleted', () => {
  /** Peer 1 as it is when the next renewal begins: both keys were heard, the former is gone. */
  const renewed = (swapWait = WAIT): Rig => {
    const made = rig(swapWait)
    hear(made, FORMER)
    hear(made, NEXT)
    swap(made)
    made.engine.deleteKey(101, 'secondary', made.now)
    return made
  }
  const rows: [why: string, opens: boolean, made: () => Rig, act: (made: Rig) => void][] = [
    ['the peer may not know of it', true, renewed, () => {}],
    ['for as long as a swap waits', true, renewed, (made) => (made.now += WAIT - 1)],
    ['and no longer', false, renewed, (made) => (made.now += WAIT)],
    [
      'the next key is in its place',
      true,
      renewed,
      (made) => made.engine.installKey(101, 'secondary', keyConfig(5), made.now),
    ],
    [
      'the peer has another key with its id',
      false,
      renewed,
      (made) => {
        const decrypt = { cipherKey: new Uint8Array(32).fill(9), nonceTail: new Uint8Array(8) }
        made.engine.installKey(101, 'secondary', { ...keyConfig(FORMER), decrypt }, made.now)
      },
    ],
    [
      'nothing waits any more',
      false,
      renewed,
      (made) => made.engine.changePeer(101, { swapWait: 0 }, made.now),
    ],
    ['nothing ever waits', false, () => renewed(0), () => {}],
  ]
  for (const [why, opens, make, act] of rows) {
    it(`${opens ? 'opens' : 'is forgotten'}: ${why}`, () => {
      const made = make()
      act(made)
      made.engine.onDeadline(made.now)
      const before = made.snapshot(1).vpnRxPackets
      hear(made, FORMER, 2)
      assert.equal(made.snapshot(1).vpnRxPackets - before, opens ? 1 : 0)
    })
  }

  it('is forgotten: no packet ever came with it', () => {
    const made = rig()
    made.engine.deleteKey(101, 'secondary', made.now)
    hear(made, NEXT)
    assert.equal(made.snapshot(1).vpnRxPackets, 0)
  })

  it('is in no slot, seals nothing, and takes no packet twice', () => {
    const made = renewed()
    assert.equal(
      made.snapshot(1).keys.some(({ keyId }) => keyId === FORMER),
      false,
    )
    assert.equal(sentWith(made), NEXT)
    hear(made, FORMER)
    assert.deepEqual(made.snapshot(1).drops, [{ reason: 'rx-replay', count: 1 }])
  })

  it('wants to be looked at when its time is over', () => {
    const made = renewed()
    assert.equal(made.engine.deadline(), made.now + WAIT)
    made.now += WAIT
    made.engine.onDeadline(made.now)
    assert.equal(made.engine.deadline(), Infinity)
  })
})
