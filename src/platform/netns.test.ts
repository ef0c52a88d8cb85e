import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readlinkSync, statSync } from 'node:fs'
import { describe, it } from 'node:test'
import { openTestNetns, withoutNamespaces } from '../../test/namespace.ts'
import { faulty } from './fault.test-data.ts'
import { E } from './layout.ts'
import { openLibc } from './libc.ts'
import {
  createNetns,
  inNetns,
  netnsId,
  openNetnsNamed,
  openNetnsOf,
  openOwnNetns,
  ownNetnsId,
  removeNetns,
} from './netns.ts'

const os = openLibc()

describe('the identity of a namespace', () => {
  it('is what stat(2) says', () => {
    const { dev, ino } = statSync('/proc/self/ns/net')
    assert.equal(ownNetnsId(), `${dev}:${ino}`)
  })

  it('is the same through the process, the thread and the descriptor', () => {
    const ofProcess = openNetnsOf(process.pid)
    const own = openOwnNetns()
    assert.equal(netnsId(ofProcess), netnsId(own))
    assert.equal(netnsId(own), ownNetnsId())
    os.close(ofProcess)
    os.close(own)
  })

  it('is refused of a closed descriptor', () => {
    assert.throws(() => netnsId(99999), { code: 'EBADF' })
  })
})

describe('named namespaces', { skip: withoutNamespaces }, () => {
  it('are those of ip netns: its are found, ours it finds', () => {
    const ours = `ovplatform${process.pid}-ours`
    const theirs = `ovplatform${process.pid}-theirs`
    createNetns(ours)
    execFileSync('ip', ['netns', 'add', theirs])
    try {
      const list = execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })
      assert.match(list, new RegExp(`^${ours}\\b`, 'm'))
      const fd = openNetnsNamed(theirs)
      const inside = execFileSync(
        'ip',
        ['netns', 'exec', theirs, 'stat', '-Lc', '%d:%i'].concat('/proc/self/ns/net'),
        { encoding: 'utf8' },
      )
      assert.equal(netnsId(fd), inside.trim())
      os.close(fd)
    } finally {
      execFileSync('ip', ['netns', 'del', ours])
      removeNetns(theirs)
    }
    assert.throws(() => openNetnsNamed(ours), { code: 'ENOENT' })
    assert.throws(() => openNetnsNamed(theirs), { code: 'ENOENT' })
  })

  it('refuse a taken name and leave it as it is', () => {
    using netns = openTestNetns('platform')
    const before = netnsId(netns.fd)
    assert.throws(() => createNetns(netns.name), { code: 'EEXIST' })
    const again = openNetnsNamed(netns.name)
    assert.equal(netnsId(again), before)
    os.close(again)
  })

  for (const name of ['', '.', '..', 'a/b', '../x', 'a\0b']) {
    it(`refuse ${JSON.stringify(name)}: not a file's name`, () => {
      assert.throws(() => createNetns(name), RangeError)
      assert.throws(() => removeNetns(name), RangeError)
      assert.throws(() => openNetnsNamed(name), RangeError)
    })
  }
})

describe('a visit to a namespace', { skip: withoutNamespaces }, () => {
  it('happens inside, gives the result, and ends at home', () => {
    using netns = openTestNetns('platform')
    const home = ownNetnsId()
    assert.equal(
      inNetns(netns.fd, () => ownNetnsId()),
      netnsId(netns.fd),
    )
    assert.equal(ownNetnsId(), home)
  })

  it('ends at home after an error, and inside another visit', () => {
    using outer = openTestNetns('platform')
    using inner = openTestNetns('platform')
    const home = ownNetnsId()
    inNetns(outer.fd, () => {
      assert.throws(
        () =>
          inNetns(inner.fd, () => {
            throw new TypeError('inside')
          }),
        TypeError,
      )
      assert.equal(ownNetnsId(), netnsId(outer.fd))
    })
    assert.equal(ownNetnsId(), home)
  })

  it('is refused by its error when entering fails, with nothing done', () => {
    using netns = openTestNetns('platform')
    const { syscalls } = faulty(os, [{ call: 'setns', result: -E.EPERM }])
    let visited = false
    const visit = () => {
      visited = true
    }
    assert.throws(() => inNetns(netns.fd, visit, syscalls), { code: 'EPERM' })
    assert.equal(visited, false)
    assert.throws(() => inNetns(2, visit), { code: 'EINVAL' })
  })

  it('ends the process when there is no way back', async () => {
    using netns = openTestNetns('platform')
    const module = (name: string) => JSON.stringify(new URL(name, import.meta.url).pathname)
    const source = `
      import { faulty } from ${module('./fault.test-data.ts')}
      import { openLibc } from ${module('./libc.ts')}
      import { inNetns, openNetnsNamed } from ${module('./netns.ts')}
      const { syscalls } = faulty(openLibc(), [{ call: 'setns', skip: 1, result: -1 }])
      inNetns(openNetnsNamed(${JSON.stringify(netns.name)}), () => {}, syscalls)
      console.log('went on')`
    const child = spawn(process.execPath, ['-e', source], { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        output += chunk
      })
    }
    const [, signal] = await once(child, 'close')
    assert.equal(signal, 'SIGKILL')
    assert.match(output, /cannot return to the own network namespace/)
    assert.doesNotMatch(output, /went on/)
  })

  it('of a worker does not move the process', () => {
    using netns = openTestNetns('platform')
    const process = readlinkSync('/proc/self/ns/net')
    inNetns(netns.fd, () => assert.notEqual(readlinkSync('/proc/thread-self/ns/net'), process))
    assert.equal(readlinkSync('/proc/thread-self/ns/net'), process)
  })
})
