/**
 * A certificate that a server refuses when keys are renewed, of a client that is OpenVPN 2.6: the old key does for what is left of its
 * time, and then the client is out. At our server as at OpenVPN's; and over a stream it is out at once, at either.
 */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { answers, ping } from '../interop/openvpn.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, type Maker, Peers, vpnAddresses } from './peers.ts'

const SECONDS = 40
const RENEWAL_S = 4
const TRAN_WINDOW_S = 15
const HAND_WINDOW_S = 5

interface Case {
  server: Maker
  rule: 'tls-verify' | 'crl-verify'
  outside: 'udp' | 'tcp'
}

const CASES: Case[] = (['ours', '2.6'] as const).flatMap((server) => [
  { server, rule: 'tls-verify', outside: 'udp' },
  { server, rule: 'crl-verify', outside: 'udp' },
  { server, rule: 'tls-verify', outside: 'tcp' },
])

/** In a server's log, with another text before. */
const REFUSED = /tls-verify refuses|it is revoked|VERIFY (SCRIPT )?ERROR: depth=/

describe('a certificate that is refused at a renewal', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers
  const played: Promise<number>[] = []
  before(async () => {
    peers = await Peers.open()
    for (let i = 1; i < CASES.length; i++) peers.lab.addHost()
    await peers.revoke('none.pem', [])
    for (const [i, one] of CASES.entries()) played.push(play(one, i))
    await Promise.allSettled(played)
  })
  after(() => peers?.close())

  /** Of packets after the refusal, how many are lost: in percent. Resolves when no more of them arrive. */
  async function play({ server: maker, rule, outside }: Case, i: number): Promise<number> {
    const name = `client${i}`
    const issued = await peers.certify(name)
    await peers.revoke(`crl${i}.pem`, [])
    peers.write(`verify${i}.sh`, `[ ! -e ${peers.lab.folder}/refuse${i} ]\n`)
    const checks =
      rule === 'crl-verify'
        ? [`crl-verify crl${i}.pem`]
        : ['script-security 2', `tls-verify "/bin/sh verify${i}.sh"`]
    const windows = [`tran-window ${TRAN_WINDOW_S}`, `hand-window ${HAND_WINDOW_S}`]
    const lines = [...identity('server'), ...checks, ...windows, `reneg-sec ${RENEWAL_S}`]
    const server = await peers.server(maker, i, lines, outside)
    const host = peers.lab.hosts[i]!
    const own = [...identity(name), ...windows, 'reneg-sec 0']
    const client = peers.client('2.6', i, own, { outside, host })
    await client.says(STARTED)
    const [address] = vpnAddresses(i)
    await answers(host.netns, address)
    if (rule === 'crl-verify') await peers.revoke(`crl${i}.pem`, [issued])
    else peers.write(`refuse${i}`, '')
    await until('the refusal', () => REFUSED.test(server.stdout), SECONDS)
    const lost = await ping(host.netns, address, 20, ['-i', '0.2'])
    for (let i = 0; i < SECONDS; i++) {
      if ((await ping(host.netns, address, 3, ['-i', '0.5', '-w', '2'])) === 100) return lost
    }
    assert.fail(`packets still get through, ${SECONDS} s after`)
  }

  for (const [i, { server, rule, outside }] of CASES.entries()) {
    it(`server ${server}, ${rule}, ${outside}`, async () => {
      const lost = await played[i]!
      assert.equal(lost, outside === 'udp' ? 0 : 100)
    })
  }
})
