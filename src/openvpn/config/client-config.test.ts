import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type ClientConfig, readClientConfig } from './client-config.ts'
import { dnsFromDhcp } from './network.ts'
import {
  CERTIFICATE,
  PRIVATE_KEY,
  STATIC_KEY,
  textFiles,
  V2_SERVER_KEY,
} from './parse.test-data.ts'
import { ConfigError } from './parse.ts'

const files = textFiles({
  '/etc/openvpn/update-resolv-conf': '#!/bin/sh\n',
  'ca.crt': CERTIFICATE,
  'ta.key': STATIC_KEY,
  'v2-server.key': V2_SERVER_KEY,
  'login.txt': 'alice\r\nsecret\r\n',
  'name.txt': 'alice\n',
  'empty.txt': '\n',
})

const BASE = 'client\nremote vpn.example\nca ca.crt\nauth-user-pass\nremote-cert-tls server\n'

const read = (text: string): ClientConfig => readClientConfig({ file: 'x.ovpn', text }, files)

function problems(text: string): string {
  try {
    read(text)
    return ''
  } catch (error) {
    assert(error instanceof ConfigError)
    return error.message
  }
}

describe("a client's configuration", () => {
  it("has OpenVPN's defaults", () => {
    const config = read(BASE)
    assert.equal(config.connections.length, 1)
    const [entry] = config.connections
    assert.deepEqual(
      [entry?.host, entry?.port, entry?.protocol, entry?.family, entry?.localPort],
      ['vpn.example', 1194, 'udp', undefined, undefined],
    )
    assert.equal(entry?.connectTimeout, 120_000)
    assert.deepEqual(entry?.connectRetry, { wait: 1000, max: 300_000 })
    assert.equal(entry?.tunMtuMax, 1600)
    assert.equal(config.pingRestart, 120_000)
    assert.equal(config.resolvRetry, Infinity)
    assert.equal(config.authUserPass, 'ask')
    assert.equal(config.authRetry, 'none')
    assert.deepEqual(config.renegSec, { min: 3_600_000, max: 3_600_000 })
    assert.deepEqual(config.notes, [])
  })

  it('has servers in order, each with what its block says over the rest', () => {
    const { connections } = read(
      `${BASE}remote b.example 443 tcp\nproto udp4\nport 1195\nconnect-timeout 20\n` +
        'key-direction 1\nlport 4000\n' +
        `<connection>\nremote c.example 53\nproto tcp6-client\ntun-mtu 1400\nconnect-timeout 5\n<tls-auth>\n${STATIC_KEY}</tls-auth>\n</connection>\n` +
        '<connection>\nremote 2001:db8::1\nexplicit-exit-notify 2\n</connection>',
    )
    assert.deepEqual(
      connections.map(({ host, port, protocol, family }) => [host, port, protocol, family]),
      [
        ['vpn.example', 1195, 'udp', 4],
        ['b.example', 443, 'tcp', undefined],
        ['c.example', 53, 'tcp', 6],
        ['2001:db8::1', 1195, 'udp', 4],
      ],
    )
    assert.deepEqual(
      connections.map(({ connectTimeout }) => connectTimeout),
      [20_000, 20_000, 5000, 20_000],
    )
    const [first, , third, fourth] = connections
    assert.equal(first?.wrap.kind, 'none')
    assert(third?.wrap.kind === 'tls-auth')
    assert.equal(third.wrap.direction, 1, 'the direction is that of the whole')
    assert.equal(third.tunMtu, 1400)
    assert.deepEqual(third.mssfix, { size: 1400, of: 'fixed' })
    assert.equal(fourth?.explicitExitNotify, 2)
    assert.equal(fourth?.localPort, 4000)
  })

  it('keeps to one protocol where it is told', () => {
    const { connections } = read(`${BASE}remote b 443 tcp\nproto-force tcp`)
    assert.deepEqual(
      connections.map(({ host }) => host),
      ['b'],
    )
  })

  const locals: [lines: string, host: string | undefined, port: number | undefined, why: string][] =
    [
      ['nobind', undefined, undefined, 'any'],
      ['port 443', undefined, undefined, 'that of the server, here'],
      ['lport 500', undefined, 500, 'a fixed one'],
      ['bind', undefined, 1194, 'the usual'],
      ['bind\nport 443', undefined, 443, 'the same as the server has'],
      ['local 192.0.2.1', '192.0.2.1', undefined, 'an address only'],
      ['local 192.0.2.1 700', '192.0.2.1', 700, 'both'],
      ['local *\nlport 0', undefined, 0, 'any'],
    ]
  for (const [lines, host, port, why] of locals) {
    it(`binds: ${lines.replaceAll('\n', '; ')}: ${why}`, () => {
      const [entry] = read(BASE + lines).connections
      assert.deepEqual([entry?.localHost, entry?.localPort], [host, port])
    })
  }

  const logins: [line: string, expected: unknown, why: string][] = [
    ['auth-user-pass', 'ask', 'both are asked for'],
    ['auth-user-pass stdin', 'ask', 'the same'],
    ['auth-user-pass username-only', 'ask-username', 'the name alone'],
    ['auth-user-pass login.txt', { username: 'alice', password: 'secret' }, 'from a file'],
    ['auth-user-pass name.txt', { username: 'alice', password: undefined }, 'a file with the name'],
    [
      '<auth-user-pass>\nbob\nhunter2\n</auth-user-pass>',
      { username: 'bob', password: 'hunter2' },
      'inline',
    ],
  ]
  for (const [line, expected, why] of logins) {
    it(`${line.replaceAll('\n', '; ')}: ${why}`, () =>
      assert.deepEqual(read(BASE + line).authUserPass, expected))
  }

  it('goes through proxies', () => {
    const { connections } = read(
      `${BASE}proto tcp\nhttp-proxy proxy.example 3128 login.txt basic\nhttp-proxy-option VERSION 1.1\nhttp-proxy-option CUSTOM-HEADER X-A "b c"\nhttp-proxy-option CUSTOM-HEADER "X-B: d"\nhttp-proxy-option AGENT "Some Browser"`,
    )
    assert.deepEqual(connections[0]?.httpProxy, {
      host: 'proxy.example',
      port: 3128,
      credentials: { username: 'alice', password: 'secret' },
      basic: true,
      httpVersion: '1.1',
      agent: 'Some Browser',
      headers: [
        ['X-A', 'b c'],
        ['X-B', 'd'],
      ],
    })
    const careful = read(`${BASE}proto tcp\nhttp-proxy p 8080 auto-nct`).connections[0]?.httpProxy
    assert.deepEqual([careful?.credentials, careful?.basic], ['ask', false])
    const inline = read(
      `${BASE}proto tcp\nhttp-proxy p 8080\n<http-proxy-user-pass>\nu\np\n</http-proxy-user-pass>`,
    ).connections[0]?.httpProxy
    assert.deepEqual(inline?.credentials, { username: 'u', password: 'p' })
    const socks = read(`${BASE}socks-proxy 127.0.0.1 9050 stdin`).connections[0]?.socksProxy
    assert.deepEqual(socks, { host: '127.0.0.1', port: 9050, credentials: 'ask' })
  })

  it('reads routes and DNS', () => {
    const { network } = read(
      `${BASE}route 10.0.0.0 255.0.0.0\nroute intranet.example 255.255.255.255 net_gateway 5\nroute 10.9.9.9 default default 7\n` +
        'route-ipv6 2001:db8::/32\nroute-ipv6 fd00::/8 default 9\nredirect-gateway def1 !ipv4 ipv6 bypass-dns\n' +
        'dns server 1 address 192.0.2.53 [2001:db8::53]:853 2001:db8::54\ndns server 1 resolve-domains corp.example\ndns server -2 address 192.0.2.54:5353\ndns server 1 dnssec optional\ndns server 1 transport DoT\ndns server 1 sni dns.example\n' +
        'dns search-domains a.example b.example\ndhcp-option DNS 192.0.2.1\ndhcp-option DNS6 2001:db8::1\ndhcp-option DOMAIN c.example\ndhcp-option DISABLE-NBT',
    )
    assert.deepEqual(network.routes, [
      { network: '10.0.0.0', netmask: '255.0.0.0', gateway: undefined, metric: undefined },
      {
        network: 'intranet.example',
        netmask: '255.255.255.255',
        gateway: 'net_gateway',
        metric: 5,
      },
      { network: '10.9.9.9', netmask: '255.255.255.255', gateway: undefined, metric: 7 },
    ])
    assert.deepEqual(
      network.routesIpv6.map(({ gateway, metric }) => [gateway, metric]),
      [
        [undefined, undefined],
        [undefined, 9],
      ],
    )
    const { redirectGateway } = network
    assert.deepEqual(
      [redirectGateway?.changesDefault, redirectGateway?.ipv4, redirectGateway?.ipv6],
      [true, false, true],
    )
    assert.deepEqual([redirectGateway?.def1, redirectGateway?.bypassDns], [true, true])
    assert.deepEqual(network.dnsServers, [
      {
        priority: -2,
        addresses: [{ address: '192.0.2.54', port: 5353 }],
        resolveDomains: [],
        dnssec: undefined,
        transport: undefined,
        sni: undefined,
      },
      {
        priority: 1,
        addresses: [
          { address: '192.0.2.53', port: undefined },
          { address: '2001:db8::53', port: 853 },
          { address: '2001:db8::54', port: undefined },
        ],
        resolveDomains: ['corp.example'],
        dnssec: 'optional',
        transport: 'DoT',
        sni: 'dns.example',
      },
    ])
    assert.deepEqual(network.searchDomains, ['a.example', 'b.example'])
    assert.deepEqual(dnsFromDhcp(network), {
      servers: ['192.0.2.1', '2001:db8::1'],
      domains: ['c.example'],
    })
  })

  it('hands on what is for scripts and servers', () => {
    const config = read(
      `${BASE}setenv UV_TEAM red\nsetenv A "b c" d\nsetenv-safe X y\nstatic-challenge "Your code" 1 concat\npush-peer-info\necho hello world\npull-filter ignore "route "\nroute-nopull`,
    )
    assert.deepEqual(config.environment, [
      ['UV_TEAM', 'red'],
      ['A', 'b c d'],
      ['OPENVPN_X', 'y'],
    ])
    assert.deepEqual(config.staticChallenge, { prompt: 'Your code', echo: true, format: 'concat' })
    assert.deepEqual(config.pullFilters, [{ action: 'ignore', prefix: 'route ' }])
    assert.deepEqual(
      [config.routeNopull, config.pushPeerInfo, config.echo],
      [true, true, ['hello world']],
    )
  })

  const wrong: [text: string, message: RegExp, why: string][] = [
    [
      '',
      /no line 'client'[\s\S]*which peers to trust[\s\S]*who this client is[\s\S]*no server/,
      'nothing in it',
    ],
    [
      'tls-client\nremote x\nca ca.crt\nauth-user-pass',
      /between two fixed ends/,
      'no options are pulled',
    ],
    ['mode server', /use it with 'ovpn server'/, "a server's"],
    ['client\nremote x\nauth-user-pass', /which peers to trust/, 'anybody would be the server'],
    ['client\nremote x\nca ca.crt', /who this client is/, 'the server could not know us'],
    ['client\nca ca.crt\nauth-user-pass', /add 'remote HOST PORT'/, 'no server'],
    [
      `${BASE}<connection>\nproto tcp\n</connection>`,
      /x.ovpn:6: <connection> needs a line/,
      'a block without a server',
    ],
    [`${BASE}remote a.example 0`, /no port 0/, 'no port'],
    [`${BASE}remote a..b`, /a host name or address/, 'no name'],
    [`${BASE}proto tcp-server`, /a client connects/, "the server's end"],
    [`${BASE}http-proxy p 80`, /carries TCP only/, 'a proxy that cannot'],
    [`${BASE}proto tcp\nhttp-proxy p 80 login.txt ntlm2`, /NTLM/, 'an old way'],
    [`${BASE}proto tcp\nhttp-proxy p 80\nsocks-proxy s`, /exclude each other/, 'two proxies'],
    [`${BASE}nobind\nlport 5`, /leaves the local port/, 'fixed and not fixed'],
    [`${BASE}proto-force tcp`, /leaves no server/, 'none is left'],
    [
      `${BASE}tls-crypt-v2 v2-server.key`,
      /expected an OpenVPN tls-crypt-v2 client key.*server key/,
      "the server's key",
    ],
    [`${BASE}auth-user-pass empty.txt`, /the first line of empty.txt/, 'no name'],
    [`${BASE}auth-user-pass gone.txt`, /cannot read 'gone.txt'/, 'no file'],
    [`${BASE}dns server 1 resolve-domains x`, /server 1 has no address/, 'nobody to ask'],
    [`${BASE}dns server 200 address 192.0.2.1`, /from -128 to 127/, 'no such number'],
    [`${BASE}dns server 1 address nowhere`, /not 'nowhere'/, 'a name for an address'],
    [`${BASE}dns server 1 colour red`, /'colour red' is not of a server/, 'no such thing'],
    [`${BASE}dns server 1`, /it is written: dns server NUMBER/, 'half of it'],
    [`${BASE}dev tap`, /'tap' is not done here/, 'an Ethernet device'],
    [`${BASE}setenv GENERIC_CONFIG 1`, /of nobody in particular/, 'no profile of a user'],
    [`${BASE}secret x.key`, /ovpn pki init/, 'no certificates at all'],
    [`${BASE}auth WHIRLPOOL\ntls-auth ta.key`, /not with 'WHIRLPOOL'/, 'a digest that is needed'],
    [`${BASE}up ./x.sh`, /script-security 2/, 'scripts are not permitted'],
    [`${BASE}keepalive 10 60\nping-exit 9`, /exclude each other/, 'two rules'],
  ]
  for (const [text, message, why] of wrong) {
    it(`is refused: ${why}`, () => assert.match(problems(text), message))
  }

  const noted: [text: string, message: RegExp, why: string][] = [
    [
      BASE.replace(/remote-cert.*\n/, ''),
      /any certificate of the same authority/,
      'no check of the server',
    ],
    [
      `${BASE}comp-lzo no`,
      /puts a byte before each packet/,
      'framing that the server may take back',
    ],
    [`${BASE}block-outside-dns`, /only of Windows/, 'another system'],
  ]
  for (const [text, message, why] of noted) {
    it(`is taken, with a note: ${why}`, () => {
      assert.match(
        read(text)
          .notes.map((note) => note.message)
          .join('\n'),
        message,
      )
    })
  }
})

