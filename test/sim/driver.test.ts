/** Networks of drivers for virtual hours: what must hold whatever the wire, the clock and an attacker do. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, it } from 'node:test'
import { Endpoint } from '../../src/driver/core/address.ts'
import { Random } from '../random.ts'
import { Network } from './network.ts'
import { type Noise, SILENCE } from './wire.ts'

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

const NOISE: Noise = { lost: 300, repeated: 300, changed: 200, cut: 100, delay: 10, jitter: 200 }
const LOSSY: Noise = { ...SILENCE, lost: 500, changed: 200, cut: 100 }
const JITTER: Noise = { ...SILENCE, jitter: 300 }
const NOTHING_LOST: Noise[] = [SILENCE, JITTER]

/** Sends something `times` times, about every `gap` milliseconds. */
function sendOften(net: Network, times: number, gap: number, random: Random): void {
  let left = times
  const again = () => {
    net.sendSome()
    if (--left > 0) net.clock.after(random.below(2 * gap), again)
  }
  net.clock.after(random.below(gap), again)
}

/** Every client has new keys every 3 to 6 seconds, until `end`. */
function rotateOften(net: Network, end: number, random: Random): void {
  for (const client of net.clients) {
    const again = () => {
      if (net.clock.now > end) return
      net.rotate(client, 1000)
      net.clock.after(3 * SECOND + random.below(3 * SECOND), again)
    }
    again()
  }
}

/** Counts of all hosts' drops, by reason. */
function drops(net: Network): Record<string, number> {
  const sums: Record<string, number> = {}
  for (const host of [net.server, ...net.clients.map(({ host }) => host)]) {
    for (const { reason, count } of host.engine.stats().drops) {
      sums[reason] = (sums[reason] ?? 0) + count
    }
  }
  return sums
}

describe('traffic of all kinds, with new keys every few seconds', () => {
  const rows: [why: string, noise: Noise][] = [
    ['a wire that keeps everything and its order', SILENCE],
    ['a wire that reorders', JITTER],
    ['a wire that loses', LOSSY],
    ['a wire that does its worst', NOISE],
  ]
  for (const [why, noise] of rows) {
    for (const seed of [1, 2]) {
      it(`${why}, seed ${seed}: all that got through is delivered, once, unchanged`, () => {
        const random = new Random(seed)
        const net = new Network({ seed, clients: 6, noise })
        net.addFlows()
        rotateOften(net, HOUR, random)
        sendOften(net, 3000, 1100, random)
        net.clock.runUntil(2 * HOUR)
        // network.ts asserts on every packet; here: that none is missing but what the wire spoilt.
        assert.equal(net.delivered, net.unharmed)
        assert.ok(net.sent > 6000, `${net.sent} sent: the run tells nothing`)
        if (NOTHING_LOST.includes(noise)) assert.equal(net.delivered, net.sent)
        else assert.ok(net.delivered < net.sent && net.delivered > 0.8 * net.sent)
        assert.deepEqual(net.events, [])
        const expected = noise === NOISE ? ['rx-auth-failed', 'rx-replay'] : []
        for (const reason of expected) assert.ok((drops(net)[reason] ?? 0) > 0, reason)
        if (NOTHING_LOST.includes(noise)) assert.deepEqual(drops(net), {})
      })
    }
  }

  it('counters agree at both ends of a wire that loses nothing', () => {
    const net = new Network({ seed: 3, clients: 4, noise: SILENCE })
    net.addFlows()
    sendOften(net, 500, 50, new Random(3))
    net.clock.runUntil(5 * MINUTE)
    for (const { host, number } of net.clients) {
      const here = host.engine.snapshot(1, net.clock.now)!
      const there = net.server.engine.snapshot(number, net.clock.now)!
      assert.ok(here.linkTxPackets > 0 && here.linkRxPackets > 0)
      for (const [one, other] of [
        [here, there],
        [there, here],
      ] as const) {
        assert.deepEqual(
          [other.linkRxPackets, other.linkRxBytes, other.vpnRxBytes],
          [one.linkTxPackets, one.linkTxBytes, one.vpnTxBytes],
        )
        // Received packets count one by one; sent ones as the stack hands them over.
        assert.equal(one.vpnRxPackets, one.linkRxPackets)
        assert.ok(one.vpnTxPackets < one.linkTxPackets)
        assert.equal(one.linkRxBytes - one.vpnRxBytes, 24 * one.linkRxPackets)
      }
    }
  })
})

