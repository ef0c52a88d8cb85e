import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Writer } from '../netlink/attribute.ts'
import { GENL_ID_CTRL } from '../netlink/control.ts'
import { type Message, message, messages, NLM_F, NLMSG } from '../netlink/message.ts'
import { decodeLink, encodeLink, RTM } from '../netlink/route.ts'
import { KernelAnswers } from './kernel-answers.ts'

const SEQ = 9
const answer = (index: number, name: string, kind: string, seq = SEQ) =>
  message(
    { type: RTM.NEWLINK, flags: NLM_F.MULTI, seq, pid: 1 },
    encodeLink({ index, name, kind, mtu: 1400 }),
  )
const done = (seq = SEQ) =>
  message({ type: NLMSG.DONE, flags: NLM_F.MULTI, seq, pid: 1 }, new Uint8Array(4))

/** To the driver, 5 is `ovpn` and 6 `ovpn-dco`; to the kernel, both and 7 are `tun`. */
function answers(): KernelAnswers {
  const made = new KernelAnswers()
  made.learnLinks([answer(5, 'a', 'ovpn'), Buffer.concat([answer(6, 'b', 'ovpn-dco'), done()])])
  return made
}
const list = Buffer.concat([
  ...[answer(1, 'lo', ''), answer(5, 'a', 'tun'), answer(6, 'b', 'tun'), answer(7, 'c', 'tun')],
  done(),
])

/** A request for all links, of one kind if one is given. */
function dump(kind?: string): Message {
  const header = { type: RTM.GETLINK, flags: NLM_F.REQUEST | NLM_F.DUMP, seq: SEQ, pid: 0 }
  const writer = new Writer(new Uint8Array(16))
  if (kind !== undefined) writer.bytes(18, new Writer().string(1, kind).finish())
  return [...messages(message(header, writer.u32(29, 1).finish()))][0]!
}

const linksIn = (datagram: Uint8Array) =>
  [...messages(datagram)]
    .filter(({ type }) => type === RTM.NEWLINK)
    .map(({ payload }) => decodeLink(payload))
    .map(({ name, kind }) => `${name}: ${kind}`)

describe('links', () => {
  const rows: [kind: string | undefined, asked: string | undefined, told: string[]][] = [
    [undefined, undefined, ['lo: ', 'a: ovpn', 'b: ovpn-dco', 'c: tun']],
    ['ovpn', 'tun', ['a: ovpn']],
    ['ovpn-dco', 'tun', ['b: ovpn-dco']],
    ['tun', 'tun', ['lo: ', 'c: tun']], // the kernel has left out those of other kinds
  ]
  for (const [kind, asked, told] of rows) {
    it(`of ${kind ?? 'any kind'}: the kernel is asked for ${asked ?? 'all'}`, () => {
      const made = answers()
      const [request] = messages(made.linkRequest(dump(kind)))
      assert.equal(decodeLink(request!.payload).kind, asked)
      assert.deepEqual(linksIn(made.amend(list)), told)
      assert.equal([...messages(made.amend(list))].at(-1)!.type, NLMSG.DONE)
    })
  }

  it('that are announced meanwhile are of any kind', () => {
    const made = answers()
    made.linkRequest(dump('ovpn'))
    assert.deepEqual(linksIn(made.amend(answer(7, 'c', 'tun', 0))), ['c: tun'])
  })

  it('where nothing is left of a datagram, there is none', () => {
    const made = answers()
    made.linkRequest(dump('ovpn'))
    assert.equal(made.amend(answer(7, 'c', 'tun')).length, 0)
  })

  it('of a driver that has none are passed on as they stand', () => {
    const made = new KernelAnswers()
    made.learnLinks([done()])
    assert.equal(made.amend(list), list)
  })
})

describe('families', () => {
  const family = (id: number) =>
    message(
      { type: GENL_ID_CTRL, flags: NLM_F.MULTI, seq: SEQ, pid: 1 },
      new Writer(Uint8Array.of(1, 2, 0, 0)).u16(1, id).string(2, `f${id}`).u32(3, 1).finish(),
    )
  const header = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST | NLM_F.DUMP, seq: SEQ, pid: 0 }
  const [asked] = messages(message(header, Uint8Array.of(3, 1, 0, 0)))

  it("are the kernel's and the driver's own, each once, before the end", () => {
    const made = new KernelAnswers()
    const driver = [Buffer.concat([family(16), family(1001)]), family(1002), done()]
    made.learnFamilies(asked!, driver, new Set([1001, 1002]))
    const first = made.amend(Buffer.concat([family(16), family(20)]))
    const last = made.amend(Buffer.concat([family(21), done()]))
    const again = made.amend(done())
    const told = (datagram: Uint8Array) =>
      [...messages(datagram)].map(({ type, payload }) =>
        type === NLMSG.DONE
          ? 'done'
          : new DataView(payload.buffer, payload.byteOffset).getUint16(8, true),
      )
    assert.deepEqual([first, last, again].map(told), [[16, 20], [21, 1001, 1002, 'done'], ['done']])
  })

  it('a list that somebody else asked for ends as it does', () => {
    const made = new KernelAnswers()
    made.learnFamilies(asked!, [family(1001)], new Set([1001]))
    assert.equal([...messages(made.amend(done(SEQ + 1)))].length, 1)
  })
})
