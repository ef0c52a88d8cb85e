/**
 * A program that uses the driver of another process, as an OpenVPN would: run in a namespace of a test, it makes a
 * device and a peer over the driver's unix socket, says so in a line of JSON, and from then on sends back what reaches its
 * own UDP socket. Ends with its input.
 */
import { openUnixChannel } from '../../src/driver/channel.ts'
import { openClient } from '../../src/driver/client.ts'
import { openUdp } from '../../src/platform/udp.ts'
import type { Link } from '../../src/uapi/types.ts'
import { HandUdp } from './hand.ts'
import { keyTo, remoteOf } from './lab.ts'

export interface OwnerOptions {
  /** Path of the driver's socket. */
  driver: string
  port: number
  /** The other end. */
  remote: string
  /** Of the tunnel: 0 or 1. */
  side: number
}

export interface OwnerLine {
  link: Link
}

async function main(options: OwnerOptions): Promise<void> {
  const { driver, port, remote, side } = options
  const client = await openClient({
    generic: () => openUnixChannel(driver, 'generic'),
    route: () => openUnixChannel(driver, 'route'),
    dialect: 'ovpn',
  })
  const socket = openUdp('0.0.0.0', port)
  const link = await client.linkNew({ name: 'ovpn0', kind: 'ovpn', mode: 'p2p' })
  await client.peerNew(link.ifindex, { id: 1, socket: socket.fd, ...remoteOf(remote, port) })
  await client.keyNew(link.ifindex, {
    peerId: 1,
    slot: 'primary',
    keyId: 0,
    cipherAlg: 'aes-gcm',
    encryptDir: keyTo(1 - side, {}),
    decryptDir: keyTo(side, {}),
  })
  const line: OwnerLine = { link }
  process.stdout.write(`${JSON.stringify(line)}\n`)
  const hand = new HandUdp(socket)
  setInterval(() => {
    for (let got = hand.poll(); got !== undefined; got = hand.poll()) hand.send(got.bytes, got.from)
  }, 5)
}

if (import.meta.main) {
  process.stdin.on('end', () => process.exit(0)).resume()
  await main(JSON.parse(process.argv[2]!))
}
