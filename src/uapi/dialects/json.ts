/**
 * The API's messages as plain JSON objects, for programs that read `--json` and for people: attributes by the names of
 * the specification, as `ynl` prints them, enums by name, addresses as text, binary in hexadecimal.
 *
 *     { "command": "peer-set", "ifindex": 7, "peer": { "id": 3, "keepalive-interval": 10, "keepalive-timeout": 60 } }
 *     { "event": "peer-del-ntf", "ifindex": 7, "peer": { "id": 3, "del-reason": "expired" } }
 */
import { formatIp, parseIp } from '../address.ts'
import { ApiError } from '../errno.ts'
import {
  type Attribute,
  type Attributes,
  type Command,
  commands,
  type Message,
  type Notification,
  nests,
  notifications,
  top,
} from '../spec.ts'
import type { CommandName, DriverEvent, Reply, ReplyOf, Request } from '../types.ts'
import { camel, checkPeer, type Values } from '../validate.ts'

export type Json = string | number | boolean | null | Json[] | { [name: string]: Json }

/**
 * Both ways like a wire dialect, with objects in place of bytes. A request for `key-new` holds its keys; replies and
 * events never hold any. What is not of the API is refused with an ApiError: EINVAL, or ERANGE for a value out of bounds.
 */
export const json = {
  encodeRequest(request: Request): Json {
    const message = messageOf(request.command, request.dump === true)
    const head = { command: request.command, ...(request.dump && { dump: true }) }
    return { ...head, ...encodeBody(message, request.args as unknown as Values) }
  },

  decodeRequest(value: Json): Request {
    const { command, dump = false, ...rest } = objectOf(value, 'request')
    if (typeof command !== 'string' || !Object.hasOwn(commands, command)) {
      throw new ApiError('EOPNOTSUPP', 'no such command')
    }
    if (typeof dump !== 'boolean') throw new ApiError('EINVAL', 'true or false expected', 'dump')
    const name = command as CommandName
    const args = decodeBody(messageOf(name, dump), rest)
    const check = name === 'peer-new' || name === 'peer-set' ? checkPeer : undefined
    if (check) args.peer = check(args.peer as Parameters<typeof checkPeer>[0])
    return (dump ? { command, args, dump } : { command, args }) as unknown as Request
  },

  encodeReply(command: CommandName, value: Reply): Json {
    const { nest, required, optional } = replyOf(command)
    return encodeSet(nests[nest], value, [...required, ...optional])
  },

  decodeReply<C extends CommandName>(command: C, value: Json): ReplyOf<C> {
    const { nest, required, optional } = replyOf(command)
    return decodeSet(nests[nest], value, required, optional, '') as ReplyOf<C>
  },

  encodeEvent(event: DriverEvent): Json {
    const { message }: Notification = notifications[event.event]
    return { event: event.event, ...encodeBody(message, event as unknown as Values) }
  },

  decodeEvent(value: Json): DriverEvent {
    const { event, ...rest } = objectOf(value, 'event')
    if (typeof event !== 'string' || !Object.hasOwn(notifications, event)) {
      throw new ApiError('EOPNOTSUPP', 'no such event')
    }
    const { message }: Notification = notifications[event as DriverEvent['event']]
    return { event, ...decodeBody(message, rest) } as unknown as DriverEvent
  },
}

type Nested = Extract<Message, { nest: string }>

function messageOf(command: CommandName, dump: boolean): Message {
  const message = (commands[command] as Command)[dump ? 'dump' : 'do']
  if (message !== undefined) return message
  throw new ApiError('EOPNOTSUPP', `no ${command}${dump ? ' as dump' : ''}`)
}

function replyOf(command: CommandName): Nested {
  const message = (commands[command] as Command).reply
  if (message?.nest === undefined) throw new Error(`${command} has no reply`)
  return message
}

function encodeBody(message: Message, values: Values): { [name: string]: Json } {
  const { nest } = message
  const body: { [name: string]: Json } = {}
  if (message.ifindex) body.ifindex = values.ifindex as number
  if (message.extended && values.extended === true) body.extended = true
  if (nest !== undefined) {
    const names = [...message.required, ...message.optional]
    body[nest] = encodeSet(nests[nest], values[nest] as object, names)
  }
  return body
}

function encodeSet(
  set: Attributes,
  values: object,
  names: readonly string[],
): { [name: string]: Json } {
  const entries = names.flatMap((name): [string, Json][] => {
    const attribute = set[name]!
    const value = (values as Values)[camel(name)]
    if (value === undefined) return []
    const encode = (one: unknown) => encodeOne(attribute, one)
    return [[name, attribute.multi ? (value as unknown[]).map(encode) : encode(value)]]
  })
  return Object.fromEntries(entries)
}

