import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Writer } from '../netlink/attribute.ts'
import { type Dialect, dialects } from './dialects/index.ts'
import { ApiError } from './errno.ts'
import type { DialectName, KeyConf, PeerNew, PeerSet } from './types.ts'
import { checkKeyLengths, peerForMode, peerForTransport } from './validate.ts'

const names: DialectName[] = ['ovpn-dco', 'ovpn-dco-v2', 'ovpn']

type Fill = (writer: Writer) => void

/** A request; `trail` is appended as it is. */
function request(command: number, fill: Fill, trail = new Uint8Array()): Uint8Array {
  const writer = new Writer(Uint8Array.of(command, 0, 0, 0))
  fill(writer)
  return Uint8Array.from([...writer.finish(), ...trail])
}

interface Expected {
  errno: string
  text?: string
  attribute?: string
  missType?: number
  missNest?: number
  offset?: number | undefined
}

function refused(dialect: Dialect, bytes: Uint8Array, expected: Expected, dump = false): void {
  assert.throws(
    () => dialect.decodeRequest(bytes, { dump }),
    (error) => {
      assert.ok(error instanceof ApiError, String(error))
      const { errno, reason, attribute, missType, missNest, offset } = error
      const got = { errno, text: reason, attribute, missType, missNest, offset }
      for (const [key, value] of Object.entries(expected)) {
        assert.equal(got[key as keyof typeof got], value, `${key}: ${error.message}`)
      }
      return true
    },
  )
}

const unknown = { errno: 'EINVAL', text: 'Unknown attribute type' }
const unsupported = { errno: 'EINVAL', text: 'Unsupported attribute' }
const range = { errno: 'ERANGE', text: 'integer out of range' }
const size = { errno: 'ERANGE', text: 'binary attribute size out of range' }
const length = { errno: 'EINVAL', text: 'invalid attribute length' }
const missing = { errno: 'EINVAL', text: 'missing attribute' }

const direction = (writer: Writer, key = 16, tail = 8) =>
  writer.bytes(1, new Uint8Array(key)).bytes(2, new Uint8Array(tail))