describe('epochs that last some seconds', () => {
  const keepalive = { interval: 10, timeout: 120 } // a dozen in a row are not lost by chance
  /** The epochs that both ends send with, client by client. */
  const epochs = (net: Network) =>
    net.clients.map(({ host, number }): [number, number] => {
      const here = host.engine.snapshot(1, net.clock.now)!
      const there = net.server.engine.snapshot(number, net.clock.now)!
      return [here.keys[0]!.epoch, there.keys[0]!.epoch]
    })

  const rows: [why: string, noise: Noise][] = [
    ['a wire that keeps everything and its order', SILENCE],
    ['a wire that reorders', JITTER],
    ['a wire that loses', LOSSY],
    ['a wire that does its worst', NOISE],
    ['a wire that loses every third packet', { ...SILENCE, lost: 3333 }],
  ]
  for (const [why, noise] of rows) {
    it(`${why}: the ends move on together, and nothing is lost by it`, () => {
      const net = new Network({ seed: 21, clients: 2, noise, keepalive, epochUsage: 1200 })
      net.addFlows()
      sendOften(net, 1500, 1100, new Random(21))
      net.clock.runUntil(HOUR)
      assert.equal(net.delivered, net.unharmed)
      if (NOTHING_LOST.includes(noise))
        assert.deepEqual([net.delivered, drops(net)], [net.sent, {}])
      assert.deepEqual(net.events, [])
      for (const [here, there] of epochs(net)) {
        assert.ok(here > 10, `${here} epochs: the run tells nothing`)
        assert.ok(Math.abs(here - there) <= 1, `${here} and ${there}`)
      }
    })
  }

  it('with new keys every few seconds', () => {
    const random = new Random(22)
    const net = new Network({ seed: 22, clients: 3, noise: JITTER, epochUsage: 3000 })
    net.addFlows()
    rotateOften(net, 5 * MINUTE, random)
    sendOften(net, 1000, 250, random)
    net.clock.runUntil(10 * MINUTE)
    assert.equal(net.delivered, net.sent)
    assert.deepEqual(drops(net), {})
  })

  it('an end that only hears moves as well, and is understood when it speaks', () => {
    const net = new Network({ seed: 23, clients: 1, noise: LOSSY, keepalive, epochUsage: 1500 })
    const { host, number } = net.clients[0]!
    const up = net.addFlow(host, net.server, `10.8.0.${number}`, '10.8.0.1')
    const down = net.addFlow(net.server, host, '10.8.0.1', `10.8.0.${number}`)
    net.clock.every(SECOND, () => {
      net.sendSome(up)
      return net.clock.now < 10 * MINUTE
    })
    net.clock.runUntil(11 * MINUTE)
    const [[here, there]] = epochs(net) as [[number, number]]
    assert.ok(here > 15 && here === there, `${here} and ${there}`)
    net.wire.noise = SILENCE
    net.sendSome(down)
    net.clock.runUntil(12 * MINUTE)
    assert.equal(net.missing(down), 0)
  })

  it('who replays everything from all of them, and claims others, changes nothing', () => {
    const random = new Random(24)
    const net = new Network({ seed: 24, clients: 2, noise: SILENCE, keepalive, epochUsage: 2000 })
    net.addFlows()
    net.recorded = []
    sendOften(net, 300, 200, random)
    let injected = 0
    net.clock.every(30, () => {
      const { length } = net.recorded!
      const settled = length - 100 // later ones may still be under way
      if (settled <= 0) return true
      const { datagram } = net.recorded![random.below(settled)]!
      const bytes = Uint8Array.from(datagram.bytes)
      const kind = random.below(4)
      if (kind < 2) bytes.set(random.bytes(2), 4)
      else if (kind === 2) bytes[5]! += 1 + random.below(20)
      net.wire.inject({ ...datagram, from: attacker, bytes }, random.below(50))
      injected++
      return net.clock.now < 3 * MINUTE
    })
    net.clock.runUntil(4 * MINUTE)
    assert.ok(injected > 1000)
    assert.equal(net.delivered, net.sent)
    assert.deepEqual(net.events, [])
    const {
      'rx-replay': old = 0,
      'rx-no-key': noKey = 0,
      'rx-auth-failed': failed = 0,
    } = drops(net)
    assert.ok(Math.min(old, noKey, failed) > 50, `${old}, ${noKey}, ${failed}`)
    assert.equal(old + noKey + failed, injected)
  })
})

