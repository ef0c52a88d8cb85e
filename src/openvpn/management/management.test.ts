import assert from 'node:assert/strict'
import { beforeEach, describe, it } from 'node:test'
import { Management, type ManagementOptions } from './management.ts'
import type { ManagementTarget } from './target.ts'

const date = new Date(1_795_417_114_000)

function setUp(options: Partial<ManagementOptions> = {}, target: Partial<ManagementTarget> = {}) {
  const calls: unknown[][] = []
  const note =
    <T>(name: string, result: T) =>
    (...args: unknown[]) => {
      calls.push([name, ...args])
      return result
    }
  const timers: (() => void)[] = []
  const management = new Management(
    {
      title: 'ovpn 1.0',
      pid: 42,
      status: async () => ({ title: 'ovpn 1.0', now: date, clients: [] }),
      load: async () => ({ clients: 2, bytesIn: 30, bytesOut: 40 }),
      bytes: async () => [
        { id: 0, bytesIn: 10, bytesOut: 11 },
        { id: 7, bytesIn: 20, bytesOut: 21 },
      ],
      signal: note('signal', undefined),
      verbosity: 3,
      mute: 0,
      clients: {
        kill: note('kill', 2),
        authorize: note('authorize', true),
        deny: note('deny', true),
        pend: note('pend', true),
        killOne: note('killOne', false),
        update: note('update', 1),
      },
      ...target,
    },
    {
      now: () => date,
      every: (_, call) => {
        timers.push(call)
        return note('ended', undefined)
      },
      ...options,
    },
  )
  let sent = ''
  let closed = false
  const connect = () =>
    management.connect(
      (text) => {
        sent += text
      },
      () => {
        closed = true
      },
    )
  const taken = () => {
    const lines = sent.split('\r\n')
    sent = ''
    return lines.slice(0, -1)
  }
  return { management, connect, taken, calls, timers, isClosed: () => closed, raw: () => sent }
}

