import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { aLink, anOrigin, aPeer, FakeBackend } from '../../test/backend.ts'
import { bytes, hex } from '../../test/bytes.ts'
import { Random } from '../../test/random.ts'
import { Writer } from '../netlink/attribute.ts'
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
import { AF, decodeLink, encodeLink, IFF, type LinkMessage, RTM } from '../netlink/route.ts'
import { dialects } from '../uapi/dialects/index.ts'
import { ApiError } from '../uapi/errno.ts'
import type { DialectName, DriverEvent, LinkNew, Request } from '../uapi/types.ts'
import type { Protocol } from './channel.ts'
import { type Caller, NetlinkServer, type Origin } from './server.ts'

const names = Object.keys(dialects) as DialectName[]
const turn = () => new Promise((resolve) => setTimeout(resolve, 0))

/** A program with a socket: sends, and gathers the datagrams it gets. */
function program(server: NetlinkServer, protocol: Protocol, origin: Partial<Origin> = {}) {
  const channel = server.channel(protocol, anOrigin(origin))
  const datagrams: Uint8Array[] = []
  channel.listen({ received: (datagram) => datagrams.push(datagram), closed: () => {} })
  /** What came since the last look. */
  const got = (): Message[][] => datagrams.splice(0).map((datagram) => [...messages(datagram)])
  return {
    channel,
    got,
    async ask(type: number, flags: number, payload: Uint8Array, seq = 1): Promise<Message[][]> {
      channel.send(message({ type, flags: NLM_F.REQUEST | flags, seq, pid: 0 }, payload))
      await turn()
      return got()
    },
    async family(name: DialectName) {
      const answers = await this.ask(GENL_ID_CTRL, NLM_F.ACK, encodeGetFamily(name))
      return decodeFamily(answers[0]![0]!.payload)
    },
  }
}

function start() {
  const backend = new FakeBackend()
  const logged: string[] = []
  const server = new NetlinkServer(backend, { log: (text) => logged.push(text) })
  return { backend, server, logged, generic: program(server, 'generic') }
}

/** errno and text of what must be a single refusal. */
function refusalOf(answers: Message[][]) {
  assert.equal(answers.length, 1)
  const [answer] = answers[0]!
  assert.equal(answer!.type, NLMSG.ERROR)
  return readAnswer(answer!)
}

const peerDel = (name: DialectName) =>
  dialects[name].encodeRequest({ command: 'peer-del', args: { ifindex: 7, peer: { id: 3 } } })
const peerGet: Request = { command: 'peer-get', args: { ifindex: 7, peer: { id: 3 } } }
const peerDump: Request = { command: 'peer-get', args: { ifindex: 7 }, dump: true }
const gone: DriverEvent = {
  event: 'peer-del-ntf',
  ifindex: 7,
  peer: { id: 3, delReason: 'expired' },
}

describe('families', () => {
  it('are three with numbers of their own, and a group each', async () => {
    const { generic } = start()
    const families = [await generic.family('ovpn-dco'), await generic.family('ovpn-dco-v2')]
    families.push(await generic.family('ovpn'))
    assert.equal(new Set(families.map(({ id }) => id)).size, 3)
    assert.equal(new Set(families.map(({ groups }) => groups[0]!.id)).size, 3)
    for (const { id, groups } of families) {
      assert.ok(id >= 0x13 && id <= 1023)
      assert.equal(groups[0]!.name, 'peers')
    }
  })

  it('are told in one datagram, and acknowledged in another', async () => {
    const { generic } = start()
    await generic.channel.setOption('port-id', 4242)
    const wire = bytes('20000000 10000500 e8030000 92100000 03010000 09000200 6f76706e 00000000')
    generic.channel.send(wire)
    await turn()
    const [reply, acknowledged] = generic.got()
    assert.deepEqual(
      [reply!.length, reply![0]!.flags, reply![0]!.seq, reply![0]!.pid],
      [1, 0, 1000, 4242],
    )
    assert.equal(
      hex(acknowledged![0]!.bytes),
      hex(
        bytes('24000000 02000001 e8030000 92100000 00000000 20000000 10000500 e8030000 92100000'),
      ),
    )
  })

  it('are dumped with nlctrl itself', async () => {
    const { generic } = start()
    const datagrams = await generic.ask(GENL_ID_CTRL, NLM_F.DUMP, genericHeader(3))
    const told = datagrams.flat()
    assert.deepEqual(
      told.slice(0, -1).map(({ payload }) => decodeFamily(payload).name),
      ['nlctrl', 'ovpn-dco', 'ovpn-dco-v2', 'ovpn'],
    )
    assert.deepEqual(
      datagrams.at(-1)!.map(({ type }) => type),
      [NLMSG.DONE],
    )
  })

  it('that are unknown are refused without a text', async () => {
    const { generic } = start()
    await generic.channel.setOption('ext-ack', 1)
    const answers = await generic.ask(GENL_ID_CTRL, NLM_F.ACK, encodeGetFamily('wireguard'))
    assert.deepEqual(refusalOf(answers), { errno: 2 })
  })
})

