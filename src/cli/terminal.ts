/** Questions to the user at the terminal: a line that is seen as it is typed, or not. */
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import type { Answer, Question } from '../openvpn/client/credentials.ts'
import { CliError } from './errors.ts'

/** One question at a time. Rejects with a CliError where there is no terminal, or the user gives up (^C, ^D). */
export async function askTerminal(question: Question): Promise<Answer> {
  if (!process.stdin.isTTY) {
    throw new CliError(
      `${textOf(question)}: there is no terminal to ask at; ${insteadOf(question)}`,
    )
  }
  switch (question.kind) {
    case 'passphrase':
      return { text: await readLine(`Password of the ${question.what.toLowerCase()}: `, false) }
    case 'text':
      return { text: await readLine(`${question.text}: `, question.echo) }
    case 'credentials': {
      const whose = question.what === 'Auth' ? '' : `${question.what} `
      const username = question.username ?? (await readLine(`${whose}user name: `, true))
      const text = await readLine(`${whose}password of ${username}: `, false)
      return { username, text }
    }
  }
}

function readLine(prompt: string, echo: boolean): Promise<string> {
  const output = new Writable({
    write(chunk, _encoding, done) {
      if (echo || !typed) process.stderr.write(chunk)
      done()
    },
  })
  let typed = false
  const lines = createInterface({ input: process.stdin, output, terminal: true })
  return new Promise((resolve, reject) => {
    let answered = false
    lines.question(prompt, (answer) => {
      answered = true
      lines.close()
      if (!echo) process.stderr.write('\n')
      resolve(answer)
    })
    // The prompt is out; from here on it is what the user types.
    typed = true
    const end = () => lines.close()
    lines.on('SIGINT', end)
    process.once('SIGTERM', end)
    lines.on('close', () => {
      process.off('SIGTERM', end)
      if (!answered) reject(new CliError(`${prompt.replace(/:? ?$/, '')}: no answer`))
    })
  })
}

function textOf(question: Question): string {
  return question.kind === 'text'
    ? question.text
    : question.kind === 'passphrase'
      ? 'the key has a password'
      : `${question.what}: name and password are wanted`
}

function insteadOf(question: Question): string {
  switch (question.kind) {
    case 'passphrase':
      return "write 'askpass FILE', a file with the password in it"
    case 'credentials':
      return question.what === 'Auth'
        ? "write 'auth-user-pass FILE', a file with the name and the password on two lines"
        : 'name a file with the name and the password on two lines where the profile names the proxy'
    case 'text':
      return "run it at a terminal, or have a program answer: 'management', 'management-query-passwords'"
  }
}
