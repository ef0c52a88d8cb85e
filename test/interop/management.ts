/** OpenVPN's management interface on a unix socket: commands and their answers, and what it tells by itself. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { createConnection } from 'node:net'
import { until } from './programs.ts'

export interface Management {
  /** Sends a command that is answered with one line, and gives that. */
  ask(command: string): Promise<string>
  /** What it has told by itself, as lines that begin with `>`. */
  readonly told: readonly string[]
  close(): void
}

/** Connects to `path`, once OpenVPN has made it. */
export async function openManagement(path: string): Promise<Management> {
  const answers: string[] = []
  const told: string[] = []
  let rest = ''
  await until('the management socket', () => existsSync(path))
  const socket = createConnection(path)
  socket.setEncoding('utf8')
  socket.on('data', (text: string) => {
    const lines = (rest + text).split('\r\n')
    rest = lines.pop()!
    for (const line of lines) (line.startsWith('>') ? told : answers).push(line)
  })
  await until('the management interface', () => told.some((line) => line.startsWith('>INFO')))
  return {
    told,
    async ask(command) {
      assert.equal(answers.length, 0, `asked nothing, was answered ${answers}`)
      socket.write(`${command}\n`)
      await until(`an answer to ${command}`, () => answers.length > 0)
      return answers.shift()!
    },
    close: () => socket.destroy(),
  }
}
