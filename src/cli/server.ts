/** `ovpn server CONFIG`: an OpenVPN server, from an ordinary configuration file. */
import { readFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { openClient } from '../driver/client.ts'
import { formatPlace } from '../openvpn/config/parse.ts'
import { readServerConfig } from '../openvpn/config/server-config.ts'
import { openLibc } from '../platform/libc.ts'
import { openOwnNetns } from '../platform/netns.ts'
import { openConfiguredServer } from '../runtime/configured-server.ts'
import { createDriver } from '../runtime/driver.ts'
import { files } from '../runtime/files.ts'
import { originOfNetns } from '../runtime/origin.ts'
import { type Environment, randomWord } from './compose.ts'
import { formatTime } from './format.ts'

export function serverCommand(environment: Environment): Command {
  return new Command('server')
    .description('run an OpenVPN server')
    .argument('<config>', 'an OpenVPN configuration file')
    .addOption(new Option('--workers <n>', 'threads that move packets').argParser(Number))
    .action(async (path: string, options: { workers?: number }) => {
      const log = (text: string) => environment.print(`${formatTime(environment.date())} ${text}`)
      const config = readServerConfig({ file: path, text: readFileSync(path, 'utf8') }, files)
      for (const { place, message } of config.notes) log(`${formatPlace(place)}: ${message}`)
      const driver = createDriver({ error: log, info: log, debug: () => {} }, () =>
        randomWord(environment),
      )
      const netns = openOwnNetns()
      const origin = originOfNetns(netns)
      const client = await openClient({
        generic: () => driver.server.channel('generic', origin),
        route: () => driver.server.channel('route', origin),
        dialect: 'ovpn',
      })
      const running = await openConfiguredServer(client, config, {
        policy: {},
        workers: options.workers,
        log,
        failed: (error) => log(String(error)),
        signal: () => {},
      })
      for (const { protocol, address, port } of running.listening) {
        log(`listening at ${protocol} ${address} port ${port}`)
      }
      log(`Initialization Sequence Completed (${running.data.name})`)
      await new Promise<void>((resolve) => environment.onInterrupt(resolve))
      await running.close()
      client.close()
      await driver.close()
      openLibc().close(netns)
    })
}
