/**
 * Owns the tokens that a server gives to clients in place of their password: making and checking them. Nothing is kept of
 * them; whoever has the key can check them. When to send one is the server's.
 *
 *     "SESS_ID_AT_" + base64 of | session id 12 | first time 8 | time 8 | HMAC-SHA-256 32 |      sizes in bytes
 *     HMAC over | user name | session id | first time | time |
 *
 * Times are seconds since 1970: of the login that the token comes from, and of the token itself; a token that is renewed
 * keeps the session id and the first. Source: openvpn(8), `auth-gen-token`; docs/PROTOCOL.md, "Tokens".
 */
import { createHmac, timingSafeEqual } from 'node:crypto'

const TOKEN_SESSION_ID_BYTES = 12
const TOKEN_KEY_BYTES = 32

const PREFIX = 'SESS_ID_AT_'
const TIMES_OFFSET = TOKEN_SESSION_ID_BYTES
const HMAC_OFFSET = TIMES_OFFSET + 16
const TOKEN_BYTES = HMAC_OFFSET + 32
const PATTERN = new RegExp(`^${PREFIX}[A-Za-z0-9+/]{${(TOKEN_BYTES / 3) * 4}}$`)

export interface TokenRules {
  /** 32 bytes. */
  key: Uint8Array
  /** Seconds from the login; 0: for ever. */
  lifetime: number
  /** Seconds after which a token is renewed; it is good for twice that. */
  renewal: number
}

/** What a token says. */
export interface TokenContent {
  /** 12 bytes. */
  sessionId: Uint8Array
  /** Seconds since 1970. */
  initialTime: number
  time: number
}

/** As the environment of scripts has it, in `session_state`. */
export type TokenState =
  /** The password is none of our tokens: a login. */
  | 'Initial'
  | 'Authenticated'
  | 'Expired'
  | 'Invalid'
  /** As before, with a token that was made for no user name. */
  | 'AuthenticatedEmptyUser'
  | 'ExpiredEmptyUser'

/** @throws RangeError for a key or a session id of wrong length */
export function createToken(key: Uint8Array, username: string, content: TokenContent): string {
  const bytes = Buffer.alloc(TOKEN_BYTES)
  if (content.sessionId.length !== TOKEN_SESSION_ID_BYTES) {
    throw new RangeError(`a token's session id has ${TOKEN_SESSION_ID_BYTES} bytes`)
  }
  bytes.set(content.sessionId)
  bytes.writeBigUInt64BE(BigInt(Math.floor(content.initialTime)), TIMES_OFFSET)
  bytes.writeBigUInt64BE(BigInt(Math.floor(content.time)), TIMES_OFFSET + 8)
  bytes.set(authenticate(key, username, bytes), HMAC_OFFSET)
  return PREFIX + bytes.toString('base64')
}

/** Whether a password looks like one of these tokens, so that nobody is asked about it as a password. */
export function isToken(password: string): boolean {
  return password.startsWith(PREFIX)
}

/** What a token says, if it is authentic for `username` or for none. */
export interface CheckedToken {
  state: TokenState
  /** Absent for what is no token of ours. */
  content?: TokenContent
}

/**
 * Checks what a client has sent as its password.
 *
 * @param now seconds since 1970
 * @param session the first token of the session that the client has, if it has one: a token of another session is
 *   invalid, and the first one is good as long as the session is, for clients that take up no new one
 */
export function checkToken(
  rules: TokenRules,
  username: string,
  password: string,
  now: number,
  session?: string,
): CheckedToken {
  if (!isToken(password)) return { state: 'Initial' }
  const bytes = decode(password)
  if (bytes === undefined) return { state: 'Invalid' }
  const ofUser = isAuthentic(rules.key, username, bytes)
  if (!ofUser && !isAuthentic(rules.key, '', bytes)) return { state: 'Invalid' }
  const content: TokenContent = {
    sessionId: Uint8Array.from(bytes.subarray(0, TOKEN_SESSION_ID_BYTES)),
    initialTime: Number(bytes.readBigUInt64BE(TIMES_OFFSET)),
    time: Number(bytes.readBigUInt64BE(TIMES_OFFSET + 8)),
  }
  if (session !== undefined && !isOfSession(content, session)) return { state: 'Invalid', content }
  const { initialTime, time } = content
  const fresh = (now >= time && now < time + 2 * rules.renewal) || password === session
  const alive = rules.lifetime === 0 || now <= initialTime + rules.lifetime
  const state = fresh && alive ? 'Authenticated' : 'Expired'
  return { state: ofUser ? state : `${state}EmptyUser`, content }
}

function isOfSession({ sessionId }: TokenContent, token: string): boolean {
  const other = decode(token)?.subarray(0, TOKEN_SESSION_ID_BYTES)
  return other !== undefined && timingSafeEqual(other, sessionId)
}

function decode(token: string): Buffer | undefined {
  return PATTERN.test(token) ? Buffer.from(token.slice(PREFIX.length), 'base64') : undefined
}

function isAuthentic(key: Uint8Array, username: string, bytes: Buffer): boolean {
  return timingSafeEqual(authenticate(key, username, bytes), bytes.subarray(HMAC_OFFSET))
}

function authenticate(key: Uint8Array, username: string, bytes: Uint8Array): Buffer {
  if (key.length !== TOKEN_KEY_BYTES)
    throw new RangeError(`a token's key has ${TOKEN_KEY_BYTES} bytes`)
  return createHmac('sha256', key).update(username).update(bytes.subarray(0, HMAC_OFFSET)).digest()
}
