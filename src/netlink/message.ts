/**
 * Netlink messages as bytes: headers, the messages of a datagram, and the answers every protocol shares (ACK, error,
 * end of a dump). Payloads are attribute.ts, control.ts and route.ts.
 *
 *     | length 4 | type 2 | flags 2 | sequence 4 | port id 4 | payload | padding to 4 |
 *
 * The length counts the header, not the padding. Source: include/uapi/linux/netlink.h, netlink-api 1.1 to 1.5.
 */
import { align, attributes, NetlinkError, readString, readU32, Writer } from './attribute.ts'

export const NLMSG = { NOOP: 1, ERROR: 2, DONE: 3, OVERRUN: 4, MIN_TYPE: 0x10 } as const

export const NLM_F = {
  REQUEST: 0x1,
  MULTI: 0x2,
  ACK: 0x4,
  ECHO: 0x8,
  DUMP_INTR: 0x10,
  // On a request that reads.
  DUMP: 0x300,
  // On a request that makes something.
  REPLACE: 0x100,
  EXCL: 0x200,
  CREATE: 0x400,
  // On an ACK or error.
  CAPPED: 0x100,
  ACK_TLVS: 0x200,
} as const

const NLMSGERR_ATTR = { MSG: 1, OFFS: 2, MISS_TYPE: 5, MISS_NEST: 6 } as const

/** Bytes before the payload. */
export const NLMSG_HDRLEN = 16
/** Bytes before the attributes of a generic netlink payload. */
export const GENL_HDRLEN = 4

/**
 * Objects of a dump share datagrams of up to this size: what the kernel uses for readers it does not know, as a page
 * is all that many of them bring.
 */
const DUMP_DATAGRAM_BYTES = 3776

export interface Header {
  readonly type: number
  readonly flags: number
  readonly seq: number
  /** Port id of the sender; in answers that of the requester, from the kernel 0 otherwise. */
  readonly pid: number
}

export interface Message extends Header {
  /** The whole message without its padding: a view, as the payload is. */
  readonly bytes: Uint8Array
  readonly payload: Uint8Array
}

const dataView = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** A message around `payload`, padded to 4. */
export function message(header: Header, payload: Uint8Array): Uint8Array {
  const length = NLMSG_HDRLEN + payload.length
  const bytes = new Uint8Array(align(length))
  const view = dataView(bytes)
  view.setUint32(0, length, true)
  view.setUint16(4, header.type, true)
  view.setUint16(6, header.flags, true)
  view.setUint32(8, header.seq, true)
  view.setUint32(12, header.pid, true)
  bytes.set(payload, NLMSG_HDRLEN)
  return bytes
}

/** The length that the message starting at `offset` gives itself; its first four bytes must be there. */
export const messageLength = (bytes: Uint8Array, offset: number): number =>
  dataView(bytes).getUint32(offset, true)

/**
 * The messages of a datagram in order; the last may lack its padding. Throws a NetlinkError at the first length that
 * does not fit, after those before it were yielded.
 */
export function* messages(datagram: Uint8Array): Generator<Message> {
  const view = dataView(datagram)
  let at = 0
  while (at < datagram.length) {
    const room = datagram.length - at
    if (room < NLMSG_HDRLEN) throw new NetlinkError('a message header of 16 bytes expected', at)
    const length = view.getUint32(at, true)
    if (length < NLMSG_HDRLEN || length > room) {
      throw new NetlinkError(`a message length of 16 to ${room} expected, not ${length},`, at)
    }
    yield {
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      seq: view.getUint32(at + 8, true),
      pid: view.getUint32(at + 12, true),
      bytes: datagram.subarray(at, at + length),
      payload: datagram.subarray(at + NLMSG_HDRLEN, at + length),
    }
    at += align(length)
  }
}

/** Header of a generic netlink payload; the attributes follow behind `GENL_HDRLEN`. */
export interface GenericHeader {
  readonly command: number
  readonly version: number
  readonly reserved: number
}

/** `| command 1 | version 1 | 0 2 |` */
export const genericHeader = (command: number, version = 1): Uint8Array =>
  Uint8Array.of(command, version, 0, 0)

export function readGenericHeader(payload: Uint8Array): GenericHeader {
  if (payload.length < GENL_HDRLEN) {
    throw new NetlinkError('a generic netlink header of 4 bytes expected', 0)
  }
  return { command: payload[0]!, version: payload[1]!, reserved: payload[2]! | (payload[3]! << 8) }
}

/** What an answer says about a refused request, beside its errno. */
export interface Complaint {
  /** Positive. */
  readonly errno: number
  readonly text?: string | undefined
  /** Of the offending attribute, from the start of the request. */
  readonly offset?: number | undefined
  /** Type of the attribute that is missing, and the offset of the nest it is missing from. */
  readonly missType?: number | undefined
  readonly missNest?: number | undefined
}

/** What the requester's socket has switched on. */
export interface AnswerOptions {
  readonly extAck: boolean
  readonly capAck: boolean
}

