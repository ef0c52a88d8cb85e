import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../test/random.ts'
import { hex, loadVectors } from '../../test/vectors/load.ts'
import {
  AUTH_TOKEN_KEY_BYTES,
  formatAuthTokenKey,
  formatClientKey,
  formatServerKey,
  formatStaticKey,
  parseAuthTokenKey,
  parseClientKey,
  parseServerKey,
  parseStaticKey,
} from './static-key.ts'
import { sealWkc } from './wkc.ts'

const random = new Random(5)
const staticKey = random.bytes(256)
const serverKey = random.bytes(128)
const client = { key: staticKey, wkc: sealWkc(serverKey, staticKey, random.bytes(9)) }
const tokenKey = random.bytes(AUTH_TOKEN_KEY_BYTES)

describe('key files', () => {
  it('are read as they are written', () => {
    assert.deepEqual(parseStaticKey(formatStaticKey(staticKey)), staticKey)
    assert.deepEqual(parseServerKey(formatServerKey(serverKey)), serverKey)
    assert.deepEqual(parseClientKey(formatClientKey(client)), client)
    assert.deepEqual(parseAuthTokenKey(formatAuthTokenKey(tokenKey)), tokenKey.slice(64, 96))
  })

  it('a static key has 16 lines of 32 digits in its frame, and comments before', () => {
    const lines = formatStaticKey(staticKey).split('\n')
    assert.equal(lines.length, 3 + 1 + 16 + 1 + 1)
    assert.ok(lines.slice(0, 3).every((line) => line.startsWith('#')))
    assert.ok(lines.slice(4, 20).every((line) => /^[0-9a-f]{32}$/.test(line)))
  })

  for (const row of loadVectors('tls-crypt-v2').wkc) {
    if (row.client_pem_body_b64 === undefined) continue
    it(`a client's key as published: ${row.name}`, () => {
      const name = 'OpenVPN tls-crypt-v2 client key'
      const text = `-----BEGIN ${name}-----\n${row.client_pem_body_b64}\n-----END ${name}-----\n`
      assert.deepEqual(parseClientKey(text), { key: hex(row.client_key), wkc: hex(row.wkc) })
    })
  }

  const text = formatStaticKey(staticKey)
  const server = formatServerKey(serverKey)
  const good: [text: string, why: string][] = [
    [text.replaceAll('\n', '\r\n'), 'CRLF'],
    [text.toUpperCase().replace(/OPENVPN STATIC KEY/g, 'OpenVPN Static key'), 'capitals'],
    [`\ufeff${text}`, 'a mark of byte order'],
    [text.replaceAll('\n', '\n  '), 'lines that are indented, as in a profile'],
    [`remote here\n${text}more\n`, 'text around it'],
    [text.slice(text.indexOf('-----')), 'no comment'],
  ]
  for (const [text, why] of good) {
    it(`read in spite of ${why}`, () => assert.deepEqual(parseStaticKey(text), staticKey))
  }

  const bad: [call: () => unknown, message: RegExp, why: string][] = [
    [() => parseStaticKey(''), /expected an OpenVPN Static key V1, a line "-----BEGIN/, 'empty'],
    [() => parseStaticKey(server), /there is: OpenVPN tls-crypt-v2 server key/, 'another key'],
    [() => parseServerKey(formatClientKey(client)), /client key/, "a client's for a server's"],
    [() => parseClientKey(server), /server key/, "a server's for a client's"],
    [() => parseStaticKey(text.slice(0, -10)), /without its last line/, 'no last line'],
    [() => parseStaticKey(text.replace(/[0-9a-f]{32}\n/, '')), /256 bytes, not 240/, 'a line less'],
    [() => parseStaticKey(text.replace(/[0-9a-f]\n/, 'g\n')), /digits only/, 'no digit'],
    [() => parseStaticKey(text.replace(/[0-9a-f]\n/, '\n')), /not 255/, 'a digit less'],
    [() => parseServerKey(server.replace(/[A-Za-z0-9]\n/, '?\n')), /base64/, 'no base64'],
    [() => parseServerKey(server.replace(/.*=\n/, '')), /not (9|1[012])/, 'a shorter one'],
    [
      () => parseClientKey(formatClientKey({ ...client, wkc: client.wkc.subarray(1) })),
      /wrapped key behind/,
      'a wrapped key that is cut',
    ],
    [
      () => parseAuthTokenKey(formatAuthTokenKey(tokenKey).replace(/.*\n(?=-----END)/, '')),
      /not 96/,
      'a short token key',
    ],
    [() => formatStaticKey(serverKey), /256 bytes, not 128/, 'writing a short one'],
  ]
  for (const [call, message, why] of bad) {
    it(`refused: ${why}`, () => assert.throws(call, message))
  }

  it('errors do not show what was found', () => {
    const secret = formatStaticKey(staticKey).replace(/\n([0-9a-f]{31})[0-9a-f]\n/, '\n$1x\n')
    assert.throws(
      () => parseStaticKey(secret),
      (error: Error) => !error.message.includes(Buffer.from(staticKey).toString('hex', 0, 4)),
    )
  })
})
