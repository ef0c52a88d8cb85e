/**
 * A client from its profile, with all that the profile asks for beside it: the management interface, a file of its status, the password of its
 * key. What the client does is src/openvpn/client's.
 */
import type { DriverClient } from '../driver/client.ts'
import type { ClientEvents, Verdict } from '../openvpn/client/client.ts'
import type { Ask } from '../openvpn/client/credentials.ts'
import { ManagedClient, statisticsOf } from '../openvpn/client/managed.ts'
import type { ClientConfig } from '../openvpn/config/client-config.ts'
import { flagOf, LEVEL, type Log, type Tell } from '../openvpn/log.ts'
import { createRunningClient, type RunningClient } from './client.ts'
import { realClock } from './clock.ts'
import { type EndSignal, openManagement, type ServerSignal } from './configured-server.ts'
import { openKeptFile } from './kept-file.ts'
import { KEY_REFUSED, type KeyQuestion, withKeyPassword } from './key-password.ts'
import { Stopped, unlessStopped } from './stopped.ts'
import { VERSION } from './version.ts'

export interface ConfiguredClientOptions {
  /** The user, where who manages is not asked. */
  readonly ask: Ask
  readonly workers?: number | undefined
  readonly resolvConf?: string | undefined
  /** `verb` and `mute` may be changed: by the server, or at the management interface. */
  readonly log: Log
  readonly events: ClientEvents
  readonly failed: (error: unknown) => void
  /** Somebody asks for it at the management interface. */
  readonly signal: (name: ServerSignal) => void
  /** Ends the waiting for who manages, and for the password of the key. */
  readonly stopping: AbortSignal
}

export interface ConfiguredClient {
  /** Until the end of all; everything is taken back then. */
  run(): Promise<Verdict>
  /** `why`: the signal, for scripts. */
  stop(why: EndSignal): void
  restart(): void
  /** Lines for the log (SIGUSR2). */
  statusText(): Promise<string[]>
}

/**
 * Nothing is sent before `run`. Rejects with what is wrong with keys and certificates, or what the system refuses; with Stopped where it was
 * called off.
 */
export async function openConfiguredClient(
  driver: DriverClient,
  config: ClientConfig,
  options: ConfiguredClientOptions,
): Promise<ConfiguredClient> {
  const { workers, resolvConf, failed, signal, log, stopping } = options
  let running: RunningClient | undefined
  const managed = config.management && createManaged()
  const endLog = log.also((text, level) => managed?.management.log(text, flagOf(level)))
  const ask: Ask = (question) =>
    managed !== undefined && config.management?.queryPasswords === true
      ? managed.ask(question)
      : options.ask(question)
  const events = both(options.events, managed?.events)

  function createManaged(): ManagedClient {
    const { password, logCache, hold } = config.management!
    return new ManagedClient(
      {
        title: `ovpn ${VERSION}`,
        pid: process.pid,
        config,
        client: () => running?.client,
        date: realClock.date,
        signal,
        log,
      },
      {
        ...(typeof password === 'object' && { password: password.password }),
        ...{ logCache, hold, now: realClock.date, every },
      },
    )
  }

  const create = (passphrase?: string) =>
    createRunningClient(
      driver,
      config,
      {
        ask,
        version: VERSION,
        passphrase,
        workers,
        resolvConf,
        advisor: managed,
        log: log.write,
        failed,
      },
      {
        ...events,
        connected(connection) {
          const { verb, mute } = connection.pushed
          log.verbosity = verb ?? log.verbosity
          log.mute = mute ?? log.mute
          events.connected(connection)
        },
      },
    )

  const door =
    managed &&
    (await openManagement(managed.management, config.management!, () => {
      if (config.management?.forgetDisconnect === true) running?.client.forgetPasswords()
      if (config.management?.signal === true) signal('SIGUSR1')
    }))
  const question: KeyQuestion = {
    async ask() {
      const asked = ask({ kind: 'passphrase', what: 'Private Key' })
      return (await unlessStopped(stopping, asked)).text
    },
    refused: () => managed?.management.notify(KEY_REFUSED),
    again: () => (managed?.authRetry ?? config.authRetry) === 'interact',
  }
  try {
    await unlessStopped(stopping, Promise.resolve(managed?.start()))
    running = await withKeyPassword(config.keyPassword, question, create)
  } catch (error) {
    if (!(error instanceof Stopped)) {
      managed?.fatal(error instanceof Error ? error.message : String(error))
    }
    endLog()
    door?.close()
    throw error
  }
  const { client, close } = running
  client.authRetry = managed?.authRetry ?? config.authRetry
  const statusText = async () => {
    const counters = await client.attempt?.counters()
    const lines = statisticsOf(counters, realClock.date()).map((pair) => pair.join(','))
    return ['OpenVPN STATISTICS', ...lines, 'END']
  }
  const endStatus = keepStatus(config, statusText, log.write)
  return {
    statusText,
    stop: (why) => client.stop(why),
    restart: () => client.restart(),
    async run() {
      try {
        const verdict = await client.run()
        if (!['stopped', 'ended'].includes(verdict.kind)) managed?.fatal(verdict.text)
        return verdict
      } finally {
        endStatus()
        endLog()
        door?.close()
        await close()
      }
    },
  }
}

/** Writes the file of `status` every so often; returns what ends that. */
function keepStatus(
  { status }: ClientConfig,
  text: () => Promise<string[]>,
  log: Tell,
): () => void {
  if (status === undefined) return () => {}
  const file = openKeptFile(status.path)
  const write = async () => {
    try {
      file.write(`${(await text()).join('\n')}\n`)
    } catch (error) {
      log(`status: ${(error as Error).message}`, LEVEL.error)
    }
  }
  void write()
  const stop = every(status.interval, () => void write())
  return () => {
    stop()
    file.close()
  }
}

function every(ms: number, call: () => void): () => void {
  const timer = setInterval(call, ms)
  return () => clearInterval(timer)
}

function both(one: ClientEvents, other: ClientEvents | undefined): ClientEvents {
  if (other === undefined) return one
  return {
    state(...told) {
      one.state(...told)
      other.state(...told)
    },
    connected(connection) {
      one.connected(connection)
      other.connected(connection)
    },
    rekeyed: (keyId) => one.rekeyed(keyId),
    pending(method, seconds) {
      one.pending(method, seconds)
      other.pending(method, seconds)
    },
    disconnected(reason) {
      one.disconnected(reason)
      other.disconnected(reason)
    },
    refused(text) {
      one.refused?.(text)
      other.refused?.(text)
    },
    token(token) {
      one.token?.(token)
      other.token?.(token)
    },
  }
}
