/** `ovpn run` with programs that misuse what they are given: those of hostile.ts. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { OVPN, run, start } from '../command.ts'
import { openTestNetns, type TestNetns, withoutNamespaces } from '../namespace.ts'
import { misuses } from './hostile.ts'
import { openLab } from './openvpn.ts'
import { programs, STARTED, until, withoutProgram } from './programs.ts'
import { keeperIsThere, supervisorOf } from './supervisor.ts'

const FILE = fileURLToPath(new URL('./hostile.ts', import.meta.url))
const SEQUENCES = fileURLToPath(new URL('./sequences.ts', import.meta.url))
const SEEDS = ['1', '2', '3']
/** How the shell below calls it. */
const HOSTILE = '"$0" "$1"'
/** The shell's netlink is served still. */
const SERVED = 'ip link add vpn0 type ovpn; ip link set vpn0 up; ip -br link show vpn0'
const MAX_GROWTH_KB = 150_000
/** Processes that end in the middle of something: each way that hostile.ts knows, with both kinds of socket. */
const LEAVING = 12

const hasTunnel = (end: TestNetns) => end.ip('-br link').includes('tun0')

describe('ovpn run with a hostile program', { skip: withoutNamespaces }, () => {
  let netns: TestNetns
  before(() => {
    netns = openTestNetns('runh')
  })
  after(() => netns[Symbol.dispose]())

  const argumentsOf = (script: string) => [
    ...['netns', 'exec', netns.name, OVPN, 'run', 'sh', '-ec', script, process.execPath, FILE],
  ]

  for (const misuse of Object.keys(misuses)) {
    it(`goes on serving: ${misuse}`, async () => {
      const script = `${HOSTILE} ${misuse}; ${SERVED}`
      const { status, stdout, stderr } = await run('ip', argumentsOf(script))
      assert.equal(status, 0, stderr)
      assert.match(stdout, /survived\n^vpn0 .*UP/m)
    })
  }

  for (const seed of SEEDS) {
    it(`answers as the kernel does what does not concern the driver: sequence ${seed}`, async () => {
      const lines = async (...through: string[]) => {
        const args = ['netns', 'exec', netns.name, ...through, process.execPath, SEQUENCES, seed]
        const { status, stdout, stderr } = await run('ip', args)
        assert.equal(status, 0, stderr)
        return stdout.split('\n')
      }
      const plain = await lines()
      const under = await lines(OVPN, 'run')
      assert.ok(plain.length > 1000)
      for (const [i, line] of plain.entries()) assert.equal(under[i], line, `call ${i}`)
    })
  }

  it('serves processes that share a socket', async () => {
    const { stdout, stderr } = await run('ip', argumentsOf(`${HOSTILE} handing`))
    assert.match(stdout, /^shared$/m, stderr)
  })

  it('is left with nothing by programs that never read, or are killed in the middle', async () => {
    const leaving = Array.from(
      { length: LEAVING },
      (_, i) => `${HOSTILE} leaving ${i} >>$log & p="$p $!"`,
    )
    // Those that are to be killed are so while each is in the middle of it, however long a busy machine takes to start them.
    const script = `${HOSTILE} patience; echo first; sleep 1; log=$(mktemp) p=
      ${leaving.join('\n')}
      until test $(wc -l <$log) -eq ${LEAVING}; do sleep 0.2; done; rm $log
      sleep 1; kill -9 $p 2>/dev/null || true; wait; ${HOSTILE} deaf; echo last; exec sleep 60`
    const running = start('ip', argumentsOf(script))
    await running.says(/first/)
    const supervisor = supervisorOf(running.pid)!
    const descriptors = () => readdirSync(`/proc/${supervisor}/fd`).length
    const residentKb = () => {
      const status = readFileSync(`/proc/${supervisor}/status`, 'utf8')
      return Number(/^VmRSS:\s*(\d+)/m.exec(status)![1])
    }
    const before = { descriptors: descriptors(), residentKb: residentKb() }
    await running.says(/last/)
    await until('sockets are closed', () => descriptors() <= before.descriptors)
    const grown = residentKb() - before.residentKb
    assert.ok(grown < MAX_GROWTH_KB, `${grown} kB more`)
    running.kill('SIGKILL')
    await running.ended
  })

  for (const [misuse, what] of [
    ['orphaned', 'finds the kernel without a driver when its supervisor is killed'],
    ['abandoned', 'has no netlink when its supervisor is killed, and who would take over before'],
  ] as const) {
    it(what, async () => {
      const args = ['netns', 'exec', netns.name, OVPN, 'run', process.execPath, FILE, misuse]
      const { status, stdout, stderr } = await run('ip', args)
      assert.deepEqual([status, stdout], [0, 'survived\n'], stderr)
    })
  }
})

for (const series of ['2.6', '2.7']) {
  describe(`OpenVPN ${series} whose supervisor is killed`, { skip: withoutProgram(series) }, () => {
    it('loses its interface, says that it has, and ends', async () => {
      const lab = openLab()
      try {
        const side = { program: programs[series]!, offload: true }
        const server = lab.startServer(side, 'udp')
        await server.says(STARTED)
        process.kill(supervisorOf(server.pid)!, 'SIGKILL')
        assert.equal((await server.ended).status, 1)
        assert.match(server.stdout, /netlink reports device not found/)
        assert.match(server.stdout, /Exiting due to fatal error/)
        assert.ok(!hasTunnel(lab.server))
        await until('nobody is left', () => !keeperIsThere(server.pid))
      } finally {
        await lab.close()
      }
    })
  })
}
