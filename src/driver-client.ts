/**
 * The client of the driver, as programs get it from the package `ovpn`: it runs in Node and in Bun. The driver itself is `ovpn driver`.
 *
 *     import { connectDriver } from 'ovpn'
 *     const client = await connectDriver()
 *     for (const link of await client.links()) console.log(link.name, link.rxBytes)
 *     client.close()
 */

import { openUnixChannel } from './driver/channel.ts'
import { type DriverClient, openClient } from './driver/client.ts'
import { DEFAULT_SOCKET } from './driver/socket-path.ts'
import type { DialectName } from './uapi/types.ts'

export type { Channel, ChannelListener, ChannelOption, Protocol } from './driver/channel.ts'
export { openUnixChannel } from './driver/channel.ts'
export type { ClientOptions, EventStream, EventsLost } from './driver/client.ts'
export { DriverClient, openClient } from './driver/client.ts'
export { ApiError, type Errno } from './uapi/errno.ts'
export type * from './uapi/types.ts'

export interface ConnectDriverOptions {
  /** Path of the driver's socket; `/run/ovpn/driver.sock` unless told. */
  socket?: string
  /** Which kind of interface is spoken of: `ovpn` unless told, `ovpn-dco-v2` for those of kind `ovpn-dco`. */
  dialect?: DialectName
}

/**
 * Connects to the driver in user space. The client acts in the network namespace that the process is in at that time.
 * Rejects with an ApiError: ENOENT or ECONNREFUSED where no driver runs, EACCES where it may not be used.
 */
export function connectDriver(options: ConnectDriverOptions = {}): Promise<DriverClient> {
  const { socket = DEFAULT_SOCKET, dialect = 'ovpn' } = options
  return openClient({
    generic: () => openUnixChannel(socket, 'generic'),
    route: () => openUnixChannel(socket, 'route'),
    dialect,
  })
}
