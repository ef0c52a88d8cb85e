/**
 * The C library as Syscalls, through bun:ffi. Owns the binding and errno; which calls are made, and
 * with what memory, is up to the callers.
 */

import { dlopen, FFIType, type Pointer, read } from 'bun:ffi'
import type { Syscalls } from './syscalls.ts'

const EINTR = 4
const SYS_PIDFD_OPEN = 434 // the same number on every architecture, as is the next
const SYS_PIDFD_GETFD = 438

// ssize_t results are declared as i32: no call moves 2 GiB, and i64 costs a check per call
const declarations = {
  open: { args: ['ptr', 'i32', 'u32'], returns: 'i32' },
  close: { args: ['i32'], returns: 'i32' },
  read: { args: ['i32', 'ptr', 'u64'], returns: 'i32' },
  write: { args: ['i32', 'ptr', 'u64'], returns: 'i32' },
  readv: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
  writev: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
  ioctl: { args: ['i32', 'u64', 'u64'], returns: 'i32' },
  fcntl: { args: ['i32', 'i32', 'u64'], returns: 'i32' },
  dup3: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  poll: { args: ['ptr', 'u64', 'i32'], returns: 'i32' },
  eventfd: { args: ['u32', 'i32'], returns: 'i32' },
  epoll_create1: { args: ['i32'], returns: 'i32' },
  epoll_ctl: { args: ['i32', 'i32', 'i32', 'ptr'], returns: 'i32' },
  epoll_wait: { args: ['i32', 'ptr', 'i32', 'i32'], returns: 'i32' },
  socket: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  socketpair: { args: ['i32', 'i32', 'i32', 'ptr'], returns: 'i32' },
  bind: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  connect: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  listen: { args: ['i32', 'i32'], returns: 'i32' },
  accept4: { args: ['i32', 'ptr', 'ptr', 'i32'], returns: 'i32' },
  shutdown: { args: ['i32', 'i32'], returns: 'i32' },
  getsockname: { args: ['i32', 'ptr', 'ptr'], returns: 'i32' },
  getpeername: { args: ['i32', 'ptr', 'ptr'], returns: 'i32' },
  getsockopt: { args: ['i32', 'i32', 'i32', 'ptr', 'ptr'], returns: 'i32' },
  setsockopt: { args: ['i32', 'i32', 'i32', 'ptr', 'u32'], returns: 'i32' },
  sendmsg: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
  recvmsg: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
  sendmmsg: { args: ['i32', 'ptr', 'u32', 'i32'], returns: 'i32' },
  recvmmsg: { args: ['i32', 'ptr', 'u32', 'i32', 'ptr'], returns: 'i32' },
  setns: { args: ['i32', 'i32'], returns: 'i32' },
  unshare: { args: ['i32'], returns: 'i32' },
  mount: { args: ['ptr', 'ptr', 'ptr', 'u64', 'ptr'], returns: 'i32' },
  umount2: { args: ['ptr', 'i32'], returns: 'i32' },
  mkdir: { args: ['ptr', 'u32'], returns: 'i32' },
  unlink: { args: ['ptr'], returns: 'i32' },
  fchown: { args: ['i32', 'u32', 'u32'], returns: 'i32' },
  statx: { args: ['i32', 'ptr', 'i32', 'u32', 'ptr'], returns: 'i32' },
  syscall: { args: ['i64', 'u64', 'u64', 'u64', 'u64', 'u64', 'u64'], returns: FFIType.i64_fast },
  __errno_location: { args: [], returns: 'ptr' },
} as const

/** bun:ffi brands its addresses; ours are plain numbers. */
const at = (address: number): Pointer => address as Pointer

let opened: Syscalls | undefined

/**
 * The binding, made once per thread (errno lives in the thread). Calls that a signal interrupted are
 * made again, except `poll`, `epoll_wait`, `connect` and `close`: the first would wait for too long, the second is under way
 * already, and the third has freed the descriptor.
 */
export function openLibc(): Syscalls {
  opened ??= bind()
  return opened
}

