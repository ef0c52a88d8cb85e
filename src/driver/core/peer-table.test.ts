import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addressText, addressWords, Endpoint } from './address.ts'
import { Peer, type PeerConfig } from './peer.ts'
import { PeerTable, type RouteLookup } from './peer-table.ts'

const nowhere: RouteLookup = () => undefined

function peer(id: number, fields: Partial<PeerConfig> = {}): Peer {
  const config: PeerConfig = {
    handle: 100 + id,
    id,
    txId: id,
    transport: 1,
    stream: false,
    remote: { address: '192.0.2.1', port: 1000 + id, scope: 0 },
    keepaliveRule: 'together',
    keepaliveInterval: 0,
    keepaliveTimeout: 0,
    ...fields,
  }
  const made = new Peer(config, 0)
  if (config.vpnIpv4 !== undefined) made.vpn4 = addressWords(config.vpnIpv4)
  if (config.vpnIpv6 !== undefined) made.vpn6 = addressWords(config.vpnIpv6)
  return made
}

function table(options: { single?: boolean; routes?: RouteLookup; peers: Peer[] }): PeerTable {
  const { single = false, routes = nowhere, peers } = options
  const made = new PeerTable({ single, routes, seed: 1 })
  for (const one of peers) made.add(one)
  return made
}

/** A look-up by text. */
function towards(of: PeerTable, address: string): Peer | undefined {
  const [a, b, c, d] = addressWords(address)
  return of.byDestination(a!, b!, c!, d!)
}

function allows(of: PeerTable, from: Peer, address: string): boolean {
  const [a, b, c, d] = addressWords(address)
  return of.allowsSource(from, a!, b!, c!, d!)
}

/** Moves `of` as an authentic packet from there does. */
function float(on: PeerTable, of: Peer, address: string, port: number): void {
  on.refloat(of, () => of.moveTo(Endpoint.of(address, port), new Endpoint()))
}

const lan = { '192.168.1.0': '10.8.0.2', '192.168.2.0': '10.8.0.3', 'fd01::': 'fd00::2' }

/** Networks by their first words: a gateway for those in `lan`, none for others. Counts how often it is asked. */
function lanRoutes() {
  const asked: string[] = []
  const routes: RouteLookup = (address, viaDevice) => {
    asked.push(`${addressText(address)} ${viaDevice ? 'out' : 'back'}`)
    const network = Object.keys(lan).find((of) => {
      const words = addressWords(of)
      const last = of.includes(':') ? 0 : 0xffffff00
      return (
        words[0] === address[0] &&
        words[1] === address[1] &&
        words[2] === address[2] &&
        ((words[3]! ^ address[3]!) & last) === 0
      )
    })
    return network === undefined ? undefined : addressWords(lan[network as keyof typeof lan])
  }
  return { routes, asked }
}

describe('PeerTable with many peers: where a packet goes, and whence it may come', () => {
  const one = peer(1, { vpnIpv4: '10.8.0.2', vpnIpv6: 'fd00::2' })
  const two = peer(2, { vpnIpv4: '10.8.0.3' })
  const { routes } = lanRoutes()
  const of = table({ routes, peers: [one, two] })
  const rows: [address: string, owner: Peer | undefined, why: string][] = [
    ['10.8.0.2', one, 'its VPN address'],
    ['10.8.0.3', two, 'its VPN address'],
    ['fd00::2', one, 'its IPv6 VPN address'],
    ['192.168.1.77', one, 'a network behind it'],
    ['192.168.2.77', two, 'a network behind it'],
    ['fd01::77', one, 'an IPv6 network behind it'],
    ['10.8.0.4', undefined, 'nobody has it'],
    ['192.168.3.77', undefined, 'nobody is the gateway'],
    ['fd00::3', undefined, 'nobody has it'],
    ['10.8.0.255', undefined, 'broadcast has no owner'],
    ['255.255.255.255', undefined, 'broadcast has no owner'],
    ['224.0.0.1', undefined, 'multicast has no owner'],
    ['ff02::1', undefined, 'multicast has no owner'],
    ['0.0.0.0', undefined, 'no address at all'],
    ['::', undefined, 'no address at all'],
    ['::a08:2', undefined, 'IPv6, though its last word is that of 10.8.0.2'],
  ]
  for (const [address, owner, why] of rows) {
    it(`${address}: ${why}`, () => {
      assert.equal(towards(of, address), owner)
      assert.deepEqual(
        [one, two].filter((from) => allows(of, from, address)),
        owner ? [owner] : [],
      )
    })
  }
})

