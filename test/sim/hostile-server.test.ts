/**
 * A server that means harm, on virtual time: our client with a real session to it, what it changes on its machine kept in books. Whatever
 * is said to it, it says little, asks once, waits longer, and takes back what it has done.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Endpoint } from '../../src/driver/core/address.ts'
import { Client, type Verdict } from '../../src/openvpn/client/client.ts'
import { readClientConfig } from '../../src/openvpn/config/client-config.ts'
import { DataChannel } from '../../src/openvpn/data-channel.ts'
import { LEVEL } from '../../src/openvpn/log.ts'
import type { DnsPlan, SystemRoute } from '../../src/openvpn/network.ts'
import { BookDriver } from './book-driver.ts'
import { SERVER_AT } from './control.ts'
import { ServerNet } from './server.ts'

const SECOND = 1000
const MINUTE = 60 * SECOND
const AT = Endpoint.of('192.0.2.77', 4000)
const PEM = (what: string) => `-----BEGIN ${what}-----\n-----END ${what}-----\n`
const FILES = {
  read: (path: string) =>
    new TextEncoder().encode(PEM(path.endsWith('key') ? 'PRIVATE KEY' : 'CERTIFICATE')),
}
const OUTSIDE = { ifindex: 2, gateway: '192.0.2.254' }
const keyOf = ({ destination, prefix }: SystemRoute) => `${destination}/${prefix}`

/** A client's machine. */
class Machine {
  readonly routes = new Map<string, SystemRoute>()
  readonly log: string[] = []
  readonly scripts: Readonly<Record<string, string>>[] = []
  readonly client: Client
  /** Times at which it was connected. */
  readonly connected: number[] = []
  dns: DnsPlan | undefined
  added = 0
  asked = 0
  verdict: Verdict | undefined
  readonly #net: ServerNet

