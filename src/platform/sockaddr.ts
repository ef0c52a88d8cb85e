/** Socket addresses: text and port to `sockaddr_in` and `sockaddr_in6`, and back. */

import ipaddr from 'ipaddr.js'
import { check } from './error.ts'
import { AF_INET, AF_INET6, SOCKADDR_IN, SOCKADDR_IN6 } from './layout.ts'
import { type Block, blockOf, createBlock } from './memory.ts'
import type { Syscalls } from './syscalls.ts'

const MAX_BYTES = 128 // sockaddr_storage

/** An address and port, and for link-local IPv6 the interface's index (else 0). */
export interface SocketAddress {
  readonly address: string
  readonly port: number
  readonly scope: number
}

export interface EncodedAddress {
  family: typeof AF_INET | typeof AF_INET6
  block: Block
  /** Bytes of it that count. */
  length: number
}

/** @throws Error on what is not an IPv4 or IPv6 address */
export function encodeAddress({ address, port, scope }: SocketAddress): EncodedAddress {
  const bytes = bytesOf(address)
  if (bytes.length === 4) {
    const block = createBlock(SOCKADDR_IN.size)
    block.view.setUint16(SOCKADDR_IN.family, AF_INET, true)
    block.view.setUint16(SOCKADDR_IN.port, port)
    block.u8.set(bytes, SOCKADDR_IN.addr)
    return { family: AF_INET, block, length: SOCKADDR_IN.size }
  }
  const block = createBlock(SOCKADDR_IN6.size)
  block.view.setUint16(SOCKADDR_IN6.family, AF_INET6, true)
  block.view.setUint16(SOCKADDR_IN6.port, port)
  block.u8.set(bytes, SOCKADDR_IN6.addr)
  block.view.setUint32(SOCKADDR_IN6.scopeId, scope, true)
  return { family: AF_INET6, block, length: SOCKADDR_IN6.size }
}

/** IPv4-mapped addresses come out as IPv4. Undefined for other families. */
export function decodeAddress({ u8, view }: Pick<Block, 'u8' | 'view'>): SocketAddress | undefined {
  const family = view.getUint16(SOCKADDR_IN.family, true)
  if (family !== AF_INET && family !== AF_INET6) return undefined
  const port = view.getUint16(SOCKADDR_IN.port)
  const v4 = family === AF_INET
  const at = v4 ? SOCKADDR_IN.addr : SOCKADDR_IN6.addr
  const address = textOf(u8.subarray(at, at + (v4 ? 4 : 16)))
  const scope = v4 ? 0 : view.getUint32(SOCKADDR_IN6.scopeId, true)
  return { address, port, scope }
}

/** Four decimal numbers as they are usually written, without ipaddr.js: each packet of a server has an address. */
const PLAIN_V4 = /^(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])(\.(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])){3}$/

const MAPPED_TEXT = '::ffff:'
const MAPPED_PREFIX = 12

function bytesOf(address: string): Uint8Array {
  const mapped = address.startsWith(MAPPED_TEXT)
  const text = mapped ? address.slice(MAPPED_TEXT.length) : address
  if (!PLAIN_V4.test(text)) return Uint8Array.from(ipaddr.parse(address).toByteArray())
  const at = mapped ? MAPPED_PREFIX : 0
  const bytes = new Uint8Array(at + 4)
  if (mapped) bytes.fill(0xff, MAPPED_PREFIX - 2, MAPPED_PREFIX)
  bytes.set(text.split('.').map(Number), at)
  return bytes
}

/** The text of 4 or 16 bytes; of an IPv4-mapped address that of its last four. */
function textOf(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.')
  const mapped =
    bytes[10] === 0xff && bytes[11] === 0xff && bytes.subarray(0, 10).every((byte) => byte === 0)
  return mapped
    ? bytes.subarray(MAPPED_PREFIX).join('.')
    : ipaddr.fromByteArray([...bytes]).toString()
}

/** What `getsockname` or `getpeername` says of a socket, as it stands. @throws OsError with `attempt` as its text */
export function nameOf(
  os: Syscalls,
  fd: number,
  call: 'getsockname' | 'getpeername',
  attempt: string,
): { block: Block; length: number } {
  const block = createBlock(MAX_BYTES)
  const length = blockOf(new Uint8Array([MAX_BYTES, 0, 0, 0]))
  check(os[call](fd, block.base, length.base), call, attempt)
  return { block, length: length.view.getUint32(0, true) }
}
