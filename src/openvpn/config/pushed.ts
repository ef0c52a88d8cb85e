/**
 * What a server has pushed, as the client takes it: filtered, and read with the same table as a configuration, of which a
 * server may say only a part. Nothing that a server sends is an error; what is not taken is told.
 */

import { type NetworkOptions, readNetwork } from './network.ts'
import { type Note, parse, type Settings } from './parse.ts'
import { type Problem, splitLine } from './syntax.ts'
import { supportedCipher } from './tls-config.ts'
import type { Millis, Place } from './values.ts'

/** Undefined: not said. */
export interface PushedOptions extends NetworkOptions {
  readonly peerId: number | undefined
  /** In capitals, where it is one of the driver's; else as it came. */
  readonly cipher: string | undefined
  readonly protocolFlags: readonly string[]
  /** `key-derivation tls-ekm`. */
  readonly tlsEkm: boolean
  readonly ping: Millis | undefined
  readonly pingRestart: Millis | undefined
  readonly pingExit: Millis | undefined
  readonly inactive: { readonly timeout: Millis; readonly bytes: number } | undefined
  readonly sessionTimeout: Millis | undefined
  readonly explicitExitNotify: number | undefined
  readonly authToken: string | undefined
  /** As text. */
  readonly authTokenUser: string | undefined
  readonly compression: Compression | undefined
  readonly sndbuf: number | undefined
  readonly rcvbuf: number | undefined
  readonly persistTun: boolean
  readonly environment: readonly (readonly [name: string, value: string])[]
  readonly echo: readonly string[]
  readonly verb: number | undefined
  readonly mute: number | undefined
}

/** What is before a packet that is not compressed: nothing, or a framing that the driver has not. */
export interface Compression {
  /** The line that says so. */
  readonly text: string
  readonly framed: boolean
}

/** What became of pushed options. */
export interface PushedReply {
  readonly options: PushedOptions
  /** Options that were left out, with the reason. */
  readonly skipped: readonly Problem[]
  readonly notes: readonly Note[]
  /** Options that the profile itself leaves out. */
  readonly filtered: readonly string[]
  /** The option that `pull-filter reject` is about: the client lets go of this server. */
  readonly rejected: string | undefined
}

const PLACE: Place = { file: "server's reply", line: 0 }

/** What `route-nopull` leaves out. */
const NOPULL = new Set([
  'route',
  'route-ipv6',
  'route-gateway',
  'route-ipv6-gateway',
  'route-metric',
  'route-delay',
  'redirect-gateway',
  'redirect-private',
  'block-ipv6',
  'block-outside-dns',
  'register-dns',
  'dns',
  'dhcp-option',
])

/** What a client takes of all that is pushed. */
export interface PullFilters {
  /** Leaves out routes and DNS. */
  readonly routeNopull: boolean
  /** The first that an option begins with decides. */
  readonly pullFilters: readonly {
    readonly action: 'accept' | 'ignore' | 'reject'
    readonly prefix: string
  }[]
}

/** Reads the options of a push reply, each as in the message: `route 10.1.0.0 255.255.0.0`. Never throws. */
export function readPushed(options: readonly string[], filters: PullFilters): PushedReply {
  const kept: string[] = []
  const filtered: string[] = []
  const skipped: Problem[] = []
  let rejected: string | undefined
  for (const option of options) {
    const filter = filters.pullFilters.find(({ prefix }) => option.startsWith(prefix))
    if (filter?.action === 'reject') rejected ??= option
    else if (filter?.action === 'ignore') filtered.push(option)
    else if (filters.routeNopull && NOPULL.has(/^\S*/.exec(option)![0])) {
      filtered.push(option)
    } else if (/[\r\n]/.test(option)) {
      const message = 'an option with a line break in it'
      skipped.push({ place: PLACE, code: 'context', message })
    } else kept.push(option)
  }
  const settings = parsePushed(kept)
  return {
    options: pushedOptions(settings),
    skipped: [...skipped, ...settings.problems],
    notes: settings.notes,
    filtered,
    rejected,
  }
}

function parsePushed(options: readonly string[]): Settings {
  const text = options.join('\n')
  return parse({ file: PLACE.file, text }, 'pushed', NO_FILES)
}

