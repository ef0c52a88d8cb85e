/** What a program gets from the package `ovpn` in Node: the client of the driver. The rest needs Bun, and says so. */
export * from './driver-client.ts'

const NEEDS_BUN =
  "needs Bun, which can call the system's libraries: run the program with 'npx bun FILE'"

export function createServer(): Promise<never> {
  return Promise.reject(new Error(`createServer ${NEEDS_BUN}`))
}

export function connect(): Promise<never> {
  return Promise.reject(
    new Error(`connect ${NEEDS_BUN}; for the driver's client, use connectDriver`),
  )
}
