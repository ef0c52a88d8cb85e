/** The command line against a driver of its own: tunnels made as a user would make them, and errors as a user gets them. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { json as dialect, type Json } from '../../src/uapi/dialects/json.ts'
import type { Link } from '../../src/uapi/types.ts'
import { OVPN, type Running, run, start } from '../command.ts'
import { openTestNetns, type TestNetns, withoutNamespaces } from '../namespace.ts'

const folder = mkdtempSync(join(tmpdir(), 'ovpn-cli-'))
const socket = join(folder, 'driver.sock')
const env = { OVPN_SOCKET: socket }

/** Arguments as on a command line: none of them holds a space. */
const words = (line: string) => line.split(' ')
const ovpn = (line: string) => run(OVPN, words(line), { env })
const stay = (line: string) => start(OVPN, words(line), { env })

/** Runs a command that must succeed, and gives what it printed. */
async function ok(line: string): Promise<string> {
  const { status, stdout, stderr } = await ovpn(line)
  assert.equal(status, 0, `ovpn ${line}: ${stderr}`)
  return stdout
}

async function json<T>(line: string): Promise<T> {
  return JSON.parse(await ok(`${line} --json`)) as T
}

async function interrupt(command: Running): Promise<number | null> {
  command.kill('SIGINT')
  return (await command.ended).status
}

