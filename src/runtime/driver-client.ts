/** A client of the driver that is meant: this process's own, the one that runs in user space, or the kernel's. */
import { openUnixChannel } from '../driver/channel.ts'
import { type DriverClient, openClient } from '../driver/client.ts'
import { openLibc } from '../platform/libc.ts'
import { openOwnNetns } from '../platform/netns.ts'
import { realClock } from './clock.ts'
import { createDriver, type DriverLog } from './driver.ts'
import { KernelChannel } from './kernel-channel.ts'
import { originOfNetns } from './origin.ts'

export type DriverKind = 'own' | 'user' | 'kernel'

export interface OpenedDriver {
  readonly kind: DriverKind
  readonly client: DriverClient
  /** Interfaces of a driver of this process's own go with it. */
  close(): Promise<void>
}

/**
 * Opens it in the network namespace that this thread is in. Rejects with an ApiError: ENOENT, ECONNREFUSED or EACCES where there is none to be
 * reached.
 *
 * @param socket of the driver in user space
 */
export async function openDriverClient(
  kind: DriverKind,
  socket: string,
  log: DriverLog,
): Promise<OpenedDriver> {
  if (kind === 'own') return openOwn(log)
  const client = await openClient({
    generic: () =>
      kind === 'kernel' ? new KernelChannel('generic') : openUnixChannel(socket, 'generic'),
    route: () =>
      kind === 'kernel' ? new KernelChannel('route') : openUnixChannel(socket, 'route'),
    dialect: 'ovpn',
  })
  return { kind, client, close: async () => client.close() }
}

async function openOwn(log: DriverLog): Promise<OpenedDriver> {
  const random = () => new DataView(realClock.random(4).buffer).getUint32(0)
  const driver = createDriver(log, random)
  const netns = openOwnNetns()
  const origin = originOfNetns(netns)
  const client = await openClient({
    generic: () => driver.server.channel('generic', origin),
    route: () => driver.server.channel('route', origin),
    dialect: 'ovpn',
  })
  return {
    kind: 'own',
    client,
    async close() {
      client.close()
      await driver.close()
      openLibc().close(netns)
    },
  }
}
