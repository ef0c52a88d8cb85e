/**
 * The workers of one device as one data path: which of them sends to a peer and which receives from it, and what one has to
 * know of the other. The kernel brings datagrams to the worker `peer id mod workers`. Where it can also be told
 * which queue a packet for the peer goes to (steering.ts), the next worker sends, so that two cores work for a single peer;
 * else the same one does.
 */
import { steer } from '../../platform/steering.ts'
import { addressWords } from '../core/address.ts'
import type { DataPath } from '../core/device.ts'
import type { EngineStats, PeerChange, PeerSnapshot } from '../core/engine.ts'
import type { KeyConfig } from '../core/key-slot.ts'
import type { PeerConfig, PeerHandle, SlotName, TransportId } from '../core/peer.ts'
import { WorkerHandle } from './handle.ts'
import type { CloseWatch, Command, Happening, WorkerOptions } from './protocol.ts'

interface Placement {
  sender: number
  receiver: number
  /** Its keepalive runs only when both values are set. */
  together: boolean
}

export interface PoolOptions {
  /** What each worker is started with. */
  workers: Omit<WorkerOptions, 'asked'>[]
  /** Wakes a worker, by its number. */
  wake(worker: number): void
  /** Map of the device's steering program, if it has one. */
  steering: number | undefined
  happened(happening: Happening): void
}

export class WorkerPool implements DataPath {
  readonly #workers: WorkerHandle[]
  readonly #steering: number | undefined
  readonly #placements = new Map<PeerHandle, Placement>()
  readonly #happened: (happening: Happening) => void
  /** Kinds of keys that could be made before: those who ask for more of them need not wait. */
  readonly #made = new Set<string>()

