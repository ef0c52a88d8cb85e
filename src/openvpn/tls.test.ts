import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import tls from 'node:tls'
import { type Issued, issue } from '../../test/certificates.ts'
import { Random } from '../../test/random.ts'
import type { PeerCertificates, TlsEngine, TlsEvents } from './proto/tls-engine.ts'
import { createTls, opensslNames, type TlsDirective, TlsError, type TlsSettings } from './tls.ts'
import { createVerifier, type PeerRules } from './x509/verifier.ts'

const root = await issue('CN=Root', { ca: true })
const middle = await issue('CN=Middle', { ca: true, by: root })
const server = await issue('CN=server', { by: root })
const client = await issue('CN=client', { by: root })
const deep = await issue('CN=deep', { by: middle })
const stranger = await issue('CN=stranger', { by: await issue('CN=Root', { ca: true }) })
const foreign = await issue('CN=foreign', { by: await issue('CN=Other', { ca: true }) })
const expired = await issue('CN=expired', { by: root, from: -10, to: -1 })

const verifierOf = (rules: Partial<PeerRules>) =>
  createVerifier(
    { peer: 'client', required: true, roots: [root.der], ...rules },
    () => Date.now() / 1000,
  )

const settingsOf = (own: Issued | undefined, more: Partial<TlsSettings> = {}): TlsSettings => ({
  ca: root.pem,
  ...(own && { certificate: own.pem, key: own.key }),
  requestCertificate: true,
  verify: verifierOf({}),
  ...more,
})
const ofServer = settingsOf(server)
const ofClient = settingsOf(client, { verify: verifierOf({ peer: 'server' }) })

/** One end, what has happened to it, and a promise of more. */
class End implements TlsEvents {
  readonly engine: TlsEngine
  other: End | undefined
  peer: PeerCertificates | undefined
  readonly records: string[] = []
  readonly flights: number[] = []
  error: TlsError | undefined
  closed = false
  /** Bytes that are cut off each flight of ours, to see that pieces may be of any size. */
  piece = 500
  #inCall = false
  #woken: (() => void)[] = []

  constructor(role: 'server' | 'client', settings: TlsSettings) {
    this.engine = createTls(settings)(role, this)
  }

  ciphertext(bytes: Uint8Array): void {
    this.#event()
    this.flights.push(bytes.length)
    const copy = Uint8Array.from(bytes)
    setImmediate(() => {
      for (let at = 0; at < copy.length; at += this.piece) {
        this.other?.call((engine) => engine.receive(copy.subarray(at, at + this.piece)))
      }
    })
  }

  established(peer: PeerCertificates): void {
    this.#event()
    this.peer = peer
  }

  plaintext(bytes: Uint8Array): void {
    this.#event()
    this.records.push(Buffer.from(bytes).toString())
  }

  failed(error: Error): void {
    this.#event()
    assert.ok(error instanceof TlsError)
    this.error = error
  }

  call(what: (engine: TlsEngine) => void): void {
    this.#inCall = true
    what(this.engine)
    this.#inCall = false
  }

  /** Rejects after some seconds, which is a failure of the test. */
  async until(condition: () => boolean): Promise<void> {
    const deadline = Date.now() + 20_000
    while (!condition()) {
      assert.ok(Date.now() < deadline, 'nothing happens')
      await new Promise<void>((resolve) => {
        this.#woken.push(resolve)
        setTimeout(resolve, 200).unref()
      })
    }
  }

