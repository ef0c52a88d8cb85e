/** A driver under the suite, as netlink sockets that ask and wait; and the kernel's. Ours is in user-subject.ts. */
import type { ChannelOption, Protocol } from '../../../src/driver/channel.ts'
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

export const sleep = (ms: number): Promise<void> =>
  new Promise<void>((resolve) => setTimeout(resolve, ms))

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
