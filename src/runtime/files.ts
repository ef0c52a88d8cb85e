/** Files that may change while a server or client runs (openvpn/identity.ts, config/parse.ts). */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import type { Files } from '../openvpn/config/parse.ts'
import type { FileWatch } from '../openvpn/identity.ts'

export const files: Files = {
  read: (path) => readFileSync(path),
}

export const fileWatch: FileWatch = {
  read: (path) => unlessMissing(() => readFileSync(path)),
  version: (path) =>
    unlessMissing(() => {
      const { ino, size, mtimeMs } = statSync(path)
      return `${ino} ${size} ${mtimeMs}`
    }),
  list: (path) => unlessMissing(() => readdirSync(path)),
}

function unlessMissing<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
