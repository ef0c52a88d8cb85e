/**
 * A server inside a program that decides itself who may come: names and passwords from a table, an address for each.
 *
 *     bun examples/server.ts FOLDER        FOLDER as `ovpn server` makes it (npm start)
 *
 * Profiles of clients need a line `auth-user-pass`, so that they ask for a name and a password.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createServer } from 'ovpn'

const folder = process.argv[2] ?? 'ovpn-server'

/** Stands for a database. */
const users = new Map([
  ['alice', { password: 'wonderland', address: '10.8.0.10' }],
  ['bob', { password: 'builder', address: '10.8.0.11' }],
])

const server = await createServer({
  config: readFileSync(join(folder, 'server.conf'), 'utf8'),
  folder,
  async authenticate({ username, password }) {
    const user = users.get(username)
    if (user?.password === password) {
      return { allow: true, commonName: username, settings: { v4: user.address } }
    }
    return {
      allow: false,
      failure: { reason: 'denied', text: 'no such user, or a wrong password' },
    }
  },
  async admit({ commonName }) {
    const option = `route 10.66.${commonName.length}.0 255.255.255.0`
    return { allow: true, settings: { pushChanges: [{ kind: 'push', option }] } }
  },
})

server.on('connected', ({ commonName, v4, cipher }) => {
  console.log(`${commonName} has ${v4}, ${cipher}`)
})
server.on('disconnected', ({ commonName }, { reason, bytesReceived, bytesSent }) => {
  console.log(`${commonName} has gone: ${reason}; ${bytesReceived} bytes in, ${bytesSent} out`)
})
console.log(`listening on ${server.device}`)

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, async () => {
    await server.close()
    process.exit(0)
  })
}
