/**
 * The server of the control plane in the simulated network: a real Server with a driver that only keeps books, and clients with
 * sessions of their own (control.ts). Whatever happens, `end` finds nothing left of anybody.
 */
import assert from 'node:assert/strict'
import { Endpoint } from '../../src/driver/core/address.ts'
import { DataChannel } from '../../src/openvpn/data-channel.ts'
import type { Network, SystemRoute } from '../../src/openvpn/network.ts'
import { DEFAULT_DATA_CIPHERS } from '../../src/openvpn/proto/negotiate.ts'
import { IpPool } from '../../src/openvpn/server/ip-pool.ts'
import type { ServerPolicy } from '../../src/openvpn/server/policy.ts'
import { Server } from '../../src/openvpn/server/server.ts'
import type { ServerSettings } from '../../src/openvpn/server/settings.ts'
import type { DatagramTransport, Path } from '../../src/openvpn/transport.ts'
import type { WrapSettings } from '../../src/wire/wrap.ts'
import { Random } from '../random.ts'
import { BookDriver } from './book-driver.ts'
import { Clock } from './clock.ts'
import { SERVER_AT, SimClient } from './control.ts'
import { createFakeTls } from './tls.ts'
import { type Noise, SILENCE, Wire } from './wire.ts'

const SECOND = 1000
/** Of turns of the event loop, after each instant: what was promised is kept by then. */
const TURNS = 4

const SETTINGS: ServerSettings = {
  setsAddresses: true,
  queueLength: undefined,
  v4: { address: '10.8.0.1', prefix: 24, pool: { first: '10.8.0.2', last: '10.8.0.254' } },
  tunMtu: 1500,
  mssfix: undefined,
  push: ['route 10.1.0.0 255.255.0.0'],
  keepalive: { interval: 10, timeout: 120 },
  routes: [],
  routeTable: undefined,
  clientToClient: false,
  addressConstraint: undefined,
  maxClients: 1000,
  duplicateCn: false,
  maxRoutesPerClient: 10,
  connectFrequency: undefined,
  connectFrequencyInitial: { count: 10_000, per: SECOND },
  dataCiphers: DEFAULT_DATA_CIPHERS,
  dataCiphersFallback: undefined,
  requireTlsEkm: false,
  passwords: 'none',
  usernameAsCommonName: false,
  inactive: undefined,
  sessionTimeout: undefined,
  renegotiate: { after: 0, atLeast: 0, bytes: 0, packets: 0 },
  handWindow: 60 * SECOND,
  tranWindow: 3600 * SECOND,
  tlsTimeout: 2 * SECOND,
  maxPacketBytes: 1222,
  explicitExitNotify: 0,
}

export interface ServerNetOptions {
  readonly settings?: Partial<ServerSettings>
  readonly policy?: ServerPolicy
  readonly noise?: Noise
  readonly seed?: number
  /** The server's key of tls-crypt-v2. */
  readonly tlsCryptV2?: Uint8Array
  /** Why the certificate with that name is none of ours (`crl-verify` and the like). */
  readonly refuses?: (name: string) => string | undefined
}

export interface NewClient {
  readonly at?: Endpoint
  readonly username?: string
  readonly password?: string
  readonly wrap?: WrapSettings
  /** So many packets get out, no more. */
  readonly packets?: number
}

export type NetClient = SimClient & { at: Endpoint; name: string }

export class ServerNet {
  readonly clock = new Clock()
  readonly wire: Wire
  readonly random: Random
  readonly driver = new BookDriver()
  readonly logged: string[] = []
  readonly routes: SystemRoute[] = []
  readonly server: Server
  readonly pool: IpPool
  readonly #timers = new Set<object>()
  #hosts = 0

  static async open(options: ServerNetOptions = {}): Promise<ServerNet> {
    const driver = new BookDriver()
    const lost = (error: unknown) => assert.fail(String(error))
    const data = await DataChannel.open(driver.client, { mode: 'mp' }, lost)
    return new ServerNet(options, driver, data)
  }

