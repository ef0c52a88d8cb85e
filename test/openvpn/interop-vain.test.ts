/**
 * A renewal of keys in vain, with OpenVPN at the other end: for a while the packets of key exchanges but the first are lost. The old key
 * does until a new session brings another, as between two OpenVPN, and the tunnel goes on.
 */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { ping, times } from '../interop/openvpn.ts'
import { STARTED, withoutProgram } from '../interop/programs.ts'
import { identity, type Maker, Peers, vpnAddresses } from './peers.ts'

const INTERVAL_S = 0.05
const HAND_WINDOW_S = 4

interface Pair {
  server: Maker
  client: Maker
  /** When keys are renewed. Servers of OpenVPN do not push again sooner than 30 s after they did. */
  after: number
  /** Percent. Servers of OpenVPN have no key between a new session and its push, a second or two of the 40. */
  mostLost: number
}

const PAIRS: Pair[] = [
  { server: '2.6', client: 'ours', after: 28, mostLost: 5 },
  { server: '2.7', client: 'ours', after: 28, mostLost: 5 },
  { server: 'ours', client: '2.6', after: 5, mostLost: 2 },
]

/** At the client. */
const IN_VAIN = /keys were not renewed|TLS Error: TLS handshake failed/
/** In the server's log. */
const NEW_SESSION = /: connected,|initial untrusted session promoted to trusted/

describe('a key that cannot be renewed', { skip: withoutProgram('2.6', '2.7') }, () => {
  let peers: Peers
  const played: Promise<{ lost: number; server: Running; client: Running }>[] = []
  before(async () => {
    peers = await Peers.open()
    for (let i = 1; i < PAIRS.length; i++) peers.lab.addHost()
    for (const [i, pair] of PAIRS.entries()) played.push(play(pair, i))
    await Promise.allSettled(played)
  })
  after(() => peers.close())

  async function play({ server: maker, client: its, after }: Pair, i: number) {
    const lines = (name: string, renewed: number) => [
      ...[...identity(name), `reneg-sec ${renewed}`, `hand-window ${HAND_WINDOW_S}`],
    ]
    const server = await peers.server(maker, i, lines('server', 0))
    const host = peers.lab.hosts[i]!
    const relay = await peers.relay(host, i, 0)
    const client = peers.client(its, i, lines('client', after), { host, relayed: true })
    await client.says(STARTED)
    relay.kill('SIGUSR2')
    await relay.says(/no renewals/)
    const count = Math.ceil((after + 3 * HAND_WINDOW_S) / INTERVAL_S)
    const pinged = ping(host.netns, vpnAddresses(i)[0], count, ['-i', `${INTERVAL_S}`])
    await client.says(IN_VAIN)
    relay.kill('SIGUSR2')
    return { lost: await pinged, server, client }
  }

  for (const [i, { server: maker, client: its, mostLost }] of PAIRS.entries()) {
    it(`server ${maker}, client ${its}: does until there is a new session`, async () => {
      const { lost, server, client } = await played[i]!
      console.log(`    ${lost.toFixed(2)} % lost`)
      assert.ok(lost <= mostLost, `${lost} % lost`)
      assert.equal(times(server, NEW_SESSION), 2)
      if (its === 'ours') assert.equal(times(client, STARTED), 1)
    })
  }
})
