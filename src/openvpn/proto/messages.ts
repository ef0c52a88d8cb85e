/**
 * Owns the texts of the control channel once both ends have sent their key messages: what they mean and how they are
 * written. When they are sent is the owner's business, the options in PUSH_REPLY and PUSH_UPDATE are push.ts's.
 *
 *     client -> server   PUSH_REQUEST, CR_RESPONSE, EXIT
 *     server -> client   PUSH_REPLY, PUSH_UPDATE, AUTH_FAILED, AUTH_PENDING, INFO_PRE, INFO, RESTART, HALT, EXIT
 *
 * Each is printable text with a NUL behind it; words are separated by commas, the last may hold some itself.
 * Source: OpenVPN's openvpn-wire-protocol.xml, "Control channel messages"; doc/management-notes.txt; src/openvpn/push.c
 * (the flags of RESTART and HALT are as there: the document has them the other way round).
 */

/** Longest message taken: what openvpn3 takes. OpenVPN 2.x takes 2048 and keeps its own below 1024. */
export const MAX_MESSAGE_BYTES = 64 * 1024

export type ControlMessage =
  | { kind: 'push-request' }
  /** `body`: what follows the first comma, for push.ts. */
  | { kind: 'push-reply' | 'push-update'; body: string }
  | { kind: 'auth-failed'; failure: AuthFailure }
  /** `timeout` in seconds. */
  | { kind: 'auth-pending'; timeout?: number }
  /** `pending`: INFO_PRE, which is part of authentication; else INFO. */
  | { kind: 'info'; pending: boolean; text: string }
  | { kind: 'cr-response'; response: string }
  | { kind: 'restart' | 'halt'; order: Order }
  | { kind: 'exit' }
  /** To be logged, and ignored. */
  | { kind: 'unknown'; text: string }

/** What a server wants of a client that it sends away. */
export interface Order {
  /** Use user name and password again, without asking; else forget them. */
  keepCredentials: boolean
  /** Try the next server; else this one again. */
  nextServer: boolean
  /** For people; may be empty. */
  text: string
}

/** Why a client is refused. Texts are for people and may be empty. */
export type AuthFailure =
  | { reason: 'denied'; text: string }
  /** The session or its token is too old: forget the token, ask again. */
  | { reason: 'session'; text: string }
  /** Try again with the same credentials, `backoff` seconds later, and where `advance` says. */
  | { reason: 'temporary'; text: string; backoff?: number; advance?: Advance }
  /** Connect again, with `username` and `answerChallenge` as the password. */
  | { reason: 'challenge'; challenge: Challenge }

/** The same address again, the next one of this remote, or the next remote. */
export type Advance = 'no' | 'addr' | 'remote'

export interface Challenge {
  /** To be sent back as it is. */
  state: string
  username: string
  /** The question. */
  text: string
  /** Whether what the user types may be seen. */
  echo: boolean
  /** Whether there is anything to answer. */
  needsResponse: boolean
}

/**
 * The text of one message as it arrived, without its NUL; line ends behind it do not count.
 *
 * @returns undefined for one with unprintable characters: it is not to be acted upon, nor logged as it is
 */
export function readText(bytes: Uint8Array): string | undefined {
  let end = bytes.length
  while (end > 0 && (bytes[end - 1] === 0x0a || bytes[end - 1] === 0x0d)) end--
  const text = bytes.subarray(0, end)
  for (const byte of text) if (byte < 0x20 || byte === 0x7f) return undefined
  return new TextDecoder().decode(text)
}

/** What a message says. A text of any content; what it does not understand is `unknown`. */
export function parseMessage(text: string): ControlMessage {
  const [word, body] = cut(text, ',')
  switch (word) {
    case 'PUSH_REQUEST':
      return body === undefined ? { kind: 'push-request' } : { kind: 'unknown', text }
    case 'PUSH_REPLY':
      return { kind: 'push-reply', body: body ?? '' }
    case 'PUSH_UPDATE':
      return { kind: 'push-update', body: body ?? '' }
    case 'AUTH_FAILED':
      return { kind: 'auth-failed', failure: parseFailure(body ?? '') }
    case 'AUTH_PENDING':
      return { kind: 'auth-pending', ...parseTimeout(body ?? '') }
    case 'INFO_PRE':
    case 'INFO':
      return { kind: 'info', pending: word === 'INFO_PRE', text: body ?? '' }
    case 'CR_RESPONSE': {
      const response = fromBase64(body ?? '')
      return response === undefined ? { kind: 'unknown', text } : { kind: 'cr-response', response }
    }
    case 'RESTART':
    case 'HALT':
      return { kind: word === 'HALT' ? 'halt' : 'restart', order: parseOrder(body ?? '') }
    case 'EXIT':
      return { kind: 'exit' }
    default:
      return { kind: 'unknown', text }
  }
}

