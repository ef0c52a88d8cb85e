/**
 * `ovpn run` with a driver that runs already (`ovpn driver`), which also tells what became of every packet: what is lost while
 * keys are renewed under load, and whether TCP inside fits the path.
 */
// npm test: ordinary user
// npm test: load 0.5
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { OVPN, type Running, run, start } from '../command.ts'
import { openTestNetns, type TestNetns, withoutNamespaces } from '../namespace.ts'
import {
  type Lab,
  OFFLOADED,
  openLab,
  ping,
  reached,
  SERVER_VPN,
  type Transport,
  times,
} from './openvpn.ts'
import { programs, STARTED, until, withoutProgram } from './programs.ts'

interface RunningDriver {
  readonly socket: string
  readonly process: Running
  close(): Promise<void>
}

async function startDriver(): Promise<RunningDriver> {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-run-'))
  const socket = join(folder, 'driver.sock')
  const driver = start(OVPN, ['driver', '--socket', socket])
  await driver.says(/listening/)
  return {
    socket,
    process: driver,
    async close() {
      driver.kill('SIGTERM')
      await driver.ended
      rmSync(folder, { recursive: true })
    },
  }
}

interface Drop {
  reason: string
  count: number
}

/** The driver's interfaces in a namespace. */
async function devices(
  { socket }: RunningDriver,
  { name }: TestNetns,
): Promise<{ name: string; drops: Drop[] }[]> {
  const { stdout } = await run(OVPN, ['show', '--json', '--netns', name, '--socket', socket])
  return JSON.parse(stdout).devices
}

describe('ovpn run and a driver that runs', { skip: withoutNamespaces }, () => {
  let netns: TestNetns
  let driver: RunningDriver
  before(async () => {
    netns = openTestNetns('rund')
    driver = await startDriver()
  })
  after(async () => {
    await driver.close()
    netns[Symbol.dispose]()
  })

  /** A script under `ovpn run`, in the namespace. */
  const begin = (options: string[], script: string, env = {}) => {
    const command = [OVPN, 'run', ...options, 'sh', '-c', script]
    return start('ip', ['netns', 'exec', netns.name, ...command], { env })
  }
  const names = async () => (await devices(driver, netns)).map(({ name }) => name)
  const hasLink = (name: string) => netns.ip('-br link').includes(name)

  it('makes the interface there, in the namespace of the program, until that ends', async () => {
    const running = begin(['--socket', driver.socket], 'ip link add vpn0 type ovpn; exec sleep 20')
    await until('the interface', () => hasLink('vpn0'))
    running.kill('SIGTERM')
    await running.ended
    await until('its end', () => !hasLink('vpn0'))
    assert.deepEqual(await names(), [])
  })

  it('finds it by the environment as well, and the interface is told of', async () => {
    const script = 'ip link add vpn0 type ovpn; ip link set vpn0 up; echo made; exec sleep 20'
    const running = begin([], script, { OVPN_SOCKET: driver.socket })
    await running.says(/made/)
    assert.deepEqual(await names(), ['vpn0'])
    running.kill('SIGKILL')
    await running.ended
    await until('its end', () => !hasLink('vpn0'))
  })

  it('removes the interface when the supervisor is killed', async () => {
    const script = 'ip link add vpn1 type ovpn; echo made; exec sleep 20'
    const running = begin(['--socket', driver.socket], script)
    await running.says(/made/)
    const { stdout } = await run('pgrep', ['-f', `run-supervisor .* ${running.pid} `])
    process.kill(Number(stdout), 'SIGKILL')
    await until('its end', () => !hasLink('vpn1'))
    running.kill('SIGTERM')
    await running.ended
  })

  it('has one of its own where it is told to, or there is none', async () => {
    const script = 'ip link add vpn2 type ovpn; ip link show vpn2; exec sleep 20'
    const nobody = { OVPN_SOCKET: `${driver.socket}.nobody` }
    for (const [options, env] of [
      [['--driver', 'own', '--socket', driver.socket], {}],
      [[], nobody],
    ] as [string[], object][]) {
      const running = begin(options, script, env)
      await running.says(/vpn2/)
      assert.equal((await names()).includes('vpn2'), false)
      running.kill('SIGTERM')
      await running.ended
      await until('its end', () => !hasLink('vpn2'))
    }
  })

  it('refuses where the one that is named is not there', async () => {
    for (const options of [
      ['--socket', '/nobody'],
      ['--driver', 'user', '--socket', '/nobody'],
    ]) {
      const { status, stderr } = await begin(options, 'true').ended
      assert.equal(status, 1)
      assert.match(stderr, /cannot offload: cannot reach a driver at \/nobody \(ENOENT\)/)
    }
  })

  it('leaves the program with a kernel that has none when the driver ends', async () => {
    const brief = await startDriver()
    const script = `ip link add vpn3 type ovpn; echo made
      while ip link show vpn3 >/dev/null 2>&1; do sleep 0.1; done
      ip link add vpn4 type ovpn; ip link show lo >/dev/null && echo going on`
    const running = begin(['--socket', brief.socket], script)
    await running.says(/made/)
    brief.process.kill('SIGKILL')
    const { stdout, stderr } = await running.ended
    assert.match(stdout, /going on/)
    assert.match(stderr, /Unknown device type|Operation not supported/)
    await brief.close()
  })
})

