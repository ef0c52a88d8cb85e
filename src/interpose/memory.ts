/**
 * What calls on netlink sockets point to in the memory of a program: messages in pieces, and addresses. Each is copied once.
 * Which calls and what becomes of them is supervisor.ts's.
 */
import { OsError } from '../platform/error.ts'
import { E, IOVEC, MSGHDR, SOCKADDR_NL } from '../platform/layout.ts'
import { readMemory, writeMemory } from '../platform/seccomp.ts'

const AF_NETLINK = 16
const MSG_TRUNC = 0x20
const ECONNREFUSED = 111
export const MAX_SEND_BYTES = 1 << 20
const MAX_PIECES = 1024

/** Messages go to the kernel; that of another program is not to be reached. @throws OsError */
export function checkReceiver(tid: number, address: number, length: number): void {
  if (address === 0 || length === 0) return
  if (length < SOCKADDR_NL.size) throw new OsError(E.EINVAL, 'sendto', 'no address')
  const name = readMemory(tid, address, SOCKADDR_NL.size)
  const view = new DataView(name.buffer, name.byteOffset)
  if (view.getUint16(SOCKADDR_NL.family, true) !== AF_NETLINK) {
    throw new OsError(E.EINVAL, 'sendto', 'not an address of netlink')
  }
  if (view.getUint32(SOCKADDR_NL.pid, true) !== 0) {
    throw new OsError(ECONNREFUSED, 'sendto', 'not to the kernel')
  }
}

/** What a `msghdr` of the program wants sent. @throws OsError */
export function gather(tid: number, address: number): Uint8Array {
  const header = headerAt(tid, address)
  const name = Number(header.getBigUint64(MSGHDR.name, true))
  checkReceiver(tid, name, header.getInt32(MSGHDR.namelen, true))
  return gatherPieces(tid, piecesOf(tid, header))
}

/** Bytes of the program that lie in pieces. */
export interface Piece {
  readonly base: number
  readonly length: number
}

/** What lies in the pieces, as one datagram. @throws OsError */
export function gatherPieces(tid: number, pieces: readonly Piece[]): Uint8Array {
  const total = pieces.reduce((sum, { length }) => sum + length, 0)
  if (total > MAX_SEND_BYTES) throw new OsError(E.EMSGSIZE, 'sendmsg', 'too long')
  const bytes = new Uint8Array(total)
  let at = 0
  for (const { base, length } of pieces) {
    bytes.set(readMemory(tid, base, length), at)
    at += length
  }
  return bytes
}

/** Writes a datagram and its sender where a `msghdr` of the program says; returns the room that was there. @throws OsError */
export function scatter(tid: number, address: number, bytes: Uint8Array, from: Uint8Array): number {
  const view = headerAt(tid, address)
  const name = Number(view.getBigUint64(MSGHDR.name, true))
  const room = scatterPieces(tid, piecesOf(tid, view), bytes)
  if (name !== 0) {
    const nameRoom = view.getInt32(MSGHDR.namelen, true)
    writeMemory(tid, name, from.subarray(0, Math.max(nameRoom, 0)))
  }
  writeMemory(tid, address + MSGHDR.namelen, word(name === 0 ? 0 : from.length))
  writeMemory(tid, address + MSGHDR.controllen, new Uint8Array(8))
  writeMemory(tid, address + MSGHDR.flags, word(bytes.length > room ? MSG_TRUNC : 0))
  return room
}

/** Writes a datagram into the pieces, as far as it goes; returns the room that was there. @throws OsError */
export function scatterPieces(tid: number, pieces: readonly Piece[], bytes: Uint8Array): number {
  let room = 0
  for (const { base, length } of pieces) {
    if (room < bytes.length) writeMemory(tid, base, bytes.subarray(room, room + length))
    room += length
  }
  return room
}

/** The `iovec`s that readv() and writev() are given. @throws OsError */
export function vectorAt(tid: number, at: number, count: number): Piece[] {
  if (count < 0 || count > MAX_PIECES) throw new OsError(E.EINVAL, 'readv', 'too many pieces')
  return piecesAt(tid, at, count)
}

function headerAt(tid: number, address: number): DataView {
  const header = readMemory(tid, address, MSGHDR.size)
  return new DataView(header.buffer, header.byteOffset, MSGHDR.size)
}

function piecesOf(tid: number, header: DataView): Piece[] {
  const at = Number(header.getBigUint64(MSGHDR.iov, true))
  const count = Number(header.getBigUint64(MSGHDR.iovlen, true))
  if (count > MAX_PIECES) throw new OsError(E.EMSGSIZE, 'sendmsg', 'too many pieces')
  return piecesAt(tid, at, count)
}

function piecesAt(tid: number, at: number, count: number): Piece[] {
  const pieces = readMemory(tid, at, count * IOVEC.size)
  const found = new DataView(pieces.buffer, pieces.byteOffset, pieces.length)
  return Array.from({ length: count }, (_, i) => ({
    base: Number(found.getBigUint64(i * IOVEC.size + IOVEC.base, true)),
    length: Number(found.getBigUint64(i * IOVEC.size + IOVEC.len, true)),
  }))
}

/** As getsockname() gives an address: cut to the room there is, with its whole length. */
export function writeAddress(
  tid: number,
  name: Uint8Array,
  address: number,
  lengthAt: number,
): number {
  const given = readMemory(tid, lengthAt, 4)
  const room = new DataView(given.buffer, given.byteOffset).getInt32(0, true)
  if (room < 0) return -E.EINVAL
  writeMemory(tid, address, name.subarray(0, room))
  writeMemory(tid, lengthAt, word(name.length))
  return 0
}

export function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value, true)
  return bytes
}
