import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parsePeerInfo } from '../../wire/peer-info.ts'
import { DEFAULT_DATA_CIPHERS } from '../proto/negotiate.ts'
import { clientPeerInfo, type PeerInfoOptions } from './peer-info.ts'

const MACHINE = {
  hardwareAddress: '02:00:5e:10:00:01',
  tls: 'BoringSSL of Bun 1.4.5',
  release: '6.1',
}

const told = (options: Partial<PeerInfoOptions> = {}) =>
  clientPeerInfo({
    ...{ version: '1.0', tunMtuMax: 1600, dataCiphers: DEFAULT_DATA_CIPHERS, epoch: true },
    ...{ environment: [], machine: undefined },
    ...options,
  })
const lines = (options: Partial<PeerInfoOptions>) => told(options).split('\n')

describe('what a client tells of itself', () => {
  it('what it can do, as OpenVPN 2.7 does, but for the compression it does not have', () => {
    const ciphers = 'AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305'
    assert.equal(
      told(),
      `IV_VER=1.0\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\nIV_CIPHERS=${ciphers}\nIV_PROTO=8094\nIV_COMP_STUBv2=1\nIV_SSO=openurl,webauth,crtext\n`,
    )
  })

  const rows: [options: Partial<PeerInfoOptions>, has: string[], hasNot: RegExp, why: string][] = [
    [{}, [], /HWADDR|IV_SSL|PLAT_VER|UV_/, 'no more than it must'],
    [{ epoch: false }, ['IV_PROTO=7070'], /8094/, 'a driver without epochs'],
    [
      { machine: MACHINE },
      ['IV_HWADDR=02:00:5e:10:00:01', 'IV_SSL=BoringSSL of Bun 1.4.5', 'IV_PLAT_VER=6.1'],
      /UV_/,
      'push-peer-info: the machine',
    ],
    [
      { machine: { ...MACHINE, hardwareAddress: undefined } },
      ['IV_PLAT_VER=6.1'],
      /HWADDR/,
      'no default route: no hardware address',
    ],
    [
      {
        machine: MACHINE,
        environment: [
          ['UV_SEAT', '12'],
          ['COLOUR', 'blue'],
        ],
      },
      ['UV_SEAT=12'],
      /COLOUR/,
      'what the user wants told',
    ],
    [{ environment: [['UV_SEAT', '12']] }, [], /UV_/, 'not without push-peer-info'],
    [
      {
        environment: [
          ['IV_GUI_VER', 'desk 1'],
          ['IV_SSO', 'webauth'],
          ['IV_PLAT_VER', '9'],
        ],
      },
      ['IV_GUI_VER=desk 1', 'IV_SSO=webauth'],
      /crtext|PLAT_VER/,
      'what a user interface says of itself',
    ],
    [
      {
        machine: MACHINE,
        environment: [
          ['IV_PLAT_VER', '9'],
          ['UV_a-b', 'x'],
          ['IV_VER', '9'],
        ],
      },
      ['IV_PLAT_VER=9', 'IV_VER=1.0'],
      /UV_a/,
      'nothing that a server would not read, or must not believe',
    ],
    [
      { dataCiphers: ['CHACHA20-POLY1305', 'AES-256-GCM'] },
      ['IV_CIPHERS=CHACHA20-POLY1305:AES-256-GCM'],
      /IV_NCP/,
      'a server of 2.4 would choose what is not offered',
    ],
    [
      { dataCiphers: ['aes-256-gcm', 'aes-128-gcm'] },
      ['IV_NCP=2'],
      /CHACHA/,
      'names in small letters',
    ],
  ]
  for (const [options, has, hasNot, why] of rows) {
    it(why, () => {
      const all = lines(options)
      for (const line of has) assert.ok(all.includes(line), `${line} in ${all}`)
      assert.doesNotMatch(all.join('\n'), hasNot)
      assert.equal(parsePeerInfo(told(options)).entries.size, all.length - 1, 'read as it is told')
    })
  }

  it('what is too much is left out, not what it can do', () => {
    const environment = Array.from({ length: 60 }, (_, i) => [`UV_${i}`, 'x'.repeat(100)] as const)
    const text = told({ machine: MACHINE, environment })
    assert.ok(text.length <= 1535 && text.length > 1400, `${text.length}`)
    assert.match(text, /IV_PROTO=8094\n/)
  })
})
