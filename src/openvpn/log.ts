/** What is told of what happens: from which level of `verb` on, and how often in a row. Where it is written is for others. */
import { keyIdOf, Opcode, opcodeOf } from '../wire/opcode.ts'

/** Levels of `verb` that messages belong to; those of a level and of all below are told. Source: openvpn(8), "verb". */
export const LEVEL = {
  /** What ends, or could not be done though somebody asked for it. */
  error: 0,
  /** Who comes, goes and is refused, and why. */
  usual: 1,
  /** Keys, and addresses that change. */
  keys: 2,
  /** Steps on the way, what is pushed, routes. */
  steps: 3,
  /** What was agreed on, what the other end says of itself, and packets that are nobody's. */
  details: 4,
  /** Each control packet. */
  packets: 6,
} as const

/** Says something; without a level it is usual. */
export type Tell = (text: string, level?: number) => void

type Sink = (text: string, level: number) => void

/** Messages at a level, to everybody who listens. */
export class Log {
  verbosity: number
  /** Messages of one kind in a row that are told; 0: all. */
  mute: number
  readonly #sinks = new Set<Sink>()
  #kind = ''
  #inRow = 0
  #leftOut = 0

  constructor({ verb, mute }: { verb: number; mute: number }, sink: Sink) {
    this.verbosity = verb
    this.mute = mute
    this.#sinks.add(sink)
  }

  readonly write: Tell = (text, level = LEVEL.usual) => {
    if (level > this.verbosity) return
    const kind = kindOf(text)
    if (kind !== this.#kind) this.#endRow()
    this.#kind = kind
    this.#inRow++
    if (this.mute === 0 || this.#inRow <= this.mute) this.#out(printable(text), level)
    else this.#leftOut++
  }

  /** Somebody else who listens; returns what ends that. */
  also(sink: Sink): () => void {
    this.#sinks.add(sink)
    return () => this.#sinks.delete(sink)
  }

  #endRow(): void {
    const count = this.#leftOut
    this.#inRow = 0
    this.#leftOut = 0
    if (count > 0) this.#out(`(${count} more like the last were left out: mute)`, LEVEL.usual)
  }

  #out(text: string, level: number): void {
    for (const sink of this.#sinks) sink(text, level)
  }
}

/** Texts of the other end's may be in it: they begin no line, and command no terminal. */
function printable(text: string): string {
  return text.replace(/[^\P{Cc}\n]/gu, '?').replaceAll('\n', '\n    ')
}

/** Messages are of one kind that differ in numbers only: addresses, ports, times. */
function kindOf(text: string): string {
  return text.replace(/[\da-f]*(?:\d|::)[\da-f:.]*/gi, '0')
}

const NAMES = new Map<number, string>(Object.entries(Opcode).map(([name, code]) => [code, name]))

/** A control packet, by what can be seen of it from outside. */
export function packetText(direction: 'in' | 'out', packet: Uint8Array): string {
  const first = packet[0] ?? 0
  const name = NAMES.get(opcodeOf(first)) ?? `opcode ${opcodeOf(first)}`
  return `packet ${direction}: ${name}, key ${keyIdOf(first)}, ${packet.length} bytes`
}

/** The letter of a level at the management interface. Source: OpenVPN's doc/management-notes.txt, "log". */
export function flagOf(level: number): string {
  if (level === LEVEL.error) return 'N'
  return level < LEVEL.packets ? 'I' : 'D'
}

/** Options as they are told: tokens are secrets. */
export function optionsText(options: readonly string[]): string {
  return options.map((option) => option.replace(/^(auth-token)\s.*/s, '$1 …')).join(', ')
}
