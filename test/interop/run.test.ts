/** `ovpn run` with real programs: OpenVPN 2.6 and 2.7 as server and client, and small programs for what it keeps as it was. */
// npm test: early
// npm test: ordinary user
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { O_NONBLOCK } from '../../src/platform/layout.ts'
import { OVPN, type Running, run, start } from '../command.ts'
import { openTestNetns, type TestNetns, withoutNamespaces } from '../namespace.ts'
import { iperf, type Lab, openLab, ping, reached, SERVER_VPN, type Side } from './openvpn.ts'
import { programs, STARTED, until, withoutProgram } from './programs.ts'

const OFFLOADED = /DCO device tun0 opened/

const hasTunnel = (end: TestNetns) => end.ip('-br link').includes('tun0')

/** Has a server print its status, and reads how many bytes it has received from its one client. */
async function bytesReceived(server: Running): Promise<number> {
  const seen = server.stdout.length
  server.kill('SIGUSR2')
  const line = /CLIENT_LIST,client,[^,]*,[^,]*,[^,]*,(\d+),/
  await until('the status', () => line.test(server.stdout.slice(seen)))
  return Number(line.exec(server.stdout.slice(seen))![1])
}

describe('ovpn run, what stays as it was', { skip: withoutNamespaces }, () => {
  const shell = (script: string, input = '') => run(OVPN, ['run', 'sh', '-c', script], { input })

  it('the exit status', async () => assert.equal((await shell('exit 7')).status, 7))

  it('standard streams', async () => {
    const { stdout, stderr } = await shell('tr a-z A-Z; echo problem >&2', 'text')
    assert.deepEqual([stdout, stderr], ['TEXT', 'problem\n'])
  })

  for (const how of [[], ['--verbose'], [OVPN, 'run', '--fallback']]) {
    it(`pipes, which block who writes into them: ${['run', ...how].join(' ').replace(OVPN, 'ovpn')}`, async () => {
      const told =
        'ip link add vpn0 type ovpn; ip link del vpn0; grep -h flags: /proc/$$/fdinfo/[012]'
      const piped = '{ true | "$@" 2>&1 >&3 | cat >&2; } 3>&1 | cat'
      using netns = openTestNetns('runf')
      const command = ['ip', 'netns', 'exec', netns.name, OVPN, 'run', ...how, 'sh', '-c', told]
      const { stdout } = await run('sh', ['-c', piped, 'sh', ...command])
      const flags = [...stdout.matchAll(/^flags:\s*(\d+)$/gm)].map(([, octal]) =>
        parseInt(octal!, 8),
      )
      assert.deepEqual(
        flags.map((each) => each & O_NONBLOCK),
        [0, 0, 0],
        stdout,
      )
    })
  }

  it('the process id, and with it signals', async () => {
    const running = start(OVPN, ['run', 'sh', '-c', "trap 'exit 3' TERM; echo $$; sleep 5 & wait"])
    const [pid] = await running.says(/\d+\n/)
    assert.equal(Number(pid), running.pid)
    running.kill('SIGTERM')
    assert.equal((await running.ended).status, 3)
  })

  it('signals that are ignored, descriptors, arguments, environment', async () => {
    const script = 'grep SigIgn /proc/self/status; ls /proc/self/fd | wc -l; echo "$1|$OVPN_TEST"'
    const env = { OVPN_TEST: 'a b' }
    const plain = await run('sh', ['-c', script, '--', '--help *'], { env })
    const under = await run(OVPN, ['run', 'sh', '-c', script, '--', '--help *'], { env })
    assert.equal(under.stdout, plain.stdout)
  })

  it('children that the program did not start: none', async () => {
    const { stdout } = await shell('cat /proc/$$/task/$$/children')
    assert.doesNotMatch(stdout.trim(), / /, 'only cat itself')
  })

  it('a program that is not there: 127, and why', async () => {
    const { status, stderr } = await run(OVPN, ['run', 'ovpn-no-such-program'])
    assert.deepEqual([status, /command not found/.test(stderr)], [127, true])
  })

  it('a file that is no program: 126', async () => {
    const { status, stderr } = await run(OVPN, ['run', '/etc'])
    assert.deepEqual([status, /EACCES/.test(stderr)], [126, true])
  })

  it('under another one: refused, or plainly with --fallback', async () => {
    const again = await run(OVPN, ['run', OVPN, 'run', 'true'])
    assert.match(again.stderr, /around already/)
    assert.equal(again.status, 1)
    const plainly = await run(OVPN, ['run', OVPN, 'run', '--fallback', 'sh', '-c', 'exit 4'])
    assert.match(plainly.stderr, /without offload/)
    assert.equal(plainly.status, 4)
  })

  it('leaves nobody behind', async () => {
    const { stdout } = await shell('echo $$')
    const pid = stdout.trim()
    const theirs = new RegExp(`run-supervisor --workers 1 ${pid} |keeper of ${pid}( |$)`)
    await until('all have ended', () => !commandLines().some((line) => theirs.test(line)))
  })
})

