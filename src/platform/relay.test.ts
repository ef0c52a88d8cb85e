import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { message, messages, NLM_F, NLMSG, readAnswer } from '../netlink/message.ts'
import { decodeLink, encodeLink, RTM } from '../netlink/route.ts'
import { E, SOCK_RAW, SOCKADDR_NL } from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOf, createBlock } from './memory.ts'
import { openOwnNetns } from './netns.ts'
import { openPair, openRelay, setBlocking } from './relay.ts'

const NETLINK_ROUTE = 0
const SOL_NETLINK = 270
const NETLINK_EXT_ACK = 11

function open() {
  const netns = openOwnNetns()
  const relay = openRelay(SOCK_RAW, NETLINK_ROUTE, netns)
  openLibc().close(netns)
  return relay
}
const ask = (index: number) =>
  message({ type: RTM.GETLINK, flags: NLM_F.REQUEST, seq: 5, pid: 0 }, encodeLink({ index }))

describe('a netlink socket that acts for another', () => {
  it('has its answer when sending returns', () => {
    using relay = open()
    assert.equal(relay.receive(), -E.EAGAIN)
    const request = ask(1)
    assert.equal(relay.send(request), request.length)
    const got = relay.receive()
    if (typeof got === 'number') assert.fail(`errno ${-got}`)
    const [link] = messages(got.bytes)
    assert.equal(decodeLink(link!.payload).name, 'lo')
    assert.equal(link!.seq, 5)
    const from = new DataView(got.from.buffer, got.from.byteOffset)
    assert.equal(from.getUint32(SOCKADDR_NL.pid, true), 0, 'the kernel')
  })

  it('gets refusals as they are', () => {
    using relay = open()
    relay.send(ask(0x7ffffff0))
    const got = relay.receive()
    if (typeof got === 'number') assert.fail(`errno ${-got}`)
    const [refusal] = messages(got.bytes)
    assert.deepEqual([refusal!.type, readAnswer(refusal!).errno], [NLMSG.ERROR, E.ENODEV])
  })

  it('has the address it was bound to, and options; errors are numbers', () => {
    using relay = open()
    const address = new Uint8Array(SOCKADDR_NL.size)
    address[0] = 16
    assert.ok((relay.bind(address) as number) >= 0)
    const name = relay.name()
    if (typeof name === 'number') assert.fail(`errno ${-name}`)
    assert.notEqual(new DataView(name.buffer).getUint32(SOCKADDR_NL.pid, true), 0)
    assert.equal(relay.setOption(SOL_NETLINK, NETLINK_EXT_ACK, Uint8Array.of(1, 0, 0, 0)), 0)
    assert.deepEqual(relay.getOption(SOL_NETLINK, NETLINK_EXT_ACK, 4), Uint8Array.of(1, 0, 0, 0))
    assert.equal(relay.bind(Uint8Array.of(2, 0)), -E.EINVAL)
    assert.ok((relay.getOption(SOL_NETLINK, 9999, 4) as number) < 0)
  })
})

describe('a pair of sockets', () => {
  const os = openLibc()
  const closing = (pair: { own: number; other: number }) => ({
    ...pair,
    [Symbol.dispose]: () => {
      os.close(pair.own)
      os.close(pair.other)
    },
  })

  for (const [kind, expected] of [
    ['datagrams', [2, 3]],
    ['stream', [5, -E.EAGAIN]],
  ] as const) {
    it(`of ${kind}: what one writes the other reads`, () => {
      using pair = closing(openPair(kind))
      os.write(pair.other, blockOf(Uint8Array.of(1, 2)).base, 2)
      os.write(pair.other, blockOf(Uint8Array.of(3, 4, 5)).base, 3)
      const room = createBlock(16)
      const reads = [0, 1].map(() => os.read(pair.own, room.base, 16))
      assert.deepEqual(reads, expected)
      assert.equal(os.read(pair.own, room.base, 16), -E.EAGAIN, 'it does not wait')
    })
  }

  it('waits, or does not, as it is told', () => {
    using pair = closing(openPair('stream'))
    const O_NONBLOCK = 0o4000
    const flags = () => os.fcntl(pair.other, 3, 0) & O_NONBLOCK
    assert.equal(flags(), 0)
    setBlocking(pair.other, false)
    assert.equal(flags(), O_NONBLOCK)
    setBlocking(pair.other, true)
    assert.equal(flags(), 0)
  })
})
