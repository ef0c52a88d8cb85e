/** What is given out: the packed tarball, installed as a user would, and the single executable. Both carry packets, and serve. */
import assert from 'node:assert/strict'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run, start } from './command.ts'
import { STARTED } from './interop/programs.ts'
import { openTestNetns, withoutNamespaces } from './namespace.ts'

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

const SERVER = '192.0.2.1'
const SERVER_VPN = '10.8.0.1'

/** `ovpn server` from nothing and `ovpn client` with the profile it made, in namespaces; what they make stays in `cwd`. */
async function serves(program: string, cwd: string): Promise<void> {
  mkdirSync(cwd)
  using there = openTestNetns('pks')
  using here = openTestNetns('pkc')
  there.ip(`link add s0 type veth peer name c0 netns ${here.name}`)
  there.ip(`addr add ${SERVER}/24 dev s0`)
  here.ip('addr add 192.0.2.2/24 dev c0')
  there.ip('link set s0 up')
  here.ip('link set c0 up')
  const server = start(program, ['server', '--host', SERVER, '--netns', there.name], { cwd })
  const inside = ['netns', 'exec', here.name]
  const running = [server]
  try {
    await server.says(/listening/i)
    const client = start('ip', [...inside, program, 'client', 'ovpn-server/client.ovpn'], { cwd })
    running.push(client)
    await client.says(STARTED)
    await ok('ip', [...inside, 'ping', '-c', '1', '-w', '30', SERVER_VPN])
  } finally {
    for (const one of running.reverse()) {
      one.kill('SIGTERM')
      await one.ended
    }
  }
  assert.equal(server.status, 0, server.stderr)
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

  it('serves', { skip: withoutNamespaces }, () => serves(ovpn, join(folder, 'tarball')))

  describe('as a library', () => {
    const program = join(folder, 'program')

    /** Runs a program elsewhere that has the package installed. */
    const runs = async (runtime: string, text: string, through: string[] = []) => {
      const file = join(program, 'main.mjs')
      writeFileSync(file, text)
      const [command, ...args] = [...through, runtime, file]
      return ok(command!, args, '/')
    }

    before(() => {
      mkdirSync(program)
      symlinkSync(join(prefix, 'lib', 'node_modules'), join(program, 'node_modules'))
    })

    it('drives the driver from Node', { skip: withoutNamespaces }, async () => {
      const socket = join(folder, 'driver.sock')
      const driver = start(ovpn, ['driver', '--socket', socket])
      await driver.says(/listening/)
      const printed = await runs(
        'node',
        `import { ApiError, connectDriver } from 'ovpn'
        const client = await connectDriver({ socket: ${JSON.stringify(socket)} })
        const { ifindex, name } = await client.linkNew({ kind: 'ovpn', mode: 'mp' })
        const refusal = await client.peerGet(ifindex, 1).catch((error) => error)
        await client.linkDel(ifindex)
        client.close()
        console.log(JSON.stringify([name, refusal instanceof ApiError, refusal.errno]))`,
      )
      const [name, isApiError, errno] = JSON.parse(printed)
      assert.match(name, /^ovpn\d+$/)
      assert.deepEqual([isApiError, errno], [true, 'ENOENT'])
      driver.kill('SIGTERM')
      assert.equal((await driver.ended).status, 0)
    })

    it('says in Node that servers and clients need Bun', async () => {
      const printed = await runs(
        'node',
        `import { connect, createServer } from 'ovpn'
        for (const open of [connect, createServer]) await open({}).catch((error) => console.log(error.message))`,
      )
      assert.match(printed, /^connect needs Bun.*\ncreateServer needs Bun/)
    })

    it('opens a server in Bun', { skip: withoutNamespaces }, async () => {
      using netns = openTestNetns('pkl')
      const made = join(folder, 'tarball', 'ovpn-server') // by `ovpn server`, above
      const printed = await runs(
        process.execPath,
        `import { readFileSync } from 'node:fs'
        import { createServer } from 'ovpn'
        const folder = ${JSON.stringify(made)}
        const server = await createServer({ config: readFileSync(folder + '/server.conf', 'utf8'), folder })
        console.log(server.device)
        await server.close()`,
        ['ip', 'netns', 'exec', netns.name],
      )
      assert.match(printed, /^ovpn\d+\n$/)
    })
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

  it('serves', { skip: withoutNamespaces }, () => serves(ovpn, join(folder, 'executable')))
})