describe('dialect C: what is refused, and how', () => {
  const peer = (fill: Fill, command = 1) =>
    request(command, (writer) => writer.u32(1, 7).nest(2, fill))
  const keyconf = (fill: Fill, command = 6) =>
    request(command, (writer) => writer.u32(1, 7).nest(3, fill))
  const v4 = Uint8Array.of(192, 0, 2, 1)
  const v6 = Uint8Array.from({ length: 16 }, (_, i) => i)
  const mapped = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1)
  const base = (writer: Writer) => writer.u32(1, 3).u32(6, 5)
  const key = (writer: Writer, cipher = 1, slot = 0, keyId = 1) =>
    writer
      .u32(1, 3)
      .u32(2, slot)
      .u32(3, keyId)
      .u32(4, cipher)
      .nest(5, (w) => direction(w))
      .nest(6, (w) => direction(w))

  const rows: [why: string, bytes: Uint8Array, expected: Expected][] = [
    ['shorter than its header', Uint8Array.of(1, 0, 0), { errno: 'EINVAL' }],
    ['reserved bytes', Uint8Array.of(1, 0, 1, 0), { errno: 'EINVAL' }],
    ['command 0', Uint8Array.of(0, 0, 0, 0), { errno: 'EOPNOTSUPP' }],
    ['a notification as a command', Uint8Array.of(5, 0, 0, 0), { errno: 'EOPNOTSUPP' }],
    ['a command of the future', Uint8Array.of(12, 0, 0, 0), { errno: 'EOPNOTSUPP' }],
    [
      'no ifindex',
      request(1, (w) => w.nest(2, base)),
      { ...missing, missType: 1, attribute: 'ifindex' },
    ],
    ['no peer', request(1, (w) => w.u32(1, 7)), { ...missing, missType: 2, attribute: 'peer' }],
    ['no key', request(6, (w) => w.u32(1, 7)), { ...missing, missType: 3 }],
    [
      'no id',
      peer((w) => w.u32(6, 5)),
      { ...missing, missType: 1, missNest: 28, attribute: 'peer.id' },
    ],
    ['no socket', peer((w) => w.u32(1, 3)), { ...missing, missType: 6, missNest: 28 }],
    ['an empty nest', peer(() => {}), { ...missing, missType: 1 }],
    [
      'ifindex too long',
      request(4, (w) => w.bytes(1, new Uint8Array(8))),
      { ...length, offset: 20 },
    ],
    ['ifindex too short', request(4, (w) => w.u16(1, 7)), length],
    ['type 0', peer((w) => base(w).u32(0, 1)), { ...unknown, offset: 48 }],
    ['above all that a new peer has', peer((w) => base(w).u32(25, 1)), unknown],
    ['local port in a new peer', peer((w) => base(w).be16(12, 1)), unsupported],
    ['netnsid in a new peer', peer((w) => base(w).u32(7, 1)), unsupported],
    ['a reply attribute of ours in a request', peer((w) => base(w).u32(64, 1)), unknown],
    ['socket in peer-set', peer((w) => base(w), 2), unsupported],
    ['more than the id in peer-del', peer((w) => base(w), 4), unknown],
    ['more than the id in peer-get', peer((w) => base(w), 3), { errno: 'EINVAL' }],
    ['a key in a new peer', request(1, (w) => w.u32(1, 7).nest(2, base).nest(3, key)), unknown],
    ['a peer beside a key', request(6, (w) => w.u32(1, 7).nest(2, base).nest(3, key)), unsupported],
    ['trailing bytes', request(4, (w) => w.u32(1, 7), Uint8Array.of(1, 2)), { errno: 'EINVAL' }],
    [
      'a length beyond the end',
      request(4, (w) => w.u32(1, 7), Uint8Array.of(40, 0, 2, 0)),
      { errno: 'EINVAL', offset: undefined },
    ],
    [
      'a nest that does not say so',
      request(1, (w) => w.u32(1, 7).nest(2, base, { flag: false })),
      { errno: 'EINVAL', text: 'NLA_F_NESTED is missing', attribute: 'peer', offset: 28 },
    ],
    [
      'a number that says it is a nest',
      peer((w) => w.nest(1, () => {})),
      { errno: 'EINVAL', text: 'NLA_F_NESTED not expected' },
    ],
    [
      'a nest of 3 bytes',
      request(1, (w) => w.u32(1, 7).bytes(2 | 0x8000, new Uint8Array(3))),
      { errno: 'ERANGE' },
    ],
    [
      'id of 25 bits',
      peer((w) => w.u32(1, 0x1000000)),
      { ...range, attribute: 'peer.id', offset: 32 },
    ],
    ['out of range wins over missing', peer((w) => w.be16(5, 0)), range],
    ['port 0', peer((w) => base(w).bytes(2, v4).be16(5, 0)), range],
    ['IPv4 address of 5 bytes', peer((w) => base(w).bytes(2, new Uint8Array(5))), length],
    ['IPv6 address of 15 bytes', peer((w) => base(w).bytes(3, new Uint8Array(15))), size],
    ['IPv6 address of 17 bytes', peer((w) => base(w).bytes(3, new Uint8Array(17))), size],
    ['keepalive of more than a day', peer((w) => base(w).u32(13, 86_401).u32(14, 1)), range],
    [
      'two remote addresses',
      peer((w) => base(w).bytes(2, v4).bytes(3, v6).be16(5, 1)),
      { errno: 'EINVAL' },
    ],
    [
      'port without address',
      peer((w) => base(w).be16(5, 1)),
      { errno: 'EINVAL', attribute: 'peer.remote-port' },
    ],
    [
      'address without port',
      peer((w) => base(w).bytes(2, v4)),
      { errno: 'EINVAL', attribute: 'peer.remote-port' },
    ],
    [
      'local IPv4 without remote',
      peer((w) => base(w).bytes(10, v4)),
      { errno: 'EINVAL', attribute: 'peer.local-ipv4' },
    ],
    [
      'local IPv6 without remote',
      peer((w) => base(w).bytes(11, v6)),
      { errno: 'EINVAL', attribute: 'peer.local-ipv6' },
    ],
    [
      'local IPv4 for remote IPv6',
      peer((w) => base(w).bytes(3, v6).be16(5, 1).bytes(10, v4)),
      { errno: 'EINVAL' },
    ],
    [
      'local mapped, remote not',
      peer((w) => base(w).bytes(3, v6).be16(5, 1).bytes(11, mapped)),
      { errno: 'EINVAL' },
    ],
    [
      'remote mapped, local not',
      peer((w) => base(w).bytes(3, mapped).be16(5, 1).bytes(11, v6)),
      { errno: 'EINVAL' },
    ],
    [
      'scope id for IPv4',
      peer((w) => base(w).bytes(2, v4).be16(5, 1).u32(4, 1)),
      { errno: 'EINVAL', attribute: 'peer.remote-ipv6-scope-id' },
    ],
    [
      'scope id for mapped IPv4',
      peer((w) => base(w).bytes(3, mapped).be16(5, 1).u32(4, 1)),
      { errno: 'EINVAL' },
    ],
    ['scope id alone', peer((w) => base(w).u32(4, 1)), { errno: 'EINVAL' }],
    [
      'interval without timeout',
      peer((w) => base(w).u32(13, 1)),
      { errno: 'EINVAL', attribute: 'peer.keepalive-timeout' },
    ],
    [
      'timeout without interval',
      peer((w) => w.u32(1, 3).u32(14, 1), 2),
      { errno: 'EINVAL', attribute: 'peer.keepalive-interval' },
    ],
    ['slot 2', keyconf((w) => key(w, 1, 2)), { ...range, attribute: 'keyconf.slot' }],
    ['key id 8', keyconf((w) => key(w, 1, 0, 8)), { ...range, attribute: 'keyconf.key-id' }],
    ['cipher 3', keyconf((w) => key(w, 3)), { ...range, attribute: 'keyconf.cipher-alg' }],
    ['cipher 0', keyconf((w) => key(w, 0)), { errno: 'EINVAL', attribute: 'keyconf.cipher-alg' }],
    ['a slot of one byte', keyconf((w) => w.u8(2, 0)), length],
    [
      'no directions',
      keyconf((w) => w.u32(1, 3).u32(2, 0).u32(3, 1).u32(4, 1)),
      { ...missing, missType: 5 },
    ],
    [
      'no nonce tail',
      keyconf((w) => key(w).nest(6, (one) => one.bytes(1, new Uint8Array(16)))),
      { ...missing, missType: 2, attribute: 'keyconf.decrypt-dir.nonce-tail' },
    ],
    [
      'a nonce tail of 7 bytes',
      keyconf((w) => key(w).nest(6, (one) => direction(one, 16, 7))),
      size,
    ],
    ['a key of 257 bytes', keyconf((w) => key(w).nest(6, (one) => direction(one, 257))), size],
    [
      'an attribute beside the key',
      keyconf((w) => key(w).nest(6, (one) => direction(one).u32(3, 1))),
      unknown,
    ],
    ['slot in key-swap', keyconf((w) => w.u32(1, 3).u32(2, 0), 8), unknown],
    [
      'cipher in key-get',
      keyconf((w) => w.u32(1, 3).u32(2, 0).u32(4, 0), 7),
      { errno: 'EINVAL', text: 'unexpected attribute', offset: undefined },
    ],
    [
      'cipher out of range in key-get',
      keyconf((w) => w.u32(1, 3).u32(2, 0).u32(4, 9), 7),
      { errno: 'ERANGE' },
    ],
    ['cipher in key-get, slot missing', keyconf((w) => w.u32(1, 3).u32(4, 0), 7), missing],
    ['key without slot in key-del', keyconf((w) => w.u32(1, 3), 10), { ...missing, missType: 2 }],
    [
      'link name too long',
      request(64, (w) => w.nest(64, (one) => one.string(2, 'a234567890123456'))),
      size,
    ],
    ['link name empty', request(64, (w) => w.nest(64, (one) => one.string(2, ''))), size],
    [
      'link name without NUL',
      request(64, (w) => w.nest(64, (one) => one.bytes(2, Uint8Array.of(97)))),
      { errno: 'EINVAL' },
    ],
    ['a flag with a value', request(3, (w) => w.u32(1, 7).u32(66, 1)), { errno: 'ERANGE' }],
    [
      'eof to the driver',
      request(68, (w) => w.u32(1, 7).nest(65, (one) => one.u32(2, 3).flag(64))),
      unknown,
    ],
  ]
  for (const [why, bytes, expected] of rows) {
    it(`${why}: ${expected.errno}`, () => refused(dialects.ovpn, bytes, expected))
  }

  it('a dump takes no peer', () =>
    refused(
      dialects.ovpn,
      peer((w) => w.u32(1, 3), 3),
      unknown,
      true,
    ))
  it('a dump needs an ifindex, which its handler finds out', () =>
    refused(
      dialects.ovpn,
      request(3, () => {}),
      { ...missing, missType: 1 },
      true,
    ))
  it('no dump of a command that has none', () =>
    refused(
      dialects.ovpn,
      request(1, () => {}),
      { errno: 'EOPNOTSUPP' },
      true,
    ))

  it('of an attribute that stands twice the last one counts', () => {
    const bytes = peer((w) => base(w).u32(1, 4))
    const { args } = dialects.ovpn.decodeRequest(bytes, { dump: false })
    assert.deepEqual(args, { ifindex: 7, peer: { id: 4, socket: 5 } })
  })

  it('an IPv4-mapped remote with a mapped local is IPv4', () => {
    const bytes = peer((w) => base(w).bytes(3, mapped).be16(5, 9).bytes(11, mapped))
    assert.deepEqual(dialects.ovpn.decodeRequest(bytes, { dump: false }).args, {
      ifindex: 7,
      peer: { id: 3, socket: 5, remoteIpv4: '192.0.2.1', remotePort: 9, localIpv4: '192.0.2.1' },
    })
  })
})

