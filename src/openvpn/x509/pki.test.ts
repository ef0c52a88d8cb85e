import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { issue } from '../../../test/certificates.ts'
import { parseCertificate, readPem } from './certificate.ts'
import { parseCrl } from './crl.ts'
import { Pki, PkiError } from './pki.ts'
import { createVerifier } from './verifier.ts'

const folder = mkdtempSync(join(tmpdir(), 'ovpn-pki-'))
after(() => rmSync(folder, { recursive: true }))
let count = 0
const freshPath = () => join(folder, String(count++))

const withoutOpenssl =
  spawnSync('openssl', ['version']).error === undefined ? false : 'there is no openssl here'

const code = (expected: string) => (error: Error) =>
  error instanceof PkiError && error.code === expected

function verifierOf(pki: Pki, peer: 'server' | 'client') {
  const crls = readPem(readFileSync(pki.files('').crl, 'utf8'), 'X509 CRL').map(parseCrl)
  const roots = readPem(pki.authority, 'CERTIFICATE')
  const rules = { peer, required: true, roots, crls, certificateFor: peer }
  return createVerifier(rules, () => Date.now() / 1000)
}

const derOf = (path: string) => readPem(readFileSync(path, 'utf8'), 'CERTIFICATE')

describe('a folder with an authority', () => {
  it('gives out certificates that our rules accept, until they are revoked', async () => {
    const pki = await Pki.create(freshPath(), { name: 'Example' })
    const server = await pki.issue('server', 'vpn.example.com')
    const client = await pki.issue('client', 'laptop')
    assert.equal(verifierOf(pki, 'server')(derOf(server.certificate)), undefined)
    assert.equal(verifierOf(pki, 'client')(derOf(client.certificate)), undefined)
    assert.match(
      verifierOf(pki, 'server')(derOf(client.certificate)) ?? '',
      /not for use as a server/,
    )
    const certificate = derOf(client.certificate)
    const [serial] = await pki.revoke('laptop')
    assert.match(verifierOf(pki, 'client')(certificate) ?? '', /it is revoked/)
    assert.equal(
      parseCertificate(certificate[0]!).serialHex.replaceAll(':', '').toUpperCase(),
      serial,
    )
    assert.equal(verifierOf(pki, 'server')(derOf(server.certificate)), undefined)
  })

  it('lists what it gave out, after being opened again too', async () => {
    const path = freshPath()
    const first = await Pki.create(path)
    await first.issue('server', 'a')
    await first.issue('client', 'b', { days: 10 })
    await first.issue('client', 'c')
    await first.revoke('c')
    const pki = Pki.open(path)
    const rows = pki.list().map(({ name, kind, state }) => [name, kind, state])
    assert.deepEqual(rows, [
      ['a', 'server', 'valid'],
      ['b', 'client', 'valid'],
      ['c', 'client', 'revoked'],
    ])
    const later = pki.list(new Date(Date.now() + 11 * 86_400_000))
    assert.deepEqual(
      later.map(({ state }) => state),
      ['valid', 'expired', 'revoked'],
    )
    assert.ok(pki.list()[2]!.revokedAt!.getTime() > Date.now() - 60_000)
  })

  it('renews: another key and certificate, and the old one stays good until it is revoked', async () => {
    const pki = await Pki.create(freshPath())
    const files = await pki.issue('client', 'a')
    const [before, key] = [derOf(files.certificate), readFileSync(files.key, 'utf8')]
    await pki.issue('client', 'a', { renew: true })
    const now = derOf(files.certificate)
    assert.notDeepEqual(now, before)
    assert.notEqual(readFileSync(files.key, 'utf8'), key)
    assert.equal(verifierOf(pki, 'client')(before), undefined)
    assert.equal((await pki.revoke('a')).length, 2)
    for (const certificate of [before, now]) {
      assert.match(verifierOf(pki, 'client')(certificate) ?? '', /it is revoked/)
    }
    assert.ok(!pki.has('a'))
    await pki.issue('client', 'a')
    assert.equal(verifierOf(pki, 'client')(derOf(files.certificate)), undefined)
  })

  it('nobody else may read keys, and nothing half written is left', async () => {
    const path = freshPath()
    const pki = await Pki.create(path)
    const files = await pki.issue('server', 'a')
    for (const key of [files.key, join(path, 'private', 'ca.key')]) {
      assert.equal(statSync(key).mode & 0o777, 0o600, key)
    }
    for (const place of ['private', 'revoked']) {
      assert.equal(statSync(join(path, place)).mode & 0o077, 0, place)
    }
    const all = readdirSync(path, { recursive: true, encoding: 'utf8' })
    assert.deepEqual(
      all.filter((name) => /(^|\/)\./.test(name)),
      [],
    )
  })

  it('no certificate outlives the authority', async () => {
    const pki = await Pki.create(freshPath(), { days: 5 })
    const { certificate } = await pki.issue('client', 'a', { days: 100 })
    const [authority] = readPem(pki.authority, 'CERTIFICATE').map(parseCertificate)
    assert.equal(parseCertificate(derOf(certificate)[0]!).notAfter, authority!.notAfter)
  })

  it('many at once: each is in the index, and has a serial number of its own', async () => {
    const path = freshPath()
    await Pki.create(path)
    const names = Array.from({ length: 12 }, (_, i) => `client${i}`)
    await Promise.all(names.map((name) => Pki.open(path).issue('client', name)))
    const list = Pki.open(path).list()
    assert.deepEqual(list.map(({ name }) => name).sort(), [...names].sort())
    assert.equal(new Set(list.map(({ serial }) => serial)).size, names.length)
  })

  it('a lock of a program that has died is no lock', async () => {
    const path = freshPath()
    const pki = await Pki.create(path)
    const { pid } = spawnSync('true')
    writeFileSync(join(path, '.lock'), String(pid))
    await pki.issue('client', 'a')
    assert.ok(!existsSync(join(path, '.lock')))
  })

  it('the list is written anew without a change', async () => {
    const pki = await Pki.create(freshPath())
    rmSync(pki.files('').crl)
    await pki.refreshCrl()
    assert.equal(readPem(readFileSync(pki.files('').crl, 'utf8'), 'X509 CRL').length, 1)
  })

  const names: [name: string, taken: boolean, why: string][] = [
    ['laptop', true, 'a word'],
    ['user@example.com', true, 'an address'],
    ['vpn-1.example.com', true, 'a host'],
    ['a'.repeat(64), true, 'as long as a common name may be'],
    ['a'.repeat(65), false, 'longer'],
    ['', false, 'nothing'],
    ['ca', false, "the authority's own file"],
    ['../x', false, 'another folder'],
    ['a/b', false, 'a folder'],
    ['.hidden', false, 'a dot first'],
    ['-x', false, 'an option'],
    ['a b', false, 'a blank'],
    ['a\nb', false, 'a line end'],
    ['jörg', false, 'letters that not all programs print'],
  ]
  it('names', async () => {
    const pki = await Pki.create(freshPath())
    for (const [name, taken, why] of names) {
      const result = pki.issue('client', name)
      if (taken) await result
      else await assert.rejects(result, code('PKI_NAME'), why)
    }
  })

  it('says what is wrong', async () => {
    const path = freshPath()
    assert.throws(() => Pki.open(path), code('PKI_MISSING'))
    const pki = await Pki.create(path)
    await assert.rejects(Pki.create(path), code('PKI_EXISTS'))
    await assert.rejects(pki.revoke('nobody'), code('PKI_UNKNOWN'))
    await assert.rejects(pki.issue('client', 'nobody', { renew: true }), code('PKI_UNKNOWN'))
    await pki.issue('client', 'a')
    await assert.rejects(pki.issue('client', 'a'), code('PKI_EXISTS'))
    writeFileSync(join(path, 'index.txt'), 'nonsense\n')
    assert.throws(() => pki.list(), /index.txt:1: not understood/)
    writeFileSync(join(path, 'private', 'ca.key'), 'nonsense\n')
    await assert.rejects(pki.refreshCrl(), code('PKI_BROKEN'))
    writeFileSync(join(path, 'ca.crt'), 'nonsense\n')
    assert.throws(() => Pki.open(path), /there is no certificate in it/)
  })

  it("an authority as easy-rsa makes one: RSA, and more than a common name in the index's lines", async () => {
    const path = freshPath()
    const authority = await issue('CN=Easy-RSA CA', { ca: true, rsa: 2048, keyUsage: 0x06 })
    for (const place of ['issued', 'private', 'revoked']) {
      mkdirSync(join(path, place), { recursive: true })
    }
    writeFileSync(join(path, 'ca.crt'), `Certificate:\n    Data:\n${authority.pem}`)
    writeFileSync(join(path, 'private', 'ca.key'), authority.key)
    const line = 'V\t290225165750Z\t\t0A\tunknown\t/C=DE/O=Example/CN=old\n'
    writeFileSync(join(path, 'index.txt'), line)
    const pki = Pki.open(path)
    const { certificate } = await pki.issue('client', 'a')
    assert.ok(readFileSync(join(path, 'index.txt'), 'utf8').startsWith(line))
    assert.deepEqual(await pki.revoke('old'), ['0A'])
    assert.equal(verifierOf(pki, 'client')(derOf(certificate)), undefined)
  })
})

