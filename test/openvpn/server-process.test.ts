/** `ovpn server` as a process, with OpenVPN 2.6 as its clients: programs it runs, users, signals and files. */
// npm test: load 1
import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type Running, run } from '../command.ts'
import { ping } from '../interop/openvpn.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity as identityOf, Peers, stop } from './peers.ts'

const SECONDS = 40
/** Both ends tell the other when they go. */
const identity = (name: string) => [...identityOf(name), 'explicit-exit-notify 1']
const RENEG_SECONDS = 8
/** CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_NET_RAW. */
const NEEDED = (1 << 10) | (1 << 12) | (1 << 13)

describe('ovpn server', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers
  let folder: string

  before(async () => {
    peers = await Peers.open()
    folder = peers.lab.folder
    // Programs run as nobody write here too.
    chmodSync(folder, 0o777)
  })
  after(() => peers?.close())

  const read = (name: string) => readFileSync(join(folder, name), 'utf8')
  const has = (name: string) => existsSync(join(folder, name))
  /** A program that keeps what it was told, by its kind, in files; `more` comes after that. */
  const program = (name: string, more = ''): string => {
    const path = join(folder, name)
    writeFileSync(
      path,
      `#!/bin/sh\nenv > "${folder}/$script_type.env"\necho "$@" >> "${folder}/$script_type.args"\n${more}\n`,
    )
    chmodSync(path, 0o755)
    return path
  }
  const variables = (type: string) =>
    new Map(
      read(`${type}.env`)
        .split('\n')
        .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
    )
  /** Whether it has shaken hands so often. */
  const renewed = (client: Running, times: number) => () =>
    (client.stdout.match(/VERIFY OK: depth=0/g) ?? []).length >= times

  for (const [setting, bytes, why] of [
    ['', 4 << 20, 'room for the first packets of many clients'],
    ['rcvbuf 100000', 100_000, 'as the configuration says'],
    ['rcvbuf 0', undefined, 'as the system has it'],
  ] as const) {
    it(`has a receive buffer: ${why}`, async () => {
      const server = await peers.server('ours', 1, [...identity('server'), setting])
      const args = ['netns', 'exec', peers.lab.server.name, 'ss', '-uanm']
      const { stdout } = await run('ip', args)
      // The kernel doubles what it is told. The driver's sockets beside it have buffers of their own.
      const system = Number(readFileSync('/proc/sys/net/core/rmem_default', 'utf8'))
      assert.ok(stdout.includes(`,rb${bytes === undefined ? system : 2 * bytes},`), stdout)
      await stop(server)
    })
  }

  it('runs programs, which are told of clients and decide about them', async () => {
    const keep = program('keep.sh')
    const decide = program(
      'decide.sh',
      [
        'cp "$1" "$(dirname "$0")/shown"',
        '[ "$username" = late ] && { (sleep 1; echo 1 > "$auth_control_file") & exit 2; }',
        '[ "$username" = nobody ] && { echo "never heard of you" > "$auth_failed_reason_file"; exit 1; }',
        'exit 0',
      ].join('\n'),
    )
    const settings = program('settings.sh', 'echo \'push "route 10.77.0.0 255.255.0.0"\' > "$1"')
    mkdirSync(join(folder, 'ccd'))
    peers.write(
      'ccd/client',
      'ifconfig-push 10.8.1.77 255.255.255.0\niroute 10.99.0.0 255.255.0.0\n',
    )
    const server = await peers.server('ours', 1, [
      ...identity('server'),
      ...['script-security 2', `tls-verify ${keep}`, `up ${keep}`, `down ${keep}`],
      ...[`auth-user-pass-verify ${decide} via-file`, `client-connect ${settings}`],
      ...[`client-disconnect ${keep}`, `learn-address ${keep}`, `client-config-dir ${folder}/ccd`],
      ...['setenv COLOUR blue', 'route 10.99.0.0 255.255.0.0', 'txqueuelen 321'],
    ])
    assert.equal(variables('up').get('dev'), 'vpn1')
    assert.match(peers.lab.server.ip('link show vpn1'), /qlen 321/)

    peers.write('login', 'alice\nlook&ing glass\n')
    const info = ['push-peer-info', 'setenv UV_SEAT 12']
    const login = [...identity('client'), `auth-user-pass ${folder}/login`, ...info]
    const client = peers.client('2.6', 1, login)
    await client.says(STARTED)
    assert.equal(read('shown'), 'alice\nlook&ing glass\n')
    assert.deepEqual(read('tls-verify.args').trim().split('\n'), ['1 CN=authority', '0 CN=client'])
    const told = variables('user-pass-verify')
    assert.equal(told.get('common_name'), 'client')
    assert.equal(told.get('username'), 'alice')
    assert.equal(told.get('untrusted_ip'), '192.0.2.2')
    assert.equal(told.get('X509_0_CN'), 'client')
    assert.equal(told.get('COLOUR'), 'blue')
    assert.match(told.get('IV_VER') ?? '', /^2\.6/)
    assert.match(told.get('IV_SSL') ?? '', /^OpenSSL/)
    assert.equal(told.get('UV_SEAT'), '12')
    assert.equal(told.get('password'), undefined, 'it is in the file')
    assert.equal(told.get('PATH')?.includes('/usr/bin'), true)
    assert.match(peers.lab.client.ip('route'), /10\.77\.0\.0\/16/)
    assert.match(peers.lab.client.ip('address'), /10\.8\.1\.77\/24/)
    assert.match(peers.lab.server.ip('route'), /10\.99\.0\.0\/16 via 10\.8\.1\.77/)
    await until('learn-address', () => read('learn-address.args').includes('10.99.0.0/16'), SECONDS)
    assert.match(read('learn-address.args'), /^add 10\.8\.1\.77 client$/m)

    await stop(client)
    await until('client-disconnect', () => has('client-disconnect.env'), SECONDS)
    const farewell = variables('client-disconnect')
    assert.match(farewell.get('bytes_received') ?? '', /^[1-9]\d*$/)
    assert.match(farewell.get('time_duration') ?? '', /^\d+$/)
    assert.equal(farewell.get('ifconfig_pool_remote_ip'), '10.8.1.77')
    await until('delete', () => /^delete 10\.8\.1\.77$/m.test(read('learn-address.args')), SECONDS)

    peers.write('login', 'late\nx\n')
    const late = peers.client('2.6', 1, login)
    await late.says(STARTED)
    await stop(late)
    peers.write('login', 'nobody\nx\n')
    const refused = peers.client('2.6', 1, login)
    await refused.says(/AUTH_FAILED,never heard of you|never heard of you/)
    await stop(refused)
    await stop(server)
    assert.equal(variables('down').get('dev'), 'vpn1')
  })

  it('gives up root, and goes on: clients come, renew keys and go', async () => {
    const lines = ['user nobody', 'group nogroup', `writepid ${folder}/pid`]
    const files = [`status ${folder}/status 1`, `ifconfig-pool-persist ${folder}/pool 1`]
    const renewals = [`reneg-sec ${RENEG_SECONDS} ${RENEG_SECONDS}`, 'hand-window 6']
    const verify = [`auth-user-pass-verify ${program('accept.sh')} via-file`, 'script-security 2']
    const more = [...lines, ...files, ...renewals, ...verify, 'auth-gen-token']
    const server = await peers.server('ours', 2, [...identity('server'), ...more])
    const pid = read('pid').trim()
    const tasks = () =>
      readdirSync(`/proc/${pid}/task`).map((task) =>
        readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8'),
      )
    const excess = (status: string) =>
      Number(`0x${/^CapEff:\t(\w+)$/m.exec(status)?.[1]}`) & ~NEEDED
    assert(tasks().length > 1, 'it has threads')
    for (const status of tasks()) assert.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m)
    await until('no thread has more than it needs', () => !tasks().some(excess), SECONDS)
    peers.write('login', 'alice\nsecret\n')
    // Root's from another test: nobody could not write there.
    rmSync(join(folder, 'user-pass-verify.args'), { force: true })
    rmSync(join(folder, 'user-pass-verify.env'), { force: true })
    const calls = () => read('user-pass-verify.args').trim().split('\n').length
    const client = peers.client('2.6', 2, [...identity('client'), `auth-user-pass ${folder}/login`])
    await client.says(STARTED)
    assert.equal(await ping(peers.lab.client, '10.8.2.1', 3), 0)
    await until('new keys', renewed(client, 3), SECONDS)
    assert.equal(await ping(peers.lab.client, '10.8.2.1', 3), 0)
    assert.equal(calls(), 1, 'a token was shown in place of the password')
    await until('the status', () => /^client,.*192\.0\.2\.2:\d+,/m.test(read('status')), SECONDS)
    await until('the pool', () => /^client,10\.8\.2\.2/m.test(read('pool')), SECONDS)

    // A new interface, though /dev/net/tun is root's alone.
    const starts = (running: Running) => running.stdout.match(new RegExp(STARTED, 'g'))?.length
    server.kill('SIGUSR1')
    await until('the server', () => starts(server) === 2, SECONDS)
    await until('the client', () => starts(client) === 2, SECONDS)
    assert.equal(await ping(peers.lab.client, '10.8.2.1', 3), 0)
    assert(!tasks().some(excess), 'its threads have no more than before')

    await stop(client)
    await stop(server)
    assert.equal(server.status, 0)
    assert.doesNotMatch(peers.lab.server.ip('-br link'), /vpn2/)
  })

  it('reads its configuration anew, with clients connected', async () => {
    const lines = [...identity('server'), 'push "route 10.55.0.0 255.255.0.0"']
    const server = await peers.server('ours', 3, lines)
    const client = peers.client('2.6', 3, identity('client'))
    await client.says(STARTED)
    const config = join(folder, 'server3.conf')
    const first = readFileSync(config, 'utf8')

    writeFileSync(config, `${first}\nno-such-directive\n`)
    server.kill('SIGHUP')
    await server.says(/no-such-directive/)

    writeFileSync(config, first.replace('10.55.0.0', '10.66.0.0'))
    server.kill('SIGHUP')
    await server.says(/clients stay connected/)
    assert.equal(await ping(peers.lab.client, '10.8.3.1', 3), 0)
    server.kill('SIGUSR2')
    await server.says(/^.*client,(udp4:)?192\.0\.2\.2:\d+/m)
    await stop(client)
    const next = peers.client('2.6', 3, identity('client'))
    await next.says(STARTED)
    assert.match(peers.lab.client.ip('route'), /10\.66\.0\.0\/16/)

    writeFileSync(config, first.replace('fd00:8:3::/64', 'fd00:9:3::/64'))
    server.kill('SIGHUP')
    await server.says(/starting anew, because of: .*ifconfigIpv6/)
    await until(
      'the client',
      () => next.stdout.match(new RegExp(STARTED, 'g'))?.length === 2,
      SECONDS,
    )
    assert.match(peers.lab.client.ip('address'), /fd00:9:3::/)
    await stop(next)
    await stop(server)
  })

  it('writes its log to a file, in the form that is asked for', async () => {
    const rows: [lines: string[], form: RegExp][] = [
      [['suppress-timestamps'], /^Initialization Sequence Completed/m],
      [['machine-readable-output'], /^\d{10}\.\d{6} 1 Initialization Sequence Completed/m],
    ]
    for (const [lines, form] of rows) {
      const config = peers.write(
        'log.conf',
        [
          ...['port 1299', 'dev vpn9', 'dev-type tun', 'dh none', 'topology subnet'],
          ...[
            'server 10.8.9.0 255.255.255.0',
            ...identity('server'),
            'log server.log',
            ...lines,
            '',
          ],
        ].join('\n'),
      )
      const server = peers.start(peers.lab.server, 'ours', 'server', config)
      await until('the log', () => has('server.log') && form.test(read('server.log')), SECONDS)
      await stop(server)
      assert.doesNotMatch(server.stdout, STARTED)
    }
  })
})
