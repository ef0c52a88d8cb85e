/** The bare wire: no tunnel, no encryption. What the kernel alone does on this machine, and the bound of what can be measured. */
import { run } from '../process.ts'
import type { Contender } from './contender.ts'

export const veth: Contender = {
  name: 'veth',
  ciphers: [],
  transports: ['udp', 'tcp'],
  workers: [],
  async unavailable() {
    return undefined
  },
  async version() {
    return `Linux ${(await run(['uname', '-r'])).trim()}`
  },
  async up({ near, far }) {
    return { near: near.address, far: far.address, processes: [] }
  },
  async down() {},
}
