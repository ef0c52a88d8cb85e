/**
 * Serves the trapped calls of a program and of all it starts: gives them netlink sockets on which the driver answers
 * beside the kernel (socket.ts), until the last of them has ended.
 *
 * A netlink socket is one end of a pair of unix sockets, at a number that the filter knows. What is read or written there
 * never matters: calls on it are carried out here; an empty datagram lies in it while something waits to be received, so that
 * poll() works. Sockets are told apart by the identity of that end, so descriptors may be duplicated and inherited.
 *
 * What a call points to is copied once, and decided on the copy: another thread may change the original.
 */
import type { Channel, Protocol } from '../driver/channel.ts'
import { Requester } from '../driver/channel.ts'
import { decodeFamily, encodeGetFamily, GENL_ID_CTRL } from '../netlink/control.ts'
import { OsError } from '../platform/error.ts'
import { E, MMSGHDR, MSG_DONTWAIT, MSGHDR, SOCKADDR_NL } from '../platform/layout.ts'
import { openLibc } from '../platform/libc.ts'
import { createBlock } from '../platform/memory.ts'
import { netnsId, openNetnsOf } from '../platform/netns.ts'
import { openPair, openRelay, type RelaySocket } from '../platform/relay.ts'
import {
  architecture,
  type CallNumbers,
  fdLimit,
  type Listener,
  readMemory,
  type TrappedCall,
  writeMemory,
} from '../platform/seccomp.ts'
import { dialects } from '../uapi/dialects/index.ts'
import { ApiError, errnoNumber } from '../uapi/errno.ts'
import type { DialectName } from '../uapi/types.ts'
import { FD_COUNT, FIRST_FD } from './filter.ts'
import {
  checkReceiver,
  gather,
  gatherPieces,
  MAX_SEND_BYTES,
  scatter,
  scatterPieces,
  vectorAt,
  word,
  writeAddress,
} from './memory.ts'
import { flagsOf, identityOf, isPrivileged, isSignalled, takeFdOf } from './process.ts'
import { VirtualSocket } from './socket.ts'
import { Streams } from './streams.ts'
import { markEnd } from './successor.ts'
import type { Watch } from './watch.ts'

/** A program, to the driver: who asks over a channel. What it answers is of the moment of the request. */
export interface Program {
  /** The thread that asks now. */
  readonly tid: number
  readonly netns: string
  readonly privileged: boolean
  takeFd(fd: number): number
  openNetns(): number
}

export interface SupervisorOptions {
  readonly listener: Listener
  readonly watch: Watch
  /** Rejects with an ApiError where the driver is gone. */
  openChannel(protocol: Protocol, program: Program): Promise<Channel> | Channel
  /** Another thread of the program, or a process that shares its socket, asks over the channel from now on. */
  usedBy(channel: Channel, tid: number): Promise<void> | void
  log(text: string): void
}

type CallName = keyof CallNumbers
type Fate = number | 'pass' | 'answered' | 'later'

/** A call that waits for something to receive, at most until then (as performance.now() counts). */
interface Receiver {
  readonly call: TrappedCall
  readonly until: number
  /** Messages that it has already, of several. */
  got: number
}

interface Served {
  readonly identity: string
  readonly socket: VirtualSocket
  readonly channel: Channel
  readonly relay: RelaySocket
  /** Our end of the pair. */
  readonly end: number
  readonly netns: number
  readonly receivers: Receiver[]
  /** The call that is carried out, and its thread. */
  call: TrappedCall
  tid: number
  /** Whether a datagram lies in the program's end. */
  marked: boolean
  unwatch: (() => void)[]
  /** Whether the kernel's messages wait for room. */
  paused: boolean
}

const AF_NETLINK = 16
const MSG_PEEK = 2
const MSG_TRUNC = 0x20
const MSG_WAITFORONE = 0x10000
/** In one call, as in the kernel (UIO_MAXIOV). */
const MAX_MESSAGES = 1024
const ERESTARTSYS = 512
const F_DUPFD = 0
const F_DUPFD_CLOEXEC = 1030
const SOL_SOCKET = 1
const SO_RCVTIMEO = 20
/**
 * Options of SOL_SOCKET that may be set: SO_REUSEADDR, SO_SNDBUF, SO_RCVBUF, SO_PRIORITY, SO_PASSCRED, SO_RCVTIMEO,
 * SO_SNDTIMEO, SO_TIMESTAMP. Others hold an address or a descriptor, which mean something else here, or ask for rights.
 */