  constructor(net: ServerNet, lines: string[] = []) {
    this.#net = net
    const text = [
      ...['client', `remote ${SERVER_AT.address} ${SERVER_AT.port}`, 'ca ca', 'cert ca', 'key key'],
      ...['verify-x509-name server', 'ping-restart 80000', ...lines],
    ].join('\n')
    const config = readClientConfig({ file: '/p/c.ovpn', text }, FILES)
    const remote = { address: SERVER_AT.address, port: SERVER_AT.port, scope: 0 }
    const unusual = () => assert.fail('the driver is gone')
    const take = (route: SystemRoute) => {
      this.added++
      if (this.routes.has(keyOf(route))) throw new Error(`${keyOf(route)} is there`)
      this.routes.set(keyOf(route), route)
    }
    this.client = new Client(
      config,
      {
        now: () => net.clock.now,
        date: () => new Date(1_800_000_000_000 + net.clock.now),
        random: (count) => net.random.bytes(count),
        schedule: (at, call) => net.schedule(at, call),
        resolve: async (host) => [host],
        open: async () => ({ transport: this.#transport(), path: { remote } }),
        ask: async () => {
          this.asked++
          return new Promise(() => {})
        },
        log: (line, level = LEVEL.usual) => {
          if (level <= LEVEL.usual) this.log.push(line)
        },
        ...{ pid: 1, version: 'test', hasEpochs: true, nameservers: () => [] },
        network: {
          ...{ up: () => {}, addAddress: () => {}, removeAddress: () => {} },
          addRoute: take,
          removeRoute: (route) => void this.routes.delete(keyOf(route)),
          nextHop: () => OUTSIDE,
          ...{ defaultHop: () => OUTSIDE, localNetwork: () => undefined },
          hardwareAddress: () => undefined,
        },
        openData: () => DataChannel.open(new BookDriver().client, { mode: 'p2p' }, unusual),
        applyDns: async (_device, plan) => {
          this.dns = plan
          return async () => {
            this.dns = undefined
          }
        },
        run: async (_command, environment) => {
          this.scripts.push(environment)
          return { status: 0, output: '' }
        },
        tls: net.tls(() => 'alice'),
        setBuffers: () => {},
        machine: () => assert.fail('nobody wants to know'),
      },
      {
        ...{ state: () => {}, rekeyed: () => {}, pending: () => {}, disconnected: () => {} },
        connected: () => void this.connected.push(net.clock.now),
      },
    )
    void this.client.run().then((verdict) => {
      this.verdict = verdict
    })
  }

  /** Until it is connected. */
  async settle(): Promise<this> {
    for (let i = 0; i < 300 && this.client.connection === undefined; i++) {
      await this.#net.pass(SECOND)
    }
    assert(this.client.connection !== undefined, this.log.join('\n'))
    return this
  }

  /** Ends it; nothing is left. */
  async end(): Promise<void> {
    this.client.stop()
    await this.#net.pass(MINUTE)
    assert.equal(this.verdict?.kind, 'stopped')
    assert.deepEqual([...this.routes.keys()], [])
    assert.equal(this.dns, undefined)
    await this.#net.end()
  }

  #transport() {
    const { wire } = this.#net
    const remote = { address: SERVER_AT.address, port: SERVER_AT.port, scope: 0 }
    return {
      ...{
        protocol: 'udp' as const,
        fd: 5,
        local: { address: AT.address, port: AT.port, scope: 0 },
      },
      send: (packet: Uint8Array) => wire.send(AT, SERVER_AT, packet),
      onPacket: (call: (packet: Uint8Array, path: { remote: typeof remote }) => void) =>
        wire.attach(AT, ({ bytes }) => call(bytes, { remote })),
      close: () => wire.detach(AT),
    }
  }
}

const sayer = (net: ServerNet) => {
  const [server] = net.server.clients()
  assert(server !== undefined)
  return (text: string) => server.send(text)
}

describe('a hostile server', () => {
  it('whose packets are forged, cut and mixed up is connected to, and stays so', async () => {
    const net = await ServerNet.open()
    const seen: Uint8Array[] = []
    const machine = new Machine(net)
    const { random } = net
    const forge = (): Uint8Array => {
      const former = seen[random.below(Math.max(1, seen.length))]
      if (former === undefined || random.below(2) === 0) return random.bytes(random.below(200))
      return former.slice(0, random.below(former.length))
    }
    const send = net.wire.send.bind(net.wire)
    net.wire.send = (from, to, bytes) => {
      if (to === AT || to.port === AT.port) seen.push(bytes.slice())
      send(from, to, bytes)
    }
    for (let round = 0; round < 400; round++) {
      for (let i = 0; i < 5; i++) send(SERVER_AT, AT, forge())
      await net.pass(50)
    }
    await machine.settle()
    const before = machine.connected.length
    for (let i = 0; i < 2000; i++) send(SERVER_AT, AT, forge())
    await net.pass(MINUTE)
    assert.equal(machine.connected.length, before)
    assert(machine.log.length < 20, machine.log.join('\n'))
    await machine.end()
  })

  it('that talks without end is quoted in part, and asks the user once at a time', async () => {
    const net = await ServerNet.open()
    const machine = await new Machine(net).settle()
    const say = sayer(net)
    for (let i = 0; i < 200; i++) {
      say(`INFO,${'x'.repeat(900)}`)
      say('AUTH_PENDING,timeout 4294967295')
      say(`INFO_PRE,CR_TEXT:R,E:who are you? ${i}`)
      say(`NONSENSE${i}`)
      await net.pass(20)
    }
    await net.pass(10 * SECOND)
    assert(machine.log.length <= 30 + machine.connected.length, `${machine.log.length} lines`)
    assert(machine.log.length > 5)
    assert(machine.log.every((line) => line.length <= 600))
    assert(machine.asked <= 1, `${machine.asked} questions`)
    assert.equal(machine.connected.length, 1)
    await machine.end()
  })

  it('that updates what it pushed faster than anybody follows has the last one followed', async () => {
    const net = await ServerNet.open()
    const machine = await new Machine(net).settle()
    const say = sayer(net)
    const routes = (i: number) =>
      Array.from({ length: 20 }, (_, j) => `route 10.${i}.${j}.0 255.255.255.0`)
    for (let i = 0; i < 250; i++) say(`PUSH_UPDATE,-route,${routes(i).join(',')}`)
    await net.pass(MINUTE)
    const left = Array.from({ length: 20 }, (_, j) => `10.249.${j}.0/24`)
    assert.deepEqual(
      [...machine.routes.keys()].filter((key) => key.startsWith('10.249')).sort(),
      left.sort(),
    )
    assert.equal(machine.routes.size, left.length)
    assert(machine.added < 2000, `${machine.added} routes were made for 5000 that were told of`)
    assert.equal(machine.connected.length, 1)
    await machine.end()
  })

  it('that ends each connection as soon as it is there is waited for longer and longer', async () => {
    const net = await ServerNet.open()
    const machine = new Machine(net)
    for (let seconds = 0; seconds < 3600; seconds++) {
      for (const client of net.server.clients()) client.send('RESTART,[N],come again')
      await net.pass(SECOND)
    }
    const gaps = machine.connected.slice(1).map((at, i) => at - machine.connected[i]!)
    assert(machine.connected.length < 25, `${machine.connected.length} connections in an hour`)
    assert(gaps.at(-1)! > 100 * SECOND, gaps.join(' '))
    await machine.end()
  })

  it('whose routes, names and values are absurd does no harm', async () => {
    const many = Array.from(
      { length: 3000 },
      (_, i) => `route 10.${i >> 8}.${i & 255}.0 255.255.255.0`,
    )
    const push = [
      ...[`route ${SERVER_AT.address} 255.255.255.255`, 'route 0.0.0.0 0.0.0.0', 'route ::1 1'],
      ...[
        'redirect-gateway def1 ipv6',
        'route $(reboot) 255.255.255.255',
        'route 10.0.0.1 1.2.3.4',
      ],
      ...['dhcp-option DNS 10.8.0.1', 'dhcp-option DNS `reboot`', 'dhcp-option DOMAIN a;reboot'],
      ...['dhcp-option DOMAIN good.example', 'dhcp-option DOMAIN "a b"', 'dhcp-option DOMAIN -x'],
      ...[
        'setenv-safe COLOUR "$(reboot);[2J"',
        'setenv-safe LD_PRELOAD /x',
        'setenv LD_PRELOAD /x',
      ],
      ...[
        'up /bin/sh',
        'script-security 3',
        'plugin /x.so',
        'config /etc/passwd',
        'log /etc/passwd',
      ],
      ...['ifconfig-ipv6 nonsense', 'tun-mtu 99999999', 'ping -1', 'remote evil.example 1'],
      ...many,
    ]
    const net = await ServerNet.open({ settings: { push } })
    const machine = await new Machine(net, ['script-security 2', 'route-up /bin/told']).settle()
    assert.deepEqual(machine.dns?.servers, ['10.8.0.1'])
    assert.deepEqual(machine.dns?.searchDomains, ['good.example'])
    const past = machine.routes.get(`${SERVER_AT.address}/32`)
    assert.equal(past?.ifindex, OUTSIDE.ifindex, "the tunnel's own packets go past it")
    assert([...machine.routes.keys()].every((key) => /^[\d.:a-f]+\/\d+$/.test(key)))
    const [told] = machine.scripts
    assert.equal(told?.OPENVPN_COLOUR, '$(reboot);[2J')
    assert.equal(told?.OPENVPN_LD_PRELOAD, '/x')
    assert.equal(told?.LD_PRELOAD, undefined)
    assert(Object.values(told ?? {}).every((value) => !/\p{Cc}/u.test(value)))
    assert(machine.routes.size > 3000)
    await machine.end()
  })
})
