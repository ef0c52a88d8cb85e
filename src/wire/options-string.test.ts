import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { hex, loadVectors } from '../../test/vectors/load.ts'
import { decodeKeyMessage } from './keys.ts'
import {
  formatOptionsString,
  type LocalOptions,
  linkMtu,
  parseOptionsString,
} from './options-string.ts'

const plain: LocalOptions = { role: 'client', tunMtu: 1500, tcp: false, auth: 'SHA1' }

describe('options strings', () => {
  const written: [change: Partial<LocalOptions>, text: string, why: string][] = [
    [
      {},
      'V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client',
      'a client of 2.6, as recorded',
    ],
    [
      { auth: 'SHA256', keyDirection: 1 },
      'V4,dev-type tun,link-mtu 1553,tun-mtu 1500,proto UDPv4,keydir 1,auth SHA256,keysize 128,tls-auth,key-method 2,tls-client',
      'a client of 2.7 with tls-auth, as recorded',
    ],
    [
      { auth: 'SHA256', keyDirection: 0, role: 'server' },
      'V4,dev-type tun,link-mtu 1553,tun-mtu 1500,proto UDPv4,keydir 0,auth SHA256,keysize 128,tls-auth,key-method 2,tls-server',
      'a server of 2.6 with tls-auth, as recorded',
    ],
    [
      { cipher: 'AES-256-GCM' },
      'V4,dev-type tun,link-mtu 1549,tun-mtu 1500,proto UDPv4,cipher AES-256-GCM,auth [null-digest],keysize 256,key-method 2,tls-client',
      'with a cipher configured, as recorded',
    ],
    [
      { tcp: true, keyDirection: 'none', role: 'server', compLzo: true },
      'V4,dev-type tun,link-mtu 1544,tun-mtu 1500,proto TCPv4_SERVER,comp-lzo,auth SHA1,keysize 128,tls-auth,key-method 2,tls-server',
      'TCP, tls-auth with one key, compression',
    ],
    [
      { cipher: 'none', auth: 'none' },
      'V4,dev-type tun,link-mtu 1505,tun-mtu 1500,proto UDPv4,cipher [null-cipher],auth [null-digest],keysize 0,key-method 2,tls-client',
      'nothing sealed',
    ],
  ]
  for (const [change, text, why] of written) {
    it(why, () => assert.equal(formatOptionsString({ ...plain, ...change }), text))
  }

  for (const row of loadVectors('mtu').occ_link_mtu) {
    if (!row.tls) continue // of static key mode, which nobody has here
    it(`link-mtu as published: ${row.cipher}, ${row.auth}, ${row.transport}`, () => {
      const { cipher, auth } = row
      const tcp = row.transport === 'tcp'
      assert.equal(linkMtu({ tunMtu: row.tun_mtu, cipher, auth, tcp }), row.link_mtu)
    })
  }

  it('recorded ones are read', () => {
    for (const session of loadVectors('live-sessions').sessions) {
      const { options } = decodeKeyMessage(hex(session.key_method_2_client), 'client')!
      const { fields, compLzo, cipher } = parseOptionsString(options)
      assert.equal(fields.get('dev-type'), 'tun')
      assert.equal(fields.get('tls-client'), '')
      assert.equal(compLzo, false)
      assert.equal(cipher, /cipher ([^,]+)/.exec(options)?.[1])
    }
  })

  const read: [text: string, cipher: string | undefined, compLzo: boolean, why: string][] = [
    ['', undefined, false, 'nothing'],
    ['V4,comp-lzo,cipher BF-CBC', 'BF-CBC', true, 'compression'],
    ['V4,cipher [null-cipher]', '[null-cipher]', false, 'no cipher'],
    ['V4,cipher A\u0001B', undefined, false, 'a character that nobody prints'],
    [`V4,cipher ${'A'.repeat(200)}`, undefined, false, 'a long field'],
    [`${'V4,'.repeat(40)}cipher A`, undefined, false, 'more fields than there are'],
  ]
  for (const [text, cipher, compLzo, why] of read) {
    it(`read: ${why}`, () => {
      const options = parseOptionsString(text)
      assert.deepEqual([options.cipher, options.compLzo], [cipher, compLzo])
    })
  }

  it('never throws', () => {
    const random = new Random(4)
    for (let round = 0; round < 500; round++) {
      const noise = Buffer.from(random.bytes(random.below(300))).toString('latin1')
      parseOptionsString(noise)
    }
  })
})
