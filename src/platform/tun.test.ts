import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { openTestNetns, type TestNetns, withoutNamespaces } from '../../test/namespace.ts'
import { faulty } from './fault.test-data.ts'
import { E } from './layout.ts'
import { openLibc } from './libc.ts'
import { createBlock } from './memory.ts'
import { deviceNetns } from './netlink.ts'
import { inNetns, netnsId, removeNetns } from './netns.ts'
import { hasInterface, linkStats, openTun } from './tun.ts'

const os = openLibc()
const skip = withoutNamespaces
const part = 'platform'

interface Link {
  ifname: string
  ifindex: number
  mtu: number
  flags: string[]
  operstate: string
  linkinfo?: { info_kind: string; info_data: { vnet_hdr: boolean; multi_queue: boolean } }
}

const inside = (netns: TestNetns, ...command: string[]) =>
  execFileSync('ip', ['netns', 'exec', netns.name, ...command], { encoding: 'utf8' })
const linksOf = (netns: TestNetns) => JSON.parse(netns.ip('-d -j link show')) as Link[]

describe('openTun', { skip }, () => {
  it('makes the device in the namespace it is wanted in, as it is wanted', () => {
    using netns = openTestNetns(part)
    using tun = openTun({ netns: netns.fd, name: 'vpn0', mtu: 1416, carrier: false, queues: 2 })
    const link = linksOf(netns).find(({ ifname }) => ifname === 'vpn0')
    assert.equal(tun.name, 'vpn0')
    assert.equal(tun.ifindex, link?.ifindex)
    assert.equal(link?.mtu, 1416)
    assert.equal(tun.mtu(), 1416)
    assert.equal(link?.linkinfo?.info_kind, 'tun')
    assert.equal(link?.linkinfo?.info_data.vnet_hdr, true)
    assert.equal(link?.linkinfo?.info_data.multi_queue, true)
    assert.deepEqual(link?.flags.sort(), ['MULTICAST', 'NOARP', 'POINTOPOINT'])
    assert.equal(tun.fds.length, 2)
    const found = deviceNetns(tun.fds[0]!)
    assert.equal(netnsId(found), netnsId(netns.fd))
    os.close(found)
  })

  it('keeps the multicast of the stack out where that is not wanted', () => {
    using netns = openTestNetns(part)
    using _tun = openTun({ netns: netns.fd, name: 'vpn0', multicast: false })
    inNetns(netns.fd, () => {
      using _own = openTun({ name: 'vpn1', multicast: false })
      const links = linksOf(netns).filter(({ ifname }) => ifname !== 'lo')
      assert.deepEqual(
        links.map(({ flags }) => flags.includes('MULTICAST')),
        [false, false],
      )
    })
  })

  it('is found by its index in its namespace, and not in another', () => {
    using netns = openTestNetns(part)
    using other = openTestNetns(part)
    const tun = openTun({ netns: netns.fd, name: 'vpn0' })
    assert.deepEqual(
      [hasInterface(netns.fd, tun.ifindex), hasInterface(other.fd, tun.ifindex)],
      [true, false],
    )
    tun.close()
    assert.equal(hasInterface(netns.fd, tun.ifindex), false)
  })

  it('makes it in the own namespace too, and removes it when closed', () => {
    using netns = openTestNetns(part)
    inNetns(netns.fd, () => {
      const tun = openTun({ name: 'vpn0', mtu: 1300 })
      assert.deepEqual(
        linksOf(netns).map(({ ifname, mtu }) => [ifname, mtu]),
        [
          ['lo', 65536],
          ['vpn0', 1300],
        ],
      )
      tun.close()
      tun.close()
      assert.deepEqual(
        linksOf(netns).map(({ ifname }) => ifname),
        ['lo'],
      )
    })
  })

  it('picks the first free number, for a pattern and without a name', () => {
    using netns = openTestNetns(part)
    using a = openTun({ netns: netns.fd })
    using b = openTun({ netns: netns.fd })
    using c = openTun({ netns: netns.fd, name: 'tun%d' })
    assert.deepEqual([a.name, b.name, c.name], ['ovpn0', 'ovpn1', 'tun0'])
  })

  const places: [here: boolean, why: string][] = [
    [false, 'in another namespace'],
    [true, 'in the own namespace'],
  ]
  for (const [here, why] of places) {
    it(`refuses a taken name with EEXIST and leaves nothing behind, ${why}`, () => {
      using netns = openTestNetns(part)
      const open = (name: string) =>
        here ? inNetns(netns.fd, () => openTun({ name })) : openTun({ netns: netns.fd, name })
      netns.ip('link add pair0 type veth peer name pair1')
      netns.ip('tuntap add dev kept0 mode tun')
      using _ = open('vpn0')
      const before = linksOf(netns).map(({ ifname }) => ifname)
      for (const name of ['vpn0', 'pair0', 'kept0', 'lo']) {
        assert.throws(() => open(name), { code: 'EEXIST' }, name)
      }
      assert.deepEqual(
        linksOf(netns).map(({ ifname }) => ifname),
        before,
      )
    })
  }

  for (const name of ['', '.', '..', 'a/b', 'a b', 'a:b', 'sixteen-chars-xx']) {
    it(`refuses the name ${JSON.stringify(name)}`, () => {
      assert.throws(() => openTun({ name }), { code: 'EINVAL' })
    })
  }

  it('refuses an MTU that the kernel refuses, and leaves nothing behind', () => {
    using netns = openTestNetns(part)
    assert.throws(() => openTun({ netns: netns.fd, mtu: 20 }), { code: 'EINVAL' })
    assert.equal(linksOf(netns).length, 1)
  })

  it('moves whole trains: what it says about offloads is what the kernel does', () => {
    using netns = openTestNetns(part)
    using tun = openTun({ netns: netns.fd, name: 'vpn0', mtu: 1400 })
    using plain = openTun({ netns: netns.fd, name: 'vpn1', offload: false })
    assert.deepEqual(plain.offloads, { tso: false, uso: false })
    assert.equal(tun.offloads.tso, true)
    const features = (name: string) => inside(netns, 'ethtool', '-k', name)
    assert.match(features('vpn0'), /tx-tcp-segmentation: on/)
    assert.match(features('vpn0'), /tx-tcp6-segmentation: on/)
    assert.match(features('vpn1'), /tx-tcp-segmentation: off/)
    assert.match(
      features('vpn0'),
      new RegExp(`tx-udp-segmentation: ${tun.offloads.uso ? 'on' : 'off'}`),
    )
  })

  it('does without UDP trains where the kernel is older', () => {
    using netns = openTestNetns(part)
    const { syscalls } = faulty(os, [{ call: 'ioctl', skip: 1, result: -E.EINVAL }])
    using tun = openTun({ netns: netns.fd }, syscalls)
    assert.deepEqual(tun.offloads, { tso: true, uso: false })
  })

  it('reads and writes packets, and counts them', () => {
    using netns = openTestNetns(part)
    using tun = openTun({ netns: netns.fd, name: 'vpn0' })
    netns.ip('addr add 10.9.0.1/24 dev vpn0')
    netns.ip('link set vpn0 up')
    const [fd] = tun.fds
    const packet = createBlock(2048)
    while (os.read(fd!, packet.base, 2048) >= 0) {} // what the kernel says of its own accord
    const before = tun.stats()
    packet.u8.fill(0)
    packet.u8[10] = 0x45 // behind 10 bytes of virtio_net_hdr: an IPv4 header that goes nowhere
    packet.view.setUint16(12, 20)
    assert.equal(os.write(fd!, packet.base, 30), 30)
    assert.equal(tun.stats().rxPackets, before.rxPackets + 1)
    assert.equal(linkStats(fd!).rxBytes, before.rxBytes + 20)
  })

  it('has its carrier switched', () => {
    using netns = openTestNetns(part)
    using tun = openTun({ netns: netns.fd, name: 'vpn0', carrier: false })
    const carrier = () => inside(netns, 'cat', '/sys/class/net/vpn0/carrier').trim()
    netns.ip('link set vpn0 up')
    assert.equal(carrier(), '0')
    tun.setCarrier(true)
    assert.equal(carrier(), '1')
    tun.setCarrier(false)
    assert.equal(carrier(), '0')
  })

  it('has its MTU and its being up changed', () => {
    using netns = openTestNetns(part)
    using tun = openTun({ netns: netns.fd, name: 'vpn0' })
    const found = () => linksOf(netns).find(({ ifname }) => ifname === 'vpn0')
    tun.configure({ mtu: 1280, up: true })
    assert.equal(found()?.mtu, 1280)
    assert.ok(found()?.flags.includes('UP'))
    tun.configure({ up: false })
    assert.equal(found()?.mtu, 1280)
    assert.equal(found()?.flags.includes('UP'), false)
  })

  it('is found again after it was renamed and its MTU was changed', () => {
    using netns = openTestNetns(part)
    using tun = openTun({ netns: netns.fd, name: 'vpn0' })
    netns.ip('link set vpn0 name other0 mtu 1200')
    assert.equal(tun.mtu(), 1200)
    assert.equal(tun.stats().txErrors, 0)
  })

  it('ends with its namespace, which it does not keep alive', async () => {
    const netns = openTestNetns(part)
    using tun = openTun({ netns: netns.fd, name: 'vpn0' })
    const [fd] = tun.fds
    const buffer = createBlock(2048)
    os.close(netns.fd)
    removeNetns(netns.name)
    // namespaces are dismantled by a kernel thread
    for (let i = 0; i < 3000 && os.read(fd!, buffer.base, 2048) !== -E.EBADFD; i++) await sleep(10)
    assert.equal(os.read(fd!, buffer.base, 2048), -E.EBADFD)
    assert.throws(() => tun.mtu(), { code: 'EBADFD' })
    tun.setCarrier(true)
  })
})

describe('openTun without its means', () => {
  const failures: [call: 'open' | 'ioctl', errno: number, text: RegExp, why: string][] = [
    ['open', E.ENOENT, /mknod.*--device \/dev\/net\/tun/, 'no device file'],
    ['open', E.EPERM, /--device \/dev\/net\/tun/, 'a container without the device'],
    ['open', E.EACCES, /--device \/dev\/net\/tun/, 'no permission for the file'],
    ['open', E.ENODEV, /modprobe tun/, 'no driver in the kernel'],
    ['ioctl', E.EPERM, /CAP_NET_ADMIN.*--cap-add NET_ADMIN/, 'no capability'],
  ]
  for (const [call, errno, text, why] of failures) {
    it(`says what to do: ${why}`, { skip: call === 'ioctl' && skip }, () => {
      const { syscalls } = faulty(os, [{ call, result: -errno }])
      assert.throws(
        () => openTun({}, syscalls),
        (error) => error instanceof Error && text.test(error.message),
      )
    })
  }
})
