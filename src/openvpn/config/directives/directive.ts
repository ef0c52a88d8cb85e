/** What is said about each directive, and the words for saying it. */
import { choice, type Kind, type ValueOf } from '../kinds.ts'

/** What becomes of a directive here. */
export type Use =
  | { readonly kind: 'honoured' }
  /** Accepted, and nothing changes by it. */
  | { readonly kind: 'no-op'; readonly why: string }
  | { readonly kind: 'refused'; readonly instead: string }

/** The texts that directives stand in. */
export type Context =
  | 'server'
  | 'client'
  /** A client's settings at the server: its file in `client-config-dir`, what `client-connect` wrote. */
  | 'ccd'
  /** Of a push reply, as the client takes it. */
  | 'pushed'

export interface Directive {
  readonly args: { readonly [name: string]: Kind<unknown> }
  /** A context that is left out does not have the directive: it stands there by mistake. */
  readonly server?: Use
  readonly client?: Use
  readonly ccd?: Use
  readonly pushed?: Use
  /** May also stand in a `<connection>` block of a client. */
  readonly connection?: true
  /** The content of its first argument, a file, may stand between `<name>` and `</name>` instead. */
  readonly inline?: true
  /** Each one counts. Of others the last does. */
  readonly repeats?: true
  /** A message `PUSH_UPDATE` may set or remove it while the tunnel is up (OpenVPN 2.7). */
  readonly update?: true
  /** The version of OpenVPN that brought it, where that is 2.5 or later. */
  readonly since?: string
  /** The version of OpenVPN that ended it, or made it do nothing. */
  readonly removed?: string
  readonly doc: string
}

export interface Directives {
  readonly [name: string]: Directive
}

/** The values of a directive's arguments, by name. */
export type ArgsOf<D extends Directive> = { readonly [K in keyof D['args']]: ValueOf<D['args'][K]> }

export const honoured: Use = { kind: 'honoured' }
export const noop = (why: string): Use => ({ kind: 'no-op', why })
export const refused = (instead: string): Use => ({ kind: 'refused', instead })

/** In the configuration of a server and of a client alike. */
export const both = (use: Use) => ({ server: use, client: use })

const PROTOCOLS = [
  'udp',
  'udp4',
  'udp6',
  'tcp',
  'tcp4',
  'tcp6',
  'tcp-client',
  'tcp4-client',
  'tcp6-client',
  'tcp-server',
  'tcp4-server',
  'tcp6-server',
] as const
export type ProtocolName = (typeof PROTOCOLS)[number]

export const protocol = choice(...PROTOCOLS)
