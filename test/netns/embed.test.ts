/** The driver inside a program (`ovpn/driver`): its own sockets, its own namespace, the same client. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { startDriver } from '../../src/driver.ts'
import { openUdp } from '../../src/platform/udp.ts'
import { withoutNamespaces } from '../namespace.ts'

const key = (fill: number) => ({
  cipherKey: new Uint8Array(32).fill(fill),
  nonceTail: new Uint8Array(8).fill(fill),
})

describe('a driver inside the program', () => {
  const skip = withoutNamespaces

  it('makes an interface, takes a socket of the program, and tells of the end', {
    skip,
  }, async () => {
    const said: string[] = []
    const driver = startDriver({ log: (text) => said.push(text) })
    const client = await driver.client()
    const name = `ovemb${process.pid}`
    const { ifindex } = await client.linkNew({ name, kind: 'ovpn', mode: 'mp' })
    const events = (await client.events())[Symbol.asyncIterator]()
    using socket = openUdp('127.0.0.1', 0)
    await client.peerNew(ifindex, {
      ...{ id: 5, socket: socket.fd, vpnIpv4: '10.77.0.5' },
      ...{ remoteIpv4: '127.0.0.1', remotePort: 9 },
    })
    await client.keyNew(ifindex, {
      ...{ peerId: 5, slot: 'primary', keyId: 1, cipherAlg: 'aes-gcm' },
      ...{ encryptDir: key(1), decryptDir: key(2) },
    })
    const peer = await client.peerGet(ifindex, 5, { extended: true })
    assert.equal(peer.localPort, socket.port)
    assert.deepEqual(
      peer.keys?.map(({ slot, keyId, cipherAlg }) => [slot, keyId, cipherAlg]),
      [['primary', 1, 'aes-gcm']],
    )
    await assert.rejects(client.peerGet(ifindex, 6), { errno: 'ENOENT' })
    await driver.close()
    const { value } = await events.next()
    assert.deepEqual(value, {
      event: 'peer-del-ntf',
      ifindex,
      peer: { id: 5, delReason: 'teardown' },
    })
    assert.match(said.join('\n'), new RegExp(`${name}: created[^]*${name}: removed`))
  })

  const nones: [allowed: boolean, why: string][] = [
    [false, 'nothing is left unencrypted by accident'],
    [true, 'it was asked for, to look at packets'],
  ]
  for (const [allowNone, why] of nones) {
    it(`${allowNone ? 'takes' : 'refuses'} the cipher none: ${why}`, { skip }, async () => {
      const driver = startDriver({ allowNone })
      try {
        const client = await driver.client('ovpn-dco')
        const name = `ovemn${process.pid}`
        const { ifindex } = await client.linkNew({ name, kind: 'ovpn-dco', mode: 'mp' })
        using socket = openUdp('127.0.0.1', 0)
        await client.peerNew(ifindex, {
          ...{ id: 1, socket: socket.fd, vpnIpv4: '10.77.0.1' },
          ...{ remoteIpv4: '127.0.0.1', remotePort: 9 },
        })
        const install = client.keyNew(ifindex, {
          ...{ peerId: 1, slot: 'primary', keyId: 0, cipherAlg: 'none' },
          ...{ encryptDir: key(1), decryptDir: key(2) },
        })
        if (allowNone) await install
        else await assert.rejects(install, { errno: 'EINVAL' })
      } finally {
        await driver.close()
      }
    })
  }
})
