/** The demonstration: it moves what it says, and leaves nothing behind however it ends. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { OVPN, type Running, run, start } from '../command.ts'
import { withoutNamespaces } from '../namespace.ts'

/** What a demonstration of this process could have left: namespaces of its name, and processes in them. */
function leftovers(pid: number): string[] {
  const found = execFileSync('ip', ['netns'], { encoding: 'utf8' }).split('\n')
  for (const process of readdirSync('/proc')) {
    if (!/^\d+$/.test(process)) continue
    try {
      found.push(readFileSync(`/proc/${process}/cmdline`, 'utf8').replaceAll('\0', ' '))
    } catch {
      // It has ended meanwhile.
    }
  }
  return found.filter((name) => name.includes(`ovpn-demo-${pid}-`))
}

describe('ovpn demo', { skip: withoutNamespaces }, () => {
  it('moves a stream through both tunnels, unchanged', async () => {
    const demo = start(OVPN, ['demo', '--seconds', '2'])
    const { status, stdout, stderr } = await demo.ended
    assert.equal(status, 0, stderr)
    assert.equal(stdout.match(/every byte as it was sent/g)?.length, 2)
    assert.equal(stdout.match(/new keys in use/g)?.length, 2)
    assert.match(stdout, /UDP, AES-256-GCM +\d+\.\d+ [GM]bit\/s/)
    assert.match(stdout, /key: primary: chacha20-poly1305, id 1, /)
    assert.match(stdout, /Removed all that was made/)
    assert.deepEqual(leftovers(demo.pid), [])
  })

  it('tells its results to programs', async () => {
    const { stdout } = await run(OVPN, ['demo', '--seconds', '1', '--json'])
    const results = JSON.parse(stdout) as { tunnel: string; bytes: number; intact: boolean }[]
    assert.deepEqual(
      results.map(({ tunnel, intact }) => [tunnel, intact]),
      [
        ['UDP, AES-256-GCM', true],
        ['TCP, ChaCha20-Poly1305', true],
      ],
    )
    for (const { bytes } of results) assert.ok(bytes > 1_000_000)
  })

  const moments: [when: string, reached: (demo: Running) => Promise<unknown>][] = [
    ['while it is being built', (demo) => demo.says(/10\.8\.0\.2 over UDP/)],
    ['in the first transfer', (demo) => demo.says(/ 1 s .*so far/)],
    ['behind the new keys', (demo) => demo.says(/new keys in use/)],
  ]
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    for (const [when, reached] of moments) {
      it(`leaves nothing behind when it gets ${signal} ${when}`, async () => {
        const demo = start(OVPN, ['demo', '--seconds', '4'])
        await reached(demo)
        demo.kill(signal)
        demo.kill(signal) // as a terminal and npm do together
        const { status, stderr } = await demo.ended
        assert.equal(status, 1)
        assert.match(stderr, /^ovpn: interrupted$/m)
        assert.deepEqual(leftovers(demo.pid), [])
      })
    }
  }

  it('removes what one that was killed has left', async () => {
    const killed = start(OVPN, ['demo'])
    await killed.says(/ 1 s .*so far/)
    killed.kill('SIGKILL')
    await killed.ended
    assert.equal((await run(OVPN, ['demo', '--seconds', '1'])).status, 0)
    assert.deepEqual(leftovers(killed.pid), [])
  })

  it('says what is missing to a user who is not root', async () => {
    const { status, stderr } = await run('setpriv', [
      '--reuid=65534',
      '--clear-groups',
      OVPN,
      'demo',
    ])
    assert.equal(status, 1)
    assert.match(stderr, /cannot run the demonstration:\n {2}it needs the capability CAP_NET_ADMIN/)
    assert.match(stderr, /CAP_SYS_ADMIN/)
  })
})
