/** The tables of docs/API.md, from the specification and the dialects' numbers. Text around them is written by hand. */
import type { Dialect } from './dialects/dialect.ts'
import { dialects } from './dialects/index.ts'
import { type Attribute, type Command, commands, type Notification, notifications } from './spec.ts'
import type { CommandName, EventName } from './types.ts'
import type { Field, Table } from './validate.ts'

/** Newest first. */
const columns: readonly Dialect[] = [dialects.ovpn, dialects['ovpn-dco-v2'], dialects['ovpn-dco']]

/** Markdown: commands, notifications, then the attributes of each dialect, and those that all have alike. */
export function apiTables(): string {
  const tables = columns.map(attributeTables)
  const [first, ...others] = tables as [Map<string, string>, ...Map<string, string>[]]
  const shared = [...first].filter(([name, text]) =>
    others.every((other) => other.get(name) === text),
  )
  const ofOne = columns.flatMap(({ name }, i) => [
    `### Attributes of ${code(name)}`,
    ...[...tables[i]!.values()].filter((text) => !shared.some(([, one]) => one === text)),
  ])
  return [
    '### Commands',
    commandTable(),
    '### Notifications',
    eventTable(),
    ...ofOne,
    '### Attributes in every dialect',
    ...shared.map(([, text]) => text),
  ].join('\n\n')
}

function rows(head: readonly string[], body: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...body.map(line)].join('\n')
}

const code = (text: string): string => `\`${text}\``

function commandTable(): string {
  const body = Object.entries(commands as { [name: string]: Command }).map(([name, command]) => [
    code(name),
    ...columns.map((one) => `${one.wire.commands[name as CommandName]?.number ?? '–'}`),
    [command.do && 'one', command.dump && 'dump'].filter(Boolean).join(', '),
    command.reply === undefined ? 'ACK' : `${command.reply.nest}, ACK`,
    command.doc,
  ])
  const head = ['command', ...columns.map((one) => code(one.name)), 'asks for', 'answer', '']
  return rows(head, body)
}

function eventTable(): string {
  const all = Object.entries(notifications as { [name: string]: Notification })
  const body = all.map(([name, notification]) => [
    code(name),
    ...columns.map((one) => `${one.wire.events[name as EventName]?.number ?? '–'}`),
    notification.doc,
  ])
  return rows(['notification', ...columns.map((one) => code(one.name)), ''], body)
}

interface Usage {
  field: Field
  /** Messages that may hold it, and whether they must. */
  messages: Map<string, boolean>
}

/** One nest, or the top level, over all messages that hold it: by number. */
type Set = Map<number, Usage>

/** By the name of the nest; '' is the top level. */
function attributeTables(dialect: Dialect): Map<string, string> {
  const sets = new Map<string, Set>()
  const note = (set: string, holder: Table, names: readonly string[], message: string) => {
    for (const field of holder.fields) {
      if (!names.includes(field.name)) continue
      const known = sets.get(set) ?? new Map<number, Usage>()
      sets.set(set, known)
      const usage = known.get(field.number) ?? { field, messages: new Map<string, boolean>() }
      known.set(field.number, usage)
      const required = holder.required.includes(field.name) && !field.attribute.multi
      usage.messages.set(message, required)
      // What a nest inside a nest holds is the same wherever it stands: all of it.
      const inner = set === '' ? undefined : field.of
      if (inner !== undefined) noteAll(field.attribute.multi ? field.name : 'keydir', inner)
    }
  }
  const noteAll = (set: string, holder: Table) =>
    note(
      set,
      holder,
      holder.fields.map((field) => field.name),
      'always',
    )
  const messages = messagesOf(dialect)
  for (const [message, table, order, inner] of messages) {
    note('', table, order, message)
    for (const name of order) {
      const nest = table.fields.find((field) => field.name === name)
      if (nest?.of !== undefined) note(name, nest.of, inner, message)
    }
  }
  const allNames = messages.map(([name]) => name)
  const printed = [...sets].map(([name, set]): [string, string] => {
    const body = [...set.values()]
      .sort((a, b) => a.field.number - b.field.number)
      .map(({ field, messages }) => [
        `${field.number}`,
        code(field.name),
        typeOf(field.attribute),
        usage(messages, allNames),
        field.attribute.doc,
      ])
    const title = name === '' ? 'Top level:' : `Inside ${code(name)}:`
    return [name, `${title}\n\n${rows(['number', 'name', 'type', 'where', ''], body)}`]
  })
  return new Map(printed)
}

type MessageRow = [name: string, table: Table, order: readonly string[], inner: readonly string[]]

function messagesOf(dialect: Dialect): MessageRow[] {
  const found: MessageRow[] = []
  for (const [name, { do: one, dump, reply }] of Object.entries(dialect.wire.commands)) {
    if (one) found.push([name, one.table, one.order, one.inner ?? []])
    if (dump) found.push([`${name} dump`, dump.table, dump.order, dump.inner ?? []])
    if (reply) found.push([`${name} answer`, reply.table, reply.order, reply.inner ?? []])
  }
  for (const [name, { form }] of Object.entries(dialect.wire.events)) {
    const event = name.endsWith('-ntf') ? name : `${name} event`
    found.push([event, form.table, form.order, form.inner ?? []])
  }
  return found
}

/** Where it must be in bold, where it may be plain. */
function usage(messages: ReadonlyMap<string, boolean>, all: readonly string[]): string {
  if (messages.has('always')) return '**always**'
  if (messages.size > all.length / 2) {
    const others = all.filter((name) => !messages.has(name) && !name.endsWith(' answer'))
    return `**all** but answers, ${others.join(', ')}`
  }
  return [...messages].map(([name, required]) => (required ? `**${name}**` : name)).join(', ')
}

const widths: { readonly [type: string]: string } = {
  port: 'u16, network order, not 0',
  ipv4: '4 address bytes',
  ipv6: '16 address bytes',
  uint: '4 or 8 bytes',
  string: 'text with NUL',
}

function typeOf(attribute: Attribute): string {
  const { type, minLength, maxLength, max } = attribute
  const several = attribute.multi ? ', one for each' : ''
  const text = widths[type] ?? type
  if (attribute.enum !== undefined) {
    return `${text}: ${attribute.enum.map((name, value) => `${value} ${name}`).join(', ')}`
  }
  if (max !== undefined) return `${text} ≤ ${max}`
  if (minLength === maxLength && maxLength !== undefined) return `${text}, ${maxLength} bytes`
  if (maxLength !== undefined) return `${text}, ≤ ${maxLength} bytes`
  if (minLength !== undefined) return `${text}, ≥ ${minLength} bytes`
  return text + several
}
