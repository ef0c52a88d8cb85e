import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpus } from 'node:os'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { openDescriptors } from '../../test/descriptors.ts'
import { openTestNetns, type TestNetns, withoutNamespaces } from '../../test/namespace.ts'
import { faulty } from './fault.test-data.ts'
import {
  E,
  F_DUPFD_CLOEXEC,
  IOVEC,
  IPPROTO_UDP,
  MMSGHDR,
  MSGHDR,
  SO_BINDTODEVICE,
  SO_MARK,
  SO_RCVBUF,
  SO_REUSEPORT,
  SOL_SOCKET,
  UDP_GRO,
} from './layout.ts'
import { openLibc } from './libc.ts'
import { blockOf, blockOfText, createBlock } from './memory.ts'
import { netnsId } from './netns.ts'
import { encodeAddress } from './sockaddr.ts'
import { getOption, setOption } from './sockopt.ts'
import { listenTcp } from './tcp.ts'
import {
  inspectSocket,
  type JoinedUdp,
  joinUdp,
  openUdp,
  PathProbe,
  parseClosedSockets,
} from './udp.ts'

const os = openLibc()
const skip = withoutNamespaces
const part = 'platform'
const oneShard = { shards: 1, steering: { v1: 'drop' } } as const

/** A socket connected to a port of the namespace, to send from. */
function openSender(netns: TestNetns, port: number, to = '127.0.0.1') {
  const from = to.includes(':') ? '::' : '0.0.0.0'
  const sender = openUdp(from, 0, { netns: netns.fd })
  const { block, length } = encodeAddress({ address: to, port, scope: 0 })
  assert.equal(os.connect(sender.fd, block.base, length), 0)
  return {
    send(bytes: readonly number[]) {
      const block = blockOf(new Uint8Array(bytes))
      assert.equal(os.write(sender.fd, block.base, bytes.length), bytes.length)
    },
    fd: sender.fd,
    [Symbol.dispose]: sender.close,
  }
}

/** Datagrams that wait in a socket, read; their lengths. */
function read(fd: number): number[] {
  const buffer = createBlock(65536)
  const lengths: number[] = []
  for (;;) {
    const got = os.read(fd, buffer.base, 65536)
    if (got < 0) return lengths
    lengths.push(got)
  }
}

/** Which sockets have datagrams: 'owner', or the shard's number. */
function reached(owner: number, joined: JoinedUdp): (number | 'owner')[] {
  const shards = joined.shards.flatMap((fd, i) => read(fd).map(() => i))
  return [...read(owner).map(() => 'owner' as const), ...shards]
}