  private constructor(options: ServerNetOptions, driver: BookDriver, data: DataChannel) {
    const settings = { ...SETTINGS, ...options.settings }
    this.driver = driver
    this.random = new Random(options.seed ?? 1)
    this.wire = new Wire(this.clock, this.random, options.noise ?? SILENCE)
    this.pool = new IpPool({ v4: settings.v4?.pool })
    const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
    this.server = new Server({
      settings,
      policy: options.policy ?? {},
      data,
      pool: this.pool,
      network: this.#network(),
      tls: this.tls(() => 'server', options.refuses),
      door: {
        wrap: { kind: 'none' },
        ...(options.tlsCryptV2 && {
          tlsCryptV2: { serverKey: options.tlsCryptV2, forceCookie: true },
        }),
      },
      datagrams: [this.#transport()],
      listeners: [],
      commonNameOf: ({ chain }) => decode(chain[0]!),
      optionsFor: () => 'V4,dev-type tun,key-method 2,tls-server',
      now: () => this.clock.now,
      date: () => new Date(1_800_000_000_000 + this.clock.now),
      random: (count) => this.random.bytes(count),
      schedule: (at, call) => this.schedule(at, call),
      log: (text) => void this.logged.push(text),
    })
  }

  /** Somebody with a certificate of that name begins to connect, from an address of its own unless told. */
  client(name: string, options: NewClient = {}): NetClient {
    const host = ++this.#hosts
    let { packets = Number.POSITIVE_INFINITY } = options
    const { username = '', password = '', wrap = { kind: 'none' } } = options
    const made: NetClient = Object.assign(
      new SimClient(
        {
          clock: this.clock,
          random: this.random,
          tls: this.tls(() => made.name),
          policy: { dataCiphers: DEFAULT_DATA_CIPHERS, epoch: true },
          hello: { username, password },
        },
        wrap,
        (packet) => {
          if (packets-- > 0) this.wire.send(made.at, SERVER_AT, packet)
        },
      ),
      { name, at: options.at ?? Endpoint.of(`192.0.${2 + (host >> 8)}.${host & 255}`, 1000) },
    )
    this.wire.attach(made.at, ({ bytes }) => made.receive(bytes))
    return made
  }

  /** The client has another address from now on. */
  move(client: NetClient, to: Endpoint): void {
    this.wire.detach(client.at)
    client.at = to
    this.wire.attach(to, ({ bytes }) => client.receive(bytes))
  }

  /** Lets time pass, and all that was promised meanwhile be kept. */
  async pass(milliseconds: number): Promise<void> {
    const end = this.clock.now + milliseconds
    await turns()
    while (this.clock.next <= end) {
      this.clock.runUntil(this.clock.next)
      await turns()
    }
    this.clock.runUntil(end)
  }

  /** Ends the server; then nothing may be left of anybody. */
  async end(): Promise<void> {
    let closed = false
    const closing = this.server.close().then(() => {
      closed = true
    })
    for (let i = 0; i < 100 && !closed; i++) await this.pass(100)
    await closing
    assert.equal(this.server.size, 0, 'clients')
    assert.deepEqual([...this.driver.peersById.keys()], [], 'peers')
    assert.deepEqual(this.routes, [], 'routes')
    assert.equal(this.#timers.size, 0, 'timers')
    const leases = Array.from({ length: this.pool.size }, () => this.pool.acquire(undefined))
    assert(!leases.includes(undefined), 'addresses')
  }

  /** Of somebody with a certificate of that name. */
  tls(name: () => string, refuses: (name: string) => string | undefined = () => undefined) {
    return createFakeTls({
      random: this.random,
      later: (run) => this.clock.after(0, run),
      certificate: () => new TextEncoder().encode(name()),
      verify: (certificate) => refuses(new TextDecoder().decode(certificate)),
    })
  }

  #transport(): DatagramTransport {
    return {
      protocol: 'udp',
      fd: 5,
      local: { address: SERVER_AT.address, port: SERVER_AT.port, scope: 0 },
      onPacket: (listener) => {
        this.wire.attach(SERVER_AT, ({ from, bytes }) => {
          listener(bytes, { remote: { address: from.address, port: from.port, scope: 0 } })
        })
      },
      send: (packet, { remote }: Path) => {
        this.wire.send(SERVER_AT, Endpoint.of(remote.address, remote.port), packet)
      },
      close: () => this.wire.detach(SERVER_AT),
    }
  }

  #network(): Network {
    const none = () => undefined
    return {
      up: none,
      addAddress: none,
      removeAddress: none,
      addRoute: (route) => void this.routes.push(route),
      removeRoute: (route) => void this.routes.splice(this.routes.indexOf(route), 1),
      nextHop: none,
      defaultHop: none,
      localNetwork: none,
      hardwareAddress: none,
    }
  }

  schedule(at: number, call: () => void): () => void {
    const timer = {}
    this.#timers.add(timer)
    this.clock.at(at, () => {
      if (this.#timers.delete(timer)) call()
    })
    return () => void this.#timers.delete(timer)
  }
}

async function turns(): Promise<void> {
  for (let i = 0; i < TURNS; i++) await new Promise((resolve) => setImmediate(resolve))
}
