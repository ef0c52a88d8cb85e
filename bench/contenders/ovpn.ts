/**
 * This project's driver in user space, set up with its own command line: one `ovpn driver` at each end, as if on two machines,
 * static keys, one peer.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import packageJson from '../../package.json' with { type: 'json' }
import { openCiphers } from '../../src/platform/ciphers.ts'
import { createMemory } from '../../src/platform/memory.ts'
import { type Running, run, start, until } from '../process.ts'
import { type End, reaches, startInside, type Topology } from '../topology.ts'
import {
  type Contender,
  FAR_VPN,
  NEAR_VPN,
  TUNNEL_MTU,
  TUNNEL_PORT,
  type TunnelOptions,
} from './contender.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const DEVICE = 'ovpn0'
const PEER_ID = '1'

/** Drivers, and the commands that own the peers' sockets. */
const running: Running[] = []
let folder: string | undefined

export const ovpn: Contender = {
  name: 'ovpn',
  ciphers: ['aes-256-gcm', 'chacha20-poly1305'],
  transports: ['udp', 'tcp'],
  workers: [1, 2],
  async unavailable({ workers }) {
    if (workers === 1) return undefined
    const help = await run(ovpnCommand('driver', '--help'))
    return help.includes('--workers') ? undefined : 'this driver has one worker'
  },
  async version() {
    const { name, version } = openCiphers(createMemory({ bytes: 1 << 20 }), () => performance.now())
    const versions = version.split(', ')
    const libraries = name.split(', ').map((library, i) => `${library} ${versions[i]}`)
    return `${packageJson.version} (${[await revision(), ...libraries].join(', ')})`
  },
  async up(topology, options) {
    folder = mkdtempSync(join(tmpdir(), 'ovpn-bench-'))
    const keyFile = join(folder, 'key')
    await run(ovpnCommand('key', 'generate', keyFile))
    const { near, far } = topology
    const farDriver = await startDriver('far', far, options)
    const nearDriver = await startDriver('near', near, options)
    // The far end first: over TCP it is the one that listens.
    await addPeer(topology, farDriver, { ...options, server: true })
    if (options.transport === 'tcp') await until('the listener', () => listens(far), running)
    await addPeer(topology, nearDriver, { ...options, server: false })
    await addKey(farDriver, keyFile, options, '1')
    await addKey(nearDriver, keyFile, options, '0')
    await until('ovpn', () => reaches(near.netns, FAR_VPN), running)
    return {
      near: NEAR_VPN,
      far: FAR_VPN,
      processes: [nearDriver, farDriver].map(({ process }) => process.pid),
    }
  },
  async down() {
    await Promise.all(running.splice(0).map((program) => program.stop()))
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
    folder = undefined
  },
}

interface Driver {
  process: Running
  socket: string
  end: End
}

function ovpnCommand(...args: string[]): string[] {
  return [process.execPath, MAIN, ...args]
}

/** The driver behind this socket, whatever the kernel has. */
function user(socket: string): string[] {
  return ['--driver', 'user', '--socket', socket]
}

/** A driver with its device, up and with its address. */
async function startDriver(name: string, end: End, { workers }: TunnelOptions): Promise<Driver> {
  const socket = join(folder!, `${name}.sock`)
  // One worker is what every driver has, with or without the option.
  const more = workers === undefined || workers === 1 ? [] : ['--workers', String(workers)]
  const driver = start(ovpnCommand('driver', '--socket', socket, ...more))
  running.push(driver)
  await until('ovpn driver', () => reachable(socket), [driver])
  const at = ['--netns', end.netns, ...user(socket)]
  await run(ovpnCommand('link', 'add', DEVICE, '--mtu', String(TUNNEL_MTU), ...at))
  const address = name === 'near' ? NEAR_VPN : FAR_VPN
  await run(['ip', '-n', end.netns, 'address', 'add', `${address}/24`, 'dev', DEVICE])
  await run(['ip', '-n', end.netns, 'link', 'set', DEVICE, 'up'])
  return { process: driver, socket, end }
}

async function reachable(socket: string): Promise<boolean> {
  try {
    await run(ovpnCommand('link', 'show', ...user(socket)))
    return true
  } catch {
    return false
  }
}

async function addPeer(
  { near, far }: Topology,
  { socket, end }: Driver,
  { transport, server }: TunnelOptions & { server: boolean },
): Promise<void> {
  const other = server ? near : far
  const udp = [
    '--udp-listen',
    `${end.address}:${TUNNEL_PORT}`,
    '--remote',
    `${other.address}:${TUNNEL_PORT}`,
  ]
  const tcp = server
    ? ['--tcp-listen', `${end.address}:${TUNNEL_PORT}`]
    : ['--tcp-connect', `${other.address}:${TUNNEL_PORT}`]
  const args = [DEVICE, PEER_ID, ...user(socket), ...(transport === 'udp' ? udp : tcp)]
  running.push(startInside(end.netns, ovpnCommand('peer', 'new', ...args)))
}

async function listens({ netns }: End): Promise<boolean> {
  const filter = `sport = :${TUNNEL_PORT}`
  return (await run(['ip', 'netns', 'exec', netns, 'ss', '-Hltn', filter])).trim() !== ''
}

/** As soon as the peer is there: its command stays to own the socket, and does not say when. */
async function addKey(
  { socket, end }: Driver,
  keyFile: string,
  { cipher }: TunnelOptions,
  direction: '0' | '1',
): Promise<void> {
  const at = ['--netns', end.netns, ...user(socket)]
  await until(
    'the peer',
    () => succeeds(ovpnCommand('peer', 'get', DEVICE, PEER_ID, ...at)),
    running,
  )
  const key = ['--id', '0', '--cipher', cipher!, '--direction', direction, '--key-file', keyFile]
  await run(ovpnCommand('key', 'new', DEVICE, PEER_ID, ...key, ...at))
}

/** The commit, and whether the files are as committed. */
async function revision(): Promise<string> {
  const git = ['git', '-C', dirname(MAIN), 'describe', '--always', '--dirty', '--exclude', '*']
  return run(git).then(
    (text) => text.trim(),
    () => 'not from a checkout',
  )
}

async function succeeds(command: string[]): Promise<boolean> {
  return run(command).then(
    () => true,
    () => false,
  )
}