describe('a UDP socket taken part in', { skip }, () => {
  const packets: [
    packet: number[],
    shards: number,
    v1: 'drop' | 'pass',
    at: number | 'owner',
    why: string,
  ][] = [
    [[0x48, 0, 0, 0], 2, 'drop', 0, 'P_DATA_V2 of peer 0'],
    [[0x4f, 0, 0, 1, 9, 9], 2, 'drop', 1, 'P_DATA_V2 of peer 1, any key ID'],
    [[0x48, 0, 0, 7], 3, 'drop', 1, 'peer 7 of three shards'],
    [[0x48, 1, 0, 0], 3, 'drop', 0x10000 % 3, 'all 24 bits of the peer ID count'],
    [[0x48, 0xff, 0xff, 0xff], 3, 'drop', 0xffffff % 3, 'the undefined peer ID'],
    [[0x30, 1, 2, 3, 4], 2, 'drop', 0, 'P_DATA_V1, to be dropped'],
    [[0x30, 1, 2, 3, 4], 2, 'pass', 'owner', 'P_DATA_V1, to be left alone'],
    [[0x48, 0, 0], 2, 'drop', 0, 'three bytes cannot be a packet'],
    [[], 2, 'drop', 0, 'an empty datagram'],
    [[0x38, 1, 2, 3, 4, 5, 6, 7, 8], 2, 'drop', 'owner', 'a client that resets'],
    [[0x20, 0, 0, 0], 2, 'drop', 'owner', 'a control packet'],
    [[0x50, 0, 0, 0], 2, 'drop', 'owner', 'opcode 10'],
    [[0x00, 0, 0, 0], 2, 'drop', 'owner', 'opcode 0'],
    [[0xff, 0, 0, 0], 2, 'drop', 'owner', 'opcode 31'],
  ]
  for (const [packet, shards, v1, at, why] of packets) {
    it(`hands ${at === 'owner' ? 'its owner' : `shard ${at} of ${shards}`} ${why} (${v1})`, () => {
      using netns = openTestNetns(part)
      using user = openUdp('0.0.0.0', 0, { netns: netns.fd })
      using joined = joinUdp(user.fd, { shards, steering: { v1 } })
      using sender = openSender(netns, user.port)
      sender.send(packet)
      assert.deepEqual(reached(user.fd, joined), [at])
    })
  }

  const places: [address: string, v6only: boolean, to: string[], why: string][] = [
    ['127.0.0.1', false, ['127.0.0.1'], 'IPv4'],
    ['::1', true, ['::1'], 'IPv6'],
    ['::', false, ['::1', '127.0.0.1'], 'both families'],
    ['::', true, ['::1'], 'IPv6 alone, any address'],
  ]
  for (const [address, v6only, to, why] of places) {
    it(`is known by its family, port and namespace: ${why}`, () => {
      using netns = openTestNetns(part)
      using user = openUdp(address, 0, { netns: netns.fd, v6only })
      using joined = joinUdp(user.fd, oneShard)
      assert.equal(joined.family, address.includes(':') ? 6 : 4)
      assert.equal(joined.localPort, user.port)
      assert.equal(joined.netns, netnsId(netns.fd))
      for (const target of to) {
        using sender = openSender(netns, user.port, target)
        sender.send([0x48, 0, 0, 0])
        sender.send([0x20, 0, 0, 0])
        assert.deepEqual(reached(user.fd, joined), ['owner', 0], target)
      }
    })
  }

  it('passes on what decides about packets: device, mark, owner', () => {
    using netns = openTestNetns(part)
    using user = openUdp('0.0.0.0', 0, { netns: netns.fd })
    const device = blockOfText('lo')
    assert.equal(os.setsockopt(user.fd, SOL_SOCKET, SO_BINDTODEVICE, device.base, 3), 0)
    setOption(os, user.fd, SOL_SOCKET, SO_MARK, 0x1234, 'cannot mark')
    assert.equal(os.fchown(user.fd, 12345, 0xffffffff), 0)
    using joined = joinUdp(user.fd, oneShard)
    const [shard] = joined.shards
    assert.equal(getOption(os, shard!, SOL_SOCKET, SO_MARK, ''), 0x1234)
    const list = execFileSync('ip', ['netns', 'exec', netns.name, 'ss', '-uanemp'], {
      encoding: 'utf8',
    })
    const lines = list.split('\n').filter((line) => line.includes(`%lo:${user.port}`))
    assert.ok(lines.length >= 2, list)
    for (const line of lines) assert.match(line, /uid:12345/)
    using sender = openSender(netns, user.port)
    sender.send([0x48, 0, 0, 0])
    assert.deepEqual(reached(user.fd, joined), [0])
  })

  it('has large buffers, and one of the size that was asked for', () => {
    using netns = openTestNetns(part)
    using user = openUdp('0.0.0.0', 0, { netns: netns.fd })
    using joined = joinUdp(user.fd, { ...oneShard, rcvbuf: 100_000 })
    // the kernel doubles it, for its own bookkeeping
    assert.equal(getOption(os, joined.shards[0]!, SOL_SOCKET, SO_RCVBUF, ''), 200_000)
    joined.close()
    using again = joinUdp(user.fd, oneShard)
    assert.equal(getOption(os, again.shards[0]!, SOL_SOCKET, SO_RCVBUF, ''), 8 << 20)
  })

  it('leaves the rest of its owner’s socket alone, and gives all packets back', () => {
    using netns = openTestNetns(part)
    using user = openUdp('0.0.0.0', 0, { netns: netns.fd })
    using sender = openSender(netns, user.port)
    const joined = joinUdp(user.fd, oneShard)
    assert.equal(getOption(os, user.fd, IPPROTO_UDP, UDP_GRO, ''), 0)
    joined.close()
    joined.close()
    sender.send([0x48, 0, 0, 0])
    sender.send([0x20, 0, 0, 0])
    assert.deepEqual(read(user.fd), [4, 4])
  })

  it('can be taken part in again', () => {
    using netns = openTestNetns(part)
    using user = openUdp('0.0.0.0', 0, { netns: netns.fd })
    using sender = openSender(netns, user.port)
    joinUdp(user.fd, { shards: 3, steering: { v1: 'drop' } }).close()
    using joined = joinUdp(user.fd, { shards: 2, steering: { v1: 'pass' } })
    sender.send([0x48, 0, 0, 5])
    sender.send([0x30, 0, 0, 0])
    assert.deepEqual(reached(user.fd, joined), ['owner', 1])
  })

  it('lets sockets of other ports be', () => {
    using netns = openTestNetns(part)
    using user = openUdp('127.0.0.1', 0, { netns: netns.fd })
    using other = openUdp('127.0.0.2', user.port, { netns: netns.fd })
    using joined = joinUdp(user.fd, oneShard)
    using sender = openSender(netns, user.port, '127.0.0.2')
    sender.send([0x48, 0, 0, 0])
    assert.deepEqual(read(other.fd), [4])
    assert.deepEqual(reached(user.fd, joined), [])
  })
})

