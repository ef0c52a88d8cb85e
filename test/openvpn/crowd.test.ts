/** A server with hundreds of clients that come at once, and thousands that come and go: all are let in, and nothing of them stays. */

// npm test: alone: 500 clients at once want the machine to themselves
// npm test: 600 s, 300 s a test

import assert from 'node:assert/strict'
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Running } from '../command.ts'
import { STARTED, withoutProgram } from '../interop/programs.ts'
import { identity, lost, Peers } from './peers.ts'

const LOAD = fileURLToPath(new URL('./load.ts', import.meta.url))
const NUMBER = 1
const PORT = 1195
const COUNT = 500

interface Told {
  connected: number
  seconds: number
  addresses: number
  problems: { [text: string]: number }
}

/** load.ts in the first client's host. */
class Load {
  readonly #program: ChildProcessWithoutNullStreams
  readonly #lines: AsyncIterator<string>

  constructor({ lab }: Peers) {
    const [host] = lab.hosts
    const args = [LOAD, lab.folder, host!.server.ipv4, `${PORT}`]
    const command = ['netns', 'exec', host!.netns.name, process.execPath, ...args]
    this.#program = spawn('ip', command, { stdio: 'pipe' })
    this.#program.stderr.pipe(process.stderr)
    this.#lines = createInterface({ input: this.#program.stdout })[Symbol.asyncIterator]()
  }

  async connect(count: number, atOnce: number): Promise<Told> {
    return JSON.parse(await this.#say(`connect ${count} ${atOnce}`)) as Told
  }

  async leave(): Promise<void> {
    await this.#say('leave')
  }

  end(): void {
    this.#program.stdin.end()
  }

  async #say(line: string): Promise<string> {
    this.#program.stdin.write(`${line}\n`)
    const { value, done } = await this.#lines.next()
    assert.equal(done, false, 'the load has ended')
    return value
  }
}

function residentMegabytes({ pid }: Running): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024
}

/** Clients that the server tells of, and has not told to have gone. */
function present({ stdout }: Running): string[] {
  const names = (pattern: RegExp) => Array.from(stdout.matchAll(pattern), ([, name]) => name!)
  const gone = new Set(names(/([\d.]+:\d+): gone after /g))
  return names(/([\d.]+:\d+): connected, /g).filter((name) => !gone.has(name))
}

/** Waits until all have gone. */
async function empty(server: Running): Promise<void> {
  for (let i = 0; i < 600 && present(server).length > 0; i++) await Bun.sleep(100)
  const [one = '', ...others] = present(server)
  const told = server.stdout.split('\n').filter((line) => line.includes(one))
  assert.equal(one, '', `${others.length} others and this:\n${told.join('\n')}`)
}

describe('a crowd', { skip: withoutProgram('2.6', '2.7') }, () => {
  let peers: Peers
  let server: Running
  let load: Load

  before(async () => {
    peers = await Peers.open()
    await peers.genkey('tls-crypt', 'tc.key')
    server = await peers.server('ours', NUMBER, [
      ...identity('server'),
      ...['server 10.8.0.0 255.255.0.0', 'tls-crypt tc.key', 'duplicate-cn', 'max-clients 2000'],
      // Light clients send nothing once they are connected; all of them are at one address.
      ...['keepalive 60 600', 'connect-freq-initial 100000 10'],
    ])
    load = new Load(peers)
  })
  after(async () => {
    load?.end()
    await peers?.close()
  })

  it('of 500 clients at once is let in, and stock clients among them', async () => {
    const before = residentMegabytes(server)
    const stock = (['2.6', '2.7'] as const).map((maker) => {
      const host = peers.lab.addHost()
      const lines = [...identity('client'), 'tls-crypt tc.key', 'explicit-exit-notify']
      return { host, client: peers.client(maker, NUMBER, lines, { host }) }
    })
    const { connected, seconds, addresses, problems } = await load.connect(COUNT, COUNT)
    console.log(
      `${COUNT} clients in ${seconds.toFixed(1)} s, ${(residentMegabytes(server) - before).toFixed(0)} MiB more`,
    )
    assert.deepEqual([connected, addresses, problems], [COUNT, COUNT, {}])
    for (const { client, host } of stock) {
      await client.says(STARTED)
      assert.equal((await lost(host, NUMBER))[1], 0)
    }
    assert.equal(present(server).length, COUNT + stock.length)
    await load.leave()
    for (const { client } of stock) client.kill('SIGTERM')
    await empty(server)
  })

  it('that comes and goes leaves nothing behind', async () => {
    // What is made once, and the heap's own way of growing, belong to the first rounds.
    const round = async () => {
      const { connected } = await load.connect(250, 25)
      assert.equal(connected, 250)
      await load.leave()
      await empty(server)
      return residentMegabytes(server)
    }
    const memory: number[] = []
    for (let i = 0; i < 10; i++) memory.push(await round())
    console.log(`MiB after each 250 clients: ${memory.map((one) => one.toFixed(0)).join(' ')}`)
    const [, settled = 0] = memory
    // The heap grows until it is swept, so the lowest of the last counts. 2,000 clients need three times that while they are there.
    const last = Math.min(...memory.slice(-4))
    assert.ok(last < settled + 40, memory.join(' '))
  })
})
