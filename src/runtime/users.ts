/** Users and groups by name, as the system's files have them. */
import { readFileSync } from 'node:fs'

/** @throws Error where there is no such user */
export function userId(name: string): number {
  return idOf('/etc/passwd', 'user', name)
}

/** @throws Error where there is no such group */
export function groupId(name: string): number {
  return idOf('/etc/group', 'group', name)
}

function idOf(path: string, what: string, name: string): number {
  if (/^\d+$/.test(name)) return Number(name)
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    const [known, , number] = line.split(':')
    if (known === name && number !== undefined) return Number(number)
  }
  throw new Error(`there is no ${what} '${name}' in ${path}`)
}