describe('a channel that is used for another process', () => {
  const link: LinkNew = { kind: 'ovpn', mode: 'mp' }
  const linkNew = dialects.ovpn.encodeRequest({ command: 'link-new', args: { link } })
  /** Who connected, and whom it may act for: the thread 7. */
  const supervisor: Partial<Origin> = {
    process: '5:1',
    actFor(tid) {
      if (tid !== 7) throw new ApiError('ESRCH', `there is no thread ${tid}`)
      return anOrigin({ ...supervisor, netns: '4:7', acting: true })
    },
  }
  it('asks as that one, in its namespace', async () => {
    const { backend, server } = start()
    const asker = program(server, 'generic', supervisor)
    const { id } = await asker.family('ovpn')
    const callers: Pick<Caller, 'netns' | 'keeper'>[] = []
    backend.answer = ({ caller: { netns, keeper } }) => {
      callers.push({ netns, keeper })
      return undefined
    }
    await asker.ask(id, NLM_F.ACK, linkNew)
    await asker.channel.setOption('process', 7)
    await asker.ask(id, NLM_F.ACK, linkNew)
    assert.deepEqual(callers, [
      { netns: '4:1', keeper: undefined },
      { netns: '4:7', keeper: '5:1' },
    ])
  })

  it('must be of a process that may', async () => {
    const { server, generic } = start()
    const { channel } = program(server, 'generic', supervisor)
    await assert.rejects(channel.setOption('process', 8), { errno: 'ESRCH' })
    await assert.rejects(generic.channel.setOption('process', 7), { errno: 'EOPNOTSUPP' })
  })

  it('is told of when the last channel of who connected is closed', () => {
    const { backend, server } = start()
    const [first, second] = [1, 2].map(() => program(server, 'route', supervisor).channel)
    const other = program(server, 'generic', { process: '6:1' }).channel
    first!.close()
    assert.deepEqual(backend.keepersGone, [])
    second!.close()
    other.close()
    assert.deepEqual(backend.keepersGone, ['5:1', '6:1'])
  })
})

describe("a channel's options for peers", () => {
  const options = [
    ['mssfix', 'mssfix', 65_535],
    ['swap-wait-ms', 'swapWaitMs', 60_000],
  ] as const
  for (const [option, attribute, most] of options) {
    for (const name of names) {
      it(`${name}: ${option} is that of peers that are added without`, async () => {
        const peerNew = (value?: number) =>
          dialects[name].encodeRequest({
            command: 'peer-new',
            args: {
              ifindex: 7,
              peer: { id: 3, socket: 6, ...(value !== undefined && { [attribute]: value }) },
            },
          })
        const { backend, generic } = start()
        const { id } = await generic.family(name)
        await generic.ask(id, NLM_F.ACK, peerNew())
        await generic.channel.setOption(option, 1400)
        await generic.ask(id, NLM_F.ACK, peerNew())
        await generic.ask(id, NLM_F.ACK, peerNew(0))
        const asked = backend.asked.map(({ request }) =>
          request.command === 'peer-new' ? request.args.peer[attribute] : request.command,
        )
        assert.deepEqual(asked, [undefined, 1400, 0])
      })
    }

    it(`${option} is ${most} at most`, async () => {
      const { generic } = start()
      await generic.channel.setOption(option, most)
      await assert.rejects(generic.channel.setOption(option, most + 1), { errno: 'EINVAL' })
    })
  }
})

