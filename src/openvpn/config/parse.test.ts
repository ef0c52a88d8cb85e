import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Context } from './directives/directive.ts'
import { textFiles } from './parse.test-data.ts'
import { ConfigError, decodeText, parse, type Settings } from './parse.ts'

const NONE = textFiles({})
const read = (text: string, context: Context = 'client', files = NONE): Settings =>
  parse({ file: 'etc/x.conf', text }, context, files)
const messages = (settings: Settings) => settings.problems.map(({ message }) => message)

describe('a line with something wrong', () => {
  const lines: [line: string, context: Context, message: RegExp, why: string][] = [
    ['prot udp', 'client', /no directive 'prot'; did you mean 'p/, 'a misspelling'],
    ['server-bridg', 'server', /did you mean 'server-bridge'/, 'a letter is missing'],
    ['xyzzy', 'client', /^there is no directive 'xyzzy'$/, 'like nothing that is known'],
    ['port', 'client', /'port' is written: port PORT/, 'no argument'],
    ['port 1 2', 'client', /at most 1: port PORT/, 'an argument too many'],
    ['client x', 'client', /takes no arguments/, 'an argument where there is none'],
    [
      'port 70000',
      'client',
      /port: expected a port from 0 to 65535 or the name of a service, not '70000'/,
      'too large',
    ],
    ['port ?', 'client', /not '\?'/, 'no number'],
    ['port 1.5', 'client', /not '1.5'/, 'no whole number'],
    ['keepalive 10', 'client', /keepalive INTERVAL TIMEOUT/, 'one of two arguments'],
    ['proto xtcp', 'client', /one of udp, udp4/, 'none of the words'],
    ['server 10.8.0 255.255.255.0', 'server', /an IPv4 address, not '10.8.0'/, 'a short address'],
    ['server 10.8.0.08 255.0.0.0', 'server', /an IPv4 address/, 'which base would that be'],
    ['server 10.8.0.0 255.0.255.0', 'server', /a netmask, not '255.0.255.0'/, 'a mask with a hole'],
    ['server-ipv6 fd00::/40', 'server', /of 64 to 124 bits/, 'a prefix that is too short'],
    ['server-ipv6 fd00::', 'server', /ADDRESS\/BITS/, 'no prefix'],
    ['client-to-client', 'client', /is of servers; this is a client's/, "a server's, at a client"],
    ['remote x', 'server', /'remote' is not done here: a server waits/, "a client's, at a server"],
    ['iroute 10.0.0.0', 'server', /client-config-dir/, "a client's at the server"],
    ['up x', 'ccd', /'up' is of clients and servers; these are the settings/, 'not of one client'],
    ['up x', 'pushed', /'up' is not taken from a server/, 'a server runs no programs here'],
    ['remote x', 'pushed', /not taken/, 'a server sends nobody elsewhere'],
    ['fragment 1300', 'client', /not done here: set a smaller `tun-mtu`/, 'refused, with advice'],
    ['plugin x.so', 'server', /not done here: plugins/, 'refused, with advice'],
    ['peer-id 1', 'client', /'peer-id' is of replies of servers/, 'a server says it'],
    ['<port>\n1\n</port>', 'client', /'port' has no block/, 'no block for it'],
    [
      '<connection>\nremote x\n</connection>',
      'server',
      /<connection> is of clients/,
      'at a server',
    ],
    ['<connection>\nca x\n</connection>', 'client', /may not stand in a <connection>/, 'not there'],
    ['config x.conf', 'client', /config: cannot read 'etc\/x.conf'|cannot read/, 'no such file'],
  ]
  for (const [line, context, message, why] of lines) {
    it(`${JSON.stringify(line)}: ${why}`, () => {
      const found = messages(read(line, context))
      assert.match(found.join('\n'), message)
      assert.equal(found.length, 1)
    })
  }

  it('tells all of them at once, with file and line', () => {
    const settings = read('port ?\n\nprot udp\nverb 3\nconfig other.conf', 'client')
    assert.throws(
      () => settings.check(),
      (error) => {
        assert(error instanceof ConfigError)
        assert.equal(error.code, 'CONFIG')
        assert.deepEqual(
          error.problems.map(({ place, code }) => [place.line, code]),
          [
            [1, 'argument'],
            [3, 'unknown'],
            [5, 'file'],
          ],
        )
        assert.match(error.message, /^etc\/x.conf:1: port: expected.*\netc\/x.conf:3: there is/)
        return true
      },
    )
  })
})

describe('directives that may be unknown', () => {
  const texts: [text: string, problems: number, why: string][] = [
    ['new-thing 1', 1, 'nothing permits it'],
    ['ignore-unknown-option new-thing\nnew-thing 1', 0, 'named before'],
    ['new-thing 1\nignore-unknown-option new-thing', 0, 'named after, as OpenVPN 3 takes it'],
    ['ignore-unknown-option a b new-thing\nnew-thing 1', 0, 'one of several'],
    ['ignore-unknown-option other\nnew-thing 1', 1, 'another was named'],
    ['ignore-unknown-option fragment\nfragment 1300', 0, 'known, and not done here'],
    ['ignore-unknown-option port\nport ?', 1, 'known, and wrong'],
    ['setenv opt new-thing 1', 0, 'for this line'],
    ['setenv opt fragment 1300', 0, 'known, and not done here'],
    ['setenv opt port ?', 0, 'wrong, and of no importance'],
    ['setenv opt', 0, 'nothing'],
    ['setenv FORWARD_COMPATIBLE 1\nnew-thing', 0, 'for the whole'],
    ['setenv FORWARD_COMPATIBLE 0\nnew-thing', 1, 'not so'],
    ['setenv FORWARD_COMPATIBLE 1\nport ?', 1, 'wrong is wrong'],
    ['setenv FORWARD_COMPATIBLE 1\nfragment 1300', 1, 'it is not unknown'],
  ]
  for (const [text, problems, why] of texts) {
    it(`${JSON.stringify(text)}: ${why}`, () => {
      const settings = read(text)
      assert.equal(settings.problems.length, problems, messages(settings).join('\n'))
      if (problems === 0) {
        assert(
          settings.notes.some(({ kind }) => kind === 'ignored'),
          'it is told all the same',
        )
      }
    })
  }

  it('`setenv opt` counts where it is known', () => {
    assert.equal(read('setenv opt port 443').args('port')?.port, 443)
  })
})

describe('settings', () => {
  it('of one directive: the last counts, and the others are told', () => {
    const settings = read('verb 3\nverb 4\nremote a\nremote b')
    assert.equal(settings.args('verb')?.level, 4)
    assert.deepEqual(
      settings.all('remote').map(({ args }) => args.host),
      ['a', 'b'],
    )
    assert.deepEqual(
      settings.notes.map(({ kind, place }) => [kind, place.line]),
      [['overridden', 1]],
    )
  })

  it('have seconds in milliseconds, and defaults where an argument is left out', () => {
    const settings = read('keepalive 10 60\nsocks-proxy x\nroute 10.0.0.0', 'client')
    assert.deepEqual(settings.args('keepalive'), { interval: 10_000, timeout: 60_000 })
    assert.deepEqual(settings.args('socks-proxy'), { host: 'x', port: 1080, auth: undefined })
    assert.equal(settings.args('route')?.netmask, undefined)
  })

  it('of blocks have the content; an older marker beside it says nothing, or the direction', () => {
    const settings = read(
      'tls-auth [inline] 1\nca [inline]\n<tls-auth>\nK\n</tls-auth>\n<ca>\nC\n</ca>',
    )
    assert.deepEqual(messages(settings), [])
    assert.equal(settings.last('ca')?.block, 'C\n')
    assert.equal(settings.last('tls-auth')?.block, 'K\n')
    assert.equal(settings.args('tls-auth')?.direction, '1')
  })

  it('of a connection block stand in it alone', () => {
    const settings = read('port 1\n<connection>\nremote a 2 tcp\n</connection>')
    assert.equal(settings.connections.length, 1)
    const { settings: own } = settings.connections[0]!
    assert.deepEqual(own.args('remote'), { host: 'a', port: 2, protocol: 'tcp' })
    assert.equal(own.last('remote')?.place.line, 3)
    assert(!settings.has('remote'))
  })
})

describe('included files', () => {
  it('stand in place of the line, and have lines of their own', () => {
    const files = textFiles({ 'etc/a.conf': 'port 2\nport ?' })
    const settings = read('port 1\nconfig a.conf\nverb 3', 'client', files)
    assert.deepEqual(
      [...settings].map(({ name, place }) => [name, place.file, place.line]),
      [
        ['port', 'etc/x.conf', 1],
        ['config', 'etc/x.conf', 2],
        ['port', 'etc/a.conf', 1],
        ['verb', 'etc/x.conf', 3],
      ],
    )
    assert.equal(settings.problems[0]?.place.file, 'etc/a.conf')
  })

  it('are found from the folder of the configuration, or from that of `cd`', () => {
    const files = textFiles({ '/srv/a.conf': 'port 2', '/srv/b/c.conf': 'port 3' })
    const settings = read('cd /srv\nconfig a.conf\ncd b\nconfig c.conf\nca d', 'client', files)
    assert.deepEqual(messages(settings), [])
    assert.equal(settings.last('ca')?.folder, '/srv/b')
  })

  it('may include each other, ten deep', () => {
    const chain = (depth: number) =>
      Object.fromEntries(
        Array.from({ length: depth }, (_, i) => [
          `etc/${i}`,
          i + 1 < depth ? `config ${i + 1}` : 'port 9',
        ]),
      )
    assert.equal(read('config 0', 'client', textFiles(chain(10))).args('port')?.port, 9)
    const settings = read('config 0', 'client', textFiles(chain(11)))
    assert.match(messages(settings).join(), /more than 10 deep/)
  })

  it('that include themselves end', () => {
    const files = textFiles({ 'etc/x.conf': 'config x.conf\nconfig x.conf\n' })
    const settings = read('config x.conf', 'client', files)
    assert(settings.problems.length > 0)
  })

  it('are not for servers to name', () => {
    const files = { read: () => assert.fail('a server had a file read') }
    const settings = read('config /etc/passwd', 'pushed', files)
    assert.match(messages(settings).join(), /not taken from a server/)
  })
})

describe('the text of a file', () => {
  const little = Buffer.from('\ufeffdev tün\n', 'utf16le')
  const rows: [content: Uint8Array, why: string][] = [
    [Buffer.from('dev tün\n'), 'UTF-8'],
    [Buffer.from('\ufeffdev tün\n'), 'UTF-8 with a mark'],
    [little, 'UTF-16, little-endian'],
    [Buffer.from(little).swap16(), 'UTF-16, big-endian'],
  ]
  for (const [content, why] of rows) it(why, () => assert.equal(decodeText(content), 'dev tün\n'))

  it('is nothing where there is nothing', () => assert.equal(decodeText(new Uint8Array(0)), ''))
})
