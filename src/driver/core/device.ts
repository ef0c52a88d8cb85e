/**
 * One device as its configuration sees it: its mode, its peers, which keys they hold. Answers the requests of the API
 * and says what is to be notified. Pure: the data path, sockets and the carrier are behind interfaces; what traffic changes
 * is asked of the data path. Requests run one after another, so that each finds and leaves the device whole.
 */
import { ApiError } from '../../uapi/errno.ts'
import type {
  ArgsOf,
  DelReason,
  DialectName,
  DriverEvent,
  KeyInfo,
  LinkKind,
  Mode,
  PeerKey,
  PeerNew,
  Peer as PeerReply,
  PeerSet,
  Slot,
} from '../../uapi/types.ts'
import { checkKeyLengths, peerForMode, peerForTransport } from '../../uapi/validate.ts'
import { addressText, addressWords, isV4 } from './address.ts'
import type { KeySnapshot, PeerChange, PeerSnapshot } from './engine.ts'
import type { KeyCipher, KeyConfig, KeyFormat } from './key-slot.ts'
import type { EndpointConfig, PeerConfig, PeerHandle, TransportId } from './peer.ts'

/** A transport socket that the driver has, or could have. */
export interface Transport {
  readonly id: TransportId
  /** TCP: it belongs to one peer and needs no remote address. */
  readonly stream: boolean
  readonly localPort: number
  /** Where a stream leads, and from where. */
  readonly remote?: EndpointConfig
  readonly local?: EndpointConfig
  /** Where notifications about its peers go: identity of its network namespace. */
  readonly netns: string
}

/** A socket the caller named, before it is taken over; nothing has been changed by looking. */
export interface SocketOffer {
  readonly stream: boolean
  /** Takes it over, or shares what was taken over before. Throws ApiError, and then nothing has happened. */
  attach(): Promise<Transport>
  /** Lets go of it if it was not attached. */
  release(): void
}

/** The data path, wherever its threads are. Peers that are gone are passed over: false. */
export interface DataPath {
  addPeer(config: PeerConfig): Promise<void>
  changePeer(handle: PeerHandle, change: PeerChange): Promise<boolean>
  removePeer(handle: PeerHandle): Promise<void>
  installKey(handle: PeerHandle, slot: Slot, config: KeyConfig): Promise<boolean>
  swapKeys(handle: PeerHandle): Promise<void>
  deleteKey(handle: PeerHandle, slot: Slot): Promise<void>
  snapshot(handle: PeerHandle): Promise<PeerSnapshot | undefined>
  snapshots(): Promise<PeerSnapshot[]>
}

export interface DeviceSink {
  /** Lets go of a transport one of whose peers is gone. */
  detach(transport: Transport): void
  /** `netns`: of the peer's socket. */
  notify(event: DriverEvent, netns: string): void
  /** Bytes of the largest packet that goes to this address unfragmented, IP header included; undefined: unknown. */
  pathMtu(transport: Transport, remote: EndpointConfig): number | undefined
  /** Point-to-point devices of kind `ovpn` have a carrier only while there is a peer. */
  carrier(on: boolean): void
}

export interface DeviceOptions {
  ifindex: number
  kind: LinkKind
  mode: Mode
  path: DataPath
  sink: DeviceSink
  /** Allows the cipher `none`, in the dialect that has it. */
  allowNone: boolean
}

interface PeerRecord {
  readonly handle: PeerHandle
  readonly id: number
  readonly transport: Transport
  txId: number
  vpnIpv4: string | undefined
  vpnIpv6: string | undefined
  keepaliveInterval: number
  keepaliveTimeout: number
  mssfix: number
  swapWaitMs: number
  keys: { primary: KeyRecord | undefined; secondary: KeyRecord | undefined }
}

interface KeyRecord {
  keyId: number
  cipher: KeyInfo['cipherAlg']
  format: KeyFormat
}

/** Handles are never used twice, on any device. */
let lastHandle = 0

