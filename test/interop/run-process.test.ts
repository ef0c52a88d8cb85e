/**
 * `ovpn run` as a process: OpenVPN as a daemon that gives up its rights, service managers, scripts, management, passwords,
 * and the rights that it needs itself.
 */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { OVPN, type Running, run, start } from '../command.ts'
import { openTestNetns, type TestNetns, withoutNamespaces } from '../namespace.ts'
import { listenForNotices, type Notices } from './notices.ts'
import { type Lab, openLab, ping, reached, SERVER_VPN, times } from './openvpn.ts'
import { programs, STARTED, until, withoutProgram } from './programs.ts'
import { supervisorOf } from './supervisor.ts'

const NOBODY = 65534
/** Of a hundred packets, while keys are renewed every few seconds. */
const RENEWAL_LOSS = 4
const LIGHT = ['tun-mtu 1400']

const textOf = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : '')
const hasTunnel = (end: TestNetns) => end.ip('-br link').includes('tun0')

/** A field of /proc/PID/status. */
function fieldOf(pid: number, name: string): string {
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(
    readFileSync(`/proc/${pid}/status`, 'utf8'),
  )![1]!
}

/** The first process that another has started. */
function childOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')[0])
}

/** Sends lines to a management interface, and resolves with what it says until `last`. */
function manage(path: string, lines: string[], last: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = ''
    const socket = createConnection({ path }, () => socket.write(`${lines.join('\n')}\n`))
    const timer = setTimeout(() => socket.destroy(new Error(`no ${last}, but: ${said}`)), 10_000)
    socket.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (last.test(said)) socket.end()
    })
    socket.on('error', reject)
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(said)
    })
  })
}

