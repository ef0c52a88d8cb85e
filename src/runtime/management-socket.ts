/** The sockets of the management interface: a TCP port or a unix socket. What is said on them is openvpn/management/'s. */
import { chmodSync, chownSync, lstatSync, unlinkSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import type { Management } from '../openvpn/management/management.ts'

export type ManagementPlace =
  | { readonly path: string; readonly uid?: number; readonly gid?: number }
  | { readonly address: string; readonly port: number }

/**
 * Serves at a place, one connection at a time as OpenVPN does: who comes while another is there waits until that has ended.
 * Rejects with an Error that names the place.
 *
 * @param ended is called when one that was served has gone
 */
export async function serveManagement(
  management: Management,
  place: ManagementPlace,
  ended: () => void = () => {},
): Promise<{ readonly port: number | undefined; close(): void }> {
  const waiting: Socket[] = []
  let present: Socket | undefined
  let closing = false
  const next = () => {
    present = undefined
    const socket = waiting.shift()
    if (socket !== undefined) serve(socket)
  }
  const serve = (socket: Socket) => {
    present = socket
    const connection = attach(management, socket)
    socket.on('close', () => {
      connection?.closed()
      if (!closing) ended()
      next()
    })
  }
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy())
    if (present === undefined) {
      serve(socket)
      return
    }
    waiting.push(socket)
    socket.on('close', () => {
      const at = waiting.indexOf(socket)
      if (at >= 0) waiting.splice(at, 1)
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      reject(
        new Error(`cannot serve the management interface at ${textOf(place)}: ${error.message}`),
      )
    })
    if ('path' in place) {
      removeStale(place.path)
      server.listen(place.path, resolve)
    } else {
      server.listen(place.port, place.address, resolve)
    }
  })
  if ('path' in place) {
    const { path, uid, gid } = place
    if (uid !== undefined || gid !== undefined) {
      chownSync(path, uid ?? -1, gid ?? -1)
      chmodSync(path, 0o770)
    }
  }
  const bound = server.address()
  return {
    port: typeof bound === 'object' ? bound?.port : undefined,
    close() {
      closing = true
      server.close()
      management.close()
      for (const socket of waiting) socket.destroy()
      present?.end()
    },
  }
}

/** The other way round (`management-client`): connects to a program that waits for this one. */
export async function connectManagement(
  management: Management,
  place: ManagementPlace,
  ended: () => void = () => {},
): Promise<{ close(): void }> {
  const socket =
    'path' in place ? connect(place.path) : connect({ host: place.address, port: place.port })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', (error) => {
      reject(new Error(`cannot reach the management client at ${textOf(place)}: ${error.message}`))
    })
  })
  socket.on('error', () => socket.destroy())
  const connection = attach(management, socket)
  let closing = false
  socket.on('close', () => {
    connection?.closed()
    if (!closing) ended()
  })
  return {
    close() {
      closing = true
      socket.end()
    },
  }
}

function attach(management: Management, socket: Socket) {
  socket.setEncoding('utf8')
  const connection = management.connect(
    (text) => socket.write(text),
    () => socket.end(),
  )
  if (connection === undefined) socket.end()
  else socket.on('data', (text) => connection.receive(String(text)))
  return connection
}

/** A socket that its owner left behind; another kind of file is not touched, and listening there fails. */
function removeStale(path: string): void {
  try {
    if (lstatSync(path).isSocket()) unlinkSync(path)
  } catch {
    // There is none, or it may not be removed: then listening says so.
  }
}

function textOf(place: ManagementPlace): string {
  return 'path' in place ? place.path : `${place.address} port ${place.port}`
}
