import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { mergeNetwork } from './network.ts'
import { type PullFilters, readPushed } from './pushed.ts'

const ALL: PullFilters = { routeNopull: false, pullFilters: [] }

/** As OpenVPN 2.7 sent it. */
const REPLY =
  'route 10.1.0.0 255.255.0.0,route-gateway 10.99.0.1,topology subnet,ping 3,ping-restart 30,ifconfig 10.99.0.2 255.255.255.0,peer-id 0,cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt aead-epoch,tun-mtu 1500'

describe("a server's reply", () => {
  it('is read as settings', () => {
    const { options, skipped, notes, rejected } = readPushed(REPLY.split(','), ALL)
    assert.deepEqual([skipped, notes, rejected], [[], [], undefined])
    assert.deepEqual(options.ifconfig, { local: '10.99.0.2', remote: '255.255.255.0' })
    assert.equal(options.topology, 'subnet')
    assert.equal(options.routeGateway, '10.99.0.1')
    assert.deepEqual([options.ping, options.pingRestart], [3000, 30_000])
    assert.equal(options.peerId, 0)
    assert.equal(options.cipher, 'AES-256-GCM')
    assert.deepEqual(options.protocolFlags, ['cc-exit', 'tls-ekm', 'dyn-tls-crypt', 'aead-epoch'])
    assert.equal(options.tunMtu, 1500)
    assert.equal(options.routes[0]?.network, '10.1.0.0')
  })

  it('has tokens, DNS, and text for others', () => {
    const { options } = readPushed(
      [
        'auth-token SESS_ID_AT_x+/=',
        'auth-token-user YWxpY2U=',
        'dhcp-option DNS 10.99.0.1',
        'dns server 0 address 10.99.0.1',
        'echo "hello there"',
        'setenv-safe CITY Berlin',
        'key-derivation tls-ekm',
        'cipher chacha20-poly1305',
        'compress stub-v2',
        'inactive 0',
        'persist-tun',
      ],
      ALL,
    )
    assert.equal(options.authToken, 'SESS_ID_AT_x+/=')
    assert.equal(options.authTokenUser, 'alice')
    assert.equal(options.dnsServers.length, 1)
    assert.deepEqual(options.echo, ['hello there'])
    assert.deepEqual(options.environment, [['OPENVPN_CITY', 'Berlin']])
    assert.equal(options.tlsEkm, true)
    assert.equal(options.cipher, 'CHACHA20-POLY1305')
    assert.deepEqual(options.compression, { text: 'compress stub-v2', framed: false })
    assert.equal(options.inactive, undefined)
    assert.equal(options.persistTun, true)
  })

  const skipped: [option: string, message: RegExp, why: string][] = [
    ['up /bin/sh', /'up' is not taken/, 'a program to run'],
    ['config /etc/passwd', /not taken/, 'a file to read'],
    ['remote evil.example', /not taken/, 'another server'],
    ['ca x', /not taken/, 'another authority'],
    ['management 0.0.0.0 1', /not taken/, 'a door'],
    ['setenv LD_PRELOAD x', /not taken/, 'a variable of its choice'],
    ['setenv-safe "A;B" x', /the name of a variable/, 'a name that a shell would read'],
    ['no-such-thing 1', /no directive/, 'unknown'],
    ['tun-mtu 40', /from 100/, 'an MTU that nothing fits in'],
    ['ifconfig 10.8.0.2', /ifconfig LOCAL REMOTE/, 'half of it'],
    ['route 10.0.0.0 255.0.255.0', /a netmask/, 'a mask with a hole'],
    ['dns search-domains', /dns WHAT VALUES/, 'nothing to search'],
    ['ping 1\nup x', /line break/, 'two lines in one'],
    ['push x', /not taken/, "a server's own"],
  ]
  for (const [option, message, why] of skipped) {
    it(`is read without: ${JSON.stringify(option)}: ${why}`, () => {
      const reply = readPushed(['peer-id 7', option, 'ping 9'], ALL)
      assert.equal(reply.skipped.length, 1)
      assert.match(reply.skipped[0]!.message, message)
      assert.deepEqual([reply.options.peerId, reply.options.ping], [7, 9000], 'the rest counts')
    })
  }

  it('is filtered: the first filter that an option begins with decides', () => {
    const filters: PullFilters = {
      routeNopull: false,
      pullFilters: [
        { action: 'accept', prefix: 'route 10.' },
        { action: 'ignore', prefix: 'route' },
        { action: 'reject', prefix: 'redirect-gateway' },
      ],
    }
    const reply = readPushed(
      [
        'route 10.0.0.0 255.0.0.0',
        'route 192.168.0.0 255.255.0.0',
        'route-gateway 10.0.0.1',
        'ping 1',
      ],
      filters,
    )
    assert.deepEqual(
      reply.options.routes.map(({ network }) => network),
      ['10.0.0.0'],
    )
    assert.equal(reply.options.routeGateway, undefined)
    assert.deepEqual(reply.filtered, ['route 192.168.0.0 255.255.0.0', 'route-gateway 10.0.0.1'])
    assert.deepEqual(reply.skipped, [])
    assert.equal(reply.rejected, undefined)
    assert.equal(readPushed(['redirect-gateway def1'], filters).rejected, 'redirect-gateway def1')
  })

  it('loses routes and DNS with route-nopull, and keeps its addresses', () => {
    const { options } = readPushed(
      [
        ...REPLY.split(','),
        'redirect-gateway def1',
        'dhcp-option DNS 10.0.0.1',
        'dns server 1 address 10.0.0.1',
        'block-ipv6',
      ],
      { ...ALL, routeNopull: true },
    )
    assert.deepEqual(options.routes, [])
    assert.deepEqual(options.dhcpOptions, [])
    assert.deepEqual(options.dnsServers, [])
    assert.equal(options.redirectGateway, undefined)
    assert.equal(options.blockIpv6, false)
    assert.equal(options.ifconfig?.local, '10.99.0.2')
  })

  it("goes over what the client's own configuration says", () => {
    const own = readPushed(['route 10.5.0.0 255.255.0.0', 'route-metric 5', 'topology net30'], ALL)
    const merged = mergeNetwork(own.options, readPushed(REPLY.split(','), ALL).options)
    assert.equal(merged.topology, 'subnet')
    assert.equal(merged.routeMetric, 5)
    assert.deepEqual(
      merged.routes.map(({ network }) => network),
      ['10.5.0.0', '10.1.0.0'],
    )
  })
})
