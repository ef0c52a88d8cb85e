/**
 * Calls on netlink sockets in random order, as `bun sequences.ts SEED` makes them: prints a line for each, with what it gave. Plainly
 * and under `ovpn run` these are the same, where no family of the driver's is named. Sockets are told by their order, for
 * their numbers differ.
 */
import { writeSync } from 'node:fs'
import { GENL_ID_CTRL } from '../../src/netlink/control.ts'
import { message, messages, NLM_F, NLMSG, readAnswer } from '../../src/netlink/message.ts'
import { AF_NETLINK, IOVEC, MSG_DONTWAIT, MSGHDR } from '../../src/platform/layout.ts'
import { openLibc } from '../../src/platform/libc.ts'
import { blockOf, createBlock } from '../../src/platform/memory.ts'
import { architecture } from '../../src/platform/seccomp.ts'
import { Random } from '../random.ts'

const STEPS = 1500
/** Fewer than `ovpn run` has room for. */
const MOST_SOCKETS = 40
const ROUTE = 0
const GENERIC = 16
const BAD_ADDRESS = 0x10
/** RTM_NEWLINK to RTM_GETROUTE, by fours: new, delete, get, set. */
const ROUTE_TYPES = [16, 17, 18, 19, 20, 21, 22, 24, 25, 26, 0, 2, 3, 0xffff]
const GENERIC_TYPES = [GENL_ID_CTRL, 0, 2, 3, 0xffff]
const NLM_F_DUMP_BITS = 0x300

const os = openLibc()
const { calls } = architecture!
const random = new Random(Number(process.argv[2]))
const one = <T>(among: readonly T[]): T => among[random.below(among.length)]!

interface Open {
  readonly fd: number
  readonly name: number
  readonly protocol: number
}
const all: Open[] = []
let opened = 0

function open(): string {
  if (all.length >= MOST_SOCKETS) return close()
  const protocol = one([ROUTE, GENERIC])
  const type = one([2, 3, 3, 3, 1, 5, 0]) | one([0, 0, 0o4000, 0o2000000])
  return taken(`socket ${type} ${protocol}`, os.socket(AF_NETLINK, type, protocol), protocol)
}

/** Says what a call gave that opens a socket. */
function taken(what: string, fd: number, protocol: number): string {
  if (fd < 0) return `${what}: ${fd}`
  all.push({ fd, name: opened++, protocol })
  return `${what}: #${opened - 1}`
}

function close(): string {
  const [{ fd, name }] = all.splice(random.below(all.length), 1) as [Open]
  return `close #${name}: ${os.close(fd)}`
}

/** A message with a random header and contents, perhaps cut, or with a length that is wrong. */
function malformed(protocol: number): Uint8Array {
  const type = one(protocol === ROUTE ? ROUTE_TYPES : GENERIC_TYPES)
  const any = NLM_F.REQUEST | (random.below(2) === 0 ? NLM_F.ACK : random.below(0x10000))
  // A list of families has the driver's in it.
  const flags = protocol === GENERIC ? any & ~NLM_F_DUMP_BITS : any
  const payload = random.bytes(random.below(80))
  if (random.below(2) === 0) payload.fill(0)
  const bytes = Buffer.from(message({ type, flags, seq: random.below(2 ** 31), pid: 0 }, payload))
  if (random.below(4) === 0) bytes.writeUInt32LE(random.below(200), 0)
  return random.below(4) === 0 ? bytes.subarray(0, random.below(bytes.length)) : bytes
}

/** All that waits: kinds of messages, and what errors say. */
function drain(fd: number): string {
  const got: string[] = []
  const room = createBlock(65536)
  for (;;) {
    const length = os.syscall(calls.recvfrom, fd, room.base, 65536, MSG_DONTWAIT, 0, 0)
    if (length < 0) return `${got.join(' ')} ${length}`
    for (const each of messages(room.u8.slice(0, length))) {
      got.push(each.type === NLMSG.ERROR ? `e${readAnswer(each).errno}` : `${each.type}`)
    }
  }
}

