/** `ovpn check`: what each line of a configuration does here, what differs from OpenVPN, and whether keys and certificates can be used. */
import { Command, Option } from 'commander'
import {
  type Checked,
  type CheckedKind,
  type CheckedLine,
  checkConfig,
  kindOf,
  type Verdict,
} from '../openvpn/config/check.ts'
import { formatPlace } from '../openvpn/config/parse.ts'
import { tryIdentity } from '../openvpn/trial.ts'
import { files, fileWatch } from '../runtime/files.ts'
import type { Environment } from './compose.ts'
import { readSource } from './config-files.ts'
import { CliError } from './errors.ts'
import { toJson } from './format.ts'
import { withExamples, withJson } from './options.ts'

interface Options {
  as?: CheckedKind
  brief?: true
  json?: true
}

/** In the order of the summary. */
const WORDS: { readonly [V in Verdict]: string } = {
  honoured: 'done',
  differs: 'differs',
  'no-op': 'no effect',
  ignored: 'ignored',
  wrong: 'WRONG',
}

export function checkCommand(environment: Environment): Command {
  const check = new Command('check')
    .description(
      'tell what each line of a configuration does here, what differs from OpenVPN, and whether keys and certificates can be used; nothing is started',
    )
    .argument('<config>', "a server's or client's configuration; - for stdin")
    .addOption(
      new Option(
        '--as <kind>',
        'what it is the configuration of; ccd: a file in client-config-dir (default: by what is in it)',
      ).choices(['server', 'client', 'ccd']),
    )
    .option('-b, --brief', 'only lines that are not simply done')
    .action(async (file: string, options: Options) => {
      const source = await readSource(file)
      const checked = checkConfig(source, options.as ?? kindOf(source), files, (config, role) =>
        tryIdentity(config, { role, date: environment.date(), files: fileWatch }),
      )
      environment.print(
        options.json ? toJson(jsonOf(checked)) : formatChecked(checked, options.brief ?? false),
      )
      if (!checked.usable) throw new CliError(`${file} cannot be used as it is${where(checked)}`)
    })
  return withExamples(
    withJson(check),
    'ovpn check /etc/openvpn/server/server.conf',
    'ovpn check --brief provider.ovpn',
    'ovpn check --as ccd /etc/openvpn/ccd/alice',
  )
}

/** ': see line 3 and 7', as far as what is wrong stands somewhere. */
function where({ lines }: Checked): string {
  const wrong = lines.filter(({ verdict }) => verdict === 'wrong')
  const numbers = [...new Set(wrong.flatMap(({ place }) => place.line ?? []))]
  if (numbers.length === 0) return ''
  return `: see ${numbers.length === 1 ? 'line' : 'lines'} ${numbers.join(', ')}`
}

function jsonOf({ kind, usable, lines }: Checked) {
  return { kind, usable, lines: lines.map(({ place, ...line }) => ({ ...place, ...line })) }
}

function formatChecked({ kind, lines }: Checked, brief: boolean): string {
  const shown = brief ? lines.filter(({ verdict }) => verdict !== 'honoured') : lines
  const counts = (Object.keys(WORDS) as Verdict[]).flatMap((verdict) => {
    const count = lines.filter((line) => line.verdict === verdict).length
    return count === 0 ? [] : [`${count} ${WORDS[verdict]}`]
  })
  const what = kind === 'ccd' ? 'settings of one client' : `a ${kind}'s configuration`
  return [...shown.flatMap(formatLine), `${what}: ${counts.join(', ') || 'nothing in it'}`].join(
    '\n',
  )
}

function formatLine({ place, text, verdict, message }: CheckedLine): string[] {
  const head = `${formatPlace(place)}: ${text}`.replace(/: $/, '')
  return [head, `    ${WORDS[verdict]}: ${message}`]
}
