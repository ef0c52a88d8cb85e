/**
 * What a dialect is, and what all three share: the genl header, dispatch by command number, values written as
 * attributes, and our extensions, which have the same numbers everywhere. What differs, namely numbers, groupings and
 * the order in replies, each dialect says in its own file.
 */
import { Writer } from '../../netlink/attribute.ts'
import type { Family } from '../../netlink/control.ts'
import {
  GENL_HDRLEN,
  genericHeader,
  NLMSG_HDRLEN,
  readGenericHeader,
} from '../../netlink/message.ts'
import { parseIp } from '../address.ts'
import { ApiError } from '../errno.ts'
import {
  type Command,
  commands,
  drop,
  link,
  type Message,
  notifications,
  peerKey,
  top,
} from '../spec.ts'
import type {
  CommandName,
  DialectName,
  DriverEvent,
  EventName,
  LinkKind,
  Reply,
  ReplyOf,
  Request,
} from '../types.ts'
import {
  type Field,
  type Policy,
  parse,
  parsePolicy,
  select,
  type Table,
  table,
  type Values,
} from '../validate.ts'

/** One wire form of the API. Every payload starts at the genl header and goes to the end of the message. */
export interface Dialect {
  readonly name: DialectName
  /** The kind of interface its programs create. */
  readonly linkKind: LinkKind
  /** Its numbers, for documentation. */
  readonly wire: Declaration
  /** What nlctrl tells of the family (netlink-api 1.2), our extensions among the operations. */
  info(familyId: number, groupId: number): Family
  /** Throws ApiError: EOPNOTSUPP for a command, or a command as dump, that is not there; else see validate.ts. */
  decodeRequest(genl: Uint8Array, options: { dump: boolean }): Request
  /** Throws ApiError EOPNOTSUPP for what the dialect cannot say, EINVAL for an address that is none. */
  encodeRequest(request: Request): Uint8Array
  encodeReply(command: CommandName, value: Reply): Uint8Array
  /** Reads what a driver of any age answers; throws ApiError EPROTO where it is no answer to `command`. */
  decodeReply<C extends CommandName>(command: C, genl: Uint8Array): ReplyOf<C>
  /** Undefined for an event that the dialect does not have. */
  encodeEvent(event: DriverEvent): Uint8Array | undefined
  /** Undefined for what is no event; throws ApiError EPROTO for a broken one. */
  decodeEvent(genl: Uint8Array): DriverEvent | undefined
}

const VERSION = 1

/** Attributes at the top that are the same everywhere. */
export const topNumbers = { link: 64, packet: 65, extended: 66 } as const

/** Attributes of a peer that are the same everywhere. */
export const peerNumbers = {
  transport: 64,
  keys: 65,
  drops: 66,
  'last-rx-ms': 67,
  'last-tx-ms': 68,
  mssfix: 74,
  'swap-wait-ms': 75,
} as const

const drops = table(drop, { reason: 1, count: 2 })

export const peerTables = {
  keys: table(peerKey, {
    slot: 1,
    'key-id': 2,
    'cipher-alg': 3,
    'age-ms': 4,
    'packet-id': 5,
    format: 6,
    epoch: 7,
  }),
  drops,
} as const

const linkTable = table(
  link,
  {
    ifindex: 1,
    name: 2,
    kind: 3,
    mode: 4,
    mtu: 5,
    netns: 6,
    workers: 7,
    provider: 8,
    features: 9,
    'rx-bytes': 10,
    'rx-packets': 11,
    'tx-bytes': 12,
    'tx-packets': 13,
    peers: 14,
    drops: 15,
  },
  { drops },
)

/** Of a packet, the same everywhere. */
export const packetNumbers = { packet: 1, 'peer-id': 2, eof: 64, inside: 65 } as const

/** How one message looks on the wire, and what becomes of its values. */
export interface Form {
  /** Attributes at the top: all that are let pass, with those required. */
  readonly table: Table
  /** Names of the attributes to write, in order; nests by name with theirs in `inner`. */
  readonly order: readonly string[]
  readonly inner?: readonly string[]
  /** Canonical → wire. Throws ApiError EOPNOTSUPP for what cannot be said. */
  readonly toWire?: (values: Values) => Values
  /** Wire → canonical, with the checks of the handler. */
  readonly fromWire?: (values: Values) => Values
}

/** A command on the wire of one dialect. */
export interface Wired {
  readonly number: number
  readonly do?: Form
  readonly dump?: Form
  readonly reply?: Form
}

export interface WiredEvent {
  readonly number: number
  readonly form: Form
}