describe('a request', () => {
  for (const name of names) {
    it(`${name}: reply and ACK are two datagrams`, async () => {
      const { backend, generic } = start()
      backend.peers = [aPeer({})]
      const { id } = await generic.family(name)
      const answers = await generic.ask(id, NLM_F.ACK, dialects[name].encodeRequest(peerGet), 9)
      assert.deepEqual(
        answers.map((datagram) => datagram.length),
        [1, 1],
      )
      const [[reply], [acknowledged]] = answers as [[Message], [Message]]
      assert.deepEqual([reply.type, reply.flags, reply.seq], [id, 0, 9])
      assert.equal(dialects[name].decodeReply('peer-get', reply.payload).id, 3)
      assert.deepEqual([readAnswer(acknowledged).errno, acknowledged.seq], [0, 9])
      assert.equal(backend.asked[0]!.dialect, name)
    })

    it(`${name}: without NLM_F_ACK, only what fails is answered`, async () => {
      const { backend, generic } = start()
      const { id } = await generic.family(name)
      assert.deepEqual(await generic.ask(id, 0, peerDel(name)), [])
      assert.equal(backend.asked.length, 1)
      backend.answer = () => Promise.reject(new ApiError('ENOENT', 'no such peer', 'peer.id'))
      assert.equal(refusalOf(await generic.ask(id, 0, peerDel(name))).errno, 2)
    })
  }

  it('is refused with the text and the place, where the socket wants them', async () => {
    const { backend, generic } = start()
    const { id } = await generic.family('ovpn')
    backend.answer = () =>
      Promise.reject(
        new ApiError('EINVAL', 'no', 'peer.socket', { missType: 6, missNest: 28, offset: 20 }),
      )
    assert.deepEqual(refusalOf(await generic.ask(id, 0, peerDel('ovpn'))), { errno: 22 })
    await generic.channel.setOption('ext-ack', 1)
    const answer = refusalOf(await generic.ask(id, 0, peerDel('ovpn')))
    const told = { text: 'no: peer.socket', offset: 20, missType: 6, missNest: 28 }
    assert.deepEqual(answer, { errno: 22, ...told })
  })

  it('that breaks the backend is EIO and logged; the next one is served', async () => {
    const { backend, generic, logged } = start()
    const { id } = await generic.family('ovpn')
    backend.answer = () => Promise.reject(new Error('a bug'))
    assert.equal(refusalOf(await generic.ask(id, 0, peerDel('ovpn'))).errno, 5)
    assert.match(logged[0]!, /a bug/)
    backend.answer = undefined
    assert.equal((await generic.ask(id, NLM_F.ACK, peerDel('ovpn'))).length, 1)
  })

  // The order of checks (netlink-api 1.3): each row is wrong in what its successors are wrong in, too.
  const body = (command: number, reserved = 0) => Uint8Array.of(command, 1, reserved, 0)
  const rows: [
    family: number,
    flags: number,
    payload: Uint8Array,
    privileged: boolean,
    errno: number,
    why: string,
  ][] = [
    [0x200, 0x800, Uint8Array.of(1), false, 2, 'unknown family'],
    [0, 0, Uint8Array.of(1), false, 22, 'no room for a header'],
    [0, 0x800, body(99), false, 22, 'an unknown flag'],
    [0, 0x100, body(99), false, 22, 'half of DUMP'],
    [0, 0, body(99, 1), false, 22, 'reserved bytes'],
    [0, 0, body(99), false, 95, 'unknown command'],
    [0, NLM_F.DUMP, body(1), false, 95, 'a command that has no dump'],
    [0, 0, body(1), false, 1, 'no permission'],
    [0, NLM_F.DUMP, body(3), false, 1, 'no permission, to dump'],
    [0, 0, body(1), true, 22, 'attributes missing'],
  ]
  for (const [family, flags, payload, privileged, errno, why] of rows) {
    it(`errno ${errno}: ${why}`, async () => {
      const { server } = start()
      const asker = program(server, 'generic', { privileged })
      const { id } = await asker.family('ovpn')
      assert.equal(refusalOf(await asker.ask(family || id, flags, payload)).errno, errno)
    })
  }

  // The handler's order (netlink-api 5.3): policy, the interface, what is missing, what does not go together.
  const index = (value: number) => new Writer(body(4)).u32(1, value)
  const handled: [payload: Uint8Array, errno: number, offset: number | undefined, why: string][] = [
    [index(9).u32(99, 0).finish(), 22, 28, 'an unknown attribute, before the interface'],
    [index(9).finish(), 19, undefined, 'no interface, and no peer in the request'],
    [index(1).finish(), 22, 20, "somebody else's interface, named in the request"],
    [index(7).finish(), 22, undefined, 'the peer is missing'],
  ]
  for (const [payload, errno, offset, why] of handled) {
    it(`errno ${errno}: ${why}`, async () => {
      const { backend, generic } = start()
      await generic.channel.setOption('ext-ack', 1)
      const { id } = await generic.family('ovpn')
      backend.lookUp = async (ifindex) => {
        if (ifindex === 9) throw new ApiError('ENODEV', 'no interface', 'ifindex')
        if (ifindex !== 7) throw new ApiError('EINVAL', 'not ours', 'ifindex')
      }
      const [[answer]] = (await generic.ask(id, 0, payload)) as [[Message]]
      const { errno: got, offset: place, missType } = readAnswer(answer)
      assert.deepEqual([got, place], [errno, offset])
      assert.equal(missType, why.endsWith('missing') ? 2 : undefined)
    })
  }

  it('that is none is acknowledged at most', async () => {
    const { backend, generic } = start()
    const { id } = await generic.family('ovpn')
    const send = async (type: number, flags: number) => {
      generic.channel.send(message({ type, flags, seq: 1, pid: 0 }, peerDel('ovpn')))
      await turn()
      return generic.got().length
    }
    assert.deepEqual(
      [await send(id, 0), await send(id, NLM_F.ACK), await send(NLMSG.NOOP, 5)],
      [0, 1, 1],
    )
    assert.equal(backend.asked.length, 0)
  })

  it('meets the same caller each time, who has a privilege, a namespace and an end', async () => {
    const { backend, server } = start()
    const asker = program(server, 'generic', { netns: '4:9' })
    const { id } = await asker.family('ovpn')
    await asker.ask(id, 0, peerDel('ovpn'))
    await asker.ask(id, 0, peerDel('ovpn'))
    const [one, two] = backend.asked
    assert.equal(one!.caller, two!.caller)
    assert.deepEqual([one!.caller.netns, one!.caller.portId], ['4:9', asker.channel.portId])
    let ended = 0
    one!.caller.onClose(() => ended++)
    asker.channel.close()
    assert.equal(ended, 1)
  })

  it('survives random bytes', async () => {
    const { generic, logged } = start()
    const { id } = await generic.family('ovpn-dco')
    const random = new Random(6)
    for (let i = 0; i < 3000; i++) {
      const payload = random.bytes(random.below(60))
      if (i % 2 === 0) payload.set(genericHeader(random.below(12)).subarray(0, payload.length))
      const header = { type: id + random.below(3), flags: 1 | random.below(8), seq: 1, pid: 0 }
      generic.channel.send(message(header, payload))
      generic.channel.send(random.bytes(random.below(80)))
    }
    const answered = (): boolean =>
      generic
        .got()
        .flat()
        .some(({ seq }) => seq === 777)
    const last = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, seq: 777, pid: 0 }
    generic.channel.send(message(last, encodeGetFamily('ovpn')))
    while (!answered()) await turn()
    assert.deepEqual(logged, [])
  })
})

