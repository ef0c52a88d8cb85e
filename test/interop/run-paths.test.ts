/**
 * OpenVPN under `ovpn run` on more than one path: over IPv6 and over UDP beside TCP, with addresses that are told or
 * change, as the way to everywhere, and as several servers in one place.
 */
// npm test: ordinary user
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type Running, start } from '../command.ts'
import { openTestNetns, type TestNetns } from '../namespace.ts'
import {
  answers,
  type ClientSide,
  forward,
  type Host,
  type Lab,
  OFFLOADED,
  openLab,
  ping,
  SERVER_VPN,
  SERVER_VPN6,
  type Transport,
  times,
  transfer,
} from './openvpn.ts'
import { programs, STARTED, until, withoutProgram } from './programs.ts'

const skip = withoutProgram('2.6', '2.7')

describe('two OpenVPN servers beside each other, over IPv6', { skip }, () => {
  let lab: Lab
  const servers: Running[] = []
  const second = { ipv4: '10.9.0.1', ipv6: 'fd00:9::1' }
  before(async () => {
    lab = openLab()
    const one = ['tun-mtu 1400', 'server-ipv6 fd00:8::/64']
    const other = [
      ...['tun-mtu 1400', 'port 1195', 'server 10.9.0.0 255.255.255.0'],
      'server-ipv6 fd00:9::/64',
    ]
    servers.push(lab.startServer({ program: programs['2.6']!, offload: true, more: one }, 'udp6'))
    await servers[0]!.says(STARTED)
    servers.push(lab.startServer({ program: programs['2.7']!, offload: true, more: other }, 'tcp6'))
    await servers[1]!.says(STARTED)
    for (let i = 1; i < 4; i++) lab.addHost()
  })
  after(() => lab.close())

  const rows: [string, Transport, offload: boolean, why: string][] = [
    ['2.7', 'udp6', true, 'IPv6 at both ends'],
    ['2.6', 'udp', true, 'IPv4, which the server sees as IPv6'],
    ['2.6', 'tcp6', true, 'a stream over IPv6'],
    ['2.7', 'tcp', false, 'a plain client, IPv4 that the server sees as IPv6'],
  ]
  for (const [i, [series, transport, offload, why]] of rows.entries()) {
    it(`serve OpenVPN ${series} over ${transport}: ${why}`, async () => {
      const isTcp = transport.startsWith('tcp')
      const server = isTcp ? second : { ipv4: SERVER_VPN, ipv6: SERVER_VPN6 }
      const host = lab.hosts[i]!
      const client = lab.startClient(
        {
          ...{ program: programs[series]!, offload, host, name: `client${i}` },
          ...{ more: ['tun-mtu 1400', ...(offload ? [] : ['disable-dco'])] },
          ...(isTcp ? { port: 1195 } : {}),
        },
        transport,
      )
      await client.says(STARTED)
      assert.equal(OFFLOADED.test(client.stdout), offload)
      await answers(host.netns, server.ipv4)
      assert.equal(await ping(host.netns, server.ipv6), 0)
      assert.equal(await ping(host.netns, server.ipv4, 5, ['-s', '3000']), 0)
      await transfer({ from: host.netns, to: lab.server, address: server.ipv6 })
      await transfer({ from: lab.server, to: host.netns, address: vpnAddress(host, 'inet6') })
    })
  }

  it('end one without the other', async () => {
    servers[1]!.kill('SIGTERM')
    await servers[1]!.ended
    assert.equal(await ping(lab.hosts[0]!.netns, SERVER_VPN6), 0)
    const links = lab.server.ip('-br link')
    assert.ok(links.includes('tun0') && !links.includes('tun1'), links)
  })
})

