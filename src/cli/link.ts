/** `ovpn link`: makes, removes and lists devices. */
import { Command, Option } from 'commander'
import { json } from '../uapi/dialects/json.ts'
import { linkKind, mode } from '../uapi/spec.ts'
import type { LinkKind, LinkNew, Mode } from '../uapi/types.ts'
import { device, mtu, newDevice, workers } from './arguments.ts'
import type { Environment } from './compose.ts'
import { attempt } from './errors.ts'
import { formatLink, toJson } from './format.ts'
import {
  type DriverOptions,
  findLink,
  useDriver,
  withDriver,
  withExamples,
  withJson,
} from './options.ts'

interface AddOptions extends DriverOptions {
  mode: Mode
  kind: LinkKind
  mtu?: number
  workers?: number
}

export function linkCommand(environment: Environment): Command {
  const add = new Command('add')
    .description('make an interface')
    .argument('[name]', 'its name; one is chosen where there is none', newDevice)
    .addOption(new Option('--mode <mode>', 'one peer, or many').choices(mode).default('p2p'))
    .addOption(
      new Option('--kind <kind>', 'whose ways it has: of the driver in Linux 6.16, or of ovpn-dco')
        .choices(linkKind)
        .default('ovpn'),
    )
    .option('--mtu <bytes>', 'largest packet inside the tunnel', mtu)
    .option('--workers <n>', 'threads that move its packets; else as the driver was told', workers)
    .action((name: string | undefined, options: AddOptions) =>
      useDriver(environment, options, async (driver) => {
        const wanted: LinkNew = { kind: options.kind, mode: options.mode }
        if (name !== undefined) wanted.name = name
        if (options.mtu !== undefined) wanted.mtu = options.mtu
        if (options.workers !== undefined) wanted.workers = options.workers
        const link = await attempt(`cannot make the interface ${name ?? ''}`.trimEnd(), () =>
          driver.linkNew(wanted),
        )
        environment.print(options.json ? toJson(json.encodeReply('link-get', link)) : link.name)
      }),
    )

  const del = new Command('del')
    .alias('delete')
    .description('remove an interface; its peers are told `teardown`')
    .argument('<dev>', 'interface: name or index', device)
    .action((name: string, options: DriverOptions) =>
      useDriver(environment, options, async (driver) => {
        const { ifindex } = await findLink(driver, name)
        await attempt(`cannot remove ${name}`, () => driver.linkDel(ifindex))
      }),
    )

  const show = new Command('show')
    .alias('list')
    .description('tell about the interfaces of the network namespace')
    .argument('[dev]', 'only this one: name or index', device)
    .action((name: string | undefined, options: DriverOptions) =>
      useDriver(environment, options, async (driver) => {
        const links =
          name === undefined
            ? await attempt('cannot list the interfaces', () => driver.links())
            : [await findLink(driver, name)]
        if (options.json)
          environment.print(toJson(links.map((link) => json.encodeReply('link-get', link))))
        else if (links.length > 0) environment.print(links.map(formatLink).join('\n').trimEnd())
      }),
    )

  withExamples(
    withJson(withDriver(add)),
    'ovpn link add ovpn0 --mode mp',
    'ip address add 10.8.0.1/24 dev ovpn0',
    'ip link set ovpn0 up',
  )
  withExamples(withDriver(del), 'ovpn link del ovpn0')
  withExamples(withJson(withDriver(show)), 'ovpn link show', 'ovpn link show ovpn0 --json')
  return new Command('link')
    .description('make, remove and list interfaces')
    .addCommand(add)
    .addCommand(del)
    .addCommand(show)
}
