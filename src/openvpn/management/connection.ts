/** One who is connected to the management interface: its password, its lines and their answers, what it wants to be told. */
import { timingSafeEqual } from 'node:crypto'
import { parseOption } from '../proto/push.ts'
import { type Answer, INTERFACE_VERSION } from './command.ts'
import { COMMANDS } from './commands/index.ts'
import { oneLine } from './history.ts'
import type { Management, ManagementConnection, ManagementOptions } from './management.ts'
import type { ManagementTarget } from './target.ts'

/** A line without an end that is longer is nobody's command. */
const MAX_LINE = 16_384
/** Of commands that wait for the answer to one before. */
const MAX_UNREAD = 1 << 20
const MAX_BLOCK_LINES = 10_000

interface Block {
  readonly lines: string[]
  done(lines: readonly string[]): void
}

export class Connection implements ManagementConnection {
  readonly wants = { log: false, state: false, echo: false }
  /** Which variables it is told: environment.ts. */
  envFilter = 0
  readonly #management: Management
  readonly #target: ManagementTarget
  readonly #options: ManagementOptions
  readonly #send: (text: string) => void
  readonly #close: () => void
  #rest = ''
  /** Something is looked up, and the lines that have come since wait for it. */
  #answering = false
  #block: Block | undefined
  #authenticated: boolean
  #bytecount: (() => void) | undefined
  #ended = false

  constructor(
    management: Management,
    target: ManagementTarget,
    options: ManagementOptions,
    send: (text: string) => void,
    close: () => void,
  ) {
    this.#management = management
    this.#target = target
    this.#options = options
    this.#send = send
    this.#close = close
    this.#authenticated = options.password === undefined
    if (this.#authenticated) this.#greet()
    else send('ENTER PASSWORD:')
  }

  receive(text: string): void {
    this.#rest += text
    if (this.#rest.length > MAX_UNREAD) {
      this.tell('ERROR: too much at once')
      this.end()
      return
    }
    this.#read()
  }

  /** Lines, each answered before the next is looked at. */
  #read(): void {
    while (!this.#ended && !this.#answering) {
      const end = this.#rest.indexOf('\n')
      if (end < 0) {
        if (this.#rest.length <= MAX_LINE) return
        this.tell('ERROR: the line is too long')
        this.end()
        return
      }
      const line = this.#rest.slice(0, end).replace(/\r$/, '')
      this.#rest = this.#rest.slice(end + 1)
      this.#line(line)
    }
  }

  closed(): void {
    this.#stop()
  }

  tell(...lines: string[]): void {
    if (!this.#ended && this.#authenticated) this.#send(lines.map((line) => `${line}\r\n`).join(''))
  }

  end(): void {
    this.#stop()
  }

  #stop(): void {
    if (this.#ended) return
    this.#ended = true
    this.#bytecount?.()
    this.#close()
  }

  #greet(): void {
    this.tell(
      `>INFO:OpenVPN Management Interface Version ${INTERFACE_VERSION} -- type 'help' for more info`,
    )
    const { waiting, openQuestion } = this.#management
    if (waiting) this.tell('>HOLD:Waiting for hold release:0')
    if (openQuestion !== undefined) this.tell(`>${openQuestion}`)
  }

  #line(line: string): void {
    if (!this.#authenticated) {
      this.#checkPassword(line)
      return
    }
    const block = this.#block
    if (block !== undefined) {
      if (line === 'END') {
        this.#block = undefined
        block.done(block.lines)
      } else if (block.lines.push(line) > MAX_BLOCK_LINES) {
        this.#block = undefined
        this.tell('ERROR: too many lines before END')
      }
      return
    }
    const words = parseOption(line)
    if (words === undefined) this.tell('ERROR: a quotation mark is not closed')
    else if (words.length > 0) this.#command(words[0]!, words.slice(1))
  }

  #checkPassword(line: string): void {
    const [given, wanted] = [Buffer.from(line), Buffer.from(this.#options.password ?? '')]
    if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) {
      this.#send('ERROR: bad password\r\n')
      this.end()
      return
    }
    this.#authenticated = true
    this.tell('SUCCESS: password is correct')
    this.#greet()
  }

  #command(name: string, args: string[]): void {
    const command = COMMANDS[name]
    if (command === undefined) {
      this.tell(`ERROR: unknown command [${oneLine(name)}], enter 'help' for more options`)
      return
    }
    const [least, most] = command.args
    if (args.length < least || args.length > most) {
      const [amount, count] =
        least === most
          ? ['', least]
          : args.length < least
            ? ['at least ', least]
            : ['at most ', most]
      const parameters = count === 1 ? 'parameter' : 'parameters'
      this.tell(`ERROR: the '${name}' command requires ${amount}${count} ${parameters}`)
      return
    }
    try {
      const answer = command.run(
        { connection: this, management: this.#management, target: this.#target },
        args,
      )
      if (answer instanceof Promise) void this.#later(answer)
      else this.#answer(answer)
    } catch (error) {
      this.#refuse(error)
    }
  }

  async #later(answer: Promise<Answer>): Promise<void> {
    this.#answering = true
    try {
      this.#answer(await answer)
    } catch (error) {
      this.#refuse(error)
    }
    this.#answering = false
    this.#read()
  }

  #answer(answer: Answer): void {
    if (typeof answer === 'string') this.tell(answer)
    else if (answer !== undefined) this.tell(...answer)
  }

  #refuse(error: unknown): void {
    this.tell(`ERROR: ${oneLine(error instanceof Error ? error.message : String(error))}`)
  }

  /** Takes the lines that follow, up to END. */
  collect(done: (lines: readonly string[]) => Answer): void {
    this.#block = {
      lines: [],
      done: (lines) => {
        try {
          this.#answer(done(lines))
        } catch (error) {
          this.#refuse(error)
        }
      },
    }
  }

  reportBytes(seconds: number): void {
    this.#bytecount?.()
    this.#bytecount = undefined
    if (seconds === 0) return
    this.#bytecount = this.#options.every(1000 * seconds, () => {
      this.#target.bytes().then(
        (all) => {
          for (const { id, bytesIn, bytesOut } of all) {
            if (id === undefined) this.tell(`>BYTECOUNT:${bytesIn},${bytesOut}`)
            else this.tell(`>BYTECOUNT_CLI:${id},${bytesIn},${bytesOut}`)
          }
        },
        () => {},
      )
    })
  }
}
