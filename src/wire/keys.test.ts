import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { hex, loadVectors } from '../../test/vectors/load.ts'
import {
  createKeySource,
  dataKeys,
  decodeKeyMessage,
  deriveKey2,
  encodeKeyMessage,
  type KeyMessage,
  type KeySource,
  MAX_KEY_MESSAGE_BYTES,
  tls1Prf,
} from './keys.ts'

const random = new Random(9)
const source = createKeySource('client', (count) => random.bytes(count))
const empty = { options: '', username: '', password: '', peerInfo: '' }

describe('derivation', () => {
  const { tls1_prf, key_method_2_derivation } = loadVectors('prf')
  for (const { name, secret, seed, length, output } of tls1_prf) {
    it(`the PRF of TLS 1.0: ${name}`, () => {
      assert.deepEqual(tls1Prf(hex(secret), hex(seed), length), hex(output))
    })
  }
  for (const row of key_method_2_derivation) {
    it(`key2: ${row.name}`, () => {
      const client: KeySource = {
        preMaster: hex(row.client_pre_master),
        random1: hex(row.client_random1),
        random2: hex(row.client_random2),
      }
      const server = { random1: hex(row.server_random1), random2: hex(row.server_random2) }
      const ids = { client: hex(row.client_session_id), server: hex(row.server_session_id) }
      assert.deepEqual(deriveKey2(client, server, ids), hex(row.key2))
    })
  }

  it('wants what each end puts in', () => {
    const { preMaster: _, ...server } = source
    const ids = { client: new Uint8Array(8), server: new Uint8Array(8) }
    assert.throws(() => deriveKey2(server, server, ids), /pre-master/)
    const short = { ...ids, server: new Uint8Array(7) }
    assert.throws(() => deriveKey2(source, server, short), /session id/)
  })
})

describe('recorded key messages', () => {
  for (const session of loadVectors('live-sessions').sessions) {
    it(`${session.name}, ${session.server_text ?? session.client_text}`, () => {
      const client = decodeKeyMessage(hex(session.key_method_2_client), 'client')
      const server = decodeKeyMessage(hex(session.key_method_2_server), 'server')
      assert.ok(client && server)
      assert.match(client.options, /^V4,dev-type tun,.*,tls-client$/)
      if (session.peer_info_text !== undefined) {
        assert.equal(client.peerInfo, session.peer_info_text)
      }
      assert.equal(client.length, session.key_method_2_client.length / 2)
      assert.equal(server.length, session.key_method_2_server.length / 2)
      if (session.derivation !== 'prf') return
      const ids = {
        client: hex(session.client_session_id),
        server: hex(session.server_session_id),
      }
      assert.deepEqual(deriveKey2(client.source, server.source, ids), hex(session.key2))
    })
  }
})

