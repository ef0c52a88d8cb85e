import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { anOrigin, FakeBackend } from '../../test/backend.ts'
import { NetlinkServer } from '../driver/server.ts'
import { decodeFamily, encodeGetFamily, GENL_ID_CTRL } from '../netlink/control.ts'
import {
  genericHeader,
  type Message,
  message,
  messages,
  NLM_F,
  NLMSG,
  readAnswer,
} from '../netlink/message.ts'
import { decodeLink, encodeLink, RTM } from '../netlink/route.ts'
import { openLibc } from '../platform/libc.ts'
import { openOwnNetns } from '../platform/netns.ts'
import { openRelay } from '../platform/relay.ts'
import { dialects } from '../uapi/dialects/index.ts'
import { ApiError } from '../uapi/errno.ts'
import { VirtualSocket } from './socket.ts'

const SOCK_RAW = 3
const SOL_NETLINK = 270
const NUMBER = { route: 0, generic: 16 } as const
const EPERM = 1
const ENOENT = 2

/** A program's socket: the kernel is the real one, the driver behind it a fake that answers as it is told. */
function open(protocol: 'route' | 'generic', families = [1001, 1002, 1003]) {
  const backend = new FakeBackend()
  const server = new NetlinkServer(backend, { log: () => {} })
  const netns = openOwnNetns()
  const relay = openRelay(SOCK_RAW, NUMBER[protocol], netns)
  openLibc().close(netns)
  const done: number[] = []
  const socket = new VirtualSocket({
    channel: server.channel(protocol, anOrigin()),
    relay,
    families: new Set(families),
    groups: new Set([1001, 1002, 1003]),
    takeFd: () => undefined,
    arrived: () => {},
    done: async (family) => void done.push(family),
  })
  const got = (): Message[] => {
    const all: Message[] = []
    while (socket.queue.length > 0) {
      const [{ bytes, errno }] = socket.queue as [(typeof socket.queue)[0]]
      assert.equal(errno, undefined)
      all.push(...messages(bytes))
      socket.shift()
    }
    return all
  }
  return {
    ...{ backend, server, socket, done, got },
    send: (datagram: Uint8Array, privileged = true) => socket.send(datagram, privileged, () => {}),
    [Symbol.dispose]: () => socket.close(),
  }
}

const request = (type: number, payload: Uint8Array, flags: number = NLM_F.ACK, seq = 7) =>
  message({ type, flags: NLM_F.REQUEST | flags, seq, pid: 0 }, payload)
const errnos = (all: Message[]) =>
  all.filter(({ type }) => type === NLMSG.ERROR).map((one) => readAnswer(one).errno)
const peerDel = dialects.ovpn.encodeRequest({
  command: 'peer-del',
  args: { ifindex: 7, peer: { id: 3 } },
})

