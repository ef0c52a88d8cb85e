/** The system's addresses and routes as the control plane changes them; passed in by whoever may (src/runtime). */

/** An address on an interface; with `peer`, a point-to-point one. */
export interface InterfaceAddress {
  readonly address: string
  /** Bits of the network. */
  readonly prefix: number
  readonly peer?: string
}

export interface SystemRoute {
  /** A network of either family: `10.1.0.0`, `::`. */
  readonly destination: string
  readonly prefix: number
  readonly gateway?: string
  /** Interface; of the gateway's where absent. */
  readonly ifindex?: number
  readonly metric?: number
  /** Packets there are refused, by whatever way. */
  readonly unreachable?: boolean
  /** Routing table; the main one where absent. */
  readonly table?: number
}

/** How packets to an address leave. */
export interface NextHop {
  readonly gateway?: string
  readonly ifindex: number
  readonly source?: string
}

/** Which names are asked of whom, while the tunnel is up. */
export interface DnsPlan {
  /** Most wanted first: addresses, with a port where it is not 53 (`10.8.0.1:5353`, `[fd00::1]:5353`). */
  readonly servers: readonly string[]
  readonly searchDomains: readonly string[]
  /** Only names in these go to the servers; none: all names do. */
  readonly routeDomains: readonly string[]
  /** DNS over TLS, and the name in the servers' certificate. */
  readonly tls?: { readonly name: string | undefined }
  readonly dnssec?: 'yes' | 'no' | 'optional'
}

/** Each call throws an Error that says what was refused and why. */
export interface Network {
  /** Sets the MTU, and the length of the queue in packets where it is given, and brings the interface up. */
  up(ifindex: number, mtu: number, queueLength?: number): void
  addAddress(ifindex: number, address: InterfaceAddress): void
  /** One that is gone already is no error; the same of a route. */
  removeAddress(ifindex: number, address: InterfaceAddress): void
  /** Throws an Error with code EEXIST where there is such a route already. */
  addRoute(route: SystemRoute): void
  removeRoute(route: SystemRoute): void
  nextHop(address: string): NextHop | undefined
  /** Where the main table's default route leads; undefined where there is none. */
  defaultHop(family: 4 | 6): NextHop | undefined
  /** The network that an address of this machine's is in. */
  localNetwork(address: string): InterfaceAddress | undefined
  /** Of an Ethernet, as `02:00:5e:10:00:01`; undefined for an interface without. */
  hardwareAddress(ifindex: number): string | undefined
}
