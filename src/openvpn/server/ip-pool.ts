/**
 * Who holds which VPN address: the pool of `ifconfig-pool` and `ifconfig-ipv6-pool`, names that get the same address again
 * (`ifconfig-pool-persist`), and addresses that were given by hand. What is written in files is parsed and formatted here; reading
 * and writing them is the caller's.
 *
 * As in OpenVPN, both families share one index: the n-th IPv4 address of the pool goes with the n-th IPv6 address.
 * Source: openvpn(8), "ifconfig-pool" and "ifconfig-pool-persist".
 */
import { formatAddress, parseAddress } from '../../netlink/route.ts'

/** Inclusive. */
export interface AddressRange {
  readonly first: string
  readonly last: string
}

export interface Lease {
  readonly v4?: string
  readonly v6?: string
}

/** Addresses that a client is to have, whatever the pool says. */
export type FixedAddresses = Lease

interface Entry {
  readonly index: number
  /** Who has it, or had it last. */
  name: string | undefined
  held: boolean
  /** Order of releases: the lowest has been free for longest. */
  released: number
}

/** More than anybody's `max-clients`; an IPv6 pool has no end otherwise. */
const MAX_ENTRIES = 1 << 20

export class IpPool {
  readonly #v4: number | undefined
  readonly #v6: bigint | undefined
  readonly #size: number
  /** Entries that were ever used, by index. */
  readonly #entries = new Map<number, Entry>()
  readonly #byName = new Map<string, Entry>()
  /** Addresses given by hand, held now. */
  readonly #fixed = new Set<string>()
  readonly #leases = new Map<Lease, Entry | undefined>()
  #next = 0
  #releases = 0

