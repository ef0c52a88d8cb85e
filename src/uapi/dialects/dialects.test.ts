import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ApiError } from '../errno.ts'
import type {
  ArgsOf,
  CommandName,
  DialectName,
  DriverEvent,
  Link,
  Peer,
  Reply,
  Request,
} from '../types.ts'
import { dialects } from './index.ts'

const names: DialectName[] = ['ovpn-dco', 'ovpn-dco-v2', 'ovpn']

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
/** A genl payload from the words of a whole message. */
const genl = (words: string): Uint8Array =>
  Uint8Array.from(Buffer.from(words.replace(/\s/g, ''), 'hex').subarray(16))

const key = (fill: number) => ({
  cipherKey: new Uint8Array(32).fill(fill),
  nonceTail: new Uint8Array(8).fill(fill + 1),
})

const requests: [why: string, request: Request, only?: DialectName[]][] = [
  [
    'UDP over IPv4',
    {
      command: 'peer-new',
      args: {
        ifindex: 7,
        peer: {
          id: 3,
          socket: 6,
          remoteIpv4: '192.0.2.10',
          remotePort: 1194,
          vpnIpv4: '10.8.0.2',
          localIpv4: '192.0.2.1',
        },
      },
    },
  ],
  [
    'UDP over link-local IPv6',
    {
      command: 'peer-new',
      args: {
        ifindex: 7,
        peer: {
          id: 0xffffff,
          socket: 6,
          remoteIpv6: 'fe80::1',
          remoteIpv6ScopeId: 5,
          remotePort: 65_535,
          vpnIpv4: '10.8.0.2',
          vpnIpv6: 'fd00::2',
          localIpv6: 'fe80::2',
        },
      },
    },
  ],
  ['TCP', { command: 'peer-new', args: { ifindex: 7, peer: { id: 3, socket: 6 } } }],
  [
    'a peer with all that is optional',
    {
      command: 'peer-new',
      args: {
        ifindex: 7,
        peer: { id: 3, socket: 6, keepaliveInterval: 10, keepaliveTimeout: 120, txId: 4 },
      },
    },
    ['ovpn'],
  ],
  [
    'a peer whose TCP is to fit the path',
    { command: 'peer-new', args: { ifindex: 7, peer: { id: 3, socket: 6, mssfix: 1492 } } },
  ],
  [
    'a peer that may be late with a key',
    { command: 'peer-new', args: { ifindex: 7, peer: { id: 3, socket: 6, swapWaitMs: 1000 } } },
  ],
  [
    'a peer that may not be late any more',
    { command: 'peer-set', args: { ifindex: 7, peer: { id: 3, swapWaitMs: 0 } } },
  ],
  [
    'TCP that is left alone from now on',
    { command: 'peer-set', args: { ifindex: 7, peer: { id: 3, mssfix: 0 } } },
  ],
  [
    'keepalive',
    {
      command: 'peer-set',
      args: { ifindex: 7, peer: { id: 3, keepaliveInterval: 10, keepaliveTimeout: 120 } },
    },
  ],
  [
    'another endpoint',
    {
      command: 'peer-set',
      args: { ifindex: 7, peer: { id: 3, remoteIpv6: '2001:db8::1', remotePort: 1, txId: 9 } },
    },
    ['ovpn'],
  ],
  ['one peer', { command: 'peer-get', args: { ifindex: 7, peer: { id: 3 } } }],
  [
    'one peer, extended',
    { command: 'peer-get', args: { ifindex: 7, extended: true, peer: { id: 3 } } },
  ],
  ['all peers', { command: 'peer-get', dump: true, args: { ifindex: 7 } }],
  [
    'all peers, extended',
    { command: 'peer-get', dump: true, args: { ifindex: 7, extended: true } },
  ],
  ['removal', { command: 'peer-del', args: { ifindex: 7, peer: { id: 3 } } }],
  [
    'AES',
    {
      command: 'key-new',
      args: {
        ifindex: 7,
        keyconf: {
          peerId: 3,
          slot: 'secondary',
          keyId: 7,
          cipherAlg: 'aes-gcm',
          encryptDir: key(1),
          decryptDir: key(3),
        },
      },
    },
  ],
  [
    'ChaCha20',
    {
      command: 'key-new',
      args: {
        ifindex: 7,
        keyconf: {
          peerId: 3,
          slot: 'primary',
          keyId: 0,
          cipherAlg: 'chacha20-poly1305',
          encryptDir: key(1),
          decryptDir: key(3),
        },
      },
    },
  ],
  [
    'epoch keys',
    {
      command: 'key-new',
      args: {
        ifindex: 7,
        keyconf: {
          peerId: 3,
          slot: 'primary',
          keyId: 0,
          cipherAlg: 'aes-gcm',
          encryptDir: key(1),
          decryptDir: key(3),
          format: 'epoch',
          keySize: 16,
        },
      },
    },
    ['ovpn'],
  ],
  [
    'a slot asked for',
    { command: 'key-get', args: { ifindex: 7, keyconf: { peerId: 3, slot: 'secondary' } } },
    ['ovpn'],
  ],
  ['swap', { command: 'key-swap', args: { ifindex: 7, keyconf: { peerId: 3 } } }],
  [
    'a slot emptied',
    { command: 'key-del', args: { ifindex: 7, keyconf: { peerId: 3, slot: 'primary' } } },
  ],
  [
    'a link with a name',
    {
      command: 'link-new',
      args: { link: { name: 'tun0', kind: 'ovpn-dco', mode: 'mp', mtu: 1500 } },
    },
  ],
  ['a link without', { command: 'link-new', args: { link: { kind: 'ovpn', mode: 'p2p' } } }],
  ['a link removed', { command: 'link-del', args: { ifindex: 7 } }],
  ['one link', { command: 'link-get', args: { ifindex: 7 } }],
  ['all links', { command: 'link-get', dump: true, args: {} }],
  ['a listener', { command: 'packet-register', args: { ifindex: 7 } }],
  ['a listener to messages', { command: 'packet-register', args: { ifindex: 7, extended: true } }],
  [
    'a message inside the data channel',
    {
      command: 'packet',
      args: { ifindex: 7, packet: { packet: Uint8Array.of(0x28, 6), peerId: 3, inside: true } },
    },
  ],
  [
    'a control packet',
    {
      command: 'packet',
      args: { ifindex: 7, packet: { packet: Uint8Array.of(0x38, 1, 2, 3, 4), peerId: 3 } },
    },
  ],
]

