/** What a new user does: `npm start`, OpenVPN with the profile it made; and the examples, as they are printed. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { OVPN, type Running, run, start } from '../command.ts'
import { ping } from '../interop/openvpn.ts'
import { programs, STARTED, withoutProgram } from '../interop/programs.ts'
import { openTestNetns, type TestNetns } from '../namespace.ts'

const BUN = fileURLToPath(new URL('../../node_modules/.bin/bun', import.meta.url))
const example = (name: string) => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url))

const OUTSIDE = { server: '192.0.2.1', client: '192.0.2.2' }
const SERVER_VPN = '10.8.0.1'

describe('a server from nothing', { skip: withoutProgram('2.6') }, () => {
  let folder: string
  let server: TestNetns
  let client: TestNetns
  const running: Running[] = []

  const at = (where: TestNetns, command: string, ...args: string[]) => {
    const started = start('ip', ['netns', 'exec', where.name, command, ...args], { cwd: folder })
    running.push(started)
    return started
  }
  const stop = async (one: Running) => {
    one.kill('SIGTERM')
    return one.ended
  }
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'ovpn-quick-'))
    server = openTestNetns('qs')
    client = openTestNetns('qc')
    server.ip(`link add s0 type veth peer name c0 netns ${client.name}`)
    server.ip(`addr add ${OUTSIDE.server}/24 dev s0`)
    client.ip(`addr add ${OUTSIDE.client}/24 dev c0`)
    server.ip('link set s0 up')
    client.ip('link set c0 up')
  })
  // One that a test has failed to end would have the next ones fail.
  afterEach(() => Promise.all(running.splice(0).map(stop)))
  after(() => {
    server[Symbol.dispose]()
    client[Symbol.dispose]()
    rmSync(folder, { recursive: true, force: true })
  })

  it('makes a folder with all that it needs, says how to connect, and shows who comes', async () => {
    const served = at(server, OVPN, 'server', '--host', OUTSIDE.server)
    await served.says(/Ctrl-C ends the server/)
    const made = readdirSync(join(folder, 'ovpn-server'))
    for (const name of ['server.conf', 'client.ovpn', 'tls-crypt-v2.key', 'pki']) {
      assert.ok(made.includes(name), name)
    }
    assert.equal(statSync(join(folder, 'ovpn-server')).mode & 0o077, 0, 'keys are nobody else’s')
    const stock = at(client, programs['2.6']!, '--config', 'ovpn-server/client.ovpn')
    await stock.says(STARTED)
    await served.says(/client\/.*: connected, 10\.8\.0\.2 fd/)
    assert.equal(await ping(client, SERVER_VPN), 0)
    await stop(stock)
    await served.says(/it has left/)
    const { status, stdout } = await stop(served)
    assert.equal(status, 0)
    assert.match(stdout, /gone after \d+ s/)
    assert.doesNotMatch(server.ip('-br link'), /ovpn/)
  })

  it('finds its folder again, and lets `ovpn client` in with the same profile', async () => {
    const before = readFileSync(join(folder, 'ovpn-server', 'pki', 'ca.crt'), 'utf8')
    const served = at(server, OVPN, 'server')
    await served.says(/Using ovpn-server/)
    assert.equal(readFileSync(join(folder, 'ovpn-server', 'pki', 'ca.crt'), 'utf8'), before)
    const ours = at(client, OVPN, 'client', 'ovpn-server/client.ovpn')
    await ours.says(STARTED)
    assert.equal(await ping(client, SERVER_VPN), 0)
    const { status } = await stop(ours)
    assert.equal(status, 0)
    assert.doesNotMatch(client.ip('-br link'), /ovpn/)
    await served.says(/gone after/)
    await stop(served)
  })

  it('refuses a client whose certificate was revoked', async () => {
    const served = at(server, OVPN, 'server')
    await served.says(STARTED)
    const revoked = await run(OVPN, ['pki', 'revoke', 'client'], { cwd: folder })
    assert.equal(revoked.status, 0, revoked.stderr)
    const stock = at(client, programs['2.6']!, '--config', 'ovpn-server/client.ovpn')
    await served.says(/revoked/)
    assert.doesNotMatch(stock.stdout, STARTED)
    await stop(stock)
    await stop(served)
  })

  it('makes certificates again after the disk was full', async () => {
    const steps = `
      mount -t tmpfs -o size=64k none . && cd $PWD && ${OVPN} pki init
      head -c 100k /dev/zero > rest 2>&-; ${OVPN} pki client alice; rm rest
      find pki -name '.*'; ${OVPN} pki client alice`
    const { status, stdout, stderr } = await run('unshare', ['--mount', 'sh', '-c', steps], {
      cwd: folder,
    })
    assert.match(stderr, /^ovpn: .*no space left on device/)
    assert.doesNotMatch(stdout, /pki.*\/\./, 'nothing is left lying')
    assert.equal(status, 0, stderr)
  })

  describe('the examples', () => {
    let profile: string

    before(async () => {
      const args = ['profile', 'alice', '--host', OUTSIDE.server]
      const made = await run(OVPN, args, { cwd: folder })
      assert.equal(made.status, 0, made.stderr)
      profile = join(folder, 'alice.ovpn')
      writeFileSync(profile, `auth-user-pass\n${made.stdout}`)
    })

    it('serve a user with the right password, and no other', async () => {
      const served = at(server, BUN, example('server.ts'), 'ovpn-server')
      await served.says(/listening on ovpn/)
      const wrong = at(client, BUN, example('client.ts'), profile, 'alice', 'looking-glass')
      const { status, stderr } = await wrong.ended
      assert.equal(status, 1)
      assert.match(stderr, /refused: .*no such user, or a wrong password/)

      const right = at(client, BUN, example('client.ts'), profile, 'alice', 'wonderland')
      await right.says(/connected to 192\.0\.2\.1: ovpn\d+ 10\.8\.0\.10, AES-256-GCM/)
      await served.says(/alice has 10\.8\.0\.10/)
      assert.match(client.ip('route'), /10\.66\.5\.0\/24 dev ovpn/)
      assert.equal(await ping(client, SERVER_VPN), 0)
      await right.says(/[1-9]\d* in, [1-9]\d* out/)
      await stop(right)
      await served.says(/alice has gone: it has left; [1-9]\d* bytes in/)
      const { status: end } = await stop(served)
      assert.equal(end, 0)
    })
  })
})