/** Of all processes. */
function commandLines(): string[] {
  const { stdout } = Bun.spawnSync(['ps', '-eo', 'args'])
  return stdout.toString().split('\n')
}

describe('ovpn run ip', { skip: withoutNamespaces }, () => {
  let netns: TestNetns
  before(() => {
    netns = openTestNetns('runi')
  })
  after(() => netns[Symbol.dispose]())

  const inside = (script: string) =>
    run('ip', ['netns', 'exec', netns.name, OVPN, 'run', 'sh', '-ec', script])

  for (const kind of ['ovpn', 'ovpn-dco']) {
    it(`makes, shows, changes and removes a link of kind ${kind}`, async () => {
      const { status, stdout, stderr } = await inside(
        `ip link add vpn0 type ${kind}; ip link set vpn0 mtu 1300 up; ip -d link show vpn0; ip -d link
         ip link del vpn0; ip link show vpn0 || echo gone`,
      )
      assert.equal(status, 0, stderr)
      const shown = new RegExp(`vpn0: <[A-Z,-]*UP[^]*mtu 1300[^]*${kind} `, 'g')
      assert.equal(stdout.match(shown)?.length, 1)
      assert.match(stdout, /gone/)
    })
  }

  it('removes the link when the program ends', async () => {
    assert.equal((await inside('ip link add vpn0 type ovpn; ip link show vpn0')).status, 0)
    await until('the link goes', () => !netns.ip('-br link').includes('vpn0'))
  })

  it('removes the link when the program is killed', async () => {
    const script = 'ip link add vpn0 type ovpn; sleep 20 & echo made $!; wait'
    const running = start('ip', ['netns', 'exec', netns.name, OVPN, 'run', 'sh', '-c', script])
    const [, child] = await running.says(/made (\d+)/)
    assert.ok(netns.ip('-br link').includes('vpn0'))
    running.kill('SIGKILL')
    process.kill(Number(child), 'SIGKILL') // it was served as well
    await running.ended
    await until('the link goes', () => !netns.ip('-br link').includes('vpn0'))
  })

  it("leaves other links to the kernel, with the kernel's errors", async () => {
    const { stdout, stderr } = await inside(
      `ip link add d0 type dummy 2>/dev/null && ip link del d0
       ip addr add 10.9.0.1/24 dev lo; ip route get 10.9.0.1; ip link add x0 type nonsense || echo refused`,
    )
    assert.match(stdout, /local 10\.9\.0\.1/)
    assert.match(stdout, /refused/)
    assert.match(stderr, /Unknown device type|Operation not supported/)
  })
})

describe('ovpn run without all capabilities', { skip: withoutNamespaces }, () => {
  it('makes a link with the capabilities of a container', async () => {
    using netns = openTestNetns('runu')
    const script = 'ip link add vpn0 type ovpn; ip link set vpn0 up; ip -br link show vpn0'
    const { stdout, stderr } = await run('ip', [
      ...['netns', 'exec', netns.name, 'setpriv', '--bounding-set', '-all,+net_admin,+sys_ptrace'],
      ...[OVPN, 'run', 'sh', '-c', script],
    ])
    assert.match(stdout, /^vpn0 .*UP/, stderr)
  })

  it('says what is missing without CAP_NET_ADMIN, and runs plainly with --fallback', async () => {
    const without = ['--bounding-set', '-net_admin', OVPN, 'run']
    const refused = await run('setpriv', [...without, 'true'])
    assert.deepEqual([refused.status, /CAP_NET_ADMIN/.test(refused.stderr)], [1, true])
    const plain = await run('setpriv', [...without, '--fallback', 'sh', '-c', 'exit 5'])
    assert.deepEqual([plain.status, /without offload/.test(plain.stderr)], [5, true])
  })
})

type Transport = 'udp' | 'tcp'