describe('Management', () => {
  let set: ReturnType<typeof setUp>
  let ask: (line: string) => string[]

  beforeEach(() => {
    set = setUp()
    const connection = set.connect()!
    assert.deepEqual(set.taken(), [
      ">INFO:OpenVPN Management Interface Version 6 -- type 'help' for more info",
    ])
    ask = (line) => {
      connection.receive(`${line}\n`)
      return set.taken()
    }
  })

  const rows: [line: string, answer: string | string[], why: string][] = [
    ['pid', 'SUCCESS: pid=42', 'a plain answer'],
    ['pid\r', 'SUCCESS: pid=42', 'either end of line'],
    ['', [], 'an empty line is none'],
    ['version', ['OpenVPN Version: ovpn 1.0', 'Management Version: 6', 'END'], 'several lines'],
    ['version 4', 'SUCCESS: Management client version set to 4', 'announced'],
    ['nonsense', "ERROR: unknown command [nonsense], enter 'help' for more options", 'no command'],
    ['verb 11 12', /.*/.source, 'too many parameters'],
    ['verb', 'SUCCESS: verb=3', 'asked'],
    ['verb x', "ERROR: expected a number from 0 to 15, not 'x'", 'no number'],
    ['hold', 'SUCCESS: hold=0', 'asked'],
    ['hold on', 'SUCCESS: hold flag set to ON', 'set'],
    ['hold maybe', 'ERROR: bad hold command parameter', 'neither'],
    ['signal SIGKILL', "ERROR: signal 'SIGKILL' is not a known signal type", 'not one of four'],
    ['kill "a b', 'ERROR: a quotation mark is not closed', 'broken quoting'],
    ['kill "a \\"b"', "SUCCESS: common name 'a \"b' found, 2 client(s) killed", 'quoted'],
    ['client-kill 3', 'ERROR: client-kill command failed', 'nobody'],
    ['client-auth-nt 1 2', 'SUCCESS: client-auth command succeeded', 'accepted'],
    ['username Auth x', 'ERROR: no username is currently needed at this time', 'nothing is asked'],
    [
      'remote ACCEPT',
      "ERROR: The 'remote' command is not supported by the current daemon mode",
      'a server has none',
    ],
    ['version 3', [], 'one that expects no answer'],
    ['client-kill x', 'ERROR: cannot parse CID', 'no number'],
    ['mute 5', 'SUCCESS: mute level changed', 'set'],
    ['auth-retry', 'SUCCESS: auth-retry=none', 'a server has none'],
    ['auth-retry maybe', 'ERROR: bad auth-retry parameter', 'none of three'],
    ['bytecount -1', "ERROR: expected a number from 0 to 86400, not '-1'", 'negative'],
  ]
  for (const [line, answer, why] of rows) {
    it(`${JSON.stringify(line)}: ${why}`, () => {
      const answers = ask(line)
      if (answer === '.*')
        assert.match(answers[0]!, /^ERROR: the 'verb' command requires at most 1 parameter$/)
      else assert.deepEqual(answers, Array.isArray(answer) ? answer : [answer])
    })
  }

  it('names every command in its help', () => {
    const help = ask('help').join('\n')
    for (const name of [
      'status',
      'client-auth',
      'push-update-broad',
      'needstr',
      'remote-entry-get',
    ]) {
      assert.match(help, new RegExp(`^${name}`, 'm'))
    }
  })

  it('takes the lines of client-auth up to END', () => {
    assert.deepEqual(ask('client-auth 5 1'), [])
    assert.deepEqual(ask('push "route 10.1.0.0 255.255.0.0"'), [])
    assert.deepEqual(ask('END'), ['SUCCESS: client-auth command succeeded'])
    assert.deepEqual(set.calls, [['authorize', 5, 1, ['push "route 10.1.0.0 255.255.0.0"']]])
  })

  it('passes what it is told on', () => {
    ask('client-deny 1 2 "no such user" "try again"')
    ask('client-pending-auth 1 2 "WEB_AUTH::https://x" 60')
    ask('push-update-cid 1 "dns, -route"')
    ask('signal SIGUSR1')
    assert.deepEqual(set.calls, [
      ['deny', 1, 2, 'no such user', 'try again'],
      ['pend', 1, 2, 'WEB_AUTH::https://x', 60],
      ['update', 1, 'dns, -route'],
      ['signal', 'SIGUSR1'],
    ])
  })

  it('tells logs and states, then and now', () => {
    set.management.log('one\ntwo', 'I')
    set.management.state({ name: 'CONNECTED', detail: 'SUCCESS', localV4: '10.8.0.1' })
    assert.deepEqual(set.taken(), [])
    assert.deepEqual(ask('log on all'), [
      'SUCCESS: real-time log notification set to ON',
      '1795417114,I,one two',
      'END',
    ])
    assert.deepEqual(ask('state'), ['1795417114,CONNECTED,SUCCESS,10.8.0.1,,,,', 'END'])
    ask('state on')
    set.management.log('three')
    set.management.state({ name: 'EXITING' })
    assert.deepEqual(set.taken(), ['>LOG:1795417114,I,three', '>STATE:1795417114,EXITING,,,,,,'])
    ask('log off')
    set.management.log('four')
    assert.deepEqual(set.taken(), [])
  })

  it('takes a password in base64, in lines up to END', () => {
    const answers: string[][] = []
    const questions = {
      answer: (...words: string[]) => answers.push(words) > 0,
      remote: () => false,
      remotes: () => [],
      challengeResponse: () => false,
      forgetPasswords: () => {},
    }
    const { connect, taken } = setUp({}, { questions })
    connect()!.receive('password Auth\nc2VjcmV0IHdp\ndGggIg==\nEND\n')
    assert.equal(taken().at(-1), "SUCCESS: 'Auth' password entered, but not yet verified")
    assert.deepEqual(answers, [['password', 'Auth', 'secret with "']])
  })

  it('tells of clients, and no value begins a line of its own', () => {
    const environment = { common_name: 'a', password: 'x\n>CLIENT:ESTABLISHED,9' }
    set.management.client('CONNECT', [0, 1], environment)
    assert.deepEqual(set.taken(), [
      '>CLIENT:CONNECT,0,1',
      '>CLIENT:ENV,common_name=a',
      '>CLIENT:ENV,password=x >CLIENT:ESTABLISHED,9',
      '>CLIENT:ENV,END',
    ])
  })

  it('tells of clients what is wanted', () => {
    const environment = { X509_0_CN: 'a', X509_1_CN: 'b', username: 'c', common_name: 'd' }
    const rows: [level: string, names: string[]][] = [
      ['1', ['X509_0_CN', 'X509_1_CN', 'username']],
      ['2', ['X509_0_CN', 'username']],
      ['3', []],
      ['0', Object.keys(environment)],
    ]
    for (const [level, names] of rows) {
      assert.deepEqual(ask(`env-filter ${level}`), [`SUCCESS: env_filter_level=${level}`])
      set.management.client('CONNECT', [0, 1], environment)
      const told = set.taken().slice(1)
      assert.deepEqual(
        told.map((line) => /^>CLIENT:ENV,(\w+)/.exec(line)?.[1]),
        [...names, 'END'],
      )
    }
  })

  it('counts bytes as often as asked', async () => {
    ask('bytecount 5')
    set.timers[0]!()
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(set.taken(), ['>BYTECOUNT_CLI:0,10,11', '>BYTECOUNT_CLI:7,20,21'])
    ask('bytecount 0')
    assert.deepEqual(set.calls, [['ended']])
  })

  it('answers later where it must ask', async () => {
    assert.deepEqual(ask('load-stats'), [])
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(set.taken(), ['SUCCESS: nclients=2,bytesin=30,bytesout=40'])
  })

  it('answers in the order in which it is asked', async () => {
    assert.deepEqual(ask('load-stats\npid'), [])
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(set.taken(), ['SUCCESS: nclients=2,bytesin=30,bytesout=40', 'SUCCESS: pid=42'])
  })

  it('serves one at a time, and the next after that', () => {
    assert.equal(set.connect(), undefined)
    ask('quit')
    assert.ok(set.isClosed())
    assert.notEqual(set.connect(), undefined)
  })

  it('tells who is connected, in the form that is asked for', async () => {
    assert.deepEqual(ask('status 4'), [])
    assert.deepEqual(ask('status 2'), [])
    await new Promise((resolve) => setImmediate(resolve))
    const [refused, title, ...lines] = set.taken()
    assert.equal(refused, 'ERROR: bad status format version number')
    assert.equal(title, 'TITLE,ovpn 1.0')
    assert.equal(lines.at(-1), 'END')
  })

  it('ends a connection that never ends its line', () => {
    const other = setUp()
    other.connect()!.receive('x'.repeat(20_000))
    assert.ok(other.isClosed())
  })
})

describe('a management password', () => {
  it('comes before all else', () => {
    const { connect, taken, raw, management } = setUp({ password: 'secret' })
    const connection = connect()!
    assert.equal(raw(), 'ENTER PASSWORD:')
    taken()
    management.log('hidden')
    connection.receive('secret\n')
    assert.deepEqual(taken().slice(0, 1), ['SUCCESS: password is correct'])
    connection.receive('pid\n')
    assert.deepEqual(taken(), ['SUCCESS: pid=42'])
  })

  it('ends the connection if it is wrong', () => {
    const { connect, raw, isClosed } = setUp({ password: 'secret' })
    connect()!.receive('wrong!\npid\n')
    assert.ok(isClosed())
    assert.doesNotMatch(raw(), /pid=/)
  })
})

it('holds a start until it is released', async () => {
  const { management, connect, taken } = setUp({ hold: true })
  let started = false
  const start = management.released().then(() => {
    started = true
  })
  const connection = connect()!
  assert.equal(taken().at(-1), '>HOLD:Waiting for hold release:0')
  await Promise.resolve()
  assert.equal(started, false)
  connection.receive('hold release\n')
  await start
  assert.ok(started)
})
