/** The driver as a process of its own, and programs that use it: what is left of a tunnel when one of them is killed. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { withoutNamespaces } from '../namespace.ts'
import { HandUdp } from './hand.ts'
import { type Host, Lab, type Program, until } from './lab.ts'
import type { OwnerLine, OwnerOptions } from './owner.ts'

const OVPN = fileURLToPath(new URL('../../bin/ovpn', import.meta.url))
const OWNER = fileURLToPath(new URL('./owner.ts', import.meta.url))

describe('a driver process', { skip: withoutNamespaces }, () => {
  let lab: Lab
  /** Where the driver lives: on no wire. */
  let home: Host
  let a: Host
  let b: Host
  let driver: Program
  let owners: { program: Program; line: OwnerLine }[]
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-test-'))
  const path = join(folder, 'driver.sock')

  before(async () => {
    lab = new Lab('proc')
    home = await lab.host()
    a = await lab.host()
    b = await lab.host()
    await lab.wire(a, b, 'wire0', [['10.9.0.1/24', '10.9.0.2/24']])
    await start()
  })
  after(async () => {
    await lab.close()
    rmSync(folder, { recursive: true })
  })

  /** The driver, and a tunnel between two programs that use it. */
  async function start(): Promise<void> {
    driver = home.start(OVPN, ['driver', '--socket', path, '--verbose'])
    await until('a driver', async () => (await ovpn(home, 'link', 'show', '--json')).status === 0)
    owners = []
    for (const [host, side] of [
      [a, 0],
      [b, 1],
    ] as const) {
      owners.push(await own(host, side))
    }
  }

  async function own(host: Host, side: number): Promise<{ program: Program; line: OwnerLine }> {
    const options: OwnerOptions = {
      driver: path,
      port: 1194,
      remote: `10.9.0.${2 - side}`,
      side,
    }
    const program = host.start(process.execPath, [OWNER, JSON.stringify(options)], 'pipe')
    await program.says('}\n')
    const line = JSON.parse(program.output) as OwnerLine
    host.addAddress('ovpn0', `10.8.0.${side + 1}/24`)
    host.ip('link set ovpn0 up')
    await host.ready('ovpn0')
    return { program, line }
  }

  const ovpn = (host: Host, ...args: string[]) =>
    host.start(OVPN, [...args, '--socket', path, '--driver', 'user']).ended

  /** What the owner of a socket sends back of what it gets. */
  async function echoed(from: Host, address: string, bytes: Uint8Array): Promise<void> {
    using hand = new HandUdp(from.udp('0.0.0.0'))
    await until(`an echo of ${Buffer.from(bytes).toString('hex')}`, () => {
      hand.send(bytes, { address, port: 1194 })
      return hand.poll()
    })
  }

  const isThere = (host: Host) => host.ip('-o link').includes('ovpn0')
  const control = Uint8Array.of(0x38, 1, 2, 3, 4)
  const data = Uint8Array.of(0x48, 0, 0, 1, 1, 2, 3, 4)

  it('serves programs of other namespaces than its own', async () => {
    await a.reach('10.8.0.2')
    await b.reach('10.8.0.1', { size: 3000 })
    await echoed(b, '10.9.0.1', control)
    assert.ok(!isThere(home), 'the device is where it was asked for')
  })

  it('is told of its end when a program is killed; the device stays', async () => {
    const monitor = b.start(OVPN, ['monitor', '--json', '--socket', path, '--driver', 'user'])
    await monitor.says('listening')
    await owners[1]!.program.kill()
    await until('the end of its peer', () => monitor.output.includes('transport-disconnect'))
    assert.ok(isThere(b), "as with the kernel, a device is nobody's in particular")
    await monitor.kill()
    await ovpn(b, 'link', 'del', 'ovpn0')
    assert.ok(!isThere(b))
    owners[1] = await own(b, 1)
    // New keys, and with them new packet ids, at one end only: the other takes them for replayed until it catches up.
    await owners[0]!.program.kill()
    await ovpn(a, 'link', 'del', 'ovpn0')
    owners[0] = await own(a, 0)
    await a.reach('10.8.0.2')
  })

  it('killed, it leaves no device, and sockets as they were', async () => {
    await driver.kill('SIGKILL')
    await until('both devices to go', () => !isThere(a) && !isThere(b))
    await echoed(b, '10.9.0.1', control)
    await echoed(b, '10.9.0.1', data)
    await echoed(a, '10.9.0.2', data)
  })

  it('started again, it takes the same socket and serves the same programs', async () => {
    for (const { program } of owners) await program.kill()
    await start()
    await a.reach('10.8.0.2')
    await driver.kill('SIGTERM')
    assert.ok(!isThere(a) && !isThere(b), 'when it is told to end, it removes what it made')
  })
})
