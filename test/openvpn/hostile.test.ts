/**
 * `ovpn server` and those who only want to harm it: floods, forged and mangled packets, handshakes that stop at every step, TCP
 * connections that say nothing. After each of them its memory is what it was, and all the while a client that is
 * connected is not disturbed. What is done with one packet is wire's and proto's tests' business.
 */

// npm test: early
// npm test: 600 s, 120 s a test

import assert from 'node:assert/strict'
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Running } from '../command.ts'
import { ping } from '../interop/openvpn.ts'
import { STARTED, withoutProgram } from '../interop/programs.ts'
import { identity, Peers } from './peers.ts'

const ATTACKER = fileURLToPath(new URL('./attacker.ts', import.meta.url))
const NUMBER = 2
const PORT = 1196
/** In the attacker's namespace each of these is its own (a local route), and the server's answers go there. */
const MANY_ADDRESSES = '198.18.0.0/15'
/** What a heap that has nothing more to keep may have grown. */
const GROWTH_MB = 80

const ATTACKS: [name: string, what: string][] = [
  ['flood 100000 wrapped', '100,000 first packets with the right key, of as many addresses'],
  ['flood 100000 foreign', 'the same with a wrong key'],
  ['random 30000', 'bytes of all lengths that mean nothing'],
  [
    'mutate 30000',
    'packets of a handshake with some bytes changed, before and after they are wrapped',
  ],
  ['forge 3000', 'second packets with session ids that the server did not give'],
  ['replay 3000', 'the packets of a whole handshake, again and from elsewhere'],
  ['oversized 500', 'acknowledgement lists, payloads and lengths beyond all bounds'],
  ['garbage 100', 'handshakes that go on with something else than TLS'],
  ['stop', 'handshakes that stop after each packet'],
  ['deaf 50', 'handshakes that acknowledge nothing'],
  ['silent-tcp 2000', '2,000 TCP connections that say nothing'],
  [
    'odd-tcp 100',
    'TCP connections with half a packet, with lengths of nothing, one byte at a time',
  ],
]

interface Told {
  packets: number
}

describe('a hostile network', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers
  let server: Running
  let attacker: ChildProcessWithoutNullStreams
  let lines: AsyncIterator<string>

  before(async () => {
    peers = await Peers.open()
    await peers.genkey('tls-crypt', 'tc.key')
    server = await peers.server('ours', NUMBER, [
      ...identity('server'),
      ...['tls-crypt tc.key', 'hand-window 10', 'duplicate-cn'],
    ])
    const { lab } = peers
    const { netns, own, server: end } = lab.addHost()
    netns.ip(`route add local ${MANY_ADDRESSES} dev lo`)
    lab.server.ip(`route add ${MANY_ADDRESSES} via ${own.ipv4}`)
    const args = [ATTACKER, lab.folder, end.ipv4, `${PORT}`]
    attacker = spawn('ip', ['netns', 'exec', netns.name, process.execPath, ...args])
    attacker.stderr.pipe(process.stderr)
    lines = createInterface({ input: attacker.stdout })[Symbol.asyncIterator]()
    const client = peers.client('2.6', NUMBER, [...identity('client'), 'tls-crypt tc.key'])
    await client.says(STARTED)
  })
  after(async () => {
    attacker?.stdin.end()
    await peers?.close()
  })

  async function attack(line: string): Promise<Told> {
    attacker.stdin.write(`${line}\n`)
    const { value, done } = await lines.next()
    assert.equal(done, false, 'the attacker has ended')
    return JSON.parse(value) as Told
  }

  /** Of 20 packets through the tunnel, how many per cent are lost. */
  const loss = () => ping(peers.lab.hosts[0]!.netns, `10.8.${NUMBER}.1`, 20)

  for (const [line, what] of ATTACKS) {
    it(what, async () => {
      const before = usage(server)
      const [told, lost] = await Promise.all([attack(line), loss()])
      const after = usage(server)
      const cpu = ((1e6 * (after.cpu - before.cpu)) / told.packets).toFixed(0)
      const memory = after.megabytes - before.megabytes
      console.log(`${line}: ${told.packets} packets, ${cpu} µs each, ${memory.toFixed(0)} MiB more`)
      assert.equal(lost, 0, 'a client was disturbed')
      assert.equal(server.status, null, server.stderr)
      assert.ok(memory < GROWTH_MB, `${memory} MiB more`)
    })
  }

  it('leaves the server as it was: others may come, and nothing was said of errors', async () => {
    // What was half-way is forgotten with the hand-window.
    await Bun.sleep(11_000)
    const host = peers.lab.addHost()
    const lines = [...identity('client'), 'tls-crypt tc.key']
    await peers.client('2.6', NUMBER, lines, { host }).says(STARTED)
    assert.equal(await loss(), 0)
    assert.doesNotMatch(server.stdout + server.stderr, /TypeError|RangeError|assert|undefined/i)
  })
})

/** CPU seconds and resident memory of a process. */
function usage({ pid }: Running): { cpu: number; megabytes: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const resident = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]
  return {
    cpu: (Number(fields[11]) + Number(fields[12])) / 100,
    megabytes: Number(resident) / 1024,
  }
}
