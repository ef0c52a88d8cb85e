/**
 * Kinds of arguments that directives take: what text of a configuration is accepted, and the value it stands for.
 * Which directive takes which is in directives/; what values mean together is for the typed configurations.
 */
import ipaddr from 'ipaddr.js'
import { type Ipv6Prefix, type Millis, maskToPrefix } from './values.ts'

/** One argument of a directive. */
export interface Kind<T> {
  /** The value of a text; throws an ArgumentError that says what was expected. */
  parse(text: string): T
  /** What is expected, for documents and errors: `a port`. */
  readonly expects: string
  /** How it is written, where that is one word only. */
  readonly word?: string
  /** May be left out, and then stands for this value. */
  readonly optional?: { readonly value: T }
  /** Takes this argument and all that follow, one by one. */
  readonly rest?: true
}

export type ValueOf<K> = K extends Kind<infer T> ? T : never

/** Text that is not of the kind wanted. */
export class ArgumentError extends Error {
  override readonly name = 'ArgumentError'
}

function kind<T>(expects: string, parse: (text: string) => T | undefined): Kind<T> {
  return {
    expects,
    parse(text) {
      const value = parse(text)
      if (value === undefined) throw new ArgumentError(`expected ${expects}, not '${text}'`)
      return value
    },
  }
}

/** An argument that may be left out. Without a value for that case it is undefined then. */
export function optional<T>(of: Kind<T>): Kind<T | undefined>
export function optional<T, D extends T>(of: Kind<T>, value: D): Kind<T>
export function optional<T>(of: Kind<T>, value?: T): Kind<T | undefined> {
  return { ...of, optional: { value } }
}

/** None, one or more of a kind, to the end of the line. */
export function rest<T>(of: Kind<T>): Kind<T[]> {
  return { ...some(of), optional: { value: [] } }
}

/** One or more of a kind, to the end of the line. */
export function some<T>(of: Kind<T>): Kind<T[]> {
  return { expects: of.expects, rest: true, parse: (text) => [of.parse(text)] }
}

/** Text that is anything but empty. */
export const text: Kind<string> = kind('a text', (value) => (value === '' ? undefined : value))

/** Text that may be empty. */
export const anyText: Kind<string> = kind('a text', (value) => value)

/** A file: a path, taken from the folder of the configuration where it is relative. */
export const file: Kind<string> = kind('a file', (value) => (value === '' ? undefined : value))

/** A program and its arguments, quoted as in a configuration line. */
export const command: Kind<string> = kind('a command', (value) =>
  value.trim() === '' ? undefined : value,
)

/** A word without white space. */
export const word: Kind<string> = kind('a word', (value) =>
  /^[^\s\p{Cc}]+$/u.test(value) ? value : undefined,
)

export function choice<const T extends string>(...choices: readonly T[]): Kind<T> {
  const [first, ...others] = choices
  const expects = others.length === 0 ? `'${first}'` : `one of ${choices.join(', ')}`
  const of = kind(expects, (value) => choices.find((one) => one === value))
  return first === undefined || others.length > 0 ? of : { ...of, word: first }
}

function decimal(value: string): number | undefined {
  return /^-?\d{1,15}$/.test(value) ? Number(value) : undefined
}

export function integer(min: number, max: number, what = 'a number'): Kind<number> {
  const range = max === Infinity ? `of ${min} or more` : `from ${min} to ${max}`
  return kind(`${what} ${range}`, (value) => {
    const number = decimal(value)
    return number !== undefined && number >= min && number <= max ? number : undefined
  })
}

/** Seconds in the text, milliseconds in the value. */
export function seconds(min: number, max: number): Kind<Millis> {
  const inner = integer(min, max, 'seconds')
  return { expects: inner.expects, parse: (value) => inner.parse(value) * 1000 }
}

/** A word in place of a value: `infinite`. */
export function either<T, U>(first: Kind<T>, second: Kind<U>): Kind<T | U> {
  const expects = `${first.expects} or ${second.expects}`
  return {
    expects,
    parse(text) {
      for (const of of [first, second]) {
        try {
          return of.parse(text)
        } catch {
          // then the other
        }
      }
      throw new ArgumentError(`expected ${expects}, not '${text}'`)
    },
  }
}

