/**
 * Offsets in the C structures of the Linux ABI (64-bit, little-endian) and its constants, under their C names. Facts
 * only: `layout.test.ts` compares every one with the system's headers. Sources: include/uapi/linux, asm-generic.
 */

/** Structures: byte offset of each member, `size` in bytes. */
export const IOVEC = { base: 0, len: 8, size: 16 } as const
export const MSGHDR = {
  name: 0,
  namelen: 8,
  iov: 16,
  iovlen: 24,
  control: 32,
  controllen: 40,
  flags: 48,
  size: 56,
} as const
/** A `msghdr`, and behind it the bytes that were moved. */
export const MMSGHDR = { len: 56, size: 64 } as const
/** The data begins at `size`; the next header follows at a multiple of 8. */
export const CMSG = { len: 0, level: 8, type: 12, size: 16 } as const
export const SOCKADDR_IN = { family: 0, port: 2, addr: 4, size: 16 } as const
export const SOCKADDR_IN6 = {
  family: 0,
  port: 2,
  flowinfo: 4,
  addr: 8,
  scopeId: 24,
  size: 28,
} as const
export const SOCKADDR_NL = { family: 0, pid: 4, groups: 8, size: 12 } as const
export const IFREQ = {
  name: 0,
  nameBytes: 16,
  flags: 16,
  ifindex: 16,
  mtu: 16,
  data: 16,
  size: 40,
} as const
export const SOCK_FILTER = { code: 0, jt: 2, jf: 3, k: 4, size: 8 } as const
export const SOCK_FPROG = { len: 0, filter: 8, size: 16 } as const
export const POLLFD = { fd: 0, events: 4, revents: 6, size: 8 } as const
/** Takes the place of `stat`, and is the same on every architecture. */
export const STATX = {
  uid: 20,
  mode: 28,
  ino: 32,
  devMajor: 136,
  devMinor: 140,
  size: 256,
} as const
export const UCRED = { pid: 0, uid: 4, gid: 8, size: 12 } as const
export const NLMSGHDR = { len: 0, type: 4, flags: 6, seq: 8, pid: 12, size: 16 } as const
/** Of an `nlmsgerr`, behind the header: the error, then the header of the request. */
export const NLMSGERR = { error: 16 } as const
export const IFINFOMSG = { family: 0, index: 4, flags: 8, change: 12, size: 16 } as const
export const RTMSG = { family: 0, dstLen: 1, type: 7, flags: 8, size: 12 } as const
/** `inet_diag_msg`; the cookie is two 32-bit halves, the lower first. */
export const INET_DIAG_MSG = {
  sport: 4,
  dport: 6,
  src: 8,
  ifindex: 40,
  cookie: 44,
  size: 72,
} as const
/** `inet_diag_req_v2`. */
export const INET_DIAG_REQ = { family: 0, protocol: 1, states: 4, sport: 8, size: 56 } as const

const packed = process.arch === 'x64' // the one architecture whose epoll_event has no padding
export const EPOLL = {
  eventData: packed ? 4 : 8,
  eventSize: packed ? 12 : 16,
  CTL_ADD: 1,
  CTL_DEL: 2,
  CTL_MOD: 3,
  IN: 1,
  OUT: 4,
  ERR: 8,
  HUP: 16,
} as const

/** Error numbers, positive. */
export const E = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  EBADFD: 77,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  EPROTOTYPE: 91,
  ENOPROTOOPT: 92,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  EHOSTUNREACH: 113,
} as const

export const O_RDONLY = 0
export const O_RDWR = 2
export const O_CREAT = 0o100
export const O_EXCL = 0o200
export const O_NONBLOCK = 0o4000
export const O_CLOEXEC = 0o2000000
export const F_DUPFD_CLOEXEC = 1030
export const AT_FDCWD = -100
export const AT_EMPTY_PATH = 0x1000
export const STATX_BASIC_STATS = 0x7ff
export const CLONE_NEWNET = 0x40000000
export const MS_BIND = 4096
export const MS_REC = 16384
export const MS_SHARED = 1 << 20
export const MNT_DETACH = 2
export const EFD_NONBLOCK = O_NONBLOCK
export const EFD_CLOEXEC = O_CLOEXEC
export const POLLIN = 1
export const POLLOUT = 4
export const POLLHUP = 0x10

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_NETLINK = 16
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_NONBLOCK = O_NONBLOCK
export const SOCK_CLOEXEC = O_CLOEXEC
export const IPPROTO_IP = 0
export const IPPROTO_TCP = 6
export const IPPROTO_UDP = 17
export const IPPROTO_IPV6 = 41
export const SOL_SOCKET = 1
export const SOL_NETLINK = 270
export const MSG_DONTWAIT = 0x40
export const MSG_NOSIGNAL = 0x4000

export const SO_REUSEADDR = 2
export const SO_ERROR = 4
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const SO_NO_CHECK = 11
export const SO_REUSEPORT = 15
export const SO_PEERCRED = 17
export const SO_BINDTODEVICE = 25
export const SO_SNDBUFFORCE = 32
export const SO_RCVBUFFORCE = 33
export const SO_MARK = 36
export const SO_PROTOCOL = 38
export const SO_DOMAIN = 39
export const SO_INCOMING_CPU = 49
export const SO_ATTACH_REUSEPORT_CBPF = 51
export const SO_COOKIE = 57
export const SO_PEERPIDFD = 77
export const SIOCGIFNAME = 0x8910
export const SIOCGIFMTU = 0x8921
export const SIOCETHTOOL = 0x8946
export const ETHTOOL_GLINK = 10
export const SIOCGIFINDEX = 0x8933
export const SIOCGSKNS = 0x894c

