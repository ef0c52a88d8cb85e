/** Which server is tried when, on virtual time: names, addresses and sockets that answer, refuse or are silent, as a test says. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { readClientConfig } from '../config/client-config.ts'
import type { Endpoint } from '../transport.ts'
import { Client, type ClientWorld, type Verdict } from './client.ts'
import type { Question } from './credentials.ts'

/** What is not to be called in these tests: no server ever answers. */
const never = (): never => {
  throw new Error('no connection comes about here')
}

interface Setting {
  lines: string[]
  /** Addresses of names; of others there are none. */
  names?: { [name: string]: string[] }
  /** Ports that refuse a connection at once; others are silent. */
  refusing?: number[]
  ask?: (question: Question) => Promise<{ text: string }>
  /** Where it is told to end. */
  seconds?: number
}

class World {
  /** `12.0 192.0.2.1:1194`: seconds, and what was tried. */
  readonly tried: string[] = []
  readonly log: string[] = []
  readonly client: Client
  #now = 0
  #timers: { at: number; call: () => void }[] = []
  #random = 0

  constructor({ lines, names = {}, refusing = [], ask = never }: Setting) {
    const text = ['client', 'ca ca', 'cert ca', 'key key', 'verify-x509-name a', ...lines].join(
      '\n',
    )
    const config = readClientConfig({ file: '/p/c.ovpn', text }, { read: keyOrCertificate })
    const world: ClientWorld = {
      now: () => this.#now,
      date: () => new Date(this.#now),
      random: (count) => new Uint8Array(count).fill(this.#random++),
      schedule: (at, call) => {
        const timer = { at, call }
        this.#timers.push(timer)
        return () => {
          this.#timers = this.#timers.filter((other) => other !== timer)
        }
      },
      resolve: async (host) => {
        const found = /^[\d.]+$/.test(host) ? [host] : names[host.replace(/^[0-9a-f]{12}\./, 'R.')]
        if (found === undefined) {
          this.#note(host)
          throw Object.assign(new Error('ENOTFOUND'), { code: 'ENOTFOUND' })
        }
        return found
      },
      open: async (_entry, remote) => this.#open(remote, refusing),
      ask,
      log: (line) => this.log.push(line),
      ...{ pid: 1, version: 'test', hasEpochs: false, nameservers: () => [] },
      network: {
        ...{ up: never, addAddress: never, removeAddress: never, addRoute: never },
        ...{ removeRoute: never, nextHop: () => undefined },
        ...{ defaultHop: () => undefined, localNetwork: () => undefined },
        hardwareAddress: () => undefined,
      },
      ...{ openData: never, applyDns: never, run: never, tls: never, verify: never },
      ...{ setBuffers: never, machine: never },
    }
    this.client = new Client(config, world, {
      ...{ state: () => {}, connected: never, rekeyed: never, pending: never },
      disconnected: never,
    })
  }

  /** Until the client ends, or is told to after so many seconds. */
  async run(seconds: number): Promise<Verdict> {
    let verdict: Verdict | undefined
    void this.client.run().then((found) => {
      verdict = found
    })
    while (verdict === undefined) {
      // Whatever follows from what has happened, before time goes on.
      for (let i = 0; i < 5; i++) await setImmediate()
      this.#timers.sort((a, b) => a.at - b.at)
      const next = this.#timers.shift()
      if (next === undefined || next.at > 1000 * seconds) this.client.stop()
      else {
        this.#now = Math.max(this.#now, next.at)
        next.call()
      }
    }
    return verdict
  }

  #note(what: string): void {
    this.tried.push(`${this.#now / 1000} ${what}`)
  }

  #open(remote: Endpoint, refusing: number[]) {
    this.#note(`${remote.address}:${remote.port}`)
    if (refusing.includes(remote.port)) {
      throw Object.assign(new Error('it refuses'), { code: 'ECONNREFUSED' })
    }
    const transport = {
      ...({ protocol: 'udp', fd: -1, local: remote } as const),
      ...{ onPacket: () => {}, send: () => {}, close: () => {} },
    }
    return { transport, path: { remote } }
  }
}

function keyOrCertificate(path: string): Uint8Array {
  const what = path.endsWith('key') ? 'PRIVATE KEY' : 'CERTIFICATE'
  return new TextEncoder().encode(`-----BEGIN ${what}-----\n-----END ${what}-----\n`)
}

async function tried(setting: Setting): Promise<{ world: World; verdict: Verdict }> {
  const world = new World(setting)
  const verdict = await world.run(setting.seconds ?? 100)
  return { world, verdict }
}