describe('dialects A and B: what is refused, and how', () => {
  const nested = (command: number, type: number, fill: Fill, flag = true) =>
    request(command, (writer) => writer.u32(1, 7).nest(type, fill, { flag }))
  const base = (writer: Writer) => writer.u32(1, 3).u32(3, 5)
  const sockaddr = (bytes: number, family: number) => {
    const address = new Uint8Array(bytes)
    address[0] = family
    return address
  }
  const mapped = sockaddr(28, 10)
  mapped.set([0xff, 0xff, 192, 0, 2, 1], 18)
  const key = (writer: Writer, cipher = 1, slot = 0) =>
    writer
      .u32(1, 3)
      .u8(2, slot)
      .u8(3, 9)
      .u16(4, cipher)
      .nest(5, (w) => direction(w))
      .nest(6, (w) => direction(w))

  const rows: [why: string, bytes: Uint8Array, a: Expected | 'taken', b: Expected | 'taken'][] = [
    ['reserved bytes', Uint8Array.of(1, 0, 0, 1), { errno: 'EINVAL' }, { errno: 'EINVAL' }],
    [
      'key-get is of dialect C',
      Uint8Array.of(10, 0, 0, 0),
      { errno: 'EOPNOTSUPP' },
      { errno: 'EOPNOTSUPP' },
    ],
    [
      'unknown at the top',
      request(3, (w) =>
        w
          .u32(1, 7)
          .nest(4, (one) => one.u32(2, 3))
          .u32(70, 1),
      ),
      'taken',
      unknown,
    ],
    [
      'between theirs and ours',
      request(3, (w) =>
        w
          .u32(1, 7)
          .nest(4, (one) => one.u32(2, 3))
          .u32(12, 1),
      ),
      'taken',
      unknown,
    ],
    [
      'trailing bytes at the top',
      request(3, (w) => w.u32(1, 7).nest(4, (one) => one.u32(2, 3)), Uint8Array.of(1)),
      'taken',
      { errno: 'EINVAL' },
    ],
    [
      'trailing bytes in the nest',
      nested(3, 4, (w) => w.u32(2, 3).bytes(1, new Uint8Array(1)).u32(9, 0)),
      unknown,
      unknown,
    ],
    ['unknown in the nest', nested(1, 2, (w) => base(w).u32(7, 1)), unknown, unknown],
    [
      'a nest that does not say so',
      nested(1, 2, base, false),
      { errno: 'EINVAL', text: 'NLA_F_NESTED is missing' },
      { errno: 'EINVAL', text: 'NLA_F_NESTED is missing' },
    ],
    [
      'another nest of the family',
      request(3, (w) =>
        w
          .u32(1, 7)
          .nest(2, () => {})
          .nest(4, (one) => one.u32(2, 3)),
      ),
      'taken',
      'taken',
    ],
    [
      'an integer too long',
      nested(3, 4, (w) => w.bytes(2, Uint8Array.of(3, 0, 0, 0, 9))),
      'taken',
      length,
    ],
    ['an integer too short', nested(3, 4, (w) => w.u16(2, 3)), { errno: 'ERANGE' }, length],
    ['no ifindex', request(3, (w) => w.nest(4, (one) => one.u32(2, 3))), missing, missing],
    ['no nest', request(3, (w) => w.u32(1, 7)), missing, missing],
    ['no peer id', nested(3, 4, (w) => w.u8(1, 0)), missing, missing],
    ['no socket', nested(1, 2, (w) => w.u32(1, 3)), missing, missing],
    ['del reason 4', nested(3, 4, (w) => w.u8(1, 4).u32(2, 3)), range, 'taken'],
    ['del reason 5', nested(3, 4, (w) => w.u8(1, 5).u32(2, 3)), range, range],
    ['an id of 32 bits asked for', nested(2, 3, (w) => w.u32(1, 0xffffffff)), 'taken', 'taken'],
    [
      'an id of 25 bits made',
      nested(1, 2, (w) => w.u32(1, 0x1000000).u32(3, 5)),
      { errno: 'ERANGE' },
      { errno: 'ERANGE' },
    ],
    ['sockaddr of 15 bytes', nested(1, 2, (w) => base(w).bytes(2, sockaddr(15, 2))), size, size],
    [
      'sockaddr_in of 28 bytes',
      nested(1, 2, (w) => base(w).bytes(2, sockaddr(28, 2))),
      { errno: 'EINVAL' },
      { errno: 'EINVAL' },
    ],
    [
      'sockaddr_in6 of 16 bytes',
      nested(1, 2, (w) => base(w).bytes(2, sockaddr(16, 10))),
      { errno: 'EINVAL' },
      { errno: 'EINVAL' },
    ],
    [
      'sockaddr without a family',
      nested(1, 2, (w) => base(w).bytes(2, sockaddr(16, 0))),
      'taken',
      'taken',
    ],
    [
      'local IPv6 for remote IPv4',
      nested(1, 2, (w) => base(w).bytes(2, sockaddr(16, 2)).bytes(6, new Uint8Array(16))),
      { errno: 'EINVAL' },
      { errno: 'EINVAL' },
    ],
    [
      'local IPv4 for remote IPv6',
      nested(1, 2, (w) => base(w).bytes(2, sockaddr(28, 10)).bytes(6, new Uint8Array(4))),
      { errno: 'EINVAL' },
      { errno: 'EINVAL' },
    ],
    [
      'local IPv4-mapped for remote IPv6',
      nested(1, 2, (w) => base(w).bytes(2, sockaddr(28, 10)).bytes(6, mapped.subarray(8, 24))),
      { errno: 'EINVAL' },
      { errno: 'EINVAL' },
    ],
    [
      'local address of 5 bytes',
      nested(1, 2, (w) => base(w).bytes(2, sockaddr(16, 2)).bytes(6, new Uint8Array(5))),
      { errno: 'EINVAL' },
      { errno: 'EINVAL' },
    ],
    [
      'local address of 17 bytes',
      nested(1, 2, (w) => base(w).bytes(2, sockaddr(16, 2)).bytes(6, new Uint8Array(17))),
      size,
      size,
    ],
    [
      'a bad local address for TCP',
      nested(1, 2, (w) => base(w).bytes(6, new Uint8Array(5))),
      'taken',
      'taken',
    ],
    ['one keepalive value', nested(2, 3, (w) => w.u32(1, 3).u32(2, 10)), 'taken', 'taken'],
    ['cipher 0', nested(4, 5, (w) => key(w, 0)), 'taken', { errno: 'EINVAL' }],
    ['cipher 3', nested(4, 5, (w) => key(w, 3)), { errno: 'EINVAL' }, { errno: 'EINVAL' }],
    ['slot 2', nested(4, 5, (w) => key(w, 1, 2)), range, range],
    ['key id of more than 3 bits', nested(4, 5, (w) => key(w)), 'taken', 'taken'],
    [
      'no decrypt key',
      nested(4, 5, (w) =>
        w
          .u32(1, 3)
          .u8(2, 0)
          .u8(3, 0)
          .u16(4, 1)
          .nest(5, (one) => direction(one)),
      ),
      missing,
      missing,
    ],
    [
      'no nonce tail',
      nested(4, 5, (w) => key(w).nest(5, (one) => one.bytes(1, new Uint8Array(16)))),
      missing,
      missing,
    ],
    [
      'a key of 256 bytes',
      nested(4, 5, (w) => key(w).nest(5, (one) => direction(one, 256))),
      size,
      size,
    ],
  ]
  for (const [why, bytes, a, b] of rows) {
    for (const [name, expected] of [
      ['ovpn-dco', a],
      ['ovpn-dco-v2', b],
    ] as const) {
      it(`${name}: ${why}: ${expected === 'taken' ? 'taken' : expected.errno}`, () => {
        if (expected !== 'taken') return refused(dialects[name], bytes, expected)
        const { args } = dialects[name].decodeRequest(bytes, { dump: false })
        assert.equal((args as { ifindex?: number }).ifindex, 7)
      })
    }
  }

  it('a dump in A takes whatever stands beside the ifindex', () => {
    const bytes = request(9, (w) =>
      w
        .u32(1, 7)
        .nest(9, (one) => one.u32(1, 3))
        .u32(33, 1),
    )
    assert.deepEqual(dialects['ovpn-dco'].decodeRequest(bytes, { dump: true }), {
      command: 'peer-get',
      dump: true,
      args: { ifindex: 7 },
    })
  })

  it('an IPv4-mapped remote is IPv4, its mapped local too', () => {
    const bytes = nested(1, 2, (w) => base(w).bytes(2, mapped).bytes(6, mapped.subarray(8, 24)))
    assert.deepEqual(dialects['ovpn-dco'].decodeRequest(bytes, { dump: false }).args, {
      ifindex: 7,
      peer: { id: 3, socket: 5, remoteIpv4: '192.0.2.1', remotePort: 0, localIpv4: '192.0.2.1' },
    })
  })

  it('the low three bits of a key id count', () => {
    const { args } = dialects['ovpn-dco'].decodeRequest(nested(4, 5, key), { dump: false })
    assert.equal((args as unknown as { keyconf: KeyConf }).keyconf.keyId, 1)
  })
})