describe('a dump', () => {
  for (const name of names) {
    it(`${name}: comes in parts, then DONE, and no ACK`, async () => {
      const { backend, generic } = start()
      backend.peers = Array.from({ length: 200 }, (_, id) => aPeer({ id }))
      const { id } = await generic.family(name)
      const answers = await generic.ask(
        id,
        NLM_F.DUMP | NLM_F.ACK,
        dialects[name].encodeRequest(peerDump),
      )
      const all = answers.flat()
      assert.ok(answers.length > 3 && all.every(({ flags }) => flags === NLM_F.MULTI))
      const ids = all
        .slice(0, -1)
        .map(({ payload }) => dialects[name].decodeReply('peer-get', payload).id)
      assert.deepEqual(
        ids,
        backend.peers.map((peer) => peer.id),
      )
      assert.deepEqual(
        answers.at(-1)!.map(({ type }) => type),
        [NLMSG.DONE],
      )
      assert.equal(readAnswer(all.at(-1)!).errno, 0)
    })
  }

  it('that its handler refuses ends with DONE, which says why', async () => {
    const { backend, generic } = start()
    await generic.channel.setOption('ext-ack', 1)
    const { id } = await generic.family('ovpn')
    backend.answer = () =>
      Promise.reject(new ApiError('ENODEV', 'ifindex does not match any interface'))
    for (const payload of [dialects.ovpn.encodeRequest(peerDump), genericHeader(3)]) {
      const [[end], ...more] = (await generic.ask(id, NLM_F.DUMP, payload)) as [[Message]]
      assert.deepEqual(
        [end.type, end.flags & NLM_F.MULTI, more.length],
        [NLMSG.DONE, NLM_F.MULTI, 0],
      )
      const missing = payload.length === 4
      assert.equal(readAnswer(end).errno, missing ? 22 : 19)
    }
  })

  it('whose attributes are wrong is an error', async () => {
    const { generic } = start()
    const { id } = await generic.family('ovpn')
    const payload = new Writer(genericHeader(3))
      .u32(1, 7)
      .nest(2, (peer) => peer.u32(1, 3))
      .finish()
    assert.equal(refusalOf(await generic.ask(id, NLM_F.DUMP, payload)).errno, 22)
  })

  it('is EBUSY while another is not answered, and a request of another kind is not', async () => {
    const { backend, generic } = start()
    const { id } = await generic.family('ovpn')
    backend.peers = [aPeer({})]
    const payload = dialects.ovpn.encodeRequest(peerDump)
    const flags = NLM_F.REQUEST | NLM_F.DUMP
    for (const seq of [1, 2])
      generic.channel.send(message({ type: id, flags, seq, pid: 0 }, payload))
    const answers = await generic.ask(id, NLM_F.ACK, peerDel('ovpn'), 3)
    assert.deepEqual(
      answers
        .flat()
        .map((one) => [one.seq, one.type === NLMSG.ERROR ? readAnswer(one).errno : 'ok']),
      [
        [1, 'ok'],
        [1, 'ok'],
        [2, 16],
        [3, 0],
      ],
    )
    const again = await generic.ask(id, NLM_F.DUMP, payload, 4)
    assert.equal(again.flat().at(-1)!.type, NLMSG.DONE)
  })
})

