/** Addresses, routes and DNS of a client, as options ask for them, on machines of several kinds. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { readPushed } from '../config/pushed.ts'
import type { SystemRoute } from '../network.ts'
import { type NetworkPlan, type PlanContext, planNetwork } from './plan.ts'

const TUN = 7
const ETH = 2

/** A machine behind a router: 192.168.1.5/24 on interface 2, default route to 192.168.1.1. */
const context: PlanContext = {
  ifindex: TUN,
  server: '198.51.100.1',
  nextHop: (address) => {
    if (address.startsWith('127.')) return { ifindex: 1 }
    if (address.startsWith('192.168.1.')) return { ifindex: ETH, source: '192.168.1.5' }
    if (address.includes(':')) return { ifindex: ETH, gateway: 'fe80::1' }
    return { ifindex: ETH, gateway: '192.168.1.1', source: '192.168.1.5' }
  },
  defaultHop: (family) => ({ ifindex: ETH, gateway: family === 4 ? '192.168.1.1' : 'fe80::1' }),
  localNetwork: (address) =>
    address === '192.168.1.5' ? { address: '192.168.1.5', prefix: 24 } : undefined,
  nameservers: ['9.9.9.9'],
  names: new Map([['intra.example', ['203.0.113.7', '203.0.113.8']]]),
  mtu: { usual: 1500, most: 1600 },
  table: undefined,
}

const SUBNET = ['topology subnet', 'ifconfig 10.8.0.6 255.255.255.0', 'route-gateway 10.8.0.1']

function plan(options: readonly string[], changes: Partial<PlanContext> = {}): NetworkPlan {
  const { options: read, skipped } = readPushed(options, { routeNopull: false, pullFilters: [] })
  assert.deepEqual(skipped, [])
  return planNetwork(read, { ...context, ...changes })
}

/** `10.1.0.0/16 dev 7 metric 3`. */
function text(route: SystemRoute): string {
  const { destination, prefix, gateway, ifindex, metric, unreachable, table } = route
  return [
    `${destination}/${prefix}`,
    ...(gateway === undefined ? [] : [`via ${gateway}`]),
    ...(unreachable === true ? ['unreachable'] : [`dev ${ifindex}`]),
    ...(metric === undefined ? [] : [`metric ${metric}`]),
    ...(table === undefined ? [] : [`table ${table}`]),
  ].join(' ')
}