const PLAIN_OPTIONS = [2, 7, 8, 12, 16, 20, 21, 29]
/** SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_MARK: for CAP_NET_ADMIN. */
const PRIVILEGED_OPTIONS = [32, 33, 36]
const SOL_NETLINK = 270
/** The longest address there is: a `sockaddr_storage`. */
const SOCKADDR_BYTES = 128
const NETLINK_LISTEN_ALL_NSID = 8
/** Each takes three descriptors here; the driver needs its own. */
const MAX_SOCKETS = 4096
const FDS_PER_SOCKET = 6
/** Calls that are taken before anything else has its turn. */
const CALLS_AT_ONCE = 64
const SIGNAL_LOOK_MS = 50
const PROTOCOL: { readonly [number: number]: Protocol } = { 0: 'route', 16: 'generic' }

export class Supervisor {
  readonly #options: SupervisorOptions
  readonly #os = openLibc()
  /** By the identity of the program's end. */
  readonly #served = new Map<string, Served>()
  readonly #families = new Map<number, DialectName>()
  readonly #groups = new Set<number>()
  readonly #names = new Map<number, CallName>()
  readonly #streams: Streams
  readonly #mostSockets = Math.min(MAX_SOCKETS, fdLimit(0).soft / FDS_PER_SOCKET)
  #cursor = 0
  #signals: NodeJS.Timeout | undefined

  constructor(options: SupervisorOptions) {
    this.#options = options
    this.#streams = new Streams(options)
    const calls = Object.entries(architecture!.calls) as [CallName, number | undefined][]
    for (const [name, nr] of calls) if (nr !== undefined) this.#names.set(nr, name)
  }

  /** Asks the driver for the numbers of its families. Rejects with an ApiError. */
  async learnFamilies(program: Program): Promise<void> {
    const requester = new Requester(await this.#options.openChannel('generic', program))
    try {
      for (const name of Object.keys(dialects) as DialectName[]) {
        const header = { type: GENL_ID_CTRL, flags: 0 }
        const [reply] = await requester.request(header, encodeGetFamily(name))
        if (reply === undefined) throw new ApiError('EPROTO', `no answer about ${name}`)
        const family = decodeFamily(reply)
        this.#families.set(family.id, name)
        for (const { id } of family.groups) this.#groups.add(id)
      }
    } finally {
      requester.close()
    }
  }

  /** Serves until no process has the filter any more. */
  serve(): Promise<void> {
    const { listener, watch } = this.#options
    return new Promise((resolve) => {
      const unwatch = watch.add(listener.fd, () => {
        for (let i = 0; i < CALLS_AT_ONCE; i++) {
          const call = listener.receive()
          if (call === 'none') return
          if (call === 'ended') {
            unwatch()
            clearInterval(this.#signals)
            for (const served of this.#served.values()) this.#release(served)
            this.#streams.close()
            resolve()
            return
          }
          void this.#serve(call)
        }
      })
    })
  }

  /** Carries a call out, whatever comes: one that nobody answers would hang. */
  async #serve(call: TrappedCall): Promise<void> {
    const { listener, log } = this.#options
    let fate: Fate
    try {
      const name = this.#names.get(call.nr)
      fate = name === undefined ? 'pass' : await this.#carryOut(name, call)
    } catch (error) {
      if (error instanceof OsError) fate = -error.errno
      else if (error instanceof ApiError) fate = -errnoNumber(error.errno)
      else {
        log(`a call failed: ${(error as Error).stack ?? error}`)
        fate = -E.EIO
      }
    }
    if (fate === 'pass') listener.pass(call)
    else if (typeof fate === 'number') {
      if (fate < 0) listener.fail(call, -fate)
      else listener.answer(call, fate)
    }
  }

  async #carryOut(name: CallName, call: TrappedCall): Promise<Fate> {
    if (name === 'socket') return this.#open(call)
    const fd = call.ints[0]!
    const served = this.#find(call.tid, fd)
    if (served === undefined) return 'pass' // the program has something of its own there
    const { tid, args, ints } = call
    const { socket, relay } = served
    switch (name) {
      case 'sendmsg':
        return this.#send(served, call, gather(tid, args[1]!))
      case 'sendto':
        if (args[2]! > MAX_SEND_BYTES) return -E.EMSGSIZE
        checkReceiver(tid, args[4]!, ints[5]!)
        return this.#send(served, call, readMemory(tid, args[1]!, args[2]!))
      case 'write':
        if (args[2]! > MAX_SEND_BYTES) return -E.EMSGSIZE
        return this.#send(served, call, readMemory(tid, args[1]!, args[2]!))
      case 'writev':
        return this.#send(served, call, gatherPieces(tid, vectorAt(tid, args[1]!, ints[2]!)))
      case 'sendmmsg':
        return this.#sendMany(served, call)
      case 'read':
        if (args[2] === 0) return 0
        return this.#receive(served, call)
      case 'recvmsg':
      case 'recvfrom':
      case 'readv':
      case 'recvmmsg':
        return this.#receive(served, call)
      case 'bind':
        return socket.bind(addressOf(call))
      case 'connect':
        return relay.connect(addressOf(call))
      case 'getsockname': {
        const own = relay.name()
        return typeof own === 'number' ? own : writeAddress(tid, own, args[1]!, args[2]!)
      }
      case 'setsockopt': {
        const [, level, option, , length] = ints as [number, number, number, number, number]
        if (length < 0 || length > 4096) return -E.EINVAL
        if (level !== SOL_SOCKET && level !== SOL_NETLINK) return -ENOPROTOOPT
        const refused = level === SOL_SOCKET ? refusalOf(tid, option) : 0
        if (refused < 0) return refused
        if (level === SOL_NETLINK && option === NETLINK_LISTEN_ALL_NSID) return -E.EPERM
        // The kernel looks at no fewer bytes than a number has.
        const value = length < 4 ? new Uint8Array(length) : readMemory(tid, args[3]!, length)
        return socket.setOption(level, option, value)
      }
      case 'getsockopt':
        return this.#getOption(served, call)
      case 'dup':
        return this.#duplicate(call, fd, FIRST_FD, false)
      case 'fcntl':
        if (ints[1] !== F_DUPFD && ints[1] !== F_DUPFD_CLOEXEC) return 'pass'
        return this.#duplicate(call, fd, ints[2]!, ints[1] === F_DUPFD_CLOEXEC)
      default:
        // dup2 and dup3 choose their number themselves. Out of the range, it would be no netlink socket any more.
        return ints[1]! >= FIRST_FD && ints[1]! < FIRST_FD + FD_COUNT ? 'pass' : -EBADF
    }
  }

  #find(tid: number, fd: number): Served | undefined {
    const identity = identityOf(tid, fd)
    return identity === undefined ? undefined : this.#served.get(identity)
  }

