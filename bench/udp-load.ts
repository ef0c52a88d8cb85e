/**
 * A program of its own, run in a namespace: sends UDP packets at a steady rate, or receives and counts them, many per system call.
 * (iperf3 makes three calls per packet and ends where tunnels begin.) Prints one line of JSON: what it has done.
 *
 *     udp-load.ts receive ADDRESS PORT
 *     udp-load.ts send LOCAL REMOTE PORT PAYLOAD_BYTES PACKETS_PER_SECOND SECONDS      (0: as fast as it can)
 *
 * A payload begins with the packet's number, 4 bytes, from 0.
 */
import { check } from '../src/platform/error.ts'
import {
  E,
  IOVEC,
  MMSGHDR,
  MSG_DONTWAIT,
  MSGHDR,
  POLLFD,
  POLLIN,
  POLLOUT,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
} from '../src/platform/layout.ts'
import { openLibc } from '../src/platform/libc.ts'
import { createBlock } from '../src/platform/memory.ts'
import { encodeAddress } from '../src/platform/sockaddr.ts'
import { setBuffer } from '../src/platform/sockopt.ts'
import { openUdp } from '../src/platform/udp.ts'

/** What the sender says. */
export interface Sent {
  packets: number
  seconds: number
}

/** What the receiver says. */
export interface Received {
  packets: number
  /** From the first packet to the last. */
  seconds: number
  /** Packets that it knows of: up to the last that came. */
  known: number
}

/** Packets per system call. */
const BATCH = 64
const BUFFER_BYTES = 2048
/** A sender that has been kept waiting makes up for this many packets, half of a TUN's queue, and lets the rest go. */
const MOST_BEHIND = 250
const TICK_MS = 0.2
const FIRST_MS = 5000
const IDLE_MS = 300
const RECEIVE_BUFFER_BYTES = 8 << 20

const os = openLibc()
const [role, ...rest] = process.argv.slice(2)
if (role === 'receive') receive(rest[0]!, Number(rest[1]))
else if (role === 'send') {
  const [port, bytes, rate, seconds] = rest.slice(2).map(Number)
  send(rest[0]!, rest[1]!, { port: port!, bytes: bytes!, rate: rate!, seconds: seconds! })
} else throw new Error(`expected send or receive, not ${role}`)

/** Room for BATCH packets and the structures that name them. */
function createBatch(bytes: number) {
  const data = createBlock(BATCH * BUFFER_BYTES)
  const iovs = createBlock(BATCH * IOVEC.size)
  const messages = createBlock(BATCH * MMSGHDR.size)
  for (let i = 0; i < BATCH; i++) {
    iovs.view.setBigUint64(i * IOVEC.size + IOVEC.base, BigInt(data.base + i * BUFFER_BYTES), true)
    iovs.view.setBigUint64(i * IOVEC.size + IOVEC.len, BigInt(bytes), true)
    const at = i * MMSGHDR.size
    messages.view.setBigUint64(at + MSGHDR.iov, BigInt(iovs.base + i * IOVEC.size), true)
    messages.view.setBigUint64(at + MSGHDR.iovlen, 1n, true)
  }
  return { data, messages, keep: iovs }
}

/** Waits for the socket; false when nothing has happened in time. */
function createWait(fd: number, events: number): (ms: number) => boolean {
  const poll = createBlock(POLLFD.size)
  poll.view.setInt32(POLLFD.fd, fd, true)
  poll.view.setInt16(POLLFD.events, events, true)
  return (ms) => check(os.poll(poll.base, 1, ms), 'poll', 'cannot wait for packets') > 0
}

function receive(address: string, port: number): void {
  const { fd } = openUdp(address, port)
  setBuffer(os, fd, SO_RCVBUFFORCE, SO_RCVBUF, RECEIVE_BUFFER_BYTES)
  const { data, messages, keep } = createBatch(BUFFER_BYTES)
  const wait = createWait(fd, POLLIN)
  console.log('listening')
  let packets = 0
  let known = 0
  let first = 0
  let last = 0
  while (wait(packets === 0 ? FIRST_MS : IDLE_MS)) {
    const count = os.recvmmsg(fd, messages.base, BATCH, MSG_DONTWAIT)
    if (count === -E.EAGAIN) continue
    check(count, 'recvmmsg', 'cannot receive packets')
    last = performance.now()
    if (packets === 0) first = last
    packets += count
    for (let i = 0; i < count; i++) {
      known = Math.max(known, data.view.getUint32(i * BUFFER_BYTES) + 1)
    }
  }
  keep.u8.fill(0) // used until here: the system has its address only
  const received: Received = { packets, known, seconds: (last - first) / 1000 }
  console.log(JSON.stringify(received))
}

function send(
  local: string,
  remote: string,
  { port, bytes, rate, seconds }: { port: number; bytes: number; rate: number; seconds: number },
): void {
  const { fd } = openUdp(local, 0)
  const to = encodeAddress({ address: remote, port, scope: 0 })
  check(os.connect(fd, to.block.base, to.length), 'connect', `cannot send to ${remote}`)
  const { data, messages, keep } = createBatch(bytes)
  const wait = createWait(fd, POLLOUT)
  const pause = new Int32Array(new SharedArrayBuffer(4))
  const begin = performance.now()
  let packets = 0
  let forgiven = 0
  let elapsed = 0
  for (;;) {
    elapsed = performance.now() - begin
    if (elapsed >= seconds * 1000) break
    let due = BATCH
    if (rate > 0) {
      const behind = Math.floor((rate * elapsed) / 1000) - packets - forgiven
      if (behind <= 0) {
        Atomics.wait(pause, 0, 0, TICK_MS)
        continue
      }
      if (behind > MOST_BEHIND) forgiven += behind - MOST_BEHIND
      due = Math.min(behind, BATCH)
    }
    for (let i = 0; i < due; i++) data.view.setUint32(i * BUFFER_BYTES, packets + i)
    const count = os.sendmmsg(fd, messages.base, due, MSG_DONTWAIT)
    if (count > 0) packets += count
    else if (count === -E.EAGAIN || count === -E.ENOBUFS) wait(1)
    else check(count, 'sendmmsg', `cannot send to ${remote}`)
  }
  keep.u8.fill(0)
  const sent: Sent = { packets, seconds: elapsed / 1000 }
  console.log(JSON.stringify(sent))
}
