/**
 * `ovpn run` where the kernel's driver is out of reach by design: started by an ordinary user, in namespaces of theirs. What OpenVPN
 * does there is told by the files that are run by such a user too (`// npm test: ordinary user`).
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { OVPN, start } from '../command.ts'
import { withoutNamespaces } from '../namespace.ts'
import { asOrdinaryUser, USER, withoutOrdinaryUser } from '../ordinary-user.ts'
import { until } from './programs.ts'

describe('ovpn run by an ordinary user', { skip: withoutNamespaces }, () => {
  let home: string
  before(() => {
    home = mkdtempSync(join(tmpdir(), 'ovpn-user-'))
  })
  after(() => rmSync(home, { recursive: true }))

  it('makes a link, without rights outside', async (t) => {
    const why = await withoutOrdinaryUser(home)
    if (why !== false) return t.skip(why)
    const script = 'ip link add vpn0 type ovpn; ip link set vpn0 up; ip -br link; exec sleep 60'
    const [command, ...args] = asOrdinaryUser([OVPN, 'run', 'sh', '-c', script], home)
    const running = start(command, args)
    await running.says(/^vpn0 .*UP/m)
    const { pid } = running
    const own = (file: string) => readFileSync(`/proc/${pid}/${file}`, 'utf8')
    await until('sleep', () => own('comm') === 'sleep\n')
    for (const kind of ['Uid', 'Gid']) {
      assert.match(own('status'), new RegExp(`^${kind}:(\t${USER}){4}$`, 'm'))
    }
    assert.match(own('uid_map'), new RegExp(`^ *0 +${USER} +1\n$`))
    for (const kind of ['user', 'net', 'mnt']) {
      const theirs = readlinkSync(`/proc/${pid}/ns/${kind}`)
      assert.notEqual(theirs, readlinkSync(`/proc/self/ns/${kind}`))
    }
    running.kill('SIGTERM')
    await running.ended
  })
})
