/** What our client changes on its machine for a server of OpenVPN 2.6, what it tells scripts, and that all of it is taken back. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { answers } from '../interop/openvpn.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, Peers, stop } from './peers.ts'

const NUMBER = 0
const PUSHED = [
  'redirect-gateway def1',
  'route 10.55.0.0 255.255.0.0',
  'route 10.56.0.0 255.255.0.0 net_gateway',
  'route-ipv6 fd00:55::/48',
  'block-ipv6',
  'dhcp-option DNS 10.8.0.1',
  'dhcp-option DOMAIN corp.example',
]
const DNS_BEFORE = 'nameserver 9.9.9.9\noptions timeout:1\n'

describe('the network of our client', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers
  let server: Running
  let dns: string
  before(async () => {
    peers = await Peers.open()
    const { lab } = peers
    lab.client.ip(`route add default via ${lab.hosts[0]!.server.ipv4}`)
    // `ip netns exec` shows it as /etc/resolv.conf.
    dns = join('/etc/netns', lab.client.name)
    mkdirSync(dns, { recursive: true })
    dns = join(dns, 'resolv.conf')
    const pushes = PUSHED.map((option) => `push "${option}"`)
    server = await peers.server('2.6', NUMBER, [...identity('server'), ...pushes], 'udp')
    peers.write(
      'told.sh',
      '#!/bin/sh\necho "$script_type $* $ifconfig_local $route_vpn_gateway" >>"$(dirname "$0")/told"\n',
    )
  })
  beforeEach(() => {
    writeFileSync(dns, DNS_BEFORE)
    rmSync(join(peers.lab.folder, 'told'), { force: true })
  })
  after(async () => {
    rmSync(join('/etc/netns', peers.lab.client.name), { recursive: true })
    await peers.close()
  })

  const begin = async (lines: string[] = []): Promise<Running> => {
    const client = peers.client('ours', NUMBER, [...identity('client'), ...lines])
    await client.says(STARTED)
    return client
  }
  /** Whether an interface has its carrier is the driver's. */
  const routes = () =>
    ['-4', '-6']
      .map((family) => peers.lab.client.ip(`${family} route`))
      .join('')
      .replaceAll('linkdown ', '')
  const resolvConf = () => readFileSync(dns, 'utf8')
  const links = () => peers.lab.client.ip('-o link')

  it('is told to the server as far as the profile wants', async () => {
    const told = (from: number) => {
      const all = [...server.stdout.slice(from).matchAll(/peer info: (\w+)=(.*)/g)]
      return new Map(all.map(([, name, value]) => [name, value]))
    }
    await stop(await begin(['setenv UV_SEAT 12', 'setenv IV_GUI_VER desk']))
    assert.deepEqual([told(0).get('IV_GUI_VER'), told(0).get('UV_SEAT')], ['desk', undefined])
    assert.equal(told(0).get('IV_HWADDR'), undefined)
    const before = server.stdout.length
    await stop(await begin(['push-peer-info', 'setenv UV_SEAT 12']))
    const more = told(before)
    const [, hardware] = links().match(/veth0.*link\/ether ([0-9a-f:]+)/) ?? []
    assert.equal(more.get('IV_HWADDR'), hardware)
    assert.match(more.get('IV_SSL') ?? '', /^BoringSSL.of.Bun/)
    assert.deepEqual([more.get('UV_SEAT'), more.get('IV_PLAT_VER')], ['12', release()])
  })

  it('has routes and DNS while it is connected, and no longer', async () => {
    const before = routes()
    const client = await begin()
    try {
      await answers(peers.lab.client, '10.8.0.1')
      const { server } = peers.lab.hosts[0]!
      for (const route of [
        /^0\.0\.0\.0\/1 dev ovpn0/m,
        /^128\.0\.0\.0\/1 dev ovpn0/m,
        /^10\.55\.0\.0\/16 dev ovpn0/m,
        new RegExp(`^10\\.56\\.0\\.0/16 via ${server.ipv4} dev veth0`, 'm'),
        new RegExp(`^${server.ipv4} dev veth0`, 'm'),
        /^fd00:55::\/48 dev ovpn0/m,
        /^unreachable 2000::\/4 dev lo .*metric 4096/m,
      ]) {
        assert.match(routes(), route)
      }
      assert.match(
        resolvConf(),
        /nameserver 10\.8\.0\.1\nsearch corp\.example\noptions timeout:1\n/,
      )
      assert.doesNotMatch(resolvConf(), /9\.9\.9\.9/)
    } finally {
      await stop(client)
    }
    assert.equal(client.status, 0)
    assert.equal(routes(), before)
    assert.equal(resolvConf(), DNS_BEFORE)
    assert.doesNotMatch(links(), /ovpn0/)
  })

  it('leaves out what the profile does not want', async () => {
    const client = await begin(['route-nopull', 'route 10.99.0.0 255.255.0.0'])
    try {
      assert.match(routes(), /^10\.99\.0\.0\/16 dev ovpn0/m)
      assert.doesNotMatch(routes(), /10\.55|128\.0|unreachable/)
      assert.equal(resolvConf(), DNS_BEFORE)
    } finally {
      await stop(client)
    }
  })

  it('leaves routes and addresses to scripts', async () => {
    const client = await begin(['route-noexec', 'ifconfig-noexec', 'dns-updown disable'])
    try {
      assert.doesNotMatch(routes(), /10\.55|128\.0|unreachable/)
      assert.doesNotMatch(peers.lab.client.ip('addr show dev ovpn0'), /10\.8\.0\./)
      assert.equal(resolvConf(), DNS_BEFORE)
    } finally {
      await stop(client)
    }
  })

  it('puts a routing table and a metric to use', async () => {
    const client = await begin(['route-table 77', 'route 10.98.0.0 255.255.0.0 default 5'])
    try {
      const table = peers.lab.client.ip('route show table 77')
      assert.match(table, /^10\.98\.0\.0\/16 dev ovpn0 .*metric 5/m)
      assert.match(table, /^128\.0\.0\.0\/1 dev ovpn0/m)
      assert.doesNotMatch(routes(), /128\.0/)
    } finally {
      await stop(client)
    }
  })

  it('tells scripts in their order', async () => {
    const hooks = ['up', 'down', 'route-up', 'route-pre-down', 'ipchange']
    const lines = hooks.map((hook) => `${hook} "/bin/sh told.sh"`)
    const client = await begin(['script-security 2', 'dns-updown "/bin/sh told.sh"', ...lines])
    await stop(client)
    const told = readFileSync(join(peers.lab.folder, 'told'), 'utf8')
    const [address] = /10\.8\.0\.\d+/.exec(told) ?? []
    const end = `${address} 10.8.0.1`
    const { server } = peers.lab.hosts[0]!
    assert.deepEqual(told.trim().split('\n'), [
      `ipchange [AF_INET]${server.ipv4} 1194 ${end}`,
      `up ovpn0 1500 0 ${address} 255.255.255.0 init ${end}`,
      `route-up  ${end}`,
      `dns-up  ${end}`,
      `dns-down  ${end}`,
      `route-pre-down ovpn0 1500 0 ${address} 255.255.255.0 init ${end}`,
      `down ovpn0 1500 0 ${address} 255.255.255.0 init ${end}`,
    ])
  })

  it('ends where the up script fails', async () => {
    const lines = ['script-security 2', 'up /bin/false']
    const { status, stderr } = await peers.client('ours', NUMBER, [...identity('client'), ...lines])
      .ended
    assert.match(stderr, /the up command failed with status 1/)
    assert.equal(status, 3)
    assert.doesNotMatch(links(), /ovpn0/)
  })

  it('keeps all of it over a restart with persist-tun', async () => {
    const client = await begin(['persist-tun', 'connect-retry 2 2'])
    try {
      const connected = routes()
      client.kill('SIGUSR1')
      await client.says(/RECONNECTING/)
      assert.equal(routes(), connected)
      assert.match(resolvConf(), /10\.8\.0\.1/)
      await until('it to be connected again', () => count(client) === 2, 40)
      assert.equal(routes(), connected)
      await answers(peers.lab.client, '10.8.0.1')
    } finally {
      await stop(client)
    }
    assert.equal(resolvConf(), DNS_BEFORE)
  })

  it('connects anew where somebody removes the interface', async () => {
    const before = routes()
    const client = await begin()
    try {
      peers.lab.client.ip('link del ovpn0')
      await until('it to be connected again', () => count(client) === 2, 40)
      await answers(peers.lab.client, '10.8.0.1')
    } finally {
      await stop(client)
    }
    assert.equal(routes(), before)
    assert.equal(resolvConf(), DNS_BEFORE)
  })

  it('puts right what a client that was killed has left', async () => {
    const killed = await begin()
    process.kill(killed.pid, 'SIGKILL')
    await killed.ended
    await until('the interface to go', () => !links().includes('ovpn0'), 40)
    assert.notEqual(resolvConf(), DNS_BEFORE)
    const client = await begin(['route-nopull'])
    try {
      assert.equal(resolvConf(), DNS_BEFORE)
    } finally {
      await stop(client)
    }
  })

  it('ends of itself when nothing has moved', async () => {
    const client = await begin(['inactive 2 100000'])
    const { status, stdout } = await client.ended
    assert.match(stdout, /inactive: nothing to speak of for 2 s/)
    assert.equal(status, 0)
  })

  it('writes its status, and the number of its process', async () => {
    const { folder } = peers.lab
    const client = await begin(['status status 1', 'writepid pid'])
    try {
      const status = () => existsSync(join(folder, 'status')) && read('status')
      const read = (name: string) => readFileSync(join(folder, name), 'utf8')
      await until('a status', () => /TCP\/UDP read bytes,\d+/.test(status() || ''), 40)
      assert.match(read('status'), /^OpenVPN STATISTICS\nUpdated,/)
      assert.match(read('pid'), /^\d+\n$/)
    } finally {
      await stop(client)
    }
  })

  it('is set up anew after a restart, though root was given up', async () => {
    const client = await begin(['user nobody', 'group nogroup'])
    const former = routes()
    client.kill('SIGUSR1')
    await until('it to be connected again', () => count(client) === 2, 40)
    assert.equal(routes(), former)
    assert.match(readFileSync(dns, 'utf8'), /^nameserver 10\.8\.0\.1$/m)
    await answers(peers.lab.client, '10.8.0.1')
    await stop(client)
    assert.equal(readFileSync(dns, 'utf8'), DNS_BEFORE)
    assert.doesNotMatch(routes(), /10\.55\./)
  })
})

function count(client: Running): number {
  return client.stdout.match(new RegExp(STARTED, 'g'))?.length ?? 0
}