describe('a key whose packet ids run out', () => {
  it('is announced, and its successor carries on', () => {
    const net = new Network({ seed: 5, clients: 1, noise: SILENCE })
    const [client] = net.clients
    const { host, number } = client!
    const flow = net.addFlow(host, net.server, `10.8.0.${number}`, '10.8.0.1')
    net.rotate(client!, 1, 2 ** 32 - 40) // 40 ids are left
    net.clock.runUntil(SECOND)
    const dead = () => net.events.length > 0
    while (!dead()) {
      net.sendSome(flow)
      net.clock.runUntil(net.clock.now + 100)
    }
    assert.equal(net.delivered, 40)
    assert.equal(net.events.length, 1)
    assert.match(net.events[0]!, /exhausted 1002 key 1$/)
    net.sendSome(flow)
    net.clock.runUntil(net.clock.now + SECOND)
    assert.equal(net.delivered, 40)
    net.rotate(client!, 1)
    net.clock.runUntil(net.clock.now + SECOND)
    const { sent } = net
    for (let i = 0; i < 10; i++) net.sendSome(flow)
    net.clock.runUntil(net.clock.now + SECOND)
    assert.equal(net.delivered - 40, net.sent - sent)
  })
})

describe('keepalives of 10 and 60 seconds', () => {
  const keepalive = { interval: 10, timeout: 60 }

  it('keep an idle network alive for hours, over a wire that loses one in twenty', () => {
    const net = new Network({ seed: 6, clients: 5, noise: LOSSY, keepalive })
    net.clock.runUntil(3 * HOUR)
    assert.deepEqual(net.events, [])
    for (const { host, number } of net.clients) {
      for (const one of [
        host.engine.snapshot(1, net.clock.now)!,
        net.server.engine.snapshot(number, net.clock.now)!,
      ]) {
        assert.equal(one.linkTxPackets, (3 * HOUR) / (10 * SECOND), 'one every ten seconds')
        assert.ok(one.lastRxMs! < 60 * SECOND)
        assert.deepEqual([one.vpnTxPackets, one.vpnRxPackets], [0, 0])
      }
    }
  })

  it('are not sent while other packets are', () => {
    const net = new Network({ seed: 7, clients: 1, noise: SILENCE, keepalive })
    const { host, number } = net.clients[0]!
    const flow = net.addFlow(host, net.server, `10.8.0.${number}`, '10.8.0.1')
    net.clock.every(9 * SECOND, () => {
      net.sendSome(flow)
      return net.clock.now < 10 * MINUTE
    })
    net.clock.runUntil(10 * MINUTE)
    const { linkTxPackets, vpnTxPackets } = host.engine.snapshot(1, net.clock.now)!
    assert.equal(linkTxPackets, net.sent, 'no ping from who sends')
    assert.ok(vpnTxPackets > 60)
    assert.equal(net.server.engine.snapshot(number, net.clock.now)!.linkTxPackets, 60)
  })

  it('find out that a client is gone, to the millisecond, and leave the others alone', () => {
    const net = new Network({ seed: 8, clients: 4, noise: SILENCE, keepalive })
    const [first, second] = net.clients
    // The last ping of each: sent at 120 s and 240 s, there 20 ms later.
    net.clock.at(125 * SECOND, () => first!.host.crash())
    net.clock.at(249_999, () => second!.host.crash())
    net.clock.runUntil(HOUR)
    assert.deepEqual(net.events, [
      '180020 server: expired 2 after 60000',
      '300020 server: expired 3 after 60000',
    ])
    assert.equal(net.server.engine.snapshots(net.clock.now).length, 2)
  })

  it('find out that the server is gone, at every client', () => {
    const net = new Network({ seed: 9, clients: 3, noise: SILENCE, keepalive })
    net.clock.at(65 * SECOND, () => net.server.crash())
    net.clock.runUntil(HOUR)
    assert.deepEqual(net.events, [
      '120020 2: expired 1002 after 60000',
      '120020 3: expired 1003 after 60000',
      '120020 4: expired 1004 after 60000',
    ])
  })

  it('forged packets do not keep a dead client alive', () => {
    const net = new Network({ seed: 10, clients: 1, noise: SILENCE, keepalive })
    const { host } = net.clients[0]!
    const heard: Uint8Array[] = []
    net.wire.tap = ({ from, bytes }) => {
      if (from.port !== 1194) heard.push(bytes)
    }
    net.clock.at(65 * SECOND, () => host.crash())
    net.clock.every(SECOND, () => {
      for (const bytes of heard.slice(-3)) {
        const forged = Uint8Array.from(bytes)
        forged[7]! += 100 // a packet id ahead
        for (const one of [bytes, forged]) {
          net.wire.inject({ from: attacker, to: serverAddress, bytes: one }, 30)
        }
      }
      return net.clock.now < 3 * MINUTE
    })
    net.clock.runUntil(3 * MINUTE)
    assert.deepEqual(net.events, ['120020 server: expired 2 after 60000'])
  })
})

