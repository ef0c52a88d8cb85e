/**
 * A program that attacks one server: `bun attacker.ts FOLDER ADDRESS PORT`, with FOLDER as for load.ts. For each line on standard input it
 * does what hostile.test.ts says of it, and answers with how many packets, or connections, that were.
 */
import { randomBytes, randomInt } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createTls } from '../../src/openvpn/tls.ts'
import { Datagrams } from '../../src/platform/datagrams.ts'
import type { ControlOpcode, ControlPacket } from '../../src/wire/control.ts'
import { Opcode } from '../../src/wire/opcode.ts'
import { parseStaticKey } from '../../src/wire/static-key.ts'
import { createWrap, type WrapSettings } from '../../src/wire/wrap.ts'
import { LightClient, type LightSettings } from './light-client.ts'

const [folder = '', address = '', port = ''] = process.argv.slice(2)
const read = (name: string) => readFileSync(join(folder, name), 'utf8')
const to = { address, port: Number(port), scope: 0 }
const key = parseStaticKey(read('tc.key'))
const wrap: WrapSettings = { kind: 'tls-crypt', key, role: 'client' }
/** Opens what a client has wrapped. */
const opening: WrapSettings = { kind: 'tls-crypt', key, role: 'server' }
const settings: LightSettings = {
  ...to,
  wrap,
  tls: createTls({
    certificate: read('client.crt'),
    key: read('client.key'),
    requestCertificate: false,
    verify: () => undefined,
  }),
}
/** Answers are left unread: they fill its buffer, and no more. */
const socket = new Datagrams('0.0.0.0', 0, { multihome: true })
const unixSeconds = () => Math.floor(Date.now() / 1000)

/** At a time, with a pause after them: what comes faster is only lost. */
const BATCH = 64
const OPCODES: readonly ControlOpcode[] = [
  ...[Opcode.SoftResetV1, Opcode.ControlV1, Opcode.AckV1, Opcode.HardResetClientV2],
  ...[Opcode.HardResetServerV2, Opcode.HardResetClientV3, Opcode.ControlWkcV1],
]

/** Those that have a payload, or could. */
const LONG = OPCODES.filter((opcode) => opcode !== Opcode.AckV1)

async function sendAll(count: number, packet: (i: number) => Uint8Array): Promise<number> {
  for (let i = 0; i < count; i++) {
    socket.send(packet(i), to, nthAddress(i))
    if (i % BATCH === 0) await Bun.sleep(1)
  }
  return count
}

/** Of 198.18.0.0/15. */
function nthAddress(i: number): string {
  return `198.${18 + ((i >> 16) & 1)}.${(i >> 8) & 255}.${i & 255}`
}

function reset(): ControlPacket {
  const sessionId = new Uint8Array(randomBytes(8))
  const payload = new Uint8Array(0)
  return { opcode: Opcode.HardResetClientV2, keyId: 0, sessionId, acks: [], messageId: 0, payload }
}

const wrapped = (packet: ControlPacket, by = wrap) => createWrap(by).wrap(packet, unixSeconds())

/** A handshake whose packets `change` may change, before they are wrapped; ended after a while, wherever it is. */
async function handshake(
  change: (packet: ControlPacket, index: number) => ControlPacket | undefined,
  milliseconds: number,
): Promise<number> {
  let sent = 0
  const [open, close] = [createWrap(opening), createWrap(wrap)]
  const tamper = (bytes: Uint8Array, index: number) => {
    const packet = open.unwrap(bytes)
    const changed = packet && change(packet, index)
    if (changed === undefined) return undefined
    sent++
    return close.wrap(changed, unixSeconds())
  }
  const client = await LightClient.start({ ...settings, tamper }, () => {})
  await Bun.sleep(milliseconds)
  client.stop('enough')
  return sent
}

/** Many of them at once; how many packets they sent. */
async function handshakes(count: number, one: (i: number) => Promise<number>): Promise<number> {
  const sent = await Promise.all(Array.from({ length: count }, (_, i) => one(i)))
  return sent.reduce((sum, packets) => sum + packets, 0)
}

/** The packets of a handshake that succeeds, as they were sent and as they were before. */
async function record(): Promise<{ sent: Uint8Array[]; plain: ControlPacket[] }> {
  const sent: Uint8Array[] = []
  const plain: ControlPacket[] = []
  const open = createWrap(opening)
  const { promise, resolve } = Promise.withResolvers<LightClient>()
  const tamper = (bytes: Uint8Array) => {
    sent.push(bytes)
    plain.push(structuredClone(open.unwrap(bytes)!))
    return bytes
  }
  await LightClient.start({ ...settings, tamper }, resolve)
  const client = await promise
  if (client.stage !== 'connected') throw new Error(client.problem)
  await client.leave()
  return { sent, plain }
}

function mutated(bytes: Uint8Array): Uint8Array {
  const changed = Uint8Array.from(bytes)
  for (let i = randomInt(1, 5); i > 0; i--) changed[randomInt(changed.length)] = randomInt(256)
  return randomInt(8) === 0 ? changed.subarray(0, randomInt(changed.length)) : changed
}

