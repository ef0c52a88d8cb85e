/**
 * The two drivers under the suite: netlink sockets of the kernel, and channels of the user-space driver in this
 * process, as one interface that asks and waits.
 */
import { originOfNetns } from '../../../src/cli/origin.ts'
import type { ChannelOption, Protocol } from '../../../src/driver/channel.ts'
import { NetlinkServer } from '../../../src/driver/server.ts'
import { DriverHost } from '../../../src/driver/worker/host.ts'
import { SOL_NETLINK } from '../../../src/platform/layout.ts'
import { openLibc } from '../../../src/platform/libc.ts'
import { openNetlink } from '../../../src/platform/netlink.ts'
import { setOption } from '../../../src/platform/sockopt.ts'

/** A netlink socket. */
export interface Port {
  send(datagram: Uint8Array): void
  /** The next datagram, or undefined when none comes in `ms` milliseconds. */
  next(ms: number): Promise<Uint8Array | undefined>
  setOption(option: ChannelOption, value: number): Promise<void>
  close(): void
}

export interface Subject {
  readonly kind: 'kernel' | 'user'
  /** A socket in the namespace `netns`, a descriptor that stays the caller's. */
  open(protocol: Protocol, netns: number): Port
  close(): Promise<void>
}

export const sleep = (ms: number): Promise<void> => new Promise<void>((resolve) => setTimeout(resolve, ms))

const OPTIONS: { readonly [O in ChannelOption]?: number } = {
  'add-membership': 1,
  'drop-membership': 2,
  'cap-ack': 10,
  'ext-ack': 11,
}

export const kernel: Subject = {
  kind: 'kernel',
  open(protocol, netns) {
    const socket = openNetlink(protocol === 'route' ? 0 : 16, { netns })
    return {
      send: (datagram) => socket.send(datagram),
      next: async (ms) => socket.receive(ms),
      async setOption(option, value) {
        setOption(openLibc(), socket.fd, SOL_NETLINK, OPTIONS[option]!, value, option)
      },
      close: () => socket.close(),
    }
  },
  close: async () => undefined,
}

export function openUser(): Subject {
  // Seeds are for jitter alone; the same ones every time.
  const host = new DriverHost({ log() {}, random: () => 1, allowNone: false })
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
