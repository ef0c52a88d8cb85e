/**
 * What a client shows to its server: name and password, an answer to a challenge, or the token that the server gave in their place; and when
 * the user is asked. Source: openvpn(8), "auth-user-pass", "auth-token" and "static-challenge"; management-notes.txt.
 */
import type { ClientConfig } from '../config/client-config.ts'
import { type Challenge, formatPassword } from '../proto/messages.ts'

export type Question =
  | { readonly kind: 'credentials'; readonly what: string; readonly username?: string | undefined }
  | { readonly kind: 'text'; readonly text: string; readonly echo: boolean }
  | { readonly kind: 'passphrase'; readonly what: string }

export interface Answer {
  readonly username?: string
  readonly text: string
}

/** Asks the user. Rejects where there is none to ask. */
export type Ask = (question: Question) => Promise<Answer>

export interface Shown {
  readonly username: string
  readonly password: string
}

/** What `auth-user-pass username-only` sends. */
const NO_PASSWORD = '[[BLANK]]'

export class Credentials {
  readonly #config: ClientConfig
  readonly #ask: Ask
  #username: string | undefined
  #password: string | undefined
  #challenge: Challenge | undefined
  #token: string | undefined
  #tokenUser: string | undefined

  constructor(config: ClientConfig, ask: Ask) {
    this.#config = config
    this.#ask = ask
    this.#token = config.authToken
    this.#tokenUser = config.authTokenUser
  }

  get hasToken(): boolean {
    return this.#token !== undefined
  }

  /** What the next key message says. Asks whatever is not known. */
  async show(): Promise<Shown> {
    const { authUserPass, staticChallenge, authNocache } = this.#config
    if (this.#token !== undefined) {
      return { username: this.#tokenUser ?? this.#username ?? '', password: this.#token }
    }
    const challenge = this.#challenge
    if (challenge !== undefined) {
      this.#challenge = undefined
      const { text, echo, state, username, needsResponse } = challenge
      const answer = needsResponse ? (await this.#ask({ kind: 'text', text, echo })).text : ''
      return { username, password: formatPassword({ kind: 'dynamic', state, response: answer }) }
    }
    if (authUserPass === undefined) return { username: '', password: '' }
    await this.#complete(authUserPass)
    const [username, password] = [this.#username ?? '', this.#password ?? '']
    if (authNocache && typeof authUserPass === 'string') this.#password = undefined
    if (staticChallenge === undefined) return { username, password }
    const { prompt, echo, format } = staticChallenge
    const { text: response } = await this.#ask({ kind: 'text', text: prompt, echo })
    const both = format === 'concat' ? password + response : undefined
    return { username, password: both ?? formatPassword({ kind: 'static', password, response }) }
  }

  /** The server gave a token, and maybe the name to show with it. */
  keepToken(token: string, username: string | undefined): void {
    this.#token = token
    if (username !== undefined) this.#tokenUser = username
  }

  /** The token is good no more. */
  forgetToken(): void {
    this.#token = undefined
    this.#tokenUser = undefined
  }

  /** They were wrong: the user is asked again. Those of a file are read no other way. */
  forget(): void {
    this.forgetToken()
    this.#username = undefined
    this.#password = undefined
  }

  answer(challenge: Challenge): void {
    this.#challenge = challenge
  }

  async #complete(source: NonNullable<ClientConfig['authUserPass']>): Promise<void> {
    if (typeof source === 'object') {
      this.#username = source.username
      this.#password ??= source.password
    }
    if (source === 'ask-username') {
      this.#password = NO_PASSWORD
      if (this.#username === undefined) {
        const question = { kind: 'text', text: 'user name', echo: true } as const
        this.#username = (await this.#ask(question)).text
      }
    }
    if (this.#password !== undefined && this.#username !== undefined) return
    const question = { kind: 'credentials', what: 'Auth', username: this.#username } as const
    const answer = await this.#ask(question)
    this.#username ??= answer.username ?? ''
    this.#password = answer.text
  }
}
