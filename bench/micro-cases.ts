/**
 * A program of its own, run by micro.ts in a fresh process each time: times the parts of the data path without any system call,
 * and prints {"name": ns per packet} as JSON. Takes name prefixes; all without.
 */
import { addressWords, Endpoint } from '../src/driver/core/address.ts'
import { AddressMap } from '../src/driver/core/address-map.ts'
import type { AeadCipher } from '../src/driver/core/aead.ts'
import { Engine, type EngineSink } from '../src/driver/core/engine.ts'
import type { KeyFormat } from '../src/driver/core/key-slot.ts'
import { openCiphers } from '../src/platform/ciphers.ts'
import { openIpsecMb } from '../src/platform/ipsec-mb.ts'
import { openLibcrypto } from '../src/platform/libcrypto.ts'
import { createMemory } from '../src/platform/memory.ts'
import { ReplayWindow } from '../src/wire/packet-id.ts'
import { buildPiece, packet, UDP } from '../test/sim/packets.ts'

/** Which key packets are sealed with. */
interface KeyKind {
  cipher: AeadCipher
  format: KeyFormat
}

/** Does the thing for `packets` packets and returns something that depends on all of it. */
type Work = (packets: number) => number

const CIPHERS: AeadCipher[] = ['aes-128-gcm', 'aes-256-gcm', 'chacha20-poly1305']
const SIZES = [64, 1400]
const REPEATS = 5
const VNET_BYTES = 10
/** Payload of a full TCP packet with timestamps in a tunnel of 1,420 bytes, and as much of it as TSO hands over at once. */
const SEGMENT_BYTES = 1368
const SEGMENTS = 46
/** Loses what it is given. */
const QUIET: EngineSink = {
  transmit() {},
  deliver: () => true,
  handOverPiece: () => false,
  handOverDatagram: () => false,
  expired() {},
  floated() {},
  relocated() {},
  inside() {},
  keyExhausted() {},
  keyAgeing() {},
  epochPulled() {},
  keyHeard() {},
}
/** Where the datagrams come from, and where they go. */
const FROM = Endpoint.of('192.0.2.1', 1194)
const TO = Endpoint.of('192.0.2.2', 1194)

const cases = new Map<string, { packets: number; work: () => Work }>()
let consumed = 0

const providers = ['libcrypto']
if (openIpsecMb(createMemory({ bytes: 1 << 20 })) !== undefined) providers.push('ipsec-mb')
else console.error('not timed: ipsec-mb, whose library is not installed or not for this processor')
for (const provider of providers) {
  for (const cipher of CIPHERS) {
    if (provider === 'ipsec-mb' && cipher === 'chacha20-poly1305') continue // it has no such direct call
    for (const bytes of SIZES) {
      for (const direction of ['seal', 'open'] as const) {
        const name = `${direction} ${provider} ${cipher} ${bytes}`
        const work = () => cipherWork(provider, cipher, bytes, direction)
        cases.set(name, { packets: 50_000, work })
      }
    }
  }
}
for (const bytes of SIZES) {
  cases.set(`checksum ${bytes}`, { packets: 500_000, work: () => checksumWork(bytes) })
}
cases.set('address map, 10,000 peers', { packets: 1_000_000, work: addressWork })
cases.set('replay window, in order', { packets: 2_000_000, work: () => replayWork(false) })
cases.set('replay window, neighbours swapped', { packets: 2_000_000, work: () => replayWork(true) })
for (const [key, name] of [
  [{ cipher: 'aes-256-gcm', format: 'classic' }, 'aes-256-gcm'],
  [{ cipher: 'chacha20-poly1305', format: 'classic' }, 'chacha20-poly1305'],
  [{ cipher: 'aes-256-gcm', format: 'epoch' }, 'aes-256-gcm with epochs'],
] as const) {
  cases.set(`send ${name}, TSO`, { packets: 46_000, work: () => sendWork(key, true) })
  cases.set(`send ${name}, 64`, { packets: 50_000, work: () => sendWork(key, false) })
  cases.set(`send and receive ${name}, TSO`, { packets: 46_000, work: () => roundWork(key, true) })
  cases.set(`send and receive ${name}, 64`, { packets: 50_000, work: () => roundWork(key, false) })
}
cases.set('send aes-256-gcm, 64, 10,000 peers', { packets: 50_000, work: manyPeersWork })

