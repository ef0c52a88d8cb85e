/**
 * The client's side of the machine: its interface with addresses, and the routes and DNS that go with a connection; and the scripts that are
 * told of it. All that is changed is taken back, in the other order. What is to be is plan.ts's, what scripts are told environment.ts's.
 *
 *     open, address, `up`  -->  connect: routes, `route-up`, DNS  -->  disconnect: DNS, `route-pre-down`, routes, `down`
 */
import type { ClientConfig } from '../config/client-config.ts'
import { splitLine } from '../config/syntax.ts'
import type { DataChannel } from '../data-channel.ts'
import { LEVEL, type Tell } from '../log.ts'
import type { DnsPlan, InterfaceAddress, Network, SystemRoute } from '../network.ts'
import type { Millis } from '../proto/reliable.ts'
import {
  type Environment,
  interfaceParameters,
  type ScriptSubject,
  scriptEnvironment,
} from './environment.ts'
import type { NetworkPlan, PlanContext } from './plan.ts'

export interface TunnelWorld {
  now(): Millis
  schedule(at: Millis, call: () => void): () => void
  openData(name: string | undefined): Promise<DataChannel>
  readonly network: Network
  nameservers(): readonly string[]
  /** Has the system ask other servers; returns what takes that back. */
  applyDns(device: string, plan: DnsPlan): Promise<() => Promise<void>>
  run(
    command: readonly string[],
    environment: Environment,
  ): Promise<{ readonly status: number; readonly output: string }>
  log: Tell
}

type Hook = 'up' | 'down' | 'route-up' | 'route-pre-down' | 'dns-up' | 'dns-down' | 'ipchange'

export class Tunnel {
  readonly #world: TunnelWorld
  readonly #config: ClientConfig
  #data: DataChannel | undefined
  #addresses: InterfaceAddress[] = []
  /** By `routeKey`, in the order in which they were made. */
  readonly #routes = new Map<string, SystemRoute>()
  #dns: { plan: string; undo: () => Promise<void> } | undefined
  /** What scripts were told when the tunnel came up; they are told the same when it goes. */
  #subject: ScriptSubject | undefined
  /** Whether `up` has run, and `down` is due. */
  #isTold = false
  #wasTold = false
  /** What is told as `script_context` and `signal`. Source: the calls of run_up_down() in OpenVPN's init.c. */
  #context: 'init' | 'restart' = 'init'
  #signal: string | undefined

  constructor(world: TunnelWorld, config: ClientConfig) {
    this.#world = world
    this.#config = config
  }

  /** @throws Error before `open` */
  get data(): DataChannel {
    if (this.#data === undefined) throw new Error('there is no interface yet')
    return this.#data
  }

  /** Makes the interface, if there is none. Rejects with what the driver refuses. */
  async open(): Promise<void> {
    const { dev } = this.#config
    this.#data ??= await this.#world.openData(dev === 'tun' ? undefined : dev)
  }

  context(
    server: string,
    mtu: PlanContext['mtu'],
    names: ReadonlyMap<string, readonly string[]>,
  ): PlanContext {
    const { network, nameservers } = this.#world
    return {
      ifindex: this.data.ifindex,
      server,
      nextHop: (address) => network.nextHop(address),
      defaultHop: (family) => network.defaultHop(family),
      localNetwork: (address) => network.localNetwork(address),
      nameservers: nameservers(),
      names,
      mtu,
      table: this.#config.routeTable,
    }
  }

  /**
   * Before a server is tried: with `persist-tun` everything may lead into a tunnel that carries nothing at present. The server is reached past
   * it; all else stays in it, so that nothing leaks.
   */
  prepare(server: string): void {
    const { network } = this.#world
    if (this.#data === undefined || network.nextHop(server)?.ifindex !== this.#data.ifindex) return
    const v6 = server.includes(':')
    const hop = network.defaultHop(v6 ? 6 : 4)
    if (hop === undefined) return
    const { ifindex, gateway } = hop
    this.#addRoute({
      ...{ destination: server, prefix: v6 ? 128 : 32, ifindex },
      ...(gateway !== undefined && { gateway }),
    })
  }

  /** Gives way while names cannot be resolved: with `persist-tun`, DNS may be that of a tunnel that carries nothing. */
  async release(): Promise<void> {
    await this.#applyDns(undefined)
    await this.#disconnectRoutes()
  }