function send(fd: number, protocol: number): string {
  const bytes = malformed(protocol)
  const block = blockOf(bytes)
  const { length } = bytes
  const header = createBlock(MSGHDR.size + IOVEC.size)
  header.view.setBigUint64(MSGHDR.iov, BigInt(header.base + MSGHDR.size), true)
  header.view.setBigUint64(MSGHDR.iovlen, 1n, true)
  header.view.setBigUint64(MSGHDR.size + IOVEC.base, BigInt(block.base), true)
  header.view.setBigUint64(MSGHDR.size + IOVEC.len, BigInt(length), true)
  const way = random.below(3)
  let sent: number
  if (way === 0) sent = os.syscall(calls.sendto, fd, block.base, length, 0, 0, 0)
  else sent = way === 1 ? os.sendmsg(fd, header.base, 0) : os.write(fd, block.base, length)
  return `${Buffer.from(bytes).toString('hex')}: ${sent} ${drain(fd)}`
}

function bind(fd: number): string {
  const address = createBlock(12)
  address.view.setUint16(0, one([AF_NETLINK, AF_NETLINK, AF_NETLINK, 2]), true)
  address.view.setUint32(8, one([0, 0, 1, 0x11]), true) // groups
  const length = one([12, 12, 12, 8, 0, -1, 200])
  return `${length}: ${os.bind(fd, one([address.base, address.base, BAD_ADDRESS]), length)}`
}

function name(fd: number): string {
  const address = createBlock(16)
  const room = one([12, 12, 4, 0, -1])
  const length = createBlock(4)
  length.view.setInt32(0, room, true)
  const got = os.getsockname(fd, address.base, length.base)
  const family = address.view.getUint16(0, true)
  return `${room}: ${got} ${length.view.getInt32(0, true)} ${family}`
}

function setOption(fd: number): string {
  const value = createBlock(8)
  value.view.setInt32(0, random.below(4), true)
  const [level, option] = one([
    [1, 7],
    [1, 8],
    [1, 12],
    [270, 1],
    [270, 10],
    [270, 11],
    [270, 12],
    [270, 99],
    [77, 1],
  ])
  const length = one([4, 4, 4, 1, 0, -1])
  const at = one([value.base, value.base, value.base, BAD_ADDRESS])
  return `${level} ${option} ${length} ${at === BAD_ADDRESS}: ${os.setsockopt(fd, level!, option!, at, length)}`
}

function getOption(fd: number): string {
  const value = createBlock(16)
  const length = createBlock(4)
  length.view.setInt32(0, one([4, 4, 16, 1, 0, -1]), true)
  const [level, option] = one([
    [1, 3],
    [1, 39],
    [1, 38],
    [1, 4],
    [1, 20],
    [270, 10],
    [270, 11],
    [270, 99],
  ])
  const got = os.getsockopt(fd, level!, option!, value.base, length.base)
  return `${level} ${option}: ${got} ${length.view.getInt32(0, true)} ${value.view.getInt32(0, true)}`
}

for (let step = 0; step < STEPS; step++) {
  const chosen = all.length === 0 ? undefined : one(all)
  const kind = random.below(20)
  let line: string
  if (chosen === undefined || kind < 3) line = open()
  else {
    const { fd, protocol } = chosen
    const on = `#${chosen.name} `
    if (kind < 5) line = close()
    else if (kind < 6) line = taken(`dup ${on}`, os.syscall(calls.dup, fd, 0, 0, 0, 0, 0), protocol)
    else if (kind < 12) line = `send ${on}${send(fd, protocol)}`
    else if (kind < 14) line = `bind ${on}${bind(fd)}`
    else if (kind < 15) line = `name ${on}${name(fd)}`
    else if (kind < 17) line = `set ${on}${setOption(fd)}`
    else if (kind < 19) line = `get ${on}${getOption(fd)}`
    else line = `read ${on}${os.syscall(calls.recvfrom, fd, BAD_ADDRESS, 8, MSG_DONTWAIT, 0, 0)}`
  }
  writeSync(1, `${line}\n`)
}