describe('routes of a client', () => {
  const past = `198.51.100.1/32 via 192.168.1.1 dev ${ETH}`
  const halves = [`0.0.0.0/1 dev ${TUN}`, `128.0.0.0/1 dev ${TUN}`]
  const v6 = ['::/3', '2000::/4', '3000::/4', 'fc00::/7']
  const rows: [options: string[], routes: string[], why: string, changes?: Partial<PlanContext>][] =
    [
      [[], [], 'nothing is asked for'],
      [['route 10.1.0.0 255.255.0.0'], [`10.1.0.0/16 dev ${TUN}`], 'the tunnel has one other end'],
      [['route 10.1.0.0 255.255.0.0 vpn_gateway 5'], [`10.1.0.0/16 dev ${TUN} metric 5`], 'a word'],
      [['route 10.1.0.0 255.255.0.0 10.8.0.1'], [`10.1.0.0/16 dev ${TUN}`], 'a gateway inside'],
      [
        ['route 10.1.0.0 255.255.0.0 10.8.0.77'],
        [`10.1.0.0/16 dev ${TUN}`],
        'another end of the tunnel, which the system does not know of yet',
      ],
      [
        ['route 203.0.113.0 255.255.255.0 net_gateway'],
        [`203.0.113.0/24 via 192.168.1.1 dev ${ETH}`],
        'past the tunnel',
      ],
      [
        ['route 203.0.113.0 255.255.255.0 192.168.1.9'],
        [`203.0.113.0/24 via 192.168.1.9 dev ${ETH}`],
        'through another router of the local network',
      ],
      [
        ['route remote_host 255.255.255.255 net_gateway'],
        [past],
        'the server by its word, past the tunnel',
      ],
      [['route vpn_gateway'], [`10.8.0.1/32 dev ${TUN}`], 'the gateway itself'],
      [['route net_gateway'], [`192.168.1.1/32 dev ${TUN}`], 'the router by way of the tunnel'],
      [
        ['route intra.example'],
        [`203.0.113.7/32 dev ${TUN}`, `203.0.113.8/32 dev ${TUN}`],
        'every address of a name',
      ],
      [
        ['route-metric 50', 'route 10.1.0.0 255.255.0.0', 'route 10.2.0.0 255.255.0.0 default 9'],
        [`10.1.0.0/16 dev ${TUN} metric 50`, `10.2.0.0/16 dev ${TUN} metric 9`],
        'metrics: the usual one, and one of its own',
      ],
      [
        ['route 10.1.0.0 255.255.0.0', 'route 10.1.0.0 255.255.0.0'],
        [`10.1.0.0/16 dev ${TUN}`],
        'twice is once',
      ],
      [
        ['route 198.51.100.0 255.255.255.0'],
        [past, `198.51.100.0/24 dev ${TUN}`],
        "the server's own network: its packets do not go into the tunnel",
      ],
      [['redirect-gateway def1'], [past, ...halves], 'all of IPv4'],
      [['redirect-gateway'], [past, ...halves], 'the default route stays for afterwards'],
      [['redirect-gateway local'], halves, 'the server is on this network: no route to it'],
      [
        ['redirect-gateway autolocal'],
        [`192.168.1.20/32 dev ${ETH}`, ...halves],
        'a server on this network is reached without a gateway',
        { server: '192.168.1.20' },
      ],
      [['redirect-gateway def1'], halves, 'a server on this very machine', { server: '127.0.0.1' }],
      [
        ['redirect-gateway def1 bypass-dns'],
        [past, `9.9.9.9/32 via 192.168.1.1 dev ${ETH}`, ...halves],
        "the system's DNS server past the tunnel",
      ],
      [
        ['redirect-gateway ipv6 !ipv4'],
        v6.map((network) => `${network} dev ${TUN}`),
        'IPv6 alone: the server is reached over IPv4',
      ],
      [
        ['redirect-gateway ipv6 !ipv4'],
        [`2001:db8::1/128 via fe80::1 dev ${ETH}`, ...v6.map((network) => `${network} dev ${TUN}`)],
        'the server is reached over IPv6',
        { server: '2001:db8::1' },
      ],
      [
        ['redirect-private block-local'],
        [`192.168.1.0/25 dev ${TUN}`, `192.168.1.128/25 dev ${TUN}`, `192.168.1.1/32 dev ${ETH}`],
        'nobody of the local network but its router',
      ],
      [['redirect-private def1'], [], 'the default route is not touched'],
      [
        ['block-ipv6'],
        v6.map((network) => `${network} unreachable metric 4096`),
        'refused, whatever other route there is',
      ],
      [
        ['block-ipv6'],
        [
          `2001:db8::1/128 via fe80::1 dev ${ETH}`,
          ...v6.map((network) => `${network} unreachable metric 4096`),
        ],
        'but to the server',
        { server: '2001:db8::1' },
      ],
      [
        ['route-ipv6 2001:db8:5::/48', 'route-ipv6 2001:db8:6::/48 net_gateway 3'],
        [`2001:db8:5::/48 dev ${TUN}`, `2001:db8:6::/48 via fe80::1 dev ${ETH} metric 3`],
        'IPv6, inside and past',
      ],
      [
        ['route 10.1.0.0 255.255.0.0', 'redirect-gateway def1'],
        [...[past, ...halves].map((one) => `${one} table 9`), `10.1.0.0/16 dev ${TUN} table 9`],
        'another routing table',
        { table: 9 },
      ],
    ]
  for (const [options, routes, why, changes] of rows) {
    it(`${options.join(', ') || 'none'}: ${why}`, () => {
      assert.deepEqual(plan([...SUBNET, ...options], changes).routes.map(text), routes)
    })
  }

  const refused: [
    options: string[],
    warning: RegExp,
    why: string,
    changes?: Partial<PlanContext>,
  ][] = [
    [['route nowhere.example'], /it has no address here/, 'a name that was not resolved'],
    [
      ['route 10.1.0.0 255.255.0.0 net_gateway'],
      /no way to net_gateway/,
      'there is no default route',
      { defaultHop: () => undefined },
    ],
    [
      ['redirect-gateway def1'],
      /no route to 198/,
      'the server is out of reach',
      {
        nextHop: () => undefined,
      },
    ],
    [
      ['redirect-private block-local'],
      /local network is not known/,
      'a point-to-point connection has none',
      { localNetwork: () => undefined },
    ],
  ]
  for (const [options, warning, why, changes] of refused) {
    it(`warns of ${options}: ${why}`, () => {
      assert.match(plan([...SUBNET, ...options], changes).warnings.join('\n'), warning)
    })
  }
})