const attacker = Endpoint.of('192.0.2.66', 666)
const serverAddress = Endpoint.of('203.0.113.1', 1194)

describe('a client that moves', () => {
  /** A network of one client with traffic both ways every `gap`, which moves at 60 s. */
  function moving(seed: number, options: { noise?: Noise; gap: number; keepalive?: boolean }) {
    const keepalive = options.keepalive
      ? { interval: 10, timeout: 60 }
      : { interval: 0, timeout: 0 }
    const net = new Network({ seed, clients: 2, noise: options.noise ?? SILENCE, keepalive })
    const { host, number } = net.clients[0]!
    const up = net.addFlow(host, net.server, `10.8.0.${number}`, '10.8.0.1')
    const down = net.addFlow(net.server, host, '10.8.0.1', `10.8.0.${number}`)
    net.clock.every(options.gap, () => {
      net.sendSome(up)
      net.sendSome(down)
      return net.clock.now < 3 * MINUTE
    })
    net.clock.at(MINUTE + 500, () => host.moveTo('198.51.100.200', 4242))
    return { net, up, down }
  }

  it('is followed with its first packet, and nothing more is lost than what was on its way', () => {
    const { net, up, down } = moving(11, { gap: SECOND })
    net.clock.runUntil(MINUTE + 999)
    assert.deepEqual([net.missing(up), net.missing(down)], [0, 0])
    net.clock.runUntil(MINUTE + 1019) // sent after the move, still under way
    const lost = net.missing(down)
    assert.ok(lost > 0)
    net.clock.runUntil(4 * MINUTE)
    assert.deepEqual(net.events, ['61020 server: floated 2 to 198.51.100.200 4242'])
    assert.deepEqual([net.missing(up), net.missing(down)], [0, lost])
  })

  it('is followed by its keepalives, if it has nothing to say', () => {
    const { net } = moving(12, { gap: HOUR, keepalive: true })
    net.clock.runUntil(HOUR / 2)
    assert.deepEqual(net.events, ['70020 server: floated 2 to 198.51.100.200 4242'])
  })

  it('is followed back and forth, whatever late packets say', () => {
    const { net, up } = moving(13, { gap: 50, noise: JITTER })
    const { host } = net.clients[0]!
    for (let i = 0; i < 20; i++) {
      // To the other family, or to another port.
      const [here, there] =
        i % 4 < 2 ? ['2001:db8:2::99', '2001:db8:1::1'] : ['198.51.100.2', '203.0.113.1']
      net.clock.at(MINUTE + 5 * SECOND * (i + 1), () => {
        host.moveTo(here!, 1000 + i)
        const remote = { address: there!, port: 1194, scope: 0 }
        host.engine.changePeer(1, { remote }, net.clock.now)
      })
    }
    net.clock.runUntil(4 * MINUTE)
    assert.equal(net.missing(up), 0)
    const { remote } = net.server.engine.snapshot(2, net.clock.now)!
    assert.deepEqual(remote, { address: '198.51.100.2', port: 1019, scope: 0 })
    assert.ok(net.events.length >= 21)
    assert.ok(net.events.every((event) => / server: floated 2 to /.test(event)))
  })
})

