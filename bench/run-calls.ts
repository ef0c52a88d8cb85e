/** The program that run-cost.ts measures with: times calls on sockets, and prints microseconds as JSON. */
import { encodeGetFamily, GENL_ID_CTRL } from '../src/netlink/control.ts'
import { message, NLM_F } from '../src/netlink/message.ts'
import { SOCK_RAW } from '../src/platform/layout.ts'
import { openLibc } from '../src/platform/libc.ts'
import { createBlock } from '../src/platform/memory.ts'
import { openOwnNetns } from '../src/platform/netns.ts'
import { openRelay, type Received } from '../src/platform/relay.ts'
import { openUdp } from '../src/platform/udp.ts'

const NETLINK_GENERIC = 16
const TIMES = 3000

const netlink = openRelay(SOCK_RAW, NETLINK_GENERIC, openOwnNetns())
const udp = openUdp('0.0.0.0', 0)
const header = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST | NLM_F.ACK, seq: 1, pid: 0 }
const request = message(header, encodeGetFamily('nlctrl'))

console.log(
  JSON.stringify({
    getsockname: named(netlink.fd),
    request: timed(() => {
      check(netlink.send(request))
      check(netlink.receive())
      check(netlink.receive())
    }),
    untouched: named(udp.fd),
  }),
)

function named(fd: number): number {
  const os = openLibc()
  const name = createBlock(128)
  const room = createBlock(4)
  return timed(() => {
    room.view.setUint32(0, 128, true)
    check(os.getsockname(fd, name.base, room.base))
  })
}

function check(result: number | Received): void {
  if (typeof result === 'number' && result < 0) throw new Error(`a call failed: errno ${-result}`)
}

/** Microseconds that `work` takes. */
function timed(work: () => void): number {
  for (let i = 0; i < TIMES / 10; i++) work()
  const start = performance.now()
  for (let i = 0; i < TIMES; i++) work()
  return ((performance.now() - start) * 1000) / TIMES
}
