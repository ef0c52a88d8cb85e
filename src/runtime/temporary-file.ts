/** Files that a script reads or writes once, which nobody else may. */
import { randomBytes } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TemporaryFile } from '../openvpn/server/programs.ts'

export function createTemporaryFile(folder: string, content: string | Uint8Array): TemporaryFile {
  const path = join(folder, `ovpn_${randomBytes(16).toString('hex')}.tmp`)
  writeFileSync(path, content, { flag: 'wx', mode: 0o600 })
  return {
    path,
    read: () => readFileSync(path, 'utf8'),
    remove: () => rmSync(path, { force: true }),
  }
}
