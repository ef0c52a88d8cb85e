/** Our client, connected, while our server changes what it has pushed. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { type Management, openManagement } from '../interop/management.ts'
import { answers } from '../interop/openvpn.ts'
import { STARTED, until } from '../interop/programs.ts'
import { withoutNamespaces } from '../namespace.ts'
import { identity, Peers } from './peers.ts'

const NUMBER = 0

describe('updates of what was pushed', { skip: withoutNamespaces }, () => {
  let peers: Peers
  let client: Running
  let server: Management
  before(async () => {
    peers = await Peers.open()
    const lines = ['management server.sock unix', 'push "route 10.70.0.0 255.255.0.0"']
    await peers.server('ours', NUMBER, [...identity('server'), ...lines])
    server = await openManagement(join(peers.lab.folder, 'server.sock'))
    client = peers.client('ours', NUMBER, [...identity('client'), 'dns-updown disable'])
    await client.says(STARTED)
  })
  after(async () => {
    server?.close()
    await peers?.close()
  })

  const routes = () => peers.lab.client.ip('route')
  const update = async (options: string) => {
    const answer = await server.ask(`push-update-broad "${options}"`)
    assert.match(answer, /^SUCCESS.*1 client/)
  }

  it('replace routes', async () => {
    assert.match(routes(), /^10\.70\.0\.0\/16 dev ovpn0/m)
    await update('route 10.71.0.0 255.255.0.0,route 10.72.0.0 255.255.0.0,keepalive 2 20')
    await until('the new routes', () => /10\.72\.0\.0\/16 dev ovpn0/.test(routes()), 40)
    assert.match(routes(), /^10\.71\.0\.0\/16 dev ovpn0/m)
    assert.doesNotMatch(routes(), /10\.70/)
  })

  it('remove them, and send everything through the tunnel', async () => {
    await update('-route,redirect-gateway def1')
    await until('the default route', () => /^128\.0\.0\.0\/1 dev ovpn0/m.test(routes()), 40)
    assert.doesNotMatch(routes(), /10\.7/)
    assert.match(routes(), /^192\.0\.2\.1 dev veth0/m)
    await answers(peers.lab.client, '10.8.0.1')
  })

  it('leave the connection as it is', () => {
    assert.equal(client.stdout.match(new RegExp(STARTED, 'g'))?.length, 1, client.stdout)
  })

  it('that no client can follow have it connect anew', async () => {
    await update('cipher AES-128-GCM')
    await client.says(/changes what no client can change: cipher AES-128-GCM/)
    const connected = () => (client.stdout.match(new RegExp(STARTED, 'g'))?.length ?? 0) === 2
    await until('it to be connected again', connected, 40)
  })
})