describe('one OpenVPN 2.7 server with several sockets', { skip }, () => {
  let lab: Lab
  let server: Running
  const rows: [series: string, Transport, port: number][] = [
    ['2.7', 'udp', 1194],
    ['2.6', 'udp', 1200],
    ['2.6', 'tcp', 1195],
  ]
  before(async () => {
    lab = openLab()
    while (lab.hosts.length < rows.length) lab.addHost()
    forward(lab.server)
    const [first, second] = lab.hosts.map(({ server }) => server.ipv4)
    const more = [
      ...[`local ${first} 1194 udp`, `local ${second} 1200 udp`, 'local * 1195 tcp-server'],
      'tun-mtu 1400',
    ]
    server = lab.startServer({ program: programs['2.7']!, offload: true, more }, 'udp')
    await server.says(STARTED)
    for (const [i, [series, transport, port]] of rows.entries()) {
      const about = { program: programs[series]!, offload: true, name: `client${i}` }
      const side = { ...about, host: lab.hosts[i]!, port, more: ['tun-mtu 1400'] }
      await lab.startClient(side, transport).says(STARTED)
      await answers(lab.hosts[i]!.netns, SERVER_VPN)
    }
  })
  after(() => lab.close())

  it('is offloaded', () => assert.match(server.stdout, OFFLOADED))

  it('serves the clients of each, and they reach each other', async () => {
    const [udp, other, tcp] = lab.hosts as [Host, Host, Host]
    await transfer({ from: udp.netns, to: lab.server, address: SERVER_VPN })
    await transfer({ from: lab.server, to: other.netns, address: vpnAddress(other, 'inet') })
    await transfer({ from: udp.netns, to: tcp.netns, address: vpnAddress(tcp, 'inet') })
    assert.equal(await ping(tcp.netns, vpnAddress(other, 'inet')), 0)
  })
})

/** What a client was given in the tunnel. */
function vpnAddress(host: Host, family: 'inet' | 'inet6'): string {
  const shown = host.netns.ip('addr show dev tun0 scope global')
  return new RegExp(`${family} ([^/ ]+)`).exec(shown)![1]!
}

/** Of the server, on none of its cables. */
const HOME = { ipv4: '198.51.100.1', ipv6: '2001:db8:ff::1' }
/** Reached through the server only. */
const BEYOND = { ipv4: '203.0.113.2', ipv6: '2001:db8:fe::2' }