describe('joinUdp refuses', { skip }, () => {
  it('what is no socket, and no UDP socket', () => {
    using listener = listenTcp('127.0.0.1', 0)
    const file = os.eventfd(0, 0)
    assert.throws(() => joinUdp(file, oneShard), { code: 'ENOTSOCK' })
    assert.throws(() => joinUdp(99999, oneShard), { code: 'EBADF' })
    assert.throws(() => joinUdp(listener.fd, oneShard), { code: 'EPROTOTYPE' })
    os.close(file)
  })

  it('an unbound socket', () => {
    const fd = os.socket(2, 2, 0)
    assert.throws(() => joinUdp(fd, oneShard), { code: 'EINVAL', message: /not bound/ })
    os.close(fd)
  })

  it('a connected one, with the reason', () => {
    using netns = openTestNetns(part)
    using sender = openSender(netns, 1194)
    assert.throws(() => joinUdp(sender.fd, oneShard), { code: 'EISCONN', message: /unconnected/ })
  })

  it('one that is shared already: by a driver, or by its owner’s own group', () => {
    using netns = openTestNetns(part)
    using user = openUdp('0.0.0.0', 0, { netns: netns.fd })
    using joined = joinUdp(user.fd, oneShard)
    assert.throws(() => joinUdp(user.fd, oneShard), { code: 'EBUSY' })
    using sender = openSender(netns, user.port)
    sender.send([0x48, 0, 0, 0])
    assert.deepEqual(reached(user.fd, joined), [0], 'the first is not disturbed')
  })

  const failures: [call: 'bind' | 'setsockopt' | 'fchown', skip: number, why: string][] = [
    ['bind', 1, 'the address'],
    ['setsockopt', 8, 'an option'],
    ['fchown', 0, 'the owner'],
  ]
  for (const [call, first, why] of failures) {
    it(`when the kernel does, and leaves no descriptor behind: ${why}`, () => {
      using netns = openTestNetns(part)
      using user = openUdp('0.0.0.0', 0, { netns: netns.fd })
      const before = openDescriptors()
      const { syscalls, struck } = faulty(os, [{ call, skip: first, result: -E.EPERM }])
      assert.throws(() => joinUdp(user.fd, oneShard, syscalls), { code: 'EPERM' })
      assert.deepEqual(struck, [1])
      assert.deepEqual(
        openDescriptors().filter((one) => !before.includes(one)),
        [],
      )
      using sender = openSender(netns, user.port)
      sender.send([0x48, 0, 0, 0])
      assert.deepEqual(read(user.fd), [4])
    })
  }
})

