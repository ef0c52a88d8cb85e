/**
 * Syscalls: everything the rest of the project asks of the operating system, as an interface.
 * It owns the conventions (below) and nothing else: `libc.ts` binds it, `fault.test-data.ts` makes it fail.
 *
 * Every call returns what the kernel returns: a number ≥ 0, or `-errno`. Nothing throws. Memory is
 * named by its address, a plain number; descriptors are plain numbers too. Argument order and
 * meaning are those of the Linux manual's section 2.
 */

export interface Syscalls {
  open(path: number, flags: number, mode: number): number
  close(fd: number): number
  read(fd: number, buffer: number, length: number): number
  write(fd: number, buffer: number, length: number): number
  readv(fd: number, iov: number, count: number): number
  writev(fd: number, iov: number, count: number): number
  /** `argument` is an address or a plain value, as the request wants it. */
  ioctl(fd: number, request: number, argument: number): number
  fcntl(fd: number, command: number, argument: number): number
  dup3(oldFd: number, newFd: number, flags: number): number
  poll(fds: number, count: number, timeoutMs: number): number
  eventfd(initial: number, flags: number): number
  epollCreate(flags: number): number
  epollCtl(epoll: number, operation: number, fd: number, event: number): number
  epollWait(epoll: number, events: number, count: number, timeoutMs: number): number

  socket(family: number, type: number, protocol: number): number
  socketpair(family: number, type: number, protocol: number, fds: number): number
  bind(fd: number, address: number, length: number): number
  connect(fd: number, address: number, length: number): number
  listen(fd: number, backlog: number): number
  accept4(fd: number, address: number, length: number, flags: number): number
  shutdown(fd: number, how: number): number
  getsockname(fd: number, address: number, length: number): number
  getpeername(fd: number, address: number, length: number): number
  getsockopt(fd: number, level: number, name: number, value: number, length: number): number
  setsockopt(fd: number, level: number, name: number, value: number, length: number): number
  sendmsg(fd: number, message: number, flags: number): number
  recvmsg(fd: number, message: number, flags: number): number
  sendmmsg(fd: number, messages: number, count: number, flags: number): number
  /** Without a timeout: it would only be looked at after a datagram has come. */
  recvmmsg(fd: number, messages: number, count: number, flags: number): number

  setns(fd: number, kind: number): number
  unshare(flags: number): number
  mount(source: number, target: number, type: number, flags: number, data: number): number
  umount2(target: number, flags: number): number
  mkdir(path: number, mode: number): number
  unlink(path: number): number
  pidfdOpen(pid: number, flags: number): number
  pidfdGetfd(pidfd: number, fd: number, flags: number): number
  fchown(fd: number, uid: number, gid: number): number
  /** Takes the place of `fstat`, whose structure differs between architectures. */
  statx(dirFd: number, path: number, flags: number, mask: number, buffer: number): number

  /** Any other call by its number. Unused arguments are 0. */
  syscall(nr: number, a: number, b: number, c: number, d: number, e: number, f: number): number
}

export type SyscallName = keyof Syscalls