/** AUTH_FAILED. `temporary`: whether the client knows AUTH_FAILED,TEMP (IV_PROTO); else it gets the text alone. */
export function formatAuthFailed(failure: AuthFailure, temporary: boolean): string {
  switch (failure.reason) {
    case 'denied':
      return withText('AUTH_FAILED', failure.text)
    case 'session':
      return `AUTH_FAILED,SESSION:${clean(failure.text)}`
    case 'challenge': {
      const { echo, needsResponse, state, username, text } = failure.challenge
      const flags = flagList({ E: echo, R: needsResponse })
      return `AUTH_FAILED,CRV1:${flags}:${clean(state)}:${toBase64(username)}:${clean(text)}`
    }
    case 'temporary': {
      if (!temporary) return withText('AUTH_FAILED', failure.text)
      const { backoff, advance } = failure
      const hints: string[] = []
      if (backoff !== undefined) hints.push(`backoff ${backoff}`)
      if (advance !== undefined) hints.push(`advance ${advance}`)
      const brackets = hints.length > 0 ? `[${hints.join()}]` : ''
      return `AUTH_FAILED,TEMP${brackets}:${clean(failure.text)}`
    }
  }
}

/** AUTH_PENDING: the decision takes time. `timeout`, in seconds, only to clients that announced to know it (IV_PROTO). */
export function formatAuthPending(timeout?: number): string {
  return timeout === undefined ? 'AUTH_PENDING' : `AUTH_PENDING,timeout ${timeout}`
}

/** INFO_PRE while authentication is pending, INFO later. */
export function formatInfo(pending: boolean, text: string): string {
  return `${pending ? 'INFO_PRE' : 'INFO'},${clean(text)}`
}

/** RESTART (connect again) or HALT (end). */
export function formatOrder(kind: 'restart' | 'halt', order: Order): string {
  const flags = `${order.keepCredentials ? 'P' : ''}${order.nextServer ? 'N' : ''}`
  const text = `${flags === '' ? '' : `[${flags}]`}${clean(order.text)}`
  return withText(kind === 'halt' ? 'HALT' : 'RESTART', text)
}

/** CR_RESPONSE: what the user answered to a question in INFO_PRE. */
export function formatCrResponse(response: string): string {
  return `CR_RESPONSE,${toBase64(response)}`
}

/** How a user is to prove who it is, in the text of INFO_PRE. IV_SSO says what a client can do. */
export type PendingMethod =
  /** A question, answered with CR_RESPONSE. */
  | { method: 'crtext'; text: string; echo: boolean; needsResponse: boolean }
  /** A page to open. Flags: `hidden`, `external`, `proxy=...`. */
  | { method: 'webauth'; url: string; flags: string[] }
  | { method: 'openurl'; url: string }

/** Undefined: another method, or no method at all. */
export function parsePendingMethod(text: string): PendingMethod | undefined {
  const [method, rest = ''] = cut(text, ':')
  if (method === 'OPEN_URL') return { method: 'openurl', url: rest }
  const [flagText, content] = cut(rest, ':')
  if (content === undefined) return undefined
  const flags = flagText.split(',').filter((flag) => flag !== '')
  if (method === 'CR_TEXT') {
    const has = (flag: string) => flags.includes(flag)
    return { method: 'crtext', text: content, echo: has('E'), needsResponse: has('R') }
  }
  return method === 'WEB_AUTH' ? { method: 'webauth', url: content, flags } : undefined
}

/** The text for `formatInfo`. */
export function formatPendingMethod(pending: PendingMethod): string {
  switch (pending.method) {
    case 'crtext':
      return `CR_TEXT:${flagList({ E: pending.echo, R: pending.needsResponse })}:${pending.text}`
    case 'webauth':
      return `WEB_AUTH:${pending.flags.join()}:${pending.url}`
    case 'openurl':
      return `OPEN_URL:${pending.url}`
  }
}

