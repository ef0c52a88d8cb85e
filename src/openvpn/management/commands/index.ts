/** Every command of the management interface; each is in the file of what it is about. */
import { type Commands, whole } from '../command.ts'
import { ABSENT } from './absent.ts'
import { CLIENTS } from './clients.ts'
import { PROCESS } from './process.ts'
import { QUESTIONS } from './questions.ts'

export const COMMANDS: Commands = {
  help: {
    args: [0, 0],
    help: 'help: print this message',
    run: () => [
      'Management Interface for OpenVPN',
      'Commands:',
      ...Object.values(COMMANDS).map(({ help }) => help),
      'END',
    ],
  },
  ...PROCESS,
  ...CLIENTS,
  ...QUESTIONS,
  test: {
    args: [1, 1],
    help: 'test n: so many lines, to try a reader with',
    run: (_, [count]) =>
      Array.from(
        { length: whole(count!, 1, 10_000) },
        (_, i) => `[${i}] a line to try a reader with`,
      ),
  },
  ...ABSENT,
}