  /** Gives the interface its addresses, in place of those it has. Rejects where `up` fails. */
  async address(subject: ScriptSubject): Promise<void> {
    const { plan } = subject
    this.#subject = subject
    if (!this.#config.ifconfigNoexec) this.#readdress(plan)
    if (this.#isTold) return
    this.#isTold = true
    this.#context = this.#wasTold ? 'restart' : 'init'
    this.#signal = undefined
    await this.#hook('up', this.#config.up, this.#parameters())
    this.#wasTold = true
  }

  #readdress(plan: NetworkPlan): void {
    const { network } = this.#world
    const { ifindex } = this.data
    const stays = (address: InterfaceAddress) =>
      plan.addresses.some((other) => JSON.stringify(other) === JSON.stringify(address))
    for (const address of this.#addresses) {
      if (!stays(address)) network.removeAddress(ifindex, address)
    }
    network.up(ifindex, plan.mtu, this.#config.txqueuelen)
    for (const address of plan.addresses) network.addAddress(ifindex, address)
    this.#addresses = [...plan.addresses]
  }

  /** Routes and DNS, now that packets are carried. */
  async connect(subject: ScriptSubject): Promise<void> {
    const { plan, options } = subject
    this.#subject = subject
    if (options.routeDelay !== undefined && options.routeDelay > 0) {
      await this.#wait(options.routeDelay)
    }
    if (this.#data === undefined) return
    if (!this.#config.routeNoexec) this.#route(plan.routes)
    await this.#hook('route-up', this.#config.routeUp)
    await this.#applyDns(plan.dns)
  }

  /** Tells `ipchange` where the server is. */
  async serverKnown(subject: ScriptSubject): Promise<void> {
    const { address, port } = subject.server
    this.#subject = subject
    const family = address.includes(':') ? 'AF_INET6' : 'AF_INET'
    await this.#hook('ipchange', this.#config.ipchange, [`[${family}]${address}`, String(port)])
  }

  /** A connection has ended: with `persist-tun` everything stays as it is for the next one. `signal`: why, for scripts. */
  async disconnected(signal: string): Promise<void> {
    if (this.#data === undefined) return
    if (!this.#config.persistTun) await this.close(signal)
    else if (this.#config.upRestart && this.#isTold) {
      this.#isTold = false
      this.#context = 'restart'
      this.#signal = signal
      await this.#hook('down', this.#config.down, this.#parameters())
    }
  }

  /** Takes everything back. `signal`: why, for scripts. */
  async close(signal: string): Promise<void> {
    this.#context = 'init'
    this.#signal = signal
    await this.#applyDns(undefined)
    await this.#disconnectRoutes()
    const { down, downPre } = this.#config
    const telling = this.#isTold
    this.#isTold = false
    this.#wasTold = false
    const tell = async () => {
      if (telling) await this.#hook('down', down, this.#parameters())
    }
    if (downPre) await tell()
    const data = this.#data
    this.#data = undefined
    this.#addresses = []
    await data?.close()
    if (!downPre) await tell()
  }

  #parameters(): string[] {
    return this.#subject === undefined ? [] : interfaceParameters(this.#subject, this.#context)
  }

  async #disconnectRoutes(): Promise<void> {
    if (this.#routes.size > 0) {
      await this.#hook('route-pre-down', this.#config.routePreDown, this.#parameters())
    }
    this.#route([])
  }

  #route(wanted: readonly SystemRoute[]): void {
    const keys = new Set(wanted.map(routeKey))
    for (const [key, route] of [...this.#routes].reverse()) {
      if (!keys.has(key)) this.#removeRoute(route)
    }
    for (const route of wanted) {
      if (!this.#routes.has(routeKey(route))) this.#addRoute(route)
    }
  }

  #addRoute(route: SystemRoute): void {
    try {
      this.#world.network.addRoute(route)
      this.#routes.set(routeKey(route), route)
      this.#world.log(`route added: ${routeText(route)}`, LEVEL.steps)
    } catch (error) {
      // One that is there already does the same, and stays when this one goes.
      this.#world.log((error as Error).message)
    }
  }

  #removeRoute(route: SystemRoute): void {
    this.#routes.delete(routeKey(route))
    try {
      this.#world.network.removeRoute(route)
      this.#world.log(`route removed: ${routeText(route)}`, LEVEL.steps)
    } catch (error) {
      this.#world.log((error as Error).message)
    }
  }

  async #applyDns(plan: DnsPlan | undefined): Promise<void> {
    const text = JSON.stringify(plan)
    if (this.#dns?.plan === text) return
    const before = this.#dns
    this.#dns = undefined
    try {
      await before?.undo()
      if (plan === undefined || text === undefined) return
      const undo = await this.#installDns(plan)
      if (undo !== undefined) this.#dns = { plan: text, undo }
    } catch (error) {
      this.#world.log(`DNS: ${(error as Error).message}`)
    }
  }

  /** By the command that is named, else our own way, unless an `up` script is there to do it. */
  async #installDns(plan: DnsPlan): Promise<(() => Promise<void>) | undefined> {
    const { dnsUpdown, up } = this.#config
    if (dnsUpdown === 'disable' || (dnsUpdown === undefined && up !== undefined)) return undefined
    if (dnsUpdown === undefined || dnsUpdown === 'force') {
      return this.#world.applyDns(this.data.name, plan)
    }
    await this.#hook('dns-up', dnsUpdown)
    return () => this.#hook('dns-down', dnsUpdown)
  }

  /** Rejects where `up` fails; of the others that is told. */
  async #hook(
    type: Hook,
    command: string | undefined,
    parameters: readonly string[] = [],
  ): Promise<void> {
    const subject = this.#subject
    const words = command === undefined ? [] : splitLine(command)
    if (subject === undefined || words.length === 0 || typeof words === 'string') return
    const environment = {
      ...scriptEnvironment(subject),
      script_type: type,
      script_context: this.#context,
      ...(this.#signal !== undefined && { signal: this.#signal }),
    }
    const { status, output } = await this.#world.run([...words, ...parameters], environment)
    for (const line of output.split('\n')) if (line !== '') this.#world.log(`${type}: ${line}`)
    if (status === 0) return
    const text = `the ${type} command failed with status ${status}: ${command}`
    if (type === 'up') throw new Error(text)
    this.#world.log(text, LEVEL.error)
  }

  #wait(time: Millis): Promise<void> {
    return new Promise((resolve) => {
      this.#world.schedule(this.#world.now() + time, resolve)
    })
  }
}

function routeText({ destination, prefix, gateway, ifindex, unreachable }: SystemRoute): string {
  if (unreachable === true) return `${destination}/${prefix} to nowhere`
  const way = gateway === undefined ? '' : ` by ${gateway}`
  return `${destination}/${prefix}${way}, interface ${ifindex}`
}

function routeKey(route: SystemRoute): string {
  const { destination, prefix, gateway, ifindex, metric, unreachable, table } = route
  return [destination, prefix, gateway, ifindex, metric, unreachable, table].join(' ')
}
