/** The driver that a program under `ovpn run` finds: the one that runs already, or one of its own, in the supervisor's process. */
import { type Channel, openUnixChannel, type Protocol } from '../driver/channel.ts'
import type { Program } from '../interpose/supervisor.ts'
import { createDriver } from '../runtime/driver.ts'
import { ApiError } from '../uapi/errno.ts'
import { type Environment, randomWord } from './compose.ts'
import { missingForDriver } from './requirements.ts'

/** `auto`: the one that runs, where there is one that may be used. */
export const DRIVERS = ['auto', 'user', 'own'] as const
export type RunDriverChoice = (typeof DRIVERS)[number]

export interface RunDriverOptions {
  driver: RunDriverChoice
  socket: string
  /** Of its own. */
  workers: number
  mssfix: number
  /** Milliseconds. */
  swapWait: number
}

export interface RunDriver {
  /** Rejects with an ApiError where the driver has ended. */
  openChannel(protocol: Protocol, program: Program): Promise<Channel>
  /** Another thread asks over the channel from now on. */
  usedBy(channel: Channel, tid: number): Promise<void> | void
  /** Removes the program's interfaces. */
  close(): Promise<void>
}

/** Rejects with an Error that says what is missing. */
export async function openRunDriver(
  environment: Environment,
  options: RunDriverOptions,
  note: (text: string) => void,
): Promise<RunDriver> {
  const { driver, socket } = options
  if (driver === 'own') return ownDriver(environment, options, note)
  try {
    const running = await runningDriver(options)
    note(`using the driver at ${socket}`)
    return running
  } catch (error) {
    if (!(error instanceof ApiError) || driver === 'user') throw error
    note(`a driver of its own: ${error.message}`)
    return ownDriver(environment, options, note)
  }
}

function ownDriver(
  environment: Environment,
  options: RunDriverOptions,
  note: (text: string) => void,
): RunDriver {
  const missing = missingForDriver()
  if (missing.length > 0) throw new Error(missing.join('\n  '))
  const log = { error: note, info: note, debug: note }
  const { server, close } = createDriver(log, () => randomWord(environment), {
    workers: options.workers,
  })
  return {
    async openChannel(protocol, program) {
      return withDefaults(server.channel(protocol, program), options)
    },
    usedBy() {}, // it asks the program itself
    close,
  }
}

/** Rejects with an ApiError where there is none, or it may not be used. */
async function runningDriver(options: RunDriverOptions): Promise<RunDriver> {
  // What the program makes ends with the last channel of this process: this one stays open, whatever others do.
  const { socket } = options
  const session = await openUnixChannel(socket, 'generic')
  const openChannel = async (protocol: Protocol, { tid }: Pick<Program, 'tid'>) => {
    const channel = await openUnixChannel(socket, protocol)
    try {
      await channel.setOption('process', tid)
      return await withDefaults(channel, options)
    } catch (error) {
      channel.close()
      throw error
    }
  }
  try {
    // One of another version may not know how to act for others.
    const tried = await openChannel('generic', { tid: process.pid })
    tried.close()
  } catch (error) {
    session.close()
    throw error
  }
  return {
    openChannel,
    usedBy: (channel, tid) => channel.setOption('process', tid),
    async close() {
      session.close()
    },
  }
}

/** What the peers have that the program adds, since no program of the kernel's knows of it. */
async function withDefaults(
  channel: Channel,
  { mssfix, swapWait }: RunDriverOptions,
): Promise<Channel> {
  await channel.setOption('mssfix', mssfix)
  await channel.setOption('swap-wait-ms', swapWait)
  return channel
}