for (const series of ['2.6', '2.7']) {
  describe(`addresses of and at an OpenVPN ${series} server`, { skip }, () => {
    let lab: Lab
    let beyond: TestNetns
    let server: Running
    let nat: Running
    const clients: Running[] = []
    const hosts: Host[] = []

    before(async () => {
      lab = openLab()
      beyond = openBeyond(lab.server)
      lab.server.ip(`addr add ${HOME.ipv4}/32 dev lo`)
      lab.server.ip(`addr add ${HOME.ipv6}/128 dev lo nodad`)
      for (let i = 0; i < 4; i++) hosts.push(lab.hosts[i] ?? lab.addHost())
      for (const host of hosts) leadEverywhere(host)
      const more = [
        'tun-mtu 1400',
        'server-ipv6 fd00:8::/64',
        'multihome',
        'keepalive 2 20',
        'verb 4',
      ]
      server = lab.startServer({ program: programs[series]!, offload: true, more }, 'udp6')
      await server.says(STARTED)
      nat = start('ip', [
        ...['netns', 'exec', hosts[3]!.netns.name, process.execPath],
        ...[join(import.meta.dirname, 'nat.ts'), '2000', hosts[3]!.server.ipv4, '1194'],
      ])
      await nat.says(/ready/)
      const bound = { bound: true, more: [`local ${hosts[2]!.own.ipv4}`, 'lport 5000'] }
      bound.more.push('redirect-gateway def1 ipv6')
      const rows: [Transport, series: string, Partial<ClientSide>][] = [
        ['udp', '2.7', { remote: HOME.ipv4 }],
        ['udp6', '2.6', { remote: HOME.ipv6 }],
        ['udp', '2.6', bound],
        ['udp', '2.7', { remote: '127.0.0.1', port: 2000, more: ['reneg-sec 5'] }],
      ]
      for (const [i, [transport, program, side]] of rows.entries()) {
        const more = ['tun-mtu 1400', ...(side.more ?? [])]
        const about = { program: programs[program]!, offload: true, name: `client${i}` }
        clients.push(lab.startClient({ ...side, ...about, host: hosts[i]!, more }, transport))
      }
      await Promise.all(clients.map((client) => client.says(STARTED)))
      await Promise.all(hosts.map(({ netns }) => answers(netns, SERVER_VPN)))
    })
    after(async () => {
      nat?.kill('SIGTERM')
      await nat?.ended
      await lab.close()
      beyond[Symbol.dispose]()
    })

    it('multihome: answers come from the address that was asked', async () => {
      for (const [i, home] of [HOME.ipv4, HOME.ipv6].entries()) {
        const { netns, own } = hosts[i]!
        // Not tcpdump: it wants to become somebody else, and nobody else is in an ordinary user's namespace.
        const options = ['-l', '-i', 'veth0', '-f', 'udp port 1194', '-c', '16', '-T', 'fields']
        const capture = start('ip', [
          ...['netns', 'exec', netns.name, 'tshark', ...options, '-e', 'ip.src', '-e', 'ipv6.src'],
        ])
        await capture.says(/Capturing on/)
        assert.equal(await ping(netns, SERVER_VPN, 10), 0)
        const { stdout } = await capture.ended
        const sources = new Set(stdout.trim().split(/\s+/))
        const mine = i === 0 ? own.ipv4 : own.ipv6
        assert.deepEqual([...sources].sort(), [home, mine].sort())
      }
    })

    it('local, lport: the client has the address it is told', () => {
      assert.match(clients[2]!.stdout, /link local \(bound\): \[AF_INET\]192\.0\.2\.34:5000/)
      assert.ok(server.stdout.includes('192.0.2.34:5000'))
    })

    it('redirect-gateway: what is beyond the server is reached through it', async () => {
      await answers(hosts[2]!.netns, BEYOND.ipv4)
      await answers(hosts[2]!.netns, BEYOND.ipv6)
      const ends = { from: hosts[2]!.netns, to: beyond, address: BEYOND.ipv4 }
      await transfer(ends)
      // The same without the tunnel has no way back.
      assert.equal(await ping(hosts[0]!.netns, BEYOND.ipv4, 1, ['-w', '1']), 100)
    })

    it('a client that has another address goes on', async () => {
      for (const [i, family] of [
        [0, 'ipv4'],
        [1, 'ipv6'],
      ] as const) {
        const { netns, own, cable } = hosts[i]!
        const given = vpnAddress(hosts[i]!, 'inet')
        if (family === 'ipv4') {
          netns.ip(`addr del ${own.ipv4}/28 dev veth0`)
          netns.ip(`addr add 192.0.2.${cable * 16 + 5}/28 dev veth0`)
        } else {
          netns.ip(`addr del ${own.ipv6}/64 dev veth0`)
          netns.ip(`addr add 2001:db8:0:${cable}::5/64 dev veth0 nodad`)
        }
        leadEverywhere(hosts[i]!)
        assert.equal(await ping(netns, SERVER_VPN), 0, family)
        assert.equal(await ping(lab.server, given), 0, family)
        await transfer({ from: lab.server, to: netns, address: given })
      }
    })

    it('a client whose port another has changed goes on', async () => {
      nat.kill('SIGUSR1')
      await nat.says(/moved/)
      assert.equal(await ping(hosts[3]!.netns, SERVER_VPN), 0)
      assert.equal(await ping(lab.server, vpnAddress(hosts[3]!, 'inet')), 0)
    })

    if (series === '2.7') {
      // OpenVPN 2.6 is not told of it by any driver, and sends what renews keys to the old address.
      it('keys are renewed after that', async () => {
        assert.ok(times(server, /floated from/) >= 3, 'it was told')
        // Not the first: with `multihome`, OpenVPN forgets of a client that moved which address it had asked.
        const client = clients[3]!
        const renewed = () => times(client, /Control Channel: TLS/)
        const had = renewed()
        await until('two renewals', () => renewed() >= had + 2, 40)
        assert.equal(times(client, STARTED), 1)
        assert.equal(await ping(hosts[3]!.netns, SERVER_VPN), 0)
      })
    }
  })
}

