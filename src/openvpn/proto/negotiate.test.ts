import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { loadVectors } from '../../../test/vectors/load.ts'
import { parsePeerInfo } from '../../wire/peer-info.ts'
import {
  cipherOf,
  clientProto,
  type DataPolicy,
  DEFAULT_DATA_CIPHERS,
  type Negotiated,
  negotiateAsClient,
  negotiateAsServer,
} from './negotiate.ts'
import { parseOption, splitOptions } from './push.ts'

const POLICY: DataPolicy = { dataCiphers: DEFAULT_DATA_CIPHERS, epoch: true }
const OPTIONS = 'V4,dev-type tun,key-method 2,tls-client'
const ALL = 'IV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\n'

/** What a server pushes, or says why not. */
function push(
  info: string,
  options = OPTIONS,
  policy: Partial<DataPolicy> = {},
): string[] | string {
  const result = negotiateAsServer({ ...POLICY, ...policy }, parsePeerInfo(info), options)
  return 'refused' in result ? result.tell : result.push
}

describe('what a server pushes to clients of all ages', () => {
  const rows: [info: string, expected: string[], why: string][] = [
    ['IV_PROTO=2\nIV_NCP=2\n', ['cipher AES-256-GCM'], '2.4: two ciphers, keys from the PRF'],
    [`IV_PROTO=6\n${ALL}`, ['cipher AES-256-GCM'], '2.5: a list of ciphers'],
    [
      `IV_PROTO=14\n${ALL}`,
      ['cipher AES-256-GCM', 'key-derivation tls-ekm'],
      'keys from TLS, no flags',
    ],
    [`IV_PROTO=478\n${ALL}`, ['cipher AES-256-GCM', 'protocol-flags cc-exit tls-ekm'], '2.6.0'],
    [
      `IV_PROTO=990\n${ALL}`,
      ['cipher AES-256-GCM', 'protocol-flags cc-exit tls-ekm dyn-tls-crypt'],
      '2.6',
    ],
    [
      `IV_PROTO=8094\n${ALL}`,
      ['cipher AES-256-GCM', 'protocol-flags cc-exit tls-ekm dyn-tls-crypt aead-epoch'],
      '2.7 and OpenVPN 3',
    ],
    [
      `IV_PROTO=2974\n${ALL}`,
      ['cipher AES-256-GCM', 'protocol-flags cc-exit tls-ekm dyn-tls-crypt'],
      '2.7 with kernel offload',
    ],
    [`IV_PROTO=1538\n${ALL}`, ['cipher AES-256-GCM'], 'bits that need others which are not there'],
  ]
  for (const [info, expected, why] of rows) {
    it(why, () => assert.deepEqual(push(info), expected))
  }

  it('no epochs where the driver has none', () => {
    const flags = 'protocol-flags cc-exit tls-ekm dyn-tls-crypt'
    assert.deepEqual(push(`IV_PROTO=8094\n${ALL}`, OPTIONS, { epoch: false }), [
      'cipher AES-256-GCM',
      flags,
    ])
  })

  it('nothing where a client cannot negotiate, but has a cipher of ours', () => {
    assert.deepEqual(push('IV_PROTO=2\n', `${OPTIONS},cipher AES-128-GCM`), [])
  })
})

