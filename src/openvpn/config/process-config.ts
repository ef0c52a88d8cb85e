/** The process as a configuration has it: log, status, scripts, privileges, management interface. */
import { type Fields, firstLine } from './fields.ts'
import { parseWith, port as portKind } from './kinds.ts'
import { load, resolvePath, type Setting, type Settings } from './parse.ts'
import { portNumber } from './services.ts'
import type { Millis } from './values.ts'

export interface ProcessConfig {
  readonly verb: number
  /** Messages of one kind in a row that are told; 0: all. */
  readonly mute: number
  readonly log: { readonly path: string; readonly append: boolean } | undefined
  readonly suppressTimestamps: boolean
  readonly machineReadableOutput: boolean
  readonly writepid: string | undefined
  readonly status: { readonly path: string; readonly interval: Millis } | undefined
  readonly statusVersion: 1 | 2 | 3
  readonly user: string | undefined
  readonly group: string | undefined
  readonly nice: number | undefined
  readonly remapUsr1: 'SIGHUP' | 'SIGTERM' | undefined
  /** Variables for scripts, in order. */
  readonly environment: readonly (readonly [name: string, value: string])[]
  /** Whether passwords may be in them (`script-security 3`). */
  readonly passwordsInEnvironment: boolean
  readonly tmpDir: string
  readonly up: string | undefined
  readonly down: string | undefined
  readonly downPre: boolean
  readonly upRestart: boolean
  readonly routeUp: string | undefined
  readonly routePreDown: string | undefined
  readonly echo: readonly string[]
  readonly management: ManagementConfig | undefined
}

export interface ManagementConfig {
  readonly at:
    | { readonly kind: 'tcp'; readonly address: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string }
  /** Connects there in place of listening. */
  readonly client: boolean
  readonly password: 'ask' | { readonly password: string } | undefined
  readonly queryPasswords: boolean
  readonly queryProxy: boolean
  readonly queryRemote: boolean
  readonly hold: boolean
  readonly signal: boolean
  readonly forgetDisconnect: boolean
  readonly upDown: boolean
  /** Lines. */
  readonly logCache: number
  readonly clientAuth: boolean
  readonly clientUser: string | undefined
  readonly clientGroup: string | undefined
}

export function readProcess(fields: Fields): ProcessConfig {
  const { settings } = fields
  const [log, append] = [fields.path('log'), fields.path('log-append')]
  const status = fields.path('status')
  const interval = settings.args('status')?.interval
  return {
    verb: settings.args('verb')?.level ?? 1,
    mute: settings.args('mute')?.count ?? 0,
    log:
      append !== undefined
        ? { path: append, append: true }
        : log === undefined
          ? undefined
          : { path: log, append: false },
    suppressTimestamps: settings.has('suppress-timestamps'),
    machineReadableOutput: settings.has('machine-readable-output'),
    writepid: fields.path('writepid'),
    status: status === undefined ? undefined : { path: status, interval: interval ?? 60_000 },
    statusVersion: (settings.args('status-version')?.version ?? 1) as 1 | 2 | 3,
    user: settings.args('user')?.name,
    group: settings.args('group')?.name,
    nice: settings.args('nice')?.level,
    remapUsr1: settings.args('remap-usr1')?.signal,
    environment: readEnvironment(settings),
    passwordsInEnvironment: (settings.args('script-security')?.level ?? 1) >= 3,
    tmpDir: fields.path('tmp-dir') ?? '/tmp',
    up: fields.command('up'),
    down: fields.command('down'),
    downPre: settings.has('down-pre'),
    upRestart: settings.has('up-restart'),
    routeUp: fields.command('route-up'),
    routePreDown: fields.command('route-pre-down'),
    echo: [...settings.all('echo'), ...settings.all('parameter')].map(({ args }) =>
      args.words.join(' '),
    ),
    management: readManagement(fields),
  }
}

function readEnvironment(settings: Settings): [string, string][] {
  const all: [string, string][] = []
  for (const setting of settings) {
    if (setting.name === 'setenv-safe') {
      const { name, value } = setting.args as { name: string; value: string }
      all.push([`OPENVPN_${name}`, value])
    } else if (setting.name === 'setenv') {
      const { name, values } = setting.args as { name: string; values: string[] }
      if (name === 'FORWARD_COMPATIBLE') continue
      if (!/^[A-Za-z0-9_]+$/.test(name)) {
        const message = `setenv: a variable has letters, digits and underscores, not '${name}'`
        settings.problem('argument', setting.place, message)
      }
      all.push([name, values.join(' ')])
    }
  }
  return all
}

function readManagement(fields: Fields): ManagementConfig | undefined {
  const { settings, files } = fields
  const setting = settings.last('management')
  const clientUser = settings.args('management-client-user')?.name
  const clientGroup = settings.args('management-client-group')?.name
  if (setting === undefined) {
    for (const { name, place } of settings) {
      if (!name.startsWith('management-')) continue
      settings.problem('missing', place, `'${name}' needs a line 'management ADDRESS PORT'`)
    }
    return undefined
  }
  const { address, port, password } = setting.args
  const unix = port === 'unix'
  const number = unix ? 0 : managementPort(fields, setting)
  if (!unix && (clientUser ?? clientGroup) !== undefined) {
    const message = 'who may use a TCP port of the management interface cannot be told by user'
    settings.problem('conflict', setting.place, `${message}; use a Unix socket`)
  }
  const loaded =
    password === undefined || password === 'stdin'
      ? undefined
      : load(settings, files, setting, password)
  return {
    at: unix
      ? { kind: 'unix', path: resolvePath(setting.folder, address) }
      : { kind: 'tcp', address, port: number },
    client: settings.has('management-client'),
    password: password === 'stdin' ? 'ask' : loaded && { password: firstLine(loaded) },
    queryPasswords: settings.has('management-query-passwords'),
    queryProxy: settings.has('management-query-proxy'),
    queryRemote: settings.has('management-query-remote'),
    hold: settings.has('management-hold'),
    signal: settings.has('management-signal'),
    forgetDisconnect: settings.has('management-forget-disconnect'),
    upDown: settings.has('management-up-down'),
    logCache: settings.args('management-log-cache')?.lines ?? 250,
    clientAuth: settings.has('management-client-auth'),
    clientUser,
    clientGroup,
  }
}

function managementPort(fields: Fields, setting: Setting<'management'>): number {
  const { args, place } = setting
  const port = parseWith(portKind, args.port)
  if (port !== undefined) return portNumber(fields, port, 'tcp', setting)
  const message = `management: expected a port or the word 'unix', not '${args.port}'`
  fields.settings.problem('argument', place, message)
  return 0
}
