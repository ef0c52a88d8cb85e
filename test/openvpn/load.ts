/**
 * A program that connects many clients to one server: `bun load.ts FOLDER ADDRESS PORT`, in the server's or another namespace. FOLDER has
 * ca.crt, client.crt, client.key and, with tls-crypt, tc.key. Told on standard input what to do, it answers each line with one:
 *
 *     connect COUNT AT_ONCE   {"connected": ..., "seconds": ..., "problems": [...]}: AT_ONCE are on their way at any time
 *     leave                   {"left": ...}: all of them, each with a word to the server
 *     vanish                  {"vanished": ...}: the same, without a word
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createTls } from '../../src/openvpn/tls.ts'
import { parseStaticKey } from '../../src/wire/static-key.ts'
import type { WrapSettings } from '../../src/wire/wrap.ts'
import { LightClient, type LightSettings } from './light-client.ts'

const [folder = '', address = '', port = ''] = process.argv.slice(2)
const read = (name: string) => readFileSync(join(folder, name), 'utf8')

const settings: LightSettings = {
  address,
  port: Number(port),
  wrap: wrapOf('tc.key'),
  // Who the server is does not matter here, and looking would only slow the load down.
  tls: createTls({
    certificate: read('client.crt'),
    key: read('client.key'),
    requestCertificate: false,
    verify: () => undefined,
  }),
}

function wrapOf(name: string): WrapSettings {
  if (!existsSync(join(folder, name))) return { kind: 'none' }
  return { kind: 'tls-crypt', key: parseStaticKey(read(name)), role: 'client' }
}

let clients: LightClient[] = []

async function connect(count: number, atOnce: number): Promise<object> {
  const problems = new Map<string, number>()
  const from = performance.now()
  let left = count
  let connected = 0
  const one = async () => {
    while (left > 0) {
      left--
      const { promise, resolve } = Promise.withResolvers<LightClient>()
      clients.push(await LightClient.start(settings, resolve))
      const { stage, problem } = await promise
      if (stage === 'connected') connected++
      else problems.set(problem, (problems.get(problem) ?? 0) + 1)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, one))
  const seconds = (performance.now() - from) / 1000
  const addresses = new Set(clients.map(({ pushed }) => pushed.find(isAddress)))
  return { connected, seconds, addresses: addresses.size, problems: Object.fromEntries(problems) }
}

function isAddress(option: string): boolean {
  return option.startsWith('ifconfig ')
}

async function obey(line: string): Promise<object> {
  const [what, count = '0', atOnce = '1'] = line.split(' ')
  if (what === 'connect') return connect(Number(count), Number(atOnce))
  const all = clients.filter(({ stage }) => stage === 'connected')
  clients = []
  if (what === 'leave') {
    await Promise.all(all.map((client) => client.leave()))
    return { left: all.length }
  }
  for (const client of all) client.stop('it vanishes')
  return { vanished: all.length }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await obey(line)))
}
process.exit(0)