/** A form of one nest at the top, whose tables are `whole` and `inner`. */
export function formOf(whole: Table, inner: Table | undefined, message: Message): Form {
  const head = message.ifindex ? ['ifindex'] : []
  const extended = message.extended ? ['extended'] : []
  if (message.nest === undefined) {
    return { table: select(whole, head, extended), order: [...head, ...extended] }
  }
  const part = select(inner!, message.required, message.optional)
  return {
    table: select(whole, [...head, message.nest], extended, { [message.nest]: part }),
    order: [...head, ...extended, message.nest],
    inner: part.fields.map((field) => field.name),
  }
}

const extensionTop = table(top, { ifindex: 1, ...topNumbers }, { link: linkTable })

/** Commands for interfaces, in every dialect. */
function linkCommand(name: 'link-new' | 'link-del' | 'link-get', number: number): Wired {
  const spec: Command = commands[name]
  const form = (message: Message) => formOf(extensionTop, linkTable, message)
  return {
    number,
    ...(spec.do && { do: form(spec.do) }),
    ...(spec.dump && { dump: form(spec.dump) }),
    ...(spec.reply && { reply: form(spec.reply) }),
  }
}

export const linkCommands = {
  'link-new': linkCommand('link-new', 64),
  'link-del': linkCommand('link-del', 65),
  'link-get': linkCommand('link-get', 66),
} as const

/** Relay of control packets, whose numbers dialect A had first. `inner` is the table of a packet. */
export function packetCommands(
  whole: Table,
  inner: Table,
  numbers: { register: number; packet: number },
): { commands: { 'packet-register': Wired; packet: Wired }; event: WiredEvent } {
  return {
    commands: {
      'packet-register': {
        number: numbers.register,
        do: formOf(whole, undefined, commands['packet-register'].do),
      },
      packet: { number: numbers.packet, do: formOf(whole, inner, commands.packet.do) },
    },
    event: {
      number: numbers.packet,
      form: formOf(whole, inner, notifications.packet.message),
    },
  }
}

/** What stands in a dialect's own file. */
export interface Declaration {
  readonly name: DialectName
  readonly linkKind: LinkKind
  /** Policy for requests. */
  readonly policy: Policy
  /** As nlctrl tells it: the kernel's, without our extensions. */
  readonly maxattr: number
  readonly commands: { readonly [C in CommandName]?: Wired }
  readonly events: { readonly [E in EventName]?: WiredEvent }
}

const ADMIN_PERM = 0x01
const CAP_DO = 0x02
const CAP_DUMP = 0x04
const CAP_HASPOL = 0x08

/** A dialect from its declaration. */
export function createDialect(declaration: Declaration): Dialect {
  const { name, policy } = declaration
  const wiredCommands = Object.entries(declaration.commands) as [CommandName, Wired][]
  const commandOf = new Map(wiredCommands.map(([command, wired]) => [wired.number, command]))
  const wiredEvents = Object.entries(declaration.events) as [EventName, WiredEvent][]
  const eventOf = new Map(wiredEvents.map(([event, wired]) => [wired.number, event]))

  const wiredOf = (command: CommandName): Wired => {
    const wired = declaration.commands[command]
    if (wired !== undefined) return wired
    throw new ApiError('EOPNOTSUPP', `${name} has no ${command}`)
  }

  return {
    name,
    linkKind: declaration.linkKind,
    wire: declaration,

    info: (familyId, groupId) => ({
      name,
      id: familyId,
      version: VERSION,
      headerSize: 0,
      maxAttribute: declaration.maxattr,
      operations: wiredCommands.map(([, wired]) => ({
        id: wired.number,
        flags: ADMIN_PERM | CAP_DO | (wired.dump === undefined ? 0 : CAP_DUMP) | CAP_HASPOL,
      })),
      groups: [{ name: 'peers', id: groupId }],
    }),

    decodeRequest(genl, { dump }) {
      if (genl.length < GENL_HDRLEN) throw new ApiError('EINVAL', 'message too short')
      const header = readGenericHeader(genl)
      if (header.reserved !== 0) {
        throw new ApiError('EINVAL', 'reserved bytes of the header are not 0')
      }
      const command = commandOf.get(header.command)
      const form = command && wiredOf(command)[dump ? 'dump' : 'do']
      if (command === undefined || form === undefined) {
        throw new ApiError(
          'EOPNOTSUPP',
          `no command ${header.command}${dump ? ' as dump' : ''} in ${name}`,
        )
      }
      const { values, missing } = parsePolicy(genl, GENL_HDRLEN, form.table, policy, NLMSG_HDRLEN)
      const args = handled(values, missing, form)
      // The form's tables are the specification's, from which the type of the arguments comes.
      return (dump ? { command, args, dump } : { command, args }) as unknown as Request
    },

    encodeRequest(request) {
      const wired = wiredOf(request.command)
      const form = request.dump ? wired.dump! : wired.do!
      return write(wired.number, form, request.args as unknown as Values)
    },

    encodeReply(command, value) {
      const wired = wiredOf(command)
      if (wired.reply === undefined) throw new Error(`${command} has no reply`)
      const nest = (commands[command] as Command).reply!.nest!
      return write(wired.number, wired.reply, { [nest]: value })
    },

    decodeReply<C extends CommandName>(command: C, genl: Uint8Array) {
      const wired = wiredOf(command)
      if (wired.reply === undefined || genl.length < GENL_HDRLEN || genl[0] !== wired.number) {
        throw new ApiError('EPROTO', `no answer to ${command}`)
      }
      const nest = (commands[command] as Command).reply!.nest!
      return read(genl, wired.reply)[nest] as ReplyOf<C>
    },

    encodeEvent(event) {
      const wired = declaration.events[event.event]
      return wired && write(wired.number, wired.form, event as unknown as Values)
    },

    decodeEvent(genl) {
      const event = genl.length < GENL_HDRLEN ? undefined : eventOf.get(genl[0]!)
      if (event === undefined) return undefined
      const { form } = declaration.events[event]!
      return { event, ...read(genl, form) } as unknown as DriverEvent
    },
  }
}