describe('OpenSSL', { skip: withoutOpenssl }, () => {
  it('accepts what it makes, and refuses what is revoked', async () => {
    const pki = await Pki.create(freshPath())
    const server = await pki.issue('server', 'a')
    const client = await pki.issue('client', 'b')
    const verify = (purpose: string, path: string) =>
      spawnSync(
        'openssl',
        [
          'verify',
          '-x509_strict',
          '-purpose',
          purpose,
          '-crl_check',
          '-CAfile',
          server.ca,
          '-CRLfile',
          server.crl,
          path,
        ],
        { encoding: 'utf8' },
      )
    assert.match(verify('sslserver', server.certificate).stdout, /OK/)
    assert.match(verify('sslclient', client.certificate).stdout, /OK/)
    assert.notEqual(verify('sslserver', client.certificate).status, 0)
    const public1 = execFileSync('openssl', [
      'x509',
      '-in',
      client.certificate,
      '-noout',
      '-pubkey',
    ])
    const public2 = execFileSync('openssl', ['pkey', '-in', client.key, '-pubout'])
    assert.deepEqual(public1, public2)
    const [serial] = await pki.revoke('b')
    const revoked = verify('sslclient', join(pki.directory, 'revoked', `b-${serial}.crt`))
    assert.match(revoked.stderr, /certificate revoked/)
    assert.match(verify('sslserver', server.certificate).stdout, /OK/)
  })
})

