/**
 * Owns the first word of every OpenVPN packet: opcode, key id and peer id. What follows it is for data.ts (data
 * packets) and the control channel's files.
 *
 *     | opcode 5 bits | key id 3 bits | peer id 24 bits, in P_DATA_V2 only |
 *
 * Source: data-channel reference, 1; control-channel reference, 2; OpenVPN's openvpn-wire-protocol.xml.
 */

/** Opcodes in use. 1 and 2 belong to key method 1 and are rejected; 0 and all above 11 were never given out. */
export const Opcode = {
  SoftResetV1: 3,
  ControlV1: 4,
  AckV1: 5,
  DataV1: 6,
  HardResetClientV2: 7,
  HardResetServerV2: 8,
  DataV2: 9,
  HardResetClientV3: 10,
  ControlWkcV1: 11,
} as const
export type Opcode = (typeof Opcode)[keyof typeof Opcode]

/** "No peer id": the receiver finds the peer by the address the packet came from. Also the largest of 24 bits. */
export const PEER_ID_UNDEF = 0xffffff

/** The first four bytes of a P_DATA_V2 packet as an unsigned number: `keyId` has 3 bits, `peerId` 24. */
export function dataV2Word(keyId: number, peerId: number): number {
  return ((Opcode.DataV2 << 27) | (keyId << 24) | peerId) >>> 0
}

/** Opcode in a packet's first byte: 0..31, so possibly none of `Opcode`. */
export function opcodeOf(firstByte: number): number {
  return firstByte >> 3
}

/** Key id in a packet's first byte: 0..7. */
export function keyIdOf(firstByte: number): number {
  return firstByte & 7
}

/** Peer id in the first word of a P_DATA_V2 packet, taken signed or unsigned. */
export function peerIdOf(word: number): number {
  return word & 0xffffff
}