for (const series of ['2.6', '2.7']) {
  describe(`OpenVPN ${series} as a daemon of another user`, {
    skip: withoutProgram(series),
  }, () => {
    let lab: Lab
    let launched: Running
    let near: Running
    let pid: number
    const at = (name: string) => join(lab.folder, name)
    const log = () => textOf(at('log'))
    before(async () => {
      lab = openLab()
      chmodSync(lab.folder, 0o755)
      writeFileSync(at('hooks'), '')
      chmodSync(at('hooks'), 0o666)
      const hook = `#!/bin/sh\n{ echo "$script_type by $(id -u)"; ip -d link show dev "$dev"; } >> ${at('hooks')}\n`
      writeFileSync(at('hook'), hook, { mode: 0o755 })
      mkdirSync(at('root/tmp'), { recursive: true })
      chmodSync(at('root/tmp'), 0o777)
      const program = programs[series]!
      const persist = series === '2.6' ? ['persist-key'] : [] // 2.7 says that it always does
      const rights = ['user nobody', 'group nogroup', 'persist-tun', ...persist]
      launched = lab.startServer(
        {
          ...{ program, offload: true },
          more: [
            ...[...LIGHT, ...rights, 'daemon', `writepid ${at('pid')}`, `log ${at('log')}`],
            ...['script-security 2', `up ${at('hook')}`, `client-connect ${at('hook')}`],
            ...[`learn-address ${at('hook')}`, `management ${at('management')} unix`],
            'reneg-sec 3',
          ],
        },
        'udp',
      )
      await launched.ended
      await until('the daemon is up', () => STARTED.test(log()))
      pid = Number(textOf(at('pid')))
      // A plain prison: no shell, no /proc, no /dev.
      const held = ['management 127.0.0.1 7505', 'management-hold']
      near = lab.startClient(
        { program, offload: true, more: [...LIGHT, ...rights, ...held, `chroot ${at('root')}`] },
        'udp',
      )
      await near.says(/Need hold release from management interface/)
      // Nobody is in its namespace but what is started there.
      const release =
        'exec 3<>/dev/tcp/127.0.0.1/7505; printf "hold release\\nquit\\n" >&3; cat <&3'
      const managed = ['netns', 'exec', lab.client.name, 'bash', '-c', release]
      assert.match((await run('ip', managed)).stdout, /SUCCESS: hold release succeeded/)
      await near.says(STARTED)
      await reached(lab)
    })
    after(async () => {
      if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL')
      await lab.close()
    })

    it('its caller goes on, and has nothing to read', () => {
      const { status, stdout, stderr } = launched
      assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
    })

    it('has its process id written', () => {
      assert.notEqual(pid, launched.pid)
      assert.match(readFileSync(`/proc/${pid}/cmdline`, 'utf8'), /--config/)
    })

    it('has given its rights up', () => {
      assert.equal(Number(fieldOf(pid, 'Uid').split('\t')[0]), NOBODY)
      assert.equal(BigInt(`0x${fieldOf(pid, 'CapEff')}`), 1n << 12n, 'CAP_NET_ADMIN')
      assert.equal(Number(fieldOf(near.pid, 'Uid').split('\t')[0]), NOBODY)
    })

    it('runs its scripts, and their ip sees a link of its kind', () => {
      const kind = series === '2.6' ? 'ovpn-dco' : 'ovpn'
      for (const hook of ['up by 0', 'client-connect by 65534', 'learn-address by 65534']) {
        const seen = textOf(at('hooks')).split(hook)[1]
        assert.match(seen ?? '', new RegExp(`^\n\\d+: tun0: [^]*?^    ${kind} `, 'm'), hook)
      }
    })

    it('renews keys while packets flow', async () => {
      const renewals = () => log().match(/soft reset/g)?.length ?? 0
      const from = renewals()
      const lost = await ping(lab.client, SERVER_VPN, 70)
      assert.ok(lost <= RENEWAL_LOSS, `${lost} % lost`)
      assert.ok(renewals() > from, 'renewed meanwhile')
      assert.equal(near.stdout.match(new RegExp(STARTED, 'g'))?.length, 1)
    })

    it('answers over its management socket', async () => {
      const said = await manage(at('management'), ['pid', 'status 2'], /^END/m)
      assert.match(said, new RegExp(`^SUCCESS: pid=${pid}`, 'm'))
      const received = /^CLIENT_LIST,client,[^,]*,10\.8\.0\.2,[^,]*,(\d+),/m.exec(said)
      assert.ok(Number(received?.[1]) > 70 * 64, said)
    })

    it('ends when management asks, and all that was its with it', async () => {
      assert.ok(supervisorOf(launched.pid), 'served still')
      await manage(at('management'), ['signal SIGTERM'], /SIGTERM received/)
      await until('the daemon ends', () => !existsSync(`/proc/${pid}`))
      await until('the interface goes', () => !hasTunnel(lab.server))
      assert.match(log(), /SIGTERM\[hard,\] received, process exiting/)
      await until('its supervisor ends', () => supervisorOf(launched.pid) === undefined)
    })

    it('the client in its prison ends on SIGTERM', async () => {
      near.kill('SIGTERM')
      assert.equal((await near.ended).status, 0)
      await until('the interface goes', () => !hasTunnel(lab.client))
    })
  })
}

/** What the distribution's unit for servers leaves OpenVPN (openvpn-server@.service), and Docker a container. */
const UNIT =
  'ipc_lock net_admin net_bind_service net_raw setgid setuid setpcap sys_chroot dac_override audit_write'
const DOCKER = `chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw
  sys_chroot mknod audit_write setfcap`
const GUIDE = readFileSync(new URL('../../docs/RUN.md', import.meta.url), 'utf8')

/** Starts a program with these capabilities at most. */
function bounded(...names: string[]): string[] {
  const set = names.flatMap((list) =>
    list
      .toLowerCase()
      .replaceAll('cap_', '')
      .split(/[\s,]+/),
  )
  return ['setpriv', '--bounding-set', ['-all', ...set.map((name) => `+${name}`)].join(',')]
}

/** Which capabilities the guide adds, in its drop-in and for its container. */
const added = {
  service: /^CapabilityBoundingSet=(.*)$/m.exec(GUIDE)![1]!,
  container: [...GUIDE.matchAll(/--cap-add (\w+)/g)].map((found) => found[1]!).join(' '),
}
const CONTAINER = [
  'unshare',
  ...'--mount --pid --fork --mount-proc --ipc --uts --kill-child'.split(' '),
]