  // Opening and closing ----------------------------------------------------------------------------------------------

  async #open(call: TrappedCall): Promise<Fate> {
    const { listener, watch } = this.#options
    const [family, flags, number] = call.ints as [number, number, number]
    const protocol = PROTOCOL[number]
    const type = flags & 0xf
    if (family !== AF_NETLINK || protocol === undefined || (type !== 2 && type !== 3)) return 'pass'
    if (this.#served.size >= this.#mostSockets) return -ENFILE
    using opened = new DisposableStack()
    const netns = openNetnsOf(call.tid)
    opened.defer(() => this.#os.close(netns))
    const program = this.#programOf(call.tid, netns)
    const channel = opened.adopt(await this.#channelFor(protocol, program), (one) => one.close())
    const relay = opened.use(openRelay(type, number, netns))
    const { own, other } = openPair('datagrams')
    opened.defer(() => this.#os.close(own))
    opened.defer(() => this.#os.close(other))
    markEnd(other, number)
    // What comes around the filter (io_uring, splice) fails with EPIPE.
    this.#os.shutdown(own, SHUT_RD)
    const at = this.#freeNumber(call.tid, FIRST_FD)
    if (at === undefined) return -EMFILE
    const identity = identityOf(process.pid, other)!
    const served: Served = {
      identity,
      channel,
      socket: new VirtualSocket({
        channel,
        relay,
        families: new Set(this.#families.keys()),
        groups: this.#groups,
        takeFd: (fd) => {
          try {
            return takeFdOf(served.tid, fd)
          } catch (error) {
            if (error instanceof OsError) return undefined
            throw error
          }
        },
        arrived: () => this.#arrived(served),
        done: (family, payload) => this.#done(served, family, payload),
      }),
      ...{ relay, end: own, netns, receivers: [], call, tid: call.tid, marked: false, unwatch: [] },
      paused: false,
    }
    program.follow(served)
    if ((flags & 0o4000) !== 0) this.#os.fcntl(other, 4, 0o4002)
    const given = listener.giveFd(call, other, at, {
      cloexec: (flags & 0o2000000) !== 0,
      answer: true,
    })
    if (given < 0) return given === -EBADF ? -EMFILE : given
    opened.move()
    this.#os.close(other)
    this.#served.set(identity, served)
    served.unwatch.push(watch.addEnd(own, () => this.#release(served)))
    this.#followKernel(served)
    return 'answered'
  }

  /** A channel to the driver; where that has ended, one on which nobody answers. */
  async #channelFor(protocol: Protocol, program: Program): Promise<Channel> {
    try {
      return await this.#options.openChannel(protocol, program)
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      this.#options.log(`no driver: ${error.message}`)
      return closedChannel(protocol)
    }
  }

  #followKernel(served: Served): void {
    served.paused = false
    const unwatch = this.#options.watch.add(served.relay.fd, () => {
      if (served.socket.takeFromKernel()) return
      served.paused = true
      served.unwatch = served.unwatch.filter((one) => one !== unwatch)
      unwatch()
    })
    served.unwatch.push(unwatch)
  }

  /** A number of the range that the process does not use, at least `from`. */
  #freeNumber(tid: number, from: number): number | undefined {
    for (let i = 0; i < FD_COUNT; i++) {
      const at = FIRST_FD + ((this.#cursor + i) % FD_COUNT)
      if (at < from || identityOf(tid, at) !== undefined) continue
      this.#cursor = at - FIRST_FD + 1
      return at
    }
    return undefined
  }

  #release(served: Served): void {
    if (!this.#served.delete(served.identity)) return
    for (const unwatch of served.unwatch) unwatch()
    for (const { call } of served.receivers.splice(0)) this.#options.listener.fail(call, EBADF)
    served.socket.close()
    this.#os.close(served.end)
    this.#os.close(served.netns)
  }

  #duplicate(call: TrappedCall, fd: number, from: number, cloexec: boolean): Fate {
    const at = this.#freeNumber(call.tid, from)
    if (at === undefined) return -EMFILE
    const own = takeFdOf(call.tid, fd)
    const given = this.#options.listener.giveFd(call, own, at, { cloexec, answer: true })
    this.#os.close(own)
    return given < 0 ? given : 'answered'
  }

  #programOf(tid: number, netns: number): Program & { follow(served: Served): void } {
    let who: { tid: number } = { tid }
    const id = netnsId(netns)
    return {
      netns: id,
      get tid() {
        return who.tid
      },
      get privileged() {
        return isPrivileged(who.tid)
      },
      takeFd: (fd) => {
        try {
          return takeFdOf(who.tid, fd)
        } catch (error) {
          if (!(error instanceof OsError)) throw error
          throw new ApiError('ENOTSOCK', error.message, 'peer.socket')
        }
      },
      openNetns: () => this.#os.fcntl(netns, F_DUPFD_CLOEXEC, 0),
      follow(served) {
        who = served
      },
    }
  }

  // Sending and receiving --------------------------------------------------------------------------------------------

  async #send(served: Served, call: TrappedCall, datagram: Uint8Array): Promise<number> {
    const { tid } = call
    const privileged = isPrivileged(tid)
    // Who was killed meanwhile may have been somebody else's memory.
    if (!this.#options.listener.waits(call)) return -E.EINTR
    const sent = await served.socket.send(datagram, privileged, async () => {
      if (served.tid !== tid) await this.#options.usedBy(served.channel, tid)
      served.tid = tid
      served.call = call
    })
    return sent < 0 ? sent : datagram.length
  }

  /** As many as are taken before one fails. */
  async #sendMany(served: Served, call: TrappedCall): Promise<number> {
    const { tid, args } = call
    const count = countOf(call)
    for (let i = 0; i < count; i++) {
      const at = args[1]! + i * MMSGHDR.size
      let sent: number
      try {
        sent = await this.#send(served, call, gather(tid, at))
        if (sent >= 0) writeMemory(tid, at + MMSGHDR.len, word(sent))
      } catch (error) {
        if (!(error instanceof OsError)) throw error
        sent = -error.errno
      }
      if (sent < 0) return i > 0 ? i : sent
    }
    return count
  }

  #receive(served: Served, call: TrappedCall): Fate {
    const until = performance.now() + Math.min(patienceOf(served.relay), timeoutOf(call))
    const receiver: Receiver = { call, until, got: 0 }
    const fate = this.#deliver(served, receiver)
    if (fate !== 'later') return fate
    const isPatient =
      (flagsFor(call) & MSG_DONTWAIT) === 0 && flagsOf(call.tid, call.ints[0]!).blocking
    if (!isPatient) return receiver.got > 0 ? receiver.got : -E.EAGAIN
    served.receivers.push(receiver)
    this.#signals ??= setInterval(() => this.#interrupt(), SIGNAL_LOOK_MS)
    return 'later'
  }

