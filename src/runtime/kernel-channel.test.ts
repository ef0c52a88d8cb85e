/** Against the running kernel: what every one has. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { openTestNetns, withoutNamespaces } from '../../test/namespace.ts'
import { Requester } from '../driver/channel.ts'
import { decodeFamily, encodeGetFamily, GENL_ID_CTRL } from '../netlink/control.ts'
import { type Message, NLM_F } from '../netlink/message.ts'
import { decodeLink, encodeLink, RTM } from '../netlink/route.ts'
import { RTNLGRP_LINK } from '../platform/layout.ts'
import { inNetns } from '../platform/netns.ts'
import { ApiError } from '../uapi/errno.ts'
import { KernelChannel } from './kernel-channel.ts'

const silent = { unasked() {}, overrun() {}, closed() {} }
const ask = (name: string) =>
  [{ type: GENL_ID_CTRL, flags: 0 }, encodeGetFamily(name)] as [
    { type: number; flags: number },
    Uint8Array,
  ]

describe('KernelChannel', () => {
  it('brings the answer to a request', async () => {
    const requester = new Requester(new KernelChannel('generic'))
    const [reply] = await requester.request(...ask('nlctrl'))
    assert.equal(decodeFamily(reply!).id, GENL_ID_CTRL)
    requester.close()
  })

  it("brings the kernel's refusals", async () => {
    const requester = new Requester(new KernelChannel('generic'))
    await assert.rejects(requester.request(...ask('no-such-family')), (error) => {
      return error instanceof ApiError && error.errno === 'ENOENT'
    })
    requester.close()
  })

  it('answers many requests at once, each its own', async () => {
    const requester = new Requester(new KernelChannel('generic'))
    const names = Array.from({ length: 100 }, (_, i) => (i % 2 === 0 ? 'nlctrl' : `none${i}`))
    const answers = await Promise.allSettled(names.map((name) => requester.request(...ask(name))))
    assert.deepEqual(
      answers.map(({ status }) => status === 'fulfilled'),
      names.map((name) => name === 'nlctrl'),
    )
    requester.close()
  })

  it('brings all of a dump', async () => {
    const requester = new Requester(new KernelChannel('route'))
    const links = await requester.request({ type: RTM.GETLINK, flags: NLM_F.DUMP }, encodeLink({}))
    assert.ok(links.map((link) => decodeLink(link).name).includes('lo'))
    requester.close()
  })

  it('brings what nobody asked for to members of its group', {
    skip: withoutNamespaces,
  }, async () => {
    using netns = openTestNetns('cli')
    const requester = new Requester(inNetns(netns.fd, () => new KernelChannel('route')))
    const heard = new Promise<Message>((unasked) => requester.listen({ ...silent, unasked }))
    await requester.setOption('add-membership', RTNLGRP_LINK)
    netns.ip('link set lo down')
    const { type, payload } = await heard
    assert.equal(type, RTM.NEWLINK)
    assert.equal(decodeLink(payload).name, 'lo')
    requester.close()
  })

  it('refuses options that its socket has no use for', async () => {
    const channel = new KernelChannel('generic')
    await channel.setOption('ext-ack', 1)
    await assert.rejects(channel.setOption('port-id', 7), ApiError)
    channel.close()
  })

  it('tells a request that was under way when it was closed', async () => {
    const channel = new KernelChannel('generic')
    const requester = new Requester(channel)
    const answer = requester.request(...ask('nlctrl'))
    requester.close()
    await assert.rejects(answer, ApiError)
    await assert.rejects(requester.request(...ask('nlctrl')), ApiError)
  })
})
