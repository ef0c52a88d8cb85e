/** The two drivers talk to each other: tunnels of interop.ts, in a machine whose kernel has a driver. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { whyNoKernel } from '../../kernel/vm.ts'
import { playInKernel } from './guest.ts'
import type { Tunnel } from './interop.ts'

const skip = (await whyNoKernel()) ?? false

/** What our driver needs of a kernel beside what the tests of the kernel's driver do. */
const MODULES = ['chacha', 'inet_diag', 'udp_diag', 'tcp_diag']

const shown: Tunnel[] = []
if (!skip) {
  const options = { timeoutMs: 400_000, modules: MODULES }
  const found = await playInKernel('test/compliance/driver/interop.ts', [], options)
  shown.push(...(found as Tunnel[]))
}

const tunnels = (['user', 'kernel'] as const).flatMap((server) =>
  (['udp', 'tcp'] as const).flatMap((transport) =>
    (['aes-gcm', 'chacha20-poly1305'] as const).map((cipher) => ({ server, transport, cipher })),
  ),
)

for (const wanted of tunnels) {
  const { server, transport, cipher } = wanted
  describe(`${transport}, ${cipher}, the ${server} driver as server`, () => {
    const found = shown.find((one) =>
      Object.entries(wanted).every(([k, v]) => one[k as 'cipher'] === v),
    )

    it('carries pings, through key swaps and floats', { skip }, () => {
      const expected = ['from the server', 'from the client', 'during swaps']
      if (transport === 'udp') expected.push('after a float')
      assert.deepEqual(found!.lost, Object.fromEntries(expected.map((what) => [what, 0])))
    })

    it('carries TCP both ways', { skip }, () => {
      const { down, up } = found!
      console.log(`    down ${megabits(down)}, up ${megabits(up)}`)
      assert.ok(down > 100_000 && up > 100_000)
    })

    it('counts at one end what the other sent', { skip }, () => {
      const { server: one, client: other } = found!.counters
      for (const [from, to, sender] of [
        [one, other, server],
        [other, one, server === 'user' ? 'kernel' : 'user'],
      ] as const) {
        const missing = from.linkTxPackets - to.linkRxPackets
        const most = unseen(transport, sender, from.linkTxPackets)
        assert.ok(missing >= 0 && missing <= most, `${missing} of ${from.linkTxPackets}`)
        if (missing === 0) assert.equal(to.linkRxBytes, from.linkTxBytes)
        assert.ok(to.vpnRxPackets <= to.linkRxPackets)
      }
    })

    if (transport === 'udp') {
      it('the server tells of the float', { skip }, () => {
        assert.equal(found!.floatedTo, '10.9.0.3')
      })
    }
  })
}

/**
 * Packets that may be counted as sent and never arrive: those for which there is no address while it changes; and over TCP
 * the kernel's own, which it drops while its socket is busy (driver-behaviour 2.4).
 */
function unseen(transport: 'udp' | 'tcp', sender: 'user' | 'kernel', sent: number): number {
  if (transport === 'udp') return 5
  return sender === 'kernel' ? sent / 10 : 0
}

/** In a machine without hardware help: it says that all goes well, not how fast. */
const megabits = (bytes: number) => `${((bytes * 8) / 1e6).toFixed(1)} Mbit`
