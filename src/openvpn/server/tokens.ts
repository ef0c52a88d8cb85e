/** The tokens of `auth-gen-token`: given at a login, shown again in place of the password, renewed while the client stays. */
import {
  checkToken,
  createToken,
  isToken,
  type TokenContent,
  type TokenRules,
} from './auth-token.ts'
import type { Environment } from './environment.ts'
import type { AuthDecision, AuthRequest } from './policy.ts'

export interface TokenCheck {
  /** `password`: it is none of our tokens. */
  readonly state: 'password' | 'accepted' | 'external'
  /** `session_state` and `session_id`, for scripts. */
  readonly environment: Environment
  readonly content?: TokenContent | undefined
}

export type TokenResult =
  | TokenCheck
  | {
      readonly state: 'refused'
      readonly decision: AuthDecision
      readonly environment: Environment
    }

export interface TokenParts {
  readonly rules: TokenRules
  /** Whether somebody else decides about tokens that are not good. */
  readonly externalAuth: boolean
  /** Seconds since 1970. */
  now(): number
  random(count: number): Uint8Array
}

const SESSION_ID_BYTES = 12

export class Tokens {
  readonly #parts: TokenParts
  /** Of clients that are there: the first token of theirs, by client. */
  readonly #first = new Map<number, string>()

  constructor(parts: TokenParts) {
    this.#parts = parts
  }

  check({ client, username, password }: AuthRequest): TokenResult {
    const { rules, externalAuth, now } = this.#parts
    if (!isToken(password)) return { state: 'password', environment: { session_state: 'Initial' } }
    const first = this.#first.get(client.id)
    const { state, content } = checkToken(rules, username, password, now(), first)
    const id = content && Buffer.from(content.sessionId).toString('base64')
    const environment = { session_state: state, ...(id !== undefined && { session_id: id }) }
    if (externalAuth) return { state: 'external', environment, content }
    if (state === 'Authenticated') return { state: 'accepted', environment, content }
    const expired = state.startsWith('Expired')
    const text = expired ? 'the session has expired: log in again' : ''
    const failure = expired
      ? ({ reason: 'session', text } as const)
      : ({ reason: 'denied', text } as const)
    const why = `its token is ${expired ? 'expired' : 'not good'}`
    return { state: 'refused', decision: { allow: false, failure, why }, environment }
  }

  /** A token for a client that was let in; undefined where it showed neither name nor password. */
  issue(
    { client, username, password }: AuthRequest,
    checked: TokenCheck | undefined,
  ): { token: string; username?: string } | undefined {
    if (username === '' && password === '') return undefined
    const { rules, now, random } = this.#parts
    const before = checked?.content
    const content: TokenContent = {
      sessionId: before?.sessionId ?? random(SESSION_ID_BYTES),
      initialTime: before?.initialTime ?? now(),
      time: now(),
    }
    const token = createToken(rules.key, username, content)
    if (!this.#first.has(client.id))
      this.#first.set(client.id, isToken(password) ? password : token)
    return { token, username }
  }

  /** The client has gone. */
  forget(clientId: number): void {
    this.#first.delete(clientId)
  }
}