function encodeOne(attribute: Attribute, value: unknown): Json {
  if (attribute.of !== undefined) {
    return encodeSet(attribute.of, value as object, Object.keys(attribute.of))
  }
  if (!(value instanceof Uint8Array)) return value as Json
  return [...value].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

function decodeBody(message: Message, body: { [name: string]: Json }): Values {
  const { nest } = message
  const required = [...(message.ifindex ? ['ifindex'] : []), ...(nest === undefined ? [] : [nest])]
  const { [nest ?? '']: inner, ...flat } = body
  const values = decodeSet(
    top,
    flat,
    required.filter((name) => name !== nest),
    message.extended ? ['extended'] : [],
    '',
  )
  if (nest === undefined) return values
  if (inner === undefined) throw new ApiError('EINVAL', 'missing attribute', nest)
  const { required: all, optional } = message
  return { ...values, [nest]: decodeSet(nests[nest], inner, all, optional, `${nest}.`) }
}

function decodeSet(
  set: Attributes,
  value: Json,
  required: readonly string[],
  optional: readonly string[],
  path: string,
): Values {
  const given = objectOf(value, path.slice(0, -1) || 'message')
  const values: Values = {}
  for (const [name, one] of Object.entries(given)) {
    if (!required.includes(name) && !optional.includes(name)) {
      throw new ApiError('EINVAL', 'Unknown attribute type', path + name)
    }
    const attribute = set[name]!
    if (!attribute.multi) values[camel(name)] = decodeOne(attribute, one, path + name)
    else if (Array.isArray(one)) {
      values[camel(name)] = one.map((each) => decodeOne(attribute, each, path + name))
    } else throw new ApiError('EINVAL', 'a list expected', path + name)
  }
  for (const name of required) {
    if (!Object.hasOwn(given, name)) {
      throw new ApiError('EINVAL', 'missing attribute', path + name)
    }
  }
  return values
}

function decodeOne(attribute: Attribute, value: Json, name: string): unknown {
  const { of, type } = attribute
  if (of !== undefined) return decodeSet(of, value, Object.keys(of), [], `${name}.`)
  if (attribute.enum !== undefined) {
    if (attribute.enum.includes(value as string)) return value
    throw new ApiError('ERANGE', `one of ${attribute.enum.join(', ')} expected`, name)
  }
  switch (type) {
    case 'flag':
      if (typeof value === 'boolean') return value
      throw new ApiError('EINVAL', 'true or false expected', name)
    case 'string':
      if (typeof value !== 'string') throw new ApiError('EINVAL', 'text expected', name)
      checkLength(attribute, new TextEncoder().encode(value).length, name)
      return value
    case 'binary': {
      if (typeof value !== 'string' || !/^([\da-f]{2})*$/i.test(value)) {
        throw new ApiError('EINVAL', 'hexadecimal digits expected', name)
      }
      const bytes = Uint8Array.from(value.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
      checkLength(attribute, bytes.length, name)
      return bytes
    }
    case 'ipv4':
    case 'ipv6': {
      const bytes = typeof value === 'string' ? parseIp(value) : undefined
      if (bytes?.length === (type === 'ipv4' ? 4 : 16)) return formatIp(bytes)
      throw new ApiError('EINVAL', `an ${type === 'ipv4' ? 'IPv4' : 'IPv6'} address expected`, name)
    }
    default:
      return integer(attribute, value, name)
  }
}

function objectOf(value: Json, name: string): { [name: string]: Json } {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  throw new ApiError('EINVAL', 'an object expected', name)
}

function checkLength(attribute: Attribute, length: number, name: string): void {
  const { minLength = 0, maxLength = Infinity } = attribute
  if (length >= minLength && length <= maxLength) return
  throw new ApiError('ERANGE', 'binary attribute size out of range', name)
}

const bounds: { readonly [type: string]: readonly [least: number, most: number] } = {
  port: [1, 0xffff],
  u8: [0, 0xff],
  u16: [0, 0xffff],
  u32: [0, 0xffffffff],
  s32: [-0x80000000, 0x7fffffff],
}

function integer(attribute: Attribute, value: Json, name: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) {
    throw new ApiError('EINVAL', 'an integer expected', name)
  }
  const [least, most] = bounds[attribute.type] ?? [0, Number.MAX_SAFE_INTEGER]
  if (value < Math.max(least, attribute.min ?? least)) {
    throw new ApiError('ERANGE', 'integer out of range', name)
  }
  if (value > Math.min(most, attribute.max ?? most)) {
    throw new ApiError('ERANGE', 'integer out of range', name)
  }
  return value
}