const withoutOpenvpn =
  spawnSync('openvpn', ['--version']).error === undefined ? false : 'there is no openvpn here'

/** Two ports that nobody had a moment ago. */
async function freePorts(): Promise<[number, number]> {
  const sockets = [createSocket('udp4'), createSocket('udp4')]
  const ports = sockets.map(async (socket) => {
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    return socket.address().port
  })
  const found = await Promise.all(ports)
  for (const socket of sockets) socket.close()
  return found as [number, number]
}

describe('OpenVPN', { skip: withoutOpenvpn }, () => {
  /** What an OpenVPN server and a client with a certificate and a key say until one of them has seen enough. */
  async function meet(pki: Pki, certificate: string, key: string): Promise<string> {
    const { ca, crl, ...server } = pki.files('server')
    const ports = await freePorts()
    const start = (role: 'server' | 'client', own: number, peer: number, more: string[]) => {
      const where = [
        '--local',
        '127.0.0.1',
        '--lport',
        String(own),
        '--remote',
        '127.0.0.1',
        '--rport',
        String(peer),
      ]
      const other = role === 'server' ? 'client' : 'server'
      const options = [
        '--dev',
        'null',
        '--ifconfig-noexec',
        `--tls-${role}`,
        '--ca',
        ca,
        '--remote-cert-tls',
        other,
      ]
      return spawn('openvpn', [...where, ...options, '--verb', '3', ...more])
    }
    const own = ['--cert', server.certificate, '--key', server.key, '--dh', 'none']
    const ends = [
      start('server', ports[0], ports[1], [...own, '--crl-verify', crl]),
      start('client', ports[1], ports[0], [
        '--cert',
        certificate,
        '--key',
        key,
        '--verify-x509-name',
        'server',
        'name',
      ]),
    ]
    let said = ''
    try {
      await new Promise<void>((resolve, reject) => {
        setTimeout(() => reject(new Error(`nothing came of it: ${said}`)), 30_000).unref()
        for (const { stdout } of ends) {
          stdout.on('data', (text: Buffer) => {
            said += text
            const done = said.split('Peer Connection Initiated').length > 2
            if (done || said.includes('VERIFY ERROR')) resolve()
          })
        }
      })
    } finally {
      for (const end of ends) end.kill()
    }
    return said
  }

  it('accepts what it makes at both ends, and refuses what is revoked', async () => {
    const pki = await Pki.create(freshPath())
    await pki.issue('server', 'server')
    const { certificate, key } = await pki.issue('client', 'client')
    assert.match(await meet(pki, certificate, key), /VERIFY OK: depth=0, CN=client/)
    const [serial] = await pki.revoke('client')
    const place = join(pki.directory, 'revoked', `client-${serial}`)
    const said = await meet(pki, `${place}.crt`, `${place}.key`)
    assert.match(said, /certificate revoked: CN=client/)
  })
})