export class Device {
  readonly ifindex: number
  readonly kind: LinkKind
  readonly mode: Mode
  readonly #path: DataPath
  readonly #sink: DeviceSink
  readonly #allowNone: boolean
  readonly #peers = new Map<number, PeerRecord>()
  readonly #byHandle = new Map<PeerHandle, PeerRecord>()
  /** VPN addresses in use (text), for the check that no two peers share one. */
  readonly #vpnAddresses = new Map<string, PeerRecord>()
  #last: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(options: DeviceOptions) {
    this.ifindex = options.ifindex
    this.kind = options.kind
    this.mode = options.mode
    this.#path = options.path
    this.#sink = options.sink
    this.#allowNone = options.allowNone
  }

  get peerCount(): number {
    return this.#peers.size
  }

  // Requests ---------------------------------------------------------------------------------------------------------

  /**
   * Adds a peer. `open` looks at the socket the caller named. Checks come in the order of netlink-api 5.3 and 3.3:
   * those of the attributes themselves have been made when the message was decoded.
   */
  peerNew(args: PeerNew, open: (fd: number) => SocketOffer, dialect: DialectName): Promise<void> {
    return this.#alone(async () => {
      const forMode = peerForMode('peer-new', args, this.mode, dialect)
      const offer = open(args.socket)
      try {
        const transport = offer.stream ? 'tcp' : 'udp'
        const peer = peerForTransport('peer-new', forMode, transport, dialect)
        if (this.mode === 'mp' && this.#peers.has(args.id)) {
          throw new ApiError('EEXIST', 'cannot add new peer (id in use)', 'peer.id')
        }
        this.#refuseTaken(peer, undefined)
        const attached = await offer.attach()
        try {
          await this.#add(peer, attached)
        } catch (error) {
          this.#sink.detach(attached)
          throw error
        }
      } finally {
        offer.release()
      }
    })
  }

  peerSet(args: PeerSet, dialect: DialectName): Promise<void> {
    return this.#alone(async () => {
      const forMode = peerForMode('peer-set', args, this.mode, dialect)
      const record = this.#find(args.id)
      const transport = record.transport.stream ? 'tcp' : 'udp'
      const peer = peerForTransport('peer-set', forMode, transport, dialect)
      this.#refuseTaken(peer, record)
      const vpn = this.#changedVpnAddresses(peer, record)
      const change: PeerChange = { ...vpn }
      if (peer.txId !== undefined) change.txId = peer.txId
      const remote = endpointOf(peer)
      if (remote !== undefined) {
        change.remote = remote
        const local = localOf(peer)
        if (local !== undefined) change.local = local
      }
      const { keepaliveInterval: interval, keepaliveTimeout: timeout } = peer
      // One without the other was refused, or is to be passed over (netlink-api, 8.3).
      if (interval !== undefined && timeout !== undefined) change.keepalive = { interval, timeout }
      if (peer.mssfix !== undefined || (remote !== undefined && record.mssfix > 0)) {
        const snapshot = remote === undefined ? await this.#path.snapshot(record.handle) : undefined
        const to = remote ?? snapshot?.remote
        const limit = this.#outerLimit(peer.mssfix ?? record.mssfix, record.transport, to)
        change.outerLimit = limit
      }
      if (peer.swapWaitMs !== undefined) change.swapWait = peer.swapWaitMs
      if (!(await this.#path.changePeer(record.handle, change))) throw noPeer(args.id)
      if (peer.mssfix !== undefined) record.mssfix = peer.mssfix
      if (peer.swapWaitMs !== undefined) record.swapWaitMs = peer.swapWaitMs
      if (peer.txId !== undefined) record.txId = peer.txId
      if (change.keepalive !== undefined) {
        record.keepaliveInterval = change.keepalive.interval
        record.keepaliveTimeout = change.keepalive.timeout
      }
      this.#forgetVpnAddresses(record)
      if (vpn.vpnIpv4 !== undefined) record.vpnIpv4 = vpn.vpnIpv4 ?? undefined
      if (vpn.vpnIpv6 !== undefined) record.vpnIpv6 = vpn.vpnIpv6 ?? undefined
      this.#noteVpnAddresses(record)
    })
  }

  peerDel(id: number): Promise<void> {
    return this.#alone(async () => {
      const record = this.#find(id)
      await this.#remove(record, 'userspace')
    })
  }

  peerGet(id: number, extended: boolean): Promise<PeerReply> {
    return this.#alone(async () => {
      const record = this.#find(id)
      const snapshot = await this.#path.snapshot(record.handle)
      if (snapshot === undefined) throw noPeer(id)
      return describe(record, snapshot, extended)
    })
  }

  peers(extended: boolean): Promise<PeerReply[]> {
    return this.#alone(async () => {
      const replies: PeerReply[] = []
      for (const snapshot of await this.#path.snapshots()) {
        const record = this.#byHandle.get(snapshot.handle)
        if (record !== undefined) replies.push(describe(record, snapshot, extended))
      }
      return replies
    })
  }

  keyNew(args: ArgsOf<'key-new'>['keyconf'], dialect: DialectName): Promise<void> {
    return this.#alone(async () => {
      const { cipherAlg, encryptDir, decryptDir, keyId, slot, format = 'classic' } = args
      try {
        const record = this.#find(args.peerId)
        const cipher = this.#cipherOf(args, dialect)
        const config: KeyConfig = {
          keyId,
          cipher,
          format,
          encrypt: encryptDir,
          decrypt: decryptDir,
        }
        if (cipherAlg !== 'none' && format === 'classic') {
          config.decryptCipher = cipherOf(cipherAlg, decryptDir.cipherKey.length)
        }
        if (!(await this.#path.installKey(record.handle, slot, config))) throw noPeer(args.peerId)
        record.keys[slot] = { keyId, cipher: cipherAlg, format }
      } finally {
        encryptDir.cipherKey.fill(0)
        decryptDir.cipherKey.fill(0)
      }
    })
  }

  keyGet(peerId: number, slot: Slot): Promise<KeyInfo> {
    return this.#alone(async () => {
      const { keys, handle } = this.#find(peerId)
      const key = keys[slot]
      if (key === undefined) {
        throw new ApiError('ENOENT', `cannot get key from slot ${slot} for peer ${peerId}`)
      }
      const info: KeyInfo = { peerId, slot, keyId: key.keyId, cipherAlg: key.cipher }
      if (key.format === 'classic') return info // all that the kernel's driver tells
      const snapshot = await this.#path.snapshot(handle)
      const epoch = snapshot?.keys.find((one) => one.slot === slot)?.epoch
      return { ...info, format: key.format, ...(epoch !== undefined && { epoch }) }
    })
  }

  keySwap(peerId: number): Promise<void> {
    return this.#alone(async () => {
      const { handle, keys } = this.#find(peerId)
      await this.#path.swapKeys(handle)
      const { primary, secondary } = keys
      keys.primary = secondary
      keys.secondary = primary
    })
  }

  keyDel(peerId: number, slot: Slot): Promise<void> {
    return this.#alone(async () => {
      const { handle, keys } = this.#find(peerId)
      await this.#path.deleteKey(handle, slot)
      keys[slot] = undefined
    })
  }

  /** The data path's name for a peer, for packets that go past it. */
  handleOf(id: number): PeerHandle | undefined {
    return this.#peers.get(id)?.handle
  }

  /** The socket of a peer. */
  transportOf(id: number): Transport | undefined {
    return this.#peers.get(id)?.transport
  }

  idOf(handle: PeerHandle): number | undefined {
    return this.#byHandle.get(handle)?.id
  }

  /** Removes all peers, as the device goes. No request is taken afterwards. */
  close(): Promise<void> {
    return this.#alone(async () => {
      this.#closed = true
      for (const record of [...this.#peers.values()]) {
        // The data path may be what has failed; its peers are gone all the same, and are told.
        await this.#remove(record, 'teardown').catch(() => undefined)
      }
    })
  }

  // What the data path tells: of peers that may be gone by now -----------------------------------------------------

  /** The data path has removed the peer itself. */
  peerLost(handle: PeerHandle, reason: DelReason): void {
    const record = this.#byHandle.get(handle)
    if (record !== undefined) this.#forget(record, reason)
  }

  /** The owner of the socket has closed it. */
  transportClosed(id: TransportId): void {
    for (const record of [...this.#peers.values()]) {
      if (record.transport.id !== id) continue
      void this.#path.removePeer(record.handle)
      this.#forget(record, 'transport-disconnect')
    }
  }

  peerFloated(handle: PeerHandle, remote: EndpointConfig): void {
    const record = this.#byHandle.get(handle)
    if (record === undefined) return
    const { address, port, scope } = remote
    if (record.mssfix > 0) {
      const outerLimit = this.#outerLimit(record.mssfix, record.transport, remote)
      void this.#path.changePeer(handle, { outerLimit }).catch(() => undefined)
    }
    this.#sink.notify(
      {
        event: 'peer-float-ntf',
        ifindex: this.ifindex,
        peer: {
          id: record.id,
          remotePort: port,
          ...(address.includes(':')
            ? { remoteIpv6: address, remoteIpv6ScopeId: scope }
            : { remoteIpv4: address }),
        },
      },
      record.transport.netns,
    )
  }

  keyExhausted(handle: PeerHandle, keyId: number): void {
    const record = this.#byHandle.get(handle)
    if (record === undefined) return
    for (const slot of ['primary', 'secondary'] as const) {
      if (record.keys[slot]?.keyId === keyId) {
        record.keys[slot] = undefined
        break
      }
    }
    this.#askForKey(record, keyId)
  }

  /** The key still works, but should have a successor. */
  keyAgeing(handle: PeerHandle, keyId: number): void {
    const record = this.#byHandle.get(handle)
    if (record !== undefined) this.#askForKey(record, keyId)
  }

  // Inside -----------------------------------------------------------------------------------------------------------

  /** Runs `work` when all that came before is done. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => {
      if (this.#closed) throw new ApiError('ENODEV', 'the device is gone', 'ifindex')
      return work()
    })
    this.#last = turn.catch(() => undefined)
    return turn
  }

  #askForKey(record: PeerRecord, keyId: number): void {
    this.#sink.notify(
      { event: 'key-swap-ntf', ifindex: this.ifindex, keyconf: { peerId: record.id, keyId } },
      record.transport.netns,
    )
  }

  #find(id: number): PeerRecord {
    const record = this.#peers.get(id)
    if (record === undefined) throw noPeer(id)
    return record
  }

  async #add(args: PeerNew, transport: Transport): Promise<void> {
    const {
      keepaliveInterval,
      keepaliveTimeout,
      vpnIpv4,
      vpnIpv6,
      mssfix = 0,
      swapWaitMs = 0,
    } = args
    const both = keepaliveInterval !== undefined && keepaliveTimeout !== undefined
    const record: PeerRecord = {
      handle: ++lastHandle,
      id: args.id,
      transport,
      txId: args.txId ?? args.id,
      vpnIpv4,
      vpnIpv6,
      keepaliveInterval: both ? keepaliveInterval : 0,
      keepaliveTimeout: both ? keepaliveTimeout : 0,
      mssfix,
      swapWaitMs,
      keys: { primary: undefined, secondary: undefined },
    }
    const config: PeerConfig = {
      handle: record.handle,
      id: record.id,
      txId: record.txId,
      transport: transport.id,
      stream: transport.stream,
      keepaliveRule: this.kind === 'ovpn' ? 'together' : 'apart',
      keepaliveInterval: record.keepaliveInterval,
      keepaliveTimeout: record.keepaliveTimeout,
      swapWait: swapWaitMs,
    }
    if (vpnIpv4 !== undefined) config.vpnIpv4 = vpnIpv4
    if (vpnIpv6 !== undefined) config.vpnIpv6 = vpnIpv6
    const local = transport.stream ? transport.local : localOf(args)
    const end = transport.stream ? transport.remote : endpointOf(args)
    if (end !== undefined) config.remote = end
    if (local !== undefined) config.local = local
    if (mssfix > 0) config.outerLimit = this.#outerLimit(mssfix, transport, end)
    if (this.mode === 'p2p') {
      for (const old of [...this.#peers.values()]) await this.#remove(old, 'teardown', true)
    }
    // Known before it is added: a stream may have packets waiting, and one worker tells of them before all have answered.
    this.#peers.set(record.id, record)
    this.#byHandle.set(record.handle, record)
    this.#noteVpnAddresses(record)
    try {
      await this.#path.addPeer(config)
    } catch (error) {
      this.#peers.delete(record.id)
      this.#byHandle.delete(record.handle)
      this.#forgetVpnAddresses(record)
      throw error
    }
    if (this.#byHandle.has(record.handle)) this.#carrier(true)
  }

  async #remove(record: PeerRecord, reason: DelReason, replaced = false): Promise<void> {
    try {
      await this.#path.removePeer(record.handle)
    } finally {
      // It may have expired while the data path was asked; then that has been told.
      if (this.#byHandle.get(record.handle) === record) this.#forget(record, reason, replaced)
    }
  }

  #forget(record: PeerRecord, reason: DelReason, replaced = false): void {
    this.#byHandle.delete(record.handle)
    if (this.#peers.get(record.id) === record) this.#peers.delete(record.id)
    this.#forgetVpnAddresses(record)
    if (!replaced && this.#peers.size === 0) this.#carrier(false)
    this.#sink.notify(
      {
        event: 'peer-del-ntf',
        ifindex: this.ifindex,
        peer: { id: record.id, delReason: reason },
      },
      record.transport.netns,
    )
    this.#sink.detach(record.transport)
  }

  /** What TCP inside is to fit: as asked, or less if the path takes less. A stream has no packets that could be too large. */
  #outerLimit(mssfix: number, transport: Transport, remote: EndpointConfig | undefined): number {
    if (mssfix === 0 || transport.stream || remote === undefined) return 0
    const path = this.#sink.pathMtu(transport, remote) ?? USUAL_MTU
    return Math.min(mssfix, isUsual(path) ? USUAL_MTU : path)
  }

  #carrier(on: boolean): void {
    if (this.kind === 'ovpn' && this.mode === 'p2p') this.#sink.carrier(on)
  }

  /** The VPN addresses a change brings; null takes one away, but never the last. */
  #changedVpnAddresses(args: PeerSet, record: PeerRecord): VpnChange {
    const change: VpnChange = {}
    if (args.vpnIpv4 !== undefined)
      change.vpnIpv4 = args.vpnIpv4 === '0.0.0.0' ? null : args.vpnIpv4
    if (args.vpnIpv6 !== undefined) change.vpnIpv6 = args.vpnIpv6 === '::' ? null : args.vpnIpv6
    const left4 = change.vpnIpv4 === undefined ? record.vpnIpv4 : change.vpnIpv4
    const left6 = change.vpnIpv6 === undefined ? record.vpnIpv6 : change.vpnIpv6
    if (this.mode === 'mp' && !left4 && !left6) {
      throw new ApiError('EINVAL', 'a VPN address is needed', 'peer.vpn-ipv4')
    }
    return change
  }

  #refuseTaken(peer: PeerNew | PeerSet, owner: PeerRecord | undefined): void {
    for (const address of [peer.vpnIpv4, peer.vpnIpv6]) {
      const holder = address === undefined ? undefined : this.#vpnAddresses.get(address)
      if (holder !== undefined && holder !== owner) {
        throw new ApiError('EADDRINUSE', `VPN IP ${address} already in use by peer ${holder.id}`)
      }
    }
  }

  #noteVpnAddresses(record: PeerRecord): void {
    for (const address of [record.vpnIpv4, record.vpnIpv6]) {
      if (address !== undefined) this.#vpnAddresses.set(address, record)
    }
  }

  #forgetVpnAddresses(record: PeerRecord): void {
    for (const address of [record.vpnIpv4, record.vpnIpv6]) {
      if (address !== undefined && this.#vpnAddresses.get(address) === record) {
        this.#vpnAddresses.delete(address)
      }
    }
  }

  #cipherOf(args: ArgsOf<'key-new'>['keyconf'], dialect: DialectName): KeyCipher {
    const { cipherAlg, encryptDir } = args
    if (cipherAlg === 'none') {
      if (dialect === 'ovpn-dco' && this.#allowNone) return 'none'
      throw new ApiError('EINVAL', 'unsupported cipher', 'keyconf.cipher-alg')
    }
    checkKeyLengths(args)
    const bytes = args.format === 'epoch' ? (args.keySize ?? 32) : encryptDir.cipherKey.length
    return cipherOf(cipherAlg, bytes)
  }
}

