/** The command line: which commands there are, and what becomes of their errors. Also the entry of the single executable. */
import { Command, CommanderError } from 'commander'
import { VERSION } from '../runtime/version.ts'
import { checkCommand } from './check.ts'
import { clientCommand } from './client.ts'
import { createEnvironment } from './compose.ts'
import { demoCommand } from './demo.ts'
import { driverCommand } from './driver.ts'
import { CliError, EXIT, errorText } from './errors.ts'
import { genkeyCommand } from './genkey.ts'
import { keyCommand } from './key.ts'
import { linkCommand } from './link.ts'
import { monitorCommand } from './monitor.ts'
import { peerCommand } from './peer.ts'
import { pkiCommand } from './pki.ts'
import { profileCommand } from './profile.ts'
import { helpCommand, runCommand, superviseCommand } from './run.ts'
import { serverCommand } from './server.ts'
import { showCommand } from './show.ts'
import { transferCommand } from './transfer.ts'

const HELP = `
A server, and a client of it, as root:
  ovpn server --host vpn.example.org      # makes its certificates, and ovpn-server/client.ovpn
  ovpn client client.ovpn

The driver alone: a tunnel between two network namespaces, over UDP, as root:
  ovpn driver & sleep 1
  ip netns add a; ip netns add b
  ip link add a0 netns a type veth peer name b0 netns b
  for n in a b; do ip -n $n link set lo up; ip -n $n link set \${n}0 up; done
  ip -n a addr add 192.0.2.1/24 dev a0; ip -n b addr add 192.0.2.2/24 dev b0
  ovpn link add ovpn0 -n a; ovpn link add ovpn0 -n b
  ip -n a addr add 10.8.0.1/24 dev ovpn0; ip -n b addr add 10.8.0.2/24 dev ovpn0
  for n in a b; do ip -n $n link set ovpn0 up; done
  ovpn peer new ovpn0 1 -n a --udp-listen 1194 --remote 192.0.2.2:1194 &
  ovpn peer new ovpn0 1 -n b --udp-listen 1194 --remote 192.0.2.1:1194 &
  ovpn key generate peer.key; sleep 1
  ovpn key new ovpn0 1 -n a --id 0 --cipher aes-256-gcm --direction 0 --key-file peer.key
  ovpn key new ovpn0 1 -n b --id 0 --cipher aes-256-gcm --direction 1 --key-file peer.key
  ip netns exec a ping 10.8.0.2

Exit status: 0 done; ${EXIT.refused} refused by the driver or the system; ${EXIT.usage} wrong usage; ${EXIT.unreachable} no driver reached.`

async function main(args: string[]): Promise<number> {
  const environment = createEnvironment()
  const program = new Command('ovpn')
    .description("OpenVPN: server, client, and the data channel's driver in user space")
    .version(VERSION)
    .enablePositionalOptions()
    .addCommand(serverCommand(environment))
    .addCommand(clientCommand(environment))
    .addCommand(checkCommand(environment))
    .addCommand(pkiCommand(environment))
    .addCommand(profileCommand(environment))
    .addCommand(genkeyCommand(environment))
    .addCommand(runCommand(environment))
    .addCommand(driverCommand(environment))
    .addCommand(linkCommand(environment))
    .addCommand(peerCommand(environment))
    .addCommand(keyCommand(environment))
    .addCommand(showCommand(environment))
    .addCommand(monitorCommand(environment))
    .addCommand(demoCommand(environment))
    .addCommand(transferCommand(environment), { hidden: true })
    .addCommand(superviseCommand(environment), { hidden: true })
    .addCommand(helpCommand(), { hidden: true })
    .addHelpText('after', HELP)
  configure(program)
  try {
    await program.parseAsync(args, { from: 'user' })
    return 0
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT.usage
    environment.note(errorText(error))
    if (!(error instanceof CliError) && process.env.OVPN_DEBUG !== undefined) console.error(error)
    return error instanceof CliError ? error.exitCode : EXIT.refused
  }
}

/** Errors are thrown instead of ending the process, and read as ours do. */
function configure(command: Command): void {
  command
    .exitOverride()
    .showHelpAfterError(`(try '${path(command)} --help')`)
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'ovpn: ')),
    })
  for (const sub of command.commands) configure(sub)
}

function path(command: Command): string {
  return command.parent === null ? command.name() : `${path(command.parent)} ${command.name()}`
}

// Descriptors and timers of a command that failed half-way must not keep the process.
process.exit(await main(process.argv.slice(2)))