describe('requests come back as they were', () => {
  for (const name of names) {
    for (const [why, request, only = names] of requests) {
      it(`${name} ${request.command}: ${why}`, () => {
        const encode = () => dialects[name].encodeRequest(request)
        if (!only.includes(name)) {
          assert.throws(encode, { name: 'ApiError', errno: 'EOPNOTSUPP' })
          return
        }
        const bytes = encode()
        const dump = request.dump === true
        assert.deepEqual(dialects[name].decodeRequest(bytes, { dump }), request)
      })
    }
  }

  it('every command is among them', () => {
    const covered = new Set(requests.map(([, request]) => request.command))
    for (const name of names) {
      for (const command of Object.keys(dialects[name].wire.commands)) {
        assert.ok(covered.has(command as CommandName), command)
      }
    }
  })
})

const peer: Peer = {
  id: 3,
  vpnIpv4: '10.8.0.2',
  vpnIpv6: 'fd00::2',
  keepaliveInterval: 10,
  keepaliveTimeout: 120,
  remoteIpv6: 'fe80::1',
  remoteIpv6ScopeId: 5,
  remotePort: 1194,
  localIpv6: 'fe80::2',
  localPort: 1195,
  vpnRxBytes: 2 ** 40 + 1,
  vpnTxBytes: 2,
  vpnRxPackets: 3,
  vpnTxPackets: 4,
  linkRxBytes: 2 ** 32,
  linkTxBytes: 6,
  linkRxPackets: 7,
  linkTxPackets: 8,
}

const extended: Peer = {
  ...peer,
  txId: 9,
  transport: 'udp',
  lastRxMs: 0,
  lastTxMs: 1000,
  keys: [
    {
      slot: 'primary',
      keyId: 1,
      cipherAlg: 'aes-gcm',
      ageMs: 5,
      packetId: 2 ** 48 - 1,
      format: 'epoch',
      epoch: 65535,
    },
    {
      slot: 'secondary',
      keyId: 0,
      cipherAlg: 'chacha20-poly1305',
      ageMs: 6,
      packetId: 0,
      format: 'classic',
      epoch: 0,
    },
  ],
  drops: [{ reason: 'replay', count: 2 }],
}

