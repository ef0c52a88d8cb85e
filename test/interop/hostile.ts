/**
 * Programs that use netlink sockets as none should, to be run under `ovpn run`: `bun hostile.ts MISUSE`. Each fails where it does not
 * get what the kernel would give it, asks in the end for a family as programs do, and prints `survived`.
 */
import assert from 'node:assert/strict'
import { openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { FD_COUNT, FIRST_FD } from '../../src/interpose/filter.ts'
import { decodeFamily, encodeGetFamily, GENL_ID_CTRL } from '../../src/netlink/control.ts'
import { message, messages, NLM_F, NLMSG, readAnswer } from '../../src/netlink/message.ts'
import { AF_NETLINK, E, IOVEC, MMSGHDR, MSG_DONTWAIT, MSGHDR } from '../../src/platform/layout.ts'
import { openLibc } from '../../src/platform/libc.ts'
import { type Block, blockOf, createBlock } from '../../src/platform/memory.ts'
import { architecture, execute, writeMemory } from '../../src/platform/seccomp.ts'
import { Random } from '../random.ts'
import { until } from './programs.ts'
import { keeperOf, supervisorOf } from './supervisor.ts'

const os = openLibc()
const { calls } = architecture!
const ROUTE = 0
const GENERIC = 16
const EBADF = 9
const EMFILE = 24
const ENOPROTOOPT = 92
const ECONNREFUSED = 111
const SOL_SOCKET = 1
const SO_ATTACH_FILTER = 26
const SO_RCVTIMEO = 20
const RTM_GETLINK = 18
const MAX_SEND_BYTES = 1 << 20
const SEED = 7

/** A netlink socket, call by call: results are the kernel's, -errno where it fails. */
class Netlink {
  readonly fd: number

  constructor(protocol = GENERIC, fd = os.socket(AF_NETLINK, 3, protocol)) {
    this.fd = fd
    assert.ok(fd >= 0, `socket: ${fd}`)
  }

  send(bytes: Uint8Array): number {
    return os.syscall(calls.sendto, this.fd, blockOf(bytes).base, bytes.length, 0, 0, 0)
  }

  receive(flags = MSG_DONTWAIT): Uint8Array | number {
    const room = createBlock(65536)
    const got = os.syscall(calls.recvfrom, this.fd, room.base, 65536, flags, 0, 0)
    return got < 0 ? got : room.u8.slice(0, got)
  }

  /** Everything that waits. */
  drain(): number {
    for (let count = 0; ; ) {
      const got = this.receive()
      if (typeof got !== 'number') count++
      else if (got === -E.EAGAIN) return count
      else assert.equal(got, -E.ENOBUFS)
    }
  }

  /** The errno that asking for a family of that name gives, 0 where there is one. */
  ask(name = 'ovpn', seq = 1): number {
    const header = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, seq, pid: 0 }
    const request = message(header, encodeGetFamily(name))
    assert.equal(this.send(request), request.length)
    const reply = this.receive(0)
    assert.ok(typeof reply !== 'number', `recvfrom: ${reply}`)
    const [first] = messages(reply)
    assert.equal(first!.seq, seq)
    return first!.type === NLMSG.ERROR ? readAnswer(first!).errno : 0
  }

  close(): void {
    assert.equal(os.close(this.fd), 0)
  }
}

function isServed(): void {
  const socket = new Netlink()
  assert.equal(socket.ask('ovpn'), 0)
  assert.equal(socket.ask('no-such-family'), E.ENOENT)
  socket.close()
}

/** A `msghdr` of one piece, as a block whose fields may be spoiled. */
function header(base: number, length: number): Block {
  const block = createBlock(MSGHDR.size + IOVEC.size)
  block.view.setBigUint64(MSGHDR.iov, BigInt(block.base + MSGHDR.size), true)
  block.view.setBigUint64(MSGHDR.iovlen, 1n, true)
  block.view.setBigUint64(MSGHDR.size + IOVEC.base, BigInt(base), true)
  block.view.setBigUint64(MSGHDR.size + IOVEC.len, BigInt(length), true)
  return block
}