export const IP_PKTINFO = 8
export const IP_MTU_DISCOVER = 10
export const IP_PMTUDISC_DONT = 0
export const IPV6_MTU_DISCOVER = 23
export const IP_MTU = 14
export const IPV6_MTU = 24
export const IPV6_V6ONLY = 26
export const IPV6_RECVPKTINFO = 49
export const IPV6_PKTINFO = 50
export const UDP_NO_CHECK6_TX = 101
export const UDP_SEGMENT = 103
export const UDP_GRO = 104
export const TCP_NODELAY = 1
export const TCP_INFO = 11
export const TCP_ESTABLISHED = 1

export const IFF_UP = 1
export const IFF_MULTICAST = 0x1000
export const IFF_TUN = 0x0001
export const IFF_MULTI_QUEUE = 0x0100
export const IFF_NO_PI = 0x1000
export const IFF_VNET_HDR = 0x4000
export const IFF_TUN_EXCL = 0x8000
export const TUNSETIFF = 0x400454ca
export const TUNSETOFFLOAD = 0x400454d0
export const TUNGETIFF = 0x800454d2
export const TUNSETCARRIER = 0x400454e2
export const TUNGETDEVNETNS = 0x54e3
export const TUN_F_CSUM = 0x01
export const TUN_F_TSO4 = 0x02
export const TUN_F_TSO6 = 0x04
export const TUN_F_TSO_ECN = 0x08
export const TUN_F_USO4 = 0x20
export const TUN_F_USO6 = 0x40

/** Instructions of classic BPF, each with its addressing. */
export const BPF = {
  LD_W_ABS: 0x20,
  LD_B_ABS: 0x30,
  LD_W_LEN: 0x80,
  AND_K: 0x54,
  MOD_K: 0x94,
  ADD_K: 0x04,
  RSH_K: 0x74,
  JEQ_K: 0x15,
  JGE_K: 0x35,
  RET_K: 0x06,
  RET_A: 0x16,
} as const

export const NETLINK_ROUTE = 0
export const NETLINK_SOCK_DIAG = 4
export const NETLINK_ADD_MEMBERSHIP = 1
export const NETLINK_LISTEN_ALL_NSID = 8
export const NETLINK_EXT_ACK = 11
export const NLM_F_REQUEST = 1
export const NLM_F_ACK = 4
export const NLM_F_DUMP = 0x300
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3
export const RTM_NEWLINK = 16
export const RTM_GETLINK = 18
export const RTM_GETROUTE = 26
export const RTM_NEWNSID = 88
export const RTM_GETNSID = 90
export const IFLA_IFNAME = 3
export const IFLA_MTU = 4
export const IFLA_STATS64 = 23
export const IFLA_NET_NS_FD = 28
export const RTA_DST = 1
export const RTA_OIF = 4
export const RTA_GATEWAY = 5
export const RTA_VIA = 18
export const NETNSA_NSID = 1
export const NETNSA_FD = 3
export const RTNLGRP_LINK = 1
export const RTNLGRP_IPV4_ROUTE = 7
export const RTNLGRP_IPV4_RULE = 8
export const RTNLGRP_IPV6_ROUTE = 11
export const RTNLGRP_IPV6_RULE = 19
export const SOCK_DIAG_BY_FAMILY = 20
export const SKNLGRP_INET_TCP_DESTROY = 1
export const SKNLGRP_INET_UDP_DESTROY = 2
export const SKNLGRP_INET6_TCP_DESTROY = 3
export const SKNLGRP_INET6_UDP_DESTROY = 4

export const PR_SET_NO_NEW_PRIVS = 38
export const PR_SET_PTRACER = 0x59616d61
export const RLIMIT_NOFILE = 7

/** What a filter sees of a call; arguments are 8 bytes each, the lower half first. */
export const SECCOMP_DATA = { nr: 0, arch: 4, args: 16 } as const
export const SECCOMP_NOTIF = { id: 0, pid: 8, nr: 16, arch: 20, args: 32, size: 80 } as const
export const SECCOMP_NOTIF_RESP = { id: 0, val: 8, error: 16, flags: 20, size: 24 } as const
export const SECCOMP_NOTIF_ADDFD = {
  ...{ id: 0, flags: 8, srcfd: 12, newfd: 16, newfdFlags: 20 },
  size: 24,
} as const
export const SECCOMP_RET_ALLOW = 0x7fff0000
export const SECCOMP_RET_USER_NOTIF = 0x7fc00000
export const SECCOMP_SET_MODE_FILTER = 1
export const SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
export const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5
export const SECCOMP_IOCTL_NOTIF_RECV = 0xc0502100
export const SECCOMP_IOCTL_NOTIF_SEND = 0xc0182101
export const SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
export const SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103
export const SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
export const SECCOMP_ADDFD_FLAG_SETFD = 1
export const SECCOMP_ADDFD_FLAG_SEND = 2
