/**
 * Requests, replies and events of the driver's API, the same in every dialect: all inferred from spec.ts.
 * Addresses are text, times and counters numbers, enums their names, binary a Uint8Array.
 */
import type {
  Command,
  cipher,
  commands,
  delReason,
  Infer,
  keyFormat,
  keySlot,
  linkKind,
  Message,
  mode,
  nests,
  notifications,
  peerKey,
  Select,
  transport,
} from './spec.ts'

export type Cipher = (typeof cipher)[number]
export type KeyFormat = (typeof keyFormat)[number]
export type Slot = (typeof keySlot)[number]
export type DelReason = (typeof delReason)[number]
export type Mode = (typeof mode)[number]
export type LinkKind = (typeof linkKind)[number]
export type Transport = (typeof transport)[number]
/** Names of the generic-netlink families. */
export type DialectName = 'ovpn-dco' | 'ovpn-dco-v2' | 'ovpn'

export type PeerKey = Infer<typeof peerKey>

/** One object instead of an intersection, as editors and errors show it. */
type Flat<T> = { [K in keyof T]: T[K] }

type NestOf<M extends Message> = M extends {
  nest: infer N extends keyof typeof nests
  required: readonly (infer R extends string)[]
  optional: readonly (infer O extends string)[]
}
  ? Flat<Select<(typeof nests)[N], R, O>>
  : never

type Body<M extends Message> = Flat<
  (M extends { ifindex: true } ? { ifindex: number } : unknown) &
    (M extends { extended: true } ? { extended?: boolean } : unknown) &
    (M extends { nest: infer N extends string } ? { [K in N]: NestOf<M> } : unknown)
>

type Commands = typeof commands
type Notifications = typeof notifications

export type CommandName = keyof Commands
export type EventName = keyof Notifications

type DoOf<C extends Command> = C extends { do: infer M extends Message } ? Body<M> : never
type DumpOf<C extends Command> = C extends { dump: infer M extends Message } ? Body<M> : never

/** What a command is given. */
export type ArgsOf<C extends CommandName> = DoOf<Commands[C]>

type DumpName = {
  [C in CommandName]: Commands[C] extends { dump: Message } ? C : never
}[CommandName]

/** A decoded request: all that is required is there and within its bounds. */
export type Request =
  | { [C in CommandName]: { command: C; args: ArgsOf<C>; dump?: false } }[CommandName]
  | { [C in DumpName]: { command: C; args: DumpOf<Commands[C]>; dump: true } }[DumpName]

/** What a command answers beside its acknowledgement; of a dump, each one. */
export type ReplyOf<C extends CommandName> = Commands[C] extends {
  reply: infer M extends Message
}
  ? NestOf<M>
  : undefined

export type Peer = ReplyOf<'peer-get'>
export type KeyInfo = ReplyOf<'key-get'>
export type Link = ReplyOf<'link-get'>
export type Reply = Peer | KeyInfo | Link

export type PeerNew = ArgsOf<'peer-new'>['peer']
export type PeerSet = ArgsOf<'peer-set'>['peer']
/** A key with its material. */
export type KeyConf = ArgsOf<'key-new'>['keyconf']
export type LinkNew = ArgsOf<'link-new'>['link']

/** Something the driver tells unasked: `{ event: 'peer-del-ntf', ifindex, peer }` and the like. */
export type DriverEvent = {
  [E in EventName]: Flat<{ event: E } & Body<Notifications[E]['message']>>
}[EventName]
