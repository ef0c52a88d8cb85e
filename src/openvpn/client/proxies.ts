/**
 * How a proxy is asked for a way to a server: HTTP's CONNECT, with Basic or Digest, and SOCKS 5. Owns what is said; connections are passed in.
 *
 * Source: RFC 9110, 9.3.6; RFC 7617 (Basic), RFC 7616 (Digest); RFC 1928 (SOCKS 5), RFC 1929 (its passwords).
 */
import { createHash } from 'node:crypto'
import ipaddr from 'ipaddr.js'
import type { HttpProxy } from '../config/client-config.ts'

/** A connection to a proxy. Never a byte more is read than is asked for: what follows is the server's. */
export interface ByteStream {
  write(bytes: Uint8Array): void
  /** Rejects when the connection ends before. */
  read(count: number): Promise<Uint8Array>
}

export interface Login {
  readonly username: string
  readonly password: string
}

export interface Target {
  readonly host: string
  readonly port: number
}

/** `PROXY_AUTH`: it does not like who we are; `PROXY_REFUSED`: it does not go there; `PROXY_PROTOCOL`: it is none. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError'
  readonly code: 'PROXY_AUTH' | 'PROXY_REFUSED' | 'PROXY_PROTOCOL'

  constructor(code: ProxyError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/** What an HTTP proxy wants to know, as it says itself. */
export interface HttpChallenge {
  readonly scheme: 'basic' | 'digest'
  readonly parameters: ReadonlyMap<string, string>
}

const MAX_LINE = 8192
const MAX_HEADERS = 100
const OK = 200
const WANTS_LOGIN = 407

/**
 * Asks an HTTP proxy to connect to `target`.
 *
 * @param authorization from `answerChallenge`
 * @returns undefined: the way is there; else what the proxy wants, on another connection. Rejects with a ProxyError
 */
export async function connectThroughHttp(
  stream: ByteStream,
  proxy: HttpProxy,
  target: Target,
  authorization?: string,
): Promise<HttpChallenge[] | undefined> {
  const { httpVersion, agent, headers } = proxy
  const where = authority(target)
  const hasHost = headers.some(([name]) => name.toLowerCase() === 'host')
  const lines = [
    `CONNECT ${where} HTTP/${httpVersion}`,
    ...(hasHost ? [] : [`Host: ${where}`]),
    ...(agent === undefined ? [] : [`User-Agent: ${agent}`]),
    ...headers.map(([name, value]) => `${name}: ${value}`),
    ...(authorization === undefined ? [] : [`Proxy-Authorization: ${authorization}`]),
  ]
  stream.write(new TextEncoder().encode(`${lines.join('\r\n')}\r\n\r\n`))
  const first = await readLine(stream)
  const [, code, reason = ''] = /^HTTP\/\d(?:\.\d)? (\d{3})(?: (.*))?$/.exec(first) ?? []
  if (code === undefined) {
    throw new ProxyError('PROXY_PROTOCOL', 'what answers there is no HTTP proxy')
  }
  const challenges: HttpChallenge[] = []
  for (let i = 0; ; i++) {
    const line = await readLine(stream)
    if (line === '') break
    if (i > MAX_HEADERS) throw new ProxyError('PROXY_PROTOCOL', 'the proxy says too much')
    const [, value] = /^proxy-authenticate:\s*(.*)$/i.exec(line) ?? []
    const challenge = value === undefined ? undefined : parseChallenge(value)
    if (challenge !== undefined) challenges.push(challenge)
  }
  if (Number(code) === OK) return undefined
  const said = printable(`${code} ${reason}`.trim())
  if (Number(code) !== WANTS_LOGIN) {
    throw new ProxyError('PROXY_REFUSED', `the proxy does not connect to ${where}: ${said}`)
  }
  if (authorization !== undefined) {
    throw new ProxyError('PROXY_AUTH', `the proxy refuses name and password: ${said}`)
  }
  return challenges
}