/** AES by the length of its key. */
function cipherOf(
  cipherAlg: 'aes-gcm' | 'chacha20-poly1305',
  bytes: number,
): Exclude<KeyCipher, 'none'> {
  if (cipherAlg !== 'aes-gcm') return cipherAlg
  return bytes === 16 ? 'aes-128-gcm' : bytes === 24 ? 'aes-192-gcm' : 'aes-256-gcm'
}

/**
 * An interface that takes as much as an Ethernet frame holds tells nothing of the line behind, which may have spent 8 bytes
 * of it (PPPoE). Source: OpenVPN's default, `mssfix 1492 mtu`.
 */
const ETHERNET_MTU = 1500
const USUAL_MTU = 1492
const isUsual = (mtu: number) => mtu > USUAL_MTU && mtu <= ETHERNET_MTU

type VpnChange = Pick<PeerChange, 'vpnIpv4' | 'vpnIpv6'>

function noPeer(id: number): ApiError {
  return new ApiError('ENOENT', `cannot find peer with id ${id}`)
}

/** The remote endpoint in a request, IPv4-mapped addresses as IPv4. */
function endpointOf(args: PeerNew | PeerSet): EndpointConfig | undefined {
  const address = args.remoteIpv4 ?? args.remoteIpv6
  if (address === undefined || args.remotePort === undefined) return undefined
  return {
    address: addressText(addressWords(address)),
    port: args.remotePort,
    scope: args.remoteIpv6ScopeId ?? 0,
  }
}

