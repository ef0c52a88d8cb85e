import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { anOrigin, FakeBackend } from '../../test/backend.ts'
import { type Caller, NetlinkServer } from '../driver/server.ts'
import { openLibc } from '../platform/libc.ts'
import { blockOf, createBlock } from '../platform/memory.ts'
import { netnsId, openOwnNetns } from '../platform/netns.ts'
import type { Listener, TrappedCall } from '../platform/seccomp.ts'
import { connectTcp, listenTcp } from '../platform/tcp.ts'
import { openUdp } from '../platform/udp.ts'
import type { DialectName } from '../uapi/types.ts'
import { identityOf } from './process.ts'
import { Streams } from './streams.ts'
import { Watch } from './watch.ts'

interface Packet {
  packet: Uint8Array
  peerId: number
  eof?: boolean
}

const IFINDEX = 7
const PEER = 3
const os = openLibc()

/** This process plays the program, with a stream whose other end is its own too; the driver is a fake. */
async function open(dialect: DialectName = 'ovpn') {
  const watch = new Watch([], assert.ifError)
  await watch.started()
  const listening = listenTcp('127.0.0.1', 0)
  const fd = connectTcp('127.0.0.1', listening.port)
  const netns = openOwnNetns()
  const backend = new FakeBackend()
  const server = new NetlinkServer(backend, { log: () => {} })
  const origin = anOrigin({ netns: netnsId(netns), openNetns: () => openOwnNetns() })
  const listener = {
    giveFd: (_: unknown, from: number, at: number) => os.dup3(from, at, 0),
  } as unknown as Listener
  const streams = new Streams({
    ...{ listener, watch, log: (text) => assert.fail(text) },
    openChannel: (protocol) => server.channel(protocol, origin),
  })
  const call = { tid: process.pid } as TrappedCall
  const adopt = (number = fd) =>
    streams.adopt({ call, fd: number, peer: { dialect, netns, ifindex: IFINDEX, peerId: PEER } })
  let registered: Caller | undefined
  let isOpen = true
  const close = () => {
    if (isOpen) os.close(fd)
    isOpen = false
  }
  backend.answer = ({ request, caller }) => {
    if (request.command === 'packet-register') registered = caller
    return undefined
  }
  return {
    ...{ fd, adopt, streams, close },
    /** The driver hands over a control packet of the peer. */
    deliver: (bytes: number[], more: Partial<Packet> = {}) =>
      registered!.deliver({
        event: 'packet',
        ifindex: IFINDEX,
        packet: { packet: Uint8Array.from(bytes), peerId: PEER, ...more },
      }),
    gone: () =>
      backend.emit(
        { event: 'peer-del-ntf', ifindex: IFINDEX, peer: { id: PEER, delReason: 'expired' } },
        { netns: netnsId(netns), dialects: ['ovpn'] },
      ),
    /** What the driver was asked, requests to listen aside. */
    asked: () =>
      backend.asked
        .map(({ request }) => request)
        .filter(({ command }) => command !== 'packet-register'),
    async [Symbol.asyncDispose]() {
      server.close()
      streams.close()
      await watch.close()
      listening.close()
      close()
      os.close(netns)
    },
  }
}

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !holds(); i++) await Bun.sleep(5)
  assert.ok(holds())
}

/** What comes at a descriptor, `count` bytes; fewer at its end. */
async function read(fd: number, count: number): Promise<number[]> {
  const block = createBlock(4096)
  const bytes: number[] = []
  for (let i = 0; i < 400 && bytes.length < count; i++) {
    const got = os.read(fd, block.base, 4096)
    if (got === 0) break
    if (got > 0) bytes.push(...block.u8.subarray(0, got))
    else await Bun.sleep(5)
  }
  return bytes
}

const write = (fd: number, bytes: number[]) =>
  os.write(fd, blockOf(Uint8Array.from(bytes)).base, bytes.length)

describe('a TCP stream that the driver has taken over', () => {
  it('brings control packets to the program, framed as they were', async () => {
    await using program = await open()
    await program.adopt()
    program.deliver([1, 2, 3])
    program.deliver([4])
    assert.deepEqual(await read(program.fd, 8), [0, 3, 1, 2, 3, 0, 1, 4])
  })

  it('takes packets of the program, however it writes them', async () => {
    await using program = await open()
    await program.adopt()
    for (const piece of [[0], [2, 9], [8, 0, 1, 7, 0, 3, 1], [2, 3]]) {
      write(program.fd, piece)
      await Bun.sleep(10)
    }
    await until(() => program.asked().length === 3)
    const packets = program.asked().map(({ args }) => (args as { packet: Packet }).packet)
    assert.deepEqual(
      packets.map(({ packet, peerId }) => [[...packet], peerId]),
      [[9, 8], [7], [1, 2, 3]].map((packet) => [packet, PEER]),
    )
  })

  it('has its end told in both directions', async () => {
    await using program = await open()
    await program.adopt()
    program.deliver([1])
    program.deliver([], { eof: true })
    assert.deepEqual(await read(program.fd, 99), [0, 1, 1])
  })

  it('ends with its peer', async () => {
    await using program = await open()
    await program.adopt()
    program.gone()
    assert.deepEqual(await read(program.fd, 1), [])
    program.close()
    await Bun.sleep(50)
    assert.deepEqual(program.asked(), [], 'there is no peer to remove')
  })

  it('takes its peer with it when the program closes it', async () => {
    await using program = await open()
    await program.adopt()
    program.close()
    await until(() => program.asked().length === 1)
    assert.deepEqual(program.asked()[0], {
      command: 'peer-del',
      args: { ifindex: IFINDEX, peer: { id: PEER } },
    })
  })

  it('has packets that came before it was taken over', async () => {
    await using program = await open()
    await program.adopt()
    program.streams.deleted(IFINDEX, PEER)
    program.deliver([5])
    await using again = await open()
    await program.adopt(again.fd)
    assert.deepEqual(await read(again.fd, 3), [0, 1, 5])
  })

  it('is left alone where the program exchanges control packets as messages', async () => {
    await using program = await open('ovpn-dco')
    const before = identityOf(process.pid, program.fd)
    await program.adopt()
    assert.equal(identityOf(process.pid, program.fd), before)
  })

  it('UDP sockets are left alone', async () => {
    await using program = await open()
    using socket = openUdp('127.0.0.1', 0)
    const before = identityOf(process.pid, socket.fd)
    await program.adopt(socket.fd)
    assert.equal(identityOf(process.pid, socket.fd), before)
  })
})
