import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isPrivileged } from '../interpose/process.ts'
import { openLibc } from '../platform/libc.ts'
import { openOwnNetns } from '../platform/netns.ts'
import { openPair } from '../platform/relay.ts'
import { socketCookie } from '../platform/sockopt.ts'
import { openUdp } from '../platform/udp.ts'
import { originOfConnection, originOfNetns } from './origin.ts'

const withoutRoot = process.getuid?.() === 0 ? false : 'changing the user takes root'

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

describe('an origin that has connected', () => {
  /** Both ends of a connection within this process, which so is its own other end. */
  function connected() {
    const { own, other } = openPair('stream')
    const origin = originOfConnection(own)
    return {
      origin,
      [Symbol.dispose]() {
        origin[Symbol.dispose]()
        for (const fd of [own, other]) openLibc().close(fd)
      },
    }
  }

  it('may act for a process that is its user’s, with that one’s descriptors and rights', async () => {
    using one = connected()
    const child = Bun.spawn(['sleep', '20'])
    try {
      const acting = one.origin.actFor!(child.pid)
      assert.equal(acting.acting, true)
      assert.equal(acting.process, one.origin.process)
      assert.equal(acting.netns, one.origin.netns)
      assert.equal(acting.privileged, isPrivileged(child.pid))
      assert.throws(() => acting.takeFd(999), { errno: 'ENOTSOCK' })
      openLibc().close(acting.takeFd(0))
      assert.equal(acting.watchFd, undefined)
    } finally {
      child.kill()
      await child.exited
    }
    assert.throws(() => one.origin.actFor!(child.pid), { errno: 'ESRCH' })
  })

  it('of a user that is not root may not act for another’s', { skip: withoutRoot }, async () => {
    // Its own process 1 is root's.
    const script = `import { openPair } from '${import.meta.resolve('../platform/relay.ts')}'
      import { originOfConnection } from '${import.meta.resolve('./origin.ts')}'
      const origin = originOfConnection(openPair('stream').own)
      try { origin.actFor(1); console.log('may') } catch (error) { console.log(error.errno) }`
    const as = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
    const inherits = ['--inh-caps', '-all', '--bounding-set', '-all']
    const child = Bun.spawn([...as, ...inherits, process.execPath, '-e', script], {
      stderr: 'inherit',
    })
    assert.equal((await new Response(child.stdout).text()).trim(), 'EPERM')
  })
})
