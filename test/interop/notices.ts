/** What a service manager hears: a unix socket for datagrams, as systemd's in $NOTIFY_SOCKET. Source: sd_notify(3). */
import { check } from '../../src/platform/error.ts'
import { AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK } from '../../src/platform/layout.ts'
import { openLibc } from '../../src/platform/libc.ts'
import { blockOf, createBlock } from '../../src/platform/memory.ts'

export interface Notices extends Disposable {
  /** All that has come so far: lines of `NAME=value`. */
  text(): string
}

const SOCK_DGRAM = 2
const MAX_BYTES = 4096

/** @param path of the socket, at most 107 bytes; it is made anew */
export function listenForNotices(path: string): Notices {
  const os = openLibc()
  const type = SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK
  const fd = check(os.socket(AF_UNIX, type, 0), 'socket', 'cannot open a unix socket')
  const address = Buffer.from(`\0\0${path}\0`)
  address.writeUInt16LE(AF_UNIX)
  check(os.bind(fd, blockOf(address).base, address.length), 'bind', path)
  const datagram = createBlock(MAX_BYTES)
  let text = ''
  return {
    text() {
      for (;;) {
        const got = os.read(fd, datagram.base, MAX_BYTES)
        if (got < 0) return text
        text += `${Buffer.from(datagram.u8.subarray(0, got)).toString()}\n`
      }
    },
    [Symbol.dispose]: () => os.close(fd),
  }
}
