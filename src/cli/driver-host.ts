/**
 * The driver as a process: the unix socket it listens on, and who may connect. Devices are src/driver/worker/host.ts's,
 * messages src/driver/server.ts's.
 */
import { chmodSync, chownSync, mkdirSync, statSync, unlinkSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { DriverLog, LocalDriver } from '../runtime/driver.ts'
import { originOfConnection } from '../runtime/origin.ts'
import { groupId } from '../runtime/users.ts'
import { CliError } from './errors.ts'

export interface ListenOptions {
  socket: string
  /** Permission bits of the socket. */
  mode: number
  group: string | undefined
}

/**
 * Lets programs connect to `driver`. The path of a driver that has ended without cleaning up is taken over.
 *
 * @throws CliError where a driver listens there already, and where the path cannot be used
 */
export async function listen(
  driver: LocalDriver,
  options: ListenOptions,
  log: DriverLog,
): Promise<{ stop(): Promise<void> }> {
  const { socket: path, mode, group } = options
  const gid = group === undefined ? undefined : groupId(group)
  makeFolder(path)
  await takeOver(path)
  const connections = new Set<Socket>()
  const server = createServer((connection) => {
    connections.add(connection)
    connection.on('close', () => connections.delete(connection))
    accept(driver, connection, log)
  })
  await open(server, path)
  const own = statSync(path).ino
  if (gid !== undefined) chownSync(path, -1, gid)
  // Nobody but the owner could connect until here.
  chmodSync(path, mode)
  return {
    async stop() {
      // What was told last is still to be read: connections end, they are not cut.
      for (const connection of connections) connection.end()
      server.close()
      if (inode(path) === own) unlinkSync(path)
    },
  }
}

function accept(driver: LocalDriver, connection: Socket, log: DriverLog): void {
  const fd = descriptorOf(connection)
  try {
    const origin = originOfConnection(fd)
    log.debug(`${origin.text} connected`)
    connection.on('close', () => {
      log.debug(`${origin.text} disconnected`)
      origin[Symbol.dispose]()
    })
    driver.server.accept(connection, origin)
  } catch (error) {
    log.error(`a connection was refused: ${(error as Error).message}`)
    connection.destroy()
  }
}

/** Bun keeps it where Node does; neither documents it. */
function descriptorOf(connection: Socket): number {
  const { _handle: handle } = connection as unknown as { _handle?: { fd?: number } }
  if (typeof handle?.fd !== 'number') throw new Error('a connection has no descriptor')
  return handle.fd
}

function makeFolder(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
  } catch (error) {
    throw new CliError(`cannot make the folder of ${path}: ${(error as Error).message}`)
  }
}

/** Removes a socket that nobody listens on any more. */
async function takeOver(path: string): Promise<void> {
  let isSocket: boolean
  try {
    isSocket = statSync(path).isSocket()
  } catch {
    return
  }
  if (!isSocket) throw new CliError(`cannot listen on ${path}: there is a file that is no socket`)
  if (await isAlive(path)) {
    throw new CliError(
      `cannot listen on ${path}: address already in use (EADDRINUSE): a driver is running there; ` +
        "stop it first, or choose another path with '--socket'",
    )
  }
  unlinkSync(path)
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path)
    probe.on('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.on('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
  })
}

function open(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      reject(new CliError(`cannot listen on ${path}: ${error.message}`))
    })
    const before = process.umask(0o177)
    server.listen(path, resolve)
    process.umask(before)
  })
}

function inode(path: string): number | undefined {
  try {
    return statSync(path).ino
  } catch {
    return undefined
  }
}