describe('the cipher', () => {
  type Row = [
    info: string,
    options: string,
    policy: Partial<DataPolicy>,
    cipher: string | undefined,
    why: string,
  ]
  const old = (cipher: string) => `${OPTIONS},cipher ${cipher}`
  const rows: Row[] = [
    ['IV_CIPHERS=AES-128-GCM:AES-256-GCM', OPTIONS, {}, 'AES-256-GCM', "the server's order counts"],
    ['IV_CIPHERS=aes-128-gcm', OPTIONS, {}, 'AES-128-GCM', 'in any case'],
    ['IV_CIPHERS=AES-256-CBC', OPTIONS, {}, undefined, 'nothing in common'],
    [
      'IV_CIPHERS=AES-256-CBC',
      OPTIONS,
      { fallback: 'AES-256-GCM' },
      undefined,
      'the fallback is for those who tell nothing',
    ],
    [
      'IV_NCP=2',
      old('AES-192-GCM'),
      { dataCiphers: ['AES-192-GCM', 'AES-128-GCM'] },
      'AES-192-GCM',
      'its own beside the two',
    ],
    ['IV_NCP=1', old('AES-128-GCM'), {}, 'AES-128-GCM', 'its own alone'],
    ['', old('BF-CBC'), {}, undefined, 'an old one'],
    ['', OPTIONS, {}, undefined, 'nothing is known'],
    [
      '',
      OPTIONS,
      { fallback: 'AES-256-GCM' },
      'AES-256-GCM',
      'nothing is known, but there is a fallback',
    ],
    [
      '',
      OPTIONS,
      { fallback: 'AES-256-CBC' },
      undefined,
      'a fallback that the driver does not have',
    ],
    [
      'IV_CIPHERS=AES-256-GCM',
      OPTIONS,
      { dataCiphers: ['id-aes256-GCM'] },
      'AES-256-GCM',
      "OpenSSL's name",
    ],
    [
      'IV_CIPHERS=AES-256-CBC',
      OPTIONS,
      { dataCiphers: ['AES-256-CBC'] },
      undefined,
      'in common, but the driver has it not',
    ],
  ]
  for (const [info, options, policy, cipher, why] of rows) {
    it(`${cipher}: ${why}`, () => {
      const proto = parsePeerInfo(`IV_PROTO=2\n${info}\n`)
      const result = negotiateAsServer({ ...POLICY, ...policy }, proto, options)
      if (cipher === undefined)
        assert.ok('refused' in result && /no shared cipher/.test(result.tell))
      else assert.ok('negotiated' in result && result.negotiated.cipher === cipher)
    })
  }

  it('of each name has its key', () => {
    assert.deepEqual(cipherOf('aes-192-gcm'), { alg: 'aes-gcm', keyBytes: 24 })
    assert.deepEqual(cipherOf('ChaCha20-Poly1305'), { alg: 'chacha20-poly1305', keyBytes: 32 })
    assert.equal(cipherOf('AES-256-CBC'), undefined)
    assert.equal(cipherOf('constructor'), undefined)
  })
})

describe('clients that a server refuses', () => {
  it('those without data packets of version 2', () => {
    assert.match(push(`IV_PROTO=4\n${ALL}`) as string, /OpenVPN 2\.4 or later/)
    assert.match(push('') as string, /OpenVPN 2\.4 or later/)
  })

  it('those without keys from TLS, if it insists', () => {
    assert.match(push(`IV_PROTO=6\n${ALL}`, OPTIONS, { requireTlsEkm: true }) as string, /tls-ekm/)
    assert.ok(Array.isArray(push(`IV_PROTO=990\n${ALL}`, OPTIONS, { requireTlsEkm: true })))
  })

  it('those with compression, if they cannot be told to leave it', () => {
    const compressed = `${OPTIONS},comp-lzo`
    assert.match(push(`IV_PROTO=990\n${ALL}`, compressed) as string, /Compression/)
    const pushed = push(`IV_PROTO=990\n${ALL}IV_COMP_STUBv2=1\n`, compressed)
    assert.equal(pushed[0], 'compress stub-v2')
  })
})

/** What a client makes of a reply. */
function agree(reply: string, options = OPTIONS, policy: Partial<DataPolicy> = {}) {
  const words = splitOptions(reply).map((option) => parseOption(option)!)
  return negotiateAsClient({ ...POLICY, ...policy }, words, options)
}