  /** Throws a RangeError where a range is none. */
  constructor(ranges: { v4?: AddressRange | undefined; v6?: AddressRange | undefined }) {
    const { v4, v6 } = ranges
    let size = MAX_ENTRIES
    if (v4 !== undefined) {
      this.#v4 = numberOf(v4.first)
      size = Math.min(size, numberOf(v4.last) - this.#v4 + 1)
    }
    if (v6 !== undefined) {
      this.#v6 = bigOf(v6.first)
      const count = bigOf(v6.last) - this.#v6 + 1n
      if (count < BigInt(size)) size = Number(count)
    }
    if (size < 1) throw new RangeError('a range of addresses ends before it begins')
    this.#size = v4 === undefined && v6 === undefined ? 0 : size
  }

  get size(): number {
    return this.#size
  }

  /**
   * An address for `name`, the one it had before if that is free. Undefined where all are taken, or a fixed one is.
   *
   * @param name undefined: a client that keeps nothing, such as with `duplicate-cn`
   */
  acquire(name: string | undefined, fixed: FixedAddresses = {}): Lease | undefined {
    for (const address of [fixed.v4, fixed.v6]) {
      if (address !== undefined && this.holds(address)) return undefined
    }
    const whole =
      (this.#v4 === undefined || fixed.v4 !== undefined) &&
      (this.#v6 === undefined || fixed.v6 !== undefined)
    const entry = whole ? undefined : this.#take(name)
    if (entry === undefined && !whole) return undefined
    const lease: { v4?: string; v6?: string } =
      entry === undefined ? {} : this.#addresses(entry.index)
    if (fixed.v4 !== undefined) lease.v4 = fixed.v4
    if (fixed.v6 !== undefined) lease.v6 = fixed.v6
    for (const address of [fixed.v4, fixed.v6]) if (address !== undefined) this.#fixed.add(address)
    this.#leases.set(lease, entry)
    return lease
  }

  /** Gives a lease back; once. */
  release(lease: Lease): void {
    if (!this.#leases.has(lease)) return
    const entry = this.#leases.get(lease)
    this.#leases.delete(lease)
    for (const address of [lease.v4, lease.v6])
      if (address !== undefined) this.#fixed.delete(address)
    if (entry === undefined) return
    entry.held = false
    entry.released = ++this.#releases
  }

  /** Whether somebody has this address now. */
  holds(address: string): boolean {
    if (this.#fixed.has(address)) return true
    const index = this.#indexOf(address)
    return index !== undefined && this.#entries.get(index)?.held === true
  }

  /**
   * Takes over what a file of `ifconfig-pool-persist` says: lines `name,IPv4[,IPv6]`. What is outside of the pool, or makes no
   * sense, is left out and told.
   *
   * @returns a text per line that was left out
   */
  restore(text: string): string[] {
    const problems: string[] = []
    for (const [i, line] of text.split(/\r?\n/).entries()) {
      if (line.trim() === '' || line.startsWith('#')) continue
      const [name = '', ...addresses] = line.split(',').map((part) => part.trim())
      const index = addresses.map((address) => this.#indexOf(address)).find((n) => n !== undefined)
      if (name === '' || index === undefined) {
        problems.push(
          `line ${i + 1}: expected 'name,address' with an address of the pool, not '${line}'`,
        )
      } else if (this.#entries.has(index)) {
        problems.push(`line ${i + 1}: ${addresses.join(', ')} belongs to somebody else already`)
      } else {
        this.#name({ index, name: undefined, held: false, released: ++this.#releases }, name)
      }
    }
    return problems
  }

  /** The names and their addresses, as `restore` takes them. */
  persisted(): string {
    let text = ''
    for (const entry of this.#entries.values()) {
      if (entry.name === undefined) continue
      const { v4, v6 } = this.#addresses(entry.index)
      text += `${[entry.name, v4 ?? '', ...(v6 === undefined ? [] : [v6])].join(',')}\n`
    }
    return text
  }

  #take(name: string | undefined): Entry | undefined {
    const own = name === undefined ? undefined : this.#byName.get(name)
    const entry =
      own !== undefined && !this.#isTaken(own.index) ? own : (this.#fresh() ?? this.#oldest())
    if (entry === undefined) return undefined
    entry.held = true
    if (name !== undefined && entry !== own) this.#name(entry, name)
    else this.#entries.set(entry.index, entry)
    return entry
  }

  #isTaken(index: number): boolean {
    if (this.#entries.get(index)?.held === true) return true
    const { v4, v6 } = this.#addresses(index)
    return (v4 !== undefined && this.#fixed.has(v4)) || (v6 !== undefined && this.#fixed.has(v6))
  }

  /** One that nobody has ever had: so that names find theirs again. */
  #fresh(): Entry | undefined {
    for (; this.#next < this.#size; this.#next++) {
      const index = this.#next
      if (!this.#entries.has(index) && !this.#isTaken(index)) {
        return { index, name: undefined, held: false, released: 0 }
      }
    }
    return undefined
  }

  #oldest(): Entry | undefined {
    let oldest: Entry | undefined
    for (const entry of this.#entries.values()) {
      if (entry.held || this.#isTaken(entry.index)) continue
      if (oldest === undefined || entry.released < oldest.released) oldest = entry
    }
    return oldest
  }

  #name(entry: Entry, name: string): void {
    if (entry.name !== undefined) this.#byName.delete(entry.name)
    entry.name = name
    this.#byName.set(name, entry)
    this.#entries.set(entry.index, entry)
  }

  #addresses(index: number): { v4?: string; v6?: string } {
    const lease: { v4?: string; v6?: string } = {}
    if (this.#v4 !== undefined) lease.v4 = v4Of(this.#v4 + index)
    if (this.#v6 !== undefined) lease.v6 = v6Of(this.#v6 + BigInt(index))
    return lease
  }

  #indexOf(address: string): number | undefined {
    try {
      const bytes = parseAddress(address)
      let index: number | undefined
      if (bytes.length === 4 && this.#v4 !== undefined) index = numberOf(address) - this.#v4
      else if (bytes.length === 16 && this.#v6 !== undefined)
        index = Number(bigOf(address) - this.#v6)
      return index !== undefined && index >= 0 && index < this.#size ? index : undefined
    } catch {
      return undefined
    }
  }
}

function numberOf(address: string): number {
  const bytes = parseAddress(address)
  if (bytes.length !== 4) throw new RangeError(`an IPv4 address expected, not ${address}`)
  return new DataView(bytes.buffer).getUint32(0)
}

function bigOf(address: string): bigint {
  const bytes = parseAddress(address)
  if (bytes.length !== 16) throw new RangeError(`an IPv6 address expected, not ${address}`)
  return bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
}

function v4Of(number: number): string {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, number)
  return formatAddress(bytes)
}

function v6Of(number: bigint): string {
  const bytes = new Uint8Array(16)
  for (let i = 15, rest = number; i >= 0; i--, rest >>= 8n) bytes[i] = Number(rest & 0xffn)
  return formatAddress(bytes)
}
