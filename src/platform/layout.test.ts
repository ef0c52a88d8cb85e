import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import * as layout from './layout.ts'
import { architecture } from './seccomp.ts'

const INCLUDES = [
  'errno.h fcntl.h poll.h sched.h stddef.h stdio.h net/if.h sys/epoll.h sys/eventfd.h sys/ioctl.h sys/mount.h sys/prctl.h sys/resource.h sys/socket.h sys/syscall.h',
  'sys/stat.h sys/uio.h netinet/in.h netinet/tcp.h netinet/udp.h linux/filter.h linux/if_tun.h linux/if_link.h',
  'linux/inet_diag.h linux/netlink.h linux/net_namespace.h linux/rtnetlink.h linux/sock_diag.h linux/sockios.h linux/ethtool.h linux/seccomp.h linux/audit.h',
]

/** Structures: their C type, and the members that are not called what we call them. */
const structures: { [name: string]: [type: string, members: { [ours: string]: string }] } = {
  IOVEC: ['struct iovec', { base: 'iov_base', len: 'iov_len' }],
  MSGHDR: [
    'struct msghdr',
    {
      name: 'msg_name',
      namelen: 'msg_namelen',
      iov: 'msg_iov',
      iovlen: 'msg_iovlen',
      control: 'msg_control',
      controllen: 'msg_controllen',
      flags: 'msg_flags',
    },
  ],
  MMSGHDR: ['struct mmsghdr', { len: 'msg_len' }],
  CMSG: ['struct cmsghdr', { len: 'cmsg_len', level: 'cmsg_level', type: 'cmsg_type' }],
  SOCKADDR_IN: ['struct sockaddr_in', { family: 'sin_family', port: 'sin_port', addr: 'sin_addr' }],
  SOCKADDR_IN6: [
    'struct sockaddr_in6',
    {
      family: 'sin6_family',
      port: 'sin6_port',
      flowinfo: 'sin6_flowinfo',
      addr: 'sin6_addr',
      scopeId: 'sin6_scope_id',
    },
  ],
  SOCKADDR_NL: ['struct sockaddr_nl', { family: 'nl_family', pid: 'nl_pid', groups: 'nl_groups' }],
  IFREQ: [
    'struct ifreq',
    {
      name: 'ifr_name',
      flags: 'ifr_flags',
      ifindex: 'ifr_ifindex',
      mtu: 'ifr_mtu',
      data: 'ifr_data',
    },
  ],
  SOCK_FILTER: ['struct sock_filter', {}],
  SOCK_FPROG: ['struct sock_fprog', {}],
  POLLFD: ['struct pollfd', {}],
  STATX: [
    'struct statx',
    {
      uid: 'stx_uid',
      mode: 'stx_mode',
      ino: 'stx_ino',
      devMajor: 'stx_dev_major',
      devMinor: 'stx_dev_minor',
    },
  ],
  UCRED: ['struct ucred', {}],
  NLMSGHDR: [
    'struct nlmsghdr',
    {
      len: 'nlmsg_len',
      type: 'nlmsg_type',
      flags: 'nlmsg_flags',
      seq: 'nlmsg_seq',
      pid: 'nlmsg_pid',
    },
  ],
  IFINFOMSG: [
    'struct ifinfomsg',
    { family: 'ifi_family', index: 'ifi_index', flags: 'ifi_flags', change: 'ifi_change' },
  ],
  RTMSG: [
    'struct rtmsg',
    { family: 'rtm_family', dstLen: 'rtm_dst_len', type: 'rtm_type', flags: 'rtm_flags' },
  ],
  INET_DIAG_MSG: [
    'struct inet_diag_msg',
    {
      sport: 'id.idiag_sport',
      dport: 'id.idiag_dport',
      src: 'id.idiag_src',
      ifindex: 'id.idiag_if',
      cookie: 'id.idiag_cookie',
    },
  ],
  SECCOMP_DATA: ['struct seccomp_data', {}],
  SECCOMP_NOTIF: ['struct seccomp_notif', { nr: 'data.nr', arch: 'data.arch', args: 'data.args' }],
  SECCOMP_NOTIF_RESP: ['struct seccomp_notif_resp', {}],
  SECCOMP_NOTIF_ADDFD: ['struct seccomp_notif_addfd', { newfdFlags: 'newfd_flags' }],
  INET_DIAG_REQ: [
    'struct inet_diag_req_v2',
    {
      family: 'sdiag_family',
      protocol: 'sdiag_protocol',
      states: 'idiag_states',
      sport: 'id.idiag_sport',
    },
  ],
}