const prefixes = process.argv.slice(2)
const results: Record<string, number> = {}
for (const [name, { packets, work }] of cases) {
  if (prefixes.length > 0 && !prefixes.some((prefix) => name.startsWith(prefix))) continue
  results[name] = time(packets, work())
}
if (consumed === 0) throw new Error('nothing was done')
console.log(JSON.stringify(results))

/** Nanoseconds per packet: the best of some runs, after one that warms up. */
function time(packets: number, work: Work): number {
  consumed += work(packets)
  let best = Number.POSITIVE_INFINITY
  for (let i = 0; i < REPEATS; i++) {
    const begin = Bun.nanoseconds()
    consumed += work(packets)
    best = Math.min(best, Bun.nanoseconds() - begin)
  }
  return best / packets
}

function cipherWork(
  library: string,
  cipher: AeadCipher,
  bytes: number,
  direction: 'seal' | 'open',
): Work {
  const memory = createMemory({ bytes: 1 << 20 })
  const provider = library === 'libcrypto' ? openLibcrypto(memory) : openIpsecMb(memory)!
  const key = new Uint8Array(cipher === 'aes-128-gcm' ? 16 : 32).fill(7)
  const [nonce, aad, tag] = [memory.area(16), memory.area(16), memory.area(16)]
  const [plain, sealed] = [memory.area(2048, 64), memory.area(2048, 64)]
  const sealer = provider.create(cipher, key, 'seal')
  if (direction === 'seal') {
    return (packets) => {
      let done = 0
      for (let i = 0; i < packets; i++) {
        memory.view.setUint32(nonce, i)
        if (sealer.seal(nonce, aad, 8, plain, bytes, sealed, tag)) done++
      }
      return done
    }
  }
  sealer.seal(nonce, aad, 8, plain, bytes, sealed, tag)
  const opener = provider.create(cipher, key, 'open')
  return (packets) => {
    let done = 0
    for (let i = 0; i < packets; i++) {
      if (opener.open(nonce, aad, 8, sealed, bytes, plain, tag)) done++
    }
    if (done !== packets) throw new Error('a packet did not open')
    return done
  }
}

function checksumWork(bytes: number): Work {
  const memory = createMemory({ bytes: 1 << 20 })
  const at = memory.area(2048)
  memory.u8.fill(0x5a, at, at + bytes)
  return (packets) => {
    let sum = 0
    for (let i = 0; i < packets; i++) sum += memory.sum(at, bytes, i & 0xffff)
    return sum
  }
}

function addressWork(): Work {
  const peers = 10_000
  const map = new AddressMap<number>(12345)
  const base = addressWords('10.8.0.0')[3]!
  for (let i = 0; i < peers; i++) map.set(0, 0, 0xffff, base + i, i + 1)
  return (packets) => {
    let sum = 0
    for (let i = 0; i < packets; i++) sum += map.get(0, 0, 0xffff, base + ((i * 7919) % peers))!
    return sum
  }
}

function replayWork(swapped: boolean): Work {
  return (packets) => {
    const window = new ReplayWindow()
    let accepted = 0
    for (let i = 1; i <= packets; i++) {
      const id = swapped ? ((i - 1) ^ 1) + 1 : i
      if (window.accept(id, i)) accepted++
    }
    return accepted
  }
}

// The whole path, between two engines in one memory ------------------------------------------------------------------

interface Path {
  near: Engine
  /** Hands one piece to the near engine, as the device would. */
  send(): void
  /** Packets that the far engine has delivered, by its counters. */
  delivered(): number
}

