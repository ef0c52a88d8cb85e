import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { openDescriptors } from '../../test/descriptors.ts'
import { openTestNetns, type TestNetns, withoutNamespaces } from '../../test/namespace.ts'
import { faulty } from './fault.test-data.ts'
import {
  E,
  IFINFOMSG,
  NETLINK_ROUTE,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  NLMSGHDR,
  RTM_GETLINK,
  RTNLGRP_LINK,
} from './layout.ts'
import { openLibc } from './libc.ts'
import {
  askNetlink,
  decodeAttributes,
  encodeMessage,
  netnsNumber,
  openNetlink,
  openRouteWatch,
  RouteQuery,
} from './netlink.ts'
import { inNetns, removeNetns } from './netns.ts'
import { openTun, type Tun } from './tun.ts'

const os = openLibc()
const skip = withoutNamespaces
const part = 'platform'
const bytes = (text: string) => Uint8Array.from(text.split('.').map(Number))
const ifindexOf = (link: Uint8Array) =>
  new DataView(link.buffer).getInt32(NLMSGHDR.size + IFINFOMSG.index, true)

describe('a netlink socket', () => {
  const dump = encodeMessage(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, new Uint8Array(16), [])

  it('collects a dump', () => {
    using socket = openNetlink(NETLINK_ROUTE)
    const links = askNetlink(socket, dump, 'cannot list links')
    assert.ok(links.some((link) => ifindexOf(link) === 1))
  })

  it('gives the errno of a refusal', () => {
    using socket = openNetlink(NETLINK_ROUTE)
    const header = new Uint8Array(16)
    new DataView(header.buffer).setInt32(IFINFOMSG.index, 0x7ffffff0, true)
    const message = encodeMessage(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, header, [])
    assert.throws(() => askNetlink(socket, message, 'cannot ask'), {
      code: 'ENODEV',
      message: 'cannot ask: ENODEV (netlink)',
    })
  })

  it('waits for as long as it was told, and not at all', () => {
    using socket = openNetlink(NETLINK_ROUTE)
    assert.equal(socket.receive(0), undefined)
    const start = performance.now()
    assert.equal(socket.receive(30), undefined)
    const took = performance.now() - start
    assert.ok(took >= 29 && took < 1000, `${took} ms`)
  })

  it('hears of its groups', { skip }, () => {
    using netns = openTestNetns(part)
    using socket = openNetlink(NETLINK_ROUTE, { netns: netns.fd, groups: [RTNLGRP_LINK] })
    netns.ip('link add pair0 type veth peer name pair1')
    const heard = socket.receive(1000)
    assert.ok(heard)
    assert.equal(new DataView(heard.buffer).getUint16(NLMSGHDR.type, true), 16)
  })

  it('is of the namespace it was opened in', { skip }, () => {
    using netns = openTestNetns(part)
    using socket = openNetlink(NETLINK_ROUTE, { netns: netns.fd })
    assert.equal(askNetlink(socket, dump, 'cannot list links').length, 1, 'loopback alone')
  })
})

describe('attributes of the small codec', () => {
  it('come back as they were put', () => {
    const message = encodeMessage(1, 2, new Uint8Array(4), [
      [3, new Uint8Array([1])],
      [7, new Uint8Array(0)],
      [0x8005, new Uint8Array([1, 2, 3, 4, 5])],
    ])
    assert.equal(message.length, 16 + 4 + 8 + 4 + 12)
    const found = decodeAttributes(message, 20)
    assert.deepEqual([...found.keys()], [3, 7, 5])
    assert.deepEqual(found.get(5), new Uint8Array([1, 2, 3, 4, 5]))
  })

  const broken: [bytes: number[], why: string][] = [
    [[], 'nothing'],
    [[4, 0], 'half a header'],
    [[3, 0, 1, 0], 'shorter than its header'],
    [[9, 0, 1, 0, 0], 'longer than what is there'],
  ]
  for (const [raw, why] of broken) {
    it(`stop at one that does not fit: ${why}`, () => {
      assert.equal(decodeAttributes(new Uint8Array(raw), 0).size, 0)
    })
  }
})

