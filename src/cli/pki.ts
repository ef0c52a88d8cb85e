/** `ovpn pki`: a certificate authority in a folder, and what it gives out. */
import { Command, InvalidArgumentError } from 'commander'
import {
  type CertificateKind,
  DEFAULT_PKI,
  Pki,
  type PkiEntry,
  PkiError,
  type PkiFiles,
} from '../openvpn/x509/pki.ts'
import type { Environment } from './compose.ts'
import { CliError } from './errors.ts'
import { madeHere, ownCommand, pkiHere } from './folders.ts'
import { withExamples, withJson } from './options.ts'

interface PkiOptions {
  dir: string
  json?: true
}

interface IssueOptions extends PkiOptions {
  days?: number
  renew?: true
}

export function pkiCommand(environment: Environment): Command {
  const init = withDir(new Command('init'), DEFAULT_PKI)
    .description(
      'make an authority: its key stays in this folder, its certificate goes to both ends',
    )
    .option('--name <name>', 'name of the authority', 'ovpn CA')
    .option('--days <n>', 'how long it is valid (3650 unless given)', days)
    .action((options: PkiOptions & { name: string; days?: number }) =>
      told(async () => {
        const { dir, name } = options
        await Pki.create(dir, { name, ...(options.days !== undefined && { days: options.days }) })
        environment.print(
          `made ${dir}/ca.crt, ${dir}/crl.pem and ${dir}/private/ca.key (keep it safe)`,
        )
        environment.print(
          `next: ${ownCommand()} pki server NAME${dirHint(dir)}, ${ownCommand()} pki client NAME${dirHint(dir)}`,
        )
      }),
    )

  const issue = (kind: CertificateKind) =>
    withJson(withDir(new Command(kind)))
      .description(`give a ${kind} a certificate and a key`)
      .argument('<name>', 'its name: the common name, and that of its files')
      .option('--days <n>', 'how long it is valid (825 unless given)', days)
      .option('--renew', 'in place of those it has; they stay valid until they expire')
      .action((name: string, options: IssueOptions) =>
        told(async () => {
          const files = await Pki.open(options.dir).issue(kind, name, {
            ...(options.days !== undefined && { days: options.days }),
            renew: options.renew ?? false,
          })
          if (options.json) environment.print(JSON.stringify(files))
          else printIssued(environment, kind, name, files, options.dir)
        }),
      )

  const revoke = withDir(new Command('revoke'))
    .description('refuse all certificates of a name from now on')
    .argument('<name>', 'whose')
    .action((name: string, { dir }: PkiOptions) =>
      told(async () => {
        const serials = await Pki.open(dir).revoke(name)
        environment.print(`revoked ${serials.length} of ${name}: ${serials.join(', ')}`)
        environment.print(`servers refuse it once they have read ${dir}/crl.pem (crl-verify)`)
      }),
    )

  const crl = withDir(new Command('crl'))
    .description(
      'write the list of revoked certificates anew: one that expires locks everybody out',
    )
    .action(({ dir }: PkiOptions) =>
      told(async () => {
        const pki = Pki.open(dir)
        await pki.refreshCrl()
        environment.print(`made ${pki.files('').crl}, valid as long as the authority`)
      }),
    )

  const list = withJson(withDir(new Command('list')))
    .description('what was given out, and until when it is valid')
    .action(({ dir, json }: PkiOptions) =>
      told(() => {
        const entries = Pki.open(dir).list(environment.date())
        environment.print(json ? JSON.stringify(entries) : formatEntries(entries))
      }),
    )

  withExamples(init, 'ovpn pki init', 'ovpn pki init --dir /etc/openvpn/pki --name "Example VPN"')
  withExamples(
    list,
    'ovpn pki list',
    'ovpn pki list --json | jq -r \'.[] | select(.state == "expired").name\'',
  )
  withExamples(revoke, 'ovpn pki revoke laptop')
  withExamples(crl, 'ovpn pki crl --dir /etc/openvpn/easy-rsa/pki')
  return new Command('pki')
    .description('certificates: an authority of your own, in a folder as easy-rsa has it')
    .addCommand(init)
    .addCommand(withExamples(issue('server'), 'ovpn pki server vpn.example.com'))
    .addCommand(
      withExamples(issue('client'), 'ovpn pki client laptop', 'ovpn pki client laptop --renew'),
    )
    .addCommand(revoke)
    .addCommand(crl)
    .addCommand(list)
}

function withDir(command: Command, folder = pkiHere()): Command {
  return command.option('--dir <folder>', 'the folder', folder)
}

function days(text: string): number {
  const count = Number(text)
  if (!Number.isInteger(count) || count < 1 || count > 36_500) {
    throw new InvalidArgumentError('expected days, 1 to 36500.')
  }
  return count
}

/** Errors of the folder, with what to do about them. */
async function told(step: () => void | Promise<void>): Promise<void> {
  try {
    await step()
  } catch (error) {
    if (error instanceof PkiError) throw new CliError(`${error.message}${hint(error)}`)
    throw error
  }
}

function hint({ code, message }: PkiError): string {
  if (code === 'PKI_MISSING') return "; 'ovpn pki init' makes one"
  if (code === 'PKI_EXISTS' && message.includes('certificate already')) {
    return '; --renew makes a new one'
  }
  return ''
}

const dirHint = (dir: string, option = '--dir') => (dir === pkiHere() ? '' : ` ${option} ${dir}`)

const configHint = () => (madeHere() === undefined ? ' --config server.conf' : '')

function printIssued(
  environment: Environment,
  kind: CertificateKind,
  name: string,
  files: PkiFiles,
  dir: string,
): void {
  environment.print(`made ${files.certificate} and ${files.key}`)
  environment.print(
    kind === 'client'
      ? `next: ${ownCommand()} profile ${name}${configHint()}${dirHint(dir, '--pki')} -o ${name}.ovpn puts all a client needs in one file`
      : `in the server's configuration: ca ${files.ca}, cert ${files.certificate}, key ${files.key}`,
  )
}

function formatEntries(entries: PkiEntry[]): string {
  if (entries.length === 0) return 'nothing was given out so far'
  const rows = [['NAME', 'FOR', 'STATE', 'UNTIL', 'SERIAL']]
  for (const { name, kind, state, notAfter, revokedAt, serial } of entries) {
    rows.push([
      name,
      kind ?? '?',
      state,
      (revokedAt ?? notAfter).toISOString().slice(0, 10),
      serial,
    ])
  }
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
