/** `ovpn client PROFILE`: connects to an OpenVPN server, and stays connected. */
import { readFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { openClient } from '../driver/client.ts'
import { readClientConfig } from '../openvpn/config/client-config.ts'
import { formatPlace } from '../openvpn/config/parse.ts'
import { openLibc } from '../platform/libc.ts'
import { openOwnNetns } from '../platform/netns.ts'
import { createRunningClient } from '../runtime/client.ts'
import { createDriver } from '../runtime/driver.ts'
import { files } from '../runtime/files.ts'
import { originOfNetns } from '../runtime/origin.ts'
import { VERSION } from '../runtime/version.ts'
import { type Environment, randomWord } from './compose.ts'
import { CliError } from './errors.ts'
import { formatTime } from './format.ts'

export function clientCommand(environment: Environment): Command {
  return new Command('client')
    .description('connect to an OpenVPN server')
    .argument('<profile>', 'an OpenVPN profile')
    .addOption(new Option('--workers <n>', 'threads that move packets').argParser(Number))
    .action(async (path: string, options: { workers?: number }) => {
      const log = (text: string) => environment.print(`${formatTime(environment.date())} ${text}`)
      const config = readClientConfig({ file: path, text: readFileSync(path, 'utf8') }, files)
      for (const { place, message } of config.notes) log(`${formatPlace(place)}: ${message}`)
      const driver = createDriver({ error: log, info: log, debug: () => {} }, () =>
        randomWord(environment),
      )
      const netns = openOwnNetns()
      const origin = originOfNetns(netns)
      const driverClient = await openClient({
        generic: () => driver.server.channel('generic', origin),
        route: () => driver.server.channel('route', origin),
        dialect: 'ovpn',
      })
      const running = createRunningClient(
        driverClient,
        config,
        {
          ask: () => Promise.reject(new Error('nobody can be asked')),
          version: VERSION,
          workers: options.workers,
          log,
          failed: (error) => log(String(error)),
        },
        {
          state: (name, detail) => log(detail === undefined ? name : `${name}: ${detail}`),
          connected: ({ device, v4, v6, cipher }) =>
            log(
              `Initialization Sequence Completed (${device} ${[v4, v6].filter(Boolean).join(' ')} ${cipher})`,
            ),
          rekeyed: (keyId) => log(`keys renewed: ${keyId}`),
          pending: () => {},
          disconnected: (reason) => log(`disconnected: ${reason}`),
        },
      )
      environment.onInterrupt(() => running.client.stop())
      const verdict = await running.client.run()
      await running.close()
      driverClient.close()
      await driver.close()
      openLibc().close(netns)
      if (verdict.kind !== 'stopped') throw new CliError(verdict.text)
    })
}