describe('answers of drivers of another age', () => {
  const counters = (writer: Writer) => {
    for (let type = 16; type <= 23; type++) writer.u32(type, type)
    return writer
  }
  const answer = (fill: Fill, flag = true) => request(3, (w) => w.nest(2, fill, { flag }))
  const decode = (bytes: Uint8Array) => dialects.ovpn.decodeReply('peer-get', bytes)
  const basic = (writer: Writer) => counters(writer.u32(1, 3).u32(13, 1).u32(14, 2).be16(12, 9))

  it('without a tx id, as Linux 6.16 has it', () =>
    assert.equal(decode(answer(basic)).txId, undefined))
  it('with attributes that are new', () =>
    assert.equal(decode(answer((w) => basic(w).u32(40, 1).u32(90, 1))).id, 3))
  it('with a nest that does not say so', () => assert.equal(decode(answer(basic, false)).id, 3))
  it('with counters of 8 bytes', () =>
    assert.equal(decode(answer((w) => basic(w).u64(16, 2 ** 40))).vpnRxBytes, 2 ** 40))
  it('with keepalive values that are no longer allowed', () =>
    assert.equal(decode(answer((w) => basic(w).u32(13, 100_000))).keepaliveInterval, 100_000))
  it('a key id of four bytes in a notification, as the specification has it', () => {
    const bytes = request(9, (w) => w.u32(1, 7).nest(3, (one) => one.u32(1, 3).u32(3, 5)))
    assert.deepEqual(dialects.ovpn.decodeEvent(bytes), {
      event: 'key-swap-ntf',
      ifindex: 7,
      keyconf: { peerId: 3, keyId: 5 },
    })
  })

  const broken: [why: string, bytes: Uint8Array][] = [
    ['another command', request(4, (w) => w.nest(2, basic))],
    ['nothing', new Uint8Array()],
    ['no peer', request(3, () => {})],
    ['no id', answer((w) => counters(w.u32(13, 1).u32(14, 1).be16(12, 1)))],
    ['an address of 3 bytes', answer((w) => basic(w).bytes(8, new Uint8Array(3)))],
    ['a counter of 3 bytes', answer((w) => basic(w).bytes(16, new Uint8Array(3)))],
  ]
  for (const [why, bytes] of broken) {
    it(`${why} is EPROTO`, () =>
      assert.throws(() => decode(bytes), { name: 'ApiError', errno: 'EPROTO' }))
  }
  it('a delete reason of the future is EPROTO', () => {
    const bytes = request(5, (w) => w.u32(1, 7).nest(2, (one) => one.u32(15, 9).u32(1, 3)))
    assert.throws(() => dialects.ovpn.decodeEvent(bytes), { name: 'ApiError', errno: 'EPROTO' })
  })
})