describe('PeerTable with one peer', () => {
  it('sends all to it and takes all from it', () => {
    const one = peer(1)
    const of = table({ single: true, peers: [one], routes: () => assert.fail('asked for a route') })
    for (const address of ['10.8.0.2', '255.255.255.255', 'ff02::1', '0.0.0.0']) {
      assert.equal(towards(of, address), one)
      assert.ok(allows(of, one, address))
    }
  })

  it('has none after it was removed, and takes nothing from it', () => {
    const one = peer(1)
    const of = table({ single: true, peers: [one] })
    of.remove(one)
    assert.equal(towards(of, '10.8.0.2'), undefined)
    assert.equal(allows(of, one, '10.8.0.2'), false)
  })

  it('keeps the newer when the older is removed after it', () => {
    const [old, young] = [peer(1), peer(1, { handle: 7 })]
    const of = table({ single: true, peers: [old, young] })
    of.remove(old)
    assert.equal(towards(of, '10.8.0.2'), young)
    assert.equal(of.byId(1), young)
    assert.equal(allows(of, old, '10.8.0.2'), false)
    assert.equal(of.size, 1)
  })
})

describe('PeerTable: routes', () => {
  it('are asked for once per address and direction, until one changes', () => {
    const one = peer(1, { vpnIpv4: '10.8.0.2' })
    const { routes, asked } = lanRoutes()
    const of = table({ routes, peers: [one] })
    for (let i = 0; i < 3; i++) towards(of, '192.168.1.5')
    for (let i = 0; i < 3; i++) allows(of, one, '192.168.1.5')
    assert.deepEqual(asked, ['192.168.1.5 out', '192.168.1.5 back'])
    of.forgetRoutes()
    towards(of, '192.168.1.5')
    assert.equal(asked.length, 3)
  })

  it('to a direct address are kept too', () => {
    const { routes, asked } = lanRoutes()
    const of = table({ routes, peers: [] })
    for (let i = 0; i < 3; i++) towards(of, '10.8.0.2')
    assert.equal(asked.length, 1)
  })

  it('lead to whoever has the gateway now, not to who had it when they were asked for', () => {
    const one = peer(1, { vpnIpv4: '10.8.0.2' })
    const { routes } = lanRoutes()
    const of = table({ routes, peers: [one] })
    assert.equal(towards(of, '192.168.1.5'), one)
    of.remove(one)
    assert.equal(towards(of, '192.168.1.5'), undefined)
    const successor = peer(2, { vpnIpv4: '10.8.0.2' })
    of.add(successor)
    assert.equal(towards(of, '192.168.1.5'), successor)
    assert.equal(allows(of, one, '192.168.1.5'), false)
  })

  it('are not kept without end: a scan starts over', () => {
    let asked = 0
    const of = table({
      peers: [],
      routes: () => {
        asked++
        return undefined
      },
    })
    for (let i = 0; i < 65537; i++) of.byDestination(0, 0, 0xffff, i)
    of.byDestination(0, 0, 0xffff, 65536) // kept
    of.byDestination(0, 0, 0xffff, 0) // given up
    assert.equal(asked, 65538)
  })
})