/** The number of one of the driver's families. */
function numberOf(family: string): number {
  const socket = new Netlink()
  const header = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, seq: 1, pid: 0 }
  socket.send(message(header, encodeGetFamily(family)))
  const [reply] = messages(socket.receive(0) as Uint8Array)
  socket.close()
  return decodeFamily(reply!.payload).id
}

/** Messages with wrong lengths and random contents, to the driver's families and about links, addresses and routes. */
function malformed(): void {
  const random = new Random(SEED)
  const generic = new Netlink(GENERIC)
  const route = new Netlink(ROUTE)
  const families = [GENL_ID_CTRL, numberOf('ovpn'), numberOf('ovpn-dco-v2'), 0xffff]
  const types = [16, 18, 19, 20, 21, 22, 24, 25, 26, 0xffff]
  for (let i = 0; i < 1500; i++) {
    const payload = random.bytes(random.below(120))
    const flags = NLM_F.REQUEST | (random.below(2) === 0 ? NLM_F.ACK : random.below(0x10000))
    const [socket, among] = random.below(2) === 0 ? [generic, families] : [route, types]
    const type = among[random.below(among.length)]!
    const bytes = Buffer.from(message({ type, flags, seq: i, pid: 0 }, payload))
    if (random.below(3) === 0) bytes.writeUInt32LE(random.below(2 ** 32), 0)
    const cut = random.below(4) === 0 ? bytes.subarray(0, random.below(bytes.length)) : bytes
    const sent = socket.send(cut)
    assert.ok(sent === cut.length || [-E.EINVAL, -61].includes(sent), `${cut.length}: ${sent}`)
    if (i % 50 === 0) for (const one of [generic, route]) one.drain()
  }
  assert.equal(generic.send(new Uint8Array(MAX_SEND_BYTES + 1)), -E.EMSGSIZE)
  for (const one of [generic, route]) one.drain()
  assert.equal(generic.ask(), 0)
}

/** Addresses where nothing is, and lengths beyond all bounds. */
function pointers(): void {
  const { fd } = new Netlink()
  const bad = 0x10
  const call = (nr: number, ...args: number[]) => {
    const [a = 0, b = 0, c = 0, d = 0, e = 0] = args
    return os.syscall(nr, fd, a, b, c, d, e)
  }
  const many = header(0, 0)
  many.view.setBigUint64(MSGHDR.iovlen, 1025n, true)
  const endless = header(0, 0)
  endless.view.setBigUint64(MSGHDR.iovlen, 2n ** 62n, true)
  const here = createBlock(64)
  const negative = blockOf(new Uint8Array([255, 255, 255, 255]))
  const elsewhere = createBlock(12)
  const tests: [what: string, result: number, expected: number][] = [
    ['sendto', call(calls.sendto, bad, 64), -E.EFAULT],
    ['sendto, from the kernel', call(calls.sendto, -4096, 64), -E.EFAULT],
    ['sendto, to an address nowhere', call(calls.sendto, here.base, 64, 0, bad, 12), -E.EFAULT],
    ['sendto, no netlink', call(calls.sendto, here.base, 64, 0, elsewhere.base, 12), -E.EINVAL],
    ['sendmsg', call(calls.sendmsg, bad), -E.EFAULT],
    ['sendmsg, piece', call(calls.sendmsg, header(bad, 64).base), -E.EFAULT],
    ['sendmsg, many pieces', call(calls.sendmsg, many.base), -E.EMSGSIZE],
    ['sendmsg, endless pieces', call(calls.sendmsg, endless.base), -E.EMSGSIZE],
    ['sendmsg, endless piece', call(calls.sendmsg, header(here.base, 2 ** 40).base), -E.EMSGSIZE],
    ['bind', call(calls.bind, bad, 12), -E.EFAULT],
    ['getsockname', call(calls.getsockname, bad, bad), -E.EFAULT],
    ['getsockname, length', call(calls.getsockname, here.base, negative.base), -E.EINVAL],
    ['setsockopt', call(calls.setsockopt, 270, 11, bad, 4), -E.EFAULT],
    ['setsockopt, length', call(calls.setsockopt, 270, 11, here.base, -1), -E.EINVAL],
    ['getsockopt', call(calls.getsockopt, SOL_SOCKET, 3, bad, bad), -E.EFAULT],
    // What this points to would be the supervisor's.
    ['filter', call(calls.setsockopt, SOL_SOCKET, SO_ATTACH_FILTER, here.base, 16), -ENOPROTOOPT],
  ]
  elsewhere.view.setUint16(0, AF_NETLINK, true)
  elsewhere.view.setUint32(4, 1, true)
  const other = call(calls.sendto, here.base, 64, 0, elsewhere.base, 12)
  tests.push(['sendto, to another program', other, -ECONNREFUSED])
  for (const [what, result, expected] of tests) assert.equal(result, expected, what)

  const socket = new Netlink(GENERIC, fd)
  const request = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, seq: 3, pid: 0 }
  socket.send(message(request, encodeGetFamily('ovpn')))
  assert.equal(call(calls.recvmsg, bad, MSG_DONTWAIT), -E.EFAULT)
  assert.equal(call(calls.recvfrom, bad, 64, MSG_DONTWAIT), -E.EFAULT)
  socket.drain()
  assert.equal(socket.ask(), 0)
}