/** Of a driver that loses packets because others are slower than they come. */
const QUEUES = ['tx-queue-full', 'rx-queue-full', 'rx-device', 'tx-link']

/** Packets that the namespace has lost to full queues: of interfaces, of UDP sockets, and of the driver. */
async function lostToQueues(driver: RunningDriver, netns: TestNetns): Promise<number> {
  const links = JSON.parse(netns.ip('-s -j link')) as {
    stats64: { rx: { dropped: number }; tx: { dropped: number } }
  }[]
  const inside = ['netns', 'exec', netns.name]
  const { stdout: snmp } = await run('ip', [...inside, 'cat', '/proc/net/snmp'])
  const [, names, values] = /^Udp: (\D.*)\nUdp: (.*)$/m.exec(snmp)!
  const udp = (name: string) => Number(values!.split(' ')[names!.split(' ').indexOf(name)])
  const { stdout: qdiscs } = await run('ip', [...inside, 'tc', '-s', 'qdisc'])
  const shaped = [...qdiscs.matchAll(/dropped (\d+)/g)].map(([, count]) => Number(count))
  const drops = (await devices(driver, netns)).flatMap(({ drops }) => drops)
  return [
    ...links.map(({ stats64: { rx, tx } }) => rx.dropped + tx.dropped),
    ...[udp('RcvbufErrors'), udp('SndbufErrors'), ...shaped],
    ...drops.filter(({ reason }) => QUEUES.includes(reason)).map(({ count }) => count),
  ].reduce((sum, count) => sum + count, 0)
}

/** Of packets that have not met their key. Others are expected: multicast has no peer, and no peer may send from fe80::/10. */
const KEYS = ['rx-no-key', 'rx-auth-failed', 'rx-replay', 'tx-no-key', 'tx-iv-exhausted']

/** What the driver has dropped in a namespace for want of a key. */
async function withoutKey(driver: RunningDriver, netns: TestNetns): Promise<Drop[]> {
  const found = (await devices(driver, netns)).flatMap(({ drops }) => drops)
  return found.filter(({ reason }) => KEYS.includes(reason))
}

const SESSIONS: [series: string, Transport][] = [
  ['2.6', 'udp'],
  ['2.7', 'udp'],
  ['2.6', 'tcp'],
  ['2.7', 'tcp'],
]
/**
 * Of keys. Over TCP a session must have settled by then: what comes for a key older than the one that is being agreed on, be it
 * an acknowledgement, ends it. Source: OpenVPN's src/openvpn/ssl.c (tls_pre_decrypt), forward.c (check_tls_errors_co).
 */
const RENEWAL_S = 5
const SECONDS = 2 * RENEWAL_S + 2
const PINGS = 10 * SECONDS

for (const [series, transport] of SESSIONS) {
  describe(`OpenVPN ${series} over ${transport} on a driver that runs`, {
    skip: withoutProgram(series),
  }, () => {
    let lab: Lab
    let driver: RunningDriver
    let near: Running
    let far: Running
    before(async () => {
      driver = await startDriver()
      lab = openLab()
      const through = ['env', `OVPN_SOCKET=${driver.socket}`]
      const side = { program: programs[series]!, offload: true, through }
      far = lab.startServer({ ...side, more: [`reneg-sec ${RENEWAL_S}`] }, transport)
      await far.says(STARTED)
      near = lab.startClient(side, transport)
      await near.says(STARTED)
      await reached(lab)
    })
    after(async () => {
      await lab.close()
      await driver.close()
    })

    it('has its interfaces there', async () => {
      for (const [end, { stdout }] of [
        [lab.server, far],
        [lab.client, near],
      ] as const) {
        assert.match(stdout, OFFLOADED)
        assert.deepEqual(
          (await devices(driver, end)).map(({ name }) => name),
          ['tun0'],
        )
      }
    })

    it('renews keys under load and loses no packet for it; TCP inside fits the path', async () => {
      const ends = [lab.server, lab.client]
      const before = await Promise.all(ends.map((end) => withoutKey(driver, end)))
      const sink = start('ip', [
        'netns',
        'exec',
        lab.server.name,
        'iperf3',
        '-s',
        '-1',
        '--forceflush',
      ])
      await sink.says(/listening/)
      const load = run('ip', [
        ...['netns', 'exec', lab.client.name, 'iperf3', '-J', '-c', SERVER_VPN],
        ...['-t', String(SECONDS), '--connect-timeout', '5000'],
      ])
      const percent = await ping(lab.client, SERVER_VPN, PINGS)
      const { start: began, end } = JSON.parse((await load).stdout)
      await sink.ended
      assert.ok(times(far, /soft reset/) >= 2, 'renewed twice at least')
      assert.equal(times(near, STARTED), 1, 'no new session')
      // As many as there were before there was a first key.
      assert.deepEqual(await Promise.all(ends.map((end) => withoutKey(driver, end))), before)
      const queues = await Promise.all(ends.map((end) => lostToQueues(driver, end)))
      const lost = Math.round((percent * PINGS) / 100)
      assert.ok(lost <= queues[0]! + queues[1]!, `${lost} pings lost, and ${queues} to queues`)
      // 1500 count as 1492 outside: IPv4 20, UDP 8, 24 of sealing; inside 40. A stream takes what it gets.
      assert.equal(began.tcp_mss_default, transport === 'udp' ? 1400 - 12 : 1460 - 12)
      assert.ok(end.sum_received.bytes > 1e7)
    })
  })
}
