/** The OpenVPN programs that tests run, by their series, and why where there is none; waiting for what they do. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fetchOpenvpn, fetchOpenvpn27, type Suite, Unavailable } from '../kernel/fetch.ts'
import { withoutNamespaces } from '../namespace.ts'

/** What OpenVPN's log says when it is up. */
export const STARTED = /Initialization Sequence Completed/

const OPENVPN_26 = '/usr/sbin/openvpn'

const fetched = (fetching: Promise<{ command: string }>) =>
  fetching.catch((error: Error) => {
    if (error instanceof Unavailable) return error
    throw error
  })

/** Commands by series. */
export const programs: { [series: string]: string | undefined } = {
  '2.6': existsSync(OPENVPN_26) ? OPENVPN_26 : undefined,
}

/** Why there is none, where more is known of it. */
const reasons: { [series: string]: string } = {}

function add(series: string, found: { command: string } | Unavailable): void {
  if (found instanceof Unavailable) reasons[series] = found.message
  else programs[series] = found.command
}

if (!withoutNamespaces) add('2.7', await fetched(fetchOpenvpn27()))

const OLD: { [series: string]: Suite } = { '2.4': 'buster', '2.5': 'bullseye' }

/** Looks for old series, of which `programs` and `withoutProgram` know only then: few tests are about them. */
export async function findOldPrograms(): Promise<void> {
  if (withoutNamespaces) return
  for (const [series, suite] of Object.entries(OLD)) add(series, await fetched(fetchOpenvpn(suite)))
}

/** Why tests with all of these series cannot run here; false when they can. */
export function withoutProgram(...series: string[]): string | false {
  if (withoutNamespaces) return withoutNamespaces
  const missing = series.find((one) => programs[one] === undefined)
  if (missing === undefined) return false
  return reasons[missing] ?? `OpenVPN ${missing} is not installed`
}

/** Resolves once it holds; fails when it takes too long. */
export async function until(what: string, holds: () => boolean, seconds = 10): Promise<void> {
  for (let i = 0; i < seconds * 20; i++) {
    if (holds()) return
    await sleep(50)
  }
  assert.fail(`${what}: not within ${seconds} s`)
}