/** Descriptors that are duplicated, closed in odd orders, run out of, and replaced. */
function descriptors(): void {
  const dup2 = (from: number, to: number) => os.dup3(from, to, 0)
  const first = new Netlink()
  const second = os.syscall(calls.dup, first.fd, 0, 0, 0, 0, 0)
  const third = os.fcntl(first.fd, 0, FIRST_FD + 40)
  assert.ok(second > first.fd && third >= FIRST_FD + 40, `${second} ${third}`)
  assert.equal(dup2(first.fd, 700), -EBADF, 'no netlink socket there')
  assert.equal(dup2(first.fd, FIRST_FD + 63), FIRST_FD + 63)
  first.close()
  assert.equal(new Netlink(GENERIC, third).ask(), 0)
  os.close(third)
  assert.equal(new Netlink(GENERIC, second).ask(), 0)
  os.close(second)
  assert.equal(new Netlink(GENERIC, FIRST_FD + 63).ask(), 0)
  // In place of a socket, and on a number that sockets get: something of the program's own.
  const pipe = os.eventfd(1, 0)
  assert.equal(dup2(pipe, FIRST_FD + 63), FIRST_FD + 63)
  assert.equal(os.read(FIRST_FD + 63, createBlock(8).base, 8), 8)
  assert.equal(os.syscall(calls.sendto, FIRST_FD + 63, 0, 0, 0, 0, 0), -88, 'ENOTSOCK')
  assert.ok(os.fcntl(FIRST_FD + 63, 0, 3) < FIRST_FD, 'duplicated as any other')
  os.close(FIRST_FD + 63)
  // As many as there may be, and one more.
  const all: Netlink[] = []
  for (let i = 0; i < FD_COUNT; i++) all.push(new Netlink(i % 2 === 0 ? GENERIC : ROUTE))
  assert.equal(os.socket(AF_NETLINK, 3, GENERIC), -EMFILE)
  for (const one of all.filter((_, i) => i % 3 === 0)) one.close()
  assert.equal(all[1]!.send(new Uint8Array(16)), 16)
  for (const one of all.filter((_, i) => i % 3 !== 0)) one.close()
  for (let i = 0; i < 1500; i++) new Netlink(i % 2 === 0 ? GENERIC : ROUTE).close()
}

/** Asks and never reads, until the kernel would say that something was lost. */
function deaf(): void {
  const route = new Netlink(ROUTE)
  const flags = NLM_F.REQUEST | NLM_F.DUMP
  const links = message({ type: RTM_GETLINK, flags, seq: 1, pid: 0 }, new Uint8Array(16))
  const generic = new Netlink(GENERIC)
  const header = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, seq: 1, pid: 0 }
  const family = message(header, encodeGetFamily('ovpn'))
  for (let i = 0; i < 3000; i++) {
    if (i % 10 === 0) route.send(links) // EBUSY once a dump waits
    assert.equal(generic.send(family), family.length)
  }
  assert.equal(generic.receive(), -E.ENOBUFS)
  assert.ok(generic.drain() > 100)
  assert.equal(generic.ask(), 0)
  route.drain()
}