describe('a close watch', { skip }, () => {
  const families: [address: string, why: string][] = [
    ['127.0.0.1', 'IPv4'],
    ['::', 'IPv6'],
  ]
  for (const [address, why] of families) {
    it(`tells when the owner closes the last descriptor of the socket: ${why}`, async () => {
      using netns = openTestNetns(part)
      const user = openUdp(address, 0, { netns: netns.fd })
      const { cookie } = inspectSocket(user.fd)
      const copy = os.fcntl(user.fd, F_DUPFD_CLOEXEC, 0)
      using joined = joinUdp(copy, oneShard)
      os.close(copy)
      const second = os.fcntl(user.fd, F_DUPFD_CLOEXEC, 0)
      user.close()
      await sleep(50)
      assert.deepEqual(parseClosedSockets(os, joined.closeWatch), [])
      os.close(second)
      const heard: bigint[] = []
      for (let i = 0; i < 4000 && heard.length === 0; i++) {
        await sleep(5)
        heard.push(...parseClosedSockets(os, joined.closeWatch))
      }
      assert.deepEqual(heard, [cookie])
    })
  }
})

describe('trains of datagrams', { skip }, () => {
  it('arrive glued together, whichever the flow and the processor', () => {
    using netns = openTestNetns(part)
    using far = openTestNetns(part)
    netns.ip(`link add pair0 type veth peer name pair1 netns ${far.name}`)
    for (const [place, device, address] of [
      [netns, 'pair0', '10.1.1.1/24'],
      [far, 'pair1', '10.1.1.2/24'],
    ] as const) {
      place.ip(`addr add ${address} dev ${device}`)
      place.ip(`link set ${device} up`)
    }
    const inside = (place: TestNetns, command: string) =>
      execFileSync('ip', ['netns', 'exec', place.name, 'sh', '-c', command], { stdio: 'pipe' })
    inside(far, 'ethtool -K pair1 tso off gso off')
    // have the receiver wait for a whole train, as a real interface's interrupt does
    inside(netns, 'ethtool -K pair0 gro on')
    inside(netns, 'echo 500000 > /sys/class/net/pair0/gro_flush_timeout')
    inside(netns, 'echo 2 > /sys/class/net/pair0/napi_defer_hard_irqs')
    using user = openUdp('0.0.0.0', 0, { netns: netns.fd })
    using joined = joinUdp(user.fd, oneShard)
    const flows = 12
    const train = 16
    let sent = 0
    let datagrams = 0
    let reads = 0
    try {
      for (const [processor] of cpus().entries()) {
        runOn(`${processor}`) // a veth pair receives where its peer sends, once it has been idle
        Bun.sleepSync(20)
        for (let flow = 0; flow < flows; flow++) {
          using sender = openSender(far, user.port, '10.1.1.1')
          sendTrain(sender.fd, train)
          sent += train
          for (let i = 0; i < 50 && datagrams < sent; i++) {
            Bun.sleepSync(1)
            for (const length of read(joined.shards[0]!)) {
              reads++
              datagrams += length / DATAGRAM_BYTES
            }
          }
        }
      }
    } finally {
      runOn(`0-${cpus().length - 1}`)
    }
    assert.equal(datagrams, sent)
    // by the addresses' hash alone, about half of the flows would come one by one
    assert.ok(reads <= 2 * flows * cpus().length, `${reads} reads for ${datagrams} datagrams`)
  })
})

const DATAGRAM_BYTES = 1000

/** Keeps this thread on some processors, as a list. */
function runOn(processors: string): void {
  execFileSync('taskset', ['-pc', processors, `${process.pid}`], { stdio: 'pipe' })
}

