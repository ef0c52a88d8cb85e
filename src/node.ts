/** What a program gets from the package `ovpn` in Node: the client of the driver. The rest needs Bun, and says so. */
export * from './driver-client.ts'

export function createServer(): Promise<never> {
  return Promise.reject(needsBun('createServer', ''))
}

export function connect(): Promise<never> {
  return Promise.reject(needsBun('connect', "; for the driver's client, use connectDriver"))
}

function needsBun(what: string, instead: string): Error {
  const message = `${what} needs Bun, which can call the system's libraries: run the program with 'npx bun FILE'${instead}`
  return Object.assign(new Error(message), { code: 'NEEDS_BUN' })
}