/** Under a filter of system calls as Docker's. */
const confined = (mode: 'insight' | 'none') => [process.execPath, CONFINED, mode]
const CONFINED = fileURLToPath(new URL('./confined.ts', import.meta.url))

type Place = 'service' | 'container'
const PLACES: [series: string, transport: 'udp' | 'tcp', server: Place, client: Place][] = [
  ['2.6', 'udp', 'service', 'container'],
  ['2.6', 'tcp', 'container', 'service'],
]

for (const [series, transport, server, client] of PLACES) {
  const title = `OpenVPN ${series}, ${transport}, from a ${client} to a ${server}`
  describe(title, { skip: withoutProgram(series) }, () => {
    let lab: Lab
    let notices: Notices
    const at = (name: string) => join(lab.folder, name)
    const ends: { [place in Place]?: Running } = {}
    const sideOf = (place: Place, ...renewal: string[]) => {
      const through = {
        service: [
          ...['env', `NOTIFY_SOCKET=${at('notify')}`],
          ...[...bounded(UNIT, added.service), '--no-new-privs'],
        ],
        container: [...CONTAINER, ...confined('insight'), ...bounded(DOCKER, added.container)],
      }[place]
      const more = [...LIGHT, 'user nobody', 'group nogroup', 'persist-tun', ...renewal]
      return { program: programs[series]!, offload: true, through, more }
    }
    before(async () => {
      lab = openLab()
      chmodSync(lab.folder, 0o755)
      notices = listenForNotices(at('notify'))
      chmodSync(at('notify'), 0o666)
      const far = lab.startServer(sideOf(server, 'reneg-sec 3'), transport)
      ends[server] = far
      await far.says(STARTED)
      const near = lab.startClient(sideOf(client), transport)
      ends[client] = near
      await near.says(STARTED)
      await reached(lab)
    })
    after(async () => {
      await lab.close()
      notices[Symbol.dispose]()
    })

    it('both have offload', () => {
      for (const end of [ends.service!, ends.container!])
        assert.match(end.stdout, /DCO device tun0 opened/)
    })

    it('carries packets both ways', async () => {
      assert.equal(await ping(lab.client, SERVER_VPN), 0)
      assert.equal(await ping(lab.server, '10.8.0.2'), 0)
    })

    it('renews keys within a session', async () => {
      const [far, near] = [ends[server]!, ends[client]!]
      const before = times(far, /soft reset/)
      const lost = await ping(lab.client, SERVER_VPN, 50)
      const logs = [far, near].map(({ stdout }) => stdout.slice(-3000)).join('\n---\n')
      assert.ok(lost <= RENEWAL_LOSS, `${lost} % lost\n${logs}`)
      assert.ok(times(far, /soft reset/) > before)
      assert.equal(times(near, STARTED), 1)
    })

    it('the service manager hears that it is ready, and of which process', () => {
      const { pid } = ends.service!
      assert.match(notices.text(), /^READY=1$/m)
      assert.match(notices.text(), /^STATUS=Initialization Sequence Completed$/m)
      assert.match(notices.text(), new RegExp(`^MAINPID=${pid}$`, 'm'))
    })

    it('stops as a service does', async () => {
      ends.service!.kill('SIGTERM')
      assert.equal((await ends.service!.ended).status, 0)
      const end = server === 'service' ? lab.server : lab.client
      await until('the interface goes', () => !hasTunnel(end))
    })

    it('stops as a container does', async () => {
      const { pid, ended } = ends.container!
      process.kill(childOf(pid), 'SIGTERM')
      assert.equal((await ended).status, 0)
      const end = server === 'container' ? lab.server : lab.client
      await until('the interface goes', () => !hasTunnel(end))
    })
  })
}

