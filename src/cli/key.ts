/** `ovpn key`: keys of peers. Key material comes from a file, the environment or standard input, never as an argument. */
import { readFileSync, writeFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { json } from '../uapi/dialects/json.ts'
import { EPOCH_SECRET_BYTES, keyFormat, keySlot } from '../uapi/spec.ts'
import type { KeyFormat, KeyInfo, Slot } from '../uapi/types.ts'
import { dataKeys } from '../wire/keys.ts'
import { formatStaticKey } from '../wire/static-key.ts'
import { type CipherChoice, cipher, device, direction, keyId, peerId } from './arguments.ts'
import type { Environment } from './compose.ts'
import { attempt, CliError, EXIT } from './errors.ts'
import { formatKeyInfo, toJson } from './format.ts'
import { KEY_FILE_BYTES, parseKeyFile } from './key-file.ts'
import { type DriverOptions, useDevice, withDriver, withExamples, withJson } from './options.ts'

interface SlotOptions extends DriverOptions {
  slot: Slot
}

interface NewOptions extends SlotOptions {
  id: number
  cipher: CipherChoice
  direction: 0 | 1
  format: KeyFormat
  keyFile?: string
  keyEnv?: string
}

const slotOption = () =>
  new Option('--slot <slot>', 'which of the two').choices(keySlot).default('primary')

export function keyCommand(environment: Environment): Command {
  const add = new Command('new')
    .alias('add')
    .description('give a peer a key, in place of what is in the slot')
    .argument('<dev>', 'interface: name or index', device)
    .argument('<peer>', 'peer id', peerId)
    .addOption(slotOption())
    .requiredOption('--id <n>', 'key id in packets, 0 to 7', keyId)
    .requiredOption(
      '--cipher <name>',
      'aes-256-gcm, aes-192-gcm, aes-128-gcm, chacha20-poly1305',
      cipher,
    )
    .requiredOption(
      '--direction <0|1>',
      'which end this is: 0 as a client, 1 as a server',
      direction,
    )
    .option(
      '--key-file <file>',
      'key material: 256 raw bytes or 512 hexadecimal digits; - for stdin',
    )
    .addOption(
      new Option('--format <format>', 'form of data packets; epoch is that of OpenVPN 2.7')
        .choices(keyFormat)
        .default('classic'),
    )
    .option('--key-env <name>', 'environment variable with the 512 hexadecimal digits')
    .action(async (name: string, peer: number, options: NewOptions) => {
      const key = readKey(options)
      const { format } = options
      const keySize = options.cipher.keyBytes
      const epoch = format === 'epoch'
      const role = options.direction === 0 ? 'client' : 'server'
      const directions = dataKeys(key, role, epoch ? EPOCH_SECRET_BYTES : keySize)
      key.fill(0)
      try {
        await useDevice(environment, options, name, async (client, ifindex) => {
          const { slot, id, cipher } = options
          await attempt(`cannot give peer ${peer} of ${name} a key`, () =>
            client.keyNew(ifindex, {
              peerId: peer,
              slot,
              keyId: id,
              cipherAlg: cipher.alg,
              ...directions,
              ...(epoch && { format, keySize }),
            }),
          )
        })
      } finally {
        directions.encryptDir.cipherKey.fill(0)
        directions.decryptDir.cipherKey.fill(0)
      }
    })

  const get = new Command('get')
    .alias('show')
    .description('tell which key is in a slot; never its material')
    .argument('<dev>', 'interface: name or index', device)
    .argument('<peer>', 'peer id', peerId)
    .addOption(slotOption())
    .action((name: string, peer: number, options: SlotOptions) =>
      useDevice(environment, options, name, async (client, ifindex) => {
        const key: KeyInfo = await attempt(`cannot read the key of peer ${peer} of ${name}`, () =>
          client.keyGet(ifindex, peer, options.slot),
        )
        environment.print(
          options.json ? toJson(json.encodeReply('key-get', key)) : formatKeyInfo(key),
        )
      }),
    )

  const swap = new Command('swap')
    .description('make the secondary key the primary, and the primary the secondary')
    .argument('<dev>', 'interface: name or index', device)
    .argument('<peer>', 'peer id', peerId)
    .action((name: string, peer: number, options: DriverOptions) =>
      useDevice(environment, options, name, async (client, ifindex) => {
        await attempt(`cannot swap the keys of peer ${peer} of ${name}`, () =>
          client.keySwap(ifindex, peer),
        )
      }),
    )

  const del = new Command('del')
    .alias('delete')
    .description('empty a slot')
    .argument('<dev>', 'interface: name or index', device)
    .argument('<peer>', 'peer id', peerId)
    .addOption(slotOption())
    .action((name: string, peer: number, options: SlotOptions) =>
      useDevice(environment, options, name, async (client, ifindex) => {
        await attempt(`cannot remove the key of peer ${peer} of ${name}`, () =>
          client.keyDel(ifindex, peer, options.slot),
        )
      }),
    )

  const generate = new Command('generate')
    .description('make key material for both ends of a peer')
    .argument('[file]', 'a new file, readable by its owner only; - for stdout', '-')
    .action(async (file: string) => {
      const key = environment.randomBytes(KEY_FILE_BYTES)
      const text = formatStaticKey(key)
      key.fill(0)
      if (file === '-') return environment.print(text.trimEnd())
      await attempt(`cannot write ${file}`, () =>
        writeFileSync(file, text, { flag: 'wx', mode: 0o600 }),
      )
    })

  withExamples(
    withDriver(add),
    'ovpn key generate peer1.key',
    'ovpn key new ovpn0 1 --id 0 --cipher aes-256-gcm --direction 1 --key-file peer1.key',
  )
  withExamples(withJson(withDriver(get)), 'ovpn key get ovpn0 1 --slot secondary --json')
  withExamples(
    withDriver(swap),
    'ovpn key new ovpn0 1 --slot secondary --id 1 --cipher aes-256-gcm --direction 1 --key-file next.key',
    'ovpn key swap ovpn0 1',
  )
  withExamples(withDriver(del), 'ovpn key del ovpn0 1 --slot secondary')
  withExamples(
    generate,
    'ovpn key generate peer1.key',
    'ovpn key generate | ssh host "cat > peer1.key"',
  )
  return new Command('key')
    .description('give peers keys, swap them, take them away')
    .addCommand(add)
    .addCommand(get)
    .addCommand(swap)
    .addCommand(del)
    .addCommand(generate)
}

/** The 256 bytes that the options name. */
function readKey({ keyFile, keyEnv }: NewOptions): Uint8Array {
  if ((keyFile === undefined) === (keyEnv === undefined)) {
    throw new CliError('expected one of --key-file and --key-env', EXIT.usage)
  }
  let content: Uint8Array
  let from: string
  if (keyEnv !== undefined) {
    const value = process.env[keyEnv]
    if (value === undefined) throw new CliError(`there is no environment variable ${keyEnv}`)
    content = Buffer.from(value)
    from = `$${keyEnv}`
  } else {
    from = keyFile === '-' ? 'standard input' : keyFile!
    try {
      content = readFileSync(keyFile === '-' ? 0 : keyFile!)
    } catch (error) {
      throw new CliError(`cannot read key material: ${(error as Error).message}`)
    }
  }
  try {
    return parseKeyFile(content)
  } catch (error) {
    throw new CliError(`no key material in ${from}: ${(error as Error).message}`)
  } finally {
    content.fill(0)
  }
}