function sendTrain(fd: number, count: number): void {
  const data = createBlock(DATAGRAM_BYTES)
  data.u8[0] = 0x48
  const iov = createBlock(IOVEC.size)
  iov.view.setBigUint64(IOVEC.base, BigInt(data.base), true)
  iov.view.setBigUint64(IOVEC.len, BigInt(DATAGRAM_BYTES), true)
  const messages = createBlock(MMSGHDR.size * count)
  for (let i = 0; i < count; i++) {
    messages.view.setBigUint64(MMSGHDR.size * i + MSGHDR.iov, BigInt(iov.base), true)
    messages.view.setBigUint64(MMSGHDR.size * i + MSGHDR.iovlen, 1n, true)
  }
  assert.equal(os.sendmmsg(fd, messages.base, count, 0), count)
}

describe('inspectSocket', () => {
  it('tells UDP, TCP and others apart, and gives each its cookie', () => {
    using udp = openUdp('127.0.0.1', 0)
    using tcp = listenTcp('127.0.0.1', 0)
    const unix = os.socket(1, 2, 0)
    const found = [udp.fd, tcp.fd, unix].map((fd) => inspectSocket(fd))
    assert.deepEqual(
      found.map(({ protocol }) => protocol),
      ['udp', 'tcp', 'other'],
    )
    assert.equal(new Set(found.map(({ cookie }) => cookie)).size, 3)
    assert.equal(inspectSocket(udp.fd).cookie, found[0]?.cookie)
    os.close(unix)
  })
})

describe('openUdp', () => {
  it('refuses a taken port', () => {
    using first = openUdp('127.0.0.1', 0)
    assert.equal(getOption(os, first.fd, SOL_SOCKET, SO_REUSEPORT, ''), 0)
    assert.throws(() => openUdp('127.0.0.1', first.port), { code: 'EADDRINUSE' })
  })
})

describe('the path of a socket', { skip }, () => {
  it('is that of the route, in the namespace of the socket', () => {
    using netns = openTestNetns(part)
    netns.ip('link add d0 type veth peer name p0')
    netns.ip('link set p0 up')
    netns.ip('link set d0 mtu 1400 up')
    netns.ip('addr add 192.0.2.1/24 dev d0')
    netns.ip('addr add 2001:db8::1/64 dev d0 nodad')
    netns.ip('route add 198.51.100.0/24 via 192.0.2.9 mtu 1300')
    netns.ip('link add d1 type veth peer name p1')
    netns.ip('link set p1 up')
    netns.ip('link set d1 mtu 9000 up')
    netns.ip('addr add 203.0.113.1/24 dev d1')
    using socket = openUdp('::', 0, { netns: netns.fd })
    const rows: [address: string, mtu: number | undefined, why: string][] = [
      ['192.0.2.2', 1400, "the interface's"],
      ['2001:db8::2', 1400, 'of IPv6 as well'],
      ['198.51.100.1', 1300, "the route's own"],
      ['203.0.113.2', 9000, 'larger than an Ethernet frame'],
      ['8.8.8.8', undefined, 'no route leads there'],
    ]
    using path = new PathProbe(socket.fd)
    for (const [address, mtu, why] of [...rows, ...rows.toReversed()]) {
      assert.equal(path.mtu({ address, port: 9, scope: 0 }), mtu, why)
    }
  })

  it('is of the interface that the socket is bound to', () => {
    using netns = openTestNetns(part)
    for (const [name, mtu, address] of [
      ['d0', 1400, '192.0.2.1'],
      ['d1', 1300, '192.0.2.2'],
    ]) {
      netns.ip(`link add ${name} type veth peer name p${name}`)
      netns.ip(`link set p${name} up`)
      netns.ip(`link set ${name} mtu ${mtu} up`)
      netns.ip(`addr add ${address}/24 dev ${name}`)
    }
    using socket = openUdp('0.0.0.0', 0, { netns: netns.fd })
    const to = { address: '192.0.2.9', port: 9, scope: 0 }
    using path = new PathProbe(socket.fd)
    assert.equal(path.mtu(to), 1400)
    const name = blockOfText('d1')
    assert.equal(os.setsockopt(socket.fd, SOL_SOCKET, SO_BINDTODEVICE, name.base, 2), 0)
    for (let again = 0; again < 2; again++) assert.equal(path.mtu(to), 1300)
  })
})
