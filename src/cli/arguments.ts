/**
 * Text of the command line → values, or an error that says what was expected. Pure. What the values mean together is the
 * commands' and the driver's to check.
 */
import { InvalidArgumentError } from 'commander'
import { formatAddress, parseAddress } from '../netlink/route.ts'
import { KEEPALIVE_MAX, MSSFIX_MAX, NAME_MAX, PEER_ID_MAX, SWAP_WAIT_MAX } from '../uapi/spec.ts'
import type { Cipher } from '../uapi/types.ts'

/** An address and a port. `zone`: the interface (name or index) of a link-local address. */
export interface HostPort {
  address: string
  zone?: string
  port: number
}

function expected(what: string): InvalidArgumentError {
  return new InvalidArgumentError(`${what} expected.`)
}

function integer(text: string, min: number, max: number, what: string): number {
  const value = /^(0|[1-9]\d{0,9})$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= min && value <= max)) throw expected(`${what} from ${min} to ${max}`)
  return value
}

export function peerId(text: string): number {
  return integer(text, 0, PEER_ID_MAX, 'A peer id')
}

export function keyId(text: string): number {
  return integer(text, 0, 7, 'A key id')
}

export function mtu(text: string): number {
  return integer(text, 68, 65_535, 'An MTU in bytes')
}

/** Bytes of a packet outside, that TCP inside is to fit. */
export function mssfix(text: string): number {
  return integer(text, 0, MSSFIX_MAX, 'A number of bytes')
}

/** How long a swap of keys may take. */
export function swapWait(text: string): number {
  return integer(text, 0, SWAP_WAIT_MAX, 'A number of milliseconds')
}

/** Threads of a device. */
export function workers(text: string): number {
  return integer(text, 1, 64, 'A number of threads')
}

export function port(text: string): number {
  return integer(text, 1, 65_535, 'A port')
}

/** A device: its name, or its index as a number. */
export function device(text: string): string {
  if (text === '' || Buffer.byteLength(text) > NAME_MAX || /[\s/]/.test(text)) {
    throw expected(`The name (1 to ${NAME_MAX} bytes, no space or slash) or index of an interface`)
  }
  return text
}

/** The name of a new device: not one that could be taken for an index. */
export function newDevice(text: string): string {
  if (/^\d+$/.test(text) || text === '.' || text === '..') {
    throw expected('A name that is not a number and no path')
  }
  return device(text)
}

/** An IPv4 or IPv6 address, in its canonical text. */
export function address(text: string): string {
  try {
    return formatAddress(parseAddress(text))
  } catch {
    throw expected('An IPv4 or IPv6 address')
  }
}

/** `commander` hands the values so far to an option that may be given again. */
export function addresses(text: string, soFar: string[] | undefined): string[] {
  return [...(soFar ?? []), address(text)]
}

/** `192.0.2.1:1194`, `[2001:db8::1]:1194`, `[fe80::1%eth0]:1194`. */
export function hostPort(text: string): HostPort {
  const match = /^\[([^\]%]*)(?:%([^\]]+))?\]:(\d+)$|^([^:[\]]+):(\d+)$/.exec(text)
  if (match === null) throw expected('ADDRESS:PORT, or [IPV6]:PORT,')
  const [, v6, zone, v6Port, v4, v4Port] = match
  const value = {
    address: address(v6 ?? v4 ?? ''),
    port: port(v6Port ?? v4Port ?? ''),
  }
  if ((v6 !== undefined) !== value.address.includes(':')) {
    throw expected('An IPv4 address, or an IPv6 address in brackets,')
  }
  return zone === undefined ? value : { ...value, zone }
}

/** As `hostPort`, or the port alone: then of every IPv4 address. `0.0.0.0` and `::` are every address too. */
export function listenAt(text: string): HostPort {
  if (/^:?\d+$/.test(text)) return { address: '0.0.0.0', port: port(text.replace(':', '')) }
  return hostPort(text)
}

/** Seconds of silence before a ping, and before the peer is given up: `10,60`; `0` or `off` for neither. */
export function keepalive(text: string): { interval: number; timeout: number } {
  if (text === 'off' || text === '0') return { interval: 0, timeout: 0 }
  const [interval, timeout, more] = text.split(',')
  if (interval === undefined || timeout === undefined || more !== undefined) {
    throw expected("INTERVAL,TIMEOUT in seconds, or 'off',")
  }
  return {
    interval: integer(interval, 0, KEEPALIVE_MAX, 'An interval in seconds'),
    timeout: integer(timeout, 0, KEEPALIVE_MAX, 'A timeout in seconds'),
  }
}

/** A descriptor of this process, or `PID:FD`, one of another process. */
export function descriptor(text: string): { pid?: number; fd: number } {
  const parts = text.split(':')
  const fd = parts.at(-1) ?? ''
  if (parts.length > 2) throw expected('A descriptor, or PID:DESCRIPTOR,')
  const number = integer(fd, 0, 0x7fffffff, 'A descriptor')
  if (parts.length === 1) return { fd: number }
  return { pid: integer(parts[0]!, 1, 0x7fffffff, 'A process id'), fd: number }
}

/** Permission bits, in octal. */
export function fileMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) throw expected('Three octal digits, such as 0660,')
  return Number.parseInt(text, 8)
}

export function direction(text: string): 0 | 1 {
  return integer(text, 0, 1, 'A direction') as 0 | 1
}

/** A cipher by OpenVPN's name: what the API calls it, and the bytes of its key. */
export interface CipherChoice {
  alg: Cipher
  keyBytes: 16 | 24 | 32
}

const CIPHERS = new Map<string, CipherChoice>([
  ['aes-128-gcm', { alg: 'aes-gcm', keyBytes: 16 }],
  ['aes-192-gcm', { alg: 'aes-gcm', keyBytes: 24 }],
  ['aes-256-gcm', { alg: 'aes-gcm', keyBytes: 32 }],
  ['aes-gcm', { alg: 'aes-gcm', keyBytes: 32 }],
  ['chacha20-poly1305', { alg: 'chacha20-poly1305', keyBytes: 32 }],
])

export function cipher(text: string): CipherChoice {
  const choice = CIPHERS.get(text.toLowerCase())
  if (choice === undefined) throw expected(`One of ${[...CIPHERS.keys()].join(', ')}`)
  return choice
}
