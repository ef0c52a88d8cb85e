/**
 * What a server knows of one client beside its configuration: a file in `client-config-dir`, what `client-connect` wrote,
 * what came over the management interface with `client-auth`. All have the same form.
 */

import { type Files, parse, type Settings, type Source } from './parse.ts'
import { checkPush } from './pushed.ts'
import { supportedCipher } from './tls-config.ts'
import { type Ipv6Prefix, type Millis, maskToPrefix } from './values.ts'

export interface ClientSettings {
  /** The client is refused. */
  readonly disable: boolean
  readonly ifconfig: { readonly local: string; readonly netmask: string } | undefined
  readonly ifconfigIpv6: Ipv6Prefix | undefined
  /** Networks behind the client. */
  readonly iroutes: readonly { readonly network: string; readonly netmask: string }[]
  readonly iroutesIpv6: readonly Ipv6Prefix[]
  /** What becomes of the options that all clients get; then `push` is added. In the order in which they stand. */
  readonly pushChanges: readonly PushChange[]
  readonly overrideUsername: string | undefined
  /** For a client that does not negotiate. */
  readonly dataCiphersFallback: string | undefined
  readonly ping: Millis | undefined
  readonly pingRestart: Millis | undefined
  readonly inactive: { readonly timeout: Millis; readonly bytes: number } | undefined
  readonly sessionTimeout: Millis | undefined
}

export type PushChange =
  | { readonly kind: 'push'; readonly option: string }
  /** Options that contain the text are left out. */
  | { readonly kind: 'remove'; readonly text: string }
  /** All are left out. */
  | { readonly kind: 'reset' }

/** Throws a ConfigError with all that is wrong. */
export function readClientSettings(source: Source, files: Files): ClientSettings {
  const settings = parse(source, 'ccd', files)
  const client = clientSettings(settings)
  settings.check()
  return client
}

/** As far as it goes: `settings` then has what is wrong. */
export function clientSettings(settings: Settings): ClientSettings {
  const fallback = settings.args('data-ciphers-fallback')?.cipher ?? settings.args('cipher')?.cipher
  return {
    disable: settings.has('disable'),
    ifconfig: readIfconfig(settings),
    ifconfigIpv6: settings.args('ifconfig-ipv6-push')?.local,
    iroutes: settings.all('iroute').map(({ args }) => args),
    iroutesIpv6: settings.all('iroute-ipv6').map(({ args }) => args.network),
    pushChanges: readPushChanges(settings),
    overrideUsername: settings.args('override-username')?.name,
    dataCiphersFallback: fallback && supportedCipher(fallback),
    ping: settings.args('ping')?.interval,
    pingRestart: settings.args('ping-restart')?.timeout,
    inactive: settings.args('inactive'),
    sessionTimeout: settings.args('session-timeout')?.timeout,
  }
}

function readIfconfig(settings: Settings): ClientSettings['ifconfig'] {
  const setting = settings.last('ifconfig-push')
  if (setting === undefined) return undefined
  const { local, remote, alias } = setting.args
  if (maskToPrefix(remote) === undefined) {
    const message = `ifconfig-push: expected an address and the netmask of the clients' network, not '${remote}' (pairs of addresses are of topology net30)`
    settings.problem('argument', setting.place, message)
  }
  if (alias !== undefined) {
    const message = 'ifconfig-push: another address for the client on its own side is not done here'
    settings.problem('refused', setting.place, message)
  }
  return { local, netmask: remote }
}

function readPushChanges(settings: Settings): PushChange[] {
  const changes: PushChange[] = []
  for (const { name, args, place } of settings) {
    if (name === 'push-reset') changes.push({ kind: 'reset' })
    else if (name === 'push-remove') {
      changes.push({ kind: 'remove', text: (args as { prefix: string }).prefix })
    } else if (name === 'push') {
      const { option } = args as { option: string }
      if (checkPush(settings, option, place)) changes.push({ kind: 'push', option })
    }
  }
  return changes
}

/** The options for one client: those for all, changed. */
export function applyPushChanges(
  push: readonly string[],
  changes: readonly PushChange[],
): string[] {
  let options = [...push]
  for (const change of changes) {
    if (change.kind === 'reset') options = []
    else if (change.kind === 'push') options.push(change.option)
    else options = options.filter((option) => !option.includes(change.text))
  }
  return options
}