/** The header that answers what a proxy wants: a digest where it takes one. @throws ProxyError where nothing fits */
export function answerChallenge(
  challenges: readonly HttpChallenge[],
  { basic }: Pick<HttpProxy, 'basic'>,
  target: Target,
  { username, password }: Login,
  clientNonce: string,
): string {
  const digest = challenges.find(({ scheme }) => scheme === 'digest')
  if (digest !== undefined) {
    return digestAuthorization(digest.parameters, target, username, password, clientNonce)
  }
  if (!challenges.some(({ scheme }) => scheme === 'basic')) {
    throw new ProxyError('PROXY_AUTH', 'the proxy wants a login that is not Basic and not Digest')
  }
  if (!basic) {
    const text = 'the proxy wants the password in the clear, and the profile (auto-nct) does not'
    throw new ProxyError('PROXY_AUTH', text)
  }
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

const DIGESTS: { readonly [name: string]: string } = { MD5: 'md5', 'SHA-256': 'sha256' }

function digestAuthorization(
  parameters: ReadonlyMap<string, string>,
  target: Target,
  username: string,
  password: string,
  cnonce: string,
): string {
  const algorithm = parameters.get('algorithm') ?? 'MD5'
  const [, name = '', session] = /^(.*?)(-sess)?$/i.exec(algorithm) ?? []
  const digest = DIGESTS[name.toUpperCase()]
  if (digest === undefined) {
    throw new ProxyError('PROXY_AUTH', `the proxy wants a digest by ${printable(algorithm)}`)
  }
  const hash = (text: string) => createHash(digest).update(text).digest('hex')
  const [realm, nonce] = [parameters.get('realm') ?? '', parameters.get('nonce') ?? '']
  const uri = authority(target)
  const plain = hash(`${username}:${realm}:${password}`)
  const who = session === undefined ? plain : hash(`${plain}:${nonce}:${cnonce}`)
  const what = hash(`CONNECT:${uri}`)
  const qop = (parameters.get('qop') ?? '').split(/\s*,\s*/).includes('auth')
  const count = '00000001'
  const response = hash(
    qop ? [who, nonce, count, cnonce, 'auth', what].join(':') : [who, nonce, what].join(':'),
  )
  const opaque = parameters.get('opaque')
  const fields = [
    `username="${username.replace(/["\\]/g, '\\$&')}"`,
    ...[`realm="${realm}"`, `nonce="${nonce}"`, `uri="${uri}"`, `response="${response}"`],
    `algorithm=${algorithm}`,
    ...(qop ? ['qop=auth', `nc=${count}`, `cnonce="${cnonce}"`] : []),
    ...(opaque === undefined ? [] : [`opaque="${opaque}"`]),
  ]
  return `Digest ${fields.join(', ')}`
}

/** `Digest realm="a", nonce="b"`. Undefined: a scheme that is not done here. */
function parseChallenge(text: string): HttpChallenge | undefined {
  const [, word = '', rest = ''] = /^(\S+)\s*(.*)$/.exec(text) ?? []
  const scheme = word.toLowerCase()
  if (scheme !== 'basic' && scheme !== 'digest') return undefined
  const parameters = new Map<string, string>()
  for (const [, name, quoted, bare] of rest.matchAll(/([\w-]+)=(?:"([^"]*)"|([^\s,]+))/g)) {
    parameters.set(name!.toLowerCase(), quoted ?? bare ?? '')
  }
  return { scheme, parameters }
}

async function readLine(stream: ByteStream): Promise<string> {
  let line = ''
  while (!line.endsWith('\n')) {
    if (line.length > MAX_LINE) throw new ProxyError('PROXY_PROTOCOL', 'the proxy says too much')
    line += String.fromCharCode((await stream.read(1))[0]!)
  }
  return line.replace(/\r?\n$/, '')
}

const SOCKS_VERSION = 5
const Method = { None: 0, Password: 2, Nothing: 0xff } as const
const Command = { connect: 1, associate: 3 } as const
const Kind = { V4: 1, Name: 3, V6: 4 } as const

/** Replies beyond 0, which is success. Source: RFC 1928, 6. */
const REPLIES: { readonly [code: number]: string } = {
  1: 'it has failed',
  2: 'its rules do not allow it',
  3: 'it has no way to that network',
  4: 'it does not reach that host',
  5: 'the server refuses connections',
  6: 'it took too long',
  7: 'it cannot do that',
  8: 'it does not know that kind of address',
}

/**
 * Asks a SOCKS 5 proxy for a connection, or for a relay of datagrams while this connection lasts.
 *
 * @param login asked for when the proxy wants one; undefined: none is offered
 * @returns where the connection comes from, or where datagrams are to be sent. Rejects with a ProxyError
 */
export async function connectThroughSocks(
  stream: ByteStream,
  command: 'connect' | 'associate',
  target: Target,
  login: (() => Promise<Login>) | undefined,
): Promise<Target> {
  const methods = login === undefined ? [Method.None] : [Method.None, Method.Password]
  stream.write(Uint8Array.of(SOCKS_VERSION, methods.length, ...methods))
  const [version, method] = await stream.read(2)
  if (version !== SOCKS_VERSION) {
    throw new ProxyError('PROXY_PROTOCOL', 'what answers there is no SOCKS 5 proxy')
  }
  if (method === Method.Password && login !== undefined) await logIn(stream, await login())
  else if (method !== Method.None) {
    const text = 'the SOCKS proxy wants a name and a password: name a file of them in socks-proxy'
    throw new ProxyError('PROXY_AUTH', text)
  }
  const request = [SOCKS_VERSION, Command[command], 0, ...encodeTarget(target)]
  stream.write(Uint8Array.from(request))
  const [replyVersion, code = 1, , kind = 0] = await stream.read(4)
  if (replyVersion !== SOCKS_VERSION) {
    throw new ProxyError('PROXY_PROTOCOL', 'the SOCKS proxy says what makes no sense')
  }
  if (code !== 0) {
    const text = `the SOCKS proxy does not connect to ${authority(target)}: ${REPLIES[code] ?? code}`
    throw new ProxyError('PROXY_REFUSED', text)
  }
  return readTarget(stream, kind)
}

async function logIn(stream: ByteStream, { username, password }: Login): Promise<void> {
  const [name, word] = [new TextEncoder().encode(username), new TextEncoder().encode(password)]
  if (name.length > 255 || word.length > 255) {
    throw new ProxyError('PROXY_AUTH', 'name or password is too long for a SOCKS proxy')
  }
  stream.write(Uint8Array.of(1, name.length, ...name, word.length, ...word))
  const [, status] = await stream.read(2)
  if (status !== 0) {
    throw new ProxyError('PROXY_AUTH', 'the SOCKS proxy refuses name and password')
  }
}

/** `| reserved 2 | fragment 1 | kind 1 | address | port 2 |` before each datagram. */
export function socksDatagramHeader(target: Target): Uint8Array {
  return Uint8Array.from([0, 0, 0, ...encodeTarget(target)])
}

/** What is in a datagram from the proxy; undefined: it is a fragment, or nothing of the proxy's. */
export function socksDatagramBody(datagram: Uint8Array): Uint8Array | undefined {
  const [, , fragment, kind, length = 0] = datagram
  if (fragment !== 0) return undefined
  const address =
    kind === Kind.V4 ? 4 : kind === Kind.V6 ? 16 : kind === Kind.Name ? 1 + length : -1
  const start = 4 + address + 2
  return address < 0 || datagram.length < start ? undefined : datagram.subarray(start)
}

/** `| kind 1 | address | port 2 |` */
function encodeTarget({ host, port }: Target): number[] {
  return [...encodeHost(host), port >> 8, port & 0xff]
}

function encodeHost(host: string): number[] {
  if (/^\d+(\.\d+){3}$/.test(host)) return [Kind.V4, ...host.split('.').map(Number)]
  if (host.includes(':')) return [Kind.V6, ...ipaddr.parse(host).toByteArray()]
  const name = new TextEncoder().encode(host)
  return [Kind.Name, name.length, ...name]
}

async function readTarget(stream: ByteStream, kind: number): Promise<Target> {
  let host: string
  if (kind === Kind.V4 || kind === Kind.V6) {
    const bytes = await stream.read(kind === Kind.V4 ? 4 : 16)
    host = ipaddr.fromByteArray([...bytes]).toString()
  } else {
    const [length = 0] = await stream.read(1)
    host = new TextDecoder().decode(await stream.read(length))
  }
  const [high = 0, low = 0] = await stream.read(2)
  return { host, port: (high << 8) | low }
}

function authority({ host, port }: Target): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '?').slice(0, 200)
}