/** 10.9.0.0/24 on the device, 10.20.0.0/16 behind 10.9.0.7; the same of IPv6. */
function openRouted(netns: TestNetns): Tun {
  const tun = openTun({ netns: netns.fd, name: 'vpn0' })
  netns.ip('addr add 10.9.0.1/24 dev vpn0')
  netns.ip('addr add fd09::1/64 dev vpn0 nodad')
  netns.ip('link set vpn0 up')
  netns.ip('route add 10.20.0.0/16 via 10.9.0.7')
  netns.ip('route add 10.30.0.0/16 via inet6 fd09::7 dev vpn0')
  netns.ip('route add blackhole 10.40.0.0/16')
  netns.ip('route add fd20::/64 via fd09::7')
  return tun
}

describe('RouteQuery', { skip }, () => {
  const six = (first: number, last: number) => {
    const address = new Uint8Array(16)
    address.set([0xfd, first])
    address[15] = last
    return address
  }

  const hops: [to: Uint8Array, hop: Uint8Array | 'direct' | undefined, why: string][] = [
    [bytes('10.20.1.1'), bytes('10.9.0.7'), 'behind a gateway'],
    [bytes('10.9.0.5'), 'direct', 'on the link'],
    [bytes('8.8.8.8'), undefined, 'no route'],
    [bytes('10.40.0.1'), undefined, 'a route that refuses'],
    [bytes('10.30.0.1'), six(0x09, 7), 'IPv4 behind an IPv6 gateway'],
    [six(0x20, 1), six(0x09, 7), 'IPv6 behind a gateway'],
    [six(0x09, 5), 'direct', 'IPv6 on the link'],
    [six(0x77, 5), undefined, 'IPv6 without a route'],
  ]
  for (const [to, hop, why] of hops) {
    it(`finds ${hop} for ${to.join('.')}: ${why}`, () => {
      using netns = openTestNetns(part)
      using tun = openRouted(netns)
      const query = new RouteQuery(os, tun.fds[0]!)
      assert.deepEqual(query.nextHop(to), hop)
    })
  }

  it('looks for a route through the given device', () => {
    using netns = openTestNetns(part)
    using tun = openRouted(netns)
    netns.ip('link set lo up')
    const query = new RouteQuery(os, tun.fds[0]!)
    assert.deepEqual(query.nextHop(bytes('10.20.1.1'), tun.ifindex), bytes('10.9.0.7'))
    assert.equal(query.nextHop(bytes('10.9.0.5'), tun.ifindex), 'direct')
  })

  it('leaves no descriptor behind, whatever it finds', () => {
    using netns = openTestNetns(part)
    using tun = openRouted(netns)
    const query = new RouteQuery(os, tun.fds[0]!)
    const before = openDescriptors()
    for (const [to] of hops) query.nextHop(to)
    assert.deepEqual(
      openDescriptors().filter((one) => !before.includes(one)),
      [],
    )
  })

  it('finds nothing once the device is gone, or when the system is short of something', () => {
    using netns = openTestNetns(part)
    const tun = openRouted(netns)
    const { syscalls, struck } = faulty(os, [{ call: 'socket', result: -E.ENOMEM }])
    assert.equal(new RouteQuery(syscalls, tun.fds[0]!).nextHop(bytes('10.9.0.5')), undefined)
    assert.deepEqual(struck, [1])
    netns.ip('link del vpn0')
    assert.equal(new RouteQuery(os, tun.fds[0]!).nextHop(bytes('10.9.0.5')), undefined)
    tun.close()
  })
})