describe('the order of servers', () => {
  const rows: [setting: Setting, tried: string[], why: string][] = [
    [
      { lines: ['remote 192.0.2.1', 'server-poll-timeout 5'], seconds: 13 },
      ['0 192.0.2.1:1194', '6 192.0.2.1:1194', '12 192.0.2.1:1194'],
      'a silent server is tried again, after its time and a pause',
    ],
    [
      {
        lines: ['remote 192.0.2.1', 'remote 192.0.2.2 443', 'server-poll-timeout 5'],
        seconds: 13,
      },
      ['0 192.0.2.1:1194', '6 192.0.2.2:443', '12 192.0.2.1:1194'],
      'the next one, and the first again',
    ],
    [
      {
        lines: ['remote both.example 7', 'remote 192.0.2.9 7'],
        names: { 'both.example': ['2001:db8::1', '192.0.2.1'] },
        refusing: [7],
        seconds: 1,
      },
      ['0 2001:db8::1:7', '0 192.0.2.1:7', '1 192.0.2.9:7'],
      'all addresses of a name before the next server',
    ],
    [
      { lines: ['remote gone.example', 'remote 192.0.2.1'], seconds: 2 },
      ['0 gone.example', '1 192.0.2.1:1194'],
      'a name without an address: the next server',
    ],
    [
      { lines: ['remote gone.example', 'remote 192.0.2.1', 'resolv-retry 11'], seconds: 12 },
      ['0 gone.example', '5 gone.example', '10 gone.example', '11 192.0.2.1:1194'],
      'a name that is tried for some time first',
    ],
    [
      {
        lines: ['remote 192.0.2.1', 'remote 192.0.2.2', 'remote 192.0.2.3', 'remote-random'],
        seconds: 1,
      },
      ['0 192.0.2.3:1194'],
      'in an order of the dice',
    ],
    [
      {
        lines: ['remote vpn.example 7', 'remote-random-hostname'],
        names: { 'R.vpn.example': ['192.0.2.1'] },
        refusing: [7],
        seconds: 0.5,
      },
      ['0 192.0.2.1:7'],
      'a name with a random label before it',
    ],
    [
      { lines: ['remote 192.0.2.1 7', 'connect-retry 2 9'], refusing: [7], seconds: 45 },
      ['0', '2', '4', '6', '8', '12', '20', '29', '38'].map((at) => `${at} 192.0.2.1:7`),
      'pauses get longer after some rounds, up to a limit',
    ],
    [
      {
        lines: [
          ...['<connection>', 'remote 192.0.2.1 7', 'connect-retry 3', '</connection>'],
          ...['<connection>', 'remote 192.0.2.2 7', 'connect-retry 4', '</connection>'],
        ],
        refusing: [7],
        seconds: 8,
      },
      ['0 192.0.2.1:7', '3 192.0.2.2:7', '7 192.0.2.1:7'],
      'each server has a pause of its own',
    ],
  ]
  for (const [setting, expected, why] of rows) {
    it(why, async () => {
      const { world, verdict } = await tried(setting)
      assert.deepEqual(world.tried, expected)
      assert.equal(verdict.kind, 'stopped')
    })
  }
})

describe('the end of trying', () => {
  it('gives up after so many rounds, with the last reason and a hint', async () => {
    const lines = ['remote 192.0.2.1 7', 'remote 192.0.2.2 7', 'connect-retry-max 2']
    const { world, verdict } = await tried({ lines, refusing: [7] })
    assert.equal(world.tried.length, 4)
    assert.equal(verdict.kind, 'given-up')
    assert.match(verdict.text, /after 4 attempts; the last: it refuses \(nobody listens there/)
  })

  it('ends at once where nobody answers a question', async () => {
    const ask = async () => Promise.reject(new Error('there is no terminal'))
    const { world, verdict } = await tried({ lines: ['remote 192.0.2.1', 'auth-user-pass'], ask })
    assert.deepEqual(verdict, { kind: 'given-up', text: 'there is no terminal' })
    assert.deepEqual(world.tried, [])
  })

  it('is told to end while the user thinks', async () => {
    const ask = () => new Promise<never>(() => {})
    const { verdict } = await tried({ lines: ['remote 192.0.2.1', 'auth-user-pass'], ask })
    assert.equal(verdict.kind, 'stopped')
  })

  it('begins anew when it is told to, without the rest of a pause', async () => {
    const world = new World({ lines: ['remote 192.0.2.1 7', 'connect-retry 60'], refusing: [7] })
    const ended = world.run(59)
    for (let i = 0; i < 3; i++) await setImmediate()
    world.client.restart()
    await ended
    assert.deepEqual(world.tried, ['0 192.0.2.1:7', '0 192.0.2.1:7'])
  })
})
