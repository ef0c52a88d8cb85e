/**
 * What the suite writes down: steps, each with all that could be observed, in a form in which two drivers can be
 * compared. What hangs on the moment or the machine (interface indexes, port ids, family numbers) gets a name instead.
 */
import { type Attribute, attributes } from '../../../src/netlink/attribute.ts'
import {
  GENL_HDRLEN,
  type Message,
  NLM_F,
  NLMSG,
  readAnswer,
} from '../../../src/netlink/message.ts'
import { ovpn } from '../../../src/uapi/dialects/ovpn.ts'
import { errnoName } from '../../../src/uapi/errno.ts'
import type { CommandName } from '../../../src/uapi/types.ts'
import { hex } from './sockets.ts'

export interface Step {
  /** 'scenario: what'; unique. */
  readonly name: string
  /** JSON; a key named `text` is a wording, of which only its presence is compared. */
  readonly seen: unknown
}

export interface Transcript {
  readonly driver: 'kernel' | 'user'
  /** As uname has it. */
  readonly kernel: string
  readonly steps: Step[]
}

/** Numbers that mean something to this run only. */
export interface Names {
  readonly family: number
  /** Interface indexes by what they are called in the transcript. */
  readonly links: ReadonlyMap<number, string>
}

/** A netlink message as it is written down. `command` is what a reply answers. */
export function describe(message: Message, names: Names, command: CommandName | undefined): object {
  const pid = message.pid === 0 ? {} : { addressed: true }
  if (message.type === NLMSG.ERROR || message.type === NLMSG.DONE) {
    return { ...describeAnswer(message), ...pid }
  }
  const multi = (message.flags & NLM_F.MULTI) !== 0 ? { multi: true } : {}
  const unasked = message.seq === 0
  if (message.type !== names.family) return { kind: 'message', ...pid, type: message.type }
  const [number, version] = message.payload
  return {
    kind: unasked ? 'notification' : 'reply',
    ...pid,
    ...multi,
    command: number,
    version,
    attributes: describeAttributes(message.payload, names),
    decoded: canonical(unasked ? event(message.payload) : reply(command, message.payload), names),
  }
}

function describeAnswer(message: Message): object {
  const { flags, type } = message
  const { errno, text, offset, missType, missNest } = readAnswer(message)
  const kind = type === NLMSG.DONE ? 'done' : errno === 0 ? 'ack' : 'error'
  const copy = type === NLMSG.DONE ? {} : { copied: copied(message) }
  return {
    kind,
    ...(errno !== 0 && { errno: errnoName(errno) ?? errno }),
    flags: [
      ...((flags & NLM_F.MULTI) !== 0 ? ['multi'] : []),
      ...((flags & NLM_F.CAPPED) !== 0 ? ['capped'] : []),
    ].join(' '),
    ...copy,
    ...(text !== undefined && { text }),
    ...(offset !== undefined && { offset }),
    ...(missType !== undefined && { missType }),
    ...(missNest !== undefined && { missNest }),
    ...(hasPolicy(message) && { policy: true }),
  }
}

/** How much of the request an error gives back. */
function copied({ flags, payload }: Message): 'header' | 'request' {
  if ((flags & NLM_F.CAPPED) !== 0) return 'header'
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length)
  return view.getUint32(4, true) > 16 ? 'request' : 'header'
}

const NLMSGERR_ATTR_POLICY = 4

/** Whether it tells the rule that an attribute has broken. */
function hasPolicy({ flags, type, payload }: Message): boolean {
  if ((flags & NLM_F.ACK_TLVS) === 0) return false
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length)
  const request = (flags & NLM_F.CAPPED) !== 0 ? 16 : view.getUint32(4, true)
  const start = type === NLMSG.DONE ? 4 : 4 + ((request + 3) & ~3)
  return [...attributes(payload, start)].some((one) => one.type === NLMSGERR_ATTR_POLICY)
}

/** Every attribute as 'path nested? length: bytes', in the order in which they stand. */
function describeAttributes(payload: Uint8Array, names: Names): string[] {
  const lines: string[] = []
  for (const top of attributes(payload, GENL_HDRLEN)) {
    if (top.type === IFINDEX) {
      lines.push(`1: ${linkName(top, names)}`)
    } else {
      lines.push(`${top.type}${top.nested ? ' nested' : ''}`)
      for (const inner of attributes(top.payload)) {
        const nested = inner.nested ? ' nested' : ''
        const value = isEphemeral(inner) ? 'some port' : hex(inner.payload)
        lines.push(`${top.type}.${inner.type}${nested}: ${value}`)
      }
    }
  }
  return lines
}

const IFINDEX = 1
const LOCAL_PORT = 12
/** Where ports that the system chooses begin. */
const EPHEMERAL = 32_768

/** Ports that scenarios choose are low. */
function isEphemeral({ type, payload }: Attribute): boolean {
  return type === LOCAL_PORT && payload.length === 2 && payload[0]! >= EPHEMERAL >> 8
}

function linkName({ payload }: Attribute, names: Names): string {
  const index = new DataView(payload.buffer, payload.byteOffset).getUint32(0, true)
  return names.links.get(index) ?? String(index)
}

function event(payload: Uint8Array): unknown {
  return attempt(() => ovpn.decodeEvent(payload))
}

function reply(command: CommandName | undefined, payload: Uint8Array): unknown {
  return command && attempt(() => ovpn.decodeReply(command, payload))
}

function attempt(decode: () => unknown): unknown {
  try {
    return decode()
  } catch (error) {
    return `cannot be decoded: ${(error as Error).message}`
  }
}

/** As JSON can hold it, interface indexes by name. */
function canonical(value: unknown, names: Names): unknown {
  const replace = (key: string, one: unknown) => {
    if (key === 'ifindex') return names.links.get(one as number) ?? one
    if (key === 'localPort' && (one as number) >= EPHEMERAL) return 'some port'
    return one instanceof Uint8Array ? hex(one) : one
  }
  return value === undefined ? undefined : JSON.parse(JSON.stringify(value, replace))
}
