/** `ovpn genkey`: keys of the control channel, in the files that OpenVPN's `--genkey` writes. */
import { readFileSync, writeFileSync } from 'node:fs'
import { Argument, Command } from 'commander'
import {
  AUTH_TOKEN_KEY_BYTES,
  formatAuthTokenKey,
  formatClientKey,
  formatServerKey,
  formatStaticKey,
  parseServerKey,
} from '../wire/static-key.ts'
import {
  CLIENT_KEY_BYTES,
  MAX_METADATA_BYTES,
  MetadataType,
  SERVER_KEY_BYTES,
  sealWkc,
  timestampMetadata,
} from '../wire/wkc.ts'
import { WRAP_KEY_BYTES } from '../wire/wrap.ts'
import type { Environment } from './compose.ts'
import { attempt, CliError, EXIT } from './errors.ts'
import { withExamples } from './options.ts'

/** `secret` and `tls-auth` are other names for the first. */
const TYPES = [
  'tls-crypt',
  'tls-auth',
  'secret',
  'tls-crypt-v2-server',
  'tls-crypt-v2-client',
  'auth-token',
] as const
type Type = (typeof TYPES)[number]

interface Options {
  serverKey?: string
  metadata?: string
}

export function genkeyCommand(environment: Environment): Command {
  const genkey = new Command('genkey')
    .description("make a key for the control channel, in OpenVPN's form")
    .addArgument(
      new Argument(
        '<type>',
        'tls-crypt and tls-auth (one key for all), tls-crypt-v2-server, tls-crypt-v2-client (a key for each client), auth-token',
      ).choices(TYPES),
    )
    .argument('[file]', 'a new file, readable by its owner only; - for stdout', '-')
    .option(
      '--server-key <file>',
      "of tls-crypt-v2: the server's key that the client's is made with",
    )
    .option(
      '--metadata <text>',
      'of tls-crypt-v2-client: text that the server finds in the key (default: when it was made)',
    )
    .action(async (type: Type, file: string, options: Options) => {
      const text = await makeKey(environment, type, options)
      if (file === '-') return environment.print(text.trimEnd())
      await attempt(`cannot write ${file}`, () =>
        writeFileSync(file, text, { flag: 'wx', mode: 0o600 }),
      )
    })
  return withExamples(
    genkey,
    'ovpn genkey tls-crypt tls-crypt.key',
    'ovpn genkey tls-crypt-v2-server v2-server.key',
    'ovpn genkey tls-crypt-v2-client alice.key --server-key v2-server.key',
    'ovpn genkey auth-token auth-token.key',
  )
}

async function makeKey(environment: Environment, type: Type, options: Options): Promise<string> {
  const { randomBytes } = environment
  if (type !== 'tls-crypt-v2-client') {
    if (options.serverKey !== undefined || options.metadata !== undefined) {
      throw new CliError('--server-key and --metadata are of tls-crypt-v2-client', EXIT.usage)
    }
    if (type === 'tls-crypt-v2-server') return formatServerKey(randomBytes(SERVER_KEY_BYTES))
    if (type === 'auth-token') return formatAuthTokenKey(randomBytes(AUTH_TOKEN_KEY_BYTES))
    return formatStaticKey(randomBytes(WRAP_KEY_BYTES))
  }
  const { serverKey: file } = options
  if (file === undefined) {
    throw new CliError(
      "expected --server-key FILE: a client's key is made with its server's (ovpn genkey tls-crypt-v2-server FILE)",
      EXIT.usage,
    )
  }
  const serverKey = await attempt(`cannot read ${file}`, () =>
    parseServerKey(readFileSync(file, 'utf8')),
  )
  const key = randomBytes(CLIENT_KEY_BYTES)
  const wkc = sealWkc(serverKey, key, metadataOf(environment, options.metadata))
  return formatClientKey({ key, wkc })
}

function metadataOf(environment: Environment, text: string | undefined): Uint8Array {
  if (text === undefined) return timestampMetadata(environment.date().getTime() / 1000)
  const bytes = new TextEncoder().encode(text)
  if (bytes.length >= MAX_METADATA_BYTES) {
    throw new CliError(`--metadata has at most ${MAX_METADATA_BYTES - 1} bytes`, EXIT.usage)
  }
  return Uint8Array.from([MetadataType.User, ...bytes])
}