function localOf(args: PeerNew | PeerSet): EndpointConfig | undefined {
  const address = args.localIpv4 ?? args.localIpv6
  if (address === undefined) return undefined
  return { address: addressText(addressWords(address)), port: 0, scope: 0 }
}

function describe(record: PeerRecord, snapshot: PeerSnapshot, extended: boolean): PeerReply {
  const { transport } = record
  const reply: PeerReply = {
    id: record.id,
    txId: record.txId,
    localPort: transport.localPort,
    keepaliveInterval: record.keepaliveInterval,
    keepaliveTimeout: record.keepaliveTimeout,
    vpnRxBytes: snapshot.vpnRxBytes,
    vpnTxBytes: snapshot.vpnTxBytes,
    vpnRxPackets: snapshot.vpnRxPackets,
    vpnTxPackets: snapshot.vpnTxPackets,
    linkRxBytes: snapshot.linkRxBytes,
    linkTxBytes: snapshot.linkTxBytes,
    linkRxPackets: snapshot.linkRxPackets,
    linkTxPackets: snapshot.linkTxPackets,
  }
  if (record.vpnIpv4 !== undefined) reply.vpnIpv4 = record.vpnIpv4
  if (record.vpnIpv6 !== undefined) reply.vpnIpv6 = record.vpnIpv6
  if (!transport.stream || extended) {
    const { address, port, scope } = snapshot.remote
    const [a, b, c] = addressWords(address)
    const v4 = isV4(a!, b!, c!)
    reply.remotePort = port
    if (v4) {
      reply.remoteIpv4 = address
      reply.localIpv4 = snapshot.local === '::' ? '0.0.0.0' : snapshot.local
    } else {
      reply.remoteIpv6 = address
      reply.remoteIpv6ScopeId = scope
      reply.localIpv6 = snapshot.local === '0.0.0.0' ? '::' : snapshot.local
    }
  }
  if (extended) {
    reply.transport = transport.stream ? 'tcp' : 'udp'
    reply.mssfix = record.mssfix
    reply.swapWaitMs = record.swapWaitMs
    if (snapshot.lastRxMs !== undefined) reply.lastRxMs = Math.round(snapshot.lastRxMs)
    if (snapshot.lastTxMs !== undefined) reply.lastTxMs = Math.round(snapshot.lastTxMs)
    reply.keys = snapshot.keys.map(describeKey)
    reply.drops = snapshot.drops
  }
  return reply
}

function describeKey(key: KeySnapshot): PeerKey {
  const { slot, keyId, cipher, format, epoch } = key
  return {
    slot,
    keyId,
    cipherAlg: cipher === 'none' || cipher === 'chacha20-poly1305' ? cipher : 'aes-gcm',
    ageMs: Math.round(key.ageMs),
    packetId: key.lastPacketId,
    format,
    epoch,
  }
}