/** What a handler makes of a request that has met the policy; what it refuses says which interface it looked up. */
function handled(values: Values, missing: ApiError | undefined, form: Form): Values {
  try {
    if (missing !== undefined) throw missing
    return form.fromWire?.(values) ?? values
  } catch (error) {
    const { ifindex } = values
    if (!(error instanceof ApiError) || typeof ifindex !== 'number') throw error
    throw error.about(ifindex)
  }
}

/** What a driver sent; broken, it is EPROTO whatever the reason. */
function read(genl: Uint8Array, form: Form): Values {
  try {
    const values = parse(genl, GENL_HDRLEN, form.table, 'answer', NLMSG_HDRLEN)
    return form.fromWire?.(values) ?? values
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    throw new ApiError('EPROTO', error.reason, error.attribute)
  }
}

function write(command: number, form: Form, canonical: Values): Uint8Array {
  const values = form.toWire?.(canonical) ?? canonical
  const writer = new Writer(genericHeader(command, VERSION))
  for (const name of form.order) {
    const field = fieldOf(form.table, name)
    if (field.of !== undefined && form.inner !== undefined) {
      const inner = values[field.key] as Values
      const { of } = field
      writer.nest(field.number, () => {
        for (const one of form.inner!) writeField(writer, fieldOf(of, one), inner, `${name}.`)
      })
    } else {
      writeField(writer, field, values, '')
    }
  }
  return writer.finish()
}

function fieldOf(whole: Table, name: string): Field {
  const field = whole.fields.find((one) => one.name === name)
  if (field === undefined) throw new Error(`no attribute ${name}`)
  return field
}

function writeField(writer: Writer, field: Field, values: Values, path: string): void {
  const value = values[field.key]
  if (value === undefined) return
  for (const one of field.attribute.multi ? (value as unknown[]) : [value]) {
    writeOne(writer, field, one, path)
  }
}

function writeOne(writer: Writer, field: Field, value: unknown, path: string): void {
  const { attribute, number, of } = field
  if (of !== undefined) {
    writer.nest(number, () => {
      for (const inner of of.fields) {
        writeField(writer, inner, value as Values, `${path}${field.name}.`)
      }
    })
    return
  }
  const integer = attribute.enum?.indexOf(value as string) ?? (value as number)
  if (attribute.enum !== undefined && integer < 0) {
    throw new ApiError('EINVAL', `${String(value)} has no number`, path + field.name)
  }
  switch (attribute.type) {
    case 'u8':
      writer.u8(number, integer)
      break
    case 'u16':
      writer.u16(number, integer)
      break
    case 'u32':
    case 's32':
      writer.u32(number, integer)
      break
    case 'u64':
      writer.u64(number, integer)
      break
    case 'uint':
      writer.uint(number, integer)
      break
    case 'port':
      writer.be16(number, integer)
      break
    case 'ipv4':
    case 'ipv6':
      writer.bytes(number, addressOf(value as string, attribute.type, path + field.name))
      break
    case 'binary':
      writer.bytes(number, value as Uint8Array)
      break
    case 'string':
      writer.string(number, value as string)
      break
    case 'flag':
      if (value === true) writer.flag(number)
      break
    case 'nest':
      throw new Error(`no table for ${field.name}`)
  }
}

function addressOf(text: string, type: 'ipv4' | 'ipv6', name: string): Uint8Array {
  const bytes = parseIp(text)
  if (bytes?.length === (type === 'ipv4' ? 4 : 16)) return bytes
  throw new ApiError('EINVAL', `no ${type === 'ipv4' ? 'IPv4' : 'IPv6'} address`, name)
}
