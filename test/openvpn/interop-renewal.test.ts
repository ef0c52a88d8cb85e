/**
 * Keys that are renewed every three seconds under load, with both ends of a mind to begin: no packet may be lost by it. The same over a
 * network that loses a tenth of all packets in each direction, and lets others overtake: then no more than that network's own.
 */
// npm test: alone: 26 ends renew keys every three seconds, by clocks that wait for no busy machine
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Running, run, start } from '../command.ts'
import { type Host, ping, times } from '../interop/openvpn.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { BUN, identity, type Maker, type Outside, Peers, stop, vpnAddresses } from './peers.ts'
import type { Report } from './traffic.ts'

const TRAFFIC = fileURLToPath(new URL('./traffic.ts', import.meta.url))
const RENEWAL_S = 3
/** Of datagrams, and of a stream after them. */
const LOAD_S = 8
const PINGS = 800
const INTERVAL_S = 0.02
/** Of the network, in each direction, percent. */
const LOSS = 10
/** Of 800 packets that each go twice through a network with a tenth lost: 19 % are, more than 27 % in one of 10^8 runs. */
const MOST_LOST = 27
const RENEWALS = Math.floor((2 * LOAD_S) / RENEWAL_S) - 2
/** Of what is sent back at the server; hosts have ports of their own. */
const ECHO_PORT = 7000

/** In OpenVPN's log. */
const RENEWED = /VERIFY OK: depth=0/

interface Pair {
  server: Maker
  client: Maker
  outside: Outside
  loss?: number
  /** Only our end is of a mind to begin. */
  alone?: boolean
  /** Nobody renews: what this pair loses, others may lose too. */
  never?: boolean
}

const PAIRS: Pair[] = [
  { server: 'ours', client: '2.6', outside: 'udp' },
  { server: 'ours', client: '2.7', outside: 'udp' },
  { server: 'ours', client: '2.6', outside: 'tcp', alone: true },
  { server: 'ours', client: '2.7', outside: 'tcp' },
  { server: '2.6', client: 'ours', outside: 'udp' },
  { server: '2.7', client: 'ours', outside: 'udp' },
  { server: '2.6', client: 'ours', outside: 'tcp' },
  { server: '2.7', client: 'ours', outside: 'tcp', alone: true },
  { server: '2.7', client: 'ours', outside: 'udp', never: true },
  { server: 'ours', client: '2.6', outside: 'udp', loss: LOSS },
  { server: 'ours', client: '2.7', outside: 'udp', loss: LOSS },
  { server: '2.6', client: 'ours', outside: 'udp', loss: LOSS },
  { server: '2.7', client: 'ours', outside: 'udp', loss: LOSS },
]

interface Played {
  /** Percent of pings, where the network loses some. */
  lost: number
  /** Of datagrams and a stream, where it does not. */
  load: Report | undefined
  /** What OpenVPN said, while packets went. */
  log: string
  /** How often the client has connected. */
  sessions: number
}

describe('renewing keys', { skip: withoutProgram('2.6', '2.7') }, () => {
  let peers: Peers
  let echo: Running
  const played: Promise<Played>[] = []
  before(async () => {
    peers = await Peers.open()
    for (let i = 1; i < PAIRS.length; i++) peers.lab.addHost()
    const ports = PAIRS.map((_, i) => `${ECHO_PORT + i}`)
    const args = ['netns', 'exec', peers.lab.server.name, BUN, TRAFFIC, 'answer', ...ports]
    echo = start('ip', args)
    await Promise.all([peers.server('ours', 0, lines('server')), echo.says(/answering/)])
    for (const [i, pair] of PAIRS.entries()) played.push(play(pair, i))
    await Promise.allSettled(played)
  })
  after(async () => {
    if (echo !== undefined) await stop(echo)
    await peers?.close()
  })

  const lines = (name: 'server' | 'client', begins = true) => [
    ...[...identity(name), `reneg-sec ${begins ? RENEWAL_S : 0}`],
    ...(name === 'server' ? ['duplicate-cn'] : []),
  ]

  async function play(pair: Pair, i: number): Promise<Played> {
    const { server, client, outside, loss, alone = false, never = false } = pair
    const number = server === 'ours' ? 0 : i
    const served =
      server === 'ours'
        ? undefined
        : await peers.server(server, i, lines('server', !alone && !never), outside)
    const host = peers.lab.hosts[i]!
    if (loss !== undefined) await peers.relay(host, number, loss)
    const relayed = loss !== undefined
    const more = lines('client', !never && (client === 'ours' || !alone))
    const connected = peers.client(client, number, more, { outside, host, relayed })
    await connected.says(STARTED)
    const openvpn = served ?? connected
    const start = openvpn.stdout.length
    const load = loss === undefined ? await loaded(host, number) : undefined
    const lost = loss === undefined ? 0 : await pingsLost(host, number)
    // Where packets are lost, a handshake can take long.
    if (!never) await until('keys to be renewed', () => times(openvpn, RENEWED) > 1, 40)
    return { lost, load, log: openvpn.stdout.slice(start), sessions: times(connected, STARTED) }
  }

  const pingsLost = ({ netns }: Host, number: number) =>
    ping(netns, vpnAddresses(number)[0], PINGS, ['-i', `${INTERVAL_S}`, '-s', '1200'])

  const loaded = async ({ netns, cable }: Host, number: number): Promise<Report> => {
    const to = [vpnAddresses(number)[0], `${ECHO_PORT + cable}`, `${LOAD_S}`]
    const { stdout, stderr } = await run('ip', [
      ...['netns', 'exec', netns.name, BUN, TRAFFIC, 'ask', ...to],
    ])
    assert.match(stdout, /^\{/, stderr)
    return JSON.parse(stdout)
  }

  for (const [i, { server, client, outside, loss, alone, never }] of PAIRS.entries()) {
    const by = alone ? ', begun by ours' : never ? ', never renewed' : ''
    const where = loss === undefined ? by : `, where ${loss} % are lost`
    it(`server ${server}, client ${client}, ${outside}${where}`, async () => {
      const { lost, load, log, sessions } = await played[i]!
      const renewals = (log.match(new RegExp(RENEWED, 'g')) ?? []).length
      const itsOwn = (log.match(/TLS: soft reset/g) ?? []).length
      const traffic = load === undefined ? `${lost.toFixed(2)} % lost` : JSON.stringify(load)
      console.log(`    ${traffic}, ${renewals} renewals, ${itsOwn} begun by OpenVPN`)
      assert.equal(sessions, 1)
      if (alone || never) assert.equal(itsOwn, 0)
      if (load === undefined) {
        assert.ok(lost <= MOST_LOST)
        return
      }
      if (never) assert.equal(renewals, 0)
      else assert.ok(renewals >= RENEWALS)
      assert.deepEqual([load.lost, load.repeated], [0, 0])
      assert.ok(load.datagrams > 0 && load.bytes > 0)
    })
  }
})