describe('VPN addresses and the mode', () => {
  const peer: PeerNew = { id: 3, socket: 6 }
  const four = { ...peer, vpnIpv4: '10.8.0.2' }
  const any = { ...peer, vpnIpv4: '0.0.0.0', vpnIpv6: '::' }
  const rows: [
    why: string,
    dialect: DialectName,
    mode: 'p2p' | 'mp',
    given: PeerNew,
    expected: PeerNew | 'EINVAL' | 'EADDRNOTAVAIL',
  ][] = [
    ['one peer, none', 'ovpn', 'p2p', peer, peer],
    ['one peer, one', 'ovpn', 'p2p', four, 'EINVAL'],
    ['one peer, one, no notice taken', 'ovpn-dco', 'p2p', four, peer],
    ['one peer, one, no notice taken', 'ovpn-dco-v2', 'p2p', four, peer],
    ['many, one', 'ovpn', 'mp', four, four],
    ['many, none', 'ovpn', 'mp', peer, 'EINVAL'],
    ['many, none', 'ovpn-dco', 'mp', peer, 'EINVAL'],
    ['many, none', 'ovpn-dco-v2', 'mp', peer, 'EINVAL'],
    ['unspecified counts as none', 'ovpn', 'mp', any, 'EINVAL'],
    ['unspecified is one, though of no use', 'ovpn-dco', 'mp', any, peer],
    ['unspecified beside one', 'ovpn', 'mp', { ...four, vpnIpv6: '::' }, four],
    [
      '0.0.0.0 beside IPv6',
      'ovpn',
      'mp',
      { ...any, vpnIpv6: 'fd00::1' },
      { ...peer, vpnIpv6: 'fd00::1' },
    ],
    ...['127.0.0.1', '224.0.0.1', '239.255.255.255', '255.255.255.255'].map(
      (vpnIpv4) => [vpnIpv4, 'ovpn', 'mp', { ...peer, vpnIpv4 }, 'EADDRNOTAVAIL'] as const,
    ),
    ...['::1', '::192.0.2.1', '::ffff:192.0.2.1', 'ff02::1'].map(
      (vpnIpv6) => [vpnIpv6, 'ovpn', 'mp', { ...peer, vpnIpv6 }, 'EADDRNOTAVAIL'] as const,
    ),
  ] as const satisfies unknown[] as never
  for (const [why, dialect, mode, given, expected] of rows) {
    it(`${dialect} ${mode}: ${why}`, () => {
      const run = () => peerForMode('peer-new', given, mode, dialect)
      if (typeof expected === 'string') assert.throws(run, { name: 'ApiError', errno: expected })
      else assert.deepEqual(run(), expected)
    })
  }

  it('peer-set may take an address away', () => {
    const given: PeerSet = { id: 3, vpnIpv4: '0.0.0.0' }
    assert.deepEqual(peerForMode('peer-set', given, 'mp', 'ovpn'), given)
  })
})