/** A word that stands for a value. */
export function constant<T>(name: string, value: T): Kind<T> {
  const of = choice(name)
  return {
    expects: of.expects,
    parse(text) {
      of.parse(text)
      return value
    },
  }
}

/** The value of a text, or undefined where it is not of the kind. */
export function parseWith<T>(of: Kind<T>, value: string): T | undefined {
  try {
    return of.parse(value)
  } catch {
    return undefined
  }
}

/** A number, or the name of a service: services.ts knows which number that is. */
export const port: Kind<number | string> = either(
  integer(0, 65_535, 'a port'),
  kind('the name of a service', (value) => (SERVICE.test(value) ? value : undefined)),
)

const SERVICE = /^(?=.*[A-Za-z])[A-Za-z0-9][\w.+-]*$/

/** Four decimal parts; what else the system's resolver would take for an address is a mistake here. */
export const ipv4: Kind<string> = kind('an IPv4 address', (value) =>
  ipaddr.IPv4.isValidFourPartDecimal(value) && !/(^|\.)0\d/.test(value) ? value : undefined,
)

/** In its shortest text. No interface behind it. */
export const ipv6: Kind<string> = kind('an IPv6 address', (value) =>
  value.includes('%') || !ipaddr.IPv6.isValid(value)
    ? undefined
    : ipaddr.IPv6.parse(value).toString(),
)

/** Ones, then zeros: its text as it is. */
export const netmask: Kind<string> = kind('a netmask', (value) =>
  parseWith(ipv4, value) !== undefined && maskToPrefix(value) !== undefined ? value : undefined,
)

/** `2001:db8::/64`: bits behind the prefix may be set, for `ifconfig-ipv6` names an address so. */
export function ipv6Prefix(min: number, max: number): Kind<Ipv6Prefix> {
  const range = min === 0 && max === 128 ? '' : `, of ${min} to ${max} bits`
  return kind(`an IPv6 address with its prefix, ADDRESS/BITS${range}`, (value) => {
    const network = parseWith(ipv6Network, value)
    const inRange = network !== undefined && network.prefix >= min && network.prefix <= max
    return inRange && value.includes('/') ? network : undefined
  })
}

/** As `ipv6Prefix`; an address alone is a network of one. */
export const ipv6Network: Kind<Ipv6Prefix> = kind('an IPv6 network, ADDRESS/BITS', (value) => {
  const [, text, bits = '128'] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(value) ?? []
  const address = text === undefined ? undefined : parseWith(ipv6, text)
  const prefix = Number(bits)
  return address === undefined || prefix > 128 ? undefined : { address, prefix }
})

/** A host by its name or address. Names are checked for what would be no name at all, not for what resolves. */
export const host: Kind<string> = kind('a host name or address', (value) =>
  parseWith(ipv6, value) !== undefined || HOST.test(value) ? value : undefined,
)

const HOST =
  /^(?=.{1,253}$)[\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?(\.[\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?)*\.?$/u

/** A domain of DNS, as search lists have it. */
export const domain: Kind<string> = kind('a domain', (value) =>
  value === '.' || HOST.test(value.replace(/^\./, '')) ? value : undefined,
)

/** An interface's name. */
export const device: Kind<string> = kind('the name of an interface', (value) =>
  /^[^\s/]{1,15}$/.test(value) && value !== '.' && value !== '..' ? value : undefined,
)

/** Names between colons: ciphers, groups. */
export const colonList: Kind<string[]> = kind('names with colons between them', (value) => {
  const names = value.split(':')
  return names.every((name) => /^[\x21-\x7e]+$/.test(name)) ? names : undefined
})

/** Bytes of a hash, hexadecimal, colons between or not; 20 (SHA-1) or 32 (SHA-256) of them. Lower case without colons. */
export const fingerprint: Kind<string> = kind(
  'a fingerprint (hexadecimal, colons between)',
  (value) => parseFingerprint(value),
)

export function parseFingerprint(value: string): string | undefined {
  const digits = value.trim().replaceAll(':', '').toLowerCase()
  return /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(digits) ? digits : undefined
}

/** A name that a program's environment takes. */
export const variable: Kind<string> = kind('the name of a variable', (value) =>
  /^[A-Za-z0-9_]+$/.test(value) ? value : undefined,
)
