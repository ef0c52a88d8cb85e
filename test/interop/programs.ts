/** The OpenVPN programs that tests run, by their series, and why where there is none; waiting for what they do. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fetchOpenvpn27, Unavailable } from '../kernel/fetch.ts'
import { withoutNamespaces } from '../namespace.ts'

/** What OpenVPN's log says when it is up. */
export const STARTED = /Initialization Sequence Completed/

const OPENVPN_26 = '/usr/sbin/openvpn'

const found27 = withoutNamespaces
  ? undefined
  : await fetchOpenvpn27().catch((error: Error) => {
      if (error instanceof Unavailable) return error
      throw error
    })

/** Commands by series. */
export const programs: { [series: string]: string | undefined } = {
  '2.6': existsSync(OPENVPN_26) ? OPENVPN_26 : undefined,
  '2.7': found27 !== undefined && 'command' in found27 ? found27.command : undefined,
}

/** Why tests with all of these series cannot run here; false when they can. */
export function withoutProgram(...series: string[]): string | false {
  if (withoutNamespaces) return withoutNamespaces
  const missing = series.find((one) => programs[one] === undefined)
  if (missing === undefined) return false
  return missing === '2.7' && found27 instanceof Unavailable
    ? found27.message
    : `OpenVPN ${missing} is not installed`
}

/** Resolves once it holds; fails when it takes too long. */
export async function until(what: string, holds: () => boolean, seconds = 10): Promise<void> {
  for (let i = 0; i < seconds * 20; i++) {
    if (holds()) return
    await sleep(50)
  }
  assert.fail(`${what}: not within ${seconds} s`)
}