describe('ovpn run without the right to look into the program', { skip: withoutNamespaces }, () => {
  it('in a container without CAP_SYS_PTRACE: says so, or runs plainly with --fallback', async () => {
    const [bun, ...rest] = confined('none')
    const refused = await run(bun!, [...rest, OVPN, 'run', 'true'])
    assert.deepEqual([refused.status, refused.stdout], [1, ''])
    assert.match(refused.stderr, /cannot offload: .*\n.*--cap-add SYS_PTRACE/)
    const plain = await run(bun!, [...rest, OVPN, 'run', '--fallback', 'sh', '-c', 'exit 5'])
    assert.match(plain.stderr, /without offload/)
    assert.equal(plain.status, 5)
  })

  it('as root without it: serves until the program changes its user, and has said so', async () => {
    using netns = openTestNetns('runp')
    const { stdout, stderr } = await run('ip', [
      ...[
        'netns',
        'exec',
        netns.name,
        'setpriv',
        '--bounding-set',
        '-sys_ptrace',
        OVPN,
        'run',
        'sh',
        '-c',
      ],
      `ip link add vpn0 type ovpn && echo made
       setpriv --reuid ${NOBODY} --clear-groups ip link show || echo refused`,
    ])
    assert.equal(stdout, 'made\nrefused\n')
    assert.match(stderr, /changes its user, it loses offload: .*CAP_SYS_PTRACE/)
    assert.match(stderr, /Cannot open netlink socket: Permission denied/)
  })
})

describe('ovpn run openvpn, what its caller sees', { skip: withoutProgram('2.6') }, () => {
  const program = programs['2.6']!

  it('what it says and the status it ends with, where its options are wrong', async () => {
    const wrong = ['--client', '--dev', 'tun', '--remote', '192.0.2.1', '--ca', '/nowhere']
    const timeless = (text: string) => text.replace(/^[-\d]+ [:\d]+ /gm, '')
    const plain = await run(program, wrong)
    const under = await run(OVPN, ['run', program, ...wrong])
    assert.equal(plain.status, 1)
    assert.deepEqual([under.status, under.stderr], [plain.status, plain.stderr])
    assert.equal(timeless(under.stdout), timeless(plain.stdout))
  })

  it('signals to its supervisor change nothing', async () => {
    using netns = openTestNetns('runp')
    const script = 'echo begun; sleep 1; ip link add vpn0 type ovpn && ip -br link show vpn0'
    const args = ['netns', 'exec', netns.name, OVPN, 'run', 'sh', '-c', script]
    const running = start('ip', args)
    await running.says(/begun/)
    const supervisor = supervisorOf(running.pid)!
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const) {
      process.kill(supervisor, signal)
    }
    const { status, stdout } = await running.ended
    assert.match(stdout, /^vpn0/m)
    assert.equal(status, 0)
  })

  it('asks for the password of its key at the terminal', async () => {
    const lab = openLab()
    try {
      const key = join(lab.folder, 'key')
      const lock = ['pkey', '-aes256', '-passout', 'pass:secret', '-out', key]
      const { stdout } = await run('openssl', ['genpkey', '-algorithm', 'ed25519'])
      assert.equal((await run('openssl', lock, { input: stdout })).status, 0)
      const certificate = ['req', '-x509', '-key', key, '-passin', 'pass:secret', '-subj', '/CN=a']
      await run('openssl', [...certificate, '-out', `${key}.crt`])
      const files = `--ca ${key}.crt --cert ${key}.crt --key ${key}`
      const options = `--dev tun --server 10.8.0.0 255.255.255.0 --dh none ${files} --writepid ${key}.pid`
      const command = `exec ip netns exec ${lab.server.name} ${OVPN} run ${program} ${options}`
      // What is typed before it asks is thrown away.
      const typing = 'while sleep 0.3; do echo secret; done | script -qefc "$1" /dev/null'
      const running = start('sh', ['-c', typing, 'sh', command])
      await running.says(/Enter Private Key Password:/)
      await running.says(STARTED)
      process.kill(Number(textOf(`${key}.pid`)), 'SIGINT')
      assert.equal((await running.ended).status, 0)
    } finally {
      await lab.close()
    }
  })
})