describe('addresses and the transport', () => {
  const bare: PeerNew = { id: 3, socket: 6, vpnIpv4: '10.8.0.2' }
  const remote: PeerNew = { ...bare, remoteIpv4: '192.0.2.1', remotePort: 1, localIpv4: '0.0.0.0' }
  const rows: [
    why: string,
    dialect: DialectName,
    transport: 'udp' | 'tcp',
    given: PeerNew,
    expected: PeerNew | 'EINVAL',
  ][] = [
    ['UDP with a remote', 'ovpn', 'udp', remote, remote],
    ['UDP without', 'ovpn', 'udp', bare, 'EINVAL'],
    ['UDP without', 'ovpn-dco', 'udp', bare, 'EINVAL'],
    ['TCP without', 'ovpn', 'tcp', bare, bare],
    ['TCP with', 'ovpn', 'tcp', remote, 'EINVAL'],
    ['TCP with, no notice taken', 'ovpn-dco', 'tcp', remote, bare],
    ['TCP with, no notice taken', 'ovpn-dco-v2', 'tcp', remote, bare],
  ]
  for (const [why, dialect, transport, given, expected] of rows) {
    it(`${dialect}: ${why}`, () => {
      const run = () => peerForTransport('peer-new', given, transport, dialect)
      if (expected === 'EINVAL') assert.throws(run, { name: 'ApiError', errno: 'EINVAL' })
      else assert.deepEqual(run(), expected)
    })
  }

  it('peer-set of a UDP peer needs no remote', () => {
    const given: PeerSet = { id: 3 }
    assert.deepEqual(peerForTransport('peer-set', given, 'udp', 'ovpn'), given)
  })
})

