/**
 * Encrypted keys of our server and client where the configuration does not say `askpass`: whoever manages is asked, as OpenVPN asks; and
 * what is said where nobody can be asked.
 */
// npm test: load 1
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'

import { OVPN, type Running, start } from '../command.ts'
import { type Management, openManagement } from '../interop/management.ts'
import { STARTED, until } from '../interop/programs.ts'
import { withoutNamespaces } from '../namespace.ts'
import { identity, Peers, stop } from './peers.ts'

const SECONDS = 40
const NUMBER = 1
const REFUSED = ">PASSWORD:Verification Failed: 'Private Key'"
const version = spawnSync('openssl', ['version'], { encoding: 'utf8' })
const withoutOpenssl = /^OpenSSL 3/.test(version.stdout ?? '')
  ? false
  : 'there is no OpenSSL 3 to encrypt keys with'

const withoutScript =
  spawnSync('script', ['--version']).status === 0 ? false : 'there is no script(1) to be a terminal'

describe('the password of a key', { skip: withoutNamespaces || withoutOpenssl }, () => {
  let peers: Peers
  let server: Running
  before(async () => {
    peers = await Peers.open()
    const openssl = (...args: string[]) =>
      execFileSync('openssl', args, { cwd: peers.lab.folder, stdio: 'pipe' })
    const pack = ['-in', 'client.crt', '-inkey', 'client.key', '-certfile', 'ca.crt']
    openssl('pkcs12', '-export', ...pack, '-out', 'client.p12', '-passout', 'pass:secret')
    openssl('pkcs8', '-topk8', '-in', 'client.key', '-out', 'hidden.key', '-passout', 'pass:secret')
    openssl('pkcs8', '-topk8', '-in', 'server.key', '-out', 'server.p8', '-passout', 'pass:secret')
    server = await peers.server('ours', NUMBER, identity('server'))
  })
  after(() => peers?.close())

  const rows: [lines: string[], why: string][] = [
    [['pkcs12 client.p12'], 'a pkcs12 file that brings its authority'],
    [['pkcs12 client.p12', 'ca ca.crt'], 'a pkcs12 file, the authority beside it'],
    [['ca ca.crt', 'cert client.crt', 'key hidden.key'], 'a key in PEM'],
  ]
  for (const [lines, why] of rows) {
    it(`is asked for by a client at its management interface: ${why}`, async () => {
      const { client, manager } = await managed(lines)
      assert.match(await manager.ask('password "Private Key" "secret"'), /^SUCCESS/)
      await client.says(STARTED)
      manager.close()
      await stop(client)
    })

    it(`that nobody can be asked for ends a client with what to do: ${why}`, async () => {
      const { status, stderr } = await peers.client('ours', NUMBER, lines).ended
      assert.equal(status, 1)
      assert.match(stderr, /the key has a password: .* write 'askpass FILE'/)
    })
  }

  it('that is wrong ends a client, and who manages hears why', async () => {
    const { client, manager } = await managed(['pkcs12 client.p12'])
    await manager.ask('password "Private Key" "guess"')
    const { status, stderr } = await client.ended
    assert.equal(status, 1)
    assert.match(stderr, /the pkcs12 file cannot be decrypted: a wrong passphrase/)
    const told = () => manager.told.some((line) => /^>FATAL:.*cannot be decrypted/.test(line))
    await until('the reason', told, SECONDS)
    assert.ok(manager.told.includes(REFUSED))
    manager.close()
  })

  it('that is wrong is asked for again where auth-retry says interact', async () => {
    const { client, manager } = await managed(['pkcs12 client.p12'])
    assert.match(await manager.ask('auth-retry interact'), /^SUCCESS/)
    for (const [wrong, times] of [
      ['guess', 2],
      ['another', 3],
    ] as const) {
      await manager.ask(`password "Private Key" "${wrong}"`)
      await asked(manager, times)
    }
    assert.equal(manager.told.filter((line) => line === REFUSED).length, 2)
    assert.match(await manager.ask('password "Private Key" "secret"'), /^SUCCESS/)
    await client.says(STARTED)
    manager.close()
    await stop(client)
  })

  it('that askpass has wrong is not asked for', async () => {
    peers.write('wrong.password', 'guess\n')
    const lines = ['pkcs12 client.p12', 'askpass wrong.password']
    const { status, stderr } = await peers.client('ours', NUMBER, lines).ended
    assert.equal(status, 1)
    assert.match(stderr, /the pkcs12 file cannot be decrypted/)
  })

  it('is asked for by a server at its management interface, or ends it with what to do', async () => {
    await stop(server)
    const lines = ['ca ca.crt', 'cert server.crt', 'key server.p8']
    const alone = peers.server('ours', NUMBER, lines)
    const ended = await alone.catch((error: Error) => error)
    assert.match(String(ended), /the key has a password: .* write 'askpass FILE'/)
    const refused = peers.server('ours', NUMBER, [...lines, ...manage('wrong')])
    const ending = refused.catch((error: Error) => error)
    const wrong = await openManagement(join(peers.lab.folder, 'wrong.sock'))
    await asked(wrong)
    await wrong.ask('password "Private Key" "guess"')
    assert.match(String(await ending), /the key cannot be decrypted: a wrong passphrase/)
    assert.ok(wrong.told.includes(REFUSED))
    wrong.close()
    const starting = peers.server('ours', NUMBER, [...lines, ...manage('server')])
    const manager = await openManagement(join(peers.lab.folder, 'server.sock'))
    await asked(manager)
    assert.match(await manager.ask('password "Private Key" "secret"'), /^SUCCESS/)
    await starting
    manager.close()
    const client = peers.client('ours', NUMBER, identity('client'))
    await client.says(STARTED)
  })

  it('is asked for by a server at its terminal', { skip: withoutScript }, async () => {
    const config = peers.write(
      'terminal.conf',
      [
        ...['port 1300', 'dev vpn9', 'dev-type tun', 'topology subnet', 'askpass'],
        ...['server 10.8.9.0 255.255.255.0', 'ca ca.crt', 'cert server.crt', 'key server.p8', ''],
      ].join('\n'),
    )
    const line = `sh -c 'echo pid $$; exec ${OVPN} server ${config}'; echo it has ended with $?`
    const command = ['script', '-qec', line, '/dev/null']
    const args = ['netns', 'exec', peers.lab.server.name, ...command]
    const typed = start('ip', args, { cwd: peers.lab.folder, input: 'secret\n' })
    try {
      await typed.says(/Password of the private key: /)
      await typed.says(STARTED)
      assert.doesNotMatch(typed.stdout.slice(typed.stdout.indexOf('Password of')), /secret/)
    } finally {
      await stop(typed)
    }
    const asking = start('sh', ['-c', 'sleep 30 | exec "$@"', 'sh', 'ip', ...args], {
      cwd: peers.lab.folder,
    })
    await asking.says(/Password of the private key: /)
    const [, pid] = await asking.says(/pid (\d+)/)
    process.kill(Number(pid), 'SIGTERM')
    await asking.says(/it has ended with 0/)
    asking.kill('SIGTERM')
  })

  const manage = (name: string) => [
    `management ${peers.lab.folder}/${name}.sock unix`,
    'management-query-passwords',
  ]

  const asked = (manager: Management, times = 1) => {
    const question = ">PASSWORD:Need 'Private Key' password"
    const count = () => manager.told.filter((line) => line === question).length
    return until('the question', () => count() === times, SECONDS)
  }

  let clients = 0
  /** A client that has asked for the password. */
  async function managed(lines: string[]): Promise<{ client: Running; manager: Management }> {
    const name = `client${clients++}`
    const client = peers.client('ours', NUMBER, [...lines, ...manage(name)])
    const manager = await openManagement(join(peers.lab.folder, `${name}.sock`))
    await asked(manager)
    return { client, manager }
  }
})
