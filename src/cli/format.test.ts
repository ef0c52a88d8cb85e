import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { json } from '../uapi/dialects/json.ts'
import type { DriverEvent, Link, Peer } from '../uapi/types.ts'
import {
  eventJson,
  formatBytes,
  formatDuration,
  formatEndpoint,
  formatEvent,
  formatRate,
  formatShow,
  showJson,
  toJson,
} from './format.ts'

describe('formatBytes', () => {
  const rows: [bytes: number, text: string, why: string][] = [
    [0, '0 B', 'nothing'],
    [1023, '1023 B', 'the last one as it is'],
    [1024, '1.00 KiB', 'the first unit'],
    [1048571, '1.00 MiB', 'never 1024.00 KiB'],
    [1048570, '1023.99 KiB', 'just below'],
    [5 * 2 ** 40, '5.00 TiB', 'many'],
    [2 ** 63, '8192.00 PiB', 'beyond the last unit'],
  ]
  for (const [bytes, text, why] of rows) it(why, () => assert.equal(formatBytes(bytes), text))
})

describe('formatDuration', () => {
  const rows: [ms: number, text: string, why: string][] = [
    [-5, '0 seconds', 'a clock that was read later'],
    [999, '0 seconds', 'less than one'],
    [1000, '1 second', 'one is singular'],
    [61_000, '1 minute, 1 second', 'two units'],
    [3_600_000, '1 hour', 'what is zero is left out'],
    [90_061_000, '1 day, 1 hour', 'no more than two units'],
    [86_405_000, '1 day, 5 seconds', 'the largest two that are not zero'],
  ]
  for (const [ms, text, why] of rows) it(why, () => assert.equal(formatDuration(ms), text))
})

describe('formatRate', () => {
  const rows: [bytes: number, ms: number, text: string, why: string][] = [
    [1_000_000, 1000, '8.0 Mbit/s', 'decimal units, as networks have'],
    [500_000_000, 1000, '4.00 Gbit/s', 'the next unit'],
    [100, 1000, '0.8 kbit/s', 'little'],
    [100, 0, '0.0 kbit/s', 'no time passed'],
  ]
  for (const [bytes, ms, text, why] of rows) {
    it(why, () => assert.equal(formatRate(bytes, ms), text))
  }
})

describe('formatEndpoint', () => {
  const rows: [args: [string, number, number?], text: string][] = [
    [['192.0.2.1', 1194], '192.0.2.1:1194'],
    [['2001:db8::1', 1194, 0], '[2001:db8::1]:1194'],
    [['fe80::1', 1194, 3], '[fe80::1%3]:1194'],
  ]
  for (const [args, text] of rows) it(text, () => assert.equal(formatEndpoint(...args), text))
})

const link: Link = {
  ifindex: 7,
  name: 'ovpn0',
  kind: 'ovpn',
  mode: 'mp',
  mtu: 1416,
  netns: 4026531840,
  workers: 1,
  provider: 'OpenSSL 3.0',
  features: 'tso',
  rxBytes: 2048,
  rxPackets: 2,
  txBytes: 1,
  txPackets: 1,
  peers: 1,
  drops: [{ reason: 'tx-no-peer', count: 3 }],
}
const peer: Peer = {
  id: 1,
  txId: 9,
  transport: 'udp',
  remoteIpv4: '192.0.2.1',
  remotePort: 1194,
  localIpv4: '0.0.0.0',
  localPort: 1195,
  vpnIpv4: '10.8.0.2',
  vpnIpv6: 'fd00::2',
  keepaliveInterval: 10,
  keepaliveTimeout: 60,
  vpnRxBytes: 1024,
  vpnTxBytes: 2048,
  vpnRxPackets: 1,
  vpnTxPackets: 2,
  linkRxBytes: 1048,
  linkTxBytes: 2096,
  linkRxPackets: 1,
  linkTxPackets: 2,
  lastRxMs: 12_345,
  keys: [
    {
      slot: 'primary',
      keyId: 3,
      cipherAlg: 'aes-gcm',
      ageMs: 61_000,
      packetId: 2,
      format: 'classic',
      epoch: 0,
    },
  ],
  drops: [{ reason: 'rx-replay', count: 4 }],
}

describe('formatShow', () => {
  it('blocks as wg has them', () => {
    assert.equal(
      formatShow([{ link, peers: [peer] }]),
      `interface: ovpn0
  index: 7
  mode: mp (many peers)
  kind: ovpn
  mtu: 1416
  ciphers by: OpenSSL 3.0
  offloads: tso
  threads: 1
  peers: 1
  transfer: 2.00 KiB received (2 packets), 1 B sent (1 packet)
  dropped: tx-no-peer 3

peer: 1
  sends as: 9
  endpoint: 192.0.2.1:1194 (udp)
  local: 0.0.0.0:1195
  vpn addresses: 10.8.0.2, fd00::2
  latest packet: 12 seconds ago
  transfer: 1.00 KiB received, 2.00 KiB sent (on the wire 1.02 KiB and 2.05 KiB)
  keepalive: every 10 seconds, given up after 60 seconds
  key: primary: aes-gcm, id 3, 1 minute, 1 second old, 2 packets sent
  dropped: rx-replay 4
`,
    )
  })

  it("leaves out what a kernel's driver does not tell", () => {
    const { id, localPort, ...rest } = peer
    const { transport, lastRxMs, keys, drops, txId, remoteIpv4, remotePort, ...told } = rest
    const text = formatShow([{ link, peers: [{ id, localPort, ...told }] }])
    assert.doesNotMatch(text, /undefined|endpoint|latest packet|key:|rx-replay/)
  })

  it('has JSON with all of it, peers in place of their number', () => {
    const shown = JSON.parse(toJson(showJson({ link, peers: [peer] })))
    assert.equal(shown['rx-bytes'], link.rxBytes)
    assert.deepEqual(shown.drops, link.drops)
    assert.equal(shown.peers.length, 1)
    assert.deepEqual(json.decodeReply('peer-get', shown.peers[0]), peer)
  })
})

describe('formatEvent', () => {
  const rows: [event: DriverEvent, text: string][] = [
    [
      { event: 'peer-del-ntf', ifindex: 7, peer: { id: 1, delReason: 'expired' } },
      'peer 1 removed: expired',
    ],
    [
      {
        event: 'peer-float-ntf',
        ifindex: 7,
        peer: { id: 1, remoteIpv4: '192.0.2.9', remotePort: 5 },
      },
      'peer 1 moved to 192.0.2.9:5',
    ],
    [
      { event: 'key-swap-ntf', ifindex: 7, keyconf: { peerId: 1, keyId: 2 } },
      'peer 1 needs a new key: the packet ids of key 2 are used up',
    ],
    [
      { event: 'packet', ifindex: 7, packet: { peerId: 1, packet: Uint8Array.of(0x38, 1) } },
      'peer 1 control packet 3801',
    ],
    [
      { event: 'packet', ifindex: 7, packet: { peerId: 1, packet: new Uint8Array(0), eof: true } },
      'peer 1 ended its stream',
    ],
  ]
  for (const [event, text] of rows) it(text, () => assert.equal(formatEvent(event), text))
})

describe('eventJson', () => {
  it('is one line, with the names of the specification and binary as hexadecimal', () => {
    const packet = { peerId: 1, packet: Uint8Array.of(0, 255) }
    assert.equal(
      eventJson({ event: 'packet', ifindex: 7, packet }, { dev: 'ovpn0' }),
      '{"dev":"ovpn0","event":"packet","ifindex":7,"packet":{"packet":"00ff","peer-id":1}}',
    )
  })
})