/** What has another form in C. */
const expressions: { [name: string]: string } = {
  'IFREQ.nameBytes': 'IFNAMSIZ',
  'NLMSGERR.error': 'sizeof(struct nlmsghdr) + offsetof(struct nlmsgerr, error)',
  'EPOLL.eventData': 'offsetof(struct epoll_event, data)',
  'EPOLL.eventSize': 'sizeof(struct epoll_event)',
  'EPOLL.CTL_ADD': 'EPOLL_CTL_ADD',
  'EPOLL.CTL_DEL': 'EPOLL_CTL_DEL',
  'EPOLL.CTL_MOD': 'EPOLL_CTL_MOD',
  'EPOLL.IN': 'EPOLLIN',
  'EPOLL.OUT': 'EPOLLOUT',
  'EPOLL.ERR': 'EPOLLERR',
  'EPOLL.HUP': 'EPOLLHUP',
  'BPF.LD_W_ABS': 'BPF_LD | BPF_W | BPF_ABS',
  'BPF.LD_B_ABS': 'BPF_LD | BPF_B | BPF_ABS',
  'BPF.LD_W_LEN': 'BPF_LD | BPF_W | BPF_LEN',
  'BPF.AND_K': 'BPF_ALU | BPF_AND | BPF_K',
  'BPF.MOD_K': 'BPF_ALU | BPF_MOD | BPF_K',
  'BPF.ADD_K': 'BPF_ALU | BPF_ADD | BPF_K',
  'BPF.RSH_K': 'BPF_ALU | BPF_RSH | BPF_K',
  'BPF.JEQ_K': 'BPF_JMP | BPF_JEQ | BPF_K',
  'BPF.JGE_K': 'BPF_JMP | BPF_JGE | BPF_K',
  'BPF.RET_K': 'BPF_RET | BPF_K',
  'BPF.RET_A': 'BPF_RET | BPF_A',
}

/** The headers of older systems lack these: tun.test.ts and fds.test.ts see whether the kernel takes them. */
const recent = new Set(['TUN_F_USO4', 'TUN_F_USO6', 'SO_PEERPIDFD'])

interface Fact {
  name: string
  expression: string
  value: number
}

function facts(): Fact[] {
  return Object.entries(layout).flatMap(([name, value]): Fact[] => {
    if (recent.has(name)) return []
    if (typeof value === 'number') return [{ name, expression: name, value }]
    return Object.entries(value).map(([member, number]: [string, number]) => {
      const full = `${name}.${member}`
      return { name: full, expression: inC(full, name, member), value: number }
    })
  })
}

/** Numbers of system calls of this processor: `rtSigaction` is `__NR_rt_sigaction`. */
function callNumbers(): Fact[] {
  if (architecture === undefined) return []
  const { audit, calls, ...more } = architecture
  const name = process.arch === 'arm64' ? 'AUDIT_ARCH_AARCH64' : 'AUDIT_ARCH_X86_64'
  const numbers = Object.entries({ ...calls, ...more }) as [string, number | undefined][]
  return [
    { name, expression: name, value: audit },
    ...numbers.flatMap(([call, value]): Fact[] => {
      const inC = call.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
      return value === undefined ? [] : [{ name: call, expression: `__NR_${inC}`, value }]
    }),
  ]
}

function inC(full: string, name: string, member: string): string {
  const other = expressions[full]
  if (other !== undefined) return other
  if (name === 'E') return member
  const [type, members] = structures[name] ?? assert.fail(`${full} has no meaning in C here`)
  return member === 'size' ? `sizeof(${type})` : `offsetof(${type}, ${members[member] ?? member})`
}

function compiled(all: Fact[]): Map<string, number> {
  const folder = mkdtempSync(join(tmpdir(), 'ovpn-layout-'))
  try {
    const lines = all.map(
      ({ name, expression }) => `printf("%s %lld\\n", "${name}", (long long)(${expression}));`,
    )
    const source = [
      '#define _GNU_SOURCE',
      ...INCLUDES.join(' ')
        .split(' ')
        .map((header) => `#include <${header}>`),
      `int main(void) {\n${lines.join('\n')}\nreturn 0; }`,
    ].join('\n')
    writeFileSync(join(folder, 'facts.c'), source)
    execFileSync('gcc', ['-o', join(folder, 'facts'), join(folder, 'facts.c')], { stdio: 'pipe' })
    const output = execFileSync(join(folder, 'facts'), { encoding: 'utf8' })
    return new Map(
      output
        .trim()
        .split('\n')
        .map((line) => {
          const [name = '', value] = line.split(' ')
          return [name, Number(value)]
        }),
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const gcc = spawnSync('gcc', ['--version']).status === 0
const skip = gcc ? false : 'gcc is not installed'

describe('the layout of C structures, and constants', { skip }, () => {
  const all = [...facts(), ...callNumbers()]
  const system = gcc ? compiled(all) : new Map<string, number>()
  for (const { name, value } of all) {
    it(`${name} is ${value}`, () => assert.equal(value, system.get(name)))
  }
})
