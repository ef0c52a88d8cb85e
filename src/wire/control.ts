/**
 * Owns the layout of control packets as they are without a wrap, and of what a server's reset may carry. Wraps are
 * wrap.ts's; order, acknowledgement and meaning the session's.
 *
 *     | opcode, key id 1 | session id 8 | n 1 | acknowledged message ids 4 * n | peer's session id 8 | message id 4 | payload |
 *
 * The peer's session id is there only with n > 0, the message id in all but P_ACK_V1. All integers are big-endian.
 * Source: OpenVPN's openvpn-wire-protocol.xml, "Control channel packet format"; docs/PROTOCOL.md, "Control packets".
 */
import { keyIdOf, Opcode, opcodeOf } from './opcode.ts'

export const SESSION_ID_BYTES = 8
/** Opcode, key id and session id: what no wrap hides. */
export const CONTROL_HEADER_BYTES = 1 + SESSION_ID_BYTES
/** Acknowledgements that fit a packet. */
const MAX_ACKS = 8

const MESSAGE_ID_BYTES = 4
/** Header and a count of acknowledgements. */
const MIN_PACKET_BYTES = CONTROL_HEADER_BYTES + 1

/** Opcodes of the control channel. */
export type ControlOpcode = Exclude<Opcode, typeof Opcode.DataV1 | typeof Opcode.DataV2>

export interface ControlPacket {
  opcode: ControlOpcode
  /** 0..7 */
  keyId: number
  /** Of who sends it: 8 bytes, not all 0. */
  sessionId: Uint8Array
  /** Message ids that the sender has received: up to 8. */
  acks: readonly number[]
  /** Of whom it is sent to, 8 bytes; present with acks, and only then. */
  peerSessionId?: Uint8Array
  /** Absent in P_ACK_V1, and only there. */
  messageId?: number
  payload: Uint8Array
}

/** Bytes of `packet` without its payload. */
export function controlHeaderBytes(packet: Pick<ControlPacket, 'opcode' | 'acks'>): number {
  const acks = packet.acks.length
  return (
    MIN_PACKET_BYTES +
    (acks > 0 ? 4 * acks + SESSION_ID_BYTES : 0) +
    (packet.opcode === Opcode.AckV1 ? 0 : MESSAGE_ID_BYTES)
  )
}

/**
 * The bytes of `packet`, in new memory; `gap` bytes are left free behind its session id, and `after` at its end.
 *
 * @throws RangeError for a packet that is none: that is our own mistake
 */
export function encodeControl(packet: ControlPacket, gap = 0, after = 0): Uint8Array {
  const { opcode, keyId, sessionId, acks, peerSessionId, messageId, payload } = packet
  if (sessionId.length !== SESSION_ID_BYTES) throw new RangeError('a session id has 8 bytes')
  if (acks.length > MAX_ACKS) throw new RangeError(`${acks.length} acknowledgements`)
  if (acks.length > 0 && peerSessionId?.length !== SESSION_ID_BYTES) {
    throw new RangeError("acknowledgements want the peer's session id")
  }
  if ((messageId === undefined) !== (opcode === Opcode.AckV1)) {
    throw new RangeError('all packets but P_ACK_V1 have a message id')
  }
  const header = controlHeaderBytes(packet)
  const bytes = new Uint8Array(gap + header + payload.length + after)
  const view = new DataView(bytes.buffer)
  bytes[0] = (opcode << 3) | keyId
  bytes.set(sessionId, 1)
  bytes[gap + CONTROL_HEADER_BYTES] = acks.length
  let at = gap + MIN_PACKET_BYTES
  for (const id of acks) {
    view.setUint32(at, id)
    at += 4
  }
  if (acks.length > 0) bytes.set(peerSessionId!, at)
  if (messageId !== undefined) view.setUint32(gap + header - MESSAGE_ID_BYTES, messageId)
  bytes.set(payload, gap + header)
  return bytes
}

/**
 * Reads a packet of unknown origin. Session ids and payload are views of `bytes`.
 *
 * @returns undefined for what is none: too short, an opcode of the data channel or of nobody, too many
 *   acknowledgements, a session id of nothing but 0
 */
export function decodeControl(bytes: Uint8Array): ControlPacket | undefined {
  if (bytes.length < MIN_PACKET_BYTES) return undefined
  const opcode = opcodeOf(bytes[0]!)
  if (!isControlOpcode(opcode)) return undefined
  const sessionId = bytes.subarray(1, CONTROL_HEADER_BYTES)
  if (isZero(sessionId)) return undefined
  const count = bytes[CONTROL_HEADER_BYTES]!
  if (count > MAX_ACKS) return undefined
  const acks: number[] = []
  const packet: ControlPacket = {
    opcode,
    keyId: keyIdOf(bytes[0]!),
    sessionId,
    acks,
    payload: bytes.subarray(bytes.length),
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const header = MIN_PACKET_BYTES + (count > 0 ? 4 * count + SESSION_ID_BYTES : 0)
  const isAck = opcode === Opcode.AckV1
  const start = isAck ? header : header + MESSAGE_ID_BYTES
  if (bytes.length < start) return undefined
  for (let i = 0; i < count; i++) acks.push(view.getUint32(MIN_PACKET_BYTES + 4 * i))
  if (count > 0) packet.peerSessionId = bytes.subarray(header - SESSION_ID_BYTES, header)
  if (!isAck) packet.messageId = view.getUint32(header)
  packet.payload = bytes.subarray(start)
  return packet
}

function isZero(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0) return false
  return true
}

/** Whether `opcode`, any number, is one of the control channel's. */
export function isControlOpcode(opcode: number): opcode is ControlOpcode {
  return (
    (opcode >= Opcode.SoftResetV1 && opcode <= Opcode.AckV1) ||
    opcode === Opcode.HardResetClientV2 ||
    opcode === Opcode.HardResetServerV2 ||
    opcode === Opcode.HardResetClientV3 ||
    opcode === Opcode.ControlWkcV1
  )
}

const TLV_HEADER_BYTES = 4
const EARLY_NEGOTIATION_FLAGS = 1
const RESEND_WKC = 1

/**
 * What the payload of a server's reset says, as a list of | type 2 | length 2 | value |: so far only whether the client
 * shall send its wrapped key again. Types that nobody knows are skipped, and what is cut short ends the list.
 */
export function decodeResetOptions(payload: Uint8Array): { resendWkc: boolean } {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength)
  let resendWkc = false
  for (let at = 0; at + TLV_HEADER_BYTES <= payload.length; ) {
    const length = view.getUint16(at + 2)
    const value = at + TLV_HEADER_BYTES
    if (value + length > payload.length) break
    if (view.getUint16(at) === EARLY_NEGOTIATION_FLAGS && length >= 2) {
      resendWkc = (view.getUint16(value) & RESEND_WKC) !== 0
    }
    at = value + length
  }
  return { resendWkc }
}

/** The payload of a server's reset that asks the client for its wrapped key again. */
export function encodeResendWkc(): Uint8Array {
  return Uint8Array.of(0, EARLY_NEGOTIATION_FLAGS, 0, 2, 0, RESEND_WKC)
}
