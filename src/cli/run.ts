/** `ovpn run`: an unmodified program that finds the driver as if the kernel had it. */
import { resolve } from 'node:path'
import { Command, Option } from 'commander'
import { DEFAULT_SOCKET } from '../driver/socket-path.ts'
import { serveQuestions } from '../interpose/foreign-epoll.ts'
import {
  become,
  Connection,
  ESTATE_FD,
  LAUNCHER_FD,
  LaunchError,
  LEDGER_FD,
  prepare,
  SUCCESSOR,
} from '../interpose/launcher.ts'
import { Ledger, readLedger } from '../interpose/ledger.ts'
import { requireInsight, takeFdOf } from '../interpose/process.ts'
import { succeed } from '../interpose/successor.ts'
import { Supervisor } from '../interpose/supervisor.ts'
import { Watch } from '../interpose/watch.ts'
import { receiveFd } from '../platform/fds.ts'
import { O_RDWR } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { blockOfText } from '../platform/memory.ts'
import { openOwnNetns } from '../platform/netns.ts'
import { Listener, leaveSession } from '../platform/seccomp.ts'
import { originOfNetns } from '../runtime/origin.ts'
import { MSSFIX_MAX } from '../uapi/spec.ts'
import { mssfix, swapWait, workers } from './arguments.ts'
import type { Environment } from './compose.ts'
import { CliError } from './errors.ts'
import { socketOption, withExamples } from './options.ts'
import { missingForOtherUsers } from './requirements.ts'
import { DRIVERS, openRunDriver, type RunDriverOptions } from './run-driver.ts'

/**
 * The kernel's driver has no room for packets whose key it does not have yet; OpenVPN there installs it within this time. Longer would
 * do harm where keys are renewed every few seconds: the former one is given up at the next renewal.
 */
const SWAP_WAIT_MS = 3000

interface SuperviseOptions extends RunDriverOptions {
  verbose?: true
}

interface Options extends SuperviseOptions {
  fallback?: true
}

export function runCommand(environment: Environment): Command {
  const run = new Command('run')
    .description(
      'run a program that speaks the API, such as openvpn, as if the kernel had the driver',
    )
    .argument('<command>', 'the program')
    .argument('[args...]', 'its arguments')
    .option('--fallback', 'run it plainly where the driver cannot be had')
    .addOption(
      new Option('--driver <which>', 'one that runs, one of its own, or the first that is there')
        .choices(DRIVERS)
        .default('auto'),
    )
    .addOption(socketOption('socket of the one that runs'))
    .option('--workers <n>', 'threads of an interface of its own driver', workers, 1)
    .option(
      '--mssfix <bytes>',
      'make TCP inside fit packets of so many bytes outside, and the path; 0: leave it alone',
      mssfix,
      MSSFIX_MAX,
    )
    .option(
      '--swap-wait <ms>',
      'send with a new key when the peer is heard with it, or after so long, whichever is first, and open with a former one for so long after its end; 0: as OpenVPN says',
      swapWait,
      SWAP_WAIT_MS,
    )
    .option('-v, --verbose', 'tell on standard error what the driver does')
    .passThroughOptions()
    .action((command: string, args: string[], options: Options) => {
      // Whoever names one means it.
      if (run.getOptionValueSource('socket') === 'cli' && options.driver === 'auto') {
        options.driver = 'user'
      }
      try {
        prepare([...ownCommand(), SUPERVISE, ...superviseArguments(options)])
        if (missingForOtherUsers()) environment.note(`${OTHER_USERS} ${INSIGHT}`)
      } catch (error) {
        if (!(error instanceof LaunchError)) throw error
        if (!options.fallback) throw new CliError(`cannot offload: ${error.message}`)
        environment.note(`running ${command} without offload: ${error.message}`)
      }
      const { text, status } = become(command, args)
      throw new CliError(text, status)
    })
  return withExamples(
    run,
    'sudo ovpn run openvpn --config server.conf',
    'sudo ovpn run --fallback openvpn --config client.conf',
  )
}

const INSIGHT =
  'looking into the program takes CAP_SYS_PTRACE: run it as root (sudo), or the container with --cap-add SYS_PTRACE'
const OTHER_USERS = 'if the program changes its user, it loses offload:'

const SUPERVISE = 'run-supervisor'
const HELP = 'run-helper'