describe('an eavesdropper', () => {
  it('who replays everything, from anywhere, at any time, changes nothing', () => {
    const seed = 14
    const random = new Random(seed)
    const net = new Network({ seed, clients: 4, noise: JITTER })
    net.addFlows()
    net.recorded = []
    rotateOften(net, 2 * MINUTE, random)
    sendOften(net, 400, 300, random)
    // From his own address or the sender's; packets that have arrived, again and again.
    let replayed = 0
    net.clock.every(20, () => {
      const known = net.recorded!
      // Those of the last second may still be under way: to be there first is no replay.
      const settled = known.length - 200
      const one = known[random.below(Math.max(1, settled))]
      if (one !== undefined && settled > 0) {
        const { datagram } = one
        const from = random.below(2) === 0 ? attacker : datagram.from
        net.wire.inject({ ...datagram, from }, random.below(50))
        replayed++
      }
      return net.clock.now < 3 * MINUTE
    })
    net.clock.runUntil(4 * MINUTE)
    for (const { datagram } of net.recorded) {
      net.wire.inject(datagram, 0)
      net.wire.inject({ ...datagram, from: attacker }, 0)
      replayed += 2
    }
    net.clock.runUntil(5 * MINUTE)
    assert.ok(replayed > 3000)
    assert.equal(net.delivered, net.sent)
    assert.deepEqual(net.events, [])
    const {
      'rx-replay': replays = 0,
      'rx-no-key': noKey = 0,
      'rx-auth-failed': failed = 0,
    } = drops(net)
    assert.equal(replays + noKey + failed, replayed)
    assert.ok(Math.min(replays, noKey, failed) > 0, 'keys were never the present ones, or always')
  })

  it('who held packets back for 30 s of silence finds them too late', () => {
    const net = new Network({ seed: 15, clients: 2, noise: { ...SILENCE, lost: 5000 } })
    net.addFlows()
    net.recorded = []
    sendOften(net, 200, 50, new Random(15))
    net.clock.runUntil(MINUTE)
    // What is ahead of all that arrived would be new: so the last of each pair arrives.
    net.wire.noise = SILENCE
    for (let flow = 0; flow < 14; flow++) net.sendSome(flow)
    net.clock.runUntil(2 * MINUTE)
    const { delivered, recorded } = net
    for (const { datagram } of recorded) net.wire.inject({ ...datagram, from: attacker }, 0)
    net.clock.runUntil(3 * MINUTE)
    assert.equal(net.delivered, delivered)
    assert.deepEqual(net.events, [])
    assert.deepEqual(drops(net), { 'rx-replay': recorded.length })
  })
})

describe('a forger', () => {
  it('who knows all but the keys gets nothing through, and moves nobody', () => {
    const seed = 16
    const random = new Random(seed)
    const net = new Network({ seed, clients: 4, noise: SILENCE })
    net.addFlows()
    net.recorded = []
    sendOften(net, 300, 200, random)
    let forged = 0
    net.clock.every(10, () => {
      const { length } = net.recorded!
      if (length === 0) return true
      const { datagram } = net.recorded![length - 1 - random.below(Math.min(length, 50))]!
      net.wire.inject(
        { ...datagram, from: attacker, bytes: forge(datagram.bytes, random) },
        random.below(30),
      )
      forged++
      return net.clock.now < 2 * MINUTE
    })
    net.clock.runUntil(3 * MINUTE)
    assert.ok(forged > 5000)
    assert.equal(net.delivered, net.sent)
    assert.deepEqual(net.events, [])
    const total = Object.values(drops(net)).reduce((sum, count) => sum + count, 0)
    assert.equal(total, forged)
    const reasons = [
      'rx-auth-failed',
      'rx-no-key',
      'rx-unknown-peer',
      'rx-short',
      'rx-not-data',
      'rx-data-v1',
    ]
    assert.deepEqual(Object.keys(drops(net)).sort(), reasons.sort())
  })
})

/** Something like the datagram, but never the same. */
function forge(bytes: Uint8Array, random: Random): Uint8Array {
  const forged = Uint8Array.from(bytes)
  const kind = random.below(6)
  if (kind === 0) forged[random.below(forged.length)]! ^= 1 << random.below(8)
  else if (kind === 1) forged.set(random.bytes(forged.length - 4), 4)
  else if (kind === 2) return forged.slice(0, random.below(forged.length))
  else if (kind === 3) return Uint8Array.of(...forged, ...random.bytes(1 + random.below(9)))
  else if (kind === 4) forged[0] = (random.below(32) << 3) | (~forged[0]! & 7)
  else forged[6]! ^= 1 + random.below(255) // another packet id
  return forged
}

it('two runs with one seed are the same, and another seed makes another', () => {
  const run = (seed: number) => {
    const random = new Random(seed)
    const net = new Network({
      seed,
      clients: 4,
      noise: NOISE,
      keepalive: { interval: 5, timeout: 20 },
    })
    net.addFlows()
    net.recorded = []
    rotateOften(net, MINUTE, random)
    sendOften(net, 200, 200, random)
    net.clock.at(30 * SECOND, () => net.clients[0]!.host.moveTo('198.51.100.77', 77))
    net.clock.at(40 * SECOND, () => net.clients[1]!.host.crash())
    net.clock.runUntil(2 * MINUTE)
    const hash = createHash('sha256')
    for (const { datagram, unharmed } of net.recorded) {
      hash.update(`${datagram.from.key} ${datagram.to.key} ${unharmed}`).update(datagram.bytes)
    }
    const snapshots = net.server.engine.snapshots(net.clock.now)
    return hash.update(JSON.stringify([net.events, snapshots, net.delivered])).digest('hex')
  }
  const first = run(17)
  assert.equal(run(17), first)
  assert.notEqual(run(18), first)
})
