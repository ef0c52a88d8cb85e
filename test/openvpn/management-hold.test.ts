/**
 * A client and a server that wait for who manages them, before anything has begun: for the end of a hold, for the password of the key. They can
 * be ended and begun anew meanwhile, as OpenVPN 2.6 can.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { openManagement } from '../interop/management.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, Peers, stop } from './peers.ts'

const SECONDS = 40
const HOLD = '>HOLD:Waiting for hold release'
const KEY = ">PASSWORD:Need 'Private Key' password"
const ROLES = ['server', 'client'] as const
type Role = (typeof ROLES)[number]

describe('who waits for who manages', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers
  before(async () => {
    peers = await Peers.open()
    for (const role of ROLES) {
      const files = ['-in', `${role}.key`, '-out', `${role}.p8`, '-passout', 'pass:secret']
      execFileSync('openssl', ['pkcs8', '-topk8', ...files], { cwd: peers.lab.folder })
    }
    await peers.server('2.6', 0, identity('server'), 'udp')
  })
  after(() => peers?.close())

  const LINES = {
    server: ['port 1195', 'dev vpn1', 'dev-type tun', 'server 10.8.1.0 255.255.255.0'],
    client: ['client', 'dev tun', 'nobind', 'remote 192.0.2.1 1194', 'remote-cert-tls server'],
  }
  let count = 0
  const begin = (maker: 'ours' | '2.6', role: Role, lines: string[]) => {
    const number = count++
    const socket = join(peers.lab.folder, `held${number}`)
    const more = role === 'server' && maker !== 'ours' ? ['dh none'] : []
    const config = peers.write(
      `held${number}.conf`,
      [...LINES[role], 'verb 3', ...more, `management ${socket} unix`, ...lines, ''].join('\n'),
    )
    const { server, client } = peers.lab
    const running = peers.start(role === 'server' ? server : client, maker, role, config)
    return { running, managed: (line: string) => manage(socket, line) }
  }
  /** Whoever is there is waited for. */
  const manage = async (socket: string, line: string) => {
    const manager = await openManagement(socket)
    const isTold = () => manager.told.some((each) => each.startsWith(line))
    await until(`${line} in ${manager.told.join('\n')}`, isTold, SECONDS)
    return manager
  }

  const held = (role: Role) => [...identity(role), 'management-hold']
  const asked = (role: Role) => [
    ...['ca ca.crt', `cert ${role}.crt`, `key ${role}.p8`],
    'management-query-passwords',
  ]
  const rows: [role: Role, lines: string[], line: string, why: string][] = ROLES.flatMap((role) => [
    [role, held(role), HOLD, 'the end of a hold'],
    [role, asked(role), KEY, 'the password of its key'],
  ])

  for (const [role, lines, line, why] of rows) {
    it(`${role}, ${why}: SIGTERM ends it, and so does the management interface`, async () => {
      for (const way of ['SIGTERM', 'SIGINT', 'signal SIGTERM'] as const) {
        const { running, managed } = begin('ours', role, lines)
        const manager = await managed(line)
        if (way === 'signal SIGTERM') assert.match(await manager.ask(way), /^SUCCESS/)
        else running.kill(way)
        const { status, stderr } = await running.ended
        assert.deepEqual([status, stderr], [0, ''], way)
        manager.close()
      }
    })

    it(`${role}, ${why}: SIGHUP has it begin anew`, async () => {
      const { running, managed } = begin('ours', role, lines)
      const first = await managed(line)
      running.kill('SIGHUP')
      await running.says(/starting anew|the profile was read anew/)
      first.close()
      const second = await managed(line)
      const answer = line === HOLD ? 'hold release' : 'password "Private Key" "secret"'
      assert.match(await second.ask(answer), /^SUCCESS/)
      await running.says(STARTED)
      second.close()
      await stop(running)
    })
  }

  for (const maker of ['ours', '2.6'] as const) {
    it(`${maker}: the hold ends before the password of the key is asked for`, async () => {
      for (const role of ROLES) {
        const { running, managed } = begin(maker, role, [...asked(role), 'management-hold'])
        const manager = await managed(HOLD)
        assert.ok(!manager.told.includes(KEY))
        assert.match(await manager.ask('hold release'), /^SUCCESS/)
        await until('the question', () => manager.told.includes(KEY), SECONDS)
        assert.match(await manager.ask('password "Private Key" "secret"'), /^SUCCESS/)
        await running.says(STARTED)
        assert.equal(manager.told.filter((each) => each.startsWith(HOLD)).length, 1)
        manager.close()
        await stop(running)
      }
    })
  }
})
