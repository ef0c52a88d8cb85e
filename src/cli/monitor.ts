/** `ovpn monitor`: notifications as they come. */
import { Command } from 'commander'
import type { DriverEvent, Link } from '../uapi/types.ts'
import { device } from './arguments.ts'
import type { Driver, Environment } from './compose.ts'
import { attempt } from './errors.ts'
import { eventJson, formatEvent, formatTime } from './format.ts'
import {
  type DriverOptions,
  findLink,
  useDriver,
  withDriver,
  withExamples,
  withJson,
} from './options.ts'

export function monitorCommand(environment: Environment): Command {
  const monitor = new Command('monitor')
    .description('print what happens to peers and keys, until interrupted')
    .argument('[dev]', 'only of this interface: name or index', device)
    .action((name: string | undefined, options: DriverOptions) =>
      useDriver(environment, options, async (driver) => {
        const only = name === undefined ? undefined : await findLink(driver, name)
        const names = new Names(driver)
        await names.refresh()
        const events = await attempt('cannot listen', () => driver.events())
        environment.onInterrupt(() => events.close())
        environment.note('listening')
        for await (const event of events) {
          if (event.event === 'lost') {
            environment.note('events were lost: too many came at once')
          } else if (only === undefined || event.ifindex === only.ifindex) {
            await show(environment, event, names, options.json ?? false)
          }
        }
      }),
    )
  return withExamples(
    withJson(withDriver(monitor)),
    'ovpn monitor',
    'ovpn monitor ovpn0 --json | jq -r .event',
  )
}

async function show(
  environment: Environment,
  event: DriverEvent,
  names: Names,
  json: boolean,
): Promise<void> {
  const time = environment.date()
  const dev = await names.of(event.ifindex)
  environment.print(
    json
      ? eventJson(event, { time: time.toISOString(), dev })
      : `${formatTime(time)}  ${dev}  ${formatEvent(event)}`,
  )
}

/** Names of interfaces by index: a device may be gone by the time its last events are shown. */
class Names {
  readonly #driver: Driver
  readonly #names = new Map<number, string>()

  constructor(driver: Driver) {
    this.#driver = driver
  }

  async refresh(): Promise<void> {
    const links: Link[] = await attempt('cannot list the interfaces', () => this.#driver.links())
    for (const { ifindex, name } of links) this.#names.set(ifindex, name)
  }

  async of(ifindex: number): Promise<string> {
    if (!this.#names.has(ifindex)) await this.refresh()
    return this.#names.get(ifindex) ?? `if${ifindex}`
  }
}
