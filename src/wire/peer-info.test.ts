import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { loadVectors } from '../../test/vectors/load.ts'
import { formatPeerInfo, Proto, parsePeerInfo } from './peer-info.ts'

const ALL_27 =
  'IV_VER=2.7.6\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n' +
  'IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\nIV_PROTO=8094\nIV_SSO=webauth,crtext\n'

describe('peer info', () => {
  it('of OpenVPN 2.7', () => {
    const { entries, ...info } = parsePeerInfo(ALL_27)
    assert.deepEqual(info, {
      proto: 8094,
      ncp: 2,
      ciphers: ['AES-256-GCM', 'AES-128-GCM', 'CHACHA20-POLY1305'],
      mtu: 1600,
      sso: ['webauth', 'crtext'],
    })
    assert.equal(entries.get('IV_VER'), '2.7.6')
    assert.equal(formatPeerInfo(entries), ALL_27)
  })

  it('recorded ones are written as they came', () => {
    let count = 0
    for (const { peer_info_text } of loadVectors('live-sessions').sessions) {
      if (peer_info_text === undefined) continue
      count++
      assert.equal(formatPeerInfo(parsePeerInfo(peer_info_text).entries), peer_info_text)
    }
    assert.ok(count > 2)
  })

  const protos: [value: number, bits: (keyof typeof Proto)[], why: string][] = [
    [2, ['DataV2'], '2.4'],
    [6, ['DataV2', 'RequestPush'], '2.5'],
    [
      990,
      [
        'DataV2',
        'RequestPush',
        'TlsKeyExport',
        'AuthPendingKeyword',
        'DnsOption',
        'CcExitNotify',
        'AuthFailTemp',
        'DynTlsCrypt',
      ],
      '2.6',
    ],
    [
      2974,
      [
        'DataV2',
        'RequestPush',
        'TlsKeyExport',
        'AuthPendingKeyword',
        'CcExitNotify',
        'AuthFailTemp',
        'DynTlsCrypt',
        'DnsOptionV2',
      ],
      '2.7 with offload in the kernel',
    ],
  ]
  for (const [value, bits, why] of protos) {
    it(`IV_PROTO of ${why}`, () => {
      const names = Object.keys(Proto) as (keyof typeof Proto)[]
      assert.deepEqual(
        names.filter((name) => value & Proto[name]),
        bits,
      )
    })
  }
  const rows: [text: string, key: string, value: string | undefined, why: string][] = [
    ['UV_ID=a=b', 'UV_ID', 'a=b', 'only the first "=" counts'],
    ['IV_VER=1\nIV_VER=2', 'IV_VER', '2', 'the last value counts'],
    ['IV_VER=', 'IV_VER', '', 'an empty value'],
    ['PATH=/tmp', 'PATH', undefined, 'a key that is none of ours'],
    ['IV_A B=1', 'IV_A B', undefined, 'a key with a blank'],
    ['IV_=1', 'IV_', undefined, 'a key without a name'],
    ['iv_ver=1', 'iv_ver', undefined, 'small letters'],
    ['IV_VER', 'IV_VER', undefined, 'no "="'],
    ['=1', '', undefined, 'no key'],
    [`IV_${'A'.repeat(62)}=1`, `IV_${'A'.repeat(62)}`, undefined, 'a long key'],
    ['UV_A=a\rb\u001b[31m\u0007', 'UV_A', 'a_b_[31m_', 'control characters'],
    ['UV_A=a\u2028b\u0085', 'UV_A', 'a_b_', 'line ends beyond ASCII'],
    ['UV_A=Jörg 密', 'UV_A', 'Jörg 密', 'letters beyond ASCII'],
    [`UV_A=${'x'.repeat(600)}`, 'UV_A', 'x'.repeat(512), 'a long value is cut'],
  ]
  for (const [text, key, value, why] of rows) {
    it(why, () => assert.equal(parsePeerInfo(text).entries.get(key), value))
  }

  const numbers: [text: string, proto: number, why: string][] = [
    ['IV_PROTO=-1', 0, 'a sign'],
    ['IV_PROTO=0x10', 0, 'hexadecimal'],
    ['IV_PROTO=9999999999', 0, 'too many digits'],
    ['IV_PROTO= 2', 0, 'a blank'],
    ['IV_PROTO=2', 2, 'right'],
  ]
  for (const [text, proto, why] of numbers) {
    it(`IV_PROTO, ${why}`, () => assert.equal(parsePeerInfo(text).proto, proto))
  }

  const ids: [text: string, id: number | undefined, why: string][] = [
    ['ID=4c7032', 0x4c7032, 'as recorded'],
    ['ID=0', 0, 'the least'],
    ['ID=1000000', undefined, 'more than 24 bits'],
    ['ID=xyz', undefined, 'no number'],
  ]
  for (const [text, id, why] of ids) {
    it(`ID, ${why}`, () => assert.equal(parsePeerInfo(text).id, id))
  }

  it('is bounded, and never throws', () => {
    const many = Array.from({ length: 1000 }, (_, i) => `UV_K${i}=v`).join('\n')
    assert.equal(parsePeerInfo(many).entries.size, 64)
    const random = new Random(2)
    for (let round = 0; round < 500; round++) {
      parsePeerInfo(Buffer.from(random.bytes(random.below(300))).toString('latin1'))
    }
  })

  it('is written as far as there is room, in whole lines', () => {
    const text = formatPeerInfo(parsePeerInfo(ALL_27).entries, 40)
    assert.equal(text, 'IV_VER=2.7.6\nIV_PLAT=linux\nIV_TCPNL=1\n')
    assert.throws(() => formatPeerInfo([['PATH', 'x']]), RangeError)
    assert.throws(() => formatPeerInfo([['UV_A', 'x\nIV_VER=3']]), RangeError)
  })
})