describe('events', () => {
  const here = { netns: '4:1', dialects: names }

  it('go to members of the group, in the same network namespace, of the dialects meant', async () => {
    const { backend, server, generic } = start()
    const { groups } = await generic.family('ovpn')
    const other = program(server, 'generic')
    const elsewhere = program(server, 'generic', { netns: '4:2' })
    await generic.channel.setOption('add-membership', groups[0]!.id)
    await elsewhere.channel.setOption('add-membership', groups[0]!.id)
    const old = await other.family('ovpn-dco')
    await other.channel.setOption('add-membership', old.groups[0]!.id)
    backend.emit(gone, { netns: '4:1', dialects: ['ovpn'] })
    assert.deepEqual(
      [generic, other, elsewhere].map(({ got }) => got().length),
      [1, 0, 0],
    )
    await generic.channel.setOption('drop-membership', groups[0]!.id)
    backend.emit(gone, here)
    assert.deepEqual(
      [generic, other, elsewhere].map(({ got }) => got().length),
      [0, 1, 0],
    )
  })

  it('are one a datagram, from the kernel, with the bytes of the specification', async () => {
    const { backend, generic } = start()
    const { id, groups } = await generic.family('ovpn')
    await generic.channel.setOption('add-membership', groups[0]!.id)
    backend.emit(gone, here)
    backend.emit(gone, here)
    const [[event], second] = generic.got() as [[Message], [Message]]
    assert.equal(second.length, 1)
    assert.deepEqual([event.type, event.flags, event.seq, event.pid], [id, 0, 0, 0])
    const wire = '05010000 08000100 07000000 14000280 08000f00 02000000 08000100 03000000'
    assert.equal(hex(event.payload), hex(bytes(wire)))
  })

  it('that a dialect does not have are not sent', async () => {
    const { backend, generic } = start()
    const { groups } = await generic.family('ovpn-dco-v2')
    await generic.channel.setOption('add-membership', groups[0]!.id)
    backend.emit({ event: 'key-swap-ntf', ifindex: 7, keyconf: { peerId: 3, keyId: 1 } }, here)
    assert.deepEqual(generic.got(), [])
  })

  for (const name of names) {
    const before = name === 'ovpn'
    it(`${name}: raised by a request, they come ${before ? 'before' : 'after'} its ACK`, async () => {
      const { backend, generic } = start()
      const { id, groups } = await generic.family(name)
      await generic.channel.setOption('add-membership', groups[0]!.id)
      backend.answer = async () => backend.emit(gone, here)
      const answers = await generic.ask(id, NLM_F.ACK, peerDel(name))
      const kinds = answers.flat().map(({ type }) => (type === id ? 'event' : 'ack'))
      assert.deepEqual(kinds, before ? ['event', 'ack'] : ['ack', 'event'])
    })

    it(`${name}: a caller is told alone, in the dialect of the request`, async () => {
      const { backend, server, generic } = start()
      const { id } = await generic.family(name)
      const bystander = program(server, 'generic')
      const packet = { packet: Uint8Array.of(0x38, 1, 2, 3), peerId: 3 }
      const told: DriverEvent = { event: 'packet', ifindex: 7, packet }
      const register: Request = { command: 'packet-register', args: { ifindex: 7 } }
      await generic.ask(id, NLM_F.ACK, dialects[name].encodeRequest(register))
      backend.asked.at(-1)!.caller.deliver(told)
      assert.deepEqual(bystander.got(), [])
      const [[event]] = generic.got() as [[Message]]
      assert.deepEqual(dialects[name].decodeEvent(event.payload), told)
    })
  }

  const wrong: [group: number, errno: string, why: string][] = [
    [0, 'EINVAL', 'no group'],
    [1, 'ENOENT', "somebody else's group"],
  ]
  for (const [group, errno, why] of wrong) {
    it(`membership: ${errno} for ${why}`, async () => {
      const { generic } = start()
      await assert.rejects(generic.channel.setOption('add-membership', group), { errno })
    })
  }
})

