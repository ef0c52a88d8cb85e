/** The kinds of driver that tests run with: OVPN_TEST_DRIVER says which. */
import type { DriverSettings } from '../src/runtime/driver.ts'

const KINDS: { readonly [kind: string]: DriverSettings } = {
  fast: {},
  'no-offload': { offload: false },
  'two-workers': { workers: 2 },
}

export const DRIVERS = Object.keys(KINDS)

/** All but the one that is taken unless another is asked for. */
export const OTHER_DRIVERS = DRIVERS.filter((kind) => kind !== 'fast')

/** What the driver asked for is to be started with. */
export function driverSettings(): DriverSettings {
  const kind = process.env.OVPN_TEST_DRIVER ?? 'fast'
  const settings = KINDS[kind]
  if (settings !== undefined) return settings
  throw new Error(`OVPN_TEST_DRIVER=${kind}: expected ${Object.keys(KINDS).join(', ')}`)
}