/** Says that `request` succeeded: 36 bytes. */
export function ack(request: Message): Uint8Array {
  const payload = new Uint8Array(4 + NLMSG_HDRLEN)
  payload.set(request.bytes.subarray(0, NLMSG_HDRLEN), 4)
  return message({ ...answerHeader(request), type: NLMSG.ERROR, flags: NLM_F.CAPPED }, payload)
}

/** Says that `request` failed, with a copy of it unless the socket wants none (CAP_ACK), and why (EXT_ACK). */
export function refusal(
  request: Message,
  complaint: Complaint,
  { extAck, capAck }: AnswerOptions,
): Uint8Array {
  const copied = capAck ? NLMSG_HDRLEN : request.bytes.length
  const head = new Uint8Array(4 + align(copied))
  dataView(head).setInt32(0, -complaint.errno, true)
  head.set(request.bytes.subarray(0, copied), 4)
  const { payload, flags } = withComplaint(head, complaint, extAck)
  return message(
    {
      ...answerHeader(request),
      type: NLMSG.ERROR,
      flags: flags | (capAck ? NLM_F.CAPPED : 0),
    },
    payload,
  )
}

/** Ends the answer to a dump; `complaint` where the dump failed. */
function done(request: Message, complaint: Complaint | undefined, extAck: boolean): Uint8Array {
  const status = new Uint8Array(4)
  if (complaint !== undefined) dataView(status).setInt32(0, -complaint.errno, true)
  const { payload, flags } = withComplaint(status, complaint, extAck)
  return message(
    { ...answerHeader(request), type: NLMSG.DONE, flags: NLM_F.MULTI | flags },
    payload,
  )
}

/** The datagrams that answer a dump: objects of message type `type`, then DONE in one of its own. */
export function* dump(
  request: Message,
  type: number,
  payloads: Iterable<Uint8Array>,
  complaint: Complaint | undefined,
  { extAck }: AnswerOptions,
): Generator<Uint8Array> {
  let parts: Uint8Array[] = []
  let length = 0
  for (const payload of payloads) {
    const part = message({ ...answerHeader(request), type, flags: NLM_F.MULTI }, payload)
    if (length > 0 && length + part.length > DUMP_DATAGRAM_BYTES) {
      yield concat(parts)
      parts = []
      length = 0
    }
    parts.push(part)
    length += part.length
  }
  if (length > 0) yield concat(parts)
  yield done(request, complaint, extAck)
}

/** Answers carry the sequence number and port id of the request. */
const answerHeader = ({ seq, pid }: Header) => ({ seq, pid })

function withComplaint(
  head: Uint8Array,
  complaint: Complaint | undefined,
  extAck: boolean,
): { payload: Uint8Array; flags: number } {
  const { text, offset, missType, missNest } = complaint ?? {}
  const writer = new Writer(head)
  if (extAck) {
    if (text !== undefined) writer.string(NLMSGERR_ATTR.MSG, text)
    if (offset !== undefined) writer.u32(NLMSGERR_ATTR.OFFS, offset)
    if (missType !== undefined) writer.u32(NLMSGERR_ATTR.MISS_TYPE, missType)
    if (missNest !== undefined) writer.u32(NLMSGERR_ATTR.MISS_NEST, missNest)
  }
  const payload = writer.finish()
  return { payload, flags: payload.length > head.length ? NLM_F.ACK_TLVS : 0 }
}

/**
 * What an ERROR or DONE message says: errno 0 for success. Throws a NetlinkError where it is too short for what its flags
 * announce; a complaint it does not understand is left out.
 */
export function readAnswer({ type, flags, payload }: Message): Complaint {
  const least = type === NLMSG.ERROR ? 4 + NLMSG_HDRLEN : 4
  if (payload.length < least) {
    throw new NetlinkError(
      `${least} bytes of answer expected, not ${payload.length},`,
      NLMSG_HDRLEN,
    )
  }
  const errno = -dataView(payload).getInt32(0, true) || 0
  if ((flags & NLM_F.ACK_TLVS) === 0) return { errno }
  const copied =
    type === NLMSG.DONE
      ? 0
      : (flags & NLM_F.CAPPED) !== 0
        ? NLMSG_HDRLEN
        : messageLength(payload, 4)
  if (copied > payload.length - 4) {
    throw new NetlinkError(`a copy of ${copied} bytes of request expected`, NLMSG_HDRLEN + 4)
  }
  let text: string | undefined
  let offset: number | undefined
  let missType: number | undefined
  let missNest: number | undefined
  for (const attribute of attributes(payload, 4 + align(copied), NLMSG_HDRLEN)) {
    if (attribute.type === NLMSGERR_ATTR.MSG) text = readString(attribute)
    else if (attribute.type === NLMSGERR_ATTR.OFFS) offset = readU32(attribute)
    else if (attribute.type === NLMSGERR_ATTR.MISS_TYPE) missType = readU32(attribute)
    else if (attribute.type === NLMSGERR_ATTR.MISS_NEST) missNest = readU32(attribute)
  }
  return { errno, text, offset, missType, missNest }
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}
