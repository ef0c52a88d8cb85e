/** Files that both programs read: profiles and keys that this one makes, and keys that OpenVPN makes. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { readClientConfig } from '../../src/openvpn/config/client-config.ts'
import { readServerConfig } from '../../src/openvpn/config/server-config.ts'
import { files } from '../../src/runtime/files.ts'
import { OVPN, run } from '../command.ts'
import { withoutNamespaces } from '../namespace.ts'
import { programs, withoutProgram } from './programs.ts'

let folder = ''
const path = (name: string) => join(folder, name)

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ovpn-config-'))
  await ovpn('pki', 'init')
  await ovpn('pki', 'server', 'vpn')
  await ovpn('genkey', 'tls-crypt-v2-server', 'v2.key')
  await ovpn('genkey', 'tls-auth', 'ta.key')
})
after(() => rmSync(folder, { recursive: true, force: true }))

async function ovpn(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(OVPN, args, { cwd: folder })
  assert.equal(status, 0, stderr)
  return stdout
}

const SERVER = `port 1
dev tun
ca pki/ca.crt
cert pki/issued/vpn.crt
key pki/private/vpn.key
dh none
topology subnet
server 10.8.0.0 255.255.255.0
keepalive 10 60
`

function serverConfig(name: string, more: string): string {
  writeFileSync(path(name), SERVER + more)
  return name
}

const WRAPS: [name: string, lines: string][] = [
  ['no wrap', ''],
  ['tls-auth', 'tls-auth ta.key 0\nauth SHA256\n'],
  ['tls-crypt', 'tls-crypt ta.key\nreneg-sec 0\n'],
  ['tls-crypt-v2', 'tls-crypt-v2 v2.key\ntun-mtu 1400\n'],
  ['TCP and UDP', 'local * 1 udp\nlocal * 1 tcp\ntls-crypt ta.key\n'],
]

for (const series of ['2.6', '2.7']) {
  describe(`OpenVPN ${series}`, { skip: withoutProgram(series) }, () => {
    WRAPS.forEach(([name, lines], i) => {
      it(`begins to connect with a profile of ovpn profile: ${name}`, async () => {
        const config = serverConfig(`server${i}.conf`, lines)
        const profile = await ovpn('profile', `client${i}`, '-c', config, '--host', '127.0.0.1')
        writeFileSync(path(`client${i}.ovpn`), profile)
        // Nothing listens at port 1: it is enough that it has read all and tries.
        const { stdout } = await run(programs[series]!, [
          ...['--config', path(`client${i}.ovpn`), '--connect-timeout', '1'],
          ...['--connect-retry-max', '1', '--connect-retry', '1'],
        ])
        assert.doesNotMatch(stdout, /Options error|Cannot load|Error/)
        assert.match(stdout, /link remote: .*127\.0\.0\.1:1|connect to .*127\.0\.0\.1:1 failed/)
      })
    })

    it('makes keys that are read here', async () => {
      const genkey = async (...args: string[]) => {
        const { status, stdout } = await run(programs[series]!, args)
        assert.equal(status, 0, stdout)
      }
      await genkey('--genkey', 'secret', path('its-ta.key'))
      await genkey('--genkey', 'tls-crypt-v2-server', path('its-v2.key'))
      await genkey('--genkey', 'auth-token', path('its-token.key'))
      await genkey(
        '--tls-crypt-v2',
        path('its-v2.key'),
        '--genkey',
        'tls-crypt-v2-client',
        path('its-c.key'),
      )
      const more =
        'tls-crypt its-ta.key\ntls-crypt-v2 its-v2.key\nauth-gen-token\nauth-gen-token-secret its-token.key\n'
      const file = path(serverConfig('its.conf', more))
      const config = readServerConfig({ file, text: readFileSync(file, 'utf8') }, files)
      assert.equal(config.tlsCryptV2?.key.length, 128)
      assert.equal(config.authGenToken?.secret?.length, 32)
      const client = readClientConfig(
        {
          file: path('its.ovpn'),
          text: 'client\nremote x\nca pki/ca.crt\nauth-user-pass\ntls-crypt-v2 its-c.key',
        },
        files,
      )
      assert.equal(client.connections[0]?.wrap.kind, 'tls-crypt-v2')
    })

    it('takes keys of ovpn genkey', async () => {
      // It opens the wrapped key to make another with the same, and would tell of a wrong tag.
      const out = path(`other-${series}.key`)
      const { status, stdout } = await run(programs[series]!, [
        ...['--tls-crypt-v2', path('v2.key'), '--genkey', 'tls-crypt-v2-client', out],
      ])
      assert.equal(status, 0, stdout)
      assert.match(readFileSync(out, 'utf8'), /BEGIN OpenVPN tls-crypt-v2 client key/)
    })
  })
}

describe('ovpn check', () => {
  it('ends with 0 for what can be used, and says what has no effect', async () => {
    const out = await ovpn('check', serverConfig('good.conf', 'persist-key\n'))
    assert.match(out, /good\.conf:10: persist-key\n {4}no effect: /)
    assert.match(out, /a server's configuration: 8 done, 2 no effect\n$/)
  })

  it('ends with 1 for what cannot, with all that is wrong', async () => {
    serverConfig('bad.conf', 'prot udp\nplugin x.so\n')
    const { status, stdout, stderr } = await run(OVPN, ['check', '-b', 'bad.conf'], { cwd: folder })
    assert.equal(status, 1)
    assert.match(stdout, /bad\.conf:10: prot udp\n {4}WRONG: there is no directive 'prot'/)
    assert.match(stdout, /bad\.conf:11: plugin x\.so\n {4}WRONG: .*script/)
    assert.match(stderr, /bad\.conf cannot be used as it is: see lines? \d/)
  })

  it('says of keys what a server says when it begins', { skip: withoutNamespaces }, async () => {
    await ovpn('pki', 'server', 'other')
    const text = SERVER.replace('private/vpn', 'private/other')
    writeFileSync(path('key.conf'), text)
    const checked = await run(OVPN, ['check', '-b', 'key.conf'], { cwd: folder })
    assert.equal(checked.status, 1)
    const line = /^key\.conf:5: key pki\/private\/other\.key\n {4}WRONG: (.*)$/m
    const [, problem = ''] = line.exec(checked.stdout) ?? []
    assert.match(problem, /not that of the certificate/)
    assert.match(checked.stderr, /see line 5/)
    // With that key it ends before it makes anything.
    const server = await run(OVPN, ['server', 'key.conf'], { cwd: folder })
    assert.equal(server.status, 1)
    assert.ok(server.stderr.includes(problem), server.stderr)
  })

  it('prints JSON', async () => {
    const checked = JSON.parse(await ovpn('check', '--json', serverConfig('json.conf', '')))
    assert.equal(checked.kind, 'server')
    assert.equal(checked.usable, true)
    const { file, line, text, verdict } = checked.lines[0]
    assert.deepEqual([file, line, text, verdict], ['json.conf', 1, 'port 1', 'honoured'])
  })
})

describe('ovpn genkey', () => {
  it('never writes over a file, and keeps it to its owner', async () => {
    await ovpn('genkey', 'tls-crypt', 'once.key')
    assert.equal(statSync(path('once.key')).mode & 0o777, 0o600)
    const { status, stderr } = await run(OVPN, ['genkey', 'tls-crypt', 'once.key'], { cwd: folder })
    assert.equal(status, 1)
    assert.match(stderr, /cannot write once\.key/)
  })

  it('makes a client key only with its server’s', async () => {
    const without = await run(OVPN, ['genkey', 'tls-crypt-v2-client'], { cwd: folder })
    assert.equal(without.status, 2)
    const args = ['genkey', 'tls-crypt-v2-client', '--server-key', 'ta.key']
    const wrong = await run(OVPN, args, { cwd: folder })
    assert.equal(wrong.status, 1)
    assert.match(wrong.stderr, /expected an OpenVPN tls-crypt-v2 server key/)
  })
})

describe('ovpn profile', () => {
  it('has a key of each client’s own with tls-crypt-v2', async () => {
    const config = serverConfig('v2.conf', 'tls-crypt-v2 v2.key\n')
    const profile = () => ovpn('profile', 'alice', '-c', config, '--host', 'vpn.example')
    const wrapOf = (text: string) =>
      readClientConfig({ file: path('alice.ovpn'), text }, files).connections[0]?.wrap
    assert.notDeepEqual(wrapOf(await profile()), wrapOf(await profile()))
  })

  it('is not made for a server that trusts others', async () => {
    await ovpn('pki', 'init', '--dir', 'other')
    const config = serverConfig('trust.conf', '')
    const args = ['profile', 'alice', '-c', config, '--pki', 'other', '--host', 'x']
    const { status, stderr } = await run(OVPN, args, { cwd: folder })
    assert.equal(status, 1)
    assert.match(stderr, /trusts another authority/)
  })
})
