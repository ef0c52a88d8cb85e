/**
 * Traffic that is counted and compared, as a program: datagrams with numbers first, then a stream of known bytes, both given back by the
 * other end. Rates are such that a machine that stands still for a third of a second loses nothing of them by itself.
 *
 *     bun traffic.ts answer PORT…               gives back what comes, at each of these UDP and TCP ports
 *     bun traffic.ts ask ADDRESS PORT SECONDS   so long of each; prints a `Report`
 */
import { createSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'
import { Random } from '../random.ts'

export interface Report {
  datagrams: number
  /** On the way there or back. */
  lost: number
  /** Given back more than once. */
  repeated: number
  /** Of the stream, there and back, each as it was. */
  bytes: number
}

const TICK_MS = 10
const DATAGRAMS_A_TICK = 2
const DATAGRAM_BYTES = 1200
const STREAM_BYTES_A_TICK = 10_000
/** A prime, so that no packet's length divides it. */
const PATTERN = Buffer.from(new Random(1).bytes(65_521))
const PATIENCE_MS = 10_000

function answer(ports: number[]): void {
  for (const port of ports) {
    const socket = createSocket('udp4')
    socket.on('message', (bytes, { address, port }) => socket.send(bytes, port, address))
    socket.bind(port)
    createServer((stream) => {
      stream.on('error', () => stream.destroy())
      stream.pipe(stream)
    }).listen(port, '0.0.0.0')
  }
  console.log('answering')
}

async function countDatagrams(
  address: string,
  port: number,
  seconds: number,
): Promise<Omit<Report, 'bytes'>> {
  const datagrams = (1000 * seconds * DATAGRAMS_A_TICK) / TICK_MS
  const back = new Uint8Array(datagrams)
  let missing = datagrams
  const socket = createSocket('udp4')
  const all = Promise.withResolvers<void>()
  socket.on('message', (bytes) => {
    if (back[bytes.readUInt32BE()]!++ === 0 && --missing === 0) all.resolve()
  })
  let next = 0
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      for (let i = 0; i < DATAGRAMS_A_TICK && next < datagrams; i++) {
        const bytes = Buffer.alloc(DATAGRAM_BYTES)
        bytes.writeUInt32BE(next++)
        socket.send(bytes, port, address)
      }
      if (next < datagrams) return
      clearInterval(timer)
      resolve()
    }, TICK_MS)
  })
  await Promise.race([all.promise, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))])
  socket.close()
  return { datagrams, lost: missing, repeated: back.filter((times) => times > 1).length }
}

/** @throws Error where a byte is another, or the stream ends before all have come back */
function compareStream(address: string, port: number, seconds: number): Promise<number> {
  const bytes = (1000 * seconds * STREAM_BYTES_A_TICK) / TICK_MS
  return new Promise((resolve, reject) => {
    const stream = connect(port, address)
    stream.on('error', reject)
    stream.on('close', () => reject(new Error(`the stream ended after ${received} bytes`)))
    let [sent, received] = [0, 0]
    const timer = setInterval(() => {
      stream.write(patternAt(sent, STREAM_BYTES_A_TICK))
      sent += STREAM_BYTES_A_TICK
      if (sent >= bytes) clearInterval(timer)
    }, TICK_MS)
    stream.on('data', (chunk) => {
      if (!patternAt(received, chunk.length).equals(Buffer.from(chunk))) {
        clearInterval(timer)
        reject(new Error(`not the bytes that were sent, behind ${received}`))
      }
      received += chunk.length
      if (received < bytes) return
      stream.end()
      resolve(received)
    })
  })
}

function patternAt(offset: number, length: number): Buffer {
  const part = Buffer.alloc(length)
  for (let at = 0; at < length; ) {
    at += PATTERN.copy(part, at, (offset + at) % PATTERN.length)
  }
  return part
}

if (import.meta.main) {
  const [what = '', ...args] = process.argv.slice(2)
  if (what === 'answer') answer(args.map(Number))
  else {
    const [address = '', port, seconds] = args
    const counted = await countDatagrams(address, Number(port), Number(seconds))
    const bytes = await compareStream(address, Number(port), Number(seconds))
    console.log(JSON.stringify({ ...counted, bytes } satisfies Report))
    process.exit(0)
  }
}
