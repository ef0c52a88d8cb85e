/** Answers to what a server or client asks whoever manages it: passwords, confirmations, which server and proxy to take. */
import { type Command, type Commands, done, ok, unsupported, whole } from '../command.ts'
import {
  AUTH_RETRY,
  type ManagedQuestions,
  type ManagementTarget,
  type ProxyChoice,
} from '../target.ts'

/** Of clients; passwords are asked of servers, too. */
export const QUESTIONS: Commands = {
  username: answering('username', 'username', 'username type text: answer a question'),
  password: {
    args: [1, 2],
    help: 'password type [text]: answer a question; without a text, base64 in lines that follow, then END',
    run({ connection, target }, [type, text]) {
      const give = (password: string) => answered(target, 'password', 'password', type!, password)
      if (text !== undefined) return give(text)
      connection.collect((lines) => give(Buffer.from(lines.join(''), 'base64').toString()))
      return undefined
    },
  },
  needok: answering('needok', 'needok-confirmation', 'needok type ok|cancel: answer a question'),
  needstr: answering('needstr', 'needstr-string', 'needstr type text: answer a question'),
  'auth-retry': {
    args: [0, 1],
    help: 'auth-retry [none|nointeract|interact]: what a refused password leads to',
    run({ target }, [wanted]) {
      if (wanted === undefined) return ok(`auth-retry=${target.authRetry ?? 'none'}`)
      const chosen = AUTH_RETRY.find((one) => one === wanted)
      if (chosen === undefined) throw new Error('bad auth-retry parameter')
      if (target.authRetry !== undefined) target.authRetry = chosen
      return ok('auth-retry parameter changed')
    },
  },
  'forget-passwords': {
    args: [0, 0],
    help: 'forget-passwords: ask again when they are needed',
    run({ target }) {
      target.questions?.forgetPasswords()
      return ok('Passwords were forgotten')
    },
  },
  'cr-response': {
    args: [1, 1],
    help: 'cr-response base64: answer a challenge',
    run: ({ target }, [text]) =>
      done(questionsOf(target, 'cr-response').challengeResponse(text!), 'cr-response'),
  },
  remote: {
    args: [1, 3],
    help: 'remote ACCEPT|SKIP|MOD host port: what to connect to',
    run({ target }, [what, host, port]) {
      const questions = questionsOf(target, 'remote')
      const choose = (choice: Parameters<ManagedQuestions['remote']>[0]) =>
        done(questions.remote(choice), 'remote')
      if (what === 'MOD' && host !== undefined && port !== undefined) {
        return choose({ host, port: whole(port, 1, 65_535) })
      }
      if (what === 'ACCEPT' || what === 'SKIP') return choose(what)
      throw new Error('expected ACCEPT, SKIP or MOD host port')
    },
  },
  proxy: {
    args: [1, 4],
    help: 'proxy NONE|HTTP host port [nct]|SOCKS host port: what to connect through',
    run({ target }, [what, host, port, flag]) {
      const questions = questionsOf(target, 'proxy')
      const choose = (choice: ProxyChoice) => done(questions.proxy?.(choice) === true, 'proxy')
      if (what === 'NONE') return choose({ kind: 'none' })
      if ((what !== 'HTTP' && what !== 'SOCKS') || host === undefined || port === undefined) {
        throw new Error('expected NONE, HTTP host port [nct] or SOCKS host port')
      }
      const at = { host, port: whole(port, 1, 65_535) }
      if (what === 'SOCKS') return choose({ kind: 'socks', ...at })
      return choose({ kind: 'http', ...at, clear: flag !== 'nct' })
    },
  },
  'remote-entry-count': {
    args: [0, 0],
    help: 'remote-entry-count: how many servers the profile names',
    run: ({ target }) => [
      String(questionsOf(target, 'remote-entry-count').remotes().length),
      'END',
    ],
  },
  'remote-entry-get': {
    args: [1, 2],
    help: 'remote-entry-get i|all [j]: the servers that the profile names, i to j - 1',
    run({ target }, [from, to]) {
      const remotes = questionsOf(target, 'remote-entry-get').remotes()
      const number = (text: string) => whole(text, 0, 1_000_000)
      const first = from === 'all' ? 0 : number(from!)
      const last = from === 'all' ? remotes.length : to === undefined ? first + 1 : number(to)
      const lines = remotes.map(
        ({ host, port, protocol }, i) => `${i},${host},${port},${protocol},enabled`,
      )
      return [...lines.slice(first, last), 'END']
    },
  },
}

type AnswerKind = 'username' | 'password' | 'needok' | 'needstr'

function answering(kind: AnswerKind, what: string, help: string): Command {
  return {
    args: [2, 2],
    help,
    run: ({ target }, [type, text]) => answered(target, kind, what, type!, text!),
  }
}

/** `what`: the kind in OpenVPN's words. */
function answered(
  { questions }: ManagementTarget,
  kind: AnswerKind,
  what: string,
  type: string,
  text: string,
): string {
  if (questions?.answer(kind, type, text) === true) {
    return ok(`'${type}' ${kind} entered, but not yet verified`)
  }
  throw new Error(`no ${what} is currently needed at this time`)
}

/** A server has questions too, but of passwords alone. */
function questionsOf({ clients, questions }: ManagementTarget, command: string): ManagedQuestions {
  if (clients !== undefined || questions === undefined) throw unsupported(command)
  return questions
}
