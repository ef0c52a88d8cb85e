/**
 * Owns the options that a server sends to a client: how a list becomes messages and messages a list, how one option is
 * quoted, and what an update makes of the options that a client has. What an option means is the configuration's.
 *
 *     PUSH_REPLY,route 10.1.0.0 255.255.0.0,ping 10,push-continuation 2      more follows
 *     PUSH_REPLY,peer-id 0,cipher AES-256-GCM,push-continuation 1            the last
 *     PUSH_UPDATE,route 10.2.0.0 255.255.0.0,-dhcp-option,?block-ipv6        set, remove, set if you can
 *
 * Source: OpenVPN's src/openvpn/push.c, push_util.c and options_util.c (2.7); its openvpn-wire-protocol.xml.
 */

/** Bytes of a message that OpenVPN 2.x keeps below: its buffer of 1024, with a reserve. */
export const PUSH_MESSAGE_BYTES = 1024 - 84
/** What a server may push in one reply or update before a client takes it for hostile. */
export const MAX_PUSHED_OPTIONS = 10_000
const MAX_PUSHED_BYTES = 1024 * 1024

const MORE = 'push-continuation 2'
const LAST = 'push-continuation 1'
/** For what is put behind the options of a message that is not the only one. */
const CONTINUATION_BYTES = 1 + MORE.length

export type PushKind = 'PUSH_REPLY' | 'PUSH_UPDATE'

/** One option as a text: words are quoted where they must be. @throws RangeError for one that cannot be pushed */
export function formatOption(words: readonly string[]): string {
  return words.map(quote).join(' ')
}

/** The words of one option, as a line of a configuration file is read. Undefined: a quote has no end. */
export function parseOption(text: string): string[] | undefined {
  const words: string[] = []
  const blank = /\s/
  for (let at = 0; ; ) {
    while (at < text.length && blank.test(text[at]!)) at++
    if (at === text.length || text[at] === '#' || text[at] === ';') return words
    let word = ''
    let open = ''
    for (; at < text.length && (open !== '' || !blank.test(text[at]!)); at++) {
      const char = text[at]!
      if (char === '\\' && open !== "'") {
        if (++at === text.length) return undefined
        word += text[at]
      } else if (char === open) {
        open = ''
      } else if (open === '' && (char === '"' || char === "'")) {
        open = char
      } else {
        word += char
      }
    }
    if (open !== '') return undefined
    words.push(word)
  }
}

/** The messages that carry `options` in order, each short enough for every client. None at all is a message, too. */
export function encodePush(kind: PushKind, options: readonly string[]): string[] {
  const messages: string[][] = [[]]
  let room = PUSH_MESSAGE_BYTES - kind.length - CONTINUATION_BYTES
  for (const option of options) {
    if (/[,\0]/.test(option)) throw new RangeError(`"${option}" has a comma: it cannot be pushed`)
    const length = 1 + Buffer.byteLength(option)
    if (length > room && messages.at(-1)!.length > 0) {
      messages.push([])
      room = PUSH_MESSAGE_BYTES - kind.length - CONTINUATION_BYTES
    }
    messages.at(-1)!.push(option)
    room -= length
  }
  return messages.map((part, i) => {
    const end = messages.length === 1 ? [] : [i + 1 < messages.length ? MORE : LAST]
    return [kind, ...part, ...end].join()
  })
}

/** The options of one message's body (what follows its first comma), as they are. */
export function splitOptions(body: string): string[] {
  return body
    .split(',')
    .map((option) => option.trim())
    .filter((option) => option !== '')
}

/** Joins what was sent in several messages. */
export class PushCollector {
  #options: string[] = []
  #bytes = 0

  /**
   * Takes the body of the next message.
   *
   * @returns the whole list with the last of them, `more` before, `too much` for what no server needs; after each but
   *   `more` it begins anew
   */
  add(body: string): string[] | 'more' | 'too much' {
    let more = false
    for (const option of splitOptions(body)) {
      const [name, value] = option.split(/\s+/)
      if (name === 'push-continuation') more = value === '2'
      else this.#options.push(option)
    }
    this.#bytes += body.length
    const tooMuch = this.#options.length > MAX_PUSHED_OPTIONS || this.#bytes > MAX_PUSHED_BYTES
    if (more && !tooMuch) return 'more'
    const options = this.#options
    this.#options = []
    this.#bytes = 0
    return tooMuch ? 'too much' : options
  }
}

/** One entry of PUSH_UPDATE. */
export interface UpdateEntry {
  /** `set` with the option's whole text; `remove` with its name. */
  action: 'set' | 'remove'
  option: string
  /** A client that cannot change this goes on without. */
  optional: boolean
}

/** Undefined: it is none. */
export function parseUpdateEntry(text: string): UpdateEntry | undefined {
  const match = /^(-?)(\??)([^-?\s].*)$/s.exec(text)
  if (!match) return undefined
  const action = match[1] === '-' ? 'remove' : 'set'
  const option = match[3]!.trim()
  if (action === 'remove' && /\s/.test(option)) return undefined
  return { action, option, optional: match[2] === '?' }
}

/** What OpenVPN 2.7 can change while it is connected. */
const UPDATABLE: ReadonlySet<string> = new Set([
  'block-ipv6',
  'block-outside-dns',
  'dhcp-option',
  'dns',
  'ifconfig',
  'ifconfig-ipv6',
  'keepalive',
  'redirect-gateway',
  'redirect-private',
  'route',
  'route-gateway',
  'route-ipv6',
  'route-metric',
  'topology',
  'tun-mtu',
])

export type UpdateResult =
  | {
      /** All options that hold now. */
      options: string[]
      /** Names of those whose values may be others. */
      changed: Set<string>
      /** Entries that could not be followed, and need not be. */
      skipped: string[]
    }
  /** An entry that must be followed, and cannot: the client connects anew. */
  | { offending: string }

/**
 * What the entries of one whole update (all its messages) make of `options`. The first entry that sets an option removes
 * all values it had, further ones add.
 */
export function applyUpdate(options: readonly string[], entries: readonly string[]): UpdateResult {
  let result = [...options]
  const changed = new Set<string>()
  const skipped: string[] = []
  const replaced = new Set<string>()
  for (const text of entries) {
    const entry = parseUpdateEntry(text)
    if (entry === undefined) return { offending: text }
    const name = nameOf(entry.option)
    if (!UPDATABLE.has(name)) {
      if (!entry.optional) return { offending: text }
      skipped.push(text)
      continue
    }
    const kind = kindOf(name)
    if (entry.action === 'remove' || !replaced.has(kind)) {
      result = result.filter((option) => kindOf(nameOf(option)) !== kind)
    }
    if (entry.action === 'set') {
      replaced.add(kind)
      result.push(entry.option)
    }
    changed.add(name)
  }
  return { options: result, changed, skipped }
}

function nameOf(option: string): string {
  return option.split(/\s/, 1)[0]!
}

/** Two names for one thing are one. */
function kindOf(name: string): string {
  return name === 'redirect-private' ? 'redirect-gateway' : name
}

function quote(word: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a peer refuses the whole message for one of them
  if (/[,\x00-\x1f\x7f]/.test(word)) {
    throw new RangeError(
      `${JSON.stringify(word)} has a comma or a control character: it cannot be pushed`,
    )
  }
  if (word !== '' && !/[\s"'\\#;]/.test(word)) return word
  return `"${word.replace(/["\\]/g, '\\$&')}"`
}
