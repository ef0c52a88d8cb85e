/** The user-space driver within this process: devices are src/driver/worker/host.ts's, messages src/driver/server.ts's. */
import { NetlinkServer } from '../driver/server.ts'
import { DriverHost } from '../driver/worker/host.ts'
import { LEVEL, type Tell } from '../openvpn/log.ts'

export interface DriverLog {
  error(text: string): void
  info(text: string): void
  debug(text: string): void
}

/** Of a driver within a process that is something else: its messages among the others. */
export function driverLog(tell: Tell): DriverLog {
  return {
    error: (text) => tell(text, LEVEL.error),
    info: (text) => tell(text, LEVEL.steps),
    debug: (text) => tell(text, LEVEL.packets),
  }
}

/** The driver, without a way to reach it yet. */
export interface LocalDriver {
  readonly server: NetlinkServer
  /** Removes all devices; their peers are told `teardown`. */
  close(): Promise<void>
}

export interface DriverSettings {
  /** Threads of a device that is not told how many; 1 unless told. */
  workers?: number
  /** False: packets go one by one, as on kernels without offloads. */
  offload?: boolean
  /** Allows the cipher `none` in the dialect `ovpn-dco`: for debugging, nothing is encrypted then. */
  allowNone?: boolean
}

/** `random`: 32 bits a call. */
export function createDriver(
  log: DriverLog,
  random: () => number,
  settings: DriverSettings = {},
): LocalDriver {
  const info = (text: string) => log.info(text)
  const host = new DriverHost({ log: info, random, allowNone: false, ...settings })
  const server = new NetlinkServer(host, { log: (text) => log.error(text) })
  return {
    server,
    async close() {
      await host.close()
      server.close()
    },
  }
}