/** With something of it changed that a peer with the right key can change. */
function misshapen(packet: ControlPacket): ControlPacket {
  const changed = { ...packet, sessionId: packet.sessionId }
  const change = randomInt(6)
  if (change === 0) changed.opcode = OPCODES[randomInt(OPCODES.length)]!
  if (change === 1) changed.keyId = randomInt(8)
  if (change === 2) changed.sessionId = new Uint8Array(randomBytes(8))
  if (change === 3) changed.acks = Array.from({ length: randomInt(9) }, () => randomInt(2 ** 32))
  if (change === 4) changed.messageId = randomInt(2) === 0 ? randomInt(20) : randomInt(2 ** 32)
  if (change === 5 && packet.payload.length > 0) changed.payload = mutated(packet.payload)
  if (changed.acks.length > 0) changed.peerSessionId ??= new Uint8Array(randomBytes(8))
  else delete changed.peerSessionId
  if (changed.opcode === Opcode.AckV1) delete changed.messageId
  else changed.messageId ??= 1
  return changed
}

const attacks: { [name: string]: (count: number, how: string) => Promise<number> } = {
  flood(count, how) {
    const foreign = { kind: 'tls-crypt', key: randomBytes(256), role: 'client' } as const
    return sendAll(count, () => wrapped(reset(), how === 'foreign' ? foreign : wrap))
  },
  random: (count) => sendAll(count, () => randomBytes(randomInt(1500))),
  async mutate(count) {
    const { sent, plain } = await record()
    const some = (i: number) => {
      const which = randomInt(sent.length)
      return i % 2 === 0 ? mutated(sent[which]!) : wrapped(misshapen(plain[which]!))
    }
    const loose = await sendAll(count, some)
    return loose + (await handshakes(100, () => handshake(misshapen, 3000)))
  },
  forge: (count) =>
    sendAll(count, () =>
      wrapped({
        ...{ ...reset(), opcode: Opcode.ControlV1, acks: [0], messageId: 1 },
        ...{ peerSessionId: new Uint8Array(randomBytes(8)), payload: randomBytes(300) },
      }),
    ),
  async replay(count) {
    const { sent } = await record()
    return sendAll(count, (i) => sent[i % sent.length]!)
  },
  oversized: (count) =>
    sendAll(count, (i) => {
      const payload = new Uint8Array(i % 2 === 0 ? 60_000 : 1400)
      const packet = wrapped({ ...reset(), opcode: LONG[i % LONG.length]!, payload })
      // Where a wrapped client key would have its length.
      if (i % 3 === 0) packet.fill(0xff, -2)
      return packet
    }),
  garbage: (count) =>
    handshakes(count, () =>
      handshake((packet) => {
        const { length } = packet.payload
        return length === 0 ? packet : { ...packet, payload: randomBytes(length) }
      }, 3000),
    ),
  stop: () =>
    handshakes(60, (i) =>
      handshake((packet, index) => (index <= i % 12 ? packet : undefined), 8000),
    ),
  deaf: (count) =>
    handshakes(count, () =>
      handshake((packet, index) => {
        // The server's session id has to come back once.
        if (index <= 1) return packet
        if (packet.opcode === Opcode.AckV1) return undefined
        const { peerSessionId: _, ...rest } = packet
        return { ...rest, acks: [] }
      }, 8000),
    ),
  async 'silent-tcp'(count) {
    const sockets: Socket[] = []
    for (let i = 0; i < count; i++) sockets.push(await dial())
    await Bun.sleep(3000)
    for (const one of sockets) one.destroy()
    return count
  },
  async 'odd-tcp'(count) {
    const packet = wrapped(reset())
    const framed = Buffer.concat([Uint8Array.of(packet.length >> 8, packet.length & 255), packet])
    const ways: ((socket: Socket) => Promise<void>)[] = [
      async (socket) => void socket.write(framed.subarray(0, framed.length / 2)),
      async (socket) => void socket.write(Uint8Array.of(0, 0, 0, 0)),
      async (socket) => void socket.write(Uint8Array.of(0xff, 0xff, ...randomBytes(2000))),
      async (socket) => void socket.write('GET / HTTP/1.1\r\nHost: vpn.example\r\n\r\n'),
      async (socket) => {
        for (const byte of framed) {
          socket.write(Uint8Array.of(byte))
          await Bun.sleep(100)
        }
      },
      async (socket) => void socket.write(Buffer.concat([framed, framed, randomBytes(40)])),
    ]
    const one = async (i: number) => {
      const socket = await dial()
      await ways[i % ways.length]!(socket)
      await Bun.sleep(3000)
      socket.destroy()
    }
    await Promise.all(Array.from({ length: count }, (_, i) => one(i)))
    return count
  },
}

function dial(): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(to.port, address, () => resolve(socket))
    socket.once('error', reject)
    socket.on('error', () => {}) // the server may hang up
    socket.on('data', () => {})
  })
}

for await (const line of createInterface({ input: process.stdin })) {
  const [what = '', count = '0', how = ''] = line.split(' ')
  console.log(JSON.stringify({ packets: await attacks[what]!(Number(count), how) }))
}
process.exit(0)
