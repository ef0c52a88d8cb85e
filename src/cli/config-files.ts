/** A configuration that was named on the command line. */
import { readFileSync } from 'node:fs'
import { decodeText, type Source } from '../openvpn/config/parse.ts'
import { attempt } from './errors.ts'

/** By its path; `-` is standard input. Rejects with a CliError. */
export function readSource(file: string): Promise<Source> {
  return attempt(`cannot read ${file}`, () => ({
    file: file === '-' ? 'standard input' : file,
    text: decodeText(readFileSync(file === '-' ? 0 : file)),
  }))
}