/** In the manner of what providers and their tools hand out. */
describe('profiles as they are found', () => {
  const ca = `<ca>\n${CERTIFICATE}</ca>\n`
  const pair = `<cert>\n${CERTIFICATE}</cert>\n<key>\n${PRIVATE_KEY}</key>\n`

  it('of a provider with many servers, a password, and fixed ciphers', () => {
    const config = read(
      `# ==============================================================================
# Provider Example, country: NL
# ==============================================================================

client
dev tun
proto udp

remote 192.0.2.10 80
remote 192.0.2.10 4569
remote 192.0.2.11 1194
remote 192.0.2.12 5060

server-poll-timeout 20
remote-random
resolv-retry infinite
nobind

# The following setting is only needed for old OpenVPN clients compatibility. New clients
# should ignore it.
cipher AES-256-GCM

setenv CLIENT_CERT 0
tun-mtu 1500
mssfix 0
persist-key
persist-tun

reneg-sec 0

remote-cert-tls server
auth-user-pass

# If you are running Linux please make sure you have openvpn-systemd-resolved installed
script-security 2
up /etc/openvpn/update-resolv-conf
down /etc/openvpn/update-resolv-conf

${ca}
<tls-crypt>
${STATIC_KEY}</tls-crypt>
`,
    )
    assert.equal(config.connections.length, 4)
    assert(config.connections.every(({ wrap }) => wrap.kind === 'tls-crypt'))
    assert.deepEqual(config.renegSec, { min: 0, max: 0 })
    assert.equal(config.connections[0]?.mssfix, undefined)
    assert.equal(config.up, '/etc/openvpn/update-resolv-conf')
  })

  it('of a provider with an old server: tls-auth inline, SHA512, CBC, CR LF, odd spacing', () => {
    const config = read(
      `client\ndev tun\nproto udp\nremote 192.0.2.20 1194\nresolv-retry infinite\nremote-random\nnobind\ntun-mtu 1500\ntun-mtu-extra 32\nmssfix 1450\npersist-key\npersist-tun\nping 15\nping-restart 0\nping-timer-rem\nreneg-sec 0\ncomp-lzo no\nverify-x509-name CN=nl1.provider.example\n\nremote-cert-tls server\n\nauth-user-pass\nverb 3\npull\nfast-io\ncipher AES-256-CBC\nauth SHA512\n\n${ca}key-direction 1\n<tls-auth>\n${STATIC_KEY}</tls-auth>\n`.replaceAll(
        '\n',
        '\r\n',
      ),
    )
    assert.equal(config.auth, 'SHA512')
    const { wrap } = config.connections[0]!
    assert(wrap.kind === 'tls-auth' && wrap.direction === 1)
    assert.deepEqual(config.verifyX509Name, { name: 'CN=nl1.provider.example', type: 'subject' })
    assert.equal(config.compression?.framed, true)
    assert.equal(config.pingRestart, 0)
  })

  it('of Access Server: metadata in comments, one block for each way, setenv of its own client', () => {
    const config = read(
      `# Automatically generated OpenVPN client config file
# OVPN_ACCESS_SERVER_USERNAME=alice
# OVPN_ACCESS_SERVER_WSHOST=vpn.example:443
setenv FORWARD_COMPATIBLE 1
client
server-poll-timeout 4
nobind
remote vpn.example 1194 udp
remote vpn.example 1194 udp
remote vpn.example 443 tcp
remote vpn.example 1194 udp
dev tun
dev-type tun
remote-cert-tls server
tls-version-min 1.2
reneg-sec 604800
auth-user-pass
verb 3
push-peer-info
setenv PUSH_PEER_INFO
some-future-thing 1

${ca}${pair}key-direction 1
<tls-crypt>
${STATIC_KEY}</tls-crypt>
## -----BEGIN RSA SIGNATURE-----
## DIGEST:sha256
`,
    )
    assert.deepEqual(
      config.connections.map(({ protocol }) => protocol),
      ['udp', 'udp', 'tcp', 'udp'],
    )
    assert.equal(config.connections[0]?.connectTimeout, 4000)
    assert.equal(config.pushPeerInfo, true)
    assert.equal(config.renegSec.max, 604_800_000)
  })

  it('of a router: setenv opt, ignored options, dhcp-option, a fallback cipher', () => {
    const config = read(
      `dev tun
persist-tun
persist-key
data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305:AES-256-CBC
data-ciphers-fallback AES-256-CBC
auth SHA256
tls-client
client
resolv-retry infinite
remote 198.51.100.7 1194 udp4
nobind
verify-x509-name "Home Server" name
auth-user-pass
remote-cert-tls server
explicit-exit-notify
setenv opt block-outside-dns
setenv opt tls-cipher "DEFAULT:@SECLEVEL=0"
ignore-unknown-option block-outside-dns data-ciphers
dhcp-option DNS 10.0.0.53
redirect-gateway def1
block-ipv6
${ca}${pair}<tls-auth>
${STATIC_KEY}</tls-auth>
key-direction 1
`,
    )
    assert.equal(config.dataCiphers.length, 3)
    assert.equal(config.dataCiphersFallback, undefined)
    assert.equal(config.network.blockIpv6, true)
    assert.deepEqual(config.verifyX509Name, { name: 'Home Server', type: 'name' })
    assert.equal(config.connections[0]?.explicitExitNotify, 1)
  })

  it('of an installation script: TLS 1.3 suites, curves, a client’s own tls-crypt', () => {
    const config = read(
      `client
proto udp
explicit-exit-notify
remote 203.0.113.5 1194
dev tun
resolv-retry infinite
nobind
persist-key
persist-tun
remote-cert-tls server
verify-x509-name server_Abc123 name
auth SHA256
auth-nocache
cipher AES-128-GCM
tls-client
tls-version-min 1.2
tls-cipher TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256
tls-ciphersuites TLS_AES_256_GCM_SHA384
ignore-unknown-option block-outside-dns
setenv opt block-outside-dns # Prevent Windows 10 DNS leak
verb 3
${ca}${pair}<tls-crypt>
${STATIC_KEY}</tls-crypt>
`,
    )
    assert.deepEqual(config.tlsCipher, ['TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256'])
    assert.equal(config.authUserPass, undefined)
    assert.equal(config.authNocache, true)
  })
})
