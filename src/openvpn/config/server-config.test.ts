import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  AUTH_TOKEN_KEY,
  CERTIFICATE,
  CRL,
  PRIVATE_KEY,
  STATIC_KEY,
  textFiles,
  V2_SERVER_KEY,
} from './parse.test-data.ts'
import { ConfigError } from './parse.ts'
import { readServerConfig, type ServerConfig } from './server-config.ts'

const files = textFiles({
  'ca.crt': CERTIFICATE,
  'server.crt': `Certificate:\n    Data:\n${CERTIFICATE}`,
  'server.key': PRIVATE_KEY,
  'ta.key': `#\n# 2048 bit OpenVPN static key\n#\n${STATIC_KEY}`,
  'v2.key': V2_SERVER_KEY,
  'token.key': AUTH_TOKEN_KEY,
  'crl.pem': CRL,
  'password.txt': 'secret\nmore\n',
})

const IDENTITY = 'ca ca.crt\ncert server.crt\nkey server.key\n'
const BASE = `${IDENTITY}server 10.8.0.0 255.255.255.0\n`

const read = (text: string): ServerConfig => readServerConfig({ file: 'server.conf', text }, files)

function problems(text: string): string {
  try {
    read(text)
    return ''
  } catch (error) {
    assert(error instanceof ConfigError)
    return error.message
  }
}