/** `receive`: what the near end sends is opened and delivered at the far end. */
function createPath(key: KeyKind, piece: Uint8Array, receive: boolean): Path {
  const memory = createMemory({ bytes: 8 << 20 })
  const provider = openCiphers(memory, () => performance.now())
  const area = memory.area(VNET_BYTES + 65536, 64)
  const create = (sink: EngineSink) =>
    new Engine({
      ...{ memory, provider, sink, worker: 0, single: true, seed: 1, glueUdp: true },
      routes: () => undefined,
    })
  const far = create(QUIET)
  const near = create({
    ...QUIET,
    transmit(outbox) {
      if (!receive) return
      for (let i = 0; i < outbox.count; i++) {
        const end = outbox.offset[i]! + outbox.length[i]!
        const segment = outbox.segment[i]!
        for (let at = outbox.offset[i]!; at < end; at += segment) {
          far.fromLink(at, Math.min(segment, end - at), FROM, TO, 1)
        }
      }
      far.flush()
    },
  })
  for (const engine of [near, far]) {
    addPeer(engine, 1)
    addKey(engine, 1, key)
  }
  return {
    near,
    send() {
      memory.u8.set(piece, area)
      near.fromDevice(area, piece.length - VNET_BYTES, 1)
      near.transmit()
    },
    delivered: () => far.stats().rxPackets,
  }
}

function addPeer(engine: Engine, handle: number, vpnIpv4?: string): void {
  engine.addPeer(
    {
      ...{ handle, id: handle, txId: handle, transport: 1, stream: false },
      ...{ keepaliveRule: 'apart', keepaliveInterval: 0, keepaliveTimeout: 0 },
      remote: { address: '192.0.2.1', port: 1194, scope: 0 },
      ...(vpnIpv4 === undefined ? {} : { vpnIpv4 }),
    },
    0,
  )
}

function addKey(engine: Engine, handle: number, key: KeyKind): void {
  const direction = () => ({
    cipherKey: new Uint8Array(32).fill(handle),
    nonceTail: new Uint8Array(8).fill(9),
  })
  const config = { ...key, keyId: 0, encrypt: direction(), decrypt: direction() }
  engine.installKey(handle, 'primary', config, 0)
}

function pieceOf(train: boolean): { piece: Uint8Array; packets: number } {
  if (!train) {
    const payload = new Uint8Array(64 - 28)
    return { piece: buildPiece(packet({ protocol: UDP, payload }), 64), packets: 1 }
  }
  const payload = new Uint8Array(SEGMENTS * SEGMENT_BYTES).map((_, i) => i)
  const tcpOptions = Uint8Array.from([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
  return { piece: buildPiece(packet({ payload, tcpOptions }), SEGMENT_BYTES), packets: SEGMENTS }
}

function sendWork(key: KeyKind, train: boolean): Work {
  const { piece, packets: each } = pieceOf(train)
  const path = createPath(key, piece, false)
  return (packets) => {
    for (let i = 0; i < packets; i += each) path.send()
    return path.near.stats().txPackets
  }
}

function roundWork(key: KeyKind, train: boolean): Work {
  const { piece, packets: each } = pieceOf(train)
  const path = createPath(key, piece, true)
  return (packets) => {
    const before = path.delivered()
    for (let i = 0; i < packets; i += each) path.send()
    const delivered = path.delivered() - before
    if (delivered !== packets) throw new Error(`${delivered} of ${packets} packets came through`)
    return delivered
  }
}

/** A packet to each of 10,000 peers in turn: what a server's memory costs when nothing is in the cache. */
function manyPeersWork(): Work {
  const peers = 10_000
  const memory = createMemory({ bytes: 8 << 20 })
  const provider = openCiphers(memory, () => performance.now())
  const engine = new Engine({
    ...{ memory, provider, worker: 0, single: false, seed: 1, glueUdp: true },
    routes: () => undefined,
    sink: QUIET,
  })
  const address = (i: number) => `10.8.${i >> 8}.${i & 255}`
  for (let i = 1; i <= peers; i++) {
    addPeer(engine, i, address(i))
    addKey(engine, i, { cipher: 'aes-256-gcm', format: 'classic' })
  }
  const { piece } = pieceOf(false)
  const area = memory.area(VNET_BYTES + 2048, 64)
  const destination = area + VNET_BYTES + 16
  return (packets) => {
    for (let i = 0; i < packets; i++) {
      memory.u8.set(piece, area)
      memory.view.setUint32(destination, 0x0a080000 + 1 + ((i * 7919) % peers))
      engine.fromDevice(area, piece.length - VNET_BYTES, 1)
      engine.transmit()
    }
    const { txPackets, drops } = engine.stats()
    if (drops.length > 0) throw new Error(JSON.stringify(drops))
    return txPackets
  }
}
