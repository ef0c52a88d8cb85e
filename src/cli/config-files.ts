/** Configurations and the files that they name, from the disk. */
import { readFileSync } from 'node:fs'
import { decodeText, type Files, type Source } from '../openvpn/config/parse.ts'
import { CliError, errnoWords } from './errors.ts'

export const diskFiles: Files = {
  read(path) {
    try {
      return readFileSync(path)
    } catch (error) {
      throw new Error(errnoWords((error as NodeJS.ErrnoException).code ?? String(error)))
    }
  },
}

/** A configuration by its path; `-` is standard input. Throws a CliError. */
export function readSource(file: string): Source {
  try {
    if (file === '-') return { file: 'standard input', text: decodeText(readFileSync(0)) }
    return { file, text: decodeText(diskFiles.read(file)) }
  } catch (error) {
    throw new CliError(`cannot read ${file}: ${(error as Error).message}`)
  }
}
