/** What time and closing do: keepalive, expiry, sockets that go while there are peers. driver-behaviour 5.3, 5.4, 6.1. */
import { KEEPALIVE_MAGIC } from '../../../../src/wire/data.ts'
import { INSIDE, OUTSIDE } from '../lab.ts'
import { ipv4, keyconf, Remote } from '../packets.ts'
import type { Stage } from '../stage.ts'
import { sleep } from '../subject.ts'

/** Peers with keepalive settings, watched for a while: what was sent to each, and whether it expired. */
export async function keepalive(stage: Stage): Promise<void> {
  const device = await stage.device('mp')
  const { fd: socket } = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  const settings: [what: string, interval: number, timeout: number][] = [
    ['1 and 3', 1, 3],
    ['0 and 0', 0, 0],
    ['1 and 0', 1, 0],
    ['0 and 2', 0, 2],
    ['1 and 60', 1, 60],
    ['60 and 60, heard', 60, 60],
    ['60 and 3, heard', 60, 3],
    ['1 and 3, without a key', 1, 3],
  ]
  const heard: (() => void)[] = []
  for (const [i, [what, keepaliveInterval, keepaliveTimeout]] of settings.entries()) {
    const id = i + 1
    const far = stage.udp(`far of ${what}`, 'outside', OUTSIDE, 2000 + id)
    const peer = {
      id,
      socket,
      remoteIpv4: OUTSIDE,
      remotePort: 2000 + id,
      vpnIpv4: `10.8.0.${id + 1}`,
      keepaliveInterval,
      keepaliveTimeout,
    }
    const keys = what.endsWith('without a key') ? [] : [keyconf(id, 'primary', 0)]
    await stage.mustPeer(device, peer, ...keys)
    const remote = new Remote(id)
    if (what.endsWith('heard')) {
      const home = { address: INSIDE, port: 1194 }
      heard.push(() => far.send(remote.seal(KEEPALIVE_MAGIC), home))
    }
  }
  await stage.traffic(
    'six seconds',
    async () => {
      for (let i = 0; i < 12; i++) {
        for (const say of heard) say()
        await sleep(500)
      }
    },
    {
      // How many pings fit into the time is a matter of luck: that they come, and how they look, is not.
      once: true,
    },
  )
  const { ifindex } = device
  // Its counter of pings would tell the same luck: that it is still there is all that is asked.
  await stage.asks('who is pinged and not heard is left', 'peer-del', { ifindex, peer: { id: 5 } })
  await stage.asksAll('who else is left', ifindex)
}

export async function closing(stage: Stage): Promise<void> {
  const device = await stage.device('mp')
  const { ifindex } = device
  const owner = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  const other = stage.udp('other', 'inside', '0.0.0.0', 1195)
  const far = stage.udp('far', 'outside', OUTSIDE, 2000)
  const peer = { remoteIpv4: OUTSIDE, remotePort: 2000 }
  for (const id of [1, 2, 3]) {
    const more = { socket: owner.fd, vpnIpv4: `10.8.0.${id}` }
    await stage.mustPeer(device, { id, ...peer, ...more }, keyconf(id, 'primary', 0))
  }
  const more = { socket: other.fd, vpnIpv4: '10.8.0.4' }
  await stage.mustPeer(device, { id: 4, ...peer, ...more }, keyconf(4, 'primary', 0))
  await stage.traffic(
    'the socket of three peers is closed',
    async () => {
      owner.close()
      await sleep(200)
    },
    { once: true },
  )
  await stage.asksAll('who is left', ifindex)
  const home = { address: INSIDE, port: 1195 }
  const inner = ipv4('10.8.0.4', '10.8.0.1')
  await stage.traffic('the other socket goes on', () => far.send(new Remote(4).seal(inner), home))
  const again = stage.udp('owner again', 'inside', '0.0.0.0', 1194)
  await stage.asks('a socket at the same port', 'peer-new', {
    ifindex,
    peer: { id: 1, socket: again.fd, ...peer, vpnIpv4: '10.8.0.1' },
  })
}
