/** Where things are that were not named on the command line: what `ovpn server` made here, and this program. */
import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'
import { DEFAULT_PKI } from '../openvpn/x509/pki.ts'

export const SERVER_FOLDER = 'ovpn-server'

/** Where `ovpn server` keeps things in its folder. */
export const madeIn = (folder: string) => ({
  config: join(folder, 'server.conf'),
  pki: join(folder, DEFAULT_PKI),
})

/** The configuration and the authority of a server that was made below this folder, or in it. */
export function madeHere(): { config: string; pki: string } | undefined {
  return ['', SERVER_FOLDER]
    .map(madeIn)
    .find(({ config, pki }) => existsSync(config) && existsSync(join(pki, 'ca.crt')))
}

/** The folder of certificates where none is named. */
export function pkiHere(): string {
  return existsSync(DEFAULT_PKI) ? DEFAULT_PKI : (madeHere()?.pki ?? DEFAULT_PKI)
}

/** What is typed here for this program: `ovpn`, where a shell finds that. */
export function ownCommand(): string {
  const found = (process.env.PATH ?? '').split(':').some((in_) => existsSync(join(in_, 'ovpn')))
  if (found) return 'ovpn'
  const script = join(import.meta.dirname, '../../bin/ovpn')
  const path = existsSync(script) ? script : process.execPath
  const near = relative(process.cwd(), path)
  return near.startsWith('..') ? path : near.includes('/') ? near : `./${near}`
}
