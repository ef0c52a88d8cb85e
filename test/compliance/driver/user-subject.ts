/** The user-space driver under the suite, in this process. Apart, so that a run on the kernel's needs nothing of it. */

import { NetlinkServer } from '../../../src/driver/server.ts'
import { DriverHost } from '../../../src/driver/worker/host.ts'
import { originOfNetns } from '../../../src/runtime/origin.ts'
import { driverSettings } from '../../driver-settings.ts'
import type { Subject } from './subject.ts'

export function openUser(): Subject {
  // Seeds are for jitter alone; the same ones every time.
  const host = new DriverHost({ log() {}, random: () => 1, allowNone: false, ...driverSettings() })
  const server = new NetlinkServer(host, { log: (text) => process.stderr.write(`${text}\n`) })
  return {
    kind: 'user',
    open(protocol, netns) {
      const channel = server.channel(protocol, originOfNetns(netns))
      const come: Uint8Array[] = []
      let wake: (() => void) | undefined
      channel.listen({
        received(datagram) {
          come.push(datagram.slice())
          wake?.()
        },
        closed() {},
      })
      void channel.setOption('ext-ack', 1)
      return {
        send: (datagram) => channel.send(datagram),
        async next(ms) {
          if (come.length === 0 && ms > 0) {
            let timer: ReturnType<typeof setTimeout> | undefined
            await new Promise<void>((resolve) => {
              wake = resolve
              timer = setTimeout(resolve, ms)
            })
            clearTimeout(timer)
            wake = undefined
          }
          return come.shift()
        },
        setOption: (option, value) => channel.setOption(option, value),
        close: () => channel.close(),
      }
    },
    async close() {
      await host.close()
      server.close()
    },
  }
}