const link: Link = {
  ifindex: 7,
  name: 'tun0',
  kind: 'ovpn-dco',
  mode: 'mp',
  mtu: 1500,
  netns: 4_026_531_840,
  workers: 2,
  provider: 'libcrypto 3.0.17',
  features: 'tso,uso,gro',
  rxBytes: 2 ** 33,
  rxPackets: 2,
  txBytes: 3,
  txPackets: 4,
  peers: 1,
  drops: [
    { reason: 'no-peer', count: 1 },
    { reason: 'replay', count: 2 ** 32 },
  ],
}

const replies: [why: string, command: CommandName, value: Reply, only?: DialectName[]][] = [
  ['extended', 'peer-get', extended],
  ['plain', 'peer-get', peer, ['ovpn-dco-v2', 'ovpn']],
  [
    'IPv4',
    'peer-get',
    (({ remoteIpv6, remoteIpv6ScopeId, localIpv6, ...rest }) => ({
      ...rest,
      remoteIpv4: '192.0.2.1',
      localIpv4: '0.0.0.0',
      transport: 'udp' as const,
    }))(peer),
  ],
  [
    'TCP, without addresses',
    'peer-get',
    (({ remoteIpv6, remoteIpv6ScopeId, localIpv6, remotePort, ...rest }) => ({
      ...rest,
      transport: 'tcp' as const,
    }))(peer),
  ],
  ['in another namespace', 'peer-get', { ...peer, socketNetnsid: -1, txId: 3 }, ['ovpn']],
  [
    'a key',
    'key-get',
    { peerId: 3, slot: 'secondary', keyId: 5, cipherAlg: 'chacha20-poly1305' },
    ['ovpn'],
  ],
  [
    'a key with epochs',
    'key-get',
    {
      peerId: 3,
      slot: 'primary',
      keyId: 5,
      cipherAlg: 'aes-gcm',
      format: 'epoch',
      epoch: 65535,
    },
    ['ovpn'],
  ],
  ['a link', 'link-get', link],
  ['nothing dropped', 'link-get', { ...link, drops: [] }],
  ['a new link', 'link-new', link],
]

describe('replies come back as they were', () => {
  for (const [why, command, value, only = names] of replies) {
    for (const name of only) {
      it(`${name} ${command}: ${why}`, () => {
        const bytes = dialects[name].encodeReply(command, value)
        assert.deepEqual(dialects[name].decodeReply(command, bytes), value)
      })
    }
  }

  it('A leaves out what it does not have unless asked to extend', () => {
    const { encodeReply, decodeReply } = dialects['ovpn-dco']
    const got = decodeReply('peer-get', encodeReply('peer-get', { ...peer, txId: 9 }))
    const linkCounters = { linkRxBytes: 0, linkTxBytes: 0, linkRxPackets: 0, linkTxPackets: 0 }
    assert.deepEqual(got, { ...peer, ...linkCounters })
  })

  it('B has packet counters of 32 bits', () => {
    const { encodeReply, decodeReply } = dialects['ovpn-dco-v2']
    const bytes = encodeReply('peer-get', { ...peer, vpnRxPackets: 2 ** 32 + 5 })
    assert.equal(decodeReply('peer-get', bytes).vpnRxPackets, 5)
  })
})

const events: [why: string, event: DriverEvent, only?: DialectName[]][] = [
  ['expired', { event: 'peer-del-ntf', ifindex: 7, peer: { id: 3, delReason: 'expired' } }],
  [
    'socket closed',
    { event: 'peer-del-ntf', ifindex: 7, peer: { id: 3, delReason: 'transport-disconnect' } },
    ['ovpn-dco-v2', 'ovpn'],
  ],
  ['worn out', { event: 'key-swap-ntf', ifindex: 7, keyconf: { peerId: 3, keyId: 5 } }, ['ovpn']],
  [
    'IPv4',
    {
      event: 'peer-float-ntf',
      ifindex: 7,
      peer: { id: 3, remoteIpv4: '192.0.2.1', remotePort: 1 },
    },
    ['ovpn'],
  ],
  [
    'IPv6',
    {
      event: 'peer-float-ntf',
      ifindex: 7,
      peer: { id: 3, remoteIpv6: 'fe80::1', remoteIpv6ScopeId: 2, remotePort: 1 },
    },
    ['ovpn'],
  ],
  [
    'a control packet',
    { event: 'packet', ifindex: 7, packet: { packet: Uint8Array.of(0x20, 1), peerId: 3 } },
  ],
  [
    'the end of a stream',
    { event: 'packet', ifindex: 7, packet: { packet: new Uint8Array(), peerId: 3, eof: true } },
  ],
  [
    'a message inside the data channel',
    {
      event: 'packet',
      ifindex: 7,
      packet: { packet: Uint8Array.of(0x28), peerId: 3, inside: true },
    },
  ],
]

