/** Passwords, challenges and who manages: our client with a server of OpenVPN 2.6, both steered at their management interfaces. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { type Management, openManagement } from '../interop/management.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, Peers, stop } from './peers.ts'

const NUMBER = 0
const base64 = (text: string) => Buffer.from(text).toString('base64')

describe('passwords of our client', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers
  let server: Management
  let clients = 0
  before(async () => {
    peers = await Peers.open()
    const lines = ['management server.sock unix', 'management-client-auth']
    await peers.server('2.6', NUMBER, [...identity('server'), ...lines], 'udp')
    server = await openManagement(join(peers.lab.folder, 'server.sock'))
  })
  after(async () => {
    server?.close()
    await peers?.close()
  })

  /** What the server tells of the next client that wants in, from line `from` on. */
  const asked = async (from: number) => {
    const told = () => server.told.slice(from)
    await until('the server to be asked', () => told().includes('>CLIENT:ENV,END'), 40)
    const lines = told().slice(0, told().indexOf('>CLIENT:ENV,END'))
    const event = lines.find((line) => /^>CLIENT:(CONNECT|REAUTH),/.test(line)) ?? ''
    const [, cid, kid] = /,(\d+),(\d+)$/.exec(event) ?? []
    const of = (name: string) =>
      lines
        .find((line) => line.startsWith(`>CLIENT:ENV,${name}=`))
        ?.split('=')
        .slice(1)
        .join('=')
    return { ids: `${cid} ${kid}`, username: of('username'), password: of('password') }
  }

  const begin = async (lines: string[]): Promise<{ client: Running; manager: Management }> => {
    const socket = `client${clients++}.sock`
    const client = peers.client('ours', NUMBER, [
      ...identity('client'),
      ...[`management ${socket} unix`, 'management-query-passwords', 'auth-user-pass', ...lines],
    ])
    return { client, manager: await openManagement(join(peers.lab.folder, socket)) }
  }

  const answer = async (manager: Management, question: RegExp, password: string) => {
    await until(
      `the question ${question}`,
      () => manager.told.some((line) => question.test(line)),
      40,
    )
    assert.match(await manager.ask('username "Auth" "alice"'), /^SUCCESS/)
    assert.match(await manager.ask(`password "Auth" "${password}"`), /^SUCCESS/)
  }

  const over = async ({ client, manager }: { client: Running; manager: Management }) => {
    await stop(client)
    manager.close()
  }

  it('come from who manages; what happens is told there', async () => {
    const from = server.told.length
    const pair = await begin([])
    const { client, manager } = pair
    try {
      assert.match(await manager.ask('state on'), /^SUCCESS/)
      assert.match(await manager.ask('bytecount 1'), /^SUCCESS/)
      await answer(manager, /^>PASSWORD:Need 'Auth' username\/password$/, 'secret')
      const { ids, username, password } = await asked(from)
      assert.deepEqual([username, password], ['alice', 'secret'])
      await server.ask(`client-auth-nt ${ids}`)
      await client.says(STARTED)
      const told = (line: RegExp) => () => manager.told.some((one) => line.test(one))
      await until('bytes', told(/^>BYTECOUNT:\d+,\d+$/), 40)
      await until(
        'the state',
        told(/^>STATE:\d+,CONNECTED,SUCCESS,10\.8\.0\.\d+,192\.0\.2\.1,1194/),
      )
    } finally {
      await over(pair)
    }
  })

  it('that are refused are asked for again, with auth-retry interact', async () => {
    let from = server.told.length
    const pair = await begin(['auth-retry interact'])
    const { client, manager } = pair
    try {
      await answer(manager, /^>PASSWORD:Need 'Auth'/, 'guess')
      await server.ask(`client-deny ${(await asked(from)).ids} "no" "wrong password"`)
      from = server.told.length
      await until(
        'the refusal',
        () => manager.told.includes(">PASSWORD:Verification Failed: 'Auth' ['wrong password']"),
        40,
      )
      const again = () => manager.told.filter((line) => /Need 'Auth'/.test(line)).length === 2
      await until('to be asked again', again, 40)
      await answer(manager, /Need 'Auth'/, 'secret')
      const { ids, password } = await asked(from)
      assert.equal(password, 'secret')
      await server.ask(`client-auth-nt ${ids}`)
      await client.says(STARTED)
    } finally {
      await over(pair)
    }
  })

  it('go with the answer to a static challenge', async () => {
    const from = server.told.length
    const pair = await begin(['static-challenge "Your code" 1'])
    try {
      const both = `SCRV1:${base64('secret')}:${base64('42')}`
      await answer(pair.manager, /username\/password SC:1,Your code$/, both)
      const { ids, password } = await asked(from)
      assert.equal(password, both)
      await server.ask(`client-auth-nt ${ids}`)
      await pair.client.says(STARTED)
    } finally {
      await over(pair)
    }
  })

  it('are followed by a challenge of the server', async () => {
    let from = server.told.length
    const pair = await begin([])
    try {
      await answer(pair.manager, /Need 'Auth'/, 'secret')
      const challenge = `CRV1:R,E:stAte:${base64('alice')}:Which colour?`
      await server.ask(`client-deny ${(await asked(from)).ids} "more" "${challenge}"`)
      from = server.told.length
      const told = `>PASSWORD:Verification Failed: 'Auth' ['${challenge}']`
      await until('the challenge', () => pair.manager.told.includes(told), 40)
      await answer(pair.manager, /Need 'Auth'/, 'CRV1::stAte::blue')
      const { ids, username, password } = await asked(from)
      assert.deepEqual([username, password], ['alice', 'CRV1::stAte::blue'])
      await server.ask(`client-auth-nt ${ids}`)
      await pair.client.says(STARTED)
    } finally {
      await over(pair)
    }
  })

  it('are not enough: the server asks while it waits', async () => {
    const from = server.told.length
    const pair = await begin([])
    try {
      await answer(pair.manager, /Need 'Auth'/, 'secret')
      const { ids } = await asked(from)
      const pending = await server.ask(`client-pending-auth ${ids} "CR_TEXT:E,R:Your code?" 60`)
      assert.match(pending, /^SUCCESS/)
      const told = () => pair.manager.told.includes('>INFOMSG:CR_TEXT:E,R:Your code?')
      await until('the question', told, 40)
      assert.match(await pair.manager.ask(`cr-response ${base64('42')}`), /^SUCCESS/)
      const response = new RegExp(`^>CLIENT:CR_RESPONSE,.*,${base64('42')}$`)
      await until('the answer', () => server.told.some((line) => response.test(line)), 40)
      await server.ask(`client-auth-nt ${ids}`)
      await pair.client.says(STARTED)
    } finally {
      await over(pair)
    }
  })

  it('that are refused are the end, without auth-retry', async () => {
    const from = server.told.length
    const { client, manager } = await begin([])
    await answer(manager, /Need 'Auth'/, 'guess')
    await server.ask(`client-deny ${(await asked(from)).ids} "no" "not today"`)
    const { status, stderr } = await client.ended
    assert.equal(status, 1)
    assert.match(stderr, /the server refuses this client: not today/)
    assert.ok(manager.told.some((line) => /^>FATAL:.*not today/.test(line)))
    manager.close()
  })

  it('leave with who manages, who has a password too and hears of the interface', async () => {
    const from = server.told.length
    peers.write('manager.password', 'open sesame\n')
    const path = join(peers.lab.folder, 'guarded.sock')
    const client = peers.client('ours', NUMBER, [
      ...[...identity('client'), 'management guarded.sock unix manager.password'],
      ...['management-query-passwords', 'management-up-down', 'management-signal'],
      ...['management-forget-disconnect', 'management-client-user root', 'auth-user-pass'],
    ])
    const knock = async (password: string) => {
      await until('the socket', () => existsSync(path), 40)
      const socket = connect(path)
      const said = { text: '', closed: false }
      socket.setEncoding('utf8')
      socket.on('data', (text) => {
        said.text += text
      })
      socket.on('close', () => {
        said.closed = true
      })
      await until('to be asked for the password', () => said.text === 'ENTER PASSWORD:', 40)
      socket.write(`${password}\n`)
      return { socket, said }
    }
    try {
      const stranger = await knock('sesame')
      await until('the door to be shut', () => stranger.said.closed, 40)
      assert.doesNotMatch(stranger.said.text, />INFO/)
      for (const time of [1, 2]) {
        const { socket, said } = await knock('open sesame')
        const hears = (pattern: RegExp) =>
          until(`${pattern} in ${said.text}`, () => pattern.test(said.text), 40)
        await hears(/SUCCESS: password is correct\r\n>INFO:OpenVPN Management Interface/)
        // The second time it has begun anew, and forgotten what it knew, as whoever managed had gone.
        await hears(/>PASSWORD:Need 'Auth' username\/password/)
        const asking = time === 1 ? from : server.told.length
        socket.write('username "Auth" "alice"\npassword "Auth" "secret"\n')
        await server.ask(`client-auth-nt ${(await asked(asking)).ids}`)
        await hears(/>UPDOWN:UP\r\n[\s\S]*>UPDOWN:ENV,dev=ovpn0\r\n[\s\S]*>UPDOWN:ENV,END/)
        socket.destroy()
      }
    } finally {
      await stop(client)
    }
  })

  it('wait for hold release, and for a choice of the server', async () => {
    const from = server.told.length
    const pair = await begin(['management-hold', 'management-query-remote'])
    const { client, manager } = pair
    try {
      await until('the hold', () => manager.told.some((line) => line.startsWith('>HOLD')), 40)
      assert.match(await manager.ask('hold release'), /^SUCCESS/)
      await until('the server', () => manager.told.includes('>REMOTE:192.0.2.1,1194,udp'), 40)
      assert.match(await manager.ask('remote ACCEPT'), /^SUCCESS/)
      await answer(manager, /Need 'Auth'/, 'secret')
      await server.ask(`client-auth-nt ${(await asked(from)).ids}`)
      await client.says(STARTED)
    } finally {
      await over(pair)
    }
  })
})
