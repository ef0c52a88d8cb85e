/** Options that many commands share, and the driver they lead to. */
import { type Command, Option } from 'commander'
import type { DriverClient } from '../driver/client.ts'
import { DEFAULT_SOCKET } from '../driver/socket-path.ts'
import { ApiError } from '../uapi/errno.ts'
import type { Link } from '../uapi/types.ts'
import type { Driver, DriverChoice, Environment } from './compose.ts'
import { attempt, CliError, EXIT } from './errors.ts'

export interface DriverOptions {
  driver: DriverChoice
  socket: string
  netns?: string
  json?: true
}

export function socketOption(text: string): Option {
  return new Option('--socket <path>', text).default(DEFAULT_SOCKET).env('OVPN_SOCKET')
}

/** Options that say which driver is meant, and where. */
export function withDriver(command: Command): Command {
  return command
    .addOption(
      new Option('--driver <which>', "the kernel's driver, the one in user space, or what is there")
        .choices(['auto', 'user', 'kernel'])
        .default('auto'),
    )
    .addOption(socketOption('socket of the driver in user space'))
    .option('-n, --netns <name>', 'network namespace to act in, one of `ip netns`')
}

export function withJson(command: Command): Command {
  return command.option('--json', 'print JSON')
}

export function withExamples(command: Command, ...lines: string[]): Command {
  return command.addHelpText('after', `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}`)
}

/** Does something with the driver that the options name, and lets go of it. */
export async function useDriver<T>(
  environment: Environment,
  options: DriverOptions,
  use: (driver: Driver) => Promise<T>,
): Promise<T> {
  if (options.netns !== undefined) environment.enterNetns(options.netns)
  const driver = await environment.openDriver(options.driver, options.socket)
  try {
    return await use(driver)
  } catch (error) {
    const gone = error instanceof ApiError && error.errno === 'ECONNRESET'
    throw gone ? new CliError('the driver has ended', EXIT.unreachable, { cause: error }) : error
  } finally {
    driver.close()
  }
}

/** Does something about a device: with a client that speaks of its kind, and its index. */
export function useDevice<T>(
  environment: Environment,
  options: DriverOptions,
  device: string,
  use: (client: DriverClient, ifindex: number) => Promise<T>,
): Promise<T> {
  return useDriver(environment, options, async (driver) => {
    const { ifindex, kind } = await findLink(driver, device)
    return use(await driver.client(kind), ifindex)
  })
}

/** The device with this name or index. Throws a CliError that says which there are. */
export async function findLink(driver: Driver, device: string): Promise<Link> {
  const links = await attempt('cannot list the interfaces', () => driver.links())
  const found = links.find(({ name, ifindex }) => name === device || String(ifindex) === device)
  if (found !== undefined) return found
  const known = links.map(({ name }) => name).join(', ')
  const there =
    known === ''
      ? `the ${driver.kind} driver has none in this network namespace; 'ovpn link add' makes one`
      : `the ${driver.kind} driver has: ${known}`
  throw new CliError(`no interface '${device}': ${there}`)
}