describe('key lengths', () => {
  const rows: [cipherAlg: KeyConf['cipherAlg'], bytes: number, fits: boolean][] = [
    ['aes-gcm', 16, true],
    ['aes-gcm', 24, true],
    ['aes-gcm', 32, true],
    ['aes-gcm', 20, false],
    ['aes-gcm', 0, false],
    ['chacha20-poly1305', 32, true],
    ['chacha20-poly1305', 16, false],
  ]
  for (const [cipherAlg, bytes, fits] of rows) {
    it(`${cipherAlg}, ${bytes} bytes: ${fits ? 'fits' : 'EINVAL'}`, () => {
      const good = { cipherKey: new Uint8Array(32), nonceTail: new Uint8Array(8) }
      const tried = { cipherKey: new Uint8Array(bytes), nonceTail: new Uint8Array(8) }
      for (const [encryptDir, decryptDir] of [
        [good, tried],
        [tried, good],
      ] as const) {
        const keyconf: KeyConf = {
          peerId: 3,
          slot: 'primary',
          keyId: 0,
          cipherAlg,
          encryptDir,
          decryptDir,
        }
        const run = () => checkKeyLengths(keyconf)
        if (fits) run()
        else assert.throws(run, { name: 'ApiError', errno: 'EINVAL' })
      }
    })
  }
})

describe('epoch keys', () => {
  type Row = [why: string, fields: Partial<KeyConf>, bytes: number, refused?: string]
  const rows: Row[] = [
    ['AES-256 where nothing is said', {}, 32],
    ['AES-128 from the same secret', { keySize: 16 }, 32],
    ['AES-192', { keySize: 24 }, 32],
    ['AES-256', { keySize: 32 }, 32],
    ['ChaCha20', { cipherAlg: 'chacha20-poly1305' }, 32],
    ['ChaCha20 with its one size', { cipherAlg: 'chacha20-poly1305', keySize: 32 }, 32],
    ['no size of ChaCha20', { cipherAlg: 'chacha20-poly1305', keySize: 16 }, 32, 'key-size'],
    ['no size of AES', { keySize: 20 }, 32, 'key-size'],
    ['a secret is not as short as the key', { keySize: 16 }, 16, 'encrypt-dir.cipher-key'],
    ['nor as long as its part of key2', {}, 64, 'encrypt-dir.cipher-key'],
    ['a size, and no secret', { format: 'classic', keySize: 32 }, 32, 'key-size'],
  ]
  for (const [why, fields, bytes, refused] of rows) {
    it(`${why}: ${refused === undefined ? 'fits' : 'EINVAL'}`, () => {
      const direction = { cipherKey: new Uint8Array(bytes), nonceTail: new Uint8Array(8) }
      const keyconf: KeyConf = {
        peerId: 3,
        slot: 'primary',
        keyId: 0,
        cipherAlg: 'aes-gcm',
        encryptDir: direction,
        decryptDir: direction,
        format: 'epoch',
        ...fields,
      }
      const run = () => checkKeyLengths(keyconf)
      if (refused === undefined) run()
      else assert.throws(run, { errno: 'EINVAL', attribute: `keyconf.${refused}` })
    })
  }
})

