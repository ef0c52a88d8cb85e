/**
 * The package's second programming interface, `ovpn/driver`: the user-space driver inside the program itself. Needs Bun,
 * /dev/net/tun, and CAP_NET_ADMIN over the network namespace. Sockets named in requests are the program's own.
 */
import { randomFillSync } from 'node:crypto'
import { type DriverClient, openClient } from './driver/client.ts'
import { openLibc } from './platform/libc.ts'
import { openOwnNetns } from './platform/netns.ts'
import { createDriver, type DriverSettings } from './runtime/driver.ts'
import { originOfNetns } from './runtime/origin.ts'
import type { DialectName } from './uapi/types.ts'

export interface OwnDriver {
  /** A client as of any other driver. Interfaces are made in the namespace that this thread was in at `startDriver`. */
  client(dialect?: DialectName): Promise<DriverClient>
  /** Removes all interfaces; their peers are told `teardown`. */
  close(): Promise<void>
}

/** Starts a driver in this process. `log` is handed a line for each interface that comes and goes, and for each trouble. */
export function startDriver(
  options: DriverSettings & { log?: (text: string) => void } = {},
): OwnDriver {
  const { log = () => undefined, ...settings } = options
  const random = () => randomFillSync(new Uint32Array(1))[0]!
  const driver = createDriver({ error: log, info: log, debug: () => undefined }, random, settings)
  const netns = openOwnNetns()
  const origin = originOfNetns(netns)
  return {
    client: (dialect = 'ovpn') =>
      openClient({
        generic: () => driver.server.channel('generic', origin),
        route: () => driver.server.channel('route', origin),
        dialect,
      }),
    async close() {
      await driver.close()
      openLibc().close(netns)
    },
  }
}
