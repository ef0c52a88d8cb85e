/** `management-client-auth`: somebody at the management interface decides who may come, and says what they get. */
import { readClientSettings } from '../config/client-settings.ts'
import type { Management } from '../management/management.ts'
import { settingsOf } from './configured-policy.ts'
import type { Environment } from './environment.ts'
import type { AuthDecision, AuthRequest } from './policy.ts'

interface Open {
  readonly request: AuthRequest
  settle(decision: AuthDecision): void
}

export class ManagementAuthority {
  readonly #management: Management
  /** What waits for a decision, by client and key. */
  readonly #open = new Map<string, Open>()

  constructor(management: Management) {
    this.#management = management
  }

  async decide(request: AuthRequest, environment: Environment): Promise<AuthDecision> {
    const { client, keyId, again, signal } = request
    if (!this.#management.connected) {
      const failure = { reason: 'temporary', text: 'nobody is there to decide at present' } as const
      return { allow: false, failure, why: 'nobody is at the management interface' }
    }
    const key = keyOf(client.id, keyId)
    return new Promise((resolve) => {
      const settle = (decision: AuthDecision) => {
        this.#open.delete(key)
        resolve(decision)
      }
      signal.addEventListener('abort', () => settle(gone))
      this.#open.set(key, { request, settle })
      this.#management.client(again ? 'REAUTH' : 'CONNECT', [client.id, keyId], environment)
      void this.#tellResponses(request, environment)
    })
  }

  authorize(id: number, keyId: number, lines: readonly string[]): boolean {
    const open = this.#open.get(keyOf(id, keyId))
    if (open === undefined) return false
    const source = { file: 'client-auth', text: lines.join('\n') }
    const none = { read: () => fail('files are not read from the management interface') }
    const file = readClientSettings(source, none)
    if (file.disable) open.settle({ ...denied(''), why: 'disable, of client-auth' })
    else open.settle({ allow: true, settings: settingsOf(file) })
    return true
  }

  deny(id: number, keyId: number, reason: string, clientReason: string | undefined): boolean {
    const open = this.#open.get(keyOf(id, keyId))
    open?.settle({ ...denied(clientReason ?? ''), why: reason })
    return open !== undefined
  }

  pend(id: number, keyId: number, extra: string, timeoutSeconds: number): boolean {
    const open = this.#open.get(keyOf(id, keyId))
    open?.request.pend(extra, timeoutSeconds)
    return open !== undefined
  }

  async #tellResponses(request: AuthRequest, environment: Environment): Promise<void> {
    const { client, keyId, responses } = request
    for await (const response of responses) {
      const base64 = Buffer.from(response).toString('base64')
      this.#management.client('CR_RESPONSE', [client.id, keyId, base64], environment)
    }
  }
}

const gone = { ...denied(''), why: 'it has gone' }

function denied(text: string): AuthDecision & { allow: false } {
  return { allow: false, failure: { reason: 'denied', text } }
}

function keyOf(id: number, keyId: number): string {
  return `${id} ${keyId}`
}

function fail(text: string): never {
  throw new Error(text)
}
