/** `ovpn show`: devices, their peers and what they moved, in the spirit of `wg show`. */
import { Command } from 'commander'
import { device } from './arguments.ts'
import type { Driver, Environment } from './compose.ts'
import { attempt } from './errors.ts'
import { type DeviceView, formatShow, showJson, toJson } from './format.ts'
import {
  type DriverOptions,
  findLink,
  useDriver,
  withDriver,
  withExamples,
  withJson,
} from './options.ts'

export function showCommand(environment: Environment): Command {
  const show = new Command('show')
    .description('show interfaces, peers, endpoints, transfer, keys and drops')
    .argument('[dev]', 'only this interface: name or index', device)
    .action((name: string | undefined, options: DriverOptions) =>
      useDriver(environment, options, async (driver) => {
        const devices = await readDevices(driver, name)
        if (options.json) {
          environment.print(toJson({ driver: driver.kind, devices: devices.map(showJson) }))
        } else if (devices.length > 0) environment.print(formatShow(devices).trimEnd())
      }),
    )
  return withExamples(
    withJson(withDriver(show)),
    'ovpn show',
    `ovpn show ovpn0 --json | jq '.devices[].peers[]."vpn-rx-bytes"'`,
  )
}

/** All devices of the namespace, or one, with their peers in the order of their ids. */
async function readDevices(driver: Driver, name?: string): Promise<DeviceView[]> {
  const links =
    name === undefined
      ? await attempt('cannot list the interfaces', () => driver.links())
      : [await findLink(driver, name)]
  return Promise.all(
    links.map(async (link) => {
      const peers = await attempt(`cannot list the peers of ${link.name}`, async () => {
        const client = await driver.client(link.kind)
        return client.peers(link.ifindex, { extended: client.extended })
      })
      return { link, peers: peers.sort((a, b) => a.id - b.id) }
    }),
  )
}
