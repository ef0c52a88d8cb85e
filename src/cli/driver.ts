/** `ovpn driver`: runs the driver in user space until it is told to stop. */
import { Command } from 'commander'
import { fileMode, workers } from './arguments.ts'
import { type Environment, startDriver } from './compose.ts'
import { CliError } from './errors.ts'
import { socketOption, withExamples } from './options.ts'
import { missingForDriver } from './requirements.ts'

interface Options {
  socket: string
  mode?: number
  group?: string
  workers: number
  /** False with `--no-offload`. */
  offload: boolean
  allowCipherNone?: true
  verbose?: true
  quiet?: true
}

export function driverCommand(environment: Environment): Command {
  const driver = new Command('driver')
    .description(
      'run the driver in user space; it ends, and its interfaces with it, on SIGINT or SIGTERM',
    )
    .addOption(socketOption('where to listen'))
    .option(
      '--mode <octal>',
      'permissions of the socket: who may use the driver (default: 0600, with --group 0660)',
      fileMode,
    )
    .option('--group <name>', 'group of the socket')
    .option('--workers <n>', 'threads of an interface that is not told how many', workers, 1)
    .option('--no-offload', 'move packets one by one, as on kernels that know no offloads: slow')
    .option(
      '--allow-cipher-none',
      'let the dialect ovpn-dco install keys that encrypt nothing: for debugging only',
    )
    .option('-v, --verbose', 'log connections too')
    .option('-q, --quiet', 'log errors only')
    .action(async (options: Options) => {
      const missing = missingForDriver()
      if (missing.length > 0) throw new CliError(`cannot run the driver: ${missing.join('\n  ')}`)
      const level = options.quiet ? 'error' : options.verbose ? 'debug' : 'info'
      const stopped = new Promise((resolve) => environment.onInterrupt(resolve))
      const running = await startDriver(environment, {
        socket: options.socket,
        mode: options.mode ?? (options.group === undefined ? 0o600 : 0o660),
        group: options.group,
        level,
        settings: {
          workers: options.workers,
          offload: options.offload,
          allowNone: options.allowCipherNone ?? false,
        },
      })
      try {
        await stopped
      } finally {
        await running.stop()
      }
    })
  return withExamples(
    driver,
    'sudo ovpn driver',
    'sudo ovpn driver --socket /run/vpn.sock --group vpn',
  )
}