const SESSIONS: [Transport, server: string, client: string, 'both' | 'server' | 'client'][] = [
  ['udp', '2.6', '2.6', 'both'],
  ['udp', '2.7', '2.7', 'both'],
  ['udp', '2.6', '2.7', 'both'],
  ['udp', '2.6', '2.6', 'server'],
  ['udp', '2.7', '2.6', 'client'],
  ['tcp', '2.6', '2.6', 'both'],
  ['tcp', '2.7', '2.7', 'server'],
  ['tcp', '2.7', '2.6', 'client'],
]

for (const [transport, server, client, offload] of SESSIONS) {
  const skip = withoutProgram(server) || withoutProgram(client)
  describe(`OpenVPN ${server} to ${client}, ${transport}, offloaded: ${offload}`, { skip }, () => {
    const side = (series: string, offloaded: boolean): Side => ({
      program: programs[series]!,
      offload: offloaded,
      more: offloaded ? ['tun-mtu 1400'] : ['disable-dco', 'tun-mtu 1400'],
    })
    let lab: Lab
    let near: Running
    let far: Running
    before(async () => {
      lab = openLab()
      far = lab.startServer(side(server, offload !== 'client'), transport)
      await far.says(STARTED)
      near = lab.startClient(side(client, offload !== 'server'), transport)
      await near.says(STARTED)
      await reached(lab)
    })
    after(() => lab.close())

    it('says that offload is on where it is', () => {
      assert.equal(OFFLOADED.test(far.stdout), offload !== 'client')
      assert.equal(OFFLOADED.test(near.stdout), offload !== 'server')
    })

    it('carries packets both ways', async () => {
      assert.equal(await ping(lab.client, SERVER_VPN), 0)
      assert.equal(await ping(lab.server, '10.8.0.2'), 0)
    })

    it('counts them in its status', async () => {
      const from = await bytesReceived(far)
      await iperf(lab, 1)
      const got = (await bytesReceived(far)) - from
      assert.ok(got > 1_000_000, `${got} bytes of a second of TCP`)
    })

    it('ends on SIGTERM, and its interface with it', async () => {
      near.kill('SIGTERM')
      await near.ended
      await until('the interface goes', () => !hasTunnel(lab.client))
      assert.match(near.stdout, /SIGTERM\[hard,\] received, process exiting/)
    })
  })
}

/** Under load keys are renewed over either transport by either series here; all four are run-driver.test.ts's. */
const LONG: [series: string, Transport, load: boolean][] = [
  ['2.6', 'udp', true],
  ['2.7', 'udp', false],
  ['2.6', 'tcp', false],
  ['2.7', 'tcp', true],
]
/** Of a hundred packets, to full queues: none is lost for want of a key, as run-driver.test.ts has the driver tell. */
const RENEWAL_LOSS = 2

for (const [series, transport, load] of LONG) {
  describe(`OpenVPN ${series} over ${transport}, in the course of time`, {
    skip: withoutProgram(series),
  }, () => {
    let lab: Lab
    let near: Running
    let far: Running
    const count = (running: Running, pattern: RegExp) =>
      (running.stdout.match(new RegExp(pattern, 'g')) ?? []).length
    before(async () => {
      lab = openLab()
      const side = { program: programs[series]!, offload: true, more: ['tun-mtu 1400'] }
      const more = [...side.more, 'reneg-sec 5', 'keepalive 1 5']
      far = lab.startServer({ ...side, more }, transport)
      await far.says(STARTED)
      near = lab.startClient(side, transport)
      await near.says(STARTED)
      await reached(lab)
    })
    after(() => lab.close())

    if (load) {
      it('renews keys while packets flow, losing single packets at most', async () => {
        const stream = iperf(lab, 12)
        const lost = await ping(lab.client, SERVER_VPN, 130)
        assert.ok(lost <= RENEWAL_LOSS, `${lost} % lost`)
        await stream
        assert.ok(count(far, /soft reset/) >= 2, 'renewed twice at least')
        assert.equal(count(near, STARTED), 1, 'no new session')
      })
    }

    it('connects anew after SIGUSR1', async () => {
      near.kill('SIGUSR1')
      await until('a second session', () => count(near, STARTED) === 2, 15)
      await reached(lab)
      assert.equal(await ping(lab.client, SERVER_VPN), 0)
    })

    it('serves again after SIGHUP', async () => {
      far.kill('SIGHUP')
      await until('a second start', () => count(far, STARTED) === 2, 15)
      await until('a third session', () => count(near, STARTED) >= 3, 25)
      await reached(lab)
      assert.equal(await ping(lab.client, SERVER_VPN), 0)
    })
  })
}
