/**
 * Loaded before each test file under Bun, whose reports leave out why a test was skipped, and leave out skipped
 * `describe`s altogether: writes both to the file named by OVPN_TEST_SKIPS, one JSON object a line.
 */
import { mock } from 'bun:test'
import { appendFileSync } from 'node:fs'
import * as nodeTest from 'node:test'

/** One line of the file. */
export interface SkipNote {
  /** The test's or the describe's own name, without those around it. */
  name: string
  reason: string | undefined
}

type Body = (context: { skip(reason?: string): void }) => unknown
type Register = (...args: unknown[]) => unknown

function note(name: unknown, reason: unknown): void {
  const file = process.env.OVPN_TEST_SKIPS
  if (file === undefined) return
  const why = typeof reason === 'string' ? reason : undefined
  appendFileSync(file, `${JSON.stringify({ name: String(name), reason: why } as SkipNote)}\n`)
}

function noting(original: Register & { skip: Register; todo: Register; only: Register }) {
  const register: Register = (...args) => {
    const [name] = args
    const options = args.find((arg) => typeof arg === 'object' && arg !== null)
    const skip = (options as { skip?: unknown } | undefined)?.skip
    if (skip) note(name, skip)
    return original(...args.map((arg) => (isBody(arg) ? notingBody(name, arg) : arg)))
  }
  const skip: Register = (...args) => {
    note(args[0], undefined)
    return original.skip(...args)
  }
  return Object.assign(register, { skip, todo: original.todo, only: original.only })
}

/** A body that takes the context can still skip while it runs. (One that takes a callback as well is left alone.) */
function isBody(arg: unknown): arg is Body {
  return typeof arg === 'function' && arg.length === 1
}

function notingBody(name: unknown, body: Body): Body {
  return (context) => {
    const skip = context?.skip
    if (skip !== undefined) {
      context.skip = (reason) => {
        note(name, reason)
        skip.call(context, reason)
      }
    }
    return body(context)
  }
}

const { it, test, describe, suite } = nodeTest as unknown as Record<
  'it' | 'test' | 'describe' | 'suite',
  Parameters<typeof noting>[0]
>
const wrapped = {
  ...nodeTest,
  it: noting(it),
  test: noting(test),
  describe: noting(describe),
  suite: noting(suite),
}
mock.module('node:test', () => ({ ...wrapped, default: wrapped.test }))