describe("a server's configuration", () => {
  it("has OpenVPN's defaults", () => {
    const config = read(BASE)
    assert.deepEqual(
      config.listeners,
      [{ protocol: 'udp', family: undefined, host: undefined, port: 1194, ipv6only: false }],
      'UDP, port 1194, everywhere',
    )
    assert.equal(config.dev, 'tun')
    assert.equal(config.tunMtu, 1500)
    assert.deepEqual(config.mssfix, { size: 1492, of: 'mtu' })
    assert.equal(config.maxClients, 1024)
    assert.deepEqual(config.connectFreqInitial, { count: 100, interval: 10_000 })
    assert.deepEqual(config.dataCiphers, ['AES-256-GCM', 'AES-128-GCM', 'CHACHA20-POLY1305'])
    assert.deepEqual(config.renegSec, { max: 3_600_000, min: 3_240_000 })
    assert.equal(config.handWindow, 60_000)
    assert.equal(config.verifyClientCert, 'require')
    assert.equal(config.tlsVersionMin, '1.2')
    assert.deepEqual(config.wrap, { kind: 'none' })
    assert.equal(config.ping, 0)
    assert.equal(config.verb, 1)
    assert.deepEqual(config.notes, [])
  })

  const pools: [line: string, expected: Partial<ServerConfig>, why: string][] = [
    [
      'server 10.8.0.0 255.255.255.0',
      {
        ifconfig: { local: '10.8.0.1', netmask: '255.255.255.0' },
        pool: { start: '10.8.0.2', end: '10.8.0.254' },
      },
      'first address for the server, the rest but the last for clients',
    ],
    [
      'server 192.168.255.8 255.255.255.248',
      {
        ifconfig: { local: '192.168.255.9', netmask: '255.255.255.248' },
        pool: { start: '192.168.255.10', end: '192.168.255.14' },
      },
      'the smallest network',
    ],
    [
      'server 172.16.0.0 255.255.0.0',
      {
        ifconfig: { local: '172.16.0.1', netmask: '255.255.0.0' },
        pool: { start: '172.16.0.2', end: '172.16.255.254' },
      },
      'the largest',
    ],
    ['server 10.8.0.0 255.255.255.0 nopool', { pool: undefined }, 'addresses come from files'],
    [
      'server 10.8.0.0 255.255.255.0 nopool\nifconfig-pool 10.8.0.100 10.8.0.200',
      { pool: { start: '10.8.0.100', end: '10.8.0.200' } },
      'a pool of its own',
    ],
    [
      'server-ipv6 fd00:1:2:3::/64',
      {
        ifconfig: undefined,
        ifconfigIpv6: { local: { address: 'fd00:1:2:3::1', prefix: 64 } },
        poolIpv6: { address: 'fd00:1:2:3::1000', prefix: 64 },
      },
      'a wide network leaves room before the pool',
    ],
    [
      'server-ipv6 fd00::ff00/120',
      {
        ifconfigIpv6: { local: { address: 'fd00::ff01', prefix: 120 } },
        poolIpv6: { address: 'fd00::ff02', prefix: 120 },
      },
      'a narrow one does not',
    ],
    [
      'mode server\ntls-server\nifconfig 10.9.0.1 255.255.255.0\nifconfig-pool 10.9.0.10 10.9.0.20',
      { ifconfig: { local: '10.9.0.1', netmask: '255.255.255.0' } },
      'without the helper',
    ],
  ]
  for (const [line, expected, why] of pools) {
    it(`${line.replaceAll('\n', '; ')}: ${why}`, () => {
      const config = read(IDENTITY + line)
      for (const [name, value] of Object.entries(expected)) {
        assert.deepEqual(config[name as keyof ServerConfig], value, name)
      }
    })
  }

  it('pushes what helpers say behind what is written', () => {
    const { push, ping, pingRestart } = read(
      `${BASE}push "route 10.1.0.0 255.255.0.0"\nkeepalive 10 60\ntcp-nodelay\n`,
    )
    assert.deepEqual(push, [
      'route 10.1.0.0 255.255.0.0',
      'route-gateway 10.8.0.1',
      'topology subnet',
      'ping 10',
      'ping-restart 60',
      'socket-flags TCP_NODELAY',
    ])
    assert.deepEqual([ping, pingRestart], [10_000, 120_000], 'the server waits twice as long')
  })

  it('does not push twice what is written', () => {
    const { push } = read(`${BASE}push "topology subnet"\npush "route-gateway 10.8.0.2"`)
    assert.deepEqual(push, ['topology subnet', 'route-gateway 10.8.0.2'])
  })

  it('listens at several places', () => {
    const { listeners } = read(
      `${BASE}port 443\nlocal * 1194 udp\nlocal 192.0.2.1 443 tcp4\nlocal :: 80 tcp6-server\nlocal vpn.example\n`,
    )
    assert.deepEqual(
      listeners.map(({ host, port, protocol, family }) => [host, port, protocol, family]),
      [
        [undefined, 1194, 'udp', undefined],
        ['192.0.2.1', 443, 'tcp', 4],
        ['::', 80, 'tcp', 6],
        ['vpn.example', 443, 'udp', undefined],
      ],
    )
  })

  it('has keys as bytes, and files as they are', () => {
    const config = read(
      `${BASE}tls-auth ta.key 0\ntls-crypt-v2 v2.key force-cookie\nauth-gen-token 3600 600\nauth-gen-token-secret token.key\ncrl-verify crl.pem\naskpass password.txt\nhand-window 30`,
    )
    assert(config.wrap.kind === 'tls-auth')
    assert.equal(config.wrap.key.length, 256)
    assert.equal(config.wrap.direction, 0)
    assert.equal(config.tlsCryptV2?.key.length, 128)
    assert.equal(config.tlsCryptV2.forceCookie, true)
    assert.equal(config.authGenToken?.secret?.length, 32)
    assert.deepEqual(
      [config.authGenToken?.lifetime, config.authGenToken?.renewal],
      [3_600_000, 600_000],
    )
    assert.deepEqual(config.keyPassword, { password: 'secret' })
    assert(config.crlVerify !== undefined && 'content' in config.crlVerify)
    assert.equal(config.crlVerify.path, 'crl.pem')
    assert.equal(config.ca?.path, 'ca.crt')
  })

  it('may have all of it inline', () => {
    const config = read(
      `server 10.8.0.0 255.255.255.0\n<ca>\n${CERTIFICATE}</ca>\n<cert>\n${CERTIFICATE}</cert>\n<key>\n${PRIVATE_KEY}</key>\n<tls-crypt>\n${STATIC_KEY}</tls-crypt>\n`,
    )
    assert.equal(config.wrap.kind, 'tls-crypt')
    assert.equal(config.ca?.path, undefined)
    assert.equal(config.ca?.from, '[inline ca]')
  })

  it('takes fingerprints in place of an authority', () => {
    const hash = Array(32).fill('AB').join(':')
    const config = read(
      `server 10.8.0.0 255.255.255.0\ncert server.crt\nkey server.key\n<peer-fingerprint>\n# alice\n${hash}\n\n${hash}\n</peer-fingerprint>\npeer-fingerprint ${hash}`,
    )
    assert.deepEqual(config.peerFingerprints, Array(3).fill('ab'.repeat(32)))
  })

  it('has a management interface', () => {
    const { management } = read(
      `${BASE}management 127.0.0.1 7505 password.txt\nmanagement-client-auth\nmanagement-log-cache 10`,
    )
    assert.deepEqual(management?.at, { kind: 'tcp', address: '127.0.0.1', port: 7505 })
    assert.deepEqual(management.password, { password: 'secret' })
    assert.equal(management.clientAuth, true)
    assert.equal(management.logCache, 10)
    const unix = read(`${BASE}management /run/x.sock unix`).management
    assert.deepEqual(unix?.at, { kind: 'unix', path: '/run/x.sock' })
  })

  it('is told of ciphers that the driver has not', () => {
    const config = read(
      `${BASE}data-ciphers AES-256-CBC:aes-256-gcm:?BF-CBC:DEFAULT\ncipher AES-256-CBC`,
    )
    assert.deepEqual(config.dataCiphers, ['AES-256-GCM', 'AES-128-GCM', 'CHACHA20-POLY1305'])
    assert.deepEqual(
      config.notes.map(({ kind, message }) => [kind, message.split(' ')[1]]),
      [
        ['differs', 'AES-256-CBC'],
        ['differs', 'AES-256-CBC'],
      ],
      'but not of those with a question mark',
    )
  })

  const mssfixes: [lines: string, expected: unknown, why: string][] = [
    ['mssfix 0', undefined, 'off'],
    ['mssfix 1400', { size: 1400, of: 'packet' }, 'the OpenVPN packet'],
    ['mssfix 1400 mtu', { size: 1400, of: 'mtu' }, 'the packet on the link'],
    ['mssfix 1400 fixed', { size: 1400, of: 'fixed' }, 'the packet inside'],
    ['mssfix', { size: 1492, of: 'mtu' }, 'the usual'],
    ['tun-mtu 1400', { size: 1400, of: 'fixed' }, 'an MTU of its own is the limit'],
    ['max-packet-size 1300', { size: 1300, of: 'mtu' }, 'control packets and data alike'],
  ]
  for (const [lines, expected, why] of mssfixes) {
    it(`${lines}: ${why}`, () => assert.deepEqual(read(BASE + lines).mssfix, expected))
  }

  const wrong: [text: string, message: RegExp, why: string][] = [
    ['', /addresses clients get[\s\S]*which peers to trust[\s\S]*no certificate/, 'nothing in it'],
    [IDENTITY, /add 'server 10.8.0.0 255.255.255.0'/, 'no addresses'],
    [
      'server 10.8.0.0 255.255.255.0\nca ca.crt\ncert server.crt',
      /'cert' needs its private key/,
      'half of it',
    ],
    [
      `${BASE}ca gone.crt`,
      /server.conf:5: ca: cannot read 'gone.crt': there is no such file/,
      'no such file',
    ],
    [`${BASE}ca server.key`, /ca: server.key is no certificate/, 'a key for a certificate'],
    [
      `${BASE}tls-crypt v2.key`,
      /expected an OpenVPN Static key V1.*tls-crypt-v2 server key/,
      'the wrong key',
    ],
    [`${BASE}tls-auth ta.key\ntls-crypt ta.key`, /exclude each other/, 'two wraps'],
    [
      `${IDENTITY}server 10.8.0.5 255.255.255.0`,
      /10.8.0.5 is no network.*10.8.0.0 is/,
      'an address',
    ],
    [`${IDENTITY}server 10.8.0.0 255.255.255.252`, /from 8/, 'too small'],
    [`${BASE}topology net30`, /topology net30 is not done by servers here/, 'an older topology'],
    [`${BASE}dev tap0`, /'tap' is not done here/, 'an Ethernet device'],
    [`${BASE}dev vpn\ndev-type tap`, /'tap' is not done here/, 'by its type'],
    [`${BASE}ifconfig 10.8.0.1 255.255.255.0`, /remove 'ifconfig'/, 'said already'],
    [`${BASE}ifconfig-pool 10.8.0.9 10.8.0.10`, /nopool/, 'two pools'],
    [
      `${IDENTITY}mode server\nifconfig 10.8.0.1 255.255.255.0\nifconfig-pool 10.9.0.2 10.9.0.9`,
      /not all in the network/,
      'a pool elsewhere',
    ],
    [
      `${IDENTITY}mode server\nifconfig-pool 10.9.0.2 10.9.0.9`,
      /needs our own address/,
      'a pool alone',
    ],
    [`${BASE}keepalive 10 15`, /at least twice/, 'one lost ping would end it'],
    [`${BASE}keepalive 10 60\nping 5`, /exclude each other/, 'two rules'],
    [`${BASE}proto tcp-client`, /a server listens/, "the client's end"],
    [`${BASE}local * 1194\nlocal * 1194`, /listened there already/, 'twice'],
    [`${BASE}client-connect ./x`, /script-security 2/, 'scripts are not permitted'],
    [
      `${BASE}script-security 2\nauth-user-pass-verify ./x via-env`,
      /script-security 3.*via-file/,
      'nor passwords in the environment',
    ],
    [`${BASE}verify-client-cert none`, /need a password/, 'anybody could come'],
    [`${BASE}username-as-common-name`, /needs passwords/, 'names without passwords'],
    [
      `${BASE}client-config-dir nowhere`,
      /there is no folder '.*nowhere'/,
      'a folder that is not there',
    ],
    [
      `${BASE}script-security 2\nup "/nope/up.sh tun0"`,
      /conf:6: up: there is no program '\/nope\/up.sh'/,
      'a program that is not there',
    ],
    [`${BASE}ccd-exclusive`, /needs 'client-config-dir'/, 'files of nobody'],
    [`${BASE}auth-gen-token 0 60`, /after 120 seconds/, 'renewed while it is sent'],
    [`${BASE}auth-gen-token-secret token.key`, /needs 'auth-gen-token'/, 'a key for nothing'],
    [`${BASE}tls-crypt-v2-max-age 3`, /needs 'tls-crypt-v2 FILE'/, 'an age of nothing'],
    [`${BASE}management-hold`, /needs a line 'management/, 'nobody to hold for'],
    [`${BASE}management 127.0.0.1 ?`, /a port or the word 'unix'/, 'no port'],
    [
      `${BASE}data-ciphers AES-256-CBC`,
      /none of these is a cipher of the driver/,
      'nothing is left',
    ],
    [`${BASE}push "route 1.2.3.4, x"`, /no comma/, 'two options in one'],
    [`${BASE}push "a \\" b"`, /push: the text in quotes/, 'quotes in it do not end'],
    [`${BASE}tls-version-min 1.3\ntls-version-max 1.2`, /older than/, 'nothing is left'],
    [`${BASE}peer-fingerprint ${'ab:'.repeat(19)}ab`, /32 bytes/, 'SHA-1'],
    [`${BASE}fragment 1200\nplugin x.so\nchroot /x`, /:5:.*:6:.*:7:/s, 'each is told'],
  ]
  for (const [text, message, why] of wrong) {
    it(`is refused: ${why}`, () => assert.match(problems(text), message))
  }

  const noted: [line: string, message: RegExp, why: string][] = [
    ['push "up /bin/sh"', /clients will likely not take this/, 'clients run nothing for a server'],
    ['push "rout 10.0.0.0"', /no directive 'rout'/, 'a misspelling'],
    ['comp-lzo', /comp-lzo: packets have no framing.* are told to leave it/, 'framing'],
    ['compress lz4', /compress: packets have no framing/, 'the same of later ones'],
    ['push "comp-lzo no"', /and this is not pushed/, 'framing that clients would do'],
    ['persist-key', /no effect/, 'nothing to do'],
    ['auth WHIRLPOOL', /authenticate by themselves/, 'a digest that nothing needs'],
    ['data-ciphers-fallback BF-CBC', /are refused/, 'a cipher that the driver has not'],
  ]
  for (const [line, message, why] of noted) {
    it(`is taken, with a note: ${why}`, () => {
      const notes = read(BASE + line).notes.map((note) => note.message)
      assert.match(notes.join('\n'), message)
    })
  }

  it('leaves passwords to a program that decides about them', () => {
    const text = `${BASE}verify-client-cert none\nusername-as-common-name`
    assert.equal(readServerConfig({ file: 'x', text }, files, true).verifyClientCert, 'none')
  })

  it('leaves framing out of what is pushed', () => {
    const lines = ['push "comp-lzo no"', 'push "compress stub-v2"', 'push "compress"']
    const { push } = read(BASE + lines.join('\n'))
    assert.deepEqual(
      push.filter((option) => option.startsWith('comp')),
      ['compress stub-v2'],
    )
  })

  it('takes compress migrate and framing that is none', () => {
    assert.deepEqual(read(`${BASE}compress migrate`).notes, read(BASE).notes)
    assert.deepEqual(read(`${BASE}compress stub-v2`).notes, read(BASE).notes)
  })

  it('reads older names and versions', () => {
    const config = read(`${BASE}ncp-ciphers AES-128-GCM\ncompat-mode 2.3.5\ncipher AES-192-GCM`)
    assert.deepEqual(config.dataCiphers, ['AES-128-GCM', 'AES-192-GCM'])
    assert.equal(config.tlsVersionMin, '1.0')
  })
})
