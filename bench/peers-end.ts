/**
 * One end of the tunnel of `bench/peers.ts`, run in that end's namespace: makes the device and its first peer, then does what
 * standard input says, a line each (`grow N`, `churn SECONDS`), and answers each with a line of JSON.
 */
import { createInterface } from 'node:readline'
import { connectDriver, type DriverClient } from '../src/index.ts'
import { openUdp } from '../src/platform/udp.ts'

const PORT = 1194
const [socket, mode, local, remote] = process.argv.slice(2) as [
  string,
  'mp' | 'p2p',
  string,
  string,
]
const client = await connectDriver({ socket })
const { ifindex } = await client.linkNew({ name: 'ovpn0', kind: 'ovpn', mode, mtu: 1420 })
const udp = openUdp(local, PORT)
await add(client, 1, PORT)
let present = 1
console.log(JSON.stringify({ ready: true }))

for await (const line of createInterface({ input: process.stdin })) {
  const [what, value] = line.split(' ')
  const start = performance.now()
  let count = 0
  if (what === 'grow') {
    for (; present < Number(value); count++)
      await add(client, ++present, PORT + 1 + (present % 60_000))
  } else if (what === 'churn') {
    const end = start + 1000 * Number(value)
    for (; performance.now() < end; count++) {
      await add(client, present + 1, PORT)
      await client.peerDel(ifindex, present + 1)
    }
  }
  console.log(JSON.stringify({ count, seconds: (performance.now() - start) / 1000 }))
}

/** A peer with its key; only the first has somebody behind it. */
async function add(to: DriverClient, id: number, remotePort: number): Promise<void> {
  // 10.8.0.2 for the first peer, and so on.
  const vpnIpv4 = `10.8.${(id + 1) >> 8}.${(id + 1) & 255}`
  const address = mode === 'mp' ? { vpnIpv4 } : {}
  const endpoint = { remoteIpv4: remote, remotePort }
  await to.peerNew(ifindex, { id, socket: udp.fd, ...endpoint, ...address })
  const direction = (fill: number) => ({
    cipherKey: new Uint8Array(32).fill(fill),
    nonceTail: new Uint8Array(8).fill(fill),
  })
  const [out, back] = mode === 'mp' ? [1, 2] : [2, 1]
  await to.keyNew(ifindex, {
    ...{ peerId: id, slot: 'primary', keyId: 0, cipherAlg: 'aes-gcm' },
    ...{ encryptDir: direction(out), decryptDir: direction(back) },
  })
}
