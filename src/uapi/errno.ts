/** Error numbers of the API, and the error that carries one. Numbers are Linux's (asm-generic/errno.h). */

/** Those that occur: ours, and what a kernel's driver passes on from its sockets. */
const numbers = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOSPC: 28,
  EPIPE: 32,
  ERANGE: 34,
  ENODATA: 61,
  EPROTO: 71,
  EBADMSG: 74,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
} as const

export type Errno = keyof typeof numbers

const names = new Map(Object.entries(numbers).map(([name, number]) => [number, name as Errno]))

/** The positive number of an errno. */
export function errnoNumber(errno: Errno): number {
  return numbers[errno]
}

/** The name of a positive errno; undefined for one that is not in the table. */
export function errnoName(number: number): Errno | undefined {
  return names.get(number as (typeof numbers)[Errno])
}

/**
 * What extended acknowledgements say beside a text (NLMSGERR_ATTR_*). A missing attribute is found by the handler of a
 * command, so in a dump it belongs into DONE; what has an offset is found before, and is an error even there.
 */
export interface ErrorDetail {
  /** Type of the missing attribute, in the numbers of the dialect. */
  missType?: number
  /** Where the nest starts that lacks it, in bytes from the start of the netlink message, its header included. */
  missNest?: number
  /** Where the offending attribute starts, counted likewise. */
  offset?: number
  /** Set where the kernel's handler finds the mistake, which looks this interface up before: ENODEV comes first. */
  ifindex?: number
}

/**
 * A refused request. `message` is what goes into an extended acknowledgement: the reason, and the attribute it is
 * about unless the reason stands alone (`'remote port without a remote address: peer.remote-port'`).
 * INVARIANT: neither reason nor attribute ever holds key material.
 */
export class ApiError extends Error {
  readonly errno: Errno
  readonly reason: string
  readonly attribute: string | undefined
  readonly missType: number | undefined
  readonly missNest: number | undefined
  readonly offset: number | undefined
  readonly ifindex: number | undefined

  constructor(errno: Errno, reason: string, attribute?: string, detail: ErrorDetail = {}) {
    super(attribute === undefined ? reason : `${reason}: ${attribute}`)
    this.name = 'ApiError'
    this.errno = errno
    this.reason = reason
    this.attribute = attribute
    this.missType = detail.missType
    this.missNest = detail.missNest
    this.offset = detail.offset
    this.ifindex = detail.ifindex
  }

  /** The same as `errno`, as errors of Node and of this library have it. */
  get code(): Errno {
    return this.errno
  }

  /** The same, as the handler of a request about `ifindex` finds it. */
  about(ifindex: number): ApiError {
    const { missType, missNest, offset } = this
    const detail: ErrorDetail = { ifindex }
    if (missType !== undefined) detail.missType = missType
    if (missNest !== undefined) detail.missNest = missNest
    if (offset !== undefined) detail.offset = offset
    return new ApiError(this.errno, this.reason, this.attribute, detail)
  }

  /** What an error reply says; a number that is not in the table becomes EPROTO, told in the text. */
  static from(number: number, text = '', detail: ErrorDetail = {}): ApiError {
    const errno = errnoName(number)
    if (errno === undefined) return new ApiError('EPROTO', text || `errno ${number}`)
    return new ApiError(errno, text || errno, undefined, detail)
  }
}