describe('what a client agrees on', () => {
  const none: Negotiated = {
    cipher: 'AES-256-GCM',
    tlsEkm: false,
    epoch: false,
    dynamicWrap: false,
    exitMessage: false,
  }
  const rows: [reply: string, expected: Negotiated, why: string][] = [
    ['peer-id 0,cipher AES-256-GCM', none, 'an old server'],
    [
      'peer-id 0,cipher AES-256-GCM,key-derivation tls-ekm',
      { ...none, tlsEkm: true },
      'keys from TLS',
    ],
    [
      'peer-id 3,cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt aead-epoch',
      { ...none, tlsEkm: true, epoch: true, dynamicWrap: true, exitMessage: true },
      'all there is',
    ],
    ['peer-id 0,cipher AES-256-GCM,compress stub-v2', none, 'a stub that changes nothing'],
    ['cipher AES-128-GCM,peer-id 0,cipher AES-256-GCM', none, 'of two the last'],
  ]
  for (const [reply, expected, why] of rows) {
    it(why, () => {
      const result = agree(reply)
      assert.ok('negotiated' in result)
      assert.deepEqual(result.negotiated, expected)
      assert.deepEqual(result.warnings, [])
    })
  }

  it('flags behind one that nobody knows do not count', () => {
    const result = agree('peer-id 0,cipher AES-256-GCM,protocol-flags cc-exit new-format tls-ekm')
    assert.ok('negotiated' in result)
    assert.deepEqual(result.negotiated, { ...none, exitMessage: true })
    assert.match(result.warnings.join(), /new-format/)
  })

  it('warns of a server that frames packets and does not say how', () => {
    for (const [pushed, warnings] of [
      ['', 1],
      [',compress stub-v2', 0],
    ] as const) {
      const result = agree(`peer-id 0,cipher AES-256-GCM${pushed}`, `${OPTIONS},comp-lzo`)
      assert.ok('negotiated' in result)
      assert.equal(result.warnings.length, warnings, pushed)
    }
  })

  type CipherRow = [
    reply: string,
    options: string,
    policy: Partial<DataPolicy>,
    cipher: string | RegExp,
    why: string,
  ]
  const ciphers: CipherRow[] = [
    [
      '',
      `${OPTIONS},cipher AES-128-GCM`,
      {},
      'AES-128-GCM',
      "the server's own, as its options string says",
    ],
    ['', OPTIONS, { fallback: 'AES-128-GCM' }, 'AES-128-GCM', 'the fallback'],
    ['', `${OPTIONS},cipher BF-CBC`, {}, /did not negotiate a cipher and uses BF-CBC/, 'too old'],
    ['', OPTIONS, {}, /one that it does not name/, 'nothing is known'],
    [
      ',cipher AES-256-CBC',
      OPTIONS,
      {},
      /pushed the cipher AES-256-CBC; data-ciphers allows AES-256/,
      'not allowed',
    ],
    [',cipher AES-192-GCM', OPTIONS, {}, /data-ciphers allows/, 'known, but not allowed'],
    [',cipher chacha20-poly1305', OPTIONS, {}, 'CHACHA20-POLY1305', 'in any case'],
  ]
  for (const [reply, options, policy, cipher, why] of ciphers) {
    it(`cipher: ${why}`, () => {
      const result = agree(`peer-id 0${reply}`, options, policy)
      if (typeof cipher !== 'string') assert.ok('refused' in result && cipher.test(result.refused))
      else assert.ok('negotiated' in result && result.negotiated.cipher === cipher)
    })
  }

  const refusals: [reply: string, policy: Partial<DataPolicy>, text: RegExp, why: string][] = [
    ['cipher AES-256-GCM', {}, /peer id/, 'no data packets of version 2'],
    ['peer-id 16777215,cipher AES-256-GCM', {}, /peer id/, 'a peer id that is nobody'],
    ['peer-id x,cipher AES-256-GCM', {}, /peer id/, 'no number'],
    [
      'peer-id 0,cipher AES-256-GCM,comp-lzo no',
      {},
      /compression \(comp-lzo no\)/,
      'a byte in each packet',
    ],
    ['peer-id 0,cipher AES-256-GCM,compress', {}, /compression \(compress\)/, 'the same'],
    ['peer-id 0,cipher AES-256-GCM,compress lz4-v2', {}, /compression/, 'it would compress'],
    [
      'peer-id 0,cipher AES-256-GCM,protocol-flags aead-epoch',
      { epoch: false },
      /epoch/,
      'never offered',
    ],
  ]
  for (const [reply, policy, text, why] of refusals) {
    it(`refuses: ${why}`, () => {
      const result = agree(reply, OPTIONS, policy)
      assert.ok('refused' in result)
      assert.match(result.refused, text)
    })
  }

  for (const session of loadVectors('live-sessions').sessions) {
    if (session.push_reply_text === undefined) continue
    it(`reads what a stock server pushed: ${session.name}`, () => {
      const result = agree(session.push_reply_text!.slice('PUSH_REPLY,'.length))
      if (session.name.includes('DATA_V1')) {
        assert.ok('refused' in result && /version 2/.test(result.refused))
        return
      }
      assert.ok('negotiated' in result)
      const { cipher, tlsEkm, epoch } = result.negotiated
      assert.equal(cipher, session.cipher)
      assert.equal(tlsEkm, session.derivation === 'tls-ekm')
      assert.equal(epoch, session.data_format === 'epoch')
      assert.equal(result.peerId, 0)
    })
  }

  it('announces what it can, as OpenVPN 2.7 does', () => {
    assert.equal(clientProto(true), 8094)
    assert.equal(clientProto(false), 8094 - 1024)
  })
})

it('a server and a client of ours agree', () => {
  for (const epoch of [true, false]) {
    const info = parsePeerInfo(`IV_PROTO=${clientProto(epoch)}\n${ALL}`)
    const server = negotiateAsServer(POLICY, info, OPTIONS)
    assert.ok('negotiated' in server)
    const client = agree(['peer-id 1', ...server.push].join(), OPTIONS, { epoch })
    assert.ok('negotiated' in client)
    assert.deepEqual(client.negotiated, server.negotiated)
  }
})