describe('route requests', () => {
  function startRoute(origin: Partial<Origin> = {}) {
    const { backend, server } = start()
    const route = program(server, 'route', origin)
    const ask = (type: number, flags: number, link: LinkMessage) =>
      route.ask(type, flags, encodeLink(link))
    return { backend, route, ask }
  }
  const create = NLM_F.ACK | NLM_F.CREATE | NLM_F.EXCL

  it('create a link as OpenVPN and ip do', async () => {
    const { backend, ask } = startRoute()
    const link = { family: AF.PACKET, name: 'tun1', kind: 'ovpn-dco', mode: 1 }
    const [[answer]] = (await ask(RTM.NEWLINK, create, link)) as [[Message]]
    assert.equal(readAnswer(answer).errno, 0)
    assert.deepEqual(backend.asked.at(-1)!.request, {
      command: 'link-new',
      args: { link: { kind: 'ovpn-dco', mode: 'mp', name: 'tun1' } },
    })
    await ask(RTM.NEWLINK, create, { name: 'tun2', kind: 'ovpn', mtu: 1400, flags: IFF.UP })
    const { request } = backend.asked.at(-1)!
    assert.deepEqual(request.args, { link: { kind: 'ovpn', mode: 'p2p', name: 'tun2', mtu: 1400 } })
    assert.deepEqual(backend.changes, [{ ifindex: 9, up: true }])
  })

  it('describe a link by index and by name', async () => {
    const { ask } = startRoute()
    for (const link of [{ index: 7 }, { name: 'tun0' }]) {
      const [[reply], ...more] = (await ask(RTM.GETLINK, 0, link)) as [[Message]]
      assert.deepEqual([reply.type, reply.flags, more.length], [RTM.NEWLINK, 0, 0])
      const { type, index, name, mtu, kind, mode, counters } = decodeLink(reply.payload)
      assert.deepEqual([type, index, name, mtu, kind, mode], [0xfffe, 7, 'tun0', 1500, 'ovpn', 1])
      assert.equal(counters!.txPackets, 4)
    }
  })

  it('do not tell the mode of the older kind', async () => {
    const { backend, ask } = startRoute()
    backend.links = [aLink({ kind: 'ovpn-dco' })]
    const [[reply]] = (await ask(RTM.GETLINK, 0, { index: 7 })) as [[Message]]
    const { kind, mode, flags } = decodeLink(reply.payload)
    assert.deepEqual([kind, mode], ['ovpn-dco', undefined])
    assert.equal(flags, IFF.POINTOPOINT | IFF.NOARP | IFF.MULTICAST)
  })

  it('dump the links, of one kind if they say so', async () => {
    const { backend, route, ask } = startRoute()
    backend.links = [aLink({}), aLink({ ifindex: 8, name: 'tun1', kind: 'ovpn-dco' })]
    const count = (answers: Message[][]) =>
      answers.flat().filter(({ type }) => type === RTM.NEWLINK).length
    assert.equal(count(await ask(RTM.GETLINK, NLM_F.DUMP, {})), 2)
    assert.equal(count(await ask(RTM.GETLINK, NLM_F.DUMP, { kind: 'ovpn' })), 1)
    assert.equal(count(await route.ask(RTM.GETLINK, NLM_F.DUMP, bytes('11000000'))), 2)
  })

  it('remove a link by index and by name', async () => {
    const { backend, ask } = startRoute()
    backend.links.push(aLink({ ifindex: 8, name: 'tun1' }))
    await ask(RTM.DELLINK, NLM_F.ACK, { index: 7 })
    await ask(RTM.DELLINK, NLM_F.ACK, { name: 'tun1' })
    assert.deepEqual(backend.links, [])
  })

  it('set the MTU, up and down', async () => {
    const { backend, ask } = startRoute()
    await ask(RTM.NEWLINK, NLM_F.ACK, { index: 7, mtu: 1400 })
    await ask(RTM.NEWLINK, NLM_F.ACK, { index: 7, change: IFF.UP, flags: IFF.UP })
    await ask(RTM.NEWLINK, NLM_F.ACK, { name: 'tun0', change: IFF.UP })
    const ifindex = 7
    assert.deepEqual(backend.changes, [
      { ifindex, mtu: 1400 },
      { ifindex, up: true },
      { ifindex, up: false },
    ])
  })

  const rows: [type: number, flags: number, link: LinkMessage, errno: number, why: string][] = [
    [RTM.NEWLINK, create, { name: 'a', kind: 'ovpn', mode: 2 }, 34, 'a mode beyond 1'],
    [RTM.NEWLINK, create, { name: 'a', kind: 'wireguard' }, 95, 'another kind'],
    [RTM.NEWLINK, create, { name: 'a' }, 95, 'no kind'],
    [RTM.NEWLINK, create, { name: 'a'.repeat(16), kind: 'ovpn' }, 34, 'a name too long'],
    [RTM.NEWLINK, create, { name: '', kind: 'ovpn' }, 22, 'an empty name'],
    [RTM.NEWLINK, create, { name: 'a', kind: 'ovpn', netnsFd: 3 }, 95, 'another namespace'],
    [RTM.NEWLINK, create, { name: 'tun0', kind: 'ovpn' }, 17, 'a name that is taken'],
    [RTM.NEWLINK, create, { index: 7, mtu: 1400 }, 17, 'EXCL for a link that exists'],
    [RTM.NEWLINK, 0, { index: 7, name: 'new' }, 95, 'a new name'],
    [RTM.NEWLINK, 0, { index: 7, kind: 'ovpn', mode: 1 }, 95, 'a mode, even its own'],
    [RTM.NEWLINK, 0, { index: 7, change: IFF.MULTICAST }, 95, 'another flag'],
    [RTM.NEWLINK, 0, { index: 1, mtu: 1400 }, 95, "somebody else's link"],
    [RTM.DELLINK, 0, { name: 'eth0' }, 95, "somebody else's link, to remove"],
    [RTM.GETLINK, 0, { index: 1 }, 95, "somebody else's link, to read"],
    [RTM.GETADDR, 0, {}, 95, 'addresses'],
    [RTM.GETROUTE, NLM_F.DUMP, {}, 95, 'routes'],
  ]
  for (const [type, flags, link, errno, why] of rows) {
    it(`errno ${errno}: ${why}`, async () => {
      const { ask } = startRoute()
      assert.equal(refusalOf(await ask(type, flags, link)).errno, errno)
    })
  }

  it('that are malformed are EINVAL', async () => {
    const { route } = startRoute()
    const wire = bytes('00000000 07000000 00000000 00000000 0900 0400 dc050000')
    assert.equal(refusalOf(await route.ask(RTM.NEWLINK, 0, wire)).errno, 22)
  })

  it('that change something need the privilege; reading does not', async () => {
    const { ask } = startRoute({ privileged: false })
    assert.equal(refusalOf(await ask(RTM.NEWLINK, create, { name: 'a', kind: 'ovpn' })).errno, 1)
    assert.equal(refusalOf(await ask(RTM.DELLINK, 0, { index: 7 })).errno, 1)
    assert.equal((await ask(RTM.GETLINK, 0, { index: 7 }))[0]![0]!.type, RTM.NEWLINK)
  })

  it('have no groups', async () => {
    const { route } = startRoute()
    await assert.rejects(route.channel.setOption('add-membership', 1), { errno: 'EOPNOTSUPP' })
  })
})