/** What a password field holds beside a plain password. */
export type PasswordField =
  | { kind: 'plain'; password: string }
  /** A password, and the answer to the question in the client's configuration (`static-challenge`). */
  | { kind: 'static'; password: string; response: string }
  /** The answer to a challenge of AUTH_FAILED. */
  | { kind: 'dynamic'; state: string; response: string }

/** What a client put into the password field. What looks like a form and is none is a plain password. */
export function parsePassword(field: string): PasswordField {
  const plain = { kind: 'plain', password: field } as const
  const still = /^SCRV1:([^:]*):([^:]*)$/.exec(field)
  if (still) {
    const password = fromBase64(still[1]!)
    const response = fromBase64(still[2]!)
    return password === undefined || response === undefined
      ? plain
      : { kind: 'static', password, response }
  }
  const dynamic = /^CRV1::(.*?)::(.*)$/s.exec(field)
  return dynamic ? { kind: 'dynamic', state: dynamic[1]!, response: dynamic[2]! } : plain
}

/** The password field that answers a challenge or a question. */
export function formatPassword(field: PasswordField): string {
  switch (field.kind) {
    case 'plain':
      return field.password
    case 'static':
      return `SCRV1:${toBase64(field.password)}:${toBase64(field.response)}`
    case 'dynamic':
      return `CRV1::${field.state}::${field.response}`
  }
}

function parseFailure(body: string): AuthFailure {
  const temporary = /^TEMP(?:\[([^\]]*)\])?(?::(.*))?$/s.exec(body)
  if (temporary) {
    return { reason: 'temporary', text: temporary[2] ?? '', ...parseHints(temporary[1] ?? '') }
  }
  if (body.startsWith('SESSION:')) return { reason: 'session', text: body.slice(8) }
  const dynamic = /^CRV1:([^:]*):([^:]*):([^:]*):(.*)$/s.exec(body)
  const username = dynamic && fromBase64(dynamic[3]!)
  if (!dynamic || typeof username !== 'string') return { reason: 'denied', text: body }
  const flags = dynamic[1]!.split(',')
  return {
    reason: 'challenge',
    challenge: {
      state: dynamic[2]!,
      username,
      text: dynamic[4]!,
      echo: flags.includes('E'),
      needsResponse: flags.includes('R'),
    },
  }
}

/** Hints that nobody knows, or that make no sense, do not count. */
function parseHints(text: string): { backoff?: number; advance?: Advance } {
  const hints: { backoff?: number; advance?: Advance } = {}
  for (const hint of text.split(',')) {
    const [key, value = ''] = cut(hint.trim(), ' ')
    if (key === 'backoff' && /^\d{1,9}$/.test(value)) hints.backoff = Number(value)
    if (key === 'advance' && (value === 'no' || value === 'addr' || value === 'remote')) {
      hints.advance = value
    }
  }
  return hints
}

function parseTimeout(body: string): { timeout?: number } {
  for (const part of body.split(',')) {
    const [key, value = ''] = cut(part.trim(), ' ')
    if (key === 'timeout' && /^\d{1,9}$/.test(value)) return { timeout: Number(value) }
  }
  return {}
}

function parseOrder(body: string): Order {
  const brackets = /^\[([^\]]*)\](.*)$/s.exec(body)
  const flags = brackets?.[1] ?? ''
  return {
    keepCredentials: flags.includes('P'),
    nextServer: flags.includes('N'),
    text: brackets ? brackets[2]! : body,
  }
}

/** What is before the first `separator`, and what is behind it, if there is one. */
function cut(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

function withText(word: string, text: string): string {
  return text === '' ? word : `${word},${clean(text)}`
}

/** Text that a peer will not refuse: a text with line ends or other control characters becomes one without. */
function clean(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
  return text.replace(/[\x00-\x1f\x7f]+/g, ' ')
}

function flagList(flags: Record<string, boolean>): string {
  return Object.keys(flags)
    .filter((flag) => flags[flag])
    .join()
}

function toBase64(text: string): string {
  return Buffer.from(text).toString('base64')
}

/** Undefined: it is not base64. */
function fromBase64(text: string): string | undefined {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.replace(/=+$/, '').length % 4 === 1)
    return undefined
  return Buffer.from(text, 'base64').toString()
}
