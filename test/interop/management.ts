/** OpenVPN's management interface on a unix socket: commands and their answers, and what it tells by itself. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from './programs.ts'

const PATIENCE_S = 40

export interface Management {
  /** Sends a command that is answered with one line, and gives that. */
  ask(command: string): Promise<string>
  /** Sends a command that is answered with lines and END, and gives the lines. */
  list(command: string): Promise<string[]>
  /** What it has told by itself, as lines that begin with `>`. */
  readonly told: readonly string[]
  close(): void
}

/** Connects to `path`, once OpenVPN listens there: its socket has a name a moment before. */
async function connectTo(path: string): Promise<Socket> {
  const last = performance.now() + PATIENCE_S * 1000
  for (;;) {
    const socket = createConnection(path)
    try {
      await once(socket, 'connect')
      return socket
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      const isEarly = code === 'ENOENT' || code === 'ECONNREFUSED'
      if (!isEarly || performance.now() > last) throw error
    }
    await sleep(50)
  }
}

/** Connects to `path`, once OpenVPN has made it. */
export async function openManagement(path: string): Promise<Management> {
  const answers: string[] = []
  const told: string[] = []
  let rest = ''
  const socket = await connectTo(path)
  socket.setEncoding('utf8')
  socket.on('data', (text: string) => {
    const lines = (rest + text).split('\r\n')
    rest = lines.pop()!
    for (const line of lines) (line.startsWith('>') ? told : answers).push(line)
  })
  const hasGreeted = () => told.some((line) => line.startsWith('>INFO'))
  await until('the management interface', hasGreeted, PATIENCE_S)
  return {
    told,
    async ask(command) {
      assert.equal(answers.length, 0, `asked nothing, was answered ${answers}`)
      socket.write(`${command}\n`)
      await until(`an answer to ${command}`, () => answers.length > 0, PATIENCE_S)
      return answers.shift()!
    },
    async list(command) {
      socket.write(`${command}\n`)
      await until(`the end of ${command}`, () => answers.includes('END'))
      return answers.splice(0, answers.indexOf('END') + 1).slice(0, -1)
    },
    close: () => socket.destroy(),
  }
}