  /** Calls that wait must not keep signals from their threads: the kernel makes EINTR of it, or starts them again. */
  #interrupt(): void {
    const { listener } = this.#options
    const now = performance.now()
    let waiting = 0
    for (const { receivers } of this.#served.values()) {
      for (const [i, { call, until, got }] of [...receivers.entries()].reverse()) {
        const isLate = now >= until
        if (!isLate && listener.waits(call) && !isSignalled(call.tid)) continue
        receivers.splice(i, 1)
        if (got > 0) listener.answer(call, got)
        else listener.fail(call, isLate ? E.EAGAIN : ERESTARTSYS)
      }
      waiting += receivers.length
    }
    if (waiting > 0) return
    clearInterval(this.#signals)
    this.#signals = undefined
  }

  #arrived(served: Served): void {
    const { listener } = this.#options
    while (served.receivers.length > 0 && served.socket.queue.length > 0) {
      const receiver = served.receivers.shift()!
      const { call } = receiver
      if (!listener.waits(call)) continue
      let fate: Fate
      try {
        fate = this.#deliver(served, receiver)
      } catch (error) {
        fate = error instanceof OsError ? -error.errno : -E.EIO
      }
      if (fate === 'later') served.receivers.unshift(receiver)
      else if (typeof fate !== 'number') continue
      else if (fate < 0) listener.fail(call, -fate)
      else listener.answer(call, fate)
    }
    if (served.marked || served.socket.queue.length === 0) return
    served.marked = true
    this.#os.write(served.end, createBlock(8).base, 0)
  }

  /** Gives the call what it wants of what has come; 'later' when that is not there yet. */
  #deliver(served: Served, receiver: Receiver): Fate {
    const { call } = receiver
    const { queue } = served.socket
    if (call.nr !== architecture!.calls.recvmmsg) {
      return queue.length === 0 ? 'later' : this.#deliverOne(served, call, call.args[1]!)
    }
    const count = countOf(call)
    while (receiver.got < count) {
      if (queue.length === 0) {
        const takesFewer = (flagsFor(call) & MSG_WAITFORONE) !== 0
        return takesFewer && receiver.got > 0 ? receiver.got : 'later'
      }
      // An error is that of the next call.
      if (queue[0]!.errno !== undefined && receiver.got > 0) break
      const at = call.args[1]! + receiver.got * MMSGHDR.size
      const length = this.#deliverOne(served, call, at)
      if (length < 0) return length
      writeMemory(call.tid, at + MMSGHDR.len, word(length))
      receiver.got++
    }
    return receiver.got
  }

  /** Writes the next arrival at `address`, in the shape that the call has it. Bytes, or -errno. */
  #deliverOne(served: Served, call: TrappedCall, address: number): number {
    const { tid, ints } = call
    const { bytes, from, errno } = served.socket.queue[0]!
    const flags = flagsFor(call)
    const room = errno === undefined ? put(call, address, bytes, from) : 0
    if ((flags & MSG_PEEK) === 0 || errno !== undefined) {
      served.socket.shift()
      if (served.socket.queue.length === 0) this.#unmark(served, tid, ints[0]!)
      if (served.paused && served.socket.takeFromKernel()) this.#followKernel(served)
    }
    if (errno !== undefined) return -errno
    return (flags & MSG_TRUNC) !== 0 ? bytes.length : Math.min(bytes.length, room)
  }

  /** Takes the datagram back that says there is something to receive. */
  #unmark(served: Served, tid: number, fd: number): void {
    if (!served.marked) return
    served.marked = false
    const theirs = takeFdOf(tid, fd)
    const header = createBlock(MSGHDR.size)
    // Another thread may have put something else at that number.
    if (identityOf(process.pid, theirs) === served.identity) {
      this.#os.recvmsg(theirs, header.base, MSG_DONTWAIT)
    }
    this.#os.close(theirs)
  }

  #getOption({ relay }: Served, { tid, args, ints }: TrappedCall): number {
    const length = readMemory(tid, args[4]!, 4)
    const room = new DataView(length.buffer, length.byteOffset).getInt32(0, true)
    if (room < 0) return -E.EINVAL
    const value = relay.getOption(ints[1]!, ints[2]!, Math.min(room, 4096))
    if (typeof value === 'number') return value
    writeMemory(tid, args[3]!, value)
    writeMemory(tid, args[4]!, word(value.length))
    return 0
  }

  /** What a request brings with it for TCP: the stream is the driver's from then on. */
  async #done({ call, netns }: Served, family: number, payload: Uint8Array): Promise<void> {
    const name = this.#families.get(family)
    if (name === undefined) return
    const request = dialects[name].decodeRequest(payload, { dump: false })
    if (request.command === 'peer-new') {
      const { ifindex, peer } = request.args
      const { id: peerId, socket: fd } = peer
      await this.#streams.adopt({ call, fd, peer: { dialect: name, netns, ifindex, peerId } })
    } else if (request.command === 'peer-del') {
      this.#streams.deleted(request.args.ifindex, request.args.peer.id)
    }
  }
}