describe('PeerTable: transport addresses', () => {
  const at = (of: PeerTable, address: string, port: number) =>
    of.byEndpoint(Endpoint.of(address, port))

  it('find a peer by address and port, whatever the interface', () => {
    const one = peer(1, { remote: { address: 'fe80::1', port: 1194, scope: 3 } })
    const of = table({ peers: [one] })
    assert.equal(of.byEndpoint(Endpoint.of('fe80::1', 1194, 4)), one)
    assert.equal(at(of, 'fe80::1', 1195), undefined)
    assert.equal(at(of, 'fe80::2', 1194), undefined)
  })

  it('find an IPv4 peer when its packets arrive on a dual-stack socket', () => {
    const one = peer(1)
    assert.equal(at(table({ peers: [one] }), '::ffff:192.0.2.1', 1001), one)
  })

  it('follow a peer that floats', () => {
    const one = peer(1)
    const of = table({ peers: [one] })
    float(of, one, '198.51.100.7', 4242)
    assert.equal(at(of, '192.0.2.1', 1001), undefined)
    assert.equal(at(of, '198.51.100.7', 4242), one)
  })

  it('are not of use to find a stream', () => {
    const one = peer(1, { stream: true })
    const of = table({ peers: [one] })
    assert.equal(at(of, '192.0.2.1', 1001), undefined)
    float(of, one, '198.51.100.7', 4242)
    assert.equal(at(of, '198.51.100.7', 4242), undefined)
  })

  it('stay with the newcomer when who was there before leaves', () => {
    const [one, two] = [peer(1), peer(2)]
    const of = table({ peers: [one, two] })
    float(of, two, '192.0.2.1', 1001)
    float(of, one, '198.51.100.7', 1)
    assert.equal(at(of, '192.0.2.1', 1001), two)
  })
})

describe('PeerTable: a peer that was removed', () => {
  const { routes } = lanRoutes()
  const changes: [why: string, change: (of: PeerTable, gone: Peer) => void][] = [
    ['a late float', (of, gone) => float(of, gone, '198.51.100.7', 4242)],
    [
      'a late PEER_SET',
      (of, gone) =>
        of.readdress(gone, () => {
          gone.setEndpoints({ address: '198.51.100.7', port: 4242, scope: 0 }, undefined)
          gone.vpn4 = addressWords('10.8.0.9')
        }),
    ],
    ['another removal', (of, gone) => of.remove(gone)],
  ]
  for (const [why, change] of changes) {
    it(`is not found again after ${why} (CVE-2026-74727)`, () => {
      const [gone, stays] = [peer(1, { vpnIpv4: '10.8.0.2' }), peer(2, { vpnIpv4: '10.8.0.3' })]
      const of = table({ routes, peers: [gone, stays] })
      of.remove(gone)
      change(of, gone)
      assert.deepEqual([...of.peers()], [stays])
      assert.equal(of.byId(1), undefined)
      assert.equal(of.byHandle(101), undefined)
      for (const address of ['10.8.0.2', '10.8.0.9', '192.168.1.1']) {
        assert.equal(towards(of, address), undefined)
        assert.equal(allows(of, gone, address), false)
      }
      for (const port of [1001, 4242]) {
        assert.equal(of.byEndpoint(Endpoint.of('192.0.2.1', port)), undefined)
        assert.equal(of.byEndpoint(Endpoint.of('198.51.100.7', port)), undefined)
      }
      assert.equal(towards(of, '10.8.0.3'), stays)
    })
  }

  it('takes nothing from its successor when it leaves late', () => {
    const gone = peer(1, { vpnIpv4: '10.8.0.2' })
    const successor = peer(1, { handle: 7, vpnIpv4: '10.8.0.2' })
    const of = table({ peers: [gone, successor] })
    of.remove(gone)
    assert.equal(of.byId(1), successor)
    assert.equal(towards(of, '10.8.0.2'), successor)
    assert.equal(of.byEndpoint(successor.remote), successor)
  })
})

it('PeerTable follows a peer whose addresses are changed', () => {
  const one = peer(1, { vpnIpv4: '10.8.0.2' })
  const of = table({ peers: [one] })
  of.readdress(one, () => {
    one.vpn4 = addressWords('10.8.0.9')
    one.vpn6 = addressWords('fd00::9')
  })
  assert.equal(towards(of, '10.8.0.2'), undefined)
  assert.equal(towards(of, '10.8.0.9'), one)
  assert.equal(towards(of, 'fd00::9'), one)
})
