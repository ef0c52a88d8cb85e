/** A server as the management interface commands it, and what it tells there. */
import type { Log } from '../log.ts'
import type { Management } from '../management/management.ts'
import { realAddress, type StatusClient, type StatusVersion } from '../management/status.ts'
import type { ManagedQuestions, ManagementTarget } from '../management/target.ts'
import { formatOrder } from '../proto/messages.ts'
import { splitOptions } from '../proto/push.ts'
import { connectedEnvironment, farewellEnvironment } from './environment.ts'
import type { ManagementAuthority } from './management-authority.ts'
import type { ServerPolicy } from './policy.ts'
import type { Server } from './server.ts'

export interface ManagedParts {
  readonly title: string
  readonly pid: number
  /** The server of now: another after a restart. */
  server(): Server | undefined
  authority(): ManagementAuthority | undefined
  date(): Date
  signal: ManagementTarget['signal']
  /** Asks for the password of the private key there. */
  readonly questions?: ManagedQuestions
  /** What is told, and how much of it. */
  readonly log: Log
  readonly statusVersion: StatusVersion
}

/** The one question of a server: the password of its private key (`management-query-passwords`). */
export class KeyPassword implements ManagedQuestions {
  #answer: ((password: string) => void) | undefined

  ask(management: Management): Promise<string> {
    management.question("PASSWORD:Need 'Private Key' password")
    return new Promise((resolve) => {
      this.#answer = (password) => {
        management.question(undefined)
        resolve(password)
      }
    })
  }

  answer(kind: string, type: string, text: string): boolean {
    const answer = this.#answer
    if (kind !== 'password' || type !== 'Private Key' || answer === undefined) return false
    this.#answer = undefined
    answer(text)
    return true
  }

  remote(): boolean {
    return false
  }

  remotes(): [] {
    return []
  }

  challengeResponse(): boolean {
    return false
  }

  forgetPasswords(): void {}
}

export function managedServer(parts: ManagedParts): ManagementTarget {
  const { title, pid, server, authority, date, signal, log, questions } = parts
  const { statusVersion } = parts
  const clients = async (): Promise<StatusClient[]> => (await server()?.status()) ?? []
  return {
    title,
    pid,
    signal,
    statusVersion,
    ...(questions !== undefined && { questions }),
    get verbosity() {
      return log.verbosity
    },
    set verbosity(level) {
      log.verbosity = level
    },
    get mute() {
      return log.mute
    },
    set mute(count) {
      log.mute = count
    },
    status: async () => ({ title, now: date(), clients: await clients() }),
    async load() {
      const all = await clients()
      const sum = (of: (client: StatusClient) => number) =>
        all.reduce((n, client) => n + of(client), 0)
      return {
        clients: all.length,
        bytesIn: sum(({ bytesReceived }) => bytesReceived),
        bytesOut: sum(({ bytesSent }) => bytesSent),
      }
    },
    bytes: async () =>
      (await clients()).map(({ id, bytesReceived, bytesSent }) => ({
        id,
        bytesIn: bytesReceived,
        bytesOut: bytesSent,
      })),
    clients: {
      kill(which) {
        const found = (server()?.clients() ?? []).filter((client) => {
          const { commonName, protocol, remote } = client
          const real = realAddress({ protocol, remote })
          return which === commonName || which === real || which === real.replace(/^[^:]*:/, '')
        })
        for (const client of found) client.leave('killed at the management interface', RESTART)
        return found.length
      },
      authorize: (id, keyId, lines) => authority()?.authorize(id, keyId, lines) ?? false,
      deny: (id, keyId, reason, told) => authority()?.deny(id, keyId, reason, told) ?? false,
      pend: (id, keyId, extra, timeout) => authority()?.pend(id, keyId, extra, timeout) ?? false,
      killOne(id, message) {
        const client = server()?.client(id)
        client?.leave('killed at the management interface', message)
        return client !== undefined
      },
      update: (id, options) => server()?.update(id, splitOptions(options)) ?? 0,
    },
  }
}

const RESTART = formatOrder('restart', { keepCredentials: false, nextServer: false, text: '' })

/** Tells the management interface of clients. */
export function tellingPolicy(
  management: Management,
): Pick<ServerPolicy, 'connected' | 'disconnected'> {
  return {
    connected(client) {
      for (const [i, address] of [client.v4, client.v6]
        .filter((one) => one !== undefined)
        .entries()) {
        management.clientAddress(client.id, address, i === 0)
      }
      management.client('ESTABLISHED', [client.id], connectedEnvironment(client))
    },
    disconnected(client, farewell) {
      const environment = { ...connectedEnvironment(client), ...farewellEnvironment(farewell) }
      management.client('DISCONNECT', [client.id], environment)
    },
  }
}
