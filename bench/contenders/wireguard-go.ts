/**
 * WireGuard's reference implementation in user space. Set up through its own socket, so that no tool beside it is needed.
 * Source: https://www.wireguard.com/xplatform/
 */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { fetchPackage } from '../../test/kernel/fetch.ts'
import { type Running, run, until } from '../process.ts'
import { type End, reaches, startInside, type Topology } from '../topology.ts'
import { type Contender, FAR_VPN, NEAR_VPN, TUNNEL_MTU, TUNNEL_PORT } from './contender.ts'

const running: Running[] = []

export const wireguardGo: Contender = {
  name: 'wireguard-go',
  ciphers: ['chacha20-poly1305'],
  transports: ['udp'],
  workers: [],
  async unavailable() {
    return fetchPackage('wireguard-go').then(
      () => undefined,
      (error: Error) => error.message,
    )
  },
  async version() {
    return (await fetchPackage('wireguard-go')).version
  },
  async up(topology: Topology) {
    const { run: program } = await fetchPackage('wireguard-go')
    const near = keyPair()
    const far = keyPair()
    await setUp(program('/usr/bin/wireguard-go'), 'a', topology.near, near, NEAR_VPN, {
      ...far,
      end: topology.far,
    })
    await setUp(program('/usr/bin/wireguard-go'), 'b', topology.far, far, FAR_VPN, {
      ...near,
      end: topology.near,
    })
    await until('wireguard-go', () => reaches(topology.near.netns, FAR_VPN), running)
    return { near: NEAR_VPN, far: FAR_VPN, processes: running.map(({ pid }) => pid) }
  },
  async down() {
    await Promise.all(running.splice(0).map((program) => program.stop()))
  },
}

interface KeyPair {
  private: string
  public: string
}

function keyPair(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('x25519')
  const raw = (key: KeyObject, type: 'pkcs8' | 'spki') =>
    // both encodings end in the key itself, 32 bytes (RFC 8410)
    (key.export({ type, format: 'der' }) as Buffer).subarray(-32).toString('hex')
  return { private: raw(privateKey, 'pkcs8'), public: raw(publicKey, 'spki') }
}

async function setUp(
  program: string[],
  side: string,
  { netns }: End,
  own: KeyPair,
  address: string,
  peer: KeyPair & { end: End },
): Promise<void> {
  const device = `wgb${process.pid}${side}` // its socket's name is the same in all namespaces
  const process_ = startInside(netns, [...program, '--foreground', device], { LOG_LEVEL: 'error' })
  running.push(process_)
  const path = `/var/run/wireguard/${device}.sock`
  await until(device, () => existsSync(path), [process_])
  const answer = await ask(
    path,
    [
      'set=1',
      `private_key=${own.private}`,
      `listen_port=${TUNNEL_PORT}`,
      `public_key=${peer.public}`,
      `endpoint=${peer.end.address}:${TUNNEL_PORT}`,
      'allowed_ip=0.0.0.0/0',
    ].join('\n'),
  )
  if (!answer.includes('errno=0')) throw new Error(`wireguard-go refused its set-up: ${answer}`)
  await run(['ip', '-n', netns, 'address', 'add', `${address}/24`, 'dev', device])
  await run(['ip', '-n', netns, 'link', 'set', device, 'mtu', String(TUNNEL_MTU), 'up'])
}

/** One request and its answer, both ended by an empty line. */
function ask(path: string, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = connect(path, () => socket.write(`${request}\n\n`))
    socket.on('data', (chunk) => {
      answer += chunk
      if (answer.endsWith('\n\n')) socket.destroy()
    })
    socket.on('close', () => resolve(answer))
    socket.on('error', reject)
  })
}