/** Calls in a row from several threads at once, while another waits for answers as programs do. */
async function flood(): Promise<void> {
  const threads = Array.from({ length: 3 }, () => startThread('flooding'))
  const slowest = { ms: 0 }
  for (let i = 0; i < 100; i++) {
    const from = performance.now()
    isServed()
    slowest.ms = Math.max(slowest.ms, performance.now() - from)
  }
  for (const { worker } of threads) await worker.terminate()
  writeSync(1, `slowest ${Math.round(slowest.ms)} ms\n`)
  assert.ok(slowest.ms < 5000)
}

/** Memory that another thread changes while a call is carried out. */
async function changing(): Promise<void> {
  const whole = message(
    { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, seq: 1, pid: 0 },
    encodeGetFamily('ovpn'),
  )
  const socket = new Netlink()
  const bytes = blockOf(whole)
  const block = header(bytes.base, whole.length)
  const { worker, ready } = startThread('changing', bytes.base)
  await ready
  for (let i = 0; i < 3000; i++) {
    const sent = os.sendmsg(socket.fd, block.base, 0)
    assert.ok(sent === whole.length || sent < 0, `${sent}`)
    if (i % 20 === 0) socket.drain()
  }
  assert.notDeepEqual(bytes.u8.subarray(0, whole.length), whole, 'it was changed')
  socket.drain()
  await worker.terminate()
}

/** Sent around the filter, from a file: it fails, and the socket goes on. */
function around(): void {
  const sendfile = process.arch === 'arm64' ? 71 : 40
  const file = openSync(import.meta.path, 'r')
  const socket = new Netlink()
  assert.equal(os.syscall(sendfile, socket.fd, file, 0, 64, 0, 0), -EPIPE)
  assert.equal(socket.ask(), 0)
  assert.equal(socket.receive(), -E.EAGAIN)
  socket.close()
}

const EPIPE = 32

/** The calls of files, and those for several messages at once, do what the calls of sockets do. */
function files(): void {
  const generic = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, pid: 0 }
  const ask = (seq: number) => message({ ...generic, seq }, encodeGetFamily('ovpn'))
  const one = blockOf(ask(1))
  const size = one.u8.length
  const into = createBlock(4096)
  const socket = new Netlink()
  const { fd } = socket
  const seqAt = (at = 0) => into.view.getUint32(at + 8, true)
  assert.equal(os.write(fd, one.base, size), size)
  assert.equal(os.read(fd, into.base, 4096) > size && seqAt(), 1)
  assert.equal(os.write(fd, 0x10, 64), -E.EFAULT)
  assert.equal(os.read(fd, 0x10, 0), 0)

  // In two pieces, there and back.
  const pieces = (base: number, ...lengths: number[]) => {
    const vector = createBlock(lengths.length * IOVEC.size)
    let from = base
    for (const [i, length] of lengths.entries()) {
      vector.view.setBigUint64(i * IOVEC.size + IOVEC.base, BigInt(from), true)
      vector.view.setBigUint64(i * IOVEC.size + IOVEC.len, BigInt(length), true)
      from += length
    }
    return vector
  }
  const two = blockOf(ask(2))
  assert.equal(os.writev(fd, pieces(two.base, 7, size - 7).base, 2), size)
  assert.equal(os.readv(fd, pieces(into.base, 3, 4000).base, 2) > size && seqAt(), 2)
  assert.equal(os.writev(fd, two.base, 1025), -E.EINVAL)

  // Several messages: those before one that fails are sent.
  const several = createBlock(4 * MMSGHDR.size)
  const fill = (i: number, base: number, length: number) => {
    const { u8 } = header(base, length)
    several.u8.set(u8.subarray(0, MSGHDR.size), i * MMSGHDR.size)
    const vector = pieces(base, length)
    held.push(vector)
    several.view.setBigUint64(i * MMSGHDR.size + MSGHDR.iov, BigInt(vector.base), true)
  }
  const held: Block[] = []
  const requests = [3, 4, 5].map((seq) => blockOf(ask(seq)))
  for (const [i, { base }] of requests.entries()) fill(i, base, size)
  fill(3, 0x10, size)
  const lengthOf = (i: number) => several.view.getUint32(i * MMSGHDR.size + MMSGHDR.len, true)
  assert.equal(os.sendmmsg(fd, several.base, 4, 0), 3)
  assert.deepEqual([0, 1, 2].map(lengthOf), [size, size, size])
  assert.equal(os.sendmmsg(fd, several.base + 3 * MMSGHDR.size, 1, 0), -E.EFAULT)
  for (let i = 0; i < 4; i++) fill(i, into.base + 1000 * i, 1000)
  assert.equal(os.recvmmsg(fd, several.base, 2, 0), 2)
  assert.deepEqual([seqAt(), seqAt(1000)], [3, 4])
  assert.equal(os.recvmmsg(fd, several.base, 4, MSG_WAITFORONE), 1)
  assert.ok(lengthOf(0) > size && seqAt() === 5)
  assert.equal(os.recvmmsg(fd, several.base, 4, MSG_DONTWAIT), -E.EAGAIN)

  os.fcntl(fd, F_SETFL, O_NONBLOCK)
  assert.equal(os.read(fd, into.base, 4096), -E.EAGAIN)
  socket.close()
}