describe('a generic netlink socket of a program', () => {
  it("finds the driver's families and, where it has none of that name, the kernel's", async () => {
    using program = open('generic')
    await program.send(request(GENL_ID_CTRL, encodeGetFamily('ovpn')))
    assert.equal(decodeFamily(program.got()[0]!.payload).id, 1003)
    await program.send(request(GENL_ID_CTRL, encodeGetFamily('no such family')))
    assert.deepEqual(errnos(program.got()), [ENOENT])
  })

  it('lists the families of both, and nlctrl once', async () => {
    using program = open('generic')
    await program.send(request(GENL_ID_CTRL, genericHeader(3), NLM_F.DUMP))
    const all = program.got()
    assert.equal(all.at(-1)!.type, NLMSG.DONE)
    const names = all.slice(0, -1).map(({ payload }) => decodeFamily(payload).name)
    assert.deepEqual(names.slice(-3), ['ovpn-dco', 'ovpn-dco-v2', 'ovpn'])
    assert.equal(names.filter((name) => name === 'nlctrl').length, 1)
  })

  it('has what it asked for before the call returns, and what was done is told', async () => {
    using program = open('generic')
    assert.equal(await program.send(request(1003, peerDel)), 0)
    assert.deepEqual(errnos(program.got()), [0])
    assert.deepEqual(program.done, [1003])
  })

  it('refusals are told to nobody else', async () => {
    using program = open('generic')
    program.backend.answer = () => Promise.reject(new ApiError('ENOENT', 'no such peer'))
    await program.send(request(1003, peerDel))
    assert.deepEqual(errnos(program.got()), [ENOENT])
    assert.deepEqual(program.done, [])
  })

  it('gets notifications of the groups it has joined, behind answers', async () => {
    using program = open('generic')
    const group = Uint8Array.of(0xeb, 3, 0, 0)
    assert.equal(await program.socket.setOption(SOL_NETLINK, 1, group), 0)
    const gone = { id: 3, delReason: 'expired' } as const
    program.backend.emit(
      { event: 'peer-del-ntf', ifindex: 7, peer: gone },
      { netns: '4:1', dialects: ['ovpn'] },
    )
    await program.send(request(1003, peerDel))
    assert.deepEqual(
      program.got().map(({ type, seq }) => [type, seq]),
      [
        [NLMSG.ERROR, 7],
        [1003, 0],
      ],
    )
  })

  it('and behind those that they come amid', async () => {
    using program = open('generic')
    await program.socket.setOption(SOL_NETLINK, 1, Uint8Array.of(0xea, 3, 0, 0))
    program.backend.answer = async () => {
      program.backend.emit(
        { event: 'peer-del-ntf', ifindex: 7, peer: { id: 4, delReason: 'expired' } },
        { netns: '4:1', dialects: ['ovpn-dco-v2'] },
      )
    }
    const args = { ifindex: 7, peer: { id: 3 } }
    const asked = dialects['ovpn-dco-v2'].encodeRequest({ command: 'peer-del', args })
    await program.send(request(1002, asked))
    const types = program.got().map(({ type }) => type)
    assert.deepEqual(types, [NLMSG.ERROR, 1002], 'OpenVPN 2.6 drops what it reads before')
  })

  it('a driver that has ended is as none', async () => {
    using program = open('generic')
    program.backend.answer = () => {
      queueMicrotask(() => program.server.close())
      return new Promise(() => {})
    }
    assert.equal(await program.send(request(1003, peerDel)), 0, 'asked while it was there')
    assert.deepEqual(errnos(program.got()), [ENOENT])
    await program.send(request(GENL_ID_CTRL, encodeGetFamily('ovpn')))
    assert.deepEqual(errnos(program.got()), [ENOENT])
  })
})

describe('a route netlink socket of a program', () => {
  const newLink = (kind: string, name = 'ovtest') =>
    request(RTM.NEWLINK, encodeLink({ kind, name }), NLM_F.ACK | NLM_F.CREATE | NLM_F.EXCL)

  it("makes the driver's links, and leaves others to the kernel", async () => {
    using program = open('route')
    await program.send(newLink('ovpn'))
    assert.deepEqual(errnos(program.got()), [0])
    assert.deepEqual(
      program.backend.asked.map(({ request }) => request.command),
      ['link-get', 'link-new'],
    )
    await program.send(newLink('no such kind'))
    assert.equal(errnos(program.got()).length, 1)
    assert.equal(program.backend.asked.length, 3, 'and only looked whether it has one of that name')
  })

  it('of a program without CAP_NET_ADMIN reads, and changes nothing', async () => {
    using program = open('route')
    assert.equal(await program.send(newLink('dummy'), false), -EPERM)
    assert.equal(await program.send(request(RTM.GETLINK, encodeLink({ index: 1 })), false), 0)
    assert.equal(decodeLink(program.got()[0]!.payload).name, 'lo')
  })

  it('passes on what is malformed, and the kernel says nothing to that', async () => {
    using program = open('route')
    assert.equal(await program.send(Uint8Array.of(200, 0, 0, 0, 1, 2, 3, 4)), 0)
    assert.deepEqual(program.got(), [])
  })
})