function closedChannel(protocol: Protocol): Channel {
  return {
    protocol,
    portId: 0,
    listen: (listener) => listener.closed(undefined),
    send() {},
    async setOption() {},
    close() {},
  }
}

const EBADF = 9
const ENFILE = 23
const EMFILE = 24
const ENOPROTOOPT = 92
const SHUT_RD = 0

/** Writes a datagram and its sender where a call that receives wants them; returns the room that was there. @throws OsError */
function put(call: TrappedCall, address: number, bytes: Uint8Array, from: Uint8Array): number {
  const { calls } = architecture!
  const { tid, nr, args, ints } = call
  if (nr === calls.recvmsg || nr === calls.recvmmsg) return scatter(tid, address, bytes, from)
  if (nr === calls.readv) return scatterPieces(tid, vectorAt(tid, address, ints[2]!), bytes)
  const room = args[2]!
  writeMemory(tid, address, bytes.subarray(0, room))
  if (nr === calls.recvfrom && args[4] !== 0) writeAddress(tid, from, args[4]!, args[5]!)
  return room
}

/** MSG_* of a call that receives. */
function flagsFor({ nr, ints }: TrappedCall): number {
  const { recvmsg, recvfrom, recvmmsg } = architecture!.calls
  if (nr === recvmsg) return ints[2]!
  return nr === recvfrom || nr === recvmmsg ? ints[3]! : 0
}

