/**
 * What a client shows to its server: name and password, an answer to a challenge, or the token that the server gave in their place; and when
 * the user is asked. Source: openvpn(8), "auth-user-pass", "auth-token" and "static-challenge"; management-notes.txt.
 */
import type { ClientConfig } from '../config/client-config.ts'
import { type Challenge, formatPassword } from '../proto/messages.ts'

/** What a program that manages needs to know of the question, beside its text. */
export type ChallengeKind =
  | { readonly kind: 'static'; readonly concat: boolean }
  | { readonly kind: 'dynamic'; readonly challenge: Challenge }
  /** Of the server's, while it has not decided yet. */
  | { readonly kind: 'pending' }

export type Question =
  | {
      readonly kind: 'credentials'
      /** `Auth`: for the server; `HTTP Proxy`, `SOCKS Proxy`. */
      readonly what: string
      readonly username?: string | undefined
      /** What is asked next, where that can be asked in one. */
      readonly challenge?: {
        readonly text: string
        readonly echo: boolean
        readonly concat: boolean
      }
    }
  | {
      readonly kind: 'text'
      readonly text: string
      readonly echo: boolean
      readonly challenge?: ChallengeKind
    }
  | { readonly kind: 'passphrase'; readonly what: string }

export interface Answer {
  readonly username?: string
  readonly text: string
  /** To `challenge`, where it was asked in one. */
  readonly response?: string
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
    if (this.#challenge !== undefined) return this.#answered(this.#challenge)
    if (authUserPass === undefined) return { username: '', password: '' }
    const told = await this.#complete(authUserPass)
    const [username, password] = [this.#username ?? '', this.#password ?? '']
    if (authNocache && !isWhole(authUserPass)) this.#password = undefined
    if (staticChallenge === undefined) return { username, password }
    const { prompt: text, echo, format } = staticChallenge
    const concat = format === 'concat'
    const challenge = { kind: 'static', concat } as const
    const response = told ?? (await this.#ask({ kind: 'text', text, echo, challenge })).text
    return {
      username,
      password: concat
        ? password + response
        : formatPassword({ kind: 'static', password, response }),
    }
  }

  async #answered(challenge: Challenge): Promise<Shown> {
    this.#challenge = undefined
    const { text, echo, state, username, needsResponse } = challenge
    const question = {
      ...({ kind: 'text', text, echo } as const),
      challenge: { kind: 'dynamic', challenge } as const,
    }
    const response = needsResponse ? (await this.#ask(question)).text : ''
    return { username, password: formatPassword({ kind: 'dynamic', state, response }) }
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

  /** They were wrong: the user is asked again, but for what a file says. */
  forget(): void {
    this.forgetToken()
    this.#username = undefined
    this.#password = undefined
  }

  answer(challenge: Challenge): void {
    this.#challenge = challenge
  }

  /** Has name and password; an answer to the static challenge, where that came with them. */
  async #complete(source: NonNullable<ClientConfig['authUserPass']>): Promise<string | undefined> {
    if (typeof source === 'object') {
      this.#username = source.username
      this.#password ??= source.password
    }
    if (source === 'ask-username') {
      this.#password = NO_PASSWORD
      if (this.#username === undefined) {
        this.#username = (await this.#ask({ kind: 'text', text: 'user name', echo: true })).text
      }
    }
    if (this.#password !== undefined && this.#username !== undefined) return undefined
    const { staticChallenge } = this.#config
    const answer = await this.#ask({
      ...{ kind: 'credentials', what: 'Auth', username: this.#username },
      ...(staticChallenge !== undefined && {
        challenge: {
          text: staticChallenge.prompt,
          echo: staticChallenge.echo,
          concat: staticChallenge.format === 'concat',
        },
      }),
    })
    this.#username ??= answer.username ?? ''
    this.#password = answer.text
    return answer.response
  }
}

/** Whether nothing of it is asked. */
function isWhole(source: NonNullable<ClientConfig['authUserPass']>): boolean {
  return typeof source === 'object' && source.password !== undefined
}