const MSG_WAITFORONE = 0x10000
const F_SETFL = 4
const O_NONBLOCK = 0o4000

/** Receiving ends when its time is over. */
function patience(): void {
  const socket = new Netlink()
  const timeout = createBlock(16)
  timeout.view.setBigInt64(8, 200_000n, true)
  const { setsockopt } = os
  assert.equal(setsockopt(socket.fd, SOL_SOCKET, SO_RCVTIMEO, timeout.base, 16), 0)
  const from = performance.now()
  assert.equal(socket.receive(0), -E.EAGAIN)
  const ms = performance.now() - from
  assert.ok(ms >= 190 && ms < 3000, `${ms} ms`)
}

/** Becomes a shell that starts several processes with one socket. */
function handing(): void {
  const { fd } = new Netlink()
  const one = `"$1" "$2" sharing ${fd}`
  const script = `${one} & a=$!; ${one} & b=$!; wait $a && wait $b && echo shared`
  const environment = readFileSync('/proc/self/environ')
  execute('/bin/sh', ['sh', '-c', script, 'sh', process.execPath, Bun.main], environment)
}

/** One of several processes with the same socket, at descriptor `$1`. */
function sharing(): void {
  const socket = new Netlink(GENERIC, Number(process.argv[3]))
  const header = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, seq: process.pid, pid: 0 }
  const request = message(header, encodeGetFamily('ovpn'))
  for (let i = 0; i < 200; i++) {
    assert.equal(socket.send(request), request.length)
    const reply = socket.receive(0) // that of either
    assert.ok(typeof reply !== 'number', `recvfrom: ${reply}`)
    assert.equal([...messages(reply)][0]!.type, GENL_ID_CTRL)
  }
}

/** Ends, or waits to be killed, in the middle of something. */
function leaving(): void {
  const socket = new Netlink(Number(process.argv[3]) % 2 === 0 ? GENERIC : ROUTE)
  const way = Number(process.argv[3]) >> 1
  writeSync(1, 'leaving\n')
  if (way === 0) socket.receive(0)
  const header = { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, seq: 1, pid: 0 }
  const request = message(header, encodeGetFamily('ovpn'))
  if (way === 1) for (;;) socket.send(request)
  if (way === 2) for (;;) new Netlink().close()
  if (way === 3) for (;;) socket.ask()
  socket.send(request)
  process.kill(process.pid, way === 4 ? 'SIGKILL' : 'SIGSEGV')
}

