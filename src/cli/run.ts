/** `ovpn run`: an unmodified program that finds the driver as if the kernel had it. */
import { Command } from 'commander'
import { become, Connection, LAUNCHER_FD, LaunchError, prepare } from '../interpose/launcher.ts'
import { requireInsight, takeFdOf } from '../interpose/process.ts'
import { Supervisor } from '../interpose/supervisor.ts'
import { Watch } from '../interpose/watch.ts'
import { OsError } from '../platform/error.ts'
import { E, O_RDWR } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { blockOfText } from '../platform/memory.ts'
import { openOwnNetns } from '../platform/netns.ts'
import { Listener, leaveSession } from '../platform/seccomp.ts'
import { createDriver } from '../runtime/driver.ts'
import { originOfNetns } from '../runtime/origin.ts'
import { MSSFIX_MAX } from '../uapi/spec.ts'
import { mssfix, workers } from './arguments.ts'
import { type Environment, randomWord } from './compose.ts'
import { CliError } from './errors.ts'
import { withExamples } from './options.ts'
import { missingForDriver, missingForOtherUsers } from './requirements.ts'

interface Options {
  fallback?: true
  verbose?: true
  workers: number
  mssfix: number
}

export function runCommand(environment: Environment): Command {
  const run = new Command('run')
    .description(
      'run a program that speaks the API, such as openvpn, as if the kernel had the driver',
    )
    .argument('<command>', 'the program')
    .argument('[args...]', 'its arguments')
    .option('--fallback', 'run it plainly where the driver cannot be had')
    .option('--workers <n>', 'threads of an interface', workers, 1)
    .option(
      '--mssfix <bytes>',
      'make TCP inside fit packets of so many bytes outside, and the path; 0: leave it alone',
      mssfix,
      MSSFIX_MAX,
    )
    .option('-v, --verbose', 'tell on standard error what the driver does')
    .passThroughOptions()
    .action((command: string, args: string[], options: Options) => {
      try {
        const missing = missingForDriver()
        if (missing.length > 0) throw new LaunchError(missing.join('\n  '))
        prepare([
          ...ownCommand(),
          ...[SUPERVISE, '--workers', String(options.workers)],
          ...(options.mssfix === MSSFIX_MAX ? [] : ['--mssfix', String(options.mssfix)]),
          ...(options.verbose ? ['--verbose'] : []),
        ])
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

function isForbidden(error: Error): boolean {
  return error instanceof OsError && (error.errno === E.EPERM || error.errno === E.EACCES)
}

const SUPERVISE = 'run-supervisor'

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
    .option('--mssfix <bytes>', '', mssfix, MSSFIX_MAX)
    .option('--verbose')
    .action(async (pid: number, fd: number, options: SuperviseOptions) => {
      // The program decides when it ends: what ends its whole group or session must not come first.
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) {
        process.on(signal, () => {})
      }
      leaveSession()
      const launcher = new Connection(LAUNCHER_FD)
      await supervise(environment, launcher, { pid, fd }, options).catch((error: Error) => {
        launcher.refuse(isForbidden(error) ? `${error.message}\n  ${INSIGHT}` : error.message)
        process.exit(1)
      })
    })
}

interface SuperviseOptions {
  workers: number
  mssfix: number
  verbose?: true
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
  const log = { error: note, info: note, debug: note }
  const settings = { workers: options.workers }
  const driver = createDriver(log, () => randomWord(environment), settings)
  // Where processes cannot be looked into, that is found before anything has changed for the program.
  requireInsight(launcher.pid, launcher.fd)
  connection.ready()
  const number = connection.receive()
  if (number === '') return
  const listener = new Listener(takeFdOf(launcher.pid, Number(number)))
  const watch = new Watch()
  const supervisor = new Supervisor({
    listener,
    watch,
    async openChannel(protocol, program) {
      const channel = driver.server.channel(protocol, program)
      if (protocol === 'generic') await channel.setOption('mssfix', options.mssfix)
      return channel
    },
    log: note,
  })
  const netns = openOwnNetns()
  await supervisor.learnFamilies(originOfNetns(netns))
  close(netns)
  const served = supervisor.serve()
  connection.go()
  if (!options.verbose) closeStandardError()
  await served
  await driver.close()
  listener[Symbol.dispose]()
  await watch.close()
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
