/**
 * The client's side of the machine: its interface with addresses, and the routes and DNS that go with a connection. All that is changed is
 * taken back, in the other order. What is to be is plan.ts's.
 */
import type { ClientConfig } from '../config/client-config.ts'
import type { DataChannel } from '../data-channel.ts'
import type { DnsPlan, InterfaceAddress, Network, SystemRoute } from '../network.ts'
import type { NetworkPlan, PlanContext } from './plan.ts'

export interface TunnelWorld {
  openData(name: string | undefined): Promise<DataChannel>
  readonly network: Network
  nameservers(): readonly string[]
  applyDns(device: string, plan: DnsPlan): Promise<() => Promise<void>>
  log(text: string): void
}

export class Tunnel {
  readonly #world: TunnelWorld
  readonly #config: ClientConfig
  #data: DataChannel | undefined
  #addresses: InterfaceAddress[] = []
  #routes: SystemRoute[] = []
  #dns: { plan: string; undo: () => Promise<void> } | undefined

  constructor(world: TunnelWorld, config: ClientConfig) {
    this.#world = world
    this.#config = config
  }

  /** @throws Error before `open` */
  get data(): DataChannel {
    if (this.#data === undefined) throw new Error('there is no interface yet')
    return this.#data
  }

  /** Makes the interface, if there is none. */
  async open(): Promise<void> {
    const { dev } = this.#config
    this.#data ??= await this.#world.openData(dev === 'tun' ? undefined : dev)
  }

  context(server: string, defaultMtu: number): PlanContext {
    const { network, nameservers } = this.#world
    return {
      ifindex: this.data.ifindex,
      server,
      nextHop: (address) => network.nextHop(address),
      nameservers: nameservers(),
      defaultMtu,
    }
  }

  /** Before a server is tried: with `persist-tun` routes may lead into a tunnel that carries nothing at present. */
  async prepare(server: string): Promise<void> {
    const known = this.#routes.some(({ destination }) => destination === server)
    const intoTunnel = this.#routes.length > 0 && this.#leadsIntoTunnel(server)
    if (!known && intoTunnel) await this.#removeRoutes()
  }

  /** Gives the interface its addresses, in place of those it has. */
  address(plan: NetworkPlan): void {
    if (this.#config.ifconfigNoexec) return
    const { network } = this.#world
    const { ifindex } = this.data
    const stays = (address: InterfaceAddress) =>
      plan.addresses.some((other) => JSON.stringify(other) === JSON.stringify(address))
    for (const address of this.#addresses) {
      if (!stays(address)) network.removeAddress(ifindex, address)
    }
    network.up(ifindex, plan.mtu)
    for (const address of plan.addresses) network.addAddress(ifindex, address)
    this.#addresses = [...plan.addresses]
  }

  /** Routes and DNS, now that packets are carried. */
  async connect(plan: NetworkPlan): Promise<void> {
    if (!this.#config.routeNoexec) {
      const wanted = plan.routes.map((route) => JSON.stringify(route))
      const present = this.#routes.map((route) => JSON.stringify(route))
      for (const route of [...this.#routes].reverse()) {
        if (!wanted.includes(JSON.stringify(route))) this.#removeRoute(route)
      }
      for (const route of plan.routes) {
        if (!present.includes(JSON.stringify(route))) this.#addRoute(route)
      }
    }
    await this.#applyDns(plan.dns)
  }

  /** A connection has ended: with `persist-tun` everything stays as it is for the next one. */
  async disconnected(): Promise<void> {
    if (this.#config.persistTun || this.#data === undefined) return
    await this.close()
  }

  async close(): Promise<void> {
    await this.#applyDns(undefined)
    await this.#removeRoutes()
    const data = this.#data
    this.#data = undefined
    this.#addresses = []
    await data?.close()
  }

  #leadsIntoTunnel(address: string): boolean {
    return this.#world.network.nextHop(address)?.ifindex === this.#data?.ifindex
  }

  #addRoute(route: SystemRoute): void {
    try {
      this.#world.network.addRoute(route)
      this.#routes.push(route)
    } catch (error) {
      // One that is there already does the same, and stays when this one goes.
      this.#world.log((error as Error).message)
    }
  }

  #removeRoute(route: SystemRoute): void {
    this.#routes = this.#routes.filter((other) => other !== route)
    try {
      this.#world.network.removeRoute(route)
    } catch (error) {
      this.#world.log((error as Error).message)
    }
  }

  async #removeRoutes(): Promise<void> {
    for (const route of [...this.#routes].reverse()) this.#removeRoute(route)
  }

  async #applyDns(plan: DnsPlan | undefined): Promise<void> {
    const text = JSON.stringify(plan)
    if (this.#dns?.plan === text) return
    const before = this.#dns
    this.#dns = undefined
    try {
      await before?.undo()
      if (plan === undefined || text === undefined) return
      this.#dns = { plan: text, undo: await this.#world.applyDns(this.data.name, plan) }
    } catch (error) {
      this.#world.log(`DNS: ${(error as Error).message}`)
    }
  }
}