/** xorshift32. */
function random(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

describe('bytes of no good', () => {
  /** Every decoder on every dialect either decodes or throws ApiError. */
  const tryAll = (bytes: Uint8Array) => {
    for (const name of names) {
      const dialect = dialects[name]
      const runs = [
        () => dialect.decodeRequest(bytes, { dump: false }),
        () => dialect.decodeRequest(bytes, { dump: true }),
        () => dialect.decodeReply('peer-get', bytes),
        () => dialect.decodeReply('link-get', bytes),
        () => dialect.decodeEvent(bytes),
      ]
      for (const run of runs) {
        try {
          run()
        } catch (error) {
          if (!(error instanceof ApiError)) {
            throw new Error(`${name} ${Buffer.from(bytes).toString('hex')}`, { cause: error })
          }
        }
      }
    }
  }

  const samples = names.flatMap((name): Uint8Array[] => {
    const dialect = dialects[name]
    const key = { cipherKey: new Uint8Array(32), nonceTail: new Uint8Array(8) }
    return [
      dialect.encodeRequest({
        command: 'peer-new',
        args: {
          ifindex: 7,
          peer: {
            id: 3,
            socket: 6,
            remoteIpv6: 'fe80::1',
            remoteIpv6ScopeId: 3,
            remotePort: 1,
            vpnIpv4: '10.8.0.2',
            localIpv6: '::',
          },
        },
      }),
      dialect.encodeRequest({
        command: 'key-new',
        args: {
          ifindex: 7,
          keyconf: {
            peerId: 3,
            slot: 'primary',
            keyId: 0,
            cipherAlg: 'aes-gcm',
            encryptDir: key,
            decryptDir: key,
          },
        },
      }),
      dialect.encodeReply('peer-get', {
        id: 3,
        remoteIpv4: '192.0.2.1',
        remotePort: 1,
        localPort: 2,
        keepaliveInterval: 1,
        keepaliveTimeout: 2,
        vpnRxBytes: 1,
        vpnTxBytes: 1,
        vpnRxPackets: 1,
        vpnTxPackets: 1,
        linkRxBytes: 1,
        linkTxBytes: 1,
        linkRxPackets: 1,
        linkTxPackets: 1,
        transport: 'udp',
        keys: [
          {
            slot: 'primary',
            keyId: 1,
            cipherAlg: 'aes-gcm',
            ageMs: 1,
            packetId: 1,
            format: 'classic',
            epoch: 0,
          },
        ],
        drops: [{ reason: 'replay', count: 1 }],
      }),
      dialect.encodeEvent({
        event: 'peer-del-ntf',
        ifindex: 7,
        peer: { id: 3, delReason: 'expired' },
      })!,
    ]
  })

  it('truncated at every byte', () => {
    for (const sample of samples) {
      for (let length = 0; length < sample.length; length++) tryAll(sample.slice(0, length))
    }
  })

  it('with bytes changed', () => {
    const below = random(1)
    for (let round = 0; round < 4000; round++) {
      const bytes = samples[below(samples.length)]!.slice()
      for (let change = 0; change <= below(4); change++) bytes[below(bytes.length)] = below(256)
      tryAll(bytes)
    }
  })

  it('at random', () => {
    const below = random(2)
    for (let round = 0; round < 4000; round++) {
      const bytes = Uint8Array.from({ length: below(64) }, () => below(256))
      if (bytes.length > 8) {
        bytes.set([below(12), 0, 0, 0, 4 + below(bytes.length), 0, below(10), below(2) << 7])
      }
      tryAll(bytes)
    }
  })

  it('nested deeper than the API goes', () => {
    for (const depth of [3, 100, 16_000]) {
      const nests = Array.from({ length: depth }, (_, i) => {
        const length = 4 * (depth - i)
        return [length & 0xff, length >> 8, 2, 0x80]
      })
      tryAll(Uint8Array.from([1, 0, 0, 0, ...nests.flat()]))
    }
  })
})
