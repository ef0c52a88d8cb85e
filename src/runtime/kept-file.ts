/** A file that is written again and again, even by a process that has given up root since: it was opened before. */
import { closeSync, ftruncateSync, openSync, renameSync, writeFileSync, writeSync } from 'node:fs'

export interface KeptFile {
  /** Replaces its content; nobody sees half of it where this process may still make files beside it. */
  write(content: string): void
  close(): void
}

const MODE = 0o640

/** @throws Error where it cannot be opened */
export function openKeptFile(path: string): KeptFile {
  const fd = openSync(path, 'a', MODE)
  return {
    write(content) {
      const next = `${path}.new`
      try {
        writeFileSync(next, content, { mode: MODE })
        renameSync(next, path)
      } catch (error) {
        if (!['EACCES', 'EPERM', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? ''))
          throw error
        ftruncateSync(fd, 0)
        writeSync(fd, content)
      }
    },
    close: () => closeSync(fd),
  }
}
