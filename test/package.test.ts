/** What is given out: the packed tarball, installed as a user would, and the single executable. Both carry packets. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run, start } from './command.ts'
import { withoutNamespaces } from './namespace.ts'

const checkout = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'ovpn-package-'))
after(() => rmSync(folder, { recursive: true }))

async function ok(command: string, args: string[], cwd = checkout): Promise<string> {
  const { status, stdout, stderr } = await run(command, args, { cwd })
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${stdout}${stderr}`)
  return stdout
}

/** Packets through both kinds of tunnel: workers start, the native libraries are found. */
async function carriesPackets(program: string): Promise<void> {
  const results = JSON.parse(await ok(program, ['demo', '--seconds', '1', '--json'], folder))
  assert.deepEqual(
    results.map(({ intact }: { intact: boolean }) => intact),
    [true, true],
  )
}

describe('the tarball', () => {
  const prefix = join(folder, 'prefix')
  const ovpn = join(prefix, 'bin', 'ovpn')

  before(async () => {
    await ok('npm', ['pack', '--pack-destination', folder])
    const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz'))!
    const quiet = ['--no-audit', '--no-fund', '--prefer-offline']
    await ok('npm', ['install', '--global', '--prefix', prefix, ...quiet, join(folder, tarball)])
  })

  it('holds what it needs and no tests', async () => {
    const root = join(prefix, 'lib', 'node_modules', 'ovpn')
    const files = readdirSync(root, { recursive: true, encoding: 'utf8' })
    const own = files.filter((file) => !file.startsWith('node_modules'))
    for (const file of ['README.md', 'bin/ovpn', 'dist/index.js', 'dist/types/index.d.ts']) {
      assert.ok(own.includes(file), file)
    }
    assert.deepEqual(
      own.filter((file) => /\.test|test-data/.test(file)),
      [],
    )
  })

  it('runs from anywhere', async () => {
    assert.match(await ok(ovpn, ['--version'], '/'), /^\d+\.\d+\.\d+\n$/)
  })

  it('carries packets', { skip: withoutNamespaces }, () => carriesPackets(ovpn))

  it('is a library for Node', { skip: withoutNamespaces }, async () => {
    const socket = join(folder, 'driver.sock')
    const driver = start(ovpn, ['driver', '--socket', socket])
    await driver.says(/listening/)
    const root = join(prefix, 'lib', 'node_modules', 'ovpn')
    const script = join(root, 'consumer.mjs') // a package may import itself by its name
    writeFileSync(
      script,
      `import { ApiError, connectDriver } from 'ovpn'
      const client = await connectDriver({ socket: ${JSON.stringify(socket)} })
      const { ifindex, name } = await client.linkNew({ kind: 'ovpn', mode: 'mp' })
      const refusal = await client.peerGet(ifindex, 1).catch((error) => error)
      await client.linkDel(ifindex)
      client.close()
      console.log(JSON.stringify([name, refusal instanceof ApiError, refusal.errno]))`,
    )
    const [name, isApiError, errno] = JSON.parse(await ok('node', [script], '/'))
    assert.match(name, /^ovpn\d+$/)
    assert.deepEqual([isApiError, errno], [true, 'ENOENT'])
    driver.kill('SIGTERM')
    assert.equal((await driver.ended).status, 0)
  })
})

describe('the executable', () => {
  const ovpn = join(folder, 'ovpn')

  before(async () => {
    const { scripts } = JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8'))
    const [, ...args] = (scripts.compile as string).replaceAll("'", '').split(' ')
    args[args.indexOf('--outfile') + 1] = ovpn
    await ok(process.execPath, args)
  })

  it('runs without the checkout', async () => {
    assert.match(await ok(ovpn, ['--version'], '/'), /^\d+\.\d+\.\d+\n$/)
  })

  it('carries packets', { skip: withoutNamespaces }, () => carriesPackets(ovpn))
})
