/** The server and many clients on virtual time: who gets in, what they are told, and that nothing is left of them. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Endpoint } from '../../src/driver/core/address.ts'
import type { AuthDecision, ServerPolicy } from '../../src/openvpn/server/policy.ts'
import { OCC_MAGIC } from '../../src/wire/data.ts'
import { encodeOccReply, OCC_EXIT } from '../../src/wire/occ.ts'
import { sealWkc, timestampMetadata } from '../../src/wire/wkc.ts'
import { Random } from '../random.ts'
import type { SimClient } from './control.ts'
import { ServerNet } from './server.ts'
import { SILENCE } from './wire.ts'

const SECOND = 1000
const MINUTE = 60 * SECOND

const isConnected = (client: SimClient) => client.connectedAt !== undefined
const addressOf = (client: SimClient) =>
  client.pushed.find((option) => option.startsWith('ifconfig '))?.split(' ')[1]
const told = (client: SimClient, word: string) =>
  client.texts.filter((text) => text.startsWith(word))
const names = (net: ServerNet) => net.server.clients().map(({ commonName }) => commonName)

describe('a server with many clients', () => {
  const rows: [why: string, lost: number][] = [
    ['a wire that keeps everything', 0],
    ['a wire that loses every tenth packet', 1000],
  ]
  for (const [why, lost] of rows) {
    it(`has each come, renew keys and leave: ${why}`, async () => {
      const farewells: string[] = []
      const policy: ServerPolicy = {
        disconnected: ({ commonName }, { reason }) => farewells.push(`${commonName}: ${reason}`),
      }
      const renegotiate = { after: MINUTE, atLeast: 50 * SECOND, bytes: 0, packets: 0 }
      const noise = { ...SILENCE, lost, jitter: 50 }
      // One message in 100,000 is lost each of the five times that it is sent in a minute, and a renewal with it: none with this seed.
      const net = await ServerNet.open({ policy, noise, seed: 2, settings: { renegotiate } })
      const clients = Array.from({ length: 60 }, (_, i) => net.client(`client ${i}`))
      await net.pass(50 * SECOND)
      assert.deepEqual(
        clients.filter((client) => !isConnected(client)).length,
        0,
        net.logged.join('\n'),
      )
      assert.equal(new Set(clients.map(addressOf)).size, clients.length, 'addresses of their own')
      assert.equal(net.driver.peersById.size, clients.length)
      await net.pass(5 * MINUTE)
      assert(
        clients.every(({ made }) => made.length >= 4),
        'keys were renewed',
      )
      for (const client of clients) client.session.sendMessage('EXIT')
      await net.pass(MINUTE)
      assert.deepEqual(names(net), [])
      assert.equal(new Set(farewells).size, clients.length, 'each is told of once')
      assert(
        farewells.every((text) => text.endsWith(': it has left')),
        farewells[0],
      )
      await net.end()
    })
  }

  it('tells them to come again when it ends, where it is to', async () => {
    for (const explicitExitNotify of [0, 1, 2] as const) {
      const net = await ServerNet.open({ settings: { explicitExitNotify } })
      const clients = [net.client('alice'), net.client('bob')]
      await net.pass(10 * SECOND)
      await net.end()
      for (const client of clients) {
        assert.deepEqual(
          told(client, 'RESTART'),
          [[], ['RESTART,[P]'], ['RESTART,[PN]']][explicitExitNotify]!,
          `explicit-exit-notify ${explicitExitNotify}`,
        )
      }
    }
  })
})

describe('a name that comes twice', () => {
  it('ends who had it, and keeps its address', async () => {
    const net = await ServerNet.open()
    const first = net.client('alice')
    await net.pass(10 * SECOND)
    const second = net.client('alice')
    await net.pass(10 * SECOND)
    assert(isConnected(second))
    assert.equal(addressOf(second), addressOf(first))
    assert.deepEqual(names(net), ['alice'])
    await net.end()
  })

  it('is two clients with duplicate-cn', async () => {
    const net = await ServerNet.open({ settings: { duplicateCn: true } })
    const clients = [net.client('alice'), net.client('alice')]
    await net.pass(10 * SECOND)
    assert.deepEqual(names(net), ['alice', 'alice'])
    assert.notEqual(addressOf(clients[0]!), addressOf(clients[1]!))
    await net.end()
  })

  it('is one client that has begun anew, at the same address and port', async () => {
    const net = await ServerNet.open({ settings: { duplicateCn: true } })
    const first = net.client('alice')
    await net.pass(10 * SECOND)
    const again = net.client('alice', { at: first.at })
    await net.pass(20 * SECOND)
    assert(isConnected(again))
    assert.equal(net.server.size, 1)
    await net.end()
  })

  it('has its place in the data channel still, and what it moved is counted once', async () => {
    const moved: number[] = []
    const net = await ServerNet.open({
      policy: { disconnected: (_, { bytesReceived }) => void moved.push(bytesReceived) },
      settings: { tranWindow: 10 * MINUTE },
    })
    const first = net.client('alice')
    await net.pass(10 * SECOND)
    const [[id, { keys }] = assert.fail()] = net.driver.peersById
    net.driver.traffic = 1000
    const again = net.client('alice', { at: first.at })
    await net.pass(10 * SECOND)
    assert.deepEqual([...net.driver.peersById.keys()], [id])
    assert.equal(addressOf(again), addressOf(first))
    assert.deepEqual(Object.fromEntries(keys), { primary: 0, secondary: 0 })
    await net.pass(10 * MINUTE)
    assert.deepEqual(Object.fromEntries(keys), { primary: 0 })
    net.driver.traffic = 1500
    await net.end()
    assert.deepEqual(moved, [1000, 500])
  })

  const strangers: [why: string, name: string, refuses: boolean, peers: number[]][] = [
    ['somebody else at the address', 'bob', false, [1]],
    ['the same who may not come any more', 'alice', true, []],
  ]
  for (const [why, name, refuses, peers] of strangers) {
    it(`is not ${why}: nothing is left to them`, async () => {
      let admits = true
      const net = await ServerNet.open({
        policy: {
          admit: async () =>
            admits ? { allow: true } : { allow: false, failure: { reason: 'denied', text: '' } },
        },
      })
      const first = net.client('alice')
      await net.pass(10 * SECOND)
      admits = !refuses
      net.client(name, { at: first.at })
      await net.pass(20 * SECOND)
      assert.deepEqual([...net.driver.peersById.keys()], peers)
      await net.end()
    })
  }

  it('may have another address from now on: the place is another', async () => {
    let v4 = '10.8.0.9'
    const net = await ServerNet.open({
      policy: { admit: async () => ({ allow: true, settings: { v4 } }) },
    })
    const first = net.client('alice')
    await net.pass(10 * SECOND)
    v4 = '10.8.0.10'
    const again = net.client('alice', { at: first.at })
    await net.pass(10 * SECOND)
    assert.equal(addressOf(again), v4)
    assert.deepEqual([...net.driver.peersById.keys()], [1])
    await net.end()
  })
})

describe('limits', () => {
  it('are the addresses of the pool: one that is free again is given to the next', async () => {
    const v4 = {
      address: '10.8.0.1',
      prefix: 29,
      pool: { first: '10.8.0.2', last: '10.8.0.4' },
    }
    const net = await ServerNet.open({ settings: { v4 } })
    const clients = ['a', 'b', 'c'].map((name) => net.client(name))
    await net.pass(10 * SECOND)
    const late = net.client('late')
    await net.pass(10 * SECOND)
    assert(!isConnected(late))
    assert.match(told(late, 'AUTH_FAILED').join(), /there is no address left for you/)
    clients[0]!.session.sendMessage('EXIT')
    await net.pass(10 * SECOND)
    const next = net.client('next')
    await net.pass(10 * SECOND)
    assert.equal(addressOf(next), addressOf(clients[0]!))
    await net.end()
  })

  it('are max-clients', async () => {
    const net = await ServerNet.open({ settings: { maxClients: 2 } })
    const clients = ['a', 'b', 'c'].map((name) => net.client(name))
    await net.pass(20 * SECOND)
    assert.equal(clients.filter(isConnected).length, 2)
    assert.equal(net.driver.peersById.size, 2)
    await net.end()
  })

  it('are connect-freq: who is too early comes later', async () => {
    const net = await ServerNet.open({
      settings: { connectFrequency: { count: 3, per: 10 * SECOND } },
    })
    const clients = Array.from({ length: 6 }, (_, i) => net.client(`${i}`))
    await net.pass(5 * SECOND)
    assert.equal(clients.filter(isConnected).length, 3)
    assert((net.server.strays.get('too-often') ?? 0) > 0)
    await net.pass(MINUTE)
    assert.equal(clients.filter(isConnected).length, 6)
    await net.end()
  })

  it('are handshakes that nobody goes on with: they are bounded, and end', async () => {
    const net = await ServerNet.open({ settings: { maxClients: 10 } })
    for (let i = 0; i < 400; i++) net.client(`half ${i}`, { packets: 2 })
    await net.pass(5 * SECOND)
    assert.equal(net.server.size, 256)
    assert((net.server.strays.get('too-many-clients') ?? 0) > 0)
    await net.pass(2 * MINUTE)
    assert.equal(net.server.size, 0, 'after the hand-window')
    const genuine = net.client('alice')
    await net.pass(10 * SECOND)
    assert(isConnected(genuine))
    await net.end()
  })

  it('are the addresses that single clients may be given', async () => {
    const admit = async ({ commonName }: { commonName: string }): Promise<AuthDecision> => ({
      allow: true,
      settings: { v4: commonName === 'inside' ? '10.8.0.70' : '10.8.0.140' },
    })
    const addressConstraint = { network: '10.8.0.64', prefix: 26 }
    const net = await ServerNet.open({ policy: { admit }, settings: { addressConstraint } })
    const [inside, outside] = [net.client('inside'), net.client('outside')]
    await net.pass(10 * SECOND)
    assert.equal(addressOf(inside), '10.8.0.70')
    assert(!isConnected(outside))
    assert.match(net.logged.join('\n'), /10\.8\.0\.140 is outside of ifconfig-push-constraint/)
    await net.end()
  })
})

describe('a policy', () => {
  const login = { username: 'alice', password: 'secret' }

  it('knows the addresses before it lets a client in; refused, they are the next one’s', async () => {
    const v4 = { address: '10.8.0.1', prefix: 29, pool: { first: '10.8.0.2', last: '10.8.0.2' } }
    const reserved: [name: string, v4: string | undefined][] = []
    const net = await ServerNet.open({
      settings: { v4 },
      policy: {
        admit: async ({ commonName }, _signal, reserve) => {
          reserved.push([commonName, reserve({})?.v4])
          if (commonName === 'refused') {
            return { allow: false, failure: { reason: 'denied', text: '' } }
          }
          if (commonName !== 'moved') return { allow: true }
          // What is answered counts, whatever was held before.
          return { allow: true, settings: { v4: '10.8.0.6' } }
        },
      },
    })
    const clients: SimClient[] = []
    for (const name of ['refused', 'moved', 'taken', 'late']) {
      clients.push(net.client(name))
      await net.pass(20 * SECOND)
    }
    assert.deepEqual(reserved, [
      ['refused', '10.8.0.2'],
      ['moved', '10.8.0.2'],
      ['taken', '10.8.0.2'],
      ['late', undefined],
    ])
    assert.deepEqual(
      clients.map((client) => isConnected(client) && addressOf(client)),
      [false, '10.8.0.6', '10.8.0.2', false],
    )
    await net.end()
  })

  it('may take its time: nobody else waits for it', async () => {
    const net = await ServerNet.open({
      policy: {
        authenticate: ({ username }) =>
          new Promise((resolve) => {
            net.clock.after(username === 'slow' ? 30 * SECOND : 0, () => resolve({ allow: true }))
          }),
      },
    })
    const slow = net.client('slow', { username: 'slow', password: 'x' })
    const quick = net.client('quick', login)
    await net.pass(5 * SECOND)
    assert(isConnected(quick) && !isConnected(slow))
    await net.pass(30 * SECOND)
    assert(isConnected(slow))
    await net.end()
  })

  it('that never answers is not waited for, and hears that the client is gone', async () => {
    let aborted = false
    const net = await ServerNet.open({
      policy: {
        authenticate: ({ signal }) => {
          signal.addEventListener('abort', () => {
            aborted = true
          })
          return new Promise(() => {})
        },
      },
    })
    net.client('alice', login)
    await net.pass(30 * SECOND)
    assert.equal(net.server.size, 1)
    await net.pass(MINUTE)
    assert.equal(net.server.size, 0)
    assert(aborted)
    await net.end()
  })

  it('that fails lets nobody in', async () => {
    const net = await ServerNet.open({
      policy: { authenticate: () => Promise.reject(new Error('the directory is down')) },
    })
    const client = net.client('alice', login)
    await net.pass(10 * SECOND)
    assert(!isConnected(client))
    assert.match(told(client, 'AUTH_FAILED').join(), /cannot tell who you are/)
    assert.match(net.logged.join('\n'), /the directory is down/)
    await net.pass(MINUTE)
    await net.end()
  })

  it('may ask for more in the middle, and gets the answers', async () => {
    const net = await ServerNet.open({
      policy: {
        async authenticate({ pend, responses }) {
          pend('CR_TEXT:R,E:your code', 120)
          for await (const response of responses) {
            if (response === '4711') return { allow: true }
          }
          return { allow: false, failure: { reason: 'denied', text: '' } }
        },
      },
    })
    const client = net.client('alice', login)
    await net.pass(80 * SECOND)
    assert.equal(net.server.size, 1, 'it waits longer than a handshake may take')
    assert.equal(told(client, 'AUTH_PENDING').length, 1)
    assert.deepEqual(told(client, 'INFO_PRE'), ['INFO_PRE,CR_TEXT:R,E:your code'])
    for (const code of ['0815', '4711']) {
      client.session.sendMessage(`CR_RESPONSE,${Buffer.from(code).toString('base64')}`)
    }
    await net.pass(20 * SECOND)
    assert(isConnected(client))
    await net.end()
  })

  it('that refuses at a renewal ends the client, with a word', async () => {
    let allows = true
    const failure = { reason: 'denied', text: 'the account has expired' } as const
    const net = await ServerNet.open({
      policy: { authenticate: async () => (allows ? { allow: true } : { allow: false, failure }) },
    })
    const client = net.client('alice', login)
    await net.pass(10 * SECOND)
    client.renegotiate()
    await net.pass(10 * SECOND)
    assert.equal(client.made.length, 2)
    allows = false
    client.renegotiate()
    await net.pass(20 * SECOND)
    assert.deepEqual(told(client, 'AUTH_FAILED'), ['AUTH_FAILED,the account has expired'])
    assert.equal(net.driver.peersById.size, 0)
    await net.end()
  })

  it('may refuse certificates, at the first exchange of keys and later ones', async () => {
    const refused = new Set(['mallory'])
    const net = await ServerNet.open({
      policy: {
        refusesCertificates: async ({ commonName }) =>
          refused.has(commonName) ? `${commonName} is not wanted` : undefined,
      },
    })
    const [alice, mallory] = [net.client('alice'), net.client('mallory')]
    await net.pass(10 * SECOND)
    assert(isConnected(alice) && !isConnected(mallory))
    assert.match(net.logged.join('\n'), /mallory is not wanted/)
    refused.add('alice')
    alice.renegotiate()
    await net.pass(10 * SECOND)
    assert.match(net.logged.join('\n'), /keys were not renewed: alice is not wanted/)
    assert.deepEqual(names(net), ['alice'], 'for the time of the old key')
    await net.end()
  })

  it('may refuse a key of tls-crypt-v2 before TLS begins', async () => {
    const random = new Random(9)
    const [serverKey, clientKey] = [random.bytes(128), random.bytes(256)]
    const seen: string[] = []
    const net = await ServerNet.open({
      tlsCryptV2: serverKey,
      policy: {
        async refusesKey(metadata) {
          seen.push(Buffer.from(metadata).toString('hex'))
          return metadata[0] === 1 ? undefined : 'an odd key'
        },
        refusesCertificates: async ({ commonName }) => void seen.push(commonName),
      },
    })
    const dated = timestampMetadata(1_700_000_000)
    const odd = Uint8Array.of(0, 7)
    const wraps = [dated, odd].map((metadata) => ({
      kind: 'tls-crypt-v2' as const,
      key: clientKey,
      role: 'client' as const,
      wkc: sealWkc(serverKey, clientKey, metadata),
    }))
    const good = net.client('good', { wrap: wraps[0]! })
    await net.pass(10 * SECOND)
    const bad = net.client('bad', { wrap: wraps[1]! })
    await net.pass(5 * SECOND)
    assert(isConnected(good) && !isConnected(bad))
    assert.deepEqual(
      [...new Set(seen)],
      [Buffer.from(dated).toString('hex'), 'good', Buffer.from(odd).toString('hex')],
    )
    await net.pass(2 * MINUTE)
    await net.end()
  })
})

describe('a client', () => {
  it('that moves is followed, and heard from its new address', async () => {
    const floated: string[] = []
    const net = await ServerNet.open({
      policy: { floated: ({ remote }) => floated.push(`${remote.address}:${remote.port}`) },
    })
    const [client, other] = [net.client('alice'), net.client('bob')]
    await net.pass(10 * SECOND)
    const { peerId } = net.server.clients().find(({ commonName }) => commonName === 'alice')!
    net.move(client, Endpoint.of('198.51.100.9', 4000))
    net.driver.float(peerId!, client.at)
    await net.pass(SECOND)
    assert.deepEqual(floated, ['198.51.100.9:4000'])
    client.renegotiate()
    await net.pass(10 * SECOND)
    assert.equal(client.made.length, 2, 'it has renewed its keys from there')
    // Its address is another's now, as a NAT gives it away.
    net.driver.float(peerId!, other.at)
    await net.pass(SECOND)
    assert.deepEqual(names(net), ['alice'])
    await net.end()
  })

  it('that the driver has lost is gone, with the counters that were read last', async () => {
    const ends: [reason: string, bytesReceived: number][] = []
    const net = await ServerNet.open({
      policy: {
        disconnected: (_, { reason, bytesReceived }) => ends.push([reason, bytesReceived]),
      },
    })
    net.client('alice')
    net.driver.traffic = 4711
    await net.pass(30 * SECOND)
    net.driver.remove(net.server.clients()[0]!.peerId!, 'expired')
    await net.pass(SECOND)
    assert.deepEqual(ends, [['nothing was heard of it for too long', 4711]])
    assert.equal(net.server.size, 0)
    await net.end()
  })

  for (const what of ['peerNew', 'keyNew'] as const) {
    it(`is sent away for a while where the driver refuses ${what}`, async () => {
      const net = await ServerNet.open()
      net.driver.refuses.add(what)
      const client = net.client('alice')
      await net.pass(10 * SECOND)
      assert(!isConnected(client))
      assert.match(told(client, 'AUTH_FAILED').join(), /TEMP.*cannot carry your packets/)
      net.driver.refuses.clear()
      await net.pass(MINUTE)
      const again = net.client('alice')
      await net.pass(10 * SECOND)
      assert(isConnected(again))
      await net.end()
    })
  }

  it('whose keys are not renewed stays for the old key’s time', async () => {
    const net = await ServerNet.open({ settings: { tranWindow: 10 * MINUTE } })
    const client = net.client('alice')
    await net.pass(10 * SECOND)
    net.wire.detach(client.at)
    net.server.clients()[0]!.renegotiate()
    await net.pass(10 * MINUTE - 1)
    assert.deepEqual(names(net), ['alice'])
    assert.match(net.logged.join('\n'), /keys were not renewed/)
    await net.pass(1)
    assert.deepEqual(names(net), [])
    assert.match(net.logged.at(-1)!, /its keys are too old/)
    await net.end()
  })

  it('that is another at a renewal goes at once', async () => {
    const net = await ServerNet.open()
    const client = net.client('alice')
    await net.pass(10 * SECOND)
    client.name = 'mallory'
    client.renegotiate()
    await net.pass(10 * SECOND)
    assert.deepEqual([names(net), net.server.size], [[], 0])
    assert.match(net.logged.join('\n'), /certificate is not what it was/)
    await net.end()
  })

  it('goes at once when it says so inside the data channel', async () => {
    let reason = ''
    const net = await ServerNet.open({
      policy: { disconnected: (_, end) => (reason = end.reason) },
    })
    net.client('alice')
    net.client('bob')
    await net.pass(10 * SECOND)
    const [id] = [...net.driver.peersById.keys()]
    // Nothing that is no exit notice ends anybody; a request for options is answered.
    net.driver.inside(id!, Uint8Array.of(...OCC_MAGIC, 4))
    net.driver.inside(id!, Uint8Array.of(...OCC_MAGIC, 0))
    await net.pass(SECOND)
    assert.deepEqual(names(net), ['alice', 'bob'])
    const options = encodeOccReply('V4,dev-type tun,key-method 2,tls-server')
    assert.deepEqual(net.driver.said, [[id, options]])
    net.driver.inside(id!, OCC_EXIT)
    net.driver.inside(id!, OCC_EXIT)
    await net.pass(0)
    assert.deepEqual([names(net), reason, net.server.size], [['bob'], 'it has left', 1])
    await net.end()
  })

  it('goes when its time is over, or it moves nothing', async () => {
    const rows = [
      [{ sessionTimeout: 5 * MINUTE }, /its time is over/],
      [{ inactive: { timeout: 5 * MINUTE, bytes: 100 } }, /it moves nothing/],
    ] as const
    for (const [settings, reason] of rows) {
      const net = await ServerNet.open({ settings })
      const client = net.client('alice')
      await net.pass(4 * MINUTE)
      assert.deepEqual(names(net), ['alice'])
      await net.pass(2 * MINUTE)
      assert.deepEqual(names(net), [])
      assert.match(net.logged.join('\n'), reason)
      assert.equal(told(client, 'RESTART').length, 1)
      await net.end()
    }
  })

  it('that moves enough stays', async () => {
    const inactive = { timeout: MINUTE, bytes: 100 }
    const net = await ServerNet.open({ settings: { inactive } })
    net.client('alice')
    for (let i = 0; i < 10; i++) {
      net.driver.traffic += 1000
      await net.pass(30 * SECOND)
    }
    assert.deepEqual(names(net), ['alice'])
    await net.end()
  })

  it('has the networks behind it routed for as long as it is there', async () => {
    const routes = [{ network: '10.2.0.0', prefix: 16 }]
    const net = await ServerNet.open({
      policy: { admit: async () => ({ allow: true, settings: { routes } }) },
    })
    const client = net.client('alice')
    await net.pass(10 * SECOND)
    assert.deepEqual(
      net.routes.map(({ destination, gateway }) => [destination, gateway]),
      [['10.2.0.0', addressOf(client)]],
    )
    client.session.sendMessage('EXIT')
    await net.pass(10 * SECOND)
    assert.deepEqual(net.routes, [])
    await net.end()
  })
})
