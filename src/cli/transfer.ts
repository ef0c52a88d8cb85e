/**
 * One end of the demonstration's TCP transfer, as a child process inside a network namespace: `ovpn transfer`, hidden from the
 * help. Tells what it does as lines of JSON on standard output, and ends when the transfer does.
 *
 * The stream is one block of random bytes over and over, made from a seed that both ends know: so every byte that
 * arrives is compared with the one that was sent.
 */
import { createCipheriv } from 'node:crypto'
import { connect, createServer, type Socket } from 'node:net'
import { Command } from 'commander'
import { type HostPort, hostPort, listenAt } from './arguments.ts'
import type { Environment } from './compose.ts'
import { CliError, EXIT } from './errors.ts'

/** What a transfer tells: that it listens, and at its end what it moved. */
export type TransferLine = { listening: true } | { bytes: number; ms: number; intact: boolean }

/** Not a power of two: bytes that go missing shift what is compared. */
const BLOCK_BYTES = 1_000_003

interface Options {
  netns: string
  seed: string
  send?: HostPort
  receive?: HostPort
  seconds: string
}

export function transferCommand(environment: Environment): Command {
  return new Command('transfer')
    .requiredOption('--netns <name>')
    .requiredOption('--seed <hex>')
    .option('--send <addr:port>', '', hostPort)
    .option('--receive <addr:port>', '', listenAt)
    .option('--seconds <n>', '', '5')
    .action(async (options: Options) => {
      // The parent holds the other end, and has nothing to say: it closes when the parent ends, however that is.
      process.stdin.on('close', () => process.exit(EXIT.refused)).resume()
      environment.enterNetns(options.netns)
      const block = blockOf(options.seed)
      const tell = (line: TransferLine) => environment.print(JSON.stringify(line))
      if (options.send !== undefined) {
        tell(await send(environment, options.send, block, Number(options.seconds) * 1000))
      } else if (options.receive !== undefined) {
        tell(await receive(environment, options.receive, block, () => tell({ listening: true })))
      } else throw new CliError('expected --send or --receive')
    })
}

/** Random bytes that follow from 16 bytes in hexadecimal. */
function blockOf(seed: string): Buffer {
  const stream = createCipheriv('aes-128-ctr', Buffer.from(seed, 'hex'), Buffer.alloc(16))
  return stream.update(Buffer.alloc(BLOCK_BYTES))
}

/** Sends for `forMs`, at the pace of the connection. */
function send(
  environment: Environment,
  { address, port }: HostPort,
  block: Buffer,
  forMs: number,
): Promise<TransferLine> {
  return new Promise((resolve, reject) => {
    const start = environment.now()
    let bytes = 0
    const socket: Socket = connect(port, address, () => pump())
    const pump = () => {
      while (environment.now() - start < forMs) {
        bytes += block.length
        if (!socket.write(block)) {
          socket.once('drain', pump)
          return
        }
      }
      socket.end()
    }
    socket.on('error', reject)
    socket.on('close', () => resolve({ bytes, ms: environment.now() - start, intact: true }))
    socket.resume()
  })
}

/** Accepts one connection, and compares what comes with what was sent. */
function receive(
  environment: Environment,
  { address, port }: HostPort,
  block: Buffer,
  listening: () => void,
): Promise<TransferLine> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      let start = 0
      let bytes = 0
      let intact = true
      socket.on('data', (chunk: Buffer) => {
        if (bytes === 0) start = environment.now()
        intact &&= matches(chunk, block, bytes % block.length)
        bytes += chunk.length
      })
      socket.on('error', reject)
      socket.on('end', () => {
        const whole = intact && bytes > 0 && bytes % block.length === 0
        resolve({ bytes, ms: environment.now() - start, intact: whole })
        socket.end()
        server.close()
      })
    })
    server.on('error', reject)
    server.listen(port, address, listening)
  })
}

/** Whether `chunk` is what an endless repetition of `block` has from `at` on. */
function matches(chunk: Buffer, block: Buffer, at: number): boolean {
  let from = 0
  let position = at
  while (from < chunk.length) {
    const count = Math.min(chunk.length - from, block.length - position)
    const part = chunk.subarray(from, from + count)
    if (block.compare(part, 0, count, position, position + count) !== 0) return false
    from += count
    position = (position + count) % block.length
  }
  return true
}
