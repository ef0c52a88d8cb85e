/**
 * The transport socket of a peer that the command line adds: opened as the options say, inherited, or taken from another
 * process; and the control packets that arrive on it, which the driver leaves to its owner.
 */
import { networkInterfaces } from 'node:os'
import { openProcess, takeFd } from '../platform/fds.ts'
import { IOVEC, MSG_DONTWAIT, MSGHDR } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'
import { decodeAddress, nameOf, type SocketAddress } from '../platform/sockaddr.ts'
import { connectTcp, listenTcp } from '../platform/tcp.ts'
import { inspectSocket, openUdp } from '../platform/udp.ts'
import type { HostPort } from './arguments.ts'
import { attempt, CliError, EXIT } from './errors.ts'
import { formatEndpoint } from './format.ts'

export interface TransportOptions {
  udpListen?: HostPort
  tcpConnect?: HostPort
  tcpListen?: HostPort
  fd?: { pid?: number; fd: number }
}

export interface Transport {
  readonly fd: number
  readonly stream: boolean
  /** Nobody else owns the socket: a peer over it goes when this process ends. */
  readonly own: boolean
  /** For the user: `UDP 0.0.0.0:1194`. */
  readonly text: string
  /** Calls back with what arrives that is no data packet; `from` where the socket tells. */
  onControl(listener: (packet: Uint8Array, from: string | undefined) => void): void
  close(): void
}

/** Longest wait for a connection before others get their turn, in ms. */
const ACCEPT_MS = 100
/** How often control packets are looked for, in ms: they are few, and soon enough to a person. */
const LOOK_MS = 50
const PACKET_BYTES = 65_536

/** Opens what one of the options names. Throws a CliError where that cannot be had. */
export async function openTransport(options: TransportOptions): Promise<Transport> {
  const { udpListen, tcpConnect, tcpListen, fd } = options
  if (udpListen !== undefined) {
    const at = plain(udpListen)
    return attempt(`cannot open a UDP socket at ${at}`, () => {
      const { address, port } = udpListen
      return transportOf(openUdp(address, port).fd, { own: true, stream: false, text: `UDP ${at}` })
    })
  }
  if (tcpConnect !== undefined) {
    const to = plain(tcpConnect)
    return attempt(`cannot connect to ${to}`, () => {
      const { address, port } = tcpConnect
      return transportOf(connectTcp(address, port), {
        own: true,
        stream: true,
        text: `TCP to ${to}`,
      })
    })
  }
  if (tcpListen !== undefined) {
    const at = plain(tcpListen)
    return attempt(`cannot accept a connection at ${at}`, async () => {
      const stream = await acceptOne(tcpListen)
      return transportOf(stream, { own: true, stream: true, text: `TCP from ${remoteOf(stream)}` })
    })
  }
  return attempt('cannot use the descriptor', () => {
    const { pid, fd: number } = fd!
    const own = pid === undefined ? number : takeFromProcess(pid, number)
    const { protocol } = inspectSocket(own)
    const text = `${protocol.toUpperCase()} socket ${pid === undefined ? '' : `${pid}:`}${number}`
    return transportOf(own, { own: false, stream: protocol === 'tcp', text })
  })
}

/** The address as text; a zone has no place there. */
function plain({ address, zone, port }: HostPort): string {
  if (zone !== undefined) {
    throw new CliError(
      'expected an address without a zone: link-local sockets go by --fd',
      EXIT.usage,
    )
  }
  return formatEndpoint(address, port)
}

/** Index of an interface in this namespace, given as index or by name. */
export function zoneIndex(zone: string): number {
  if (/^\d+$/.test(zone)) return Number(zone)
  for (const address of networkInterfaces()[zone] ?? []) {
    if (address.family === 'IPv6' && address.scopeid !== 0) return address.scopeid ?? 0
  }
  throw new CliError(`no interface '${zone}' with a link-local address here`)
}

async function acceptOne({ address, port }: HostPort): Promise<number> {
  const listener = listenTcp(address, port)
  try {
    for (;;) {
      const stream = listener.accept(ACCEPT_MS)
      if (stream !== undefined) return stream
      await new Promise((resolve) => setImmediate(resolve))
    }
  } finally {
    listener.close()
  }
}

function takeFromProcess(pid: number, fd: number): number {
  const pidfd = openProcess(pid)
  try {
    return takeFd(pidfd, fd)
  } finally {
    openLibc().close(pidfd)
  }
}

function remoteOf(fd: number): string {
  const { block } = nameOf(openLibc(), fd, 'getpeername', 'cannot tell the other end')
  return endpointText(decodeAddress(block)) ?? 'nowhere'
}

function endpointText(at: SocketAddress | undefined): string | undefined {
  return at && formatEndpoint(at.address, at.port, at.scope)
}

function transportOf(fd: number, facts: Pick<Transport, 'own' | 'stream' | 'text'>): Transport {
  const os = openLibc()
  let timer: NodeJS.Timeout | undefined
  return {
    fd,
    ...facts,
    onControl(listener) {
      const receive = createReceiver(fd)
      timer = setInterval(() => {
        for (let got = receive(); got !== undefined; got = receive()) {
          listener(got.packet, endpointText(got.from))
        }
      }, LOOK_MS)
    },
    close() {
      clearInterval(timer)
      os.close(fd)
    },
  }
}

/** Reads a socket, one packet a call; undefined when there is none, or the socket has failed. */
function createReceiver(
  fd: number,
): () => { packet: Uint8Array; from: SocketAddress | undefined } | undefined {
  const os = openLibc()
  const name = createBlock(128)
  const data = createBlock(PACKET_BYTES)
  const iov = createBlock(IOVEC.size)
  const header = createBlock(MSGHDR.size)
  iov.view.setBigUint64(IOVEC.base, BigInt(data.base), true)
  iov.view.setBigUint64(IOVEC.len, BigInt(PACKET_BYTES), true)
  return () => {
    header.view.setBigUint64(MSGHDR.name, BigInt(name.base), true)
    header.view.setUint32(MSGHDR.namelen, name.u8.length, true)
    header.view.setBigUint64(MSGHDR.iov, BigInt(iov.base), true)
    header.view.setBigUint64(MSGHDR.iovlen, 1n, true)
    const length = os.recvmsg(fd, header.base, MSG_DONTWAIT)
    if (length <= 0) return undefined
    const known = header.view.getUint32(MSGHDR.namelen, true) > 0
    return { packet: data.u8.slice(0, length), from: known ? decodeAddress(name) : undefined }
  }
}
