import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { readClientConfig } from './client-config.ts'
import { CERTIFICATE, PRIVATE_KEY, textFiles } from './parse.test-data.ts'
import { ConfigError } from './parse.ts'
import { readServerConfig } from './server-config.ts'

const disk = {
  'ca.crt': CERTIFICATE,
  'server.key': PRIVATE_KEY,
  '/etc/services': `# Network services
#ghost 1/udp
http		80/tcp		www web	# WorldWideWeb
https		443/tcp
https		443/udp			# HTTP/3
openvpn		1194/udp
broken		x/udp
proxy		3128/tcp
socks		1080/tcp
admin		7505/tcp
`,
}
const files = textFiles(disk)

const CLIENT = 'client\nca ca.crt\nauth-user-pass\nremote-cert-tls server\n'
const SERVER = 'server 10.8.0.0 255.255.255.0\ndh none\nca ca.crt\ncert ca.crt\nkey server.key\n'
const client = (text: string, on = files) =>
  readClientConfig({ file: 'x.ovpn', text: CLIENT + text }, on)
const server = (text: string) => readServerConfig({ file: 'x.conf', text: SERVER + text }, files)

describe('ports by name', () => {
  const remotes: [lines: string, port: number, why: string][] = [
    ['remote a.example https', 443, 'of UDP, where nothing else is said'],
    ['remote a.example www tcp', 80, 'an alias'],
    ['remote a.example\nrport https', 443, 'for servers that have none of their own'],
    ['remote a.example\nport openvpn', 1194, 'of both ends'],
    ['proto tcp\nremote a.example web', 80, 'of the protocol of all'],
    ['<connection>\nremote a.example http tcp\n</connection>', 80, 'in a block'],
  ]
  for (const [lines, port, why] of remotes) {
    it(`${lines.replaceAll('\n', '; ')}: ${why}`, () => {
      assert.equal(client(lines).connections[0]?.port, port)
    })
  }

  it('are of the protocol that the line is about', () => {
    const [entry] = client(
      'remote a.example 443 tcp\nlport https\nhttp-proxy p.example proxy\nmanagement 127.0.0.1 admin',
    ).connections
    assert.deepEqual([entry?.localPort, entry?.httpProxy?.port], [443, 3128])
    const socks = client('remote a.example\nsocks-proxy p.example socks').connections[0]
    assert.equal(socks?.socksProxy?.port, 1080)
    const { management } = client('remote a.example\nmanagement 127.0.0.1 admin')
    assert.deepEqual(management?.at, { kind: 'tcp', address: '127.0.0.1', port: 7505 })
  })

  it('of a server are those of each socket', () => {
    const { listeners } = server(
      'local * https udp\nlocal * http tcp\nlocal 192.0.2.1\nport openvpn',
    )
    assert.deepEqual(
      listeners.map(({ protocol, port }) => [protocol, port]),
      [
        ['udp', 443],
        ['tcp', 80],
        ['udp', 1194],
      ],
    )
  })

  const wrong: [read: () => unknown, message: RegExp, why: string][] = [
    [
      () => client('remote a.example http'),
      /^x\.ovpn:5: remote: \/etc\/services has no udp port named 'http'; tcp has it as 80$/,
      'of the other protocol only',
    ],
    [() => client('remote a.example\nrport nosuch'), /^x\.ovpn:6: rport: .*'nosuch'$/, 'of none'],
    [() => client('remote a.example ghost'), /named 'ghost'$/, 'in a comment'],
    [() => client('remote a.example broken'), /named 'broken'$/, 'without a number'],
    [
      () => client('remote a.example https', textFiles({ 'ca.crt': CERTIFICATE })),
      /'https'/,
      'no table',
    ],
    [() => client('remote a.example 99999'), /expected a port from 0 to 65535 or/, 'too large'],
    [
      () => client('remote a\nmanagement ::1 nosuch'),
      /^x\.ovpn:6: management: .*tcp/,
      'of those who manage',
    ],
    [() => server('port http'), /^x\.conf:6: port: .*no udp port/, 'of the server'],
    [() => server('local * www'), /^x\.conf:6: local: .*no udp port/, 'of one socket'],
  ]
  for (const [read, message, why] of wrong) {
    it(`tells where one is wrong: ${why}`, () => {
      assert.throws(read, (error) => error instanceof ConfigError && message.test(error.message))
    })
  }
})