describe('addresses of a client', () => {
  const rows: [options: string[], addresses: NetworkPlan['addresses'], why: string][] = [
    [SUBNET, [{ address: '10.8.0.6', prefix: 24 }], 'topology subnet'],
    [
      ['topology net30', 'ifconfig 10.8.0.6 10.8.0.5'],
      [{ address: '10.8.0.6', peer: '10.8.0.5', prefix: 32 }],
      'topology net30: the other end of four addresses',
    ],
    [
      ['ifconfig 10.8.0.6 10.8.0.1'],
      [{ address: '10.8.0.6', peer: '10.8.0.1', prefix: 32 }],
      'no topology is said: an old server',
    ],
    [
      ['ifconfig 10.8.0.6 255.255.255.0'],
      [{ address: '10.8.0.6', prefix: 24 }],
      'a netmask without a topology',
    ],
    [
      [...SUBNET, 'ifconfig-ipv6 fd00:8::6/64 fd00:8::1'],
      [
        { address: '10.8.0.6', prefix: 24 },
        { address: 'fd00:8::6', prefix: 64 },
      ],
      'both families',
    ],
  ]
  for (const [options, addresses, why] of rows) {
    it(why, () => assert.deepEqual(plan(options).addresses, addresses))
  }

  it('warns where what should be a netmask is none', () => {
    const { warnings } = plan(['topology subnet', 'ifconfig 10.8.0.6 10.8.0.5'])
    assert.match(warnings.join(), /the second is a netmask/)
  })

  it('routes to the other end of net30 by its word', () => {
    const options = [
      'topology net30',
      'ifconfig 10.8.0.6 10.8.0.5',
      'route 10.1.0.0 255.255.0.0 10.8.0.5',
    ]
    assert.deepEqual(plan(options).routes.map(text), [`10.1.0.0/16 dev ${TUN}`])
  })
})

describe('the MTU of a client', () => {
  const rows: [options: string[], mtu: number, why: string][] = [
    [[], 1500, 'nobody says'],
    [['tun-mtu 1400'], 1400, 'the server says'],
    [['tun-mtu 9000'], 1600, 'more than the profile allows'],
  ]
  for (const [options, mtu, why] of rows) {
    it(`${mtu}: ${why}`, () => assert.equal(plan(options).mtu, mtu))
  }
})

describe('DNS of a client', () => {
  const none = { searchDomains: [], routeDomains: [] }
  const rows: [options: string[], dns: NetworkPlan['dns'], why: string][] = [
    [[], undefined, 'the system keeps its own'],
    [
      ['dhcp-option DNS 10.8.0.1', 'dhcp-option DNS6 fd00::1', 'dhcp-option DOMAIN corp.example'],
      { servers: ['10.8.0.1', 'fd00::1'], searchDomains: ['corp.example'], routeDomains: [] },
      'the older way',
    ],
    [
      ['dhcp-option DNS 10.8.0.1', 'dns server 1 address 10.8.0.2'],
      { ...none, servers: ['10.8.0.2'] },
      'the newer way counts more',
    ],
    [
      ['dns server 2 address 10.8.0.2', 'dns server 1 address 10.8.0.1'],
      { ...none, servers: ['10.8.0.1'] },
      'the lowest number is preferred',
    ],
    [
      ['dns server 1 address 10.8.0.1:5353 [fd00::1]:53', 'dns server 1 resolve-domains a.example'],
      { servers: ['10.8.0.1:5353', 'fd00::1'], searchDomains: [], routeDomains: ['a.example'] },
      'ports, and names in some domains only',
    ],
    [
      [
        'dns server 1 address 10.8.0.1',
        'dns server 1 transport DoT',
        'dns server 1 sni dns.example',
        'dns server 1 dnssec yes',
        'dns search-domains a.example b.example',
      ],
      {
        servers: ['10.8.0.1'],
        searchDomains: ['a.example', 'b.example'],
        routeDomains: [],
        tls: { name: 'dns.example' },
        dnssec: 'yes',
      },
      'over TLS, signed, with domains to search',
    ],
    [
      ['dns server 1 address 10.8.0.1', 'dns server 1 transport DoH'],
      undefined,
      'over HTTPS: not what a system can do',
    ],
  ]
  for (const [options, dns, why] of rows) {
    it(why, () => assert.deepEqual(plan(options).dns, dns))
  }
})
