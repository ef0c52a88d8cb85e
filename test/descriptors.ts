/** What a process has open: to see that nothing was left behind. */
import { readdirSync, readlinkSync } from 'node:fs'

/** Each descriptor of this process with what it is. The runtime may close, and open, some of its own meanwhile. */
export function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [`${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`]
    } catch {
      return [] // the one that the list was read from
    }
  })
}
