/** UDP sockets as the control plane wants them (openvpn/transport.ts). */
import type { DatagramTransport, Path } from '../openvpn/transport.ts'
import { type DatagramOptions, Datagrams } from '../platform/datagrams.ts'
import type { Watch } from '../platform/watch.ts'

/** Datagrams taken before others get their turn. */
const TAKE_LIMIT = 256

/** Opens and binds a UDP socket; port 0 for any. @throws OsError EADDRINUSE and the like */
export function openDatagrams(
  watch: Watch,
  address: string,
  port: number,
  options: DatagramOptions = {},
): DatagramTransport {
  const socket = new Datagrams(address, port, options)
  let listener: ((packet: Uint8Array, path: Path) => void) | undefined
  const watched = watch.add(socket.fd, () => {
    // What is left is told of again.
    for (let i = 0; i < TAKE_LIMIT; i++) {
      const got = socket.receive()
      if (got === undefined) return
      const { packet, from, to } = got
      listener?.(packet, to === undefined ? { remote: from } : { remote: from, local: to })
    }
  })
  let closed = false
  return {
    protocol: 'udp',
    fd: socket.fd,
    local: socket.local,
    onPacket(wanted) {
      listener = wanted
    },
    send(packet, { remote, local }) {
      if (!closed) socket.send(packet, remote, local)
    },
    close() {
      if (closed) return
      closed = true
      listener = undefined
      watched.end()
      socket.close()
    },
  }
}
