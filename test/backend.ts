/** A backend for tests of what stands before it: answers what it is told to and keeps what it was asked. */

import type { Backend, Caller, EventScope, Origin } from '../src/driver/server.ts'
import { ApiError } from '../src/uapi/errno.ts'
import type { DialectName, DriverEvent, Link, Peer, Request } from '../src/uapi/types.ts'

export interface Asked {
  request: Request
  caller: Caller
  dialect: DialectName
}

export class FakeBackend implements Backend {
  readonly asked: Asked[] = []
  readonly changes: { ifindex: number; mtu?: number; up?: boolean }[] = []
  readonly keepersGone: string[] = []
  links: Link[] = [aLink({})]
  peers: Peer[] = []
  /** Stands in for the answer to a request; undefined leaves it to the fake. */
  answer: ((asked: Asked) => Promise<unknown> | undefined) | undefined
  lookUp: NonNullable<Backend['lookUp']> = async () => {}
  #listener: (event: DriverEvent, scope: EventScope) => void = () => {}

  async request(request: Request, caller: Caller, dialect: DialectName): Promise<unknown> {
    const asked = { request, caller, dialect }
    this.asked.push(asked)
    const answer = this.answer?.(asked)
    if (answer !== undefined) return answer
    switch (request.command) {
      case 'peer-get': {
        const id = request.dump ? -1 : request.args.peer.id
        const found = this.peers.find((peer) => peer.id === id)
        if (found === undefined) throw new ApiError('ENOENT', 'no such peer', 'peer.id')
        return found
      }
      case 'key-get':
        return { ...request.args.keyconf, keyId: 1, cipherAlg: 'aes-gcm' }
      case 'link-new': {
        const { name, ...link } = request.args.link
        if (this.links.some((other) => other.name === name)) {
          throw new ApiError('EEXIST', 'the name is taken', 'link.name')
        }
        const ifindex = 7 + this.links.length
        const made = aLink({ ...link, ifindex, name: name ?? `tun${ifindex}` })
        this.links.push(made)
        return made
      }
      case 'link-get':
        return this.links[0]
      case 'link-del': {
        const { ifindex } = request.args
        this.links = this.links.filter((link) => link.ifindex !== ifindex)
        return undefined
      }
      default:
        return undefined
    }
  }

  async dump(request: Request, caller: Caller, dialect: DialectName): Promise<unknown[]> {
    const asked = { request, caller, dialect }
    this.asked.push(asked)
    const answer = this.answer?.(asked)
    if (answer !== undefined) return answer as Promise<unknown[]>
    return request.command === 'link-get' ? this.links : this.peers
  }

  onEvent(listener: (event: DriverEvent, scope: EventScope) => void): void {
    this.#listener = listener
  }

  keeperGone(keeper: string): void {
    this.keepersGone.push(keeper)
  }

  async changeLink(ifindex: number, change: { mtu?: number; up?: boolean }): Promise<void> {
    this.changes.push({ ifindex, ...change })
  }

  emit(event: DriverEvent, scope: EventScope): void {
    this.#listener(event, scope)
  }
}

export function aLink(values: Partial<Link>): Link {
  return {
    ifindex: 7,
    name: 'tun0',
    kind: 'ovpn',
    mode: 'mp',
    mtu: 1500,
    netns: 4026531840,
    workers: 1,
    provider: 'libcrypto',
    features: 'tso,uso',
    rxBytes: 1,
    rxPackets: 2,
    txBytes: 3,
    txPackets: 4,
    peers: 0,
    drops: [],
    ...values,
  }
}

export function aPeer(values: Partial<Peer>): Peer {
  return {
    id: 3,
    localPort: 1194,
    keepaliveInterval: 10,
    keepaliveTimeout: 60,
    vpnRxBytes: 1,
    vpnTxBytes: 2,
    vpnRxPackets: 3,
    vpnTxPackets: 4,
    linkRxBytes: 5,
    linkTxBytes: 6,
    linkRxPackets: 7,
    linkTxPackets: 8,
    ...values,
  }
}

export function anOrigin(values: Partial<Origin> = {}): Origin {
  return {
    netns: '4:1',
    privileged: true,
    takeFd: () => {
      throw new ApiError('ENOTSOCK', 'not a socket')
    },
    openNetns: () => {
      throw new Error('nobody asks for it here')
    },
    ...values,
  }
}
