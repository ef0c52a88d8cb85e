import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ApiError } from '../errno.ts'
import type { Link, Peer, Request } from '../types.ts'
import { type Json, json } from './json.ts'

/** As it arrives from a file or a pipe. */
const parsed = (value: Json): Json => JSON.parse(JSON.stringify(value))

const keyNew: Extract<Request, { command: 'key-new' }> = {
  command: 'key-new',
  args: {
    ifindex: 7,
    keyconf: {
      peerId: 3,
      slot: 'primary',
      keyId: 1,
      cipherAlg: 'aes-gcm',
      encryptDir: {
        cipherKey: Uint8Array.from({ length: 16 }, (_, i) => i),
        nonceTail: new Uint8Array(8),
      },
      decryptDir: { cipherKey: new Uint8Array(16).fill(255), nonceTail: new Uint8Array(8) },
    },
  },
}

const requests: [why: string, request: Request][] = [
  [
    'addresses',
    {
      command: 'peer-new',
      args: {
        ifindex: 7,
        peer: { id: 3, socket: 6, remoteIpv6: 'fe80::1', remoteIpv6ScopeId: 2, remotePort: 1194 },
      },
    },
  ],
  ['binary', keyNew],
  [
    'epoch keys',
    {
      command: 'key-new',
      args: { ifindex: 7, keyconf: { ...keyNew.args.keyconf, format: 'epoch', keySize: 24 } },
    },
  ],
  ['a flag', { command: 'peer-get', args: { ifindex: 7, extended: true, peer: { id: 3 } } }],
  ['a dump', { command: 'peer-get', dump: true, args: { ifindex: 7 } }],
  ['a dump of nothing', { command: 'link-get', dump: true, args: {} }],
  ['no nest', { command: 'link-del', args: { ifindex: 7 } }],
  ['no ifindex', { command: 'link-new', args: { link: { kind: 'ovpn', mode: 'mp' } } }],
]

describe('JSON there and back', () => {
  for (const [why, request] of requests) {
    it(`${request.command}: ${why}`, () => {
      assert.deepEqual(json.decodeRequest(parsed(json.encodeRequest(request))), request)
    })
  }

  it('reads as the specification has it', () => {
    const request: Request = {
      command: 'peer-set',
      args: { ifindex: 7, peer: { id: 3, keepaliveInterval: 10, keepaliveTimeout: 60 } },
    }
    assert.deepEqual(json.encodeRequest(request), {
      command: 'peer-set',
      ifindex: 7,
      peer: { id: 3, 'keepalive-interval': 10, 'keepalive-timeout': 60 },
    })
  })

  it('a peer with keys and drops', () => {
    const peer: Peer = {
      id: 3,
      localPort: 1,
      keepaliveInterval: 0,
      keepaliveTimeout: 0,
      vpnRxBytes: 2 ** 40,
      vpnTxBytes: 0,
      vpnRxPackets: 0,
      vpnTxPackets: 0,
      linkRxBytes: 0,
      linkTxBytes: 0,
      linkRxPackets: 0,
      linkTxPackets: 0,
      keys: [
        {
          slot: 'primary',
          keyId: 1,
          cipherAlg: 'aes-gcm',
          ageMs: 5,
          packetId: 9,
          format: 'epoch',
          epoch: 2,
        },
      ],
      drops: [],
    }
    const text = json.encodeReply('peer-get', peer)
    assert.deepEqual(json.decodeReply('peer-get', parsed(text)), peer)
  })

  it('a link', () => {
    const link: Link = {
      ifindex: 7,
      name: 'tun0',
      kind: 'ovpn',
      mode: 'p2p',
      mtu: 1416,
      netns: 1,
      workers: 1,
      provider: 'libcrypto',
      features: '',
      rxBytes: 0,
      rxPackets: 0,
      txBytes: 0,
      txPackets: 0,
      peers: 0,
      drops: [{ reason: 'replay', count: 1 }],
    }
    assert.deepEqual(json.decodeReply('link-get', parsed(json.encodeReply('link-get', link))), link)
  })

  it('a key is never in a reply', () => {
    const { keyconf } = keyNew.args as { keyconf: Record<string, unknown> }
    const text = JSON.stringify(
      json.encodeReply('key-get', {
        peerId: 3,
        slot: 'primary',
        keyId: 1,
        cipherAlg: 'aes-gcm',
        ...({ encryptDir: keyconf.encryptDir } as object),
      }),
    )
    assert.doesNotMatch(text, /dir|0001/)
  })

  it('events', () => {
    const event = {
      event: 'peer-float-ntf',
      ifindex: 7,
      peer: { id: 3, remoteIpv4: '192.0.2.1', remotePort: 1 },
    } as const
    assert.deepEqual(json.decodeEvent(parsed(json.encodeEvent(event))), event)
  })

  it('an IPv4-mapped address becomes the IPv4 address it means', () => {
    const peer = { id: 3, 'remote-ipv6': '::ffff:192.0.2.1', 'remote-port': 1 }
    assert.deepEqual(json.decodeRequest({ command: 'peer-set', ifindex: 7, peer }).args, {
      ifindex: 7,
      peer: { id: 3, remoteIpv4: '192.0.2.1', remotePort: 1 },
    })
  })
})