const NO_FILES = {
  read: (): never => {
    throw new Error('a server names no files')
  },
}

function pushedOptions(settings: Settings): PushedOptions {
  const cipher = settings.args('cipher')?.cipher
  const inactive = settings.args('inactive')
  const keepalive = settings.args('keepalive')
  return {
    ...readNetwork(settings),
    peerId: settings.args('peer-id')?.id,
    cipher: cipher && (supportedCipher(cipher) ?? cipher),
    protocolFlags: settings.all('protocol-flags').flatMap(({ args }) => args.flags),
    tlsEkm: settings.args('key-derivation')?.method === 'tls-ekm',
    // A reply has the two apart, an update has them in one.
    ping: keepalive?.interval ?? settings.args('ping')?.interval,
    pingRestart: keepalive?.timeout ?? settings.args('ping-restart')?.timeout,
    pingExit: settings.args('ping-exit')?.timeout,
    inactive: inactive?.timeout === 0 ? undefined : inactive,
    sessionTimeout: settings.args('session-timeout')?.timeout || undefined,
    explicitExitNotify: settings.args('explicit-exit-notify')?.attempts,
    authToken: settings.args('auth-token')?.token,
    authTokenUser: decodeBase64(settings.args('auth-token-user')?.user),
    compression: readCompression(settings),
    sndbuf: settings.args('sndbuf')?.bytes || undefined,
    rcvbuf: settings.args('rcvbuf')?.bytes || undefined,
    persistTun: settings.has('persist-tun'),
    environment: settings
      .all('setenv-safe')
      .map(({ args }) => [`OPENVPN_${args.name}`, args.value] as const),
    echo: [...settings.all('echo'), ...settings.all('parameter')].map(({ args }) =>
      args.words.join(' '),
    ),
    verb: settings.args('verb')?.level,
    mute: settings.args('mute')?.count,
  }
}

function decodeBase64(text: string | undefined): string | undefined {
  if (text === undefined) return undefined
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)))
  } catch {
    return undefined
  }
}

/** Only `stub-v2`, and its compressing kin when it does not compress, leaves packets as they are. */
export function readCompression(settings: Settings): Compression | undefined {
  let found: Compression | undefined
  for (const { name, args } of settings) {
    if (name === 'comp-lzo') {
      const { mode } = args as { mode?: string }
      found = { text: mode === undefined ? name : `${name} ${mode}`, framed: true }
    } else if (name === 'compress') {
      const { algorithm } = args as { algorithm?: string }
      const framed = !['stub-v2', 'lz4-v2', 'migrate'].includes(algorithm ?? '')
      found = { text: algorithm === undefined ? name : `${name} ${algorithm}`, framed }
    }
  }
  return found
}

/** Of a server. */
export const NO_FRAMING =
  "packets have no framing of compression here: clients with 'comp-lzo' or 'compress' are told to leave it (as 'compress migrate' does)"

/** Longer ones are refused by OpenVPN 2.x. */
const MAX_PUSHED = 255

/** Whether an option of a server's configuration is to be pushed. What is wrong, or clients may not take, goes to `settings`. */
export function checkPush(settings: Settings, option: string, place: Place): boolean {
  if (option.includes(',') || /\p{Cc}/u.test(option)) {
    const message =
      'push: an option has no comma and no unprintable character: it would not arrive whole'
    settings.problem('argument', place, message)
    return false
  }
  const words = splitLine(option)
  if (typeof words === 'string' || words.length === 0) {
    const reason = typeof words === 'string' ? words : 'there is nothing in it'
    settings.problem('argument', place, `push: ${reason}`)
    return false
  }
  const parsed = parsePushed([option])
  if (readCompression(parsed)?.framed) {
    settings.note('differs', place, `push: ${NO_FRAMING}, and this is not pushed`)
    return false
  }
  for (const { message } of parsed.problems) {
    settings.note('differs', place, `push: clients will likely not take this: ${message}`)
  }
  if (new TextEncoder().encode(option).length > MAX_PUSHED) {
    const message = `push: OpenVPN's own servers push at most ${MAX_PUSHED} characters in an option`
    settings.note('differs', place, message)
  }
  return true
}
