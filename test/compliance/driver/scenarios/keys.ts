/** Keys: slots, ciphers, ids; replacement, swap and removal of what is there and what is not. netlink-api 5.3. */
import type { Slot } from '../../../../src/uapi/types.ts'
import { OUTSIDE } from '../lab.ts'
import { keyconf } from '../packets.ts'
import type { Stage } from '../stage.ts'

export async function keys(stage: Stage): Promise<void> {
  const { ifindex } = await stage.device('mp')
  const { fd: socket } = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  const remote = { remoteIpv4: OUTSIDE, remotePort: 2000 }
  await stage.must('peer-new', { ifindex, peer: { id: 1, socket, ...remote, vpnIpv4: '10.8.0.2' } })
  const show = async (what: string) => {
    for (const slot of ['primary', 'secondary'] as const) {
      await stage.asks(`${what}: ${slot}`, 'key-get', { ifindex, keyconf: { peerId: 1, slot } })
    }
  }
  const add = (what: string, ...args: Parameters<typeof keyconf>) =>
    stage.asks(what, 'key-new', { ifindex, keyconf: keyconf(...args) })
  const remove = (what: string, peerId: number, slot: Slot) =>
    stage.asks(what, 'key-del', { ifindex, keyconf: { peerId, slot } })

  await show('no keys')
  await stage.asks('swap of nothing', 'key-swap', { ifindex, keyconf: { peerId: 1 } })
  await remove('removal of nothing', 1, 'primary')
  await add('unknown peer', 9, 'primary', 0)
  await stage.asks('swap, unknown peer', 'key-swap', { ifindex, keyconf: { peerId: 9 } })
  await remove('removal, unknown peer', 9, 'primary')
  await stage.asks('showing, unknown peer', 'key-get', {
    ifindex,
    keyconf: { peerId: 9, slot: 'primary' },
  })
  for (const bytes of [16, 24, 32]) {
    await add(`AES of ${bytes}`, 1, 'primary', 0, 'aes-gcm', bytes)
    await show(`AES of ${bytes}`)
  }
  await add('ChaCha', 1, 'secondary', 7, 'chacha20-poly1305', 32)
  await add('ChaCha of 16', 1, 'secondary', 7, 'chacha20-poly1305', 16)
  await show('two keys')
  await stage.asks('swap', 'key-swap', { ifindex, keyconf: { peerId: 1 } })
  await show('swapped')
  await add('replacement', 1, 'primary', 2)
  await show('replaced')
  await add('the same id in both slots', 1, 'secondary', 2)
  await show('the same id twice')
  await remove('removal', 1, 'primary')
  await show('one removed')
  await remove('removal again', 1, 'primary')
  await stage.asks('swap with an empty slot', 'key-swap', { ifindex, keyconf: { peerId: 1 } })
  await show('swapped with an empty slot')
  await remove('removal of the last', 1, 'primary')
  await show('all removed')
}
