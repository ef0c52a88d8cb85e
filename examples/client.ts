/**
 * A client inside a program: connects with a profile and a name, tells what it got, and prints its traffic every second.
 *
 *     bun examples/client.ts PROFILE [USER PASSWORD]
 */
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { ConnectError, connect } from 'ovpn'

const [profile = 'client.ovpn', username = '', password = ''] = process.argv.slice(2)

try {
  const connection = await connect({
    profile: readFileSync(profile, 'utf8'),
    folder: dirname(profile),
    ask: async () => ({ username, text: password }),
  })
  const { device, v4, server, cipher } = connection.connection!
  console.log(`connected to ${server.address}: ${device} ${v4}, ${cipher}`)

  const timer = setInterval(async () => {
    const counters = await connection.statistics()
    if (counters !== undefined) console.log(`${counters.vpnRxBytes} in, ${counters.vpnTxBytes} out`)
  }, 1000)
  connection.on('disconnected', (reason) => console.log(`connecting anew: ${reason}`))
  connection.on('closed', ({ kind }) => {
    clearInterval(timer)
    console.log(`ended: ${kind}`)
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => connection.close())
} catch (error) {
  if (!(error instanceof ConnectError)) throw error
  console.error(`${error.code}: ${error.message}`)
  process.exitCode = 1
}