describe('key messages', () => {
  const derivations = loadVectors('prf').key_method_2_derivation
  for (const row of loadVectors('key-method-2').cases) {
    it(row.name, () => {
      const end = row.name.startsWith('client') ? 'client' : 'server'
      const bytes = hex(row.message)
      const message = decodeKeyMessage(bytes, end)
      assert.ok(message)
      const given = derivations.find(({ name }) => name === row.derivation_case)!
      const expected = end === 'client' ? given.client_random2 : given.server_random2
      assert.deepEqual(message.source.random2, hex(expected))
      assert.equal(message.options, row.options_text)
      assert.equal(message.username, row.username_text ?? '')
      assert.equal(message.password, row.password_text ?? '')
      assert.equal(message.peerInfo, row.peer_info_text ?? '')
      assert.equal(message.length, bytes.length)
      const whole = row.name.includes('short form') ? [...bytes, 0, 0, 0, 0, 0, 0] : [...bytes]
      assert.deepEqual([...encodeKeyMessage(message)], whole)
    })
  }

  const message: KeyMessage = {
    source,
    options: 'V4,dev-type tun',
    username: 'jörg',
    password: '密码',
    peerInfo: 'IV_VER=1\n',
  }
  const bytes = encodeKeyMessage(message)

  it('round trip, text beyond ASCII', () => {
    assert.deepEqual(decodeKeyMessage(bytes, 'client'), { ...message, length: bytes.length })
  })

  it('cut short anywhere: refused, but where whole texts are missing at the end', () => {
    const taken: number[] = []
    for (let length = 0; length < bytes.length; length++) {
      const read = decodeKeyMessage(bytes.subarray(0, length), 'client')
      if (read !== undefined) taken.push(length)
    }
    const starts = [117, 117 + 18, 117 + 18 + 8, 117 + 18 + 8 + 9]
    assert.deepEqual(taken, starts)
  })

  it('never throws, whatever comes', () => {
    for (let round = 0; round < 3000; round++) {
      const noise = random.bytes(random.below(300))
      if (noise.length > 5) noise.set([0, 0, 0, 0, 2])
      decodeKeyMessage(noise, 'client')
      decodeKeyMessage(noise, 'server')
      const changed = Uint8Array.from(bytes)
      changed[random.below(bytes.length)] = random.below(256)
      decodeKeyMessage(changed, 'client')
    }
  })

  const { preMaster: _, ...serverSource } = source
  const short = encodeKeyMessage({ ...empty, source: serverSource, options: 'V4' }).slice(0, -6)

  it("a control message behind a server's short form is left", () => {
    const followed = Buffer.concat([short, Buffer.from('PUSH_REPLY\0')])
    const read = decodeKeyMessage(followed, 'server')
    assert.equal(read?.options, 'V4')
    assert.equal(followed.subarray(read!.length).toString(), 'PUSH_REPLY\0')
  })

  const change = (at: number, ...to: number[]) => {
    const changed = Uint8Array.from(bytes)
    changed.set(to, at)
    return changed
  }
  const bad: [bytes: Uint8Array, why: string][] = [
    [change(0, 1), 'no zeros before it'],
    [change(4, 1), 'key method 1'],
    [change(4, 3), 'key method 3'],
    [change(117, 0xff, 0xff), 'a text beyond the end'],
    [change(120, 0), 'a NUL within a text'],
    [change(117 + 2 + 15, 0x41), 'no NUL at the end of a text'],
  ]
  for (const [bytes, why] of bad) {
    it(`refused: ${why}`, () => assert.equal(decodeKeyMessage(bytes, 'client'), undefined))
  }

  it('flags beside the method are ignored', () => {
    assert.ok(decodeKeyMessage(change(4, 0xf2), 'client'))
  })

  it('empty texts may have a NUL of their own', () => {
    const text = Uint8Array.from([...bytes.subarray(0, 117), 0, 1, 0, 0, 1, 0])
    const read = decodeKeyMessage(text, 'client')
    assert.deepEqual([read?.options, read?.username, read?.length], ['', '', text.length])
  })

  it('what the peer could not read is not written', () => {
    const longest = MAX_KEY_MESSAGE_BYTES - 117 - 6 - 3
    const write = (text: string) => encodeKeyMessage({ ...empty, source, peerInfo: text })
    assert.equal(write('x'.repeat(longest)).length, MAX_KEY_MESSAGE_BYTES)
    assert.throws(() => write('x'.repeat(longest + 1)), /2049 bytes/)
    assert.throws(() => write('a\0b'), /NUL/)
  })

  it('sources have the lengths of the format', () => {
    const sizes = [source.preMaster?.length, source.random1.length, source.random2.length]
    assert.deepEqual(sizes, [48, 32, 32])
    assert.equal(createKeySource('server', (count) => new Uint8Array(count)).preMaster, undefined)
  })
})

describe('what each direction takes of key2', () => {
  /** Byte `i` is `i`: every part is told by its first byte. */
  const key2 = Uint8Array.from({ length: 256 }, (_, i) => i)

  it('a client sends with the first half', () => {
    const { encryptDir, decryptDir } = dataKeys(key2, 'client', 32)
    assert.deepEqual([encryptDir.cipherKey[0], encryptDir.nonceTail[0]], [0, 64])
    assert.deepEqual([decryptDir.cipherKey[0], decryptDir.nonceTail[0]], [128, 192])
  })

  it('a server is the other end of it', () => {
    const client = dataKeys(key2, 'client', 16)
    const server = dataKeys(key2, 'server', 16)
    assert.deepEqual(server.encryptDir, client.decryptDir)
    assert.deepEqual(server.decryptDir, client.encryptDir)
    assert.equal(server.encryptDir.cipherKey.length, 16)
    assert.equal(server.encryptDir.nonceTail.length, 8)
  })

  it('gives copies: wiping key2 leaves them', () => {
    const copy = Buffer.from(key2) // what TLS exports is one, too
    const { encryptDir } = dataKeys(copy, 'server', 32)
    copy.fill(0)
    assert.equal(encryptDir.cipherKey[0], 128)
  })
})