  constructor(options: PoolOptions) {
    this.#steering = options.steering
    this.#happened = options.happened
    this.#workers = options.workers.map(
      (worker, i) =>
        new WorkerHandle(
          worker,
          () => options.wake(i),
          (happening) => this.#hear(i, happening),
        ),
    )
  }

  get size(): number {
    return this.#workers.length
  }

  // Transports -------------------------------------------------------------------------------------------------------

  /** `shards`: a socket for each worker. */
  async addSocket(
    transport: TransportId,
    shards: readonly number[],
    v6: boolean,
    watch: CloseWatch,
  ): Promise<void> {
    await Promise.all(
      this.#workers.map((worker, i) =>
        worker.call({
          op: 'add-socket',
          transport,
          fd: shards[i]!,
          v6,
          watch: i === 0 ? watch : undefined,
        }),
      ),
    )
  }

  /** All workers know the stream; the one whose peer it carries uses it. */
  async addStream(transport: TransportId, fd: number): Promise<void> {
    await this.#all((worker) => worker.call({ op: 'add-stream', transport, fd }))
  }

  async removeTransport(transport: TransportId): Promise<void> {
    await this.#all((worker) => worker.call({ op: 'remove-transport', transport }))
  }

  // Peers ------------------------------------------------------------------------------------------------------------

  async addPeer(config: PeerConfig): Promise<void> {
    const receiver = config.id % this.size
    const apart = this.#steering !== undefined && !config.stream
    const sender = apart ? (receiver + 1) % this.size : receiver
    const placement = { sender, receiver, together: config.keepaliveRule === 'together' }
    this.#placements.set(config.handle, placement)
    for (const address of [config.vpnIpv4, config.vpnIpv6]) this.#steer(address, sender)
    const { keepaliveInterval: interval, keepaliveTimeout: timeout } = config
    await this.#all((worker, i) => {
      const keepalive = share(placement, i, { interval, timeout })
      const command: Command = {
        op: 'add-peer',
        config: {
          ...config,
          sender,
          receiver,
          keepaliveRule: 'apart',
          keepaliveInterval: keepalive.interval,
          keepaliveTimeout: keepalive.timeout,
        },
      }
      // Reading from a stream may fail to begin.
      return config.stream ? worker.call(command) : worker.post(command)
    })
  }

  async changePeer(handle: PeerHandle, change: PeerChange): Promise<boolean> {
    const placement = this.#placements.get(handle)
    if (placement === undefined) return false
    const { keepalive, vpnIpv4, vpnIpv6 } = change
    for (const address of [vpnIpv4, vpnIpv6]) this.#steer(address, placement.sender)
    const done = await this.#all((worker, i) =>
      worker.call({
        op: 'change-peer',
        handle,
        change: keepalive ? { ...change, keepalive: share(placement, i, keepalive) } : change,
      }),
    )
    return done[placement.receiver]!
  }

  async removePeer(handle: PeerHandle): Promise<void> {
    this.#placements.delete(handle)
    for (const worker of this.#workers) worker.post({ op: 'remove-peer', handle })
  }

  async installKey(handle: PeerHandle, slot: SlotName, config: KeyConfig): Promise<boolean> {
    const workers = this.#workersOf(handle)
    const command: Command = { op: 'install-key', handle, slot, config }
    const { format, cipher, decryptCipher } = config
    const kind = `${format} ${cipher} ${decryptCipher}`
    if (this.#made.has(kind)) {
      for (const worker of workers) worker.post(command)
      return workers.length > 0
    }
    const done = await Promise.all(workers.map((worker) => worker.call(command)))
    this.#made.add(kind)
    return done.length > 0 && done.every((installed) => installed)
  }

  async swapKeys(handle: PeerHandle): Promise<void> {
    for (const worker of this.#workersOf(handle)) worker.post({ op: 'swap-keys', handle })
  }

  async deleteKey(handle: PeerHandle, slot: SlotName): Promise<void> {
    for (const worker of this.#workersOf(handle)) worker.post({ op: 'delete-key', handle, slot })
  }

  /** Errno, or 0; undefined when there is no such peer. */
  async sendControl(handle: PeerHandle, packet: Uint8Array): Promise<number | undefined> {
    const placement = this.#placements.get(handle)
    return (
      placement && this.#workers[placement.sender]!.call({ op: 'send-control', handle, packet })
    )
  }

  /** Sends a message inside the data channel. False: there is no such peer, or it has no key. */
  async sendInside(handle: PeerHandle, message: Uint8Array): Promise<boolean> {
    const placement = this.#placements.get(handle)
    if (placement === undefined) return false
    return this.#workers[placement.sender]!.call({ op: 'send-inside', handle, message })
  }

  /** Whether messages inside the data channel are told. */
  listen(listens: boolean): void {
    for (const worker of this.#workers) worker.post({ op: 'listen', listens })
  }

  // Telling ----------------------------------------------------------------------------------------------------------

  async snapshot(handle: PeerHandle): Promise<PeerSnapshot | undefined> {
    const placement = this.#placements.get(handle)
    if (placement === undefined) return undefined
    const { sender, receiver } = placement
    const received = this.#workers[receiver]!.call({ op: 'snapshot', handle })
    if (sender === receiver) return received
    return merge(await this.#workers[sender]!.call({ op: 'snapshot', handle }), await received)
  }

  async snapshots(): Promise<PeerSnapshot[]> {
    const all = await Promise.all(this.#workers.map((worker) => worker.call({ op: 'snapshots' })))
    if (all.length === 1) return all[0]!
    const byHandle = all.map((list) => new Map(list.map((one) => [one.handle, one])))
    return [...this.#placements].flatMap(([handle, { sender, receiver }]) => {
      const received = byHandle[receiver]!.get(handle)
      const sent = byHandle[sender]!.get(handle)
      const merged = sender === receiver ? received : merge(sent, received)
      return merged === undefined ? [] : [merged]
    })
  }

  async stats(): Promise<EngineStats & { provider: string }> {
    const all = await Promise.all(this.#workers.map((worker) => worker.call({ op: 'stats' })))
    const sum = (field: 'rxBytes' | 'rxPackets' | 'txBytes' | 'txPackets') =>
      all.reduce((total, stats) => total + stats[field], 0)
    return {
      provider: all[0]!.provider,
      rxBytes: sum('rxBytes'),
      rxPackets: sum('rxPackets'),
      txBytes: sum('txBytes'),
      txPackets: sum('txPackets'),
      drops: addUp(all.flatMap(({ drops }) => drops)),
    }
  }

  async stop(): Promise<void> {
    await this.#all((worker) => worker.stop())
  }

  // Inside -----------------------------------------------------------------------------------------------------------

  /** Passes on what a worker tells, after the others that have to do with the peer were told too. */
  #hear(from: number, happening: Happening): void {
    const others = this.#workers.filter((_, i) => i !== from)
    const tell = (command: Command) => {
      for (const worker of others) worker.post(command)
    }
    switch (happening.what) {
      case 'moved': {
        const { handle, remote, local } = happening
        if (!happening.told) tell({ op: 'move-peer', handle, remote, local })
        if (!happening.floated) return
        break
      }
      case 'expired':
      case 'transport-error':
        this.#placements.delete(happening.handle)
        tell({ op: 'remove-peer', handle: happening.handle })
        break
      case 'key-exhausted':
        tell({ op: 'retire-key', handle: happening.handle, keyId: happening.keyId })
        break
      case 'epoch-pulled': {
        const { handle, keyId, epoch } = happening
        tell({ op: 'pull-epoch', handle, keyId, epoch })
        return
      }
      case 'key-heard':
        tell({ op: 'hear-key', handle: happening.handle, keyId: happening.keyId })
        return
    }
    this.#happened(happening)
  }

  #steer(address: string | null | undefined, queue: number): void {
    if (this.#steering !== undefined && address) steer(this.#steering, addressWords(address), queue)
  }

  #all<T>(call: (worker: WorkerHandle, number: number) => T | Promise<T>): Promise<T[]> {
    return Promise.all(this.#workers.map(call))
  }

  /** Those that send to the peer and receive from it. */
  #workersOf(handle: PeerHandle): WorkerHandle[] {
    const placement = this.#placements.get(handle)
    if (placement === undefined) return []
    const numbers = new Set([placement.sender, placement.receiver])
    return [...numbers].map((i) => this.#workers[i]!)
  }
}

/** The part of a peer's keepalive that a worker runs: who sends pings, who receives expects to hear something. */
function share(
  { sender, receiver, together }: Placement,
  worker: number,
  { interval, timeout }: { interval: number; timeout: number },
): { interval: number; timeout: number } {
  const runs = !together || (interval > 0 && timeout > 0)
  return {
    interval: runs && worker === sender ? interval : 0,
    timeout: runs && worker === receiver ? timeout : 0,
  }
}

function merge(
  sent: PeerSnapshot | undefined,
  received: PeerSnapshot | undefined,
): PeerSnapshot | undefined {
  if (sent === undefined || received === undefined) return undefined
  return {
    ...received,
    local: sent.local, // only who sends learns that an address of ours is gone
    vpnTxBytes: sent.vpnTxBytes,
    vpnTxPackets: sent.vpnTxPackets,
    linkTxBytes: sent.linkTxBytes,
    linkTxPackets: sent.linkTxPackets,
    lastTxMs: sent.lastTxMs,
    keys: sent.keys,
    drops: addUp([...sent.drops, ...received.drops]),
  }
}

function addUp(drops: { reason: string; count: number }[]): { reason: string; count: number }[] {
  const counts = new Map<string, number>()
  for (const { reason, count } of drops) counts.set(reason, (counts.get(reason) ?? 0) + count)
  return [...counts].map(([reason, count]) => ({ reason, count }))
}