/** The supervisor is killed: sockets become the kernel's, which has no driver. */
async function orphaned(): Promise<void> {
  const socket = new Netlink()
  const idle = new Netlink(ROUTE)
  assert.equal(socket.ask(), 0)
  const { worker, received } = startThread('receiving')
  const supervisor = supervisorOf(process.pid)!
  // The thread's call is the supervisor's when one that was made later is answered.
  await until('the thread waits', () => isReceiving())
  assert.equal(socket.ask(), 0)
  process.kill(supervisor, 'SIGKILL')
  assert.equal(await received, -ENODEV)
  for (const one of [socket, idle]) {
    assert.equal(one.send(new Uint8Array(16)), -ENODEV)
    assert.equal(one.receive(0), -ENODEV, 'no answer is to be waited for')
    assert.equal(one.receive(), -E.EAGAIN, "the kernel's")
  }
  for (const one of [socket, new Netlink()]) {
    assert.equal(one.ask('ovpn'), E.ENOENT, 'no driver')
    assert.equal(one.ask('nlctrl'), 0, 'but the kernel')
    one.close()
  }
  await worker.terminate()
}

const ENODEV = 19

/** Nobody is left who would serve it: calls fail at once, and nothing hangs. */
async function abandoned(): Promise<void> {
  const socket = new Netlink()
  assert.equal(socket.ask(), 0)
  const { worker, received } = startThread('receiving')
  const both = [keeperOf(process.pid)!, supervisorOf(process.pid)!]
  await until('the thread waits', () => isReceiving())
  for (const pid of both) process.kill(pid, 'SIGKILL')
  assert.equal(await received, -ENOSYS)
  assert.equal(socket.send(new Uint8Array(16)), -ENOSYS)
  assert.equal(socket.receive(0), -ENOSYS)
  assert.equal(os.socket(AF_NETLINK, 3, GENERIC), -ENOSYS)
  assert.equal(os.close(socket.fd), 0)
  await worker.terminate()
}

const ENOSYS = 38

/** While its supervisor is stopped its calls wait, and then they are answered. */
async function paused(): Promise<void> {
  const supervisor = supervisorOf(process.ppid)!
  process.kill(supervisor, 'SIGSTOP')
  const { worker, received } = startThread('asking')
  let isAnswered = false
  void received.then(() => {
    isAnswered = true
  })
  await setTimeout(500)
  assert.ok(!isAnswered)
  process.kill(supervisor, 'SIGCONT')
  assert.equal(await received, 0)
  await worker.terminate()
}

/** Whether a thread of this process waits in recvfrom(). */
function isReceiving(): boolean {
  return readdirSync('/proc/self/task').some((tid) =>
    readFileSync(`/proc/self/task/${tid}/syscall`, 'utf8').startsWith(`${calls.recvfrom} `),
  )
}

/** A thread of this file, and when it has begun. */
function startThread(work: string, data?: number) {
  const worker = new Worker(new URL(import.meta.url), { workerData: { work, data } })
  const ready = new Promise<void>((resolve) => worker.once('message', () => resolve()))
  const received = new Promise((resolve) => {
    worker.on('message', (told) => typeof told === 'number' && resolve(told))
  })
  return { worker, ready, received }
}

export const misuses: { [name: string]: () => void | Promise<void> } = {
  ...{ malformed, pointers, descriptors, deaf, flood, changing, around, files, patience, paused },
}

const helpers: typeof misuses = { handing, sharing, leaving, orphaned, abandoned }

/** What threads do: until they are ended. */
const works: { [name: string]: (address: number) => void } = {
  flooding() {
    const socket = new Netlink()
    const request = message(
      { type: GENL_ID_CTRL, flags: NLM_F.REQUEST, seq: 1, pid: 0 },
      encodeGetFamily('ovpn'),
    )
    for (;;) {
      socket.send(request)
      os.fcntl(socket.fd, 3, 0)
      if (socket.send(new Uint8Array(5)) === 5) socket.drain()
    }
  },
  changing(address) {
    const random = new Random(SEED)
    for (;;) writeMemory(process.pid, address + random.below(24), random.bytes(1))
  },
  receiving() {
    parentPort!.postMessage(new Netlink().receive(0))
  },
  asking() {
    parentPort!.postMessage(new Netlink().ask())
  },
}

if (!isMainThread) {
  parentPort!.postMessage('begun')
  works[workerData.work]!(workerData.data)
} else if (import.meta.main) {
  const name = process.argv[2]!
  await (misuses[name] ?? helpers[name])!()
  if (!['orphaned', 'abandoned'].includes(name)) isServed()
  writeSync(1, 'survived\n')
  process.exit(0)
}