function bind(): Syscalls {
  const c = dlopen('libc.so.6', declarations).symbols
  const errnoAt = c.__errno_location() as Pointer
  const errno = () => read.i32(errnoAt, 0)
  const once = (result: number) => (result < 0 ? -errno() : result)
  const again = () => errno() === EINTR

  return {
    open(path, flags, mode) {
      let n: number
      do n = c.open(at(path), flags, mode)
      while (n < 0 && again())
      return once(n)
    },
    close: (fd) => once(c.close(fd)),
    read(fd, buffer, length) {
      let n: number
      do n = c.read(fd, at(buffer), length)
      while (n < 0 && again())
      return once(n)
    },
    write(fd, buffer, length) {
      let n: number
      do n = c.write(fd, at(buffer), length)
      while (n < 0 && again())
      return once(n)
    },
    readv(fd, iov, count) {
      let n: number
      do n = c.readv(fd, at(iov), count)
      while (n < 0 && again())
      return once(n)
    },
    writev(fd, iov, count) {
      let n: number
      do n = c.writev(fd, at(iov), count)
      while (n < 0 && again())
      return once(n)
    },
    ioctl(fd, request, argument) {
      let n: number
      do n = c.ioctl(fd, request, argument)
      while (n < 0 && again())
      return once(n)
    },
    fcntl: (fd, command, argument) => once(c.fcntl(fd, command, argument)),
    dup3: (oldFd, newFd, flags) => once(c.dup3(oldFd, newFd, flags)),
    poll: (fds, count, timeoutMs) => once(c.poll(at(fds), count, timeoutMs)),
    eventfd: (initial, flags) => once(c.eventfd(initial, flags)),
    epollCreate: (flags) => once(c.epoll_create1(flags)),
    epollCtl: (epoll, operation, fd, event) => once(c.epoll_ctl(epoll, operation, fd, at(event))),
    epollWait: (epoll, events, count, timeoutMs) =>
      once(c.epoll_wait(epoll, at(events), count, timeoutMs)),

    socket: (family, type, protocol) => once(c.socket(family, type, protocol)),
    socketpair: (family, type, protocol, fds) =>
      once(c.socketpair(family, type, protocol, at(fds))),
    bind: (fd, address, length) => once(c.bind(fd, at(address), length)),
    connect: (fd, address, length) => once(c.connect(fd, at(address), length)),
    listen: (fd, backlog) => once(c.listen(fd, backlog)),
    accept4(fd, address, length, flags) {
      let n: number
      do n = c.accept4(fd, at(address), at(length), flags)
      while (n < 0 && again())
      return once(n)
    },
    shutdown: (fd, how) => once(c.shutdown(fd, how)),
    getsockname: (fd, address, length) => once(c.getsockname(fd, at(address), at(length))),
    getpeername: (fd, address, length) => once(c.getpeername(fd, at(address), at(length))),
    getsockopt: (fd, level, name, value, length) =>
      once(c.getsockopt(fd, level, name, at(value), at(length))),
    setsockopt: (fd, level, name, value, length) =>
      once(c.setsockopt(fd, level, name, at(value), length)),
    sendmsg(fd, message, flags) {
      let n: number
      do n = c.sendmsg(fd, at(message), flags)
      while (n < 0 && again())
      return once(n)
    },
    recvmsg(fd, message, flags) {
      let n: number
      do n = c.recvmsg(fd, at(message), flags)
      while (n < 0 && again())
      return once(n)
    },
    sendmmsg(fd, messages, count, flags) {
      let n: number
      do n = c.sendmmsg(fd, at(messages), count, flags)
      while (n < 0 && again())
      return once(n)
    },
    recvmmsg(fd, messages, count, flags) {
      let n: number
      do n = c.recvmmsg(fd, at(messages), count, flags, null)
      while (n < 0 && again())
      return once(n)
    },

    setns: (fd, kind) => once(c.setns(fd, kind)),
    unshare: (flags) => once(c.unshare(flags)),
    mount: (source, target, type, flags, data) =>
      once(c.mount(at(source), at(target), at(type), flags, at(data))),
    umount2: (target, flags) => once(c.umount2(at(target), flags)),
    mkdir: (path, mode) => once(c.mkdir(at(path), mode)),
    unlink: (path) => once(c.unlink(at(path))),
    pidfdOpen: (pid, flags) => once(Number(c.syscall(SYS_PIDFD_OPEN, pid, flags, 0, 0, 0, 0))),
    pidfdGetfd: (pidfd, fd, flags) =>
      once(Number(c.syscall(SYS_PIDFD_GETFD, pidfd, fd, flags, 0, 0, 0))),
    fchown: (fd, uid, gid) => once(c.fchown(fd, uid, gid)),
    statx: (dirFd, path, flags, mask, buffer) =>
      once(c.statx(dirFd, at(path), flags, mask, at(buffer))),
    syscall: (nr, a, b, e, d, f, g) => once(Number(c.syscall(nr, a, b, e, d, f, g))),
  }
}