describe('events come back as they were', () => {
  for (const name of names) {
    for (const [why, event, only = names] of events) {
      it(`${name} ${event.event}: ${why}`, () => {
        const { encodeEvent, decodeEvent } = dialects[name]
        const bytes = encodeEvent(event)
        if (only.includes(name)) assert.deepEqual(decodeEvent(bytes!), event)
        else if (event.event !== 'peer-del-ntf') assert.equal(bytes, undefined)
        else
          assert.deepEqual(decodeEvent(bytes!), {
            ...event,
            peer: { id: 3, delReason: 'transport-error' },
          })
      })
    }
    it(`${name}: an answer is no event`, () => {
      assert.equal(dialects[name].decodeEvent(Uint8Array.of(1, 1, 0, 0)), undefined)
      assert.equal(dialects[name].decodeEvent(new Uint8Array(0)), undefined)
    })
  }
})

// netlink-api, Appendix A.
const peerNewArgs: ArgsOf<'peer-new'> = {
  ifindex: 7,
  peer: { id: 3, socket: 6, remoteIpv4: '192.0.2.10', remotePort: 1194, vpnIpv4: '10.8.0.2' },
}
const expired: DriverEvent = {
  event: 'peer-del-ntf',
  ifindex: 7,
  peer: { id: 3, delReason: 'expired' },
}
const newPeerDco = `
  4c000000 1d000500 e9030000 92100000 01000000 08000100 07000000 30000280
  08000100 03000000 08000300 06000000 14000200 020004aa c000020a 00000000
  00000000 08000400 0a080002`
const newPeerOvpn = `
  48000000 1d000500 e9030000 92100000 01000000 08000100 07000000 2c000280
  08000100 03000000 08000600 06000000 08000200 c000020a 06000500 04aa0000
  08000800 0a080002`
const delPeerDco = `
  30000000 1d000000 00000000 00000000 03010000 08000100 07000000 14000480
  05000100 02000000 08000200 03000000`
const delPeerOvpn = `
  30000000 1d000000 00000000 00000000 05010000 08000100 07000000 14000280
  08000f00 02000000 08000100 03000000`

describe('bytes worked out by hand', () => {
  const examples: [name: DialectName, request: string, event: string][] = [
    ['ovpn-dco', newPeerDco, delPeerDco],
    ['ovpn-dco-v2', newPeerDco, delPeerDco],
    ['ovpn', newPeerOvpn, delPeerOvpn],
  ]
  for (const [name, request, event] of examples) {
    const dialect = dialects[name]
    it(`${name}: a new peer`, () => {
      const bytes = genl(request)
      const expected = { command: 'peer-new', args: peerNewArgs }
      assert.deepEqual(dialect.decodeRequest(bytes, { dump: false }), expected)
      bytes[1] = 1 // OpenVPN sends version 0
      assert.equal(
        hex(dialect.encodeRequest({ command: 'peer-new', args: peerNewArgs })),
        hex(bytes),
      )
    })
    it(`${name}: a peer gone`, () => {
      assert.deepEqual(dialect.decodeEvent(genl(event)), expired)
      assert.equal(hex(dialect.encodeEvent(expired)!), hex(genl(event)))
    })
  }

  it('the key id of a notification has two bytes', () => {
    const bytes = dialects.ovpn.encodeEvent({
      event: 'key-swap-ntf',
      ifindex: 7,
      keyconf: { peerId: 3, keyId: 5 },
    })
    assert.equal(
      hex(bytes!),
      '09010000' + '0800010007000000' + '14000380' + '0800010003000000' + '0600030005000000',
    )
  })

  it('a link-local IPv6 sockaddr', () => {
    const bytes = dialects['ovpn-dco'].encodeRequest({
      command: 'peer-new',
      args: {
        ifindex: 7,
        peer: { id: 3, socket: 6, remoteIpv6: 'fe80::1', remoteIpv6ScopeId: 5, remotePort: 1194 },
      },
    })
    const sockaddr = '0a0004aa00000000' + 'fe800000000000000000000000000001' + '05000000'
    assert.ok(hex(bytes).endsWith(`20000200${sockaddr}`))
  })
})

