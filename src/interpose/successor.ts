/**
 * Serves what a supervisor has left behind that was killed: the program goes on as on a kernel without the driver. Sockets that it
 * opens are the kernel's. On those that it has, calls fail with ENODEV, for the interfaces are gone, until it has heard so when
 * it received; then they are the kernel's, too. Whoever watches one is woken to receive.
 */
import { readlinkSync } from 'node:fs'
import { SO_DOMAIN, SOL_SOCKET } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { openNetnsOf } from '../platform/netns.ts'
import { openRelay, setBlocking } from '../platform/relay.ts'
import { architecture, type Listener } from '../platform/seccomp.ts'
import { getOption, setOption } from '../platform/sockopt.ts'
import { answer } from './foreign-epoll.ts'
import type { OpenCall } from './ledger.ts'
import { flagsOf, takeFdOf } from './process.ts'

const AF_UNIX = 1
const SO_PRIORITY = 12
const SOCK_RAW = 3
const ENODEV = 19
const FOR_EVER = -1
const RECEIVING: readonly string[] = ['recvmsg', 'recvfrom', 'recvmmsg', 'read', 'readv']
/** Of netlink. Which one a socket is of is said by an option of the program's end that means nothing there, from 1 up. */
const PROTOCOLS = [0, 16]

/** Says of the program's end of a pair which netlink protocol it is of: it tells that when all else is gone. */
export function markEnd(fd: number, protocol: number): void {
  setOption(
    openLibc(),
    fd,
    SOL_SOCKET,
    SO_PRIORITY,
    PROTOCOLS.indexOf(protocol) + 1,
    'cannot mark a socket',
  )
}

/**
 * Serves until no process has the filter any more.
 *
 * @param open calls that were received and not answered
 */
export async function succeed(listener: Listener, open: readonly OpenCall[]): Promise<void> {
  for (const call of open) serve(listener, call)
  for (;;) {
    const call = listener.receive(FOR_EVER)
    if (call === 'ended') return
    if (call !== 'none') serve(listener, { ...call, fd: call.ints[0]! })
  }
}

function serve(listener: Listener, call: OpenCall): void {
  try {
    const protocol = isAbout(call) ? protocolAt(call.tid, call.fd) : undefined
    if (protocol === undefined) {
      listener.pass(call)
      return
    }
    if (receives(call)) replace(listener, call, protocol)
  } catch {
    // The process has ended, or is none that may be looked into.
  }
  listener.fail(call, ENODEV)
}

/** Puts a socket of the kernel's in the place of one that was emulated. */
function replace(listener: Listener, call: OpenCall, protocol: number): void {
  const { tid, fd } = call
  const os = openLibc()
  const { blocking, cloexec } = flagsOf(tid, fd)
  const netns = openNetnsOf(tid)
  try {
    using socket = openRelay(SOCK_RAW, protocol, netns)
    setBlocking(socket.fd, blocking)
    // Who watches the old one, that of a child too, would hear of its end for ever.
    answer({ forget: { tid, fd }, number: 0 })
    listener.giveFd(call, socket.fd, fd, { cloexec, answer: false })
  } finally {
    os.close(netns)
  }
}

/** Whether it is about a netlink socket that is there already. */
function isAbout({ nr }: OpenCall): boolean {
  const { socket, fcntl, dup, dup2, dup3 } = architecture!.calls
  return ![socket, fcntl, dup, dup2, dup3].includes(nr)
}

function receives({ nr }: OpenCall): boolean {
  return Object.entries(architecture!.calls).some(([name, one]) => {
    return one === nr && RECEIVING.includes(name)
  })
}

/** Which kind of netlink an emulated socket was of; undefined where there is none. */
function protocolAt(tid: number, fd: number): number | undefined {
  const os = openLibc()
  let own: number
  try {
    own = takeFdOf(tid, fd)
  } catch {
    return undefined
  }
  try {
    if (!readlinkSync(`/proc/self/fd/${own}`).startsWith('socket:')) return undefined
    if (getOption(os, own, SOL_SOCKET, SO_DOMAIN, 'cannot tell its kind') !== AF_UNIX) {
      return undefined
    }
    const mark = getOption(os, own, SOL_SOCKET, SO_PRIORITY, 'cannot tell its kind')
    return PROTOCOLS[mark - 1]
  } finally {
    os.close(own)
  }
}