describe('a route watch', { skip }, () => {
  const changes: [command: string, why: string][] = [
    ['route add 10.21.0.0/16 via 10.9.0.8', 'an IPv4 route'],
    ['route add fd21::/64 via fd09::8', 'an IPv6 route'],
    ['rule add from 1.2.3.4 table 7', 'an IPv4 rule'],
    ['-6 rule add from fd33::1 table 7', 'an IPv6 rule'],
    ['link set vpn0 down', 'a link'],
    ['addr add 10.99.0.1/24 dev vpn0', 'an address, which brings a route'],
  ]
  for (const [command, why] of changes) {
    it(`hears of ${why}, from another namespace`, () => {
      using netns = openTestNetns(part)
      using tun = openRouted(netns)
      using watch = openRouteWatch(os, tun.fds[0]!)
      assert.equal(watch.complete, true)
      watch.drain()
      netns.ip(command)
      assert.deepEqual(watch.drain(), { routes: true, overrun: false })
      assert.equal(watch.drain().routes, false)
    })
  }

  it('hears of the own namespace', () => {
    using netns = openTestNetns(part)
    inNetns(netns.fd, () => {
      using tun = openRouted(netns)
      using watch = openRouteWatch(os, tun.fds[0]!)
      watch.drain()
      netns.ip('route add 10.21.0.0/16 via 10.9.0.8')
      assert.equal(watch.drain().routes, true)
    })
  })

  it('of two devices in one namespace works for both', () => {
    using netns = openTestNetns(part)
    using tun = openRouted(netns)
    using first = openRouteWatch(os, tun.fds[0]!)
    using second = openRouteWatch(os, tun.fds[0]!)
    assert.deepEqual([first.complete, second.complete], [true, true])
    first.drain()
    second.drain()
    netns.ip('route add 10.21.0.0/16 via 10.9.0.8')
    assert.deepEqual([first.drain().routes, second.drain().routes], [true, true])
  })

  it('says so when messages were lost', () => {
    using netns = openTestNetns(part)
    using tun = openRouted(netns)
    const { syscalls } = faulty(os, [{ call: 'recvmsg', skip: 1, result: -E.ENOBUFS }])
    using watch = openRouteWatch(syscalls, tun.fds[0]!)
    assert.deepEqual(watch.drain(), { routes: true, overrun: true })
  })

  it('is incomplete where the process may not hear of other namespaces', () => {
    using netns = openTestNetns(part)
    using tun = openRouted(netns)
    const refusing = {
      ...os,
      setsockopt: (fd: number, level: number, name: number, value: number, length: number) =>
        level === 270 && name === 8 ? -E.EPERM : os.setsockopt(fd, level, name, value, length),
    }
    using watch = openRouteWatch(refusing, tun.fds[0]!)
    assert.equal(watch.complete, false)
  })

  it('does not keep the namespace alive', async () => {
    const netns = openTestNetns(part)
    using tun = openRouted(netns)
    using _ = openRouteWatch(os, tun.fds[0]!)
    const query = new RouteQuery(os, tun.fds[0]!)
    assert.equal(query.nextHop(bytes('10.9.0.5')), 'direct')
    os.close(netns.fd)
    removeNetns(netns.name)
    // The kernel takes its time, for all that are to go together; and a mount namespace that was copied meanwhile holds it.
    for (let i = 0; i < 3000 && query.nextHop(bytes('10.9.0.5')) !== undefined; i++) await sleep(10)
    assert.equal(query.nextHop(bytes('10.9.0.5')), undefined)
  })
})

describe('netnsNumber', { skip }, () => {
  it('numbers a namespace once, another otherwise, and refuses what is none', () => {
    using netns = openTestNetns(part)
    using one = openTestNetns(part)
    using other = openTestNetns(part)
    const first = netnsNumber(netns.fd, one.fd)
    const second = netnsNumber(netns.fd, other.fd)
    assert.ok(first >= 0 && second >= 0 && first !== second)
    assert.equal(netnsNumber(netns.fd, one.fd), first)
    const listed = netns.ip('netns list-id')
    assert.match(listed, new RegExp(`nsid ${first}\\b`))
    assert.throws(() => netnsNumber(netns.fd, 9999), { name: 'OsError' })
  })
})
