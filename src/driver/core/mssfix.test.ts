import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  build,
  buildPiece,
  Flag,
  type Packet,
  packet,
  plainPiece,
} from '../../../test/sim/packets.ts'
import { DOWN, homeOf, keyConfig, peerConfig, Rig, UP } from '../../../test/sim/rig.ts'
import { openDataV2, sealDataV2 } from '../../wire/data.ts'
import { Endpoint } from './address.ts'

const LIMIT = 1492
/** 1492 less IPv4, UDP, 24 of sealing, and the headers that an MSS does not count. */
const MSS = 1492 - 20 - 8 - 24 - 40

const mssOption = (mss: number) => Uint8Array.of(2, 4, mss >> 8, mss & 0xff)
const V6 = { source: 'fd00::1', destination: 'fd00::99' }
const REMOTE_V6 = { address: '2001:db8::1', port: 1000, scope: 0 }

/** Peer 1, whose TCP is to fit `outerLimit`. */
function rig(outerLimit: number, fields: Parameters<typeof peerConfig>[1] = {}): Rig {
  const made = new Rig()
  made.engine.addPeer(peerConfig(1, { outerLimit, ...fields }), made.now)
  made.engine.installKey(101, 'primary', keyConfig(1), made.now)
  return made
}

/** A SYN from peer 1, or to it. */
function syn(mss: number, fields: Partial<Packet> = {}): Packet {
  const options = { flags: Flag.Syn, tcpOptions: mssOption(mss) }
  return packet({ source: '10.8.0.1', destination: '10.8.0.99', ...options, ...fields })
}

const turned = (of: Packet) => ({ ...of, source: of.destination, destination: of.source })

describe('TCP that is to fit the path', () => {
  const rows: [limit: number, asked: Packet, expected: number, why: string][] = [
    [LIMIT, syn(1460), MSS, 'a SYN'],
    [LIMIT, syn(1460, { flags: Flag.Syn | Flag.Ack }), MSS, 'its answer'],
    [LIMIT, syn(1440, V6), MSS - 20, 'IPv6 inside: a longer header'],
    [LIMIT, syn(MSS), MSS, 'one that fits stays'],
    [LIMIT, syn(800), 800, 'nothing is ever raised'],
    [LIMIT, syn(1460, { flags: Flag.Ack }), 1460, 'no SYN: its options are none of ours'],
    [0, syn(1460), 1460, 'a peer whose TCP is left alone'],
    [200, syn(1460), 536, 'no path is too small for the least that IPv4 has'],
  ]
  for (const [limit, asked, mss, why] of rows) {
    const expected = { ...asked, tcpOptions: mssOption(mss) }
    it(`received, ${why}: ${mss}`, () => {
      const made = rig(limit)
      const plaintext = build(asked)
      made.receive(sealDataV2(UP, { keyId: 1, peerId: 1, packetId: 1, plaintext }), homeOf(1))
      assert.deepEqual(made.delivered, [plainPiece(build(expected))])
    })

    for (const [how, piece] of [
      ['as it stands', (of: Packet) => plainPiece(build(of))],
      ['with its checksum left to the device', (of: Packet) => buildPiece(of, 1400)],
    ] as const) {
      it(`sent ${how}, ${why}: ${mss}`, () => {
        const made = rig(limit)
        made.send(piece(turned(asked)))
        const opened = openDataV2(DOWN, made.sent[0]!.bytes)
        assert.deepEqual(opened?.plaintext, build(turned(expected)))
      })
    }
  }

  it('over IPv6 outside has 20 bytes less', () => {
    const made = rig(LIMIT, { remote: REMOTE_V6 })
    const plaintext = build(syn(1460))
    const from = Endpoint.of(REMOTE_V6.address, REMOTE_V6.port)
    made.receive(sealDataV2(UP, { keyId: 1, peerId: 1, packetId: 1, plaintext }), from)
    const expected = build(syn(1460, { tcpOptions: mssOption(MSS - 20) }))
    assert.deepEqual(made.delivered, [plainPiece(expected)])
  })

  it('fits what the peer is changed to', () => {
    const made = rig(0)
    made.engine.changePeer(101, { outerLimit: 1000 }, made.now)
    made.send(plainPiece(build(turned(syn(1460)))))
    const expected = build(turned(syn(1460, { tcpOptions: mssOption(MSS - 492) })))
    assert.deepEqual(openDataV2(DOWN, made.sent[0]!.bytes)?.plaintext, expected)
  })
})