/** `--workers` always, so that the command line of every supervisor reads alike; the rest where it is no default. */
function superviseArguments(options: SuperviseOptions): string[] {
  const { driver, socket, workers, mssfix, swapWait, verbose } = options
  return [
    ...['--workers', String(workers)],
    ...(driver === 'auto' ? [] : ['--driver', driver]),
    ...(socket === DEFAULT_SOCKET ? [] : ['--socket', resolve(socket)]),
    ...(mssfix === MSSFIX_MAX ? [] : ['--mssfix', String(mssfix)]),
    ...(swapWait === SWAP_WAIT_MS ? [] : ['--swap-wait', String(swapWait)]),
    ...(verbose ? ['--verbose'] : []),
  ]
}

/** How this program is started anew: by its script, or, compiled, by itself. */
function ownCommand(): string[] {
  return Bun.main.startsWith('/$bunfs/') ? [process.execPath] : [process.execPath, Bun.main]
}

/** What `ovpn run` starts beside the program; hidden from the help. */
export function superviseCommand(environment: Environment): Command {
  return new Command(SUPERVISE)
    .argument('<pid>', 'of the launcher', Number)
    .argument('<fd>', 'a descriptor that it has', Number)
    .requiredOption('--workers <n>', '', workers)
    .option('--driver <which>', '', 'auto')
    .option('--socket <path>', '', DEFAULT_SOCKET)
    .option('--mssfix <bytes>', '', mssfix, MSSFIX_MAX)
    .option('--swap-wait <ms>', '', swapWait, SWAP_WAIT_MS)
    .option('--verbose')
    .option(SUCCESSOR)
    .action(async (pid: number, fd: number, options: SuperviseOptions & { successor?: true }) => {
      // The program decides when it ends: what ends its whole group or session must not come first.
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) {
        process.on(signal, () => {})
      }
      leaveSession()
      if (options.successor) return takeOver()
      const launcher = new Connection(LAUNCHER_FD)
      await supervise(environment, launcher, { pid, fd }, options).catch((error: Error) => {
        launcher.refuse(error.message)
        process.exit(1)
      })
    })
}

/** After a supervisor that was killed. */
async function takeOver(): Promise<void> {
  const fd = receiveFd(ESTATE_FD)
  if (fd === undefined) return // it was killed before there was anything to leave
  using listener = new Listener(fd)
  await succeed(listener, readLedger(LEDGER_FD))
}

async function supervise(
  environment: Environment,
  connection: Connection,
  launcher: { pid: number; fd: number },
  options: SuperviseOptions,
): Promise<void> {
  const { close } = openLibc()
  const note = options.verbose ? environment.note : () => {}
  // The program has nobody else: whatever fails, the next call is served.
  for (const failure of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(failure, (error: unknown) => note(String(error)))
  }
  const driver = await openRunDriver(environment, options, note)
  // Where processes cannot be looked into, that is found before anything has changed for the program.
  try {
    requireInsight(launcher.pid, launcher.fd)
  } catch (error) {
    throw new LaunchError(`${(error as Error).message}\n  ${INSIGHT}`)
  }
  connection.ready()
  const number = connection.receive()
  if (number === '') return
  const listener = new Listener(takeFdOf(launcher.pid, Number(number)), new Ledger(LEDGER_FD))
  const watch = new Watch([...ownCommand(), HELP], (error) => note(String(error)))
  await watch.started()
  const supervisor = new Supervisor({
    listener,
    watch,
    openChannel: driver.openChannel,
    usedBy: driver.usedBy,
    log: note,
  })
  const netns = openOwnNetns()
  await supervisor.learnFamilies({ ...originOfNetns(netns), tid: process.pid })
  close(netns)
  const served = supervisor.serve()
  connection.go()
  if (!options.verbose) closeStandardError()
  await served
  await driver.close()
  listener[Symbol.dispose]()
  await watch.close()
}

/** What a supervisor starts where it may not have a table of descriptors beside its own; hidden from the help. */
export function helpCommand(): Command {
  return new Command(HELP).action(() => serveQuestions())
}

/** Whoever reads what the program says must not wait for the supervisor. */
function closeStandardError(): void {
  const os = openLibc()
  const path = blockOfText('/dev/null')
  const none = os.open(path.base, O_RDWR, 0)
  if (none < 0) return
  os.dup3(none, 2, 0)
  os.close(none)
}
