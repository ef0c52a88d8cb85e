/** Run in the guest by boot.test.ts: makes, lists and removes an interface of the kernel's own driver. */

import { openClient } from '../../src/driver/client.ts'
import { KernelChannel } from '../../src/runtime/kernel-channel.ts'

const say = (value: unknown) => console.log(JSON.stringify(value))

const started = performance.now()
const client = await openClient({
  generic: () => new KernelChannel('generic'),
  route: () => new KernelChannel('route'),
  dialect: 'ovpn',
})
say({ family: client.dialect, extended: client.extended })
const made = await client.linkNew({ name: 'hello0', kind: 'ovpn', mode: 'mp' })
say(made)
say(await client.peers(made.ifindex))
await client.linkDel(made.ifindex)
say({ startMs: Math.round(started), ms: Math.round(performance.now() - started) })
client.close()