/** Types of the attributes inside the first nest of a reply, in order. */
function order(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const types = []
  for (let at = 8; at < bytes.length; at += (view.getUint16(at, true) + 3) & ~3) {
    types.push(view.getUint16(at + 2, true) & 0x3fff)
  }
  return types
}

describe('the order of attributes in replies', () => {
  const full: Peer = { ...peer, socketNetnsid: 4, txId: 9 }
  const { remoteIpv6, remoteIpv6ScopeId, localIpv6, ...rest } = full
  const v4: Peer = { ...rest, remoteIpv4: '192.0.2.1', localIpv4: '0.0.0.0' }
  const rows: [name: DialectName, value: Peer, expected: number[], why: string][] = [
    ['ovpn-dco', full, [1, 3, 4, 7, 8, 2, 5, 6, 9, 11, 10, 12], 'netlink-api 3.3'],
    ['ovpn-dco-v2', v4, [1, 3, 4, 7, 8, 2, 5, 6, 9, 11, 10, 12, 13, 15, 14, 16], 'netlink-api 4'],
    [
      'ovpn',
      full,
      [7, 1, 24, 8, 9, 13, 14, 3, 4, 5, 11, 12, 16, 18, 17, 19, 20, 22, 21, 23],
      'netlink-api 5.3, IPv6',
    ],
    [
      'ovpn',
      v4,
      [7, 1, 24, 8, 9, 13, 14, 2, 5, 10, 12, 16, 18, 17, 19, 20, 22, 21, 23],
      'netlink-api 5.3, IPv4',
    ],
  ]
  for (const [name, value, expected, why] of rows) {
    it(`${name}: ${why}`, () => {
      assert.deepEqual(order(dialects[name].encodeReply('peer-get', value)), expected)
    })
  }
})

describe('what nlctrl tells', () => {
  const rows: [DialectName, maxattr: number, ids: number[]][] = [
    ['ovpn-dco', 9, [1, 2, 3, 9, 4, 6, 5, 7, 8, 64, 65, 66]],
    ['ovpn-dco-v2', 8, [1, 2, 3, 7, 4, 6, 5, 64, 65, 66, 67, 68]],
    ['ovpn', 0, [1, 2, 3, 4, 6, 7, 8, 10, 64, 65, 66, 67, 68]],
  ]
  for (const [name, maxattr, ids] of rows) {
    it(`of ${name}`, () => {
      const info = dialects[name].info(0x1d, 9)
      assert.equal(info.name, name)
      assert.equal(info.maxAttribute, maxattr)
      assert.deepEqual(
        info.operations.map((one) => one.id),
        ids,
      )
      assert.deepEqual(
        info.operations.filter((one) => one.flags === 0x0f).map((one) => one.id),
        [dialects[name].wire.commands['peer-get']!.number, 66],
      )
      assert.deepEqual(info.groups, [{ name: 'peers', id: 9 }])
    })
  }
})

describe('keys', () => {
  it('are copied out of the message', () => {
    for (const name of names) {
      const request = requests.find(([why]) => why === 'AES')![1]
      const bytes = dialects[name].encodeRequest(request)
      const decoded = dialects[name].decodeRequest(bytes, { dump: false })
      bytes.fill(0)
      assert.deepEqual(decoded, request)
    }
  })

  it('as the kernel has them go without attributes that it does not know', () => {
    const request = requests.find(([why]) => why === 'AES')![1]
    assert.equal(request.command, 'key-new')
    for (const name of names) {
      const { encodeRequest } = dialects[name]
      const { args } = request as Extract<Request, { command: 'key-new' }>
      const keyconf = { ...args.keyconf, format: 'classic' as const, keySize: 32 }
      const explicit = encodeRequest({ command: 'key-new', args: { ...args, keyconf } })
      assert.deepEqual(explicit, encodeRequest(request))
    }
  })

  it('stay out of errors', () => {
    for (const name of names) {
      const bytes = dialects[name].encodeRequest(requests.find(([why]) => why === 'AES')![1])
      for (let length = 4; length < bytes.length; length += 4) {
        try {
          dialects[name].decodeRequest(bytes.subarray(0, length), { dump: false })
        } catch (error) {
          assert.ok(error instanceof ApiError)
          assert.doesNotMatch(JSON.stringify({ ...error, message: error.message }), /1,1,1|0101/)
        }
      }
    }
  })
})
