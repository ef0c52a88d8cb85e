import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { openLibc } from '../platform/libc.ts'
import { openOwnNetns } from '../platform/netns.ts'
import { socketCookie } from '../platform/sockopt.ts'
import { openUdp } from '../platform/udp.ts'
import { originOfNetns } from './origin.ts'

describe('an origin in this process', () => {
  it('tells when a descriptor is no longer the socket it was', () => {
    const netns = openOwnNetns()
    try {
      const origin = originOfNetns(netns)
      const socket = openUdp('127.0.0.1', 0)
      const watch = origin.watchFd!(socket.fd, socketCookie(socket.fd))
      // The driver has the socket too: that does not count.
      const kept = origin.takeFd(socket.fd)
      assert.equal(watch.isOpen(), true)
      socket.close()
      assert.equal(watch.isOpen(), false)
      using other = openUdp('127.0.0.1', 0)
      assert.equal(other.fd, socket.fd, 'the system gives the lowest number')
      assert.equal(watch.isOpen(), false, 'another socket under its number')
      openLibc().close(kept)
      watch.close()
    } finally {
      openLibc().close(netns)
    }
  })

  it('has no sockets but its own', () => {
    const netns = openOwnNetns()
    try {
      assert.throws(() => originOfNetns(netns).takeFd(9999), { errno: 'ENOTSOCK' })
    } finally {
      openLibc().close(netns)
    }
  })
})