describe('ovpn', { skip: withoutNamespaces }, () => {
  let driver: Running
  let left: TestNetns
  let right: TestNetns

  before(async () => {
    left = openTestNetns('cli')
    right = openTestNetns('cli')
    left.ip(`link add wire type veth peer name wire netns ${right.name}`)
    left.ip('addr add 192.0.2.1/24 dev wire')
    right.ip('addr add 192.0.2.2/24 dev wire')
    for (const side of [left, right]) side.ip('link set wire up')
    driver = stay('driver')
    await driver.says(/listening on/)
  })

  after(async () => {
    await interrupt(driver)
    left[Symbol.dispose]()
    right[Symbol.dispose]()
    rmSync(folder, { recursive: true })
  })

  const ping = async (count: number) => {
    const line = `netns exec ${left.name} ping -c ${count} -i 0.05 -W 3 10.8.0.2`
    const { status, stdout } = await run('ip', words(line))
    assert.equal(status, 0, stdout)
  }

  it('the help has an example for every command', async () => {
    const commands = [
      'driver;demo;show;monitor;link add;link del;link show;peer new;peer set;peer get;peer del',
      'key new;key get;key swap;key del;key generate',
    ]
    for (const command of commands.join(';').split(';')) {
      assert.match(await ok(`${command} --help`), /Examples:\n {2}/, command)
    }
  })

  it('makes a tunnel over UDP that carries packets, tells of it, and takes it down', async () => {
    const near = `-n ${left.name}`
    const far = `-n ${right.name}`
    assert.equal(await ok(`link add ovpn0 --mode mp ${near}`), 'ovpn0\n')
    assert.equal((await json<Link>(`link add ovpn0 ${far} --workers 2`)).workers, 2)
    left.ip('addr add 10.8.0.1/24 dev ovpn0')
    right.ip('addr add 10.8.0.2/24 dev ovpn0')
    for (const side of [left, right]) side.ip('link set ovpn0 up')
    const monitor = stay(`monitor ${near} --json`)
    await monitor.says(/listening/)

    const nearPeer = stay(
      `peer new ovpn0 7 ${near} --udp-listen 192.0.2.1:1194 --remote 192.0.2.2:1195 --vpn-ip 10.8.0.2 --keepalive 20,60`,
    )
    const farPeer = stay(`peer new ovpn0 7 ${far} --udp-listen 1195 --remote 192.0.2.1:1194`)
    await Promise.all([nearPeer.says(/to remove it/), farPeer.says(/to remove it/)])
    const newKey = async (id: number, slot: string, format = 'classic') => {
      const file = join(folder, `${id}.key`)
      await ok(`key generate ${file}`)
      assert.equal(statSync(file).mode & 0o777, 0o600)
      const kind = `--cipher AES-256-GCM --format ${format}`
      const rest = `--slot ${slot} --id ${id} ${kind} --key-file ${file}`
      await ok(`key new ovpn0 7 ${near} ${rest} --direction 1`)
      await ok(`key new ovpn0 7 ${far} ${rest} --direction 0`)
    }
    await newKey(3, 'primary')
    await ping(3)

    const shown = await json<{ driver: string; devices: { peers: Json[] }[] }>(`show ${near}`)
    assert.equal(shown.driver, 'user')
    const peer = dialect.decodeReply('peer-get', shown.devices[0]!.peers[0]!)
    assert.equal(peer.id, 7)
    assert.equal(peer.remoteIpv4, '192.0.2.2')
    assert.equal(peer.remotePort, 1195)
    assert.equal(peer.transport, 'udp')
    assert.ok(peer.vpnRxBytes >= 3 * 84)
    assert.equal(peer.keys![0]!.keyId, 3)
    const text = await ok(`show ovpn0 ${near}`)
    assert.match(text, /^interface: ovpn0\n/)
    assert.match(text, /\npeer: 7\n {2}endpoint: 192\.0\.2\.2:1195 \(udp\)\n/)
    assert.match(text, /latest packet: \d+ seconds? ago/)
    assert.match(text, /key: primary: aes-gcm, id 3, /)

    await newKey(4, 'secondary', 'epoch')
    await ok(`key swap ovpn0 7 ${near}`)
    assert.equal(await ok(`key get ovpn0 7 ${near}`), 'primary: aes-gcm, id 4, epoch 1\n')
    await ping(1)
    assert.match(
      await ok(`show ovpn0 ${near}`),
      /key: primary: aes-gcm, id 4, .* sent in epoch 1\n/,
    )
    await ok(`key del ovpn0 7 ${near} --slot secondary`)
    assert.match((await ovpn(`key get ovpn0 7 ${near} --slot secondary`)).stderr, /ENOENT/)
    await ok(`peer set ovpn0 7 ${near} --keepalive off`)
    assert.equal(
      dialect.decodeReply('peer-get', await json<Json>(`peer get ovpn0 7 ${near}`))
        .keepaliveTimeout,
      0,
    )

    // A control packet reaches the owner of the socket, as text for people and programs.
    const hello = 'printf "\\070hello" > /dev/udp/192.0.2.1/1194'
    await run('ip', ['netns', 'exec', right.name, 'bash', '-c', hello])
    await nearPeer.says(/192\.0\.2\.2:\d+ {2}3868656c6c6f/)

    assert.equal(await interrupt(nearPeer), 0)
    await monitor.says(/peer-del-ntf/)
    assert.equal(await interrupt(monitor), 0)
    const event = JSON.parse(monitor.stdout)
    assert.equal(event.dev, 'ovpn0')
    assert.deepEqual(event.peer, { id: 7, 'del-reason': 'userspace' })
    await ok(`link del ovpn0 ${near}`)
    await ok(`link del ovpn0 ${far}`)
    assert.equal((await farPeer.ended).status, 0)
    assert.match(farPeer.stderr, /peer 7 of ovpn0 was removed: teardown/)
    assert.equal(await ok(`show ${near}`), '')
  })

  it('makes a tunnel over TCP between the two kinds of interface', async () => {
    const near = `-n ${left.name}`
    const far = `-n ${right.name}`
    await ok(`link add near0 --kind ovpn-dco ${near} --mtu 1300`)
    await ok(`link add far0 ${far} --mtu 1300`)
    left.ip('addr add 10.8.0.1/24 dev near0')
    right.ip('addr add 10.8.0.2/24 dev far0')
    left.ip('link set near0 up')
    right.ip('link set far0 up')
    const nearPeer = stay(`peer new near0 1 ${near} --tcp-listen 1194 --keepalive 9,90`)
    let farPeer: Running
    // It may connect before the other end listens.
    for (let tries = 0; ; tries++) {
      farPeer = stay(`peer new far0 1 ${far} --tcp-connect 192.0.2.1:1194`)
      if ((await farPeer.says(/to remove it/).catch(() => undefined)) !== undefined) break
      assert.ok(tries < 20, farPeer.stderr)
      await sleep(50)
    }
    await nearPeer.says(/to remove it/)
    const key = await ok('key generate')
    const rest = '--id 0 --cipher chacha20-poly1305'
    const hex = key.replace(/^[#-].*\n/gm, '')
    const fromEnvironment = await run(
      OVPN,
      words(`key new near0 1 ${near} ${rest} --direction 0 --key-env KEY`),
      { env: { ...env, KEY: hex } },
    )
    assert.equal(fromEnvironment.status, 0, fromEnvironment.stderr)
    const fromStdin = await run(
      OVPN,
      words(`key new far0 1 ${far} ${rest} --direction 1 --key-file -`),
      { env, input: key },
    )
    assert.equal(fromStdin.status, 0, fromStdin.stderr)
    await ping(3)
    const [peer] = await json<Json[]>(`peer get near0 ${near}`)
    const { transport, keepaliveTimeout } = dialect.decodeReply('peer-get', peer!)
    assert.deepEqual([transport, keepaliveTimeout], ['tcp', 90])
    await interrupt(nearPeer)
    await interrupt(farPeer)
    await ok(`link del near0 ${near}`)
    await ok(`link del far0 ${far}`)
  })

  it('lets peers share a UDP socket of another process', async () => {
    const near = `-n ${left.name}`
    await ok(`link add ovpn0 --mode mp ${near}`)
    const first = stay(
      `peer new ovpn0 1 ${near} --udp-listen 1194 --remote 192.0.2.2:1 --vpn-ip 10.8.0.2`,
    )
    const [, fd] = await first.says(/(--fd \d+:\d+)/)
    await ok(`peer new ovpn0 2 ${near} ${fd} --remote 192.0.2.2:2 --vpn-ip 10.8.0.3`)
    const taken = await ovpn(
      `peer new ovpn0 3 ${near} ${fd} --remote 192.0.2.2:3 --vpn-ip 10.8.0.3`,
    )
    assert.equal(taken.status, 1)
    assert.match(taken.stderr, /cannot add peer 3 to ovpn0: address already in use \(EADDRINUSE\)/)
    const peers = await json<Json[]>(`peer get ovpn0 ${near}`)
    const ports = peers.map((peer) => {
      const { id, localPort } = dialect.decodeReply('peer-get', peer)
      return [id, localPort]
    })
    assert.deepEqual(ports.sort(), [
      [1, 1194],
      [2, 1194],
    ])
    assert.equal(await interrupt(first), 0)
    await ok(`link del ovpn0 ${near}`)
  })

  describe('refuses', () => {
    before(async () => {
      await ok(`link add ovpn0 -n ${left.name}`)
      writeFileSync(join(folder, 'short.key'), '00ff\n')
    })
    after(() => ok(`link del ovpn0 -n ${left.name}`))

    const udp = '--udp-listen 1194'
    const key = 'key new ovpn0 1 --id 0 --cipher aes-256-gcm --direction 1'
    const rows: [args: string, status: number, says: RegExp, why: string][] = [
      ['peer get ovpn9', 1, /no interface 'ovpn9': the user driver has: ovpn0/, 'unknown device'],
      [
        'link add ovpn0',
        1,
        /cannot make the interface ovpn0: .*\(EEXIST\)/,
        'a name that is taken',
      ],
      ['peer get ovpn0 9', 1, /cannot read peer 9 of ovpn0: .*\(ENOENT\)/, 'unknown peer'],
      ['peer del ovpn0 9', 1, /cannot remove peer 9 of ovpn0: .*\(ENOENT\)/, 'unknown peer'],
      ['peer set ovpn0 9 --vpn-ip 10.8.0.9', 1, /EINVAL|ENOENT/, 'a VPN address in p2p mode'],
      [
        `peer new ovpn0 1 ${udp} --remote 192.0.2.2:1 --vpn-ip 10.8.0.9`,
        1,
        /EINVAL.*[Pp]/,
        'the same',
      ],
      ['peer new ovpn0 1 --remote 192.0.2.2:1', 2, /expected one of --udp-listen/, 'no socket'],
      [`peer new ovpn0 1 ${udp}`, 2, /expected --remote ADDR:PORT/, 'UDP to nowhere'],
      ['peer new ovpn0 1 --tcp-connect 192.0.2.2:9', 1, /ECONNREFUSED/, 'nobody listens there'],
      [
        'peer new ovpn0 1 --fd 99 --remote 192.0.2.2:1',
        1,
        /cannot use the descriptor: .*EBADF/,
        'no such descriptor',
      ],
      ['peer new ovpn0 1 --fd 1 --remote 192.0.2.2:1', 1, /ENOTSOCK/, 'a pipe'],
      ['peer new ovpn0 16777216 --fd 3', 2, /A peer id from 0 to 16777215 expected/, '25 bits'],
      ['peer set ovpn0 1', 2, /nothing to change/, 'no option'],
      ['peer set ovpn0 1 --keepalive 5', 2, /INTERVAL,TIMEOUT in seconds/, 'half of a pair'],
      [
        `${key} --key-file ${folder}/none.key`,
        1,
        /cannot read key material: .*ENOENT/,
        'no such file',
      ],
      [
        `${key} --key-file ${folder}/short.key`,
        1,
        /512 hexadecimal digits expected, not 4/,
        'too short',
      ],
      [key, 2, /expected one of --key-file and --key-env/, 'no key material'],
      [`${key} --key-env NOT_SET_ANYWHERE`, 1, /no environment variable/, 'not set'],
      ['key new ovpn0 1 --id 0 --cipher none --direction 1', 2, /One of aes-128-gcm/, 'no cipher'],
      ['link add x --mode tap', 2, /Allowed choices are p2p, mp/, 'unknown mode'],
      ['frobnicate', 2, /unknown command/, 'unknown command'],
      [
        'show --driver user --socket /nowhere/driver.sock',
        3,
        /no driver is running at .*'ovpn driver'/,
        'no driver',
      ],
    ]
    for (const [args, status, says, why] of rows) {
      it(`${why}: ovpn ${args.replace(folder, '')}`, async () => {
        const ended = await ovpn(args === 'frobnicate' ? args : `${args} -n ${left.name}`)
        assert.match(ended.stderr, says)
        assert.match(ended.stderr, /^ovpn: /)
        assert.equal(ended.status, status)
        assert.equal(ended.stdout, '')
      })
    }

    it('and leaves nothing half done', async () => {
      const links = await json<Link[]>(`link show -n ${left.name}`)
      assert.deepEqual(
        links.map(({ name, peers }) => [name, peers]),
        [['ovpn0', 0]],
      )
    })
  })

  describe('driver', () => {
    const path = join(folder, 'other.sock')
    const own = { env: { OVPN_SOCKET: path } }

    it('does not start twice on one socket, and takes over a dead one', async () => {
      const first = start(OVPN, ['driver', '--mode', '0640', '--group', 'nogroup'], own)
      await first.says(/listening/)
      const { mode, gid } = statSync(path)
      assert.equal(mode & 0o777, 0o640)
      assert.notEqual(gid, 0)
      const second = await run(OVPN, ['driver'], own)
      assert.equal(second.status, 1)
      assert.match(second.stderr, /EADDRINUSE\): a driver is running there/)
      first.kill('SIGKILL')
      await first.ended
      assert.ok(existsSync(path))
      const third = start(OVPN, ['driver'], own)
      await third.says(/listening/)
      third.kill('SIGTERM')
      assert.equal((await third.ended).status, 0)
      assert.ok(!existsSync(path))
    })

    it('takes its interfaces with it, and tells their peers', async () => {
      const mine = start(OVPN, ['driver'], own)
      await mine.says(/listening/)
      await run(OVPN, words(`link add ovpn5 -n ${right.name}`), own)
      const line = `peer new ovpn5 1 -n ${right.name} --udp-listen 1199 --remote 192.0.2.1:1`
      const peer = start(OVPN, words(line), own)
      await peer.says(/to remove it/)
      assert.match(right.ip('link show'), /ovpn5/)
      mine.kill('SIGTERM')
      assert.equal((await mine.ended).status, 0)
      assert.doesNotMatch(right.ip('link show'), /ovpn5/)
      assert.equal((await peer.ended).status, 0)
      assert.match(peer.stderr, /removed: teardown/)
    })

    it('refuses a file that is no socket, and leaves it', async () => {
      const file = join(folder, 'file')
      writeFileSync(file, 'mine')
      const { status, stderr } = await run(OVPN, ['driver', '--socket', file])
      assert.equal(status, 1)
      assert.match(stderr, /there is a file that is no socket/)
      assert.equal(statSync(file).size, 4)
    })

    it('says what it lacks to a user who is not root, and who may use it', async () => {
      const as = (...args: string[]) =>
        run('setpriv', ['--reuid=65534', '--clear-groups', ...args], { env })
      const start = await as(OVPN, 'driver', '--socket', join(folder, 'no.sock'))
      assert.equal(start.status, 1)
      assert.match(start.stderr, /CAP_NET_ADMIN: run it as root \(sudo\)/)
      const use = await as(OVPN, 'show', '--driver', 'user')
      assert.equal(use.status, 3)
      assert.match(use.stderr, /you may not use the driver/)
    })
  })
})