describe('JSON that is refused', () => {
  const peer = { id: 3, socket: 6 }
  const base = { command: 'peer-new', ifindex: 7 }
  const rows: [why: string, value: Json, errno: string, attribute?: string][] = [
    ['nothing', null, 'EINVAL', 'request'],
    ['a list', [], 'EINVAL', 'request'],
    ['no command', {}, 'EOPNOTSUPP'],
    ['a name that every object has', { command: 'toString' }, 'EOPNOTSUPP'],
    ['no dump of this', { command: 'peer-del', dump: true, ifindex: 7 }, 'EOPNOTSUPP'],
    ['dump is no boolean', { command: 'peer-get', dump: 1, ifindex: 7 }, 'EINVAL', 'dump'],
    ['no ifindex', { command: 'peer-new', peer }, 'EINVAL', 'ifindex'],
    ['no peer', base, 'EINVAL', 'peer'],
    ['a peer that is a number', { ...base, peer: 3 }, 'EINVAL', 'peer'],
    ['no socket', { ...base, peer: { id: 3 } }, 'EINVAL', 'peer.socket'],
    ['camel case', { ...base, peer: { ...peer, remotePort: 1 } }, 'EINVAL', 'peer.remotePort'],
    ['a prototype', JSON.parse('{"command":"link-del","ifindex":7,"__proto__":1}'), 'EINVAL'],
    ['id of 25 bits', { ...base, peer: { ...peer, id: 2 ** 24 } }, 'ERANGE', 'peer.id'],
    ['id below 0', { ...base, peer: { ...peer, id: -1 } }, 'ERANGE', 'peer.id'],
    ['id with a fraction', { ...base, peer: { ...peer, id: 0.5 } }, 'EINVAL', 'peer.id'],
    ['id in text', { ...base, peer: { ...peer, id: '3' } }, 'EINVAL', 'peer.id'],
    ['port 0', { ...base, peer: { ...peer, 'remote-port': 0 } }, 'ERANGE', 'peer.remote-port'],
    [
      'IPv6 where IPv4 belongs',
      { ...base, peer: { ...peer, 'vpn-ipv4': '::1' } },
      'EINVAL',
      'peer.vpn-ipv4',
    ],
    [
      'IPv4 in fewer than four parts',
      { ...base, peer: { ...peer, 'vpn-ipv4': '10.1' } },
      'EINVAL',
      'peer.vpn-ipv4',
    ],
    [
      'a check of the handler',
      { ...base, peer: { ...peer, 'remote-port': 1 } },
      'EINVAL',
      'peer.remote-port',
    ],
    [
      'an unknown mode',
      { command: 'link-new', link: { kind: 'ovpn', mode: 'p2mp' } },
      'ERANGE',
      'link.mode',
    ],
    [
      'a name too long',
      { command: 'link-new', link: { kind: 'ovpn', mode: 'mp', name: 'a234567890123456' } },
      'ERANGE',
      'link.name',
    ],
    [
      'half a byte',
      { command: 'packet', ifindex: 7, packet: { packet: 'abc', 'peer-id': 3 } },
      'EINVAL',
      'packet.packet',
    ],
  ]
  for (const [why, value, errno, attribute] of rows) {
    it(why, () => {
      assert.throws(
        () => json.decodeRequest(value),
        (error) =>
          error instanceof ApiError &&
          error.errno === errno &&
          (attribute === undefined || error.attribute === attribute),
      )
    })
  }
})