/** What bind() and connect() are given. @throws OsError */
function addressOf({ tid, args, ints }: TrappedCall): Uint8Array {
  const length = ints[2]!
  if (length < 0 || length > SOCKADDR_BYTES) throw new OsError(E.EINVAL, 'bind', 'no address')
  return readMemory(tid, args[1]!, length).subarray(0, SOCKADDR_NL.size)
}

/** Milliseconds that recvmmsg() is given at most. The kernel looks only when something comes; here it is the end. @throws OsError */
function timeoutOf({ tid, nr, args }: TrappedCall): number {
  if (nr !== architecture!.calls.recvmmsg || args[4] === 0) return Infinity
  const time = readMemory(tid, args[4]!, 16)
  const view = new DataView(time.buffer, time.byteOffset)
  return Number(view.getBigInt64(0, true)) * 1000 + Number(view.getBigInt64(8, true)) / 1e6
}

/** How many messages sendmmsg() and recvmmsg() are about. */
function countOf({ ints }: TrappedCall): number {
  return Math.min(ints[2]! >>> 0, MAX_MESSAGES)
}

/** 0, or -errno, for an option of SOL_SOCKET that a program wants to set. */
function refusalOf(tid: number, option: number): number {
  if (PLAIN_OPTIONS.includes(option)) return 0
  if (!PRIVILEGED_OPTIONS.includes(option)) return -ENOPROTOOPT
  return isPrivileged(tid) ? 0 : -E.EPERM
}

/** Milliseconds that receiving may take: SO_RCVTIMEO, 0 of which is for ever. */
function patienceOf(relay: RelaySocket): number {
  const value = relay.getOption(SOL_SOCKET, SO_RCVTIMEO, 16)
  if (typeof value === 'number' || value.length < 16) return Infinity
  const view = new DataView(value.buffer, value.byteOffset)
  const ms = Number(view.getBigInt64(0, true)) * 1000 + Number(view.getBigInt64(8, true)) / 1000
  return ms === 0 ? Infinity : ms
}