describe('clients of an OpenVPN server that answers from another address than they asked', {
  skip,
}, () => {
  /** Of the server, on a cable that no client has. */
  const asked = () => lab.hosts[2]!.server.ipv4
  const rows: [series: string, server: string][] = [
    ['2.6', '2.7'],
    ['2.7', '2.6'],
  ]
  const inside = (i: number) => `10.${8 + i}.0.1`
  let lab: Lab
  const begin = (i: number, more: string[]) => {
    const side = { program: programs[rows[i]![0]]!, offload: true, name: `client${i}` }
    const about = { host: lab.hosts[i]!, remote: asked(), port: 1194 + i }
    return lab.startClient({ ...side, ...about, more: ['tun-mtu 1400', ...more] }, 'udp')
  }
  before(async () => {
    lab = openLab()
    while (lab.hosts.length < 3) lab.addHost()
    for (const [i, [, series]] of rows.entries()) {
      lab.hosts[i]!.netns.ip(`route add ${asked()} via ${lab.hosts[i]!.server.ipv4}`)
      const more = [
        ...['tun-mtu 1400', 'reneg-sec 3'],
        ...[`port ${1194 + i}`, `server 10.${8 + i}.0.0 255.255.255.0`],
      ]
      const server = lab.startServer({ program: programs[series]!, offload: true, more }, 'udp')
      await server.says(STARTED)
    }
  })
  after(() => lab.close())

  for (const [i, [series]] of rows.entries()) {
    it(`OpenVPN ${series} without float: does not hear it`, async () => {
      const client = begin(i, [])
      const answer = lab.hosts[i]!.server.ipv4.replaceAll('.', '\\.')
      await client.says(new RegExp(`Incoming packet rejected from \\[AF_INET\\]${answer}:`))
      client.kill('SIGTERM')
      await client.ended
      assert.doesNotMatch(client.stdout, STARTED)
    })

    it(`OpenVPN ${series} with float: connects, and keys are renewed`, async () => {
      const { netns } = lab.hosts[i]!
      const client = begin(i, ['float'])
      await client.says(STARTED)
      assert.match(client.stdout, OFFLOADED)
      await answers(netns, inside(i))
      await transfer({ from: netns, to: lab.server, address: inside(i) })
      await transfer({ from: lab.server, to: netns, address: vpnAddress(lab.hosts[i]!, 'inet') })
      const renewed = () => times(client, /Control Channel: TLS/)
      await until('a renewal', () => renewed() >= 2, 20)
      assert.equal(times(client, STARTED), 1)
      assert.equal(await ping(netns, inside(i)), 0)
    })

    // Packets only: control packets from elsewhere than at the start end in "unexpected IP addr", whatever the driver.
    it(`OpenVPN ${series}: goes on when the server has another address`, async () => {
      const { netns, serverDevice, cable, server } = lab.hosts[i]!
      const moved = `192.0.2.${cable * 16 + 7}`
      lab.server.ip(`addr del ${server.ipv4}/28 dev ${serverDevice}`)
      lab.server.ip(`addr add ${moved}/28 dev ${serverDevice}`)
      netns.ip(`route replace ${asked()} via ${moved}`)
      await answers(netns, inside(i))
      await transfer({ from: netns, to: lab.server, address: inside(i) })
      await transfer({ from: lab.server, to: netns, address: vpnAddress(lab.hosts[i]!, 'inet') })
    })
  }
})

function openBeyond(server: TestNetns): TestNetns {
  const beyond = openTestNetns('runb')
  server.ip(`link add beyond type veth peer name veth0 netns ${beyond.name}`)
  server.ip('addr add 203.0.113.1/24 dev beyond')
  server.ip('addr add 2001:db8:fe::1/64 dev beyond nodad')
  server.ip('link set beyond up')
  beyond.ip(`addr add ${BEYOND.ipv4}/24 dev veth0`)
  beyond.ip(`addr add ${BEYOND.ipv6}/64 dev veth0 nodad`)
  beyond.ip('link set veth0 up')
  beyond.ip('route add 10.8.0.0/24 via 203.0.113.1')
  beyond.ip('-6 route add fd00:8::/64 via 2001:db8:fe::1')
  forward(server)
  return beyond
}

/** The server's end of the cable is the way to all other addresses. */
function leadEverywhere({ netns, server }: Host): void {
  netns.ip(`route replace default via ${server.ipv4}`)
  netns.ip(`-6 route replace default via ${server.ipv6}`)
}
