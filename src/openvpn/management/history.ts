/** What was told and is kept for those who come later: of log, states and echoes the last ones, and how each reads as a line. */
import type { ProcessState } from './target.ts'

export interface Line {
  readonly date: Date
  readonly flags: string
  readonly text: string
}

export interface Histories {
  readonly log: History<Line>
  readonly states: History<ProcessState>
  readonly echoes: History<Line>
}

export class History<T> {
  limit: number
  readonly #entries: T[] = []

  constructor(limit: number) {
    this.limit = limit
  }

  add(entry: T): void {
    this.#entries.push(entry)
    if (this.#entries.length > this.limit) this.#entries.shift()
  }

  last(count: number): readonly T[] {
    return count === 0 ? [] : this.#entries.slice(-count)
  }
}

const unix = (date: Date): number => Math.floor(date.getTime() / 1000)

export function logText({ date, flags, text }: Line): string {
  return `${unix(date)},${flags},${text}`
}

export function echoText({ date, text }: Line): string {
  return `${unix(date)},${text}`
}

export function stateText(state: ProcessState): string {
  const {
    date,
    name,
    detail,
    localV4,
    remoteAddress,
    remotePort,
    localAddress,
    localPort,
    localV6,
  } = state
  const parts = [detail, localV4, remoteAddress, remotePort, localAddress, localPort]
  const known = localV6 === undefined ? parts : [...parts, localV6]
  return [unix(date), name, ...known.map((part) => part ?? '')].join(',')
}

/** Nothing that is told may begin a line of its own. */
export function oneLine(text: string): string {
  return text.replace(/[\r\n]+/g, ' ').replace(/\p{Cc}/gu, '?')
}