  #event(): void {
    assert.ok(!this.#inCall, 'an event within a call')
    assert.ok(!this.closed, 'an event after close')
    for (const wake of this.#woken.splice(0)) wake()
  }
}

function pair(serverSettings = ofServer, clientSettings = ofClient) {
  const ends = {
    server: new End('server', serverSettings),
    client: new End('client', clientSettings),
  }
  ends.server.other = ends.client
  ends.client.other = ends.server
  return ends
}

/** Runs a handshake until both ends know how it went. */
async function handshake(serverSettings = ofServer, clientSettings = ofClient) {
  const ends = pair(serverSettings, clientSettings)
  for (const end of [ends.server, ends.client]) {
    await end.until(() => end.peer !== undefined || end.error !== undefined)
  }
  return ends
}

function close({ server, client }: { server: End; client: End }): void {
  for (const end of [server, client]) {
    end.call((engine) => engine.close())
    end.closed = true
    end.call((engine) => engine.close())
    end.call((engine) => engine.receive(Uint8Array.of(1)))
  }
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

for (const version of ['1.2', '1.3'] as const) {
  describe(`TLS ${version}`, () => {
    const own = settingsOf(server, { maxVersion: version, minVersion: version })

    it('both ends know each other, and have the same keys', async () => {
      const ends = await handshake(own)
      const [a, b] = [ends.server.engine, ends.client.engine]
      for (const label of ['EXPORTER-OpenVPN-datakeys', 'EXPORTER-other']) {
        const exported = a.exportKeyingMaterial(label, 256)
        assert.equal(exported.length, 256)
        assert.equal(hex(exported), hex(b.exportKeyingMaterial(label, 256)))
      }
      const data = a.exportKeyingMaterial('EXPORTER-OpenVPN-datakeys', 32)
      assert.notEqual(hex(data), hex(a.exportKeyingMaterial('EXPORTER-other', 32)))
      assert.equal(ends.server.peer?.verified, true, ends.server.peer?.problem)
      assert.equal(ends.client.peer?.verified, true, ends.client.peer?.problem)
      assert.equal(hex(ends.server.peer!.chain[0]!), hex(client.der))
      assert.equal(hex(ends.client.peer!.chain[0]!), hex(server.der))
      close(ends)
    })

    it('what is written in one call is read as one, in order', async () => {
      const ends = await handshake(own)
      const messages = Array.from({ length: 20 }, (_, i) => `message ${i} ${'x'.repeat(100 * i)}\0`)
      ends.client.call((engine) => {
        for (const message of messages) engine.write(Buffer.from(message))
      })
      ends.server.call((engine) => {
        for (const message of messages) engine.write(Buffer.from(message))
      })
      for (const end of [ends.client, ends.server]) {
        await end.until(() => end.records.length >= messages.length)
        assert.deepEqual(end.records, messages)
      }
      close(ends)
    })

    it('no tickets: after the handshake nothing is sent that nobody asked for', async () => {
      const ends = await handshake(own)
      ends.client.call((engine) => engine.write(Buffer.from('x')))
      await ends.server.until(() => ends.server.records.length > 0)
      const before = ends.server.flights.reduce((sum, size) => sum + size)
      ends.server.call((engine) => engine.write(Buffer.from('y')))
      await ends.client.until(() => ends.client.records.length > 0)
      const after = ends.server.flights.reduce((sum, size) => sum + size)
      assert.ok(after - before < 400, `${after - before} bytes`)
      close(ends)
    })

    it('a byte at a time', async () => {
      const ends = pair(own)
      ends.client.piece = 1
      ends.server.piece = 1
      await ends.server.until(() => ends.server.peer !== undefined)
      close(ends)
    })
  })
}

describe('certificates of peers', () => {
  const rows: [
    own: Issued | undefined,
    sent: Issued[],
    problem: RegExp | undefined,
    why: string,
  ][] = [
    [client, [], undefined, 'of our authority'],
    [deep, [middle], undefined, 'with the authority between'],
    [deep, [], /no authority of ours.*signed/, 'without it'],
    [stranger, [], /no authority of ours/, 'of another authority of the same name'],
    [expired, [], /expired since/, 'expired'],
    [undefined, [], /no certificate/, 'none'],
  ]
  for (const [own, sent, problem, why] of rows) {
    it(`a client's: ${why}`, async () => {
      const settings = settingsOf(own, { verify: ofClient.verify })
      const certificate = own && own.pem + sent.map(({ pem }) => pem).join('')
      const ends = await handshake(ofServer, { ...settings, certificate })
      assert.equal(ends.server.peer?.verified, problem === undefined)
      if (problem !== undefined) assert.match(ends.server.peer?.problem ?? '', problem)
      const chain = ends.server.peer!.chain.map(hex)
      const expected = own === undefined ? [] : [own, ...sent].map(({ der }) => hex(der))
      assert.deepEqual(chain.slice(0, expected.length), expected)
      close(ends)
    })
  }

  it("a server's of another authority", async () => {
    const ends = await handshake(settingsOf(stranger))
    assert.equal(ends.client.peer?.verified, false)
    assert.match(ends.client.peer?.problem ?? '', /no authority of ours/)
    close(ends)
  })

  it('a server that does not ask gets none', async () => {
    const verify = verifierOf({ required: false })
    const ends = await handshake({ ...ofServer, requestCertificate: false, verify })
    assert.deepEqual(ends.server.peer, { chain: [], verified: true })
    close(ends)
  })
})

describe('handshakes that fail', () => {
  it('no common version', async () => {
    const ends = await handshake(
      settingsOf(server, { minVersion: '1.3' }),
      settingsOf(client, { maxVersion: '1.2' }),
    )
    assert.equal(ends.server.error?.code, 'TLS_NO_COMMON_VERSION')
    assert.equal(ends.client.error?.code, 'TLS_ALERT')
    assert.match(ends.client.error?.message ?? '', /no version of TLS that both allow/)
  })

  it('no common cipher', async () => {
    const ciphers = 'TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384'
    const ends = await handshake(settingsOf(server, { ciphers, maxVersion: '1.2' }))
    assert.equal(ends.server.error?.code, 'TLS_NO_COMMON_CIPHER')
    assert.match(ends.client.error?.message ?? '', /gave up TLS: handshake failure/)
  })

  it('no TLS at all', async () => {
    const end = new End('server', ofServer)
    end.call((engine) => engine.receive(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')))
    await end.until(() => end.error !== undefined)
    assert.equal(end.error?.code, 'TLS_PROTOCOL')
  })

  it('a byte changed on the way', async () => {
    const end = new End('client', ofClient)
    const other = new End('server', ofServer)
    end.other = other
    other.ciphertext = (bytes) => {
      const changed = Uint8Array.from(bytes)
      changed[changed.length - 1]! ^= 1
      setImmediate(() => end.call((engine) => engine.receive(changed)))
    }
    await end.until(() => end.error !== undefined)
    assert.equal(end.error?.code, 'TLS_PROTOCOL')
    other.engine.close()
  })

  it('more bytes than a handshake needs', async () => {
    const end = new End('server', ofServer)
    const record = new Uint8Array(16_384)
    record.set([22, 3, 1, 0x3f, 0xfb, 1, 0xff, 0xff, 0xff]) // a ClientHello that does not end
    for (let sent = 0; sent < 20 && end.error === undefined; sent++) {
      end.call((engine) => engine.receive(record))
    }
    await end.until(() => end.error !== undefined)
    assert.match(end.error?.code ?? '', /TLS_TOO_LONG|TLS_PROTOCOL/)
  })

  it('the peer ends TLS as TLS has it', async () => {
    const end = new End('server', ofServer)
    const pipe = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        const copy = Uint8Array.from(chunk)
        setImmediate(() => end.call((engine) => engine.receive(copy)))
        done()
      },
    })
    end.ciphertext = (bytes) => void pipe.push(Buffer.from(bytes))
    const { pem: cert, key } = client
    const peer = tls.connect({ socket: pipe, rejectUnauthorized: false, cert, key })
    await end.until(() => end.peer !== undefined)
    peer.end()
    await end.until(() => end.error !== undefined)
    assert.equal(end.error?.code, 'TLS_CLOSED')
    peer.destroy()
  })
})

const withoutOpenssl =
  spawnSync('openssl', ['version']).error === undefined ? false : 'there is no openssl here'

describe('what OpenSSL says to our certificate', { skip: withoutOpenssl }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-tls-'))
  const file = (name: string, text: string) => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  let openssl: ChildProcess
  let port = 0
  before(async () => {
    const own = [
      '-cert',
      file('own.pem', server.pem + server.key),
      '-CAfile',
      file('ca.pem', root.pem),
    ]
    const rules = ['-Verify', '3', '-verify_return_error', '-accept', '127.0.0.1:0']
    openssl = spawn('openssl', ['s_server', ...own, ...rules], {
      stdio: ['pipe', 'pipe', 'ignore'],
    })
    let said = ''
    for await (const text of openssl.stdout!) {
      said += text
      port = Number(/ACCEPT .*:(\d+)/.exec(said)?.[1] ?? 0)
      if (port > 0) break
    }
  })
  after(() => {
    openssl.kill()
    rmSync(folder, { recursive: true })
  })

  it('a kind of key that TLS here does not know', () => {
    const make = ['req', '-x509', '-newkey', 'ed448', '-nodes', '-keyout', '-', '-subj', '/CN=x']
    const { stdout } = spawnSync('openssl', make, { encoding: 'utf8' })
    const own = { ...ofServer, certificate: stdout, key: stdout }
    assert.throws(() => createTls(own), /keys of this kind cannot be used: RSA/)
  })

  const rows: [own: Issued | undefined, message: RegExp, why: string][] = [
    [foreign, /unknown ca \(it does not know the authority/, 'of another authority'],
    [stranger, /decrypt error \(a signature is wrong/, 'of another authority of the same name'],
    [expired, /certificate expired \(our certificate is expired/, 'expired'],
    [undefined, /it wants a certificate, and we have none/, 'none'],
  ]
  for (const maxVersion of ['1.2', '1.3'] as const) {
    for (const [own, message, why] of rows) {
      it(`TLS ${maxVersion}: ${why}`, async () => {
        const verify = verifierOf({ peer: 'server' })
        const end = new End('client', settingsOf(own, { maxVersion, verify }))
        const socket = connect(port, '127.0.0.1')
        end.ciphertext = (bytes) => void socket.write(Uint8Array.from(bytes))
        socket.on('data', (bytes) => end.engine.receive(bytes))
        await end.until(() => end.error !== undefined)
        assert.equal(end.error?.code, 'TLS_ALERT')
        assert.match(end.error?.message ?? '', message)
        socket.destroy()
      })
    }
  }
})

describe('hostile peers', () => {
  it('bytes changed anywhere in a handshake: an error at most, and never another', async () => {
    const random = new Random(13)
    let failed = 0
    for (let round = 0; round < 120; round++) {
      const own = settingsOf(server, { maxVersion: round % 2 === 0 ? '1.2' : '1.3' })
      const ends = pair(own)
      const victim = round % 4 < 2 ? ends.server : ends.client
      let at = random.below(3000)
      const receive = victim.engine.receive.bind(victim.engine)
      victim.engine.receive = (bytes) => {
        const changed = Uint8Array.from(bytes)
        if (at >= 0 && at < changed.length) changed[at]! ^= 1 + random.below(255)
        at -= changed.length
        receive(changed)
      }
      // An end that waits for bytes which were told to be more than there are waits for ever: that is for timers.
      const deadline = Date.now() + 300
      const open = () => [ends.server, ends.client].some((end) => !end.peer && !end.error)
      while (open() && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5))
      if (ends.server.error || ends.client.error) failed++
      close(ends)
    }
    assert.ok(failed > 30, `${failed} handshakes failed`)
  })

  it('rules that throw let nobody in', async () => {
    const verify = () => {
      throw new Error('a file is gone')
    }
    const ends = pair(settingsOf(server, { verify }))
    await ends.server.until(() => ends.server.error !== undefined)
    assert.equal(ends.server.peer, undefined)
    assert.match(ends.server.error?.message ?? '', /cannot be checked: a file is gone/)
    ends.client.engine.close()
  })
})

describe('settings', () => {
  const pem = (text: string) =>
    KeyObject.from(server.keys.privateKey).export({
      type: 'pkcs8',
      format: 'pem',
      cipher: 'aes-256-cbc',
      passphrase: text,
    }) as string
  const encrypted = pem('secret')

  it('an encrypted key', async () => {
    const own = { ...ofServer, key: encrypted, passphrase: 'secret' }
    close(await handshake(own))
  })

  it('groups and ciphers', async () => {
    const own = settingsOf(server, {
      groups: 'secp384r1:X25519',
      ciphers: 'TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384:!eNULL',
      maxVersion: '1.2',
    })
    close(await handshake(own))
  })

  it('TLS 1.3 alone, where older versions have none of the ciphers', async () => {
    const own = settingsOf(server, { ciphers: 'TLS-DHE-RSA-WITH-AES-256-GCM-SHA384' })
    close(await handshake(own))
    const old = settingsOf(client, { maxVersion: '1.2' })
    const ends = await handshake(own, old)
    assert.equal(ends.server.error?.code, 'TLS_NO_COMMON_VERSION')
    close(ends)
  })

  const damaged = (kind: string) => `-----BEGIN ${kind}-----\nAAAA\n-----END ${kind}-----\n`
  const pkcs12 = (file: Buffer) => ({ certificate: undefined, key: undefined, pkcs12: file })
  const bad: [change: Partial<TlsSettings>, fault: TlsDirective, message: RegExp, why: string][] = [
    [{ key: client.key }, 'key', /not that of the certificate/, "another certificate's key"],
    [{ key: 'nonsense' }, 'key', /key cannot be read/, 'no key'],
    [{ key: damaged('PRIVATE KEY') }, 'key', /key cannot be read/, 'damaged key'],
    [{ certificate: 'nonsense' }, 'cert', /certificate cannot be read/, 'no certificate'],
    [{ certificate: damaged('CERTIFICATE') }, 'cert', /certificate cannot/, 'damaged certificate'],
    [{ ca: damaged('CERTIFICATE') }, 'ca', /what is in ca is no certificate/, 'damaged authority'],
    [
      { ciphers: 'NONE-SUCH' },
      'tls-cipher',
      /^tls-cipher: none of NONE-SUCH is known .* remove the line/,
      'unknown cipher',
    ],
    [{ groups: 'none-such' }, 'tls-groups', /no group of that name: none-such/, 'unknown group'],
    [pkcs12(Buffer.from('nonsense')), 'pkcs12', /no pkcs12 file/, 'no pkcs12 file'],
    [pkcs12(Buffer.of(0x30, 9, 0, 0)), 'pkcs12', /no pkcs12 file/, 'part of a pkcs12 file'],
  ]
  for (const [change, fault, message, why] of bad) {
    it(`refused: ${why}`, () => {
      assert.throws(
        () => createTls({ ...ofServer, ...change }),
        (error: Error) =>
          error instanceof TlsError &&
          error.code === 'TLS_SETTINGS' &&
          error.directive === fault &&
          message.test(error.message),
      )
    })
  }

  for (const passphrase of [undefined, 'wrong']) {
    it(`an encrypted key needs its passphrase, not ${passphrase}`, () => {
      assert.throws(
        () => createTls({ ...ofServer, key: encrypted, passphrase }),
        (error: Error) =>
          error instanceof TlsError &&
          error.code === 'TLS_PASSPHRASE' &&
          error.directive === 'key' &&
          /cannot be decrypted: a wrong pass/.test(error.message),
      )
    })
  }

  const names: [given: string, openssl: string, why: string][] = [
    ['TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384', 'ECDHE-RSA-AES256-GCM-SHA384', 'GCM'],
    ['TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ChaCha20'],
    ['TLS-DHE-RSA-WITH-AES-128-CBC-SHA', 'DHE-RSA-AES128-SHA', 'CBC'],
    ['TLS-RSA-WITH-AES-256-CBC-SHA256', 'AES256-SHA256', 'RSA without exchange'],
    ['TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256', 'ECDHE-RSA-AES128-GCM-SHA256', 'as RFCs write it'],
    [
      'DEFAULT:!kRSA:ECDHE-RSA-AES256-GCM-SHA384',
      'DEFAULT:!kRSA:ECDHE-RSA-AES256-GCM-SHA384',
      "OpenSSL's own",
    ],
  ]
  for (const [given, openssl, why] of names) {
    it(`cipher names: ${why}`, () => assert.equal(opensslNames(given), openssl))
  }
})

describe('many engines', () => {
  it('closed in the middle, they leave nothing behind', async () => {
    const create = createTls(ofServer)
    const quiet: TlsEvents = { ciphertext() {}, established() {}, plaintext() {}, failed() {} }
    const hello = await new Promise<Uint8Array>((resolve) => {
      const engine = createTls(ofClient)('client', {
        ...quiet,
        ciphertext: (bytes) => {
          engine.close()
          resolve(Uint8Array.from(bytes))
        },
      })
    })
    const round = async (count: number) => {
      const engines = Array.from({ length: count }, () => create('server', quiet))
      for (const engine of engines) engine.receive(hello)
      await new Promise((resolve) => setTimeout(resolve, 20))
      for (const engine of engines) engine.close()
    }
    const memory = () => {
      if (typeof Bun !== 'undefined') Bun.gc(true)
      return process.memoryUsage().rss
    }
    for (let i = 0; i < 10; i++) await round(50)
    const before = memory()
    for (let i = 0; i < 30; i++) await round(50)
    const grown = memory() - before
    assert.ok(grown < 48 * 2 ** 20, `1500 engines left ${(grown / 2 ** 20).toFixed(1)} MiB`)
  })
})
